//! Closed and partly open loops, phases, windows, and what the machinery around them says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness_core::wait::pause;
use harness_load::arrival::{Curve, Trace};
use harness_load::{
    ANY, ErrorKind, Iteration, Load, Measured, Saturation, Think, achieved_rate, dropped, millis, p50, p95, per_second,
    secs, success_rate, throughput,
};

async fn answer(service: Duration) -> Result<(), String> {
    pause(service).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closed_loop_runs_as_fast_as_users_are_served() {
    let load = Load::closed(10).think(Think::Fixed(millis(40))).warm_up(secs(1)).hold(secs(2));
    let run = load.flow("ask", 1, |_| answer(millis(10))).run().await.unwrap();
    // Ten users, each once in 50 ms.
    assert_eq!(run.cell("hold", "ask").unwrap().ok, 400, "{run}");
    assert_eq!(run.measured(&throughput()).display(), "200/s");
    assert_eq!((run.peak_in_flight(), run.measured(&p50(ANY)).display()), (10, "10 ms".to_owned()));
    let slow = Load::closed(10).think(Think::Fixed(millis(40))).hold(secs(2)).flow("ask", 1, |_| answer(millis(60)));
    assert_eq!(slow.run().await.unwrap().cell("hold", "ask").unwrap().ended(), 200, "slow systems slow users down");
}

#[tokio::test(start_paused = true)]
async fn users_join_one_after_the_other_and_think_by_the_seed() {
    let count = |seed| async move {
        let seed = harness_core::run::Seed::new(seed);
        let load = Load::closed(4).think(Think::Exponential(millis(100))).ramp(per_second(1), secs(4)).hold(secs(4));
        let run = load.seed(seed).flow("ask", 1, |_| answer(millis(1))).run().await.unwrap();
        let of = |phase| run.cell(phase, "ask").unwrap().ok;
        (of("ramp"), of("hold"), run.series("x")[3].points.clone())
    };
    let (ramp, hold, due) = count(5).await;
    // About ten a second for each user: 10 + 20 + 30 + 40 while they join, then 40 a second.
    assert!((70..135).contains(&ramp) && (120..200).contains(&hold), "{ramp} and {hold}");
    assert!(due[0].1 < due[3].1, "{due:?}");
    assert_eq!(count(5).await, (ramp, hold, due));
    assert_ne!(count(6).await.0, ramp);
}

#[tokio::test(start_paused = true)]
async fn thinking_within_a_session_is_not_the_systems_time() {
    let session = async |iteration: Iteration| {
        iteration.step("list", answer(millis(10))).await?;
        iteration.think(millis(500)).await;
        iteration.step("buy", answer(millis(20))).await
    };
    let run = Load::open(per_second(100)).hold(secs(2)).flow("session", 1, session).run().await.unwrap();
    let measured = [p50(ANY), p50(ANY).of_service()].map(|gate| run.measured(&gate).display());
    assert_eq!(measured, ["30 ms", "30 ms"]);
    assert_eq!(run.step("session", "buy").unwrap().longest(), millis(20));
    assert!(run.peak_in_flight() > 50, "sessions overlap: {}", run.peak_in_flight());
}

#[tokio::test(start_paused = true)]
async fn phases_have_their_own_rates_and_only_some_are_judged() {
    let load = Load::open(per_second(100))
        .ramp(per_second(0), secs(2))
        .hold(secs(1))
        .spike(5.0, secs(1))
        .soak(secs(3))
        .cool_down(secs(1));
    let run = load.flow("ask", 1, |_| answer(millis(1))).run().await.unwrap();
    let of = |phase| run.cell(phase, "ask").unwrap().ok;
    assert_eq!(["ramp", "hold", "spike", "soak", "cool-down"].map(of), [100, 100, 500, 300, 10]);
    assert_eq!(run.measured(&success_rate()), Measured::share(900, 900), "hold, spike and soak");
    let load = Load::open(per_second(10)).steps(per_second(30), 3, secs(1));
    let run = load.flow("ask", 1, |_| answer(millis(1))).run().await.unwrap();
    assert_eq!(["hold", "hold 2", "hold 3"].map(|phase| run.cell(phase, "ask").unwrap().ok), [10, 20, 30]);
    let trace = Trace::new([0, 1, 1, 1, 900].map(millis)).unwrap();
    let curve = Curve::spike(per_second(10), per_second(100), secs(1), secs(1)).unwrap();
    let load = Load::open(per_second(10)).replay(trace).hold_curve(curve);
    let run = load.flow("ask", 1, |_| answer(millis(1))).run().await.unwrap();
    assert_eq!(["hold", "hold 2"].map(|phase| run.cell(phase, "ask").unwrap().ok), [5, 120]);
}

/// The first three seconds are slow; steady from the fourth on, so the warm-up ends after the eighth of sixty.
#[tokio::test(start_paused = true)]
async fn warm_up_ends_when_responses_are_steady() {
    let warming = async |iteration: Iteration| answer(millis(if iteration.due() < secs(3) { 100 } else { 10 })).await;
    let load = Load::open(per_second(50)).warm_up_until_steady(secs(60)).hold(secs(2)).flow("ask", 1, warming);
    let run = load.run().await.unwrap();
    let warm_up = run.phases().next().unwrap().1;
    assert!((secs(8)..millis(8_300)).contains(&warm_up), "{warm_up:?}");
    let (warm_up, hold) = (run.cell("warm-up", "ask").unwrap(), run.cell("hold", "ask").unwrap());
    assert_eq!((hold.ok, warm_up.ended() + warm_up.not_due), (100, 3_000));
    assert_eq!(run.measured(&p95(ANY)).display(), "10 ms");
    let never = async |iteration: Iteration| answer(millis(10 + iteration.due().as_secs())).await;
    let load = Load::open(per_second(50)).warm_up_until_steady(secs(12)).hold(secs(1)).flow("ask", 1, never);
    assert_eq!(load.run().await.unwrap().phases().next().unwrap().1, secs(12), "what rises is not steady");
}

/// Healthy for five seconds, then it hangs. The gate's limit is 200 ms: 6 % of the last second's slots are beyond it
/// 0.26 s later, and after another half second the run ends, long before the sixty planned.
#[tokio::test(start_paused = true)]
async fn lasting_breach_ends_the_run() {
    let hangs = async |iteration: Iteration| match iteration.due() < secs(5) {
        true => answer(millis(10)).await,
        false => std::future::pending().await,
    };
    let gate = p95(ANY).below(millis(100)).critical(millis(200)).over(secs(1)).abort_after(millis(500));
    let load = Load::open(per_second(200)).hold(secs(60)).gate(gate.clone());
    let run = load.flow("ask", 1, hangs).run().await.unwrap();
    let (at, why) = run.aborted().unwrap();
    assert!((millis(5_700)..millis(6_200)).contains(&at), "{at:?}");
    assert!(why.contains("p95 over 1 s"), "{why}");
    let complete = run.complete();
    assert!(complete.is_no_evidence() && complete.detail().contains("`hold` lasted"), "{complete}");
    let error = run.check([]).unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().contains("ended after"), "{error:?}");
    let healthy = Load::open(per_second(200)).hold(secs(5)).gate(gate.clone()).flow("ask", 1, |_| answer(millis(10)));
    let run = healthy.run().await.unwrap();
    assert!(run.aborted().is_none() && run.check([]).is_ok() && run.complete().is_pass(), "{}", run.complete());
    let unwatched =
        Load::open(per_second(200)).hold(secs(2)).flow("ask", 1, |_| answer(millis(10))).run().await.unwrap();
    assert!(unwatched.judge([gate]).unwrap().outcome().is_no_evidence(), "windows are watched while the load runs");
}

