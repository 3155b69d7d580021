//! P040 to P049: taking back what was done, in reverse order of completion (sagas: Garcia-Molina and Salem 1987).

use std::collections::BTreeSet;

use serde_json::json;

use super::{CYCLIC, LARGE, REPEATED, resolvable};
use crate::plan::graph::{Order, shortest_cycle};
use crate::plan::model::{Id, Rollback, Step};
use crate::plan::view::{Subject, View};
use crate::rule::{Findings, Rule, Severity};

pub(super) fn rules() -> Vec<Rule<Subject>> {
    use Severity::{Error, Warning};
    vec![
        Rule::new("P040", Error, "what needs a rollback has one, or says why it cannot", rollback_where_needed)
            .needs(&["rollback", "effect"]),
        Rule::new("P041", Error, "rollbacks refer to what exists", rollback_exists).needs(&["rollback"]),
        Rule::new("P042", Error, "no rollback uses what is taken back before it", uses_nothing_undone)
            .needs(&["rollback"]),
        Rule::new("P043", Error, "rollbacks do not wait for one another", rollbacks_acyclic).needs(&["rollback"]),
        Rule::new("P044", Error, "no step is its own rollback", not_own_rollback).needs(&["rollback"]),
        Rule::new("P045", Warning, "nothing can fail for good after the point of no return", retriable_after_pivot)
            .needs(&["effect"]),
        Rule::new("P046", Error, "whatever was done so far can be taken back", every_prefix)
            .needs(&["rollback", "effect"])
            .implied_by(&["P040", "P042"]),
        Rule::new("P047", Warning, "rollbacks can be repeated", idempotent).needs(&["rollback"]),
        Rule::new("P048", Warning, "taking all back fits the recovery window", within_window)
            .needs(&["rollback", "recovery_window"]),
        Rule::new("P049", Error, "taking back restores the state", restores).needs(&["rollback", "effect"]),
    ]
}

fn rollbacks(view: &View) -> impl Iterator<Item = (usize, &Rollback)> {
    view.steps().iter().enumerate().filter_map(|(at, step)| Some((at, step.rollback.as_ref()?)))
}

/// Why a step cannot be taken back, if it says so.
fn pivot(step: &Step) -> Option<&str> {
    step.effect.as_ref()?.irreversible.as_deref().map(str::trim).filter(|why| !why.is_empty())
}

fn lacks_rollback(plan: &Subject, step: &Step) -> bool {
    (plan.policy().rollback_needed)(step) && step.rollback.is_none() && pivot(step).is_none()
}

fn rollback_where_needed(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, _) in view.steps().iter().enumerate().filter(|(_, step)| lacks_rollback(plan, step)) {
        found.at(&[at as u32], || {
            let id = view.id(at);
            let message = format!("`{id}` changes something, but has no rollback and no reason why it cannot");
            (view.step_path(at, "rollback"), message, json!({"step": id}))
        });
    }
}

fn rollback_exists(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let known: BTreeSet<&Id> = view.ids.iter().collect();
    let actions = &view.charter().actions;
    for (at, rollback) in rollbacks(view) {
        let mut missing = |field: String, name: String| {
            found.at(&[at as u32], || {
                let message = format!("the rollback of `{}` refers to `{name}`, which does not exist", view.id(at));
                (view.step_path(at, &field), message, json!({"step": view.id(at), "name": name}))
            });
        };
        if rollback.by.is_none() && !actions.is_empty() && !actions.contains(&rollback.action) {
            missing("rollback/action".to_owned(), rollback.action.clone());
        }
        if rollback.by.is_none() && rollback.action.trim().is_empty() && actions.is_empty() {
            missing("rollback/action".to_owned(), String::new());
        }
        if let Some(by) = rollback.by.as_ref().filter(|by| !known.contains(by)) {
            missing("rollback/by".to_owned(), by.to_string());
        }
        for (list, names) in [("uses", &rollback.uses), ("after", &rollback.after)] {
            for (position, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
                missing(format!("rollback/{list}/{position}"), name.to_string());
            }
        }
    }
}

fn uses_nothing_undone(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if rollbacks(view).all(|(_, rollback)| rollback.uses.is_empty()) || !resolvable(view, found) {
        return;
    }
    let Some(ancestors) = plan.ancestors() else { return found.skip(LARGE) };
    for (at, rollback) in rollbacks(view) {
        for (position, name) in rollback.uses.iter().enumerate() {
            let Some(used) = view.find(name).filter(|used| ancestors.waits_for(*used, at)) else { continue };
            found.at(&[at as u32], || {
                let (id, used) = (view.id(at), view.id(used));
                let message = format!("the rollback of `{id}` uses the effect of `{used}`, which is taken back before");
                let witness = json!({"step": id, "uses": used});
                (view.step_path(at, &format!("rollback/uses/{position}")), message, witness)
            });
        }
    }
}

fn rollbacks_acyclic(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !view.repeated.is_empty() {
        return found.skip(REPEATED);
    }
    let after = |at: usize| view.steps().get(at).and_then(|step| step.rollback.as_ref()).map(|undo| &undo.after[..]);
    let built =
        View::build(view.ids.clone(), |at, out| out.extend(after(at).unwrap_or(&[]).iter().cloned().map(Into::into)));
    let Ok(graph) = built else { return };
    let mut report = |cycle: Vec<u32>| {
        found.at(&cycle, || {
            let names: Vec<String> = cycle.iter().map(|at| view.id(*at as usize).to_string()).collect();
            let message = format!("rollbacks wait for one another: {} -> {}", names.join(" -> "), names[0]);
            (view.step_path(cycle[0] as usize, "rollback/after"), message, json!({"cycle": names}))
        });
    };
    for at in 0..graph.len() {
        if graph.after(at).any(|on| on == at) {
            report(vec![at as u32]);
        }
    }
    for component in Order::of(&graph).components() {
        report(shortest_cycle(&graph, component).0);
    }
}

