//! Evenly spaced arrivals.

use std::time::Duration;

use harness_core::error::CoreResult;

use crate::units::Rate;

/// Due times k / rate for k = 0, 1, 2, … below the length of the phase. Computed in integers from k, never summed up,
/// so that the millionth slot is as exact as the first.
#[derive(Debug, Clone)]
pub struct Constant {
    next: u64,
    millionths: u64,
    length: Duration,
}

impl Constant {
    /// Arrivals at a rate for a length of time.
    ///
    /// # Errors
    /// `Config` for a rate that is zero, negative, not a number or beyond a million per second.
    pub fn new(rate: Rate, length: Duration) -> CoreResult<Self> {
        Ok(Self { next: 0, millionths: rate.millionths()?, length })
    }
}

impl Iterator for Constant {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let nanos = u128::from(self.next) * 1_000_000_000_000_000 / u128::from(self.millionths);
        let at = Duration::from_nanos(u64::try_from(nanos).ok()?);
        (at < self.length).then(|| {
            self.next += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Constant;
    use crate::units::{millis, per_second, secs};

    #[test]
    fn slot_k_is_due_at_k_over_rate() {
        let times: Vec<_> = Constant::new(per_second(200), secs(5)).unwrap().collect();
        assert_eq!(times.len(), 1_000);
        assert!(times.iter().enumerate().all(|(k, at)| *at == millis(5) * k as u32));
    }

    #[test]
    fn rate_that_does_not_divide_a_second_never_drifts() {
        let times: Vec<_> = Constant::new(per_second(3), secs(3_000)).unwrap().collect();
        assert_eq!(times.len(), 9_000);
        assert_eq!(times[8_999], Duration::from_nanos(8_999 * 1_000_000_000 / 3));
    }

    #[test]
    fn slot_on_the_end_belongs_to_the_next_phase() {
        assert_eq!(Constant::new(per_second(10), millis(100)).unwrap().count(), 1);
        assert_eq!(Constant::new(per_second(10), millis(101)).unwrap().count(), 2);
    }
}
