//! Metamorphic relations: what must stay true of a judge's answers when its question is changed in a known way.
//!
//! Nobody has to know the right answer to one question for that: a ranking must not depend on the order of the list, and
//! something that beats everybody comes first (Chen, Cheung and Yiu, *Metamorphic Testing*, 1998). Ready-made are relations
//! for anybody's validator of plans ([`plans`]) and for anybody's ranking of slates ([`rankings`]); own ones are closures.
//!
//! ```
//! use harness_props::generate::{SlateConfig, slate};
//! use harness_props::relation::{Relations, rankings};
//! use harness_props::solution::Slate;
//!
//! // A ranking that forgets the weights, and one that goes by the place in the list.
//! let sum = |slate: &Slate| {
//!     let mut order: Vec<_> = slate.solutions.iter().map(|one| (one.scores.values().sum::<f64>(), one.id.clone())).collect();
//!     order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
//!     order.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
//! };
//! let place = |slate: &Slate| slate.solutions.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
//!
//! let config = SlateConfig::default().solutions(2..=5).plans(false);
//! let relations = Relations::new(50, 1).subjects(move |random| slate(&config, random)).relations(rankings());
//! assert!(relations.check(place).broken().contains(&"the order of the list does not matter"));
//! assert!(relations.check(sum).outcome().is_pass(), "no relation here knows the weights: ranks are for rule S032");
//! ```

use std::collections::BTreeSet;
use std::fmt::{self, Debug};

use crate::Outcome;
use crate::generate::Random;
use crate::plan::{Id, Plan};
use crate::solution::Slate;

type Change<S> = Box<dyn Fn(&S, &mut Random) -> Option<S> + Send + Sync>;
type Holds<S, V> = Box<dyn Fn(&Asked<'_, S, V>) -> bool + Send + Sync>;

/// Two questions and their answers.
#[derive(Debug)]
pub struct Asked<'a, S, V> {
    /// The first question.
    pub before: &'a S,
    /// The question after the change.
    pub after: &'a S,
    /// The answer to the first.
    pub first: &'a V,
    /// The answer to the other.
    pub second: &'a V,
}

/// A change of the question, and how the answers have to relate.
pub struct Relation<S, V> {
    says: &'static str,
    change: Change<S>,
    holds: Holds<S, V>,
}

impl<S, V> Debug for Relation<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Relation").field(&self.says).finish()
    }
}

impl<S, V> Relation<S, V> {
    /// A relation: a sentence, a change (nothing where it does not apply), and what must hold of both answers.
    #[must_use]
    pub fn new(
        says: &'static str,
        change: impl Fn(&S, &mut Random) -> Option<S> + Send + Sync + 'static,
        holds: impl Fn(&Asked<'_, S, V>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { says, change: Box::new(change), holds: Box::new(holds) }
    }
}

impl<S, V: PartialEq> Relation<S, V> {
    /// A relation by which the answer stays the same.
    #[must_use]
    pub fn same(says: &'static str, change: impl Fn(&S, &mut Random) -> Option<S> + Send + Sync + 'static) -> Self {
        Self::new(says, change, |asked| asked.first == asked.second)
    }
}

type Draw<S> = Box<dyn Fn(&mut Random) -> S + Send + Sync>;

/// Relations and the questions to try them on.
pub struct Relations<S, V> {
    rounds: usize,
    seed: u64,
    draw: Option<Draw<S>>,
    list: Vec<Relation<S, V>>,
}

impl<S, V> Debug for Relations<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds of {:?}", self.rounds, self.list)
    }
}

/// What became of one relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it says.
    pub says: &'static str,
    /// Questions to which the change applied.
    pub applied: usize,
    /// Pairs of answers that do not relate so.
    pub broken: usize,
    /// The first of them: both answers.
    pub sample: Option<String>,
}

/// What became of all relations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Related {
    /// One row per relation.
    pub rows: Vec<Row>,
}

impl<S, V: Debug> Relations<S, V> {
    /// So many questions per relation, from a seed.
    #[must_use]
    pub fn new(rounds: usize, seed: u64) -> Self {
        Self { rounds, seed, draw: None, list: Vec::new() }
    }

    /// Where questions come from.
    #[must_use]
    pub fn subjects(mut self, draw: impl Fn(&mut Random) -> S + Send + Sync + 'static) -> Self {
        self.draw = Some(Box::new(draw));
        self
    }

