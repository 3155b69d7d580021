//! P060 to P075: times, lags, the critical path and what a plan claims about it.

use std::collections::HashMap;

use serde_json::json;

use super::{CYCLIC, LARGE, REPEATED, span};
use crate::plan::critical::{bound, length};
use crate::plan::graph::width;
use crate::plan::model::{Id, Tie};
use crate::plan::view::{Bond, NOWHERE, Subject, View};
use crate::rule::{Findings, Rule, Severity};

/// Work that a search for a positive cycle may cost, in relaxed edges.
const RELAXED: usize = 50_000_000;
/// Steps up to which the width is computed.
const WIDTH: usize = 512;

pub(super) fn rules() -> Vec<Rule<Subject>> {
    use Severity::{Error, Info, Warning};
    vec![
        Rule::new("P060", Error, "starts keep every dependency and its lag", starts_keep_dependencies)
            .needs(&["start", "duration", "after"]),
        Rule::new("P061", Error, "finish is start plus duration", finish_agrees)
            .needs(&["start", "finish", "duration"]),
        Rule::new("P062", Error, "steps run within release and deadline", within_window).needs(&["start", "release"]),
        Rule::new("P063", Error, "greatest lags are kept", max_lag_kept)
            .needs(&["start", "duration", "after"])
            .implied_by(&["P064"]),
        Rule::new("P064", Error, "lags can be kept at all", no_positive_cycle).needs(&["duration", "after"]),
        Rule::new("P065", Error, "the claimed critical path is a path", claim_is_path).needs(&["critical_path"]),
        Rule::new("P066", Error, "the claimed critical path goes from a first step to a last", claim_is_complete)
            .needs(&["critical_path"]),
        Rule::new("P067", Error, "the claimed critical path is as long as the plan", claim_is_longest)
            .needs(&["critical_path", "duration"])
            .implied_by(&["P066"]),
        Rule::new("P068", Error, "the claimed makespan is right", makespan_right)
            .needs(&["makespan", "duration"])
            .implied_by(&["P087"]),
        Rule::new("P069", Error, "claimed times are right", times_right)
            .needs(&["times", "duration"])
            .implied_by(&["P070"]),
        Rule::new("P070", Error, "claimed floats are possible", floats_possible).needs(&["times"]),
        Rule::new("P071", Error, "what is claimed to be critical has no float", critical_has_no_float)
            .needs(&["duration"])
            .implied_by(&["P066", "P067"]),
        Rule::new("P072", Warning, "there is one critical path if one is claimed", sole_is_sole)
            .needs(&["sole", "duration"]),
        Rule::new("P073", Error, "the plan ends before its deadline", before_deadline)
            .needs(&["plan_deadline", "duration"]),
        Rule::new("P074", Warning, "the margin before the deadline is left", margin_left)
            .needs(&["plan_deadline", "margin", "duration"])
            .implied_by(&["P073"]),
        Rule::new("P075", Info, "the claimed width is right", width_right).needs(&["width", "after"]),
    ]
}

fn starts_keep_dependencies(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for step in 0..view.len() {
        let Some((start, end)) = span(view, step) else { continue };
        for (position, edge) in view.edges(step).enumerate() {
            let on = view.targets[edge];
            if on == NOWHERE || on as usize == step {
                continue;
            }
            let on = on as usize;
            let Some((theirs, theirs_end)) = span(view, on) else { continue };
            let bond = view.bond(edge);
            let gap = i128::from(start) - wide_bound(bond, theirs, theirs_end - theirs, end - start);
            if gap < 0 {
                found.at(&[step as u32], || {
                    let (id, on) = (view.id(step), view.id(on));
                    let message = format!("`{id}` starts at {start}, {} too early for `{on}`", -gap);
                    let witness = json!({"from": id, "to": on, "gap": gap.to_string()});
                    (view.step_path(step, &format!("after/{position}")), message, witness)
                });
            }
        }
    }
}

/// As [`bound`], for times and lags that nobody has looked at.
fn wide_bound(bond: Bond, start: i64, theirs: i64, ours: i64) -> i128 {
    let (start, theirs, ours, lag) = (i128::from(start), i128::from(theirs), i128::from(ours), i128::from(bond.lag));
    match bond.tie {
        Tie::FinishStart => start + theirs + lag,
        Tie::StartStart => start + lag,
        Tie::FinishFinish => start + theirs + lag - ours,
        Tie::StartFinish => start + lag - ours,
    }
}

fn finish_agrees(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, step) in view.steps().iter().enumerate() {
        let (Some((start, end)), Some(finish)) = (span(view, at), step.finish) else { continue };
        if finish != end {
            found.at(&[at as u32], || {
                let message =
                    format!("`{}` starts at {start} and takes {}, but finishes at {finish}", step.id, end - start);
                (view.step_path(at, "finish"), message, json!({"step": step.id, "expected": end, "got": finish}))
            });
        }
    }
}

