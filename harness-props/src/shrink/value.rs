//! The smallest value of any kind that still fails: slates, drills, series, timelines, sequences of commands, sets.
//!
//! ```
//! use std::collections::BTreeSet;
//! use harness_props::shrink;
//!
//! // Only these two together are not handled.
//! let fails = |failed: &BTreeSet<u32>| failed.contains(&2) && failed.contains(&5);
//! let least = shrink::value(&(0..8).collect(), fails);
//! assert_eq!(least.value, BTreeSet::from([2, 5]));
//! assert!(least.is_minimal);
//! ```

use std::collections::BTreeSet;

use super::BUDGET;
use crate::plan::Plan;
use crate::solution::{Drill, Series, Slate, Solution, Timeline};

/// A value that knows how to become smaller.
pub trait Shrink: Clone {
    /// How big it is: what shrinking makes less of.
    fn size(&self) -> usize;

    /// Values of less size, each one step away, most promising first.
    fn smaller(&self) -> Vec<Self>;
}

/// What shrinking came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Least<S> {
    /// The smallest failing value found.
    pub value: S,
    /// How often the failure was asked for.
    pub calls: usize,
    /// True when nothing one step smaller fails; false when the budget ended first, or the value did not fail to begin with.
    pub is_minimal: bool,
}

/// Shrinks a failing value within [`BUDGET`] calls. One that does not fail to begin with comes back as it is.
pub fn value<S: Shrink>(failing: &S, mut fails: impl FnMut(&S) -> bool) -> Least<S> {
    let mut least = Least { value: failing.clone(), calls: 1, is_minimal: false };
    if !fails(failing) {
        return least;
    }
    'smaller: loop {
        let size = least.value.size();
        for candidate in least.value.smaller().into_iter().filter(|candidate| candidate.size() < size) {
            if least.calls >= BUDGET {
                return least;
            }
            least.calls += 1;
            if fails(&candidate) {
                least.value = candidate;
                continue 'smaller;
            }
        }
        least.is_minimal = true;
        return least;
    }
}

/// Lists without chunks of it: all of it, halves, quarters, down to single ones.
fn without<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    let mut chunk = list.len();
    while chunk > 0 {
        let starts = (0..list.len()).step_by(chunk);
        all.extend(starts.map(|at| [&list[..at], &list[(at + chunk).min(list.len())..]].concat()));
        chunk /= 2;
    }
    all
}

impl<T: Clone> Shrink for Vec<T> {
    fn size(&self) -> usize {
        self.len()
    }

    fn smaller(&self) -> Vec<Self> {
        without(self)
    }
}

impl<T: Clone + Ord> Shrink for BTreeSet<T> {
    fn size(&self) -> usize {
        self.len()
    }

    fn smaller(&self) -> Vec<Self> {
        let list: Vec<T> = self.iter().cloned().collect();
        without(&list).into_iter().map(|list| list.into_iter().collect()).collect()
    }
}

/// Steps, dependencies and what else there is, in one number.
impl Shrink for Plan {
    fn size(&self) -> usize {
        let (steps, links, rest, _) = super::size(self);
        (steps << 40) + (links.min(0xf_ffff) << 20) + rest.min(0xf_ffff)
    }

    fn smaller(&self) -> Vec<Self> {
        super::candidates(self)
    }
}

/// One candidate per part that is there: the whole without it.
fn dropped<S: Clone>(whole: &S, parts: &[fn(&mut S)]) -> Vec<S> {
    let drop = |part: &fn(&mut S)| {
        let mut smaller = whole.clone();
        part(&mut smaller);
        smaller
    };
    parts.iter().map(drop).collect()
}

