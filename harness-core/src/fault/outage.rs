//! Faults of a whole service: stopped, killed, frozen, restarted in place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::injected::on_own_runtime;
use super::{Bites, Effect, Fault};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::Service;

/// What happens to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Stop,
    Kill,
    Freeze,
    Restart,
}

const VERBS: [(&str, Verb); 4] =
    [("stop", Verb::Stop), ("kill", Verb::Kill), ("freeze", Verb::Freeze), ("restart", Verb::Restart)];

/// A fault of a [`Service`]: a process with its whole group, or a container. One that runs elsewhere is never harmed.
///
/// Each verb proves its effect, as [`Service`] does: a stopped or killed service has ended and refuses connections, a frozen one
/// has every process stopped. When the test process dies, a service of its own ends with it, frozen or not: nothing stays broken.
#[derive(Debug)]
pub struct Outage {
    service: Service,
    verb: Verb,
    /// True from before the first attempt until it is healed.
    is_broken: AtomicBool,
    bites: AtomicU64,
}

impl Outage {
    fn of(service: &Service, verb: Verb) -> Self {
        Self { service: service.clone(), verb, is_broken: AtomicBool::new(false), bites: AtomicU64::new(0) }
    }

    /// It is asked to end (SIGTERM, or its own stop signal), and killed after its grace. Healing starts it again.
    #[must_use]
    pub fn stop(service: &Service) -> Self {
        Self::of(service, Verb::Stop)
    }

    /// It is killed with all its descendants (SIGKILL). Healing starts it again.
    #[must_use]
    pub fn kill(service: &Service) -> Self {
        Self::of(service, Verb::Kill)
    }

    /// It keeps its connections and answers nobody (SIGSTOP for all its processes, or the engine's freezer). Healing resumes it.
    #[must_use]
    pub fn freeze(service: &Service) -> Self {
        Self::of(service, Verb::Freeze)
    }

    /// It is stopped and started again at the same address, at once. Healing only starts what did not come back.
    #[must_use]
    pub fn restart(service: &Service) -> Self {
        Self::of(service, Verb::Restart)
    }

    /// The fault of this word: `stop`, `kill`, `freeze` or `restart`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another word.
    pub fn named(service: &Service, word: &str) -> CoreResult<Self> {
        let known = VERBS.iter().find(|(name, _)| *name == word);
        known.map(|(_, verb)| Self::of(service, *verb)).ok_or_else(|| {
            let words = VERBS.map(|(name, _)| name).join(", ");
            Error::new(ErrorKind::Config, format!("`{word}` is no fault of a service: those are {words}"))
        })
    }

    /// Runs a verb to its end beside the test's runtime: it takes real time, and goes on when the test's clock is paused.
    async fn run(&self, act: impl AsyncFnOnce(Service, Verb) -> CoreResult + Send + 'static) -> CoreResult {
        let (service, verb) = (self.service.clone(), self.verb);
        let done = tokio::task::spawn_blocking(move || on_own_runtime(act(service, verb))).await;
        done.map_err(|error| Error::new(ErrorKind::Io, format!("`{}` was cut short", self.name())).caused_by(error))?
    }
}

async fn break_it(service: Service, verb: Verb) -> CoreResult {
    match verb {
        Verb::Stop => service.stop().await.map(drop),
        Verb::Kill => service.kill().await.map(drop),
        Verb::Freeze => service.pause().await,
        Verb::Restart => {
            service.stop().await?;
            service.start_again().await
        }
    }
}

async fn mend(service: Service, verb: Verb) -> CoreResult {
    let runs = service.exit().await?.is_none();
    match verb {
        Verb::Freeze if runs => service.resume().await,
        // It was ended meanwhile: what is gone needs no thawing.
        Verb::Freeze => Ok(()),
        _ if runs => Ok(()),
        _ => service.start_again().await,
    }
}

impl Fault for Outage {
    fn name(&self) -> String {
        let word = VERBS.iter().find(|(_, verb)| *verb == self.verb).map_or("", |(word, _)| word);
        format!("{word} of service `{}`", self.service.name())
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(async {
            if self.is_broken.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            self.run(break_it).await?;
            self.bites.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(async {
            if !self.is_broken.load(Ordering::Acquire) {
                return Ok(());
            }
            self.run(mend).await?;
            self.is_broken.store(false, Ordering::Release);
            Ok(())
        })
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "outages proven")
    }
}
