//! What came of a burst.

use std::fmt;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::slo::{Limit, Measured, Threshold};
use harness_props::Outcome;
use tokio::time::Instant;

use super::gauge::Gauges;
use crate::engine::End;
use crate::times::Times;
use crate::units::{nanos, to_nanos};

/// A finished burst. Its `Display` is a summary for people.
#[derive(Debug)]
pub struct BurstRun {
    members: usize,
    ends: Vec<MemberEnd>,
    spread: Duration,
    times: Times,
    client: Measured,
    server: Measured,
}

/// How one member ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEnd {
    /// Position among the members, from 0.
    pub index: usize,
    /// How it ended.
    pub end: End,
    /// From the release to its end.
    pub took: Duration,
}

impl BurstRun {
    pub(super) fn new(
        members: usize,
        ends: Vec<(usize, Instant, Instant, End)>,
        gauges: &Gauges,
        server: Measured,
    ) -> Self {
        let released = ends.iter().map(|(_, sent, ..)| *sent).min();
        let last = ends.iter().map(|(_, sent, ..)| *sent).max();
        let spread = released.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        // Every member is timed from the first one's release: the release is one moment, not fifty.
        let took = |sent: Instant, done: Instant| done.saturating_duration_since(released.unwrap_or(sent));
        let mut ends: Vec<MemberEnd> =
            ends.into_iter().map(|(index, sent, done, end)| MemberEnd { index, end, took: took(sent, done) }).collect();
        ends.sort_by_key(|end| end.index);
        let mut times = Times::default();
        ends.iter().for_each(|end| times.record(end.took));
        let client = if gauges.requests.peak() > 0 { gauges.requests.peak() } else { gauges.actions.peak() };
        Self { members, ends, spread, times: Times::merged([&times]), client: Measured::count(client), server }
    }

    /// How each member ended, in order.
    #[must_use]
    pub fn members(&self) -> &[MemberEnd] {
        &self.ends
    }

    /// The time between the first and the last member's start.
    #[must_use]
    pub fn spread(&self) -> Duration {
        self.spread
    }

    /// From the release to the end of each member, failures included.
    #[must_use]
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The mean time from the release to the end, failures included.
    #[must_use]
    pub fn mean(&self) -> Measured {
        Measured::Mean { total_nanos: self.times.total_nanos(), samples: self.times.len() }
    }

    /// Members that succeeded, of all.
    #[must_use]
    pub fn success_rate(&self) -> Measured {
        Measured::share(self.ends.iter().filter(|end| end.end == End::Ok).count() as u64, self.members as u64)
    }

    /// The most in flight at once as the client saw it: requests where [`Member::request`](super::Member::request) was used, else actions.
    pub fn at_client(&self) -> Peak<'_> {
        Peak { whose: "client", measured: &self.client, burst: self }
    }

    /// The most in flight at once as the server's gauge said.
    pub fn at_server(&self) -> Peak<'_> {
        Peak { whose: "server", measured: &self.server, burst: self }
    }

    /// Refuses a burst in which any member failed.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the failures.
    pub fn all_succeeded(&self) -> CoreResult {
        let failed = self.members - self.ends.iter().filter(|end| end.end == End::Ok).count();
        if failed == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Assertion,
            format!("{failed} of {} members of the burst failed\n{self}", self.members),
        ))
    }
}

impl fmt::Display for BurstRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |measured: &Measured| match measured {
            Measured::Nothing { why } => why.clone(),
            other => other.display(),
        };
        let at = |q| self.times.quantile(q).map_or_else(|| "-".to_owned(), |span| nanos(span.high));
        writeln!(f, "  burst      of {}, started within {}", self.members, nanos(to_nanos(self.spread)))?;
        writeln!(f, "  succeeded  {}", self.success_rate().display())?;
        writeln!(f, "  took       p50 {} p95 {} max {}", at(0.5), at(0.95), at(1.0))?;
        writeln!(f, "  in flight  client {}, server {}", told(&self.client), told(&self.server))?;
        for end in self.ends.iter().filter(|end| end.end != End::Ok).take(5) {
            let why = match &end.end {
                End::Error { kind, message } => format!("{kind}: {message}"),
                other => format!("{other:?}").to_lowercase(),
            };
            writeln!(f, "  failed     member {}: {why}", end.index)?;
        }
        Ok(())
    }
}

/// The most in flight at once, at one end.
#[derive(Debug)]
#[must_use = "a peak proves nothing until `.at_least(..)`"]
pub struct Peak<'r> {
    whose: &'static str,
    measured: &'r Measured,
    burst: &'r BurstRun,
}

impl Peak<'_> {
    /// The peak with its evidence.
    #[must_use]
    pub fn measured(&self) -> &Measured {
        self.measured
    }

    /// Demands so many at once.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when there were fewer; [`ErrorKind::NoEvidence`] when nobody counted.
    pub fn at_least(&self, members: u64) -> CoreResult {
        let threshold = Threshold::new(format!("peak in flight at the {}", self.whose), Limit::at_least(members));
        let (kind, what) = match threshold.judge(self.measured) {
            Outcome::Fail { witness } => (ErrorKind::Assertion, witness),
            Outcome::NoEvidence { why } => (ErrorKind::NoEvidence, why),
            _ => return Ok(()),
        };
        Err(Error::new(kind, format!("{what}\n{}", self.burst))
            .remedy("a pool, a lock or one shared connection on the way makes members wait for each other"))
    }
}
