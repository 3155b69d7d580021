//! Serialization failures, retried and counted.
//!
//! The server does not count `serialization_failure` (40001): they reach the client alone, and in the server's statistics
//! they are rollbacks among others ([`Database::transaction_counts`]). So they can be counted where they are met: by
//! transactions that run through [`Retries::run`], and by errors of other code that are shown to [`Retries::saw`]. What a
//! service retries inside itself and tells nobody cannot be seen from outside; deadlocks (40P01) can, by
//! [`Database::deadlocks`]. Why to retry at all: PostgreSQL docs 13.5, "Serialization Failure Handling".

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_core::wait::pause;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

use super::sampling::{hold, locked};
use super::{Database, sql};

/// Tries of one transaction, unless set otherwise.
const TRIES: u32 = 10;
/// The pause before the second try; it doubles with each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Runs transactions, tries them again when they lose against another one, and counts; clones count together.
#[derive(Debug, Clone)]
pub struct Retries {
    pool: PgPool,
    begin: &'static str,
    tries: u32,
    counts: Arc<Mutex<RetryCounts>>,
}

/// What transactions met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryCounts {
    /// Transactions that were asked for.
    pub runs: u64,
    /// Transactions that were begun, retries included.
    pub tries: u64,
    /// Tries that ended in `serialization_failure` (40001).
    pub serialization_failures: u64,
    /// Tries that ended in `deadlock_detected` (40P01).
    pub deadlocks: u64,
    /// Tries that were begun because the one before had lost.
    pub retried: u64,
    /// Losses that reached the caller: out of tries, or shown to [`Retries::saw`].
    pub surfaced: u64,
    /// The first loss that reached the caller, in the server's words.
    pub first_surfaced: Option<String>,
    /// Transactions that failed for another reason.
    pub failed: u64,
}

/// A transaction lost against another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Serialization,
    Deadlock,
}

fn lost(error: &sqlx::Error) -> Option<Lost> {
    match error.as_database_error()?.code()?.as_ref() {
        "40001" => Some(Lost::Serialization),
        "40P01" => Some(Lost::Deadlock),
        _ => None,
    }
}

impl Database {
    /// A runner of serializable transactions on this database's pool.
    #[must_use]
    pub fn retries(&self) -> Retries {
        Retries::of(self.pool())
    }

    /// Transactions of this database that the server has counted (`pg_stat_database`): supporting evidence, since a
    /// rollback says nothing about its reason, and sessions publish their counts up to 10 s late, or when they end.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn transaction_counts(&self) -> CoreResult<TransactionCounts> {
        let mut session = sql::connect(&self.observer()).await?;
        let text = format!(
            "select coalesce(xact_commit, 0) as commits, coalesce(xact_rollback, 0) as rollbacks \
             from pg_stat_database where datname = {}",
            sql::literal(self.name())
        );
        let rows = sql::rows(&mut session, "count the transactions", text).await?;
        let _ = session.close().await;
        let gone = || Error::new(ErrorKind::NoEvidence, format!("the server knows no database {}", self.name()));
        let row = rows.first().ok_or_else(gone)?;
        let number = |name: &str| match row.try_get::<i64, _>(name) {
            Ok(number) => Ok(number.max(0).cast_unsigned()),
            Err(error) => Err(sql::query_error("read the count of transactions", error)),
        };
        Ok(TransactionCounts { commits: number("commits")?, rollbacks: number("rollbacks")? })
    }
}

/// Transactions of a database since its statistics were reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionCounts {
    /// Committed.
    pub commits: u64,
    /// Rolled back, for whatever reason.
    pub rollbacks: u64,
}

impl Retries {
    /// On this pool: serializable, up to 10 tries.
    #[must_use]
    pub fn of(pool: &PgPool) -> Self {
        Self { pool: pool.clone(), begin: "begin isolation level serializable", tries: TRIES, counts: Arc::default() }
    }

    /// At `REPEATABLE READ` instead.
    #[must_use]
    pub fn repeatable_read(mut self) -> Self {
        self.begin = "begin isolation level repeatable read";
        self
    }

    /// Sets how often one transaction is tried, the first time included; 1 never retries.
    #[must_use]
    pub fn tries(mut self, most: u32) -> Self {
        self.tries = most.max(1);
        self
    }

