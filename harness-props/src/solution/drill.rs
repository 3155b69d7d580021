//! F001 to F004: how answers degrade when agents fail.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::plan::{data, is_default};
use crate::rule::{Rule, Severity, Subject};

data! {
/// One run with some agents failing.
Trial {
    /// The agents that failed.
    failed: BTreeSet<String>,
    /// How strict the answer is on each binding axis: more is safer. Nothing if there was no answer.
    answer: Option<Vec<i64>>,
    /// The typed error that was returned instead.
    error: Option<String>,
    /// How long it took, in milliseconds.
    elapsed_ms: u64,
    /// Failed agents that the audit trail lists, in its order.
    audit: Vec<String>,
}}

data! {
/// The same question asked again and again while agents fail.
Drill {
    /// The binding axes on which strictness is compared.
    axes: Vec<String>,
    /// What each agent recommends on each axis: more is safer.
    recommendations: BTreeMap<String, Vec<i64>>,
    /// The runs.
    trials: Vec<Trial>,
    /// How long a run may take, in milliseconds.
    budget_ms: u64,
}}

impl Subject for Drill {
    fn supplies(&self, facet: &str) -> bool {
        match facet {
            "trials" => !self.trials.is_empty(),
            "recommendations" => !self.recommendations.is_empty(),
            _ => false,
        }
    }
}

/// Strict on no axis less than the other.
fn at_least(one: &[i64], other: &[i64]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one >= other)
}

/// The four rules of fallback under missing data.
#[must_use]
pub fn rules() -> Vec<Rule<Drill>> {
    use Severity::Error;
    vec![
        Rule::new("F001", Error, "there is an answer or a typed error in time", |drill: &Drill, found| {
            for (index, trial) in drill.trials.iter().enumerate() {
                let silent = trial.answer.is_none() && trial.error.as_deref().is_none_or(|error| error.trim().is_empty());
                let late = trial.elapsed_ms > drill.budget_ms;
                if silent || late {
                    let why = if silent { "neither an answer nor an error" } else { "too late" };
                    let witness = json!({"failed": trial.failed, "elapsed_ms": trial.elapsed_ms, "budget_ms": drill.budget_ms});
                    found.add(format!("/trials/{index}"), format!("with {} agents failing: {why}", trial.failed.len()), witness);
                }
            }
        })
        .needs(&["trials"]),
        Rule::new("F002", Error, "an answer is as safe as every recommendation that was there", |drill: &Drill, found| {
            for (index, trial) in drill.trials.iter().enumerate() {
                let Some(answer) = &trial.answer else { continue };
                let there = drill.recommendations.iter().filter(|(agent, _)| !trial.failed.contains(*agent));
                for (agent, wanted) in there.filter(|(_, wanted)| !at_least(answer, wanted)) {
                    let axis = answer.iter().zip(wanted).position(|(got, wanted)| got < wanted);
                    let axis = axis.and_then(|axis| drill.axes.get(axis)).map_or("(length)", String::as_str);
                    found.at(&[index as u32], || {
                        let message = format!("on `{axis}` the answer is less safe than what `{agent}` recommends");
                        (format!("/trials/{index}/answer"), message, json!({"axis": axis, "agent": agent, "got": answer, "wanted": wanted}))
                    });
                }
            }
        })
        .needs(&["trials", "recommendations"]),
        Rule::new("F003", Error, "the audit trail lists each failed agent once", |drill: &Drill, found| {
            for (index, trial) in drill.trials.iter().enumerate() {
                let mut listed = trial.audit.clone();
                listed.sort();
                if !listed.iter().eq(&trial.failed) {
                    let message = "the audit trail does not list each failed agent once";
                    found.add(format!("/trials/{index}/audit"), message, json!({"failed": trial.failed, "audit": trial.audit}));
                }
            }
        })
        .needs(&["trials"]),
        Rule::new("F004", Error, "more failures never make an answer less conservative", |drill: &Drill, found| {
            for (index, trial) in drill.trials.iter().enumerate() {
                let fewer = drill.trials.iter().filter(|other| other.failed.len() < trial.failed.len() && other.failed.is_subset(&trial.failed));
                let pair = fewer.filter_map(|other| Some((other, other.answer.as_ref()?, trial.answer.as_ref()?)));
                if let Some((other, before, _)) = pair.into_iter().find(|(_, before, after)| !at_least(after, before)) {
                    found.at(&[index as u32], || {
                        let message = "with more agents failing the answer is less conservative".to_owned();
                        let witness = json!({"fewer": other.failed, "more": trial.failed, "before": before, "after": trial.answer});
                        (format!("/trials/{index}/answer"), message, witness)
                    });
                }
            }
        })
        .needs(&["trials"])
        .implied_by(&["F002"]),
    ]
}
