//! For tests without a runtime: a plain `#[test]`, and drivers that block.
//!
//! ```
//! # #[cfg(all(feature = "postgres", feature = "checks"))]
//! # mod example {
//! use harness_db::Template;
//!
//! static APP: Template = Template::sql(&["create table users(id serial primary key, email text unique)"]);
//!
//! // Under a plain #[test]:
//! fn saves_a_user() -> harness_db::Result {
//!     let db = APP.database_blocking()?; // or harness_db::blocking::postgres()?
//!     db.run("insert into users(email) values ('a@b.c')")?;
//!     let plan = db.wait(async |db| db.explain("select * from users where email = 'a@b.c'").await)?;
//!     plan.uses_index("users_email_key")?;
//!     // diesel::PgConnection::establish(&db.url())?, postgres::Client::connect(&db.url(), NoTls)?, …
//!     Ok(())
//! }
//! # pub fn run() -> harness_db::Result { saves_a_user() }
//! # }
//! # #[cfg(all(feature = "postgres", feature = "checks"))]
//! # fn main() -> harness_db::Result { example::run() }
//! # #[cfg(not(all(feature = "postgres", feature = "checks")))]
//! # fn main() {}
//! ```
//!
//! The same databases and keyspaces as elsewhere, with the same life: recycled, or kept when the test failed. What has to be
//! awaited runs on a background thread with a runtime of its own, so that these calls also work where a runtime runs
//! already (they hold up its thread meanwhile).
//!
//! # Other drivers
//! The URL is all they need:
//!
//! | driver | one line |
//! |---|---|
//! | diesel | `PgConnection::establish(&db.url())?` |
//! | postgres | `Client::connect(&db.url(), NoTls)?` |
//! | tokio-postgres | `let (client, connection) = tokio_postgres::connect(&db.url(), NoTls).await?; tokio::spawn(connection);` |
//! | deadpool-postgres | `Config { url: Some(db.url()), ..Config::default() }.create_pool(None, NoTls)?` |
//! | sea-orm | `Database::connect(db.url()).await?` |
//! | redis, fred, … | `redis::Client::open(keys.url())?.get_connection()?` |
//!
//! A system under test that runs as a process of its own gets the URL in a variable.

use std::sync::Arc;
use std::time::Duration;

use harness_core::CoreResult;
#[cfg(feature = "postgres")]
use sqlx::{AssertSqlSafe, Executor as _};

use crate::clerk;
#[cfg(feature = "postgres")]
use crate::postgres::Template;

/// How long a database or keyspace may take: a cold start may have to fetch a server first.
const START_LIMIT: Duration = Duration::from_secs(360);
/// How long the work of one call may take.
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// A clean, empty database on the shared server, as [`postgres`](crate::postgres()).
///
/// # Errors
/// As there.
#[cfg(feature = "postgres")]
pub fn postgres() -> CoreResult<Database> {
    Template::empty().database_blocking()
}

#[cfg(feature = "postgres")]
impl Template {
    /// A database that begins as this template, for code without a runtime.
    ///
    /// # Errors
    /// As [`Template::database`].
    pub fn database_blocking(&self) -> CoreResult<Database> {
        let template = *self;
        let work = move || async move { template.database().await };
        Ok(Database { inner: Arc::new(clerk::run_blocking("a database", START_LIMIT, work)?) })
    }
}

/// A database of its own for one test without a runtime.
///
/// There is no pool here: it would belong to a runtime that the caller does not have. Hand the URL to a driver, or let
/// [`Database::wait`] run what has to be awaited.
#[cfg(feature = "postgres")]
#[must_use = "the database goes when this value is dropped"]
#[derive(Debug)]
pub struct Database {
    inner: Arc<crate::postgres::Database>,
}

#[cfg(feature = "postgres")]
impl Database {
    /// The URL, for drivers and for the system under test.
    #[must_use]
    pub fn url(&self) -> String {
        self.inner.url()
    }

    /// The name of the database.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Runs SQL text (one or several statements), for at most 120 s.
    ///
    /// # Errors
    /// With the server's words when it refuses a statement.
    pub fn run(&self, statements: &str) -> CoreResult {
        let text = statements.to_owned();
        self.wait(async move |db| {
            let done = db.pool().execute(sqlx::raw_sql(AssertSqlSafe(text))).await;
            done.map(drop).map_err(|error| crate::postgres::sql::query_error("run the statement", error))
        })
    }

    /// Runs asynchronous work with the database on the background thread and waits for it, for at most 120 s. Every check of
    /// [`crate::Database`] is at hand there; its pool belongs to that thread.
    ///
    /// # Errors
    /// Those of the work; [`ErrorKind::Timeout`](harness_core::ErrorKind::Timeout) when it takes longer, and
    /// [`ErrorKind::Exited`](harness_core::ErrorKind::Exited) when it panics.
    pub fn wait<T, W>(&self, work: W) -> CoreResult<T>
    where
        T: Send + 'static,
        W: AsyncFnOnce(&crate::postgres::Database) -> CoreResult<T> + Send + 'static,
    {
        let database = Arc::clone(&self.inner);
        clerk::run_blocking("work on the database", WORK_LIMIT, move || async move { work(&database).await })
    }
}

/// A logical database of its own on the shared Redis, as [`redis`](crate::redis()).
///
/// # Errors
/// As there.
#[cfg(feature = "redis")]
pub fn redis() -> CoreResult<Keyspace> {
    let work = || async { crate::redis::redis().await };
    Ok(Keyspace { inner: Arc::new(clerk::run_blocking("a keyspace", START_LIMIT, work)?) })
}

/// A logical Redis database of its own for one test without a runtime.
#[cfg(feature = "redis")]
#[must_use = "the keyspace goes when this value is dropped"]
#[derive(Debug)]
pub struct Keyspace {
    inner: Arc<crate::redis::Keyspace>,
}

#[cfg(feature = "redis")]
impl Keyspace {
    /// The URL, for drivers and for the system under test.
    #[must_use]
    pub fn url(&self) -> String {
        self.inner.url()
    }

    /// The index of the logical database; never 0.
    #[must_use]
    pub fn index(&self) -> i64 {
        self.inner.index()
    }

    /// Runs asynchronous work with the keyspace on the background thread and waits for it, for at most 120 s.
    ///
    /// # Errors
    /// Those of the work; [`ErrorKind::Timeout`](harness_core::ErrorKind::Timeout) when it takes longer, and
    /// [`ErrorKind::Exited`](harness_core::ErrorKind::Exited) when it panics.
    pub fn wait<T, W>(&self, work: W) -> CoreResult<T>
    where
        T: Send + 'static,
        W: AsyncFnOnce(&crate::redis::Keyspace) -> CoreResult<T> + Send + 'static,
    {
        let keyspace = Arc::clone(&self.inner);
        clerk::run_blocking("work on the keyspace", WORK_LIMIT, move || async move { work(&keyspace).await })
    }
}
