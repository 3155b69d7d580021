//! The circuit breaker: closed, open, half-open with permits.
//!
//! Closed, it lets every call through and counts the last ones that ended. When enough of them failed it opens: for a time it
//! lets nothing through. Then it is half-open: it lets a number of calls through, its probes; if all of them succeed it
//! closes, if one fails it opens again for the full time (Nygard, *Release It!*, 2nd edition, chapter 5).
//!
//! ```
//! use std::time::Duration;
//! use harness_props::model::breaker::{Breaker, Call};
//! use harness_props::model::conform;
//!
//! let ms = Duration::from_millis;
//! let breaker = Breaker::consecutive(2, ms(100)).permits(1);
//! let trace = [
//!     (ms(0), Call::Admitted(1)), (ms(1), Call::Failed(1)),
//!     (ms(2), Call::Admitted(2)), (ms(3), Call::Failed(2)), // open until 103 ms
//!     (ms(50), Call::Rejected),
//!     (ms(104), Call::Admitted(3)), (ms(105), Call::Rejected), (ms(106), Call::Succeeded(3)),
//!     (ms(107), Call::Admitted(4)),
//! ];
//! assert!(conform(&breaker, trace.clone()).outcome().is_pass());
//! let leaky = [&trace[..4], &[(ms(50), Call::Admitted(9))]].concat();
//! assert_eq!(
//!     conform(&breaker, leaky).outcome().detail(),
//!     "event 4 at 50ms: a call was let through though it is open until 103ms",
//! );
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Automaton;

/// What was seen of a call. Calls are known by a number of the recorder's choice, which is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It reached the other side.
    Admitted(u64),
    /// It ended well.
    Succeeded(u64),
    /// It ended in a way that counts as a failure.
    Failed(u64),
    /// A call was turned away without reaching the other side.
    Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed { last: VecDeque<bool> },
    Open { until: Duration },
    HalfOpen { since: Duration, admitted: u32, succeeded: u32, probes: BTreeSet<u64> },
}

/// A circuit breaker as it must be.
#[derive(Debug, Clone)]
pub struct Breaker {
    window: usize,
    minimum: usize,
    failures_percent: u32,
    open_for: Duration,
    permits: u32,
    probe_limit: Option<Duration>,
    slack: Duration,
    state: State,
    /// Calls under way that began while it was closed the last time.
    counted: BTreeSet<u64>,
    has_rejected: bool,
    has_closed_again: bool,
    opened: u32,
}

impl Breaker {
    /// Opens when at least this percentage of the last `window` calls that ended failed, as soon as `minimum` of them ended.
    /// One permit, no slack.
    #[must_use]
    pub fn rate(failures_percent: u32, window: usize, minimum: usize, open_for: Duration) -> Self {
        Self {
            window: window.max(1),
            minimum: minimum.clamp(1, window.max(1)),
            failures_percent,
            open_for,
            permits: 1,
            probe_limit: None,
            slack: Duration::ZERO,
            state: State::Closed { last: VecDeque::new() },
            counted: BTreeSet::new(),
            has_rejected: false,
            has_closed_again: false,
            opened: 0,
        }
    }

    /// Opens when so many calls in a row failed.
    #[must_use]
    pub fn consecutive(failures: usize, open_for: Duration) -> Self {
        Self::rate(100, failures, failures, open_for)
    }

    /// How many calls it lets through when it is half-open, all of which have to succeed.
    #[must_use]
    pub fn permits(self, permits: u32) -> Self {
        Self { permits: permits.max(1), ..self }
    }

    /// After this time a probe that never ended must not keep it half-open: calls have to be let through again.
    #[must_use]
    pub fn probe_limit(self, limit: Duration) -> Self {
        Self { probe_limit: Some(limit), ..self }
    }

    /// How far the times of the trace may be off: so long before and after it may try again, both answers are right.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }

    /// How many calls in a row have to fail before it opens for the first time.
    #[must_use]
    pub fn failures_to_open(&self) -> usize {
        self.minimum
    }

