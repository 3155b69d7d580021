//! Times of single calls, and what they must stay below.

use std::fmt;
use std::time::Duration;

use harness_core::Outcome;
use harness_core::wait::seconds;

/// Times of single calls, in the order of their length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut sorted: Vec<Duration> = times.into_iter().collect();
        sorted.sort_unstable();
        Self { sorted }
    }
}

impl Latencies {
    /// How many calls were measured.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// True when nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The arithmetic mean; `None` without calls.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let n = u32::try_from(self.sorted.len()).ok().filter(|&n| n > 0)?;
        Some(self.sorted.iter().sum::<Duration>() / n)
    }

    /// The time that this share of calls (0 to 1) did not exceed, by nearest rank; `None` without calls. Of fewer than 100
    /// calls the 99th percentile is the longest.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied()
    }

    /// The 99th percentile; `None` without calls.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    /// Passes when the mean is below the limit (strictly: 200 ms is not below 200 ms).
    #[must_use]
    pub fn mean_below(&self, limit: Duration) -> Outcome {
        self.below("mean", self.mean(), limit)
    }

    /// Passes when the 99th percentile is below the limit, strictly.
    #[must_use]
    pub fn p99_below(&self, limit: Duration) -> Outcome {
        self.below("99th percentile", self.p99(), limit)
    }

    fn below(&self, what: &str, found: Option<Duration>, limit: Duration) -> Outcome {
        match found {
            None => Outcome::no_evidence("no call was measured"),
            Some(found) if found < limit => Outcome::pass(format!("{what} {} of {} calls", seconds(found), self.len())),
            Some(found) => Outcome::fail(format!(
                "{what} {} of {} calls, below {} is needed",
                seconds(found),
                self.len(),
                seconds(limit)
            )),
        }
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mean(), self.p99()) {
            (Some(mean), Some(p99)) => {
                write!(f, "{} calls, mean {}, p99 {}", self.len(), seconds(mean), seconds(p99))
            }
            _ => f.write_str("no call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Latencies;

    fn times(ms: impl IntoIterator<Item = u64>) -> Latencies {
        ms.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn quantile_is_by_nearest_rank() {
        let hundred = times((1..=100).rev());
        assert_eq!(hundred.p99(), Some(Duration::from_millis(99)));
        assert_eq!(hundred.mean(), Some(Duration::from_micros(50_500)));
        assert_eq!(times([5, 1, 9]).p99(), Some(Duration::from_millis(9)));
        assert_eq!((times([]).p99(), times([]).mean()), (None, None));
    }

    #[test]
    fn limits_are_strict_and_no_calls_are_no_evidence() {
        let limit = Duration::from_millis(10);
        assert!(times([9, 9]).mean_below(limit).is_pass() && times([9, 11]).mean_below(limit).is_fail());
        assert!(times([9, 11]).p99_below(limit).is_fail() && times([9]).p99_below(limit).is_pass());
        assert!(times([]).mean_below(limit).is_no_evidence() && times([]).p99_below(limit).is_no_evidence());
    }
}
