//! How long what took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, OutageRules, OutageTimeline};

/// What was measured of an outage. `None` where it never happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutageFigures {
    /// From the fault to the moment at which a client first knew.
    pub detect: Option<Duration>,
    /// The time in which an operation failed; of several operations the longest.
    pub downtime: Duration,
    /// From the healing to the first success of an operation that had failed.
    pub first_success: Option<Duration>,
    /// From the healing to the beginning of the time that is steady to the end.
    pub steady: Option<Duration>,
    /// Calls that failed or hung after the fault.
    pub failed: usize,
    /// Calls that hung after the fault.
    pub hung: usize,
    /// How often clients tried again after the fault.
    pub retries: u64,
    /// The most work that waited after the fault.
    pub backlog: u64,
    /// From the healing to the moment at which no more work waited than before the fault.
    pub drained: Option<Duration>,
}

impl OutageFigures {
    /// Measures; `calls` are in the order of their due times.
    pub(super) fn of(timeline: &OutageTimeline, rules: &OutageRules, calls: &[&Call]) -> Self {
        let Some(fault) = timeline.fault else { return Self::default() };
        let touched: Vec<&Call> = calls.iter().filter(|call| call.ended >= fault).copied().collect();
        let failed: Vec<&Call> = touched.iter().filter(|call| !call.is_ok()).copied().collect();
        let broken: BTreeSet<&str> = failed.iter().map(|call| call.operation.as_str()).collect();
        let healed = timeline.healed;
        let first_success = healed.and_then(|healed| {
            let back = touched
                .iter()
                .filter(|call| call.is_ok() && call.ended >= healed && broken.contains(call.operation.as_str()));
            Some(back.map(|call| call.ended).min()? - healed)
        });
        Self {
            detect: failed.iter().map(|call| call.ended - fault).min(),
            downtime: downtime(&touched, timeline.ended),
            first_success,
            steady: healed.and_then(|healed| Some(steady_from(timeline, rules, calls)?.saturating_sub(healed))),
            failed: failed.len(),
            hung: failed.iter().filter(|call| call.reply == super::Reply::Hung).count(),
            retries: touched.iter().map(|call| u64::from(call.retries)).sum(),
            backlog: timeline.backlog.iter().filter(|(at, _)| *at >= fault).map(|(_, n)| *n).max().unwrap_or_default(),
            drained: healed.and_then(|healed| Some(drained_at(timeline)?.saturating_sub(healed))),
        }
    }
}

/// The longest time in which one operation was down: from a failure to the next success, summed up.
fn downtime(calls: &[&Call], ended: Duration) -> Duration {
    let mut down: BTreeMap<&str, (Option<Duration>, Duration)> = BTreeMap::new();
    for call in calls {
        let (since, total) = down.entry(&call.operation).or_default();
        match (call.is_ok(), *since) {
            (false, None) => *since = Some(call.due),
            (true, Some(begun)) => {
                *total += call.due - begun;
                *since = None;
            }
            _ => {}
        }
    }
    let totals =
        down.values().map(|(since, total)| *total + since.map_or(Duration::ZERO, |since| ended.saturating_sub(since)));
    totals.max().unwrap_or_default()
}

/// When the steady time after the healing begins: a whole window from there on is steady, and so is all that follows.
pub(super) fn steady_from(timeline: &OutageTimeline, rules: &OutageRules, calls: &[&Call]) -> Option<Duration> {
    let (healed, steady) = (timeline.healed?, &rules.steady);
    let after = &calls[calls.partition_point(|call| call.due < healed)..];
    let mut good = vec![0];
    for call in after {
        good.push(good[good.len() - 1] + usize::from(steady.is_good(call)));
    }
    let holds = |from: usize, to: usize| steady.holds(good[to] - good[from], to - from);
    let mut to = 0;
    for (from, call) in after.iter().enumerate() {
        // It begins with a call that was good: a window that tolerates failures may not begin with them.
        let end = call.due + steady.window;
        if end > timeline.ended {
            return None;
        }
        while to < after.len() && after[to].due < end {
            to += 1;
        }
        if steady.is_good(call) && holds(from, to) && holds(from, after.len()) {
            return Some(call.due);
        }
    }
    None
}

/// The most work that waited before the fault.
pub(super) fn usual_backlog(timeline: &OutageTimeline) -> u64 {
    let before = timeline.backlog.iter().filter(|(at, _)| timeline.fault.is_none_or(|fault| *at < fault));
    before.map(|(_, n)| *n).max().unwrap_or_default()
}

/// The first reading after the last one with more work than usual.
fn drained_at(timeline: &OutageTimeline) -> Option<Duration> {
    let usual = usual_backlog(timeline);
    let last = timeline.backlog.iter().rposition(|(_, n)| *n > usual);
    timeline.backlog.get(last.map_or(0, |last| last + 1)).map(|(at, _)| *at)
}
