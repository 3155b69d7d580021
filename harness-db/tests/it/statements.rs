//! Statements, counted by the server: how many, how slow, how much they read, and whether values stay values.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_db::postgres::{Returned, Statements};
use harness_db::sqlx::{self, PgPool};
use harness_db::{CoreResult, Database, ErrorKind, OwnOptions, OwnPostgres, Provider, Template};

static SHOP: Template = Template::sql(&[
    "create table users(id int primary key, name text not null)",
    "create table orders(id serial primary key, user_id int not null, note text not null)",
    "create index orders_by_user on orders(user_id)",
])
.seed(
    "insert into users select n, 'user ' || n from generate_series(1, 10) n; \
     insert into orders(user_id, note) select n % 10 + 1, 'note ' || n from generate_series(1, 20000) n; \
     create table notes(id serial primary key, body text not null)",
);

/// The shop; none, and recorded as skipped, where the server does not count statements.
async fn shop() -> CoreResult<Option<Database>> {
    let db = SHOP.database().await?;
    match db.statements(async || ()).await {
        Ok(_) => Ok(Some(db)),
        Err(error) if error.is_environment() => {
            harness_core::scope::skip("pg_stat_statements", format!("{error:?}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn one_by_one(pool: &PgPool) -> Result<usize, sqlx::Error> {
    let ids: Vec<i32> = sqlx::query_scalar("select id from users").fetch_all(pool).await?;
    let mut found = 0;
    for id in ids {
        let query = sqlx::query("select * from orders where user_id = $1 limit 3").bind(id);
        found += query.fetch_all(pool).await?.len();
    }
    Ok(found)
}

async fn at_once(pool: &PgPool) -> Result<usize, sqlx::Error> {
    let query =
        "select u.id, o.* from users u cross join lateral (select * from orders where user_id = u.id limit 3) o";
    Ok(sqlx::query(query).fetch_all(pool).await?.len())
}

#[tokio::test]
async fn loop_of_queries_is_told_from_a_join() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let seen = db.statements(|| at_once(db.pool())).await?;
    seen.at_most(1)?.repeats_at_most(1)?;
    assert_eq!((seen.output, seen.calls(), seen.rows()), (30, 1, 30), "{seen}");
    let seen = db.statements(|| one_by_one(db.pool())).await?;
    let text = format!("{:?}", seen.at_most(2).unwrap_err());
    assert!(text.starts_with("11 statements ran, at most 2 are allowed"), "{text}");
    assert!(text.contains("10× select * from orders where user_id = $1 limit $2 (30 rows"), "{text}");
    assert_eq!(seen.repeats_at_most(9).unwrap_err().kind(), ErrorKind::Assertion);
    seen.at_most(11)?.repeats_at_most(10)?;
    Ok(())
}

#[tokio::test]
async fn control_of_transactions_is_listed_and_not_counted() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let block = async || {
        let mut transaction = db.pool().begin().await?;
        sqlx::query("insert into notes(body) values ('a')").execute(&mut *transaction).await?;
        transaction.commit().await
    };
    let seen = db.statements(block).await?;
    seen.at_most(1)?.none_matching("delete from")?;
    assert!(seen.all.iter().any(|statement| statement.text == "COMMIT"), "{seen}");
    assert!(seen.wal_bytes() > 0 && seen.all.iter().any(|statement| statement.wal_records > 0), "{seen:?}");
    seen.wal_at_most(100_000)?;
    assert_eq!(seen.wal_at_most(1).unwrap_err().kind(), ErrorKind::Assertion);
    let text = format!("{:?}", seen.none_matching("INSERT INTO notes").unwrap_err());
    assert!(text.contains("1× insert into notes(body) values ($1)"), "{text}");
    Ok(())
}

#[tokio::test]
async fn plain_statements_are_not_taken_for_those_of_the_harness() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    for text in ["select 1", "select 1 as one", "analyze", "select count(*) from pg_class"] {
        db.explain("select * from users").await?;
        let seen = db.statements(async || sqlx::query(text).execute(db.pool()).await).await?;
        assert_eq!(seen.calls(), 1, "`{text}`: {seen}");
    }
    let slowest = db.slowest(100).await?;
    assert!(!slowest.to_string().contains("harness_own"), "{slowest}");
    Ok(())
}

#[tokio::test]
async fn block_that_reaches_another_database_or_none_proves_nothing() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let other = harness_db::postgres().await?;
    let seen = db.statements(async || sqlx::query("select 1").execute(other.pool()).await).await?;
    assert_eq!(seen.at_most(5).unwrap_err().kind(), ErrorKind::NoEvidence, "{seen}");
    assert_eq!(seen.none_matching("delete").unwrap_err().kind(), ErrorKind::NoEvidence);
    seen.at_most(0)?;
    let failed = db.statements(async || sqlx::query("select nothing").execute(db.pool()).await).await;
    let text = format!("{:?}", failed.unwrap_err());
    assert!(
        text.contains("the block whose statements were to be counted failed") && text.contains("nothing"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn statement_of_an_open_transaction_is_no_evidence() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let seen: Statements<_> = db
        .statements(async || {
            let mut transaction = db.pool().begin().await?;
            sqlx::query("select * from users").fetch_all(&mut *transaction).await?;
            Ok::<_, sqlx::Error>(transaction)
        })
        .await?;
    let error = seen.at_most(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoEvidence, "{error:?}");
    assert!(error.what().contains("still in a transaction"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn rows_read_in_vain_are_seen() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let by = async |condition: &str| {
        let text = format!("select id from orders where {condition}");
        sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(db.pool()).await.map(|rows| rows.len())
    };
    let reads = db.reads(|| by("id = 77")).await?;
    assert_eq!((reads.rows_read(), reads.rows_returned(), reads.statements.output), (1, 1, 1), "{reads:?}");
    reads.per_row_at_most(1.0)?;
    let reads = db.reads(|| by("note = 'note 77'")).await?;
    let text = format!("{:?}", reads.per_row_at_most(100.0).unwrap_err());
    assert!(text.starts_with("20000 rows were read to return 1"), "{text}");
    assert!(text.contains("public.orders: 20000 rows in 1 scans"), "{text}");
    Ok(())
}

#[tokio::test]
async fn reads_of_a_session_outside_the_pool_may_be_missing_and_prove_nothing() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let outside = PgPool::connect_with(db.options()).await?;
    let reads = db.reads(async || sqlx::query("select id from users where id = 1").fetch_one(&outside).await).await?;
    assert!(reads.untold > 0, "{reads:?}");
    assert_eq!(reads.per_row_at_most(1e9).map(drop).unwrap_err().kind(), ErrorKind::NoEvidence);
    outside.close().await;
    Ok(())
}

#[tokio::test]
async fn planted_slow_statement_ranks_first_with_plan_and_notes() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    sqlx::query("select *, pg_sleep(0.5) from orders where note = $1").bind("note 7").fetch_all(db.pool()).await?;
    at_once(db.pool()).await?;
    let slowest = db.slowest(10).with_plans().await?;
    let first = &slowest.rows[0];
    assert!(first.statement.text.contains("pg_sleep") && first.statement.calls == 1, "{slowest}");
    assert!(first.notes.iter().any(|note| note.contains("scans orders has 20000 rows")), "{slowest}");
    assert!(slowest.to_string().contains("Seq Scan on orders"), "{slowest}");
    let text = format!("{:?}", slowest.mean_below(Duration::from_millis(400)).unwrap_err());
    assert!(text.contains("pg_sleep") && text.contains("note: scans orders"), "{text}");
    slowest.mean_below(Duration::from_secs(60))?;
    first.explain(&db).bind("note 7").bind(0.0_f64).await?.never_scans("orders").unwrap_err();
    assert_eq!(db.slowest(1).await?.rows.len(), 1);
    Ok(())
}

#[tokio::test]
async fn database_without_statements_has_no_slowest() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    assert_eq!(db.slowest(10).await.unwrap_err().kind(), ErrorKind::NoEvidence);
    Ok(())
}

/// The harness looks into an early clone of a template, to know what a used one can be taken back to: that counts for
/// nobody.
#[tokio::test]
async fn first_clones_of_a_template_have_no_statements_either() -> harness_db::Result {
    let table: &str = format!("create table run_{}(id int)", std::process::id()).leak();
    let template = Template::sql(vec![table].leak());
    if shop().await?.is_none() {
        return Ok(());
    }
    let mut clones = Vec::new();
    for _ in 0..4 {
        clones.push(template.database().await?);
    }
    for db in &clones {
        assert_eq!(db.slowest(10).await.unwrap_err().kind(), ErrorKind::NoEvidence, "{}", db.name());
    }
    sqlx::query("select 1").execute(clones[1].pool()).await?;
    assert_eq!(clones[1].slowest(10).await?.rows.len(), 1);
    Ok(())
}

#[tokio::test]
async fn server_that_does_not_count_says_so() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().setting("shared_preload_libraries", "");
    let own = OwnPostgres::start(&scope, options.providers([Provider::Local, Provider::Portable])).await?;
    let db = harness_db::postgres().on(own.url()).await?;
    let error = db.statements(async || sqlx::query("select 1").execute(db.pool()).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(format!("{error:?}").contains("shared_preload_libraries=pg_stat_statements"), "{error:?}");
    assert_eq!(db.slowest(10).await.unwrap_err().kind(), ErrorKind::Environment);
    db.close().await?;
    scope.shutdown().await?;
    Ok(())
}

async fn bound(pool: &PgPool, value: &str) -> Result<String, sqlx::Error> {
    let id: i32 =
        sqlx::query_scalar("insert into notes(body) values ($1) returning id").bind(value).fetch_one(pool).await?;
    sqlx::query_scalar("select body from notes where id = $1").bind(id).fetch_one(pool).await
}

async fn pasted(pool: &PgPool, value: &str) -> Result<String, sqlx::Error> {
    let text = format!("insert into notes(body) values ('{value}') returning body");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).fetch_one(pool).await.and_then(|row| sqlx::Row::try_get(&row, 0))
}

