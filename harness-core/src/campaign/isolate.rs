//! Runs one piece of somebody else's code so that nothing it does can stop the campaign.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::panic_words;

/// A future that stays on its thread.
pub(super) type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// How it ended.
#[derive(Debug)]
pub(super) enum End<T> {
    /// By itself.
    Done(T),
    /// With a panic, and its message.
    Panicked(String),
    /// Cut at its limit.
    Cut,
    /// Cut at its limit while it blocked its thread, which had to be left behind.
    Stuck,
}

/// How long cancelled code may take to unwind before its thread is given up.
const GRACE: Duration = Duration::from_secs(1);

/// Runs `body` on a thread of its own, named `name`, for at most `limit`; calls `tick` about once a second meanwhile, and
/// `at_limit` before a body that is cut is dropped.
///
/// The thread makes three things possible: futures need not be `Send`, a body that blocks cannot stall the campaign,
/// and whatever is remembered per thread about a test belongs to this body alone.
pub(super) async fn isolated<T: Send + 'static>(
    name: &str,
    limit: Duration,
    mut tick: impl FnMut(),
    at_limit: impl FnOnce() + Send + 'static,
    body: impl FnOnce() -> LocalFuture<'static, T> + Send + 'static,
) -> End<T> {
    let (done, mut result) = oneshot::channel();
    let handle = Handle::current();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let run = AssertUnwindSafe(|| {
            handle.block_on(async {
                let mut body = std::pin::pin!(AssertUnwindSafe(async { body().await }).catch_unwind());
                let ended = tokio::time::timeout(limit, body.as_mut()).await;
                if ended.is_err() {
                    at_limit();
                }
                ended
            })
        });
        let end = match std::panic::catch_unwind(run) {
            Ok(Ok(Ok(value))) => End::Done(value),
            Ok(Err(_)) => End::Cut,
            Ok(Ok(Err(panic))) | Err(panic) => End::Panicked(panic_words(&*panic).to_owned()),
        };
        // The receiver is gone when the thread had been given up.
        drop(done.send(end));
    });
    if let Err(error) = thread {
        return End::Panicked(format!("no thread could be started: {error}"));
    }
    let deadline = Instant::now() + limit + GRACE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.min(Duration::from_secs(1)), &mut result).await {
            Ok(Ok(end)) => return end,
            Ok(Err(_)) => return End::Panicked("its thread ended without a result".to_owned()),
            Err(_) if left.is_zero() => return End::Stuck,
            Err(_) => tick(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{End, isolated};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn survives_panics_hangs_and_blocked_threads() {
        let (short, begun) = (Duration::from_millis(100), Instant::now());
        let done = isolated(
            "done",
            short,
            || {},
            || {},
            || Box::pin(async { std::thread::current().name().map(str::to_owned) }),
        );
        assert!(matches!(done.await, End::Done(Some(name)) if name == "done"));
        let panicked = isolated::<()>("panic", short, || {}, || {}, || Box::pin(async { panic!("no {}", 42) }));
        assert!(matches!(panicked.await, End::Panicked(text) if text == "no 42"));
        let cut = isolated::<()>("cut", short, || {}, || {}, || Box::pin(std::future::pending()));
        assert!(matches!(cut.await, End::Cut));
        let stuck = isolated::<()>(
            "stuck",
            short,
            || {},
            || {},
            || {
                Box::pin(async {
                    // Never unparked: stands for a read from a terminal.
                    loop {
                        std::thread::park();
                    }
                })
            },
        );
        assert!(matches!(stuck.await, End::Stuck));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
