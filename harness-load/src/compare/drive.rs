//! Runs two closures interleaved.

use std::fmt::Display;
use std::time::{Duration, Instant};

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::trend::median;

use super::judge::{Comparison, Judge, Metric};

/// A sample this short would measure the clock: several calls share one.
const SHORTEST_SAMPLE: Duration = Duration::from_micros(20);
/// Fewest samples of a side in a round.
const FEWEST_SAMPLES: u64 = 5;
/// Most samples of a side in a round: beyond it the median of a round does not get any steadier.
const MOST_SAMPLES: u64 = 10_000;

/// A comparison of two closures, to be adjusted and run: [`compare`].
#[must_use = "a comparison does nothing until it is run"]
pub struct Compare<C = fn() -> Duration> {
    name: String,
    judge: Judge,
    pairs: usize,
    round: Duration,
    clock: C,
}

impl<C> std::fmt::Debug for Compare<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compare").field("name", &self.name).field("pairs", &self.pairs).finish_non_exhaustive()
    }
}

/// Compares the time of two closures by interleaved pairs.
///
/// ```no_run
/// # async fn old_search() -> Result<(), std::io::Error> { Ok(()) }
/// # async fn new_search() -> Result<(), std::io::Error> { Ok(()) }
/// # async fn test() -> harness_load::Result {
/// harness_load::compare("search").run(old_search, new_search).await?.check()?; // Err when the new one is slower
/// # Ok(())
/// # }
/// ```
pub fn compare(name: impl Into<String>) -> Compare {
    Compare { name: name.into(), judge: Judge::default(), pairs: 12, round: Duration::from_millis(50), clock: now }
}

/// Time since the first look at this clock.
fn now() -> Duration {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}

impl<C: FnMut() -> Duration> Compare<C> {
    /// How the pairs are judged.
    pub fn judge(mut self, judge: Judge) -> Self {
        self.judge = judge;
        self
    }

    /// Number of pairs; 12 by default.
    pub fn pairs(mut self, pairs: usize) -> Self {
        self.pairs = pairs;
        self
    }

    /// How long each side runs in a round, about; 50 ms by default.
    pub fn round(mut self, length: Duration) -> Self {
        self.round = length;
        self
    }

    /// Another clock, such as a virtual one: time since any fixed moment, never falling.
    pub fn clock<D: FnMut() -> Duration>(self, clock: D) -> Compare<D> {
        Compare { name: self.name, judge: self.judge, pairs: self.pairs, round: self.round, clock }
    }

    /// Runs both, sample by sample in alternating order, and judges the medians of the rounds.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when a side fails; [`ErrorKind::NoEvidence`] when too few pairs are asked for, or a side
    /// takes no time at all; [`ErrorKind::Config`] for settings that mean nothing.
    pub async fn run<E: Display>(
        mut self,
        mut old: impl AsyncFnMut() -> Result<(), E>,
        mut new: impl AsyncFnMut() -> Result<(), E>,
    ) -> CoreResult<Comparison> {
        let needed = self.judge.fewest_pairs(1);
        if self.pairs < needed {
            return Err(Error::new(
                ErrorKind::NoEvidence,
                format!("comparison `{}`: {} pairs prove nothing, {needed} are needed", self.name, self.pairs),
            ));
        }
        let plan = self.plan(&mut old, &mut new).await?;
        let mut pairs = Vec::with_capacity(self.pairs);
        for round in 0..self.pairs {
            let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
            for sample in 0..plan.samples {
                // Alternating who goes first: a drift of the machine leans neither way.
                let old_first = (round as u64 + sample).is_multiple_of(2);
                if old_first {
                    times[0].push(self.sample("old", plan.calls, &mut old).await?);
                }
                times[1].push(self.sample("new", plan.calls, &mut new).await?);
                if !old_first {
                    times[0].push(self.sample("old", plan.calls, &mut old).await?);
                }
            }
            pairs.push((median(&times[0]), median(&times[1])));
        }
        if pairs.iter().any(|(old, new)| *old <= 0.0 || *new <= 0.0) {
            return Err(self.timeless());
        }
        self.judge.judge([Metric::new(self.name, pairs)])
    }

    /// Warms both up for the length of a round, and finds how many samples of how many calls fill one.
    async fn plan<E: Display>(
        &mut self,
        old: &mut impl AsyncFnMut() -> Result<(), E>,
        new: &mut impl AsyncFnMut() -> Result<(), E>,
    ) -> CoreResult<Plan> {
        let (begun, mut calls) = ((self.clock)(), 0_u32);
        while calls < FEWEST_SAMPLES as u32 || ((self.clock)().saturating_sub(begun) < self.round && calls < 100_000) {
            self.sample("old", 1, old).await?;
            self.sample("new", 1, new).await?;
            calls += 1;
        }
        let each = (self.clock)().saturating_sub(begun) / (2 * calls);
        if each.is_zero() {
            return Err(self.timeless());
        }
        let fitting = |length: Duration| (length.as_nanos() / each.as_nanos()) as u64;
        let per_sample = (fitting(SHORTEST_SAMPLE) + 1).min(10_000);
        Ok(Plan {
            calls: per_sample as u32,
            samples: (fitting(self.round) / per_sample).clamp(FEWEST_SAMPLES, MOST_SAMPLES),
        })
    }

    fn timeless(&self) -> Error {
        let what = format!("comparison `{}`: a side took no time, so there is no ratio", self.name);
        Error::new(ErrorKind::NoEvidence, what)
            .remedy("let the closures do the work; a future that is not awaited does none")
    }

    /// Nanoseconds of one call, as the mean of so many.
    async fn sample<E: Display>(
        &mut self,
        side: &str,
        calls: u32,
        body: &mut impl AsyncFnMut() -> Result<(), E>,
    ) -> CoreResult<f64> {
        let begun = (self.clock)();
        for _ in 0..calls {
            body().await.map_err(|error| {
                let what = format!("comparison `{}`: the {side} one failed: {error}", self.name);
                Error::new(ErrorKind::Assertion, what).remedy("what fails has no speed; make both sides succeed first")
            })?;
        }
        Ok((self.clock)().saturating_sub(begun).as_nanos() as f64 / f64::from(calls))
    }
}

/// What fills a round.
struct Plan {
    calls: u32,
    samples: u64,
}
