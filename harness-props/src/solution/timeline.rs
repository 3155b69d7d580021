//! T001 to T003: times of phases, on whatever clock they were taken (a virtual one in tests).

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::plan::{data, is_default};
use crate::rule::{Rule, Severity, Subject};

data! {
/// From when to when something ran, in milliseconds.
Span {
    /// Begin.
    from_ms: u64,
    /// End.
    to_ms: u64,
}}

data! {
/// One phase.
Phase {
    /// Its name.
    name: String,
    /// When it ran.
    span: Span,
    /// How long it may take.
    budget_ms: Option<u64>,
    /// When each agent ran that should run at once with the others.
    agents: Vec<Span>,
    /// The least ratio of the agents' times to the phase's that shows that they do, in percent.
    overlap_percent: Option<u64>,
}}

data! {
/// A whole run.
Timeline {
    /// All of it.
    total: Span,
    /// Its phases, in order.
    phases: Vec<Phase>,
}}

impl Subject for Timeline {
    fn supplies(&self, facet: &str) -> bool {
        match facet {
            "phases" => !self.phases.is_empty(),
            "budget_ms" => self.phases.iter().any(|phase| phase.budget_ms.is_some()),
            "overlap_percent" => self.phases.iter().any(|phase| phase.overlap_percent.is_some()),
            _ => false,
        }
    }
}

fn length(span: &Span) -> u64 {
    span.to_ms.saturating_sub(span.from_ms)
}

/// The three rules of phase times.
#[must_use]
pub fn rules() -> Vec<Rule<Timeline>> {
    use Severity::Error;
    vec![
        Rule::new("T001", Error, "every phase keeps its budget", |timeline: &Timeline, found| {
            for (index, phase) in timeline.phases.iter().enumerate() {
                let took = length(&phase.span);
                if let Some(budget) = phase.budget_ms.filter(|budget| took > *budget) {
                    let message = format!("{} took {took} ms, more than {budget}", phase.name);
                    found.add(format!("/phases/{index}/span"), message, json!({"took_ms": took, "budget_ms": budget}));
                }
            }
        })
        .needs(&["phases", "budget_ms"]),
        Rule::new("T002", Error, "phases follow one another within the whole", |timeline: &Timeline, found| {
            let mut last = timeline.total.from_ms;
            for (index, phase) in timeline.phases.iter().enumerate() {
                let Span { from_ms, to_ms } = phase.span;
                if from_ms < last || to_ms < from_ms || to_ms > timeline.total.to_ms {
                    let message = format!("{} ran from {from_ms} to {to_ms}, out of its place", phase.name);
                    found.add(
                        format!("/phases/{index}/span"),
                        message,
                        json!({"after": last, "until": timeline.total.to_ms}),
                    );
                }
                last = last.max(to_ms);
            }
        })
        .needs(&["phases"]),
        Rule::new("T003", Error, "agents of a phase run at once", |timeline: &Timeline, found| {
            for (index, phase) in timeline.phases.iter().enumerate() {
                let Some(percent) = phase.overlap_percent else { continue };
                let sum: u128 = phase.agents.iter().map(|agent| u128::from(length(agent))).sum();
                let wall = u128::from(length(&phase.span));
                if sum * 100 < wall * u128::from(percent) {
                    let message =
                        format!("the agents of {} ran for {sum} ms in {wall} ms: one after the other", phase.name);
                    found.add(
                        format!("/phases/{index}/agents"),
                        message,
                        json!({"sum_ms": sum.to_string(), "wall_ms": wall.to_string()}),
                    );
                }
            }
        })
        .needs(&["phases", "overlap_percent"]),
    ]
}
