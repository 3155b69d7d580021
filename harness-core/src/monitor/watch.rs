//! Samples in the background and keeps what was seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::leak::{Leak, LeakRule};
use super::series::Series;
use super::{Reading, Sampler};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::SeriesRecord;
use crate::run::Seed;
use crate::slo::{Measured, Unit};
use crate::wait::{pause, within};
use harness_props::Outcome;

/// Different names that one monitor keeps; beyond it a reading is dropped and counted.
const MOST_SERIES: usize = 256;
/// One sampler may take this long for a sample before it counts as a gap.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// Watches things while something else runs.
///
/// ```
/// use harness_core::monitor::{Monitor, ProcessSampler};
/// use harness_core::slo::Threshold;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let monitor = Monitor::new().every(std::time::Duration::from_millis(20)).watch(ProcessSampler::own("app")).start()?;
/// harness_core::wait::pause(std::time::Duration::from_millis(100)).await; // the load
/// let watched = monitor.stop().await?;
/// let limit = Threshold::parse("memory", "< 2 GB", None)?;
/// assert!(limit.judge(&watched.peak("app rss")).is_pass());
/// assert!(watched.leak("app rss", &Default::default()).outcome.is_no_evidence()); // five samples show no leak, and no health
/// # harness_core::Result::Ok(())
/// # }).unwrap();
/// ```
#[must_use = "a monitor sees nothing until it is started"]
pub struct Monitor {
    every: Duration,
    samplers: Vec<Box<dyn Sampler>>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.samplers.iter().map(|sampler| sampler.name()).collect();
        f.debug_struct("Monitor").field("every", &self.every).field("samplers", &names).finish()
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self::new()
    }
}

impl Monitor {
    /// Watches nothing yet, once a second.
    pub fn new() -> Self {
        Self { every: Duration::from_secs(1), samplers: Vec::new() }
    }

    /// How often. Each pause is longer or shorter by up to a tenth, so that samples do not march in step with what they
    /// watch.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval;
        self
    }

    /// Adds something to watch.
    pub fn watch(mut self, sampler: impl Sampler + 'static) -> Self {
        self.samplers.push(Box::new(sampler));
        self
    }

    /// Starts a task on the current runtime; the first sample is taken at once.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without anything to watch, for an interval below a millisecond, and outside a runtime.
    pub fn start(self) -> CoreResult<Monitoring> {
        if self.samplers.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a monitor has nothing to watch").remedy("add `.watch(..)`"));
        }
        if self.every < Duration::from_millis(1) {
            return Err(Error::new(ErrorKind::Config, format!("a monitor cannot sample every {:?}", self.every))
                .remedy("give at least a millisecond; a second is usual"));
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Config, "a monitor starts inside a tokio runtime").caused_by(error)
        })?;
        let (stop, stopped) = oneshot::channel();
        let latest = Latest::default();
        Ok(Monitoring { stop: Some(stop), task: runtime.spawn(self.run(stopped, latest.clone())), latest })
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>, latest: Latest) -> Watched {
        let mut watched = Watched { begun: Instant::now(), latest, ..Watched::default() };
        let mut jitter = Seed::new(0).stream("monitor");
        loop {
            let begun = Instant::now();
            watched.sample(&mut self.samplers).await;
            let interval = self.every.mul_f64(0.9 + 0.2 * jitter.unit());
            // From the beginning of a sample to that of the next, so that slow ones do not make the points fewer; but what
            // is slower than its interval must not keep the processor, either.
            let left = interval.saturating_sub(begun.elapsed()).max(interval / 4);
            tokio::select! {
                _ = &mut stopped => return watched,
                () = pause(left) => {}
            }
        }
    }
}

/// A monitor at work. Dropped without [`Monitoring::stop`] it ends, and what it saw is gone.
#[derive(Debug)]
#[must_use = "what a monitor saw comes from `stop`"]
pub struct Monitoring {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Watched>,
    latest: Latest,
}

/// The last value of each series while a monitor is at work, for whoever must act on it before the end.
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<BTreeMap<String, Reading>>>);

impl Latest {
    /// What the series was when it was last read; none before the first reading and after a failed one.
    #[must_use]
    pub fn get(&self, series: &str) -> Option<Reading> {
        self.lock().get(series).cloned()
    }

    fn set(&self, reading: Reading) {
        self.lock().insert(reading.name.clone(), reading);
    }

    fn forget(&self, series: &str) {
        self.lock().remove(series);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitoring {
    /// The last values, from now on.
    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }

    /// Ends it and hands over what it saw.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when the task is gone: a sampler panicked, or its runtime ended.
    pub async fn stop(mut self) -> CoreResult<Watched> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(()); // the task is gone: the join below says so
        }
        (&mut self.task)
            .await
            .map_err(|error| Error::new(ErrorKind::NoEvidence, "the monitor ended by itself").caused_by(error))
    }
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why samples of one sampler are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub count: u64,
    /// The first reason.
    pub why: String,
}

/// What a monitor saw.
#[derive(Debug, Clone)]
pub struct Watched {
    begun: Instant,
    series: BTreeMap<String, Series>,
    /// Which sampler feeds which series: its error is a gap in each of them.
    fed_by: BTreeMap<String, String>,
    gaps: BTreeMap<String, Gap>,
    dropped: u64,
    cost: Duration,
    latest: Latest,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            series: BTreeMap::new(),
            fed_by: BTreeMap::new(),
            gaps: BTreeMap::new(),
            dropped: 0,
            cost: Duration::ZERO,
            latest: Latest::default(),
        }
    }
}

