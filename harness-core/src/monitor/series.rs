//! Values over time in constant memory.

use crate::slo::{Measured, Unit};

/// Buckets a series holds; when they are full, neighbours are merged and each holds twice as much from then on.
const BUCKETS: usize = 1_024;

/// Some values that lie next to each other in time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    at_s: f64,
    count: u64,
    sum: f64,
    max: f64,
}

impl Bucket {
    fn merged(self, other: Self) -> Self {
        let (count, share) = (self.count + other.count, other.count as f64 / (self.count + other.count) as f64);
        Self {
            at_s: self.at_s + (other.at_s - self.at_s) * share,
            count,
            sum: self.sum + other.sum,
            max: self.max.max(other.max),
        }
    }
}

/// One thing measured again and again. Its size does not grow with the length of the run: it gets coarser instead, while
/// the largest value and the number of values stay exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    unit: Unit,
    buckets: Vec<Bucket>,
    per_bucket: u64,
    samples: u64,
    due: u64,
}

impl Series {
    /// An empty series.
    pub fn new(name: impl Into<String>, unit: Unit) -> Self {
        Self { name: name.into(), unit, buckets: Vec::with_capacity(BUCKETS), per_bucket: 1, samples: 0, due: 0 }
    }

    /// Adds a value at a time in seconds since the beginning. What is no number is a gap.
    pub fn push(&mut self, at_s: f64, value: f64) {
        if !(at_s.is_finite() && value.is_finite()) {
            return self.gap();
        }
        self.samples += 1;
        self.due += 1;
        let new = Bucket { at_s, count: 1, sum: value, max: value };
        if let Some(last) = self.buckets.last_mut().filter(|last| last.count < self.per_bucket) {
            *last = last.merged(new);
            return;
        }
        if self.buckets.len() == BUCKETS {
            let halved = self.buckets.chunks(2).map(|two| two.iter().copied().reduce(Bucket::merged).unwrap_or(two[0]));
            self.buckets = halved.collect();
            self.per_bucket *= 2;
        }
        self.buckets.push(new);
    }

    /// Notes that a value was due and there was none.
    pub fn gap(&mut self) {
        self.due += 1;
    }

    /// What it is called: `app rss`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is a number of.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Number of values taken.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Number of values that were due and missing.
    #[must_use]
    pub fn gaps(&self) -> u64 {
        self.due - self.samples
    }

    /// `(seconds, value)` in rising time; means of neighbours in a long run.
    #[must_use]
    pub fn points(&self) -> Vec<(f64, f64)> {
        self.buckets.iter().map(|bucket| (bucket.at_s, bucket.sum / bucket.count as f64)).collect()
    }

    /// The values from one moment (inclusive) to another (exclusive), in seconds.
    #[must_use]
    pub fn between(&self, from_s: f64, to_s: f64) -> Vec<f64> {
        self.points().into_iter().filter(|(at, _)| (from_s..to_s).contains(at)).map(|(_, value)| value).collect()
    }

    /// The largest value, to be held against a threshold. With more than one gap in ten values there is nothing to judge.
    #[must_use]
    pub fn peak(&self) -> Measured {
        self.measured(self.buckets.iter().map(|bucket| bucket.max).fold(f64::NEG_INFINITY, f64::max))
    }

    /// The mean, to be held against a threshold; as [`Series::peak`].
    #[must_use]
    pub fn mean(&self) -> Measured {
        self.measured(self.buckets.iter().map(|bucket| bucket.sum).sum::<f64>() / self.samples as f64)
    }

    /// Why nothing may be concluded from it, if that is so.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match (self.samples, self.gaps()) {
            (0, _) => Some(format!("`{}` has no values", self.name)),
            (samples, gaps) if gaps * 9 > samples => {
                Some(format!("`{}` lacks {gaps} of {} values", self.name, self.due))
            }
            _ => None,
        }
    }

    fn measured(&self, value: f64) -> Measured {
        match (self.missing(), self.unit) {
            (Some(why), _) => Measured::nothing(why),
            (None, Unit::Bytes) => Measured::Bytes { max: value as u64, samples: self.samples },
            (None, unit) => Measured::Value { value, unit, samples: self.samples },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Series};
    use crate::slo::{Measured, Threshold, Unit};

    #[test]
    fn a_long_series_is_as_large_as_a_short_one_and_keeps_its_peak() {
        let mut series = Series::new("rss", Unit::Bytes);
        for n in 0..100_000_u32 {
            let value = if n == 77_777 { 9e9 } else { 1e6 + f64::from(n) };
            series.push(f64::from(n), value);
        }
        let points = series.points();
        assert!(points.len() <= BUCKETS && points.len() > BUCKETS / 4 && series.buckets.capacity() <= 2 * BUCKETS);
        assert_eq!(series.samples(), 100_000);
        assert_eq!(series.peak(), Measured::Bytes { max: 9_000_000_000, samples: 100_000 });
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
        // Means stay means of their own stretch of time.
        assert!(points.iter().all(|(at, value)| (value - 1e6 - at).abs() < 2.0 || *value > 2e6), "{:?}", &points[..3]);
    }

    #[test]
    fn a_series_full_of_gaps_is_nothing_to_judge() {
        let limit = Threshold::parse("rss", "< 2 GB", None).unwrap();
        let mut series = Series::new("rss", Unit::Bytes);
        assert!(limit.judge(&series.peak()).is_no_evidence());
        (0..18).for_each(|n| series.push(f64::from(n), 1e6));
        series.gap();
        series.push(20.0, f64::NAN);
        assert!(limit.judge(&series.peak()).is_pass(), "two gaps in twenty");
        series.gap();
        let outcome = limit.judge(&series.peak());
        assert!(outcome.is_no_evidence() && outcome.detail().contains("`rss` lacks 3 of 21"), "{outcome}");
    }

    #[test]
    fn ceilings_are_thresholds_on_the_peak() {
        let limit = Threshold::parse("rss", "< 2 GB", Some("< 3 GB")).unwrap();
        for (peak, word) in [(1.0, "pass"), (2.0, "degraded"), (3.0, "fail")] {
            let mut series = Series::new("rss", Unit::Bytes);
            series.push(0.0, 1.0);
            series.push(1.0, peak * 1_073_741_824.0);
            series.push(2.0, 1.0);
            assert_eq!(limit.judge(&series.peak()).word(), word);
        }
    }
}
