//! What a validator found, for people and for machines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Severity;
use crate::Outcome;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Code of the rule, such as `P009`.
    pub rule: String,
    /// How much it weighs.
    pub severity: Severity,
    /// Where: a JSON pointer (RFC 6901) in the user's own field names.
    pub path: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// The counterexample, for machines: the cycle, the pair, both numbers.
    pub witness: Value,
    /// The rule whose violation explains this one, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implied_by: Option<String>,
}

/// A rule that did not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Code of the rule.
    pub rule: String,
    /// Why it did not run.
    pub why: String,
}

/// Everything a validator found. Lists are sorted by path, then rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Primary violations: those that no other violation explains.
    pub violations: Vec<Violation>,
    /// Violations that follow from a primary one.
    pub implied: Vec<Violation>,
    /// Rules that did not run, with the reason.
    pub skipped: Vec<Skipped>,
    /// Rules that ran.
    pub ran: Vec<String>,
    /// Exact number of violations by rule, also of those beyond the listed ones.
    pub totals: BTreeMap<String, u64>,
    /// Rules whose skipping leaves no evidence.
    #[serde(default)]
    pub required: BTreeSet<String>,
}

impl Report {
    pub(crate) fn sort(&mut self) {
        for list in [&mut self.violations, &mut self.implied] {
            list.sort_by(|a, b| (&a.path, &a.rule, &a.message).cmp(&(&b.path, &b.rule, &b.message)));
        }
        self.skipped.sort_by(|a, b| a.rule.cmp(&b.rule));
        self.ran.sort();
    }

