//! P080 to P090: what steps use, and what runs at once. Spans are half-open: a finish at the next start is no overlap.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::span;
use crate::plan::model::{Id, Resource};
use crate::plan::view::{Subject, View};
use crate::rule::{Findings, Rule, Severity};

pub(super) fn rules() -> Vec<Rule<Subject>> {
    use Severity::{Error, Warning};
    vec![
        Rule::new("P080", Error, "no resource is used beyond its capacity", within_capacity)
            .needs(&["start", "duration", "demands", "resources"])
            .implied_by(&["P081"]),
        Rule::new("P081", Error, "no step alone needs more than there is", demand_fits)
            .needs(&["demands", "resources"]),
        Rule::new("P082", Error, "the stock is enough for all", stock_enough)
            .needs(&["demands", "resources"])
            .implied_by(&["P081"]),
        Rule::new("P083", Error, "resources exist", resource_known).needs(&["demands", "resources"]),
        Rule::new("P084", Error, "no demand is negative", demand_positive).needs(&["demands"]),
        Rule::new("P085", Error, "nobody does two exclusive steps at once", one_at_a_time).needs(&[
            "start",
            "duration",
            "agent",
            "exclusive",
        ]),
        Rule::new("P086", Error, "not more steps at once than allowed", max_parallel).needs(&[
            "start",
            "duration",
            "max_parallel",
        ]),
        Rule::new("P087", Error, "the claimed makespan is possible", makespan_possible)
            .needs(&["makespan", "duration"])
            .implied_by(&["P060", "P080", "P081"]),
        Rule::new("P088", Warning, "what excludes one another keeps its distance", exclusions_kept).needs(&[
            "start",
            "duration",
            "exclusions",
        ]),
        Rule::new("P089", Warning, "work is shared as declared", load_shared)
            .needs(&["duration", "agent", "roster", "load"]),
        Rule::new("P090", Error, "agents work when they are there", within_calendar)
            .needs(&["start", "duration", "agent", "calendar"]),
    ]
}

/// A first instant at which more is in use than there is, and a smallest set of steps that exceeds it.
fn overload(mut uses: Vec<(i64, i64, i64, usize)>, capacity: i128) -> Option<(i64, Vec<usize>)> {
    uses.retain(|(start, end, amount, _)| start < end && *amount > 0);
    let mut events: Vec<(i64, bool, usize)> = Vec::with_capacity(uses.len() * 2);
    for (at, (start, end, ..)) in uses.iter().enumerate() {
        events.push((*start, true, at));
        events.push((*end, false, at));
    }
    events.sort_unstable(); // Ends stand before starts of the same instant.
    let mut sum = 0_i128;
    for (instant, starts, at) in events {
        let amount = i128::from(uses[at].2);
        sum += if starts { amount } else { -amount };
        if sum <= capacity {
            continue;
        }
        let mut running: Vec<(i64, usize)> = uses
            .iter()
            .filter(|(start, end, ..)| *start <= instant && instant < *end)
            .map(|one| (one.2, one.3))
            .collect();
        // The biggest first until it is too much: then each of them is needed.
        running.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
        let mut sum = 0_i128;
        let enough = running.iter().position(|(amount, _)| {
            sum += i128::from(*amount);
            sum > capacity
        });
        let mut set: Vec<usize> =
            running.iter().take(enough.map_or(running.len(), |at| at + 1)).map(|one| one.1).collect();
        set.sort_unstable();
        return Some((instant, set));
    }
    None
}

fn scope(set: &[usize]) -> Vec<u32> {
    set.iter().map(|step| *step as u32).collect()
}

fn names<'a>(view: &'a View, set: &[usize]) -> Vec<&'a Id> {
    set.iter().take(100).map(|step| view.id(*step)).collect()
}

fn demands<'a>(view: &'a View, resource: &'a Resource) -> impl Iterator<Item = (usize, i64)> + 'a {
    view.steps().iter().enumerate().flat_map(move |(at, step)| {
        let of = step.demands.iter().filter(move |demand| demand.resource == resource.id);
        of.map(move |demand| (at, demand.amount))
    })
}

fn within_capacity(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, resource) in view.charter().resources.iter().enumerate().filter(|(_, resource)| resource.renewable) {
        let uses =
            demands(view, resource).filter_map(|(step, amount)| span(view, step).map(|(a, b)| (a, b, amount, step)));
        let Some((instant, set)) = overload(uses.collect(), resource.capacity.into()) else { continue };
        found.at(&scope(&set), || {
            let (id, names) = (&resource.id, names(view, &set));
            let message = format!("at {instant} {} steps use more of `{id}` than {}", set.len(), resource.capacity);
            let witness = json!({"resource": id, "instant": instant, "steps": names, "capacity": resource.capacity});
            (view.plan_path(&format!("resources/{at}")), message, witness)
        });
    }
}

