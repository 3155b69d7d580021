//! Words for durations and rates, so that a plan reads like a sentence.

use std::fmt;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};

/// The highest rate a plan may ask for, per second: above it one scheduling slot is shorter than a clock read.
const HIGHEST_RATE: f64 = 1e6;

/// So many seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many milliseconds.
#[must_use]
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// So many times per second. Fractions are exact to one millionth: `per_second(0.5)` is one every two seconds.
pub fn per_second(count: impl Into<f64>) -> Rate {
    Rate(count.into())
}

/// A rate per second. Nonsense (zero, negative, not a number) is refused when a plan uses it, not here.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// The number per second.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0
    }

    /// The rate in millionths per second: integers, so that due times never drift.
    pub(crate) fn millionths(self) -> CoreResult<u64> {
        let millionths = (self.0 * 1e6).round();
        if self.0.is_finite() && self.0 <= HIGHEST_RATE && millionths >= 1.0 {
            return Ok(millionths as u64);
        }
        Err(Error::new(ErrorKind::Config, format!("a load cannot arrive at {self}"))
            .remedy(format!("give a rate above 0 and at most {HIGHEST_RATE} per second")))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// Nanoseconds as people read them: `85 µs`, `1.25 ms`, `2.50 s`.
pub(crate) fn nanos(nanos: u64) -> String {
    match nanos as f64 {
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e8 => format!("{:.2} ms", n / 1e6),
        n if n < 1e9 => format!("{:.0} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// A duration in nanoseconds, saturating after 584 years.
pub(crate) fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;

    use super::{nanos, per_second};

    #[test]
    fn rates_that_cannot_be_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-7, 2e6] {
            assert_eq!(per_second(rate).millionths().unwrap_err().kind(), ErrorKind::Config, "{rate}");
        }
        assert_eq!(per_second(200).millionths().unwrap(), 200_000_000);
        assert_eq!(per_second(0.5).millionths().unwrap(), 500_000);
    }

    #[test]
    fn nanoseconds_read_well() {
        assert_eq!(
            [85_000, 1_250_000, 250_000_000, 2_500_000_000].map(nanos),
            ["85 µs", "1.25 ms", "250 ms", "2.50 s"]
        );
    }
}
