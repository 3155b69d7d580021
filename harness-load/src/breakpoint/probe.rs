//! What one probe of a rate saw, and whether its numbers bear out what it says.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::wait::seconds;

use super::search::Why;

/// The generator must have started this share of what was asked for.
const STARTED: f64 = 0.97;

/// What a probe concluded by itself, from its own gates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Every gate held.
    Held,
    /// A gate did not, and which.
    Broke(String),
    /// The generator was the limit, and why.
    Generator(String),
}

/// The numbers of one probe.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a probe is to be returned to the search"]
pub struct Observed {
    /// Iterations started per second, whatever became of them.
    pub started: f64,
    /// Iterations that succeeded within the probe, per second.
    pub goodput: f64,
    /// The latency that stands for the probe: its p95 or its p99, from the intended start.
    pub latency: Duration,
    /// The mean number in flight; without it the search takes goodput × latency (Little's law).
    pub in_flight: Option<f64>,
    /// What the probe's gates concluded.
    pub said: Said,
}

impl Observed {
    /// Numbers of a probe whose gates held.
    pub fn held(started: f64, goodput: f64, latency: Duration) -> Self {
        Self { started, goodput, latency, in_flight: None, said: Said::Held }
    }

    /// A gate broke.
    pub fn broke(mut self, why: impl Into<String>) -> Self {
        self.said = Said::Broke(why.into());
        self
    }

    /// The generator was the limit.
    pub fn generator(mut self, why: impl Into<String>) -> Self {
        self.said = Said::Generator(why.into());
        self
    }

    /// The mean number in flight.
    pub(super) fn concurrency(&self) -> f64 {
        self.in_flight.unwrap_or(self.goodput * self.latency.as_secs_f64())
    }

    /// Refuses numbers that cannot be.
    pub(super) fn check(&self, rate: f64) -> CoreResult {
        let all = [self.started, self.goodput, self.in_flight.unwrap_or_default()];
        let wrong = match all {
            _ if all.iter().any(|number| !(number.is_finite() && *number >= 0.0)) => "a number is negative or none",
            _ if self.started == 0.0 => "nothing was started",
            // A probe may end a little more than it started: what was in flight when it began.
            [started, goodput, _] if goodput > started * 1.1 + 1.0 => "more succeeded than was started",
            _ if self.said == Said::Held && self.goodput == 0.0 => "it says it held, and nothing succeeded",
            _ => return Ok(()),
        };
        let (started, goodput) = (self.started, self.goodput);
        Err(Error::new(ErrorKind::NoEvidence, format!("the probe at {rate:.1}/s cannot be: {wrong}"))
            .tried(format!("{started}/s started, {goodput}/s succeeded, {:?}", self.said))
            .remedy("return what the load measured; a probe that could not run is an Err"))
    }

    /// Why the rate was not held; none if it was. The numbers overrule what the probe says of itself.
    pub(super) fn why(&self, rate: f64, tolerance: f64) -> Option<Why> {
        if let Said::Generator(why) = &self.said {
            return Some(Why::Generator(why.clone()));
        }
        if self.started < rate * STARTED {
            let started = self.started;
            return Some(Why::Generator(format!("only {started:.1}/s of {rate:.1}/s were started")));
        }
        if let Said::Broke(why) = &self.said {
            return Some(Why::Gate(why.clone()));
        }
        if self.goodput < rate * (1.0 - tolerance) {
            let (goodput, latency) = (self.goodput, seconds(self.latency));
            return Some(Why::Goodput(format!("only {goodput:.1}/s of {rate:.1}/s succeeded, at {latency}")));
        }
        None
    }
}
