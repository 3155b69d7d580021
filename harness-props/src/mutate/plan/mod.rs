//! One mutator per rule of the plan catalogue. Each takes a plan as [`crate::generate::plan`] makes it, breaks its
//! rule, and restores whatever else would follow: claims are computed again, names are changed everywhere.

mod content;
mod resources;
mod rollback;
mod schedule;
mod structure;

use super::Mutator;
use crate::generate::Random;
use crate::plan::{Id, Plan, PlanModel, Policy, Step, Subject, Ticks};

/// The mutators of all 67 rules, in order of their codes.
#[must_use]
pub fn mutators() -> Vec<Mutator<Plan>> {
    [structure::mutators(), content::mutators(), rollback::mutators(), schedule::mutators(), resources::mutators()]
        .concat()
}

fn of(code: &'static str, apply: fn(&mut Plan, &mut Random) -> Option<String>) -> Mutator<Plan> {
    Mutator::new(code, apply)
}

fn path(at: usize, field: &str) -> Option<String> {
    Some(if field.is_empty() { format!("/steps/{at}") } else { format!("/steps/{at}/{field}") })
}

fn last_dependency(plan: &Plan, at: usize) -> Option<String> {
    path(at, &format!("after/{}", plan.steps[at].after.len() - 1))
}

fn any(plan: &Plan, random: &mut Random) -> usize {
    random.index(plan.steps.len())
}

fn some(plan: &Plan, random: &mut Random, good: impl Fn(&Plan, &Step) -> bool) -> Option<usize> {
    let all: Vec<usize> = (0..plan.steps.len()).filter(|at| good(plan, &plan.steps[*at])).collect();
    random.pick(&all).copied()
}

fn two(plan: &Plan, random: &mut Random) -> Option<(usize, usize)> {
    let count = plan.steps.len();
    let one = random.index(count);
    (count > 1).then(|| (one, (one + 1 + random.index(count - 1)) % count))
}

fn ticks(step: &Step) -> i64 {
    match step.duration {
        Some(Ticks::Whole(ticks)) => ticks,
        _ => 0,
    }
}

fn start(plan: &Plan, at: usize) -> i64 {
    plan.steps[at].start.unwrap_or(0)
}

fn end_of(plan: &Plan, at: usize) -> i64 {
    start(plan, at) + ticks(&plan.steps[at])
}

fn end(plan: &Plan) -> i64 {
    (0..plan.steps.len()).map(|at| end_of(plan, at)).max().unwrap_or(0)
}

fn is_pivot(step: &Step) -> bool {
    step.effect.as_ref().is_some_and(|effect| effect.irreversible.is_some())
}

fn subject(plan: &Plan) -> Option<Subject> {
    Some(Subject::new(plan.view().ok()?, Policy::default()))
}

/// Gives a step another name, everywhere.
fn rename(plan: &mut Plan, old: &Id, new: &Id) {
    let swap = |id: &mut Id| {
        if id == old {
            id.clone_from(new);
        }
    };
    for step in &mut plan.steps {
        swap(&mut step.id);
        step.after.iter_mut().for_each(|link| swap(&mut link.on));
        if let Some(undo) = &mut step.rollback {
            undo.by.iter_mut().chain(&mut undo.uses).chain(&mut undo.after).for_each(swap);
        }
    }
    plan.entries.iter_mut().chain(&mut plan.terminals).chain(plan.critical_path.iter_mut().flatten()).for_each(swap);
    plan.exclusions.iter_mut().flat_map(|pair| [&mut pair.one, &mut pair.other]).for_each(swap);
}
