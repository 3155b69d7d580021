//! The HTML page: one file, no network, complete without scripts.
//!
//! The order is that of questions: may it be released, why, by which figures, what exactly happened, on what machine.

mod chart;
mod decision;
mod run;
mod scale;
mod scenario;
mod since;
mod write;

use harness_props::Outcome;

use self::write::{Html, escape};
use super::model::Model;
use super::template::fill;
use super::verify::compare;
use crate::error::CoreResult;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The whole page.
pub(super) fn page(model: &Model) -> CoreResult<String> {
    let verdict = model.decision.as_ref().map_or("NO DECISION", |decision| decision.verdict.as_str());
    let title = escape(&format!("{verdict} · {}", model.run.subject));
    fill(PAGE, &[("title", &title), ("style", STYLE), ("body", &body(model)), ("script", SCRIPT)])
}

fn body(model: &Model) -> String {
    let mut main = Html::default();
    main.el("main", &[("id", "main")], |h| {
        decision::plants(h, model);
        decision::hero(h, model);
        decision::totals(h, model);
        decision::metrics(h, model);
        decision::matrix(h, model);
        since::since(h, model);
        run::preflight(h, model);
        run::phases(h, model);
        scenario::all(h, model);
        run::scope(h, model);
        run::findings(h, model);
        run::follow_up(h, model);
        run::environment(h, model);
        run::records(h, model);
    });
    let main = main.finish();
    let mut h = Html::default();
    h.el("header", &[("class", "top")], |h| {
        h.leaf("strong", &[], &model.run.subject);
        h.leaf("span", &[], &run::minute(&model.run.started));
        for (name, value) in [("run", &model.run.id), ("seed", &model.run.seed)] {
            if !value.is_empty() {
                h.el("span", &[], |h| {
                    h.text(&format!("{name} "));
                    h.leaf("code", &[], value);
                });
            }
        }
    });
    h.div("frame", |h| {
        run::contents(h, model, |id| main.contains(&format!("<section id=\"{id}\"")));
        h.trusted(&main);
    });
    h.leaf("footer", &[], &format!("Written by {} from {} record files.", model.generator, model.run.attempts));
    h.finish()
}

/// A section with a heading and a note beside it.
fn section(h: &mut Html, id: &str, title: &str, note: &str, content: impl FnOnce(&mut Html)) {
    let heading = format!("{id}-h");
    h.el("section", &[("id", id), ("aria-labelledby", &heading)], |h| {
        h.el("h2", &[("id", &heading)], |h| {
            h.text(title);
            if !note.is_empty() {
                h.text(" ");
                h.leaf("small", &[], note);
            }
        });
        content(h);
    });
}

/// The class of an outcome in the style sheet.
fn class(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Pass { .. } => "pass",
        Outcome::Degraded { .. } => "degraded",
        Outcome::Fail { .. } => "fail",
        Outcome::NoEvidence { .. } => "no-evidence",
        Outcome::NotApplicable { .. } => "not-applicable",
    }
}

/// Symbol and word of an outcome. The style sheet draws the symbol: a page has hundreds of them.
fn badge(h: &mut Html, outcome: &Outcome) {
    h.leaf("span", &[("class", &format!("badge {}", class(outcome)))], outcome.word());
}

/// How a written page differs from the model in its counts, if it does.
pub(super) fn disagreement(page: &str, model: &Model) -> Option<String> {
    let stated = |word: &str| {
        let (_, after) = page.split_once(&format!("data-total=\"{word}\">"))?;
        after.split('<').next()?.parse().ok()
    };
    let counted = |word: &str| page.matches(&format!("data-outcome=\"{word}\">")).count();
    compare(&model.totals.scenarios, stated, counted)
}
