//! The Markdown summary, gravest things first, so that what is cut at the end matters least.

use std::fmt::Write;

use harness_props::Outcome;

use super::follow_up::FollowUp;
use super::model::{Model, Scenario};
use super::panel::{row_name, symbol, tally_sentence, value_or_no_data, verdict_outcome};
use super::text::{clean, cut, duration, one_line};

/// What a CI step summary takes; more would be refused whole.
const LIMIT: usize = 1024 * 1024;
/// Kept free for the sentence that says how much was left out.
const RESERVE: usize = 512;
/// A failure message longer than this is cut in the summary.
const MESSAGE: usize = 8 * 1024;

struct Page {
    text: String,
    limit: usize,
    left_out: usize,
}

impl Page {
    /// Adds a whole block, or counts it as left out. Once something was left out, all later blocks are: they matter less.
    fn add(&mut self, block: &str) {
        if self.left_out > 0 || self.text.len() + block.len() > self.limit {
            self.left_out += 1;
        } else {
            self.text.push_str(block);
        }
    }

    fn table(&mut self, title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        self.add(&format!("\n## {title}\n\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
            self.add(&format!("| {} |\n", cells.join(" | ")));
        }
    }
}

/// Text from records, so that it cannot become markup; what can only be text stays as it is, to be read raw too.
fn escape(text: &str) -> String {
    let line = one_line(text);
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        let markup = match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' => true,
            '<' => next.is_ascii_alphabetic() || matches!(next, '/' | '!' | '?'),
            '&' => next.is_ascii_alphanumeric() || next == '#',
            '#' | '>' | '-' | '+' | '=' => out.is_empty(),
            _ => false,
        };
        if markup {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A fenced block whose fence is longer than any run of backticks inside.
fn fenced(text: &str) -> String {
    let text = clean(&cut(text, MESSAGE));
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}\n")
}

/// The whole summary, at most 1 MiB.
pub(super) fn render(model: &Model) -> String {
    within(model, LIMIT)
}

fn within(model: &Model, limit: usize) -> String {
    let mut page = Page { text: String::new(), limit: limit.saturating_sub(RESERVE), left_out: 0 };
    head(&mut page, model);
    failures(&mut page, model);
    tables(&mut page, model);
    environment(&mut page, model);
    if page.left_out > 0 {
        let left_out = page.left_out;
        let _ = write!(
            page.text,
            "\n> {left_out} parts were left out to keep this short. `index.html` holds everything.\n"
        );
    }
    page.text
}

fn head(page: &mut Page, model: &Model) {
    let verdict = model.decision.as_ref().map_or("NO DECISION", |decision| decision.verdict.as_str());
    let mark = symbol(&verdict_outcome(verdict));
    page.add(&format!("# {mark} {} — {}\n\n", escape(verdict), escape(&model.run.subject)));
    if !model.run.plants.is_empty() {
        page.add(&format!(
            "> **Planted defects in force: {}.** This is not an honest run.\n\n",
            escape(&model.run.plants.join(", "))
        ));
    }
    page.add(&format!("{}.\n", tally_sentence(&model.totals.scenarios)));
    match &model.decision {
        Some(decision) => {
            if !decision.release.is_empty() {
                page.add(&format!("Release: {}.\n", escape(&decision.release)));
            }
            if !decision.reasons.is_empty() {
                page.add("\n## Reasons\n\n");
                decision.reasons.iter().for_each(|reason| page.add(&format!("1. {}\n", escape(reason))));
            }
        }
        None => page.add("No campaign recorded a decision.\n"),
    }
    if let Some(next) = FollowUp::of(model) {
        page.add("\n## Before the next decision\n");
        for (name, lines) in next.parts().into_iter().filter(|(_, lines)| !lines.is_empty()) {
            page.add(&format!("\n{name}:\n\n"));
            lines.iter().for_each(|line| page.add(&format!("- {}\n", escape(line))));
        }
    }
    if let Some(since) = &model.since {
        page.add(&format!("\n{}\n", escape(&since.sentence())));
    }
}

fn failures(page: &mut Page, model: &Model) {
    for (title, wanted) in [("Failures", true), ("Without evidence", false)] {
        let wants = |one: &&Scenario| {
            if wanted { one.outcome.is_fail() } else { one.outcome.is_no_evidence() }
        };
        let mut matching: Vec<&Scenario> = model.scenarios.iter().filter(wants).collect();
        matching.sort_by_key(|one| !one.declared.critical);
        if !matching.is_empty() {
            page.add(&format!("\n## {title}\n"));
        }
        for one in matching {
            let declared = &one.declared;
            let critical = if declared.critical { " (critical)" } else { "" };
            let mut block = format!(
                "\n### {} {}{critical}\n\n{}\n",
                escape(&declared.id),
                escape(&declared.title),
                escape(one.outcome.detail())
            );
            if !one.message.is_empty() {
                let _ = write!(block, "\n{}", fenced(&one.message));
            }
            if !declared.remedy.is_empty() {
                let _ = write!(block, "\nRemedy: {}\n", escape(&declared.remedy));
            }
            if !one.again.is_empty() {
                let _ = write!(block, "\n{}", fenced(&one.again));
            }
            page.add(&block);
        }
    }
}

fn word(outcome: &Outcome) -> String {
    format!("{} {}", symbol(outcome), outcome.word())
}

fn tables(page: &mut Page, model: &Model) {
    page.table(
        "Metrics",
        &["metric", "actual", "target", "verdict"],
        model.panel.iter().map(|line| {
            vec![line.label.clone(), value_or_no_data(&line.value), line.target.clone(), word(&line.outcome)]
        }),
    );
    page.table(
        "Criteria",
        &["row", "target", "critical", "actual", "samples", "verdict"],
        model.matrix_rows().map(|row| {
            let (target, critical) = (row.target.clone(), row.critical.clone());
            vec![
                row_name(row),
                target,
                critical,
                value_or_no_data(&row.actual),
                row.samples.to_string(),
                word(&row.outcome),
            ]
        }),
    );
    page.table(
        "Phases",
        &["phase", "took", "budget", "result"],
        model.phases.iter().map(|phase| {
            let took = phase.took_ms.map_or_else(|| "end not recorded".to_owned(), duration);
            let result = match (phase.took_ms, phase.overran) {
                (None, _) => "? no evidence",
                (_, true) => "✗ over budget",
                (_, false) => "✓ within budget",
            };
            vec![phase.name.clone(), took, duration(phase.budget_ms as f64), result.to_owned()]
        }),
    );
    page.table(
        "Findings and workarounds",
        &["severity", "finding", "found by", "assignee", "due", "until then"],
        model.tickets.iter().map(|ticket| {
            let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
            vec![
                format!("{:?} {}", ticket.severity, ticket.severity.word()),
                ticket.title.clone(),
                ticket.found_by.clone(),
                or(&ticket.assignee, "unassigned"),
                or(&ticket.due, "backlog"),
                or(&ticket.remedy, "—"),
            ]
        }),
    );
    page.table(
        "Scenarios",
        &["scenario", "title", "phase", "took", "outcome"],
        model.scenarios.iter().map(|one| {
            let flaky = if one.flaky { " (flaky)" } else { "" };
            let declared = &one.declared;
            let took = if one.ran { duration(one.took_ms) } else { "not run".to_owned() };
            vec![declared.id.clone(), declared.title.clone(), declared.phase.clone(), took, word(&one.outcome) + flaky]
        }),
    );
    let probes = model.preflight.iter().filter(|probe| !probe.outcome.is_pass());
    page.table(
        "Pre-flight",
        &["probe", "result", "detail", "remedy"],
        probes.map(|probe| {
            let detail = probe.outcome.detail().to_owned();
            vec![probe.probe.clone(), word(&probe.outcome), detail, probe.remedy.clone()]
        }),
    );
    let rows = model.not_in_scope.iter().map(|row| vec![row.row.clone(), row.why.clone()]);
    page.table("Not in scope", &["row", "why"], rows);
}

fn environment(page: &mut Page, model: &Model) {
    let run = &model.run;
    page.add("\n## Environment\n\n");
    for (name, value) in [
        ("Run", run.id.as_str()),
        ("Started", &run.started),
        ("Seed", &run.seed),
        ("Profile", &run.profile),
        ("Command", &run.command),
    ] {
        if !value.is_empty() {
            page.add(&format!("- {name}: {}\n", escape(value)));
        }
    }
    for machine in &run.machines {
        let text = format!(
            "{} × {}, {} MiB, {}, {}",
            machine.cores, machine.cpu, machine.memory_mib, machine.kernel, machine.build
        );
        page.add(&format!("- Machine: {}\n", escape(&text)));
    }
    run.choices.iter().for_each(|choice| page.add(&format!("- Choice: {}\n", escape(choice))));
    model.warnings.iter().for_each(|warning| page.add(&format!("- Warning: {}\n", escape(warning))));
    for torn in &model.torn {
        page.add(&format!("- Lost line: {}:{}: {}\n", escape(&torn.path), torn.line, escape(&torn.why)));
    }
}

#[cfg(test)]
mod tests {
    use super::{escape, fenced, within};
    use crate::report::sample;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(escape("a|b\n<script>`x`"), "a\\|b \\<script>\\`x\\`");
        assert_eq!(escape("# < 250 ms &amp; a&b"), "\\# < 250 ms \\&amp; a\\&b");
        assert!(fenced("x ```` y").starts_with("`````text\n"));
        assert!(fenced(&"é".repeat(9000)).contains("cut here"));
    }

    #[test]
    fn cuts_the_least_important_and_says_so() {
        let model = sample::campaign();
        let whole = within(&model, 1 << 20);
        let cut = within(&model, 3000);
        assert!(cut.len() <= 3000 && whole.len() > 3000, "{} {}", cut.len(), whole.len());
        assert!(cut.contains("NO-GO") && cut.contains("## Reasons"), "the decision comes first");
        assert!(cut.contains("parts were left out") && !whole.contains("parts were left out"));
    }
}
