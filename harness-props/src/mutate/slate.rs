//! One mutator per rule of slates.

use super::Mutator;
use crate::generate::Random;
use crate::rank::{Score, Weights};
use crate::solution::{Slate, TradeOff};

/// The mutators of all 29 rules of slates, in order of their codes.
#[must_use]
pub fn slates() -> Vec<Mutator<Slate>> {
    let of = |code: &'static str, apply: fn(&mut Slate, &mut Random) -> Option<String>| Mutator::new(code, apply);
    vec![
        of("S001", |slate, random| {
            if random.percent(50) {
                slate.most = Some(slate.solutions.len() - 1);
            } else {
                let empty = Slate { objectives: slate.objectives.clone(), most: slate.most, ..Slate::default() };
                *slate = empty;
            }
            Some("/solutions".to_owned())
        }),
        of("S002", |slate, _| {
            let id = slate.recommended.clone()?;
            let other = slate.solutions.iter().position(|one| one.id != id)?;
            let first = slate.solutions.iter().position(|one| one.id == id)?;
            // The tie-break goes by name in the end; the same name leaves ties as they are.
            slate.solutions[other].id = id;
            path(first.max(other), "id")
        }),
        of("S003", |slate, random| {
            let at = random.index(slate.solutions.len());
            let bad = [f64::NAN, f64::INFINITY, -0.1, 100.1, 1e300][random.index(5)];
            match random.index(6) {
                0 => drop(slate.solutions[at].scores.remove("cost")),
                _ => drop(slate.solutions[at].scores.insert("cost".to_owned(), bad)),
            }
            path(at, "scores/cost")
        }),
        of("S010", |slate, random| {
            let at = random.index(slate.solutions.len());
            slate.solutions[at].margins.insert("airworthy".to_owned(), -(random.between(1, 9) as f64) / 10.0);
            path(at, "margins/airworthy")
        }),
        of("S011", |slate, random| {
            let at = random.index(slate.solutions.len());
            match random.percent(50) {
                true => drop(slate.solutions[at].margins.remove("crew-rest")),
                false => drop(slate.solutions[at].margins.insert("crew-rest".to_owned(), f64::NAN)),
            }
            path(at, "margins/crew-rest")
        }),
        of("S012", |slate, random| {
            match random.index(4) {
                0 => slate.overrides.clear(),
                1 => "weather".clone_into(&mut slate.overrides[0].constraint),
                2 => "network".clone_into(&mut slate.overrides[0].source),
                _ => slate.overrides[0].overridden.clear(),
            }
            Some("/overrides".to_owned())
        }),
        of("S013", |slate, random| {
            let at = random.index(slate.rejected.len());
            let ruled_out = slate.rejected[at].margins.insert("crew-rest".to_owned(), 0.0)?;
            (ruled_out < 0.0).then(|| format!("/rejected/{at}"))
        }),
        of("S020", |slate, _| {
            // Last in rank and behind the one before it in every objective.
            let (worst, before) = last_two(slate)?;
            slate.solutions[worst].scores = slate.solutions[before].scores.clone();
            *slate.solutions[worst].scores.get_mut("network")? -= 9.0;
            settle(slate)?;
            slate.solutions.iter_mut().for_each(|one| one.trade_off = None);
            Some(format!("/solutions/{worst}"))
        }),
        of("S021", |slate, _| {
            let (worst, before) = last_two(slate)?;
            slate.solutions[worst].scores = slate.solutions[before].scores.clone();
            // After the other by name too, which is what a full tie is broken by.
            slate.solutions[worst].id = format!("{}-again", slate.solutions[before].id);
            settle(slate)?;
            slate.solutions.iter_mut().for_each(|one| one.trade_off = None);
            Some(format!("/solutions/{}", worst.max(before)))
        }),
        of("S022", |slate, random| {
            let at = random.index(slate.objectives.len());
            slate.objectives[at].sense = None;
            Some(format!("/objectives/{at}/sense"))
        }),
        of("S023", |slate, _| {
            let (worst, before) = last_two(slate)?;
            slate.solutions[worst].scores = slate.solutions[before].scores.clone();
            *slate.solutions[worst].scores.get_mut("network")? -= 0.75;
            *slate.solutions[worst].scores.get_mut("passenger")? += 0.25;
            settle(slate)?;
            slate.solutions.iter_mut().for_each(|one| one.trade_off = None);
            Some(format!("/solutions/{worst}"))
        }),
        of("S024", |slate, random| {
            *slate.hypervolume.as_mut()? *= [0.99, 1.01, 0.0][random.index(3)];
            Some("/hypervolume".to_owned())
        }),
        of("S030", |slate, random| {
            let at = random.index(4);
            slate.objectives[at].weight =
                [Some(0.41), Some(-0.2), Some(f64::NAN), None, Some(0.1 + 0.2)][random.index(5)];
            Some("/objectives".to_owned())
        }),
        of("S031", |slate, random| {
            let at = random.index(slate.solutions.len());
            let claim = slate.solutions[at].composite?;
            slate.solutions[at].composite =
                [Some(claim + 0.01), Some(f64::NAN), None, Some(claim - 5.0)][random.index(4)];
            path(at, "composite")
        }),
        of("S032", |slate, random| {
            let (worst, before) = last_two(slate)?;
            let distinct = slate.solutions[worst].composite != slate.solutions[before].composite;
            if random.percent(50) && distinct && slate.solutions.len() > 2 {
                // The recommendation stays with rank 1, whoever that is; here the last two change places.
                let rank = slate.solutions[worst].rank;
                slate.solutions[worst].rank = slate.solutions[before].rank;
                slate.solutions[before].rank = rank;
                slate.noise = None;
                return path(before, "rank");
            }
            slate.solutions[worst].rank = [None, Some(0), Some(99)][random.index(3)];
            path(worst, "rank")
        }),
        of("S033", |slate, _| {
            let (worst, before) = last_two(slate)?;
            let tied = slate.solutions[worst].composite == slate.solutions[before].composite;
            let rank = slate.solutions[worst].rank;
            slate.solutions[worst].rank = slate.solutions[before].rank;
            slate.solutions[before].rank = rank;
            slate.recommended = slate.solutions.iter().find(|one| one.rank == Some(1)).map(|one| one.id.clone());
            slate.noise = None;
            calm(slate);
            tied.then(|| format!("/solutions/{before}/rank"))
        }),
        of("S034", |slate, random| {
            let other = slate.solutions.iter().find(|one| one.rank == Some(2)).map(|one| one.id.clone());
            slate.recommended = if random.percent(30) { Some("nobody".to_owned()) } else { Some(other?) };
            calm(slate);
            Some("/recommended".to_owned())
        }),
        of("S035", |slate, random| {
            let first = slate.solutions.iter().position(|one| one.rank == Some(1))?;
            slate.others[0].scores = slate.solutions[first].scores.clone();
            *slate.others[0].scores.get_mut(["safety", "cost"][random.index(2)])? += 0.5;
            Some(format!("/solutions/{first}"))
        }),
        of("S036", |slate, _| {
            let (worst, _) = last_two(slate)?;
            slate.noise = Some(0.5);
            path(worst, "rank")
        }),
        of("S037", |slate, random| {
            let at = random.index(slate.solutions.len());
            let alone = slate.solutions.len() == 1;
            let text = "it is better".to_owned();
            slate.solutions[at].trade_off = Some(match random.index(3) {
                0 if !alone => TradeOff { text, objectives: vec!["network".to_owned()] },
                1 if !alone => TradeOff { text, objectives: vec!["beauty".to_owned()] },
                _ => TradeOff { text: " ".to_owned(), objectives: vec!["safety".to_owned()] },
            });
            path(at, "trade_off")
        }),
        of("S040", |slate, random| {
            let at = random.index(slate.solutions.len());
            let step = slate.solutions[at].plan.as_mut()?.steps.first_mut()?;
            step.agent = Some("stranger".into());
            path(at, "plan/steps/0/agent")
        }),
        of("S041", |slate, random| {
            let at = random.index(slate.solutions.len());
            let totals = slate.solutions[at].totals.as_mut()?;
            if random.percent(50) {
                *totals.duration.as_mut()? += 1;
                return path(at, "totals/duration");
            }
            totals.cost = [Some(f64::NAN), Some(totals.cost? + 0.01)][random.index(2)];
            path(at, "totals/cost")
        }),
        of("S042", |slate, random| {
            let at = random.index(slate.solutions.len());
            let full = slate.solutions[at].full_confidence?;
            let more = (!slate.missing.is_empty()).then_some(full + 0.001).filter(|more| *more <= 1.0);
            slate.solutions[at].confidence =
                [Some(1.01), Some(-0.01), Some(f64::NAN), more.or(Some(2.0))][random.index(4)];
            path(at, "confidence")
        }),
        of("S043", |slate, _| {
            slate.missing.push("fuel".to_owned());
            slate.solutions.iter_mut().for_each(|one| one.uncertainty.push("fuel is unknown".to_owned()));
            Some("/warnings".to_owned())
        }),
        of("S044", |slate, random| {
            // The constant: as sure as if nothing was missing.
            let at = random.index(slate.solutions.len());
            match slate.solutions.len() > 1 && random.percent(30) {
                true => slate.solutions[at].full_confidence = None,
                false => slate.solutions[at].confidence = slate.solutions[at].full_confidence,
            }
            (!slate.missing.is_empty()).then(|| path(at, "confidence"))?
        }),
        of("S045", |slate, random| {
            let at = random.index(slate.solutions.len());
            slate.solutions[at].uncertainty =
                [vec![], vec![" ".to_owned()], vec!["nobody knows".to_owned()]][random.index(3)].clone();
            (!slate.missing.is_empty()).then(|| path(at, "uncertainty"))?
        }),
        of("S046", |slate, random| {
            slate.reasoning = [None, Some(" "), Some("airworthy counts"), Some("crew-rest-2 and airworthy")]
                [random.index(4)]
            .map(str::to_owned);
            (!slate.conflict.is_empty()).then(|| "/reasoning".to_owned())
        }),
        of("S047", |slate, random| {
            // A compromise: something that is allowed is stricter on one of the two.
            let id = slate.conflict.get(random.index(2))?.clone();
            let first = slate.solutions.iter().position(|one| Some(&one.id) == slate.recommended.as_ref())?;
            let more = slate.solutions[first].margins[&id] + 1.0;
            let other = (0..slate.solutions.len()).find(|at| *at != first);
            match other.filter(|_| random.percent(50)) {
                Some(at) => slate.solutions[at].margins.insert(id, more),
                None => slate.others.first_mut()?.margins.insert(id, more),
            };
            Some("/recommended".to_owned())
        }),
        of("S048", |slate, _| {
            let first = slate.solutions.iter().find(|one| Some(&one.id) == slate.recommended.as_ref())?;
            let (safer, dearer) = (first.scores["safety"] + 0.5, first.scores["cost"] - 20.0);
            let other = slate.others.first_mut()?;
            other.scores.extend([("safety".to_owned(), safer), ("cost".to_owned(), dearer)]);
            (slate.fallback || !slate.conflict.is_empty()).then(|| "/recommended".to_owned())
        }),
    ]
}

/// Caution does not decide here: another one may be recommended.
fn calm(slate: &mut Slate) {
    slate.conflict.clear();
    slate.fallback = false;
}

fn path(at: usize, field: &str) -> Option<String> {
    Some(format!("/solutions/{at}/{field}"))
}

/// The last in rank, and the one before it.
fn last_two(slate: &Slate) -> Option<(usize, usize)> {
    let count = slate.solutions.len() as i64;
    let of = |rank: i64| slate.solutions.iter().position(|one| one.rank == Some(rank));
    Some((of(count)?, of(count - 1)?))
}

/// Composites anew; ranks stay.
fn settle(slate: &mut Slate) -> Option<()> {
    let given: Vec<f64> = slate.objectives.iter().filter_map(|objective| objective.weight).collect();
    let weights = Weights::decimals(&given).ok()?;
    for solution in &mut slate.solutions {
        let row = slate.objectives.iter().map(|one| Score::try_from(*solution.scores.get(&one.name)?).ok());
        let composite = weights.composite(&row.collect::<Option<Vec<_>>>()?).ok()?;
        solution.composite = Some(composite.score().as_millionths() as f64 / 1e6);
    }
    slate.noise = None;
    slate.hypervolume = None;
    Some(())
}
