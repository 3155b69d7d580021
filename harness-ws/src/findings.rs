//! The result of a row of checks: an outcome each, and none that could not be judged counts as passed.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;
use serde::Serialize;

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// A stable number, `J12`.
    pub id: &'static str,
    /// Where the rule stands, `JSON-RPC 2.0 §5.1`.
    pub source: &'static str,
    /// The rule in a sentence.
    pub rule: &'static str,
    /// What came out.
    pub outcome: Outcome,
    /// The conversation behind a failure or a lack of evidence; empty otherwise.
    pub evidence: Vec<String>,
}

/// All findings about one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[must_use = "findings say nothing until they are asserted"]
pub struct Findings {
    target: String,
    list: Vec<Finding>,
    at_least: usize,
}

impl Findings {
    pub(crate) fn new(target: String, list: Vec<Finding>) -> Self {
        Self { target, list, at_least: 1 }
    }

    /// The server, secrets masked.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Every check in order, those that could not run included.
    #[must_use]
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// One check by its number.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Finding> {
        self.list.iter().find(|finding| finding.id == id)
    }

    /// How many checks came to a conclusion: passed, degraded or failed.
    #[must_use]
    pub fn executed(&self) -> usize {
        let concluded =
            |finding: &&Finding| !matches!(finding.outcome, Outcome::NoEvidence { .. } | Outcome::NotApplicable { .. });
        self.list.iter().filter(concluded).count()
    }

    /// The numbers of the checks that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.list.iter().filter(|finding| finding.outcome.is_fail()).map(|finding| finding.id).collect()
    }

    /// The worst outcome; too few executed checks are [`Outcome::NoEvidence`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let worst = Outcome::worst(self.list.iter().map(|finding| finding.outcome.clone()));
        match self.executed() {
            executed if executed < self.at_least => worst
                .worse(Outcome::no_evidence(format!("{executed} checks executed, at least {} needed", self.at_least))),
            _ => worst,
        }
    }

    /// Demands that so many checks come to a conclusion; one unless told.
    pub fn at_least(mut self, checks: usize) -> Self {
        self.at_least = checks.max(1);
        self
    }

    /// How many checks have to come to a conclusion.
    #[cfg(feature = "mcp")]
    pub(crate) fn needed(&self) -> usize {
        self.at_least
    }

    /// Checks that nothing failed, nothing was left without evidence, and enough was executed.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when a check failed, [`ErrorKind::NoEvidence`] when one could not be judged or too few
    /// were
    /// executed; the error is the table with the conversation behind each failure.
    pub fn check(&self) -> CoreResult {
        let outcome = self.outcome();
        let kind = match outcome {
            Outcome::Pass { .. } | Outcome::Degraded { .. } | Outcome::NotApplicable { .. } => return Ok(()),
            Outcome::Fail { .. } => ErrorKind::Assertion,
            Outcome::NoEvidence { .. } => ErrorKind::NoEvidence,
        };
        let what = format!("{} checks of {}: {} failed", self.list.len(), self.target, self.failed().len());
        let mut error = Error::new(kind, format!("{what}; the worst is {outcome}"));
        for finding in self.list.iter().filter(|finding| finding.outcome.is_fail() || finding.outcome.is_no_evidence())
        {
            error = error.tried(finding.to_string());
        }
        Err(self.list.iter().fold(error, |error, finding| {
            error.log(finding.evidence.iter().map(|line| format!("{} {line}", finding.id)))
        }))
    }

    /// [`Findings::check`] for tests that do not pass errors on.
    ///
    /// # Panics
    /// When the check does not hold, with its table.
    #[track_caller]
    pub fn assert(&self) {
        if let Err(error) = self.check() {
            panic!("{error:?}");
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} — {} ({})", self.id, self.outcome, self.rule, self.source)
    }
}

impl fmt::Display for Findings {
    /// A table, one check per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} of {} checks executed", self.target, self.executed(), self.list.len())?;
        self.list.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;
    use harness_props::Outcome;

    use super::{Finding, Findings};

    fn findings(outcomes: &[Outcome]) -> Findings {
        let finding = |outcome: &Outcome| Finding {
            id: "X1",
            source: "s",
            rule: "r",
            outcome: outcome.clone(),
            evidence: Vec::new(),
        };
        Findings::new("ws://x".into(), outcomes.iter().map(finding).collect())
    }

    #[test]
    fn nothing_unjudged_counts_as_passed() {
        let (pass, none, off) = (Outcome::pass("1"), Outcome::no_evidence("x"), Outcome::not_applicable("x"));
        assert!(findings(&[pass.clone(), off.clone()]).check().is_ok());
        assert!(findings(&[pass.clone(), pass.clone()]).at_least(2).check().is_ok());
        for (bad, kind) in [
            (findings(&[pass.clone(), Outcome::fail("w")]), ErrorKind::Assertion),
            (findings(&[pass.clone(), none]), ErrorKind::NoEvidence),
            (findings(&[pass, off.clone()]).at_least(2), ErrorKind::NoEvidence),
            (findings(&[off]), ErrorKind::NoEvidence),
            (findings(&[]), ErrorKind::NoEvidence),
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), kind, "{bad}");
        }
    }
}