impl Shrink for Solution {
    fn size(&self) -> usize {
        let options = [
            self.composite.is_some(),
            self.rank.is_some(),
            self.confidence.is_some(),
            self.full_confidence.is_some(),
            self.totals.is_some(),
        ];
        let lists = [self.scores.len(), self.breakdown.len(), self.margins.len(), self.uncertainty.len()];
        let trade_off = self.trade_off.as_ref().map_or(0, |trade_off| 1 + trade_off.objectives.len());
        let plan = self.plan.as_ref().map_or(0, |plan| {
            let (steps, links, rest, _) = super::size(plan);
            1 + steps + links + rest
        });
        1 + options.iter().filter(|there| **there).count() + lists.iter().sum::<usize>() + trade_off + plan
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all = dropped(
            self,
            &[
                |one| one.plan = None,
                |one| one.totals = None,
                |one| one.breakdown.clear(),
                |one| one.trade_off = None,
                |one| one.uncertainty.clear(),
                |one| (one.confidence, one.full_confidence) = (None, None),
                |one| one.confidence = None,
                |one| one.full_confidence = None,
                |one| one.composite = None,
                |one| one.rank = None,
                |one| one.margins.clear(),
                |one| one.scores.clear(),
            ],
        );
        let margins = self.margins.keys().map(|id| {
            let mut one = self.clone();
            one.margins.remove(id);
            one
        });
        all.extend(margins);
        if let Some(plan) = &self.plan {
            all.extend(super::candidates(plan).into_iter().map(|plan| Self { plan: Some(plan), ..self.clone() }));
        }
        all
    }
}

impl Shrink for Slate {
    fn size(&self) -> usize {
        let options = [
            self.decimals.is_some(),
            self.most.is_some(),
            self.recommended.is_some(),
            self.fallback,
            self.reasoning.is_some(),
            self.epsilon.is_some(),
            self.noise.is_some(),
            self.hypervolume.is_some(),
        ];
        let lists = [
            self.objectives.len(),
            self.tie_break.len(),
            self.constraints.len(),
            self.overrides.len(),
            self.conflict.len(),
            self.missing.len(),
            self.warnings.len(),
        ];
        let solutions =
            self.solutions.iter().chain(&self.rejected).chain(&self.others).map(Shrink::size).sum::<usize>();
        options.iter().filter(|there| **there).count() + lists.iter().sum::<usize>() + solutions
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all = dropped(
            self,
            &[
                |slate| slate.rejected.clear(),
                |slate| slate.others.clear(),
                |slate| slate.overrides.clear(),
                |slate| (slate.missing.clear(), slate.warnings.clear()).0,
                |slate| (slate.conflict.clear(), slate.reasoning = None).0,
                |slate| slate.constraints.clear(),
                |slate| slate.objectives.clear(),
                |slate| slate.tie_break.clear(),
                |slate| slate.warnings.clear(),
                |slate| slate.missing.clear(),
                |slate| slate.reasoning = None,
                |slate| slate.fallback = false,
                |slate| slate.recommended = None,
                |slate| (slate.epsilon, slate.noise, slate.hypervolume) = (None, None, None),
                |slate| slate.epsilon = None,
                |slate| slate.noise = None,
                |slate| slate.hypervolume = None,
                |slate| slate.decimals = None,
                |slate| slate.most = None,
            ],
        );
        // Without one solution the others keep their order: ranks move up.
        for at in 0..self.solutions.len() {
            let mut slate = self.clone();
            let gone = slate.solutions.remove(at).rank;
            for rank in slate.solutions.iter_mut().filter_map(|one| one.rank.as_mut()) {
                *rank -= i64::from(gone.is_some_and(|gone| *rank > gone));
            }
            all.push(slate);
        }
        // An objective or a constraint goes with everything that is said about it.
        for name in self.objectives.iter().map(|objective| &objective.name) {
            let mut slate = self.clone();
            slate.objectives.retain(|objective| objective.name != *name);
            each(&mut slate, |one| {
                one.scores.remove(name);
            });
            all.push(slate);
        }
        for id in self.constraints.iter().map(|constraint| &constraint.id) {
            let mut slate = self.clone();
            slate.constraints.retain(|constraint| constraint.id != *id);
            slate.conflict.retain(|other| other != id);
            each(&mut slate, |one| {
                one.margins.remove(id);
            });
            all.push(slate);
        }
        type List = fn(&mut Slate) -> &mut Vec<Solution>;
        let lists: [List; 3] = [|slate| &mut slate.solutions, |slate| &mut slate.rejected, |slate| &mut slate.others];
        for list in lists {
            let own = list(&mut self.clone()).clone();
            // The same part of all at once, then of each alone.
            let parts: Vec<Vec<Solution>> = own.iter().map(Shrink::smaller).collect();
            for part in 0..parts.iter().map(Vec::len).min().unwrap_or(0).min(12) {
                let mut slate = self.clone();
                *list(&mut slate) = parts.iter().map(|parts| parts[part].clone()).collect();
                all.push(slate);
            }
            for (at, parts) in parts.into_iter().enumerate() {
                for part in parts {
                    let mut slate = self.clone();
                    list(&mut slate)[at] = part;
                    all.push(slate);
                }
            }
        }
        all
    }
}

