//! Streaming replicas: they follow, they can be held up, they take over; and the probe for reads of one's own writes.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::Replica;
use harness_db::sqlx::{self, PgPool};
use harness_db::{ErrorKind, OwnOptions, OwnPostgres, Provider};

use crate::own::lacks_engine;

const LIMIT: Duration = Duration::from_secs(20);

/// By processes: without a crash of the machine nothing is lost, and without its disk's syncs a base backup takes a third
/// of the time.
async fn with_replica(scope: &TestScope, options: OwnOptions) -> harness_db::CoreResult<OwnPostgres> {
    by(&[Provider::Local, Provider::Portable], scope, options).await
}

async fn by(providers: &[Provider], scope: &TestScope, options: OwnOptions) -> harness_db::CoreResult<OwnPostgres> {
    let options = options.setting("fsync", "off").replicas(1).providers(providers.iter().copied());
    OwnPostgres::start(scope, options).await
}

async fn newest(pool: &PgPool) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("select max(id) from orders").fetch_one(pool).await
}

async fn insert(pool: &PgPool, id: i32) -> Result<i32, sqlx::Error> {
    sqlx::query("insert into orders values ($1)").bind(id).execute(pool).await?;
    Ok(id)
}

#[tokio::test]
async fn follows_refuses_writes_and_shows_the_past_while_replay_is_held_up() -> harness_db::Result {
    let scope = TestScope::current();
    let primary = with_replica(&scope, OwnOptions::new()).await?;
    follows_waits_and_takes_over(&primary, scope).await
}

#[tokio::test]
async fn replica_in_a_container_follows_refuses_writes_and_takes_over() -> harness_db::Result {
    let scope = TestScope::current();
    match by(&[Provider::Container], &scope, OwnOptions::new()).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(primary) => {
            let replica = primary.replicas()[0].address();
            assert!(primary.address().ip().is_loopback() && replica.ip().is_loopback());
            let listens = "select current_setting('listen_addresses')";
            let shown: String = sqlx::query_scalar(listens).fetch_one(primary.pool()).await?;
            assert_eq!(shown, "127.0.0.1", "a server in this machine's own network is nobody else's");
            follows_waits_and_takes_over(&primary, scope).await?;
        }
    }
    Ok(())
}

