//! Work for the end of a scope: last registered first, each bounded, failures collected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use super::{TEARDOWN_LIMIT, locked};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{aside, seconds, within};

type Work = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = CoreResult> + Send>> + Send>;

/// One piece of work.
pub(super) struct Step {
    label: String,
    limit: Duration,
    work: Work,
}

impl Step {
    pub(super) fn new<F, Fut>(label: String, work: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = CoreResult> + Send + 'static,
    {
        Self { label, limit: TEARDOWN_LIMIT, work: Box::new(|| Box::pin(work())) }
    }

    #[cfg(test)]
    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

#[derive(Default)]
pub(super) struct Teardowns(Mutex<Vec<Step>>);

impl Teardowns {
    pub(super) fn push(&self, step: Step) {
        locked(&self.0).push(step);
    }

    /// Runs all, returns what failed.
    pub(super) async fn run(&self) -> Vec<(String, Error)> {
        let mut failures = Vec::new();
        // One at a time from the list: a step may register another one.
        while let Some(step) = self.next() {
            let label = step.label.clone();
            if let Err(error) = run_one(step).await {
                failures.push((label, error));
            }
        }
        failures
    }

    fn next(&self) -> Option<Step> {
        locked(&self.0).pop()
    }

    /// The same where no runtime may be: on a thread of its own, waited for no longer than the limits allow.
    pub(super) fn run_aside(&self) -> Vec<(String, Error)> {
        let steps = std::mem::take(&mut *locked(&self.0));
        if steps.is_empty() {
            return Vec::new();
        }
        let limit = steps.iter().map(|step| step.limit).sum::<Duration>() + Duration::from_secs(1);
        let labels = steps.iter().map(|step| step.label.as_str()).collect::<Vec<_>>().join(", ");
        let steps = Self(Mutex::new(steps));
        let spawned = aside("harness-teardown", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(steps.run()))
        });
        let outcome = spawned.map_err(Error::from).and_then(|ending| {
            let late = |_| Error::new(ErrorKind::Timeout, format!("not done after {}", seconds(limit)));
            ending.within(limit).map_err(late)?.map_err(Error::from)
        });
        outcome.unwrap_or_else(|error| vec![(labels, error)])
    }
}

/// A panic in a step is that step's failure, not the end of the others.
async fn run_one(step: Step) -> CoreResult {
    let (label, work) = (step.label, step.work);
    let task = tokio::spawn(async move { work().await });
    let abort = task.abort_handle();
    match within(format!("teardown `{label}`"), step.limit, task).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            Err(Error::new(ErrorKind::Assertion, format!("teardown `{label}` panicked")).caused_by(panic))
        }
        Err(late) => {
            abort.abort();
            Err(late)
        }
    }
}

/// All failures as one error: of the kind of the first, naming each.
pub(super) fn as_one(scope: &str, failures: Vec<(String, Error)>) -> CoreResult {
    let Some((_, first)) = failures.first() else { return Ok(()) };
    let what = format!("{} of the teardowns of `{scope}` failed", failures.len());
    let error = Error::new(first.kind(), what);
    Err(failures.into_iter().fold(error, |error, (label, failure)| {
        let mut lines = format!("{failure:?}").lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let first = lines.remove(0);
        error.tried(format!("{label}: {first}")).log(lines)
    }))
}
