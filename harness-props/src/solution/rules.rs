//! S001 to S041: what is offered, what it keeps, how it is ranked.

use std::collections::BTreeMap;

use serde_json::json;

use super::care::Caution;
use super::model::{Slate, Solution};
use crate::pareto::{Points, Sense, hypervolume};
use crate::plan::{PlanValidator, Ticks};
use crate::rank::{Composite, Score, Weights, ranking};
use crate::rule::{Findings, Rule, Severity, Subject};

const SCORES: &str = "undefined while a score is missing or wrong (S003)";
const WEIGHTS: &str = "undefined while the weights are wrong (S030)";
const RANKS: &str = "undefined while ranks are not 1 to k (S032)";

/// All 29 rules, in order of their codes.
#[must_use]
pub fn catalogue() -> Vec<Rule<Slate>> {
    use Severity::{Error, Info, Warning};
    let mut rules = vec![
        Rule::new("S001", Error, "there is a solution, and not more than allowed", count),
        Rule::new("S002", Error, "solution ids are unique", unique_ids),
        Rule::new("S003", Error, "every score is there, finite and from 0 to 100", scores_in_range),
        Rule::new("S010", Error, "every binding constraint is kept", binding_kept).needs(&["constraints"]),
        Rule::new("S011", Error, "every binding constraint is evaluated", binding_evaluated).needs(&["constraints"]),
        Rule::new("S012", Error, "a preference that gave way is recorded", override_recorded)
            .needs(&["constraints", "recommended"])
            .implied_by(&["S010"]),
        Rule::new("S013", Error, "what was rejected broke something", rejected_for_a_reason)
            .needs(&["constraints", "rejected"]),
        Rule::new("S020", Error, "no solution dominates another", non_dominated).needs(&["sense"]),
        Rule::new("S021", Warning, "no two solutions have the same scores", distinct),
        Rule::new("S022", Error, "every objective says whether more is better", senses).needs(&["sense"]),
        Rule::new("S023", Warning, "solutions differ by more than what does not count", epsilon_distinct)
            .needs(&["epsilon", "sense"])
            .implied_by(&["S020", "S021"]),
        Rule::new("S024", Info, "the claimed hypervolume is right", hypervolume_right).needs(&["hypervolume", "sense"]),
        Rule::new("S030", Error, "weights are finite, not negative, and sum to exactly 1", weights_right)
            .needs(&["weight"]),
        Rule::new("S031", Error, "composites are the weighted sums", composites_right).needs(&["weight", "composite"]),
        Rule::new("S032", Error, "ranks are 1 to k by composite", ranks_right).needs(&["rank"]),
        Rule::new("S033", Error, "ties are broken by safety and then as declared", ties_right)
            .needs(&["weight", "rank"]),
        Rule::new("S034", Error, "the first is recommended", recommended_is_first)
            .needs(&["rank", "recommended"])
            .implied_by(&["S047", "S048"]),
        Rule::new("S035", Error, "nothing allowed dominates the first", first_is_best)
            .needs(&["weight", "rank", "others", "sense"])
            .implied_by(&["S020"]),
        Rule::new("S036", Warning, "the ranking survives the uncertainty of its weights", ranking_is_firm)
            .needs(&["weight", "rank", "noise"]),
        Rule::new("S037", Error, "trade-offs speak of objectives that differ", trade_offs_differ).needs(&["trade_off"]),
        Rule::new("S040", Error, "every solution's plan is valid", plans_valid).needs(&["plan"]),
        Rule::new("S041", Error, "totals agree with the plan", totals_agree).needs(&["plan", "totals"]),
    ];
    rules.extend(super::care::rules(Caution::default()));
    rules
}

