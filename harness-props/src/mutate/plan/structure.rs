//! P001 to P016: steps, their names and what they wait for.

use super::{any, end_of, last_dependency, of, path, rename, some, start, subject, two};
use crate::generate::{Random, claim};
use crate::mutate::Mutator;
use crate::plan::{Id, Link, Plan, PlanModel, Policy, Rollback, Subject};

/// The mutators, in order of their codes.
pub(super) fn mutators() -> Vec<Mutator<Plan>> {
    vec![
        of("P001", |plan, _| {
            *plan = Plan::default();
            Some("/steps".to_owned())
        }),
        of("P002", repeated_id),
        of("P003", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].number = [None, Some(0), Some(-1), Some(plan.steps.len() as i64 + 1)][random.index(4)];
            path(at, "number")
        }),
        of("P004", |plan, random| {
            let at = random.index(plan.steps.len().checked_sub(1)?);
            plan.steps.swap(at, at + 1);
            path(at + 1, "number")
        }),
        of("P005", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].after.push("nowhere".into());
            last_dependency(plan, at)
        }),
        of("P006", |plan, random| {
            let at = any(plan, random);
            let id = plan.steps[at].id.clone();
            plan.steps[at].after.push(id.into());
            last_dependency(plan, at)
        }),
        of("P007", later_number),
        of("P008", |plan, random| {
            let at = some(plan, random, |_, step| !step.after.is_empty())?;
            let again = random.pick(&plan.steps[at].after)?.clone();
            let lag = plan.steps[at].after.iter().filter(|link| link.on == again.on).map(|link| link.lag).max();
            plan.steps[at].after.push(Link { lag: lag.unwrap_or(0), ..again });
            last_dependency(plan, at)
        }),
        of("P009", cycle),
        of("P010", redundant),
        of("P011", |plan, random| {
            let ends = std::mem::take(&mut plan.terminals);
            let at = some(plan, random, |_, step| !ends.contains(&step.id))?;
            plan.terminals = vec![plan.steps[at].id.clone()];
            path(plan.position(ends.first()?)?, "")
        }),
        of("P012", |plan, random| {
            let begins = std::mem::take(&mut plan.entries);
            let at = some(plan, random, |_, step| !begins.contains(&step.id))?;
            plan.entries = vec![plan.steps[at].id.clone()];
            path(plan.position(begins.first()?)?, "")
        }),
        of("P013", cut_off),
        of("P014", |plan, random| {
            if random.percent(50) {
                let at = any(plan, random);
                plan.steps[at].phase = Some("aftermath".into());
                return path(at, "phase");
            }
            // What is waited for goes to a later phase, and nobody else waits for it.
            let at =
                some(plan, random, |plan, step| step.phase.as_ref() < Some(&plan.phases[2]) && !step.after.is_empty())?;
            let own = plan.phases.iter().position(|phase| Some(phase) == plan.steps[at].phase.as_ref())?;
            let later = plan.phases.get(own + 1)?.clone();
            let on = plan.position(&plan.steps[at].after[0].on)?;
            plan.steps[on].phase = Some(later);
            path(at, "after/0")
        }),
        of("P015", group_cycle),
        of("P016", |plan, random| {
            let (one, other) = two(plan, random)?;
            let (old, new) = (
                plan.steps[other.max(one)].id.clone(),
                Id::from(format!(" {} ", plan.steps[other.min(one)].id).to_uppercase()),
            );
            rename(plan, &old, &new);
            path(other.max(one), "id")
        }),
    ]
}

/// A last step takes the name of one that stands before it in the list; nothing may refer to it.
fn repeated_id(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let at = some(plan, random, |plan, step| plan.terminals.contains(&step.id) && plan.steps[0].id != step.id)?;
    let refers =
        |undo: &Rollback, id: &Id| undo.by.as_ref() == Some(id) || undo.uses.contains(id) || undo.after.contains(id);
    let old = plan.steps[at].id.clone();
    if plan.steps.iter().flat_map(|step| &step.rollback).any(|undo| refers(undo, &old)) {
        return None;
    }
    let new = plan.steps[random.index(at)].id.clone();
    if plan.steps[at].rollback.as_ref().is_some_and(|undo| refers(undo, &new)) {
        return None;
    }
    plan.exclusions.retain(|pair| pair.one != old && pair.other != old);
    plan.steps[at].id = new;
    path(at, "id")
}

