//! Category recovery: what the service does when its cache is away, or its model is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::client::{Answer, Http};
use harness_core::experiment::{Called, Contract, Experiment, Steady};
use harness_core::fault::Outage;
use harness_core::slo::Measured;
use harness_core::stub::{Behaviour, ModelStub};
use harness_core::wait::{Progress, pause, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use pattern_service::model::FAILURES_TO_OPEN;
use serde_json::json;

use crate::pace::Pace;
use crate::recovery::{self, AGAIN, HANG, Told};
use crate::traffic;
use crate::world::{World, model_script, same, scripted};

/// How long F2 has to be steady, and how long Redis is away: less than a local entry lives, so that all of it can be served.
const STEADY: Duration = Duration::from_millis(500);
const AWAY: Duration = Duration::from_millis(1_500);
/// What a look at the shared tier comes to while the service is without it.
const AWAY_WORD: &str = "away";
/// Patterns whose texts are warm before Redis goes away.
const WARM: [&str; 3] = ["disk-usage", "renew-certificate", "restart-service"];

/// How soon a warm text has to be answered while Redis is away.
const SERVED: Duration = Duration::from_secs(1);
/// Between two calls; reads and looks at the shared tier take turns.
const EVERY: Duration = Duration::from_millis(25);
/// The operations of F2.
const READ: &str = "read a warm text";
const LOOK: &str = "ask whether the shared tier is up";

/// F2: Redis is stopped; what the local tier holds is still served from it, the service says that the shared tier is away, and finds
/// Redis again by itself.
pub(crate) async fn redis_loss(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    cx.step("wait until the shared tier is up", shared_tier_is_up(&world)).await?;
    for name in WARM {
        read(world.http.clone(), name).await?;
    }
    let before = world.gauge("fallback_total", &[("kind", "cache")]).await?;
    let (fault, is_broken) = Told::of(Outage::stop(world.redis()?.service()));
    let tiers = Arc::new(Tiers::default());
    let reading = {
        let (http, tiers) = (world.http.clone(), Arc::clone(&tiers));
        move |number: u64| count_tier(http.clone(), number, Arc::clone(&is_broken), Arc::clone(&tiers))
    };
    let looking = {
        let http = world.http.clone();
        move |_| look(http.clone())
    };
    let recovery = Experiment::new(Steady::new(STEADY, 95).within(SERVED))
        .operation(READ, reading)
        .operation(LOOK, looking)
        .every(EVERY)
        .broken_for(AWAY)
        .patience(HANG)
        .while_broken(Contract::within(SERVED).errors([AWAY_WORD]).still(READ))
        .recovers_within(AGAIN)
        .run(fault)
        .await?;
    recovery::report(cx, &world, &recovery).await?;
    cx.metric("fallback.local", Measured::share(tiers.local.load(Relaxed), tiers.all.load(Relaxed)));
    let reads: Vec<_> = recovery::due_while_broken(&recovery).filter(|call| call.operation == READ).collect();
    cx.metric("fallback.answer.max", recovery::slowest(&reads));
    let rose = world.gauge("fallback_total", &[("kind", "cache")]).await? - before;
    let counted = match recovery.bites {
        Some(_) => at_least(rose, 1),
        None => Outcome::no_evidence("Redis was never stopped"),
    };
    cx.check("the service counts reads without the shared tier", counted);
    // Only the look at the shared tier may fail, so the first success after a failure is that of the tier.
    let never = || Measured::nothing("the service never said that the shared tier was away, or never that it was back");
    let rejoined = recovery.verdict.figures.first_success;
    cx.metric("fallback.rejoined", rejoined.map_or_else(never, |time| Measured::time(time, 1)));
    Ok(())
}

/// Reads that were sent and answered while Redis was away, and those that the local tier answered.
#[derive(Default)]
struct Tiers {
    all: AtomicU64,
    local: AtomicU64,
}

async fn read(http: Http, name: &str) -> CoreResult<Answer> {
    http.get(&format!("/v1/patterns/{name}")).within(HANG).await?.expect_status(200)
}

async fn count_tier(http: Http, number: u64, is_broken: Arc<AtomicBool>, tiers: Arc<Tiers>) -> Called {
    let was_broken = is_broken.load(SeqCst);
    let answer = read(http, WARM[(number / 2) as usize % WARM.len()]).await;
    if was_broken && is_broken.load(SeqCst) {
        let is_local =
            answer.as_ref().is_ok_and(|answer| answer.at::<String>("/cache").is_ok_and(|tier| tier == "local"));
        tiers.all.fetch_add(1, Relaxed);
        tiers.local.fetch_add(u64::from(is_local), Relaxed);
    }
    Called::of(answer)
}

async fn look(http: Http) -> Called {
    match http.scrape("/metrics").await.and_then(|page| page.value("shared_cache_up", &[])) {
        Ok(up) if up > 0.0 => Called::ok(),
        Ok(_) => Called::error(AWAY_WORD),
        Err(error) => Called::from(Err::<(), _>(error)),
    }
}

async fn shared_tier_is_up(world: &World) -> CoreResult {
    wait_for("the shared tier to be up", AGAIN, async || match world.gauge("shared_cache_up", &[]).await {
        Ok(1) => Progress::Ready(()),
        Ok(now) => Progress::NotYet(format!("it is {now}")),
        Err(error) => Progress::Failed(error),
    })
    .await
}

fn at_least(found: u64, wanted: u64) -> Outcome {
    if found >= wanted {
        Outcome::pass(found.to_string())
    } else {
        Outcome::fail(format!("{found} instead of {wanted}"))
    }
}

/// F3: a pattern that would run for a minute is stopped at its limit, says so, and leaves no session at work.
pub(crate) async fn time_limit(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let body = json!({"query": "watch the replication stream forever", "agent_id": traffic::agent(0)});
    let begun = Instant::now();
    let answer = world.http.post("/v1/execute", &body).within(HANG).await;
    cx.metric("time_limit.answer", Measured::time(begun.elapsed(), 1));
    let typed = match &answer {
        Ok(answer)
            if answer.status() == 504 && answer.at::<String>("/error/kind").is_ok_and(|kind| kind == "time_limit") =>
        {
            Outcome::pass("504, time_limit")
        }
        Ok(answer) => Outcome::fail(format!("status {}", answer.status())),
        Err(error) => Outcome::fail(error.to_string()),
    };
    cx.check("the answer says that the limit was reached", typed);
    let freed = wait_for("no session to sleep", HANG, async || match world.database.busy_sessions().await {
        Ok(busy) => match busy.iter().find(|session| format!("{session:?}").contains("pg_sleep")) {
            None => Progress::Ready(()),
            Some(session) => Progress::NotYet(format!("{session:?}")),
        },
        Err(error) => Progress::Failed(error),
    });
    let freed = match freed.await {
        Ok(()) => Outcome::pass("no session sleeps"),
        Err(error) if error.kind() == ErrorKind::Timeout => Outcome::fail(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    cx.check("its session was given back", freed);
    Ok(())
}

/// Requests that come at once while the breaker is half open.
const HERD: usize = 8;

/// F4: the circuit breaker around the model opens after so many failures in a row, then answers without asking, lets one
/// trial through when its time is over, opens again when that fails and closes when it succeeds.
pub(crate) async fn circuit_breaker(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let outcome = open_and_close(cx, &world, world.model()?).await;
    world.model()?.set_script(model_script())?; // others ask it afterwards, however this ended
    outcome
}

async fn open_and_close(cx: &Scenario<World>, world: &World, model: &ModelStub) -> Result {
    let open = Pace::of(cx).breaker_open();
    // Slow enough that a herd is still there while the first of them waits.
    let broken = || scripted(&Behaviour::status(500).delay(Duration::from_millis(150)));
    let ask = async |n: u64| {
        let body = json!({"query": traffic::complex(n), "agent_id": traffic::agent(n as usize)});
        world.http.post("/v1/execute", &body).within(HANG).await
    };
    ask(0).await?.expect_status(200)?; // closed, whatever was before
    model.set_script(broken())?;
    let before = model.calls().len();
    for n in 0..u64::from(FAILURES_TO_OPEN) {
        ask(n).await?.expect_status(502)?;
    }
    cx.check("every failure until then was asked for", same(asked(model, before), FAILURES_TO_OPEN as usize));
    let (before, begun) = (model.calls().len(), Instant::now());
    let refused = ask(10).await?;
    cx.metric("breaker.fails_fast", Measured::time(begun.elapsed(), 1));
    cx.check("open: refused with 503", same(usize::from(refused.status()), 503));
    cx.check("open: the model is not asked", same(asked(model, before), 0));
    pause(open + Duration::from_millis(100)).await; // then it allows a trial
    let before = model.calls().len();
    join_all((0..HERD as u64).map(&ask)).await.into_iter().collect::<CoreResult<Vec<_>>>()?;
    cx.check("half open: one trial reaches the model", same(asked(model, before), 1));
    let before = model.calls().len();
    ask(20).await?.expect_status(503)?;
    cx.check("a failed trial opens it again", same(asked(model, before), 0));
    model.set_script(model_script())?;
    pause(open + Duration::from_millis(100)).await; // then it allows a trial
    let answers = [ask(30).await?, ask(31).await?];
    let served = answers.iter().filter(|answer| answer.status() == 200).count();
    cx.check("a trial that succeeds closes it", same(served, answers.len()));
    Ok(())
}

fn asked(model: &ModelStub, before: usize) -> usize {
    model.calls().len() - before
}

/// F7: what a pattern fits takes the pattern, all else goes to the model and is answered by it; both are counted as such.
pub(crate) async fn fallback_to_the_model(cx: &mut Scenario<World>) -> Result {
    let (world, routed) = (cx.shared(), Pace::of(cx).routed() as u64);
    let asked = stream::iter(0..2 * routed).map(async |n| {
        let (query, route) = match n % 2 {
            0 => (traffic::fitting(traffic::CLASSES[(n / 2 % 3) as usize], n / 2), "pattern"),
            _ => (traffic::complex(n), "fallback"),
        };
        let body = json!({"query": query, "agent_id": traffic::agent(n as usize)});
        CoreResult::Ok((world.http.post("/v1/execute", &body).await?.expect_status(200)?, route))
    });
    let (mut right, mut answered) = (0, 0);
    for (answer, route) in asked.buffered(4).try_collect::<Vec<_>>().await? {
        let (taken, text): (String, String) = (answer.at("/route")?, answer.at("/result")?);
        right += u64::from(taken == route);
        answered += u64::from(!text.trim().is_empty());
        let (used, baseline): (u64, u64) = (answer.at("/tokens/used")?, answer.at("/tokens/baseline")?);
        if taken == "fallback" && used != baseline {
            return Err(Error::new(
                ErrorKind::Assertion,
                format!("the model saves nothing, but {used} of {baseline} are counted"),
            )
            .into());
        }
    }
    cx.metric("routing.right", Measured::share(right, 2 * routed));
    cx.metric("routing.answered", Measured::share(answered, 2 * routed));
    Ok(())
}