impl Subject for Slate {
    fn supplies(&self, facet: &str) -> bool {
        let any = |has: fn(&Solution) -> bool| self.solutions.iter().any(has);
        match facet {
            // What every slate has to have: leaving it out is an error and no way around the rule.
            "sense" | "weight" | "composite" | "rank" | "recommended" | "uncertainty" | "reasoning" => true,
            "constraints" => !self.constraints.is_empty(),
            "rejected" => !self.rejected.is_empty(),
            "others" => !self.others.is_empty(),
            "epsilon" => self.epsilon.is_some(),
            "noise" => self.noise.is_some(),
            "hypervolume" => self.hypervolume.is_some(),
            "missing" => !self.missing.is_empty(),
            "trade_off" => any(|one| one.trade_off.is_some()),
            "plan" => any(|one| one.plan.is_some()),
            "totals" => any(|one| one.totals.is_some()),
            "confidence" => any(|one| one.confidence.is_some()),
            "full_confidence" => any(|one| one.full_confidence.is_some()),
            "conflict" => !self.conflict.is_empty(),
            "caution" => self.fallback || !self.conflict.is_empty(),
            _ => false,
        }
    }
}

pub(super) fn at(solution: usize, field: &str) -> String {
    format!("/solutions/{solution}/{field}")
}

/// Scores in order of the objectives, or nothing if one is missing or out of range.
fn scores(slate: &Slate, solution: &Solution) -> Option<Vec<Score>> {
    let score = |name: &String| Score::try_from(*solution.scores.get(name)?).ok().filter(in_range);
    slate.objectives.iter().map(|objective| score(&objective.name)).collect()
}

fn in_range(score: &Score) -> bool {
    (Score::points(0)..=Score::points(100)).contains(score)
}

fn all_scores(slate: &Slate) -> Option<Vec<Vec<Score>>> {
    slate.solutions.iter().map(|solution| scores(slate, solution)).collect()
}

/// Scores turned so that more is better.
fn turned(slate: &Slate, scores: &[Score]) -> Vec<i64> {
    let sense = slate.objectives.iter().map(|objective| objective.sense);
    let turn = |(score, sense): (&Score, Option<Sense>)| match sense {
        Some(Sense::Minimise) => -score.as_millionths(),
        _ => score.as_millionths(),
    };
    scores.iter().zip(sense).map(turn).collect()
}

fn dominates(slate: &Slate, one: &[Score], other: &[Score]) -> bool {
    let (one, other) = (turned(slate, one), turned(slate, other));
    one != other && one.iter().zip(&other).all(|(one, other)| one >= other)
}

fn weights(slate: &Slate) -> Option<Weights> {
    let given: Option<Vec<f64>> = slate.objectives.iter().map(|objective| objective.weight).collect();
    Weights::decimals(&given?).ok()
}

/// Composites of all solutions, or nothing while weights or scores are wrong; says which.
fn composites(slate: &Slate, found: &mut Findings) -> Option<(Weights, Vec<Vec<Score>>, Vec<Composite>)> {
    let Some(weights) = weights(slate) else {
        found.skip(WEIGHTS);
        return None;
    };
    let Some(scores) = all_scores(slate) else {
        found.skip(SCORES);
        return None;
    };
    let composites: Option<Vec<_>> = scores.iter().map(|scores| weights.composite(scores).ok()).collect();
    Some((weights, scores, composites?))
}

/// Solutions by rank, or nothing if ranks are not 1 to k.
fn by_rank(slate: &Slate) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..slate.solutions.len()).collect();
    order.sort_by_key(|one| slate.solutions[*one].rank);
    let right = order.iter().enumerate().all(|(place, one)| slate.solutions[*one].rank == Some(place as i64 + 1));
    right.then_some(order)
}

pub(super) fn broken<'a>(slate: &'a Slate, solution: &'a Solution) -> impl Iterator<Item = &'a str> {
    let binding = slate.constraints.iter().filter(|constraint| constraint.binding);
    binding.map(|one| one.id.as_str()).filter(|id| solution.margins.get(*id).is_some_and(|margin| *margin < 0.0))
}

