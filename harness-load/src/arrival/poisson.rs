//! Arrivals of many independent users.

use std::time::Duration;

use harness_core::error::CoreResult;
use harness_core::run::SeedStream;

use crate::units::Rate;

/// A Poisson process: gaps are exponential with mean 1 / rate, drawn from the seed.
#[derive(Debug, Clone)]
pub struct Poisson {
    at_nanos: f64,
    mean_nanos: f64,
    length: Duration,
    stream: SeedStream,
}

impl Poisson {
    /// Arrivals at a mean rate for a length of time.
    ///
    /// # Errors
    /// `Config` for a rate that is zero, negative, not a number or beyond a million per second.
    pub fn new(rate: Rate, length: Duration, stream: SeedStream) -> CoreResult<Self> {
        Ok(Self { at_nanos: 0.0, mean_nanos: 1e15 / rate.millionths()? as f64, length, stream })
    }
}

impl Iterator for Poisson {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        self.at_nanos -= (1.0 - self.stream.unit()).ln() * self.mean_nanos;
        let at = Duration::from_nanos(self.at_nanos as u64);
        (at < self.length).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use harness_core::run::Seed;

    use super::Poisson;
    use crate::units::{per_second, secs};

    fn draw(seed: u64) -> Vec<f64> {
        let arrivals = Poisson::new(per_second(1_000), secs(20), Seed::new(seed).stream("a")).unwrap();
        arrivals.map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn repeats_by_seed_and_rises() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).is_sorted());
    }

    #[test]
    fn gaps_are_exponential() {
        let times = draw(7);
        // 20,000 expected, standard deviation sqrt(20,000) = 141.
        assert!((times.len() as f64 - 20_000.0).abs() < 5.0 * 141.0, "{}", times.len());
        let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        // Kolmogorov-Smirnov against 1 - exp(-rate x); 1.63 / sqrt(n) is the 1 % critical value.
        let distance = gaps.iter().enumerate().map(|(i, gap)| {
            let expected = 1.0 - (-1_000.0 * gap).exp();
            (expected - i as f64 / n).abs().max((expected - (i as f64 + 1.0) / n).abs())
        });
        let distance = distance.fold(0.0, f64::max);
        assert!(distance < 1.63 / n.sqrt(), "KS distance {distance}");
    }
}
