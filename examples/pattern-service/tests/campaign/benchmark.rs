//! Category benchmark: latency, throughput, a hundred workers, tokens, stages, resources, cache hits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::client::{Answer, Http};
use harness_core::monitor::{LeakRule, drift};
use harness_core::slo::Measured;
use harness_core::{CoreResult, Result};
use harness_load::breakpoint::{Spike, recovery};
use harness_load::stages::Reported;
use harness_load::tokens::Reduction;
use harness_load::{
    ANY, Gate, Load, LoadRun, millis, p50, p95, p99, per_second, resource, secs, success_rate, throughput,
};
use serde_json::json;

use crate::concurrency::usual_mix;
use crate::pace::Pace;
use crate::traffic;
use crate::world::{World, report_load};

/// Arrivals per second of the benchmark: a tenth above the target, so that the target can be met exactly.
const ARRIVALS: u32 = 110;
/// Workers of the stress test.
const WORKERS: usize = 100;
/// Arrivals per second before and after the stress.
const CALM: u32 = 40;
/// After the stress a second is back to normal up to this multiple of the median before, and this many in a row.
const BACK_TO: f64 = 2.0;
const BACK_FOR: usize = 3;
/// How many of them are under way at once.
const AT_ONCE: usize = 16;

/// E1: an open loop at a tenth above the target rate; latency counts from the moment a request was due.
pub(crate) async fn latency(cx: &mut Scenario<World>) -> Result {
    let pace = Pace::of(cx);
    let gates = [p95("execute").below(millis(250)), p50("execute").below(millis(100))];
    let run = at_full_rate(cx, gates, pace.latency_warm_up(), pace.latency()).await?;
    cx.metric("latency.p50", run.measured(&p50("execute")));
    cx.metric("latency.p95", run.measured(&p95("execute")));
    cx.metric("latency.p99", run.measured(&p99("execute")));
    Ok(())
}

/// E2: what is answered per second in that loop.
pub(crate) async fn sustained_throughput(cx: &mut Scenario<World>) -> Result {
    let pace = Pace::of(cx);
    let run = at_full_rate(cx, [], pace.throughput_warm_up(), pace.throughput()).await?;
    cx.metric("throughput", run.measured(&throughput()));
    cx.metric("success", run.measured(&success_rate()));
    cx.metric("overhead.harness", overhead(&run));
    Ok(())
}

/// The part of the harness in the processor time of all who were at work: a harness that takes much of a machine measures
/// itself. Redis is not among them, which makes the part larger.
fn overhead(run: &LoadRun) -> Measured {
    let Some(watched) = run.watched() else { return Measured::nothing("the processor was not watched") };
    let others: Vec<&str> = match watched.series("postgres server cpu") {
        Some(_) => vec!["service cpu", "postgres server cpu"],
        None => vec!["service cpu"],
    };
    watched.part_of("harness cpu", &others)
}

/// C8: the service's sessions while it is used that hard.
pub(crate) async fn connections_under_load(cx: &mut Scenario<World>) -> Result {
    let run = at_full_rate(cx, [], Duration::from_millis(500), Pace::of(cx).connections()).await?;
    cx.metric("database.connections", run.measured(&resource("postgres sessions")));
    Ok(())
}

/// The benchmark's load with everything watched. Whoever asks has a load of its own; in the shortest profile one serves all.
async fn at_full_rate(
    cx: &Scenario<World>,
    gates: impl IntoIterator<Item = Gate>,
    warm_up: Duration,
    length: Duration,
) -> CoreResult<Arc<LoadRun>> {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let (warm_up, length) = match pace {
        Pace::Smoke => (pace.latency_warm_up(), pace.latency()),
        Pace::Default | Pace::Full => (warm_up, cx.duration(length)),
    };
    let measure = || async {
        let load = usual(&world, warm_up).hold(length).watch_every((length / 120).clamp(millis(40), secs(1)));
        world.watched(load).await?.gate(cpu()).run().await
    };
    if pace != Pace::Smoke {
        world.benchmark.forget().await;
    }
    let run = world.benchmark.get(measure).await?;
    let reported = report_load(cx, &run, gates);
    if reported.is_err() {
        world.benchmark.forget().await;
    }
    reported.map(|_| run)
}

fn usual(world: &World, warm_up: Duration) -> Load {
    Load::open(per_second(ARRIVALS)).warm_up(warm_up).flow("execute", 1, traffic::execute(&world.http))
}