fn count(slate: &Slate, found: &mut Findings) {
    let (count, most) = (slate.solutions.len(), slate.most.unwrap_or(3));
    if count == 0 || count > most {
        found.add(
            "/solutions",
            format!("there are {count} solutions, not 1 to {most}"),
            json!({"count": count, "most": most}),
        );
    }
}

fn unique_ids(slate: &Slate, found: &mut Findings) {
    let mut seen = BTreeMap::new();
    for (index, solution) in slate.solutions.iter().enumerate() {
        let first = *seen.entry(&solution.id).or_insert(index);
        if first != index {
            let message = format!("the id `{}` is taken by solution {first}", solution.id);
            found.add(at(index, "id"), message, json!({"id": solution.id, "first": first, "second": index}));
        }
    }
}

fn scores_in_range(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        for name in slate.objectives.iter().map(|objective| &objective.name) {
            let value = solution.scores.get(name).copied();
            if value.and_then(|value| Score::try_from(value).ok()).is_none_or(|score| !in_range(&score)) {
                let shown = value.map_or_else(|| "missing".to_owned(), |value| value.to_string());
                let message = format!("{name} of `{}` is {shown}", solution.id);
                found.add(at(index, &format!("scores/{name}")), message, json!({"value": shown}));
            }
        }
    }
}

fn binding_kept(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        for id in broken(slate, solution) {
            let margin = solution.margins[id];
            let message = format!("`{}` breaks the binding constraint `{id}` by {}", solution.id, -margin);
            let witness = json!({"solution": solution.id, "constraint": id, "margin": margin});
            found.at(&[index as u32], || (at(index, &format!("margins/{id}")), message, witness));
        }
    }
}

fn binding_evaluated(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        for constraint in slate.constraints.iter().filter(|constraint| constraint.binding) {
            if solution.margins.get(&constraint.id).is_none_or(|margin| margin.is_nan()) {
                let message =
                    format!("`{}` says nothing about the binding constraint `{}`", solution.id, constraint.id);
                let witness = json!({"solution": solution.id, "constraint": constraint.id});
                found.add(at(index, &format!("margins/{}", constraint.id)), message, witness);
            }
        }
    }
}

/// A preference gave way when the recommended solution breaks it, and something else that keeps it was ruled out by a
/// binding constraint.
fn override_recorded(slate: &Slate, found: &mut Findings) {
    let Some(chosen) = slate.solutions.iter().find(|one| Some(&one.id) == slate.recommended.as_ref()) else { return };
    let ruled_out: Vec<&Solution> = slate.rejected.iter().filter(|one| broken(slate, one).next().is_some()).collect();
    for preference in slate.constraints.iter().filter(|constraint| !constraint.binding) {
        let id = &preference.id;
        let gave_way = chosen.margins.get(id).is_some_and(|margin| *margin < 0.0);
        let by = ruled_out.iter().find(|one| one.margins.get(id).is_some_and(|margin| *margin >= 0.0));
        let Some(by) = by.filter(|_| gave_way) else { continue };
        let recorded = slate.overrides.iter().any(|one| {
            let winner =
                slate.constraints.iter().find(|constraint| constraint.binding && constraint.id == one.constraint);
            one.overridden == *id && winner.is_some_and(|winner| winner.source == one.source)
        });
        if !recorded {
            let message =
                format!("`{id}` gave way to a binding constraint that `{}` breaks, but no override says so", by.id);
            found.add(
                "/overrides",
                message,
                json!({"preference": id, "ruled_out": by.id, "by": broken(slate, by).next()}),
            );
        }
    }
}

fn rejected_for_a_reason(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.rejected.iter().enumerate().filter(|(_, one)| broken(slate, one).next().is_none()) {
        let message = format!("`{}` was rejected, but breaks no binding constraint", solution.id);
        found.add(format!("/rejected/{index}"), message, json!({"solution": solution.id}));
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |one| (one + 1..count).map(move |other| (one, other)))
}

