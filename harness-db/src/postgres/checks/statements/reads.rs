//! Rows that the server read against rows that it returned.
//!
//! Source: PostgreSQL documentation, "The Cumulative Statistics System" (28.2): `pg_stat_user_tables`. A session publishes
//! these counts when it ends, about once a second while it works, or after 10 s of idling; those of the test's own pool are
//! asked to publish at once. What other sessions may hold back is said, and proves nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{Connection as _, PgPool, Row as _};

use super::source::{OWN, Source, one};
use super::{Ended, Statements, count};
use crate::postgres::{Database, sql};

/// How long connections may take to come back to the pool and publish.
const PUBLISHES_WITHIN: Duration = Duration::from_secs(1);

/// Rows read while a block ran, per table, and the statements that read them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Reads<T = ()> {
    /// The statements.
    pub statements: Statements<T>,
    /// The tables that were read, the most read first.
    pub tables: Vec<TableReads>,
    /// Sessions that may have read rows in the block and not told yet: the counts are a lower bound.
    pub untold: u32,
    /// Sessions that may have told in the block what they had read before: the counts may be too high.
    pub late: u32,
}

/// Rows read from one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableReads {
    /// The table, as `schema.name`.
    pub table: String,
    /// Sequential scans begun.
    pub scans: u64,
    /// Rows read by sequential scans.
    pub scanned_rows: u64,
    /// Rows fetched by index scans; an index-only scan fetches none.
    pub fetched_rows: u64,
}

impl Database {
    /// Runs a block and counts the rows that the server reads for it, against the rows that its statements return. Run it
    /// on [`Database::pool`], or close the service's own pool inside the block: see the module for why.
    ///
    /// # Errors
    /// As [`Database::statements`].
    pub async fn reads<B: Ended>(&self, block: impl AsyncFnOnce() -> B) -> CoreResult<Reads<B::Value>> {
        let late = untold(self).await?;
        let tables = tables(self).await?;
        let mut source = Source::open(self).await?;
        let before = source.snapshot(false).await?;
        let statements = count(&mut source, &before, block).await;
        source.close().await;
        let statements = statements?;
        let untold = untold(self).await?;
        let mut after = self::tables(self).await?;
        for (name, reads) in &mut after {
            let then = tables.get(name).cloned().unwrap_or_default();
            reads.scans = reads.scans.saturating_sub(then.scans);
            reads.scanned_rows = reads.scanned_rows.saturating_sub(then.scanned_rows);
            reads.fetched_rows = reads.fetched_rows.saturating_sub(then.fetched_rows);
        }
        let mut tables: Vec<TableReads> = after.into_values().filter(|reads| reads.rows() > 0).collect();
        tables.sort_by_key(|reads| std::cmp::Reverse(reads.rows()));
        Ok(Reads { statements, tables, untold, late })
    }
}

/// Makes the pool's idle connections publish, and says how many other sessions may hold counts back.
async fn untold(database: &Database) -> CoreResult<u32> {
    let mut admin = sql::connect(database.server().options()).await?;
    let mut left = 0;
    let told = wait_for("sessions to publish what they read", PUBLISHES_WITHIN, async || {
        let pids = match publish(database.pool()).await {
            Ok(pids) => pids,
            Err(error) => return Progress::Failed(error),
        };
        // One that has idled for 10.5 s has published.
        let text = format!(
            "select count(*)::text as {OWN} from pg_stat_activity where datname = {} and backend_type = 'client backend' \
             and pid <> pg_backend_pid() and not (pid = any('{{{}}}'::int[])) \
             and not (state = 'idle' and extract(epoch from clock_timestamp() - state_change) > 10.5)",
            sql::literal(database.name()),
            pids.join(","),
        );
        match one(&mut admin, "look for sessions that hold counts back", text).await {
            Err(error) => Progress::Failed(error),
            Ok(n) => match n.and_then(|n| n.parse::<u32>().ok()).unwrap_or_default() {
                0 => Progress::Ready(()),
                n => {
                    left = n;
                    Progress::NotYet(format!("{n} sessions hold counts back"))
                }
            },
        }
    })
    .await;
    let _ = admin.close().await;
    match told {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(left.max(1)),
        Err(error) => Err(error),
    }
}

/// Has every idle connection of the pool publish its counts; their process ids.
async fn publish(pool: &PgPool) -> CoreResult<Vec<String>> {
    let idle: Vec<_> = std::iter::from_fn(|| pool.try_acquire()).collect();
    let mut pids = Vec::new();
    for mut connection in idle {
        let text = format!("select pg_stat_force_next_flush()::text, pg_backend_pid()::text as {OWN}");
        pids.extend(one(&mut connection, "publish what was read", text).await?);
    }
    Ok(pids)
}

