//! The only place that sleeps. Waiting is polling with a deadline, and the error says the last status.
//!
//! ```
//! use std::time::Duration;
//! use harness_core::wait::{Progress, wait_for};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut tries = 0;
//! let answer = wait_for("the third try", Duration::from_secs(5), async || {
//!     tries += 1;
//!     if tries == 3 { Progress::Ready(tries) } else { Progress::NotYet(format!("try {tries}")) }
//! })
//! .await
//! .unwrap();
//! assert_eq!(answer, 3);
//! # });
//! ```

mod aside;
mod pace;

use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::{CoreResult, Error, ErrorKind};

pub use aside::blocking;
pub(crate) use aside::{Aside, Missing, aside};
pub use pace::Pace;

/// The shortest pause between two polls.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause between two polls: long waits stay responsive.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What one poll of a condition found.
#[derive(Debug)]
pub enum Progress<T> {
    /// The condition holds.
    Ready(T),
    /// Not yet; the status goes into the error if time runs out.
    NotYet(String),
    /// It can never hold any more: waiting ends at once.
    Failed(Error),
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Progress<T> {
    /// An `Ok` is ready, an `Err` is a status: connection refused now may be an answer later.
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Ready(value),
            Err(error) => Self::NotYet(error.to_string()),
        }
    }
}

/// Polls until the condition is ready, has failed, or the limit is over. Pauses grow from 2 ms to 100 ms.
///
/// One poll that hangs is cut at the limit, so the whole never takes longer than `limit`.
///
/// # Errors
/// [`ErrorKind::Timeout`] with the last status, or the error the condition failed with.
pub async fn wait_for<T>(
    what: impl Into<String>,
    limit: Duration,
    mut poll: impl AsyncFnMut() -> Progress<T>,
) -> CoreResult<T> {
    let mut waiting = Waiting::new(what.into(), limit);
    loop {
        match tokio::time::timeout(waiting.left(), poll()).await {
            Ok(Progress::Ready(value)) => return Ok(value),
            Ok(Progress::Failed(error)) => return Err(error),
            Ok(Progress::NotYet(status)) => waiting.note(Some(status)),
            Err(_) => waiting.note(None),
        }
        waiting.pause().await?;
    }
}

/// What all waits have in common, whatever they wait for.
struct Waiting {
    what: String,
    limit: Duration,
    begun: tokio::time::Instant,
    status: Option<String>,
    polls: u32,
    pause: Duration,
}

impl Waiting {
    fn new(what: String, limit: Duration) -> Self {
        Self { what, limit, begun: tokio::time::Instant::now(), status: None, polls: 0, pause: FIRST_PAUSE }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    /// A poll that hangs says nothing: then the last status stays.
    fn note(&mut self, status: Option<String>) {
        self.polls += 1;
        let hung = || Some("the first poll never returned".to_owned());
        self.status = status.or_else(|| self.status.take()).or_else(hung);
    }

    async fn pause(&mut self) -> CoreResult {
        if self.begun.elapsed() + self.pause >= self.limit {
            let what = format!("waited {} for {}", seconds(self.limit), self.what);
            let status = self.status.as_deref().unwrap_or("none");
            return Err(
                Error::new(ErrorKind::Timeout, what).tried(format!("{} polls; last status: {status}", self.polls))
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// [`wait_for`] for code without a runtime.
///
/// # Errors
/// As [`wait_for`]; a poll that hangs cannot be cut here.
pub fn wait_for_blocking<T>(
    what: impl Into<String>,
    limit: Duration,
    mut poll: impl FnMut() -> Progress<T>,
) -> CoreResult<T> {
    let (what, begun, mut pause) = (what.into(), Instant::now(), FIRST_PAUSE);
    loop {
        let status = match poll() {
            Progress::Ready(value) => return Ok(value),
            Progress::Failed(error) => return Err(error),
            Progress::NotYet(status) => status,
        };
        if begun.elapsed() + pause >= limit {
            return Err(Error::new(ErrorKind::Timeout, format!("waited {} for {what}", seconds(limit)))
                .tried(format!("last status: {status}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Awaits a future for at most `limit`.
///
/// # Errors
/// [`ErrorKind::Timeout`] naming what was awaited.
pub async fn within<T>(what: impl Into<String>, limit: Duration, future: impl Future<Output = T>) -> CoreResult<T> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| Error::new(ErrorKind::Timeout, format!("{} took longer than {}", what.into(), seconds(limit))))
}

/// Lets time pass on purpose: think time, a fault's duration, a pacing step. Not for waiting on a condition.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Lets time pass until an instant; at once when it is over.
pub async fn pause_until(instant: Instant) {
    tokio::time::sleep_until(instant.into()).await;
}

/// [`pause`] for code without a runtime.
pub fn pause_blocking(duration: Duration) {
    std::thread::sleep(duration);
}

/// A duration as people write it: `350 ms`, `2.5 s`, `3 min`, `24 h`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        m if m < 1.0 => format!("{:.0} µs", m * 1e3),
        m if m < 1e3 => format!("{m:.0} ms"),
        m if m < 120e3 => {
            let text = format!("{:.1}", m / 1e3);
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        m if m < 7_200e3 => format!("{:.0} min", m / 60e3),
        m => {
            let text = format!("{:.1}", m / 3_600e3);
            format!("{} h", text.strip_suffix(".0").unwrap_or(&text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Progress, wait_for, within};
    use crate::error::{Error, ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn timeout_carries_the_last_status() {
        let error = wait_for("a bus", Duration::from_secs(1), async || Progress::<()>::NotYet("still empty".into()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = format!("{error:?}");
        assert!(text.contains("waited 1 s for a bus") && text.contains("still empty"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn poll_that_hangs_is_cut_at_the_limit() {
        let wait = wait_for("a mute", Duration::from_secs(2), async || {
            std::future::pending::<()>().await;
            Progress::Ready(())
        });
        let error = within("the whole", Duration::from_secs(3), wait).await.unwrap().unwrap_err();
        assert!(format!("{error:?}").contains("never returned"));
    }

    #[tokio::test]
    async fn failure_ends_the_wait_at_once() {
        let failed = async || Progress::<()>::Failed(Error::new(ErrorKind::Exited, "it died"));
        let error = wait_for("life", Duration::from_secs(60), failed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exited);
    }
}
