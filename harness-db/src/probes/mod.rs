//! Pre-flight probes: questions to a server before the first test, each answered by an [`Outcome`] that says what was found,
//! what is needed, and what to do.
//!
//! Each probe is two functions: one that asks (with a time limit, over a URL), and one that judges what came back. The
//! judges are pure, so that a fake answer shows each of them red.

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;

use std::future::Future;
use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, Outcome};

/// How long one probe may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// A failure that says all three: what was found, what is needed, what to do.
pub(crate) fn wrong(found: impl AsRef<str>, needed: impl AsRef<str>, remedy: impl AsRef<str>) -> Outcome {
    Outcome::fail(text(found, needed, remedy))
}

pub(crate) fn text(found: impl AsRef<str>, needed: impl AsRef<str>, remedy: impl AsRef<str>) -> String {
    format!("found {}; needed {}; remedy: {}", found.as_ref(), needed.as_ref(), remedy.as_ref())
}

/// Asks within the limit. A server that cannot be asked is a failure of the probe, with the error as its witness: the
/// requirement is that the server answers.
pub(crate) async fn asked<T>(
    what: &str,
    limit: Duration,
    question: impl Future<Output = CoreResult<T>>,
    judge: impl FnOnce(T) -> Outcome,
) -> Outcome {
    match within(what, limit, question).await.and_then(|answer| answer) {
        Ok(answer) => judge(answer),
        Err(error) => Outcome::fail(one_line(&error)),
    }
}

fn one_line(error: &Error) -> String {
    let text = format!("{error:?}");
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
