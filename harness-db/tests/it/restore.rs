//! Backups that bring everything back pass; each loss is named.

use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::service::{Exec, run_to_end};
use harness_db::postgres::restore;
use harness_db::{CoreResult, Error, ErrorKind, OwnOptions, OwnPostgres, Provider, sqlx};

const LIMIT: Duration = Duration::from_secs(60);

async fn server(scope: &TestScope) -> CoreResult<OwnPostgres> {
    let here = [Provider::Local, Provider::Portable];
    let own = OwnPostgres::start(scope, OwnOptions::new().fast().providers(here)).await?;
    own.create_database("source").await?;
    run_in(&own, "source", "create table tasks(id serial primary key, text text, at timestamptz default now()); \
                            insert into tasks(text) select 'task ' || n from generate_series(1, 2500) n; \
                            create table empty(id int); create schema other; create table other.\"Odd name\"(x float8); \
                            insert into other.\"Odd name\" values (0.1), ('nan')").await?;
    Ok(own)
}

async fn run_in(own: &OwnPostgres, database: &str, statements: &'static str) -> CoreResult {
    let options = own.options().database(database);
    let failed = |error: sqlx::Error| Error::new(ErrorKind::Protocol, format!("in {database}")).caused_by(error);
    let mut session = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.map_err(failed)?;
    sqlx::raw_sql(statements).execute(&mut session).await.map_err(failed)?;
    sqlx::Connection::close(session).await.map_err(failed)
}

#[tokio::test]
async fn whole_copy_passes_and_each_loss_is_named() -> harness_db::Result {
    let scope = TestScope::current();
    let own = server(&scope).await?;
    let from = own.options().database("source");
    for (n, (loss, expected)) in [
        ("select 1", "pass"),
        ("delete from tasks where id = 1234", "1 tables differ: tasks (2500 rows before, 2499 after)"),
        ("update tasks set text = 'else' where id = 7", "1 tables differ: tasks (2500 rows before, 2500 after)"),
        ("drop table other.\"Odd name\"", "1 tables are missing: other.\"Odd name\""),
        ("alter sequence tasks_id_seq restart", "1 tables differ: sequence tasks_id_seq (1 rows before, 1 after)"),
        ("create table new()", "1 tables are new: new"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("restored_{n}");
        let to = own.options().database(&name);
        let outcome = restore::drill(&from, &to, async {
            own.run(&format!("create database {name} template source")).await?;
            run_in(&own, &name, loss).await
        })
        .await?;
        match expected {
            "pass" => assert!(outcome.is_pass() && outcome.detail().starts_with("2503 rows in 4 tables"), "{outcome}"),
            expected => assert!(outcome.is_fail() && outcome.detail() == expected, "{loss}: {outcome}"),
        }
    }
    let to = own.options().database("restored_0");
    let moving =
        restore::drill(&from, &to, run_in(&own, "source", "insert into tasks(text) values ('meanwhile')")).await?;
    assert!(moving.is_no_evidence() && moving.detail().contains("changed while"), "{moving}");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn dump_that_is_restored_is_what_was_dumped() -> harness_db::Result {
    let scope = TestScope::current();
    let own = server(&scope).await?;
    own.create_database("restored").await?;
    let (from, to) = (own.options().database("source"), own.options().database("restored"));
    let file = scope.temp_dir()?.join("source.dump").display().to_string();
    let run = async |program: &str, arguments: &[&str]| -> CoreResult {
        let exec = Exec::new(program).args(arguments.iter().copied());
        let done = tokio::task::spawn_blocking(move || run_to_end(&exec, LIMIT)).await;
        let done = done.map_err(|error| Error::new(ErrorKind::Io, error.to_string()))??;
        match done.is_success() {
            true => Ok(()),
            // A client that is older than the server is no client of it.
            false => Err(Error::new(ErrorKind::Environment, format!("{program}: {done:?}"))),
        }
    };
    let drilled = restore::drill(&from, &to, async {
        run("pg_dump", &["--format=custom", "--file", &file, "--dbname", &own.url_of("source")]).await?;
        run("pg_restore", &["--exit-on-error", "--no-owner", "--dbname", &own.url_of("restored"), &file]).await
    });
    match drilled.await {
        Ok(outcome) => assert!(outcome.is_pass(), "{outcome}"),
        Err(error) if error.is_environment() => harness_core::scope::skip("pg_dump of the server's version", error),
        Err(error) => return Err(error.into()),
    }
    scope.shutdown().await?;
    Ok(())
}
