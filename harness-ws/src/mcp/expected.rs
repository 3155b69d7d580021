//! Findings that are known: a file that says which checks fail, and that itself fails when one no longer does.

use std::collections::BTreeMap;
use std::path::Path;

use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;

use crate::findings::Findings;

/// Known failures: a line each, the number of the check and the reason. `#` begins a comment.
///
/// ```
/// use harness_ws::mcp::Expected;
///
/// let known = Expected::parse("J15  answers broken JSON without an id  # reported in May\n")?;
/// assert_eq!(known.ids().collect::<Vec<_>>(), ["J15"]);
/// # harness_ws::CoreResult::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    reasons: BTreeMap<String, String>,
}

impl Expected {
    /// Reads the text of such a file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming a line without a reason, or a check that stands there twice.
    pub fn parse(text: &str) -> CoreResult<Self> {
        let mut reasons = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let bad =
                |why: &str| Error::new(ErrorKind::Config, format!("line {} of the expected failures {why}", n + 1));
            let (id, reason) = line.split_once(char::is_whitespace).ok_or_else(|| bad("gives no reason"))?;
            if reasons.insert(id.to_owned(), reason.trim().to_owned()).is_some() {
                return Err(bad(&format!("names {id} a second time")));
            }
        }
        Ok(Self { reasons })
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot be read, and as [`Expected::parse`].
    pub fn read(path: &Path) -> CoreResult<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let what = format!("the expected failures in {} cannot be read", path.display());
            Error::new(ErrorKind::Config, what).caused_by(error)
        })?;
        Self::parse(&text)
    }

    /// The file that these findings would agree with: a line for each check that failed, missed its target or could not be
    /// judged, with its rule and the section where that stands.
    #[must_use]
    pub fn text(findings: &Findings) -> String {
        let deviating = findings.list().iter().filter_map(|finding| Some((finding, deviation(&finding.outcome)?)));
        deviating
            .map(|(finding, what)| format!("{}  {what}: {} ({})\n", finding.id, finding.rule, finding.source))
            .collect()
    }

    /// The numbers of the checks that are expected to fail.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.reasons.keys().map(String::as_str)
    }

    /// Checks that exactly the expected checks fail, miss their target or cannot be judged, and that nothing else was left
    /// without evidence.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming each unexpected failure, and each stale entry: a check that is expected to fail and
    /// does not, or that does not exist. [`ErrorKind::NoEvidence`] when a check could not be judged or too few were.
    pub fn judge(&self, findings: &Findings) -> CoreResult {
        let mut wrong = Vec::new();
        for finding in findings.list() {
            let outcome = &finding.outcome;
            match (deviation(outcome), self.reasons.get(finding.id)) {
                // What could not be judged is missing evidence, which is said below.
                (Some(_), None) if !outcome.is_no_evidence() => wrong.push(format!("unexpected: {finding}")),
                (None, Some(reason)) => {
                    wrong.push(format!("stale: {} is `{}` now ({reason})", finding.id, outcome.word()));
                }
                _ => {}
            }
        }
        for id in self.ids().filter(|id| findings.get(id).is_none()) {
            wrong.push(format!("stale: there is no check {id}"));
        }
        if !wrong.is_empty() {
            let what = format!("{} findings differ from those expected of {}", wrong.len(), findings.target());
            return Err(wrong.into_iter().fold(Error::new(ErrorKind::Assertion, what), Error::tried));
        }
        let judged = findings.executed();
        let lost = findings
            .list()
            .iter()
            .filter(|finding| finding.outcome.is_no_evidence() && !self.reasons.contains_key(finding.id));
        let error =
            Error::new(ErrorKind::NoEvidence, format!("not every check of {} came to a conclusion", findings.target()));
        let error = lost.clone().fold(error, |error, finding| error.tried(finding.to_string()));
        if lost.count() > 0 || judged < findings.needed() {
            return Err(error.tried(format!("{judged} executed, {} needed", findings.needed())));
        }
        Ok(())
    }
}

/// In which way a check did not pass. What is known not to be answered at all leaves its neighbours without evidence: they
/// are known too.
fn deviation(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Fail { .. } => Some("broken"),
        Outcome::Degraded { .. } => Some("wish not met"),
        Outcome::NoEvidence { .. } => Some("cannot be judged"),
        Outcome::Pass { .. } | Outcome::NotApplicable { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;
    use harness_props::Outcome;

    use super::Expected;
    use crate::findings::{Finding, Findings};

    fn findings(outcomes: &[(&'static str, Outcome)]) -> Findings {
        let finding = |(id, outcome): &(&'static str, Outcome)| Finding {
            id,
            source: "s",
            rule: "r",
            outcome: outcome.clone(),
            evidence: Vec::new(),
        };
        Findings::new("ws://x".into(), outcomes.iter().map(finding).collect())
    }

    #[test]
    fn exactly_the_expected_failures_are_accepted() {
        let known = Expected::parse("# a list\nA1 broken\n\nA2  slow  # why\n").unwrap();
        let (pass, fail) = (Outcome::pass("1"), Outcome::fail("w"));
        assert!(
            known
                .judge(&findings(&[("A1", fail.clone()), ("A2", Outcome::degraded("d")), ("A3", pass.clone())]))
                .is_ok()
        );
        for (list, kind, said) in [
            (
                vec![("A1", fail.clone()), ("A2", fail.clone()), ("A3", fail.clone())],
                ErrorKind::Assertion,
                "unexpected: A3",
            ),
            (
                vec![("A1", fail.clone()), ("A2", fail.clone()), ("A3", Outcome::degraded("d"))],
                ErrorKind::Assertion,
                "unexpected: A3",
            ),
            (vec![("A1", pass), ("A2", fail.clone())], ErrorKind::Assertion, "stale: A1"),
            (vec![("A1", fail.clone())], ErrorKind::Assertion, "stale: there is no check A2"),
            (vec![("A1", fail.clone()), ("A2", fail), ("A3", Outcome::no_evidence("x"))], ErrorKind::NoEvidence, "A3"),
        ] {
            let error = known.judge(&findings(&list)).unwrap_err();
            assert!(error.kind() == kind && format!("{error:?}").contains(said), "{error:?}");
        }
        assert_eq!(Expected::default().judge(&findings(&[])).unwrap_err().kind(), ErrorKind::NoEvidence);
    }

    #[test]
    fn text_of_findings_is_the_file_they_agree_with() {
        let found = findings(&[
            ("A1", Outcome::fail("w")),
            ("A2", Outcome::pass("1")),
            ("A3", Outcome::degraded("d")),
            ("A4", Outcome::no_evidence("x")),
            ("A5", Outcome::not_applicable("y")),
        ]);
        let text = Expected::text(&found);
        assert_eq!(text, "A1  broken: r (s)\nA3  wish not met: r (s)\nA4  cannot be judged: r (s)\n");
        assert!(Expected::parse(&text).unwrap().judge(&found).is_ok());
    }

    #[test]
    fn lines_without_a_reason_and_doubles_are_refused() {
        for text in ["A1", "A1 x\nA1 y"] {
            assert_eq!(Expected::parse(text).unwrap_err().kind(), ErrorKind::Config, "{text}");
        }
    }
}
