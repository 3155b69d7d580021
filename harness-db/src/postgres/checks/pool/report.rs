//! What a watched pool showed, and what may be concluded from it.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Outcome};
use serde::{Deserialize, Serialize};

use crate::postgres::checks::sampling::hold;

/// Connections of a pool at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolPoint {
    /// Time since watching began.
    pub at: Duration,
    /// Open connections.
    pub size: u32,
    /// Those that nobody uses.
    pub idle: u32,
    /// Those that are borrowed, or on their way back.
    pub in_use: u32,
    /// Borrowers through the watch that wait for one.
    pub waiting: u32,
}

/// A line of code that holds a connection, or waits for one, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// File, line and column of the borrow.
    pub place: String,
    /// For how long.
    pub lasted: Duration,
}

/// What a [`WatchedPool`](super::WatchedPool) showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolReport {
    /// How often the pool was looked at: every 10 ms, and at every borrow.
    pub samples: u64,
    /// The moments at which something changed, in order.
    pub points: Vec<PoolPoint>,
    /// Who holds a connection now.
    pub holders: Vec<Holder>,
    /// Who waits for one now.
    pub waiting: Vec<Holder>,
    /// How long each borrower waited, in the order in which they were served.
    pub waits: Vec<Duration>,
    /// The borrower that waited longest.
    pub slowest: Option<Holder>,
    /// Borrowers that got none, with the reason.
    pub refused: Vec<String>,
    /// The pool now.
    pub now: PoolPoint,
}

impl PoolReport {
    /// The most connections that were open.
    #[must_use]
    pub fn most_open(&self) -> u32 {
        self.points.iter().map(|point| point.size).max().unwrap_or_default()
    }

    /// The most connections that were borrowed at once.
    #[must_use]
    pub fn most_in_use(&self) -> u32 {
        self.points.iter().map(|point| point.in_use).max().unwrap_or_default()
    }

    /// The lines that hold connections now, those of one line together: `src/orders.rs:40:28 for 3.2 s (12 times)`.
    #[must_use]
    pub fn holders_by_place(&self) -> Vec<String> {
        let mut places: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for holder in &self.holders {
            let entry = places.entry(&holder.place).or_default();
            *entry = (entry.0 + 1, entry.1.max(holder.lasted));
        }
        let tell = |(place, (n, lasted)): (&str, (usize, Duration))| {
            let times = if n > 1 { format!(" ({n} times)") } else { String::new() };
            format!("{place} for {}{times}", seconds(lasted))
        };
        places.into_iter().map(tell).collect()
    }

    /// Passes when every borrowed connection was given back. A failure names the lines that hold one. Nothing ever
    /// borrowed is no evidence.
    #[must_use]
    pub fn nothing_leaked(&self) -> Outcome {
        let untracked = (self.now.in_use as usize).saturating_sub(self.holders.len());
        if self.now.in_use == 0 && self.holders.is_empty() {
            return match self.most_in_use() {
                0 => Outcome::no_evidence("nothing was ever borrowed from the pool"),
                most => Outcome::pass(format!("all connections are back, {most} were out at once")),
            };
        }
        let mut lines: Vec<String> = self.holders_by_place();
        if untracked > 0 {
            lines.push(format!(
                "{untracked} not borrowed through the watch: borrow through it to see the line, or ask the database's \
                 `sessions_now` for their last statements"
            ));
        }
        let n = self.holders.len() + untracked;
        Outcome::fail(format!("{n} connections were never given back:\n  {}", lines.join("\n  ")))
    }

    /// Passes when the pool never had more than `cap` connections open, by its own count. What the server counts is
    /// [`SessionSeries::at_most_of`](crate::postgres::SessionSeries::at_most_of).
    #[must_use]
    pub fn never_beyond(&self, cap: u32) -> Outcome {
        match self.most_open() {
            0 => Outcome::no_evidence("the pool never had a connection open"),
            most if most > cap => {
                let at = self.points.iter().find(|point| point.size == most).map(|point| point.at).unwrap_or_default();
                Outcome::fail(format!("{most} connections open at +{}, the cap is {cap}", seconds(at)))
            }
            most => Outcome::pass(format!("{most} connections open at most, {} looks", self.samples)),
        }
    }