fn within_window(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, step) in view.steps().iter().enumerate() {
        let Some(start) = step.start else { continue };
        let end = span(view, at).map_or(start, |span| span.1);
        let early = step.release.filter(|release| start < *release).map(|limit| ("release", start, limit));
        let late = step.deadline.filter(|deadline| end > *deadline).map(|limit| ("deadline", end, limit));
        for (field, value, limit) in early.into_iter().chain(late) {
            found.at(&[at as u32], || {
                let message = format!("`{}` runs at {value}, against its {field} of {limit}", step.id);
                (view.step_path(at, field), message, json!({"step": step.id, "bound": limit, "value": value}))
            });
        }
    }
}

fn max_lag_kept(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if view.bonds.is_empty() {
        return;
    }
    for step in 0..view.len() {
        let Some((start, end)) = span(view, step) else { continue };
        for (position, edge) in view.edges(step).enumerate() {
            let bond = view.bond(edge);
            let (Some(most), true) = (bond.max_lag, view.targets[edge] != NOWHERE) else { continue };
            let on = view.targets[edge] as usize;
            let Some((theirs, theirs_end)) = span(view, on) else { continue };
            let lag = i128::from(start) - wide_bound(Bond { lag: 0, ..bond }, theirs, theirs_end - theirs, end - start);
            if lag > most.into() {
                found.at(&[step as u32, on as u32], || {
                    let (id, on) = (view.id(step), view.id(on));
                    let message = format!("`{id}` comes {lag} after `{on}`, more than {most}");
                    let witness = json!({"from": id, "to": on, "lag": lag.to_string(), "limit": most});
                    (view.step_path(step, &format!("after/{position}")), message, witness)
                });
            }
        }
    }
}

/// Least and greatest lags as one network; it can be kept unless it has a cycle of positive length (Bellman-Ford).
fn no_positive_cycle(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if view.bonds.iter().all(|bond| bond.max_lag.is_none()) {
        return; // Without greatest lags every positive cycle is a cycle of dependencies: P009.
    }
    if let Err(why) = plan.critical() {
        return found.skip(why.to_string());
    }
    let durations = &view.durations;
    let mut arcs: Vec<(usize, usize, i64)> = Vec::new();
    for step in 0..view.len() {
        for edge in view.edges(step) {
            let (on, bond) = (view.targets[edge] as usize, view.bond(edge));
            arcs.push((on, step, bound(bond, 0, durations[on], durations[step])));
            if let Some(most) = bond.max_lag {
                arcs.push((step, on, -bound(Bond { lag: most, ..bond }, 0, durations[on], durations[step])));
            }
        }
    }
    let count = view.len();
    if count.saturating_mul(arcs.len()) > RELAXED {
        return found.skip("not looked for in plans of this size");
    }
    let mut at = vec![0_i128; count];
    let mut from = vec![usize::MAX; count];
    let mut last = None;
    for _ in 0..=count {
        last = None;
        for (tail, head, weight) in &arcs {
            let reach = at[*tail] + i128::from(*weight);
            if reach > at[*head] {
                at[*head] = reach;
                from[*head] = *tail;
                last = Some(*head);
            }
        }
        if last.is_none() {
            break;
        }
    }
    let Some(mut step) = last else { return };
    (0..count).for_each(|_| step = from[step]);
    let mut cycle = vec![step];
    while from[step] != cycle[0] {
        step = from[step];
        cycle.push(step);
    }
    cycle.reverse();
    let head = (0..cycle.len()).find_map(|at| {
        let (one, other) = (cycle[at], cycle[(at + 1) % cycle.len()]);
        let edge =
            view.edges(one).find(|edge| view.targets[*edge] as usize == other && view.bond(*edge).max_lag.is_some())?;
        Some((one, edge - view.edges(one).start))
    });
    let (owner, position) = head.unwrap_or((cycle[0], 0));
    let scope: Vec<u32> = cycle.iter().map(|step| *step as u32).collect();
    found.at(&scope, || {
        let names: Vec<&Id> = cycle.iter().map(|step| view.id(*step)).collect();
        let text: Vec<String> = names.iter().map(ToString::to_string).collect();
        let message = format!("least and greatest lags contradict one another: {}", text.join(", "));
        (view.step_path(owner, &format!("after/{position}")), message, json!({"cycle": names}))
    });
}

