//! Sessions, sampled; deadlocks, counted.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::{self, PgConnection};
use harness_db::{Database, Template};

/// Waits until the sampler has seen this.
async fn seen(what: &str, mut ask: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(20), async || match ask() {
        true => Progress::Ready(()),
        false => Progress::NotYet("not yet".to_owned()),
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn ten_idle_connections_move_the_series_by_ten() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let sampler = db.sessions().every(Duration::from_millis(20)).start().await?;
    let before = sampler.so_far().first().unwrap_or_default();
    let mut planted = Vec::new();
    for _ in 0..10 {
        planted.push(db.connect().await?);
    }
    seen("ten more sessions", || sampler.so_far().max() == Some(before + 10)).await;
    drop(planted);
    seen("the old number of sessions", || sampler.so_far().last() == Some(before)).await;
    let series = sampler.stop();
    assert!(series.below(before + 11).is_pass() && series.below(before + 10).is_fail(), "{series:?}");
    assert!(series.ends_as_it_began().is_pass());
    assert!(series.points.windows(2).all(|pair| pair[0].at <= pair[1].at), "clocks run forward");
    assert!(series.check_below(before + 10).is_err());
    Ok(())
}

#[tokio::test]
async fn sampler_that_cannot_see_leaves_gaps_and_not_zeros() -> harness_db::Result {
    let scope = harness_core::scope::TestScope::current();
    let options =
        harness_db::OwnOptions::new().providers([harness_db::Provider::Local, harness_db::Provider::Portable]);
    let own = harness_db::OwnPostgres::start(&scope, options).await?;
    let db = harness_db::postgres().on(own.url()).await?;
    let sampler = db.sessions().every(Duration::from_millis(20)).start().await?;
    own.kill().await?;
    seen("a gap", || !sampler.so_far().gaps.is_empty()).await;
    let series = sampler.stop();
    let blind_since = series.gaps[0].0;
    assert!(series.points.iter().all(|point| point.at < blind_since), "a sample of a dead server: {series:?}");
    drop(db);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn busy_sessions_are_captured_and_none_is_an_empty_list() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    assert_eq!(db.busy_sessions().await?, []);
    let mut sleeper = db.connect().await?;
    let sleep = tokio::spawn(async move { sqlx::query("select pg_sleep(600)").execute(&mut sleeper).await });
    let busy = wait_for("the sleeper", Duration::from_secs(10), async || match db.busy_sessions().await {
        Ok(busy) if busy.is_empty() => Progress::NotYet("nobody is busy".to_owned()),
        Ok(busy) => Progress::Ready(busy),
        Err(error) => Progress::Failed(error),
    })
    .await?;
    assert!(busy[0].query.contains("pg_sleep(600)") && busy[0].state == "active", "{busy:?}");
    sleep.abort();
    Ok(())
}

static ACCOUNTS: Template = Template::sql(&["create table accounts(id int primary key, n int)"])
    .seed("insert into accounts values (1, 0), (2, 0)");

async fn update(session: &mut PgConnection, id: i32) -> Result<(), sqlx::Error> {
    sqlx::query("update accounts set n = n + 1 where id = $1").bind(id).execute(session).await.map(drop)
}

/// Two transactions that take the same rows in these orders, each holding its first before either wants its second.
async fn cross(db: &Database, orders: [[i32; 2]; 2]) -> usize {
    let (mut a, mut b) = (db.connect().await.unwrap(), db.connect().await.unwrap());
    for session in [&mut a, &mut b] {
        sqlx::raw_sql("set deadlock_timeout = '50ms'; begin").execute(session).await.unwrap();
    }
    update(&mut a, orders[0][0]).await.unwrap();
    update(&mut b, orders[1][0]).await.unwrap();
    let (first, second) = tokio::join!(update(&mut a, orders[0][1]), update(&mut b, orders[1][1]));
    let failed = usize::from(first.is_err()) + usize::from(second.is_err());
    for session in [a, b] {
        use sqlx::Connection as _;
        session.close().await.unwrap();
    }
    failed
}

#[tokio::test]
async fn planted_deadlock_is_counted() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let deadlocks = db.deadlocks().await?;
    assert_eq!(cross(&db, [[1, 2], [2, 1]]).await, 1, "one of the two is the victim");
    db.pool().close().await;
    let outcome = deadlocks.none().await?;
    assert!(outcome.is_fail() && outcome.detail().starts_with("1 deadlocks"), "{outcome}");
    assert_eq!(deadlocks.so_far().await?, 1);
    Ok(())
}

#[tokio::test]
async fn rows_apart_raise_no_deadlock() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let deadlocks = db.deadlocks().await?;
    assert_eq!(cross(&db, [[1, 1], [2, 2]]).await, 0);
    db.pool().close().await;
    let outcome = deadlocks.none().await?;
    assert!(outcome.is_pass(), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn unpublished_counts_are_no_evidence() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let deadlocks = db.deadlocks().await?.limit(Duration::from_millis(300));
    let open = db.connect().await?; // may hold a count it has not published
    let outcome = deadlocks.none().await?;
    assert!(outcome.is_no_evidence() && outcome.detail().contains("close the pools"), "{outcome}");
    drop(open);
    Ok(())
}
