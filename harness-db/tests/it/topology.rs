//! Redis servers that replicate: what is handed out works, and what is broken is seen.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::redis::{Node, Role, slot_of};
use harness_db::{ErrorKind, FailoverKind, Provider, redis_cluster, redis_replicas, redis_sentinel};

const LIMIT: Duration = Duration::from_secs(30);

/// Writes with a request to be acknowledged by replicas: how many have it within a second.
async fn set(node: &Node, key: &str, value: &str, replicas: usize) -> harness_db::CoreResult<usize> {
    let mut connection = node.connection().await?;
    let failed =
        |error: redis::RedisError| harness_db::Error::new(ErrorKind::Protocol, "the write failed").caused_by(error);
    redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut connection).await.map_err(failed)?;
    redis::cmd("WAIT").arg(replicas).arg(1_000).query_async(&mut connection).await.map_err(failed)
}

async fn get(node: &Node, key: &str) -> harness_db::CoreResult<Option<String>> {
    node.ask(&["GET", key]).await
}

async fn all_refuse(nodes: &[Node]) {
    for node in nodes {
        assert!(tokio::net::TcpStream::connect(node.address()).await.is_err(), "{} still listens", node.name());
    }
}

#[tokio::test]
async fn replicas_have_what_the_primary_wrote_until_they_are_cut_off() -> harness_db::Result {
    let redis = redis_replicas(2).await?;
    let (primary, replicas) = (redis.primary().await?, redis.replicas().await);
    assert_eq!((redis.urls().len(), replicas.len()), (3, 2));
    assert_eq!(set(&primary, "a", "1", 2).await?, 2);
    for replica in &replicas {
        assert_eq!(get(replica, "a").await?.as_deref(), Some("1"));
        assert!(set(replica, "b", "1", 0).await.is_err(), "a replica accepts writes");
        assert_eq!(replica.role().await?, Role::Replica { of: primary.address(), linked: true });
    }

    replicas[0].pause().await?;
    assert_eq!(set(&primary, "a", "2", 2).await?, 1, "a frozen replica acknowledges nothing");
    replicas[0].resume().await?;
    replicas[1].stop().await?;
    primary.wait_for_role("with one replica", LIMIT, |role| *role == Role::Primary { online: 1 }).await?;
    replicas[1].start_again().await?;
    primary.wait_for_role("with both replicas", LIMIT, |role| *role == Role::Primary { online: 2 }).await?;
    assert_eq!(get(&replicas[1], "a").await?.as_deref(), Some("2"), "it missed nothing while it was away");

    primary.cut_replicas().await?;
    assert_eq!(set(&primary, "a", "3", 1).await?, 0, "a replica that was cut off acknowledges");
    assert_eq!(get(&replicas[0], "a").await?.as_deref(), Some("2"));
    primary.admit_replicas().await?;
    primary.wait_for_role("with both replicas", LIMIT, |role| *role == Role::Primary { online: 2 }).await?;

    let nodes = redis.nodes().to_vec();
    redis.shutdown().await?;
    all_refuse(&nodes).await;
    Ok(())
}

#[tokio::test]
async fn replicas_whose_writes_do_not_arrive_are_not_handed_out() -> harness_db::Result {
    let request = redis_replicas(1).setting("masteruser", "nobody").setting("masterauth", "wrong");
    let error = request.ready_within(Duration::from_secs(2)).await.unwrap_err();
    let text = format!("{error:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{text}");
    assert!(text.contains("0 of 1 replicas acknowledged a write") && text.contains("link down"), "{text}");
    assert!(text.contains("redis-2: "), "the replica's last words are missing: {text}");
    Ok(())
}

#[tokio::test]
async fn sentinels_see_everybody_and_say_who_is_missing() -> harness_db::Result {
    let redis = redis_sentinel().replicas(1).await?;
    let primary = redis.primary().await?;
    assert_eq!(primary.address(), redis.nodes()[0].address());
    assert_eq!((redis.sentinels().len(), redis.urls().len()), (3, 3));
    redis.check_watched().await?;
    for sentinel in redis.sentinels() {
        let pair: (String, u16) = sentinel.ask(&["SENTINEL", "get-master-addr-by-name", redis.master_name()]).await?;
        assert_eq!(pair, ("127.0.0.1".to_owned(), primary.address().port()));
    }

    let replica = &redis.nodes()[1];
    replica.kill().await?;
    let missed = wait_for("the sentinels to miss the replica", LIMIT, async || match redis.check_watched().await {
        Ok(()) => Progress::NotYet("all is well".to_owned()),
        Err(error) => Progress::Ready(error),
    });
    let missed = missed.await?;
    assert!(missed.to_string().contains("0 of 1 replicas are linked"), "{missed:?}");
    replica.start_again().await?;
    redis.wait_until_whole(LIMIT).await?;

    let promoted = redis.failover(FailoverKind::Ordered).await?;
    assert_eq!(promoted.address(), replica.address());
    assert_eq!(redis.primary().await?.address(), replica.address());
    assert_eq!(redis.failover(FailoverKind::Split).await.unwrap_err().kind(), ErrorKind::Refused);
    let nodes = [redis.nodes(), redis.sentinels()].concat();
    redis.shutdown().await?;
    all_refuse(&nodes).await;
    Ok(())
}

#[tokio::test]
async fn cluster_serves_every_key_at_its_owner_and_misses_a_dead_node() -> harness_db::Result {
    let redis = redis_cluster().await?;
    assert_eq!(redis.nodes().len(), 6);
    for key in ["foo", "bar", "{foo}:1"] {
        let owner = redis.slot_owner(key).await?;
        assert_eq!(set(&owner, key, "1", 1).await?, 1, "{key} has no copy");
        let other = redis.nodes().iter().take(3).find(|node| node.address() != owner.address()).unwrap();
        let moved = format!("{:?}", get(other, key).await.unwrap_err());
        let there = format!("MOVED: {} {}", slot_of(key), owner.address());
        assert!(moved.contains(&there) || moved.contains(&there.replace("MOVED: ", "")), "{moved}");
    }
    let owner = redis.slot_owner("foo").await?;
    let promoted = redis.failover("foo", FailoverKind::Ordered).await?;
    assert!(promoted.address() != owner.address());
    assert_eq!(get(&promoted, "foo").await?.as_deref(), Some("1"));
    redis.wait_until_whole(LIMIT).await?;

    let dead = redis.replicas_of(&promoted).await.remove(0);
    dead.kill().await?;
    let error = redis.check_whole().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::Assertion), "{error:?}");
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn nodes_in_containers_replicate_and_come_back_at_their_address() -> harness_db::Result {
    let scope = TestScope::current();
    let redis = match redis_replicas(1).providers([Provider::Container]).start(&scope).await {
        Err(error) if error.is_environment() => {
            harness_core::scope::skip("a container engine", format!("{error:?}"));
            return Ok(());
        }
        other => other?,
    };
    let (primary, replica) = (redis.primary().await?, &redis.nodes()[1]);
    assert_eq!(set(&primary, "a", "1", 1).await?, 1);
    replica.kill().await?;
    assert!(replica.ask::<String>(&["PING"]).await.is_err(), "a killed node answers");
    replica.start_again().await?;
    primary.wait_for_role("with its replica", LIMIT, |role| *role == Role::Primary { online: 1 }).await?;
    assert_eq!(get(replica, "a").await?.as_deref(), Some("1"));
    scope.shutdown().await?;
    all_refuse(redis.nodes()).await;
    Ok(())
}
