//! A disk that is full: who is told what, and that all goes on when there is room again.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_db::postgres::migration::Migration;
use harness_db::sqlx::{self, PgConnection};
use harness_db::{Error, ErrorKind, Migrations, OwnOptions, OwnPostgres, Provider, Template};

use crate::own::lacks_engine;

const MIB: u64 = 1 << 20;

/// Five megabytes, more or less.
static SMALL: Template = Template::sql(&["create table goods(id int, text text)"])
    .seed("insert into goods select n, repeat('x', 1000) from generate_series(1, 5000) n");

/// More than the whole disk.
static BIG: Template =
    Template::on(&SMALL).seed("insert into goods select n, repeat('x', 1000) from generate_series(1, 60000) n");

async fn small_server(scope: &TestScope) -> harness_db::Result<Option<OwnPostgres>> {
    let options = OwnOptions::new().fast().disk_bytes(24 * MIB).providers([Provider::Container]);
    match OwnPostgres::start(scope, options).await {
        Ok(server) => Ok(Some(server)),
        Err(error) if lacks_engine(&error) => {
            harness_core::scope::skip("a container engine", format!("{error:?}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn says_the_disk_is_full(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Environment, "{error:?}");
    let text = format!("{error:?}");
    assert!(text.contains("disk is full (SQLSTATE 53100)") && text.contains("make room"), "{text}");
}

#[tokio::test]
async fn template_that_does_not_fit_is_named_and_leaves_nothing() -> harness_db::Result {
    let scope = TestScope::current();
    let Some(server) = small_server(&scope).await? else { return Ok(()) };
    drop(SMALL.database().on(server.url()).await?);
    let error = BIG.database().on(server.url()).await.unwrap_err();
    says_the_disk_is_full(&error);
    assert!(error.what().contains("the template could not be built: seed 1"), "{error:?}");
    assert!(format!("{error:?}").contains("nothing of this template was kept"), "{error:?}");
    drop(SMALL.database().on(server.url()).await?); // what fits is to be had as before
    let error = server.start_again().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "its disk would be gone");
    scope.shutdown().await?;
    Ok(())
}

/// Fills what is left of the disk.
async fn fill(server: &OwnPostgres) -> harness_db::CoreResult<Error> {
    server.run("create table filler(text text)").await?;
    loop {
        let more = "insert into filler select repeat('x', 1000) from generate_series(1, 2000)";
        if let Err(error) = server.run(more).await {
            return Ok(error);
        }
    }
}

#[tokio::test]
async fn pool_says_no_while_the_disk_is_full_and_goes_on_when_it_is_not() -> harness_db::Result {
    let scope = TestScope::current();
    let Some(server) = small_server(&scope).await? else { return Ok(()) };
    let held = SMALL.database().on(server.url()).await?;
    says_the_disk_is_full(&fill(&server).await?);
    let error = SMALL.database().on(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error:?}");
    assert!(error.what().contains("(SQLSTATE 53100)"), "{error:?}");
    let goods: i64 = sqlx::query_scalar("select count(*) from goods").fetch_one(held.pool()).await?;
    assert_eq!(goods, 5_000, "what was handed out is whole");

    server.run("drop table filler").await?;
    let db =
        wait_for("room on the disk", Duration::from_secs(30), async || match SMALL.database().on(server.url()).await {
            Ok(db) => Progress::Ready(db),
            Err(error) => Progress::NotYet(error.to_string()),
        });
    let goods: i64 = sqlx::query_scalar("select count(*) from goods").fetch_one(db.await?.pool()).await?;
    assert_eq!(goods, 5_000);
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn migration_that_does_not_fit_is_rolled_back_and_runs_when_there_is_room() -> harness_db::Result {
    let scope = TestScope::current();
    let Some(server) = small_server(&scope).await? else { return Ok(()) };
    let db = harness_db::postgres().on(server.url()).await?;
    let migrations = Migrations::list([Migration::new(
        1,
        "fill",
        "create table fill(text text); insert into fill select repeat(md5(n::text), 60) from generate_series(1, 4000) n",
    )]);
    says_the_disk_is_full(&fill(&server).await?);
    let error = migrations.apply(&db).await.unwrap_err();
    says_the_disk_is_full(&error);
    assert!(format!("{error:?}").contains("rolled back: the schema is as before"), "{error:?}");
    server.run("drop table filler").await?;
    assert_eq!(migrations.apply(&db).await?.len(), 1, "there is room again");
    db.close().await?;
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn process_has_no_small_disk_and_says_so() -> harness_db::Result {
    let scope = TestScope::current();
    let options = OwnOptions::new().disk_bytes(MIB).providers([Provider::Local]);
    let error = OwnPostgres::start(&scope, options).await.unwrap_err();
    assert!(error.is_environment() && format!("{error:?}").contains("provider container"), "{error:?}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn statement_that_is_wrong_is_not_called_a_full_disk() -> harness_db::Result {
    static WRONG: Template = Template::sql(&["insert into nowhere values (1)"]);
    let error = WRONG.database().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!format!("{error:?}").contains("disk"), "{error:?}");
    let db = harness_db::postgres().await?;
    let mut session: PgConnection = db.connect().await?;
    assert!(sqlx::query("select 1/0").execute(&mut session).await.is_err());
    Ok(())
}
