//! What a round trip found, step by step.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};

/// One migration of a round trip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Its number; 0 for a runner of the user's own.
    pub version: i64,
    /// What its name says.
    pub description: String,
    /// Whether the way back leads to the schema before, and the way forward again to the schema after.
    pub schema: Outcome,
    /// Whether rows that were there are still there.
    pub data: Outcome,
    /// Whether the old application's queries still run.
    pub compatible: Outcome,
}

/// What a round trip found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoundTripReport {
    /// A report per migration.
    pub steps: Vec<StepReport>,
    /// Whether running everything once more did nothing.
    pub rerun: Outcome,
}

impl RoundTripReport {
    /// The worst of all; without any migration there is no evidence.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.worst(|_| true)
    }

    /// The worst of everything but the data: for migrations whose tables cannot be filled in a test.
    #[must_use]
    pub fn without_data(&self) -> Outcome {
        self.worst(|part| part != "data")
    }

    fn worst(&self, counts: impl Fn(&str) -> bool) -> Outcome {
        if self.steps.is_empty() {
            return Outcome::no_evidence("no migration was there to be applied");
        }
        let named = |label: String, outcome: &Outcome| match outcome {
            Outcome::Fail { witness } => Outcome::fail(format!("{label}: {witness}")),
            Outcome::NoEvidence { why } => Outcome::no_evidence(format!("{label}: {why}")),
            other => other.clone(),
        };
        let parts = self.steps.iter().flat_map(|step| {
            let parts = [("schema", &step.schema), ("data", &step.data), ("old application", &step.compatible)];
            parts.map(|(part, outcome)| (part, named(format!("migration {}, {part}", step.label()), outcome)))
        });
        let all = parts.chain([("rerun", named("second run".to_owned(), &self.rerun))]);
        Outcome::worst(all.filter(|(part, _)| counts(part)).map(|(_, outcome)| outcome))
    }

    /// Holds when nothing failed and nothing went unproven.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the table of all steps and what differs; [`ErrorKind::NoEvidence`] when something could
    /// not be judged, such as data in tables that held no rows.
    pub fn check(&self) -> CoreResult<&Self> {
        self.judge(&self.outcome())
    }

    /// [`RoundTripReport::check`] without a word about data.
    ///
    /// # Errors
    /// As [`RoundTripReport::check`].
    pub fn check_without_data(&self) -> CoreResult<&Self> {
        self.judge(&self.without_data())
    }

    fn judge(&self, outcome: &Outcome) -> CoreResult<&Self> {
        let kind = match outcome {
            Outcome::Fail { .. } => ErrorKind::Assertion,
            Outcome::NoEvidence { .. } => ErrorKind::NoEvidence,
            _ => return Ok(self),
        };
        Err(Error::new(kind, outcome.detail()).log(self.to_string().lines()))
    }

    /// The steps without a way back.
    pub fn one_way(&self) -> impl Iterator<Item = &StepReport> {
        self.steps.iter().filter(|step| matches!(step.schema, Outcome::NotApplicable { .. }))
    }
}

impl StepReport {
    /// `3 (orders)`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.description.is_empty() {
            true => self.version.to_string(),
            false => format!("{} ({})", self.version, self.description),
        }
    }
}

impl fmt::Display for RoundTripReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let words = [step.schema.word(), step.data.word(), step.compatible.word()];
            writeln!(f, "{}: schema {}, data {}, old application {}", step.label(), words[0], words[1], words[2])?;
        }
        write!(f, "second run: {}", self.rerun.word())
    }
}
