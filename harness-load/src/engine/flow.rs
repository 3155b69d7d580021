//! What an iteration runs: the user's closure, its errors and its steps.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::error::{Error, ErrorKind, Failure};
use harness_core::run::{Seed, SeedStream};
use tokio::time::Instant;

use crate::times::Times;

/// The most step names of one run; further ones are counted together as `other`.
const MOST_STEPS: usize = 64;

/// One iteration, as its flow sees it.
#[derive(Debug, Clone)]
pub struct Iteration {
    pub(crate) n: u64,
    pub(crate) due: Duration,
    pub(crate) measured: bool,
    pub(crate) flow: usize,
    pub(crate) seed: Seed,
    pub(crate) steps: StepBook,
}

impl Iteration {
    /// Position in the run, from 0, over all flows and phases.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// When it was due, counted from the start of the run.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.due
    }

    /// False during the warm-up.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// Random numbers of this iteration: the same for the same seed, whatever the others draw.
    #[must_use]
    pub fn random(&self) -> SeedStream {
        self.seed.stream(&format!("iteration/{}", self.n))
    }

    /// Runs a future and records how long it took under a name. Of measured phases only; at most 64 names.
    pub async fn step<T>(&self, name: &'static str, step: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = step.await;
        if self.measured {
            self.steps.record(self.flow, name, begun.elapsed());
        }
        result
    }
}

/// Times of steps by flow and name, shared by all iterations of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepBook(Arc<Mutex<BTreeMap<(usize, &'static str), Times>>>);

impl StepBook {
    fn record(&self, flow: usize, name: &'static str, took: Duration) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if book.len() < MOST_STEPS || book.contains_key(&(flow, name)) { name } else { "other" };
        book.entry((flow, name)).or_default().record(took);
    }

    pub(crate) fn take(&self) -> BTreeMap<(usize, &'static str), Times> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a flow may fail with: anything that can be shown.
pub(crate) trait AnyError: Any + fmt::Display + Send {}
impl<E: Any + fmt::Display + Send> AnyError for E {}

/// An iteration that has been made but not polled.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), Box<dyn AnyError>>> + Send>>;

/// Makes one type of all futures and errors.
pub(crate) fn boxed<E: fmt::Display + Send + 'static>(
    running: impl Future<Output = Result<(), E>> + Send + 'static,
) -> Running {
    Box::pin(async move { running.await.map_err(|error| Box::new(error) as Box<dyn AnyError>) })
}

/// A weighted user path.
#[derive(Clone)]
pub(crate) struct Flow {
    pub(crate) name: String,
    pub(crate) weight: u32,
    body: Arc<dyn Fn(Iteration) -> Running + Send + Sync>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flow({} × {})", self.name, self.weight)
    }
}

impl Flow {
    pub(crate) fn new<F, Fut, E>(name: String, weight: u32, body: F) -> Self
    where
        F: Fn(Iteration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let body = Arc::new(body);
        let body = move |iteration| -> Running {
            let body = body.clone();
            // The closure is called inside the future, so that a panic in it counts as one of the iteration.
            boxed(async move { body(iteration).await })
        };
        Self { name, weight, body: Arc::new(body) }
    }

    pub(crate) fn start(&self, iteration: Iteration) -> Running {
        (self.body)(iteration)
    }
}

type Classify = Arc<dyn Fn(&dyn Any) -> Option<Cow<'static, str>> + Send + Sync>;

/// Names for errors, asked in the order they were given.
#[derive(Clone, Default)]
pub(crate) struct Classifiers(Vec<Classify>);

impl fmt::Debug for Classifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Classifiers({})", self.0.len())
    }
}

impl Classifiers {
    pub(crate) fn add<E: 'static, K: Into<Cow<'static, str>>>(
        &mut self,
        name: impl Fn(&E) -> K + Send + Sync + 'static,
    ) {
        self.0.push(Arc::new(move |error| error.downcast_ref::<E>().map(|error| name(error).into())));
    }

    /// The kind of an error: the user's word for it, else what the harness knows about common errors, else `error`.
    pub(crate) fn kind(&self, error: &dyn Any) -> Cow<'static, str> {
        self.0.iter().find_map(|classify| classify(error)).unwrap_or_else(|| Cow::Borrowed(known_kind(error)))
    }
}

fn known_kind(error: &dyn Any) -> &'static str {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.harness().map_or("error", |error| harness_kind(error.kind()));
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return harness_kind(error.kind());
    }
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset) => "connect",
        Some(std::io::ErrorKind::TimedOut) => "timed out",
        Some(_) => "io",
        None => "error",
    }
}

fn harness_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Timeout => "timed out",
        ErrorKind::Connect => "connect",
        ErrorKind::Protocol => "protocol",
        ErrorKind::Assertion => "assertion",
        ErrorKind::Io => "io",
        _ => "error",
    }
}

#[cfg(test)]
mod tests {
    use harness_core::error::{Error, ErrorKind};

    use super::Classifiers;

    #[test]
    fn classifier_of_the_right_type_names_the_error() {
        let mut names = Classifiers::default();
        names.add(|status: &u16| format!("status {status}"));
        names.add(|_: &String| "text");
        assert_eq!(names.kind(&503_u16), "status 503");
        assert_eq!(names.kind(&"x".to_owned()), "text");
        assert_eq!(names.kind(&7_i8), "error");
        assert_eq!(names.kind(&Error::new(ErrorKind::Connect, "")), "connect");
        assert_eq!(names.kind(&std::io::Error::from(std::io::ErrorKind::TimedOut)), "timed out");
    }
}
