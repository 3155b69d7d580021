//! Resources, savings, and runs as evidence for the judges; all on a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness_core::monitor::{Sampler, external};
use harness_core::slo::{Unit, mebibytes};
use harness_core::wait::pause;
use harness_load::baseline::{Runs, baseline};
use harness_load::breakpoint::{Capacity, Search};
use harness_load::{
    ANY, CoreResult, ErrorKind, Iteration, Load, LoadRun, Rate, errors, mean, millis, p95, p99, per_second, percent,
    reduction, resource, secs, success_rate, throughput,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

async fn quick(_: Iteration) -> Result<(), String> {
    Ok(())
}

/// A series that is a function of the seconds since it was made.
fn curve<F: Fn(f64) -> f64 + Send + 'static>(name: &str, unit: Unit, at: F) -> impl Sampler + use<F> {
    let begun = Instant::now();
    external(name, unit, move || {
        let value = at(begun.elapsed().as_secs_f64());
        async move { Ok::<_, std::convert::Infallible>(value) }
    })
}

fn load() -> Load {
    Load::open(per_second(20)).hold(secs(10)).watch_every(millis(100)).flow("ask", 1, quick)
}

#[tokio::test(start_paused = true)]
async fn ceiling_on_a_resource_is_judged_by_its_peak() {
    let mb = |mb: f64| mb * 1_048_576.0;
    let spiky = curve("app rss", Unit::Bytes, move |at| mb(if (5.0..5.5).contains(&at) { 100.0 } else { 40.0 }));
    let run = load().watch(spiky).run().await.unwrap();
    assert!(run.check([resource("app rss").below(mebibytes(101))]).is_ok(), "{run}");
    assert_eq!(run.check([resource("app rss").below(mebibytes(100))]).unwrap().outcome().word(), "degraded");
    let error = run.check([resource("app rss").below(mebibytes(50)).critical(mebibytes(100))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion, "{error:?}");
    // What was not watched is no evidence, and the error says what was.
    let error = run.check([resource("db rss").below(mebibytes(100))]).unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains("app rss"), "{error:?}");
    let unwatched = load().run().await.unwrap();
    assert_eq!(unwatched.check([resource("app rss").below(mebibytes(1))]).unwrap_err().kind(), ErrorKind::NoEvidence);
    let plotted = run.series("E1").into_iter().find(|series| series.name == "app rss").unwrap();
    assert!(plotted.points.len() > 50 && plotted.unit == "MB", "{plotted:?}");
    assert!(run.to_string().contains("app rss: at most"), "{run}");
}

/// Processor time is meant as a share over a while: a second at 100 % is no breach of 80 % over four.
#[tokio::test(start_paused = true)]
async fn window_of_a_resource_is_judged_by_its_worst_mean() {
    for (busy, word) in [(1.0, "pass"), (3.5, "fail")] {
        let cpu = curve("app cpu", Unit::Percent, move |at| if (3.0..3.0 + busy).contains(&at) { 100.0 } else { 20.0 });
        let gate = resource("app cpu").below(percent(80)).over(secs(4));
        let run = load().watch(cpu).gate(gate).run().await.unwrap();
        let judged = run.judge([]).unwrap();
        assert_eq!(judged.outcome().word(), word, "{judged}");
    }
}

#[tokio::test(start_paused = true)]
async fn lasting_breach_of_a_resource_ends_the_run() {
    let gate = || resource("app cpu").below(percent(80)).abort_after(secs(1));
    let cpu = |from: f64, to: f64| {
        curve("app cpu", Unit::Percent, move |at| if (from..to).contains(&at) { 100.0 } else { 20.0 })
    };
    let run = load().watch(cpu(3.0, 100.0)).gate(gate()).run().await.unwrap();
    let (at, why) = run.aborted().unwrap();
    assert!((secs(4)..millis(4_400)).contains(&at) && why.contains("app cpu"), "{at:?}: {why}");
    let run = load().watch(cpu(3.0, 3.8)).gate(gate()).run().await.unwrap();
    assert!(run.aborted().is_none(), "it did not last");
    // A sampler that has died is a gap, not the last value for ever.
    let begun = Instant::now();
    let dying = external("app cpu", Unit::Percent, move || async move {
        if begun.elapsed() < secs(2) { Ok(100.0) } else { Err("gone") }
    });
    let run =
        load().watch(dying).gate(resource("app cpu").below(percent(80)).abort_after(secs(5))).run().await.unwrap();
    assert!(run.aborted().is_none());
    assert!(run.check([]).is_err(), "and what was seen of it before still counts");
}

