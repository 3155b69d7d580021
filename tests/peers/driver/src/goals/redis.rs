//! Redis: what a keyspace costs, and whether 16 tests that flush theirs ever meet.

use std::time::Instant;

use harness_db::Keyspace;
use redis::aio::MultiplexedConnection;

use crate::server::median;
use peers_common::{Asked, Measured, Result};

const TESTS: usize = 16;

async fn ping(connection: &mut MultiplexedConnection) -> Result {
    Ok(redis::cmd("PING").query_async::<()>(connection).await?)
}

/// A keyspace against a bare connection: both from nothing to the answer of a `PING`.
pub(super) async fn acquire(asked: &Asked) -> Result<Vec<Measured>> {
    let alive = harness_db::redis().await?;
    let client = redis::Client::open(alive.url())?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..asked.times(100, 20) {
            let begun = Instant::now();
            ping(&mut client.get_multiplexed_async_connection().await?).await?;
            theirs.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let keyspace = harness_db::redis().await?;
            ping(&mut keyspace.connection().await?).await?;
            ours.push(begun.elapsed().as_secs_f64());
            keyspace.close().await?;
        }
        rounds.push((median(ours), median(theirs)));
    }
    Ok(vec![Measured::pairs("db.redis_acquire", "bare connect + PING", "s", &rounds).note("p50 of a round")])
}

/// 16 tests at once write, look and flush, each in its own keyspace; then two of them in one keyspace, which must be seen.
pub(super) async fn crosstalk(asked: &Asked) -> Result<Vec<Measured>> {
    let each = asked.times(10_000, 500);
    let mut keyspaces = Vec::new();
    for _ in 0..TESTS {
        keyspaces.push(harness_db::redis().await?);
    }
    let seen = at_once(keyspaces.iter(), each).await?;
    let control = at_once([&keyspaces[0]; 2], each.min(500)).await?;
    if control == 0 {
        return Err("two tests in one keyspace were not noticed: this measurement sees nothing".into());
    }
    Ok(vec![
        Measured::count("db.redis_crosstalk", &[seen])
            .note(format!("{TESTS} tests × {each} rounds of SET, GET, DBSIZE, FLUSHDB, DBSIZE"))
            .detail("seen_when_two_share_a_keyspace", control),
    ])
}

async fn at_once(keyspaces: impl IntoIterator<Item = &Keyspace>, rounds: usize) -> Result<u64> {
    let mut running = Vec::new();
    for (who, keyspace) in keyspaces.into_iter().enumerate() {
        running.push(tokio::spawn(one(keyspace.connection().await?, who, rounds)));
    }
    let mut seen = 0;
    for test in running {
        seen += test.await??;
    }
    Ok(seen)
}

/// How often something of somebody else was seen, or something of its own was missing.
async fn one(mut connection: MultiplexedConnection, who: usize, rounds: usize) -> Result<u64> {
    let mut seen = 0;
    for round in 0..rounds {
        let (key, value) = (format!("of-{who}"), format!("{who}:{round}"));
        redis::cmd("SET").arg(&key).arg(&value).query_async::<()>(&mut connection).await?;
        let read: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
        let before: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await?;
        let after: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        seen += u64::from(read != Some(value) || before != 1 || after != 0);
    }
    Ok(seen)
}
