//! The SQL target of `harness-load` against a real Postgres of `harness-db`: what it counts is what the server has.

use harness_db::{Template, sqlx};
use harness_load::target::SqlStatement;
use harness_load::{Load, LoadRun, millis, per_second};

static TABLE: Template = Template::sql(&["create table seen (n bigint primary key, note text)"]);

async fn run(statement: SqlStatement) -> harness_core::Result<LoadRun> {
    let load = Load::open(per_second(100)).hold(millis(300)).in_flight(4, 100);
    Ok(load.target("statement", 1, statement).run().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_under_load_are_the_rows_the_server_has() -> harness_core::Result {
    let database = TABLE.database().await?;
    let each = SqlStatement::new(&database.url(), "insert into seen values ($1::bigint, $2)")?;
    let each = run(each.with(|iteration| vec![Some(iteration.n().to_string().into()), None])).await?;
    let rows: i64 =
        sqlx::query_scalar("select count(*) from seen where note is null").fetch_one(database.pool()).await?;
    assert!(each.cell("hold", "statement").is_some_and(|cell| cell.ok == 30) && rows == 30, "{rows} rows: {each}");

    // The same key again: nothing is counted as done, and each refusal by its SQLSTATE.
    let again = run(SqlStatement::new(&database.url(), "insert into seen values (1, 'again')")?).await?;
    let refused = again.cell("hold", "statement").and_then(|cell| cell.errors.get("sqlstate 23505"));
    assert_eq!(refused, Some(&30), "{again}");
    Ok(())
}
