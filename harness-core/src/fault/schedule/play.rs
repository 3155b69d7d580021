//! A schedule that happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use harness_props::Outcome;
use tokio::time::Instant;

use super::{Schedule, Step, Targets};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::fault::{Bites, Fault, Injected, inject};
use crate::wait::{pause, seconds};

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlayedStep {
    /// The step.
    pub step: Step,
    /// When its effect was proven, from the begin; none when it could not be injected.
    pub injected: Option<Duration>,
    /// When its healing was proven, from the begin; none when it was not.
    pub healed: Option<Duration>,
    /// How often it bit.
    pub bites: Bites,
    /// What went wrong: a target that is gone, say.
    pub error: Option<String>,
}

/// What came of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    steps: Vec<PlayedStep>,
}

impl Schedule {
    /// Lets it happen. A step that fails is recorded, and the others go on; all faults are healed in the end, also when the
    /// future is dropped. Follows tokio's clock, so that a paused one makes it take no time.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] before anything is broken, when a step has no target or no such fault.
    pub async fn play(&self, targets: &Targets) -> CoreResult<Played> {
        let faults = self.steps.iter().map(|step| targets.fault(step)).collect::<CoreResult<Vec<_>>>()?;
        let begun = Instant::now();
        let one = |(step, fault): (&Step, Arc<dyn Fault>)| play_one(step.clone(), fault, begun);
        let steps = futures_util::future::join_all(self.steps.iter().zip(faults).map(one)).await;
        Ok(Played { steps })
    }
}

async fn play_one(step: Step, fault: Arc<dyn Fault>, begun: Instant) -> PlayedStep {
    let mut played = PlayedStep { step, injected: None, healed: None, bites: fault.bites(), error: None };
    pause(played.step.at.saturating_sub(begun.elapsed())).await;
    let done = async {
        let guard: Injected = inject(Arc::clone(&fault)).await?;
        played.injected = Some(begun.elapsed());
        pause(played.step.until.saturating_sub(begun.elapsed())).await;
        guard.heal().await?;
        played.healed = Some(begun.elapsed());
        CoreResult::Ok(())
    };
    let done = done.await;
    played.error = done.err().map(|error| error.to_string());
    played.bites = fault.bites();
    played
}

impl Played {
    /// Each step with what came of it, in the order of their begins.
    #[must_use]
    pub fn steps(&self) -> &[PlayedStep] {
        &self.steps
    }

    /// Whether every fault was injected, bit and was healed: a failure names what was not healed, missing evidence what never
    /// bit.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst(self.steps.iter().map(|played| match (&played.error, played.injected) {
            (Some(error), Some(_)) => Outcome::fail(format!("`{}` was not healed: {error}", played.step)),
            (Some(error), None) => Outcome::no_evidence(format!("`{}` was not injected: {error}", played.step)),
            (None, _) => played.bites.outcome(&played.step.to_string()),
        }))
    }

    /// Holds when every fault was injected, bit and was healed.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] or [`ErrorKind::Assertion`] naming the first step that did not, with the whole line to replay.
    pub fn check_did_bite(&self) -> CoreResult {
        let outcome = self.outcome();
        let kind = match &outcome {
            Outcome::Pass { .. } => return Ok(()),
            Outcome::NoEvidence { .. } => ErrorKind::NoEvidence,
            _ => ErrorKind::Assertion,
        };
        let error = Error::new(kind, outcome.detail());
        Err(self.steps.iter().fold(error, |error, played| error.tried(played.to_string())))
    }
}

impl fmt::Display for PlayedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), seconds);
        write!(f, "{}: injected {}, healed {}, {}", self.step, at(self.injected), at(self.healed), self.bites)?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}
