//! Category database: vector search under concurrency, and proof that the index is used.

use std::sync::Arc;

use harness_core::campaign::Scenario;
use harness_core::slo::Measured;
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_db::Plan;
use harness_load::Burst;
use pattern_service::embed::Embedding;
use pattern_service::schema::PROBES;
use pattern_service::store::SEARCH_SQL;
use serde_json::json;

use crate::traffic;
use crate::world::World;

/// Members that search: more than the fifty queries that must be in flight, since a fast search may end before the last
/// member has begun.
const MEMBERS: usize = 64;
/// How often each member searches: enough samples for a 95th percentile.
const ROUNDS: usize = 6;
/// Neighbours asked for.
const K: usize = 10;
/// The service's index.
pub(crate) const INDEX: &str = "pattern_vectors_embedding";
/// Its table.
pub(crate) const TABLE: &str = "pattern_vectors";

/// C1: fifty searches at once, each compared with the exact scan.
pub(crate) async fn vector_search(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
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
                        for round in 0..ROUNDS {
                            let query = phrase(member.index() * ROUNDS + round);
                            let begun = std::time::Instant::now();
                            let body = json!({"query": query, "k": K});
                            let call = async { http.post("/v1/search", &body).await?.expect_status(200) };
                            let answer = member.request(call).await?;
                            let took = begun.elapsed().as_nanos() as u64;
                            let distances = distances(&answer.at::<Vec<serde_json::Value>>("/results")?)?;
                            found
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner)
                                .push((query, distances, took));
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
    let mut nanos: Vec<u64> = found.iter().map(|(_, _, took)| *took).collect();
    nanos.sort_unstable();
    cx.metric("database.vector_mean", Measured::mean(&nanos));
    cx.metric("database.p95", Measured::quantile(0.95, &nanos));
    let index = world.database.vector_index(INDEX).await?;
    let (mut hits, mut total) = (0, 0);
    // Every sixth answer is compared: the exact scan reads the whole table.
    for (query, distances, _) in found.iter().step_by(ROUNDS) {
        let share = index.judge(Embedding::of(query).components(), distances, K).await?;
        hits += (share * K as f64).round() as u64;
        total += K as u64;
    }
    cx.metric("database.recall", Measured::share(hits, total));
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
