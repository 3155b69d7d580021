//! Slates, drills, timelines and migrating documents that keep every rule, built so and never filtered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{PlanConfig, Random};
use crate::contract::Migration;
use crate::pareto::{Sense, hypervolume};
use crate::rank::{Score, Weights, ranking};
use crate::solution::{
    Constraint, Drill, Given, Objective, Override, Phase, Series, Slate, Solution, Span, Timeline, Totals, TradeOff,
    Trial,
};

/// What slates to generate.
#[derive(Debug, Clone)]
pub struct SlateConfig {
    solutions: RangeInclusive<usize>,
    plans: bool,
}

impl Default for SlateConfig {
    /// One to three solutions, each with a plan.
    fn default() -> Self {
        Self { solutions: 1..=3, plans: true }
    }
}

impl SlateConfig {
    /// How many solutions: 1 to 20.
    #[must_use]
    pub fn solutions(mut self, solutions: RangeInclusive<usize>) -> Self {
        self.solutions = (*solutions.start()).clamp(1, 20)..=(*solutions.end()).clamp(1, 20);
        self
    }

    /// Whether solutions come with plans.
    #[must_use]
    pub fn plans(mut self, plans: bool) -> Self {
        self.plans = plans;
        self
    }
}

const OBJECTIVES: [&str; 4] = ["safety", "cost", "passenger", "network"];

/// A slate that keeps every rule: safety 0.4, cost, passenger and network 0.2 each. In a third of those with several
/// solutions two composites are exactly equal.
#[must_use]
pub fn slate(config: &SlateConfig, random: &mut Random) -> Slate {
    let count = random.between(*config.solutions.start() as i64, *config.solutions.end() as i64) as usize;
    let objective = |(at, name): (usize, &str)| Objective {
        name: name.to_owned(),
        sense: Some(Sense::Maximise),
        weight: Some(if at == 0 { 0.4 } else { 0.2 }),
    };
    let mut slate = Slate {
        objectives: OBJECTIVES.into_iter().enumerate().map(objective).collect(),
        most: Some(count.max(3)),
        constraints: [("crew-rest", true, "crew"), ("airworthy", true, "maintenance"), ("on-time", false, "network")]
            .map(|(id, binding, source)| Constraint { id: id.to_owned(), binding, source: source.to_owned() })
            .to_vec(),
        missing: if random.percent(50) { vec!["weather".to_owned()] } else { Vec::new() },
        epsilon: Some(0.5),
        ..Slate::default()
    };
    slate.warnings = slate.missing.iter().map(|input| format!("{input} was not available")).collect();
    let (tied, base) = (random.percent(33), random.between(40, 50) as f64);
    for at in 0..count {
        // More safety for less of one other: nobody dominates, whatever else is drawn.
        let safety = base + 2.0 * at as f64;
        let price = if tied { 4.0 * at as f64 } else { 3.0 * at as f64 };
        slate.solutions.push(solution(config, at, [safety, 90.0 - price, 60.0, 50.0], random));
    }
    slate.rejected.push(rejected(&slate.solutions[0], true));
    if random.percent(50) {
        slate.rejected.push(rejected(&slate.solutions[0], false));
    }
    let mut other = slate.solutions[0].clone();
    "other".clone_into(&mut other.id);
    other.scores.insert("safety".to_owned(), 1.0);
    slate.others.push(other);
    if count > 1 {
        random.shuffle(&mut slate.solutions);
    }
    if !slate.missing.is_empty() {
        slate.solutions.iter_mut().for_each(|one| one.uncertainty = vec!["without weather it is a guess".to_owned()]);
    }
    decide(&mut slate);
    if random.percent(40) {
        conflict(&mut slate);
    }
    slate.fallback = random.percent(20);
    slate
}

/// Two binding constraints pull apart, and the first in rank, which is the safest too, is the strictest on both.
fn conflict(slate: &mut Slate) {
    slate.conflict = ["crew-rest", "airworthy"].map(str::to_owned).to_vec();
    slate.reasoning = Some("crew-rest and airworthy cannot both be had in time: the strictest on both wins".to_owned());
    for id in &slate.conflict {
        let most = slate.solutions.iter().filter_map(|one| one.margins.get(id)).copied().fold(0.0, f64::max);
        if let Some(first) = slate.solutions.iter_mut().find(|one| Some(&one.id) == slate.recommended.as_ref()) {
            first.margins.insert(id.clone(), most);
        }
    }
}

