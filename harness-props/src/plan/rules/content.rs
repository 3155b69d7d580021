//! P020 to P033: what every step says.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::plan::critical::sums_fit;
use crate::plan::model::{Agent, Id, Step};
use crate::plan::view::{ABSENT, REFUSED, Subject};
use crate::rule::{Findings, Rule, Severity};

pub(super) fn rules() -> Vec<Rule<Subject>> {
    use Severity::{Error, Warning};
    vec![
        Rule::new("P020", Error, "required fields are present", required).needs(&["title"]),
        Rule::new("P021", Error, "texts are not blank and no placeholders", no_placeholder).needs(&["title"]),
        Rule::new("P022", Error, "every step has a responsible agent", has_agent).needs(&["agent"]),
        Rule::new("P023", Error, "responsible agents are on the roster", agent_known).needs(&["agent", "roster"]),
        Rule::new("P024", Error, "agents are qualified for the kind of step", agent_qualified)
            .needs(&["agent", "roster", "kind"]),
        Rule::new("P025", Error, "every step has a success criterion", has_criterion).needs(&["criteria"]),
        Rule::new("P026", Warning, "criteria can be checked", criterion_checkable).needs(&["criteria"]),
        Rule::new("P027", Error, "durations are finite and not negative", duration_finite).needs(&["duration"]),
        Rule::new("P028", Warning, "durations are reasonable for their kind", duration_reasonable).needs(&["duration"]),
        Rule::new("P029", Warning, "only milestones take no time", zero_is_milestone)
            .needs(&["duration", "kind", "kinds"]),
        Rule::new("P030", Error, "automation flags agree with executor and agent", automation_consistent)
            .needs(&["automation"]),
        Rule::new("P031", Error, "numbers are finite, in range and of one unit", quantities).needs(&["quantities"]),
        Rule::new("P032", Warning, "texts are not longer than allowed", text_limit).needs(&["title"]),
        Rule::new("P033", Error, "choices are among what can be chosen", choices).needs(&["choices"]),
    ]
}

/// Reports one step by a field.
fn step(
    plan: &Subject,
    found: &mut Findings,
    at: usize,
    field: &str,
    says: impl FnOnce(&Id) -> String,
    witness: Value,
) {
    let view = plan.view();
    found.at(&[at as u32], || {
        let mut witness = witness;
        if let Value::Object(map) = &mut witness {
            map.insert("step".to_owned(), json!(view.id(at)));
        }
        (view.step_path(at, field), says(view.id(at)), witness)
    });
}

fn steps(plan: &Subject) -> impl Iterator<Item = (usize, &Step)> {
    plan.view().steps().iter().enumerate()
}

fn required(plan: &Subject, found: &mut Findings) {
    for (at, content) in steps(plan) {
        for field in plan.policy().required.iter().filter(|field| content.text(field).is_none()) {
            step(plan, found, at, field, |id| format!("`{id}` has no {field}"), json!({"field": field}));
        }
    }
}

/// All texts of a step, by field.
fn texts(content: &Step) -> impl Iterator<Item = (&str, &str)> {
    let others = content.texts.iter().map(|(field, text)| (field.as_str(), text.as_str()));
    content.title.as_deref().map(|title| ("title", title)).into_iter().chain(others)
}

fn no_placeholder(plan: &Subject, found: &mut Findings) {
    for (at, content) in steps(plan) {
        for (field, text) in texts(content) {
            let plain = text.trim().to_lowercase();
            if plain.is_empty() || plan.policy().placeholders.contains(&plain) {
                step(plan, found, at, field, |id| format!("{field} of `{id}` is `{text}`"), json!({"value": text}));
            }
        }
    }
}

fn has_agent(plan: &Subject, found: &mut Findings) {
    for (at, _) in steps(plan).filter(|(_, content)| content.agent.is_none()) {
        step(plan, found, at, "agent", |id| format!("nobody is responsible for `{id}`"), json!({}));
    }
}

fn roster(plan: &Subject) -> HashMap<&Id, &Agent> {
    plan.view().charter().agents.iter().map(|agent| (&agent.id, agent)).collect()
}

fn agent_known(plan: &Subject, found: &mut Findings) {
    let roster = roster(plan);
    for (at, content) in steps(plan) {
        if let Some(agent) = content.agent.as_ref().filter(|agent| !roster.contains_key(agent)) {
            let says = |id: &Id| format!("`{agent}`, responsible for `{id}`, is not on the roster");
            step(plan, found, at, "agent", says, json!({"agent": agent}));
        }
    }
}

fn agent_qualified(plan: &Subject, found: &mut Findings) {
    let roster = roster(plan);
    for (at, content) in steps(plan) {
        let (Some(kind), Some(agent)) = (&content.kind, content.agent.as_ref().and_then(|id| roster.get(id))) else {
            continue;
        };
        if !agent.skills.contains(kind) {
            let says = |id: &Id| format!("`{}` is not qualified for `{id}`, which is {kind}", agent.id);
            step(plan, found, at, "agent", says, json!({"agent": agent.id, "kind": kind}));
        }
    }
}

