//! Plans for `proptest`, shrunk structurally, and failures kept as values (feature `proptest`).
//!
//! ```
//! use harness_props::generate::{PlanConfig, plans};
//! use harness_props::plan::PlanValidator;
//! use proptest::prelude::*;
//!
//! proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) }, |(plan in plans(PlanConfig::default()))| {
//!     prop_assert!(PlanValidator::standard().check(&plan).is_valid());
//! });
//! ```

use std::fmt::Debug;
use std::path::Path;

use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde::{Deserialize, Serialize};

use super::{PlanConfig, Random};
use crate::mutate::{Broken, Mutator};
use crate::plan::{Interleaving, Plan, PlanModel, Policy, Subject};
use crate::rule::{Refusal, RefusalKind};
use crate::shrink;

/// Valid plans by construction: nothing is rejected. Shrunk plans need not be valid; a test of valid plans asks its
/// validator first.
#[must_use]
pub fn plans(config: PlanConfig) -> Plans {
    Plans { config, broken: None }
}

/// Plans in which one rule is broken; where the mutator does not apply, another plan is drawn, a hundred times at most.
#[must_use]
pub fn broken_plans(config: PlanConfig, mutator: Mutator<Plan>) -> Plans {
    Plans { config, broken: Some(mutator) }
}

/// A strategy of plans.
#[derive(Debug, Clone)]
pub struct Plans {
    config: PlanConfig,
    broken: Option<Mutator<Plan>>,
}

impl Strategy for Plans {
    type Tree = PlanTree;
    type Value = Plan;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut random = Random::new(seed(runner));
        let draw = |random: &mut Random| super::plan(&self.config, random);
        let plan = match &self.broken {
            None => draw(&mut random),
            Some(mutator) => (0..100)
                .find_map(|_| {
                    let plan = draw(&mut random);
                    mutator.broken(&plan, &mut random).map(|broken: Broken<Plan>| broken.subject)
                })
                .ok_or_else(|| format!("{mutator:?} applies to none of a hundred plans"))?,
        };
        Ok(PlanTree { best: plan.clone(), current: plan, candidates: Vec::new().into_iter() })
    }
}

fn seed(runner: &mut TestRunner) -> u64 {
    use proptest::prelude::Rng as _;
    runner.rng().next_u64()
}

/// Shrinks a plan by its structure: steps and dependencies go, steps are contracted, content is dropped.
#[derive(Debug)]
pub struct PlanTree {
    best: Plan,
    current: Plan,
    candidates: std::vec::IntoIter<Plan>,
}

impl PlanTree {
    fn next(&mut self) -> bool {
        match self.candidates.next() {
            Some(candidate) => {
                self.current = candidate;
                true
            }
            None => {
                self.current.clone_from(&self.best);
                false
            }
        }
    }
}

impl ValueTree for PlanTree {
    type Value = Plan;

    fn current(&self) -> Plan {
        self.current.clone()
    }

    fn simplify(&mut self) -> bool {
        self.best.clone_from(&self.current);
        self.candidates = shrink::candidates(&self.best).into_iter();
        self.next()
    }

    fn complicate(&mut self) -> bool {
        self.next()
    }
}

/// Runs of a plan in random orders that keep its dependencies, each failing at some place: the transitions of a state
/// machine. They shrink towards the earliest failure.
#[must_use]
pub fn runs(plan: &Plan) -> Runs {
    Runs { plan: plan.clone() }
}

/// A strategy of runs of a plan.
#[derive(Debug, Clone)]
pub struct Runs {
    plan: Plan,
}

impl Strategy for Runs {
    type Tree = RunTree;
    type Value = Interleaving;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let view = self.plan.view().map_err(|refusal| refusal.to_string())?;
        let subject = Subject::new(view, Policy::default());
        let run = Interleaving::random(&subject, &mut Random::new(seed(runner))).ok_or("the plan has a cycle")?;
        Ok(RunTree { least: 0, run })
    }
}

/// Shrinks a run by halving the number of steps done before the failure.
#[derive(Debug)]
pub struct RunTree {
    least: usize,
    run: Interleaving,
}

impl ValueTree for RunTree {
    type Value = Interleaving;

    fn current(&self) -> Interleaving {
        self.run.clone()
    }

    fn simplify(&mut self) -> bool {
        // A run without a failure takes nothing back: it is no simpler than any other.
        let smaller = self.run.done > self.least;
        self.run.done -= usize::from(smaller);
        smaller
    }

    fn complicate(&mut self) -> bool {
        self.run.done += 1;
        self.least = self.run.done;
        false
    }
}

