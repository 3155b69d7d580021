//! Faults inside a Postgres of the test's own: sessions terminated, a table locked, connections used up, a small disk filled.
//!
//! ```no_run
//! use harness_core::fault::inject;
//! use harness_db::postgres::PostgresFault;
//!
//! # async fn body(own: &harness_db::OwnPostgres) -> harness_db::Result {
//! let locked = inject(PostgresFault::lock_table(own, "orders")).await?;
//! // … the system under test meets the lock …
//! let bites = locked.heal().await?; // `2 sessions waiting when it was healed`
//! assert!(bites.count() > 0);
//! # Ok(()) }
//! ```
//!
//! Only a server of the test's own can be broken: a shared one has other users. What a fault holds are sessions of this process,
//! so that a killed test holds nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use harness_core::fault::{Bites, Effect, Fault};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use super::OwnPostgres;
use super::sql;

/// SQLSTATE `too_many_connections`.
const TOO_MANY: &str = "53300";
/// Sessions that are opened at most to use up all connections.
const SESSIONS: usize = 2_000;
/// How long a server may take to end a session, in milliseconds.
const END_MS: u32 = 5_000;
/// How long a lock is waited for: whoever holds it is not ours.
const LOCK_MS: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verb {
    Terminate(String),
    Lock(String),
    Squeeze(usize),
    Fill,
}

/// A fault inside an [`OwnPostgres`].
#[derive(Debug)]
pub struct PostgresFault {
    options: PgConnectOptions,
    verb: Verb,
    on_small_disk: bool,
    /// Our sessions, for as long as it lasts; the first one asks for the effect.
    held: Mutex<Vec<PgConnection>>,
    bites: AtomicU64,
}

impl PostgresFault {
    fn of(own: &OwnPostgres, verb: Verb) -> Self {
        let options = own.options().disable_statement_logging();
        Self { options, verb, on_small_disk: own.on_small_disk, held: Mutex::default(), bites: AtomicU64::new(0) }
    }

    /// Terminates all sessions of this `application_name` (`pg_terminate_backend`), proven by their end. Nothing is left to heal.
    #[must_use]
    pub fn terminate_sessions(own: &OwnPostgres, application_name: &str) -> Self {
        Self::of(own, Verb::Terminate(application_name.to_owned()))
    }

    /// Locks a table of the maintenance database against everybody (`ACCESS EXCLUSIVE`); who waits when it is healed is its bite.
    #[must_use]
    pub fn lock_table(own: &OwnPostgres, table: &str) -> Self {
        Self::of(own, Verb::Lock(table.to_owned()))
    }

    /// Another database of the same server, for a table to be locked.
    #[must_use]
    pub fn in_database(mut self, database: &str) -> Self {
        self.options = self.options.database(database);
        self
    }

    /// Uses up all connections but so many, proven by a refusal (SQLSTATE 53300) before those are given back.
    #[must_use]
    pub fn squeeze_connections(own: &OwnPostgres, leave: usize) -> Self {
        Self::of(own, Verb::Squeeze(leave))
    }

    /// Fills the small disk of a server with [`OwnOptions::disk_bytes`](super::OwnOptions::disk_bytes), proven by a refusal
    /// (SQLSTATE 53100). Writes that need room fail, reads go on; healed, a write that needs room succeeds.
    #[must_use]
    pub fn fill_disk(own: &OwnPostgres) -> Self {
        Self::of(own, Verb::Fill)
    }

