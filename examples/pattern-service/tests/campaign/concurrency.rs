//! Category concurrency: fifty agents at once, no deadlock, and the figures of the phase.

use std::time::Duration;

use futures_util::future::join_all;
use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::slo::Measured;
use harness_core::wait::pause;
use harness_core::{CoreResult, Result};
use harness_load::{Burst, Load, mean, millis, per_second, secs, success_rate};
use serde_json::json;

use crate::traffic;
use crate::world::{World, report_load};

/// How many agents act at once.
const AGENTS: usize = 50;
/// Transfers each agent makes.
const TRANSFERS: usize = 6;

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
    let world = cx.shared();
    let deadlocks = world.database.deadlocks().await?;
    // Closer than half of the time after which the server itself looks for a deadlock.
    let waits = world.database.locks().every(Duration::from_millis(100)).start().await?;
    let transfers = (0..AGENTS).map(|agent| {
        let http = world.http.clone();
        async move {
            let mut moved = 0;
            for round in 0..TRANSFERS {
                let (from, to) =
                    if (agent + round) % 2 == 0 { ("account-1", "account-2") } else { ("account-2", "account-1") };
                let body = json!({"from": from, "to": to, "amount": 1});
                moved += u64::from(http.post("/v1/transfer", &body).await?.is_success());
            }
            CoreResult::Ok(moved)
        }
    });
    let moved: u64 = cx
        .step("300 transfers in both directions", async {
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
    cx.metric("transfers.success", Measured::share(moved, (AGENTS * TRANSFERS) as u64));
    let deadlocks = deadlocks.limit(Duration::from_secs(40));
    let (outcome, ()) = tokio::join!(
        cx.step("wait until all sessions have published their counts", deadlocks.none()),
        work_on(&world.http),
    );
    let outcome = outcome?;
    let count = match outcome.is_no_evidence() {
        true => Measured::nothing(outcome.detail()),
        false => Measured::count(deadlocks.so_far().await?),
    };
    cx.metric("transfers.deadlocks", count);
    Ok(())
}

/// Sessions publish their counts when they work on a second later; so let them work, until somebody stops asking.
async fn work_on(http: &Http) {
    for _ in 0..3 {
        pause(Duration::from_millis(1_300)).await;
        // Whether these succeed says nothing about deadlocks.
        let _ = join_all((0..AGENTS).map(|agent| search(http, agent))).await;
    }
}

async fn search(http: &Http, n: usize) -> CoreResult {
    let query = traffic::fitting(traffic::CLASSES[n % traffic::CLASSES.len()], n as u64);
    http.post("/v1/search", &json!({"query": query, "k": 3})).await?.expect_status(200).map(drop)
}

/// A5: the figures of the phase over the usual mix of traffic.
pub(crate) async fn phase_figures(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let before = world.cache_counters().await?;
    let run = Load::open(per_second(60))
        .warm_up(secs(2))
        .hold(secs(6))
        .flow("execute", 1, traffic::execute(&world.http))
        .run()
        .await?;
    let cache = world.cache_counters().await?.since(before);
    report_load(cx, &run, [mean("execute").below(millis(300))])?;
    cx.metric("concurrency.success", run.measured(&success_rate()));
    cx.metric("concurrency.mean", run.measured(&mean("execute")));
    cx.metric("concurrency.cache_hit", Measured::share(cache.served(), cache.asked()));
    cx.check("hits of the shared tier agree with Redis's own counters", cache.agrees_with_redis());
    Ok(())
}
