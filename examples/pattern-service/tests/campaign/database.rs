//! Category database: vector search under concurrency and its index, isolation, sessions, and statements that stay whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::record::FindingKind;
use harness_core::slo::Measured;
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_db::Plan;
use harness_load::{Burst, Load, per_second};
use pattern_service::embed::Embedding;
use pattern_service::schema::PROBES;
use pattern_service::store::SEARCH_SQL;
use serde_json::json;

use crate::pace::Pace;
use crate::traffic;
use crate::world::{World, report_load, same};

/// Members that search: more than the fifty queries that must be in flight, since a fast search may end before the last
/// member has begun.
const MEMBERS: usize = 64;
/// Neighbours asked for.
const K: usize = 10;
/// The service's index.
pub(crate) const INDEX: &str = "pattern_vectors_embedding";
/// Its table.
pub(crate) const TABLE: &str = "pattern_vectors";

/// C1: fifty searches at once, each compared with the exact scan.
pub(crate) async fn vector_search(cx: &mut Scenario<World>) -> Result {
    let (world, rounds) = (cx.shared(), Pace::of(cx).search_rounds());
    world.reset_peak().await?;
    let found = Arc::new(std::sync::Mutex::new(Vec::new()));
    let burst = Burst::of(MEMBERS)
        .server_gauge(world.peak_gauge())
        .run(
            {
                let http = world.http.clone();
                move |_| std::future::ready(Ok::<_, Error>(http.clone()))
            },
            {
                let found = Arc::clone(&found);
                move |member, http| {
                    let found = Arc::clone(&found);
                    async move {
                        for round in 0..rounds {
                            let query = phrase(member.index() * rounds + round);
                            let body = json!({"query": query, "k": K});
                            let call = async { http.post("/v1/search", &body).await?.expect_status(200) };
                            let answer = member.request(call).await?;
                            let distances = distances(&answer.at::<Vec<serde_json::Value>>("/results")?)?;
                            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((query, distances));
                        }
                        CoreResult::Ok(())
                    }
                }
            },
        )
        .await?;
    burst.all_succeeded()?;
    cx.metric("database.queries_in_flight", burst.at_server().measured().clone());
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let index = world.database.vector_index(INDEX).await?;
    let (mut hits, mut total) = (0, 0);
    // One answer of a round is compared: the exact scan reads the whole table.
    for (query, distances) in found.iter().step_by(rounds) {
        let share = index.judge(Embedding::of(query).components(), distances, K).await?;
        hits += (share * K as f64).round() as u64;
        total += K as u64;
    }
    cx.metric("database.recall", Measured::share(hits, total));
    Ok(())
}

/// C2: transfers cross each other on three accounts; what all accounts hold together stays the same, and each account
/// holds what its receipts say.
pub(crate) async fn isolated_transfers(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let before = balances(&world).await?;
    let transfers = Pace::of(cx).crossing_transfers();
    let orders = (0..transfers).map(|n| {
        let (from, to) = [(1, 2), (2, 3), (3, 1), (2, 1), (3, 2), (1, 3)][n % 6];
        let http = world.http.clone();
        async move {
            let body = json!({"from": format!("account-{from}"), "to": format!("account-{to}"), "amount": 1 + n % 3});
            let moved = http.post("/v1/transfer", &body).await?.is_success();
            CoreResult::Ok(moved.then_some((from, to, 1 + (n % 3) as i64)))
        }
    });
    let label = format!("{transfers} transfers, {AT_ONCE} at a time");
    let moved = cx.step(&label, stream::iter(orders).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>()).await?;
    let mut expected = before.clone();
    for (from, to, amount) in moved.iter().flatten() {
        *expected.entry(format!("account-{from}")).or_default() -= amount;
        *expected.entry(format!("account-{to}")).or_default() += amount;
    }
    let after = balances(&world).await?;
    let kept = moved.iter().flatten().count();
    cx.metric("isolation.transfers", Measured::share(kept as u64, transfers as u64));
    let total = |of: &BTreeMap<String, i64>| of.values().sum::<i64>();
    cx.check("what all accounts hold together stays the same", same(total(&after), total(&before)));
    cx.check(
        "every account holds what its receipts say",
        match expected.iter().find(|(id, balance)| after.get(*id) != Some(balance)) {
            None => Outcome::pass(format!("{kept} transfers, none lost")),
            Some((id, balance)) => Outcome::fail(format!("{id} holds {:?} instead of {balance}", after.get(id))),
        },
    );
    Ok(())
}

/// How many of them are under way at once.
const AT_ONCE: usize = 12;

async fn balances(world: &World) -> CoreResult<BTreeMap<String, i64>> {
    let rows = sqlx::query_as::<_, (String, i64)>("select id, balance from accounts");
    let rows = rows
        .fetch_all(world.database.pool())
        .await
        .map_err(|error| Error::new(ErrorKind::Protocol, "the accounts cannot be read").caused_by(error))?;
    Ok(rows.into_iter().collect())
}

