//! The smallest plan that still fails in the same way; [`value`] does so for slates, drills and whatever else can [`Shrink`].
//!
//! Shrinking works on the plan itself, not on the random numbers it was made of: steps and dependencies are deleted in
//! chunks, a step is contracted (whoever waited for it waits for what it waited for), two dependencies are exchanged
//! for one, content is dropped, durations go down to one, names become `s1` to `sn`. The failure keeps its identity:
//! a plan that fails in another way is no candidate. Every question costs one call, and there is a budget of them.
//!
//! ```
//! use harness_props::generate::{PlanConfig, Random, plan};
//! use harness_props::mutate::break_rule;
//! use harness_props::plan::PlanValidator;
//! use harness_props::shrink;
//!
//! let mut random = Random::new(5);
//! let plan = plan(&PlanConfig::default().steps(12..=12), &mut random);
//! let broken = break_rule("P009", &plan, &mut random).expect("a plan of twelve steps can get a cycle");
//!
//! let validator = PlanValidator::standard();
//! let shrunk = shrink::plan(&broken.subject, |plan| validator.check(plan).primary().contains("P009"));
//! assert_eq!(shrunk.plan.steps.len(), 2);
//! assert!(shrunk.is_minimal, "the budget of {} calls was enough", shrink::BUDGET);
//! ```

mod value;

pub use value::{Least, Shrink, value};

use crate::plan::{Id, Link, Plan, PlanModel, Step, Ticks};

/// Calls that a shrink may cost unless told otherwise.
pub const BUDGET: usize = 2_000;

/// What shrinking came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Shrunk {
    /// The smallest failing plan found.
    pub plan: Plan,
    /// How often the failure was asked for.
    pub calls: usize,
    /// True when nothing more can go by itself; false when the budget ended first.
    pub is_minimal: bool,
}

/// Shrinks a failing plan within [`BUDGET`] calls.
pub fn plan(failing: &Plan, fails: impl FnMut(&Plan) -> bool) -> Shrunk {
    within(failing, BUDGET, fails)
}

/// Shrinks a failing plan while its report keeps the same set of primary rules.
pub fn same_rules(failing: &Plan, report: impl Fn(&Plan) -> crate::rule::Report) -> Shrunk {
    let wanted: Vec<String> = report(failing).primary().into_iter().map(str::to_owned).collect();
    plan(failing, |plan| report(plan).primary().iter().eq(wanted.iter()))
}

/// Shrinks a failing plan within a budget of calls. A plan that does not fail to begin with comes back as it is.
pub fn within(failing: &Plan, budget: usize, fails: impl FnMut(&Plan) -> bool) -> Shrunk {
    let mut search = Search { best: failing.clone(), size: size(failing), calls: 0, budget, fails };
    if !search.ask(failing) {
        return Shrunk { plan: failing.clone(), calls: search.calls, is_minimal: false };
    }
    let mut is_first = true;
    loop {
        // Content first: what a plan claims about its steps holds them together. A round goes through all passes before any
        // is gone through again. An exchange is as good a step as any, but a dear one: it comes last.
        let mut smaller = search.simplify();
        smaller |= search.delete_steps(is_first);
        smaller |= search.delete_dependencies(is_first);
        smaller |= search.contract_steps();
        if search.is_spent() || !(smaller || search.exchange_dependencies()) {
            break;
        }
        is_first = false;
    }
    search.rename();
    Shrunk { is_minimal: !search.is_spent(), plan: search.best, calls: search.calls }
}

/// Steps, dependencies, length in JSON, ticks: what a smaller plan has less of, in this order.
fn size(plan: &Plan) -> (usize, usize, usize, i128) {
    let ticks = plan.steps.iter().map(|step| match step.duration {
        Some(Ticks::Whole(ticks)) => ticks.unsigned_abs().into(),
        _ => 0,
    });
    let claims = [plan.makespan, plan.deadline, plan.recovery_window, plan.width].into_iter().flatten();
    let ticks = ticks.chain(claims.map(|claim| claim.unsigned_abs().into()));
    let dependencies = plan.steps.iter().map(|step| step.after.len()).sum();
    (plan.steps.len(), dependencies, serde_json::to_string(plan).map_or(0, |text| text.len()), ticks.sum())
}

struct Search<F> {
    best: Plan,
    size: (usize, usize, usize, i128),
    calls: usize,
    budget: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    fn is_spent(&self) -> bool {
        self.calls >= self.budget
    }

    fn ask(&mut self, plan: &Plan) -> bool {
        if self.is_spent() {
            return false;
        }
        self.calls += 1;
        (self.fails)(plan)
    }

    /// Takes a candidate if it is smaller and fails; so the search ends.
    fn takes(&mut self, candidate: Plan) -> bool {
        let size = size(&candidate);
        let takes = size < self.size && self.ask(&candidate);
        if takes {
            (self.best, self.size) = (candidate, size);
        }
        takes
    }