/// A step and what it waits for change numbers and places.
fn later_number(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let at = some(plan, random, |_, step| !step.after.is_empty())?;
    let position = random.index(plan.steps[at].after.len());
    let on = plan.position(&plan.steps[at].after[position].on)?;
    let (own, theirs) = (plan.steps[at].number, plan.steps[on].number);
    plan.steps[at].number = theirs;
    plan.steps[on].number = own;
    plan.steps.swap(at, on);
    path(on, &format!("after/{position}"))
}

/// A step waits for one that waits for it.
fn cycle(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let subject = subject(plan)?;
    let known = subject.ancestors()?;
    let at = some(plan, random, |_, step| !step.after.is_empty())?;
    let earlier: Vec<usize> = (0..plan.steps.len()).filter(|earlier| known.waits_for(at, *earlier)).collect();
    let earlier = *random.pick(&earlier)?;
    let id = plan.steps[at].id.clone();
    plan.steps[earlier].after.push(Link { lag: -1_000, ..Link::from(id) });
    // The shortest cycle goes through the new dependency; its least name is where the report points.
    let view = plan.view().ok()?;
    let order = Subject::new(view.clone(), Policy::default());
    let cycle = crate::plan::shortest_cycle(&view, order.order().components().first()?).0;
    path(*cycle.first()? as usize, "after")
}

/// A dependency that another one implies.
fn redundant(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let subject = subject(plan)?;
    let known = subject.ancestors()?;
    let count = plan.steps.len();
    let pairs: Vec<(usize, usize)> = (0..count)
        .flat_map(|step| (0..count).map(move |earlier| (step, earlier)))
        .filter(|(step, earlier)| {
            let direct = plan.steps[*step].after.iter().any(|link| link.on == plan.steps[*earlier].id);
            known.waits_for(*step, *earlier) && !direct && start(plan, *step) >= end_of(plan, *earlier)
        })
        .collect();
    let (at, earlier) = *random.pick(&pairs)?;
    let id = plan.steps[earlier].id.clone();
    plan.steps[at].after.push(id.into());
    claim(plan);
    last_dependency(plan, at)
}

/// A last step no longer waits for anything: a part of its own.
fn cut_off(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let at = some(plan, random, |plan, step| plan.terminals.contains(&step.id) && !step.after.is_empty())?;
    if plan.steps.len() < 3 {
        return None; // Two parts of one step each: either may be named.
    }
    let id = plan.steps[at].id.clone();
    for on in std::mem::take(&mut plan.steps[at].after).into_iter().map(|link| link.on) {
        if !plan.steps.iter().any(|step| step.after.iter().any(|link| link.on == on)) {
            plan.terminals.push(on);
        }
    }
    plan.entries.push(id.clone());
    for step in &mut plan.steps {
        if let Some(undo) = &mut step.rollback {
            undo.after.clear();
            if step.id == id {
                undo.uses.clear();
            }
        }
    }
    claim(plan);
    path(at, "")
}

/// A first step joins the group of a later one, and so both groups wait for one another.
fn group_cycle(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let subject = subject(plan)?;
    let known = subject.ancestors()?;
    let count = plan.steps.len();
    let chains: Vec<(usize, usize, usize)> = (0..count)
        .flat_map(|a| (0..count).map(move |b| (a, b)))
        .filter(|(a, b)| plan.steps[*b].after.iter().any(|link| link.on == plan.steps[*a].id))
        .flat_map(|(a, b)| (0..count).map(move |c| (a, b, c)))
        .filter(|(_, b, c)| plan.steps[*c].after.iter().any(|link| link.on == plan.steps[*b].id))
        .collect();
    let (a, b, c) = *random.pick(&chains)?;
    debug_assert!(known.waits_for(c, a));
    // Three in a row: the outer ones of one group, the middle one of another, all others without.
    plan.steps.iter_mut().for_each(|step| step.group = None);
    plan.steps[a].group = Some("outer".into());
    plan.steps[c].group = Some("outer".into());
    plan.steps[b].group = Some("inner".into());
    path(b, "group")
}