/// C3: under a steady load the service's sessions stay below the limit, and are as many afterwards as before.
pub(crate) async fn pool_stays_small(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let load = |length| Load::open(per_second(60)).hold(length).flow("execute", 1, traffic::execute(&world.http));
    cx.step("warm-up", load(pace.pool_warm_up()).run()).await?;
    world.borrowed_connections().await?;
    let sessions = world.database.sessions().every(Duration::from_millis(50)).start().await?;
    let run = load(pace.pool()).run().await?;
    let borrowed = world.borrowed_connections().await?;
    let series = sessions.stop();
    report_load(cx, &run, [])?;
    cx.evidence("sessions.txt", format!("{series:#?}"))?;
    cx.check("fewer than 25 sessions at any time", series.below(25));
    cx.metric("pool.held_after_load", Measured::count(borrowed));
    Ok(())
}

/// C5 and C6 ask one after the other, a few at a time: what a search takes, without the wait for a crowd.
async fn searched(cx: &Scenario<World>) -> CoreResult<Vec<u64>> {
    let world = cx.shared();
    let search = async |n: usize| {
        let begun = Instant::now();
        world.http.post("/v1/search", &json!({"query": phrase(n), "k": K})).await?.expect_status(200)?;
        CoreResult::Ok(begun.elapsed().as_nanos() as u64)
    };
    let searches = Pace::of(cx).searches();
    let label = format!("{searches} searches, {FEW} at a time");
    let mut nanos =
        cx.step(&label, stream::iter(0..searches).map(search).buffered(FEW).try_collect::<Vec<_>>()).await?;
    nanos.sort_unstable();
    Ok(nanos)
}

const FEW: usize = 4;

/// C5: what a vector search takes on average.
pub(crate) async fn search_mean(cx: &mut Scenario<World>) -> Result {
    cx.metric("database.vector_mean", Measured::mean(&searched(cx).await?));
    Ok(())
}

/// C6: what all but one of twenty searches stay below.
pub(crate) async fn search_p95(cx: &mut Scenario<World>) -> Result {
    cx.metric("database.p95", Measured::quantile(0.95, &searched(cx).await?));
    Ok(())
}

/// C9: hostile texts are kept as values: they come back byte for byte, and no statement is one that plain ones do not need.
pub(crate) async fn parameterised(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let (prefix, next) = (world.unique()?, AtomicU64::new(0));
    let round_trip = async |payload: &str| {
        let id = format!("{prefix}-{}", next.fetch_add(1, Relaxed));
        world.http.post("/v1/records", &json!({"id": id, "payload": payload})).await?.expect_status(201)?;
        let found = world.http.get("/v1/records").query("prefix", &id).await?.expect_status(200)?;
        found.at::<String>("/records/0/payload")
    };
    let found = world.database.parameterised(round_trip).await?;
    cx.evidence("statements.txt", format!("{found:#?}"))?;
    let outcome = cx.check("hostile texts stay values", found.holds());
    if outcome.is_fail() {
        cx.finding(FindingKind::Security, outcome.detail());
    }
    Ok(())
}

/// C7: the plan of the very statement the service runs, as the service and as the harness see it.
pub(crate) async fn index_used(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let plan = world.plan_of_service(&phrase(0), K).await?;
    cx.evidence("plan.json", serde_json::to_vec_pretty(&plan)?)?;
    let by_service = Plan::from_json(SEARCH_SQL, &plan)?;
    cx.check("index used, table never scanned, by the service's own session", judged(&by_service));
    let embedding = Embedding::of(&phrase(0)).to_sql();
    let by_harness = world
        .database
        .explain(SEARCH_SQL)
        .bind(embedding)
        .bind(K as i64)
        .with_setting("ivfflat.probes", PROBES.to_string())
        .analyze()
        .await?;
    cx.check("index used, table never scanned, by the harness's session", judged(&by_harness));
    Ok(())
}

fn judged(plan: &Plan) -> Outcome {
    match plan.uses_index(INDEX).and_then(|plan| plan.never_scans(TABLE)) {
        Ok(_) => Outcome::pass(INDEX),
        Err(error) => Outcome::fail(format!("{error:?}")),
    }
}

fn phrase(n: usize) -> String {
    traffic::fitting(traffic::CLASSES[n % traffic::CLASSES.len()], n as u64)
}

fn distances(hits: &[serde_json::Value]) -> CoreResult<Vec<f64>> {
    hits.iter()
        .map(|hit| {
            hit["distance"]
                .as_f64()
                .ok_or_else(|| Error::new(ErrorKind::Protocol, format!("a hit without distance: {hit}")))
        })
        .collect()
}
