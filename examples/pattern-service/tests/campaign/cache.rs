//! Category cache: what one instance changes, every other sees.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use harness_core::campaign::Scenario;
use harness_core::slo::Measured;
use harness_core::wait::{Progress, wait_for};
use harness_core::{ErrorKind, Outcome, Result};
use harness_db::redis::LogicalDb;
use pattern_service::cache::SHARED_TTL;
use serde_json::json;

use crate::traffic;
use crate::world::World;

/// Writes: enough samples for a 95th percentile.
const WRITES: usize = 120;
/// A stale answer older than this is reported without waiting on.
const BOUND: Duration = Duration::from_secs(2);

/// D1: write through one instance, read from the other until it answers the new version.
pub(crate) async fn invalidation(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let other = world.second().await?;
    let mut nanos = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let (writer, reader) = if n % 2 == 0 { (&world.http, &other) } else { (&other, &world.http) };
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
        Outcome::pass(format!("{WRITES} writes, two instances, both directions")),
    );
    cx.durations("cache.invalidation", &nanos);
    Ok(())
}

/// D4: whatever the shared tier holds after the usual mix of queries has a time to live, and none longer than promised.
pub(crate) async fn expiry(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let ask = async |n: u64| {
        let body = json!({"query": traffic::query(n), "agent_id": traffic::agent(n as usize)});
        world.http.post("/v1/execute", &body).await?.expect_status(200)
    };
    cx.step("60 requests of the usual mix", stream::iter(0..60).map(ask).buffered(4).try_collect::<Vec<_>>()).await?;
    let ttls = LogicalDb::at(&world.urls.redis)?.ttls("*:pattern:*").await?;
    cx.evidence("ttls.txt", format!("{ttls:#?}"))?;
    let promised = 0..=SHARED_TTL.as_secs();
    let kept = ttls.keys.iter().filter(|(_, ttl)| ttl.is_some_and(|ttl| ttl <= SHARED_TTL)).count();
    cx.metric("cache.expiring", Measured::share(kept as u64, ttls.keys.len() as u64));
    cx.check("every entry expires in time", ttls.within(promised));
    Ok(())
}