fn non_dominated(slate: &Slate, found: &mut Findings) {
    let Some(scores) = all_scores(slate) else { return found.skip(SCORES) };
    // Through the front, so that a slate of thousands costs no square of them.
    let Ok(mut points) = Points::new(&vec![Sense::Maximise; slate.objectives.len()]) else {
        return found.skip("there are no objectives, or more than 32");
    };
    for row in &scores {
        let row: Vec<f64> = turned(slate, row).into_iter().map(|value| value as f64).collect();
        if points.push(&row).is_err() {
            return found.skip(SCORES);
        }
    }
    for (index, by) in points.dominated() {
        let (one, other) = (&slate.solutions[by].id, &slate.solutions[index].id);
        let deltas: BTreeMap<&str, f64> = slate
            .objectives
            .iter()
            .enumerate()
            .map(|(at, objective)| {
                (
                    objective.name.as_str(),
                    (scores[by][at].as_millionths() - scores[index][at].as_millionths()) as f64 / 1e6,
                )
            })
            .collect();
        let witness = json!({"dominator": one, "dominated": other, "deltas": deltas});
        found.at(&[index as u32, by as u32], || {
            (format!("/solutions/{index}"), format!("`{other}` is dominated by `{one}`"), witness)
        });
    }
}

fn distinct(slate: &Slate, found: &mut Findings) {
    let Some(scores) = all_scores(slate) else { return found.skip(SCORES) };
    for (one, other) in pairs(scores.len()).filter(|(one, other)| scores[*one] == scores[*other]) {
        found.at(&[one as u32, other as u32], || {
            let (one, second) = (&slate.solutions[one].id, &slate.solutions[other].id);
            let message = format!("`{one}` and `{second}` have the same scores");
            (format!("/solutions/{other}"), message, json!({"one": one, "other": second}))
        });
    }
}

fn senses(slate: &Slate, found: &mut Findings) {
    for (index, objective) in slate.objectives.iter().enumerate().filter(|(_, one)| one.sense.is_none()) {
        let message = format!("nobody says whether more or less of `{}` is better", objective.name);
        found.add(format!("/objectives/{index}/sense"), message, json!({"objective": objective.name}));
    }
}

fn epsilon_distinct(slate: &Slate, found: &mut Findings) {
    let Some(scores) = all_scores(slate) else { return found.skip(SCORES) };
    let Some(epsilon) = slate.epsilon.and_then(|epsilon| Score::try_from(epsilon).ok()) else {
        return found.skip("the epsilon is no number");
    };
    let near = |one: usize, other: usize| {
        let (one, other) = (turned(slate, &scores[one]), turned(slate, &scores[other]));
        one.iter().zip(&other).all(|(one, other)| one + epsilon.as_millionths() >= *other)
    };
    for (one, other) in pairs(scores.len()) {
        let (by, index) = if near(one, other) { (one, other) } else { (other, one) };
        if near(by, index) {
            found.at(&[one as u32, other as u32], || {
                let (by, id) = (&slate.solutions[by].id, &slate.solutions[index].id);
                let message = format!("`{id}` is nowhere better than `{by}` by more than {epsilon}");
                (format!("/solutions/{index}"), message, json!({"one": by, "other": id}))
            });
        }
    }
}

fn hypervolume_right(slate: &Slate, found: &mut Findings) {
    let Some(scores) = all_scores(slate) else { return found.skip(SCORES) };
    let Some(claim) = slate.hypervolume else { return };
    let worst: Vec<i64> = slate
        .objectives
        .iter()
        .map(|objective| if objective.sense == Some(Sense::Minimise) { -100_000_000 } else { 0 })
        .collect();
    let points: Vec<Vec<i64>> = scores.iter().map(|row| turned(slate, row)).collect();
    let Ok(volume) = hypervolume(&points, &worst) else { return found.skip("the hypervolume does not fit") };
    let volume = volume as f64 / 1e6_f64.powi(slate.objectives.len() as i32);
    // Rounding of the claim is no difference; NaN is.
    if claim.is_nan() || (claim - volume).abs() > volume.abs() * 1e-9 {
        let message = format!("the hypervolume is {volume}, but the slate claims {claim}");
        found.add("/hypervolume", message, json!({"expected": volume, "got": claim}));
    }
}