#[tokio::test(start_paused = true)]
async fn saturation_queues_drops_or_spawns() {
    let run = async |policy| {
        let load = Load::open(per_second(100)).hold(secs(1)).in_flight(2, 5).saturation(policy);
        let run = load.flow("ask", 1, |_| answer(millis(95))).run().await.unwrap();
        (run.measured(&dropped()), run.peak_in_flight())
    };
    assert_eq!(run(Saturation::Queue(1_000)).await, (Measured::count(0), 2));
    assert_eq!(run(Saturation::Spawn(10)).await, (Measured::count(0), 10));
    let (Measured::Count { count }, 2) = run(Saturation::Drop).await else { panic!("two at most") };
    assert!(count >= 75, "{count}");
}

#[tokio::test(start_paused = true)]
async fn run_stops_after_so_many() {
    for load in [Load::open(per_second(100)), Load::closed(3).think(Think::Fixed(millis(10)))] {
        let run = load.hold(secs(60)).at_most(25).flow("ask", 1, |_| answer(millis(5))).run().await.unwrap();
        assert_eq!(run.cell("hold", "ask").unwrap().ok, 25);
        assert!(run.complete().is_no_evidence(), "a minute was asked for: {}", run.complete());
    }
    // Two of three are still out when the drain is over, and one who is back must not keep the run open.
    let answers = async |iteration: Iteration| answer(millis(if iteration.n() == 0 { 1 } else { 50 })).await;
    let load = Load::closed(3).think(Think::Fixed(millis(10))).hold(secs(60)).at_most(3).drain(millis(4));
    let run = load.flow("ask", 1, answers).run().await.unwrap();
    let cell = run.cell("hold", "ask").unwrap();
    assert_eq!((cell.ok, cell.unfinished), (1, 2));
}

