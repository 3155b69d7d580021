//! What an iteration runs: the user's closure, its errors and its steps.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use harness_core::error::{Error, ErrorKind, Failure};
use harness_core::run::{Seed, SeedStream};
use tokio::time::Instant;

use super::board::Lent;
use crate::target;

/// One iteration, as its flow sees it.
#[derive(Debug, Clone)]
pub struct Iteration {
    pub(crate) n: u64,
    /// Nanoseconds since the start.
    pub(crate) due: u64,
    pub(crate) flow: u32,
    pub(crate) measured: bool,
    pub(crate) seed: Seed,
    pub(crate) board: Lent,
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
        Duration::from_nanos(self.due)
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
        if self.measured
            && let Some(notes) = self.board.notes()
        {
            notes.step(self.flow as usize, name, begun.elapsed());
        }
        result
    }

    /// Counts what this iteration used of something (`tokens`, `bytes`, `queries`) against what the dearer way would have
    /// used, by class; a fallback to the dearer way used as much. Of measured phases only. [`reduction`](crate::reduction)
    /// is the gate, [`LoadRun::reduction`](crate::LoadRun::reduction) the sums.
    pub fn used(&self, what: &'static str, class: &str, used: u64, baseline: u64) {
        if self.measured
            && let Some(notes) = self.board.notes()
        {
            notes.used(what, class, used, baseline);
        }
    }

    /// Pauses as a person would between two steps. The pause belongs to the flow, not to the system: it counts neither
    /// into the response nor into the service time.
    pub async fn think(&self, pause: Duration) {
        let begun = Instant::now();
        harness_core::wait::pause(pause).await;
        self.board.thought(begun.elapsed());
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

/// Runs iterations of one flow, one after the other, in the same memory.
pub(crate) trait Runner: Send {
    /// Takes an iteration up and polls it for the first time.
    fn start(&mut self, iteration: Iteration, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn AnyError>>>;
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn AnyError>>>;
    /// Drops whatever is under way.
    fn clear(&mut self);
}

struct Typed<F, Fut> {
    body: Arc<F>,
    future: Pin<Box<Option<Fut>>>,
}

impl<F, Fut, E> Runner for Typed<F, Fut>
where
    F: Fn(Iteration) -> Fut + Send + Sync,
    Fut: Future<Output = Result<(), E>> + Send,
    E: fmt::Display + Send + 'static,
{
    fn start(&mut self, iteration: Iteration, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn AnyError>>> {
        let future = (self.body)(iteration);
        self.future.as_mut().set(Some(future));
        self.poll(cx)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn AnyError>>> {
        let Some(future) = self.future.as_mut().as_pin_mut() else { return Poll::Ready(Ok(())) };
        let polled = future.poll(cx);
        if polled.is_ready() {
            self.future.as_mut().set(None);
        }
        polled.map_err(|error| Box::new(error) as Box<dyn AnyError>)
    }

    fn clear(&mut self) {
        self.future.as_mut().set(None);
    }
}

/// A weighted user path.
#[derive(Clone)]
pub(crate) struct Flow {
    pub(crate) name: String,
    pub(crate) weight: u32,
    runner: Arc<dyn Fn() -> Box<dyn Runner> + Send + Sync>,
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
        let runner = move || -> Box<dyn Runner> { Box::new(Typed { body: body.clone(), future: Box::pin(None) }) };
        Self { name, weight, runner: Arc::new(runner) }
    }

    /// A place for one iteration at a time.
    pub(crate) fn runner(&self) -> Box<dyn Runner> {
        (self.runner)()
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
        self.0.iter().find_map(|classify| classify(error)).unwrap_or_else(|| known_kind(error))
    }
}

fn known_kind(error: &dyn Any) -> Cow<'static, str> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.harness().map_or("error", |error| harness_kind(error.kind())).into();
    }
    if let Some(error) = error.downcast_ref::<Error>() {
        return harness_kind(error.kind()).into();
    }
    if let Some(kind) = target::known_kind(error) {
        return kind;
    }
    error.downcast_ref::<std::io::Error>().map_or("error", io_kind).into()
}

/// What kind of an error of the operating system this is.
pub(crate) fn io_kind(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Io;
    /// `EMFILE` and `ENFILE` of Linux and macOS (errno(3)), which have no kind of their own.
    const OUT_OF_DESCRIPTORS: [Option<i32>; 2] = [Some(24), Some(23)];
    match error.kind() {
        Io::ConnectionRefused | Io::ConnectionReset => "connect",
        Io::TimedOut => "timed out",
        Io::UnexpectedEof | Io::BrokenPipe | Io::ConnectionAborted => "closed",
        Io::AddrNotAvailable => "out of ports",
        _ if OUT_OF_DESCRIPTORS.contains(&error.raw_os_error()) => "out of descriptors",
        _ => "io",
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
        assert_eq!(names.kind(&std::io::Error::from_raw_os_error(24)), "out of descriptors");
        assert_eq!(names.kind(&std::io::Error::from(std::io::ErrorKind::AddrNotAvailable)), "out of ports");
    }
}