/// E3: a hundred workers at once, who come back as soon as they are served; before and after them a calm load, so that
/// what the stress left behind is seen.
pub(crate) async fn hundred_workers(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let calm = |length| {
        let load = Load::open(per_second(CALM)).hold(length);
        load.flow("execute", 1, traffic::execute(&world.http))
    };
    let before = cx.step("calm before", calm(pace.calm_before()).run()).await?;
    world.reset_peak().await?;
    let stress = Load::closed(WORKERS).hold(cx.duration(pace.stress())).limit(secs(5));
    let stress = world.watched(stress.flow("execute", 1, traffic::execute(&world.http))).await?;
    let stress = cx.step("100 workers", stress.run()).await?;
    let peak = world.peak_gauge()().await?;
    let after = cx.step("calm after", calm(pace.back_within() + pace.calm_longer()).run()).await?;
    for (name, run) in [("before.txt", &before), ("after.txt", &after)] {
        cx.evidence(name, run.to_string())?;
    }
    for series in stress.series(cx.id()) {
        cx.series(series);
    }
    cx.evidence("stress.txt", stress.to_string())?;
    cx.metric("stress.peak_at_server", Measured::count(peak));
    cx.metric("stress.success", stress.measured(&success_rate()));
    let spike = Spike { ended: Duration::ZERO, factor: BACK_TO, steady: BACK_FOR, limit: pace.back_within() };
    let seconds = |run: &LoadRun| {
        let p95 = run.series("").into_iter().find(|series| series.plot == "latency over time" && series.name == "p95");
        p95.map(|series| series.points).unwrap_or_default()
    };
    let base: Vec<f64> = seconds(&before).into_iter().skip(1).map(|(_, p95)| p95).collect();
    let later: Vec<_> = seconds(&after).into_iter().map(|(at, p95)| (Duration::from_secs_f64(at), p95)).collect();
    let back = recovery(&base, &later, spike);
    cx.check("latency comes back to what it was", &back.outcome);
    cx.metric(
        "stress.back_after",
        match back.took {
            Some(took) => Measured::time(took, later.len() as u64),
            None => Measured::nothing(back.outcome.detail()),
        },
    );
    let calm_again = after.measured(&success_rate());
    cx.metric("stress.success_afterwards", calm_again);
    cx.check("the service was not restarted", world.service_still_runs().await);
    Ok(())
}

/// E4: tokens used against tokens the same queries cost without patterns, weighted by what was really asked: questions
/// for the model count, and save nothing.
pub(crate) async fn token_reduction(cx: &mut Scenario<World>) -> Result {
    let saved = saved(cx).await?;
    cx.metric("tokens.overall", saved.overall());
    Ok(())
}

/// E6: the same by class of pattern.
pub(crate) async fn token_reduction_by_class(cx: &mut Scenario<World>) -> Result {
    let saved = saved(cx).await?;
    for class in traffic::CLASSES {
        cx.metric(&format!("tokens.{class}"), saved.class(class));
    }
    Ok(())
}

/// What requests of the usual mix cost; in the shortest profile the same serve all who ask.
async fn saved(cx: &Scenario<World>) -> CoreResult<Arc<Reduction>> {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    if pace != Pace::Smoke {
        world.saved.forget().await;
    }
    let requests = pace.token_requests() as u64;
    let measure = || async {
        let asked = stream::iter(0..requests).map(|n| execute(&world.http, traffic::query(n), n));
        let mut saved = Reduction::default();
        for answer in asked.buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await? {
            let (used, baseline) = (answer.at("/tokens/used")?, answer.at("/tokens/baseline")?);
            match class_of(&answer)? {
                Some(class) => saved.record(class, used, baseline),
                None => saved.record_fallback("model", baseline),
            }
        }
        Ok(saved)
    };
    let saved = cx.step(&format!("{requests} requests of the usual mix"), world.saved.get(measure)).await?;
    cx.evidence("tokens.txt", saved.to_string())?;
    Ok(saved)
}

/// E5: the stages as the service reports them in `Server-Timing`, one class after the other under a light load, each
/// held to its budget by its median: a stage that is too slow for half of the requests is too slow, and a single one that
/// had to wait for the processor is not.
pub(crate) async fn stage_budgets(cx: &mut Scenario<World>) -> Result {
    let (world, staged) = (cx.shared(), Pace::of(cx).staged() as u64);
    let mut all = Reported::default();
    for class in traffic::CLASSES {
        let asked = stream::iter(0..staged).map(|n| execute(&world.http, traffic::fitting(class, n), n));
        let label = format!("{staged} requests of class {class}");
        let answers = cx.step(&label, asked.buffered(2).try_collect::<Vec<_>>()).await?;
        let mut of_class = Reported::default();
        // The first ones fill the cache; what the model answered is no request of this class.
        for answer in answers.iter().skip(10) {
            if class_of(answer)?.as_deref() == Some(class) {
                let header = answer.header("server-timing").unwrap_or_default();
                of_class.request(class, answer.took(), header)?;
                all.request(class, answer.took(), header)?;
            }
        }
        cx.metric(&format!("stage.{class}.p50"), median_of(&of_class, "exec"));
    }
    cx.metric("stage.match.p50", median_of(&all, "match"));
    cx.evidence("bottlenecks.txt", all.attribution()?.to_string())?;
    Ok(())
}

