//! S042 to S048: what an answer says where something is missing or at stake, and whether caution decides there.

use std::collections::BTreeSet;

use serde_json::json;

use super::model::{Slate, Solution};
use super::rules::{at, broken};
use crate::pareto::Sense;
use crate::rank::Score;
use crate::rule::{Findings, Rule, Severity};

/// What "the most conservative" means where binding constraints pull apart: which candidates [`S047`](super::rules) holds
/// against the recommended one. Candidates are all solutions, offered or not, that keep every binding constraint.
#[derive(Debug, Clone, Copy, Default)]
pub enum Caution {
    /// One that keeps *any* of the constraints in conflict by more: the recommended one has to be the strictest on each.
    #[default]
    EveryConstraint,
    /// One that keeps some of them by more and none by less.
    Undominated,
    /// One whose least margin over them is greater.
    LeastMargin,
    /// One that this calls more conservative: it is given the recommended solution, then the candidate.
    By(fn(&Slate, &Solution, &Solution) -> bool),
}

impl Caution {
    /// The constraint on which a candidate is more conservative than the chosen one; `(all)` if it is no single one.
    fn stricter<'a>(self, slate: &'a Slate, chosen: &Solution, other: &Solution) -> Option<&'a str> {
        let margin = |one: &Solution, id: &str| one.margins.get(id).copied().filter(|margin| !margin.is_nan());
        let pairs = || slate.conflict.iter().filter_map(|id| Some((id, margin(chosen, id)?, margin(other, id)?)));
        let more = || pairs().find(|(_, chosen, other)| other > chosen).map(|(id, ..)| id.as_str());
        match self {
            Self::EveryConstraint => more(),
            Self::Undominated => more().filter(|_| pairs().all(|(_, chosen, other)| other >= chosen)),
            Self::LeastMargin => {
                let least = pairs().min_by(|one, two| one.1.total_cmp(&two.1))?;
                let theirs = pairs().map(|(.., other)| other).fold(f64::INFINITY, f64::min);
                (theirs > least.1).then_some(least.0.as_str())
            }
            Self::By(more) => more(slate, chosen, other).then_some("(all)"),
        }
    }
}

/// The rules of care, in order of their codes.
pub(super) fn rules(caution: Caution) -> Vec<Rule<Slate>> {
    use Severity::{Error, Warning};
    vec![
        Rule::new("S042", Error, "confidence is from 0 to 1, and not higher for missing inputs", confidence_honest)
            .needs(&["confidence"]),
        Rule::new("S043", Warning, "there is a warning for every missing input", warned).needs(&["missing"]),
        Rule::new("S044", Error, "confidence is lower where inputs are missing", confidence_falls)
            .needs(&["missing", "confidence", "full_confidence"])
            .implied_by(&["S042"]),
        Rule::new("S045", Error, "where inputs are missing every solution says what is uncertain", uncertainty_said)
            .needs(&["missing", "uncertainty"]),
        Rule::new("S046", Error, "the reasoning names every constraint in conflict", reasons_named)
            .needs(&["conflict", "reasoning"]),
        Rule::new(
            "S047",
            Error,
            "where constraints pull apart the most conservative is recommended",
            move |slate, found| {
                strictest(caution, slate, found);
            },
        )
        .needs(&["conflict", "recommended"])
        .implied_by(&["S010"]),
        Rule::new("S048", Error, "where caution decides the safest is recommended", safest)
            .needs(&["caution", "recommended"])
            .implied_by(&["S010", "S020", "S035", "S047"]),
    ]
}

fn confidence_honest(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        let Some(confidence) = solution.confidence else { continue };
        let why = match solution.full_confidence {
            _ if !(0.0..=1.0).contains(&confidence) => format!("is {confidence}, not from 0 to 1"),
            Some(full) if !slate.missing.is_empty() && confidence > full => {
                format!("is {confidence} with inputs missing, more than {full} with all of them")
            }
            _ => continue,
        };
        let witness =
            json!({"confidence": confidence.to_string(), "full": solution.full_confidence, "missing": slate.missing});
        let message = format!("the confidence of `{}` {why}", solution.id);
        found.at(&[index as u32], || (at(index, "confidence"), message, witness));
    }
}

fn warned(slate: &Slate, found: &mut Findings) {
    let silent: BTreeSet<&String> =
        slate.missing.iter().filter(|input| !slate.warnings.iter().any(|warning| warning.contains(*input))).collect();
    for input in silent {
        found.add("/warnings", format!("`{input}` was missing, and no warning names it"), json!({"missing": input}));
    }
}

