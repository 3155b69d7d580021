//! Times over every index, and times among others.

use std::time::Duration;

use harness_db::sqlx::{self, PgConnection};
use harness_db::{Database, ErrorKind, Template};

const AGES: Duration = Duration::from_secs(60);
/// What is injected to be slow, in seconds.
const DELAY_S: f64 = 0.2;

static SHOP: Template = Template::sql(&[
    "create table users(id int primary key, email text not null unique)",
    "create table orders(id serial primary key, user_id int not null, state text not null, tags text[] not null default '{}')",
    "create index orders_by_user on orders(user_id)",
    "create index orders_open on orders(user_id, state) where state = 'open'",
    "create index users_by_lower on users(lower(email))",
])
.seed(
    "insert into users select n, 'U' || n || '@b.c' from generate_series(1, 2000) n; \
     insert into orders(user_id, state) select n % 500, case when n % 10 = 0 then 'open' else 'done' end \
     from generate_series(1, 5000) n",
);

#[tokio::test]
async fn every_secondary_index_has_a_row_and_the_slow_one_is_named() -> harness_db::Result {
    let db = SHOP.database().await?;
    let table = db.index_latencies().samples(5).await?;
    let names: Vec<&str> = table.rows.iter().map(|row| row.index.as_str()).collect();
    for index in ["orders_by_user", "orders_open", "users_by_lower", "users_email_key"] {
        assert!(names.contains(&index), "{table}");
    }
    assert!(names.len() == 4 && table.rows.iter().all(|row| row.latencies.len() == 5), "{table}");
    table.check_p99_below(AGES)?;
    let delayed = format!("select *, pg_sleep({DELAY_S}) from users where lower(email) = 'u7@b.c'");
    let table = db.index_latencies().tables(["users"]).samples(2).query("users_by_lower", delayed).await?;
    let text = format!("{:?}", table.check_p99_below(Duration::from_millis(180)).unwrap_err());
    assert!(text.starts_with("users_by_lower: 99th percentile"), "{text}");
    Ok(())
}

#[tokio::test]
async fn index_that_is_not_used_or_has_no_query_is_named() -> harness_db::Result {
    let db = SHOP.database().await?;
    let hidden = "select * from users where upper(email) = 'U7@B.C'";
    let table = db.index_latencies().tables(["users"]).samples(1).query("users_email_key", hidden).await?;
    let outcome = table.all_used();
    assert!(outcome.is_fail() && outcome.detail().starts_with("users_email_key: "), "{outcome}");
    sqlx::query("create index orders_by_tags on orders using gin (tags)").execute(db.pool()).await?;
    let bare = db.index_latencies().tables(["orders"]).samples(1).await?;
    assert!(bare.p99_below(AGES).is_no_evidence(), "{bare}");
    let given = db.index_latencies().tables(["orders"]).samples(1);
    given.query("orders_by_tags", "select * from orders where tags @> array['x']").await?.check_p99_below(AGES)?;
    let unknown = db.index_latencies().query("nowhere", "select 1").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Config);
    let empty = harness_db::postgres().await?;
    assert!(empty.index_latencies().await?.all_used().is_no_evidence());
    Ok(())
}

async fn sleepers(db: &Database) -> harness_db::CoreResult<harness_db::postgres::Concurrent> {
    let sleep = async |session: &mut PgConnection, _: usize| {
        sqlx::query("select pg_sleep($1)").bind(DELAY_S).execute(session).await
    };
    db.concurrently(6).rounds(2).run(sleep).await
}

#[tokio::test]
async fn pool_of_six_serves_six_as_fast_as_one() -> harness_db::Result {
    let db = harness_db::postgres().connections(6).await?;
    let run = sleepers(&db).await?;
    assert_eq!((run.waits, run.peak, run.together.len(), run.alone.len()), (0, 6, 12, 2), "{run}");
    run.check_p99_within(20.0)?; // the delay is most of a call; what a busy machine adds is not judged
    Ok(())
}

#[tokio::test]
async fn pool_of_one_shows_the_queue() -> harness_db::Result {
    let db = harness_db::postgres().connections(1).await?;
    let run = sleepers(&db).await?;
    let waits = run.never_waits();
    assert!(waits.is_fail() && waits.detail().contains("1 connections for 6 at once"), "{waits}");
    // The last of six waits for five others: six delays, however fast the machine.
    assert!(run.together.p99().unwrap_or_default() >= Duration::from_secs_f64(5.9 * DELAY_S), "{run}");
    assert_eq!(run.check_p99_within(1.0).unwrap_err().kind(), ErrorKind::Assertion);
    Ok(())
}

#[tokio::test]
async fn calls_that_fail_are_no_fast_calls() -> harness_db::Result {
    let db = harness_db::postgres().connections(2).await?;
    let broken = async |session: &mut PgConnection, n: usize| {
        sqlx::query("select 1 / $1").bind(i32::try_from(n % 2).unwrap_or(0)).execute(session).await
    };
    let run = db.concurrently(2).rounds(2).run(broken).await?;
    let outcome = run.p99_within(100.0);
    assert!(outcome.is_fail() && outcome.detail().contains("division by zero"), "{outcome}");
    let none = async |_: &mut PgConnection, _: usize| Ok::<_, sqlx::Error>(());
    assert_eq!(db.concurrently(0).run(none).await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}