fn solution(config: &SlateConfig, at: usize, scores: [f64; 4], random: &mut Random) -> Solution {
    let plan = config.plans.then(|| super::plan(&PlanConfig::default().steps(1..=4), random));
    let cost = |plan: &crate::plan::Plan| {
        plan.steps.iter().filter_map(|step| step.quantities.get("cost")).map(|cost| cost.value).sum()
    };
    let confidence = random.between(10, 90) as f64 / 100.0;
    Solution {
        id: format!("option-{at}"),
        scores: OBJECTIVES.iter().map(|name| (*name).to_owned()).zip(scores).collect(),
        margins: BTreeMap::from([
            ("crew-rest".to_owned(), random.between(0, 9) as f64),
            ("airworthy".to_owned(), random.between(0, 9) as f64),
            ("on-time".to_owned(), -1.0),
        ]),
        confidence: Some(confidence),
        full_confidence: Some(confidence + 0.1),
        trade_off: Some(TradeOff { text: "safer, and dearer".to_owned(), objectives: vec!["safety".to_owned()] }),
        totals: plan.as_ref().map(|plan| Totals { duration: plan.makespan, cost: Some(cost(plan)) }),
        plan,
        ..Solution::default()
    }
}

fn rejected(like: &Solution, punctual: bool) -> Solution {
    let margins = BTreeMap::from([
        ("crew-rest".to_owned(), -1.0),
        ("airworthy".to_owned(), 1.0),
        ("on-time".to_owned(), if punctual { 3.0 } else { -3.0 }),
    ]);
    Solution { id: format!("rejected-{punctual}"), margins, plan: None, totals: None, ..like.clone() }
}

/// Computes composites, ranks, the recommendation and what else a slate claims, from its scores.
fn decide(slate: &mut Slate) {
    let given: Vec<f64> = slate.objectives.iter().filter_map(|objective| objective.weight).collect();
    let Ok(weights) = Weights::decimals(&given) else { return };
    let row = |solution: &Solution| -> Vec<Score> {
        let values = slate.objectives.iter().filter_map(|objective| solution.scores.get(&objective.name));
        values.filter_map(|value| Score::try_from(*value).ok()).collect()
    };
    let rows: Vec<Vec<Score>> = slate.solutions.iter().map(row).collect();
    let named: Vec<(&str, &[Score])> =
        slate.solutions.iter().zip(&rows).map(|(solution, row)| (solution.id.as_str(), row.as_slice())).collect();
    let Ok(order) = ranking(&weights, &named, &[0]) else { return };
    let points: Vec<Vec<i64>> =
        rows.iter().map(|row| row.iter().map(|score| score.as_millionths()).collect()).collect();
    let leads = order.windows(2).map(|pair| {
        let lead = rows_lead(&weights, &rows[pair[0]], &rows[pair[1]]);
        let apart: i64 = points[pair[0]].iter().zip(&points[pair[1]]).map(|(a, b)| (a - b).abs()).sum();
        lead as f64 / apart as f64
    });
    let firm = leads.fold(1.0, f64::min);
    slate.noise = (firm > 0.0).then_some(firm / 4.0);
    slate.hypervolume = hypervolume(&points, &[0; 4]).ok().map(|volume| volume as f64 / 1e24);
    for (place, at) in order.iter().enumerate() {
        slate.solutions[*at].rank = Some(place as i64 + 1);
        if let Ok(composite) = weights.composite(&rows[*at]) {
            slate.solutions[*at].composite = Some(composite.score().as_millionths() as f64 / 1e6);
        }
    }
    slate.recommended = order.first().map(|at| slate.solutions[*at].id.clone());
    slate.overrides = vec![Override {
        constraint: "crew-rest".to_owned(),
        source: "crew".to_owned(),
        overridden: "on-time".to_owned(),
    }];
}

fn rows_lead(weights: &Weights, one: &[Score], other: &[Score]) -> i64 {
    let score = |row: &[Score]| weights.composite(row).map_or(0, |composite| composite.score().as_millionths());
    score(one) - score(other)
}

/// A drill that keeps every rule: five agents, all sets of up to three failures. Where nobody is left to ask, the
/// answer is the strictest; a failed agent's voice is replaced by caution, never by silence.
#[must_use]
pub fn drill(random: &mut Random) -> Drill {
    let agents: Vec<String> = (0..5).map(|at| format!("agent-{at}")).collect();
    let axes = vec!["rest".to_owned(), "distance".to_owned()];
    let recommendations: BTreeMap<String, Vec<i64>> =
        agents.iter().map(|agent| (agent.clone(), vec![random.between(0, 9), random.between(0, 9)])).collect();
    let strictest = |axis: usize| recommendations.values().map(|wanted| wanted[axis]).max().unwrap_or(0);
    let mut trials = Vec::new();
    for set in 0_u32..1 << agents.len() {
        if set.count_ones() > 3 {
            continue;
        }
        let failed: BTreeSet<String> =
            agents.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, agent)| agent.clone()).collect();
        let caution = i64::from(set.count_ones());
        let answer = (set.count_ones() < 3).then(|| vec![strictest(0) + caution, strictest(1) + caution]);
        let error = answer.is_none().then(|| "too few agents answered".to_owned());
        trials.push(Trial {
            audit: failed.iter().cloned().collect(),
            failed,
            answer,
            error,
            elapsed_ms: random.below(900),
        });
    }
    Drill { axes, recommendations, trials, budget_ms: 1_000 }
}