#[tokio::test(start_paused = true)]
async fn savings_are_weighted_by_what_was_asked() {
    let answer = async |iteration: Iteration| {
        let pattern = iteration.n() % 10 < 6;
        iteration.used("tokens", if pattern { "pattern" } else { "model" }, if pattern { 30 } else { 400 }, 400);
        Ok::<(), String>(())
    };
    let run = Load::open(per_second(100)).warm_up(secs(1)).hold(secs(1)).flow("ask", 1, answer).run().await.unwrap();
    assert_eq!(run.reduction("tokens").unwrap().total().requests, 100, "the warm-up does not count");
    assert_eq!(run.measured(&reduction("tokens")).display(), "55.50 % (22200 of 40000)");
    let judged = run
        .check([reduction("tokens").at_least(percent(55)), reduction("tokens").class("pattern").at_least(percent(92))])
        .unwrap();
    assert!(judged.outcome().is_pass(), "{judged}");
    assert_eq!(run.check([reduction("tokens").at_least(percent(56))]).unwrap_err().kind(), ErrorKind::Assertion);
    let nothing = [reduction("bytes").at_least(percent(1)), reduction("tokens").class("memory").at_least(percent(1))];
    for gate in nothing {
        assert_eq!(run.check([gate]).unwrap_err().kind(), ErrorKind::NoEvidence);
    }
    let windowed = load().gate(reduction("tokens").at_least(percent(1)).over(secs(1))).run().await;
    assert_eq!(windowed.unwrap_err().kind(), ErrorKind::Config);
}

/// Ten workers of 50 ms: 200 per second, and a queue in front of them, which may be endless.
#[derive(Clone)]
struct Shop {
    workers: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
    longest_queue: u64,
}

const CAPACITY: f64 = 200.0;

impl Shop {
    fn new(longest_queue: u64) -> Self {
        Self { workers: Arc::new(Semaphore::new(10)), waiting: Arc::default(), longest_queue }
    }

