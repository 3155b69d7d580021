//! Asking at intervals, and what follows from the answers about a degraded mode.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_props::Outcome;
use harness_props::model::conform;
use harness_props::model::mode::{Mode, Seen};
use tokio::task::JoinHandle;

use crate::wait::Pace;

/// Asks something at intervals until it is stopped, and keeps every answer with the time at which it was asked for.
#[must_use = "the asking ends when this is dropped"]
pub struct Polling<T> {
    answers: Arc<Mutex<Vec<(Duration, T)>>>,
    pace: Pace,
    task: JoinHandle<()>,
}

impl<T: Send + 'static> Polling<T> {
    /// Asks each `every`, one question at a time.
    pub fn start<R>(every: Duration, ask: impl Fn() -> R + Send + 'static) -> Self
    where
        R: Future<Output = T> + Send + 'static,
    {
        let (answers, pace) = (Arc::<Mutex<Vec<(Duration, T)>>>::default(), Pace::real());
        let (kept, clock) = (Arc::clone(&answers), pace.clone());
        let task = tokio::spawn(async move {
            loop {
                let at = clock.now();
                let answer = ask().await;
                kept.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
                clock.wait_until(at + every).await;
            }
        });
        Self { answers, pace, task }
    }

    /// The time of the answers.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.pace.now()
    }

    /// Asks no more; all answers in order.
    pub async fn stop(self) -> Vec<(Duration, T)> {
        self.task.abort();
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Drop for Polling<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> fmt::Debug for Polling<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Polling({} answers)", self.answers.lock().unwrap_or_else(PoisonError::into_inner).len())
    }
}

/// What a system said of its mode and of the signal it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeSeen {
    /// The signal: the length of a queue, errors of a hundred.
    pub signal: u64,
    /// Whether it is degraded.
    pub is_degraded: bool,
    /// The cause it records for the last change.
    pub cause: String,
}

/// Whether the mode was entered and left as it must be, by the answers of a [`Polling`]: changes are seen at most one interval late,
/// which the mode's slack has to allow.
#[must_use]
pub fn mode_followed(mode: &Mode, seen: &[(Duration, ModeSeen)]) -> Outcome {
    let mut trace = Vec::new();
    let mut was_degraded = false;
    for (at, now) in seen {
        trace.push((*at, Seen::Signal(now.signal)));
        if now.is_degraded != was_degraded {
            let change = if now.is_degraded { Seen::entered(&*now.cause) } else { Seen::left(&*now.cause) };
            trace.push((*at, change));
            was_degraded = now.is_degraded;
        }
    }
    conform(mode, trace).outcome()
}
