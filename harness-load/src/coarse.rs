//! A small histogram for plots and windows: within 1 % of a value, in 13 KB, and cheap to record.

/// Values below this have a bucket each; above it every doubling has half as many buckets.
const EXACT: u64 = 256;
const HALF: usize = 128;
/// Doublings up to an hour in microseconds.
const DOUBLINGS: usize = 24;

/// Counts of values. Microseconds from 0 to an hour; longer ones count as the longest.
#[derive(Debug, Clone)]
pub(crate) struct Coarse {
    counts: Vec<u32>,
    count: u64,
}

impl Default for Coarse {
    fn default() -> Self {
        Self { counts: vec![0; EXACT as usize + DOUBLINGS * HALF], count: 0 }
    }
}

impl Coarse {
    pub(crate) fn record(&mut self, value: u64) {
        let last = self.counts.len() - 1;
        let count = &mut self.counts[index(value).min(last)];
        *count = count.saturating_add(1);
        self.count += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_add(*theirs);
        }
        self.count += other.count;
    }

    /// Takes away what was added before.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours = ours.saturating_sub(*theirs);
        }
        self.count = self.count.saturating_sub(other.count);
    }

    /// The largest value of the bucket of this quantile, by nearest rank; 0 without values.
    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let rank = ((q * self.count as f64 - 1e-9).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            seen += u64::from(*count);
            if seen >= rank {
                return highest(index);
            }
        }
        0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.count
    }
}

fn index(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    // 256..512 is the first doubling, in steps of 2.
    let doubling = (63 - value.leading_zeros()) as usize - 8;
    EXACT as usize + doubling * HALF + (value >> (doubling + 1)) as usize - HALF
}

fn highest(index: usize) -> u64 {
    match index.checked_sub(EXACT as usize) {
        None => index as u64,
        Some(above) => {
            let (doubling, step) = (above / HALF, (above % HALF + HALF) as u64);
            ((step + 1) << (doubling + 1)) - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Coarse, highest, index};

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        for value in (0..100_000).chain([3_600_000_000 - 1, 3_600_000_000]) {
            let high = highest(index(value));
            assert!(high >= value && high - value <= value / 100, "{value} counts as {high}");
            assert_eq!(index(high) + 1, index(high + 1), "after {high}");
        }
        assert!(index(3_600_000_000) < Coarse::default().counts.len());
    }

    #[test]
    fn quantiles_and_what_is_taken_away() {
        let (mut all, mut part) = (Coarse::default(), Coarse::default());
        (1..=100).for_each(|value| all.record(value));
        assert_eq!([0.5, 0.95, 1.0].map(|q| all.quantile(q)), [50, 95, 100]);
        (51..=100).for_each(|value| part.record(value));
        all.subtract(&part);
        assert_eq!((all.quantile(1.0), all.len()), (50, 50));
        all.add(&part);
        assert_eq!((all.quantile(1.0), Coarse::default().quantile(0.5)), (100, 0));
        all.record(u64::MAX);
        assert!(all.quantile(1.0) >= 3_600_000_000);
    }
}