fn weights_right(slate: &Slate, found: &mut Findings) {
    let given: Vec<f64> = slate.objectives.iter().map(|objective| objective.weight.unwrap_or(f64::NAN)).collect();
    if let Err(why) = Weights::decimals(&given) {
        found.add(
            "/objectives",
            why.to_string(),
            json!({"weights": given.iter().map(f64::to_string).collect::<Vec<_>>()}),
        );
    }
}

fn composites_right(slate: &Slate, found: &mut Findings) {
    let Some((_, _, composites)) = composites(slate, found) else { return };
    let places = slate.decimals.unwrap_or(6);
    for (index, (solution, exact)) in slate.solutions.iter().zip(&composites).enumerate() {
        let claim = solution.composite.and_then(|claim| Score::try_from(claim).ok());
        if claim.is_none_or(|claim| !exact.agrees(claim, places)) {
            let got = solution.composite.map_or_else(|| "nothing".to_owned(), |claim| claim.to_string());
            let message = format!("the composite of `{}` is {}, but it claims {got}", solution.id, exact.score());
            found.add(at(index, "composite"), message, json!({"expected": exact.score().to_string(), "got": got}));
        }
        if !solution.breakdown.is_empty() {
            let parts: Option<Vec<Score>> =
                solution.breakdown.values().map(|part| Score::try_from(*part).ok()).collect();
            let sum = parts.map(|parts| Score::millionths(parts.iter().map(|part| part.as_millionths()).sum()));
            if sum.is_none_or(|sum| !exact.agrees(sum, places)) {
                let message = format!("the parts of `{}` do not sum to {}", solution.id, exact.score());
                found.add(at(index, "breakdown"), message, json!({"expected": exact.score().to_string()}));
            }
        }
    }
}

fn ranks_right(slate: &Slate, found: &mut Findings) {
    let Some(order) = by_rank(slate) else {
        let ranks: Vec<Option<i64>> = slate.solutions.iter().map(|solution| solution.rank).collect();
        let wrong = (0..ranks.len()).find(|one| {
            let rank = ranks[*one].filter(|rank| (1..=ranks.len() as i64).contains(rank));
            rank.is_none() || ranks[..*one].contains(&rank)
        });
        let path = at(wrong.unwrap_or(0), "rank");
        return found.add(path, format!("ranks are not 1 to {}", ranks.len()), json!({"ranks": ranks}));
    };
    let Some((_, _, composites)) = composites(slate, found) else { return };
    let inverted = order.windows(2).find(|pair| composites[pair[0]] < composites[pair[1]]);
    if let Some([before, after]) = inverted {
        let (one, other) = (&slate.solutions[*before].id, &slate.solutions[*after].id);
        let message = format!("`{one}` is ranked before `{other}`, which has the higher composite");
        found.add(at(*after, "rank"), message, json!({"before": one, "after": other}));
    }
}

fn ties_right(slate: &Slate, found: &mut Findings) {
    let Some((weights, scores, composites)) = composites(slate, found) else { return };
    let Some(order) = by_rank(slate) else { return found.skip(RANKS) };
    let ties: Option<Vec<usize>> =
        slate.ties().iter().map(|name| slate.objectives.iter().position(|one| one.name == *name)).collect();
    let Some(ties) = ties else {
        return found.add(
            "/tie_break",
            "ties are broken by an objective that does not exist",
            json!({"names": slate.ties()}),
        );
    };
    for pair in order.windows(2).filter(|pair| composites[pair[0]] == composites[pair[1]]) {
        let named = [pair[0], pair[1]].map(|one| (&slate.solutions[one].id, &scores[one][..]));
        let right = ranking(&weights, &named, &ties);
        if right.is_ok_and(|right| right[0] == 1) {
            let (one, other) = (named[0].0, named[1].0);
            let message = format!("`{one}` and `{other}` are tied, and the tie-break puts `{other}` first");
            found.add(at(pair[1], "rank"), message, json!({"first": other, "second": one}));
        }
    }
}