/// The claimed critical path as steps; or the first place at which it is none.
fn claimed(view: &View) -> Result<Vec<usize>, (usize, String)> {
    let claim = view.charter().critical_path.as_deref().unwrap_or_default();
    let index: HashMap<&Id, usize> = view.ids.iter().enumerate().map(|(step, id)| (id, step)).collect();
    if claim.is_empty() && !view.is_empty() {
        return Err((0, "the claimed critical path is empty".to_owned()));
    }
    let mut path = Vec::with_capacity(claim.len());
    for (at, name) in claim.iter().enumerate() {
        let step = *index.get(name).ok_or_else(|| (at, format!("`{name}` is no step")))?;
        if let Some(before) = path.last().copied()
            && !view.after(step).any(|on| on == before)
        {
            return Err((at, format!("`{name}` does not wait for `{}`", view.id(before))));
        }
        path.push(step);
    }
    Ok(path)
}

const NO_PATH: &str = "undefined while the claim is no path (P065)";

fn claim_is_path(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !view.repeated.is_empty() {
        return found.skip(REPEATED);
    }
    if let Err((at, why)) = claimed(view) {
        found.add(
            view.plan_path(&format!("critical_path/{at}")),
            format!("the critical path breaks: {why}"),
            json!({"at": at}),
        );
    }
}

fn claim_is_complete(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let (true, Ok(path)) = (view.repeated.is_empty(), claimed(view)) else { return found.skip(NO_PATH) };
    if plan.order().sequence().is_none() {
        return found.skip(CYCLIC);
    }
    let (Some(first), Some(last)) = (path.first(), path.last()) else { return };
    if let Some(on) = view.after(*first).find(|on| on != first) {
        let message = format!("the critical path begins with `{}`, which waits for `{}`", view.id(*first), view.id(on));
        found.add(
            view.plan_path("critical_path/0"),
            message,
            json!({"step": view.id(*first), "waits_for": view.id(on)}),
        );
    }
    if let Some(next) = (0..view.len()).find(|step| step != last && view.after(*step).any(|on| on == *last)) {
        let at = view.plan_path(&format!("critical_path/{}", path.len() - 1));
        let message = format!("the critical path ends with `{}`, for which `{}` waits", view.id(*last), view.id(next));
        found.add(at, message, json!({"step": view.id(*last), "waited_for_by": view.id(next)}));
    }
}

fn claim_is_longest(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Ok(path) = claimed(view) else { return found.skip(NO_PATH) };
    let critical = match plan.critical() {
        Ok(critical) => critical,
        Err(why) => return found.skip(why.to_string()),
    };
    let Ok(length) = length(view, &path) else { return found.skip(NO_PATH) };
    if length != critical.makespan() {
        let longest = critical.path(view);
        let names: Vec<&Id> = longest.iter().take(1_000).map(|step| view.id(*step)).collect();
        let shown: Vec<String> = names.iter().take(12).map(ToString::to_string).collect();
        let message =
            format!("the claimed path takes {length}, but {} takes {}", shown.join(" -> "), critical.makespan());
        let witness = json!({"claimed": length, "longest": critical.makespan(), "path": names});
        found.add(view.plan_path("critical_path"), message, witness);
    }
}

/// When the plan ends: by its schedule if it has one, otherwise by the critical path method.
fn end(plan: &Subject) -> Result<(i64, &'static str), String> {
    let view = plan.view();
    if view.facets.contains("start") {
        let mut last = 0;
        for step in 0..view.len() {
            let (_, end) = span(view, step).ok_or("undefined while a step has no start or duration")?;
            last = last.max(end);
        }
        return Ok((last, "the last step finishes at"));
    }
    plan.critical().map(|critical| (critical.makespan(), "the critical path takes")).map_err(|why| why.to_string())
}

fn makespan_right(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(claim) = view.charter().makespan else { return };
    match end(plan) {
        Ok((end, says)) if end != claim => {
            let message = format!("{says} {end}, but the plan claims {claim}");
            found.add(view.plan_path("makespan"), message, json!({"expected": end, "got": claim}));
        }
        Ok(_) => {}
        Err(why) => found.skip(why),
    }
}

fn times_right(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let critical = match plan.critical() {
        Ok(critical) => critical,
        Err(why) => return found.skip(why.to_string()),
    };
    for (at, step) in view.steps().iter().enumerate() {
        let Some(claim) = &step.times else { continue };
        let right = critical.times(view, at);
        let fields = [
            ("early_start", claim.early_start, right.early_start),
            ("early_finish", claim.early_finish, right.early_finish),
            ("late_start", claim.late_start, right.late_start),
            ("late_finish", claim.late_finish, right.late_finish),
            ("total_float", claim.total_float, right.total_float),
            ("free_float", claim.free_float, right.free_float),
        ];
        for (field, got, expected) in fields.into_iter().filter(|(_, got, expected)| got != expected) {
            found.at(&[at as u32], || {
                let message = format!("{field} of `{}` is {expected}, but the plan claims {got}", step.id);
                let witness = json!({"step": step.id, "field": field, "expected": expected, "got": got});
                (view.step_path(at, &format!("times/{field}")), message, witness)
            });
        }
    }
}

