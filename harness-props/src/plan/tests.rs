//! Scale, depth, exact counts, bad input and relations of plan rules.

use super::{Id, Plan, PlanLens, PlanModel, PlanValidator, Policy, Subject, Ticks};
use crate::env::rounds;
use crate::generate::{PlanConfig, Random, claim, digraphs, plan};
use crate::rule::{Report, Rule, Severity};

/// A chain of so many steps, closed to a cycle or not; numbered against the list order.
fn chain(count: u64, closed: bool) -> super::View {
    PlanLens::new(move |(): &()| count as usize)
        .id(move |(), at| count - 1 - at as u64)
        .after(move |(), at| {
            let own = count - 1 - at as u64;
            let before = if own == 0 { closed.then(|| count - 1) } else { Some(own - 1) };
            before.into_iter().collect::<Vec<_>>()
        })
        .number(move |(), at| Some((count - at as u64) as i64))
        .duration(|(), _| Some(1_i64))
        .view(&())
        .unwrap()
}

fn in_small_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap()
}

#[test]
fn a_million_steps_in_a_row_need_no_stack() {
    let report = in_small_thread(|| {
        let view = chain(1_000_000, false);
        let parts = view.len() + view.dependencies();
        assert!(view.bytes() <= 64 * parts, "{} bytes for {parts} parts", view.bytes());
        let subject = Subject::new(view.clone(), Policy::default());
        assert_eq!(subject.critical().unwrap().makespan(), 1_000_000);
        assert_eq!(subject.critical().unwrap().path(subject.view()).len(), 1_000_000);
        PlanValidator::standard().allow("P013").check_view(view)
    });
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_cycle_of_a_million_steps_is_named() {
    let report = in_small_thread(|| PlanValidator::standard().check_view(chain(1_000_000, true)));
    assert_eq!(report.primary().into_iter().collect::<Vec<_>>(), ["P009"], "{report}");
    assert_eq!(report.violations[0].witness["steps"], 1_000_000);
    assert_eq!(report.violations[0].witness["shortest"], true);
    assert!(report.to_string().len() < 10_000, "the report stays readable");
}

#[test]
fn a_cycle_of_a_dozen_is_told_whole_and_a_longer_one_shortened() {
    let told = |steps: u64| {
        let report = PlanValidator::standard().check_view(chain(steps, true));
        report.violations.iter().find(|violation| violation.rule == "P009").unwrap().message.clone()
    };
    assert!(told(12).matches(" -> ").count() == 12 && !told(12).contains("more"), "{}", told(12));
    assert!(told(13).matches(" -> ").count() == 13 && told(13).contains(" -> (1 more) -> "), "{}", told(13));
}

/// OEIS A003024: labelled acyclic digraphs. All of five vertices in full form.
#[test]
fn acyclic_digraphs_are_counted_exactly() {
    let accepted = |vertices: usize, code: &str| {
        let rule = super::rules().into_iter().find(|rule| rule.code() == code).unwrap();
        let validator = crate::rule::Validator::new(vec![rule]);
        digraphs(vertices)
            .filter(|plan| {
                let subject = Subject::new(plan.view().unwrap(), Policy::default());
                validator.check(&subject).is_clean()
            })
            .count()
    };
    assert_eq!([1, 2, 3, 4].map(|n| accepted(n, "P009")), [1, 3, 25, 543]);
    assert_eq!(accepted(4, "P007"), 64);
    if rounds(0) > 0 {
        assert_eq!(accepted(5, "P009"), 29_281);
        assert_eq!(accepted(5, "P007"), 1_024);
        println!(
            "figure: 29281 of the 1048576 digraphs of five steps are acyclic, and in 1024 all wait for earlier ones only"
        );
    }
}

#[test]
fn bad_input_is_reported_and_never_panics() {
    let codes = |json: &str| -> Vec<String> {
        let report = PlanValidator::full().check(&Plan::from_json(json).unwrap());
        report.primary().into_iter().map(str::to_owned).collect()
    };
    assert!(codes("{}").contains(&"P001".to_owned()));
    assert!(
        codes(r#"{"steps":[{"id":"a","duration":9223372036854775807},{"id":"b","duration":9223372036854775807}]}"#)
            .contains(&"P027".to_owned())
    );
    assert!(
        codes(r#"{"steps":[{"id":"a","number":-9223372036854775808},{"id":"a","number":0}]}"#)
            .contains(&"P002".to_owned())
    );
    let mixed = codes(r#"{"steps":[{"id":1,"after":["1",1,2,2]},{"id":2,"after":[1]}]}"#);
    assert!(["P005", "P006", "P008", "P009"].iter().all(|code| mixed.contains(&(*code).to_owned())), "{mixed:?}");
    for torn in
        ["", "{", r#"{"steps":[{"id":"a"}"#, r#"{"step":[]}"#, r#"{"steps":[{"id":"a","agnet":"x"}]}"#, "[]", "null"]
    {
        assert!(Plan::from_json(torn).is_err(), "{torn}");
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, 1e300, -1e300] {
        assert!(matches!(Ticks::from(number), Ticks::Refused(_)), "{number}");
    }
    assert_eq!(Ticks::from(-0.0), Ticks::Whole(0));
    assert!(matches!(Ticks::from(std::time::Duration::MAX), Ticks::Refused(_)));
    // Extreme times, lags and demands.
    let wild = r#"{"steps":[{"id":"a","duration":9223372036854775807,"start":9223372036854775807,"finish":-9223372036854775808,
        "demands":[{"resource":"r","amount":9223372036854775807}]},
        {"id":"b","duration":1,"start":-9223372036854775807,"after":[{"on":"a","lag":-9223372036854775808,"max_lag":9223372036854775807}],
        "demands":[{"resource":"r","amount":9223372036854775807}]}],
        "resources":[{"id":"r","capacity":1,"renewable":true}],"deadline":-9223372036854775808,"margin":9223372036854775807,"makespan":0,
        "recovery_window":0,"max_parallel":-1,"exclusions":[{"one":"a","other":"b","setup":9223372036854775807}]}"#;
    assert!(codes(wild).contains(&"P027".to_owned()));
}

#[test]
fn times_are_whole_up_to_what_can_be_told_apart() {
    let refused = |ticks: Ticks| matches!(ticks, Ticks::Refused(_));
    assert!(refused(i64::MIN.into()) && refused((i64::MIN + 1).into()));
    assert_eq!(
        (Ticks::from(i64::MIN + 2), Ticks::from(i64::MAX)),
        (Ticks::Whole(i64::MIN + 2), Ticks::Whole(i64::MAX))
    );
    let most = 9_007_199_254_740_992.0;
    assert_eq!((Ticks::from(most), Ticks::from(-most)), (Ticks::Whole(1 << 53), Ticks::Whole(-1 << 53)));
    for float in [most + 2.0, -most - 2.0, 1.5, f64::NAN, f64::INFINITY] {
        assert!(refused(float.into()), "{float}");
    }
    assert_eq!(Ticks::from(std::time::Duration::from_micros(2_999)), Ticks::Whole(2));
    assert!(refused(std::time::Duration::MAX.into()));
}

#[test]
fn what_is_not_supplied_is_skipped_and_can_be_demanded() {
    let view = || chain(3, false);
    let report = PlanValidator::standard().must_run("P040").check_view(view());
    assert!(report.is_valid() && report.outcome().is_no_evidence(), "{report}");
    assert_eq!(report.why_skipped("P040"), Some("needs `rollback`, which is not supplied"));
    assert!(PlanValidator::standard().must_run("P009").check_view(view()).outcome().is_pass());
}

#[test]
fn totals_are_exact_when_lists_are_not() {
    let steps = (0..300).map(|at| super::Step {
        id: Id::Number(at),
        after: vec![Id::Number(999).into()],
        ..Default::default()
    });
    let plan = Plan { steps: steps.collect(), ..Plan::default() };
    let report = PlanValidator::standard().listed(5).check(&plan);
    assert_eq!(report.totals["P005"], 300);
    assert_eq!(report.violations.iter().filter(|one| one.rule == "P005").count(), 5);
    assert!(report.to_string().contains("P005: 5 of 300 listed"), "{report}");
}

/// The order in which rules stand in the registry, and the checks before, change nothing.
#[test]
fn reports_do_not_depend_on_order_or_history() {
    let mut random = Random::new(40);
    let forward = crate::rule::Validator::new(super::rules());
    let backward = crate::rule::Validator::new(super::rules().into_iter().rev().collect::<Vec<Rule<_>>>());
    for _ in 0..50 {
        let mut plan = plan(&PlanConfig::default(), &mut random);
        plan.steps.iter_mut().for_each(|step| step.title = None);
        let subject = Subject::new(plan.view().unwrap(), Policy::default());
        let text = |report: &Report| serde_json::to_string(report).unwrap();
        let first = text(&forward.check(&subject));
        assert_eq!(first, text(&backward.check(&subject)));
        assert_eq!(first, text(&forward.check(&subject)));
    }
}

/// Everything that is reported, without the places in the list.
fn essence(report: &Report) -> Vec<(String, String)> {
    let mut all: Vec<_> = report.violations.iter().map(|one| (one.rule.clone(), one.message.clone())).collect();
    all.sort();
    all
}

#[test]
fn relations_between_plans_hold() {
    let mut random = Random::new(41);
    let makespan = |plan: &Plan| Subject::new(plan.view().unwrap(), Policy::default()).critical().unwrap().makespan();
    for _ in 0..rounds(300) {
        let base = plan(&PlanConfig::default(), &mut random);
        // The order of the list changes nothing but places, of broken plans too.
        let mut broken = base.clone();
        broken.steps[0].after.push("nowhere".into());
        let mut shuffled = broken.clone();
        random.shuffle(&mut shuffled.steps);
        let check = |plan: &Plan| PlanValidator::standard().check(plan);
        assert_eq!(essence(&check(&broken)), essence(&check(&shuffled)));
        // Without lags and ties, time scales, and backwards is as long as forwards.
        let mut bare = base.clone();
        bare.steps.iter_mut().flat_map(|step| &mut step.after).for_each(|link| *link = link.on.clone().into());
        let mut scaled = bare.clone();
        for step in &mut scaled.steps {
            if let Some(Ticks::Whole(ticks)) = &mut step.duration {
                *ticks *= 7;
            }
        }
        assert_eq!(makespan(&scaled), 7 * makespan(&bare));
        let mut reversed = bare.clone();
        reversed.steps.iter_mut().for_each(|step| step.after.clear());
        for step in &bare.steps {
            for link in &step.after {
                let at = reversed.position(&link.on).unwrap();
                reversed.steps[at].after.push(step.id.clone().into());
            }
        }
        assert_eq!(makespan(&reversed), makespan(&bare));
        // Two plans side by side take as long as the longer.
        let mut other = plan(&PlanConfig::default(), &mut random);
        other.steps.iter_mut().flat_map(|step| &mut step.after).for_each(|link| *link = link.on.clone().into());
        let longer = makespan(&bare).max(makespan(&other));
        let mut both = bare.clone();
        for mut step in other.steps {
            step.id = format!("other-{}", step.id).into();
            step.after.iter_mut().for_each(|link| link.on = format!("other-{}", link.on).into());
            both.steps.push(step);
        }
        assert_eq!(makespan(&both), longer);
        // More capacity stays feasible.
        let mut ample = base.clone();
        ample.resources.iter_mut().for_each(|resource| resource.capacity += 5);
        claim(&mut ample);
        assert!(check(&ample).is_clean());
    }
}

/// A textbook network with times known by hand: A3 B2 C4(A) D1(A,B) E2(C,D).
#[test]
fn critical_path_is_that_of_the_textbook() {
    let step = |id: &str, duration: i64, after: &[&str]| super::Step {
        id: id.into(),
        duration: Some(duration.into()),
        after: after.iter().map(|on| (*on).into()).collect(),
        ..Default::default()
    };
    let steps = vec![
        step("E", 2, &["C", "D"]),
        step("A", 3, &[]),
        step("B", 2, &[]),
        step("C", 4, &["A"]),
        step("D", 1, &["A", "B"]),
    ];
    let plan = Plan { steps, ..Plan::default() };
    let subject = Subject::new(plan.view().unwrap(), Policy::default());
    let (view, critical) = (subject.view(), subject.critical().unwrap());
    assert_eq!(critical.makespan(), 9);
    let path: Vec<String> = critical.path(view).iter().map(|at| view.id(*at).to_string()).collect();
    assert_eq!(path, ["A", "C", "E"]);
    let times: Vec<[i64; 4]> = (0..5)
        .map(|at| critical.times(view, at))
        .map(|t| [t.early_start, t.late_start, t.total_float, t.free_float])
        .collect();
    assert_eq!(times, [[7, 7, 0, 0], [0, 0, 0, 0], [0, 4, 4, 1], [3, 3, 0, 0], [3, 6, 3, 3]]);
    assert_eq!(critical.paths(view, subject.order()), 1);
}

/// Short times are found in one pass of their own, long ones by the definition: of the same plan they have to agree, whether
/// its list is in order, against it or in none.
#[test]
fn short_times_are_the_long_ones_on_a_smaller_scale() {
    const STEPS: usize = 300;
    const SCALE: i64 = 1 << 40;
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut names: Vec<u64> = (0..STEPS as u64).collect();
        match seed % 3 {
            0 => {}
            1 => names.reverse(),
            _ => (1..STEPS).rev().for_each(|at| names.swap(at, random.index(at + 1))),
        }
        // Of each name in the order of the list: how long it takes, and the names below its own that it waits for.
        let steps: Vec<(u64, i64, Vec<u64>)> = names
            .into_iter()
            .map(|name| {
                let on = (0..3).filter(|_| name > 0).map(|_| random.index(name as usize) as u64).collect();
                (name, random.index(9) as i64, on)
            })
            .collect();
        let subject = |scale: i64| {
            let lens = PlanLens::new(|steps: &Vec<(u64, i64, Vec<u64>)>| steps.len())
                .id(|steps, at| steps[at].0)
                .after(|steps, at| steps[at].2.clone())
                .duration(move |steps, at| Some(steps[at].1 * scale));
            Subject::new(lens.view(&steps).unwrap(), Policy::default())
        };
        let (short, long) = (subject(1), subject(SCALE));
        assert!(short.view().has_short_ticks() && !long.view().has_short_ticks());
        let (few, many) = (short.critical().unwrap(), long.critical().unwrap());
        assert_eq!(few.makespan() * SCALE, many.makespan(), "seed {seed}");
        for at in 0..STEPS {
            let (few, many) = (few.times(short.view(), at), many.times(long.view(), at));
            let scaled = [few.early_start, few.early_finish, few.late_start, few.total_float, few.free_float];
            let long = [many.early_start, many.early_finish, many.late_start, many.total_float, many.free_float];
            assert_eq!(scaled.map(|ticks| ticks * SCALE), long, "seed {seed}, step {at}");
        }
    }
}

#[test]
fn times_that_just_fit_and_those_that_just_do_not_are_told_exactly() {
    const MOST: i64 = u32::MAX as i64;
    for (durations, is_short) in
        [([MOST - 1, 0], true), ([MOST, 0], false), ([1, MOST - 2], true), ([1, MOST - 1], false), ([-1, 1], false)]
    {
        let lens = PlanLens::new(|durations: &[i64; 2]| durations.len())
            .id(|_, at| at as u64)
            .after(|_, at| if at == 0 { vec![] } else { vec![0_u64] })
            .duration(|durations, at| Some(durations[at]));
        let subject = Subject::new(lens.view(&durations).unwrap(), Policy::default());
        assert_eq!(subject.view().has_short_ticks(), is_short, "{durations:?}");
        let critical = subject.critical().map(|critical| critical.makespan());
        assert_eq!(critical.ok(), (durations[0] >= 0).then(|| durations.iter().sum()), "{durations:?}");
    }
}

#[test]
fn severity_and_own_rules_change_the_verdict() {
    let plan = plan(&PlanConfig::default(), &mut Random::new(1));
    let never = Rule::new("X001", Severity::Error, "nothing is good enough", |_: &Subject, found| {
        found.add("", "it is not", serde_json::Value::Null);
    });
    let strict = PlanValidator::standard().rule(never);
    assert!(strict.check(&plan).outcome().is_fail());
    let lax = strict.severity("X001", Severity::Warning);
    assert_eq!(lax.check(&plan).outcome().word(), "degraded");
    assert!(lax.without("X001").check(&plan).outcome().is_pass());
}

#[test]
fn duration_that_is_none_is_shown_as_it_was_given_and_a_missing_one_as_missing() {
    let plan =
        r#"{"steps":[{"id":"a","duration":"soon"},{"id":"b","duration":1.5},{"id":"c"},{"id":"d","duration":-3}]}"#;
    let report = PlanValidator::standard().check(&Plan::from_json(plan).unwrap());
    let said = report.violations.iter().filter(|one| one.rule == "P027").map(|one| one.message.as_str());
    let expected =
        ["`a` is soon", "`b` is 1.5", "`c` is missing", "`d` is -3"].map(|end| format!("the duration of {end}"));
    assert_eq!(said.collect::<Vec<_>>(), expected);
}

#[test]
fn plain_dependency_is_written_as_the_name_and_any_other_with_all_it_has() {
    let text = r#"{"steps":[{"id":"a"},{"id":"b","after":["a",{"on":"a","lag":2}]}]}"#;
    let plan = Plan::from_json(text).unwrap();
    assert!(plan.steps[1].after[0].is_plain() && !plan.steps[1].after[1].is_plain());
    let written = serde_json::to_value(&plan.steps[1].after).unwrap();
    assert_eq!(written[0], serde_json::json!("a"));
    assert_eq!((&written[1]["on"], &written[1]["lag"]), (&serde_json::json!("a"), &serde_json::json!(2)));
}

#[test]
fn lens_says_what_it_looks_at() {
    let lens = PlanLens::new(|jobs: &Vec<u8>| jobs.len()).duration(|jobs, at| Some(i64::from(jobs[at]))).root("/jobs");
    let shown = format!("{:?}", lens.agent(|_, _| None));
    assert!(shown.starts_with("PlanLens") && shown.contains("agent") && shown.contains("/jobs"), "{shown}");
}

/// The rules that found something, whatever else it follows from, and where.
fn everything(json: &str) -> Vec<(String, String)> {
    let report = PlanValidator::full().check(&Plan::from_json(json).unwrap());
    let all = report.violations.iter().chain(&report.implied);
    all.map(|one| (one.rule.clone(), one.path.clone())).collect()
}

#[test]
fn lags_that_contradict_each_other_are_found_where_they_stand() {
    // The greatest lag of the first dependency can be kept; that of the second is below its least one.
    let found = everything(
        r#"{"steps":[{"id":"a","duration":1},{"id":"b","duration":1},
        {"id":"c","duration":1,"after":[{"on":"a","max_lag":9},{"on":"b","lag":3,"max_lag":2}]}]}"#,
    );
    let lags: Vec<_> = found.iter().filter(|(rule, _)| rule == "P064").map(|(_, path)| path.as_str()).collect();
    assert_eq!(lags, ["/steps/2/after/1"], "{found:?}");
}

