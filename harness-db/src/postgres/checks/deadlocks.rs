//! Deadlocks in this database, counted by the server.
//!
//! A session publishes its counts when it ends or has been idle for 10 s, not at once. A delta of zero is evidence only
//! when every session that could hold an unpublished count has published it; the check waits for that, and says so when it
//! cannot be had.

use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Outcome};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::sampling::OWN_NAME;
use super::{Database, sql};
use crate::clerk;

/// Idle sessions publish after 10 s (`PGSTAT_IDLE_INTERVAL`); a little more for the clock.
const PUBLISHED_AFTER_S: f64 = 10.5;
/// A session that works publishes at most once a second (`PGSTAT_MIN_INTERVAL`); a little more for the clock.
const PUBLISHES_EVERY_S: f64 = 1.1;
/// How long the check waits for sessions to publish.
const LIMIT: Duration = Duration::from_secs(15);

/// A count of deadlocks that began at some moment.
#[derive(Debug, Clone)]
#[must_use = "ask it for the delta"]
pub struct Deadlocks {
    options: PgConnectOptions,
    database: String,
    before: i64,
    limit: Duration,
}

impl Database {
    /// Begins counting deadlocks of this database.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn deadlocks(&self) -> CoreResult<Deadlocks> {
        let options = self.server().options().clone();
        let mut session = sql::connect(&options).await?;
        let before = read(&mut session, self.name(), None).await?.count;
        let _ = session.close().await;
        Ok(Deadlocks { options, database: self.name().to_owned(), before, limit: LIMIT })
    }
}

struct Reading {
    count: i64,
    unpublished: i64,
}

impl Deadlocks {
    /// How long [`Deadlocks::none`] may wait for sessions to publish their counts; 15 s unless set.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Deadlocks since the beginning that the server has published so far: a lower bound.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn so_far(&self) -> CoreResult<u64> {
        let mut session = sql::connect(&self.options).await?;
        let reading = read(&mut session, &self.database, None).await;
        let _ = session.close().await;
        Ok(reading?.count.saturating_sub(self.before).max(0).cast_unsigned())
    }

    /// Passes when there was no deadlock and every session has published its counts. Close the pools of the system under
    /// test first, and the answer comes at once; else it takes up to 15 s.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn none(&self) -> CoreResult<Outcome> {
        let count = self.clone();
        clerk::run(move || async move { count.settle().await }).await
    }

    async fn settle(&self) -> CoreResult<Outcome> {
        let mut session = sql::connect(&self.options).await?;
        let asked = now(&mut session).await?;
        let settled = wait_for("sessions to publish their counts", self.limit, async || {
            match read(&mut session, &self.database, Some(&asked)).await {
                Err(error) => Progress::Failed(error),
                Ok(reading) if reading.count > self.before => Progress::Ready(reading),
                Ok(reading) if reading.unpublished == 0 => Progress::Ready(reading),
                Ok(reading) => Progress::NotYet(format!("{} sessions have not published yet", reading.unpublished)),
            }
        })
        .await;
        let outcome = match settled {
            Ok(reading) if reading.count > self.before => {
                Outcome::fail(format!("{} deadlocks in {}", reading.count - self.before, self.database))
            }
            Ok(_) => Outcome::pass("no deadlock, all sessions have published their counts"),
            Err(error) if error.kind() == harness_core::ErrorKind::Timeout => {
                Outcome::no_evidence(format!("{error:?}; close the pools of the system under test before asking"))
            }
            Err(error) => return Err(error),
        };
        let _ = session.close().await;
        Ok(outcome)
    }
}

async fn now(session: &mut PgConnection) -> CoreResult<String> {
    let rows = sql::rows(session, "read the server's clock", "select clock_timestamp()::text as now").await?;
    let text = rows.first().map(|row| row.try_get::<String, _>("now"));
    text.transpose().map(Option::unwrap_or_default).map_err(|error| sql::query_error("read the server's clock", error))
}

/// Reads the count, and how many sessions may still hold back what they did before `asked`. A session has published when
/// it has been idle for [`PUBLISHED_AFTER_S`], or when it ran something at least [`PUBLISHES_EVERY_S`] after that moment;
/// one that began later has nothing to tell, and one that ended has told.
async fn read(session: &mut PgConnection, database: &str, asked: Option<&str>) -> CoreResult<Reading> {
    // Without this a session would go on seeing its first snapshot inside a transaction.
    sql::run(session, "forget the snapshot of statistics", "select pg_stat_clear_snapshot()").await?;
    let text = format!(
        "select coalesce((select deadlocks from pg_stat_database where datname = {name}), 0) as deadlocks, \
         (select count(*) from pg_stat_activity where datname = {name} and backend_type = 'client backend' \
          and pid <> pg_backend_pid() and application_name is distinct from '{OWN_NAME}' \
          and backend_start < coalesce({asked}::timestamptz, 'infinity') \
          and not (state like 'idle%' and (extract(epoch from clock_timestamp() - state_change) > {PUBLISHED_AFTER_S} \
          or state_change > {asked}::timestamptz + interval '{PUBLISHES_EVERY_S} s'))) as unpublished",
        name = sql::literal(database),
        asked = asked.map_or_else(|| "null".to_owned(), sql::literal),
    );
    let rows = sql::rows(session, "read the count of deadlocks", text).await?;
    let number = |name: &str| match rows.first() {
        Some(row) => {
            row.try_get::<i64, _>(name).map_err(|error| sql::query_error("read the count of deadlocks", error))
        }
        None => Ok(0),
    };
    Ok(Reading { count: number("deadlocks")?, unpublished: number("unpublished")? })
}
