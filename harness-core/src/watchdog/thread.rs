//! The guard around a runtime: it sees also what blocks its thread.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::Parties;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::test_name;
use crate::wait::seconds;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a test body on a thread and a runtime of its own, for at most `limit`, and no longer than `quiet` without an advance.
///
/// For plain `#[test]` functions. A panic of the body goes on in the caller.
///
/// # Errors
/// [`ErrorKind::Timeout`] with the state of everybody; the thread of the body is then left behind. [`ErrorKind::Io`] when no thread or
/// runtime can be had.
pub fn guarded<T, F>(
    limit: Duration,
    quiet: Duration,
    body: impl FnOnce(Parties) -> F + Send + 'static,
) -> CoreResult<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let parties = Parties::new();
    let (done, ended) = channel();
    let theirs = parties.clone();
    // Named like the test, so that what is named after the running test stays so.
    let thread = std::thread::Builder::new().name(test_name()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = runtime.map(|runtime| {
            theirs.begin();
            runtime.block_on(body(theirs))
        });
        // The receiver is gone when this thread was given up.
        drop(done.send(result));
    })?;
    let begun = Instant::now();
    let (mut seen, mut since) = (parties.advances(), begun);
    loop {
        match ended.recv_timeout(LOOK) {
            Ok(result) => return result.map_err(Error::from),
            Err(RecvTimeoutError::Disconnected) => {
                return match thread.join() {
                    Err(panic) => resume_unwind(panic),
                    Ok(()) => Err(Error::new(ErrorKind::Exited, "the thread of the test ended without a result")),
                };
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = parties.advances();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        // A thread that has not begun yet is not stuck: the machine is busy.
        if now > 0 && since.elapsed() >= quiet {
            return Err(parties.hang(quiet));
        }
        if begun.elapsed() >= limit {
            let what = format!("the test takes longer than {}, though it advances", seconds(limit));
            return Err(parties.dump().into_iter().fold(Error::new(ErrorKind::Timeout, what), Error::tried));
        }
    }
}
