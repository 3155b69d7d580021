//! Faults inside servers of the test's own: each proven, healed, and refused where nothing can be broken.

use harness_core::fault::{Fault, inject};
use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::frames::FrameFault;
use harness_db::postgres::PostgresFault;
use harness_db::redis::{FailoverFault, PausedWrites, resp};
use harness_db::sqlx::{self, Connection as _, PgConnection};
use harness_db::{
    ErrorKind, FailoverKind, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions, redis_cluster, redis_replicas,
    redis_sentinel,
};
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

#[tokio::test]
async fn small_disk_is_full_for_writes_and_has_room_when_healed() -> harness_db::Result {
    let scope = TestScope::current();
    let small = OwnOptions::new().fast().disk_bytes(32 << 20).providers([Provider::Container]);
    let own = match OwnPostgres::start(&scope, small).await {
        Err(error) if crate::own::lacks_engine(&error) => {
            harness_core::scope::skip("a container engine", format!("{error:?}"));
            return Ok(());
        }
        started => started?,
    };
    own.run("create table goods(id int primary key, text text); insert into goods values (1, 'kept')").await?;
    let write = "create table more as select repeat('x', 1000) as text from generate_series(1, 200)";
    let full = PostgresFault::fill_disk(&own);
    full.heal().await?; // whole already
    for _ in 0..2 {
        full.inject().await?;
        full.inject().await?;
        let error = own.run(write).await.unwrap_err();
        assert!(format!("{error:?}").contains("53100"), "{error:?}");
        let kept: String = sqlx::query_scalar("select text from goods where id = 1").fetch_one(own.pool()).await?;
        assert_eq!(kept, "kept", "reads go on");
        full.heal().await?;
        full.heal().await?;
        own.run(write).await?;
        own.run("drop table more").await?;
    }
    assert_eq!(full.bites().to_string(), "2 refusals proven");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn disk_of_the_machine_is_never_filled() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnPostgres::start(&scope, OwnOptions::new().fast().providers(HERE)).await?;
    let error = inject(PostgresFault::fill_disk(&own)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && format!("{error:?}").contains("disk_bytes"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn failover_of_sentinel_and_cluster_is_injected_proven_and_healed() -> harness_db::Result {
    let (sentinel, cluster) = (redis_sentinel().replicas(1).await?, redis_cluster().await?);
    let (first, owner) = (sentinel.primary().await?, cluster.slot_owner("harness").await?);
    let (killed, ordered) = (FailoverFault::of(&sentinel), FailoverFault::of(&cluster).by(FailoverKind::Ordered));
    killed.heal().await?; // whole already
    for fault in [&killed, &ordered] {
        assert_eq!(fault.bites().count(), 0, "nothing was lost yet");
        fault.inject().await?;
        fault.inject().await?;
        assert_eq!(fault.bites().to_string(), "1 changes of the primary", "{fault:?}");
    }
    assert!(sentinel.primary().await?.address() != first.address() && first.service().exit().await?.is_some());
    assert!(cluster.slot_owner("harness").await?.address() != owner.address());
    for fault in [&killed, &ordered] {
        fault.heal().await?;
        fault.heal().await?;
    }
    assert!(!first.role().await?.is_primary() && !owner.role().await?.is_primary(), "the old ones are replicas");
    sentinel.shutdown().await?;
    cluster.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn failover_that_nobody_could_make_is_refused_or_healed() -> harness_db::Result {
    let alone = redis_replicas(1).await?;
    let error = inject(FailoverFault::of(&alone)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && format!("{error:?}").contains("redis_sentinel"), "{error:?}");
    let sentinel = redis_sentinel().replicas(1).await?;
    sentinel.nodes()[1].stop().await?;
    let primary = sentinel.primary().await?;
    let fault = FailoverFault::of(&sentinel).within(Duration::from_secs(3));
    let error = inject(fault).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // The guard that never was has brought the old primary back.
    wait_for("the old primary to answer", LIMIT, async || primary.ask::<String>(&["PING"]).await.into()).await?;
    alone.shutdown().await?;
    sentinel.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn reply_to_the_second_set_is_lost_after_it_was_done_and_a_lost_command_was_not() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new().providers(HERE)).await?;
    for (is_reply, expected) in [(true, Some("2")), (false, Some("1"))] {
        let fault = if is_reply {
            resp::reply_lost(own.address(), "set", 2)?
        } else {
            resp::command_lost(own.address(), "SET", 2)?
        };
        let client = redis::Client::open(format!("redis://{}/1", fault.address()))?;
        let set = async |value: i32| -> redis::RedisResult<()> {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("SET").arg("k").arg(value).query_async(&mut connection).await
        };
        set(0).await?;
        let lost = inject(fault).await?;
        assert!(lost.check_did_bite().is_err(), "nothing was lost yet");
        set(1).await?;
        assert!(set(2).await.is_err(), "the client cannot know");
        let mut direct = own.connection().await?;
        let value: Option<String> = redis::cmd("GET").arg("k").query_async(&mut direct).await?;
        assert_eq!(value.as_deref(), expected, "a lost reply was done, a lost command was not");
        set(3).await?; // only the second one
        assert_eq!(lost.heal().await?.to_string(), "1 frames taken");
    }
    assert_eq!(resp::reply_lost(own.address(), "CONFIG SET", 1).unwrap_err().kind(), ErrorKind::Config);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn client_that_bypasses_the_tap_leaves_no_evidence() -> harness_db::Result {
    let scope = TestScope::current();
    let own = OwnRedis::start(&scope, RedisOptions::new().providers(HERE)).await?;
    let fault = resp::reply_lost(own.address(), "SET", 0)?;
    fault.inject().await?;
    let mut direct = own.connection().await?;
    redis::cmd("SET").arg("k").arg(1).query_async::<()>(&mut direct).await?;
    let error = fault.check_did_bite().unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && format!("{error:?}").contains("saw 0 frames"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}