fn each(slate: &mut Slate, change: impl Fn(&mut Solution)) {
    slate.solutions.iter_mut().chain(&mut slate.rejected).chain(&mut slate.others).for_each(change);
}

/// Trials first, then agents with everything that is said about them.
impl Shrink for Drill {
    fn size(&self) -> usize {
        let trials = self.trials.iter().map(|trial| 1 + trial.failed.len() + trial.audit.len()).sum::<usize>();
        trials + self.recommendations.len()
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Self> =
            without(&self.trials).into_iter().map(|trials| Self { trials, ..self.clone() }).collect();
        let agents: BTreeSet<&String> =
            self.recommendations.keys().chain(self.trials.iter().flat_map(|trial| &trial.failed)).collect();
        for agent in agents {
            let mut drill = self.clone();
            drill.recommendations.remove(agent);
            for trial in &mut drill.trials {
                trial.failed.remove(agent);
                trial.audit.retain(|listed| listed != agent);
            }
            all.push(drill);
            let mut silent = self.clone();
            silent.recommendations.remove(agent);
            all.push(silent);
        }
        all
    }
}

impl Shrink for Series {
    fn size(&self) -> usize {
        self.answers.iter().map(|answer| 1 + answer.missing.len() + answer.uncertainty.len()).sum()
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Self> = without(&self.answers).into_iter().map(|answers| Self { answers }).collect();
        let inputs: BTreeSet<&String> = self.answers.iter().flat_map(|answer| &answer.missing).collect();
        for input in inputs {
            let mut series = self.clone();
            series.answers.iter_mut().for_each(|answer| {
                answer.missing.remove(input);
            });
            all.push(series);
        }
        let mut silent = self.clone();
        silent.answers.iter_mut().for_each(|answer| answer.uncertainty.clear());
        all.push(silent);
        all
    }
}

