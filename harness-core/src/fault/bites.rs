//! How often a fault bit: the evidence without which nothing is concluded.

use std::fmt;

use harness_props::Outcome;
use serde::{Deserialize, Serialize};

use crate::error::{CoreResult, Error, ErrorKind};

/// How often a fault bit, and what a bite is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bites {
    count: u64,
    unit: String,
}

impl Bites {
    /// So many of these: `Bites::new(3, "connections refused")`.
    pub fn new(count: u64, unit: impl Into<String>) -> Self {
        Self { count, unit: unit.into() }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is counted: `connections refused`.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// What may be concluded about a fault of this name: that it bit, or that there is no evidence of it.
    #[must_use]
    pub fn outcome(&self, fault: &str) -> Outcome {
        match self.count {
            0 => Outcome::no_evidence(format!("the fault `{fault}` never bit: 0 {}", self.unit)),
            _ => Outcome::pass(format!("{fault}: {self}")),
        }
    }

    /// Holds when it bit at least once.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the fault and what was counted.
    pub fn check(&self, fault: &str) -> CoreResult {
        match self.outcome(fault) {
            Outcome::Pass { .. } => Ok(()),
            missing => Err(Error::new(ErrorKind::NoEvidence, missing.detail())
                .remedy("send traffic through the fault while it lasts, and look whether a client bypasses it")),
        }
    }
}

impl fmt::Display for Bites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::Bites;
    use crate::ErrorKind;

    #[test]
    fn fault_that_never_bit_is_no_evidence_and_one_that_did_is_a_pass() {
        let error = Bites::new(0, "connections refused").check("refuse").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoEvidence);
        assert_eq!(error.what(), "the fault `refuse` never bit: 0 connections refused");
        Bites::new(1, "connections refused").check("refuse").unwrap();
        assert_eq!(Bites::new(2, "bytes lost").outcome("lossy").detail(), "lossy: 2 bytes lost");
    }
}