/// A closed loop without pauses on a real clock: the driver must let sockets and timers have their turn.
#[tokio::test]
async fn users_without_a_pause_leave_room_for_others() {
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = beats.clone();
    let heart = tokio::spawn(async move {
        loop {
            pause(millis(5)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let load = Load::closed(4).hold(millis(200)).flow("nothing", 1, async |_| Ok::<(), String>(()));
    let run = load.run().await.unwrap();
    heart.abort();
    assert!(run.cell("hold", "nothing").unwrap().ok > 1_000 && beats.load(Ordering::Relaxed) >= 5, "{run}");
    assert_eq!(
        run.measured(&achieved_rate()),
        Measured::share(run.cell("hold", "nothing").unwrap().ok, run.cell("hold", "nothing").unwrap().ok)
    );
}

#[tokio::test(start_paused = true)]
async fn models_that_mean_nothing_are_refused() {
    let ok = async |_| Ok::<(), String>(());
    let open = || Load::open(per_second(10)).flow("a", 1, ok);
    let closed = || Load::closed(2).flow("a", 1, ok);
    let refused = [
        Load::closed(0).hold(secs(1)).flow("a", 1, ok),
        Load::closed(2_000_000).hold(secs(1)).flow("a", 1, ok),
        closed().hold(Duration::ZERO),
        closed().hold(secs(1)).spike(2.0, secs(1)),
        closed().rate(per_second(1)).hold(secs(1)),
        closed().replay(Trace::new([millis(1)]).unwrap()),
        open().think(Think::Fixed(millis(1))).hold(secs(1)),
        open().hold(secs(1)).spike(f64::NAN, secs(1)),
        open().hold(secs(1)).spike(0.0, secs(1)),
        open().ramp(per_second(f64::INFINITY), secs(1)).hold(secs(1)),
        open().steps(per_second(20), 1, secs(1)),
        open().ramp(per_second(1), secs(1)),
        open().hold(secs(1)).gate(p95(ANY)),
        open().hold(secs(1)).gate(p95("b").below(millis(1))),
        open().hold(secs(1)).gate(p95(ANY).below(millis(1)).over(Duration::ZERO)),
        open().hold(secs(1)).gate(success_rate().at_least(millis(5))),
    ];
    for load in refused {
        let shown = format!("{load:?}");
        let error = load.run().await.expect_err(&shown);
        assert!(error.kind() == ErrorKind::Config, "{error:?} for {shown}");
    }
}