/// Every single demand with its place and, if it exists, its resource.
fn each_demand(plan: &Subject, mut judge: impl FnMut(usize, usize, i64, &Id, Option<&Resource>)) {
    let view = plan.view();
    let known: HashMap<&Id, &Resource> = view.charter().resources.iter().map(|one| (&one.id, one)).collect();
    for (at, step) in view.steps().iter().enumerate() {
        for (position, demand) in step.demands.iter().enumerate() {
            judge(at, position, demand.amount, &demand.resource, known.get(&demand.resource).copied());
        }
    }
}

fn demand_at(plan: &Subject, found: &mut Findings, at: usize, position: usize, says: &str, id: &Id, amount: i64) {
    let view = plan.view();
    found.at(&[at as u32], || {
        let message = format!("`{}` {says}", view.id(at));
        let witness = json!({"step": view.id(at), "resource": id, "amount": amount});
        (view.step_path(at, &format!("demands/{position}")), message, witness)
    });
}

fn demand_fits(plan: &Subject, found: &mut Findings) {
    each_demand(plan, |at, position, amount, id, resource| {
        if let Some(resource) = resource.filter(|resource| amount > resource.capacity) {
            let says = format!("needs {amount} of `{id}`, of which there are {}", resource.capacity);
            demand_at(plan, found, at, position, &says, id, amount);
        }
    });
}

fn stock_enough(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, resource) in view.charter().resources.iter().enumerate().filter(|(_, resource)| !resource.renewable) {
        let total: i128 = demands(view, resource).map(|(_, amount)| i128::from(amount.max(0))).sum();
        if total > resource.capacity.into() {
            // The scope is one step that is too big by itself, if there is one: then rule P081 says it.
            let alone: Vec<usize> = demands(view, resource)
                .filter(|(_, amount)| *amount > resource.capacity)
                .map(|(step, _)| step)
                .take(1)
                .collect();
            let all: Vec<usize> =
                if alone.is_empty() { demands(view, resource).map(|one| one.0).collect() } else { alone };
            found.at(&scope(&all), || {
                let message =
                    format!("all steps need {total} of `{}`, of which there are {}", resource.id, resource.capacity);
                let witness = json!({"resource": resource.id, "total": total.to_string(), "stock": resource.capacity});
                (view.plan_path(&format!("resources/{at}")), message, witness)
            });
        }
    }
}

fn resource_known(plan: &Subject, found: &mut Findings) {
    each_demand(plan, |at, position, amount, id, resource| {
        if resource.is_none() {
            demand_at(plan, found, at, position, &format!("needs `{id}`, which does not exist"), id, amount);
        }
    });
}

fn demand_positive(plan: &Subject, found: &mut Findings) {
    each_demand(plan, |at, position, amount, id, _| {
        if amount < 0 {
            demand_at(plan, found, at, position, &format!("needs {amount} of `{id}`"), id, amount);
        }
    });
}

fn one_at_a_time(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let mut by_agent: BTreeMap<&Id, Vec<(i64, i64, usize)>> = BTreeMap::new();
    for (at, step) in view.steps().iter().enumerate().filter(|(_, step)| step.exclusive) {
        if let (Some(agent), Some((start, end))) = (&step.agent, span(view, at).filter(|(start, end)| start < end)) {
            by_agent.entry(agent).or_default().push((start, end, at));
        }
    }
    for (agent, mut spans) in by_agent {
        spans.sort_unstable();
        // Against the one that lasts longest so far, so that a short one in between hides nothing.
        let mut longest: Option<(i64, usize)> = None;
        for (start, end, at) in spans {
            if let Some((until, other)) = longest.filter(|(until, _)| start < *until) {
                found.at(&scope(&[other, at]), || {
                    let (one, other) = (view.id(other), view.id(at));
                    let message = format!("`{agent}` does `{one}` and `{other}` at once, from {start}");
                    let witness = json!({"agent": agent, "steps": [one, other], "from": start, "to": until.min(end)});
                    (view.step_path(at, "start"), message, witness)
                });
            }
            if longest.is_none_or(|(until, _)| end > until) {
                longest = Some((end, at));
            }
        }
    }
}

