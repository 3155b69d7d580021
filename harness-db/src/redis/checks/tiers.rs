//! How long each tier of a cache takes: exact samples by tier, judged by exact counts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Outcome};

use super::logical::checked;

/// Latencies by tier. Share it by reference; recording takes a lock for the length of a push.
///
/// ```
/// use std::time::Duration;
/// use harness_db::redis::Tiers;
///
/// let tiers = Tiers::new();
/// for _ in 0..100 {
///     tiers.record("local", Duration::from_micros(20));
///     tiers.record("redis", Duration::from_millis(2));
/// }
/// let ms = Duration::from_millis;
/// assert!(tiers.below("local", 0.95, ms(1)).is_pass());
/// assert!(tiers.below("redis", 0.95, ms(2)).is_fail()); // strictly below
/// ```
#[derive(Debug, Default)]
pub struct Tiers {
    samples: Mutex<BTreeMap<String, Vec<Duration>>>,
}

impl Tiers {
    /// Without samples.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample of a tier.
    pub fn record(&self, tier: &str, took: Duration) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.entry(tier.to_owned()).or_default().push(took);
    }

    /// Runs an operation and adds how long it took. An error is returned and not counted: a refused connection is no latency.
    ///
    /// # Errors
    /// The operation's own.
    pub async fn time<T, E>(&self, tier: &str, operation: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let value = operation.await?;
        self.record(tier, begun.elapsed());
        Ok(value)
    }

    fn sorted(&self, tier: &str) -> Vec<Duration> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted = samples.get(tier).cloned().unwrap_or_default();
        sorted.sort_unstable();
        sorted
    }

    /// The latency that a share of the samples did not exceed, by nearest rank; `None` without samples.
    #[must_use]
    pub fn quantile(&self, tier: &str, share: f64) -> Option<Duration> {
        nearest(&self.sorted(tier), share)
    }

    /// How many samples of a tier lie in each power of two of microseconds: `(upper bound, count)`, empty ones left out.
    #[must_use]
    pub fn histogram(&self, tier: &str) -> Vec<(Duration, usize)> {
        let mut bins: BTreeMap<u64, usize> = BTreeMap::new();
        for took in self.sorted(tier) {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 1).max(1);
            *bins.entry(us.checked_next_power_of_two().unwrap_or(u64::MAX)).or_default() += 1;
        }
        bins.into_iter().map(|(us, n)| (Duration::from_micros(us), n)).collect()
    }

    /// Passes when a share of the samples, such as 0.95, took less than `limit` (strictly). So few samples that the share allows
    /// no exception are no evidence for it: 0.95 needs 20.
    #[must_use]
    pub fn below(&self, tier: &str, share: f64, limit: Duration) -> Outcome {
        let sorted = self.sorted(tier);
        let (n, share) = (sorted.len(), share.clamp(0.0, 1.0));
        let needed = if share < 1.0 { (1.0 / (1.0 - share)).round() as usize } else { 1 };
        let Some(found) = nearest(&sorted, share).filter(|_| n >= needed) else {
            return Outcome::no_evidence(format!("{n} samples of tier `{tier}`, at least {needed} are needed"));
        };
        let beyond = n - sorted.partition_point(|took| *took < limit);
        let most = sorted.last().copied().unwrap_or_default();
        let text = format!(
            "tier `{tier}`: p{} {}, max {}, {beyond} of {n} samples not below {}",
            share * 100.0,
            seconds(found),
            seconds(most),
            seconds(limit)
        );
        if found < limit { Outcome::pass(text) } else { Outcome::fail(text) }
    }

    /// The failed [`Tiers::below`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) when it is too slow;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) with too few samples.
    pub fn check_below(&self, tier: &str, share: f64, limit: Duration) -> CoreResult<&Self> {
        checked(self.below(tier, share, limit)).map(|()| self)
    }
}

fn nearest(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tiers;

    fn tiers(samples_us: impl IntoIterator<Item = u64>) -> Tiers {
        let tiers = Tiers::new();
        samples_us.into_iter().for_each(|us| tiers.record("local", Duration::from_micros(us)));
        tiers
    }

    #[test]
    fn limit_is_strict_and_exact() {
        let ms = Duration::from_millis(1);
        assert!(tiers((0..95).map(|_| 999).chain((0..5).map(|_| 50_000))).below("local", 0.95, ms).is_pass());
        let slow = tiers((0..94).map(|_| 999).chain((0..6).map(|_| 1_000))).below("local", 0.95, ms);
        assert!(slow.is_fail() && slow.detail().contains("6 of 100 samples not below 1 ms"), "{slow}");
    }

    #[test]
    fn too_few_samples_are_no_evidence() {
        let ms = Duration::from_millis(1);
        assert!(tiers((0..19).map(|_| 1)).below("local", 0.95, ms).is_no_evidence());
        assert!(tiers((0..20).map(|_| 1)).below("local", 0.95, ms).is_pass());
        assert!(
            tiers([]).below("local", 1.0, ms).is_no_evidence() && tiers([1]).below("redis", 0.5, ms).is_no_evidence()
        );
    }

    #[test]
    fn histogram_counts_every_sample_once() {
        let bins = tiers([1, 3, 4, 900, 1_000]).histogram("local");
        let us = Duration::from_micros;
        assert_eq!(bins, [(us(1), 1), (us(4), 2), (us(1_024), 2)]);
    }
}
