//! The five questions, each with its own outcome.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::{OutageFigures, steady_from, usual_backlog};
use super::{Call, OutageRules, OutageTimeline, Reply};
use crate::Outcome;
use crate::history::witness::list;

/// What was concluded from an outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutageVerdict {
    /// Whether it was steady before; if not, there is no evidence of anything.
    pub before: Outcome,
    /// Whether the fault bit.
    pub bit: Outcome,
    /// Whether it kept its contract while it was broken.
    pub during: Outcome,
    /// Whether it was steady again in time.
    pub after: Outcome,
    /// Whether the work that had piled up was done; not applicable where nobody read it.
    pub drained: Outcome,
    /// How long what took.
    pub figures: OutageFigures,
}

impl OutageVerdict {
    /// The worst of all.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst([&self.before, &self.bit, &self.during, &self.after, &self.drained].map(Clone::clone))
    }
}

pub(super) fn before(timeline: &OutageTimeline, rules: &OutageRules, calls: &[&Call]) -> Outcome {
    let (steady, until) = (&rules.steady, timeline.fault.unwrap_or(timeline.ended));
    let Some(since) = until.checked_sub(steady.window) else {
        return Outcome::no_evidence(format!(
            "the {:?} before the fault are less than a window of {:?}",
            until, steady.window
        ));
    };
    // A call that was under way when the fault came belongs to neither side.
    let window = calls.iter().filter(|call| call.due >= since && call.due < until && call.ended <= until);
    let (good, all) = window.fold((0, 0), |(good, all), call| (good + usize::from(steady.is_good(call)), all + 1));
    match steady.holds(good, all) {
        true => Outcome::pass(format!("{good} of {all} calls were good before")),
        false => Outcome::no_evidence(format!("it was not steady before: {good} of {all} calls were good")),
    }
}

pub(super) fn bit(timeline: &OutageTimeline) -> Outcome {
    match (timeline.fault, timeline.bites) {
        (None, _) => Outcome::no_evidence("nothing was broken"),
        (_, 0) => Outcome::no_evidence("the fault never bit"),
        (_, bites) => Outcome::pass(format!("the fault bit {bites} times")),
    }
}

pub(super) fn during(timeline: &OutageTimeline, rules: &OutageRules, calls: &[&Call]) -> Outcome {
    let Some(fault) = timeline.fault else { return Outcome::no_evidence("nothing was broken") };
    let until = timeline.healing.unwrap_or(timeline.ended);
    let window: Vec<&Call> = calls.iter().filter(|call| call.due >= fault && call.due < until).copied().collect();
    let contract = &rules.contract;
    let broken: Vec<String> = window
        .iter()
        .filter_map(|call| {
            let latency = call.latency();
            let why = match &call.reply {
                Reply::Hung => format!("hung for {latency:?}"),
                Reply::Error(kind) if contract.still.contains(&call.operation) => format!("failed with `{kind}`"),
                Reply::Error(kind) if contract.errors.as_ref().is_some_and(|known| !known.contains(kind)) => {
                    format!("failed with `{kind}`, which was not declared")
                }
                _ if contract.within.is_some_and(|limit| latency > limit) => format!("took {latency:?}"),
                _ => return None,
            };
            Some(format!("{} {:?} after the fault {why}", call.operation, call.due - fault))
        })
        .collect();
    let silent = contract.still.iter().find(|operation| !window.iter().any(|call| call.operation == **operation));
    match (list("broke the contract", &broken), silent) {
        (Some(witness), _) => Outcome::fail(witness),
        (None, Some(operation)) => Outcome::no_evidence(format!("`{operation}` was not called while it was broken")),
        (None, None) if window.is_empty() => Outcome::no_evidence("nothing was called while it was broken"),
        (None, None) => Outcome::pass(format!("{} calls kept the contract", window.len())),
    }
}

pub(super) fn after(timeline: &OutageTimeline, rules: &OutageRules, calls: &[&Call]) -> Outcome {
    let Some(healed) = timeline.healed else { return Outcome::no_evidence("it was not healed") };
    let limit = rules.recovers_within;
    let watched = timeline.ended.saturating_sub(healed);
    match steady_from(timeline, rules, calls).map(|at| at.saturating_sub(healed)) {
        Some(took) if took <= limit => Outcome::pass(format!("steady {took:?} after it was healed")),
        Some(took) => Outcome::fail(format!("steady only {took:?} after it was healed, the limit is {limit:?}")),
        None if watched < limit.saturating_add(rules.steady.window) => {
            Outcome::no_evidence(format!("it was watched for {watched:?} after it was healed, and not steady so far"))
        }
        None => {
            Outcome::fail(format!("not steady {watched:?} after it was healed: {}", tail(rules, calls, timeline.ended)))
        }
    }
}

/// What the last window looked like.
fn tail(rules: &OutageRules, calls: &[&Call], ended: Duration) -> String {
    let since = ended.saturating_sub(rules.steady.window);
    let window = calls.iter().filter(|call| call.due >= since);
    let (good, all) =
        window.fold((0, 0), |(good, all), call| (good + usize::from(rules.steady.is_good(call)), all + 1));
    format!("{good} of the last {all} calls were good")
}

pub(super) fn drained(timeline: &OutageTimeline) -> Outcome {
    let usual = usual_backlog(timeline);
    match (timeline.backlog.last(), timeline.healed) {
        (None, _) => Outcome::not_applicable("nobody read how much work was waiting"),
        (Some(_), None) => Outcome::no_evidence("it was not healed"),
        (Some((at, _)), Some(healed)) if *at < healed => Outcome::no_evidence("no backlog was read after the healing"),
        (Some((_, left)), _) if *left > usual => Outcome::fail(format!("{left} are waiting still, {usual} did before")),
        (Some((_, left)), _) => Outcome::pass(format!("{left} are waiting, {usual} did before")),
    }
}
