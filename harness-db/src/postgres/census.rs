//! Connections of a Postgres as a kind of things that a test can leak.

use harness_core::CoreResult;
use harness_core::scope::{Listing, Register};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use std::collections::BTreeSet;

use super::sql;

/// The sessions of an `application_name`, for [`TestScope::census`](harness_core::scope::TestScope::census).
///
/// ```no_run
/// use harness_core::scope::{Census, TestScope};
/// use harness_db::postgres::Connections;
///
/// # async fn body() -> harness_db::Result {
/// let (scope, db) = (TestScope::current(), harness_db::postgres().await?);
/// scope.census(Census::new().register(Connections::of(&db.options(), "orders"))).await?;
/// // … the system under test connects as `orders`, and has to be gone from the server at the end …
/// scope.shutdown().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Connections {
    options: PgConnectOptions,
    application_name: String,
}

impl Connections {
    /// The sessions of this name in all databases of the server; those of other users are seen by their name, too.
    #[must_use]
    pub fn of(server: &PgConnectOptions, application_name: impl Into<String>) -> Self {
        let options = server.clone().application_name("harness-census").disable_statement_logging();
        Self { options, application_name: application_name.into() }
    }

    async fn sessions(&self) -> CoreResult<BTreeSet<String>> {
        let mut session = sql::connect(&self.options).await?;
        let query = format!(
            "select pid, coalesce(datname, '') as database, backend_start::text as since \
             from pg_stat_activity \
             where application_name = {} and pid <> pg_backend_pid()",
            sql::literal(&self.application_name)
        );
        let rows = sql::rows(&mut session, "list sessions", query).await?;
        let _ = session.close().await;
        let line = |row: &sqlx::postgres::PgRow| -> Result<String, sqlx::Error> {
            let (pid, database): (i32, String) = (row.try_get("pid")?, row.try_get("database")?);
            // What changes while a session lives is no part of its line.
            Ok(format!("session {pid} of database {database} since {}", row.try_get::<String, _>("since")?))
        };
        rows.iter().map(|row| line(row).map_err(|error| sql::query_error("read a session", error))).collect()
    }
}

impl Register for Connections {
    fn name(&self) -> String {
        format!("connections of `{}`", self.application_name)
    }

    fn list(&self) -> Listing<'_> {
        Box::pin(self.sessions())
    }
}
