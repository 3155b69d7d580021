//! One mutator per rule of the plan catalogue. Each takes a plan as [`crate::generate::plan`] makes it, breaks its
//! rule, and restores whatever else would follow: claims are computed again, names are changed everywhere.

use super::Mutator;
use crate::generate::{Random, claim, least_start};
use crate::plan::{
    Automation, Demand, Exclusion, Id, Link, Plan, PlanModel, Policy, Quantity, Rollback, Share, Step, Subject, Ticks,
    Window,
};

/// The mutators of all 67 rules, in order of their codes.
#[must_use]
pub fn mutators() -> Vec<Mutator<Plan>> {
    let of = |code: &'static str, apply: fn(&mut Plan, &mut Random) -> Option<String>| Mutator::new(code, apply);
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
        of("P020", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].title = None;
            path(at, "title")
        }),
        of("P021", |plan, random| {
            let at = any(plan, random);
            let field = ["title", "summary"][random.index(2)];
            let blank = ["", "  ", "TBD", "n/a", " todo "][random.index(5)].to_owned();
            match field {
                "title" => plan.steps[at].title = Some(blank),
                field => drop(plan.steps[at].texts.insert(field.to_owned(), blank)),
            }
            path(at, field)
        }),
        of("P022", |plan, random| {
            let at = some(plan, random, |_, step| !step.exclusive)?;
            plan.steps[at].agent = None;
            path(at, "agent")
        }),
        of("P023", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].agent = Some("stranger".into());
            path(at, "agent")
        }),
        of("P024", |plan, random| {
            let at = any(plan, random);
            let (agent, kind) = (plan.steps[at].agent.clone()?, plan.steps[at].kind.clone()?);
            // Kept by nobody else: the skill goes, and with it the qualification for this step only.
            let same = |step: &Step| step.agent.as_ref() == Some(&agent) && step.kind.as_ref() == Some(&kind);
            if plan.steps.iter().filter(|step| same(step)).count() > 1 {
                return None;
            }
            plan.agents.iter_mut().find(|one| one.id == agent)?.skills.retain(|skill| *skill != kind);
            path(at, "agent")
        }),
        of("P025", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].criteria.clear();
            path(at, "criteria")
        }),
        of("P026", |plan, random| {
            let at = any(plan, random);
            let criterion = plan.steps[at].criteria.first_mut()?;
            match random.index(4) {
                0 => criterion.metric = None,
                1 => criterion.comparator = None,
                2 => criterion.target = Some(f64::NAN),
                _ => criterion.target = None,
            }
            path(at, "criteria/0")
        }),
        of("P027", |plan, random| {
            let at = any(plan, random);
            let bad = [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.5, -0.25];
            plan.steps[at].duration = match random.index(8) {
                6 => None,
                7 => {
                    plan.steps[at].duration = Some(Ticks::Whole(i64::MAX));
                    let kind = plan.steps[at].kind.clone()?;
                    // Reasonable for its kind, or that would be another defect.
                    plan.kinds.get_mut(&kind)?.max = i64::MAX;
                    plan.steps[at].start = None;
                    plan.steps[at].finish = None;
                    plan.load = None;
                    return Some("/steps".to_owned());
                }
                bad_one => Some(bad[bad_one].into()),
            };
            plan.load = None;
            path(at, "duration")
        }),
        of("P028", |plan, random| {
            let at = some(plan, random, |_, step| ticks(step) > 0)?;
            let kind = plan.steps[at].kind.clone()?;
            let longest = plan.steps.iter().filter(|step| step.kind.as_ref() == Some(&kind)).map(ticks).max()?;
            plan.kinds.get_mut(&kind)?.max = longest - 1;
            path(
                plan.steps.iter().position(|step| step.kind.as_ref() == Some(&kind) && ticks(step) == longest)?,
                "duration",
            )
        }),
        of("P029", |plan, random| {
            let at = some(plan, random, |_, step| ticks(step) == 0)?;
            plan.kinds.get_mut("mark")?.milestone = false;
            path(at, "duration")
        }),
        of("P030", |plan, random| {
            let at = any(plan, random);
            let human =
                |plan: &Plan| plan.agents.iter().any(|one| Some(&one.id) == plan.steps[at].agent.as_ref() && one.human);
            plan.steps[at].automation = match random.index(3) {
                0 => None,
                1 if !human(plan) => Some(Automation { automated: false, executor: None }),
                _ => Some(Automation {
                    automated: true,
                    executor: [None, Some(" ".to_owned())][random.index(2)].clone(),
                }),
            };
            path(at, "automation")
        }),
        of("P031", |plan, random| {
            let at = any(plan, random);
            let units = random.percent(30) && plan.steps.len() > 2 && at > 0;
            let cost: &mut Quantity = plan.steps[at].quantities.get_mut("cost")?;
            match random.index(4) {
                _ if units => "USD".clone_into(&mut cost.unit),
                0 => cost.value = f64::NAN,
                1 => cost.value = f64::INFINITY,
                2 => cost.value = -0.1,
                _ => cost.value = 100.1,
            }
            path(at, "quantities/cost")
        }),
        of("P032", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].title = Some("ü".repeat(4_001));
            path(at, "title")
        }),
        of("P033", |plan, random| {
            let at = any(plan, random);
            "lost".clone_into(&mut plan.steps[at].choices.get_mut("state")?.value);
            path(at, "choices/state")
        }),
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