    /// Adds relations.
    #[must_use]
    pub fn relations(mut self, relations: impl IntoIterator<Item = Relation<S, V>>) -> Self {
        self.list.extend(relations);
        self
    }

    /// Asks the judge under test both questions, again and again.
    pub fn check(&self, judge: impl Fn(&S) -> V) -> Related {
        let mut related = Related::default();
        let Some(draw) = &self.draw else { return related };
        for relation in &self.list {
            let mut random = Random::new(self.seed);
            let mut row = Row { says: relation.says, applied: 0, broken: 0, sample: None };
            for _ in 0..self.rounds {
                let before = draw(&mut random);
                let Some(after) = (relation.change)(&before, &mut random) else { continue };
                row.applied += 1;
                let (first, second) = (judge(&before), judge(&after));
                if !(relation.holds)(&Asked { before: &before, after: &after, first: &first, second: &second }) {
                    row.broken += 1;
                    row.sample.get_or_insert_with(|| format!("{first:?}, then {second:?}"));
                }
            }
            related.rows.push(row);
        }
        related
    }
}

impl Related {
    /// What the broken relations say.
    #[must_use]
    pub fn broken(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.broken > 0).map(|row| row.says).collect()
    }

    /// Pass with coverage, Fail with the first broken relation and its answers, or NoEvidence when one never applied.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Some(row) = self.rows.iter().find(|row| row.broken > 0) {
            let sample = row.sample.as_deref().unwrap_or_default();
            let more = self.broken().len() - 1;
            return Outcome::fail(format!(
                "{}: broken in {} of {} cases, first: {sample}; {more} more relations",
                row.says, row.broken, row.applied
            ));
        }
        match self.rows.iter().find(|row| row.applied == 0) {
            _ if self.rows.is_empty() => Outcome::no_evidence("no relation was tried"),
            Some(row) => Outcome::no_evidence(format!("{}: it never applied", row.says)),
            None => Outcome::pass(format!("{} relations hold", self.rows.len())),
        }
    }
}

/// Relations of a validator that accepts plans or does not. Valid and broken plans are of use alike.
#[must_use]
pub fn plans() -> Vec<Relation<Plan, bool>> {
    vec![
        Relation::same("the order of the list does not matter", |plan: &Plan, random| {
            let mut plan = plan.clone();
            random.shuffle(&mut plan.steps);
            (plan.steps.len() > 1).then_some(plan)
        }),
        Relation::same("names do not matter", |plan: &Plan, _| {
            let mut plan = plan.clone();
            let known: Vec<Id> = plan.steps.iter().map(|step| step.id.clone()).collect();
            // Names that nobody can tell apart are a defect of their own.
            let told: BTreeSet<String> = known.iter().map(|id| id.to_string().trim().to_lowercase()).collect();
            if told.len() < known.len() || told.contains("") {
                return None;
            }
            // A name that nobody has stays one that nobody has.
            let new = |id: &mut Id| {
                *id = known
                    .iter()
                    .position(|known| known == id)
                    .map_or_else(|| format!("no-{id}"), |at| format!("renamed-{at}"))
                    .into()
            };
            for step in &mut plan.steps {
                new(&mut step.id);
                step.after.iter_mut().for_each(|link| new(&mut link.on));
                if let Some(undo) = &mut step.rollback {
                    undo.by.iter_mut().chain(&mut undo.uses).chain(&mut undo.after).for_each(new);
                }
            }
            let claims = plan.critical_path.iter_mut().flatten();
            plan.entries.iter_mut().chain(&mut plan.terminals).chain(claims).for_each(new);
            plan.exclusions.iter_mut().for_each(|pair| (new(&mut pair.one), new(&mut pair.other)).0);
            Some(plan)
        }),
        Relation::same("the order of dependencies does not matter", |plan: &Plan, random| {
            let mut plan = plan.clone();
            plan.steps.iter_mut().for_each(|step| random.shuffle(&mut step.after));
            plan.steps.iter().any(|step| step.after.len() > 1).then_some(plan)
        }),
        Relation::new(
            "a plan with a step that waits for itself is never accepted",
            |plan: &Plan, random| {
                let mut plan = plan.clone();
                let at = random.index(plan.steps.len());
                let step = plan.steps.get_mut(at)?;
                step.after.push(step.id.clone().into());
                Some(plan)
            },
            |asked| !asked.second,
        ),
    ]
}