fn recommended_is_first(slate: &Slate, found: &mut Findings) {
    let Some(order) = by_rank(slate) else { return found.skip(RANKS) };
    let first = order.first().map(|one| &slate.solutions[*one].id);
    if first != slate.recommended.as_ref() {
        let (got, wanted) = (slate.recommended.as_deref().unwrap_or("nothing"), first.map_or("nothing", |id| id));
        let message = format!("`{got}` is recommended, but `{wanted}` is ranked first");
        found.add("/recommended", message, json!({"expected": first, "got": slate.recommended}));
    }
}

fn first_is_best(slate: &Slate, found: &mut Findings) {
    let Some((weights, scores, _)) = composites(slate, found) else { return };
    let Some(order) = by_rank(slate) else { return found.skip(RANKS) };
    if !weights.all_positive() {
        return found.skip("holds only when every weight is above zero");
    }
    let Some(first) = order.first() else { return };
    for other in &slate.others {
        let Some(theirs) = self::scores(slate, other) else { return found.skip(SCORES) };
        if dominates(slate, &theirs, &scores[*first]) {
            let id = &slate.solutions[*first].id;
            let message = format!("`{id}` is ranked first, but `{}`, which is not offered, dominates it", other.id);
            found.add(format!("/solutions/{first}"), message, json!({"first": id, "dominator": other.id}));
        }
    }
}

fn ranking_is_firm(slate: &Slate, found: &mut Findings) {
    let Some((_, scores, composites)) = composites(slate, found) else { return };
    let Some(order) = by_rank(slate) else { return found.skip(RANKS) };
    let Some(noise) = slate.noise.and_then(|noise| Score::try_from(noise).ok()) else {
        return found.skip("the noise is no number");
    };
    for pair in order.windows(2) {
        let (one, other) = (pair[0], pair[1]);
        let lead = i128::from(composites[one].score().as_millionths() - composites[other].score().as_millionths());
        let apart: i128 = scores[one]
            .iter()
            .zip(&scores[other])
            .map(|(a, b)| i128::from((a.as_millionths() - b.as_millionths()).abs()))
            .sum();
        if lead * 1_000_000 < apart * i128::from(noise.as_millionths()) {
            let (one, id) = (&slate.solutions[one].id, &slate.solutions[other].id);
            let message = format!("`{one}` before `{id}` depends on weights being exact to less than {noise}");
            found.add(at(other, "rank"), message, json!({"before": one, "after": id, "noise": noise.to_string()}));
        }
    }
}

fn trade_offs_differ(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        let Some(trade_off) = &solution.trade_off else { continue };
        let differs = |name: &String| {
            let own = solution.scores.get(name);
            own.is_some()
                && slate.solutions.iter().any(|other| other.scores.get(name).is_some_and(|score| Some(score) != own))
        };
        let wrong = trade_off.objectives.iter().find(|name| !differs(name));
        let silent = trade_off.text.trim().is_empty() || trade_off.objectives.is_empty();
        let alone = slate.solutions.len() == 1;
        if silent || (wrong.is_some() && !alone) {
            let what = wrong.map_or_else(
                || "says nothing".to_owned(),
                |name| format!("speaks of `{name}`, in which nothing differs"),
            );
            let message = format!("the trade-off of `{}` {what}", solution.id);
            found.add(at(index, "trade_off"), message, json!({"objective": wrong}));
        }
    }
}

