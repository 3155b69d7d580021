//! Topologies that want a password or TLS: their nodes reach each other, and strangers reach none of them.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_db::redis::{LogicalDb, Node, Role, User};
use harness_db::{CoreResult, ErrorKind, FailoverKind, Provider, redis_cluster, redis_replicas, redis_sentinel};

use crate::own::lacks_engine;

const SECRET: &str = "s3cret@word";
const RULES: &str = "~app:* +get +set";

async fn run(user: &User, words: &[&str]) -> Result<(), String> {
    let mut connection = user.connection().await.map_err(|error| format!("{error:?}"))?;
    let asked = redis::cmd(words[0]).arg(&words[1..]).query_async::<redis::Value>(&mut connection).await;
    asked.map(drop).map_err(|error| error.code().map_or_else(|| error.to_string(), str::to_owned))
}

/// What the server says to somebody who comes by this URL.
async fn ping(url: &str) -> CoreResult<()> {
    let mut connection = LogicalDb::at(url)?.connection().await?;
    let pong: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
    pong.map(drop).map_err(|error| harness_db::Error::new(ErrorKind::Refused, error.to_string()))
}

/// Nobody comes in without the password, however he comes.
async fn refuses_strangers(nodes: &[Node]) {
    for node in nodes {
        let address = node.address();
        for url in [format!("redis://{address}/0"), format!("redis://:guess@{address}/0")] {
            assert!(ping(&url).await.is_err(), "{} lets in {url}", node.name());
        }
    }
}

#[tokio::test]
async fn replicas_with_a_password_replicate_and_know_their_users_also_after_a_restart() -> harness_db::Result {
    let redis = redis_replicas(1).password(SECRET).user("app", RULES).await?;
    let (primary, replica) = (redis.primary().await?, &redis.nodes()[1]);
    refuses_strangers(redis.nodes()).await;
    let app = primary.user("app")?;
    run(&app, &["SET", "app:1", "x"]).await.unwrap();
    assert!(run(&app, &["SET", "other", "x"]).await.unwrap_err().contains("NOPERM"));
    assert!(run(&app, &["FLUSHALL"]).await.unwrap_err().contains("NOPERM"));
    run(&replica.user("app")?, &["GET", "app:1"]).await.unwrap();

    replica.kill().await?;
    replica.start_again().await?;
    primary
        .wait_for_role("with its replica", Duration::from_secs(30), |role| *role == Role::Primary { online: 1 })
        .await?;
    assert!(run(&replica.user("app")?, &["FLUSHALL"]).await.unwrap_err().contains("NOPERM"), "rights come back");
    let printed = format!("{redis:?} {app:?}");
    let (_, given) = app.url().split_once("//app:").expect("the URL has the user's name and password");
    let given = given.split('@').next().unwrap_or_default();
    assert!(
        given.len() > 8 && !printed.contains(given) && !printed.contains("s3cret"),
        "a password is printed: {printed}"
    );

    assert_eq!(primary.user("nobody").unwrap_err().kind(), ErrorKind::Config);
    redis.shutdown().await?;
    Ok(())
}

/// The planted defect: a replica that shows another password than the one its primary wants.
#[tokio::test]
async fn replica_with_another_password_is_not_handed_out() -> harness_db::Result {
    let request = redis_replicas(1).password(SECRET).setting("masterauth", "guess");
    let error = request.ready_within(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(format!("{error:?}").contains("link down"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn names_and_rules_that_redis_does_not_take_are_refused_without_the_password() -> harness_db::Result {
    for name in ["", "default", "a b", "a:b"] {
        let error = redis_replicas(0).user(name, RULES).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "`{name}`: {error:?}");
    }
    for password in ["", "two words", "\"quoted\""] {
        let error = redis_replicas(0).password(password).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    }
    let error = redis_replicas(0).user("app", "+no-such-command").await.unwrap_err();
    let text = format!("{error:?}");
    assert!(error.kind() == ErrorKind::Config && text.contains("+no-such-command"), "{text}");
    assert!(!text.contains("harness-"), "{text}");
    Ok(())
}

#[tokio::test]
async fn sentinels_with_tls_and_a_password_promote_and_refuse_strangers() -> harness_db::Result {
    let redis = redis_sentinel().replicas(1).tls().password(SECRET).providers([Provider::Local]).await?;
    assert!(redis.urls().iter().all(|url| url.starts_with("rediss://:")), "{:?}", redis.urls());
    refuses_strangers(&[redis.nodes(), redis.sentinels()].concat()).await;
    let before = redis.primary().await?;
    let promoted = redis.failover(FailoverKind::Kill).await?;
    assert!(promoted.address() != before.address() && promoted.role().await?.is_primary());
    before.start_again().await?;
    redis.wait_until_whole(Duration::from_secs(60)).await?;
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn cluster_with_tls_serves_who_trusts_it_and_nobody_else() -> harness_db::Result {
    let redis = redis_cluster().tls().password(SECRET).user("app", RULES).providers([Provider::Local]).await?;
    redis.check_whole().await?;
    refuses_strangers(redis.nodes()).await;
    let owner = redis.slot_owner("app:1").await?;
    run(&owner.user("app")?, &["SET", "app:1", "x"]).await.unwrap();

    let root = std::fs::read(redis.root_certificate().expect("it speaks TLS"))?;
    let trusting = redis::TlsCertificates { client_tls: None, root_cert: Some(root) };
    let bare = redis::Client::build_with_tls(format!("rediss://{}/0", owner.address()), trusting)?;
    let mut connection = bare.get_multiplexed_async_connection().await?;
    let refused = redis::cmd("PING").query_async::<String>(&mut connection).await.unwrap_err();
    assert!(
        refused.to_string().contains("NOAUTH") || refused.code() == Some("NOAUTH"),
        "trusted, but without the password: {refused}"
    );
    let untrusting = LogicalDb::at(&format!("rediss://{}/0", owner.address()))?.connection().await.unwrap_err();
    assert!(format!("{untrusting:?}").contains("does not trust"), "{untrusting:?}");

    let promoted = redis.failover("app:1", FailoverKind::Ordered).await?;
    run(&promoted.user("app")?, &["GET", "app:1"]).await.unwrap();
    redis.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn nodes_in_containers_speak_tls_among_themselves() -> harness_db::Result {
    let scope = TestScope::current();
    let request = redis_replicas(1).tls().password(SECRET).providers([Provider::Container]);
    match request.start(&scope).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(redis) => {
            refuses_strangers(redis.nodes()).await;
            assert_eq!(redis.replicas().await.len(), 1);
        }
    }
    scope.shutdown().await?;
    Ok(())
}
