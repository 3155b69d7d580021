//! Probes against real servers, green and red.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness_core::scope::TestScope;
use harness_db::probes::{postgres as pg, redis as rd};
use harness_db::sqlx::postgres::PgPoolOptions;
use harness_db::{OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};

const HERE: [Provider; 2] = [Provider::Local, Provider::Portable];

#[tokio::test]
async fn postgres_probes_tell_what_is_there_from_what_is_not() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().providers(HERE)).await?;
    let url = own.url();
    assert!(pg::answers(&url, Duration::from_secs(5)).await.is_pass());
    assert!(pg::version(&url).await.is_pass());
    let vector = pg::vector(&url).await;
    assert!(vector.is_fail() && vector.detail().contains("CREATE EXTENSION vector"), "{vector}");
    assert!(pg::test_database(&url, "postgres").await.is_pass());
    let other = pg::test_database(&url, "shop_test").await;
    assert!(
        other.is_fail() && other.detail().contains("database `postgres` (not a test database by its name)"),
        "{other}"
    );
    assert!(pg::vector_indexes(&url, "ivfflat", &[("docs", "embedding")]).await.is_fail());
    assert!(pg::statement_statistics(&url).await.is_no_evidence(), "not created in this database");
    own.stop().await?;
    let closed = pg::answers(&url, Duration::from_secs(5)).await;
    assert!(closed.is_fail() && closed.detail().contains("no Postgres listens"), "{closed}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn silent_port_fails_by_the_limit_and_says_so() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let begun = Instant::now();
    let limit = Duration::from_millis(300);
    let postgres = pg::answers(&format!("postgres://u@{address}/d"), limit).await;
    assert!(postgres.is_fail() && postgres.detail().contains("took longer than 300 ms"), "{postgres}");
    let redis = rd::answers(&format!("redis://{address}/1"), limit).await;
    assert!(redis.is_fail(), "{redis}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn redis_probes_tell_a_cache_from_a_server_without_limits() -> harness_db::Result {
    let scope = TestScope::current();
    let cache = OwnRedis::start(&scope, RedisOptions::new().providers(HERE)).await?;
    let url = cache.url();
    assert!(rd::answers(&url, Duration::from_secs(5)).await.is_pass());
    assert!(!rd::version(&url, true).await.is_fail());
    assert!(rd::eviction(&url, "allkeys-lru").await.is_pass());
    assert!(rd::max_memory(&url, rd::GIBIBYTE).await.is_pass());
    assert!(rd::index(&url, 1).is_pass());

    let open = RedisOptions::new().setting("maxmemory", "0").setting("maxmemory-policy", "noeviction").providers(HERE);
    let open = OwnRedis::start(&scope, open).await?;
    let eviction = rd::eviction(&open.url(), "allkeys-lru").await;
    assert!(eviction.is_fail() && eviction.detail().contains("found maxmemory-policy noeviction"), "{eviction}");
    let memory = rd::max_memory(&open.url(), rd::GIBIBYTE).await;
    assert!(memory.is_fail() && memory.detail().contains("0 (unlimited)"), "{memory}");

    cache.pause().await?;
    let paused = rd::answers(&url, Duration::from_millis(300)).await;
    assert!(paused.is_fail(), "a frozen server passes: {paused}");
    cache.resume().await?;
    assert!(rd::answers(&url, Duration::from_secs(5)).await.is_pass());
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn pool_is_judged_by_what_it_really_grants() -> harness_db::Result {
    let db = harness_db::postgres().connections(12).await?;
    let pool = |cap: u32, idle: Duration| {
        PgPoolOptions::new().max_connections(cap).idle_timeout(idle).max_lifetime(idle).connect_lazy_with(db.options())
    };
    let (soon, never) = (Duration::from_millis(100), Duration::from_secs(600));
    let good = pg::pool(&pool(8, soon), 4, 8, Duration::from_secs(20)).await;
    assert!(good.is_pass(), "{good}");
    let large = pg::pool(&pool(9, soon), 4, 8, Duration::from_secs(20)).await;
    assert!(large.is_fail() && large.detail().contains("more than 8"), "{large}");
    let lasting = pg::pool(&pool(8, never), 4, 8, Duration::from_millis(300)).await;
    assert!(lasting.is_fail() && lasting.detail().contains("8 connections"), "{lasting}");
    Ok(())
}
