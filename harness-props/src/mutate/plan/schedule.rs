//! P060 to P075: times and the critical path.

use super::{any, end, of, path, some, subject, ticks};
use crate::generate::{Random, claim, least_start};
use crate::mutate::Mutator;
use crate::plan::{Link, Plan};

/// The mutators, in order of their codes.
pub(super) fn mutators() -> Vec<Mutator<Plan>> {
    vec![
        of("P060", too_early),
        of("P061", |plan, random| {
            let at = any(plan, random);
            *plan.steps[at].finish.as_mut()? += [-1, 1, 100][random.index(3)];
            path(at, "finish")
        }),
        of("P062", |plan, random| {
            let at = any(plan, random);
            let (start, end) = (plan.steps[at].start?, plan.steps[at].start? + ticks(&plan.steps[at]));
            if random.percent(50) {
                plan.steps[at].release = Some(start + 1);
                return path(at, "release");
            }
            plan.steps[at].deadline = Some(end - 1);
            path(at, "deadline")
        }),
        of("P063", |plan, random| max_lag(plan, random, true)),
        of("P064", |plan, random| max_lag(plan, random, false)),
        of("P065", |plan, random| {
            let claim = plan.critical_path.as_mut()?;
            match random.index(3) {
                0 => {
                    claim[0] = "nowhere".into();
                    Some("/critical_path/0".to_owned())
                }
                1 if claim.len() > 1 => {
                    claim.swap(0, 1);
                    Some("/critical_path/1".to_owned())
                }
                _ => {
                    claim.clear();
                    Some("/critical_path/0".to_owned())
                }
            }
        }),
        of("P066", |plan, random| {
            let claim = plan.critical_path.as_mut().filter(|claim| claim.len() > 1)?;
            if random.percent(50) {
                claim.remove(0);
                return Some("/critical_path/0".to_owned());
            }
            claim.pop();
            Some(format!("/critical_path/{}", claim.len() - 1))
        }),
        of("P067", shorter_path),
        of("P068", |plan, random| {
            *plan.makespan.as_mut()? += random.between(1, 5);
            Some("/makespan".to_owned())
        }),
        of("P069", |plan, random| {
            let at = any(plan, random);
            let times = plan.steps[at].times.as_mut()?;
            let (field, value) = match random.index(5) {
                0 => ("early_start", &mut times.early_start),
                1 => ("early_finish", &mut times.early_finish),
                2 => ("late_start", &mut times.late_start),
                3 => ("late_finish", &mut times.late_finish),
                _ => ("total_float", &mut times.total_float),
            };
            *value += random.between(1, 3);
            path(at, &format!("times/{field}"))
        }),
        of("P070", |plan, random| {
            let at = any(plan, random);
            let times = plan.steps[at].times.as_mut()?;
            if random.percent(50) {
                times.total_float = -1;
                return path(at, "times/total_float");
            }
            times.free_float = [-1, times.total_float + 1][random.index(2)];
            path(at, "times/free_float")
        }),
        of("P071", |plan, random| {
            let at = some(plan, random, |_, step| step.critical == Some(false))?;
            plan.steps[at].critical = Some(true);
            path(at, "critical")
        }),
        of("P072", |plan, _| {
            let claim = plan.sole.as_mut().filter(|sole| !**sole)?;
            *claim = true;
            Some("/sole".to_owned())
        }),
        of("P073", |plan, random| {
            plan.deadline = Some(end(plan) - random.between(1, 3));
            Some("/deadline".to_owned())
        }),
        of("P074", |plan, random| {
            plan.margin = Some(plan.deadline? - end(plan) + random.between(1, 3));
            Some("/margin".to_owned())
        }),
        of("P075", |plan, random| {
            *plan.width.as_mut()? += [-1, 1, 7][random.index(3)];
            Some("/width".to_owned())
        }),
    ]
}

/// A lag that the schedule does not keep.
fn too_early(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let at = some(plan, random, |_, step| !step.after.is_empty())?;
    let position = random.index(plan.steps[at].after.len());
    let step = plan.steps[at].clone();
    let on = plan.position(&step.after[position].on)?;
    let gap = step.start? - least_start(&step.after[position], &plan.steps[on], &step);
    let link = &mut plan.steps[at].after[position];
    link.lag += gap + random.between(1, 3);
    link.max_lag = None;
    // Greatest lags of others may now contradict; that is another rule.
    plan.steps.iter_mut().flat_map(|step| &mut step.after).for_each(|link| link.max_lag = None);
    claim(plan);
    path(at, &format!("after/{position}"))
}

/// A greatest lag below the least one (which nothing can keep), or only below that of the schedule.
fn max_lag(plan: &mut Plan, random: &mut Random, schedule_only: bool) -> Option<String> {
    let at = some(plan, random, |_, step| !step.after.is_empty())?;
    let position = random.index(plan.steps[at].after.len());
    let lag = plan.steps[at].after[position].lag;
    if !schedule_only {
        plan.steps[at].after[position].max_lag = Some(lag - random.between(1, 3));
        plan.steps
            .iter_mut()
            .enumerate()
            .flat_map(|(one, step)| step.after.iter_mut().enumerate().map(move |(p, link)| ((one, p), link)))
            .filter(|(place, _)| *place != (at, position))
            .for_each(|(_, link)| link.max_lag = None);
        return path(at, &format!("after/{position}"));
    }
    // The only greatest lag of the plan: whatever the schedule does, one can be kept that waits for nothing else.
    plan.steps.iter_mut().flat_map(|step| &mut step.after).for_each(|link| link.max_lag = None);
    let step = plan.steps[at].clone();
    let on = plan.position(&step.after[position].on)?;
    let zero = Link { lag: 0, ..step.after[position].clone() };
    let gap = step.start? - least_start(&zero, &plan.steps[on], &step);
    if gap <= lag || step.after.len() > 1 {
        return None;
    }
    plan.steps[at].after[position].max_lag = Some(random.between(lag, gap - 1));
    path(at, &format!("after/{position}"))
}

/// A path from a first to a last step that is shorter than the plan.
fn shorter_path(plan: &mut Plan, random: &mut Random) -> Option<String> {
    plan.critical_path.as_ref()?;
    let subject = subject(plan)?;
    let (view, critical) = (subject.view(), subject.critical().ok()?);
    let mut at = plan.position(random.pick(&plan.terminals)?)?;
    let mut walk = vec![at];
    loop {
        let before: Vec<usize> = view.after(at).collect();
        let Some(on) = random.pick(&before) else { break };
        at = *on;
        walk.push(at);
    }
    walk.reverse();
    let length = crate::plan::length(view, &walk).ok()?;
    plan.critical_path = Some(walk.iter().map(|step| view.id(*step).clone()).collect());
    (length < critical.makespan()).then(|| "/critical_path".to_owned())
}