/// A confidence that does not move says nothing: it has to be less than it would be with everything there.
fn confidence_falls(slate: &Slate, found: &mut Findings) {
    for (index, solution) in slate.solutions.iter().enumerate() {
        let Some(confidence) = solution.confidence else { continue };
        let why = match solution.full_confidence {
            None => "nobody says how sure it would be with all of them".to_owned(),
            // Nothing is less than nothing.
            Some(full) if confidence < full || full == 0.0 => continue,
            Some(full) => format!("it would be {full} with all of them"),
        };
        found.at(&[index as u32], || {
            let message = format!("the confidence of `{}` is {confidence} with inputs missing; {why}", solution.id);
            let witness = json!({"confidence": confidence.to_string(), "full": solution.full_confidence, "missing": slate.missing});
            (at(index, "confidence"), message, witness)
        });
    }
}

fn uncertainty_said(slate: &Slate, found: &mut Findings) {
    let known = || slate.missing.iter().chain(slate.objectives.iter().map(|objective| &objective.name));
    for (index, solution) in slate.solutions.iter().enumerate() {
        if !solution.uncertainty.iter().any(|text| known().any(|name| names(text, name))) {
            let message =
                format!("inputs are missing, and `{}` names none of them, nor an objective, as uncertain", solution.id);
            found.add(
                at(index, "uncertainty"),
                message,
                json!({"missing": slate.missing, "uncertainty": solution.uncertainty}),
            );
        }
    }
}

fn reasons_named(slate: &Slate, found: &mut Findings) {
    for (index, id) in slate.conflict.iter().enumerate() {
        if !slate.constraints.iter().any(|constraint| constraint.binding && constraint.id == *id) {
            let message = format!("`{id}` is in conflict, but is no binding constraint");
            found.add(format!("/conflict/{index}"), message, json!({"constraint": id}));
        }
    }
    let text = slate.reasoning.as_deref().unwrap_or_default();
    let silent: Vec<&String> = slate.conflict.iter().filter(|id| !names(text, id)).collect();
    if !silent.is_empty() {
        let message = match text.trim().is_empty() {
            true => "no reasons are given for the choice".to_owned(),
            false => format!("the reasoning does not name `{}`", silent[0]),
        };
        found.add("/reasoning", message, json!({"unnamed": silent, "conflict": slate.conflict}));
    }
}

/// True when a text names an id as a word of its own: `crew-rest` is not in `crew-rest-2`.
fn names(text: &str, id: &str) -> bool {
    let (text, id) = (text.to_lowercase(), id.to_lowercase());
    let joins = |one: Option<char>| one.is_some_and(|one| one.is_alphanumeric() || one == '-' || one == '_');
    !id.trim().is_empty()
        && text
            .match_indices(&id)
            .any(|(from, _)| !joins(text[..from].chars().next_back()) && !joins(text[from + id.len()..].chars().next()))
}

/// The recommended solution and its place, or nothing if it is none of the offered ones or not the only one of its name.
fn chosen(slate: &Slate) -> Option<(usize, &Solution)> {
    let mut named = slate.solutions.iter().enumerate().filter(|(_, one)| Some(&one.id) == slate.recommended.as_ref());
    named.next().filter(|_| named.next().is_none())
}

/// Other solutions that are allowed, offered or not.
fn candidates(slate: &Slate, chosen: usize) -> impl Iterator<Item = &Solution> {
    let offered = slate.solutions.iter().enumerate().filter(move |(index, _)| *index != chosen).map(|(_, one)| one);
    offered.chain(&slate.others).filter(|one| broken(slate, one).next().is_none())
}

const CHOSEN: &str = "undefined unless exactly one offered solution is the recommended one (S002, S034)";

fn strictest(caution: Caution, slate: &Slate, found: &mut Findings) {
    let Some((index, one)) = chosen(slate) else { return found.skip(CHOSEN) };
    let stricter = candidates(slate, index).find_map(|other| Some((other, caution.stricter(slate, one, other)?)));
    if let Some((other, id)) = stricter {
        let (got, wanted) = (one.margins.get(id), other.margins.get(id));
        let message = format!("`{}` is recommended, but `{}` is stricter on `{id}`", one.id, other.id);
        let witness =
            json!({"recommended": one.id, "stricter": other.id, "constraint": id, "got": got, "wanted": wanted});
        found.at(&[index as u32], || ("/recommended".to_owned(), message, witness));
    }
}

