//! The catalogue of plan rules, in five families.

mod content;
mod resources;
mod rollback;
mod schedule;
mod structure;

use super::view::{Subject, View};
use crate::rule::{Findings, Rule};

/// All rules of the catalogue, in order of their codes.
#[must_use]
pub fn catalogue() -> Vec<Rule<Subject>> {
    [structure::rules(), content::rules(), rollback::rules(), schedule::rules(), resources::rules()].concat()
}

const REPEATED: &str = "undefined while two steps have one name (P002)";
const DANGLING: &str = "undefined while a dependency leads nowhere (P005)";
const CYCLIC: &str = "undefined while steps wait for one another (P009)";
const LARGE: &str = "undefined with cycles (P009), and not looked for in plans beyond 4,096 steps";

/// Skips a rule that resolves names or follows dependencies while these are broken; true when it may go on.
fn resolvable(view: &View, found: &mut Findings) -> bool {
    let why = match () {
        () if !view.repeated.is_empty() => REPEATED,
        () if !view.dangling.is_empty() => DANGLING,
        () => return true,
    };
    found.skip(why);
    false
}

/// When a step runs, as a half-open span: from its start, for as long as it takes.
fn span(view: &View, step: usize) -> Option<(i64, i64)> {
    let start = view.steps.get(step)?.start?;
    let duration = view.durations.get(step).copied().filter(|ticks| *ticks >= 0)?;
    Some((start, start.checked_add(duration)?))
}
