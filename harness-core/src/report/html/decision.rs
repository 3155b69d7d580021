//! The top of the page: the decision, why, the release, the totals, the metrics, the matrix.

use harness_props::Outcome;

use super::write::Html;
use super::{badge, class, section};
use crate::record::CriterionRecord;
use crate::report::model::{Decision, Model, Tally};
use crate::report::panel::{tally_parts, value_or_no_data, verdict_outcome};
use crate::report::text::{count, grouped, one_line};

/// A banner nobody overlooks when the run was not an honest one.
pub(super) fn plants(h: &mut Html, model: &Model) {
    let plants = &model.run.plants;
    if plants.is_empty() {
        return;
    }
    h.el("aside", &[("class", "plants"), ("aria-label", "Planted defects")], |h| {
        h.el("p", &[], |h| {
            h.leaf(
                "strong",
                &[],
                &format!(
                    "{} in force: ",
                    if plants.len() == 1 { "A planted defect is" } else { "Planted defects are" }
                ),
            );
            h.leaf("code", &[], &plants.join(", "));
            h.text(". This run shows that the checks can fail; it says nothing about the subject.");
        });
    });
}

/// The decision, its reasons, the release and the totals.
pub(super) fn hero(h: &mut Html, model: &Model) {
    let none = Decision { verdict: "NO DECISION".into(), reasons: Vec::new(), release: String::new(), exit_code: 0 };
    let decision = model.decision.as_ref().unwrap_or(&none);
    let like = verdict_outcome(&decision.verdict);
    h.el("section", &[("id", "decision"), ("aria-label", "Decision")], |h| {
        h.div("card hero", |h| {
            h.div(&format!("slab v-{}", class(&like)), |h| {
                h.leaf("p", &[("class", "label")], "Decision");
                let long = if decision.verdict.chars().count() > 7 { "long" } else { "short" };
                h.leaf("h1", &[("class", &format!("{long} {}", class(&like)))], &decision.verdict);
                h.leaf("p", &[], &model.run.subject);
                if model.decision.is_some() {
                    h.leaf("p", &[], &format!("Exit code {}", decision.exit_code));
                }
            });
            h.div("why", |h| why(h, model, decision));
            release(h, model, decision);
        });
    });
}

fn why(h: &mut Html, model: &Model, decision: &Decision) {
    h.leaf("h2", &[], "Reasons");
    if model.decision.is_none() {
        h.leaf(
            "p",
            &[("class", "empty")],
            "No campaign recorded a decision: these are the results of tests that ran on their own.",
        );
    } else if decision.reasons.is_empty() {
        h.leaf("p", &[("class", "empty")], "None against it: every criterion met its target and every scenario held.");
    } else {
        h.el("ol", &[], |h| {
            for reason in &decision.reasons {
                h.el("li", &[], |h| h.leaf("span", &[], reason));
            }
        });
    }
}

fn release(h: &mut Html, model: &Model, decision: &Decision) {
    if decision.release.is_empty() && model.stamps.is_empty() {
        return;
    }
    h.div("release", |h| {
        if !decision.release.is_empty() {
            h.el("div", &[], |h| {
                h.leaf("span", &[("class", "label")], "Release");
                h.leaf("b", &[], &decision.release);
            });
        }
        if !model.stamps.is_empty() {
            h.el("ul", &[("class", "steps-line"), ("aria-label", "Steps of the campaign")], |h| {
                for stamp in &model.stamps {
                    h.el("li", &[], |h| {
                        h.text(&format!("{} ", stamp.name));
                        h.leaf("time", &[("datetime", &stamp.at)], &clock(&stamp.at));
                    });
                }
            });
        }
    });
}

/// `12:04:31` of an RFC 3339 timestamp.
fn clock(at: &str) -> String {
    at.split_once('T').map_or(at, |(_, time)| time.get(..8).unwrap_or(time)).to_owned()
}

/// How many scenarios ended how, as a bar and in words.
pub(super) fn totals(h: &mut Html, model: &Model) {
    let scenarios = &model.totals.scenarios;
    let note = format!("{} · {}", count(scenarios.total, "scenario"), criteria_note(&model.totals.criteria));
    section(h, "totals", "Results", &note, |h| {
        h.div("totals", |h| {
            h.el("div", &[("class", "stack"), ("aria-hidden", "true")], |h| {
                for (n, outcome) in tally_parts(scenarios).iter().filter(|(n, _)| *n > 0) {
                    h.leaf("span", &[("class", class(outcome)), ("style", &format!("flex:{n}"))], "");
                }
            });
            h.el("ul", &[("class", "legend-totals")], |h| {
                for (n, outcome) in tally_parts(scenarios) {
                    h.el("li", &[("class", &format!("mark {}", class(&outcome)))], |h| {
                        h.leaf("b", &[("data-total", outcome.word())], &n.to_string());
                        h.text(&format!(" {}", outcome.word()));
                    });
                }
                if model.totals.flaky > 0 {
                    h.leaf("li", &[], &format!("{} flaky", model.totals.flaky));
                }
            });
        });
    });
}

fn criteria_note(tally: &Tally) -> String {
    match tally.total {
        0 => "no criterion was judged".to_owned(),
        total => format!(
            "{} of {} within target",
            tally.pass,
            if total == 1 { "1 criterion".to_owned() } else { format!("{total} criteria") }
        ),
    }
}

