//! The registry that runs rules over a subject.

use std::collections::BTreeSet;

use super::report::{Report, Skipped, Violation};
use super::{Findings, Rule, Severity, Subject};

/// Violations listed per rule unless told otherwise; the totals are always exact.
const LISTED: usize = 100;

/// A list of rules with their settings. Holds no state between checks.
#[derive(Debug)]
pub struct Validator<T> {
    rules: Vec<Rule<T>>,
    required: BTreeSet<String>,
    cap: usize,
}

impl<T> Clone for Validator<T> {
    fn clone(&self) -> Self {
        Self { rules: self.rules.clone(), required: self.required.clone(), cap: self.cap }
    }
}

impl<T: Subject> Validator<T> {
    /// A validator of these rules, each on or off as it says itself.
    #[must_use]
    pub fn new(rules: Vec<Rule<T>>) -> Self {
        Self { rules, required: BTreeSet::new(), cap: LISTED }
    }

    /// Adds a rule; one with the same code is replaced.
    #[must_use]
    pub fn rule(mut self, rule: Rule<T>) -> Self {
        self.rules.retain(|known| known.code() != rule.code());
        self.rules.push(rule);
        self
    }

    /// Switches a rule on.
    #[must_use]
    pub fn allow(self, code: &str) -> Self {
        self.each(code, |rule| rule.on = true)
    }

    /// Switches a rule off; it is listed as skipped.
    #[must_use]
    pub fn without(self, code: &str) -> Self {
        self.each(code, |rule| rule.on = false)
    }

    /// Switches every rule on.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.rules.iter_mut().for_each(|rule| rule.on = true);
        self
    }

    /// Gives a rule another severity.
    #[must_use]
    pub fn severity(self, code: &str, severity: Severity) -> Self {
        self.each(code, |rule| rule.severity = severity)
    }

    /// Says that a rule has to run: when it is skipped the report's outcome is "no evidence".
    #[must_use]
    pub fn must_run(mut self, code: impl Into<String>) -> Self {
        self.required.insert(code.into());
        self
    }

    /// How many violations are listed per rule; default 100.
    #[must_use]
    pub fn listed(mut self, cap: usize) -> Self {
        self.cap = cap.max(1);
        self
    }

    /// The rules, in registration order.
    #[must_use]
    pub fn rules(&self) -> &[Rule<T>] {
        &self.rules
    }

    /// Gives the rule of this code another check; its severity, and whether it is on, stay.
    pub(crate) fn rejudge(mut self, with: &Rule<T>) -> Self {
        for rule in self.rules.iter_mut().filter(|rule| rule.code() == with.code()) {
            rule.check = with.check.clone();
        }
        self
    }

    fn each(mut self, code: &str, change: impl Fn(&mut Rule<T>)) -> Self {
        self.rules.iter_mut().filter(|rule| rule.code() == code).for_each(change);
        self
    }

    /// Runs every rule and reports everything found.
    #[must_use]
    pub fn check(&self, subject: &T) -> Report {
        self.check_with(subject, |facet| subject.supplies(facet))
    }

    /// Runs every rule whose facets are supplied, as somebody else says.
    pub(crate) fn check_with(&self, subject: &T, supplies: impl Fn(&str) -> bool) -> Report {
        let mut report = Report { required: self.required.clone(), ..Report::default() };
        let mut found = Vec::new();
        for rule in &self.rules {
            let code = rule.code();
            let skip = |why: String| Skipped { rule: code.to_owned(), why };
            if !rule.on {
                report.skipped.push(skip("switched off".to_owned()));
                continue;
            }
            if let Some(facet) = rule.needs.iter().find(|facet| !supplies(facet)) {
                report.skipped.push(skip(format!("needs `{facet}`, which is not supplied")));
                continue;
            }
            let mut findings = Findings::new(self.cap);
            (rule.check)(subject, &mut findings);
            if let Some(why) = findings.skip {
                report.skipped.push(skip(why));
                continue;
            }
            report.ran.push(code.to_owned());
            if findings.total > 0 {
                report.totals.insert(code.to_owned(), findings.total);
                found.push((rule, findings.listed));
            }
        }
        attribute(&found, &mut report);
        report.sort();
        report
    }
}

/// Splits what was found into primary violations and those that another one explains.
fn attribute<T>(found: &[(&Rule<T>, Vec<super::Found>)], report: &mut Report) {
    // Scopes are compared as sorted sets, so that a cycle of a million steps costs a merge and no square.
    let scopes: Vec<(&str, Vec<Vec<u32>>)> = found
        .iter()
        .map(|(rule, listed)| {
            let sets = listed.iter().map(|one| sorted(&one.scope)).collect();
            (rule.code(), sets)
        })
        .collect();
    let explains = |codes: &[&str], scope: &[u32]| -> Option<String> {
        let scope = sorted(scope);
        scopes
            .iter()
            .filter(|(code, _)| codes.contains(code))
            .find(|(_, sets)| sets.iter().any(|set| set.is_empty() || within(&scope, set)))
            .map(|(code, _)| (*code).to_owned())
    };
    let split: Vec<(Option<String>, Violation)> = found
        .iter()
        .flat_map(|(rule, listed)| {
            listed.iter().map(|one| {
                let implied_by = explains(rule.implied_by, &one.scope);
                let violation = Violation {
                    rule: rule.code().to_owned(),
                    severity: rule.severity,
                    path: one.path.clone(),
                    message: one.message.clone(),
                    witness: one.witness.clone(),
                    implied_by: implied_by.clone(),
                };
                (implied_by, violation)
            })
        })
        .collect();
    for (implied_by, violation) in split {
        if implied_by.is_some() { report.implied.push(violation) } else { report.violations.push(violation) }
    }
}

fn sorted(scope: &[u32]) -> Vec<u32> {
    let mut set = scope.to_vec();
    set.sort_unstable();
    set
}

/// Every part of the first is in the second; the empty scope is within any.
fn within(inner: &[u32], outer: &[u32]) -> bool {
    inner.iter().all(|part| outer.binary_search(part).is_ok())
}
