//! Category concurrency: fifty agents at once, one truth in the cache, the pool under stress, no deadlock, and the figures
//! of the phase.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::slo::Measured;
use harness_core::wait::{Progress, pause, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_db::redis::{Coherence, CoherenceRun, Seen};
use harness_load::{Burst, Gate, Iteration, Load, LoadRun, mean, millis, per_second, percent, secs, success_rate};
use serde_json::json;

use crate::counters::CacheCounters;
use crate::pace::Pace;
use crate::traffic;
use crate::world::{World, report_load};

/// How many agents act at once.
const AGENTS: usize = 50;

/// A1: fifty agents start together and are all inside the service at the same time.
///
/// They ask what no pattern answers, so each waits for the model, which takes a while: that they overlap is the
/// service's doing, and its own gauge is the proof.
pub(crate) async fn fifty_agents(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    world.reset_peak().await?;
    let burst = Burst::of(AGENTS)
        .server_gauge(world.peak_gauge())
        .run(
            {
                let http = world.http.clone();
                move |member| {
                    let http = http.clone();
                    // Ready is who has a connection to the service and has made it open one to its database.
                    async move { search(&http, member).await.map(|()| http) }
                }
            },
            |member, http| async move {
                let body = json!({"query": traffic::complex(member.index() as u64), "agent_id": traffic::agent(member.index())});
                let call = async { http.post("/v1/execute", &body).await?.expect_status(200) };
                member.request(call).await.map(drop)
            },
        )
        .await?;
    cx.evidence("burst.txt", burst.to_string())?;
    cx.metric("agents.peak_at_server", burst.at_server().measured().clone());
    cx.metric("agents.success", burst.success_rate());
    Ok(())
}

/// A4: transfers that cross each other never deadlock.
pub(crate) async fn no_deadlock(cx: &mut Scenario<World>) -> Result {
    let (world, rounds) = (cx.shared(), Pace::of(cx).crossing_rounds());
    let deadlocks = world.database.deadlocks().await?;
    // Closer than half of the time after which the server itself looks for a deadlock.
    let waits = world.database.locks().every(Duration::from_millis(100)).start().await?;
    let transfers = (0..AGENTS).map(|agent| {
        let http = world.http.clone();
        async move {
            let mut moved = 0;
            for round in 0..rounds {
                let (from, to) =
                    if (agent + round) % 2 == 0 { ("account-1", "account-2") } else { ("account-2", "account-1") };
                let body = json!({"from": from, "to": to, "amount": 1});
                moved += u64::from(http.post("/v1/transfer", &body).await?.is_success());
            }
            CoreResult::Ok(moved)
        }
    });
    let moved: u64 = cx
        .step(&format!("{} transfers in both directions", AGENTS * rounds), async {
            join_all(transfers).await.into_iter().sum::<CoreResult<u64>>()
        })
        .await?;
    let waits = waits.stop();
    cx.evidence("lock-waits.txt", format!("{waits:#?}"))?;
    // The server's own counter decides; the graph names both sides, where samples were close enough to see it.
    let acyclic = waits.acyclic();
    if !acyclic.is_no_evidence() {
        cx.check("no cycle of lock waits was seen", acyclic);
    }
    cx.metric("transfers.success", Measured::share(moved, (AGENTS * rounds) as u64));
    let deadlocks = deadlocks.limit(Duration::from_secs(40));
    let published = cx.step("wait until all sessions have published their counts", deadlocks.none());
    let outcome = tokio::select! {
        outcome = published => outcome?,
        never = work_on(&world.http) => match never {},
    };
    let count = match outcome.is_no_evidence() {
        true => Measured::nothing(outcome.detail()),
        false => Measured::count(deadlocks.so_far().await?),
    };
    cx.metric("transfers.deadlocks", count);
    Ok(())
}

/// Sessions publish their counts when they work on a second later; so let them work, for as long as somebody asks.
async fn work_on(http: &Http) -> Infallible {
    loop {
        pause(Duration::from_millis(1_300)).await;
        // Whether these succeed says nothing about deadlocks.
        let _ = join_all((0..AGENTS).map(|agent| search(http, agent))).await;
    }
}

async fn search(http: &Http, n: usize) -> CoreResult {
    let query = traffic::fitting(traffic::CLASSES[n % traffic::CLASSES.len()], n as u64);
    http.post("/v1/search", &json!({"query": query, "k": 3})).await?.expect_status(200).map(drop)
}

/// A2: agents read and write the same patterns through one instance; no read may be older than a write that was
/// acknowledged longer ago than the bound.
pub(crate) async fn coherent_agents(cx: &mut Scenario<World>) -> Result {
    let http = cx.shared().http.clone();
    let agents = (0..4).fold(Coherence::within(BOUND), |run, n| patterns(run, format!("agent-{n}"), &http));
    report_coherence(cx, agents.keys(PATTERNS.len()).rounds(Pace::of(cx).coherence_rounds() as u64).run().await?)
}

/// Patterns whose texts are changed; no other scenario changes them.
const PATTERNS: [&str; 2] = ["renew-certificate", "restart-service"];
/// What the cache promises: a message takes milliseconds, and a busy machine some more.
pub(crate) const BOUND: Duration = Duration::from_millis(500);

/// Adds an instance that is read and written over HTTP; the version stands in the text.
pub(crate) fn patterns(run: Coherence, name: String, http: &Http) -> Coherence {
    let path = |key: &str| {
        let n: usize = key.rsplit(':').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        format!("/v1/patterns/{}", PATTERNS[n % PATTERNS.len()])
    };
    let (reader, writer) = (http.clone(), http.clone());
    run.instance(
        name,
        move |key| {
            let (http, path) = (reader.clone(), path(&key));
            async move {
                let answer = http.get(&path).await?.expect_status(200)?;
                let text: String = answer.at("/text")?;
                let version = text.rsplit_once("revision ").and_then(|(_, version)| version.parse().ok());
                let seen = version.map_or_else(Seen::absent, Seen::version);
                CoreResult::Ok(seen.from_copy(answer.at::<String>("/cache")? != "miss"))
            }
        },
        move |key, version| {
            let (http, path) = (writer.clone(), path(&key));
            let body = json!({"text": format!("Agent {{agent}} follows revision {version}")});
            async move { http.put(&path, &body).await?.expect_status(200).map(drop) }
        },
    )
}

/// The verdict of a run over the cache as a check, with its history as evidence.
pub(crate) fn report_coherence(cx: &Scenario<World>, run: CoherenceRun) -> Result {
    cx.evidence("coherence.txt", format!("{run:#?}"))?;
    cx.check("no read is older than an acknowledged write", run.verdict.outcome());
    let errors = run.first_error.map_or_else(|| Outcome::pass("none"), Outcome::fail);
    cx.check("reads and writes are answered", errors);
    Ok(())
}

/// A3: more agents than the pool has connections; all finish, and afterwards nobody holds one.
pub(crate) async fn pool_stress(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let sessions = world.database.sessions().every(Duration::from_millis(50)).start().await?;
    let agents = (0..STRESS_AGENTS).map(|agent| {
        let http = world.http.clone();
        async move {
            let mut served = 0;
            for round in 0..STRESS_ROUNDS {
                let n = (agent * STRESS_ROUNDS + round) as u64;
                let query = traffic::fitting(traffic::CLASSES[n as usize % traffic::CLASSES.len()], n);
                let body = json!({"query": query, "agent_id": traffic::agent(agent)});
                served += u64::from(http.post("/v1/execute", &body).await?.is_success());
            }
            CoreResult::Ok(served)
        }
    });
    let served: u64 = cx
        .step("60 agents, 4 executions each", async { join_all(agents).await.into_iter().sum::<CoreResult<u64>>() })
        .await?;
    let borrowed = cx.step("wait until nobody holds a connection", world.borrowed_connections()).await?;
    let series = sessions.stop();
    cx.evidence("sessions.txt", format!("{series:#?}"))?;
    cx.metric("pool.success", Measured::share(served, (STRESS_AGENTS * STRESS_ROUNDS) as u64));
    cx.metric("pool.borrowed_afterwards", Measured::count(borrowed));
    cx.metric(
        "pool.most_sessions",
        series.max().map_or_else(|| Measured::nothing("no sample"), |max| Measured::count(max.into())),
    );
    Ok(())
}

/// Agents of the pool's stress: twice its hard cap of 30.
const STRESS_AGENTS: usize = 60;
/// Executions of each.
const STRESS_ROUNDS: usize = 4;

/// A5: how many requests of the usual mix succeed.
pub(crate) async fn phase_success(cx: &mut Scenario<World>) -> Result {
    let mix = usual_mix(cx, []).await?;
    cx.metric("concurrency.success", mix.0.measured(&success_rate()));
    Ok(())
}

/// A6: what a request of the usual mix takes on average.
pub(crate) async fn phase_mean(cx: &mut Scenario<World>) -> Result {
    let mix = usual_mix(cx, [mean("execute").below(millis(300))]).await?;
    cx.metric("concurrency.mean", mix.0.measured(&mean("execute")));
    Ok(())
}

/// A7: how many cache reads of the usual mix a tier answers.
pub(crate) async fn phase_hits(cx: &mut Scenario<World>) -> Result {
    let mix = usual_mix(cx, []).await?;
    cx.metric("concurrency.cache_hit", Measured::share(mix.1.served(), mix.1.asked()));
    cx.check("hits of the shared tier agree with Redis's own counters", mix.1.agrees_with_redis());
    Ok(())
}

/// The usual mix under a load of its own, once both tiers of the cache are warm; in the shortest profile one load serves all
/// who ask.
pub(crate) async fn usual_mix(
    cx: &Scenario<World>,
    gates: impl IntoIterator<Item = Gate>,
) -> CoreResult<Arc<(LoadRun, CacheCounters)>> {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let measure = || async {
        let load = |length| Load::open(per_second(60)).hold(length).flow("execute", 1, traffic::execute(&world.http));
        load(pace.mix_warm_up()).run().await?;
        let before = world.cache_counters().await?;
        let run = load(pace.mix()).run().await?;
        Ok((run, world.cache_counters().await?.since(before)))
    };
    if pace != Pace::Smoke {
        world.mix.forget().await;
    }
    let mix = world.mix.get(measure).await?;
    let reported = report_load(cx, &mix.0, gates);
    if reported.is_err() {
        world.mix.forget().await;
    }
    reported.map(|_| mix)
}

/// A8: when fewer than nine of ten requests succeed the load ends at once, and what was going on is captured: the service's
/// log with a line that must be there, and the sessions that were at work.
pub(crate) async fn pause_when_failing(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let gate = success_rate().at_least(percent(90)).over(secs(1)).abort_after(millis(500));
    let http = world.http.clone();
    let failing = move |iteration: Iteration| {
        let (http, path) = (
            http.clone(),
            if iteration.n().is_multiple_of(5) { "/v1/patterns/nowhere" } else { "/v1/patterns/disk-usage" },
        );
        Box::pin(async move { http.get(path).await?.expect_status(200).map(drop) }) as traffic::Execution
    };
    let run = Load::open(per_second(60)).hold(secs(20)).flow("failing", 1, failing).gate(gate).run().await?;
    cx.evidence("load.txt", run.to_string())?;
    match run.aborted() {
        Some((at, why)) => {
            cx.check("the load was ended", Outcome::pass(why));
            cx.metric("pause.after", Measured::time(at, 1));
        }
        None => drop(cx.check("the load was ended", Outcome::fail("it ran to its end at 80 %"))),
    }
    let mut session = world.database.connect().await?;
    let work = tokio::spawn(async move {
        use sqlx::Executor as _;
        session.execute("select pg_sleep(1) /* captured */").await.map(drop)
    });
    let sessions = wait_for("the session at work to be captured", secs(2), async || {
        let sessions = world.busy_sessions().await;
        if sessions.contains("captured") { Progress::Ready(sessions) } else { Progress::NotYet(sessions) }
    });
    let sessions = sessions.await;
    let captured =
        sessions.as_ref().map_or_else(|error| Outcome::fail(error.to_string()), |_| Outcome::pass("pg_sleep"));
    cx.check("sessions at work are captured", captured);
    let path = format!("/v1/patterns/{}", world.unique()?);
    world.http.get(&path).await?; // 404: the last thing a reader of the log should find
    let log = world.last_logs().await;
    let line = format!("request GET {path} -> 404");
    let found =
        if log.contains(&line) { Outcome::pass(line) } else { Outcome::fail(format!("there is no line `{line}`")) };
    cx.check("the log is captured with its last lines", found);
    cx.evidence("captured-log.txt", log)?;
    cx.evidence("captured-sessions.txt", sessions.unwrap_or_default())?;
    work.await?.map_err(|error| Error::new(ErrorKind::Protocol, "the session at work failed").caused_by(error))?;
    Ok(())
}