/// The lines of the metrics panel as tiles.
pub(super) fn metrics(h: &mut Html, model: &Model) {
    section(h, "metrics", "Key metrics", "", |h| {
        h.el("dl", &[("class", "tiles")], |h| {
            for line in &model.panel {
                h.div(&format!("card tile {}", class(&line.outcome)), |h| {
                    h.leaf("dt", &[], &line.label);
                    let value = value_or_no_data(&line.value);
                    let (big, small) =
                        value.split_once(" (").map_or((value.as_str(), None), |(big, rest)| (big, Some(rest)));
                    h.el("dd", &[("class", "value")], |h| {
                        h.text(big);
                        if let Some(rest) = small {
                            h.leaf("small", &[], &format!(" {}", rest.trim_end_matches(')')));
                        }
                    });
                    h.el("dd", &[("class", "rest")], |h| {
                        let target = if line.target.is_empty() {
                            "not measured".to_owned()
                        } else {
                            format!("target {}", typeset(&line.target))
                        };
                        h.leaf("span", &[], &target);
                        badge(h, &line.outcome);
                    });
                });
            }
        });
    });
}

/// The decision matrix.
pub(super) fn matrix(h: &mut Html, model: &Model) {
    let rows: Vec<&CriterionRecord> = model.matrix_rows().collect();
    let note = if model.matrix.is_empty() { "the criteria of all scenarios" } else { "the rows that decide" };
    section(h, "matrix", "Decision matrix", note, |h| {
        if rows.is_empty() {
            h.leaf("p", &[("class", "empty")], "No criterion was judged.");
            return;
        }
        h.div("card", |h| criteria_table(h, &rows, "Decision matrix", true));
    });
}

/// A table of criteria; `cards` makes its rows cards where there is little room.
///
/// The roles of those repeat what the elements say: some readers forget it when a row becomes something else.
pub(super) fn criteria_table(h: &mut Html, rows: &[&CriterionRecord], label: &str, cards: bool) {
    let columns = Columns {
        cards,
        scenario: cards && rows.iter().any(|row| !row.scenario.is_empty()),
        colour: rows.iter().any(|row| !row.colour.is_empty()),
        blocking: rows.iter().any(|row| row.is_critical) && rows.iter().any(|row| !row.is_critical),
    };
    let (frame, class) = if cards { ("scroll", "criteria cards") } else { ("scroll frame-table", "criteria") };
    h.el("div", &[("class", frame), ("tabindex", "0"), ("role", "region"), ("aria-label", label)], |h| {
        h.el("table", &columns.role("table", &[("class", class)]), |h| {
            h.el("thead", &columns.role("rowgroup", &[]), |h| {
                h.el("tr", &columns.role("row", &[]), |h| {
                    for name in ["Criterion", "Target", "Critical", "Actual", "Samples", "Colour", "Verdict"] {
                        if name != "Colour" || columns.colour {
                            h.leaf("th", &columns.role("columnheader", &[("scope", "col")]), name);
                        }
                    }
                });
            });
            h.el("tbody", &columns.role("rowgroup", &[]), |h| rows.iter().for_each(|row| criterion(h, row, &columns)));
        });
    });
}

/// What a table of criteria shows besides the limits and the value.
struct Columns {
    cards: bool,
    scenario: bool,
    colour: bool,
    blocking: bool,
}

impl Columns {
    /// Attributes of a part, with its role where that has to be said.
    fn role<'a>(&self, role: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        more.iter().copied().chain(self.cards.then_some(("role", role))).collect()
    }
}

fn criterion(h: &mut Html, row: &CriterionRecord, columns: &Columns) {
    let held = matches!(row.outcome, Outcome::Pass { .. } | Outcome::NotApplicable { .. });
    let miss = format!("miss {}", class(&row.outcome));
    let attrs = [("class", miss.as_str())];
    let cell = columns.role("cell", &[]);
    h.el("tr", &columns.role("row", if held { &attrs[..0] } else { &attrs }), |h| {
        h.el("th", &columns.role("rowheader", &[("scope", "row")]), |h| {
            let scenario = if columns.scenario { row.scenario.as_str() } else { "" };
            let refs: Vec<&str> =
                [row.requirement.as_str(), scenario].into_iter().filter(|one| !one.is_empty()).collect();
            if !refs.is_empty() {
                h.leaf("span", &[("class", "req")], &refs.join(" · "));
            }
            h.text(&row.metric);
            if columns.blocking && row.is_critical {
                h.text(" ");
                h.leaf("span", &[("class", "tag")], "blocking");
            }
            if !held {
                h.leaf("span", &[("class", "sub")], &one_line(row.outcome.detail()));
            }
        });
        // The style sheet knows by its place what a cell holds, and labels it where the head is hidden.
        let limits = [typeset(&row.target), typeset(&row.critical)];
        let figures = [value_or_no_data(&row.actual), grouped(row.samples)];
        limits.iter().chain(&figures).for_each(|text| h.leaf("td", &cell, text));
        if columns.colour {
            let colour = match row.colour.as_str() {
                known @ ("green" | "yellow" | "red") => known,
                _ => "none",
            };
            h.el("td", &cell, |h| h.leaf("span", &[("class", &format!("advice {colour}"))], colour));
        }
        h.el("td", &cell, |h| badge(h, &row.outcome));
    });
}

/// A limit with the signs of print: `>= 95 %` as `≥ 95 %`.
fn typeset(limit: &str) -> String {
    limit.replace(">=", "≥").replace("<=", "≤")
}