/// Version of the failure file's form.
const VERSION: u32 = 1;

/// Failures kept as values: they stay what they are when generators change, and can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    version: u32,
    /// Smallest failing plans, oldest first.
    pub plans: Vec<Plan>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { version: VERSION, plans: Vec::new() }
    }
}

impl Failures {
    /// Reads the text of a failure file.
    ///
    /// # Errors
    /// Text that is no failure file of this version: an old failure that cannot be replayed is said, not skipped.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refused = |why: String| Refusal::new(RefusalKind::Unreadable, format!("not a failure file: {why}"));
        let read: Self = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        match read.version {
            VERSION => Ok(read),
            other => Err(refused(format!("version {other}, not {VERSION}"))),
        }
    }

    /// Adds a failure unless it is there.
    pub fn add(&mut self, plan: Plan) {
        if !self.plans.contains(&plan) {
            self.plans.push(plan);
        }
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Tests a property of plans: first on the failures of earlier runs that `file` holds, then on new plans. A new
/// failure is shrunk and written to the file.
///
/// # Panics
/// When the property fails, or the file cannot be read or written: this is a test.
#[track_caller]
pub fn check_plans<E: Debug>(file: &Path, cases: u32, config: PlanConfig, property: impl Fn(&Plan) -> Result<(), E>) {
    let mut known = match std::fs::read_to_string(file) {
        Ok(text) => Failures::parse(&text).unwrap_or_else(|refusal| panic!("{}: {refusal}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Failures::default(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    for plan in &known.plans {
        if let Err(why) = property(plan) {
            panic!("a known failure of {} still fails: {why:?}\n{}", file.display(), plan.to_json());
        }
    }
    let runner = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let outcome = TestRunner::new(runner)
        .run(&plans(config), |plan| property(&plan).map_err(|why| TestCaseError::fail(format!("{why:?}"))));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, plan)) => {
            known.add(plan.clone());
            let kept = std::fs::write(file, known.text());
            panic!("{why}\nsmallest failing plan, kept in {} ({kept:?}):\n{}", file.display(), plan.to_json());
        }
        Err(TestError::Abort(why)) => panic!("the test was given up: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Failures, broken_plans, check_plans, runs};
    use crate::generate::PlanConfig;
    use crate::mutate::plans;
    use crate::plan::{Plan, PlanValidator};
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::{Config, TestRunner};

    #[test]
    fn failures_are_kept_as_values_and_replayed_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plans.json");
        let small = |plan: &Plan| if plan.steps.len() < 3 { Ok(()) } else { Err("three steps") };
        let config = PlanConfig::default().steps(1..=12);
        let first = std::panic::catch_unwind(|| check_plans(&file, 200, config.clone(), small));
        assert!(first.is_err(), "the property does not hold");
        let kept = Failures::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(kept.plans[0].steps.len(), 3, "shrunk to the least");
        let again = std::panic::catch_unwind(|| check_plans(&file, 0, config.clone(), small));
        let why = *again.unwrap_err().downcast::<String>().unwrap();
        assert!(why.starts_with("a known failure"), "{why}");
        check_plans(&file, 200, config, |_| Ok::<(), ()>(()));
        assert!(Failures::parse("{\"version\":2,\"plans\":[]}").is_err() && Failures::parse("").is_err());
    }

    #[test]
    fn broken_plans_shrink_and_keep_their_failure() {
        let cycle = plans().into_iter().find(|mutator| mutator.code() == "P009").unwrap();
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let validator = PlanValidator::standard();
        let fails = |plan: &Plan| validator.check(plan).primary().contains("P009");
        for _ in 0..20 {
            let mut tree =
                broken_plans(PlanConfig::default().steps(4..=12), cycle.clone()).new_tree(&mut runner).unwrap();
            assert!(fails(&tree.current()));
            let mut on = tree.simplify();
            while on {
                on = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
            }
            assert!(fails(&tree.current()) && tree.current().steps.len() == 2, "{}", tree.current().to_json());
        }
    }

    #[test]
    fn runs_shrink_to_the_earliest_failure() {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let plan = crate::generate::plan(&PlanConfig::default().steps(8..=8), &mut crate::generate::Random::new(1));
        let mut tree = runs(&plan).new_tree(&mut runner).unwrap();
        while tree.current().done < 3 {
            tree = runs(&plan).new_tree(&mut runner).unwrap();
        }
        let fails = |done: usize| done >= 3;
        let mut on = tree.simplify();
        while on {
            on = if fails(tree.current().done) { tree.simplify() } else { tree.complicate() };
        }
        assert_eq!(tree.current().done, 3);
    }
}