#[test]
fn a_step_that_waits_for_itself_does_not_start_too_early_for_itself_too() {
    let found = everything(r#"{"steps":[{"id":"a","start":0,"duration":1,"after":["a"]}]}"#);
    assert!(!found.is_empty() && found.iter().all(|(rule, _)| rule != "P060"), "{found:?}");
}

#[test]
fn a_name_that_leads_nowhere_is_told_with_the_nearest_one() {
    let hint = |wanted: &str| {
        let json = format!(r#"{{"steps":[{{"id":"restore"}},{{"id":"store"}},{{"id":"x","after":["{wanted}"]}}]}}"#);
        let report = PlanValidator::standard().check(&Plan::from_json(&json).unwrap());
        let found = report.violations.iter().find(|one| one.rule == "P005").unwrap();
        found.witness["nearest"].as_str().map(str::to_owned)
    };
    // Letters too few, too many and wrong, at either end: one change for each.
    for (wanted, near) in [
        ("restor", "restore"),
        ("estore", "restore"),
        ("restores", "restore"),
        ("prestore", "restore"),
        ("rextore", "restore"),
        ("stor", "store"),
        ("stope", "store"),
        ("sstore", "store"),
    ] {
        assert_eq!(hint(wanted).as_deref(), Some(near), "{wanted}");
    }
    assert_eq!(hint("qqqqqq"), None, "none is near");
    // Half of its letters are wrong, and then one more than half.
    assert_eq!((hint("stqqre").as_deref(), hint("sqqqqe").as_deref()), (Some("store"), None));
}

#[test]
fn who_waits_for_whom_is_known_beyond_a_word_of_steps() {
    let subject = Subject::new(chain(130, false), Policy::default());
    let ancestors = subject.ancestors().unwrap();
    // Listed from the last to the first: each waits for all that are listed behind it.
    for (step, other) in (0..130).flat_map(|step| (0..130).map(move |other| (step, other))) {
        assert_eq!(ancestors.waits_for(step, other), step < other, "{step} {other}");
    }
    assert!((0..130).all(|step| ancestors.count(step) == 129 - step));
}
