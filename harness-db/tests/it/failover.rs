//! Failovers of real topologies, and the defects a judge must find in them.

use std::time::Duration;

use harness_db::redis::{Answer, FailoverRun};
use harness_db::{ErrorKind, Failover, FailoverKind, redis_cluster, redis_replicas, redis_sentinel};

fn red(run: &FailoverRun) -> Vec<&'static str> {
    run.verdict().checks().iter().filter(|(_, outcome)| outcome.is_fail()).map(|(name, _)| *name).collect()
}

#[tokio::test]
async fn killed_primary_is_replaced_and_writes_that_replicas_acknowledged_survive() -> harness_db::Result {
    let redis = redis_sentinel().replicas(2).await?;
    let first = redis.primary().await?;
    let run = Failover::of(&redis).writers(4).acknowledged_by(1).run().await?;
    println!("{}", run.verdict());
    run.check()?;
    let verdict = run.verdict();
    assert!(verdict.outcome().is_pass(), "{verdict}");
    assert!(verdict.acknowledged_before >= 80 && verdict.acknowledged_after >= 80, "{verdict}");
    assert_eq!((verdict.clients.len(), verdict.readings), (4, 3), "the old primary is back as a replica and was read");
    assert!(
        verdict.downtime.unwrap() >= Duration::from_millis(900),
        "a sentinel waits so long before it acts: {verdict}"
    );
    assert!(redis.primary().await?.address() != first.address());
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn writes_that_only_the_primary_had_are_lost_with_it_and_named() -> harness_db::Result {
    let redis = redis_sentinel().replicas(1).sentinels(1, 1).await?;
    let run = Failover::of(&redis).writers(2).with_replication_cut().run().await?;
    println!("{}", run.verdict());
    assert_eq!(red(&run), ["no loss"], "{}", run.verdict());
    let lost = run.verdict().lost.as_ref().unwrap();
    assert!(lost.ids.len() >= 2 * 20, "each client had 20 writes acknowledged after the cut: {lost:?}");
    assert!(lost.from_us < 0 && lost.from_us <= lost.to_us, "{lost:?}");
    let error = run.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.what().contains("acknowledged writes lost, acknowledged -"), "{error:?}");
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn primary_without_replica_is_reported_unavailable_and_never_passed() -> harness_db::Result {
    let redis = redis_sentinel().replicas(0).sentinels(1, 1).down_after(Duration::from_millis(200)).await?;
    let limit = Duration::from_secs(2);
    let run = Failover::of(&redis).writers(2).promotion_within(limit).clients_back_within(limit).run().await?;
    assert_eq!(red(&run), ["promoted", "clients back"], "{}", run.verdict());
    let error = run.check().unwrap_err();
    assert!(error.what().starts_with("unavailable: nobody was promoted; "), "{error:?}");
    assert!(run.verdict().no_loss().is_no_evidence(), "nothing could be read");
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn two_primaries_at_once_are_found_with_the_writes_that_vanished() -> harness_db::Result {
    let redis = redis_replicas(2).await?;
    let run = Failover::of(&redis).writers(4).by(FailoverKind::Split).run().await?;
    println!("{}", run.verdict());
    let verdict = run.verdict();
    assert!(verdict.one_primary().is_fail() && verdict.promoted().is_pass(), "{verdict}");
    let vanished: usize = verdict.split.iter().map(|split| split.vanished.len()).sum();
    assert!(vanished >= 2 * 20, "the two clients that did not hear of it had 20 writes each: {verdict}");
    assert!(verdict.no_loss().is_fail() && verdict.is_data_loss(), "{verdict}");
    assert_eq!(verdict.readings, 3);
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn cluster_promotes_the_replica_of_a_killed_primary() -> harness_db::Result {
    let redis = redis_cluster().await?;
    // A single replica: after the failover there is none left to wait for. What is on its way at the kill may be lost.
    let run = Failover::of(&redis).writers(4).tolerates_lost_writes(4).run().await?;
    println!("{}", run.verdict());
    run.check()?;
    assert_eq!(run.verdict().readings, 2, "the old primary is back as a replica and was read");
    assert!(run.timeline().returned.is_some());
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn frozen_primary_wakes_up_to_find_another_one() -> harness_db::Result {
    let redis = redis_sentinel().replicas(1).sentinels(1, 1).await?;
    let run = Failover::of(&redis).writers(2).tolerates_lost_writes(2).by(FailoverKind::Freeze).run().await?;
    println!("{}", run.verdict());
    run.check()?;
    assert!(run.timeline().writes.iter().any(|write| write.answer == Answer::Unknown), "nobody met silence");
    redis.shutdown().await?;
    Ok(())
}