impl Watched {
    async fn sample(&mut self, samplers: &mut [Box<dyn Sampler>]) {
        let begun = Instant::now();
        for sampler in samplers {
            let name = sampler.name().to_owned();
            let at_s = self.begun.elapsed().as_secs_f64();
            match within(format!("a sample of `{name}`"), SAMPLE_LIMIT, sampler.sample()).await.and_then(|read| read) {
                Ok(readings) => self.note(&name, at_s, readings),
                Err(error) => self.miss(&name, &error),
            }
        }
        self.cost += begun.elapsed();
    }

    fn note(&mut self, sampler: &str, at_s: f64, readings: Vec<Reading>) {
        for reading in readings {
            if self.series.len() >= MOST_SERIES && !self.series.contains_key(&reading.name) {
                self.dropped += 1;
                continue;
            }
            self.fed_by.entry(reading.name.clone()).or_insert_with(|| sampler.to_owned());
            self.latest.set(reading.clone());
            let series = self.series.entry(reading.name);
            series.or_insert_with_key(|name| Series::new(name.clone(), reading.unit)).push(at_s, reading.value);
        }
    }

    fn miss(&mut self, sampler: &str, error: &Error) {
        let gap = self.gaps.entry(sampler.to_owned());
        gap.or_insert_with(|| Gap { count: 0, why: error.to_string() }).count += 1;
        let fed = self.fed_by.iter().filter(|(_, by)| *by == sampler);
        for name in fed.map(|(name, _)| name) {
            self.latest.forget(name);
            if let Some(series) = self.series.get_mut(name) {
                series.gap();
            }
        }
    }

    /// One series by name: `app rss`.
    #[must_use]
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.get(name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }

    /// Missing samples by sampler.
    #[must_use]
    pub fn gaps(&self) -> &BTreeMap<String, Gap> {
        &self.gaps
    }

    /// Readings that were dropped because there were too many different names.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Time spent sampling: what the watching itself may have taken from the watched.
    #[must_use]
    pub fn cost(&self) -> Duration {
        self.cost
    }

    /// The largest value of a series, for a threshold; nothing for a name that is not there.
    #[must_use]
    pub fn peak(&self, name: &str) -> Measured {
        self.series(name).map_or_else(|| Measured::nothing(self.absent(name)), Series::peak)
    }

    /// The mean of a series, for a threshold; nothing for a name that is not there.
    #[must_use]
    pub fn mean(&self, name: &str) -> Measured {
        self.series(name).map_or_else(|| Measured::nothing(self.absent(name)), Series::mean)
    }

    /// The part, in percent, that one series has in the sum of it and others, by their means: the overhead of a harness is the
    /// part of its processor time in that of all who are at work. Nothing when one of them is not there, or all are zero.
    #[must_use]
    pub fn part_of(&self, part: &str, others: &[&str]) -> Measured {
        let (mut means, mut fewest) = (Vec::new(), u64::MAX);
        for name in [part].iter().chain(others) {
            match self.mean(name) {
                Measured::Value { value, samples, .. } => {
                    means.push(value);
                    fewest = fewest.min(samples);
                }
                Measured::Nothing { why } => return Measured::nothing(why),
                other => return Measured::nothing(format!("`{name}` is {other:?}, of which there is no part")),
            }
        }
        let sum: f64 = means.iter().sum();
        match means.first() {
            Some(own) if sum > 0.0 => {
                Measured::Value { value: own / sum * 100.0, unit: Unit::Percent, samples: fewest }
            }
            _ => Measured::nothing("none of them took anything"),
        }
    }

    /// Whether a series leaks; no evidence for a name that is not there or a series with too many gaps.
    #[must_use]
    pub fn leak(&self, name: &str, rule: &LeakRule) -> Leak {
        let missing = self.series(name).map_or_else(|| Some(self.absent(name)), Series::missing);
        match (missing, self.series(name)) {
            (None, Some(series)) => rule.judge(&series.points()),
            (why, _) => Leak { outcome: Outcome::no_evidence(why.unwrap_or_default()), ..rule.judge(&[]) },
        }
    }

    /// The series as records of a scenario, ready to plot: one plot per unit.
    #[must_use]
    pub fn records(&self, scenario: &str) -> Vec<SeriesRecord> {
        let record = |series: &Series| {
            let (plot, unit, factor) = match series.unit() {
                Unit::Bytes => ("memory over time", "MB", 1.0 / 1_048_576.0),
                Unit::Percent => ("shares over time", "%", 1.0),
                Unit::Time => ("times over time", "ms", 1e-6),
                Unit::PerSecond => ("rates over time", "/s", 1.0),
                Unit::Count => ("counts over time", "", 1.0),
            };
            SeriesRecord {
                scenario: scenario.to_owned(),
                plot: plot.to_owned(),
                name: series.name().to_owned(),
                unit: unit.to_owned(),
                x_unit: "s".to_owned(),
                points: series.points().into_iter().map(|(at, value)| (at, value * factor)).collect(),
                marks: Vec::new(),
            }
        };
        self.all().map(record).collect()
    }

    fn absent(&self, name: &str) -> String {
        let known: Vec<&str> = self.series.keys().map(String::as_str).collect();
        let gaps: Vec<String> = self.gaps.iter().map(|(by, gap)| format!("; `{by}` failed: {}", gap.why)).collect();
        format!("nothing called `{name}` was sampled, only: {}{}", known.join(", "), gaps.concat())
    }
}