impl Shrink for Timeline {
    fn size(&self) -> usize {
        let of = |budget: &Option<u64>| usize::from(budget.is_some());
        let phase =
            |phase: &crate::solution::Phase| 1 + phase.agents.len() + of(&phase.budget_ms) + of(&phase.overlap_percent);
        self.phases.iter().map(phase).sum()
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all: Vec<Self> =
            without(&self.phases).into_iter().map(|phases| Self { phases, ..self.clone() }).collect();
        for at in 0..self.phases.len() {
            for part in [
                |one: &mut crate::solution::Phase| one.budget_ms = None,
                |one: &mut crate::solution::Phase| (one.overlap_percent = None, one.agents.clear()).0,
            ] {
                let mut timeline = self.clone();
                part(&mut timeline.phases[at]);
                all.push(timeline);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Shrink, value};
    use crate::generate::{Random, SlateConfig, drill, series, slate, timeline};
    use crate::mutate::{Mutator, drills, series as of_series, slates, timelines};
    use crate::rule::{Rule, Subject, Validator};
    use crate::solution::{Slate, SlateValidator, Trial, drill_rules, rules, series_rules, timeline_rules};

    /// A mutant of each rule, shrunk while exactly its rule stays primary; the biggest that is left.
    fn biggest<S: Shrink + Subject>(
        all: Vec<Rule<S>>,
        mutators: &[Mutator<S>],
        draw: impl Fn(&mut Random) -> S,
    ) -> (usize, usize) {
        let validator = Validator::new(all);
        let mut random = Random::new(51);
        let (mut before, mut after) = (0, 0);
        for mutator in mutators {
            let broken = (0..400).find_map(|_| mutator.broken(&draw(&mut random), &mut random));
            let broken = broken.unwrap_or_else(|| panic!("{} never applied", mutator.code())).subject;
            let fails = |one: &S| validator.check(one).primary().contains(mutator.code());
            let least = value(&broken, fails);
            assert!(least.is_minimal && fails(&least.value), "{}: {} calls", mutator.code(), least.calls);
            before = before.max(broken.size());
            after = after.max(least.value.size());
        }
        (before, after)
    }

    #[test]
    fn counterexamples_of_every_rule_shrink_to_a_few_parts() {
        let config = SlateConfig::default().plans(false);
        let without_plans: Vec<Mutator<Slate>> =
            slates().into_iter().filter(|mutator| !["S040", "S041"].contains(&mutator.code())).collect();
        let (before, after) = biggest(rules(), &without_plans, move |random| slate(&config, random));
        assert!(before > 60 && after <= 24, "slates: {before} to {after}");
        let (before, after) = biggest(drill_rules(), &drills(), drill);
        assert!(before > 100 && after <= 6, "drills: {before} to {after}");
        let (before, after) = biggest(series_rules(), &of_series(), series);
        assert!(before > 20 && after <= 3, "series: {before} to {after}");
        let (before, after) = biggest(timeline_rules(), &timelines(), timeline);
        assert!(before > 8 && after <= 5, "timelines: {before} to {after}");
    }

    #[test]
    fn what_is_taken_out_of_a_slate_leaves_no_gap_and_no_trace() {
        let config = SlateConfig::default().solutions(4..=4).plans(false);
        let whole = slate(&config, &mut Random::new(54));
        let all = whole.smaller();
        let fewer: Vec<&Slate> = all.iter().filter(|slate| slate.solutions.len() == 3).collect();
        assert_eq!(fewer.len(), 4, "without each of the four");
        for slate in fewer {
            let mut ranks: Vec<i64> = slate.solutions.iter().filter_map(|one| one.rank).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, [1, 2, 3]);
        }
        let gone = |slate: &&Slate| slate.objectives.len() + 1 == whole.objectives.len();
        assert_eq!(all.iter().filter(gone).count(), whole.objectives.len());
        for slate in all.iter().filter(gone) {
            let named: BTreeSet<&String> = slate.solutions.iter().flat_map(|one| one.scores.keys()).collect();
            let kept: BTreeSet<&String> = slate.objectives.iter().map(|objective| &objective.name).collect();
            assert_eq!(named, kept);
        }
    }

    #[test]
    fn a_plan_within_a_slate_shrinks_too() {
        let config = SlateConfig::default().solutions(1..=1);
        let validator = SlateValidator::standard();
        let mut random = Random::new(52);
        let mutator = slates().into_iter().find(|mutator| mutator.code() == "S040").unwrap();
        let broken = (0..100).find_map(|_| mutator.broken(&slate(&config, &mut random), &mut random)).unwrap().subject;
        let stranger =
            |slate: &Slate| validator.check(slate).codes("S040").iter().any(|(_, at)| at.ends_with("/agent"));
        let least = value(&broken, stranger).value;
        assert_eq!(
            (least.solutions.len(), least.solutions[0].plan.as_ref().map(|plan| plan.steps.len())),
            (1, Some(1))
        );
        assert!(least.objectives.is_empty() && least.constraints.is_empty() && least.rejected.is_empty());
    }

    /// A system that forgets one combination: the map and the clock away, but the crew there.
    fn answer(failed: &BTreeSet<String>) -> Trial {
        let has = |agent: &str| failed.contains(agent);
        let answer = (!(has("map") && has("clock"))).then(|| vec![5]);
        Trial { failed: failed.clone(), answer, audit: failed.iter().cloned().collect(), ..Trial::default() }
    }

    #[test]
    fn a_combination_that_nobody_handles_is_found_and_shrunk() {
        let agents = ["crew", "map", "clock", "weather", "fuel", "network"];
        let judge = |failed: &BTreeSet<String>| {
            let drill = crate::solution::Drill { trials: vec![answer(failed)], budget_ms: 10, ..Default::default() };
            Validator::new(drill_rules()).check(&drill).primary().contains("F001")
        };
        let mut random = Random::new(53);
        let mut subset = || -> BTreeSet<String> {
            agents.iter().filter(|_| random.percent(50)).map(|agent| (*agent).to_owned()).collect()
        };
        let failing = std::iter::repeat_with(&mut subset).take(200).find(&judge).expect("one of four subsets has both");
        let least = value(&failing, judge);
        assert_eq!(least.value.into_iter().collect::<Vec<_>>(), ["clock", "map"]);
        // One that handles everything: there is nothing to find.
        assert!(!value(&BTreeSet::from(["crew".to_owned()]), judge).is_minimal);
    }
}