    /// Deletes chunks of a list, halving them: `without` makes the candidate without a range.
    fn delete(
        &mut self,
        largest: usize,
        without: impl Fn(&Plan, usize, usize) -> Plan,
        count: impl Fn(&Plan) -> usize,
    ) -> bool {
        let mut any = false;
        let mut chunk = largest;
        while chunk > 0 && !self.is_spent() {
            let mut at = 0;
            while at < count(&self.best) {
                let end = (at + chunk).min(count(&self.best));
                let candidate = without(&self.best, at, end);
                if self.takes(candidate) { any = true } else { at = end }
            }
            chunk /= 2;
        }
        any
    }

    /// In chunks at first; what is left then goes one by one.
    fn delete_steps(&mut self, in_chunks: bool) -> bool {
        let largest = if in_chunks { self.best.steps.len() } else { 1 };
        self.delete(largest, without_steps, |plan| plan.steps.len())
    }

    fn delete_dependencies(&mut self, in_chunks: bool) -> bool {
        let count = |plan: &Plan| plan.steps.iter().map(|step| step.after.len()).sum();
        self.delete(
            if in_chunks { count(&self.best) } else { 1 },
            |plan, from, to| {
                let mut plan = plan.clone();
                let mut position = 0;
                for step in &mut plan.steps {
                    step.after.retain(|_| {
                        position += 1;
                        !(from < position && position <= to)
                    });
                }
                plan
            },
            count,
        )
    }

    /// Whoever waited for a step waits for what it waited for, and the step goes.
    fn contract_steps(&mut self) -> bool {
        let mut any = false;
        let mut at = 0;
        while at < self.best.steps.len() && !self.is_spent() {
            let candidate = without_steps(&bridged(&self.best, at), at, at + 1);
            if self.takes(candidate) { any = true } else { at += 1 }
        }
        any
    }

    /// Two dependencies go and one comes, so that a long cycle can become a shorter one with a chord; then whatever
    /// step is in no dependency any more goes too.
    fn exchange_dependencies(&mut self) -> bool {
        let edges = |plan: &Plan| -> Vec<(usize, usize)> {
            plan.steps
                .iter()
                .enumerate()
                .flat_map(|(at, step)| (0..step.after.len()).map(move |place| (at, place)))
                .collect()
        };
        let all = edges(&self.best);
        let count = self.best.steps.len();
        // Two dependencies that meet in a step, replaced by one past it or back.
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other))) {
            if one >= other || self.is_spent() {
                continue;
            }
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let ids: [&Id; 2] =
                    [&self.best.steps[one.0].after[one.1].on, &self.best.steps[other.0].after[other.1].on];
                let touched = |at: usize| at == one.0 || at == other.0 || ids.contains(&&self.best.steps[at].id);
                if from == to || !touched(from) || !touched(to) {
                    continue;
                }
                let target = self.best.steps[to].id.clone();
                if self.best.steps[from].after.iter().any(|link| link.on == target) {
                    continue;
                }
                let mut candidate = self.best.clone();
                candidate.steps[other.0].after.remove(other.1);
                candidate.steps[one.0].after.remove(one.1);
                candidate.steps[from].after.push(target.into());
                if self.takes(candidate) {
                    return true;
                }
            }
        }
        false
    }

    /// Plan-level facts, content and durations.
    fn simplify(&mut self) -> bool {
        let mut any = false;
        for drop in PLAN_PARTS {
            let mut candidate = self.best.clone();
            drop(&mut candidate);
            any |= self.takes(candidate);
        }
        for drop in STEP_PARTS {
            // From all steps at once, or else from one after the other.
            let mut candidate = self.best.clone();
            candidate.steps.iter_mut().for_each(drop);
            if self.takes(candidate) {
                any = true;
                continue;
            }
            for at in 0..self.best.steps.len() {
                let mut candidate = self.best.clone();
                drop(&mut candidate.steps[at]);
                any |= self.takes(candidate);
            }
        }
        any
    }

    fn rename(&mut self) {
        let Ok(view) = self.best.view() else { return };
        if !view.repeated.is_empty() {
            return;
        }
        let mut candidate = self.best.clone();
        let old: Vec<Id> = candidate.steps.iter().map(|step| step.id.clone()).collect();
        let new = |id: &Id| {
            let at = old.iter().position(|known| known == id);
            at.map_or_else(|| id.clone(), |at| format!("s{}", at + 1).into())
        };
        for step in &mut candidate.steps {
            step.id = new(&step.id);
            step.after.iter_mut().for_each(|link| link.on = new(&link.on));
            if let Some(undo) = &mut step.rollback {
                undo.by.iter_mut().chain(&mut undo.uses).chain(&mut undo.after).for_each(|id| *id = new(id));
            }
        }
        let claims = candidate.critical_path.iter_mut().flatten();
        candidate.entries.iter_mut().chain(&mut candidate.terminals).chain(claims).for_each(|id| *id = new(id));
        candidate.exclusions.iter_mut().for_each(|pair| (pair.one, pair.other) = (new(&pair.one), new(&pair.other)));
        if old.iter().any(|id| new(id) != *id) && self.ask(&candidate) {
            self.best = candidate;
        }
    }
}

