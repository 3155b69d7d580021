//! Isolation by rollback, and the code that breaks out of it.

use harness_db::sqlx::{self, Connection as _};
use harness_db::{Database, ErrorKind, Template};

static SCHEMA: Template = Template::sql(&["create table notes(id int primary key)", "insert into notes values (0)"]);

async fn count(db: &Database) -> harness_db::Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from notes").fetch_one(db.pool()).await?)
}

#[tokio::test]
async fn nothing_stays_whether_it_is_finished_or_dropped() -> harness_db::Result {
    let db = SCHEMA.database().await?;
    let mut tx = db.transaction().await?;
    sqlx::query("insert into notes values (1)").execute(&mut *tx).await?;
    let inside: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(&mut *tx).await?;
    assert_eq!((inside, count(&db).await?), (2, 1), "seen inside, not outside");
    tx.finish().await?;
    assert_eq!(count(&db).await?, 1);

    let mut tx = db.transaction().await?;
    sqlx::query("insert into notes values (1)").execute(&mut *tx).await?;
    drop(tx);
    assert_eq!(count(&db).await?, 1);
    db.transaction().await?.finish().await?; // a transaction that did nothing is fine
    Ok(())
}

#[tokio::test]
async fn code_under_test_may_open_and_end_transactions_of_its_own() -> harness_db::Result {
    let db = SCHEMA.database().await?;
    let mut tx = db.transaction().await?;
    let mut inner = tx.begin().await?;
    sqlx::query("insert into notes values (1)").execute(&mut *inner).await?;
    inner.commit().await?;
    let mut undone = tx.savepoint().await?;
    sqlx::query("insert into notes values (2)").execute(&mut *undone).await?;
    undone.rollback().await?;
    let inside: i64 = sqlx::query_scalar("select count(*) from notes").fetch_one(&mut *tx).await?;
    assert_eq!(inside, 2);
    tx.finish().await?;
    assert_eq!(count(&db).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_failed_statement_is_no_way_out_of_the_transaction() -> harness_db::Result {
    let db = SCHEMA.database().await?;
    let mut tx = db.transaction().await?;
    assert!(sqlx::query("insert into notes values (0)").execute(&mut *tx).await.is_err(), "a duplicate");
    tx.finish().await?;
    assert_eq!(count(&db).await?, 1);
    Ok(())
}

#[tokio::test]
async fn code_that_commits_or_rolls_back_the_tests_transaction_is_found() -> harness_db::Result {
    let db = SCHEMA.database().await?;
    for (at, (statements, how)) in [
        ("insert into notes values (1); commit", "committed"),
        ("commit and chain", "committed"),
        ("commit; begin; insert into notes values (2)", "committed"),
        ("rollback; insert into notes values (3)", "rolled back"),
        ("rollback and chain", "rolled back"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tx = db.transaction().await?;
        sqlx::raw_sql(statements).execute(&mut *tx).await?;
        let error = tx.finish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Assertion, "{at}: {statements}");
        assert!(
            error.what().contains(&format!("the code under test {how} the transaction")),
            "{statements}: {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_broke_is_an_error_and_not_a_pass() -> harness_db::Result {
    let db = SCHEMA.database().await?;
    let mut tx = db.transaction().await?;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *tx).await?;
    sqlx::query("select pg_terminate_backend($1, 5000)").bind(pid).execute(db.pool()).await?;
    assert_eq!(tx.finish().await.unwrap_err().kind(), ErrorKind::Connect);
    Ok(())
}
