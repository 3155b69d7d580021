//! Watch windows: so long without red, every reading there, on any clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness_props::Outcome;

use super::{Colour, Measured, Threshold};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{Pace, seconds};

/// A time through which metrics have to stay off red, read at even steps.
///
/// A window of a day runs in milliseconds on a clock that only waiting moves:
///
/// ```
/// use std::time::Duration;
/// use harness_core::slo::{Measured, Threshold, WatchWindow};
/// use harness_core::wait::Pace;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let hours = |n: u64| Duration::from_secs(n * 3_600);
/// let window = WatchWindow::new("the first day", hours(24), hours(1)).holds(Threshold::parse("errors", "< 1 %", None)?);
/// let watch = window.run(&Pace::virtual_time(), async |_| vec![("errors".to_owned(), Measured::share(2, 1_000))]).await?;
/// assert_eq!(watch.outcome().detail(), "the first day: 24 readings of 1 metric in 24 h, none red, 0 yellow");
/// # harness_core::Result::Ok(())
/// # }).unwrap();
/// ```
///
/// Red is red at once, or begins the window anew with [`WatchWindow::restarts`]. Before its end a window has no evidence: who
/// promotes early has nothing to show. A reading that was not taken is missed, and a missed reading is no evidence either.
#[derive(Debug, Clone)]
#[must_use = "a window watches nothing until it is begun or run"]
pub struct WatchWindow {
    name: String,
    length: Duration,
    every: Duration,
    thresholds: BTreeMap<String, Threshold>,
    restarts: bool,
    longest: Duration,
}

impl WatchWindow {
    /// A window of this length with a reading at the end of every step; what is left of a whole number of steps is not read.
    pub fn new(name: impl Into<String>, length: Duration, every: Duration) -> Self {
        let (name, every) = (name.into(), every.max(Duration::from_millis(1)));
        Self { name, length, every, thresholds: BTreeMap::new(), restarts: false, longest: length.saturating_mul(7) }
    }

    /// A metric that has to stay off red, by the name in its threshold.
    pub fn holds(mut self, threshold: Threshold) -> Self {
        self.thresholds.insert(threshold.metric().to_owned(), threshold);
        self
    }

    /// Red does not fail the window but begins it anew: stable means so long since the last red.
    pub fn restarts(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// How long [`WatchWindow::run`] watches in all when the window begins anew: seven times its length, unless said otherwise.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// The window, open from this time on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without a metric, with a step longer than the window, or with limits that contradict each other.
    pub fn begin(self, at: Duration) -> CoreResult<Watch> {
        let refuse = |why: &str| {
            Err(Error::new(ErrorKind::Config, format!("watch window `{}` {why}", self.name))
                .remedy("name at least one metric, and read it at least once per window"))
        };
        if self.thresholds.is_empty() {
            return refuse("watches no metric");
        }
        if self.every > self.length {
            return refuse("ends before its first reading");
        }
        self.thresholds.values().try_for_each(Threshold::check)?;
        let seen = self.thresholds.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
        Ok(Watch { window: self, begun: at, now: at, seen, yellow: 0, breaches: Vec::new() })
    }

    /// Watches to the end, or to the red that fails it. `read` gives, for a time since the beginning, what each metric is.
    ///
    /// # Errors
    /// As [`WatchWindow::begin`], and for a metric that the window does not have.
    pub async fn run(
        self,
        pace: &Pace,
        mut read: impl AsyncFnMut(Duration) -> Vec<(String, Measured)>,
    ) -> CoreResult<Watch> {
        let (begun, every, longest) = (pace.now(), self.every, self.longest);
        let mut watch = self.begin(Duration::ZERO)?;
        for step in 1_u32.. {
            let at = every.saturating_mul(step);
            pace.wait_until(begun + at).await;
            for (metric, measured) in read(at).await {
                watch.observe(at, &metric, &measured)?;
            }
            if watch.advance(at)?.is_over() || at >= longest {
                break;
            }
        }
        Ok(watch)
    }
}

/// A red reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breach {
    /// When, on the watch's clock.
    pub at: Duration,
    /// Which metric.
    pub metric: String,
    /// Its value with the target.
    pub text: String,
}