    async fn break_it(&self) -> CoreResult {
        let mut held = self.held.lock().await;
        if !held.is_empty() {
            return Ok(());
        }
        match &self.verb {
            Verb::Terminate(application) => self.terminate(application).await,
            Verb::Lock(table) => {
                let mut session = sql::connect(&self.options).await?;
                let lock = format!("begin; set local lock_timeout = {LOCK_MS}; lock table {}", sql::ident(table));
                sql::run(&mut session, "lock a table", lock).await?;
                held.push(session);
                Ok(())
            }
            Verb::Fill => {
                if !self.on_small_disk {
                    let what = "this server has the machine's disk, which is not filled";
                    return Err(Error::new(ErrorKind::Refused, what)
                        .remedy("start it with OwnOptions::disk_bytes, such as 32 MiB"));
                }
                // Kept to heal with: on a full disk a new session may be too much.
                held.push(sql::connect(&self.options).await?);
                match held.first_mut() {
                    Some(session) => fill(session).await?,
                    None => return Ok(()),
                }
                self.bites.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Verb::Squeeze(leave) => {
                *held = self.use_up().await?;
                let kept = held.len().saturating_sub(*leave).max(1);
                for session in held.split_off(kept) {
                    let _ = session.close().await;
                }
                self.bites.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    async fn terminate(&self, application: &str) -> CoreResult {
        let mut session = sql::connect(&self.options).await?;
        let query = format!(
            "select pid, pg_terminate_backend(pid, {END_MS}) as ended from pg_stat_activity \
             where application_name = {} and pid <> pg_backend_pid()",
            sql::literal(application)
        );
        let rows = sql::rows(&mut session, "terminate sessions", query).await?;
        let _ = session.close().await;
        if rows.is_empty() {
            let what = format!("no session has the application name `{application}`");
            return Err(Error::new(ErrorKind::Refused, what)
                .remedy("let the client set application_name, and inject while it is connected"));
        }
        let ended = rows.iter().filter(|row| row.try_get::<bool, _>("ended").unwrap_or(false)).count();
        self.bites.fetch_add(ended as u64, Ordering::Relaxed);
        match rows.len() - ended {
            0 => Ok(()),
            left => Err(Error::new(ErrorKind::Timeout, format!("{left} sessions of `{application}` did not end"))),
        }
    }

    /// Opens sessions until the server refuses one for having too many.
    async fn use_up(&self) -> CoreResult<Vec<PgConnection>> {
        let mut held = Vec::new();
        while held.len() < SESSIONS {
            match self.options.connect().await {
                Ok(session) => held.push(session),
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(TOO_MANY) && !held.is_empty() => {
                    return Ok(held);
                }
                Err(error) => return Err(sql::query_error("use up the connections", error)),
            }
        }
        let what = format!("the server took {SESSIONS} sessions and refused none");
        Err(Error::new(ErrorKind::Refused, what).remedy("start it with a lower max_connections"))
    }

    async fn mend(&self) -> CoreResult {
        let mut held = std::mem::take(&mut *self.held.lock().await);
        if let (Verb::Lock(_), Some(session)) = (&self.verb, held.first_mut()) {
            let waiting = "select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))";
            // A server that is gone holds no lock.
            if let Ok(rows) = sql::rows(session, "ask who waits", waiting).await {
                let count = rows.first().and_then(|row| row.try_get::<i64, _>(0).ok()).unwrap_or(0);
                self.bites.fetch_add(count.unsigned_abs(), Ordering::Relaxed);
            }
        }
        if self.verb == Verb::Fill && !held.is_empty() {
            match sql::connect(&self.options).await {
                Ok(session) => {
                    let filler = held.pop();
                    empty(filler.unwrap_or(session)).await?;
                }
                // A small disk is gone with its server.
                Err(error) if error.kind() == ErrorKind::Connect => {}
                Err(error) => return Err(error),
            }
        }
        for session in held {
            let _ = session.close().await;
        }
        Ok(())
    }
}

/// What the ballast is called.
const BALLAST: &str = "harness_ballast";

/// Writes until the disk is full; what is not logged leaves the log its room.
async fn fill(session: &mut PgConnection) -> CoreResult {
    sql::run(session, "make ballast", format!("create unlogged table if not exists {BALLAST}(text text)")).await?;
    // First in great pieces, then down to the last page.
    for rows in [2_000, 100, 8] {
        loop {
            let more = format!("insert into {BALLAST} select repeat('x', 1000) from generate_series(1, {rows})");
            match sql::run(session, "write ballast", more).await {
                Ok(()) => {}
                Err(error) if sql::is_disk_full(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Takes the ballast away, and proves that there is room again.
async fn empty(mut session: PgConnection) -> CoreResult {
    sql::run(&mut session, "drop the ballast", format!("drop table if exists {BALLAST}")).await?;
    let room = format!("create unlogged table {BALLAST} as select repeat('x', 1000) from generate_series(1, 500)");
    sql::run(&mut session, "write where there is room again", room).await?;
    sql::run(&mut session, "drop the ballast", format!("drop table {BALLAST}")).await?;
    let _ = session.close().await;
    Ok(())
}

impl Fault for PostgresFault {
    fn name(&self) -> String {
        let place = sql::place(&self.options);
        match &self.verb {
            Verb::Terminate(application) => format!("sessions of `{application}` terminated at {place}"),
            Verb::Lock(table) => format!("table `{table}` locked at {place}"),
            Verb::Squeeze(leave) => format!("all connections but {leave} used up at {place}"),
            Verb::Fill => format!("the small disk is full at {place}"),
        }
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(self.break_it())
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(self.mend())
    }

    fn bites(&self) -> Bites {
        let unit = match self.verb {
            Verb::Terminate(_) => "sessions terminated",
            Verb::Lock(_) => "sessions waiting when it was healed",
            Verb::Squeeze(_) | Verb::Fill => "refusals proven",
        };
        Bites::new(self.bites.load(Ordering::Relaxed), unit)
    }
}
