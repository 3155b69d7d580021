//! Sends calls at their due times, breaks and heals meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness_props::history::outage::{Call, OutageRules, OutageTimeline, Reply};
use tokio::task::JoinSet;

use super::plan::Experiment;
use super::report::Recovery;
use super::workload::Called;
use crate::error::CoreResult;
use crate::fault::{Fault, inject};
use crate::wait::Pace;

/// How often it is looked whether it is steady again, per window of the steady state.
const LOOKS: u32 = 4;

/// What the sender and the director share.
#[derive(Clone)]
struct Books {
    pace: Pace,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    timeline: OutageTimeline,
    unsent: u64,
    latest: Duration,
}

impl Books {
    fn open(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timeline up to now.
    fn timeline(&self) -> OutageTimeline {
        let mut timeline = self.open().timeline.clone();
        timeline.ended = self.pace.now();
        timeline
    }
}

pub(super) async fn run(plan: Experiment, fault: impl Fault + 'static) -> CoreResult<Recovery> {
    let books = Books { pace: Pace::real(), seen: Arc::default() };
    let (rules, name) = (plan.rules.clone(), fault.name());
    let (before, broken_for) = (plan.before.max(rules.steady.window), plan.broken_for);
    let plan = Arc::new(plan);
    let mut tasks = JoinSet::new();
    tasks.spawn(send(Arc::clone(&plan), books.clone()));

    books.pace.wait_until(before).await;
    let mut bites = None;
    if books.timeline().judge(&rules).before.is_pass() {
        books.open().timeline.fault = Some(books.pace.now());
        let broken = inject(fault).await?;
        books.pace.wait(broken_for).await;
        books.open().timeline.healing = Some(books.pace.now());
        let healed = broken.heal().await?;
        let now = books.pace.now();
        {
            let mut seen = books.open();
            seen.timeline.healed = Some(now);
            seen.timeline.bites = healed.count();
        }
        bites = Some(healed);
        watch_recovery(&books, &rules, now).await;
    }
    // Ends the sender and what it has under way; calls whose end nobody saw say nothing.
    tasks.shutdown().await;

    let timeline = books.timeline();
    let ledger = match &plan.ledger {
        Some((ledger, read)) => {
            let recovered = read().await?;
            Some(ledger.lock().unwrap_or_else(PoisonError::into_inner).judge(&recovered))
        }
        None => None,
    };
    let sent = {
        let seen = books.open();
        sender(&rules, seen.unsent, seen.latest)
    };
    let verdict = timeline.judge(&rules);
    Ok(Recovery { fault: name, bites, sender: sent, verdict, ledger, timeline })
}

/// Until a whole steady window after the healing was seen, or there is no time left for one.
async fn watch_recovery(books: &Books, rules: &OutageRules, healed: Duration) {
    let (limit, window) = (rules.recovers_within, rules.steady.window);
    // One window more than the limit shows a window that begins at the limit; one step, that it is over.
    let last = healed.saturating_add(limit).saturating_add(window).saturating_add(window / LOOKS);
    while books.pace.now() < last {
        books.pace.wait(window / LOOKS).await;
        let verdict = books.timeline().judge(rules);
        if verdict.after.is_pass() && !verdict.drained.is_fail() {
            return;
        }
    }
}

/// Whether the sender was fast enough to say anything about latency.
fn sender(rules: &OutageRules, unsent: u64, latest: Duration) -> harness_props::Outcome {
    let tightest = rules.steady.within.into_iter().chain(rules.contract.within).min();
    match tightest {
        _ if unsent > 0 => {
            harness_props::Outcome::no_evidence(format!("{unsent} calls were due and could not be sent"))
        }
        Some(limit) if latest > limit / 2 => {
            let why = format!("a call was sent {latest:?} late, which a limit of {limit:?} does not bear");
            harness_props::Outcome::no_evidence(why)
        }
        _ => harness_props::Outcome::pass(format!("every call was sent, at most {latest:?} late")),
    }
}

async fn send(plan: Arc<Experiment>, books: Books) {
    let mut under_way = JoinSet::new();
    for number in 0_u64.. {
        let due = plan.every.saturating_mul(number as u32);
        books.pace.wait_until(due).await;
        while under_way.try_join_next().is_some() {}
        let late = books.pace.now().saturating_sub(due);
        {
            let mut seen = books.open();
            seen.latest = seen.latest.max(late);
            if under_way.len() >= plan.most {
                seen.unsent += 1;
                continue;
            }
        }
        under_way.spawn(call(Arc::clone(&plan), books.clone(), number, due));
    }
}

async fn call(plan: Arc<Experiment>, books: Books, number: u64, due: Duration) {
    let (operation, workload) = &plan.operations[number as usize % plan.operations.len()];
    let called = tokio::time::timeout(plan.patience, workload.call(number)).await;
    let ended = books.pace.now();
    let Called { reply, retries } = called.unwrap_or(Called { reply: Reply::Hung, retries: 0 });
    let waiting = match &plan.backlog {
        // A backlog that cannot be read now is a gap.
        Some(read) => read().await.ok(),
        None => None,
    };
    let mut seen = books.open();
    seen.timeline.calls.push(Call { operation: operation.clone(), due, ended, reply, retries });
    seen.timeline.backlog.extend(waiting.map(|waiting| (books.pace.now(), waiting)));
}
