//! The truth table of the decision, its monotony, and a reference record.

use std::time::Duration;

use harness_props::Outcome;

use super::{CriterionResult, Inputs, MatrixRow, Policy, ReleaseRow, ScenarioResult, Verdict, decide, judge_rows};
use crate::record::{Finding, FindingKind};
use crate::slo::{Limit, Measured, Threshold, Unit, percent};

fn scenario(id: &str, critical: bool, outcome: Outcome) -> ScenarioResult {
    ScenarioResult { id: id.to_owned(), category: "c".to_owned(), critical, outcome }
}

fn criterion(critical: bool, outcome: Outcome) -> CriterionResult {
    CriterionResult { name: "p95".to_owned(), critical, outcome }
}

fn finding(kind: FindingKind) -> Finding {
    Finding { kind, found_by: "F1".to_owned(), text: "found".to_owned() }
}

fn lenient() -> Policy {
    Policy::new(Limit::at_least(percent(50)), Limit::at_least(percent(25)))
}

/// Worse and worse.
fn ladder() -> [Outcome; 4] {
    [Outcome::pass("p"), Outcome::degraded("d"), Outcome::no_evidence("n"), Outcome::fail("f")]
}

/// One good scenario beside the thing under test, so that the lenient policy is met.
fn with(change: impl FnOnce(&mut Inputs)) -> Verdict {
    let mut inputs = Inputs { policy: lenient(), ..Inputs::default() };
    inputs.scenarios.push(scenario("A1", true, Outcome::pass("p")));
    change(&mut inputs);
    decide(&inputs).verdict
}

#[test]
fn truth_table_holds_line_by_line() {
    use Verdict::{Conditional, Go, NoGo};
    let [pass, degraded, missing, fail] = ladder();
    for (critical, outcome, of_scenario, of_criterion) in [
        (false, &pass, Go, Go),
        (true, &pass, Go, Go),
        (false, &degraded, Conditional, Conditional),
        (true, &degraded, Conditional, Conditional),
        (false, &missing, Conditional, Conditional),
        (true, &missing, NoGo, NoGo),
        (false, &fail, Conditional, NoGo),
        (true, &fail, NoGo, NoGo),
        (true, &Outcome::not_applicable("off"), Go, Go),
    ] {
        let scenario = with(|inputs| inputs.scenarios.push(scenario("B", critical, outcome.clone())));
        assert_eq!(scenario, of_scenario, "scenario critical={critical} {outcome}");
        let criterion = with(|inputs| inputs.criteria.push(criterion(critical, outcome.clone())));
        assert_eq!(criterion, of_criterion, "criterion critical={critical} {outcome}");
    }
    for (kind, expected) in [
        (FindingKind::DataLoss, NoGo),
        (FindingKind::Corruption, NoGo),
        (FindingKind::Security, NoGo),
        (FindingKind::Crash, NoGo),
        (FindingKind::Performance, Conditional),
        (FindingKind::PartialFailure, Conditional),
        (FindingKind::Minor, Go),
        (FindingKind::Cosmetic, Go),
    ] {
        assert_eq!(with(|inputs| inputs.findings.push(finding(kind))), expected, "{kind:?}");
    }
}

#[test]
fn nothing_run_is_no_go() {
    let decision = decide(&Inputs::default());
    assert_eq!(decision.verdict, Verdict::NoGo);
    assert!(decision.reasons[0].contains("no scenario was judged"), "{:?}", decision.reasons);
}

#[test]
fn success_policy_decides_what_failures_cost() {
    let run = |policy: &Policy, passed: usize, failed: usize| {
        let scenarios = (0..passed)
            .map(|n| scenario(&format!("P{n}"), true, Outcome::pass("p")))
            .chain((0..failed).map(|n| scenario(&format!("F{n}"), false, Outcome::fail("f"))))
            .collect();
        decide(&Inputs { policy: policy.clone(), scenarios, ..Inputs::default() }).verdict
    };
    let seed = Policy::new(Limit::at_least(percent(95)), Limit::at_least(percent(90)));
    assert_eq!(run(&seed, 47, 0), Verdict::Go);
    assert_eq!(run(&seed, 45, 2), Verdict::Conditional);
    assert_eq!(run(&seed.clone().go_within_target(), 45, 2), Verdict::Go);
    assert_eq!(run(&seed.clone().go_within_target(), 44, 3), Verdict::Conditional);
    assert_eq!(run(&seed, 43, 4), Verdict::Conditional);
    assert_eq!(run(&seed, 90, 10), Verdict::Conditional);
    assert_eq!(run(&seed, 8_999, 1_001), Verdict::NoGo);
    assert_eq!(run(&seed, 42, 5), Verdict::NoGo);
    assert_eq!(run(&Policy::default(), 46, 1), Verdict::NoGo);
}

