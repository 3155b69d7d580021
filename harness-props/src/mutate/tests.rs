//! The kill matrix of our own rules, and valid plans by the thousand.

use super::{KillMatrix, Mutator, Row, break_rule, drills, migrations, plans, series, slates, timelines};
use crate::contract;
use crate::generate::{PlanConfig, Random, SlateConfig, drill, migration, plan, slate, timeline};
use crate::plan::{PlanValidator, rules};
use crate::rule::{Rule, Subject, Validator};
use crate::solution::{self, SlateValidator};

/// Mutants per rule: 10,000 in full form, told by `HARNESS_ROUNDS`.
fn rounds() -> usize {
    crate::env::rounds(100)
}

#[test]
fn every_plan_rule_has_its_mutator() {
    let codes = |list: Vec<String>| list;
    let of_rules = codes(rules().iter().map(|rule| rule.code().to_owned()).collect());
    let of_mutators = codes(plans().iter().map(|mutator| mutator.code().to_owned()).collect());
    assert_eq!(of_rules, of_mutators);
    assert_eq!(of_rules.len(), 67);
}

#[test]
fn every_mutant_is_caught_by_its_rule_alone_at_its_path() {
    let config = PlanConfig::default().steps(3..=12);
    let validator = PlanValidator::full().without("P004");
    let matrix = KillMatrix::new(rounds(), 11)
        .subjects(move |random| plan(&config, random))
        .mutators(plans().into_iter().filter(|mutator| mutator.code() != "P004"))
        .judge(|plan| validator.check(plan).codes(""));
    matrix.assert_complete();
    println!(
        "figure: {} mutants of each of {} rules of plans, each caught by its rule alone",
        rounds(),
        rules().len() - 1
    );
}

#[test]
fn every_mutant_is_caught_in_plans_listed_in_order_too() {
    let config = PlanConfig::default().steps(3..=12).shuffled(false);
    let validator = PlanValidator::full();
    let matrix = KillMatrix::new(rounds() / 2, 12)
        .subjects(move |random| plan(&config, random))
        .mutators(plans())
        .judge(|plan| validator.check(plan).codes(""));
    matrix.assert_complete();
}

#[test]
fn valid_plans_are_never_accused_and_all_rules_run() {
    let config = PlanConfig::default();
    let validator = PlanValidator::full().without("P004");
    let mut random = Random::new(13);
    let mut skipped = std::collections::BTreeMap::<String, usize>::new();
    let count = rounds() * 100;
    for round in 0..count {
        let plan = plan(&config, &mut random);
        let report = validator.check(&plan);
        assert!(report.is_clean(), "round {round}: {report}\n{}", plan.to_json());
        report.skipped.into_iter().for_each(|skip| *skipped.entry(skip.rule).or_default() += 1);
    }
    println!("figure: {count} valid plans, none accused");
    skipped.remove("P004");
    assert!(skipped.values().all(|times| *times < count * 3 / 4), "some rule hardly ever runs: {skipped:?}");
}

#[test]
fn a_deadline_is_missed_by_little_and_a_margin_too() {
    let mut random = Random::new(15);
    for round in 0..200 {
        let plan = plan(&PlanConfig::default().steps(3..=12), &mut random);
        let ends = plan.steps.iter().filter_map(|step| step.finish).max().unwrap();
        if let Some(broken) = break_rule("P073", &plan, &mut random) {
            let missed_by = ends - broken.subject.deadline.unwrap();
            assert!((1..=3).contains(&missed_by), "round {round}: {missed_by}");
        }
        if let Some(broken) = break_rule("P074", &plan, &mut random) {
            let missed_by = broken.subject.margin.unwrap() - (plan.deadline.unwrap() - ends);
            assert!((1..=3).contains(&missed_by), "round {round}: {missed_by}");
        }
    }
}

#[test]
fn undoing_a_defect_restores_validity() {
    let mut random = Random::new(14);
    let config = PlanConfig::default().steps(4..=9);
    let validator = PlanValidator::full().without("P004");
    for rule in rules().iter().filter(|rule| rule.code() != "P004") {
        let broken = (0..2_000).find_map(|_| {
            let plan = plan(&config, &mut random);
            break_rule(rule.code(), &plan, &mut random)
        });
        let broken = broken.unwrap_or_else(|| panic!("{} never applied", rule.code()));
        assert!(!validator.check(&broken.subject).is_clean());
        assert!(validator.check(&broken.undo()).is_clean());
    }
}

#[test]
fn the_catalogue_has_111_rules() {
    let count = |prefix: &str, codes: Vec<String>| codes.iter().filter(|code| code.starts_with(prefix)).count();
    fn codes<T>(rules: &[Rule<T>]) -> Vec<String> {
        rules.iter().map(|rule| rule.code().to_owned()).collect()
    }
    let all = [
        count("P", codes(&rules())),
        count("S", codes(&solution::rules())),
        count("B", codes(&contract::rules())),
        count("F", codes(&solution::drill_rules())),
        count("T", codes(&solution::timeline_rules())),
        count("C", codes(&solution::series_rules())),
    ];
    assert_eq!(all, [67, 29, 4, 4, 3, 4]);
}

