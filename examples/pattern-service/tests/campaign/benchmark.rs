//! Category benchmark: latency, throughput and tokens over the usual mix.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::{CoreResult, Result};
use harness_load::tokens::Reduction;
use harness_load::{Load, millis, p50, p95, p99, per_second, secs, success_rate, throughput};
use serde_json::json;

use crate::traffic;
use crate::world::{World, report_load};

/// Arrivals per second of the benchmark: a tenth above the target, so that the target can be met exactly.
const ARRIVALS: u32 = 110;
/// Requests of the token count: twenty rounds of the mix.
const REQUESTS: u64 = 400;
/// How many of them are under way at once.
const AT_ONCE: usize = 16;

/// E1: an open loop at a tenth above the target rate; latency counts from the moment a request was due.
pub(crate) async fn latency_and_throughput(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let run = Load::open(per_second(ARRIVALS))
        .warm_up(secs(3))
        .hold(secs(10))
        .flow("execute", 1, traffic::execute(&world.http))
        .run()
        .await?;
    report_load(cx, &run, [p95("execute").below(millis(250)), p50("execute").below(millis(100))])?;
    cx.metric("latency.p50", run.measured(&p50("execute")));
    cx.metric("latency.p95", run.measured(&p95("execute")));
    cx.metric("latency.p99", run.measured(&p99("execute")));
    cx.metric("throughput", run.measured(&throughput()));
    cx.metric("success", run.measured(&success_rate()));
    Ok(())
}

/// E4: tokens used against tokens the same queries cost without patterns, request by request.
///
/// The overall figure is weighted by what was really asked, questions for the model included, which save nothing.
pub(crate) async fn token_reduction(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let answers = cx
        .step("400 requests of the usual mix", async {
            let asked = stream::iter(0..REQUESTS).map(|n| counted(&world.http, n)).buffer_unordered(AT_ONCE);
            asked.try_collect::<Vec<_>>().await
        })
        .await?;
    let mut saved = Reduction::default();
    for answer in answers {
        match answer.class {
            Some(class) => saved.record(class, answer.used, answer.baseline),
            None => saved.record_fallback("model", answer.baseline),
        }
    }
    for class in traffic::CLASSES {
        cx.metric(&format!("tokens.{class}"), saved.class(class));
    }
    cx.metric("tokens.overall", saved.overall());
    Ok(())
}

struct Counted {
    /// Class of the pattern; none when the model answered.
    class: Option<String>,
    used: u64,
    baseline: u64,
}

async fn counted(http: &Http, n: u64) -> CoreResult<Counted> {
    let body = json!({"query": traffic::query(n), "agent_id": traffic::agent(n as usize)});
    let answer = http.post("/v1/execute", &body).await?.expect_status(200)?;
    let by_pattern = answer.at::<String>("/route")? == "pattern";
    Ok(Counted {
        class: answer.at::<Option<String>>("/class")?.filter(|_| by_pattern),
        used: answer.at("/tokens/used")?,
        baseline: answer.at("/tokens/baseline")?,
    })
}