fn not_own_rollback(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, _) in rollbacks(view).filter(|(at, rollback)| rollback.by.as_ref() == Some(view.id(*at))) {
        found.at(&[at as u32], || {
            let id = view.id(at);
            (view.step_path(at, "rollback/by"), format!("`{id}` is its own rollback"), json!({"step": id}))
        });
    }
}

fn retriable_after_pivot(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let pivots: Vec<usize> = (0..view.len()).filter(|at| pivot(&view.steps()[*at]).is_some()).collect();
    if pivots.is_empty() || !resolvable(view, found) {
        return;
    }
    let Some(ancestors) = plan.ancestors() else { return found.skip(LARGE) };
    for at in pivots {
        let fallible = |step: &usize| view.steps()[*step].effect.as_ref().is_some_and(|effect| effect.fallible);
        let Some(later) = (0..view.len()).filter(fallible).find(|later| ancestors.waits_for(*later, at)) else {
            continue;
        };
        found.at(&[at as u32], || {
            let (id, later) = (view.id(at), view.id(later));
            let message = format!("`{id}` cannot be taken back, but `{later}` after it can fail for good");
            (view.step_path(at, "effect/irreversible"), message, json!({"pivot": id, "successor": later}))
        });
    }
}

fn every_prefix(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    if !resolvable(view, found) {
        return;
    }
    let Some(ancestors) = plan.ancestors() else { return found.skip(LARGE) };
    for (at, step) in view.steps().iter().enumerate() {
        // Taken back right after it was done, with only what it waits for done too: the smallest prefix there is.
        let uses = step.rollback.iter().flat_map(|undo| undo.uses.iter().enumerate());
        let absent = uses.filter_map(|(position, name)| {
            let used = view.find(name).filter(|used| *used != at && !ancestors.waits_for(at, *used))?;
            Some((format!("rollback/uses/{position}"), format!("the effect of `{}` need not be there", view.id(used))))
        });
        let lacking = lacks_rollback(plan, step).then(|| ("rollback".to_owned(), "it has no rollback".to_owned()));
        for (field, why) in lacking.into_iter().chain(absent) {
            found.at(&[at as u32], || {
                let prefix = (0..view.len()).filter(|one| *one == at || ancestors.waits_for(at, *one));
                let prefix: Vec<&Id> = prefix.map(|one| view.id(one)).collect();
                let message = format!("after {} steps `{}` cannot be taken back: {why}", prefix.len(), view.id(at));
                (view.step_path(at, &field), message, json!({"step": view.id(at), "prefix": prefix}))
            });
        }
    }
}

fn idempotent(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, _) in rollbacks(view).filter(|(_, rollback)| !rollback.idempotent) {
        found.at(&[at as u32], || {
            let id = view.id(at);
            let message = format!("the rollback of `{id}` is not declared to be repeatable");
            (view.step_path(at, "rollback/idempotent"), message, json!({"step": id}))
        });
    }
}

/// Judged along the canonical order: after each step, all that is not behind a point of no return is taken back.
fn within_window(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    let Some(limit) = view.charter().recovery_window else { return };
    let Some(sequence) = plan.order().sequence() else { return found.skip(CYCLIC) };
    let steps = view.steps();
    let pivots = steps.iter().any(|step| pivot(step).is_some());
    let ancestors = plan.ancestors();
    if pivots && ancestors.is_none() {
        return found.skip(LARGE);
    }
    let mut open: Vec<i128> = vec![0; view.len()];
    let (mut sum, mut worst, mut prefix) = (0_i128, 0_i128, 0);
    for (done, at) in sequence.iter().map(|at| *at as usize).enumerate() {
        if pivot(&steps[at]).is_some() {
            for earlier in (0..view.len()).filter(|one| ancestors.is_some_and(|known| known.waits_for(at, *one))) {
                sum -= std::mem::take(&mut open[earlier]);
            }
            continue;
        }
        open[at] = steps[at].rollback.as_ref().map_or(0, |rollback| rollback.duration.into());
        sum += open[at];
        if sum > worst {
            (worst, prefix) = (sum, done + 1);
        }
    }
    if worst > limit.into() {
        let message = format!("taking back the first {prefix} steps takes {worst}, more than {limit}");
        let witness = json!({"prefix": prefix, "sum": worst.to_string(), "limit": limit});
        found.add(view.plan_path("recovery_window"), message, witness);
    }
}

/// Executes each step's effect and its rollback on a model of the state, key by key.
fn restores(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, rollback) in rollbacks(view) {
        let writes = view.steps()[at].effect.iter().flat_map(|effect| &effect.writes);
        let left: Vec<&String> = writes.filter(|key| !rollback.restores.contains(key)).collect();
        if !left.is_empty() {
            found.at(&[at as u32], || {
                let id = view.id(at);
                let names: Vec<&str> = left.iter().map(|key| key.as_str()).collect();
                let message = format!("`{id}` changes {}, which its rollback does not restore", names.join(", "));
                let prefix = plan.ancestors().map(|ancestors| ancestors.count(at) + 1);
                (view.step_path(at, "rollback/restores"), message, json!({"step": id, "left": left, "prefix": prefix}))
            });
        }
    }
}
