//! Candidate solutions as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pareto::Sense;
use crate::plan::{Plan, data, is_default};
use crate::rule::{Refusal, RefusalKind};

data! {
/// Something that solutions are scored by.
Objective {
    /// Its name.
    name: String,
    /// Whether more or less is better; has to be declared.
    sense: Option<Sense>,
    /// Its weight in the composite.
    weight: Option<f64>,
}}

data! {
/// A constraint somebody asks for.
Constraint {
    /// Its name.
    id: String,
    /// It has to be kept, whatever it costs; otherwise it is a preference.
    binding: bool,
    /// Who asks for it.
    source: String,
}}

data! {
/// Why a solution is preferred to another, in words.
TradeOff {
    /// The words.
    text: String,
    /// The objectives they speak of.
    objectives: Vec<String>,
}}

data! {
/// What a solution claims about its plan.
Totals {
    /// Length of the plan in ticks.
    duration: Option<i64>,
    /// Sum of the steps' costs.
    cost: Option<f64>,
}}

data! {
/// One candidate.
Solution {
    /// Its name.
    id: String,
    /// Its scores in points from 0 to 100, by objective.
    scores: BTreeMap<String, f64>,
    /// The composite it claims.
    composite: Option<f64>,
    /// What each objective adds to that, if documented.
    breakdown: BTreeMap<String, f64>,
    /// The rank it claims, from 1.
    rank: Option<i64>,
    /// By how much it keeps each constraint; negative is broken.
    margins: BTreeMap<String, f64>,
    /// How sure it is, from 0 to 1.
    confidence: Option<f64>,
    /// How sure it would be if nothing was missing.
    full_confidence: Option<f64>,
    /// What is uncertain about it, each in words that name a missing input or an objective.
    uncertainty: Vec<String>,
    /// Why it is preferred.
    trade_off: Option<TradeOff>,
    /// How it is carried out.
    plan: Option<Plan>,
    /// What it claims about that plan.
    totals: Option<Totals>,
}}

data! {
/// A preference that gave way to a binding constraint.
Override {
    /// The constraint that won.
    constraint: String,
    /// Who asked for it.
    source: String,
    /// The preference that lost.
    overridden: String,
}}

data! {
/// A set of solutions and what was decided about them.
Slate {
    /// The objectives; the first breaks ties.
    objectives: Vec<Objective>,
    /// Objectives by which ties are broken, in order; the first objective if empty.
    tie_break: Vec<String>,
    /// Decimal places of claimed composites, 0 to 6; 6 if absent.
    decimals: Option<u32>,
    /// Most solutions allowed; 3 if absent.
    most: Option<usize>,
    /// The constraints.
    constraints: Vec<Constraint>,
    /// What is offered.
    solutions: Vec<Solution>,
    /// What was rejected for breaking a constraint.
    rejected: Vec<Solution>,
    /// What would be allowed too but is not offered.
    others: Vec<Solution>,
    /// Name of the one that is recommended.
    recommended: Option<String>,
    /// Preferences that gave way.
    overrides: Vec<Override>,
    /// Binding constraints that pull apart here: the case is about them, and caution decides.
    conflict: Vec<String>,
    /// True when it is an answer of last resort, made without those who should have been asked: caution decides.
    fallback: bool,
    /// Why the recommended one was chosen, in words.
    reasoning: Option<String>,
    /// Inputs that were missing: agents, records.
    missing: Vec<String>,
    /// Warnings in the output.
    warnings: Vec<String>,
    /// Differences in points that do not count.
    epsilon: Option<f64>,
    /// Uncertainty of each weight.
    noise: Option<f64>,
    /// Volume that the solutions dominate, in points to the number of objectives, above 0 in all.
    hypervolume: Option<f64>,
}}

impl Slate {
    /// Reads a slate from JSON.
    ///
    /// # Errors
    /// Text that is no JSON, or has a field that is not one of a slate.
    pub fn from_json(text: &str) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::new(RefusalKind::Unreadable, format!("not a slate: {why}"));
        if !text.trim_start().starts_with('{') {
            return Err(refused("it is no JSON object".to_owned())); // serde would read a list as fields in order
        }
        serde_json::from_str(text).map_err(|error| refused(error.to_string()))
    }

    /// Names of the objectives by which ties are broken.
    #[must_use]
    pub fn ties(&self) -> Vec<&str> {
        match self.tie_break.as_slice() {
            [] => self.objectives.first().map(|objective| objective.name.as_str()).into_iter().collect(),
            names => names.iter().map(String::as_str).collect(),
        }
    }
}