fn median_of(stages: &Reported, stage: &str) -> Measured {
    let nothing = || Measured::nothing(format!("no answer reported a stage `{stage}`"));
    stages.times(stage).map_or_else(nothing, |times| times.measured(0.5))
}

/// E7: what service, database and cache take while they are used, and whether it grows.
pub(crate) async fn resource_ceilings(cx: &mut Scenario<World>) -> Result {
    let pace = Pace::of(cx);
    let length = cx.duration(pace.soak());
    let run = match pace {
        Pace::Smoke => at_full_rate(cx, [], pace.soak_warm_up(), length).await?,
        Pace::Default | Pace::Full => {
            let world = cx.shared();
            let load = usual(&world, pace.soak_warm_up()).soak(length);
            let load = load.watch_every((length / 100).clamp(millis(50), secs(1)));
            Arc::new(world.watched(load).await?.gate(cpu()).run().await?)
        }
    };
    // Gates on resources are no gates on time: the generator's lateness cannot spoil them.
    let judged = report_load(cx, &run, [])?;
    let cpu = judged.rows().first().map(|row| row.measured.clone());
    cx.metric("resources.cpu", cpu.unwrap_or_else(|| Measured::nothing("the processor was not watched")));
    for (metric, series) in [
        ("resources.memory", "service rss"),
        ("resources.redis_memory", "redis memory"),
        ("resources.connections", "postgres sessions"),
    ] {
        cx.metric(metric, run.measured(&resource(series)));
    }
    let Some(watched) = run.watched() else { return Ok(()) };
    // A run this short says nothing about small leaks; `--duration 10min` lowers what can hide below the allowance.
    let mebibytes = |n: f64| n * 1_048_576.0;
    for (series, allowance) in [
        ("service rss", mebibytes(64.0)),
        ("redis memory", mebibytes(64.0)),
        ("service descriptors", 20.0),
        ("service threads", 8.0),
    ] {
        let leak = watched.leak(series, &LeakRule::default().allowance(allowance));
        cx.check(&format!("{series}: no leak"), &leak.outcome);
    }
    if length < DRIFT_FROM {
        return Ok(());
    }
    let p50 = run.series("").into_iter().find(|series| series.plot == "latency over time" && series.name == "p50");
    let p50 = p50.map(|series| series.points).unwrap_or_default();
    let p50: Vec<_> = p50.into_iter().skip(2).map(|(at, ms)| (at, ms + DRIFT_FLOOR_MS)).collect();
    cx.check("latency does not drift", drift(&p50, 0.5));
    Ok(())
}

/// Shorter runs have too few seconds to show a drift.
const DRIFT_FROM: Duration = Duration::from_secs(70);
/// Added to each median before drift is judged, so that a change of less than ten milliseconds is none.
const DRIFT_FLOOR_MS: f64 = 20.0;

fn cpu() -> Gate {
    use harness_load::percent;
    resource("service cpu").below(percent(80)).over(secs(2))
}

/// E8: the share of cache reads that a tier answered, once both are warm.
pub(crate) async fn overall_cache_hits(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let cache = if pace == Pace::Smoke {
        usual_mix(cx, [p95(ANY).below(millis(250))]).await?.1
    } else {
        let load = |length| Load::open(per_second(60)).hold(length).flow("execute", 1, traffic::execute(&world.http));
        cx.step("warm-up", load(pace.hits_warm_up()).run()).await?;
        let before = world.cache_counters().await?;
        let run = load(cx.duration(pace.hits())).run().await?;
        let cache = world.cache_counters().await?.since(before);
        report_load(cx, &run, [p95(ANY).below(millis(250))])?;
        cache
    };
    cx.metric("cache.hit_overall", Measured::share(cache.served(), cache.asked()));
    cx.check("hits of the shared tier agree with Redis's own counters", cache.agrees_with_redis());
    Ok(())
}

async fn execute(http: &Http, query: String, n: u64) -> CoreResult<Answer> {
    let body = json!({"query": query, "agent_id": traffic::agent(n as usize)});
    http.post("/v1/execute", &body).await?.expect_status(200)
}

/// Class of the pattern that answered; none when the model did.
fn class_of(answer: &Answer) -> CoreResult<Option<String>> {
    let by_pattern = answer.at::<String>("/route")? == "pattern";
    Ok(answer.at::<Option<String>>("/class")?.filter(|_| by_pattern))
}
