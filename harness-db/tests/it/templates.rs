//! Templates and the databases cloned from them.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_db::sqlx::{Connection as _, PgConnection};
use harness_db::{Database, ErrorKind, Template};

async fn databases(db: &Database, like: &str) -> Vec<String> {
    let mut session = PgConnection::connect_with(db.server().options()).await.unwrap();
    let query = "select datname::text from pg_database where datname like $1 order by 1";
    sqlx::query_scalar(query).bind(like).fetch_all(&mut session).await.unwrap()
}

#[tokio::test]
async fn each_request_gets_a_database_of_its_own() -> harness_db::Result {
    let (a, b) = (harness_db::postgres().await?, harness_db::postgres().await?);
    assert_ne!(a.name(), b.name());
    sqlx::query("create table only_here(id int)").execute(a.pool()).await?;
    let elsewhere = sqlx::query("select * from only_here").execute(b.pool()).await;
    assert!(elsewhere.is_err(), "a table of one test is seen by another");
    Ok(())
}

#[tokio::test]
async fn url_reaches_the_same_database() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    sqlx::query("create table here(id int)").execute(db.pool()).await?;
    let mut other = PgConnection::connect(&db.url()).await?;
    sqlx::query("select * from here").execute(&mut other).await?;
    Ok(())
}

#[tokio::test]
async fn migrations_run_in_order_and_seeds_after_them() -> harness_db::Result {
    static APP: Template = Template::migrations("tests/data/migrations")
        .seed("tests/data/seed.sql")
        .seed("delete from orders where id = 1");
    let db = APP.database().await?;
    let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(db.pool()).await?;
    assert_eq!(orders, 1);
    Ok(())
}

#[tokio::test]
async fn service_that_migrates_at_its_start_finds_nothing_to_do() -> harness_db::Result {
    static APP: Template = Template::migrations("tests/data/migrations");
    let db = APP.database().await?;
    let migrator = sqlx::migrate::Migrator::new(std::path::Path::new("tests/data/migrations")).await?;
    let booked = "select count(*) from _sqlx_migrations";
    let before: i64 = sqlx::query_scalar(booked).fetch_one(db.pool()).await?;
    migrator.run(db.pool()).await?; // would fail on the first table that is there already
    let after: i64 = sqlx::query_scalar(booked).fetch_one(db.pool()).await?;
    assert_eq!(
        (before, after),
        (after, i64::try_from(migrator.iter().filter(|one| one.migration_type.is_up_migration()).count())?)
    );
    // The control: without the books it would run them again, and fail.
    sqlx::query("drop table _sqlx_migrations").execute(db.pool()).await?;
    migrator.run(db.pool()).await.expect_err("the tables are there already");
    Ok(())
}

#[tokio::test]
async fn broken_statement_is_named_with_its_line_and_leaves_no_template() -> harness_db::Result {
    static BROKEN: Template = Template::sql(&[
        "create table fine(id int)",
        "-- a comment\ncreate table x(id int);\ninsert into y values (1);",
    ]);
    let db = harness_db::postgres().await?;
    let before = databases(&db, "h\\_t\\_%").await;
    let error = BROKEN.database().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = format!("{error:?}");
    assert!(text.contains("statement 2, line 3") && text.contains("\"y\" does not exist"), "{text}");
    let building = databases(&db, "%\\_b%").await;
    let after = databases(&db, "h\\_t\\_%").await;
    assert!(building.iter().all(|name| !name.contains("statement")), "{building:?}");
    assert!(after.len() <= before.len() + 3, "templates of other tests only: {before:?} {after:?}");
    Ok(())
}

#[tokio::test]
async fn template_is_built_once_and_sealed() -> harness_db::Result {
    static ONCE: Template = Template::sql(&["create table built_once(at timestamptz)"])
        .seed("insert into built_once values (clock_timestamp())");
    let mut moments = Vec::new();
    for _ in 0..4 {
        let db = ONCE.database().await?;
        let at: String = sqlx::query_scalar("select at::text from built_once").fetch_one(db.pool()).await?;
        moments.push(at);
    }
    moments.dedup();
    assert_eq!(moments.len(), 1, "the template was built again: {moments:?}");
    let db = ONCE.database().await?;
    for template in databases(&db, "h\\_t\\_%").await {
        let refused = PgConnection::connect_with(&db.server().options().clone().database(&template)).await;
        assert!(refused.is_err(), "{template} accepts connections");
    }
    Ok(())
}

#[tokio::test]
async fn closed_database_is_gone_and_a_dropped_one_goes() -> harness_db::Result {
    let witness = harness_db::postgres().await?;
    let db = harness_db::postgres().await?;
    let name = db.name().to_owned();
    db.close().await?;
    assert!(databases(&witness, &name).await.is_empty(), "closed means gone");
    let db = harness_db::postgres().await?;
    let name = db.name().to_owned();
    assert_eq!(databases(&witness, &name).await.len(), 1);
    sqlx::query("create table changed(id int)").execute(db.pool()).await?; // else another test may get it
    drop(db);
    wait_for("the dropped database to go", Duration::from_secs(20), async || {
        match databases(&witness, &name).await.len() {
            0 => Progress::Ready(()),
            n => Progress::NotYet(format!("{n} left")),
        }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nobody_stops_a_shared_server() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    for refused in [db.server().stop(), db.server().kill(), db.server().pause()] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(format!("{error:?}").contains("OwnPostgres"), "{error:?}");
    }
    sqlx::query("select 1").execute(db.pool()).await?;
    Ok(())
}

#[tokio::test]
async fn choice_is_known_as_data() -> harness_db::Result {
    let db = harness_db::postgres().await?;
    let choices = harness_db::choices();
    let choice = choices.iter().find(|choice| choice == &db.server().choice()).expect("the server's choice is listed");
    assert_eq!(choice.service, "postgres");
    assert!(choice.attempts.last().is_some_and(|attempt| attempt.worked), "{choice:?}");
    Ok(())
}

#[test]
fn databases_work_without_a_surviving_runtime() {
    // The pool belongs to a runtime that ends; the next one must not meet its connections.
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let db = runtime.block_on(async { harness_db::postgres().await }).unwrap();
        runtime.block_on(sqlx::query("select 1").execute(db.pool())).unwrap();
        drop(runtime);
        drop(db); // outside any runtime
    }
}
