//! Many durations, and what can be said about them.

use std::borrow::Cow;
use std::time::Duration;

use harness_core::slo::Measured;
use hdrhistogram::Histogram;

use crate::units::to_nanos;

/// Up to here every value is kept; beyond it memory stays constant.
const EXACT: usize = 1 << 16;
/// The histogram spans 1 ns to 1 hour; longer values count as one hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// Durations of one kind, recorded in nanoseconds.
///
/// The first 65,536 values are kept as they are, so quantiles are exact. Beyond that a histogram with three
/// significant digits takes over: a quantile is then known to lie in a [`Span`] no wider than 0.1 % of its value.
#[derive(Debug, Clone)]
pub struct Times {
    exact: Vec<u64>,
    histogram: Option<Box<Histogram<u64>>>,
    exact_limit: usize,
    count: u64,
    total_nanos: u128,
    longest: u64,
}

/// Where a quantile lies, in nanoseconds, both ends included. `low == high` when every value was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Not below this.
    pub low: u64,
    /// Not above this.
    pub high: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self::with_exact_limit(EXACT)
    }
}

impl Times {
    pub(crate) fn with_exact_limit(exact_limit: usize) -> Self {
        Self { exact: Vec::new(), histogram: None, exact_limit, count: 0, total_nanos: 0, longest: 0 }
    }

    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_nanos(to_nanos(duration));
    }

    /// Adds one duration in nanoseconds.
    #[inline]
    pub fn record_nanos(&mut self, nanos: u64) {
        self.count += 1;
        self.total_nanos += u128::from(nanos);
        self.longest = self.longest.max(nanos);
        if let Some(histogram) = &mut self.histogram {
            return histogram.saturating_record(nanos.max(1));
        }
        if self.exact.len() == self.exact_limit {
            self.give_up_exactness();
            self.histogram.iter_mut().for_each(|histogram| histogram.saturating_record(nanos.max(1)));
        } else {
            self.exact.push(nanos);
        }
    }

    #[cold]
    fn give_up_exactness(&mut self) {
        // The bounds and digits are constants that the constructor accepts; were they refused, only the count
        // and the longest would go on, and quantiles would say so by being none.
        if let Ok(mut histogram) = Histogram::new_with_bounds(1, LONGEST_NANOS, 3) {
            for nanos in std::mem::take(&mut self.exact) {
                histogram.saturating_record(nanos.max(1));
            }
            self.histogram = Some(Box::new(histogram));
        }
    }

    /// All of several, with sorted values.
    #[must_use]
    pub fn merged<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut merged = Self::default();
        for times in all {
            let (count, total, longest) = (merged.count, merged.total_nanos, merged.longest);
            match &times.histogram {
                None => times.exact.iter().for_each(|nanos| merged.record_nanos(*nanos)),
                Some(theirs) => {
                    merged.give_up_exactness();
                    if let Some(ours) = &mut merged.histogram {
                        for bucket in theirs.iter_recorded() {
                            ours.saturating_record_n(bucket.value_iterated_to(), bucket.count_at_value());
                        }
                    }
                }
            }
            merged.count = count + times.count;
            merged.total_nanos = total + times.total_nanos;
            merged.longest = longest.max(times.longest);
        }
        merged.exact.sort_unstable();
        merged
    }

    /// How many durations there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sum in nanoseconds; exact at any size.
    #[must_use]
    pub fn total_nanos(&self) -> u128 {
        self.total_nanos
    }

    /// The longest; exact at any size.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// Every value, in order of recording or, after [`Times::merged`], sorted; none once there are too many to keep.
    pub(crate) fn exact_nanos(&self) -> Option<&[u64]> {
        self.histogram.is_none().then_some(&self.exact)
    }

    /// A quantile as evidence: nothing where fewer than five values lie beyond it.
    #[must_use]
    pub fn measured(&self, q: f64) -> Measured {
        if let Some(exact) = self.exact_nanos() {
            return Measured::quantile(q, &sorted(exact));
        }
        match self.quantile(q).filter(|_| q > 0.0 && (1.0 - q) * self.count as f64 >= 5.0) {
            Some(span) => Measured::Quantile { q, nanos: span.high, samples: self.count },
            None => Measured::nothing(format!("{} are too few samples for quantile {q}", self.count)),
        }
    }

    /// The quantile `q` in `0..=1` by nearest rank (the smallest value with at least `q` of all values at or below
    /// it); none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Span> {
        if self.count == 0 {
            return None;
        }
        if let Some(histogram) = &self.histogram {
            let value = histogram.value_at_quantile(q.clamp(0.0, 1.0));
            let high = histogram.highest_equivalent(value).min(self.longest.max(1));
            return Some(Span { low: histogram.lowest_equivalent(value), high });
        }
        let sorted = sorted(&self.exact);
        // The tolerance keeps 0.07 * 100, which floats put a hair above 7, at rank 7.
        let rank = (q.clamp(0.0, 1.0) * self.count as f64 - 1e-9).ceil() as usize;
        let value = *sorted.get(rank.saturating_sub(1))?;
        Some(Span { low: value, high: value })
    }
}

/// Sorting when asked keeps recording cheap; what was merged is sorted already and this is one pass over it.
fn sorted(nanos: &[u64]) -> Cow<'_, [u64]> {
    let mut sorted = Cow::from(nanos);
    if !sorted.is_sorted() {
        sorted.to_mut().sort_unstable();
    }
    sorted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Span, Times};

    fn times(limit: usize, nanos: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::with_exact_limit(limit);
        nanos.into_iter().for_each(|n| times.record(Duration::from_nanos(n)));
        times
    }

    #[test]
    fn nearest_rank_on_the_textbook_case() {
        let five = times(10, [15, 50, 40, 20, 35]);
        let at = |q| five.quantile(q).map(|span| span.high);
        assert_eq!([0.05, 0.3, 0.4, 0.5, 1.0].map(at), [15, 20, 20, 35, 50].map(Some));
        assert_eq!(times(10, []).quantile(0.5), None);
    }

    #[test]
    fn beyond_the_limit_quantiles_stay_within_a_thousandth() {
        let values = || (1..=50_000_u64).map(|n| n * 7_919 % 50_021 * 1_000 + 1);
        let (exact, coarse) = (times(usize::MAX, values()), times(100, values()));
        assert!(coarse.exact_nanos().is_none() && coarse.len() == 50_000);
        for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
            let truth = exact.quantile(q).unwrap().low;
            let Span { low, high } = coarse.quantile(q).unwrap();
            assert!(low <= truth && truth <= high, "{q}: {truth} outside {low}..{high}");
            assert!((high - low) as f64 <= 0.001 * truth as f64, "{q}: {low}..{high}");
        }
        assert_eq!(exact.total_nanos(), coarse.total_nanos());
    }

    #[test]
    fn merging_is_the_same_as_recording_together() {
        let (a, b) = (times(10, [5, 1, 9]), times(10, [4, 2]));
        let merged = Times::merged([&a, &b]);
        assert_eq!(merged.exact_nanos(), Some(&[1, 2, 4, 5, 9][..]));
        assert_eq!((merged.len(), merged.total_nanos(), merged.longest()), (5, 21, Duration::from_nanos(9)));
        let coarse = Times::merged([&a, &times(2, [100_000, 200_000, 300_000])]);
        assert_eq!(coarse.len(), 6);
        assert!(coarse.exact_nanos().is_none());
        assert_eq!(coarse.quantile(1.0).unwrap().high, 300_000);
    }
}
