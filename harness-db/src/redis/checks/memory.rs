//! How much memory a server uses, sampled over time from `INFO memory`.
//!
//! Between two samples memory may rise and fall unseen. The server remembers its own peak: when that rose while it was
//! sampled, the peak of the series is exact, whatever the samples saw. Redis 7 notes its peak after every command, older ones
//! ten times a second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::monitor::{Reading, Sampled, Sampler};
use harness_core::slo::Unit;
use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Outcome};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::info::Info;
use super::logical::{LogicalDb, checked};
use super::{OwnRedis, wire};
use crate::clerk;

/// How long one sample may take before it counts as a gap.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);
/// Below this the allocator's own needs outweigh the data, and fragmentation means nothing.
const LEAST_FOR_FRAGMENTATION_BYTES: u64 = 16 << 20;

/// One sample of a server's memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryPoint {
    /// Time since sampling began.
    pub at: Duration,
    /// `used_memory`: bytes the server asked its allocator for.
    pub used_bytes: u64,
    /// `used_memory_rss`: bytes the operating system gave it.
    pub resident_bytes: u64,
    /// `used_memory_peak`: the most that was ever used, in bytes.
    pub peak_bytes: u64,
    /// `maxmemory`, in bytes; 0 is without limit.
    pub max_bytes: u64,
    /// `mem_fragmentation_ratio`: resident by used.
    pub fragmentation: f64,
}

/// Memory over time. A sample that failed is a gap, never a zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemorySeries {
    /// The samples, in order.
    pub points: Vec<MemoryPoint>,
    /// Samples that failed: when, and why.
    pub gaps: Vec<(Duration, String)>,
}

/// A sampler of memory that has not begun; made by [`LogicalDb::memory`].
#[derive(Debug, Clone)]
#[must_use = "start it"]
pub struct Memory {
    place: LogicalDb,
    every: Duration,
}

/// A sampler at work, on a connection and a thread of its own.
#[derive(Debug)]
#[must_use = "stop it to get the series"]
pub struct MemorySampler {
    place: LogicalDb,
    series: Arc<Mutex<MemorySeries>>,
    begun: Instant,
    task: Option<JoinHandle<()>>,
}

impl LogicalDb {
    /// A sampler of the memory of the whole server, every 100 ms unless set otherwise.
    pub fn memory(&self) -> Memory {
        Memory { place: self.clone(), every: Duration::from_millis(100) }
    }

    /// What one key takes, in bytes, with its administration (`MEMORY USAGE … SAMPLES 0`); `None` when there is no such key.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn key_memory(&self, key: &str) -> CoreResult<Option<u64>> {
        wire::ask(&mut self.connection().await?, &["MEMORY", "USAGE", key, "SAMPLES", "0"]).await
    }
}

impl OwnRedis {
    /// A sampler of this server's memory, every 100 ms unless set otherwise.
    pub fn memory(&self) -> Memory {
        self.logical().memory()
    }
}

impl Memory {
    /// Sets how often a sample is taken.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(1));
        self
    }

    /// Takes one sample.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn sample(&self) -> CoreResult<MemoryPoint> {
        point(&mut self.place.connection().await?, Duration::ZERO).await
    }

    /// The memory as series of a load or a monitor, over one connection that is kept: `<label> memory` (what the server asked
    /// its allocator for) and `<label> rss`. How often is the monitor's business.
    pub fn sampler(self, label: impl Into<String>) -> impl Sampler + 'static {
        Watching { label: label.into(), memory: self, connection: None }
    }

    /// Begins: the first sample is taken before this returns.
    ///
    /// # Errors
    /// When the sampler cannot connect or its first sample fails.
    pub async fn start(self) -> CoreResult<MemorySampler> {
        let series = Arc::new(Mutex::new(MemorySeries::default()));
        let (shared, place, begun) = (Arc::clone(&series), self.place.clone(), Instant::now());
        let task = clerk::run(move || async move {
            let mut connection = self.place.connection().await?;
            let first = point(&mut connection, begun.elapsed()).await?;
            add(&shared, begun.elapsed(), Ok(first));
            Ok(tokio::spawn(self.sample_on(connection, begun, shared)))
        })
        .await?;
        Ok(MemorySampler { place, series, begun, task: Some(task) })
    }

    async fn sample_on(self, connection: MultiplexedConnection, begun: Instant, series: Arc<Mutex<MemorySeries>>) {
        let mut connection = Some(connection);
        loop {
            pause(self.every).await;
            let at = begun.elapsed();
            let result = match tokio::time::timeout(SAMPLE_LIMIT, self.one(&mut connection, at)).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer for {}", seconds(SAMPLE_LIMIT))),
            };
            add(&series, at, result);
        }
    }

    /// One sample, over a new connection when the last one broke.
    async fn one(&self, held: &mut Option<MultiplexedConnection>, at: Duration) -> CoreResult<MemoryPoint> {
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => self.place.connection().await?,
        };
        let point = point(&mut connection, at).await?;
        *held = Some(connection);
        Ok(point)
    }
}

