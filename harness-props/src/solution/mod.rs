//! Solutions: candidates with scores, constraints they keep or break, ranks, and a recommendation.
//!
//! [`SlateValidator`] judges a [`Slate`] by rules S001 to S048, [`drill_rules`] judge how answers degrade when agents
//! fail (F001 to F004), [`series_rules`] how sure answers are with less and less to go by (C001 to C004), and
//! [`timeline_rules`] the times of phases (T001 to T003). Numbers are compared exactly, as in
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

//!
//! # Write your own rule, with its negative control
//!
//! Rules of yours stand in the same registry. The defect comes first: a rule that nothing turns red proves nothing.
//!
//! ```
//! use harness_props::generate::{Random, SlateConfig, slate};
//! use harness_props::mutate::{KillMatrix, Mutator};
//! use harness_props::rule::{Rule, Severity};
//! use harness_props::solution::{Slate, SlateValidator};
//! use serde_json::json;
//!
//! // 1. The rule: a code, a sentence, the facets it needs, and the check with path, message and witness.
//! let affordable = Rule::<Slate>::new("X001", Severity::Error, "no solution costs more than 500", |slate, found| {
//!     for (at, one) in slate.solutions.iter().enumerate() {
//!         if let Some(cost) = one.totals.as_ref().and_then(|totals| totals.cost).filter(|cost| *cost > 500.0) {
//!             found.add(format!("/solutions/{at}/totals/cost"), format!("`{}` costs {cost}", one.id), json!({"cost": cost}));
//!         }
//!     }
//! })
//! .needs(&["totals"]);
//! let validator = SlateValidator::standard().rule(affordable).must_run("X001");
//!
//! // 2. The negative control: break exactly this, and say where the report has to point.
//! let dear = Mutator::new("X001", |slate: &mut Slate, random: &mut Random| {
//!     let at = random.index(slate.solutions.len());
//!     slate.solutions[at].totals.as_mut()?.cost = Some(500.01);
//!     Some(format!("/solutions/{at}/totals/cost"))
//! });
//!
//! // 3. Every mutant is caught, and none of the valid slates accused.
//! let config = SlateConfig::default();
//! let matrix = KillMatrix::new(100, 7)
//!     .subjects(move |random| slate(&config, random))
//!     .mutator(dear)
//!     .judge(|slate| validator.check(slate).codes("X"));
//! matrix.assert_complete();
//!
//! // 4. Where it cannot run there is no evidence.
//! let bare = slate(&SlateConfig::default().plans(false), &mut Random::new(1));
//! assert!(validator.check(&bare).outcome().is_no_evidence());
//! ```

mod care;
mod drill;
mod lens;
mod model;
mod rules;
mod series;
mod timeline;

pub use care::Caution;
pub use drill::{Drill, Trial, rules as drill_rules};
pub use lens::{SlateLens, SlateModel, SlateView};
pub use model::{Constraint, Objective, Override, Slate, Solution, Totals, TradeOff};
pub use rules::catalogue as rules;
pub use series::{Given, Series, rules as series_rules};
pub use timeline::{Phase, Span, Timeline, rules as timeline_rules};

use crate::rule::{Report, Rule, Severity, Subject as _, Validator};

/// Judges slates by the catalogue and by rules of the user. A slate of any type is read through a [`SlateLens`].
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

    /// What "the most conservative" means for rule S047.
    #[must_use]
    pub fn caution(self, caution: Caution) -> Self {
        Self { rules: care::rules(caution).iter().fold(self.rules, Validator::rejudge) }
    }

    /// Judges a slate.
    #[must_use]
    pub fn check<S: SlateModel + ?Sized>(&self, slate: &S) -> Report {
        let view = slate.view();
        let supplies = |facet: &str| view.has(facet) && view.slate.supplies(facet);
        view.names.apply(self.rules.check_with(&view.slate, supplies))
    }
}
