//! Rules over any subject: one registry, all violations, one report.
//!
//! A [`Rule`] looks at a subject and reports what it finds, with a path, a sentence and a witness. A [`Validator`]
//! runs a list of them and returns a [`Report`] of *all* violations in an order that depends on the subject alone.
//! Rules overlap: a step that waits for itself also waits for a later number. Each rule therefore says which rules
//! imply it, and the report keeps only the *primary* violations in its list; the others are in [`Report::implied`].
//!
//! A rule that could not run is in [`Report::skipped`] with its reason, never silently passed.
//!
//! # Write your own rule, with its negative control
//!
//! Own rules live in the same registry as the catalogue's. A rule without a planted defect that turns it red proves
//! nothing, so write the defect first; [`kill_matrix`](crate::mutate::kill_matrix) runs it against many valid plans.
//!
//! ```
//! use harness_props::generate::{PlanConfig, Random};
//! use harness_props::mutate::{KillMatrix, Mutator};
//! use harness_props::plan::{self, PlanValidator};
//! use harness_props::rule::{Rule, Severity};
//! use serde_json::json;
//!
//! // 1. The rule: a code of your own, a sentence, the facets it needs, and the check.
//! let two_agents = Rule::<plan::Subject>::new("X001", Severity::Error, "no agent has more than half of the steps", |plan, found| {
//!     let steps = plan.view().steps();
//!     for agent in plan.view().charter().agents.iter().map(|agent| &agent.id) {
//!         let has = steps.iter().filter(|step| step.agent.as_ref() == Some(agent)).count();
//!         if has * 2 > steps.len() {
//!             let message = format!("{agent} has {has} of {} steps", steps.len());
//!             found.add("/agents", message, json!({"agent": agent, "has": has}));
//!         }
//!     }
//! })
//! .needs(&["agent"]);
//! let validator = PlanValidator::standard().rule(two_agents);
//!
//! // 2. The negative control: break exactly this, and say where the report has to point.
//! let greedy = Mutator::new("X001", |plan: &mut plan::Plan, _: &mut Random| {
//!     let agent = plan.steps.first()?.agent.clone();
//!     plan.steps.iter_mut().for_each(|step| step.agent.clone_from(&agent));
//!     Some("/agents".to_owned())
//! });
//!
//! // 3. A hundred mutants: every one caught, none of the valid plans accused.
//! let config = PlanConfig::default().steps(8..=12).agents(6);
//! let matrix = KillMatrix::new(100, 7)
//!     .subjects(move |random| harness_props::generate::plan(&config, random))
//!     .mutator(greedy)
//!     .judge(|plan| validator.check(plan).codes("X"));
//! matrix.assert_complete();
//! ```

mod lens;
mod report;
mod validator;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use lens::{Lens, Names};
pub use report::{Report, Skipped, Violation};
pub use validator::Validator;

/// How much a violation weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; never changes a verdict.
    Info,
    /// Tolerated: the report stays valid, its outcome is degraded.
    Warning,
    /// Not tolerated.
    Error,
}

/// What rules look at, and what it can be asked for.
pub trait Subject {
    /// True when the subject carries this facet. A rule that needs a facet that is not there is skipped.
    fn supplies(&self, facet: &str) -> bool;
}

type Check<T> = Arc<dyn Fn(&T, &mut Findings) + Send + Sync>;

/// One rule: what it says, what it needs, and the check.
pub struct Rule<T> {
    code: Cow<'static, str>,
    says: Cow<'static, str>,
    severity: Severity,
    needs: &'static [&'static str],
    implied_by: &'static [&'static str],
    on: bool,
    check: Check<T>,
}

impl<T> Rule<T> {
    /// A rule with a unique code (`X001`), a severity, a sentence that says what must hold, and its check.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        severity: Severity,
        says: impl Into<Cow<'static, str>>,
        check: impl Fn(&T, &mut Findings) + Send + Sync + 'static,
    ) -> Self {
        Self {
            code: code.into(),
            says: says.into(),
            severity,
            needs: &[],
            implied_by: &[],
            on: true,
            check: Arc::new(check),
        }
    }

    /// The facets without which the rule is skipped.
    #[must_use]
    pub fn needs(mut self, facets: &'static [&'static str]) -> Self {
        self.needs = facets;
        self
    }

    /// The rules whose violation explains one of this rule at the same place.
    #[must_use]
    pub fn implied_by(mut self, codes: &'static [&'static str]) -> Self {
        self.implied_by = codes;
        self
    }

    /// Leaves the rule out of the standard set; [`Validator::allow`] switches it on.
    #[must_use]
    pub fn off(mut self) -> Self {
        self.on = false;
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What must hold.
    #[must_use]
    pub fn says(&self) -> &str {
        &self.says
    }

    /// How much a violation weighs.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The facets it needs.
    #[must_use]
    pub fn facets(&self) -> &'static [&'static str] {
        self.needs
    }

    /// The rules that explain it.
    #[must_use]
    pub fn explained_by(&self) -> &'static [&'static str] {
        self.implied_by
    }

    /// True when the standard set runs it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl<T> Clone for Rule<T> {
    fn clone(&self) -> Self {
        Self { code: self.code.clone(), says: self.says.clone(), check: Arc::clone(&self.check), ..*self }
    }
}

impl<T> fmt::Debug for Rule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.code, self.severity, self.says)
    }
}

/// What one rule finds in one subject; a check writes into it.
#[derive(Debug)]
pub struct Findings {
    pub(crate) listed: Vec<Found>,
    pub(crate) total: u64,
    pub(crate) skip: Option<String>,
    cap: usize,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) witness: Value,
    pub(crate) scope: Vec<u32>,
}

impl Findings {
    pub(crate) fn new(cap: usize) -> Self {
        Self { listed: Vec::new(), total: 0, skip: None, cap }
    }

    /// Reports a violation that concerns the whole subject.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>, witness: Value) {
        self.at(&[], || (path.into(), message.into(), witness));
    }

    /// Reports a violation that concerns these parts (step indices); the text is only made while the list has room.
    pub fn at(&mut self, scope: &[u32], text: impl FnOnce() -> (String, String, Value)) {
        self.total += 1;
        if self.listed.len() < self.cap {
            let (path, message, witness) = text();
            self.listed.push(Found { path, message, witness, scope: scope.to_vec() });
        }
    }

    /// Says that the rule cannot be judged here, and why. What was found before is dropped.
    pub fn skip(&mut self, why: impl Into<String>) {
        self.skip = Some(why.into());
    }
}

/// Something that cannot be judged at all, because it is not what it claims to be.
///
/// Rules report what is wrong *in* a subject; this error says that there is no subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    kind: RefusalKind,
    what: String,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalKind {
    /// Text that is not what it should be: torn JSON, an unknown field, a file of another version.
    Unreadable,
    /// A number that cannot be compared: not finite, out of range, too fine, overflowing.
    Number,
    /// Weights that are negative or sum to nothing.
    Weights,
    /// More parts than can be addressed, or vectors of different lengths.
    Shape,
    /// A keyword or a form that is not supported, said rather than ignored.
    Unsupported,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    /// What kind of thing was refused.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}