#[tokio::test]
async fn bound_values_stay_values() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let found = db.parameterised(async |value: &str| bound(db.pool(), value).await).await?;
    found.check()?;
    assert_eq!((found.plain.len(), found.grown.len()), (2, 0), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn pasted_values_break_out_and_are_caught() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let found = db.parameterised(async |value: &str| pasted(db.pool(), value).await).await?;
    let text = format!("{:?}", found.check().unwrap_err());
    assert!(text.contains("were not kept as values") && text.contains("bind the value as a parameter"), "{text}");
    assert!(found.payloads.iter().any(|(_, returned)| matches!(returned, Returned::Refused(_))), "{found:?}");
    assert!(found.payloads.iter().any(|(_, returned)| matches!(returned, Returned::Altered(_))), "{found:?}");
    // A payload that comes back as it was, by another statement: only the count of statements tells.
    let quiet = async |value: &str| pasted(db.pool(), value).await.map(|_| value.to_owned());
    let found = db.parameterised_with(&["' || 'tail"], quiet).await?;
    let outcome = found.holds();
    assert!(outcome.is_fail() && outcome.detail().contains("values ($1 || $2)"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn payloads_that_reach_no_database_prove_nothing() -> harness_db::Result {
    let Some(db) = shop().await? else { return Ok(()) };
    let echo = async |value: &str| Ok::<_, sqlx::Error>(value.to_owned());
    assert_eq!(db.parameterised(echo).await.unwrap_err().kind(), ErrorKind::NoEvidence);
    let none = db.parameterised_with(&[], async |value: &str| bound(db.pool(), value).await).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NoEvidence);
    let deaf = async |_: &str| Ok::<_, sqlx::Error>(String::new());
    assert_eq!(db.parameterised(deaf).await.unwrap_err().kind(), ErrorKind::Assertion);
    Ok(())
}