/// Smaller plans than this one, one step of shrinking each, most promising first: for engines that ask one by one.
pub(crate) fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut chunk = plan.steps.len();
    while chunk > 0 {
        let starts = (0..plan.steps.len()).step_by(chunk);
        all.extend(starts.map(|at| without_steps(plan, at, (at + chunk).min(plan.steps.len()))));
        chunk /= 2;
    }
    for (at, step) in plan.steps.iter().enumerate() {
        for place in 0..step.after.len() {
            let mut smaller = plan.clone();
            smaller.steps[at].after.remove(place);
            all.push(smaller);
        }
        all.push(without_steps(&bridged(plan, at), at, at + 1));
    }
    for drop in PLAN_PARTS {
        let mut smaller = plan.clone();
        drop(&mut smaller);
        all.push(smaller);
    }
    for drop in STEP_PARTS {
        let mut smaller = plan.clone();
        smaller.steps.iter_mut().for_each(drop);
        all.push(smaller);
    }
    let own = size(plan);
    all.retain(|smaller| size(smaller) < own);
    all
}

/// Whoever waits for a step waits for what it waits for instead.
fn bridged(plan: &Plan, at: usize) -> Plan {
    let mut bridged = plan.clone();
    let gone = &plan.steps[at];
    for step in &mut bridged.steps {
        if let Some(place) = step.after.iter().position(|link| link.on == gone.id) {
            step.after.remove(place);
            let more = gone.after.iter().filter(|link| link.on != gone.id);
            let more: Vec<Link> =
                more.filter(|link| !step.after.iter().any(|own| own.on == link.on)).cloned().collect();
            step.after.extend(more);
        }
    }
    bridged
}

/// Without some steps and without whatever refers to them; the others are numbered anew if the numbers were 1 to N.
fn without_steps(plan: &Plan, from: usize, to: usize) -> Plan {
    let gone: Vec<Id> = plan.steps[from..to].iter().map(|step| step.id.clone()).collect();
    let mut plan = plan.clone();
    let mut numbers: Vec<i64> = plan.steps.iter().filter_map(|step| step.number).collect();
    numbers.sort_unstable();
    let numbered = numbers.iter().copied().eq(1..=plan.steps.len() as i64);
    plan.steps.drain(from..to);
    // A name that another step has as well still leads somewhere.
    let gone: Vec<&Id> = gone.iter().filter(|id| plan.steps.iter().all(|step| step.id != **id)).collect();
    for step in &mut plan.steps {
        step.after.retain(|link| !gone.contains(&&link.on));
        if let Some(undo) = &mut step.rollback {
            undo.uses.retain(|id| !gone.contains(&id));
            undo.after.retain(|id| !gone.contains(&id));
            undo.by = undo.by.take().filter(|id| !gone.contains(&id));
        }
    }
    for list in [&mut plan.entries, &mut plan.terminals].into_iter().chain(&mut plan.critical_path) {
        list.retain(|id| !gone.contains(&id));
    }
    plan.exclusions.retain(|pair| !gone.contains(&&pair.one) && !gone.contains(&&pair.other));
    if numbered {
        let mut order: Vec<usize> = (0..plan.steps.len()).collect();
        order.sort_by_key(|at| plan.steps[*at].number);
        order.iter().enumerate().for_each(|(number, at)| plan.steps[*at].number = Some(number as i64 + 1));
    }
    plan
}

const PLAN_PARTS: [fn(&mut Plan); 21] = [
    |plan| plan.entries.clear(),
    |plan| plan.terminals.clear(),
    |plan| plan.phases.clear(),
    |plan| plan.agents.clear(),
    |plan| plan.kinds.clear(),
    |plan| plan.actions.clear(),
    |plan| plan.resources.clear(),
    |plan| plan.exclusions.clear(),
    |plan| plan.max_parallel = None,
    |plan| plan.deadline = None,
    |plan| plan.margin = None,
    |plan| plan.recovery_window = None,
    |plan| plan.critical_path = None,
    |plan| plan.sole = None,
    |plan| plan.makespan = None,
    |plan| plan.width = None,
    |plan| plan.load = None,
    |plan| plan.makespan = plan.makespan.map(|_| 0),
    |plan| plan.deadline = plan.deadline.map(|_| 0),
    |plan| plan.recovery_window = plan.recovery_window.map(|_| 0),
    |plan| plan.width = plan.width.map(|_| 0),
];

const STEP_PARTS: [fn(&mut Step); 20] = [
    |step| step.texts.clear(),
    |step| step.phase = None,
    |step| step.group = None,
    |step| step.kind = None,
    |step| step.agent = None,
    |step| step.exclusive = false,
    |step| step.criteria.clear(),
    |step| step.automation = None,
    |step| step.effect = None,
    |step| step.rollback = None,
    |step| step.start = None,
    |step| step.finish = None,
    |step| (step.release, step.deadline) = (None, None),
    |step| step.times = None,
    |step| step.critical = None,
    |step| step.demands.clear(),
    |step| step.quantities.clear(),
    |step| step.choices.clear(),
    |step| step.after.iter_mut().for_each(|link| *link = link.on.clone().into()),
    |step| step.duration = Some(Ticks::Whole(1)),
];

#[cfg(test)]
mod tests;
