//! A Redis keyspace of its own, even for a test that flushes; and keys that must not live for ever.

#[tokio::test]
async fn counts_a_visit() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let mut connection = redis.connection().await?;
    let visits: i64 = redis::cmd("INCR").arg("visits").query_async(&mut connection).await?;
    assert_eq!(visits, 1);
    redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await?;
    Ok(())
}

#[tokio::test]
async fn every_session_expires() -> harness_db::Result {
    let redis = harness_db::redis().await?;
    let mut connection = redis.connection().await?;
    for n in 0..20 {
        redis::cmd("SET")
            .arg(format!("session:{n}"))
            .arg("x")
            .arg("EX")
            .arg(600)
            .query_async::<()>(&mut connection)
            .await?;
    }
    redis.expects_ttl("session:*", 1..=600).await?;
    // The negative control: one key without an end, and the scan names it.
    redis::cmd("SET").arg("session:forever").arg("x").query_async::<()>(&mut connection).await?;
    assert!(redis.expects_ttl("session:*", 1..=600).await.is_err());
    Ok(())
}
