//! One mutator per rule of drills, series, timelines and migrations: of several answers, and of documents over time.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Mutator;
use crate::contract::Migration;
use crate::generate::Random;
use crate::solution::{Drill, Series, Timeline};

/// The mutators of F001 to F004.
#[must_use]
pub fn drills() -> Vec<Mutator<Drill>> {
    let of = |code: &'static str, apply: fn(&mut Drill, &mut Random) -> Option<String>| Mutator::new(code, apply);
    vec![
        of("F001", |drill, random| {
            let at = random.index(drill.trials.len());
            if random.percent(50) {
                drill.trials[at].elapsed_ms = drill.budget_ms + 1;
            } else {
                (drill.trials[at].answer, drill.trials[at].error) = (None, None);
            }
            Some(format!("/trials/{at}"))
        }),
        of("F002", |drill, random| {
            let at = random.index(drill.trials.len());
            let axis = random.index(2);
            let there = drill.recommendations.iter().filter(|(agent, _)| !drill.trials[at].failed.contains(*agent));
            let wanted = there.map(|(_, wanted)| wanted[axis]).max()?;
            drill.trials[at].answer.as_mut()?[axis] = wanted - 1;
            Some(format!("/trials/{at}/answer"))
        }),
        of("F003", |drill, random| {
            let at = random.index(drill.trials.len());
            let first = drill.trials[at].failed.first().cloned();
            match (random.index(3), first) {
                (0, Some(_)) => drop(drill.trials[at].audit.pop()),
                (1, Some(first)) => drill.trials[at].audit.push(first),
                _ => drill.trials[at].audit.push("stranger".to_owned()),
            }
            Some(format!("/trials/{at}/audit"))
        }),
        of("F004", |drill, random| {
            // Still as safe as everybody who was there, but less than with everybody there.
            let at = random.index(drill.trials.len());
            let axis = random.index(2);
            let with_all = drill.trials.iter().find(|trial| trial.failed.is_empty())?.answer.clone()?[axis];
            let failed = drill.trials[at].failed.clone();
            let there = drill.recommendations.iter().filter(|(agent, _)| !failed.contains(*agent));
            let wanted = there.map(|(_, wanted)| wanted[axis]).max()?;
            drill.trials[at].answer.as_mut()?[axis] = wanted;
            (wanted < with_all && !failed.is_empty()).then(|| format!("/trials/{at}/answer"))
        }),
    ]
}

/// The mutators of C001 to C004.
#[must_use]
pub fn series() -> Vec<Mutator<Series>> {
    let of = |code: &'static str, apply: fn(&mut Series, &mut Random) -> Option<String>| Mutator::new(code, apply);
    vec![
        of("C001", |series, random| {
            let at = random.index(series.answers.len());
            series.answers[at].confidence = [None, Some(1.01), Some(-0.01), Some(f64::NAN)][random.index(4)];
            Some(format!("/answers/{at}/confidence"))
        }),
        of("C002", |series, random| {
            let at = random.index(series.answers.len());
            let full = series.answers.iter().find(|answer| answer.missing.is_empty())?.confidence?;
            series.answers[at].confidence = Some(full + 0.001);
            (!series.answers[at].missing.is_empty()).then(|| format!("/answers/{at}/confidence"))
        }),
        of("C003", |series, _| {
            series.answers.iter_mut().for_each(|answer| answer.confidence = Some(0.8));
            let at = series.answers.iter().position(|answer| answer.missing.len() == 3)?;
            Some(format!("/answers/{at}/confidence"))
        }),
        of("C004", |series, random| {
            let at = random.index(series.answers.len());
            series.answers[at].uncertainty = if random.percent(50) { vec![] } else { vec![" ".to_owned()] };
            (!series.answers[at].missing.is_empty()).then(|| format!("/answers/{at}/uncertainty"))
        }),
    ]
}

/// The mutators of T001 to T003.
#[must_use]
pub fn timelines() -> Vec<Mutator<Timeline>> {
    let of = |code: &'static str, apply: fn(&mut Timeline, &mut Random) -> Option<String>| Mutator::new(code, apply);
    vec![
        of("T001", |timeline, random| {
            let at = random.index(timeline.phases.len());
            let span = &timeline.phases[at].span;
            timeline.phases[at].budget_ms = Some(span.to_ms - span.from_ms - 1);
            Some(format!("/phases/{at}/span"))
        }),
        of("T002", |timeline, random| {
            if random.percent(50) {
                timeline.total.to_ms = timeline.phases.last()?.span.to_ms - 1;
                return Some(format!("/phases/{}/span", timeline.phases.len() - 1));
            }
            let before = timeline.phases[0].span.to_ms;
            let span = &mut timeline.phases[1].span;
            let earlier = span.from_ms - before + 1;
            span.from_ms -= earlier;
            span.to_ms -= earlier;
            Some("/phases/1/span".to_owned())
        }),
        of("T003", |timeline, _| {
            let at = timeline.phases.iter().position(|phase| phase.overlap_percent.is_some())?;
            let span = timeline.phases[at].span.clone();
            let third = (span.to_ms - span.from_ms) / 3;
            for (place, agent) in timeline.phases[at].agents.iter_mut().enumerate() {
                agent.from_ms = span.from_ms + third * place as u64;
                agent.to_ms = agent.from_ms + third;
            }
            Some(format!("/phases/{at}/agents"))
        }),
    ]
}

/// The mutators of B001 to B004.
#[must_use]
pub fn migrations() -> Vec<Mutator<Migration>> {
    let of = |code: &'static str, apply: fn(&mut Migration, &mut Random) -> Option<String>| Mutator::new(code, apply);
    vec![
        of("B001", |one, random| stale(one, random, false)),
        of("B002", |one, random| {
            if random.percent(50) {
                one.document["elapsed"] = json!("3 s");
                return Some("/elapsed".to_owned());
            }
            one.new_fields.push("/elapsed".to_owned());
            // The reader of this client does not need it; the schema does.
            one.reader = None;
            Some("/elapsed".to_owned())
        }),
        of("B003", |one, random| stale(one, random, true)),
        of("B004", |one, random| {
            one.reader = Some(if random.percent(33) {
                // Two new fields that only make sense together.
                Arc::new(|document| {
                    let has = |name: &str| document.get(name).is_some();
                    if has("solutions") == has("confidence") {
                        Ok(Value::Null)
                    } else {
                        Err("one without the other".to_owned())
                    }
                })
            } else if random.percent(50) {
                Arc::new(|document| {
                    let known = document.as_object().is_some_and(|map| map.len() <= 6);
                    if known { Ok(Value::Null) } else { Err("unknown field".to_owned()) }
                })
            } else {
                Arc::new(|document| Ok(json!(document.as_object().map(serde_json::Map::len))))
            });
            Some(String::new())
        }),
    ]
}

/// A legacy field is filled from something else.
fn stale(one: &mut Migration, random: &mut Random, single: bool) -> Option<String> {
    let solutions = one.document["solutions"].as_array()?;
    if (solutions.len() == 1) != single {
        return None;
    }
    let other = solutions.iter().find(|solution| solution["id"] != one.document["recommended"]).cloned();
    if random.percent(50) {
        one.document["final_decision"] =
            other.map_or_else(|| json!("an older decision"), |other| other["decision"].clone());
        return Some("/final_decision".to_owned());
    }
    one.document["recommendations"] = json!([]);
    Some("/recommendations".to_owned())
}
