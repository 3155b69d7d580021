//! Plans: steps that wait for one another, and 67 rules about them.
//!
//! A plan of any type is read through a [`PlanLens`] or as the plain [`Plan`] (also from JSON), and judged by a
//! [`PlanValidator`]: structure (P001 to P016), content (P020 to P033), rollback (P040 to P049), schedule and critical
//! path (P060 to P075), resources (P080 to P090). [`rules`] lists them with what each needs.
//!
//! ```
//! use harness_props::plan::{Plan, PlanValidator};
//!
//! let plan = Plan::from_json(r#"{
//!     "steps": [
//!         {"id": "isolate", "number": 1, "title": "Isolate the fault", "agent": "ops", "duration": 5,
//!          "criteria": [{"text": "no traffic", "metric": "rps", "comparator": "=", "target": 0}],
//!          "automation": {"automated": true, "executor": "proxy"}},
//!         {"id": "repair", "number": 2, "title": "Repair", "after": ["isolte"], "agent": "ops", "duration": 30,
//!          "criteria": [{"text": "healthy", "metric": "health", "comparator": "=", "target": 1}],
//!          "automation": {"automated": true, "executor": "runbook"}}
//!     ],
//!     "agents": [{"id": "ops", "skills": []}]
//! }"#)?;
//! let report = PlanValidator::standard().check(&plan);
//! assert_eq!(report.codes(""), [("P005".to_owned(), "/steps/1/after/0".to_owned())]);
//! assert!(report.violations[0].message.ends_with("did you mean `isolate`?"));
//! # Ok::<(), harness_props::rule::Refusal>(())
//! ```
//!
//! Five words of plan requirements are a matter of [`Policy`]: what needs a rollback, what is reasonable, what can be
//! checked, what counts as empty, what counts as the same name. It does *not* optimise or repair plans.

mod critical;
mod graph;
mod interleaving;
mod lens;
mod model;
mod policy;
mod rules;
mod view;

pub(crate) use critical::length;
pub use critical::{CriticalPath, Undefined};
pub use graph::{Ancestors, Order};
pub(crate) use graph::{shortest_cycle, width};
pub use interleaving::{Failure, Interleaving, Workflow, interleavings};
pub use lens::{PlanLens, PlanModel};
pub use model::{
    Agent, Automation, Choice, Criterion, Demand, Effect, Exclusion, Id, Kind, Link, Plan, Quantity, Resource,
    Rollback, Share, Step, Ticks, Tie, Times, Window,
};
pub(crate) use model::{data, is_default};
pub use policy::Policy;
pub use rules::catalogue as rules;
pub use view::{Paths, Subject, View};

use crate::rule::{Report, Rule, Severity, Validator};

/// Judges plans by the catalogue, by a policy, and by rules of the user.
#[derive(Debug, Clone)]
pub struct PlanValidator {
    rules: Validator<Subject>,
    policy: Policy,
}

impl PlanValidator {
    /// The catalogue as it is on by default. Off are: list order (P004), redundant dependencies (P010), one part (P013).
    #[must_use]
    pub fn standard() -> Self {
        Self { rules: Validator::new(rules()), policy: Policy::default() }
    }

    /// The whole catalogue.
    #[must_use]
    pub fn full() -> Self {
        Self { rules: Validator::new(rules()).all(), policy: Policy::default() }
    }

    /// Judges by this policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a rule of the user; one with the same code is replaced.
    #[must_use]
    pub fn rule(self, rule: Rule<Subject>) -> Self {
        Self { rules: self.rules.rule(rule), ..self }
    }

    /// Switches a rule on.
    #[must_use]
    pub fn allow(self, code: &str) -> Self {
        Self { rules: self.rules.allow(code), ..self }
    }

    /// Switches a rule off.
    #[must_use]
    pub fn without(self, code: &str) -> Self {
        Self { rules: self.rules.without(code), ..self }
    }

    /// Gives a rule another severity.
    #[must_use]
    pub fn severity(self, code: &str, severity: Severity) -> Self {
        Self { rules: self.rules.severity(code, severity), ..self }
    }

    /// A rule that must not be skipped: otherwise the report's outcome is "no evidence".
    #[must_use]
    pub fn must_run(self, code: impl Into<String>) -> Self {
        Self { rules: self.rules.must_run(code), ..self }
    }

    /// How many violations are listed per rule.
    #[must_use]
    pub fn listed(self, cap: usize) -> Self {
        Self { rules: self.rules.listed(cap), ..self }
    }

    /// Judges a plan. One that is too big to be addressed is reported as P001.
    #[must_use]
    pub fn check<P: PlanModel + ?Sized>(&self, plan: &P) -> Report {
        match plan.view() {
            Ok(view) => self.check_view(view),
            Err(refusal) => {
                let why = refusal.to_string();
                let refused = Rule::new("P001", Severity::Error, "a plan can be read", move |(): &(), found| {
                    found.add("", why.clone(), serde_json::Value::Null);
                });
                Validator::new(vec![refused]).check(&())
            }
        }
    }

    /// Judges a view, such as a [`PlanLens`] returns.
    #[must_use]
    pub fn check_view(&self, view: View) -> Report {
        self.rules.check(&Subject::new(view, self.policy.clone()))
    }
}

impl crate::rule::Subject for () {
    fn supplies(&self, _: &str) -> bool {
        false
    }
}

/// Panics with the whole report unless a plan is valid: `assert_plan_valid!(plan)` for a [`PlanModel`],
/// `assert_plan_valid!(plan, lens)` for any other type, `assert_plan_valid!(plan, lens, validator)` for other rules.
#[macro_export]
macro_rules! assert_plan_valid {
    ($plan:expr $(,)?) => {
        $crate::plan::assert_valid(&$crate::plan::PlanValidator::standard().check(&$plan))
    };
    ($plan:expr, $lens:expr $(,)?) => {
        $crate::assert_plan_valid!($plan, $lens, $crate::plan::PlanValidator::standard())
    };
    ($plan:expr, $lens:expr, $validator:expr $(,)?) => {
        match $lens.view(&$plan) {
            Ok(view) => $crate::plan::assert_valid(&$validator.check_view(view)),
            Err(refusal) => panic!("{refusal}"),
        }
    };
}

/// Panics with the report's text unless it is valid.
#[doc(hidden)]
#[track_caller]
pub fn assert_valid(report: &Report) {
    assert!(report.is_valid(), "the plan is not valid\n{report}");
}

#[cfg(test)]
mod tests;