fn max_parallel(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(most) = view.charter().max_parallel else { return };
    let uses = (0..view.len()).filter_map(|step| span(view, step).map(|(start, end)| (start, end, 1, step)));
    if let Some((instant, set)) = overload(uses.collect(), most.into()) {
        found.at(&scope(&set), || {
            let message = format!("at {instant} {} steps run at once, more than {most}", set.len());
            (
                view.plan_path("max_parallel"),
                message,
                json!({"instant": instant, "steps": names(view, &set), "limit": most}),
            )
        });
    }
}

fn makespan_possible(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(claim) = view.charter().makespan else { return };
    let critical = match plan.critical() {
        Ok(critical) => critical,
        Err(why) => return found.skip(why.to_string()),
    };
    let mut bounds = vec![("the critical path".to_owned(), i128::from(critical.makespan()))];
    for resource in view.charter().resources.iter().filter(|resource| resource.renewable && resource.capacity > 0) {
        let work: i128 = demands(view, resource)
            .map(|(step, amount)| i128::from(amount.max(0)) * i128::from(view.durations[step]))
            .sum();
        let capacity = i128::from(resource.capacity);
        bounds.push((format!("the work on `{}`", resource.id), (work + capacity - 1) / capacity));
    }
    if let Some((what, least)) =
        bounds.into_iter().max_by_key(|(_, least)| *least).filter(|(_, least)| *least > claim.into())
    {
        let message = format!("{what} alone takes {least}, but the plan claims {claim}");
        found.add(
            view.plan_path("makespan"),
            message,
            json!({"bound": what, "least": least.to_string(), "got": claim}),
        );
    }
}

fn exclusions_kept(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, exclusion) in view.charter().exclusions.iter().enumerate() {
        let (Some(one), Some(other)) = (view.find(&exclusion.one), view.find(&exclusion.other)) else {
            let message = format!("`{}` or `{}` does not exist", exclusion.one, exclusion.other);
            found.add(
                view.plan_path(&format!("exclusions/{at}")),
                message,
                json!({"one": exclusion.one, "other": exclusion.other}),
            );
            continue;
        };
        let (Some(a), Some(b)) = (span(view, one), span(view, other)) else { continue };
        let gap = (i128::from(b.0) - i128::from(a.1)).max(i128::from(a.0) - i128::from(b.1));
        if gap < exclusion.setup.into() && a.0 < a.1 && b.0 < b.1 {
            found.at(&scope(&[one, other]), || {
                let (one, other) = (view.id(one), view.id(other));
                let message = format!("`{one}` and `{other}` are {gap} apart, less than {}", exclusion.setup);
                let witness = json!({"one": one, "other": other, "gap": gap.to_string(), "setup": exclusion.setup});
                (view.plan_path(&format!("exclusions/{at}")), message, witness)
            });
        }
    }
}

fn load_shared(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(share) = &view.charter().load else { return };
    let ticks = |at: usize| i128::from(view.durations[at].max(0));
    let all: i128 = (0..view.len()).map(ticks).sum();
    if all == 0 {
        return found.skip("no work to share");
    }
    for (at, agent) in view.charter().agents.iter().enumerate() {
        let own: i128 =
            (0..view.len()).filter(|step| view.steps()[*step].agent.as_ref() == Some(&agent.id)).map(ticks).sum();
        if own * 100 < i128::from(share.min) * all || own * 100 > i128::from(share.max) * all {
            let message = format!("`{}` has {own} of {all} ticks, not {} % to {} %", agent.id, share.min, share.max);
            let witness = json!({"agent": agent.id, "ticks": own.to_string(), "all": all.to_string()});
            found.add(view.plan_path(&format!("agents/{at}")), message, witness);
        }
    }
}

fn within_calendar(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let calendars: HashMap<&Id, &[_]> =
        view.charter().agents.iter().map(|agent| (&agent.id, agent.available.as_slice())).collect();
    for (at, step) in view.steps().iter().enumerate() {
        let windows = step.agent.as_ref().and_then(|agent| calendars.get(agent)).copied().unwrap_or_default();
        let Some((start, end)) = span(view, at).filter(|(start, end)| start < end && !windows.is_empty()) else {
            continue;
        };
        if !windows.iter().any(|window| window.from <= start && end <= window.to) {
            found.at(&[at as u32], || {
                let message = format!("`{}` runs from {start} to {end}, when its agent is not there", step.id);
                (view.step_path(at, "start"), message, json!({"step": step.id, "from": start, "to": end}))
            });
        }
    }
}
