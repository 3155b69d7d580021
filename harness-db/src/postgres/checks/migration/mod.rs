//! Migrations under test: there and back with rows in the tables, run twice, edited afterwards, under live traffic.
//!
//! ```no_run
//! use harness_db::Migrations;
//!
//! # async fn body() -> harness_db::Result {
//! let db = harness_db::postgres().await?;
//! Migrations::new("migrations")
//!     .round_trip(&db)
//!     .with_rows_between(|version| match version {
//!         1 => "insert into users(email) values ('a@b.c')",
//!         _ => "",
//!     })
//!     .compatible_with(1, |pool| async move {
//!         harness_db::sqlx::query("select id, email from users").execute(&pool).await.map(drop)
//!     })
//!     .await?
//!     .check()?;
//! # Ok(()) }
//! ```
//!
//! The engine writes the `_sqlx_migrations` table as sqlx does: a service that runs `sqlx::migrate!` at its start finds
//! nothing to do. Whoever migrates with something else hands in a closure: [`Migrations::run_by`].

mod apply;
mod contents;
mod drift;
mod identity;
#[cfg(feature = "lint")]
pub mod lint;
mod locks;
mod mode;
mod report;
mod round;
mod runner;
mod statements;
mod traffic;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};

use crate::postgres::books;

pub use crate::postgres::books::Migration;
pub use apply::Applied;
pub use drift::Drift;
pub use locks::{LockReport, Statement, TakenLock};
pub use mode::LockMode;
pub use report::{RoundTripReport, StepReport};
pub use round::RoundTrip;
pub use traffic::Traffic;
pub use watch::LockWatch;

/// Tables in which the usual tools keep their books; they are no part of the schema that is compared.
const BOOKS: [&str; 3] = ["_sqlx_migrations", "refinery_schema_history", "__diesel_schema_migrations"];
/// How long one migration may take, unless asked otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// A set of migrations: a directory, a list of SQL, or whatever a runner of the user's own does.
#[derive(Debug, Clone)]
#[must_use = "migrations do nothing until they are applied or checked"]
pub struct Migrations {
    from: From,
    limit: Duration,
    books: Vec<String>,
}

#[derive(Debug, Clone)]
enum From {
    Dir(PathBuf),
    List(Vec<Migration>),
    Own(OwnRunner),
}

/// What a closure of the user's gives back.
type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// A closure that is given the URL of a database.
type Run = Arc<dyn Fn(String) -> Answer + Send + Sync>;

#[derive(Clone)]
struct OwnRunner {
    up: Run,
    down: Option<Run>,
}

impl fmt::Debug for OwnRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRunner").field("can_undo", &self.down.is_some()).finish_non_exhaustive()
    }
}

/// Boxes a closure, its error as text.
fn boxed<F, Fut, E>(run: F) -> Run
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display,
{
    Arc::new(move |url| {
        let answer = run(url);
        Box::pin(async move { answer.await.map_err(|error| format!("{error:#}")) })
    })
}

impl Migrations {
    /// The migrations of a directory, in the layout of sqlx, refinery, diesel or a numbered list.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::from(From::Dir(dir.into()))
    }

    /// Statements as migrations 1, 2, 3, …, without ways back.
    pub fn sql(statements: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::from(From::List(listed(statements)))
    }

    /// Migrations as data, for example with ways back: `Migration::new(1, "users", "create …").down("drop …")`.
    pub fn list(migrations: impl IntoIterator<Item = Migration>) -> Self {
        let mut list: Vec<Migration> = migrations.into_iter().collect();
        list.sort_by_key(|migration| migration.version);
        Self::from(From::List(list))
    }

    /// Whatever this closure does to the database of this URL: refinery, diesel, a binary of the service. It counts as one
    /// migration; what looks into single ones (drift, locks) is not to be had.
    pub fn run_by<F, Fut, E>(up: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Self::from(From::Own(OwnRunner { up: boxed(up), down: None }))
    }

    /// How the closure's work is undone, so that it can make the round trip.
    pub fn undone_by<F, Fut, E>(mut self, down: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        if let From::Own(runner) = &mut self.from {
            runner.down = Some(boxed(down));
        }
        self
    }

    /// How long one migration may take; 60 s unless asked.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// A table in which a runner keeps its books; those of sqlx, refinery and diesel are known.
    pub fn bookkeeping(mut self, table: impl Into<String>) -> Self {
        self.books.push(table.into());
        self
    }

    /// Reads the migrations, in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a directory that is missing, empty or ambiguous, for two migrations of one number, and for
    /// [`Migrations::run_by`], which has none to read.
    pub fn read(&self) -> CoreResult<Vec<Migration>> {
        match &self.from {
            From::Dir(dir) => books::read_dir(dir),
            From::List(list) => match list.windows(2).find(|pair| pair[0].version == pair[1].version) {
                Some(pair) => {
                    Err(Error::new(ErrorKind::Config, format!("two migrations have the number {}", pair[0].version)))
                }
                None => Ok(list.clone()),
            },
            From::Own(_) => Err(Error::new(ErrorKind::Config, "a runner of your own does not show its migrations")
                .remedy("use Migrations::new(\"migrations\") for what looks into single ones")),
        }
    }

    fn from(from: From) -> Self {
        Self { from, limit: LIMIT, books: BOOKS.map(str::to_owned).to_vec() }
    }

    fn books(&self) -> Vec<&str> {
        self.books.iter().map(String::as_str).collect()
    }
}

/// Statements as migrations 1, 2, 3, …
fn listed(statements: impl IntoIterator<Item = impl Into<String>>) -> Vec<Migration> {
    (1..).zip(statements).map(|(version, up)| Migration::new(version, "", up)).collect()
}
