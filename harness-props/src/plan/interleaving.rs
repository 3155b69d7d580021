//! Runs of a plan in every order that its dependencies allow, with a failure injected and everything taken back.

use std::fmt::Debug;

use super::view::Subject;
use crate::generate::Random;

/// A system that does and takes back the steps of a plan; `step` is the index in list order.
pub trait Workflow {
    /// What it changes.
    type State: Clone + PartialEq + Debug;

    /// The state before the first step.
    fn begin(&self) -> Self::State;

    /// Does a step.
    ///
    /// # Errors
    /// The step cannot be done in this state: what it waits for was not declared.
    fn apply(&self, state: &mut Self::State, step: usize) -> Result<(), String>;

    /// Takes a step back.
    ///
    /// # Errors
    /// It cannot be taken back in this state.
    fn take_back(&self, state: &mut Self::State, step: usize) -> Result<(), String>;

    /// True when a step cannot be taken back: then only what came after it is.
    fn is_pivot(&self, _step: usize) -> bool {
        false
    }
}

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The steps that were done, in order.
    pub done: Vec<usize>,
    /// The step that was made to fail, if one was.
    pub injected: Option<usize>,
    /// What went wrong.
    pub why: String,
}

/// One order of the steps, and how many are done before the next one fails; all of them if it is the number of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interleaving {
    /// Steps in the order in which they are done.
    pub order: Vec<usize>,
    /// How many are done.
    pub done: usize,
}

impl Interleaving {
    /// A random order that keeps the dependencies, with a failure at a random place (or none); nothing for a plan
    /// with a cycle.
    #[must_use]
    pub fn random(plan: &Subject, random: &mut Random) -> Option<Self> {
        plan.order().sequence()?;
        let count = plan.view().len();
        let mut order = Vec::with_capacity(count);
        let mut placed = vec![false; count];
        while order.len() < count {
            let ready = ready(plan, &placed);
            let step = *random.pick(&ready)?;
            placed[step] = true;
            order.push(step);
        }
        let done = random.below(count as u64 + 1) as usize;
        Some(Self { order, done })
    }

    /// Does the first steps, takes them back in reverse order down to the last pivot, and compares the states.
    ///
    /// # Errors
    /// A step that could not be done or taken back, or a state that differs from the one before.
    pub fn run<W: Workflow>(&self, workflow: &W) -> Result<(), Failure> {
        let done = &self.order[..self.done.min(self.order.len())];
        let injected = self.order.get(self.done).copied();
        let failure = |done: &[usize], why: String| Failure { done: done.to_vec(), injected, why };
        let mut state = workflow.begin();
        let (mut target, mut since) = (state.clone(), 0);
        for (at, step) in done.iter().enumerate() {
            workflow
                .apply(&mut state, *step)
                .map_err(|why| failure(&done[..at], format!("step {step} could not be done: {why}")))?;
            if workflow.is_pivot(*step) {
                (target, since) = (state.clone(), at + 1);
            }
        }
        if injected.is_none() {
            return Ok(());
        }
        for step in done[since..].iter().rev() {
            workflow
                .take_back(&mut state, *step)
                .map_err(|why| failure(done, format!("step {step} could not be taken back: {why}")))?;
        }
        if state != target {
            return Err(failure(done, format!("the state is {state:?}, but was {target:?}")));
        }
        Ok(())
    }
}

fn ready(plan: &Subject, placed: &[bool]) -> Vec<usize> {
    (0..placed.len()).filter(|step| !placed[*step] && plan.view().after(*step).all(|on| placed[on])).collect()
}

/// Every order that keeps the dependencies with every place of failure, at most `limit` of them; none with a cycle.
#[must_use]
pub fn interleavings(plan: &Subject, limit: usize) -> Vec<Interleaving> {
    let count = plan.view().len();
    let mut all = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(order) = open.pop() {
        if order.len() == count {
            for done in 0..=count {
                if all.len() == limit {
                    return all;
                }
                all.push(Interleaving { order: order.clone(), done });
            }
            continue;
        }
        let mut placed = vec![false; count];
        order.iter().for_each(|step: &usize| placed[*step] = true);
        for step in ready(plan, &placed).into_iter().rev() {
            let mut longer = order.clone();
            longer.push(step);
            open.push(longer);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{Interleaving, Workflow, interleavings};
    use crate::generate::Random;
    use crate::plan::{Plan, PlanModel, Policy, Step, Subject};

    /// A ledger of done steps; `sloppy` leaves one behind.
    struct Shelf {
        sloppy: Option<usize>,
    }

    impl Workflow for Shelf {
        type State = Vec<usize>;
        fn begin(&self) -> Vec<usize> {
            Vec::new()
        }
        fn apply(&self, state: &mut Vec<usize>, step: usize) -> Result<(), String> {
            state.push(step);
            Ok(())
        }
        fn take_back(&self, state: &mut Vec<usize>, step: usize) -> Result<(), String> {
            if self.sloppy == Some(step) {
                return Ok(());
            }
            (state.pop() == Some(step)).then_some(()).ok_or_else(|| "not the last".to_owned())
        }
    }

    fn diamond() -> Subject {
        let step = |id: &str, after: &[&str]| Step {
            id: id.into(),
            after: after.iter().map(|on| (*on).into()).collect(),
            ..Step::default()
        };
        let steps = vec![step("d", &["b", "c"]), step("b", &["a"]), step("c", &["a"]), step("a", &[])];
        Subject::new(Plan { steps, ..Plan::default() }.view().unwrap(), Policy::default())
    }

    #[test]
    fn every_order_and_every_failure_is_run_once() {
        let all = interleavings(&diamond(), usize::MAX);
        assert_eq!(all.len(), 2 * 5, "two orders, failing after 0 to 4 steps");
        assert!(all.iter().all(|run| run.run(&Shelf { sloppy: None }).is_ok()));
        let caught = all.iter().filter(|run| run.run(&Shelf { sloppy: Some(2) }).is_err()).count();
        assert_eq!(caught, 3, "`c` is done before the failure in three of them");
    }

    #[test]
    fn random_orders_keep_the_dependencies() {
        let mut random = Random::new(3);
        for _ in 0..100 {
            let run = Interleaving::random(&diamond(), &mut random).unwrap();
            assert!(run.order == [3, 1, 2, 0] || run.order == [3, 2, 1, 0], "{run:?}");
        }
    }
}