/// An open window.
#[derive(Debug, Clone)]
#[must_use = "a watch says nothing until its outcome is looked at"]
pub struct Watch {
    window: WatchWindow,
    begun: Duration,
    now: Duration,
    /// Steps of the window in which a metric had a value, counted from 1.
    seen: BTreeMap<String, BTreeSet<u128>>,
    yellow: usize,
    breaches: Vec<Breach>,
}

impl Watch {
    /// Takes a reading. Without a value it counts as not taken.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a metric that the window does not have, [`ErrorKind::Refused`] for a time that goes back.
    pub fn observe(&mut self, at: Duration, metric: &str, measured: &Measured) -> CoreResult {
        self.advance(at)?;
        let Some(threshold) = self.window.thresholds.get(metric) else {
            return Err(Error::new(ErrorKind::Config, format!("`{}` does not watch `{metric}`", self.window.name))
                .remedy("add its threshold to the window"));
        };
        let Some(colour) = threshold.colour(measured) else { return Ok(()) };
        if colour == Colour::Red {
            let text = format!("{metric} {}, target {}", measured.display(), threshold.target());
            self.breaches.push(Breach { at, metric: metric.to_owned(), text });
            if self.window.restarts {
                self.begun = at;
                self.yellow = 0;
                self.seen.values_mut().for_each(BTreeSet::clear);
            }
            return Ok(());
        }
        self.yellow += usize::from(colour == Colour::Yellow);
        let step = (at - self.begun).as_nanos().div_ceil(self.window.every.as_nanos());
        if let (1.., Some(seen)) = (step, self.seen.get_mut(metric)) {
            seen.insert(step);
        }
        Ok(())
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a time that goes back.
    pub fn advance(&mut self, to: Duration) -> CoreResult<&Self> {
        if to < self.now {
            let what = format!("time went back, from {} to {}", seconds(self.now), seconds(to));
            return Err(Error::new(ErrorKind::Refused, what).remedy("feed readings in the order of their times"));
        }
        self.now = to;
        Ok(self)
    }

    /// Every red reading so far.
    #[must_use]
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    fn has_failed(&self) -> bool {
        !self.window.restarts && !self.breaches.is_empty()
    }

    /// True when nothing can change its outcome any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_failed() || self.now - self.begun >= self.window.length
    }

    /// Steps of the window that are over.
    fn due(&self) -> u128 {
        self.window.length.min(self.now - self.begun).as_nanos() / self.window.every.as_nanos()
    }

    /// The steps in which a metric had no value: the metric and when the step ended.
    #[must_use]
    pub fn missed(&self) -> Vec<(String, Duration)> {
        let (every, due) = (self.window.every, self.due());
        let mut missed = Vec::new();
        for (metric, seen) in &self.seen {
            let ends = (1..=due).filter(|step| !seen.contains(step));
            missed.extend(ends.map(|step| (metric.clone(), self.begun + every.saturating_mul(step as u32))));
        }
        missed
    }

    /// Pass when the window is over, every reading was taken and none was red. Fail with the first red one; NoEvidence before
    /// the end, or when a reading was missed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let name = &self.window.name;
        if let (true, Some(breach)) = (self.has_failed(), self.breaches.first()) {
            return Outcome::fail(format!("{name}: red after {}: {}", seconds(breach.at), breach.text));
        }
        let (length, watched) = (self.window.length, self.now - self.begun);
        let red = self.breaches.last().map(|breach| format!(", red after {}: {}", seconds(breach.at), breach.text));
        let red = red.unwrap_or_default();
        if watched < length {
            let (watched, length) = (seconds(watched), seconds(length));
            return Outcome::no_evidence(format!("{name}: {watched} of {length} watched without red{red}"));
        }
        let missed = self.missed();
        if let Some((metric, at)) = missed.first() {
            let n = missed.len();
            return Outcome::no_evidence(format!(
                "{name}: {n} readings missed, the first of {metric} at {}",
                seconds(*at)
            ));
        }
        let readings = self.due() * self.seen.len() as u128;
        let metrics = match self.seen.len() {
            1 => "1 metric".to_owned(),
            n => format!("{n} metrics"),
        };
        let (length, yellow) = (seconds(length), self.yellow);
        Outcome::pass(format!("{name}: {readings} readings of {metrics} in {length}, none red, {yellow} yellow{red}"))
    }
}

#[cfg(test)]
mod tests;
