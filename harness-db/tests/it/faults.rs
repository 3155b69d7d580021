//! Faults inside servers of the test's own: each proven, healed, and refused where nothing can be broken.

use harness_core::fault::{Fault, inject};
use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::frames::FrameFault;
use harness_db::postgres::PostgresFault;
use harness_db::redis::PausedWrites;
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const HERE: [Provider; 2] = [Provider::Local, Provider::Portable];

async fn named(own: &OwnPostgres, application: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&own.options().application_name(application)).await
}

#[tokio::test]
async fn postgres_loses_sessions_locks_and_connections_and_gets_them_back() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().setting("max_connections", "20").providers(HERE)).await?;
    own.run("create table orders(id int)").await?;

    let mut victim = named(&own, "victim").await?;
    let mut bystander = named(&own, "bystander").await?;
    let terminated = inject(PostgresFault::terminate_sessions(&own, "victim")).await?;
    assert!(victim.ping().await.is_err(), "a terminated session answers");
    bystander.ping().await?;
    assert_eq!(terminated.heal().await?.to_string(), "1 sessions terminated");
    let error = inject(PostgresFault::terminate_sessions(&own, "nobody")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.what().contains("`nobody`"), "{error:?}");

    let locked = PostgresFault::lock_table(&own, "orders");
    locked.inject().await?;
    locked.inject().await?;
    let reads = tokio::spawn(async move { sqlx::query("select id from orders").execute(&mut bystander).await });
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    wait_for("a reader to wait for the lock", LIMIT, async || {
        match sqlx::query_scalar::<_, i64>(waiting).fetch_one(own.pool()).await {
            Ok(1) => Progress::Ready(()),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await?;
    locked.heal().await?;
    reads.await??;
    locked.heal().await?;
    assert_eq!(locked.bites().to_string(), "1 sessions waiting when it was healed");
    let absent = inject(PostgresFault::lock_table(&own, "no_such_table")).await.unwrap_err();
    assert!(format!("{absent:?}").contains("no_such_table"), "{absent:?}");

    own.pool().close().await;
    let squeezed = inject(PostgresFault::squeeze_connections(&own, 0)).await?;
    assert!(own.connect().await.is_err(), "a full server took a session");
    squeezed.check_did_bite()?;
    squeezed.heal().await?;
    wait_for("a session to be given back", LIMIT, async || own.connect().await.map(drop).into()).await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn redis_holds_writes_back_and_answers_reads() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new().providers(HERE)).await?;
    let paused = PausedWrites::of(&own);
    paused.heal().await?; // whole already
    paused.inject().await?;
    let mut reader = own.connection().await?;
    let nothing: Option<String> = redis::cmd("GET").arg("k").query_async(&mut reader).await?;
    assert_eq!(nothing, None);
    let mut writer = own.connection().await?;
    let write = tokio::spawn(async move { redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut writer).await });
    wait_for("a client to wait", LIMIT, async || {
        let list: redis::RedisResult<String> = redis::cmd("CLIENT").arg("LIST").query_async(&mut reader).await;
        match list {
            Ok(list) if list.contains("cmd=set") => Progress::Ready(()),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await?;
    paused.heal().await?;
    assert!(paused.bites().count() >= 1, "{}", paused.bites());
    let _ = write.await?; // the driver may have given up meanwhile
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn reply_to_commit_is_lost_only_while_the_fault_is_injected() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    sqlx::raw_sql("create table notes(id int primary key)").execute(db.pool()).await?;
    let fault = std::sync::Arc::new(FrameFault::reply_lost(&db.options(), "COMMIT").await?);
    let insert = async |id: i32| -> Result<(), sqlx::Error> {
        let mut client = PgConnection::connect(&fault.tap().url()).await?;
        let mut t = client.begin().await?;
        sqlx::query("insert into notes values ($1)").bind(id).execute(&mut *t).await?;
        t.commit().await
    };
    insert(1).await?;
    let lost = inject(std::sync::Arc::clone(&fault)).await?;
    assert!(lost.check_did_bite().is_err(), "nothing was committed yet");
    assert!(insert(2).await.is_err(), "the client cannot know that it was committed");
    assert_eq!(lost.heal().await?.to_string(), "1 frames taken");
    insert(3).await?;
    let rows: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(db.pool()).await?;
    assert_eq!(rows, 3, "the server committed all");
    Ok(())
}
