//! Category recovery, without a load: what the service does when a part of its world is away, slow or wrong.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness_core::campaign::Scenario;
use harness_core::client::{Answer, Http};
use harness_core::experiment::{Called, Contract, Experiment, SharedLedger, Steady};
use harness_core::fault::Outage;
use harness_core::record::FindingKind;
use harness_core::slo::Measured;
use harness_core::stub::{Behaviour, ModelStub};
use harness_core::wait::{Progress, pause, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_props::history::Recovered;
use pattern_service::model::FAILURES_TO_OPEN;
use serde_json::{Value, json};

use crate::traffic;
use crate::world::{BREAKER_OPEN, World, model_script, same, scripted};

/// How long parts may take to find each other again.
const AGAIN: Duration = Duration::from_secs(10);
/// An answer that takes longer hangs.
const HANG: Duration = Duration::from_secs(5);
/// Patterns whose texts are warm before Redis goes away.
const WARM: [&str; 3] = ["disk-usage", "renew-certificate", "restart-service"];

/// F2: Redis is stopped; what the local tier holds is still served from it, and the service finds Redis again by itself.
pub(crate) async fn redis_loss(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let redis = world.redis()?;
    cx.step("wait until the shared tier is up", shared_tier_is(&world, 1)).await?;
    read_warm(&world.http).await?;
    let before = world.gauge("fallback_total", &[("kind", "cache")]).await?;
    cx.step("stop Redis; its port refuses", redis.stop()).await?;
    cx.step("wait until the service knows", shared_tier_is(&world, 0)).await?;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.extend(read_warm(&world.http).await?);
    }
    let local = answers.iter().filter(|answer| answer.at::<String>("/cache").is_ok_and(|tier| tier == "local")).count();
    cx.metric("fallback.local", Measured::share(local as u64, answers.len() as u64));
    let slowest = answers.iter().map(Answer::took).max().unwrap_or_default();
    cx.metric("fallback.answer.max", Measured::time(slowest, answers.len() as u64));
    let rose = world.gauge("fallback_total", &[("kind", "cache")]).await? - before;
    cx.check("the service counts reads without the shared tier", at_least(rose, 1));
    cx.step("start Redis; it answers at the same address", redis.start_again()).await?;
    let back = Instant::now();
    shared_tier_is(&world, 1).await?;
    cx.metric("fallback.rejoined", Measured::time(back.elapsed(), 1));
    cx.check("the service was not restarted", world.service_still_runs().await);
    Ok(())
}

async fn read_warm(http: &Http) -> CoreResult<Vec<Answer>> {
    let mut answers = Vec::new();
    for name in WARM {
        answers.push(http.get(&format!("/v1/patterns/{name}")).within(HANG).await?.expect_status(200)?);
    }
    Ok(answers)
}

async fn shared_tier_is(world: &World, up: u64) -> CoreResult {
    wait_for(format!("shared_cache_up to be {up}"), AGAIN, async || match world.gauge("shared_cache_up", &[]).await {
        Ok(now) if now == up => Progress::Ready(()),
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
    let model = world.model()?;
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
    pause(BREAKER_OPEN + Duration::from_millis(100)).await; // then it allows a trial
    let before = model.calls().len();
    join_all((0..HERD as u64).map(&ask)).await.into_iter().collect::<CoreResult<Vec<_>>>()?;
    cx.check("half open: one trial reaches the model", same(asked(model, before), 1));
    let before = model.calls().len();
    ask(20).await?.expect_status(503)?;
    cx.check("a failed trial opens it again", same(asked(model, before), 0));
    model.set_script(model_script())?;
    pause(BREAKER_OPEN + Duration::from_millis(100)).await; // then it allows a trial
    let answers = [ask(30).await?, ask(31).await?];
    let served = answers.iter().filter(|answer| answer.status() == 200).count();
    cx.check("a trial that succeeds closes it", same(served, answers.len()));
    Ok(())
}

fn asked(model: &ModelStub, before: usize) -> usize {
    model.calls().len() - before
}

/// F5: Postgres is killed while records are written, and started again. The service answers in time and by a typed error while
/// it is away, works again without being restarted, and no acknowledged record is missing.
pub(crate) async fn recovery_by_itself(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let ledger = SharedLedger::default();
    let prefix = world.unique()?;
    let write = {
        let (http, ledger, prefix) = (world.http.clone(), Arc::clone(&ledger), prefix.clone());
        move |number: u64| {
            let (http, ledger, id) = (http.clone(), Arc::clone(&ledger), format!("{prefix}-{number:05}"));
            async move {
                let payload = format!("what {id} must not forget");
                ledger.lock().unwrap_or_else(PoisonError::into_inner).attempt(&*id, &payload);
                let answer = http.post("/v1/records", &json!({"id": id, "payload": payload})).within(HANG).await;
                if answer.as_ref().is_ok_and(|answer| answer.status() == 201) {
                    ledger.lock().unwrap_or_else(PoisonError::into_inner).acknowledge(&id);
                }
                Called::of(answer)
            }
        }
    };
    let found = {
        let http = world.http.clone();
        move || {
            let (http, prefix) = (http.clone(), prefix.clone());
            async move {
                let found = http.get("/v1/records").query("prefix", &prefix).await?.expect_status(200)?;
                let found: Vec<Value> = found.at("/records")?;
                let field = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
                CoreResult::Ok(
                    found.iter().map(|one| Recovered::intact(field(one, "id"), &field(one, "payload"))).collect(),
                )
            }
        }
    };
    let recovery = Experiment::new(Steady::new(Duration::from_secs(1), 95).within(Duration::from_secs(1)))
        .operation("write a record", write)
        .every(Duration::from_millis(25))
        .broken_for(Duration::from_secs(2))
        .patience(HANG)
        .while_broken(Contract::within(Duration::from_secs(3)).errors(["503"]))
        .recovers_within(AGAIN)
        .ledger(ledger, found)
        .run(Outage::kill(world.postgres()?.service()))
        .await?;
    cx.evidence("experiment.txt", recovery.to_string())?;
    for (question, outcome) in recovery.checks() {
        cx.check(question, outcome);
    }
    if let Some(ledger) = recovery.ledger.as_ref().filter(|ledger| !ledger.lost.is_empty()) {
        cx.finding(FindingKind::DataLoss, ledger.outcome().detail());
    }
    let first = recovery.verdict.figures.first_success;
    let never = || Measured::nothing("no call succeeded after Postgres was back");
    cx.metric("recovery.by_itself", first.map_or_else(never, |time| Measured::time(time, 1)));
    cx.check("the service was not restarted", world.service_still_runs().await);
    Ok(())
}

/// Queries of each kind.
const ROUTED: u64 = 30;

/// F7: what a pattern fits takes the pattern, all else goes to the model and is answered by it; both are counted as such.
pub(crate) async fn fallback_to_the_model(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let (mut right, mut answered) = (0, 0);
    for n in 0..2 * ROUTED {
        let (query, route) = match n % 2 {
            0 => (traffic::fitting(traffic::CLASSES[(n / 2 % 3) as usize], n / 2), "pattern"),
            _ => (traffic::complex(n), "fallback"),
        };
        let body = json!({"query": query, "agent_id": traffic::agent(n as usize)});
        let answer = world.http.post("/v1/execute", &body).await?.expect_status(200)?;
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
    cx.metric("routing.right", Measured::share(right, 2 * ROUTED));
    cx.metric("routing.answered", Measured::share(answered, 2 * ROUTED));
    Ok(())
}
