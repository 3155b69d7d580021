//! Rate limiters: token bucket, sliding window, fixed window. Exact at the boundary, in whole nanoseconds.
//!
//! What was allowed counts, what was refused does not. With [`slack`](TokenBucket::slack) both answers are right where the
//! time of a request, give or take that much, decides.

use std::collections::VecDeque;
use std::time::Duration;

use super::Automaton;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// It was let through.
    Allowed,
    /// It was refused, with status 429 for instance.
    Refused,
}

/// What a trace has to show of a limiter.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    refused: bool,
    allowed_again: bool,
}

impl Seen {
    fn note(&mut self, event: Request) {
        match event {
            Request::Refused => self.refused = true,
            Request::Allowed => self.allowed_again |= self.refused,
        }
    }

    fn unseen(self) -> Option<String> {
        match (self.refused, self.allowed_again) {
            (false, _) => Some("no request was refused: the limit was never reached".to_owned()),
            (_, false) => Some("no request was allowed after a refusal".to_owned()),
            _ => None,
        }
    }
}

fn too_many(limit: u32, what: &str) -> String {
    format!("a request was allowed beyond {limit} {what}")
}

/// A bucket of tokens that fills up steadily; each request takes one.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    capacity: u32,
    rate: u32,
    period: Duration,
    slack: Duration,
    /// Tokens times the period's nanoseconds.
    level: u128,
    /// What flowed in since it was last full: only that can be off by the slack.
    credited: u128,
    at: Duration,
    seen: Seen,
}

impl TokenBucket {
    /// A full bucket of `capacity` tokens; `rate` tokens flow in per `period`, steadily.
    #[must_use]
    pub fn new(capacity: u32, rate: u32, period: Duration) -> Self {
        let period = period.max(Duration::from_nanos(1));
        let level = u128::from(capacity) * period.as_nanos();
        let (slack, at, seen) = (Duration::ZERO, Duration::ZERO, Seen::default());
        Self { capacity, rate, period, slack, level, credited: 0, at, seen }
    }

    /// How far the times of the trace may be off.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }

    fn inflow(&self, time: Duration) -> u128 {
        time.as_nanos() * u128::from(self.rate)
    }
}

impl Automaton for TokenBucket {
    type Event = Request;

    fn observe(&mut self, at: Duration, event: &Request) -> Result<(), String> {
        let full = u128::from(self.capacity) * self.period.as_nanos();
        let token = self.period.as_nanos();
        let inflow = self.inflow(at.saturating_sub(self.at));
        self.credited = if self.level + inflow >= full { 0 } else { self.credited + inflow };
        self.level = full.min(self.level + inflow);
        self.at = at;
        let blur = self.inflow(self.slack);
        match event {
            Request::Allowed if full.min(self.level + blur) < token => {
                return Err(format!("a request was allowed though the bucket of {} was empty", self.capacity));
            }
            Request::Allowed => self.level = self.level.saturating_sub(token),
            Request::Refused if self.level.saturating_sub(blur.min(self.credited)) >= token => {
                return Err(format!("a request was refused though {} tokens were left", self.level / token));
            }
            Request::Refused => {}
        }
        self.seen.note(*event);
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        self.seen.unseen()
    }
}

/// At most so many requests in any window of this length, whenever it begins.
#[derive(Debug, Clone)]
pub struct SlidingWindow {
    limit: u32,
    window: Duration,
    slack: Duration,
    allowed: VecDeque<Duration>,
    seen: Seen,
}

impl SlidingWindow {
    /// At most `limit` requests in any `window`; one that is exactly that old does not count any more.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self { limit, window, slack: Duration::ZERO, allowed: VecDeque::new(), seen: Seen::default() }
    }

    /// How far the times of the trace may be off.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }

    fn within(&self, at: Duration, window: Duration) -> usize {
        self.allowed.len() - self.allowed.partition_point(|allowed| *allowed + window <= at)
    }
}

impl Automaton for SlidingWindow {
    type Event = Request;

    fn observe(&mut self, at: Duration, event: &Request) -> Result<(), String> {
        let oldest = self.window + self.slack;
        while self.allowed.front().is_some_and(|allowed| *allowed + oldest <= at) {
            self.allowed.pop_front();
        }
        let limit = self.limit as usize;
        match event {
            Request::Allowed if self.within(at, self.window.saturating_sub(self.slack)) >= limit => {
                return Err(too_many(self.limit, &format!("in the last {:?}", self.window)));
            }
            Request::Allowed => self.allowed.push_back(at),
            Request::Refused if self.within(at, oldest) < limit => {
                let within = self.within(at, oldest);
                return Err(format!(
                    "a request was refused though only {within} of {limit} were made in {:?}",
                    self.window
                ));
            }
            Request::Refused => {}
        }
        self.seen.note(*event);
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        self.seen.unseen()
    }
}

/// At most so many requests in each of a row of windows.
#[derive(Debug, Clone)]
pub struct FixedWindow {
    limit: u32,
    window: Duration,
    origin: Duration,
    slack: Duration,
    current: u128,
    allowed: u32,
    /// Of them, those so close to the beginning of the window that they may belong to the one before.
    early: u32,
    seen: Seen,
}

impl FixedWindow {
    /// At most `limit` requests per `window`; the first window begins at zero.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit,
            window: window.max(Duration::from_nanos(1)),
            origin: Duration::ZERO,
            slack: Duration::ZERO,
            current: 0,
            allowed: 0,
            early: 0,
            seen: Seen::default(),
        }
    }

    /// When some window begins.
    #[must_use]
    pub fn origin(self, origin: Duration) -> Self {
        Self { origin, ..self }
    }

    /// How far the times of the trace may be off.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }
}

impl Automaton for FixedWindow {
    type Event = Request;

    fn observe(&mut self, at: Duration, event: &Request) -> Result<(), String> {
        let (window, origin) = (self.window.as_nanos(), self.origin.as_nanos() % self.window.as_nanos());
        let since = at.as_nanos() + window - origin;
        let (number, into) = (since / window, since % window);
        if number != self.current {
            (self.current, self.allowed, self.early) = (number, 0, 0);
        }
        let slack = self.slack.as_nanos();
        let is_near = slack > 0 && (into <= slack || into + slack >= window);
        match event {
            Request::Allowed => {
                if self.allowed - self.early >= self.limit && !is_near {
                    return Err(too_many(self.limit, &format!("in a window of {:?}", self.window)));
                }
                self.allowed += 1;
                self.early += u32::from(slack > 0 && into <= slack);
            }
            Request::Refused if self.allowed < self.limit && !is_near => {
                return Err(format!("a request was refused though only {} of {} were made", self.allowed, self.limit));
            }
            Request::Refused => {}
        }
        self.seen.note(*event);
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        self.seen.unseen()
    }
}
