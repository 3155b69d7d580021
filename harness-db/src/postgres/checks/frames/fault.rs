//! Frames lost on purpose, as a fault that is injected and healed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness_core::CoreResult;
use harness_core::fault::{Bites, Effect, Fault};
use sqlx::postgres::PgConnectOptions;

use super::{Frame, Tap, Verdict};

/// A tap that lets everything pass until its fault is injected, and then gives the chosen frames their verdict.
///
/// ```no_run
/// use harness_core::fault::inject;
/// use harness_db::frames::FrameFault;
///
/// # async fn body() -> harness_db::Result {
/// let db = harness_db::postgres().await?;
/// let lost = FrameFault::reply_lost(&db.options(), "COMMIT").await?;
/// let service = lost.tap().url(); // hand this to the system under test
/// let cut = inject(lost).await?; // from now on the server commits, and nobody hears of it
/// # drop((service, cut));
/// # Ok(()) }
/// ```
pub struct FrameFault {
    name: String,
    tap: Arc<Tap>,
    is_injected: Arc<AtomicBool>,
    bites: Arc<AtomicU64>,
}

impl FrameFault {
    /// While injected, each frame that this chooses gets its verdict; all others pass.
    ///
    /// # Errors
    /// Those of [`Tap::start`].
    pub async fn new(
        name: impl Into<String>,
        target: &PgConnectOptions,
        choose: impl Fn(&Frame) -> Option<Verdict> + Send + 'static,
    ) -> CoreResult<Self> {
        let (is_injected, bites) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (armed, bitten) = (Arc::clone(&is_injected), Arc::clone(&bites));
        let decide = move |frame: &Frame| match choose(frame).filter(|_| armed.load(Ordering::Acquire)) {
            Some(verdict) => {
                bitten.fetch_add(1, Ordering::Relaxed);
                verdict
            }
            None => Verdict::Pass,
        };
        let tap = Arc::new(Tap::start(target, decide).await?);
        Ok(Self { name: name.into(), tap, is_injected, bites })
    }

    /// While injected, the reply to this command (`COMMIT`, `INSERT 0 1`) is lost with its connection: the server has done it,
    /// and the client cannot know.
    ///
    /// # Errors
    /// Those of [`Tap::start`].
    pub async fn reply_lost(target: &PgConnectOptions, command_tag: &str) -> CoreResult<Self> {
        let tag = command_tag.to_owned();
        let name = format!("the reply to {tag} is lost");
        Self::new(name, target, move |frame| (frame.command_tag() == Some(&tag)).then_some(Verdict::Cut)).await
    }

    /// The tap: its URL is for the system under test, its record is evidence.
    #[must_use]
    pub fn tap(&self) -> Arc<Tap> {
        Arc::clone(&self.tap)
    }
}

impl Fault for FrameFault {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn inject(&self) -> Effect<'_> {
        self.is_injected.store(true, Ordering::Release);
        Box::pin(std::future::ready(Ok(())))
    }

    fn heal(&self) -> Effect<'_> {
        self.is_injected.store(false, Ordering::Release);
        Box::pin(std::future::ready(Ok(())))
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "frames taken")
    }
}

impl fmt::Debug for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameFault({}, {:?})", self.name, self.tap)
    }
}
