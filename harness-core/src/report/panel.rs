//! The metrics panel and the decision matrix, as data and for a terminal.

use harness_props::Outcome;

use super::model::{Model, PanelLine, Tally};
use super::text::{count, one_line, short};
use crate::record::{CriterionRecord, PanelRecord};

/// Whether a terminal panel may use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only: for files, pipes and `NO_COLOR`.
    Plain,
    /// ANSI colours besides words and symbols.
    Colour,
}

impl Style {
    /// Colour on a terminal unless `NO_COLOR` holds anything (<https://no-color.org>).
    #[must_use]
    pub fn choose(is_terminal: bool, no_color: Option<&str>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        if is_terminal && !refused { Self::Colour } else { Self::Plain }
    }

    fn paint(self, outcome: &Outcome, text: &str) -> String {
        let code = match outcome {
            _ if self == Self::Plain => return text.to_owned(),
            Outcome::Pass { .. } => 32,
            Outcome::Degraded { .. } => 33,
            Outcome::Fail { .. } => 31,
            Outcome::NoEvidence { .. } => 35,
            Outcome::NotApplicable { .. } => 90,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// One of the usual lines: the words its metric must hold, or, within a category, the words that suffice there.
struct Usual {
    label: &'static str,
    words: &'static [&'static str],
    category: &'static str,
    within: &'static [&'static str],
    /// Without a criterion, the share of the category's scenarios that passed stands in.
    share: bool,
}

const USUAL: [Usual; 6] = [
    Usual {
        label: "Concurrency success",
        words: &["concurren", "success"],
        category: "concurren",
        within: &["success"],
        share: true,
    },
    Usual {
        label: "WebSocket success",
        words: &["websocket", "success"],
        category: "websocket",
        within: &["success"],
        share: true,
    },
    Usual { label: "Database P95", words: &["database", "p95"], category: "database", within: &["p95"], share: false },
    Usual { label: "Throughput", words: &["throughput"], category: "", within: &[], share: false },
    Usual { label: "Token reduction", words: &["token"], category: "", within: &[], share: false },
    Usual { label: "Cache hit", words: &["cache", "hit"], category: "cache", within: &["hit"], share: false },
];

/// Resolves the panel: the lines the campaign named, else the usual six.
pub(super) fn lines(model: &Model, named: Option<&[PanelRecord]>) -> Vec<PanelLine> {
    match named {
        Some(rows) => rows.iter().map(|row| line(&row.label, named_metric(model, &row.metric))).collect(),
        None => USUAL.iter().map(|usual| usual.resolve(model)).collect(),
    }
}

impl Usual {
    fn resolve(&self, model: &Model) -> PanelLine {
        let holds = |metric: &str, words: &[&str]| {
            let metric = metric.to_lowercase();
            !words.is_empty() && words.iter().all(|word| metric.contains(word))
        };
        let found = with_category(model).find(|(_, criterion)| holds(&criterion.metric, self.words)).or_else(|| {
            with_category(model).find(|(category, criterion)| {
                !self.category.is_empty() && holds(category, &[self.category]) && holds(&criterion.metric, self.within)
            })
        });
        match found {
            None if self.share => self.category_share(model),
            found => line(self.label, found.map(|(_, criterion)| criterion)),
        }
    }

    fn category_share(&self, model: &Model) -> PanelLine {
        let members = model.scenarios.iter().filter(|one| one.declared.category.to_lowercase().contains(self.category));
        let outcomes: Vec<&Outcome> = members.map(|one| &one.outcome).collect();
        let tally: Tally = outcomes.iter().copied().collect();
        let counted = tally.total - tally.not_applicable;
        if counted == 0 || counted == tally.no_evidence {
            return line(self.label, None);
        }
        let good = tally.pass + tally.degraded;
        // Rounded down: 99.96 % must not read as 100 %.
        let tenths = good * 1000 / counted;
        PanelLine {
            label: self.label.to_owned(),
            value: format!("{}.{} % ({good} of {})", tenths / 10, tenths % 10, count(counted, "scenario")),
            target: "every scenario".to_owned(),
            outcome: Outcome::worst(outcomes.into_iter().cloned()),
        }
    }
}

fn with_category(model: &Model) -> impl Iterator<Item = (&str, &CriterionRecord)> {
    let own = model.matrix.iter().map(|row| ("", row));
    own.chain(
        model
            .scenarios
            .iter()
            .flat_map(|one| one.criteria.iter().map(|criterion| (one.declared.category.as_str(), criterion))),
    )
}

fn named_metric<'a>(model: &'a Model, metric: &str) -> Option<&'a CriterionRecord> {
    with_category(model).map(|(_, criterion)| criterion).find(|criterion| criterion.metric == metric)
}

fn line(label: &str, criterion: Option<&CriterionRecord>) -> PanelLine {
    match criterion {
        Some(criterion) => PanelLine {
            label: label.to_owned(),
            value: criterion.actual.clone(),
            target: criterion.target.clone(),
            outcome: criterion.outcome.clone(),
        },
        None => PanelLine {
            label: label.to_owned(),
            value: String::new(),
            target: String::new(),
            outcome: Outcome::no_evidence("no criterion of this run measures it"),
        },
    }
}

/// A symbol beside the word, so that nothing rests on colour alone.
pub(super) fn symbol(outcome: &Outcome) -> char {
    match outcome {
        Outcome::Pass { .. } => '✓',
        Outcome::Degraded { .. } => '!',
        Outcome::Fail { .. } => '✗',
        Outcome::NoEvidence { .. } => '?',
        Outcome::NotApplicable { .. } => '–',
    }
}

