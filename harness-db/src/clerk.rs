//! One background thread per process, with a small runtime of its own.
//!
//! A `#[tokio::test]` has a runtime that ends with the test: a connection opened there dies with it. What has to outlive
//! a test (the session that creates and drops databases, samplers that must not be starved by the test's own work) runs
//! here. The thread is never joined: what it did not finish at process end is the keeper's to end.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

type Work = Pin<Box<dyn Future<Output = ()>>>;
/// Makes its future on the background thread, so that the future need not be `Send`.
type Job = Box<dyn FnOnce() -> Work + Send>;

/// Where jobs go; the thread is started by the first one.
fn jobs() -> CoreResult<&'static UnboundedSender<Job>> {
    static JOBS: OnceLock<Option<UnboundedSender<Job>>> = OnceLock::new();
    JOBS.get_or_init(start).as_ref().ok_or_else(|| {
        Error::new(ErrorKind::Environment, "the background thread for databases could not be started")
            .remedy("raise the limit of threads (ulimit -u)")
    })
}

fn start() -> Option<UnboundedSender<Job>> {
    let (send, receive) = unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let body = move || LocalSet::new().block_on(&runtime, serve(receive));
    std::thread::Builder::new().name("harness-db".to_owned()).spawn(body).ok()?;
    Some(send)
}

async fn serve(mut jobs: UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        spawn_local(job());
    }
}

fn submit<F: Future<Output = ()> + 'static>(job: impl FnOnce() -> F + Send + 'static) -> CoreResult {
    jobs()?.send(Box::new(move || Box::pin(job()))).map_err(|_| died())
}

/// Runs a future on the background thread and awaits its result from any runtime.
///
/// When the caller gives up (its test timed out), the future still runs to its end, so that nothing is left half done.
pub(crate) async fn run<T, F>(work: impl FnOnce() -> F + Send + 'static) -> CoreResult<T>
where
    T: Send + 'static,
    F: Future<Output = CoreResult<T>> + 'static,
{
    let (send, receive) = oneshot::channel();
    submit(move || async move {
        let _ = send.send(work().await);
    })?;
    receive.await.map_err(|_| died())?
}

/// Runs a future on the background thread and blocks the caller for at most `limit`. For `Drop`: needs no runtime.
pub(crate) fn run_blocking<T, F>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> F + Send + 'static,
) -> CoreResult<T>
where
    T: Send + 'static,
    F: Future<Output = CoreResult<T>> + 'static,
{
    let (send, receive) = sync_channel(1);
    submit(move || async move {
        let _ = send.send(work().await);
    })?;
    receive.recv_timeout(limit).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => {
            Err(Error::new(ErrorKind::Timeout, format!("{what} took longer than {}", seconds(limit))))
        }
        RecvTimeoutError::Disconnected => Err(died()),
    })
}

/// Starts a future on the background thread and forgets it; without a thread nothing happens.
#[cfg(any(feature = "redis", feature = "checks"))]
pub(crate) fn spawn<F: Future<Output = ()> + 'static>(work: impl FnOnce() -> F + Send + 'static) {
    let _ = submit(work);
}

fn died() -> Error {
    Error::new(ErrorKind::Exited, "work on the background thread for databases ended early")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::{Error, ErrorKind};

    #[test]
    fn works_without_a_runtime_and_keeps_its_limit() {
        let answer = super::run_blocking("a sum", Duration::from_secs(5), || async { Ok(1 + 1) });
        assert_eq!(answer.unwrap(), 2);
        let never = std::future::pending::<Result<(), Error>>;
        let error = super::run_blocking("silence", Duration::from_millis(20), never).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let error = super::run::<(), _>(|| async { panic!("planted") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exited);
        let limit = Duration::from_secs(5);
        let error = super::run_blocking::<(), _>("a panic", limit, || async { panic!("planted") }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exited);
    }
}