#[derive(Debug)]
struct Watching {
    label: String,
    memory: Memory,
    connection: Option<MultiplexedConnection>,
}

impl Sampler for Watching {
    fn name(&self) -> &str {
        &self.label
    }

    fn sample(&mut self) -> Sampled<'_> {
        Box::pin(async move {
            let point = self.memory.one(&mut self.connection, Duration::ZERO).await?;
            let of = |what, bytes: u64| Reading {
                name: format!("{} {what}", self.label),
                unit: Unit::Bytes,
                value: bytes as f64,
            };
            Ok(vec![of("memory", point.used_bytes), of("rss", point.resident_bytes)])
        })
    }
}

fn add(series: &Mutex<MemorySeries>, at: Duration, result: Result<MemoryPoint, String>) {
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(point) => series.points.push(point),
        Err(why) => series.gaps.push((at, why)),
    }
}

async fn point(connection: &mut MultiplexedConnection, at: Duration) -> CoreResult<MemoryPoint> {
    let info = Info::read(connection, "memory").await?;
    Ok(MemoryPoint {
        at,
        used_bytes: info.number("used_memory")?,
        resident_bytes: info.number("used_memory_rss")?,
        peak_bytes: info.number("used_memory_peak")?,
        max_bytes: info.number("maxmemory")?,
        fragmentation: info.number("mem_fragmentation_ratio")?,
    })
}