fn has_criterion(plan: &Subject, found: &mut Findings) {
    for (at, _) in steps(plan).filter(|(_, content)| content.criteria.is_empty()) {
        step(plan, found, at, "criteria", |id| format!("nothing says how success of `{id}` is known"), json!({}));
    }
}

fn criterion_checkable(plan: &Subject, found: &mut Findings) {
    for (at, content) in steps(plan) {
        for (position, criterion) in content.criteria.iter().enumerate() {
            if !(plan.policy().checkable)(criterion) {
                let field = format!("criteria/{position}");
                let says = |id: &Id| format!("criterion `{}` of `{id}` cannot be checked", criterion.text);
                step(plan, found, at, &field, says, json!({"text": criterion.text}));
            }
        }
    }
}

fn duration_finite(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, ticks) in view.durations.iter().enumerate().filter(|(_, ticks)| **ticks < 0) {
        let given = match *ticks {
            ABSENT => "missing".to_owned(),
            REFUSED => view
                .refused
                .binary_search_by_key(&(at as u32), |refused| refused.0)
                .map_or_else(|_| "refused".to_owned(), |seat| view.refused[seat].1.clone()),
            ticks => ticks.to_string(),
        };
        step(
            plan,
            found,
            at,
            "duration",
            |id| format!("the duration of `{id}` is {given}"),
            json!({"duration": given}),
        );
    }
    if !sums_fit(view) {
        found.add(view.plan_path("steps"), "the sum of durations and lags overflows", json!({"limit": i64::MAX / 4}));
    }
}

fn duration_reasonable(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, ticks) in view.durations.iter().enumerate().filter(|(_, ticks)| **ticks >= 0) {
        let kind = view.steps.get(at).and_then(|content| content.kind.as_ref());
        let known = kind.and_then(|kind| view.charter.kinds.get(kind));
        let (least, most) = known.map_or_else(|| plan.policy().reasonable, |kind| (kind.min, kind.max));
        if !(least..=most).contains(ticks) {
            let says = |id: &Id| format!("`{id}` takes {ticks}, which is not within {least} to {most}");
            step(plan, found, at, "duration", says, json!({"duration": ticks, "bounds": [least, most]}));
        }
    }
}

fn zero_is_milestone(plan: &Subject, found: &mut Findings) {
    let view = plan.view();
    for (at, content) in steps(plan).filter(|(at, _)| view.durations[*at] == 0) {
        let kind = content.kind.as_ref().and_then(|kind| view.charter.kinds.get(kind));
        if !kind.is_some_and(|kind| kind.milestone) {
            step(plan, found, at, "duration", |id| format!("`{id}` takes no time but is no milestone"), json!({}));
        }
    }
}

fn automation_consistent(plan: &Subject, found: &mut Findings) {
    let roster = roster(plan);
    for (at, content) in steps(plan) {
        let missing = match &content.automation {
            None => "says neither that it is automated nor that it is manual",
            Some(flag) if flag.automated => match flag.executor.as_deref().map(str::trim) {
                None | Some("") => "is automated but has no executor",
                Some(_) => continue,
            },
            Some(_) => match content.agent.as_ref().and_then(|id| roster.get(id)) {
                Some(agent) if !agent.human => "is manual but its agent is no person",
                _ => continue,
            },
        };
        step(plan, found, at, "automation", |id| format!("`{id}` {missing}"), json!({"missing": missing}));
    }
}

fn quantities(plan: &Subject, found: &mut Findings) {
    let mut units: HashMap<&str, &str> = HashMap::new();
    for (at, content) in steps(plan) {
        for (name, quantity) in &content.quantities {
            let unit = *units.entry(name).or_insert(&quantity.unit);
            let value = quantity.value;
            let wrong = match () {
                () if !value.is_finite() => format!("is {value}"),
                () if value < quantity.min
                    || value > quantity.max
                    || quantity.min.is_nan()
                    || quantity.max.is_nan() =>
                {
                    format!("is {value}, not within {} to {}", quantity.min, quantity.max)
                }
                () if unit != quantity.unit => format!("is in {}, elsewhere in {unit}", quantity.unit),
                () => continue,
            };
            let field = format!("quantities/{name}");
            let witness = json!({"value": value.to_string(), "unit": quantity.unit});
            step(plan, found, at, &field, |id| format!("{name} of `{id}` {wrong}"), witness);
        }
    }
}

fn text_limit(plan: &Subject, found: &mut Findings) {
    let limit = plan.policy().text_limit;
    for (at, content) in steps(plan) {
        for (field, text) in texts(content).filter(|(_, text)| text.len() > limit) {
            let length = text.chars().count();
            if length > limit {
                let says = |id: &Id| format!("{field} of `{id}` has {length} characters, more than {limit}");
                step(plan, found, at, field, says, json!({"length": length, "limit": limit}));
            }
        }
    }
}

fn choices(plan: &Subject, found: &mut Findings) {
    for (at, content) in steps(plan) {
        for (name, choice) in content.choices.iter().filter(|(_, choice)| !choice.of.contains(&choice.value)) {
            let says = |id: &Id| format!("{name} of `{id}` is `{}`, not one of {}", choice.value, choice.of.join(", "));
            step(plan, found, at, &format!("choices/{name}"), says, json!({"value": choice.value, "of": choice.of}));
        }
    }
}