async fn tables(database: &Database) -> CoreResult<BTreeMap<String, TableReads>> {
    let what = "read the counts of rows read";
    let mut session = database.connect().await?;
    let text = format!(
        "select schemaname || '.' || relname as {OWN}, coalesce(seq_scan, 0) as scans, coalesce(seq_tup_read, 0) as scanned, \
         coalesce(idx_tup_fetch, 0) as fetched from pg_stat_user_tables"
    );
    let rows = sql::rows(&mut session, what, text).await?;
    let _ = session.close().await;
    let read = |row: &sqlx::postgres::PgRow| {
        let n = |name: &str| row.try_get::<i64, _>(name).map(|n| n.max(0).cast_unsigned());
        let table: String = row.try_get(OWN)?;
        let reads = TableReads { scans: n("scans")?, scanned_rows: n("scanned")?, fetched_rows: n("fetched")?, table };
        Ok::<_, sqlx::Error>((reads.table.clone(), reads))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error(what, error))
}

impl TableReads {
    /// Rows read in either way.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.scanned_rows + self.fetched_rows
    }
}

impl fmt::Display for TableReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, scans, scanned_rows, fetched_rows } = self;
        write!(f, "{table}: {scanned_rows} rows in {scans} scans, {fetched_rows} rows by index")
    }
}

impl<T> Reads<T> {
    /// Rows read from all tables.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.tables.iter().map(TableReads::rows).sum()
    }

    /// Rows that the statements returned or changed.
    #[must_use]
    pub fn rows_returned(&self) -> u64 {
        self.statements.rows()
    }

    /// Holds when at most this many rows were read for each row that was returned (for none: in all).
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the tables and statements; [`ErrorKind::NoEvidence`] when no statement ran, or when
    /// sessions outside the pool may hold back what they read.
    pub fn per_row_at_most(&self, limit: f64) -> CoreResult<&Self> {
        let (read, returned) = (self.rows_read(), self.rows_returned());
        let held = read as f64 <= limit * returned.max(1) as f64;
        let doubt = if held { self.untold } else { self.late };
        if doubt > 0 {
            let what = format!("{doubt} sessions outside the pool may have read rows without telling, or told late");
            let error = Error::new(ErrorKind::NoEvidence, what);
            return Err(error.remedy("run the block on `db.pool()`, and close other sessions before and inside it"));
        }
        if held {
            return self.statements.evidence(false).map(|_| self);
        }
        let what = format!("{read} rows were read to return {returned}, at most {limit} each are allowed");
        let lines = self.tables.iter().take(3).map(ToString::to_string);
        let lines = lines.chain(self.statements.top(3).iter().map(ToString::to_string));
        let error = lines.fold(Error::new(ErrorKind::Assertion, what), Error::tried);
        Err(error.remedy("create an index for the condition, or ask for the rows that are needed only"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::{Reads, Statements, TableReads};
    use crate::postgres::checks::statements::Statement;

    fn reads(scanned_rows: u64, rows: u64) -> Reads {
        let statement = Statement { text: "select 1".into(), calls: 1, rows, ..Statement::default() };
        let statements = Statements { output: (), all: vec![statement], took: Duration::ZERO, incomplete: None };
        let tables = vec![TableReads { table: "public.t".into(), scans: 1, scanned_rows, fetched_rows: 0 }];
        Reads { statements, tables, untold: 0, late: 0 }
    }

    #[test]
    fn rows_read_are_held_against_rows_returned() {
        assert!(reads(50, 5).per_row_at_most(10.0).is_ok());
        let text = format!("{:?}", reads(51, 5).per_row_at_most(10.0).unwrap_err());
        assert!(
            text.contains("51 rows were read to return 5") && text.contains("public.t: 51 rows in 1 scans"),
            "{text}"
        );
        assert!(reads(11, 0).per_row_at_most(10.0).is_err());
    }

    #[test]
    fn doubt_that_could_turn_the_verdict_is_no_evidence() {
        let kind = |reads: Reads| reads.per_row_at_most(10.0).map(drop).map_err(|error| error.kind());
        assert_eq!(kind(Reads { untold: 1, ..reads(50, 5) }), Err(ErrorKind::NoEvidence));
        assert_eq!(kind(Reads { untold: 1, ..reads(51, 5) }), Err(ErrorKind::Assertion), "more reads cannot heal it");
        assert_eq!(kind(Reads { late: 1, ..reads(51, 5) }), Err(ErrorKind::NoEvidence));
        assert_eq!(kind(Reads { late: 1, ..reads(50, 5) }), Ok(()));
    }
}