impl MemorySampler {
    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> MemorySeries {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a last sample, ends, and gives the series. A last sample that fails is a gap.
    pub async fn stop(mut self) -> MemorySeries {
        self.end();
        let last = self.place.memory();
        let result = match tokio::time::timeout(SAMPLE_LIMIT, last.sample()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer for {}", seconds(SAMPLE_LIMIT))),
        };
        let at = self.begun.elapsed();
        add(&self.series, at, result.map(|point| MemoryPoint { at, ..point }));
        self.so_far()
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for MemorySampler {
    fn drop(&mut self) {
        self.end();
    }
}

impl MemorySeries {
    /// The most memory that was used while it was sampled, in bytes, and when that was seen: the server's own peak when it
    /// rose meanwhile, else the largest sample. `None` without samples.
    #[must_use]
    pub fn peak(&self) -> Option<(u64, Duration)> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let sample = self.points.iter().max_by_key(|point| point.used_bytes)?;
        if last.peak_bytes > first.peak_bytes {
            let seen = self.points.iter().find(|point| point.peak_bytes == last.peak_bytes).unwrap_or(last);
            return Some((last.peak_bytes.max(sample.used_bytes), seen.at));
        }
        Some((sample.used_bytes, sample.at))
    }

    /// Passes when the peak stayed below a limit in bytes (strictly: 1024 MB are not below 1024 MB).
    #[must_use]
    pub fn below(&self, limit_bytes: u64) -> Outcome {
        let Some((peak, at)) = self.peak() else {
            return Outcome::no_evidence(format!("no sample of memory ({} gaps)", self.gaps.len()));
        };
        let grounds = format!("{} samples, {} gaps", self.points.len(), self.gaps.len());
        match peak < limit_bytes {
            true => Outcome::pass(format!("at most {} used in {grounds}", bytes(peak))),
            false => Outcome::fail(format!(
                "{} used at +{}, less than {} is allowed ({grounds}; {} at the start)",
                bytes(peak),
                seconds(at),
                bytes(limit_bytes),
                bytes(self.points.first().map_or(0, |point| point.used_bytes))
            )),
        }
    }

    /// Passes when resident by used memory stayed below a ratio, such as 1.5, at the end. Below 16 MiB of data the ratio says
    /// nothing about fragmentation, and this finds no evidence.
    #[must_use]
    pub fn fragmentation_below(&self, limit: f64) -> Outcome {
        let Some(last) = self.points.last() else {
            return Outcome::no_evidence(format!("no sample of memory ({} gaps)", self.gaps.len()));
        };
        let text = format!(
            "resident by used memory is {:.2} ({} by {})",
            last.fragmentation,
            bytes(last.resident_bytes),
            bytes(last.used_bytes)
        );
        match last.used_bytes {
            few if few < LEAST_FOR_FRAGMENTATION_BYTES => {
                let least = bytes(LEAST_FOR_FRAGMENTATION_BYTES);
                Outcome::no_evidence(format!("{text}, which means nothing below {least} of data"))
            }
            _ if last.fragmentation < limit => Outcome::pass(text),
            _ => Outcome::fail(format!("{text}, less than {limit} is allowed")),
        }
    }

    /// The failed [`MemorySeries::below`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) when the limit was reached;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) without samples.
    pub fn check_below(&self, limit_bytes: u64) -> CoreResult {
        checked(self.below(limit_bytes))
    }
}

/// Bytes as people read them: `10.0 MB` is 10 · 2²⁰, as Redis writes it.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        b if b < 1 << 10 => format!("{b} bytes"),
        b if b < 1 << 20 => format!("{:.1} KB", b as f64 / 1024.0),
        b => format!("{:.1} MB", b as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{MemoryPoint, MemorySeries};

    fn series(points: &[(u64, u64)]) -> MemorySeries {
        let point = |(n, &(used_bytes, peak_bytes)): (usize, &(u64, u64))| MemoryPoint {
            at: Duration::from_secs(n as u64),
            used_bytes,
            peak_bytes,
            ..MemoryPoint::default()
        };
        MemorySeries { points: points.iter().enumerate().map(point).collect(), gaps: Vec::new() }
    }

    #[test]
    fn a_gibibyte_is_not_below_a_gibibyte() {
        let gib = 1 << 30;
        assert!(series(&[(5, 5), (gib - 1, gib - 1)]).below(gib).is_pass());
        let full = series(&[(5, 5), (gib, gib)]).below(gib);
        assert!(full.is_fail() && full.detail().starts_with("1024.0 MB used at +1 s, less than 1024.0 MB"), "{full}");
        let blind = MemorySeries { gaps: vec![(Duration::ZERO, "refused".into())], ..MemorySeries::default() };
        assert!(blind.below(gib).is_no_evidence() && blind.fragmentation_below(1.5).is_no_evidence());
    }

    #[test]
    fn peak_between_samples_is_told_by_the_server_and_an_older_one_is_not_counted() {
        assert_eq!(series(&[(5, 5), (6, 90), (7, 90)]).peak(), Some((90, Duration::from_secs(1))));
        assert_eq!(series(&[(5, 900), (8, 900), (7, 900)]).peak(), Some((8, Duration::from_secs(1))));
    }

    #[test]
    fn fragmentation_is_judged_where_there_is_data() {
        let mut series = series(&[(64 << 20, 64 << 20)]);
        series.points[0].fragmentation = 1.4;
        assert!(series.fragmentation_below(1.5).is_pass() && series.fragmentation_below(1.4).is_fail());
        series.points[0].used_bytes = 1 << 20;
        assert!(series.fragmentation_below(1.5).is_no_evidence());
    }
}