/// A series that keeps every rule: every set of three inputs is missing once, and each costs confidence.
#[must_use]
pub fn series(random: &mut Random) -> Series {
    let costs = [("weather", random.between(1, 20)), ("crew", random.between(1, 20)), ("fuel", random.between(1, 20))];
    let full = random.between(61, 99);
    let mut answers: Vec<Given> = (0_u32..8)
        .map(|set| {
            let gone = || costs.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1).map(|(_, cost)| *cost);
            Given {
                missing: gone().map(|(name, _)| name.to_owned()).collect(),
                confidence: Some((full - gone().map(|(_, cost)| cost).sum::<i64>()) as f64 / 100.0),
                uncertainty: gone().map(|(name, _)| format!("{name} is unknown")).collect(),
            }
        })
        .collect();
    random.shuffle(&mut answers);
    Series { answers }
}

/// A timeline that keeps every rule: three phases, the second with three agents at once.
#[must_use]
pub fn timeline(random: &mut Random) -> Timeline {
    let mut now = random.below(1_000);
    let begin = now;
    let mut phases = Vec::new();
    for name in ["understand", "propose", "decide"] {
        now += random.below(20);
        let took = 10 + random.below(5_000);
        let span = Span { from_ms: now, to_ms: now + took };
        let parallel = name == "propose";
        phases.push(Phase {
            name: name.to_owned(),
            agents: if parallel { vec![span.clone(); 3] } else { Vec::new() },
            overlap_percent: parallel.then_some(200),
            span,
            budget_ms: Some(took + random.below(1_000)),
        });
        now += took;
    }
    Timeline { total: Span { from_ms: begin, to_ms: now + random.below(50) }, phases }
}

/// A document that moved on and keeps every rule: one to three solutions, two legacy fields, an old schema and an old
/// reader that takes what it knows.
#[must_use]
pub fn migration(random: &mut Random) -> Migration {
    let solutions: Vec<Value> = (0..1 + random.index(3))
        .map(|at| {
            let advice = [format!("advice {}", random.below(1_000_000))];
            json!({"id": format!("option-{at}"), "decision": format!("decision {at}-{}", random.below(1_000_000)), "recommendations": advice})
        })
        .collect();
    let chosen = &solutions[random.index(solutions.len())];
    let document = json!({
        "final_decision": chosen["decision"], "recommendations": chosen["recommendations"], "elapsed": random.below(100),
        "solutions": solutions, "recommended": chosen["id"], "confidence": 0.5,
    });
    let known = ["final_decision", "recommendations", "elapsed"];
    let schema = json!({"type": "object", "required": known, "properties": {
        "final_decision": {"type": "string"}, "recommendations": {"type": "array", "items": {"type": "string"}},
        "elapsed": {"type": "integer", "minimum": 0},
    }});
    Migration {
        document,
        solutions: "/solutions".to_owned(),
        recommended: "/recommended".to_owned(),
        legacy: [("/final_decision", "/decision"), ("/recommendations", "/recommendations")]
            .map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned()))
            .into(),
        new_fields: ["/solutions", "/recommended", "/confidence"].map(str::to_owned).to_vec(),
        schema,
        reader: Some(Arc::new(move |document| {
            Ok(json!(
                known
                    .map(|name| document.get(name).cloned().ok_or("gone"))
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()?
            ))
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::{SlateConfig, drill, slate};
    use crate::generate::Random;

    #[test]
    fn solutions_stand_in_any_order() {
        let config = SlateConfig::default().solutions(3..=3).plans(false);
        let ranks =
            |seed| slate(&config, &mut Random::new(seed)).solutions.iter().map(|one| one.rank).collect::<Vec<_>>();
        let sorted = (0..60).filter(|seed| ranks(*seed).is_sorted()).count();
        assert!((1..30).contains(&sorted), "{sorted} of 60: one of six would be by chance");
    }

    #[test]
    fn a_drill_answers_until_too_few_agents_do() {
        let mut sizes = [0; 4];
        for trial in (0..20).flat_map(|seed| drill(&mut Random::new(seed)).trials) {
            let is_answered = trial.failed.len() < 3;
            assert_eq!((trial.answer.is_some(), trial.error.is_none()), (is_answered, is_answered), "{trial:?}");
            sizes[trial.failed.len()] += 1;
        }
        assert!(sizes.iter().all(|trials| *trials > 0), "{sizes:?}");
    }
}