/// Every combination of two scenarios, two criteria and a finding under three policies: 3 × 8 × 8 × 8 × 8 × 9 starting
/// points; from each one every single step to something worse.
#[test]
fn a_worse_input_never_improves_the_verdict() {
    let kinds = [
        FindingKind::Cosmetic,
        FindingKind::Minor,
        FindingKind::PartialFailure,
        FindingKind::Performance,
        FindingKind::Crash,
        FindingKind::Security,
        FindingKind::Corruption,
        FindingKind::DataLoss,
    ];
    let (ladder, mut seen) = (ladder(), std::collections::BTreeMap::<Verdict, u64>::new());
    let build = |policy: &Policy, s: [usize; 2], c: [usize; 2], f: usize| Inputs {
        policy: policy.clone(),
        scenarios: (0..2).map(|n| scenario(["A", "B"][n], s[n] >= 4, ladder[s[n] % 4].clone())).collect(),
        criteria: (0..2).map(|n| criterion(c[n] >= 4, ladder[c[n] % 4].clone())).collect(),
        findings: f.checked_sub(1).map(|f| finding(kinds[f])).into_iter().collect(),
    };
    // One step worse: the next rung, the same rung made critical.
    let worse = |state: usize| {
        let next = (state % 4 < 3).then_some(state + 1);
        next.into_iter().chain((state < 4).then_some(state + 4))
    };
    for policy in [Policy::default(), lenient(), lenient().go_within_target()] {
        for code in 0..8_usize.pow(4) {
            let digit = |n: u32| code / 8_usize.pow(n) % 8;
            let (s, c) = ([digit(0), digit(1)], [digit(2), digit(3)]);
            for f in [0, 2, 4, 5] {
                let before = decide(&build(&policy, s, c, f)).verdict;
                *seen.entry(before).or_default() += 1;
                let steps = (0..2).flat_map(|n| {
                    let mut all = Vec::new();
                    for rung in worse(s[n]) {
                        let mut changed = s;
                        changed[n] = rung;
                        all.push((changed, c, f));
                    }
                    for rung in worse(c[n]) {
                        let mut changed = c;
                        changed[n] = rung;
                        all.push((s, changed, f));
                    }
                    all
                });
                for (s2, c2, f2) in steps.chain((f < 8).then_some((s, c, f + 1))) {
                    let after = decide(&build(&policy, s2, c2, f2)).verdict;
                    assert!(after >= before, "{policy:?}: {s:?} {c:?} {f} {before} -> {s2:?} {c2:?} {f2} {after}");
                }
            }
        }
    }
    assert_eq!(seen.len(), 3, "every verdict occurs among the starting points: {seen:?}");
}

#[test]
fn reasons_stand_gravest_first() {
    let decision = decide(&Inputs {
        policy: lenient(),
        scenarios: vec![
            scenario("A1", false, Outcome::degraded("slow")),
            scenario("A2", true, Outcome::fail("three orders are missing\n  more")),
            scenario("A3", false, Outcome::no_evidence("skipped")),
            scenario("A4", false, Outcome::no_evidence("skipped")),
            scenario("A5", false, Outcome::pass("p")),
        ],
        criteria: vec![criterion(false, Outcome::fail("p95 600 ms"))],
        findings: vec![finding(FindingKind::DataLoss)],
    });
    assert_eq!(
        decision.reasons,
        [
            "P0 finding by F1: found",
            "critical scenario A2 failed: three orders are missing",
            "p95: beyond critical: p95 600 ms",
            "scenarios A3, A4 without evidence: skipped",
            "scenario A1 is degraded: slow",
        ]
    );
    assert_eq!((decision.verdict, decision.verdict.exit_code()), (Verdict::NoGo, 1));
}

/// The reference record: 45 of 47, mean 142 ms, p95 238 ms, 105 RPS, 42.3 % fewer tokens, 81.2 % cache hits.
struct Reference {
    passed: u64,
    mean_ms: u64,
    p95_ms: u64,
    rps: u64,
    tokens: f64,
    cache: f64,
}

const REFERENCE: Reference = Reference { passed: 45, mean_ms: 142, p95_ms: 238, rps: 105, tokens: 42.3, cache: 81.2 };

impl Reference {
    fn rows() -> Vec<ReleaseRow> {
        let row = |name: &str, target: &str, critical: Option<&str>| {
            ReleaseRow::metric(name, Threshold::parse(name, target, critical).unwrap_or_else(|e| panic!("{e:?}")))
                .critical()
        };
        vec![
            row(ReleaseRow::SCENARIO_SUCCESS, ">= 95%", Some(">= 90%")),
            row("mean", "< 300 ms", None),
            row("p95", "< 250 ms", Some("< 500 ms")),
            row("throughput", ">= 100 RPS", Some(">= 50 RPS")),
            row("tokens", ">= 40%", Some(">= 30%")),
            row("cache", "> 80%", Some("> 60%")),
        ]
    }