    /// Runs a transaction and commits it. When it loses against another one, at a statement or at its commit, it is rolled
    /// back and run again from the beginning, after a pause of 1 ms that doubles up to 50 ms.
    ///
    /// ```no_run
    /// # async fn example(db: &harness_db::Database) -> harness_db::Result {
    /// let retries = db.retries();
    /// retries.run(async |tx| sqlx::query("update stock set left = left - 1").execute(&mut *tx).await).await?;
    /// retries.check_none_surfaced()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The last loss when the tries are used up, or what else the transaction ended with.
    pub async fn run<T>(
        &self,
        mut work: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> CoreResult<T> {
        locked(&self.counts).runs += 1;
        let (mut tried, mut wait) = (0, FIRST_PAUSE);
        loop {
            let error = match self.once(&mut work).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            tried += 1;
            if let Some(what) = self.gives_up(&error, tried) {
                return Err(sql::query_error(&what, error));
            }
            pause(wait).await;
            wait = (wait * 2).min(LONGEST_PAUSE);
        }
    }

    /// Counts what a try ended with; says what failed when there shall be no other.
    fn gives_up(&self, error: &sqlx::Error, tried: u32) -> Option<String> {
        let mut counts = locked(&self.counts);
        let Some(loss) = lost(error) else {
            counts.failed += 1;
            return Some("run the transaction".to_owned());
        };
        counts.met(loss);
        if tried < self.tries {
            counts.retried += 1;
            return None;
        }
        counts.surface(error);
        Some(format!("run the transaction: it lost against another one, {tried} times"))
    }

    async fn once<T>(
        &self,
        work: &mut impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        locked(&self.counts).tries += 1;
        let mut transaction = connection.begin_with(self.begin).await?;
        let value = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(value)
    }

    /// Counts an error that other code let through to its caller; true when it was a lost transaction.
    pub fn saw(&self, error: &sqlx::Error) -> bool {
        let Some(loss) = lost(error) else { return false };
        let mut counts = locked(&self.counts);
        counts.met(loss);
        counts.surface(error);
        true
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> RetryCounts {
        locked(&self.counts).clone()
    }

    /// Passes when transactions were lost, and every loss was made good by a retry. Without a single loss nothing is known
    /// about retrying: no evidence.
    #[must_use]
    pub fn none_surfaced(&self) -> Outcome {
        self.counts().none_surfaced()
    }

    /// The failed [`Retries::none_surfaced`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the first loss that surfaced; [`ErrorKind::NoEvidence`] without any loss.
    pub fn check_none_surfaced(&self) -> CoreResult {
        hold(self.none_surfaced())
    }
}

impl RetryCounts {
    fn met(&mut self, loss: Lost) {
        match loss {
            Lost::Serialization => self.serialization_failures += 1,
            Lost::Deadlock => self.deadlocks += 1,
        }
    }

    fn surface(&mut self, error: &sqlx::Error) {
        self.surfaced += 1;
        self.first_surfaced.get_or_insert_with(|| error.to_string());
    }

    fn none_surfaced(&self) -> Outcome {
        match (&self.first_surfaced, self.serialization_failures + self.deadlocks) {
            (Some(first), _) => Outcome::fail(format!("{self}; the first that surfaced: {first}")),
            (None, 0) => Outcome::no_evidence(format!("no transaction lost against another one: {self}")),
            (None, _) => Outcome::pass(self.to_string()),
        }
    }
}

impl fmt::Display for RetryCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transactions, {} tries, {} serialization failures, {} deadlocks, {} retried, {} surfaced",
            self.runs, self.tries, self.serialization_failures, self.deadlocks, self.retried, self.surfaced
        )
    }
}

#[cfg(test)]
mod tests {
    use super::RetryCounts;

    #[test]
    fn loss_that_surfaces_fails_and_no_loss_is_no_evidence() {
        let made_good =
            RetryCounts { runs: 2, tries: 3, serialization_failures: 1, retried: 1, ..RetryCounts::default() };
        let outcome = made_good.none_surfaced();
        assert!(outcome.is_pass() && outcome.detail().contains("1 retried, 0 surfaced"), "{outcome}");
        assert!(RetryCounts { runs: 2, tries: 2, ..RetryCounts::default() }.none_surfaced().is_no_evidence());
        let surfaced = RetryCounts { surfaced: 1, first_surfaced: Some("planted".into()), ..made_good };
        assert!(surfaced.none_surfaced().detail().ends_with("the first that surfaced: planted"));
    }
}