fn safest(slate: &Slate, found: &mut Findings) {
    let Some((index, one)) = chosen(slate) else { return found.skip(CHOSEN) };
    let first =
        slate.ties().first().and_then(|name| slate.objectives.iter().find(|objective| objective.name == **name));
    let Some(safety) = first else { return found.skip("there is no objective that comes first") };
    let score = |solution: &Solution| -> Option<i64> {
        let score = Score::try_from(*solution.scores.get(&safety.name)?).ok()?.as_millionths();
        Some(if safety.sense == Some(Sense::Minimise) { -score } else { score })
    };
    let Some(own) = score(one) else { return found.skip("undefined while a score is missing or wrong (S003)") };
    if let Some(other) = candidates(slate, index).find(|other| score(other).is_some_and(|score| score > own)) {
        let name = &safety.name;
        let message = format!("`{}` is recommended, but `{}` has the better {name}", one.id, other.id);
        let (got, wanted) = (one.scores.get(name), other.scores.get(name));
        let witness =
            json!({"recommended": one.id, "safer": other.id, "objective": name, "got": got, "wanted": wanted});
        found.at(&[index as u32], || ("/recommended".to_owned(), message, witness));
    }
}

#[cfg(test)]
mod tests {
    use super::{Caution, names};
    use crate::generate::{Random, SlateConfig, slate};
    use crate::solution::{Slate, SlateValidator};

    #[test]
    fn ids_are_named_as_words_of_their_own() {
        assert!(names("Because of Crew-Rest, and no other.", "crew-rest"));
        assert!(!names("because of crew-rest-2 and my_crew-rest", "crew-rest"));
        assert!(!names("", "crew-rest") && !names("anything", " "));
    }

    /// Two solutions, neither of which is the strictest on both: 5 and 1 against 3 and 3.
    fn apart(recommended: usize) -> Slate {
        let config = SlateConfig::default().solutions(2..=2).plans(false);
        let mut slate = slate(&config, &mut Random::new(4));
        slate.conflict = ["crew-rest", "airworthy"].map(str::to_owned).to_vec();
        slate.fallback = false;
        slate.others.clear();
        let lax = 1 - recommended;
        for (at, margins) in [(recommended, [3.0, 3.0]), (lax, [5.0, 1.0])] {
            let both = slate.conflict.iter().cloned().zip(margins).collect::<Vec<_>>();
            slate.solutions[at].margins.extend(both);
        }
        slate.recommended = Some(slate.solutions[recommended].id.clone());
        slate
    }

    #[test]
    fn what_conservative_means_is_a_choice() {
        let slate = apart(0);
        let red = |caution| {
            let report = SlateValidator::standard().caution(caution).check(&slate);
            assert!(report.ran.contains(&"S047".to_owned()), "{report}");
            report.totals.contains_key("S047")
        };
        assert!(red(Caution::EveryConstraint), "the other is stricter on one");
        assert!(!red(Caution::Undominated));
        assert!(!red(Caution::LeastMargin), "3 against 1");
        assert!(red(Caution::By(|_, chosen, other| other.margins["crew-rest"] > chosen.margins["crew-rest"])));
        let mut slate = slate;
        let other = slate.solutions[1].id.clone();
        slate.recommended = Some(other);
        let report = SlateValidator::standard().caution(Caution::LeastMargin).check(&slate);
        assert!(report.totals.contains_key("S047"), "1 against 3: {report}");
    }

    #[test]
    fn each_constraint_in_conflict_counts() {
        let slate = apart(0);
        for dropped in 0..2 {
            let mut slate = slate.clone();
            slate.conflict.remove(dropped);
            let is_red = SlateValidator::standard().check(&slate).totals.contains_key("S047");
            assert_eq!(is_red, dropped == 1, "only on the first is the other one stricter");
        }
    }

    #[test]
    fn a_fallback_that_is_only_fast_is_red_and_the_switched_off_rule_stays_off() {
        let config = SlateConfig::default().solutions(3..=3).plans(false);
        let mut slate = slate(&config, &mut Random::new(5));
        (slate.fallback, slate.conflict) = (true, Vec::new());
        let last = slate.solutions.iter().find(|one| one.rank == Some(3)).map(|one| one.id.clone());
        slate.recommended = last;
        let report = SlateValidator::standard().check(&slate);
        assert_eq!(report.codes("S"), [("S048".to_owned(), "/recommended".to_owned())]);
        assert_eq!(report.implied[0].rule, "S034");
        let without = SlateValidator::standard().without("S047").caution(Caution::LeastMargin).check(&apart(0));
        assert_eq!(without.why_skipped("S047"), Some("switched off"));
    }
}
