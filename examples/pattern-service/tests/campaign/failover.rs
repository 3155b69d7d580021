//! Category cache: the primary of a replicated Redis is lost under writes; sentinels promote a replica, and the service
//! finds the new primary by itself.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness_core::campaign::Scenario;
use harness_core::client::Http;
use harness_core::record::FindingKind;
use harness_core::scope::TestScope;
use harness_core::slo::Measured;
use harness_core::wait::{Progress, pause, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_db::redis::Sentinel;
use harness_db::{Failover, redis_sentinel};
use serde_json::json;

use crate::pace::Pace;
use crate::world::{REDIS_INDEX, World};

/// How long a text may take to reach the new primary.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at the service.
const LOOK: Duration = Duration::from_millis(25);
/// The pattern that is read and written all the while. No other scenario reads it: what is written to it is unknown to the
/// caches of other instances, which have another Redis.
const NAME: &str = "promote-replica";

/// D2: a primary, two replicas and three sentinels; the primary is killed while four clients write and one instance of the
/// service serves reads from the same topology.
pub(crate) async fn redis_failover(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let scope = TestScope::new("failover");
    let request = redis_sentinel().replicas(2).down_after(Pace::of(cx).silent_for());
    let sentinel = cx.step("start a primary, two replicas and three sentinels", request.start(&scope)).await?;
    let outcome = lose_the_primary(cx, &world, &sentinel).await;
    scope.shutdown().await?;
    outcome
}

async fn lose_the_primary(cx: &Scenario<World>, world: &World, sentinel: &Sentinel) -> Result {
    let service = world.behind(sentinel).await?;
    let up = wait_for("the shared tier to be up", AGAIN, async || match shared_tier(&service.http).await {
        Ok(true) => Progress::Ready(()),
        Ok(false) => Progress::NotYet("it is down".to_owned()),
        Err(error) => Progress::Failed(error),
    });
    up.await?;
    let over = AtomicBool::new(false);
    let failover = async {
        let run = Failover::of(sentinel).writers(4).acknowledged_by(1).run().await;
        over.store(true, Relaxed);
        run
    };
    let (run, seen) = tokio::join!(failover, watch(&service.http, &over));
    let run = run?;
    cx.evidence("failover.txt", format!("{}\n{:#?}", run.verdict(), run.verdict()))?;
    for (question, outcome) in run.verdict().checks() {
        cx.check(question, outcome);
    }
    let promotion = run.verdict().promotion.as_ref().map(|promotion| Measured::time(promotion.at, 1));
    cx.metric("failover.promotion", promotion.unwrap_or_else(|| Measured::nothing("nobody was promoted")));
    let lost = run.verdict().lost.as_ref().map_or(0, |lost| lost.ids.len());
    cx.metric("failover.lost_writes", Measured::count(lost as u64));
    if lost > 0 {
        cx.finding(FindingKind::DataLoss, &format!("{lost} writes that a replica had acknowledged are gone"));
    }
    judge_service(cx, &seen?);
    cx.check("what the service writes reaches the new primary", reaches(&service.http, sentinel).await?);
    Ok(service.end().await?)
}

/// What a client of the service saw during the failover.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    failed: Vec<String>,
    slowest: Duration,
    /// From the first look at which the shared tier was away to the first at which it was back.
    away: Option<Duration>,
    is_away: bool,
}

async fn watch(http: &Http, over: &AtomicBool) -> CoreResult<Seen> {
    let (mut seen, mut since) = (Seen::default(), None::<Instant>);
    // Who is still without its shared tier when the others are done gets the rest of its time.
    while !over.load(Relaxed) || since.is_some_and(|since| since.elapsed() < 2 * AGAIN) {
        let begun = Instant::now();
        seen.reads += 1;
        match http.get(&format!("/v1/patterns/{NAME}")).await {
            Ok(answer) if answer.is_success() => {}
            Ok(answer) => seen.failed.push(format!("status {}", answer.status())),
            Err(error) => seen.failed.push(error.to_string()),
        }
        seen.slowest = seen.slowest.max(begun.elapsed());
        match (shared_tier(http).await?, since) {
            (false, None) => since = Some(Instant::now()),
            (true, Some(from)) => {
                seen.away = Some(seen.away.unwrap_or_default().max(from.elapsed()));
                since = None;
            }
            _ => {}
        }
        pause(LOOK).await;
    }
    seen.is_away = since.is_some();
    Ok(seen)
}

async fn shared_tier(http: &Http) -> CoreResult<bool> {
    Ok(http.scrape("/metrics").await?.value("shared_cache_up", &[])? > 0.0)
}

fn judge_service(cx: &Scenario<World>, seen: &Seen) {
    let reads = match seen.failed.first() {
        None => Outcome::pass(format!("{} reads, the slowest took {} ms", seen.reads, seen.slowest.as_millis())),
        Some(first) => Outcome::fail(format!("{} of {} reads failed: {first}", seen.failed.len(), seen.reads)),
    };
    cx.check("reads go on while the primary is lost", reads);
    cx.metric("failover.read.max", Measured::time(seen.slowest, seen.reads));
    let away = match (seen.away, seen.is_away) {
        (_, true) => Measured::nothing("the service was still without its shared tier when everybody else was back"),
        (Some(away), false) => Measured::time(away, 1),
        (None, false) => Measured::nothing("the service never missed the primary"),
    };
    cx.metric("failover.service_back", away);
}

/// Writes a text through the service, reads it so that the shared tier is filled, and looks for it at whom the sentinels
/// name as the primary.
async fn reaches(http: &Http, sentinel: &Sentinel) -> CoreResult<Outcome> {
    let path = format!("/v1/patterns/{NAME}");
    let primary = sentinel.primary().await?;
    let url = format!("{}/{REDIS_INDEX}", primary.url());
    let client = redis::Client::open(url).map_err(|error| refused(primary.name(), error))?;
    let mut connection =
        client.get_multiplexed_async_connection().await.map_err(|error| refused(primary.name(), error))?;
    let mut last = "it was not asked".to_owned();
    let begun = Instant::now();
    for n in 0_u64.. {
        let text = json!({"text": format!("Agent {{agent}} follows edition {n}.")});
        let version: i64 = http.put(&path, &text).await?.expect_status(200)?.at("/version")?;
        http.get(&path).await?.expect_status(200)?;
        let key = format!("pattern-service:{REDIS_INDEX}:pattern:{NAME}");
        let asked = redis::cmd("HGET").arg(key).arg("v").query_async::<Option<i64>>(&mut connection).await;
        match asked.map_err(|error| refused(primary.name(), error))? {
            Some(found) if found >= version => {
                return Ok(Outcome::pass(format!("version {version} at {}", primary.name())));
            }
            found => last = format!("version {version} was written, {} has {found:?}", primary.name()),
        }
        if begun.elapsed() > AGAIN {
            break;
        }
        pause(10 * LOOK).await;
    }
    Ok(Outcome::fail(last))
}

fn refused(name: &str, error: redis::RedisError) -> Error {
    Error::new(ErrorKind::Connect, format!("{name} does not answer")).caused_by(error)
}
