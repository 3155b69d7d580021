//! Keyspaces on the shared Redis.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::{ErrorKind, Keyspace};

async fn set(keyspace: &Keyspace, key: &str) {
    let mut connection = keyspace.connection().await.unwrap();
    redis::cmd("SET").arg(key).arg(1).query_async::<()>(&mut connection).await.unwrap();
}

async fn size(keyspace: &Keyspace) -> i64 {
    let mut connection = keyspace.connection().await.unwrap();
    redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn keyspaces_are_distinct_and_never_zero() -> harness_db::Result {
    let (a, b) = (harness_db::redis().await?, harness_db::redis().await?);
    assert!(a.index() != b.index() && a.index() > 0 && b.index() > 0);
    set(&a, "here").await;
    assert_eq!((size(&a).await, size(&b).await), (1, 0));
    assert!(a.url().ends_with(&format!("/{}", a.index())));
    Ok(())
}

#[tokio::test]
async fn flush_empties_its_own_keyspace_only() -> harness_db::Result {
    let (mut a, b) = (harness_db::redis().await?, harness_db::redis().await?);
    set(&a, "mine").await;
    set(&b, "yours").await;
    a.flush().await?;
    assert_eq!((size(&a).await, size(&b).await), (0, 1), "a FLUSHALL would have emptied both");
    Ok(())
}

#[tokio::test]
async fn keyspace_is_empty_when_it_is_handed_out_again() -> harness_db::Result {
    let a = harness_db::redis().await?;
    set(&a, "left over").await;
    let (index, mut connection) = (a.index(), a.connection().await?);
    drop(a);
    wait_for(format!("keyspace {index} to be emptied"), Duration::from_secs(10), async || {
        match redis::cmd("DBSIZE").query_async::<i64>(&mut connection).await {
            Ok(0) => Progress::Ready(()),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nobody_stops_a_shared_redis() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    for refused in [redis.server().stop(), redis.server().kill(), redis.server().pause()] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Refused);
    }
    assert!(harness_db::choices().contains(redis.server().choice()));
    Ok(())
}
