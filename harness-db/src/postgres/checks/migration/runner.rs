//! The engine: one migration up or down, in the books of sqlx.
//!
//! Table, columns, checksums, lock and transactions are those of sqlx 0.9, so that either finds the other's work done.

use std::time::{Duration, Instant};

use harness_core::wait::{seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::postgres::books::{CREATE, Migration, booked};
use crate::postgres::{Database, sql};

/// How long another runner may hold the lock of this database.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How much longer than the limit of the server the client waits.
const GRACE: Duration = Duration::from_secs(2);

/// One line of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: i64,
    pub(super) checksum: Vec<u8>,
    pub(super) success: bool,
}

/// A session that holds the migration lock of its database.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) session: PgConnection,
    pub(super) limit: Duration,
}

impl Runner {
    /// Takes the lock and opens the books.
    pub(super) async fn open(database: &Database, limit: Duration) -> CoreResult<Self> {
        let mut session = database.connect().await?;
        let text = format!(
            "set lock_timeout = {}; select pg_advisory_lock({}); reset lock_timeout",
            LOCK_LIMIT.as_millis(),
            lock_id(database.name())
        );
        sql::run(&mut session, "take the migration lock", text).await.map_err(|error| {
            match sql::has_code(&error, "55P03") {
                true => Error::new(ErrorKind::Timeout, format!("another runner migrates `{}`", database.name()))
                    .tried(format!("waited {} for its lock", seconds(LOCK_LIMIT))),
                false => error,
            }
        })?;
        // `if not exists` says a notice when it exists, and takes a transaction number when not.
        if !has_books(&mut session).await? {
            sql::run(&mut session, "open the books of migrations", CREATE).await?;
        }
        let text = format!("set statement_timeout = {}", limit.as_millis());
        sql::run(&mut session, "set the limit of a migration", text).await?;
        Ok(Self { session, limit })
    }

    /// Applies one migration and books it; `None` when another runner did so before the lock was ours.
    pub(super) async fn up(&mut self, migration: &Migration) -> CoreResult<Option<Duration>> {
        if records(&mut self.session).await?.iter().any(|record| record.version == migration.version) {
            return Ok(None);
        }
        let begun = Instant::now();
        self.script(migration, &migration.up, migration.no_tx, &booked(migration)).await?;
        let took = begun.elapsed();
        let text = format!(
            "update _sqlx_migrations set execution_time = {} where version = {}",
            took.as_nanos().min(i64::MAX as u128),
            migration.version
        );
        sql::run(&mut self.session, "book a migration's time", text).await?;
        Ok(Some(took))
    }

    /// Takes one migration back and strikes it from the books.
    pub(super) async fn down(&mut self, migration: &Migration) -> CoreResult<Duration> {
        let begun = Instant::now();
        let Some(down) = &migration.down else {
            return Err(Error::new(ErrorKind::Config, format!("{} has no way back", migration.place())));
        };
        let strike = format!("delete from _sqlx_migrations where version = {}", migration.version);
        self.script(migration, down, migration.down_no_tx(), &strike).await?;
        Ok(begun.elapsed())
    }

    /// Ends the session and with it the lock.
    pub(super) async fn close(self) {
        let _ = self.session.close().await;
    }

    async fn script(&mut self, migration: &Migration, script: &str, no_tx: bool, book: &str) -> CoreResult {
        let what = format!("migration {}", migration.label());
        let limit = self.limit + GRACE;
        let work = async {
            if no_tx {
                return self.text(migration, script, book).await;
            }
            sql::run(&mut self.session, "begin a migration", "begin").await?;
            let done = self.text(migration, script, book).await;
            let end = if done.is_ok() { "commit" } else { "rollback" };
            let ended = sql::run(&mut self.session, "end a migration", end).await;
            done.and_then(|()| ended.map_err(|error| Error::new(error.kind(), failure(migration)).caused_by(error)))
        };
        within(what, limit, work).await?
    }

    async fn text(&mut self, migration: &Migration, script: &str, book: &str) -> CoreResult {
        let run = sqlx::raw_sql(AssertSqlSafe(script.to_owned())).execute(&mut self.session).await;
        run.map_err(|error| failed_at(migration, script, error))?;
        sql::run(&mut self.session, "book a migration", book).await
    }
}

async fn has_books(session: &mut PgConnection) -> CoreResult<bool> {
    let text = "select to_regclass('_sqlx_migrations') is not null as there";
    let rows = sql::rows(session, "look for the books of migrations", text).await?;
    Ok(rows.first().and_then(|row| row.try_get::<bool, _>("there").ok()).unwrap_or(false))
}

/// What the books say; nothing where there are none.
pub(super) async fn records(session: &mut PgConnection) -> CoreResult<Vec<Record>> {
    if !has_books(session).await? {
        return Ok(Vec::new());
    }
    let text = "select version, checksum, success from _sqlx_migrations order by version";
    let rows = sql::rows(session, "read the books of migrations", text).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Record {
            version: row.try_get("version")?,
            checksum: row.try_get("checksum")?,
            success: row.try_get("success")?,
        })
    };
    let records: Result<_, sqlx::Error> = rows.iter().map(read).collect();
    records.map_err(|error| sql::query_error("read the books of migrations", error))
}

/// The error of a statement, with file and line.
pub(super) fn failed_at(migration: &Migration, script: &str, error: sqlx::Error) -> Error {
    let mut place = migration.place();
    if let sqlx::Error::Database(database) = &error
        && let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        && let Some(sqlx::postgres::PgErrorPosition::Original(at)) = postgres.position()
    {
        let before = script.chars().take(at.saturating_sub(1)).filter(|&c| c == '\n').count();
        place = format!("{place}, line {}", before + 1);
    }
    sql::statement_error(failure(migration), error).tried(format!("in {place}"))
}

fn failure(migration: &Migration) -> String {
    format!("migration {} failed", migration.label())
}

/// The advisory lock that sqlx takes: a constant times the CRC-32 (ISO-HDLC) of the database's name.
fn lock_id(database: &str) -> i64 {
    let crc = database.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    });
    0x3d32_ad9e * i64::from(!crc)
}

#[cfg(test)]
mod tests {
    use super::lock_id;

    #[test]
    fn lock_is_that_of_sqlx() {
        // The check value of CRC-32/ISO-HDLC is cbf43926 over "123456789".
        assert_eq!(lock_id("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
    }
}
