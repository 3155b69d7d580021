//! The smallest schedule that still fails.

use std::time::Duration;

use super::{Schedule, Step};

/// Faults are not made shorter than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// What shrinking a schedule came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShrunkSchedule {
    /// The smallest failing schedule that was found.
    pub schedule: Schedule,
    /// How often it was asked whether a schedule fails.
    pub calls: usize,
    /// True when nothing makes it smaller; false when the budget ended first, or the schedule did not fail to begin with.
    pub is_minimal: bool,
}

impl Schedule {
    /// Shrinks a failing schedule within a budget of runs: first steps are left out, then faults made shorter, then begun
    /// earlier. `fails` runs the system under a schedule on a fresh state.
    pub async fn shrink(&self, budget: usize, fails: impl AsyncFnMut(&Self) -> bool) -> ShrunkSchedule {
        let mut search = Search { best: self.clone(), calls: 0, budget, fails };
        if !search.asks(self).await {
            return ShrunkSchedule { schedule: self.clone(), calls: search.calls, is_minimal: false };
        }
        while search.leaves_out().await || search.shortens().await || search.begins_earlier().await {}
        ShrunkSchedule { is_minimal: !search.is_spent(), calls: search.calls, schedule: search.best }
    }
}

struct Search<F> {
    best: Schedule,
    calls: usize,
    budget: usize,
    fails: F,
}

impl<F: AsyncFnMut(&Schedule) -> bool> Search<F> {
    fn is_spent(&self) -> bool {
        self.calls >= self.budget
    }

    async fn asks(&mut self, candidate: &Schedule) -> bool {
        if self.is_spent() {
            return false;
        }
        self.calls += 1;
        (self.fails)(candidate).await
    }

    /// Takes the best with its steps changed, if that still fails.
    async fn takes(&mut self, change: impl FnOnce(&mut Vec<Step>)) -> bool {
        let mut steps = self.best.steps.clone();
        change(&mut steps);
        // A change of a valid schedule that only shortens, moves or removes is valid.
        let Ok(candidate) = Schedule::of(steps) else { return false };
        let takes = candidate != self.best && self.asks(&candidate).await;
        if takes {
            self.best = candidate;
        }
        takes
    }

    /// Leaves out chunks of steps, halving them.
    async fn leaves_out(&mut self) -> bool {
        let (mut any, mut chunk) = (false, self.best.steps.len());
        while chunk > 0 {
            let mut at = 0;
            while at < self.best.steps.len() {
                let end = (at + chunk).min(self.best.steps.len());
                if self.takes(|steps| drop(steps.drain(at..end))).await { any = true } else { at = end }
            }
            chunk /= 2;
        }
        any
    }

    /// Halves how long faults last, from either end.
    async fn shortens(&mut self) -> bool {
        let mut any = false;
        let half = |step: &Step| {
            let lasts = step.until - step.at;
            (lasts / 2).max(SHORTEST.min(lasts))
        };
        for n in 0..self.best.steps.len() {
            any |= self.takes(|steps| steps[n].until = steps[n].at + half(&steps[n])).await
                || self.takes(|steps| steps[n].at = steps[n].until - half(&steps[n])).await;
        }
        any
    }

    /// Halves how late faults begin, to the millisecond.
    async fn begins_earlier(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.best.steps.len() {
            let earlier = |steps: &mut Vec<Step>| {
                let step = &mut steps[n];
                let lasts = step.until - step.at;
                step.at = Duration::from_millis(step.at.as_millis() as u64 / 2);
                step.until = step.at + lasts;
            };
            any |= self.takes(earlier).await;
        }
        any
    }
}