    /// Passes when no borrower waited for longer than `limit`, and none was turned away. Those that still wait count.
    #[must_use]
    pub fn no_wait_longer_than(&self, limit: Duration) -> Outcome {
        if let Some(first) = self.refused.first() {
            return Outcome::fail(format!("{} borrowers got no connection, the first: {first}", self.refused.len()));
        }
        let slowest = self.waiting.iter().chain(&self.slowest).max_by_key(|wait| wait.lasted);
        match slowest {
            None => Outcome::no_evidence("nobody borrowed through the watch"),
            Some(wait) if wait.lasted > limit => {
                Outcome::fail(format!("a borrower waited longer than {}: {wait}", seconds(limit)))
            }
            Some(wait) => {
                Outcome::pass(format!("{} borrows, the longest wait {}", self.waits.len(), seconds(wait.lasted)))
            }
        }
    }

    /// The failed [`PoolReport::nothing_leaked`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion), or
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when nothing was borrowed.
    pub fn check_nothing_leaked(&self) -> CoreResult<&Self> {
        hold(self.nothing_leaked()).map(|()| self)
    }

    /// The failed [`PoolReport::never_beyond`] as an error.
    ///
    /// # Errors
    /// As [`PoolReport::check_nothing_leaked`].
    pub fn check_never_beyond(&self, cap: u32) -> CoreResult<&Self> {
        hold(self.never_beyond(cap)).map(|()| self)
    }

    /// The failed [`PoolReport::no_wait_longer_than`] as an error.
    ///
    /// # Errors
    /// As [`PoolReport::check_nothing_leaked`].
    pub fn check_no_wait_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        hold(self.no_wait_longer_than(limit)).map(|()| self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Holder, PoolPoint, PoolReport};

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn holder(place: &str, lasted: Duration) -> Holder {
        Holder { place: place.into(), lasted }
    }

    fn report(size: u32, in_use: u32) -> PoolReport {
        let now = PoolPoint { size, in_use, ..PoolPoint::default() };
        PoolReport { points: vec![now.clone()], now, ..PoolReport::default() }
    }

    #[test]
    fn leak_names_its_lines_and_says_what_it_cannot_name() {
        let mut leaky = report(4, 4);
        leaky.holders = vec![holder("a.rs:1:1", ms(10)), holder("a.rs:1:1", ms(30)), holder("b.rs:2:2", ms(5))];
        let outcome = leaky.nothing_leaked();
        assert!(outcome.is_fail(), "{outcome}");
        for part in ["4 connections", "a.rs:1:1 for 30 ms (2 times)", "b.rs:2:2 for 5 ms", "1 not borrowed through"] {
            assert!(outcome.detail().contains(part), "no `{part}` in {outcome}");
        }
        let mut sound = report(4, 0);
        sound.points.push(PoolPoint { in_use: 3, ..PoolPoint::default() });
        assert!(sound.nothing_leaked().is_pass());
        assert!(report(4, 0).nothing_leaked().is_no_evidence());
    }

    #[test]
    fn cap_and_waits_are_judged_and_nothing_seen_is_no_evidence() {
        assert!(report(30, 0).never_beyond(30).is_pass() && report(31, 0).never_beyond(30).is_fail());
        assert!(report(0, 0).never_beyond(30).is_no_evidence());
        let mut waited = report(1, 0);
        assert!(waited.no_wait_longer_than(ms(100)).is_no_evidence());
        waited.slowest = Some(holder("a.rs:1:1", ms(100)));
        assert!(waited.no_wait_longer_than(ms(100)).is_pass());
        assert!(waited.no_wait_longer_than(ms(99)).detail().contains("a.rs:1:1 for 100 ms"));
        waited.waiting = vec![holder("b.rs:1:1", ms(101))];
        assert!(waited.no_wait_longer_than(ms(100)).is_fail(), "one that still waits counts");
        waited.refused = vec!["no connection".into()];
        assert!(waited.no_wait_longer_than(ms(1000)).is_fail(), "one that was turned away counts");
    }
}
