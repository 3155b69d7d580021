//! Planted defects: one mutator per rule, each breaking exactly that rule, and the matrix that proves a validator.
//!
//! A validator that accepts everything passes every test with valid plans. So each rule of the catalogue comes with a
//! [`Mutator`] that breaks it and nothing else, and a [`KillMatrix`] counts which mutants a validator notices. It works
//! for anybody's validator, not only for ours:
//!
//! ```
//! use harness_props::mutate::kill_matrix;
//! use harness_props::plan::{Plan, PlanValidator};
//!
//! let ours = kill_matrix(|plan: &Plan| PlanValidator::full().without("P004").check(plan).is_clean());
//! ours.assert_complete();
//!
//! // A validator that only compares numbers, which many call "no cycles".
//! let naive = kill_matrix(|plan: &Plan| plan.steps.iter().all(|step| {
//!     step.after.iter().all(|link| plan.position(&link.on).is_some_and(|on| plan.steps[on].number < step.number))
//! }));
//! assert!(naive.row("P007").unwrap().is_killed());
//! assert!(naive.survivors().contains(&"P008"));
//! ```

mod matrix;
mod plan;
mod relations;
mod slate;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::generate::Random;
use crate::plan::Plan;

pub use matrix::{KillMatrix, Matrix, Row, kill_matrix};
pub use plan::mutators as plans;
pub use relations::{drills, migrations, series, timelines};
pub use slate::slates;

type Break<S> = Arc<dyn Fn(&mut S, &mut Random) -> Option<String> + Send + Sync>;

/// Breaks one rule in a valid subject.
pub struct Mutator<S> {
    code: Cow<'static, str>,
    apply: Break<S>,
}

impl<S> Mutator<S> {
    /// A mutator of the rule with this code: it changes the subject and returns the path at which a report has to
    /// point, or nothing where it does not apply (and then what it did to the subject is forgotten).
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        apply: impl Fn(&mut S, &mut Random) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { code: code.into(), apply: Arc::new(apply) }
    }

    /// Code of the rule that it breaks.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl<S: Clone> Mutator<S> {
    /// A broken copy of a subject, if the mutator applies to it.
    #[must_use]
    pub fn broken(&self, subject: &S, random: &mut Random) -> Option<Broken<S>> {
        let mut broken = subject.clone();
        let path = (self.apply)(&mut broken, random)?;
        Some(Broken { rule: self.code.clone().into_owned(), path, subject: broken, before: subject.clone() })
    }
}

impl<S> Clone for Mutator<S> {
    fn clone(&self) -> Self {
        Self { code: self.code.clone(), apply: Arc::clone(&self.apply) }
    }
}

impl<S> fmt::Debug for Mutator<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutator of {}", self.code)
    }
}

/// A subject in which one rule is broken.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken<S> {
    /// Code of the broken rule.
    pub rule: String,
    /// Where a report has to point.
    pub path: String,
    /// The broken subject.
    pub subject: S,
    before: S,
}

impl<S> Broken<S> {
    /// Undoes the defect: the valid subject again.
    #[must_use]
    pub fn undo(self) -> S {
        self.before
    }
}

/// Breaks one rule of the plan catalogue, by its code, if it applies to this plan.
#[must_use]
pub fn break_rule(code: &str, plan: &Plan, random: &mut Random) -> Option<Broken<Plan>> {
    plans().iter().find(|mutator| mutator.code() == code)?.broken(plan, random)
}

#[cfg(test)]
mod tests;