/// The value to show, or `no data`.
pub(super) fn value_or_no_data(value: &str) -> String {
    if value.trim().is_empty() { "no data".to_owned() } else { one_line(value) }
}

/// The panel for a terminal: the metrics in a box, the decision matrix, the decision with its reasons, the counts.
#[must_use]
pub fn panel(model: &Model, style: Style) -> String {
    let mut out = boxed(model, style);
    out.push_str(&matrix(model, style));
    out.push_str(&decision(model, style));
    out
}

fn boxed(model: &Model, style: Style) -> String {
    let rows: Vec<([String; 3], &Outcome)> = model
        .panel
        .iter()
        .map(|line| {
            let value = short(&value_or_no_data(&line.value), 28);
            ([short(&line.label, 28), value, short(&line.target, 18)], &line.outcome)
        })
        .collect();
    let [first, second, third] = [0, 1, 2].map(|n| rows.iter().map(|row| row.0[n].chars().count()).max().unwrap_or(0));
    let inner = first + second + third + 6 + 15;
    let title = short(&model.run.subject, inner.saturating_sub(4));
    let mut out = format!("╭─ {title} {}╮\n", "─".repeat(inner.saturating_sub(title.chars().count() + 1)));
    for ([label, value, target], outcome) in &rows {
        let verdict = style.paint(outcome, &format!("{} {:<13}", symbol(outcome), outcome.word()));
        out.push_str(&format!("│ {label:<first$}  {value:>second$}  {target:<third$}  {verdict} │\n"));
    }
    out.push_str(&format!("╰{}╯\n", "─".repeat(inner + 2)));
    out
}

fn matrix(model: &Model, style: Style) -> String {
    let mut rows = vec![["row", "target", "critical", "actual", "verdict"].map(str::to_owned)];
    let mut outcomes: Vec<Option<&Outcome>> = vec![None];
    for row in model.matrix_rows() {
        rows.push([
            short(&row_name(row), 44),
            short(&row.target, 18),
            short(&row.critical, 18),
            short(&value_or_no_data(&row.actual), 22),
            format!("{} {}", symbol(&row.outcome), row.outcome.word()),
        ]);
        outcomes.push(Some(&row.outcome));
    }
    if rows.len() == 1 {
        return "\nDecision matrix: no criterion was judged\n".to_owned();
    }
    let widths: Vec<usize> = (0..4).map(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
    let mut out = "\nDecision matrix\n".to_owned();
    for (row, outcome) in rows.iter().zip(outcomes) {
        out.push_str("  ");
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("{cell:<width$}  "));
        }
        out.push_str(&outcome.map_or_else(|| row[4].clone(), |outcome| style.paint(outcome, &row[4])));
        out.push('\n');
    }
    out
}

/// The requirement, the scenario and the metric of a row, as far as there are.
pub(super) fn row_name(row: &CriterionRecord) -> String {
    let parts = [row.requirement.as_str(), row.scenario.as_str(), row.metric.as_str()];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" · ")
}

fn decision(model: &Model, style: Style) -> String {
    let mut out = String::from("\n");
    match &model.decision {
        Some(decision) => {
            let like = verdict_outcome(&decision.verdict);
            let verdict = format!("{} {}", symbol(&like), one_line(&decision.verdict));
            out.push_str(&format!("{}  (exit {})\n", style.paint(&like, &verdict), decision.exit_code));
            decision.reasons.iter().for_each(|reason| out.push_str(&format!("  - {}\n", one_line(reason))));
            if !decision.release.is_empty() {
                out.push_str(&format!("  release: {}\n", one_line(&decision.release)));
            }
        }
        None => out.push_str("? NO DECISION  no campaign recorded one\n"),
    }
    if !model.run.plants.is_empty() {
        out.push_str(&format!("  PLANTED DEFECTS IN FORCE: {}\n", one_line(&model.run.plants.join(", "))));
    }
    out.push_str(&format!("  {}\n", tally_sentence(&model.totals.scenarios)));
    out
}

/// The colour of a verdict, as an outcome.
pub(super) fn verdict_outcome(verdict: &str) -> Outcome {
    match verdict {
        "GO" => Outcome::pass(""),
        "CONDITIONAL" => Outcome::degraded(""),
        "NO-GO" => Outcome::fail(""),
        _ => Outcome::no_evidence(""),
    }
}

/// `14 scenarios: 10 pass, 1 degraded, …`; what is zero is left out.
pub(super) fn tally_sentence(tally: &Tally) -> String {
    let parts: Vec<String> = tally_parts(tally)
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, outcome)| format!("{n} {}", outcome.word()))
        .collect();
    let parts = if parts.is_empty() { "nothing ran".to_owned() } else { parts.join(", ") };
    format!("{}: {parts}", count(tally.total, "scenario"))
}

/// The parts of a tally with an outcome that stands for each.
pub(super) fn tally_parts(tally: &Tally) -> [(usize, Outcome); 5] {
    [
        (tally.pass, Outcome::pass("")),
        (tally.degraded, Outcome::degraded("")),
        (tally.fail, Outcome::fail("")),
        (tally.no_evidence, Outcome::no_evidence("")),
        (tally.not_applicable, Outcome::not_applicable("")),
    ]
}
