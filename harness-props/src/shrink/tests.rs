//! Shrinking reaches the true minimum, within its budget.

use super::{candidates, plan, same_rules, within};
use crate::generate::{PlanConfig, Random};
use crate::mutate::{break_rule, plans};
use crate::plan::{Id, Plan, PlanModel, PlanValidator, Policy, Step, Subject};

/// A raw plan of up to 40 steps and 80 dependencies, cycles and all.
fn raw(random: &mut Random) -> Plan {
    let count = 1 + random.index(39);
    let mut steps: Vec<Step> = (0..count).map(|at| Step { id: Id::Number(at as u64), ..Step::default() }).collect();
    for _ in 0..random.index(80) {
        let (from, to) = (random.index(count), random.index(count) as u64);
        steps[from].after.push(Id::Number(to).into());
    }
    Plan { steps, ..Plan::default() }
}

/// The largest set of steps that wait for one another is at least so large.
fn tangled(plan: &Plan, size: usize) -> bool {
    let subject = Subject::new(plan.view().unwrap(), Policy::default());
    match size {
        1 => plan.steps.iter().any(|step| step.after.iter().any(|link| link.on == step.id)),
        size => subject.order().components().iter().any(|component| component.len() >= size),
    }
}

#[test]
fn cycles_shrink_to_the_true_minimum() {
    let seeds = crate::env::rounds(100);
    for (size, limit) in [(1, 60), (2, 80), (3, 120), (4, 315)] {
        let mut random = Random::new(size as u64);
        let (mut minimal, mut worst) = (0, 0);
        for _ in 0..seeds {
            let failing = std::iter::repeat_with(|| raw(&mut random)).find(|plan| tangled(plan, size)).unwrap();
            let shrunk = plan(&failing, |plan| tangled(plan, size));
            let edges: usize = shrunk.plan.steps.iter().map(|step| step.after.len()).sum();
            minimal += usize::from(shrunk.plan.steps.len() == size && edges == size);
            // The calls that matter are those until the smallest graph stands; dropping content comes after.
            worst = worst.max(shrunk.calls);
        }
        println!("figure: cycles of {size}: {minimal} of {seeds} minimal, at most {worst} calls");
        assert_eq!(minimal, seeds, "cycles of {size}");
        assert!(worst <= limit, "cycles of {size} took {worst} calls");
    }
}

#[test]
fn a_plan_is_minimal_when_the_budget_was_enough_and_not_when_it_ended_first() {
    let mut random = Random::new(33);
    let failing = std::iter::repeat_with(|| raw(&mut random)).find(|plan| tangled(plan, 2)).unwrap();
    let enough = plan(&failing, |plan| tangled(plan, 2));
    assert!(enough.is_minimal && enough.calls > 3, "{} calls", enough.calls);
    let cut = within(&failing, 3, |plan| tangled(plan, 2));
    assert!(!cut.is_minimal && cut.calls == 3 && tangled(&cut.plan, 2), "{} calls", cut.calls);
}

#[test]
fn every_counterexample_shrinks_to_four_steps_at_most() {
    let mut random = Random::new(21);
    let config = PlanConfig::default().steps(3..=10);
    let validator = PlanValidator::full().without("P004");
    for mutator in plans().iter().filter(|mutator| mutator.code() != "P004") {
        {
            let broken = (0..2_000).find_map(|_| {
                let plan = crate::generate::plan(&config, &mut random);
                break_rule(mutator.code(), &plan, &mut random)
            });
            let broken = broken.unwrap_or_else(|| panic!("{} never applied", mutator.code()));
            let shrunk = same_rules(&broken.subject, |plan| validator.check(plan));
            let steps = shrunk.plan.steps.len();
            assert!(
                steps <= 4,
                "{} keeps {steps} steps after {} calls\n{}",
                mutator.code(),
                shrunk.calls,
                shrunk.plan.to_json()
            );
        }
    }
}

#[test]
fn candidates_leave_out_halves_and_then_each_step_and_dependency() {
    let mut whole = raw(&mut Random::new(7));
    whole.steps.truncate(4);
    whole.steps.iter_mut().for_each(|step| step.after.clear());
    whole.steps[3].after = vec![Id::Number(0).into(), Id::Number(1).into()];
    let ids = |plan: &Plan| plan.steps.iter().map(|step| step.id.to_string()).collect::<Vec<_>>().join("");
    let all = candidates(&whole);
    let first: Vec<String> = all.iter().take(7).map(ids).collect();
    assert_eq!(first, ["", "23", "01", "123", "023", "013", "012"]);
    let lean = |plan: &&Plan| plan.steps.len() == 4 && plan.steps[3].after.len() == 1;
    assert_eq!(all.iter().filter(lean).count(), 2, "without the one dependency and without the other");
    assert!(all.iter().all(|smaller| super::size(smaller) < super::size(&whole)));
}

#[test]
fn what_does_not_fail_is_left_alone() {
    let whole = raw(&mut Random::new(1));
    let shrunk = plan(&whole, |_| false);
    assert_eq!((shrunk.plan, shrunk.is_minimal), (whole, false));
}

#[test]
fn names_that_matter_are_kept_and_others_become_short() {
    let named = |id: &str| Step { id: id.into(), ..Default::default() };
    let whole = Plan { steps: vec![named("boil"), named("cool")], ..Plan::default() };
    let shrunk = plan(&whole, |plan| plan.steps.iter().any(|step| step.id == "boil".into()));
    assert_eq!(shrunk.plan.steps, [named("boil")]);
    let shrunk = plan(&whole, |plan| !plan.steps.is_empty());
    assert_eq!(shrunk.plan.steps, [named("s1")]);
}

#[test]
fn a_step_goes_with_all_that_refers_to_it_and_nothing_else() {
    let steps = r#"{"id":"a"},{"id":"b"},{"id":"c","after":["a","b"],
        "rollback":{"by":"b","uses":["a","b"],"after":["b"]}}"#;
    let lists = r#""entries":["a","b"],"terminals":["c"],"critical_path":["b","c"],"exclusions":[{"one":"a","other":"c","setup":1}]"#;
    let plan = Plan::from_json(&format!(r#"{{"steps":[{steps}],{lists}}}"#)).unwrap();
    let left = |at: usize| serde_json::to_value(super::without_steps(&plan, at, at + 1)).unwrap();
    let without_a = left(0);
    assert_eq!(without_a["steps"][1]["after"], serde_json::json!(["b"]));
    assert_eq!(without_a["steps"][1]["rollback"]["uses"], serde_json::json!(["b"]));
    assert_eq!(
        (&without_a["entries"], &without_a["critical_path"]),
        (&serde_json::json!(["b"]), &serde_json::json!(["b", "c"]))
    );
    let without_b = super::without_steps(&plan, 1, 2);
    let undo = without_b.steps[1].rollback.as_ref().unwrap();
    assert_eq!((undo.by.is_none(), undo.after.is_empty(), undo.uses.len()), (true, true, 1));
    assert_eq!((without_b.exclusions.len(), super::without_steps(&plan, 2, 3).exclusions.len()), (1, 0));
}
