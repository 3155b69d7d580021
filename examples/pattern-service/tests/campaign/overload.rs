//! Category recovery: twice as much as the service can take. It keeps serving what it can, and turns the rest away at once.

use std::time::Duration;

use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::slo::Measured;
use harness_core::{CoreResult, Result};
use harness_load::breakpoint::Search;
use harness_load::{Iteration, Load, LoadRun, Rate, per_second, percent, secs, success_rate};
use serde_json::json;

use crate::pace::Pace;
use crate::traffic;
use crate::world::{MODEL_DELAY, World};

/// Requests that may be under way at once in the instance under overload. With a model that takes its time the capacity is
/// this many per delay, whatever the processor does.
const PLACES: u32 = 8;
/// A caller who waits longer has gone.
const PATIENCE: Duration = Duration::from_secs(1);
/// The share of its best goodput that the service has to keep, and how soon it has to refuse.
const KEPT: f64 = 0.8;
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// How the flow names a refusal.
const OVERLOADED: &str = "overloaded";

/// F6: the capacity is found, then twice as much is offered.
pub(crate) async fn overload(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let small = world.instance_with("small-instance", &[("TMWS_MAX_IN_FLIGHT", PLACES.to_string())]).await?;
    let declared = f64::from(PLACES) / MODEL_DELAY.as_secs_f64();
    let probe = async |rate: Rate| -> CoreResult<LoadRun> {
        asking(&small.http, rate).warm_up(pace.probe() / 4).hold(pace.probe()).run().await
    };
    let peak = match pace {
        Pace::Smoke => {
            let run = probe(per_second(0.8 * declared)).await?;
            run.observed([success_rate().at_least(percent(99))])?.goodput
        }
        Pace::Default | Pace::Full => {
            let search = Search::from(per_second(0.4 * declared)).up_to(per_second(3.0 * declared));
            let found = search
                .tolerance(0.25)
                .probes(20) // a stall of the machine breaks one, and is found out by repeating it
                .run(async |rate| probe(rate).await?.observed([success_rate().at_least(percent(99))]))
                .await?;
            cx.evidence("capacity.txt", found.to_string())?;
            let held = found.probes().iter().filter(|probe| probe.why.is_none());
            held.map(|probe| probe.observed.goodput).fold(0.0, f64::max)
        }
    };
    let load = asking(&small.http, per_second(2.0 * peak.max(declared))).hold(pace.overload());
    let run = cx.step("twice the capacity", load.run()).await?;
    cx.evidence("overload.txt", run.to_string())?;
    run.series(cx.id()).into_iter().for_each(|series| cx.series(series));
    let seen = run.overload("hold", peak, &[OVERLOADED])?;
    cx.check("goodput is kept, and the rest is refused at once and by its name", seen.judge(KEPT, REFUSED_WITHIN)?);
    // More than the peak is the peak: in the shortest profile it was measured a little below the capacity.
    let kept = (seen.goodput.min(seen.peak) * 1e3) as u64;
    cx.metric("overload.goodput_kept", Measured::share(kept, ((seen.peak * 1e3) as u64).max(1)));
    cx.metric("overload.typed_refusals", Measured::share(seen.refused, seen.failed));
    cx.metric("overload.refusal_p99", Measured::time(seen.refusal_p99, seen.failed));
    let calm = cx.step("calm afterwards", asking(&small.http, per_second(0.4 * declared)).hold(secs(1)).run()).await?;
    cx.metric("overload.success_afterwards", calm.measured(&success_rate()));
    Ok(small.end().await?)
}

/// Why an iteration failed, so that refusals are told from silence.
#[derive(Debug)]
struct Trouble(String);

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An open loop of questions that no pattern answers.
fn asking(http: &Http, rate: Rate) -> Load {
    let http = http.clone();
    let ask = move |iteration: Iteration| {
        let (http, n) = (http.clone(), iteration.n());
        async move {
            let body = json!({"query": traffic::complex(n), "agent_id": traffic::agent(n as usize)});
            let answer = http.post("/v1/execute", &body).within(PATIENCE).await;
            let answer = answer.map_err(|error| Trouble(format!("{:?}", error.kind())))?;
            match answer.at::<String>("/error/kind") {
                _ if answer.is_success() => Ok(()),
                Ok(kind) => Err(Trouble(kind)),
                Err(_) => Err(Trouble(format!("status {}", answer.status()))),
            }
        }
    };
    Load::open(rate).limit(2 * PATIENCE).classify(|trouble: &Trouble| trouble.0.clone()).flow("ask", 1, ask)
}
