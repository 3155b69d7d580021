//! Isolation by rollback: a test inside one transaction that is always taken back.

use std::ops::{Deref, DerefMut};

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, Row as _, Transaction};

use super::{Database, sql};

/// One transaction around a whole test, always rolled back: the cheapest isolation there is, inside one database.
///
/// ```no_run
/// use harness_db::sqlx::{self, Connection as _};
///
/// # async fn example(db: harness_db::Database) -> harness_db::Result {
/// let mut tx = db.transaction().await?;
/// sqlx::query("insert into users(email) values ('a@b.c')").execute(&mut *tx).await?;
/// let mut inner = tx.begin().await?; // the code under test may open and commit transactions of its own: savepoints
/// sqlx::query("insert into users(email) values ('d@e.f')").execute(&mut *inner).await?;
/// inner.commit().await?;
/// tx.finish().await?; // rolls back, and fails the test if the code under test committed the test's transaction
/// # Ok(()) }
/// ```
///
/// # What it cannot test
/// - `COMMIT` and what happens at one: deferred constraints are checked and `NOTIFY` is delivered only there.
/// - Several connections: a second one, and a service in another process, sees nothing of it.
/// - Retries after serialization failures and anything that needs two transactions at once; `now()` stands still.
/// - After a failed statement every other one fails until a savepoint is rolled back to, as in any transaction.
/// - Sequences are not rolled back (PostgreSQL documentation, 9.17).
///
/// Where one of these matters take a database of one's own per test: [`postgres`](super::postgres), some 20 ms.
#[must_use = "finish it: only `finish` notices that the code under test committed the test's transaction"]
#[derive(Debug)]
pub struct TestTx {
    tx: Transaction<'static, Postgres>,
    pool: PgPool,
    /// The transaction's number, by which the server knows how it ended.
    xid: String,
}

/// Where the session was when the test was done with it.
enum Place {
    /// In the test's transaction, perhaps after a failed statement.
    Inside,
    /// In none, or in another one.
    Elsewhere,
}

impl Database {
    /// Begins a transaction on a connection of the pool that will be rolled back whatever happens.
    ///
    /// # Errors
    /// When the pool gives no connection or the server does not begin.
    pub async fn transaction(&self) -> CoreResult<TestTx> {
        let begin = |error| sql::query_error("begin the test's transaction", error);
        let mut tx = self.pool().begin().await.map_err(begin)?;
        // A number is assigned now: without one the server could not be asked afterwards.
        let rows = sql::rows(&mut tx, "number the test's transaction", "select pg_current_xact_id()::text").await?;
        let xid = rows.first().and_then(|row| row.try_get::<String, _>(0).ok());
        let xid = xid.ok_or_else(|| Error::new(ErrorKind::Protocol, "the test's transaction has no number"))?;
        Ok(TestTx { tx, pool: self.pool().clone(), xid })
    }
}

impl TestTx {
    /// A savepoint: what happens behind it can be committed into this transaction or rolled back alone. Code under test
    /// that calls sqlx' `begin` on the connection gets the same.
    ///
    /// # Errors
    /// When the server does not make it.
    pub async fn savepoint(&mut self) -> CoreResult<Transaction<'_, Postgres>> {
        self.tx.begin().await.map_err(|error| sql::query_error("make a savepoint", error))
    }

    /// Rolls back, and asks the server how the transaction ended.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when the code under test committed the transaction or rolled it back: what it did after
    /// that was outside of it and stays in the database. [`ErrorKind::Connect`] when the connection broke meanwhile.
    pub async fn finish(mut self) -> CoreResult {
        let place = self.place().await?;
        self.tx.rollback().await.map_err(|error| sql::query_error("roll the test's transaction back", error))?;
        let ask = format!("select pg_xact_status('{}'::xid8)", self.xid);
        let what = "ask how the test's transaction ended";
        let mut session = self.pool.acquire().await.map_err(|error| sql::query_error(what, error))?;
        let rows = sql::rows(&mut session, what, ask).await?;
        let status = rows.first().and_then(|row| row.try_get::<Option<String>, _>(0).ok()).flatten();
        match (status.as_deref(), place) {
            (Some("aborted"), Place::Inside) => Ok(()),
            (Some("aborted"), Place::Elsewhere) => Err(left("rolled back")),
            (Some("committed"), _) => Err(left("committed")),
            (other, _) => Err(left(&format!("left behind ({})", other.unwrap_or("unknown")))),
        }
    }

    async fn place(&mut self) -> CoreResult<Place> {
        let ask = "select pg_current_xact_id_if_assigned()::text";
        match sql::rows(&mut self.tx, "look after the test's transaction", ask).await {
            Ok(rows) => {
                let now = rows.first().and_then(|row| row.try_get::<Option<String>, _>(0).ok()).flatten();
                Ok(if now.as_deref() == Some(&self.xid) { Place::Inside } else { Place::Elsewhere })
            }
            // in_failed_sql_transaction: a statement of the test failed, and nobody has left the transaction since.
            Err(error) if sql::has_code(&error, "25P02") => Ok(Place::Inside),
            Err(error) => Err(error),
        }
    }
}

impl Deref for TestTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for TestTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

fn left(how: &str) -> Error {
    let what =
        format!("the code under test {how} the transaction of this test: what it did after that was not isolated");
    Error::new(ErrorKind::Assertion, what).remedy(
        "let it begin its transactions by the driver (they become savepoints), or give the test a database of its own",
    )
}
