//! Plans, slates and whatever else can shrink, for `proptest` (feature `proptest`).
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

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::sync::Arc;

use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::{PlanConfig, Random, SlateConfig};
use crate::mutate::{Broken, Mutator};
use crate::plan::{Interleaving, Plan, PlanModel, Policy, Subject};
use crate::shrink::Shrink;
use crate::solution::Slate;

/// Valid plans by construction: nothing is rejected. Shrunk plans need not be valid; a test of valid plans asks its
/// validator first.
#[must_use]
pub fn plans(config: PlanConfig) -> Values<Plan> {
    values(move |random| super::plan(&config, random))
}

/// Plans in which one rule is broken; where the mutator does not apply, another plan is drawn, a hundred times at most.
#[must_use]
pub fn broken_plans(config: PlanConfig, mutator: Mutator<Plan>) -> Values<Plan> {
    plans(config).broken_by(mutator)
}

/// Valid slates by construction; shrunk ones need not be.
#[must_use]
pub fn slates(config: SlateConfig) -> Values<Slate> {
    values(move |random| super::slate(&config, random))
}

/// Sets of these names, each in half of them: agents that fail, fields that are deleted.
#[must_use]
pub fn subsets(names: impl IntoIterator<Item = impl Into<String>>) -> Values<BTreeSet<String>> {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    values(move |random| names.iter().filter(|_| random.percent(50)).cloned().collect())
}

/// Values that some function draws, shrunk by their structure: `values(drill)`, `values(series)`, `values(timeline)`,
/// sequences of commands for a system that is held against its [`Automaton`](crate::model::Automaton).
#[must_use]
pub fn values<S>(draw: impl Fn(&mut Random) -> S + Send + Sync + 'static) -> Values<S> {
    Values { draw: Arc::new(draw), broken: None }
}

type Draw<S> = Arc<dyn Fn(&mut Random) -> S + Send + Sync>;

/// A strategy of values that shrink by their structure.
pub struct Values<S> {
    draw: Draw<S>,
    broken: Option<Mutator<S>>,
}

impl<S> Values<S> {
    /// Breaks one rule in each; where the mutator does not apply, another one is drawn, a hundred times at most.
    #[must_use]
    pub fn broken_by(self, mutator: Mutator<S>) -> Self {
        Self { broken: Some(mutator), ..self }
    }
}

impl<S> Clone for Values<S> {
    fn clone(&self) -> Self {
        Self { draw: Arc::clone(&self.draw), broken: self.broken.clone() }
    }
}

impl<S> Debug for Values<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl<S: Shrink + Debug> Strategy for Values<S> {
    type Tree = Tree<S>;
    type Value = S;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut random = Random::new(seed(runner));
        let value = match &self.broken {
            None => (self.draw)(&mut random),
            Some(mutator) => (0..100)
                .find_map(|_| {
                    let value = (self.draw)(&mut random);
                    mutator.broken(&value, &mut random).map(|broken: Broken<S>| broken.subject)
                })
                .ok_or_else(|| format!("{mutator:?} applies to none of a hundred values"))?,
        };
        Ok(Tree { best: value.clone(), current: value, candidates: Vec::new().into_iter() })
    }
}

fn seed(runner: &mut TestRunner) -> u64 {
    use proptest::prelude::Rng as _;
    runner.rng().next_u64()
}

/// Shrinks a value by its structure: parts go, as [`Shrink`] says.
#[derive(Debug)]
pub struct Tree<S> {
    best: S,
    current: S,
    candidates: std::vec::IntoIter<S>,
}

impl<S: Clone> Tree<S> {
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

impl<S: Shrink + Debug> ValueTree for Tree<S> {
    type Value = S;

    fn current(&self) -> S {
        self.current.clone()
    }

    fn simplify(&mut self) -> bool {
        self.best.clone_from(&self.current);
        let size = self.best.size();
        let smaller: Vec<S> = self.best.smaller().into_iter().filter(|smaller| smaller.size() < size).collect();
        self.candidates = smaller.into_iter();
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

#[cfg(test)]
mod tests {
    use super::{broken_plans, runs, slates, subsets};
    use crate::generate::{PlanConfig, SlateConfig};
    use crate::mutate::{plans, slates as mutators};
    use crate::plan::{Plan, PlanValidator};
    use crate::solution::{Slate, SlateValidator};
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::{Config, TestRunner};

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
    fn broken_slates_and_sets_shrink_and_keep_their_failure() {
        let mutator = mutators().into_iter().find(|mutator| mutator.code() == "S010").unwrap();
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let validator = SlateValidator::standard();
        let fails = |slate: &Slate| validator.check(slate).primary().contains("S010");
        let mut tree = slates(SlateConfig::default().plans(false)).broken_by(mutator).new_tree(&mut runner).unwrap();
        assert!(fails(&tree.current()));
        let mut on = tree.simplify();
        while on {
            on = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        let least = tree.current();
        assert!(fails(&least) && least.solutions.len() == 1 && least.constraints.len() == 1, "{least:?}");
        let pair = |set: &std::collections::BTreeSet<String>| set.contains("a") && set.contains("c");
        let mut tree = std::iter::repeat_with(|| subsets(["a", "b", "c", "d"]).new_tree(&mut runner).unwrap())
            .find(|tree| pair(&tree.current()))
            .unwrap();
        let mut on = tree.simplify();
        while on {
            on = if pair(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        assert_eq!(tree.current().into_iter().collect::<Vec<_>>(), ["a", "c"]);
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