    /// True when something ran and no error was found. Warnings do not count.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.ran.is_empty() && self.errors().next().is_none()
    }

    /// True when rules ran and nothing at all was found, warnings included.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.ran.is_empty() && self.totals.is_empty()
    }

    /// Primary violations of severity error.
    pub fn errors(&self) -> impl Iterator<Item = &Violation> {
        self.violations.iter().filter(|violation| violation.severity == Severity::Error)
    }

    /// Codes of the primary violations.
    #[must_use]
    pub fn primary(&self) -> BTreeSet<&str> {
        self.violations.iter().map(|violation| violation.rule.as_str()).collect()
    }

    /// Code and path of the primary violations whose code begins with a prefix; `""` for all.
    #[must_use]
    pub fn codes(&self, prefix: &str) -> Vec<(String, String)> {
        let named = self.violations.iter().filter(|violation| violation.rule.starts_with(prefix));
        named.map(|violation| (violation.rule.clone(), violation.path.clone())).collect()
    }

    /// Why a rule did not run, if it did not.
    #[must_use]
    pub fn why_skipped(&self, code: &str) -> Option<&str> {
        self.skipped.iter().find(|skipped| skipped.rule == code).map(|skipped| skipped.why.as_str())
    }

    /// The same report about a part of something bigger: every path gets a prefix.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for violation in self.violations.iter_mut().chain(&mut self.implied) {
            violation.path.insert_str(0, prefix);
        }
        self
    }

    /// The conclusion: Fail on errors, NoEvidence when nothing ran or a required rule was skipped, Degraded on
    /// warnings, Pass otherwise.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Some(first) = self.errors().next() {
            let more = self.errors().count() - 1;
            let rest = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            return Outcome::fail(format!("{} {}: {}{rest}", first.rule, first.path, first.message));
        }
        if self.ran.is_empty() {
            return Outcome::no_evidence("no rule ran");
        }
        if let Some(missing) = self.required.iter().find(|code| !self.ran.contains(code)) {
            let why = self.why_skipped(missing).unwrap_or("not a rule of this validator");
            return Outcome::no_evidence(format!("{missing} had to run but was skipped: {why}"));
        }
        if let Some(first) = self.violations.iter().find(|violation| violation.severity == Severity::Warning) {
            return Outcome::degraded(format!("{} {}: {}", first.rule, first.path, first.message));
        }
        Outcome::pass(format!("{} rules ran, {} skipped", self.ran.len(), self.skipped.len()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |severity| self.violations.iter().filter(|violation| violation.severity == severity).count();
        let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
        let (ran, skipped) = (self.ran.len(), self.skipped.len());
        writeln!(f, "{errors} errors, {warnings} warnings; {ran} rules ran, {skipped} skipped")?;
        for violation in &self.violations {
            let word = match violation.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "info",
            };
            let place = if violation.path.is_empty() { "(whole)" } else { &violation.path };
            writeln!(f, "  {word:<8}{} {place}", violation.rule)?;
            writeln!(f, "          {}", violation.message)?;
        }
        for (rule, total) in &self.totals {
            let all = self.violations.iter().chain(&self.implied);
            let listed = all.filter(|violation| &violation.rule == rule).count() as u64;
            if *total > listed {
                writeln!(f, "  {rule}: {listed} of {total} listed")?;
            }
        }
        if !self.implied.is_empty() {
            writeln!(f, "  {} more follow from these", self.implied.len())?;
        }
        for skipped in self.skipped.iter().filter(|skipped| skipped.why != "switched off") {
            writeln!(f, "  skipped {} {}", skipped.rule, skipped.why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Report, Skipped, Violation};
    use crate::rule::Severity;

    fn violation(rule: &str, severity: Severity, path: &str, message: &str) -> Violation {
        let (rule, path, message) = (rule.to_owned(), path.to_owned(), message.to_owned());
        Violation { rule, severity, path, message, witness: Value::Null, implied_by: None }
    }

    fn report() -> Report {
        let skipped = |rule: &str, why: &str| Skipped { rule: rule.to_owned(), why: why.to_owned() };
        Report {
            violations: vec![
                violation("P009", Severity::Error, "", "there is a cycle"),
                violation("P020", Severity::Warning, "/steps/1", "it is long"),
                violation("P021", Severity::Info, "/steps/2", "it is short"),
            ],
            implied: vec![violation("P009", Severity::Error, "/steps/0", "it is on the cycle")],
            skipped: vec![skipped("P040", "needs `resources`, which is not supplied"), skipped("P041", "switched off")],
            ran: ["P009", "P020", "P021"].map(str::to_owned).into(),
            totals: [("P009", 2), ("P020", 7), ("P021", 1)].map(|(rule, total)| (rule.to_owned(), total)).into(),
            required: ["P020".to_owned()].into(),
        }
    }

    #[test]
    fn people_read_what_is_wrong_what_is_not_listed_and_what_did_not_run() {
        let expected = "\
1 errors, 1 warnings; 3 rules ran, 2 skipped
  error   P009 (whole)
          there is a cycle
  warning P020 /steps/1
          it is long
  info    P021 /steps/2
          it is short
  P020: 1 of 7 listed
  1 more follow from these
  skipped P040 needs `resources`, which is not supplied
";
        assert_eq!(report().to_string(), expected);
        let clean = Report { ran: vec!["P009".to_owned()], ..Report::default() };
        assert_eq!(clean.to_string(), "0 errors, 0 warnings; 1 rules ran, 0 skipped\n");
    }

    #[test]
    fn the_outcome_is_the_worst_that_was_found_and_no_evidence_where_nothing_looked() {
        let mut report = report();
        assert_eq!(report.outcome().to_string(), "fail: P009 : there is a cycle");
        report.violations.push(violation("P010", Severity::Error, "/steps/3", "it is missing"));
        assert_eq!(report.outcome().detail(), "P009 : there is a cycle (and 1 more)");
        assert!(!report.is_valid() && !report.is_clean());
        report.violations.retain(|violation| violation.severity != Severity::Error);
        assert_eq!(report.outcome().detail(), "P020 /steps/1: it is long");
        assert!(matches!(report.outcome(), crate::Outcome::Degraded { .. }) && report.is_valid() && !report.is_clean());
        report.violations.retain(|violation| violation.severity == Severity::Info);
        assert!(report.outcome().is_pass());
        report.required.insert("P041".to_owned());
        assert_eq!(report.outcome().detail(), "P041 had to run but was skipped: switched off");
        report.required = ["P999".to_owned()].into();
        assert_eq!(report.outcome().detail(), "P999 had to run but was skipped: not a rule of this validator");
        report.ran.clear();
        assert!(report.outcome().is_no_evidence() && !report.is_valid() && !report.is_clean());
    }
}
