//! Tests that flush their keyspaces at once never see each other.

use harness_db::Keyspace;
use redis::aio::MultiplexedConnection;

/// Tests at once.
const TESTS: usize = 16;

/// What one test saw that was not its own, or missed that was.
async fn own_work(mut connection: MultiplexedConnection, who: usize, rounds: u32) -> redis::RedisResult<Vec<String>> {
    let mut seen = Vec::new();
    for round in 0..rounds {
        let (key, value) = (format!("of-{who}"), format!("{who}:{round}"));
        redis::cmd("SET").arg(&key).arg(&value).query_async::<()>(&mut connection).await?;
        let read: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
        let before: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await?;
        let after: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
        if read.as_deref() != Some(&value) || (before, after) != (1, 0) {
            seen.push(format!("test {who}, round {round}: wrote {value}, read {read:?}, keys {before} then {after}"));
        }
    }
    Ok(seen)
}

/// Everything the tests saw of each other.
async fn at_once(keyspaces: &[&Keyspace], rounds: u32) -> harness_db::Result<Vec<String>> {
    let mut running = Vec::new();
    for (who, keyspace) in keyspaces.iter().enumerate() {
        running.push(tokio::spawn(own_work(keyspace.connection().await?, who, rounds)));
    }
    let mut seen = Vec::new();
    for test in running {
        seen.extend(test.await??);
    }
    Ok(seen)
}

#[tokio::test]
async fn sixteen_tests_that_flush_at_once_never_meet() -> harness_db::Result {
    let mut keyspaces = Vec::new();
    for _ in 0..TESTS {
        keyspaces.push(harness_db::redis().await?);
    }
    let rounds = crate::rounds(20);
    let seen = at_once(&keyspaces.iter().collect::<Vec<_>>(), rounds).await?;
    println!("figure: {TESTS} tests of {rounds} flushes each saw {} things that were not theirs", seen.len());
    assert!(seen.is_empty(), "{} times:\n  {}", seen.len(), seen.join("\n  "));
    Ok(())
}

#[tokio::test]
async fn two_tests_in_one_keyspace_are_seen_to_meet() -> harness_db::Result {
    let one = harness_db::redis().await?;
    // A round of one begins between the SET and the FLUSHDB of the other: on one thread they take turns at every answer.
    let seen = at_once(&[&one, &one], 20).await?;
    assert!(!seen.is_empty(), "two tests wrote to one keyspace, and neither noticed");
    Ok(())
}
