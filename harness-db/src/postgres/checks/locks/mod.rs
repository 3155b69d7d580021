//! Lock waits, watched: the longest one, cycles before the server resolves them, and times without progress.
//!
//! A watcher looks every 10 ms, on a connection and a thread of its own, from `pg_stat_activity`, `pg_locks` and
//! `pg_blocking_pids`. While nobody waits, a look is one cheap query. A cycle is reported when it stands in two looks in a
//! row with the same sessions in the same waits (`pg_locks.waitstart`), so that an illusion of one look is no alarm; it is
//! seen long before `deadlock_timeout` (1 s unless set) ends it.

mod graph;
mod read;
mod series;
mod stall;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness_core::CoreResult;
use harness_core::wait::{pause, seconds};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use super::sampling::{SAMPLE_LIMIT, Sampling, Shared, locked};
use super::{Database, activity, sql};
use crate::clerk;

pub use graph::{Cycle, LockWait};
pub use series::{LockPoint, LockSeries, LongestWait};
pub use stall::Stall;

use graph::Suspects;
use stall::Watchdog;

/// A watch over lock waits that has not begun; made by [`Database::locks`].
#[derive(Debug, Clone)]
#[must_use = "start it"]
pub struct Locks {
    options: PgConnectOptions,
    database: String,
    every: Duration,
    stalled_after: Duration,
}

/// A watch over lock waits at work.
#[derive(Debug)]
#[must_use = "stop it to get the series"]
pub struct LockWatch {
    sampling: Sampling<LockSeries>,
}

impl Database {
    /// A watch over the lock waits of this database, every 10 ms unless set otherwise.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(db: &harness_db::Database) -> harness_db::Result {
    /// let locks = db.locks().start().await?;
    /// // … exercise the service …
    /// locks.stop().check_acyclic()?.check_never_stalled()?.check_no_lock_wait_longer_than(Duration::from_millis(500))?;
    /// # Ok(()) }
    /// ```
    pub fn locks(&self) -> Locks {
        Locks {
            // Names of tables are known in their own database only.
            options: self.observer().database(self.name()),
            database: self.name().to_owned(),
            every: Duration::from_millis(10),
            stalled_after: Duration::from_secs(2),
        }
    }
}

impl Locks {
    /// Sets how often the watcher looks.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(1));
        self
    }

    /// Sets how long sessions may wait without any transaction ending before it is a [`Stall`]; 2 s unless set.
    pub fn stalled_after(mut self, limit: Duration) -> Self {
        self.stalled_after = limit;
        self
    }

    /// Begins: the first look is taken before this returns.
    ///
    /// # Errors
    /// When the watcher cannot connect or its first look fails.
    pub async fn start(self) -> CoreResult<LockWatch> {
        let empty = LockSeries { stalled_after: self.stalled_after, ..LockSeries::default() };
        let series = Arc::new(Mutex::new(empty));
        let shared = Arc::clone(&series);
        let (begun, task) = clerk::run(move || async move {
            let connection = sql::connect(&self.options).await?;
            let begun = Instant::now();
            let watchdog = Watchdog::new(self.stalled_after);
            let mut watcher =
                Watcher { connection: Some(connection), begun, suspects: Suspects::default(), watchdog, plan: self };
            watcher.look(&shared).await?;
            Ok((begun, tokio::spawn(watcher.go_on(shared))))
        })
        .await?;
        Ok(LockWatch { sampling: Sampling::new(series, begun, task) })
    }
}

impl LockWatch {
    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> LockSeries {
        let (series, lasted) = self.sampling.so_far();
        series.ended(lasted)
    }

    /// Ends the watch and gives the series.
    #[must_use]
    pub fn stop(self) -> LockSeries {
        let (series, lasted) = self.sampling.stop();
        series.ended(lasted)
    }
}

/// The one that looks.
struct Watcher {
    plan: Locks,
    connection: Option<PgConnection>,
    begun: Instant,
    suspects: Suspects,
    watchdog: Watchdog,
}

impl Watcher {
    async fn go_on(mut self, series: Shared<LockSeries>) {
        loop {
            pause(self.plan.every).await;
            let failed = match tokio::time::timeout(SAMPLE_LIMIT, self.look(&series)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer for {}", seconds(SAMPLE_LIMIT)),
            };
            self.connection = None; // whatever it was in the middle of
            locked(&series).gaps.push((self.begun.elapsed(), failed));
        }
    }

    /// One look, over a new connection when the last one broke.
    async fn look(&mut self, series: &Shared<LockSeries>) -> CoreResult {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => sql::connect(&self.plan.options).await?,
        };
        if read::count(&mut connection).await? == 0 {
            self.watchdog.free();
            self.suspects.confirm(Duration::ZERO, &[]);
            locked(series).push(self.begun.elapsed(), &[], &[]);
        } else {
            self.look_closely(&mut connection, series).await?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn look_closely(&mut self, connection: &mut PgConnection, series: &Shared<LockSeries>) -> CoreResult {
        // In this order: whoever still blocks a wait that is older than the list of sessions did so when the list was made.
        let sessions = activity::read(connection, &self.plan.database).await?;
        let waits = read::waits(connection).await?;
        let at = self.begun.elapsed();
        let mut cycles = self.suspects.confirm(at, &waits);
        for member in cycles.iter_mut().flat_map(|cycle| &mut cycle.members) {
            member.row_content = read::content(connection, member).await;
        }
        let stall = match waits.is_empty() {
            true => {
                self.watchdog.free();
                None
            }
            false => self.watchdog.waiting(at, &sessions),
        };
        let mut series = locked(series);
        series.push(at, &waits, &sessions);
        series.cycles.extend(cycles);
        series.stalls.extend(stall);
        Ok(())
    }
}
