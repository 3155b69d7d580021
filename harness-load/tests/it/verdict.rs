//! Gates: boundaries, missing evidence, plans that mean nothing.

use std::time::Duration;

use harness_core::wait::pause;
use harness_load::{
    ANY, ErrorKind, Gate, Iteration, Load, LoadRun, Measured, dropped, errors, mean, millis, p50, p95, p99, per_second,
    percent, secs, success_rate, throughput, timeouts,
};

/// A run of 100 per second on a paused clock whose every answer takes `service`.
async fn run_taking(service: Duration, hold: Duration) -> LoadRun {
    let answer = move |_| async move {
        pause(service).await;
        Ok::<(), String>(())
    };
    Load::open(per_second(100)).hold(hold).flow("ask", 1, answer).run().await.unwrap()
}

/// 100 slots of which `failing` fail.
async fn run_failing(failing: u64) -> LoadRun {
    let answer = move |it: Iteration| async move { if it.n() < failing { Err("planted") } else { Ok(()) } };
    Load::open(per_second(100)).hold(secs(1)).flow("ask", 1, answer).run().await.unwrap()
}

fn word(run: &LoadRun, gate: Gate) -> &'static str {
    run.judge([gate]).unwrap().rows()[0].outcome.word()
}

#[tokio::test(start_paused = true)]
async fn latency_limits_are_exact_and_strict_as_written() {
    for (service, expected) in [(249, "pass"), (250, "degraded"), (499, "degraded"), (500, "fail")] {
        let run = run_taking(millis(service), secs(2)).await;
        let (target, critical) = (millis(250), millis(500));
        assert_eq!(word(&run, p95("ask").below(target).critical(critical)), expected, "{service} ms");
        assert_eq!(word(&run, mean("ask").below(target).critical(critical)), expected, "{service} ms");
        let inclusive = if service == 250 { "pass" } else { expected };
        let inclusive = if service == 500 { "degraded" } else { inclusive };
        assert_eq!(word(&run, p50(ANY).at_most(target).critical(critical)), inclusive, "{service} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn success_rate_is_exact() {
    for (failing, expected) in [(5, "pass"), (6, "degraded"), (10, "degraded"), (11, "fail")] {
        let run = run_failing(failing).await;
        assert_eq!(word(&run, success_rate().at_least(percent(95)).critical(percent(90))), expected, "{failing} fail");
        assert_eq!(run.measured(&errors("error")), Measured::count(failing));
        assert_eq!(run.measured(&errors("panic")), Measured::count(0));
    }
}

#[tokio::test(start_paused = true)]
async fn tail_that_touches_two_of_a_hundred_is_seen_by_p99_only() {
    let answer = async |it: Iteration| {
        pause(millis(if it.n().is_multiple_of(50) { 450 } else { 10 })).await;
        Ok::<(), String>(())
    };
    let run = Load::open(per_second(100)).hold(secs(10)).flow("ask", 1, answer).run().await.unwrap();
    assert_eq!(word(&run, p99("ask").below(millis(400)).critical(millis(400))), "fail");
    assert_eq!(word(&run, p95("ask").below(millis(250))), "pass");
}

/// A benchmark of one hundred consecutive requests: fewer are invalid, and two slow ones are its p99.
#[tokio::test(start_paused = true)]
async fn a_hundred_consecutive_requests_have_their_percentiles() {
    let run = async |requests: u64, slow: u64| {
        let answer = move |it: Iteration| async move {
            pause(millis(if it.n() < slow { 150 } else { 40 })).await;
            Ok::<(), String>(())
        };
        Load::closed(1).hold(secs(60)).at_most(requests).flow("ask", 1, answer).run().await.unwrap()
    };
    let gate = || p99("ask").below(millis(100)).critical(millis(100)).from_samples(100);
    for (requests, slow, expected) in [(100, 0, "pass"), (100, 1, "pass"), (100, 2, "fail"), (99, 0, "no evidence")] {
        assert_eq!(word(&run(requests, slow).await, gate()), expected, "{slow} of {requests} at 150 ms");
    }
    let usual = p99("ask").below(millis(100));
    assert_eq!(word(&run(100, 0).await, usual), "no evidence", "five have to lie beyond it");
}

#[tokio::test(start_paused = true)]
async fn throughput_counts_what_completed_in_the_window() {
    for (service, expected) in [(5, "pass"), (12, "degraded"), (25, "fail")] {
        let answer = move |_| async move {
            pause(millis(service)).await;
            Ok::<(), String>(())
        };
        let load = Load::open(per_second(200)).warm_up(secs(1)).hold(secs(6)).limit(secs(60)).in_flight(1, 10_000);
        let run = load.flow("ask", 1, answer).run().await.unwrap();
        let gate = throughput().at_least(per_second(100)).critical(per_second(50));
        assert_eq!(word(&run, gate), expected, "{service} ms each: {:?}", run.measured(&throughput()));
        assert_eq!(word(&run, success_rate().at_least(percent(100))), "pass", "all succeed, only too slowly");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_slots_spoil_success_and_latency() {
    let answer = async |_| {
        pause(millis(95)).await;
        Ok::<(), String>(())
    };
    let load = Load::open(per_second(100)).hold(secs(2)).limit(secs(1)).in_flight(1, 0);
    let run = load.flow("ask", 1, answer).run().await.unwrap();
    assert_eq!(run.measured(&dropped()), Measured::count(180));
    assert_eq!(run.measured(&success_rate()), Measured::share(20, 200));
    assert_eq!(run.measured(&p95("ask")), Measured::Quantile { q: 0.95, nanos: 1_000_000_000, samples: 200 });
    assert_eq!(run.measured(&mean("ask").of_successes()).display(), "95 ms");
    assert_eq!(run.peak_in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn hanging_server_ends_in_timeouts() {
    let hang = async |_| std::future::pending::<Result<(), String>>().await;
    let run = Load::open(per_second(100)).hold(secs(1)).limit(millis(200)).flow("ask", 1, hang).run().await.unwrap();
    assert_eq!(run.measured(&timeouts()), Measured::count(100));
    assert_eq!(word(&run, timeouts().exactly(0)), "fail");
    assert_eq!(run.measured(&mean(ANY)).display(), "200 ms");
}

#[tokio::test(start_paused = true)]
async fn warm_up_is_not_judged_unless_asked_for() {
    let answer = async |it: Iteration| if it.is_measured() { Ok(()) } else { Err("cold") };
    let load = Load::open(per_second(100)).warm_up(secs(1)).hold(secs(1));
    let run = load.flow("ask", 1, answer).run().await.unwrap();
    assert_eq!(run.measured(&success_rate()), Measured::share(100, 100));
    assert_eq!(run.measured(&success_rate().phase("warm-up")), Measured::share(0, 100));
}

#[tokio::test(start_paused = true)]
async fn nothing_measured_never_passes() {
    let load = Load::open(per_second(0.001)).poisson().hold(millis(10));
    let run = load.flow("ask", 1, async |_| Ok::<(), String>(())).run().await.unwrap();
    let gates = || {
        [
            p95("ask").below(secs(1_000)),
            success_rate().at_least(percent(0)),
            throughput().at_least(per_second(0.000_001)),
            errors(ANY).exactly(0),
            mean(ANY).below(secs(1_000)),
        ]
    };
    for gate in gates() {
        assert_eq!(word(&run, gate.clone()), "no evidence", "{gate:?}");
        assert_eq!(run.check([gate]).unwrap_err().kind(), ErrorKind::NoEvidence);
    }
    assert_eq!(run.check([]).unwrap_err().kind(), ErrorKind::NoEvidence);
    let full = run_taking(millis(10), millis(200)).await;
    assert_eq!(word(&full, p99("ask").below(secs(9))), "no evidence", "20 samples cannot state p99");
    for gate in [p50("aks").below(secs(9)), p50("ask").phase("hodl").below(secs(9))] {
        assert_eq!(word(&full, gate), "no evidence", "a misspelt name must not pass");
    }
}

#[tokio::test(start_paused = true)]
async fn check_returns_the_table() {
    let run = run_failing(8).await;
    let gates = || [success_rate().at_least(percent(95)).critical(percent(90)), p95("ask").below(millis(250))];
    let judged = run.check(gates()).unwrap();
    assert_eq!(judged.outcome().word(), "degraded");
    let table = judged.to_string();
    for part in [
        "gate",
        "success rate",
        "92 % (92 of 100)".replace("92 %", "92.00 %").as_str(),
        ">= 95 %",
        "8 × error: planted",
        "generator",
    ] {
        assert!(table.contains(part), "`{part}` is missing in\n{table}");
    }
    let error = judged.strict().unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().contains("missed a target"), "{error:?}");
    let error = run.check([success_rate().at_least(percent(93))]).unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().contains("hold"), "{error:?}");
    assert_eq!(run.check([p95("ask")]).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn plans_that_mean_nothing_are_refused() {
    let ok = async |_| Ok::<(), String>(());
    let plan = |rate: f64| Load::open(per_second(rate)).hold(secs(1)).flow("a", 1, ok);
    let refused = [
        plan(0.0),
        plan(-5.0),
        plan(f64::NAN),
        plan(f64::INFINITY),
        plan(10.0).hold(Duration::ZERO),
        plan(10.0).warm_up(Duration::ZERO),
        plan(1e6).hold(secs(3_600)),
        plan(10.0).flow("a", 1, ok),
        plan(10.0).flow("b", 0, ok),
        plan(10.0).flow("*", 1, ok),
        plan(10.0).in_flight(0, 10),
        plan(10.0).limit(Duration::ZERO),
        plan(10.0).limit(Duration::MAX),
        plan(10.0).drain(Duration::MAX),
        plan(0.000_001).hold(Duration::MAX),
        plan(1e6).hold(Duration::MAX),
        Load::open(per_second(10)).hold(secs(1)),
        Load::open(per_second(10)).warm_up(secs(1)).flow("a", 1, ok),
        Load::open(per_second(10)).flow("a", 1, ok),
    ];
    for load in refused {
        let shown = format!("{load:?}");
        let error = load.run().await.expect_err(&shown);
        assert!(error.kind() == ErrorKind::Config && error.remedy_text().is_some(), "{error:?} for {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn flows_get_exactly_their_share() {
    let ok = async |_| Ok::<(), String>(());
    let load = Load::open(per_second(100)).warm_up(millis(70)).hold(secs(2));
    let run = load.flow("browse", 8, ok).flow("buy", 2, ok).run().await.unwrap();
    assert_eq!(["browse", "buy"].map(|flow| run.cell("hold", flow).unwrap().ended()), [160, 40]);
}
