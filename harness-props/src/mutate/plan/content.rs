//! P020 to P033: what steps say.

use super::{any, of, path, some, ticks};
use crate::mutate::Mutator;
use crate::plan::{Automation, Plan, Quantity, Step, Ticks};

/// The mutators, in order of their codes.
pub(super) fn mutators() -> Vec<Mutator<Plan>> {
    vec![
        of("P020", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].title = None;
            path(at, "title")
        }),
        of("P021", |plan, random| {
            let at = any(plan, random);
            let field = ["title", "summary"][random.index(2)];
            let blank = ["", "  ", "TBD", "n/a", " todo "][random.index(5)].to_owned();
            match field {
                "title" => plan.steps[at].title = Some(blank),
                field => drop(plan.steps[at].texts.insert(field.to_owned(), blank)),
            }
            path(at, field)
        }),
        of("P022", |plan, random| {
            let at = some(plan, random, |_, step| !step.exclusive)?;
            plan.steps[at].agent = None;
            path(at, "agent")
        }),
        of("P023", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].agent = Some("stranger".into());
            path(at, "agent")
        }),
        of("P024", |plan, random| {
            let at = any(plan, random);
            let (agent, kind) = (plan.steps[at].agent.clone()?, plan.steps[at].kind.clone()?);
            // Kept by nobody else: the skill goes, and with it the qualification for this step only.
            let same = |step: &Step| step.agent.as_ref() == Some(&agent) && step.kind.as_ref() == Some(&kind);
            if plan.steps.iter().filter(|step| same(step)).count() > 1 {
                return None;
            }
            plan.agents.iter_mut().find(|one| one.id == agent)?.skills.retain(|skill| *skill != kind);
            path(at, "agent")
        }),
        of("P025", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].criteria.clear();
            path(at, "criteria")
        }),
        of("P026", |plan, random| {
            let at = any(plan, random);
            let criterion = plan.steps[at].criteria.first_mut()?;
            match random.index(4) {
                0 => criterion.metric = None,
                1 => criterion.comparator = None,
                2 => criterion.target = Some(f64::NAN),
                _ => criterion.target = None,
            }
            path(at, "criteria/0")
        }),
        of("P027", |plan, random| {
            let at = any(plan, random);
            let bad = [f64::NAN, f64::INFINITY, -1.0, 1e300, 0.5, -0.25];
            plan.steps[at].duration = match random.index(8) {
                6 => None,
                7 => {
                    plan.steps[at].duration = Some(Ticks::Whole(i64::MAX));
                    let kind = plan.steps[at].kind.clone()?;
                    // Reasonable for its kind, or that would be another defect.
                    plan.kinds.get_mut(&kind)?.max = i64::MAX;
                    plan.steps[at].start = None;
                    plan.steps[at].finish = None;
                    plan.load = None;
                    return Some("/steps".to_owned());
                }
                bad_one => Some(bad[bad_one].into()),
            };
            plan.load = None;
            path(at, "duration")
        }),
        of("P028", |plan, random| {
            let at = some(plan, random, |_, step| ticks(step) > 0)?;
            let kind = plan.steps[at].kind.clone()?;
            let longest = plan.steps.iter().filter(|step| step.kind.as_ref() == Some(&kind)).map(ticks).max()?;
            plan.kinds.get_mut(&kind)?.max = longest - 1;
            path(
                plan.steps.iter().position(|step| step.kind.as_ref() == Some(&kind) && ticks(step) == longest)?,
                "duration",
            )
        }),
        of("P029", |plan, random| {
            let at = some(plan, random, |_, step| ticks(step) == 0)?;
            plan.kinds.get_mut("mark")?.milestone = false;
            path(at, "duration")
        }),
        of("P030", |plan, random| {
            let at = any(plan, random);
            let human =
                |plan: &Plan| plan.agents.iter().any(|one| Some(&one.id) == plan.steps[at].agent.as_ref() && one.human);
            plan.steps[at].automation = match random.index(3) {
                0 => None,
                1 if !human(plan) => Some(Automation { automated: false, executor: None }),
                _ => Some(Automation {
                    automated: true,
                    executor: [None, Some(" ".to_owned())][random.index(2)].clone(),
                }),
            };
            path(at, "automation")
        }),
        of("P031", |plan, random| {
            let at = any(plan, random);
            let units = random.percent(30) && plan.steps.len() > 2 && at > 0;
            let cost: &mut Quantity = plan.steps[at].quantities.get_mut("cost")?;
            match random.index(4) {
                _ if units => "USD".clone_into(&mut cost.unit),
                0 => cost.value = f64::NAN,
                1 => cost.value = f64::INFINITY,
                2 => cost.value = -0.1,
                _ => cost.value = 100.1,
            }
            path(at, "quantities/cost")
        }),
        of("P032", |plan, random| {
            let at = any(plan, random);
            plan.steps[at].title = Some("ü".repeat(4_001));
            path(at, "title")
        }),
        of("P033", |plan, random| {
            let at = any(plan, random);
            "lost".clone_into(&mut plan.steps[at].choices.get_mut("state")?.value);
            path(at, "choices/state")
        }),
    ]
}