fn floats_possible(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, step) in view.steps().iter().enumerate() {
        let Some(claim) = &step.times else { continue };
        let (field, why) = match (claim.total_float, claim.free_float) {
            (total, _) if total < 0 => ("times/total_float", "its total float is negative"),
            (_, free) if free < 0 => ("times/free_float", "its free float is negative"),
            (total, free) if free > total => ("times/free_float", "its free float is more than its total float"),
            _ => continue,
        };
        found.at(&[at as u32], || {
            let witness = json!({"step": step.id, "total": claim.total_float, "free": claim.free_float});
            (view.step_path(at, field), format!("`{}` is claimed impossible: {why}", step.id), witness)
        });
    }
}

fn critical_has_no_float(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let claims = view.charter().critical_path.is_some() || view.facets.contains("critical");
    if !claims {
        return found.skip("needs `critical_path` or `critical`, which are not supplied");
    }
    let critical = match plan.critical() {
        Ok(critical) => critical,
        Err(why) => return found.skip(why.to_string()),
    };
    let flagged =
        view.steps().iter().enumerate().filter(|(_, step)| step.critical == Some(true)).map(|(at, _)| (at, None));
    let path = claimed(view).unwrap_or_default();
    let on_path = path.iter().enumerate().map(|(position, at)| (*at, Some(position)));
    for (at, position) in flagged.chain(on_path).filter(|(at, _)| !critical.is_critical(*at)) {
        // A step on the path is the path's fault, a flag is the step's own.
        let scope: Vec<u32> = if position.is_some() { Vec::new() } else { vec![at as u32] };
        let path_claim = position.map(|position| view.plan_path(&format!("critical_path/{position}")));
        found.at(&scope, || {
            let float = critical.total_float(at);
            let message = format!("`{}` is claimed to be critical, but can wait for {float}", view.id(at));
            let path = path_claim.unwrap_or_else(|| view.step_path(at, "critical"));
            (path, message, json!({"step": view.id(at), "float": float}))
        });
    }
}

fn sole_is_sole(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if view.charter().sole != Some(true) {
        return;
    }
    match plan.critical() {
        Err(why) => found.skip(why.to_string()),
        Ok(critical) => {
            let paths = critical.paths(view, plan.order());
            if paths > 1 {
                let message = format!("there are {paths} critical paths, but the plan claims that there is one");
                found.add(view.plan_path("sole"), message, json!({"paths": paths}));
            }
        }
    }
}

fn before_deadline(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(deadline) = view.charter().deadline else { return };
    match end(plan) {
        Err(why) => found.skip(why),
        Ok((end, says)) if end > deadline => {
            let names: Vec<&Id> = plan
                .critical()
                .map(|critical| critical.path(view))
                .unwrap_or_default()
                .iter()
                .map(|at| view.id(*at))
                .take(100)
                .collect();
            let message = format!("{says} {end}, after the deadline {deadline}");
            found.add(view.plan_path("deadline"), message, json!({"end": end, "deadline": deadline, "longest": names}));
        }
        Ok(_) => {}
    }
}

fn margin_left(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let (Some(deadline), Some(margin)) = (view.charter().deadline, view.charter().margin) else { return };
    match end(plan) {
        Err(why) => found.skip(why),
        Ok((end, _)) => {
            let left = i128::from(deadline) - i128::from(end);
            if left < margin.into() {
                let message = format!("{left} are left before the deadline, less than the margin of {margin}");
                found.add(view.plan_path("margin"), message, json!({"left": left.to_string(), "margin": margin}));
            }
        }
    }
}

fn width_right(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(claim) = view.charter().width else { return };
    if view.len() > WIDTH {
        return found.skip(format!("not computed for plans beyond {WIDTH} steps"));
    }
    let Some(ancestors) = plan.ancestors() else { return found.skip(LARGE) };
    let width = width(ancestors, view.len()) as i64;
    if width != claim {
        let share = plan.critical().ok().map(|critical| {
            let ticks: i64 = (0..view.len()).filter(|at| critical.is_critical(*at)).map(|at| view.durations[at]).sum();
            json!({"critical_ticks": ticks, "makespan": critical.makespan()})
        });
        let message = format!("at most {width} steps can run at once, but the plan claims {claim}");
        found.add(view.plan_path("width"), message, json!({"expected": width, "got": claim, "share": share}));
    }
}
