//! Category cache: what one instance changes, every other sees; entries end, and each tier is as fast as promised.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::client::Answer;
use harness_core::scope::TestScope;
use harness_core::slo::Measured;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, ErrorKind, Outcome, Result};
use harness_db::redis::eviction::{self, Policy};
use harness_db::redis::{Coherence, LogicalDb, OwnRedis, RedisOptions};
use harness_load::stages::Reported;
use pattern_service::cache::SHARED_TTL;
use serde_json::json;

use crate::concurrency::{self, patterns, report_coherence};
use crate::pace::Pace;
use crate::traffic;
use crate::world::World;

/// A stale answer older than this is reported without waiting on.
const BOUND: Duration = Duration::from_secs(2);

/// D1: write through one instance, read from the other until it answers the new version.
pub(crate) async fn invalidation(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let second = world.second().await?;
    let other = &second.http;
    let writes = Pace::of(cx).invalidations();
    let mut nanos = Vec::with_capacity(writes);
    for n in 0..writes {
        let (writer, reader) = if n % 2 == 0 { (&world.http, other) } else { (other, &world.http) };
        let path = "/v1/patterns/disk-usage";
        // Both tiers of the reader hold the old version before it is changed.
        reader.get(path).await?.expect_status(200)?;
        let text = format!("Agent {{agent}} runs revision {n} of the disk usage procedure.");
        let version: i64 = writer.put(path, &json!({"text": text})).await?.expect_status(200)?.at("/version")?;
        let begun = Instant::now();
        let seen = wait_for("the new version at the other instance", BOUND, async || match reader.get(path).await {
            Err(error) => Progress::Failed(error),
            Ok(answer) => match answer.at::<i64>("/version") {
                Err(error) => Progress::Failed(error),
                Ok(seen) if seen >= version => Progress::Ready(()),
                Ok(seen) => Progress::NotYet(format!("version {seen} of {version}")),
            },
        })
        .await;
        match seen {
            Ok(()) => nanos.push(begun.elapsed().as_nanos() as u64),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                cx.check("no stale read after the bound", Outcome::fail(format!("write {n}: {error:?}")));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    cx.check(
        "no stale read after the bound",
        Outcome::pass(format!("{writes} writes, two instances, both directions")),
    );
    cx.durations("cache.invalidation", &nanos);
    Ok(second.end().await?)
}

/// D4: whatever the shared tier holds after the usual mix of queries has a time to live, and none longer than promised.
pub(crate) async fn expiry(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let ask = async |n: u64| {
        let body = json!({"query": traffic::query(n), "agent_id": traffic::agent(n as usize)});
        world.http.post("/v1/execute", &body).await?.expect_status(200)
    };
    let requests = Pace::of(cx).expiring() as u64;
    let label = format!("{requests} requests of the usual mix");
    cx.step(&label, stream::iter(0..requests).map(ask).buffered(4).try_collect::<Vec<_>>()).await?;
    let ttls = LogicalDb::at(&world.urls.redis)?.ttls("*:pattern:*").await?;
    cx.evidence("ttls.txt", format!("{ttls:#?}"))?;
    let promised = 0..=SHARED_TTL.as_secs();
    let kept = ttls.keys.iter().filter(|(_, ttl)| ttl.is_some_and(|ttl| ttl <= SHARED_TTL)).count();
    cx.metric("cache.expiring", Measured::share(kept as u64, ttls.keys.len() as u64));
    cx.check("every entry expires in time", ttls.within(promised));
    Ok(())
}

/// D3: two processes, each with a tier of its own, read and write the same patterns; then the second loses its links to
/// Redis and Postgres, one after the other, and finds its way back.
pub(crate) async fn coherent_instances(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let second = world.remote().await?;
    let run = patterns(Coherence::within(concurrency::BOUND), "first".to_owned(), &world.http);
    let run = patterns(run, "second".to_owned(), second.http());
    report_coherence(cx, run.keys(2).rounds(1 + Pace::of(cx).coherence_rounds() as u64).run().await?)?;
    cx.step("cut and heal the second's link to Redis", second.loses_redis(cx, &world.http)).await?;
    cx.step("cut and heal its link to Postgres", second.loses_postgres(cx, &world.unique()?)).await?;
    Ok(second.instance.end().await?)
}

/// D5: the service's Redis gives up what was used least recently instead of refusing writes: it keeps its settings, and a
/// small server with the same policy does so.
pub(crate) async fn eviction(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    // A change and a read: whatever the service does to Redis, it has done it then.
    world.http.put(TIMED, &json!({"text": "Agent {agent} looks at the disks."})).await?.expect_status(200)?;
    world.http.get(TIMED).await?.expect_status(200)?;
    let kept = match world.redis()?.check_settings().await {
        Ok(()) => Outcome::pass("allkeys-lru, 1 GiB"),
        Err(error) => Outcome::fail(error.to_string()),
    };
    cx.check("policy and ceiling are as they were set", kept);
    let scope = TestScope::new("small-redis");
    let small = RedisOptions::new().setting("maxmemory", "8mb").setting("maxmemory-policy", "allkeys-lru");
    let small = OwnRedis::start(&scope, small).await?;
    let evicted = eviction::probe(&small, Policy::AllKeysLru).await?;
    cx.evidence("eviction.txt", format!("{evicted:#?}"))?;
    cx.check("cold keys go first, and no write is refused", evicted.outcome());
    scope.shutdown().await?;
    Ok(())
}

/// The pattern whose reads are timed.
const TIMED: &str = "/v1/patterns/disk-usage";

/// D6: what the tier in the process's own memory takes, as the service reports it.
pub(crate) async fn local_tier(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let mut local = Reported::default();
    for _ in 0..=Pace::of(cx).tier_reads() {
        note(&mut local, "local", &world.http.get(TIMED).await?.expect_status(200)?)?;
    }
    cx.metric("cache.local.p50", of_cache(&local));
    Ok(())
}

/// D7: what the shared tier takes: each change through one instance leaves the other to fetch the text from Redis.
pub(crate) async fn shared_tier(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let second = world.second().await?;
    let other = &second.http;
    let mut shared = Reported::default();
    for n in 0..Pace::of(cx).tier_reads() {
        let body = json!({"text": format!("Agent {{agent}} runs edition {n} of the procedure.")});
        let version: i64 = world.http.put(TIMED, &body).await?.expect_status(200)?.at("/version")?;
        world.http.get(TIMED).await?.expect_status(200)?; // fills the shared tier
        let fetched = wait_for("the other instance to fetch the new text", BOUND, async || {
            let answer = match other.get(TIMED).await.and_then(|answer| answer.expect_status(200)) {
                Ok(answer) => answer,
                Err(error) => return Progress::Failed(error),
            };
            match answer.at::<i64>("/version") {
                Ok(seen) if seen >= version => Progress::Ready(answer),
                Ok(seen) => Progress::NotYet(format!("version {seen} of {version}")),
                Err(error) => Progress::Failed(error),
            }
        });
        note(&mut shared, "shared", &fetched.await?)?;
    }
    cx.metric("cache.shared.p50", of_cache(&shared));
    Ok(second.end().await?)
}

/// Notes the times of an answer, if this tier gave the text.
fn note(times: &mut Reported, tier: &str, answer: &Answer) -> CoreResult {
    if answer.at::<String>("/cache")? == tier {
        times.request(tier, answer.took(), answer.header("server-timing").unwrap_or_default())?;
    }
    Ok(())
}

fn of_cache(times: &Reported) -> Measured {
    let nothing = || Measured::nothing("no text came from this tier");
    times.times("cache").map_or_else(nothing, |times| times.measured(0.5))
}