    /// How long it lets nothing through.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.open_for
    }

    /// How many probes it lets through.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.permits
    }

    /// After which time a probe that never ended is given up, if it is.
    #[must_use]
    pub fn gives_up_probes(&self) -> Option<Duration> {
        self.probe_limit
    }

    fn open(&mut self, at: Duration) {
        self.opened += 1;
        self.counted.clear();
        self.state = State::Open { until: at + self.open_for };
    }

    fn close(&mut self) {
        self.has_closed_again = true;
        self.state = State::Closed { last: VecDeque::new() };
    }

    fn admitted(&mut self, at: Duration, call: u64) -> Result<(), String> {
        match &mut self.state {
            State::Closed { .. } => {
                self.counted.insert(call);
            }
            State::Open { until } if at + self.slack < *until => {
                return Err(format!("a call was let through though it is open until {until:?}"));
            }
            State::Open { .. } => {
                self.state = State::HalfOpen { since: at, admitted: 1, succeeded: 0, probes: BTreeSet::from([call]) };
            }
            State::HalfOpen { since, admitted, probes, .. } => {
                let is_overdue = self.probe_limit.is_some_and(|limit| at + self.slack >= *since + limit);
                if *admitted >= self.permits && !is_overdue {
                    return Err(format!("a call was let through though {} probes are out", self.permits));
                }
                if *admitted >= self.permits {
                    // The probes that hang are given up, and this is the first of new ones.
                    self.state =
                        State::HalfOpen { since: at, admitted: 1, succeeded: 0, probes: BTreeSet::from([call]) };
                } else {
                    *admitted += 1;
                    probes.insert(call);
                }
            }
        }
        Ok(())
    }

    fn rejected(&mut self, at: Duration) -> Result<(), String> {
        match &self.state {
            State::Closed { .. } => return Err("a call was rejected though it is closed".to_owned()),
            State::Open { until } if at > *until + self.slack => {
                return Err(format!("a call was rejected though it had to try again from {until:?}"));
            }
            State::HalfOpen { admitted, .. } if *admitted < self.permits => {
                return Err(format!("a call was rejected though {admitted} of {} probes are out", self.permits));
            }
            State::HalfOpen { since, .. } if self.probe_limit.is_some_and(|limit| at > *since + limit + self.slack) => {
                return Err(format!("a call was rejected though the probe of {since:?} hangs: it is wedged"));
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.has_rejected = true;
        Ok(())
    }

    fn ended(&mut self, at: Duration, call: u64, is_success: bool) {
        match &mut self.state {
            State::Closed { last } => {
                // What began before it was last closed says nothing about now.
                if !self.counted.remove(&call) {
                    return;
                }
                last.push_back(is_success);
                if last.len() > self.window {
                    last.pop_front();
                }
                let failed = last.iter().filter(|is_success| !**is_success).count();
                if last.len() >= self.minimum
                    && failed > 0
                    && failed * 100 >= last.len() * self.failures_percent as usize
                {
                    self.open(at);
                }
            }
            State::HalfOpen { succeeded, probes, .. } => {
                if !probes.remove(&call) {
                    return;
                }
                *succeeded += u32::from(is_success);
                if !is_success {
                    self.open(at);
                } else if *succeeded >= self.permits {
                    self.close();
                }
            }
            State::Open { .. } => {}
        }
    }
}

impl Automaton for Breaker {
    type Event = Call;

    fn observe(&mut self, at: Duration, event: &Call) -> Result<(), String> {
        match event {
            Call::Admitted(call) => self.admitted(at, *call)?,
            Call::Rejected => self.rejected(at)?,
            Call::Succeeded(call) => self.ended(at, *call, true),
            Call::Failed(call) => self.ended(at, *call, false),
        }
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        let what = match (self.opened, self.has_rejected, self.has_closed_again) {
            (0, _, _) => "it never opened",
            (_, false, _) => "no call was made while it was open",
            (_, _, false) => "it never closed again",
            _ => return None,
        };
        Some(what.to_owned())
    }
}
