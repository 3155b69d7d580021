//! A Redis keyspace of its own, even for a test that flushes.

#[tokio::test]
async fn counts_a_visit() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let mut connection = redis.connection().await?;
    let visits: i64 = redis::cmd("INCR").arg("visits").query_async(&mut connection).await?;
    assert_eq!(visits, 1);
    redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await?;
    Ok(())
}
