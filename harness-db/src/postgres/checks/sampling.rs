//! What all samplers share: a series that grows on the background thread, and a task that ends with its owner.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use tokio::task::JoinHandle;

pub(crate) use crate::postgres::visit::OWN_NAME;

/// How long one sample may take before it counts as a gap.
pub(crate) const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// A series shared between the task that fills it and the one that reads it.
pub(crate) type Shared<S> = Arc<Mutex<S>>;

/// A task that fills a series until its owner drops it.
#[derive(Debug)]
pub(crate) struct Sampling<S> {
    series: Shared<S>,
    begun: Instant,
    task: JoinHandle<()>,
}

impl<S: Clone> Sampling<S> {
    pub(crate) fn new(series: Shared<S>, begun: Instant, task: JoinHandle<()>) -> Self {
        Self { series, begun, task }
    }

    /// The series as it is, and how long it has been filled.
    pub(crate) fn so_far(&self) -> (S, Duration) {
        let series = locked(&self.series).clone();
        (series, self.begun.elapsed())
    }

    /// The series, when nothing more comes.
    pub(crate) fn stop(self) -> (S, Duration) {
        self.task.abort();
        self.so_far()
    }
}

impl<S> Drop for Sampling<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is in a mutex, also when a holder of it panicked: series only grow, so nothing in them is half done.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest time without a sample: between two of them, before the first, or since the last.
pub(crate) fn widest(at: impl IntoIterator<Item = Duration>, lasted: Duration) -> Duration {
    let mut last = Duration::ZERO;
    let mut widest = Duration::ZERO;
    for at in at.into_iter().chain([lasted]) {
        widest = widest.max(at.saturating_sub(last));
        last = at.max(last);
    }
    widest
}

/// Ok on a pass (degraded included), else the outcome as an error.
pub(crate) fn hold(outcome: Outcome) -> CoreResult {
    match outcome {
        Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)),
        Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
        Outcome::Pass { .. } | Outcome::Degraded { .. } | Outcome::NotApplicable { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::{ErrorKind, Outcome};

    use super::{hold, widest};

    #[test]
    fn time_without_samples_counts_at_both_ends() {
        let ms = Duration::from_millis;
        assert_eq!(widest([ms(0), ms(10), ms(50), ms(60)], ms(65)), ms(40));
        assert_eq!(widest([ms(0), ms(10)], ms(500)), ms(490));
        assert_eq!(widest([], ms(500)), ms(500));
    }

    #[test]
    fn failure_and_missing_evidence_are_different_errors() {
        assert!(hold(Outcome::pass("")).is_ok() && hold(Outcome::degraded("")).is_ok());
        assert_eq!(hold(Outcome::fail("x")).unwrap_err().kind(), ErrorKind::Assertion);
        assert_eq!(hold(Outcome::no_evidence("x")).unwrap_err().kind(), ErrorKind::NoEvidence);
    }
}