    async fn serve(self) -> Result<(), String> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.longest_queue {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err("busy".to_owned());
        }
        let worker = self.workers.acquire().await.map_err(|error| error.to_string())?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        pause(millis(50)).await;
        drop(worker);
        Ok(())
    }

    fn at(&self, rate: Rate) -> Load {
        let shop = self.clone();
        Load::open(rate).hold(secs(4)).limit(secs(2)).classify(|error: &String| error.clone()).flow(
            "buy",
            1,
            move |_| shop.clone().serve(),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn search_on_real_loads_finds_the_capacity() {
    for queue in [5, u64::MAX] {
        let search = Search::from(per_second(25)).up_to(per_second(1_600));
        let found = search
            .run(async |rate| {
                let run = Shop::new(queue).at(rate).run().await?;
                run.observed([p95(ANY).below(millis(250)), success_rate().at_least(percent(99))])
            })
            .await
            .unwrap();
        let Capacity::Between { low, high } = *found.capacity() else { panic!("{found}") };
        assert!(low <= CAPACITY * 1.05 && high >= CAPACITY * 0.95 && high / low < 1.06, "{queue}: {found}");
    }
    // A probe that judges nothing is no probe.
    let probe = Shop::new(5).at(per_second(50)).run().await.unwrap().observed([]);
    assert_eq!(probe.unwrap_err().kind(), ErrorKind::NoEvidence);
}

#[tokio::test(start_paused = true)]
async fn overload_is_read_from_the_phase_beyond_the_capacity() {
    let twice = |queue| async move {
        let shop = Shop::new(queue);
        let load = shop.at(per_second(100)).spike(4.0, secs(4)).hold(secs(10));
        load.run().await.unwrap()
    };
    let run = twice(5).await;
    let overload = run.overload("spike", CAPACITY, &["busy"]).unwrap();
    assert!(overload.judge(0.9, millis(100)).unwrap().is_pass(), "{overload:?}");
    assert!(run.recovery("spike", 1.5, 3, secs(5)).unwrap().outcome.is_pass());
    // An endless queue: everybody waits, most of them in vain, and long after the spike.
    let run = twice(u64::MAX).await;
    let overload = run.overload("spike", CAPACITY, &["busy"]).unwrap();
    let outcome = overload.judge(0.9, millis(100)).unwrap();
    assert!(outcome.is_fail() && overload.refused == 0, "{outcome:?} {overload:?}");
    let recovery = run.recovery("spike", 1.5, 3, millis(500)).unwrap();
    assert!(recovery.outcome.is_fail(), "{recovery:?}");
    assert_eq!(run.overload("flood", 1.0, &[]).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(run.recovery("flood", 1.5, 3, secs(1)).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn runs_become_the_figures_of_a_baseline() {
    let mut runs = Vec::new();
    for n in 0..10 {
        let answer = move |_| async move {
            pause(Duration::from_millis(20 + n)).await;
            Ok::<(), String>(())
        };
        runs.push(Load::open(per_second(100)).hold(secs(2)).flow("ask", 1, answer).run().await.unwrap());
    }
    let figures = Runs::of_loads(&runs, [p95("ask"), mean(ANY)]).unwrap();
    assert_eq!(figures.metrics().collect::<Vec<_>>(), ["p95 ask", "mean"]);
    assert_eq!(figures.figures("p95 ask").unwrap()[..2], [20e6, 21e6]);
    let refused: [CoreResult<Runs>; 2] =
        [Runs::of_loads(&runs, [errors(ANY)]), Runs::of_loads(&runs, [p95("ask").phase("warm-up")])];
    assert_eq!(refused.map(|refused| refused.unwrap_err().kind()), [ErrorKind::Config, ErrorKind::NoEvidence]);
}

/// Ten in a thousand fail and answers take 20 ms: a normal day.
async fn day(service: u64, failing: u64) -> LoadRun {
    let answer = move |iteration: Iteration| async move {
        pause(millis(service)).await;
        if iteration.n() % 100 < failing { Err("planted") } else { Ok(()) }
    };
    Load::open(per_second(100)).hold(secs(10)).in_flight(100, 0).flow("ask", 1, answer).run().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_normal_day_hold_on_one_and_those_below_normal_fire_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut days = Vec::new();
    for _ in 0..10 {
        days.push(day(20, 1).await);
    }
    let metrics = || [p95("ask"), throughput(), success_rate()];
    let stored = baseline("normal").in_dir(dir.path()).save(Runs::of_loads(&days, metrics()).unwrap()).unwrap();
    let gates = |margin: f64| metrics().map(|gate| stored.gate(gate, margin).unwrap());
    let words = |run: &LoadRun, margin: f64| -> Vec<&str> {
        run.judge(gates(margin)).unwrap().rows().iter().map(|row| row.outcome.word()).collect()
    };
    assert_eq!(words(&days[0], 0.2), ["pass"; 3]);
    assert_eq!(words(&days[0], 0.0), ["pass"; 3], "the worst stored run is normal itself");
    assert_eq!(words(&days[0], -0.6), ["fail"; 3], "what is stricter than normal fires on a normal day");
    // Each fires for its own trouble: slow answers, errors (which are no throughput either).
    assert_eq!(words(&day(80, 1).await, 0.2), ["fail", "pass", "pass"]);
    assert_eq!(words(&day(20, 30).await, 0.2), ["pass", "fail", "fail"]);
    let missing = [(p99("ask"), 0.2, ErrorKind::NoEvidence), (errors(ANY), 0.2, ErrorKind::Config)];
    for (gate, margin, kind) in missing.into_iter().chain([(p95("ask"), f64::NAN, ErrorKind::Config)]) {
        assert_eq!(stored.gate(gate, margin).unwrap_err().kind(), kind);
    }
    assert_eq!(stored.ceiling("throughput", 0.2), None, "more of it is better");
    let floor = stored.floor("throughput", 0.2).unwrap();
    assert!((floor - 0.8 * 99.0).abs() < 1.0, "{floor}");
}
