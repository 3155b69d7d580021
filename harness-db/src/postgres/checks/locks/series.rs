//! Lock waits over time, and what may be concluded from them.

use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Outcome};
use serde::{Deserialize, Serialize};

use super::graph::{Cycle, LockWait};
use super::stall::Stall;
use crate::postgres::Session;
use crate::postgres::checks::sampling::hold;

/// One sample in which somebody waited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockPoint {
    /// Time since watching began.
    pub at: Duration,
    /// Sessions that waited for a lock.
    pub waiting: u32,
    /// How long the one that waited longest had waited.
    pub longest: Duration,
}

/// The longest wait, with the sessions that were waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LongestWait {
    /// The wait. It lasted for at least [`LockWait::lasted`], and at most until the next sample.
    pub wait: LockWait,
    /// When it was seen, since watching began.
    pub at: Duration,
    /// Who held it up.
    pub holders: Vec<Session>,
}

/// Lock waits over time. A sample that failed is a gap, never a quiet moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockSeries {
    /// Samples that were taken, those without a wait included.
    pub samples: u64,
    /// The samples in which somebody waited, in order.
    pub points: Vec<LockPoint>,
    /// Samples that failed: when, and why.
    pub gaps: Vec<(Duration, String)>,
    /// Cycles, each confirmed by two samples in a row.
    pub cycles: Vec<Cycle>,
    /// Times without progress.
    pub stalls: Vec<Stall>,
    /// The longest wait seen.
    pub longest: Option<LongestWait>,
    /// How long the watch went on.
    pub lasted: Duration,
    /// How long nothing may move before it is a stall.
    pub stalled_after: Duration,
    /// The longest time without a sample: what is shorter may have happened unseen.
    pub widest_gap: Duration,
    /// When the last sample was taken.
    pub(super) last_at: Duration,
}

impl LockSeries {
    /// Adds one sample.
    pub(super) fn push(&mut self, at: Duration, waits: &[LockWait], sessions: &[Session]) {
        self.samples += 1;
        self.widest_gap = self.widest_gap.max(at.saturating_sub(self.last_at));
        self.last_at = at;
        let Some(longest) = waits.iter().max_by_key(|wait| wait.lasted) else { return };
        let waiting = u32::try_from(waits.len()).unwrap_or(u32::MAX);
        self.points.push(LockPoint { at, waiting, longest: longest.lasted });
        if self.longest.as_ref().is_none_or(|known| known.wait.lasted < longest.lasted) {
            let held = |session: &&Session| longest.blocked_by.contains(&session.pid);
            let holders = sessions.iter().filter(held).cloned().collect();
            self.longest = Some(LongestWait { wait: longest.clone(), at, holders });
        }
    }

    /// Counts the time since the last sample.
    pub(super) fn ended(mut self, lasted: Duration) -> Self {
        self.lasted = lasted;
        self.widest_gap = self.widest_gap.max(lasted.saturating_sub(self.last_at));
        self
    }

    /// `"40 samples at most 12 ms apart, no gap"`.
    fn grounds(&self) -> String {
        let gaps = match self.gaps.last() {
            None => "no gap".to_owned(),
            Some((at, why)) => format!("gaps: {}, the last at +{}: {why}", self.gaps.len(), seconds(*at)),
        };
        format!("{} samples at most {} apart, {gaps}", self.samples, seconds(self.widest_gap))
    }

    /// Why nothing can be concluded: no sample, or something as long as `limit` may have happened unseen.
    fn blind(&self, limit: Duration) -> Option<Outcome> {
        match self.samples {
            0 => Some(Outcome::no_evidence(format!("no sample of lock waits ({})", self.grounds()))),
            _ if self.widest_gap > limit => Some(Outcome::no_evidence(format!(
                "nothing was seen for {}, in which it may have happened ({})",
                seconds(self.widest_gap),
                self.grounds()
            ))),
            _ => None,
        }
    }

    /// The longest lock wait seen, with those who held it up.
    #[must_use]
    pub fn longest_wait(&self) -> Option<&LongestWait> {
        self.longest.as_ref()
    }

    /// Passes when no cycle of waits was seen, and every cycle would have been: one stands until the server's
    /// `deadlock_timeout` is over (1 s unless set), so the samples must have been closer than half of that.
    #[must_use]
    pub fn acyclic(&self) -> Outcome {
        if !self.cycles.is_empty() {
            let all: Vec<String> = self.cycles.iter().map(Cycle::to_string).collect();
            return Outcome::fail(all.join("\n"));
        }
        let pass = || Outcome::pass(format!("no cycle of lock waits in {}", self.grounds()));
        self.blind(DEADLOCK_TIMEOUT / 2).unwrap_or_else(pass)
    }

