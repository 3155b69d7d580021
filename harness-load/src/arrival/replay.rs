//! Arrivals that were seen elsewhere, once more.

use std::sync::Arc;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};

/// A recorded trace of arrivals, counted from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    due: Arc<[Duration]>,
    length: Duration,
}

impl Trace {
    /// A trace from due times, in any order; it is as long as the last of them and a nanosecond.
    ///
    /// # Errors
    /// `Config` for no times at all.
    pub fn new(due: impl IntoIterator<Item = Duration>) -> CoreResult<Self> {
        let mut due: Vec<_> = due.into_iter().collect();
        due.sort_unstable();
        let Some(last) = due.last() else {
            return Err(Error::new(ErrorKind::Config, "a trace without arrivals does nothing")
                .remedy("give it the times at which requests arrived, counted from the first"));
        };
        let length = last.saturating_add(Duration::from_nanos(1));
        Ok(Self { due: due.into(), length })
    }

    /// The same trace, `factor` times as fast: 2.0 doubles the rate.
    ///
    /// # Errors
    /// `Config` for a factor that is not a number above zero.
    pub fn faster(&self, factor: f64) -> CoreResult<Self> {
        if !(factor.is_finite() && factor > 0.0) {
            return Err(Error::new(ErrorKind::Config, format!("a trace cannot run {factor} times as fast"))
                .remedy("give a factor above 0, such as 2.0"));
        }
        Self::new(self.due.iter().map(|at| Duration::from_nanos((at.as_nanos() as f64 / factor) as u64)))
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// How many arrivals it holds.
    #[must_use]
    pub fn arrivals(&self) -> usize {
        self.due.len()
    }

    /// The due times in order.
    pub fn due_times(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let due = self.due.clone();
        (0..due.len()).map(move |n| due[n])
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;

    use super::Trace;
    use crate::units::millis;

    #[test]
    fn replays_in_order_and_faster() {
        let trace = Trace::new([millis(30), millis(0), millis(10), millis(10)]).unwrap();
        assert!(trace.due_times().eq([0, 10, 10, 30].map(millis)));
        assert!(trace.faster(2.0).unwrap().due_times().eq([0, 5, 5, 15].map(millis)));
        assert!(trace.length() > millis(30), "its last arrival lies within it");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Trace::new([]).unwrap_err().kind(), ErrorKind::Config);
        let trace = Trace::new([millis(1)]).unwrap();
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(trace.faster(factor).unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