fn plans_valid(slate: &Slate, found: &mut Findings) {
    let validator = PlanValidator::standard();
    for (index, solution) in slate.solutions.iter().enumerate() {
        let Some(plan) = &solution.plan else { continue };
        for violation in validator.check(plan).under(&at(index, "plan")).errors() {
            found.add(
                &*violation.path,
                format!("{}: {}", violation.rule, violation.message),
                violation.witness.clone(),
            );
        }
    }
}

fn totals_agree(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        let (Some(plan), Some(totals)) = (&solution.plan, &solution.totals) else { continue };
        let finish = plan.steps.iter().filter_map(|step| match (step.start, &step.duration) {
            (Some(start), Some(Ticks::Whole(ticks))) => start.checked_add(*ticks),
            _ => None,
        });
        let end = finish.max().or(plan.makespan);
        if let Some((got, expected)) = totals.duration.zip(end).filter(|(got, expected)| got != expected) {
            let message = format!("`{}` claims to take {got}, but its plan takes {expected}", solution.id);
            found.add(at(index, "totals/duration"), message, json!({"expected": expected, "got": got}));
        }
        let costs = plan
            .steps
            .iter()
            .filter_map(|step| step.quantities.get("cost"))
            .map(|cost| Score::try_from(cost.value).ok());
        let cost: Option<i64> = costs.map(|cost| cost.map(Score::as_millionths)).sum();
        let claim = totals.cost.map(|claim| Score::try_from(claim).ok().map(Score::as_millionths));
        if let Some(got) = claim.filter(|got| *got != cost) {
            let shown = |millionths: Option<i64>| {
                millionths.map_or_else(|| "no number".to_owned(), |one| Score::millionths(one).to_string())
            };
            let message =
                format!("`{}` claims to cost {}, but its plan costs {}", solution.id, shown(got), shown(cost));
            found.add(at(index, "totals/cost"), message, json!({"expected": shown(cost), "got": shown(got)}));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::generate::{Random, SlateConfig, slate};
    use crate::mutate::slates;
    use crate::solution::SlateValidator;

    #[test]
    fn a_dominated_solution_is_told_with_what_it_lacks() {
        let (mut random, mut told) = (Random::new(6), 0);
        let all = slates();
        let dominate = all.iter().find(|mutator| mutator.code() == "S020").unwrap();
        for _ in 0..20 {
            let valid = slate(&SlateConfig::default().solutions(2..=3).plans(false), &mut random);
            let Some(broken) = dominate.broken(&valid, &mut random) else { continue };
            let report = SlateValidator::standard().check(&broken.subject);
            for witness in report.violations.iter().filter(|one| one.rule == "S020").map(|one| &one.witness) {
                let score = |who: &str, name: &str| {
                    let id = witness[who].as_str().unwrap();
                    broken.subject.solutions.iter().find(|one| one.id == id).unwrap().scores[name]
                };
                for (name, delta) in witness["deltas"].as_object().unwrap() {
                    let expected = score("dominator", name) - score("dominated", name);
                    assert!((delta.as_f64().unwrap() - expected).abs() < 1e-6, "{name}: {witness}");
                    told += usize::from(expected != 0.0);
                }
            }
        }
        assert!(told >= 10, "{told} differences were told");
    }

    #[test]
    fn parts_of_a_composite_have_to_sum_to_it() {
        for seed in 0..20 {
            let mut slate = slate(&SlateConfig::default().solutions(2..=3).plans(false), &mut Random::new(seed));
            let composite = slate.solutions[1].composite.unwrap();
            let mut red = |part: f64| {
                let parts = [("one", part), ("other", composite - 0.25)];
                slate.solutions[1].breakdown = parts.map(|(name, part)| (name.to_owned(), part)).into();
                SlateValidator::standard().check(&slate).codes("S")
            };
            assert_eq!(red(0.25), []);
            for wrong in [0.35, 0.15, f64::NAN] {
                assert_eq!(red(wrong), [("S031".to_owned(), "/solutions/1/breakdown".to_owned())], "{wrong}");
            }
        }
    }
}