/// What a replica is, whoever runs it; ends with both servers gone.
async fn follows_waits_and_takes_over(primary: &OwnPostgres, scope: TestScope) -> harness_db::Result {
    let replica = &primary.replicas()[0];
    assert_ne!(replica.address(), primary.address());
    assert!(replica.is_following().await?);
    primary.run("create table orders(id int); insert into orders values (1)").await?;
    replica.caught_up(LIMIT).await?;
    assert_eq!(newest(replica.pool()).await?, Some(1));
    let refused = insert(replica.pool(), 9).await.unwrap_err().to_string();
    assert!(refused.contains("read-only"), "{refused}");
    // A primary writes a little by itself (snapshots of running transactions), which is replayed as well.
    let lag = wait_for("nothing to be behind", LIMIT, async || match replica.lag().await {
        Ok(lag) if lag.bytes == 0 => Progress::Ready(lag),
        other => Progress::NotYet(format!("{other:?}")),
    });
    assert_eq!(lag.await?.time, Some(Duration::ZERO));

    replica.pause_replay().await?;
    insert(primary.pool(), 2).await?;
    assert_eq!(newest(replica.pool()).await?, Some(1), "it shows what it should not have replayed");
    let lag = replica.lag().await?;
    assert!(lag.bytes > 0 && lag.time.is_some_and(|time| !time.is_zero()), "{lag}");
    let error = replica.caught_up(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(format!("{error:?}").contains("bytes behind, replay paused"), "{error:?}");
    replica.resume_replay().await?;
    replica.caught_up(LIMIT).await?;
    assert_eq!(newest(replica.pool()).await?, Some(2));

    // What was written while it was away comes when it is back: the primary kept it.
    replica.kill().await?;
    insert(primary.pool(), 3).await?;
    replica.start_again().await?;
    replica.caught_up(LIMIT).await?;
    assert_eq!(newest(replica.pool()).await?, Some(3));

    primary.kill().await?;
    assert_eq!(replica.lag().await.unwrap_err().kind(), ErrorKind::Connect);
    replica.promote().await?;
    assert!(!replica.is_following().await?);
    assert_eq!(insert(replica.pool(), 4).await?, 4);
    assert!(replica.promote().await.is_err(), "there is nothing to promote any more");
    scope.shutdown().await?;
    assert!(replica.connect().await.is_err(), "it ends with its scope");
    Ok(())
}

/// Reads from the replica once it has what the primary wrote: sees its writes, and waits for them.
async fn read_when_replayed(primary: &PgPool, replica: &Replica) -> harness_db::CoreResult<Option<i32>> {
    let error = |error: sqlx::Error| harness_db::Error::new(ErrorKind::Connect, error.to_string());
    let wanted = newest(primary).await.map_err(error)?;
    wait_for("the write to be replayed", LIMIT, async || match newest(replica.pool()).await {
        Ok(found) if found == wanted => Progress::Ready(found),
        other => Progress::NotYet(format!("{other:?}")),
    })
    .await
}

#[tokio::test]
async fn reads_of_own_writes_pass_from_the_primary_and_fail_from_a_replica_that_is_behind() -> harness_db::Result {
    let scope = TestScope::current();
    let primary = with_replica(&scope, OwnOptions::new()).await?;
    let replica = &primary.replicas()[0];
    primary.run("create table orders(id int); insert into orders values (1)").await?;
    let (writer, reader) = (primary.pool(), replica.pool());

    replica.check_read_your_writes(async || insert(writer, 2).await, async || newest(writer).await).await?;

    // Every read goes to the replica: red for sure, since replay is held up.
    let stale = replica.check_read_your_writes(async || insert(writer, 3).await, async || newest(reader).await);
    let error = stale.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.what().starts_with("stale read: 3 was written, 2 was read with the replica "), "{error:?}");
    let lost = replica.read_your_writes(async || insert(writer, 4).await, async || Ok(None)).await?;
    assert!(lost.is_fail() && lost.detail().contains("4 was written, nothing was found"), "{lost}");

    // A system that waits for the replica cannot answer while replay is held up, and is right when it goes on.
    let error = |error: sqlx::Error| harness_db::Error::new(ErrorKind::Connect, error.to_string());
    let waits = replica.read_your_writes(
        async || insert(writer, 5).await.map_err(error),
        async || read_when_replayed(writer, replica).await,
    );
    let waits = waits.await?;
    assert!(waits.is_pass() && waits.detail().contains("after waiting for the replica"), "{waits}");

    // A write that went elsewhere proves nothing.
    let elsewhere = replica.check_read_your_writes(async || Ok(5), async || newest(writer).await);
    assert_eq!(elsewhere.await.unwrap_err().kind(), ErrorKind::NoEvidence);
    replica.caught_up(LIMIT).await?; // replay goes on after each of them
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_can_have_no_replicas_says_why() -> harness_db::Result {
    let scope = TestScope::current();
    let fast = OwnOptions::new().fast();
    let error = OwnPostgres::start(&scope, fast.replicas(1).providers([Provider::Local, Provider::Portable]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.what().contains("wal_level=minimal, max_wal_senders=0"), "{error:?}");

    // Published on 127.0.0.1, which is another machine's 127.0.0.1 to a second container.
    match OwnPostgres::start(&scope, OwnOptions::new().providers([Provider::Container])).await {
        Err(error) if lacks_engine(&error) => harness_core::scope::skip("a container engine", format!("{error:?}")),
        Err(error) => return Err(error.into()),
        Ok(alone) => {
            let error = alone.replica(&scope).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment);
            assert!(format!("{error:?}").contains("a network of its own"), "{error:?}");
        }
    }
    scope.shutdown().await?;
    Ok(())
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_replica_demands_what_its_primary_demands() -> harness_db::Result {
    use harness_db::sqlx::{Connection as _, PgConnection};

    let scope = TestScope::current();
    let primary = with_replica(&scope, OwnOptions::new().tls_only()).await?;
    let replica = &primary.replicas()[0];
    PgConnection::connect(&replica.url()).await?.close().await?;
    let (plain, _) = replica.url().split_once('?').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("has words");
    assert!(PgConnection::connect(&format!("{plain}?sslmode=disable")).await.is_err());
    scope.shutdown().await?;
    Ok(())
}
