//! Solutions: candidates with scores, constraints they keep or break, ranks, and a recommendation.
//!
//! [`SlateValidator`] judges a [`Slate`] by rules S001 to S043, [`drill_rules`] judge how answers degrade when agents
//! fail (F001 to F004), [`timeline_rules`] the times of phases (T001 to T003). Numbers are compared exactly, as in
//! [`rank`](crate::rank).
//!
//! ```
//! use harness_props::solution::{Slate, SlateValidator};
//!
//! let slate = Slate::from_json(r#"{
//!     "objectives": [{"name": "safety", "sense": "maximise", "weight": 0.6},
//!                    {"name": "cost", "sense": "maximise", "weight": 0.4}],
//!     "solutions": [
//!         {"id": "wait", "scores": {"safety": 90, "cost": 40}, "composite": 70, "rank": 1},
//!         {"id": "swap", "scores": {"safety": 80, "cost": 55}, "composite": 70, "rank": 2}
//!     ],
//!     "recommended": "swap"
//! }"#)?;
//! let report = SlateValidator::standard().check(&slate);
//! assert_eq!(report.codes(""), [("S034".to_owned(), "/recommended".to_owned())]);
//! # Ok::<(), harness_props::rule::Refusal>(())
//! ```

mod drill;
mod model;
mod rules;
mod timeline;

pub use drill::{Drill, Trial, rules as drill_rules};
pub use model::{Constraint, Objective, Override, Slate, Solution, Totals, TradeOff};
pub use rules::catalogue as rules;
pub use timeline::{Phase, Span, Timeline, rules as timeline_rules};

use crate::rule::{Report, Rule, Severity, Validator};

/// Judges slates by the catalogue and by rules of the user.
#[derive(Debug, Clone)]
pub struct SlateValidator {
    rules: Validator<Slate>,
}

impl SlateValidator {
    /// All rules of the catalogue.
    #[must_use]
    pub fn standard() -> Self {
        Self { rules: Validator::new(rules()) }
    }

    /// Adds a rule of the user; one with the same code is replaced.
    #[must_use]
    pub fn rule(self, rule: Rule<Slate>) -> Self {
        Self { rules: self.rules.rule(rule) }
    }

    /// Switches a rule off.
    #[must_use]
    pub fn without(self, code: &str) -> Self {
        Self { rules: self.rules.without(code) }
    }

    /// Gives a rule another severity.
    #[must_use]
    pub fn severity(self, code: &str, severity: Severity) -> Self {
        Self { rules: self.rules.severity(code, severity) }
    }

    /// A rule that must not be skipped: otherwise the report's outcome is "no evidence".
    #[must_use]
    pub fn must_run(self, code: impl Into<String>) -> Self {
        Self { rules: self.rules.must_run(code) }
    }

    /// Judges a slate.
    #[must_use]
    pub fn check(&self, slate: &Slate) -> Report {
        self.rules.check(slate)
    }
}
