//! Servers of one test alone: durable, and stopped, killed and started again at will.

use harness_core::monitor::{CgroupSampler, Reading, Sampler as _};
use harness_core::scope::TestScope;
use harness_db::sqlx::{self, Connection as _};
use harness_db::{Error, ErrorKind, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};

/// True when this machine has no engine or no image, which is no failure of what was asked of it.
pub(crate) fn lacks_engine(error: &Error) -> bool {
    let text = format!("{error:?}");
    ["no container engine", "container engine at", "no image of", "compiled without"]
        .iter()
        .any(|why| text.contains(why))
}

async fn survives_kill_and_stop(own: &OwnPostgres, scope: TestScope) -> harness_db::Result {
    let address = own.address();
    let mut session = own.connect().await?;
    sqlx::raw_sql("create table acked(id int); insert into acked values (1)").execute(&mut session).await?;
    own.kill().await?;
    assert!(own.connect().await.is_err(), "a killed server answers");
    own.start_again().await?;
    assert_eq!(own.address(), address);
    let mut session = own.connect().await?;
    let n: i64 = sqlx::query_scalar("select count(*) from acked").fetch_one(&mut session).await?;
    assert_eq!(n, 1, "an acknowledged commit is lost");
    let _ = session.close().await;
    own.stop().await?;
    assert!(own.connect().await.is_err(), "a stopped server answers");
    own.start_again().await?;
    assert_eq!(own.start_again().await.unwrap_err().kind(), ErrorKind::Refused, "it runs already");
    scope.shutdown().await?;
    assert!(own.connect().await.is_err(), "it ends with its scope");
    Ok(())
}

#[tokio::test]
async fn local_postgres_keeps_what_it_acknowledged() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().providers([Provider::Local])).await?;
    survives_kill_and_stop(&own, scope).await
}

#[tokio::test]
async fn local_postgres_without_flushes_keeps_what_it_acknowledged() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().without_flushes().providers([Provider::Local]);
    survives_kill_and_stop(&OwnPostgres::start(&scope, options).await?, scope).await
}

#[tokio::test]
async fn postgres_in_a_container_keeps_what_it_acknowledged() -> harness_db::Result {
    let scope = TestScope::current();
    // Where there is no engine or image, the test says so and ends: the other providers have tests of their own.
    match OwnPostgres::start(&scope, OwnOptions::new().providers([Provider::Container])).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(own) => survives_kill_and_stop(&own, scope).await?,
    }
    Ok(())
}

#[tokio::test]
async fn ignored_setting_is_refused_after_a_start() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().setting("work_mem", "8MB").providers([Provider::Local]);
    let own = OwnPostgres::start(&scope, options).await?;
    let mut session = own.connect().await?;
    sqlx::raw_sql("alter role postgres set work_mem = '1MB'").execute(&mut session).await?;
    let _ = session.close().await;
    own.stop().await?;
    let error = own.start_again().await.unwrap_err();
    assert!(error.to_string().contains("work_mem is 1MB, 8MB was asked for"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn impossible_setting_shows_the_servers_own_words() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().setting("max_connections", "many").providers([Provider::Local]);
    let error = OwnPostgres::start(&scope, options).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(error.is_environment() && text.contains("max_connections"), "{text}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn local_postgres_without_vector_is_passed_over() -> harness_db::Result {
    let scope = TestScope::current();
    match OwnPostgres::start(&scope, OwnOptions::new().vector().providers([Provider::Local])).await {
        Err(error) => assert!(error.is_environment() && format!("{error:?}").contains("has no pgvector"), "{error:?}"),
        Ok(own) => assert!(own.capabilities().vector.is_some(), "this machine's Postgres carries pgvector"),
    }
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn own_redis_shows_its_settings_and_survives_a_kill_when_durable() -> harness_db::Result {
    let scope = TestScope::current();
    let options = RedisOptions::new().durable().providers([Provider::Local, Provider::Portable]);
    let own = OwnRedis::start(&scope, options).await?;
    let address = own.address();
    let mut connection = own.connection().await?;
    redis::cmd("SET").arg("acked").arg("1").query_async::<()>(&mut connection).await?;
    assert_eq!(own.hit_rate().await?, None, "nothing was looked up yet");
    for key in ["acked", "acked", "acked", "absent"] {
        redis::cmd("GET").arg(key).query_async::<Option<String>>(&mut connection).await?;
    }
    assert_eq!(own.hit_rate().await?, Some(0.75));
    assert!(own.used_memory().await? > 0 && own.used_memory_peak().await? >= own.used_memory().await? / 2);
    assert_eq!(own.evicted_keys().await?, 0);
    own.kill().await?;
    assert!(own.connection().await.is_err(), "a killed server answers");
    own.start_again().await?;
    assert_eq!(own.address(), address);
    let mut connection = own.connection().await?;
    let acked: Option<String> = redis::cmd("GET").arg("acked").query_async(&mut connection).await?;
    assert_eq!(acked.as_deref(), Some("1"));
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn redis_setting_that_was_lost_is_named() -> harness_db::Result {
    let scope = TestScope::current();
    let options =
        RedisOptions::new().setting("maxmemory-policy", "noeviction").providers([Provider::Local, Provider::Portable]);
    let own = OwnRedis::start(&scope, options).await?;
    let mut connection = own.connection().await?;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).query_async::<()>(&mut connection).await?;
    let error = own.check_settings().await.unwrap_err();
    assert!(error.to_string().contains("Redis ignored a setting: maxmemory is `0`, `1gb` was asked for"), "{error:?}");
    own.stop().await?;
    own.start_again().await?; // settings come back with the start
    own.check_settings().await?;
    scope.shutdown().await?;
    Ok(())
}

/// A container is one control group: its memory and its processes are those of the whole server.
#[tokio::test]
async fn server_in_a_container_can_be_watched() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new()).await?;
    let server = own.service().process().await?.expect("a server of ours has a process");
    if own.choice().provider == Provider::Container {
        let mut sampler = CgroupSampler::of("postgres", server);
        let of = |readings: Vec<Reading>, name: &str| readings.into_iter().find(|r| r.name == name).map(|r| r.value);
        let memory = of(sampler.sample().await?, "postgres memory").unwrap_or_default();
        assert!(memory > 1e6, "{memory} bytes");
        own.stop().await?;
        assert!(sampler.sample().await.is_err(), "what is gone is no zero");
    }
    Ok(())
}
