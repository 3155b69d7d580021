//! P040 to P049: how effects are taken back.

use super::{is_pivot, of, path, some, subject};
use crate::generate::Random;
use crate::mutate::Mutator;
use crate::plan::Plan;

/// The mutators, in order of their codes.
pub(super) fn mutators() -> Vec<Mutator<Plan>> {
    vec![
        of("P040", |plan, random| {
            let at = some(plan, random, |_, step| step.rollback.is_some())?;
            plan.steps[at].rollback = None;
            path(at, "rollback")
        }),
        of("P041", |plan, random| {
            let at = some(plan, random, |_, step| step.rollback.as_ref().is_some_and(|undo| undo.by.is_none()))?;
            let undo = plan.steps[at].rollback.as_mut()?;
            if random.percent(50) {
                "pray".clone_into(&mut undo.action);
                return path(at, "rollback/action");
            }
            undo.by = Some("nowhere".into());
            path(at, "rollback/by")
        }),
        of("P042", |plan, random| uses(plan, random, true)),
        of("P043", rollback_cycle),
        of("P044", |plan, random| {
            let at = some(plan, random, |_, step| step.rollback.is_some())?;
            let id = plan.steps[at].id.clone();
            plan.steps[at].rollback.as_mut()?.by = Some(id);
            path(at, "rollback/by")
        }),
        of("P045", |plan, random| {
            let subject = subject(plan)?;
            let known = subject.ancestors()?;
            let pivots: Vec<usize> = (0..plan.steps.len()).filter(|at| is_pivot(&plan.steps[*at])).collect();
            let at = *random.pick(&pivots)?;
            let later = (0..plan.steps.len()).find(|later| known.waits_for(*later, at))?;
            plan.steps[later].effect.as_mut()?.fallible = true;
            path(at, "effect/irreversible")
        }),
        of("P046", |plan, random| uses(plan, random, false)),
        of("P047", |plan, random| {
            let at = some(plan, random, |_, step| step.rollback.is_some())?;
            plan.steps[at].rollback.as_mut()?.idempotent = false;
            path(at, "rollback/idempotent")
        }),
        of("P048", |plan, random| {
            let at = some(plan, random, |_, step| step.rollback.is_some())?;
            let limit = plan.recovery_window?;
            plan.steps[at].rollback.as_mut()?.duration = limit + 1;
            Some("/recovery_window".to_owned())
        }),
        of("P049", |plan, random| {
            let at =
                some(plan, random, |_, step| step.rollback.as_ref().is_some_and(|undo| !undo.restores.is_empty()))?;
            let keys = &mut plan.steps[at].rollback.as_mut()?.restores;
            keys.remove(random.index(keys.len()));
            path(at, "rollback/restores")
        }),
    ]
}

/// A rollback uses a step that comes after (and is taken back before), or one that need not have been done.
fn uses(plan: &mut Plan, random: &mut Random, after: bool) -> Option<String> {
    let subject = subject(plan)?;
    let known = subject.ancestors()?;
    let at = some(plan, random, |_, step| step.rollback.is_some())?;
    let others: Vec<usize> = (0..plan.steps.len())
        .filter(|other| *other != at && known.waits_for(*other, at) == after && !known.waits_for(at, *other))
        .collect();
    let used = plan.steps[*random.pick(&others)?].id.clone();
    let list = &mut plan.steps[at].rollback.as_mut()?.uses;
    list.push(used);
    let position = list.len() - 1;
    path(at, &format!("rollback/uses/{position}"))
}

/// Two rollbacks wait for one another.
fn rollback_cycle(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let with: Vec<usize> = (0..plan.steps.len()).filter(|at| plan.steps[*at].rollback.is_some()).collect();
    let one = *random.pick(&with)?;
    let other = *random.pick(&with)?;
    let ids = [one, other].map(|at| plan.steps[at].id.clone());
    plan.steps.iter_mut().filter_map(|step| step.rollback.as_mut()).for_each(|undo| undo.after.clear());
    plan.steps[one].rollback.as_mut()?.after = vec![ids[1].clone()];
    plan.steps[other].rollback.as_mut()?.after = vec![ids[0].clone()];
    path(if ids[0] <= ids[1] { one } else { other }, "rollback/after")
}