    /// Passes when no session waited for a lock for longer than `limit`. A failure names the waiter and who held it up.
    #[must_use]
    pub fn no_lock_wait_longer_than(&self, limit: Duration) -> Outcome {
        if let Some(longest) = self.longest.as_ref().filter(|longest| longest.wait.lasted > limit) {
            let holders: Vec<String> = longest.holders.iter().map(|session| format!("\n  holder {session}")).collect();
            return Outcome::fail(format!(
                "a lock wait lasted {} or longer, {} is allowed; seen at +{}:\n  {}{}",
                seconds(longest.wait.lasted),
                seconds(limit),
                seconds(longest.at),
                longest.wait,
                holders.concat()
            ));
        }
        let most = self.longest.as_ref().map_or_else(|| "none".to_owned(), |longest| seconds(longest.wait.lasted));
        let pass = || Outcome::pass(format!("longest lock wait: {most}, in {}", self.grounds()));
        self.blind(limit).unwrap_or_else(pass)
    }

    /// Passes when there was no time (of [`LockSeries::stalled_after`] or longer) in which sessions waited for locks and no
    /// transaction ended. A database in which nobody waits is idle, not stalled. A failure shows every party's state.
    ///
    /// A rollback is an end too: transactions that only ever roll back and try again are not seen here, but by
    /// [`Retries`](crate::postgres::Retries).
    #[must_use]
    pub fn never_stalled(&self) -> Outcome {
        if let Some(stall) = self.stalls.first() {
            return Outcome::fail(stall.to_string());
        }
        let limit = seconds(self.stalled_after);
        let pass = || Outcome::pass(format!("no stall of {limit}, in {}", self.grounds()));
        self.blind(self.stalled_after).unwrap_or_else(pass)
    }

    /// The failed [`LockSeries::acyclic`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) showing the cycle;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when one may have stood unseen.
    pub fn check_acyclic(&self) -> CoreResult<&Self> {
        hold(self.acyclic()).map(|()| self)
    }

    /// The failed [`LockSeries::no_lock_wait_longer_than`] as an error.
    ///
    /// # Errors
    /// As [`LockSeries::check_acyclic`].
    pub fn check_no_lock_wait_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        hold(self.no_lock_wait_longer_than(limit)).map(|()| self)
    }

    /// The failed [`LockSeries::never_stalled`] as an error.
    ///
    /// # Errors
    /// As [`LockSeries::check_acyclic`].
    pub fn check_never_stalled(&self) -> CoreResult<&Self> {
        hold(self.never_stalled()).map(|()| self)
    }
}

/// PostgreSQL's default (docs 20.12).
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cycle, LockSeries, LockWait, Session};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn watched() -> LockSeries {
        let mut series = LockSeries { stalled_after: ms(500), ..LockSeries::default() };
        series.push(ms(0), &[], &[]);
        series.push(ms(10), &[], &[]);
        series
    }

    #[test]
    fn longest_wait_is_told_with_its_holder() {
        let holder =
            Session { pid: 1, application: "batch".into(), state: "idle in transaction".into(), ..Session::default() };
        let wait = |lasted| LockWait {
            pid: 2,
            application: "shop".into(),
            blocked_by: vec![1],
            lasted,
            ..LockWait::default()
        };
        let mut series = watched();
        series.push(ms(20), &[wait(ms(8))], std::slice::from_ref(&holder));
        series.push(ms(30), &[wait(ms(18))], std::slice::from_ref(&holder));
        series.push(ms(40), &[wait(ms(3))], &[holder]);
        let series = series.ended(ms(45));
        assert!(series.no_lock_wait_longer_than(ms(18)).is_pass());
        let outcome = series.no_lock_wait_longer_than(ms(17));
        assert!(
            outcome.is_fail() && outcome.detail().contains("holder pid 1 of \"batch\" idle in transaction"),
            "{outcome}"
        );
        assert!(
            outcome.detail().contains("18 ms or longer") && outcome.detail().contains("pid 2 of \"shop\""),
            "{outcome}"
        );
        assert_eq!(series.longest_wait().unwrap().at, ms(30));
        assert_eq!((series.samples, series.points.len()), (5, 3));
    }

    #[test]
    fn what_may_have_happened_unseen_is_no_pass() {
        let never = LockSeries::default().ended(ms(10));
        for outcome in [never.acyclic(), never.never_stalled(), never.no_lock_wait_longer_than(ms(100))] {
            assert!(outcome.is_no_evidence(), "{outcome}");
        }
        let series = watched().ended(ms(510));
        assert!(series.acyclic().is_pass() && series.never_stalled().is_pass());
        assert!(series.no_lock_wait_longer_than(ms(500)).is_pass());
        assert!(series.no_lock_wait_longer_than(ms(499)).is_no_evidence());
        let series = watched().ended(ms(511));
        assert!(series.acyclic().is_no_evidence() && series.never_stalled().is_no_evidence());
    }

    #[test]
    fn cycle_fails_whatever_else_was_not_seen() {
        let mut series = watched();
        series.cycles.push(Cycle { at: ms(10), members: Vec::new() });
        assert!(series.ended(ms(5000)).check_acyclic().is_err());
    }
}
