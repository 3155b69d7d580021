//! Which statements reach a database, counted by the server: `pg_stat_statements`.
//!
//! The server counts per database, and a test's database is its own: whatever was counted there, the test caused. The
//! counters are read over the maintenance database, so the test's database needs no extension, and they are never reset,
//! since other tests share them. Statements of the harness itself are left out.
//!
//! Counts are a lower bound when the server threw entries away meanwhile, or when a transaction that ran statements was
//! still open at the end: a check that would have held then ends as [`ErrorKind::NoEvidence`].
//!
//! Source: PostgreSQL documentation, "pg_stat_statements" (F.30 in version 15).

mod check;
mod injection;
mod reads;
mod slowest;
mod source;

use std::fmt;
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};

pub use injection::{INJECTION_CORPUS, Parameterised, Returned};
pub use reads::{Reads, TableReads};
pub use slowest::{Slow, SlowList, Slowest};

use super::Database;
use source::{Snapshot, Source};

/// One statement with its literals replaced by parameters, and what all its calls took together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statement {
    /// The server's identity of it (`queryid`): the same for texts that differ in literals only.
    pub id: i64,
    /// The statement, `$1` for each literal.
    pub text: String,
    /// How often it was called.
    pub calls: u64,
    /// Time all calls took in the server.
    pub total: Duration,
    /// Rows it returned or changed.
    pub rows: u64,
    /// Shared blocks of 8 KiB it touched, in the cache or not.
    pub blocks: u64,
    /// Temporary blocks it wrote.
    pub temp_blocks: u64,
    /// Records of write-ahead log it made.
    pub wal_records: u64,
    /// Bytes of write-ahead log it made.
    pub wal_bytes: u64,
}

/// The statements that reached a database while a block ran.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Statements<T = ()> {
    /// What the block gave.
    pub output: T,
    /// The statements, by total time, longest first.
    pub all: Vec<Statement>,
    /// How long the block took by the test's clock.
    pub took: Duration,
    /// Why the counts are a lower bound, if they are.
    pub incomplete: Option<String>,
}

/// How a block ended: a value, or an error that makes everything counted worthless.
pub trait Ended {
    /// What it gave.
    type Value;

    /// The value, or the words of the error.
    ///
    /// # Errors
    /// The error of the block, in its own words.
    fn ended(self) -> Result<Self::Value, String>;
}

impl Ended for () {
    type Value = ();

    fn ended(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T, E: fmt::Display> Ended for Result<T, E> {
    type Value = T;

    fn ended(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

impl Database {
    /// Runs a block and counts the statements that reach this database meanwhile, from whatever session.
    ///
    /// ```
    /// # async fn example() -> harness_db::Result {
    /// let db = harness_db::postgres().await?;
    /// # if !db.server().capabilities().pg_stat_statements { return Ok(()) } // nothing is counted here
    /// let seen = db.statements(async || sqlx::query("select 1 as one").execute(db.pool()).await).await?;
    /// seen.at_most(1)?; // N+1 guard: prints the repeated statement and its count
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the server does not count statements; [`ErrorKind::Assertion`] with the words of a
    /// block that failed, since it ran a part of its statements only.
    pub async fn statements<B: Ended>(&self, block: impl AsyncFnOnce() -> B) -> CoreResult<Statements<B::Value>> {
        let mut source = Source::open(self).await?;
        let before = source.snapshot(false).await?;
        let seen = count(&mut source, &before, block).await;
        source.close().await;
        seen
    }
}

/// Runs the block and gives what came on top of `before`.
async fn count<B: Ended>(
    source: &mut Source,
    before: &Snapshot,
    block: impl AsyncFnOnce() -> B,
) -> CoreResult<Statements<B::Value>> {
    let begun = Instant::now();
    let ended = block().await.ended();
    let took = begun.elapsed();
    let output = ended.map_err(|error| {
        Error::new(ErrorKind::Assertion, format!("the block whose statements were to be counted failed: {error}"))
    })?;
    let unfinished = source.settle(before).await?;
    let after = source.snapshot(true).await?;
    let (mut all, lost) = after.since(before);
    all.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.text.cmp(&b.text)));
    Ok(Statements { output, all, took, incomplete: lost.or(unfinished) })
}

impl Statement {
    /// Mean time of one call.
    #[must_use]
    pub fn mean(&self) -> Duration {
        match u32::try_from(self.calls) {
            Ok(0) => Duration::ZERO,
            Ok(calls) => self.total / calls,
            Err(_) => self.total.div_f64(self.calls as f64),
        }
    }

    /// True for the control of transactions and sessions (`BEGIN`, `COMMIT`, `SET`, …), which checks do not count.
    #[must_use]
    pub fn is_control(&self) -> bool {
        const WORDS: [&str; 13] = [
            "BEGIN",
            "START",
            "COMMIT",
            "END",
            "ROLLBACK",
            "ABORT",
            "SAVEPOINT",
            "RELEASE",
            "SET",
            "RESET",
            "SHOW",
            "DEALLOCATE",
            "DISCARD",
        ];
        let first = self.text.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty());
        first.is_some_and(|first| WORDS.iter().any(|word| word.eq_ignore_ascii_case(first)))
    }

    /// The text on one line, at most so many characters long.
    pub(crate) fn short(&self, most: usize) -> String {
        let line = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(most) {
            Some((at, _)) => format!("{}…", &line[..at]),
            None => line,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, rows, mean) = (self.calls, self.rows, seconds(self.mean()));
        write!(f, "{calls}× {} ({rows} rows, {mean} each)", self.short(200))
    }
}

impl<T> fmt::Display for Statements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} statements in {}", self.calls(), seconds(self.took))?;
        self.all.iter().try_for_each(|statement| writeln!(f, "  {statement}"))?;
        match &self.incomplete {
            Some(why) => writeln!(f, "  a lower bound: {why}"),
            None => Ok(()),
        }
    }
}
