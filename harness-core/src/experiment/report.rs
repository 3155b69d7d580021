//! What an experiment found, for people and for checks.

use std::fmt;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::history::LedgerVerdict;
use harness_props::history::outage::{OutageTimeline, OutageVerdict};

use crate::error::{CoreResult, Error, ErrorKind};
use crate::fault::Bites;
use crate::wait::seconds;

/// What became of a system that was broken and healed.
#[derive(Debug)]
#[must_use = "what was found says nothing until it is looked at"]
#[non_exhaustive]
pub struct Recovery {
    /// What was done to it.
    pub fault: String,
    /// How often that bit; `None` if it was never done, since the system was not steady before.
    pub bites: Option<Bites>,
    /// Whether calls were sent in time; if not, their latencies say nothing.
    pub sender: Outcome,
    /// What was concluded from the calls, with the figures.
    pub verdict: OutageVerdict,
    /// What became of acknowledged writes, if there is a ledger.
    pub ledger: Option<LedgerVerdict>,
    /// Everything that was seen.
    pub timeline: OutageTimeline,
}

impl Recovery {
    /// Each question with its answer, in order.
    #[must_use]
    pub fn checks(&self) -> Vec<(&'static str, Outcome)> {
        let verdict = &self.verdict;
        let ledger = match &self.ledger {
            Some(ledger) => ledger.outcome(),
            None => Outcome::not_applicable("there is no ledger"),
        };
        vec![
            ("calls were sent in time", self.sender.clone()),
            ("steady before", verdict.before.clone()),
            ("the fault bit", verdict.bit.clone()),
            ("kept its contract while broken", verdict.during.clone()),
            ("steady again in time", verdict.after.clone()),
            ("worked off what had piled up", verdict.drained.clone()),
            ("no acknowledged write is lost", ledger),
        ]
    }

    /// The worst answer.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst(self.checks().into_iter().map(|(_, outcome)| outcome))
    }

    /// Holds when every question that applies has a good answer.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when the system did something wrong, [`ErrorKind::NoEvidence`] when nothing can be concluded; both with the
    /// whole report.
    pub fn check(&self) -> CoreResult {
        let outcome = self.outcome();
        let kind = match &outcome {
            Outcome::Fail { .. } => ErrorKind::Assertion,
            Outcome::NoEvidence { .. } => ErrorKind::NoEvidence,
            _ => return Ok(()),
        };
        let error = Error::new(kind, format!("{}: {}", self.fault, outcome.detail()));
        Err(self.to_string().lines().skip(1).map(str::trim).map(str::to_owned).fold(error, Error::tried))
    }
}

impl fmt::Display for Recovery {
    /// The fault with how often it bit, the figures in one line, and a line for each question.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.verdict.figures;
        let time = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), seconds);
        match &self.bites {
            Some(bites) => writeln!(f, "{}: {bites}", self.fault)?,
            None => writeln!(f, "{}: not done", self.fault)?,
        }
        writeln!(
            f,
            "  figures    noticed {}, down {}, first success {}, steady {}; {} calls failed, {} hung, {} retries",
            time(figures.detect),
            seconds(figures.downtime),
            time(figures.first_success),
            time(figures.steady),
            figures.failed,
            figures.hung,
            figures.retries,
        )?;
        if !self.timeline.backlog.is_empty() {
            writeln!(f, "  backlog    at most {}, drained {}", figures.backlog, time(figures.drained))?;
        }
        for (question, outcome) in self.checks() {
            writeln!(f, "  {:<10} {question}: {}", outcome.word(), outcome.detail())?;
        }
        Ok(())
    }
}
