//! The price of a database: what a test pays over the bare work that has to be done.

use std::time::{Duration, Instant};

use harness_core::wait::{Progress, wait_for};
use harness_db::Template;
use harness_db::sqlx::postgres::PgConnectOptions;
use harness_db::sqlx::{self, Connection as _, PgConnection};

/// Rounds; ours and the bare work are interleaved, so that noise of the machine meets both.
const ROUNDS: usize = 8;

static SCHEMA: Template = Template::migrations("tests/data/migrations").seed("tests/data/seed.sql");

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Waits until no database is being made ahead: it would be made on the other side's time.
async fn nothing_is_made_ahead(admin: &mut PgConnection) -> harness_db::CoreResult {
    let query = "select count(*) from pg_stat_activity where query ilike 'create database%' and state = 'active'";
    wait_for("databases made ahead", Duration::from_secs(30), async || {
        match sqlx::query_scalar::<_, i64>(query).fetch_one(&mut *admin).await {
            Ok(0) => Progress::Ready(()),
            other => Progress::NotYet(format!("{other:?}")),
        }
    })
    .await
}

/// One database by hand, over a session that is open: clone and connect.
async fn by_hand(
    admin: &mut PgConnection,
    base: &PgConnectOptions,
    template: &str,
    strategy: &str,
    n: usize,
) -> harness_db::Result<Duration> {
    let name = format!("bare_{}_{n}", std::process::id());
    let begun = Instant::now();
    let text = format!("create database {name} template {template} strategy {strategy}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut *admin).await?;
    let connection = PgConnection::connect_with(&base.clone().database(&name)).await?;
    let took = begun.elapsed();
    connection.close().await?;
    let text = format!("drop database {name} with (force)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut *admin).await?;
    Ok(took)
}

#[tokio::test]
async fn later_database_costs_no_more_than_a_bare_clone_and_connect() -> harness_db::Result {
    let first = SCHEMA.database().await?;
    let base = first.server().options().clone();
    let mut admin = PgConnection::connect_with(&base).await?;
    let query = "select datname::text from pg_database where datname like 'h\\_t\\_%' order by oid desc limit 1";
    let template: String = sqlx::query_scalar(query).fetch_one(&mut admin).await?;
    let (mut ours, mut copied, mut logged) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Two in a row: the first may find one made ahead, the second has to wait for its own.
        let begun = Instant::now();
        let pair = (SCHEMA.database().await?, SCHEMA.database().await?);
        ours.push(begun.elapsed() / 2);
        pair.0.close().await?;
        pair.1.close().await?;
        nothing_is_made_ahead(&mut admin).await?;
        copied.push(by_hand(&mut admin, &base, &template, "file_copy", 2 * round).await?);
        logged.push(by_hand(&mut admin, &base, &template, "wal_log", 2 * round + 1).await?);
    }
    // The bare work is done the better of the two ways.
    let (ours, bare) = (median(&mut ours), median(&mut copied).min(median(&mut logged)));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!("later database {ours:?}, bare clone and connect {bare:?}, ratio {ratio:.2} (at most 1.5)");
    assert!(ratio <= 1.5, "a later database costs {ours:?}, bare clone and connect {bare:?}: ratio {ratio:.2}");
    Ok(())
}