    fn judge(&self) -> (Verdict, Vec<(String, String)>) {
        let ms = 1_000_000;
        let share = |value| Measured::Value { value, unit: Unit::Percent, samples: 1_000 };
        let metrics = [
            ("mean", Measured::Mean { total_nanos: u128::from(self.mean_ms) * ms * 1_000, samples: 1_000 }),
            ("p95", Measured::Quantile { q: 0.95, nanos: self.p95_ms * 1_000_000, samples: 1_000 }),
            ("throughput", Measured::Rate { count: self.rps * 30, window: Duration::from_secs(30) }),
            ("tokens", share(self.tokens)),
            ("cache", share(self.cache)),
        ]
        .map(|(name, measured)| (name.to_owned(), measured));
        let scenarios: Vec<_> = (0..47)
            .map(|n| {
                let outcome = if n < self.passed { Outcome::pass("p") } else { Outcome::fail("f") };
                scenario(&format!("S{n}"), n < self.passed, outcome)
            })
            .collect();
        let (mut criteria, mut shown) = (Vec::new(), Vec::new());
        let policy = Policy::new(Limit::at_least(percent(95)), Limit::at_least(percent(90))).go_within_target();
        for row in judge_rows(&Self::rows(), &metrics, &scenarios, &policy) {
            let MatrixRow::Judged(record) = row else { panic!("every row is judged") };
            shown.push((format!("{} {}", record.metric, record.actual), record.colour));
            criteria.push(CriterionResult {
                name: record.metric,
                critical: record.is_critical,
                outcome: record.outcome,
            });
        }
        (decide(&Inputs { policy, scenarios, criteria, findings: Vec::new() }).verdict, shown)
    }
}

#[test]
fn reference_record_is_go_with_the_documented_colours() {
    let (verdict, shown) = REFERENCE.judge();
    assert_eq!(verdict, Verdict::Go);
    let shown: Vec<_> = shown.iter().map(|(text, colour)| (text.as_str(), colour.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("scenario_success 95.74 % (45 of 47)", "green"),
            ("mean 142 ms", "green"),
            ("p95 238 ms", "yellow"),
            ("throughput 105/s", "yellow"),
            ("tokens 42.3 %", "yellow"),
            ("cache 81.2 %", "yellow"),
        ]
    );
}

#[test]
fn flipping_one_figure_of_the_reference_record_changes_the_verdict() {
    use Verdict::{Conditional, NoGo};
    for (name, changed, expected) in [
        ("success below target", Reference { passed: 44, ..REFERENCE }, Conditional),
        ("success below critical", Reference { passed: 42, ..REFERENCE }, NoGo),
        ("mean on target", Reference { mean_ms: 300, ..REFERENCE }, Conditional),
        ("p95 on target", Reference { p95_ms: 250, ..REFERENCE }, Conditional),
        ("p95 on critical", Reference { p95_ms: 500, ..REFERENCE }, NoGo),
        ("throughput below target", Reference { rps: 99, ..REFERENCE }, Conditional),
        ("throughput below critical", Reference { rps: 49, ..REFERENCE }, NoGo),
        ("tokens below target", Reference { tokens: 39.99, ..REFERENCE }, Conditional),
        ("tokens below critical", Reference { tokens: 29.99, ..REFERENCE }, NoGo),
        ("cache on target", Reference { cache: 80.0, ..REFERENCE }, Conditional),
        ("cache on critical", Reference { cache: 60.0, ..REFERENCE }, NoGo),
    ] {
        assert_eq!(changed.judge().0, expected, "{name}");
    }
}

#[test]
fn rows_without_their_metric_or_category_have_no_evidence() {
    let rows = [
        ReleaseRow::metric("P95", Threshold::parse("p95", "< 1 s", None).unwrap()).critical().requirement("R-1"),
        ReleaseRow::category("security", "security"),
        ReleaseRow::category("stability", "c"),
        ReleaseRow::not_in_scope("soak", "needs a night").requirement("R-2"),
    ];
    let metrics = [("p95".to_owned(), Measured::quantile(0.95, &vec![1; 100]))];
    let scenarios = [scenario("S1", true, Outcome::pass("p")), scenario("S2", true, Outcome::fail("crash"))];
    let outcomes = |metrics: &[(String, Measured)]| {
        let words = judge_rows(&rows, metrics, &scenarios, &Policy::default()).into_iter().map(|row| match row {
            MatrixRow::Judged(record) => format!("{}: {}", record.metric, record.outcome),
            MatrixRow::NotInScope { row, why } => format!("{row}: {why}"),
        });
        words.collect::<Vec<_>>()
    };
    assert_eq!(
        outcomes(&[]),
        [
            "P95: no evidence: no scenario reported the metric `p95`",
            "security: no evidence: no scenario of category `security` was planned",
            "stability: fail: S2: crash",
            "R-2 soak: needs a night",
        ]
    );
    assert_eq!(outcomes(&metrics)[0], "P95: pass: p95 1 ns (< 1 s; 100 samples)");
    let slow = [metrics[0].clone(), ("p95".to_owned(), Measured::quantile(0.95, &vec![5_000_000_000; 100]))];
    assert!(outcomes(&slow)[0].contains("fail"), "the worst of several reports counts");
}
