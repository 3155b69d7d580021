//! Sessions, sampled; deadlocks, counted.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::Session;
use harness_db::sqlx::{self, Connection as _, PgConnection};
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
    let db = harness_db::postgres().connections(12).await?;
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
    let db = harness_db::observe(own.url()).await?;
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

#[tokio::test]
async fn idle_transaction_is_named_with_its_application_and_statement() -> harness_db::Result {
    let db = ACCOUNTS.database().await?;
    let sampler = db.sessions().every(Duration::from_millis(10)).start().await?;
    let mut holder = PgConnection::connect_with(&db.options().application_name("forgetful")).await?;
    sqlx::raw_sql("begin; update accounts set n = 7 where id = 1").execute(&mut holder).await?;
    let limit = Duration::from_millis(50);
    seen("an idle transaction", || {
        sampler.so_far().longest_idle_in_transaction.is_some_and(|longest| longest.lasted > limit)
    })
    .await;
    let series = sampler.stop();
    let error = series.check_no_idle_in_transaction_longer_than(limit).unwrap_err();
    for part in ["\"forgetful\" idle in transaction", "update accounts set n = 7 where id = 1", "50 ms is allowed"] {
        assert!(error.to_string().contains(part), "no `{part}` in {error:?}");
    }
    assert!(series.no_transaction_longer_than(limit).is_fail());
    let patient = Duration::from_secs(3600);
    series.check_no_idle_in_transaction_longer_than(patient)?.check_no_query_longer_than(patient)?;
    assert!(series.points.iter().any(|point| point.by_state.contains_key("idle in transaction")), "{series:?}");
    Ok(())
}

#[tokio::test]
async fn session_left_open_is_named_with_its_last_statement() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let sampler = db.sessions().every(Duration::from_millis(10)).start().await?;
    let mut leaked = PgConnection::connect_with(&db.options().application_name("leaky")).await?;
    sqlx::raw_sql("select 'the last thing it did'").execute(&mut leaked).await?;
    // The client has its answer a moment before the server calls the session idle.
    let idle = |session: &Session| session.query.contains("last thing") && session.state == "idle";
    seen("the last statement", || sampler.so_far().at_end.iter().any(idle)).await;
    let outcome = sampler.stop().ends_as_it_began();
    assert!(outcome.is_fail(), "{outcome}");
    assert!(
        outcome.detail().contains("\"leaky\" idle for") && outcome.detail().contains("last thing it did"),
        "{outcome}"
    );
    let now = db.sessions_now().await?;
    assert!(now.iter().any(|session| session.application == "leaky" && session.state == "idle"), "{now:?}");
    Ok(())
}

#[tokio::test]
async fn sampler_goes_on_when_every_connection_is_taken() -> harness_db::Result {
    let scope = harness_core::scope::TestScope::current();
    let few = harness_db::OwnOptions::new()
        .setting("max_connections", "8")
        .providers([harness_db::Provider::Local, harness_db::Provider::Portable]);
    let own = harness_db::OwnPostgres::start(&scope, few).await?;
    let mut admin = own.connect().await?;
    sqlx::raw_sql("create role plain login").execute(&mut admin).await?;
    let plain = own.url().replace("postgres@", "plain@");

    // A role that may not see into the sessions of others counts them, and concludes nothing about them.
    let limited = harness_db::observe(&plain).await?.sessions().every(Duration::from_millis(10)).start().await?;
    seen("the administrator's session alone", || limited.so_far().last() == Some(1)).await;
    let limited = limited.stop();
    assert!(limited.points.iter().all(|point| point.hidden > 0), "{limited:?}");
    assert!(limited.no_transaction_longer_than(Duration::from_secs(60)).is_no_evidence());
    let blind = harness_db::probes::postgres::session_statistics(&plain).await;
    assert!(blind.is_fail() && blind.detail().contains("pg_read_all_stats"), "{blind}");
    let sees = harness_db::probes::postgres::session_statistics(&own.url()).await;
    assert!(sees.is_pass(), "{sees}");

    let sampler = harness_db::observe(own.url()).await?.sessions().every(Duration::from_millis(10)).start().await?;
    let mut taken = Vec::new();
    while let Ok(connection) = own.connect().await {
        taken.push(connection);
    }
    let full = harness_db::postgres::diagnose(&own.url()).await;
    assert_eq!(full.cause, harness_db::postgres::Cause::TooManyClients, "{full}");
    let before = sampler.so_far().points.len();
    seen("more samples", || sampler.so_far().points.len() > before + 5).await;
    let series = sampler.stop();
    assert!(series.gaps.is_empty() && series.max() == Some(7), "the sampler has the eighth: {series:?}");
    drop((taken, admin));
    scope.shutdown().await?;
    Ok(())
}

static ACCOUNTS: Template = Template::sql(&["create table accounts(id int primary key, n int)"])
    .seed("insert into accounts values (1, 0), (2, 0)");

async fn update(session: &mut PgConnection, id: i32) -> Result<(), sqlx::Error> {
    sqlx::query("update accounts set n = n + 1 where id = $1").bind(id).execute(session).await.map(drop)
}

/// Two transactions that take the same rows in these orders, each holding its first before either wants its second.
async fn cross(db: &Database, orders: [[i32; 2]; 2]) -> usize {
    // Only the server's own role may set the deadlock timeout.
    let options = db.server().options().clone().database(db.name());
    let mut a = PgConnection::connect_with(&options).await.unwrap();
    let mut b = PgConnection::connect_with(&options).await.unwrap();
    for session in [&mut a, &mut b] {
        sqlx::raw_sql("set deadlock_timeout = '50ms'; begin").execute(session).await.unwrap();
    }
    update(&mut a, orders[0][0]).await.unwrap();
    update(&mut b, orders[1][0]).await.unwrap();
    let (first, second) = tokio::join!(update(&mut a, orders[0][1]), update(&mut b, orders[1][1]));
    let failed = usize::from(first.is_err()) + usize::from(second.is_err());
    for session in [a, b] {
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
