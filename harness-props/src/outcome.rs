//! What a check may conclude, and how several conclusions combine.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The conclusion of one check.
///
/// Missing evidence is a conclusion of its own and never a pass: a check without samples, a fault that did not bite
/// or a probe that could not run ends as [`Outcome::NoEvidence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Held. `coverage` says on what grounds, for example `"200 requests, 50 at once"`.
    Pass {
        /// What was looked at.
        coverage: String,
    },
    /// Between target and critical: not what was wanted, but within what is tolerated.
    Degraded {
        /// By how much the target was missed.
        why: String,
    },
    /// Beyond what is tolerated.
    Fail {
        /// The counterexample.
        witness: String,
    },
    /// Could not be judged: nothing ran, nothing was sampled, the tool was the limit.
    NoEvidence {
        /// What is missing and what would supply it.
        why: String,
    },
    /// Declared irrelevant by the profile in use; listed in reports, not counted.
    NotApplicable {
        /// Why it does not apply.
        why: String,
    },
}

impl Outcome {
    /// A pass with its coverage.
    pub fn pass(coverage: impl Into<String>) -> Self {
        Self::Pass { coverage: coverage.into() }
    }

    /// A miss of the target within the critical limit.
    pub fn degraded(why: impl Into<String>) -> Self {
        Self::Degraded { why: why.into() }
    }

    /// A failure with its witness.
    pub fn fail(witness: impl Into<String>) -> Self {
        Self::Fail { witness: witness.into() }
    }

    /// No conclusion, with the reason.
    pub fn no_evidence(why: impl Into<String>) -> Self {
        Self::NoEvidence { why: why.into() }
    }

    /// Declared irrelevant, with the reason.
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable { why: why.into() }
    }

    /// True for [`Outcome::Pass`] only.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        matches!(self, Self::Pass { .. })
    }

    /// True for [`Outcome::Fail`] only.
    #[must_use]
    pub fn is_fail(&self) -> bool {
        matches!(self, Self::Fail { .. })
    }

    /// True for [`Outcome::NoEvidence`] only.
    #[must_use]
    pub fn is_no_evidence(&self) -> bool {
        matches!(self, Self::NoEvidence { .. })
    }

    /// The text that goes with the conclusion: coverage, witness or reason.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Pass { coverage } => coverage,
            Self::Fail { witness } => witness,
            Self::Degraded { why } | Self::NoEvidence { why } | Self::NotApplicable { why } => why,
        }
    }

    /// One word for tables: `pass`, `degraded`, `fail`, `no evidence`, `not applicable`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "pass",
            Self::Degraded { .. } => "degraded",
            Self::Fail { .. } => "fail",
            Self::NoEvidence { .. } => "no evidence",
            Self::NotApplicable { .. } => "not applicable",
        }
    }

    /// Severity for combining, from best to worst: not applicable, pass, degraded, no evidence, fail.
    fn rank(&self) -> u8 {
        match self {
            Self::NotApplicable { .. } => 0,
            Self::Pass { .. } => 1,
            Self::Degraded { .. } => 2,
            Self::NoEvidence { .. } => 3,
            Self::Fail { .. } => 4,
        }
    }

    /// The worse of two conclusions; of two equally bad ones the first, so that the first cause stays visible.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    /// The worst of many; without any it is [`Outcome::NoEvidence`], since nothing was checked.
    #[must_use]
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().reduce(Self::worse).unwrap_or_else(|| Self::no_evidence("nothing was checked"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.detail())
    }
}

/// A verdict about data: what it concludes, and whether data went away or was damaged. A campaign that is handed one
/// puts loss and damage on record as findings, which forbid a release whatever else is green.
pub trait DataVerdict {
    /// The conclusion.
    fn outcome(&self) -> Outcome;

    /// True when something that was acknowledged is gone, though it was promised to stay.
    fn is_data_loss(&self) -> bool {
        false
    }

    /// True when something came back other than it was written.
    fn is_corruption(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn nothing_checked_is_no_evidence() {
        assert!(Outcome::worst([]).is_no_evidence());
    }

    #[test]
    fn worst_orders_fail_above_missing_evidence_above_degraded() {
        let (pass, degraded) = (Outcome::pass("1"), Outcome::degraded("2"));
        let (missing, fail) = (Outcome::no_evidence("3"), Outcome::fail("4"));
        assert_eq!(Outcome::worst([pass.clone(), degraded.clone()]), degraded);
        assert_eq!(Outcome::worst([missing.clone(), degraded]), missing);
        assert_eq!(Outcome::worst([pass, fail.clone(), missing]), fail);
    }

    #[test]
    fn first_of_equals_is_kept() {
        assert_eq!(Outcome::fail("first").worse(Outcome::fail("second")), Outcome::fail("first"));
    }

    #[test]
    fn serializes_with_a_tag() {
        let json = serde_json::to_string(&Outcome::degraded("slow")).unwrap();
        assert_eq!(json, r#"{"outcome":"degraded","why":"slow"}"#);
    }
}