fn proven<S: Subject + Clone>(rules: &[Rule<S>], mutators: Vec<Mutator<S>>, draw: impl Fn(&mut Random) -> S + 'static) {
    let codes: Vec<&str> = rules.iter().map(Rule::code).collect();
    assert_eq!(codes, mutators.iter().map(Mutator::code).collect::<Vec<_>>());
    let validator = Validator::new(rules.to_vec());
    let matrix =
        KillMatrix::new(rounds(), 15).subjects(draw).mutators(mutators).judge(|one| validator.check(one).codes(""));
    matrix.assert_complete();
}

#[test]
fn every_mutant_of_a_slate_is_caught_by_its_rule_alone_at_its_path() {
    let config = SlateConfig::default();
    proven(&solution::rules(), slates(), move |random| slate(&config, random));
}

#[test]
fn every_mutant_of_drills_series_timelines_and_migrations_is_caught() {
    proven(&solution::drill_rules(), drills(), drill);
    proven(&solution::series_rules(), series(), crate::generate::series);
    proven(&solution::timeline_rules(), timelines(), timeline);
    proven(&contract::rules(), migrations(), migration);
}

#[test]
fn valid_slates_are_never_accused() {
    let validator = SlateValidator::standard();
    let mut random = Random::new(16);
    for round in 0..rounds() * 10 {
        let slate = slate(&SlateConfig::default().solutions(1..=6), &mut random);
        let report = validator.check(&slate);
        assert!(report.is_clean(), "round {round}: {report}");
    }
}

#[test]
fn defects_fall_on_any_step_and_not_only_on_the_first() {
    let config = PlanConfig::default().steps(6..=6);
    let mut random = Random::new(15);
    for mutator in plans() {
        let mut times = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..200 {
            let broken = mutator.broken(&plan(&config, &mut random), &mut random);
            let step = broken.as_ref().and_then(|broken| broken.path.strip_prefix("/steps/")?.split('/').next());
            step.into_iter().for_each(|step| *times.entry(step.to_owned()).or_default() += 1);
        }
        let seen: usize = times.values().sum();
        assert!(seen < 20 || times.len() > 1, "{} breaks {times:?} only", mutator.code());
    }
}

#[test]
fn greatest_lag_that_the_schedule_breaks_is_found_where_there_is_hardly_room_for_it() {
    let text = r#"{"steps":[{"id":"a","duration":1,"start":0},{"id":"b","duration":1,"start":4,"after":[{"on":"a","lag":2}]}]}"#;
    let plan = crate::plan::Plan::from_json(text).unwrap();
    let broken =
        break_rule("P063", &plan, &mut Random::new(16)).expect("three ticks lie between them, and two have to");
    assert_eq!(broken.subject.steps[1].after[0].max_lag, Some(2));
}

#[test]
fn rule_is_proven_only_by_all_mutants_that_were_asked_for() {
    let row = |wanted, mutants, caught, exact, attributed| Row {
        wanted,
        mutants,
        caught,
        exact,
        attributed,
        ..Row::default()
    };
    assert!(row(10, 10, 10, 10, true).is_killed());
    assert!(row(10, 10, 10, 0, false).is_killed(), "attribution was not asked for");
    for short in [row(0, 0, 0, 0, true), row(11, 10, 10, 10, true), row(10, 10, 9, 10, true), row(10, 10, 10, 9, true)]
    {
        assert!(!short.is_killed(), "{short:?}");
    }
}

#[test]
fn a_mutator_that_never_applies_proves_nothing_and_one_that_often_does_not_gets_there() {
    let never = Mutator::new("X001", |_: &mut i64, _: &mut Random| None);
    let seldom = Mutator::new("X002", |subject: &mut i64, _: &mut Random| {
        (*subject % 7 == 0).then(|| {
            *subject = -1;
            "/number".to_owned()
        })
    });
    let judge = |subject: &i64| if *subject < 0 { vec![("X002".to_owned(), "/number".to_owned())] } else { Vec::new() };
    let matrix =
        KillMatrix::new(5, 16).subjects(|random| random.between(0, 999)).mutators([never, seldom.clone()]).judge(judge);
    assert_eq!(matrix.survivors(), ["X001"]);
    assert_eq!(matrix.row("X001").map(|row| (row.wanted, row.mutants)), Some((5, 0)));
    assert_eq!(matrix.row("X002").map(|row| (row.mutants, row.caught, row.exact)), Some((5, 5, 5)));
    let expected =
        "1 of 2 rules proven; 0 of 5 valid subjects accused\n  X001: 0 of 5 mutants, 0 caught, 0 attributed right\n";
    assert_eq!(matrix.to_string(), expected);
    assert!(!matrix.is_complete() && !KillMatrix::<i64>::new(5, 1).judge(judge).is_complete(), "nothing is no proof");
    let touchy = KillMatrix::new(5, 16).subjects(|_| 7).mutator(seldom).accepts(|_| false);
    assert_eq!((touchy.false_alarms, touchy.is_complete(), touchy.survivors().len()), (5, false, 0));
}
