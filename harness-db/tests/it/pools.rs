//! Pools: their cap as the server counts it, borrowers that wait, connections that never come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::{Borrowed, watch_pool};
use harness_db::probes::postgres as pg;
use harness_db::sqlx::postgres::PgPoolOptions;
use harness_db::sqlx::{self, PgPool};
use harness_db::{CoreResult, Database, Error, ErrorKind};

const LIMIT: Duration = Duration::from_secs(20);

fn pool(db: &Database, name: &str, base: u32, cap: u32) -> PgPool {
    let options = PgPoolOptions::new().min_connections(base).max_connections(cap).acquire_timeout(LIMIT);
    let options = options.test_before_acquire(false);
    options.idle_timeout(Duration::from_millis(100)).connect_lazy_with(db.options().application_name(name))
}

async fn run(connection: &mut Borrowed, text: &'static str) -> CoreResult {
    let failed = |error| Error::new(ErrorKind::Protocol, "the planted statement failed").caused_by(error);
    sqlx::raw_sql(text).execute(&mut **connection).await.map(drop).map_err(failed)
}

#[tokio::test]
async fn pool_of_thirty_gives_thirty_and_one_of_thirty_one_is_found_out() -> harness_db::Result {
    let db = harness_db::postgres().connections(50).await?;
    let sampler = db.sessions().every(Duration::from_millis(5)).start().await?;
    let good = pool(&db, "thirty", 10, 30);
    let outcome = pg::pool(&good, 10, 30, LIMIT).await;
    assert!(outcome.is_pass() && outcome.detail().contains("30 connections granted, the next one waited"), "{outcome}");
    assert!(good.size() <= 10, "it shrinks back");

    let large = pool(&db, "one too many", 10, 31);
    let outcome = pg::pool(&large, 10, 30, LIMIT).await;
    assert!(outcome.is_fail() && outcome.detail().contains("more than 30 connections"), "{outcome}");
    let mut held = Vec::new();
    for _ in 0..31 {
        held.push(large.acquire().await?);
    }
    let counted = pg::sessions_of(&db.url(), "one too many", 30).await;
    assert!(counted.is_fail() && counted.detail().contains("found 31 sessions"), "{counted}");
    assert!(pg::sessions_of(&db.url(), "one too many", 31).await.is_pass());
    assert!(pg::sessions_of(&db.url(), "nobody", 30).await.is_no_evidence());

    let series = sampler.stop();
    series.check_at_most_of("thirty", 30)?;
    let error = series.check_at_most_of("one too many", 30).unwrap_err();
    assert!(error.to_string().contains("31 sessions of `one too many`"), "{error:?}");
    assert!(series.at_most_of("thirty", 29).is_fail(), "all thirty were seen");
    Ok(())
}

#[tokio::test]
async fn more_borrowers_than_connections_all_finish() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let pool = watch_pool(&pool(&db, "stressed", 0, 4));
    let stress = pool.stress(24, LIMIT, |pool, _| async move {
        let mut connection = pool.acquire().await?;
        run(&mut connection, "select pg_sleep(0.02)").await
    });
    let stress = stress.await;
    stress.check_survived()?;
    assert_eq!((stress.finished, stress.after.waits.len(), stress.after.most_in_use()), (24, 24, 4));
    stress.after.check_never_beyond(4)?.check_nothing_leaked()?.check_no_wait_longer_than(LIMIT)?;
    assert!(stress.after.no_wait_longer_than(Duration::ZERO).is_fail(), "twenty had to wait");
    assert!(stress.after.never_beyond(3).is_fail());
    let shrunk = pool.shrinks_to(0, LIMIT).await;
    assert!(shrunk.is_pass(), "{shrunk}");
    assert!(pool.shrinks_to(4, LIMIT).await.is_no_evidence(), "it never was larger");

    let few = pool.stress(3, LIMIT, |pool, _| async move { pool.acquire().await.map(drop) }).await;
    assert!(few.survived().is_no_evidence(), "{}", few.survived());
    Ok(())
}

#[tokio::test]
async fn connection_that_never_comes_back_is_named_by_its_line() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let pool = watch_pool(&pool(&db, "leaky", 0, 4));
    let drawer = Arc::new(Mutex::new(Vec::new()));
    let line = line!() + 3;
    let put_away = Arc::clone(&drawer);
    let stress = pool.stress(24, LIMIT, move |pool, number| {
        let (borrowing, drawer) = (pool.acquire(), Arc::clone(&put_away));
        async move {
            let mut connection = borrowing.await?;
            run(&mut connection, "select pg_sleep(0.02)").await?;
            if number == 7 {
                drawer.lock().unwrap().push(connection);
            }
            CoreResult::Ok(())
        }
    });
    let stress = stress.await;
    assert_eq!(stress.finished, 24, "{stress:?}");
    let error = stress.check_survived().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("1 connections were never given back") && text.contains(&format!("pools.rs:{line}:")),
        "{text}"
    );
    let error = pool.returned(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    drawer.lock().unwrap().clear();
    pool.returned(LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn pool_that_is_held_for_ever_fails_at_the_limit_and_names_its_holders() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let pool = watch_pool(&pool(&db, "stuck", 2, 2));
    drop((pool.acquire().await?, pool.acquire().await?)); // both are open from here on
    pool.returned(LIMIT).await?;
    let drawer = Arc::new(Mutex::new(Vec::new()));
    let put_away = Arc::clone(&drawer);
    let stress = pool.stress(5, Duration::from_millis(500), move |pool, _| {
        let drawer = Arc::clone(&put_away);
        async move {
            let connection = pool.acquire().await?;
            drawer.lock().unwrap().push(connection);
            CoreResult::Ok(())
        }
    });
    let outcome = stress.await.survived();
    assert!(outcome.is_fail(), "{outcome}");
    for part in
        ["3 of 5 borrowers had not finished", "3 wait for a connection, 2 of 2 are held", "pools.rs:", "(2 times)"]
    {
        assert!(outcome.detail().contains(part), "no `{part}` in {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn borrower_turned_away_learns_who_holds_the_connection() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let one = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
    let one = one.acquire_timeout(Duration::from_millis(500)).connect_lazy_with(db.options());
    // On a loaded machine even the first connection may take longer than that.
    wait_for("the first connection", LIMIT, async || one.acquire().await.map(drop).into()).await?;
    wait_for("its return", LIMIT, async || match one.num_idle() {
        1 => Progress::Ready(()),
        n => Progress::NotYet(format!("{n} idle")),
    })
    .await?;
    let pool = watch_pool(&one);
    assert!(pool.report().nothing_leaked().is_no_evidence(), "nothing was borrowed yet");
    let held = pool.acquire().await?;
    let error = pool.acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = format!("{error:?}");
    assert!(text.contains("no connection for") && text.contains(&format!("held: {} for", held.place())), "{text}");
    assert!(held.place().contains("pools.rs:"), "{}", held.place());
    drop(held);
    pool.returned(LIMIT).await?;
    assert!(pool.report().no_wait_longer_than(LIMIT).is_fail(), "one was turned away");

    // A borrow past the watch is counted, and found by what it did last.
    let mut past = pool.pool().acquire().await?;
    sqlx::raw_sql("select 'past the watch'").execute(&mut *past).await?;
    let outcome = pool.report().nothing_leaked();
    assert!(outcome.is_fail() && outcome.detail().contains("1 not borrowed through the watch"), "{outcome}");
    let now = db.sessions_now().await?;
    assert!(now.iter().any(|session| session.query.contains("past the watch")), "{now:?}");
    Ok(())
}
