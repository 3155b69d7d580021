//! C001 to C004: how sure answers to one question are with less and less to go by.
//!
//! A relation between answers, not a property of one: the same question is asked with inputs left out, agents that fail or
//! fields that are deleted, and confidence may only fall. One that never moves is no confidence.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::plan::{data, is_default};
use crate::rule::{Rule, Severity, Subject};

data! {
/// One answer, and what was missing when it was given.
Given {
    /// Inputs that were missing: agents, records, fields.
    missing: BTreeSet<String>,
    /// How sure the answer is, from 0 to 1.
    confidence: Option<f64>,
    /// What it calls uncertain, in words.
    uncertainty: Vec<String>,
}}

data! {
/// Answers to the same question with different inputs missing.
///
/// ```
/// use harness_props::rule::Validator;
/// use harness_props::solution::{Given, Series, series_rules};
///
/// let given = |missing: &[&str], confidence| Given {
///     missing: missing.iter().map(|one| (*one).to_owned()).collect(),
///     confidence: Some(confidence),
///     uncertainty: missing.iter().map(|one| format!("{one} is unknown")).collect(),
/// };
/// let judge = Validator::new(series_rules()).must_run("C003");
/// let honest = Series { answers: vec![given(&[], 0.9), given(&["weather"], 0.7), given(&["weather", "crew"], 0.4)] };
/// assert!(judge.check(&honest).is_clean());
///
/// let constant = Series { answers: vec![given(&[], 0.9), given(&["weather"], 0.9)] };
/// assert!(judge.check(&constant).outcome().is_fail());
/// let alone = Series { answers: vec![given(&["weather"], 0.9)] };
/// assert!(judge.check(&alone).outcome().is_no_evidence());
/// ```
Series {
    /// The answers, in any order.
    answers: Vec<Given>,
}}

impl Series {
    /// Confidence of an answer, if it is one.
    fn sure(&self, at: usize) -> Option<f64> {
        self.answers[at].confidence.filter(|confidence| (0.0..=1.0).contains(confidence))
    }

    /// Answers to which less was missing than to this one, and how sure they are.
    fn with_more(&self, at: usize) -> impl Iterator<Item = (usize, f64)> {
        let missing = &self.answers[at].missing;
        let less = move |other: &BTreeSet<String>| other.len() < missing.len() && other.is_subset(missing);
        let others = self.answers.iter().enumerate().filter(move |(_, other)| less(&other.missing));
        others.filter_map(|(other, _)| Some((other, self.sure(other)?)))
    }

    /// True when no answer was given with still more missing.
    fn is_last(&self, at: usize) -> bool {
        let missing = &self.answers[at].missing;
        !self.answers.iter().any(|other| other.missing.len() > missing.len() && missing.is_subset(&other.missing))
    }
}

impl Subject for Series {
    fn supplies(&self, facet: &str) -> bool {
        match facet {
            "answers" => !self.answers.is_empty(),
            "missing" => self.answers.iter().any(|answer| !answer.missing.is_empty()),
            "comparable" => (0..self.answers.len()).any(|at| self.with_more(at).next().is_some()),
            _ => false,
        }
    }
}

/// The four rules of confidence over a series of answers.
#[must_use]
pub fn rules() -> Vec<Rule<Series>> {
    use Severity::Error;
    vec![
        Rule::new("C001", Error, "every answer says how sure it is, from 0 to 1", |series: &Series, found| {
            for at in (0..series.answers.len()).filter(|at| series.sure(*at).is_none()) {
                let got = series.answers[at].confidence.map_or_else(|| "missing".to_owned(), |one| one.to_string());
                let message = format!("confidence is {got}");
                found.at(&[at as u32], || (format!("/answers/{at}/confidence"), message, json!({"got": got})));
            }
        })
        .needs(&["answers"]),
        Rule::new("C002", Error, "with less to go by an answer is never surer", |series: &Series, found| {
            for at in 0..series.answers.len() {
                let Some(sure) = series.sure(at) else { continue };
                if let Some((other, before)) = series.with_more(at).find(|(_, before)| sure > *before) {
                    let (less, more) = (&series.answers[other].missing, &series.answers[at].missing);
                    let message = format!(
                        "confidence is {sure} with {} inputs missing, and {before} with {}",
                        more.len(),
                        less.len()
                    );
                    let witness = json!({"fewer": less, "more": more, "before": before, "after": sure});
                    found.at(&[at as u32], || (format!("/answers/{at}/confidence"), message, witness));
                }
            }
        })
        .needs(&["comparable"]),
        Rule::new("C003", Error, "confidence falls with what is missing", |series: &Series, found| {
            for at in (0..series.answers.len()).filter(|at| series.is_last(*at)) {
                let Some(sure) = series.sure(at) else { continue };
                let before: Vec<f64> = series.with_more(at).map(|(_, before)| before).collect();
                // Some inputs may not matter; that none ever does is no confidence at all. Nothing is less than nothing.
                if !before.is_empty() && before.iter().all(|before| sure >= *before && *before > 0.0) {
                    let missing = &series.answers[at].missing;
                    let message =
                        format!("confidence is {sure} with {} inputs missing, and was never higher", missing.len());
                    found.at(&[at as u32], || {
                        (
                            format!("/answers/{at}/confidence"),
                            message,
                            json!({"missing": missing, "before": before, "after": sure}),
                        )
                    });
                }
            }
        })
        .needs(&["comparable"])
        .implied_by(&["C002"]),
        Rule::new("C004", Error, "an answer without all inputs says what is uncertain", |series: &Series, found| {
            for (at, answer) in series.answers.iter().enumerate().filter(|(_, answer)| !answer.missing.is_empty()) {
                if answer.uncertainty.iter().all(|text| text.trim().is_empty()) {
                    let message =
                        format!("{} inputs are missing, and nothing is called uncertain", answer.missing.len());
                    found.add(format!("/answers/{at}/uncertainty"), message, json!({"missing": answer.missing}));
                }
            }
        })
        .needs(&["missing"]),
    ]
}
