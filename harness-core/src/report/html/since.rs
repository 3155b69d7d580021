//! The run before and the history: what ended otherwise, and how earlier runs ended.

use super::run::{minute, table};
use super::section;
use super::write::Html;
use crate::report::model::Model;
use crate::report::since::{Change, Past};
use crate::report::text::count;

/// What is different since the run before, and the runs before that; nothing in a first run.
pub(super) fn since(h: &mut Html, model: &Model) {
    let Some(since) = &model.since else { return };
    section(h, "since", "Since the run before", &count(since.runs.len(), "earlier run"), |h| {
        h.leaf("p", &[("class", "lead")], &since.sentence());
        if !since.changed.is_empty() {
            h.div("card", |h| {
                table(h, "Changed verdicts", &["What", "Before", "Now"], |h| {
                    since.changed.iter().for_each(|one| change(h, one))
                });
            });
        }
        let shown: Vec<&str> = since.runs.first().map_or_else(Vec::new, |run| labels(run));
        let head: Vec<&str> = ["Run", "Decision", "Scenarios"].into_iter().chain(shown.iter().copied()).collect();
        h.div("card", |h| {
            table(h, "Earlier runs", &head, |h| since.runs.iter().for_each(|run| past(h, run, &shown)));
        });
    });
}

fn change(h: &mut Html, change: &Change) {
    h.el("tr", &[], |h| {
        h.el("th", &[("scope", "row")], |h| {
            h.text(&change.what);
            h.leaf("span", &[("class", "sub")], if change.is_worse { "worse" } else { "better" });
        });
        for (word, figure) in [(&change.before, &change.figures.0), (&change.now, &change.figures.1)] {
            h.el("td", &[], |h| {
                h.text(word);
                if !figure.is_empty() {
                    h.leaf("span", &[("class", "sub")], figure);
                }
            });
        }
    });
}

/// The key metrics of the newest run; older runs are shown by the same.
fn labels(run: &Past) -> Vec<&str> {
    run.panel.iter().map(|line| line.label.as_str()).collect()
}

fn past(h: &mut Html, run: &Past, labels: &[&str]) {
    h.el("tr", &[], |h| {
        h.el("th", &[("scope", "row")], |h| {
            h.leaf("code", &[], &run.run);
            let planted =
                if run.plants.is_empty() { String::new() } else { format!(", planted: {}", run.plants.join(", ")) };
            h.leaf("span", &[("class", "sub")], &format!("{}, {}{planted}", minute(&run.started), run.profile));
        });
        h.leaf("td", &[], &run.verdict);
        h.leaf("td", &[("class", "num")], &format!("{} of {} pass", run.scenarios.pass, run.scenarios.total));
        for label in labels {
            let value = run.panel.iter().find(|line| line.label == **label).map_or("", |line| line.value.as_str());
            h.leaf("td", &[("class", "num")], if value.is_empty() { "no data" } else { value });
        }
    });
}
