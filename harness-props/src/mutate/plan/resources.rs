//! P080 to P090: what steps use, and when who has time.

use super::{any, end_of, of, path, some, start, subject, ticks, two};
use crate::generate::Random;
use crate::mutate::Mutator;
use crate::plan::{Demand, Exclusion, Id, Plan, Share, Step, Window};

/// The mutators, in order of their codes.
pub(super) fn mutators() -> Vec<Mutator<Plan>> {
    vec![
        of("P080", overload),
        of("P081", |plan, random| {
            let at = some(plan, random, |_, step| !step.demands.is_empty())?;
            let demand = plan.steps[at].demands.first()?.clone();
            let capacity = plan.resources.iter().find(|one| one.id == demand.resource)?.capacity;
            plan.steps[at].demands[0].amount = capacity + random.between(1, 3);
            path(at, "demands/0")
        }),
        of("P082", |plan, random| {
            let of_parts = |step: &Step| {
                step.demands.iter().filter(|one| one.resource == "parts".into()).map(|one| one.amount).sum()
            };
            let needs: Vec<i64> = plan.steps.iter().map(of_parts).collect();
            let (total, most) = (needs.iter().sum::<i64>(), *needs.iter().max()?);
            let at = plan.resources.iter().position(|one| !one.renewable)?;
            plan.resources[at].capacity = random.between(most, total - 1);
            (total > most).then(|| format!("/resources/{at}"))
        }),
        of("P083", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].demands.push(Demand { resource: "unobtainium".into(), amount: 1 });
            path(at, &format!("demands/{}", plan.steps[at].demands.len() - 1))
        }),
        of("P084", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].demands.push(Demand { resource: "crew".into(), amount: -random.between(1, 3) });
            path(at, &format!("demands/{}", plan.steps[at].demands.len() - 1))
        }),
        of("P085", |plan, random| {
            let (one, other) = overlapping(plan, random, |one, other| one.agent == other.agent)?;
            let (first, second) =
                if (start(plan, one), one) < (start(plan, other), other) { (one, other) } else { (other, one) };
            // Nothing else of this agent is exclusive, so that the pair is the only one.
            let agent = plan.steps[one].agent.clone();
            plan.steps.iter_mut().filter(|step| step.agent == agent).for_each(|step| step.exclusive = false);
            plan.steps[first].exclusive = true;
            plan.steps[second].exclusive = true;
            // Of equal starts the shorter comes first.
            let tied = start(plan, first) == start(plan, second);
            let last = if tied && ticks(&plan.steps[first]) > ticks(&plan.steps[second]) { first } else { second };
            path(last, "start")
        }),
        of("P086", |plan, random| {
            overlapping(plan, random, |_, _| true)?;
            plan.max_parallel = Some(1);
            Some("/max_parallel".to_owned())
        }),
        of("P087", |plan, random| {
            let critical = subject(plan)?.critical().ok()?.makespan();
            plan.makespan = Some(critical - random.between(1, 3));
            Some("/makespan".to_owned())
        }),
        of("P088", |plan, random| {
            let (one, other) = two(plan, random)?;
            if ticks(&plan.steps[one]) == 0 || ticks(&plan.steps[other]) == 0 {
                return None;
            }
            let (a, b) = ((start(plan, one), end_of(plan, one)), (start(plan, other), end_of(plan, other)));
            let gap = (b.0 - a.1).max(a.0 - b.1);
            let (one, other) = (plan.steps[one].id.clone(), plan.steps[other].id.clone());
            plan.exclusions.push(Exclusion { one, other, setup: gap + random.between(1, 3) });
            Some(format!("/exclusions/{}", plan.exclusions.len() - 1))
        }),
        of("P089", |plan, _| {
            let ticks_of = |agent: &Id| {
                plan.steps.iter().filter(|step| step.agent.as_ref() == Some(agent)).map(ticks).sum::<i64>()
            };
            let (most, at) = plan.agents.iter().enumerate().map(|(at, agent)| (ticks_of(&agent.id), at)).max()?;
            let all: i64 = plan.steps.iter().map(ticks).sum();
            plan.load = Some(Share { min: 0, max: (most * 100).checked_div(all)?.checked_sub(1)? });
            Some(format!("/agents/{at}"))
        }),
        of("P090", |plan, random| {
            let at = some(plan, random, |_, step| ticks(step) > 0)?;
            let (start, agent) = (start(plan, at), plan.steps[at].agent.clone());
            let agent = plan.agents.iter_mut().find(|one| Some(&one.id) == agent.as_ref())?;
            agent.available = vec![Window { from: 0, to: start }, Window { from: start + 1, to: 1_000_000 }];
            path(at, "start")
        }),
    ]
}

fn overlapping(plan: &Plan, random: &mut Random, good: impl Fn(&Step, &Step) -> bool) -> Option<(usize, usize)> {
    let count = plan.steps.len();
    let pairs: Vec<(usize, usize)> = (0..count)
        .flat_map(|one| (0..one).map(move |other| (one, other)))
        .filter(|(one, other)| {
            let (from, to) = (start(plan, *one).max(start(plan, *other)), end_of(plan, *one).min(end_of(plan, *other)));
            from < to && good(&plan.steps[*one], &plan.steps[*other])
        })
        .collect();
    random.pick(&pairs).copied()
}

/// A capacity below what two steps use at once, though enough for each alone.
fn overload(plan: &mut Plan, random: &mut Random) -> Option<String> {
    let at = random.index(plan.resources.len());
    let resource = plan.resources[at].clone();
    let of =
        |step: &Step| step.demands.iter().filter(|one| one.resource == resource.id).map(|one| one.amount).sum::<i64>();
    let (one, other) = overlapping(plan, random, |one, other| resource.renewable && of(one) > 0 && of(other) > 0)?;
    let most = plan.steps.iter().map(of).max()?;
    let together = of(&plan.steps[one]) + of(&plan.steps[other]);
    plan.resources[at].capacity = random.between(most, together - 1);
    (most < together).then(|| format!("/resources/{at}"))
}
