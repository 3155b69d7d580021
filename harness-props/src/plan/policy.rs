//! What "needed", "reasonable" and "correct" mean: choices of the user, with defaults.

use super::model::{Criterion, Step};

/// The words of a plan's requirements that somebody has to define.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A plan without steps is a plan.
    pub allow_empty: bool,
    /// Text fields that every step has to have.
    pub required: Vec<String>,
    /// Texts that stand for none, in lower case.
    pub placeholders: Vec<String>,
    /// Longest text, in characters.
    pub text_limit: usize,
    /// Least and greatest duration of kinds that state none, in ticks.
    pub reasonable: (i64, i64),
    /// Whether a step needs a rollback.
    pub rollback_needed: fn(&Step) -> bool,
    /// Whether a criterion can be checked.
    pub checkable: fn(&Criterion) -> bool,
    /// How ids are compared for near-collisions.
    pub normalised: fn(&str) -> String,
    /// Redundant dependencies and the width are only looked for in plans up to this many steps.
    pub quadratic_limit: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_empty: false,
            required: vec!["title".to_owned()],
            placeholders: ["tbd", "n/a", "none", "todo", "?", "-", "xxx"].map(str::to_owned).to_vec(),
            text_limit: 4_000,
            reasonable: (0, 1_000_000_000),
            rollback_needed: |step| step.effect.as_ref().is_some_and(|effect| effect.effectful),
            checkable: |criterion| {
                criterion.metric.is_some()
                    && criterion.comparator.is_some()
                    && criterion.target.is_some_and(f64::is_finite)
            },
            normalised: |id| id.trim().to_lowercase(),
            quadratic_limit: 4_096,
        }
    }
}