/// Relations of a ranking that names the solutions of a slate, best first. Whoever ranks has to read only `objectives`,
/// `tie_break` and `scores`.
#[must_use]
pub fn rankings() -> Vec<Relation<Slate, Vec<String>>> {
    let best = |slate: &Slate, at: usize, by: f64| {
        let mut slate = slate.clone();
        for name in slate.objectives.iter().map(|objective| objective.name.clone()) {
            let most = slate.solutions.iter().filter_map(|one| one.scores.get(&name)).copied().fold(0.0, f64::max);
            slate.solutions[at].scores.insert(name, most + by);
        }
        slate
    };
    vec![
        Relation::same("the order of the list does not matter", |slate: &Slate, random| {
            let mut slate = slate.clone();
            slate.solutions.reverse();
            let at = random.index(slate.solutions.len());
            slate.solutions.rotate_left(at);
            (slate.solutions.len() > 1).then_some(slate)
        }),
        Relation::same("the order of the objectives does not matter, apart from ties", |slate: &Slate, random| {
            let mut slate = slate.clone();
            slate.tie_break = slate.ties().into_iter().map(str::to_owned).collect();
            random.shuffle(&mut slate.objectives);
            Some(slate)
        }),
        Relation::new(
            "what beats everybody comes first",
            move |slate: &Slate, random| {
                Some(best(slate, random.index(slate.solutions.len().max(1)), 1.0))
                    .filter(|slate| slate.solutions.len() > 1)
            },
            |asked: &Asked<'_, Slate, Vec<String>>| {
                let sum = |at: usize| asked.after.solutions[at].scores.values().sum::<f64>();
                let top = (0..asked.after.solutions.len()).max_by(|a, b| sum(*a).total_cmp(&sum(*b)));
                top.map(|top| &asked.after.solutions[top].id) == asked.second.first()
            },
        ),
        Relation::new(
            "a candidate that everybody beats changes nothing for the others",
            |slate: &Slate, _| {
                let mut slate = slate.clone();
                let mut worst = slate.solutions.first()?.clone();
                "the-worst".clone_into(&mut worst.id);
                worst.scores.values_mut().for_each(|score| *score = 0.0);
                slate.solutions.insert(0, worst);
                Some(slate)
            },
            |asked: &Asked<'_, Slate, Vec<String>>| {
                let others: Vec<&String> = asked.second.iter().filter(|id| *id != "the-worst").collect();
                others.iter().copied().eq(asked.first) && asked.second.last().is_some_and(|last| last == "the-worst")
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Relation, Relations, plans, rankings};
    use crate::generate::{PlanConfig, SlateConfig, plan, slate};
    use crate::mutate::plans as mutators;
    use crate::plan::{Plan, PlanValidator};
    use crate::rank::{Score, Weights, ranking};
    use crate::solution::Slate;

    /// Ours, exact.
    fn exact(slate: &Slate) -> Vec<String> {
        let weights: Vec<f64> = slate.objectives.iter().filter_map(|one| one.weight).collect();
        let weights = Weights::decimals(&weights).unwrap();
        let row = |one: &crate::solution::Solution| -> Vec<Score> {
            slate.objectives.iter().map(|objective| Score::try_from(one.scores[&objective.name]).unwrap()).collect()
        };
        let rows: Vec<Vec<Score>> = slate.solutions.iter().map(row).collect();
        let named: Vec<(&String, &[Score])> =
            slate.solutions.iter().zip(&rows).map(|(one, row)| (&one.id, &row[..])).collect();
        let ties: Vec<usize> = slate
            .ties()
            .iter()
            .map(|name| slate.objectives.iter().position(|one| one.name == *name).unwrap())
            .collect();
        ranking(&weights, &named, &ties).unwrap().into_iter().map(|at| slate.solutions[at].id.clone()).collect()
    }

    fn sorted(slate: &Slate, key: impl Fn(&crate::solution::Solution) -> f64) -> Vec<String> {
        let mut order: Vec<_> = slate.solutions.iter().collect();
        order.sort_by(|a, b| key(b).total_cmp(&key(a)));
        order.into_iter().map(|one| one.id.clone()).collect()
    }

    #[test]
    fn each_broken_ranking_breaks_a_relation_and_the_exact_one_none() {
        let config = SlateConfig::default().solutions(2..=5).plans(false);
        let relations = Relations::new(crate::env::rounds(100), 71)
            .subjects(move |random| slate(&config, random))
            .relations(rankings());
        let of = |judge: &dyn Fn(&Slate) -> Vec<String>| relations.check(judge).broken();
        assert_eq!(of(&exact), Vec::<&str>::new());
        assert!(relations.check(exact).outcome().is_pass());
        // A stable sort of floating sums: ties fall as the list says.
        let floats = |slate: &Slate| {
            let weight =
                |name: &str| slate.objectives.iter().find(|one| one.name == name).and_then(|one| one.weight).unwrap();
            sorted(slate, |one| one.scores.iter().map(|(name, score)| weight(name) * score).sum())
        };
        assert!(of(&floats).contains(&"the order of the list does not matter"));
        let by_place = |slate: &Slate| {
            sorted(slate, |one| {
                slate
                    .objectives
                    .iter()
                    .zip([0.4, 0.2, 0.2, 0.2])
                    .map(|(objective, weight)| weight * one.scores[&objective.name])
                    .sum()
            })
        };
        assert!(of(&by_place).contains(&"the order of the objectives does not matter, apart from ties"));
        let by_name = |slate: &Slate| {
            let mut names: Vec<String> = slate.solutions.iter().map(|one| one.id.clone()).collect();
            names.sort();
            names
        };
        assert!(of(&by_name).contains(&"what beats everybody comes first"));
        // By distance to the mean, which a far outlier moves.
        let outlier = |slate: &Slate| {
            let all =
                slate.solutions.iter().map(|one| one.scores["safety"]).sum::<f64>() / slate.solutions.len() as f64;
            sorted(slate, |one| (one.scores["safety"] - all).abs())
        };
        assert!(of(&outlier).contains(&"a candidate that everybody beats changes nothing for the others"));
    }

    #[test]
    fn each_broken_validator_breaks_a_relation_and_ours_none() {
        let config = PlanConfig::default().steps(2..=8);
        let mutators = mutators();
        let relations = Relations::new(crate::env::rounds(100), 72)
            .subjects(move |random| {
                let plan = plan(&config, random);
                let one = random.pick(&mutators).filter(|one| !["P004", "P003", "P032"].contains(&one.code()));
                match one.filter(|_| random.clone().percent(50)).and_then(|one| one.broken(&plan, random)) {
                    Some(broken) => broken.subject,
                    None => plan,
                }
            })
            .relations(plans());
        let validator = PlanValidator::standard();
        let ours = relations.check(|plan| validator.check(plan).is_valid());
        assert!(ours.outcome().is_pass(), "{}", ours.outcome());
        let forward = |plan: &Plan| {
            plan.steps
                .iter()
                .enumerate()
                .all(|(at, step)| step.after.iter().all(|link| plan.position(&link.on).is_some_and(|on| on < at)))
        };
        assert_eq!(relations.check(forward).broken(), ["the order of the list does not matter"]);
        let named = |plan: &Plan| {
            validator.check(plan).is_valid()
                && plan.steps.iter().all(|step| !step.id.to_string().starts_with("renamed"))
        };
        assert_eq!(relations.check(named).broken(), ["names do not matter"]);
        let first = |plan: &Plan| {
            validator.check(plan).is_valid()
                && plan.steps.iter().all(|step| {
                    step.after.first().map(|one| one.on.to_string()) <= step.after.last().map(|one| one.on.to_string())
                })
        };
        assert!(relations.check(first).broken().contains(&"the order of dependencies does not matter"));
        assert!(
            relations.check(|_| true).broken().contains(&"a plan with a step that waits for itself is never accepted")
        );
    }

    #[test]
    fn a_relation_that_never_applies_is_no_evidence() {
        let never = Relation::<u32, bool>::same("never", |_, _| None);
        let related = Relations::new(9, 1).subjects(|_| 1).relations([never]).check(|_| true);
        assert_eq!(related.outcome().to_string(), "no evidence: never: it never applied");
        assert!(Relations::<u32, bool>::new(9, 1).subjects(|_| 1).check(|_| true).outcome().is_no_evidence());
    }
}
