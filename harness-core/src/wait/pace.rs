//! Time that passes really, or as a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::pause;

/// How time passes: really, or as a test says. Clones share the hands.
///
/// A day on a virtual clock takes as long as what is done in it:
///
/// ```
/// use std::time::Duration;
/// use harness_core::wait::Pace;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pace = Pace::virtual_time();
/// pace.wait_until(Duration::from_secs(24 * 60 * 60)).await;
/// assert_eq!(pace.now(), Duration::from_secs(86_400));
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Pace(Hands);

#[derive(Debug, Clone)]
enum Hands {
    Real(Instant),
    Virtual(Arc<AtomicU64>),
}

impl Pace {
    /// The time of the runtime: the system's, or tokio's where a test has paused it.
    #[must_use]
    pub fn real() -> Self {
        Self(Hands::Real(Instant::now()))
    }

    /// A clock that only waiting moves.
    #[must_use]
    pub fn virtual_time() -> Self {
        Self(Hands::Virtual(Arc::default()))
    }

    /// Since it was made; microseconds count.
    #[must_use]
    pub fn now(&self) -> Duration {
        match &self.0 {
            Hands::Real(begun) => begun.elapsed(),
            Hands::Virtual(micros) => Duration::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// Lets time pass.
    pub async fn wait(&self, time: Duration) {
        match &self.0 {
            Hands::Real(_) => pause(time).await,
            Hands::Virtual(micros) => {
                micros.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
            }
        }
    }

    /// Lets time pass until so long after it was made; at once when that is over.
    pub async fn wait_until(&self, time: Duration) {
        match &self.0 {
            Hands::Real(begun) => pause(time.saturating_sub(begun.elapsed())).await,
            Hands::Virtual(micros) => {
                micros.fetch_max(time.as_micros() as u64, Ordering::SeqCst);
            }
        }
    }
}
