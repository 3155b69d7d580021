//! Runs migrations and watches the locks they take.
//!
//! A migration in a transaction is run statement by statement, and after each one its locks are read from `pg_locks`: a
//! lock stays until the end of the transaction, so none is missed. One without a transaction is run whole, behind sessions
//! that have each table in use as a writer has: what would keep writers waiting must wait for them, is seen in line, and only
//! then does the session give way.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::Migrations;
use super::locks::{LockReport, Statement, TakenLock};
use super::mode::LockMode;
use super::runner::{Runner, failed_at};
use super::statements::split;
use super::traffic::{Clients, Traffic};
use crate::postgres::books::{Migration, booked};
use crate::postgres::{Database, sql};

/// Tables that are watched unless they are named: each costs three sessions.
const MOST: usize = 10;
/// Between two looks at a migration without a transaction.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// How much longer than its limit a migration is looked at.
const GRACE: Duration = Duration::from_secs(5);

/// A watch on the locks of migrations; await it to get its [`LockReport`].
#[derive(Debug)]
#[must_use = "nothing is migrated until it is awaited"]
pub struct LockWatch<'a> {
    migrations: &'a Migrations,
    database: &'a Database,
    tables: Option<Vec<String>>,
    quiet: bool,
}

impl Migrations {
    /// Applies what is not applied yet and watches its locks on the tables that are there already, with a reader and a
    /// writer on each of them. Apply the older ones first with [`Migrations::apply_to`].
    pub fn watch_locks<'a>(&'a self, database: &'a Database) -> LockWatch<'a> {
        LockWatch { migrations: self, database, tables: None, quiet: false }
    }
}

impl<'a> LockWatch<'a> {
    /// Watches these tables; all of them unless named, when there are up to ten.
    pub fn tables(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tables = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Without readers and writers: locks only.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    async fn run(self) -> CoreResult<LockReport> {
        let all = self.migrations.read()?;
        let pending = self.migrations.pending(self.database, &all).await?;
        let tables = self.watched().await?;
        let clients = match self.quiet {
            false => Some(Clients::start(&self.database.options(), &tables).await?),
            true => None,
        };
        let mut report = LockReport { is_quiet: self.quiet, ..LockReport::default() };
        let mut done = Ok(());
        for migration in pending {
            done = self.one(migration, &tables, &mut report).await;
            if done.is_err() {
                break;
            }
            report.versions.push(migration.version);
        }
        report.traffic = match clients {
            Some(clients) => clients.stop().await?,
            None => tables.into_iter().map(|table| (table, Traffic::default())).collect(),
        };
        done.map(|()| report)
    }

    async fn watched(&self) -> CoreResult<Vec<String>> {
        let schema = self.database.schema().await?.without(&self.migrations.books());
        if let Some(named) = &self.tables {
            named.iter().try_for_each(|name| schema.table(name).map(drop))?;
            return Ok(named.clone());
        }
        let tables = schema.tables.into_values().filter(|table| table.kind != "foreign table");
        let tables: Vec<String> = tables.map(|table| table.name).collect();
        match tables.len() > MOST {
            false => Ok(tables),
            true => {
                Err(Error::new(ErrorKind::Config, format!("{} tables are too many to watch at once", tables.len()))
                    .remedy("name those that matter: .tables([\"orders\"])"))
            }
        }
    }

    async fn one(&self, migration: &Migration, tables: &[String], report: &mut LockReport) -> CoreResult {
        let mut runner = Runner::open(self.database, self.migrations.limit).await?;
        let mut observer = self.database.connect().await?;
        let before = files(&mut observer, tables).await?;
        let pid = pid(&mut runner.session).await?;
        let mut watch = Watch { migration, tables, observer, pid };
        let done = match migration.no_tx {
            true => watch.whole(self.database, &mut runner, report).await,
            false => watch.stepwise(&mut runner, report).await,
        };
        runner.close().await;
        let after = files(&mut watch.observer, tables).await?;
        let _ = watch.observer.close().await;
        let replaced = before.iter().filter(|(table, file)| after.get(*table).is_some_and(|now| now != *file));
        report.rewritten.extend(replaced.map(|(table, _)| (table.clone(), migration.version)));
        done
    }
}

impl<'a> IntoFuture for LockWatch<'a> {
    type Output = CoreResult<LockReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The watch on one migration.
struct Watch<'w> {
    migration: &'w Migration,
    tables: &'w [String],
    observer: PgConnection,
    /// The server process of the migration.
    pid: i32,
}

/// The strongest lock on each table.
type Held = BTreeMap<String, LockMode>;

impl Watch<'_> {
    async fn stepwise(&mut self, runner: &mut Runner, report: &mut LockReport) -> CoreResult {
        sql::run(&mut runner.session, "begin a migration", "begin").await?;
        let mut taken: Vec<(TakenLock, Instant)> = Vec::new();
        let mut known = Held::new();
        for statement in split(&self.migration.up) {
            let timeout = lock_timeout(&mut runner.session).await?;
            let begun = Instant::now();
            let run = sqlx::raw_sql(AssertSqlSafe(statement.text.to_owned())).execute(&mut runner.session).await;
            if let Err(error) = run {
                let _ = sql::run(&mut runner.session, "take back a migration", "rollback").await;
                let failed = failed_at(self.migration, statement.text, error);
                return Err(failed.tried(format!("counted from the statement on line {}", statement.line)));
            }
            let held = self.locks().await?;
            let new = held.iter().filter(|(table, mode)| known.get(*table).is_none_or(|before| before < *mode));
            taken.extend(new.map(|(table, mode)| {
                let lock = self.lock(table, *mode, statement.text, statement.line, timeout);
                (lock, begun)
            }));
            report.statements.push(self.statement(statement.text, statement.line, begun.elapsed()));
            known = held;
        }
        sql::run(&mut runner.session, "book a migration", booked(self.migration)).await?;
        sql::run(&mut runner.session, "end a migration", "commit").await?;
        let end = Instant::now();
        report.locks.extend(taken.into_iter().map(|(lock, begun)| TakenLock { held: end - begun, ..lock }));
        Ok(())
    }

    /// Runs a migration without a transaction behind sessions that have the tables in use.
    async fn whole(&mut self, database: &Database, runner: &mut Runner, report: &mut LockReport) -> CoreResult {
        let timeout = lock_timeout(&mut runner.session).await?;
        let mut users = Users::begin(database, self.tables).await?;
        let (migration, limit) = (self.migration, runner.limit);
        let (is_over, begun) = (AtomicBool::new(false), Instant::now());
        let up = async {
            let done = runner.up(migration).await;
            is_over.store(true, Ordering::Relaxed);
            done
        };
        let mut seen: BTreeMap<String, (LockMode, Instant)> = BTreeMap::new();
        let look = async {
            while !is_over.load(Ordering::Relaxed) {
                if begun.elapsed() > limit + GRACE {
                    let what = format!("migration {} took longer than {}", migration.label(), seconds(limit));
                    return Err(Error::new(ErrorKind::Timeout, what));
                }
                self.look(&mut users, &mut seen).await?;
                pause(BETWEEN_LOOKS).await;
            }
            Ok(())
        };
        let (done, looked) = tokio::join!(up, look);
        let took = done?.unwrap_or_default();
        looked?;
        let line = split(&migration.up).first().map_or(1, |first| first.line);
        report.statements.push(self.statement(&migration.up, line, took));
        let end = begun + took;
        report.locks.extend(seen.into_iter().map(|(table, (mode, since))| TakenLock {
            held: end.saturating_duration_since(since),
            ..self.lock(&table, mode, &migration.up, line, timeout)
        }));
        Ok(())
    }

    /// Notes the locks of now, then lets those sessions go that the migration waits for.
    async fn look(&mut self, users: &mut Users, seen: &mut BTreeMap<String, (LockMode, Instant)>) -> CoreResult {
        let blockers = blockers(&mut self.observer, self.pid).await?;
        for (table, mode) in self.locks().await? {
            let entry = seen.entry(table).or_insert_with(|| (mode, Instant::now()));
            entry.0 = entry.0.max(mode);
        }
        users.give_way(&blockers).await;
        Ok(())
    }

    /// The strongest lock on each watched table that the migration has or waits for.
    async fn locks(&mut self) -> CoreResult<Held> {
        let text = format!(
            "select {NAME} as name, l.mode from pg_locks l join pg_class c on c.oid = l.relation \
             join pg_namespace n on n.oid = c.relnamespace where l.locktype = 'relation' and l.pid = {} \
             and l.database = (select oid from pg_database where datname = current_database())",
            self.pid
        );
        let mut held = Held::new();
        for (table, mode) in pairs(&mut self.observer, text).await? {
            let Some(mode) = LockMode::parse(&mode).filter(|_| self.tables.contains(&table)) else { continue };
            let entry = held.entry(table).or_insert(mode);
            *entry = (*entry).max(mode);
        }
        Ok(held)
    }

    fn lock(&self, table: &str, mode: LockMode, statement: &str, line: usize, lock_timeout: Duration) -> TakenLock {
        let (table, statement) = (table.to_owned(), statement.to_owned());
        TakenLock { table, mode, version: self.migration.version, statement, line, held: Duration::ZERO, lock_timeout }
    }

    fn statement(&self, text: &str, line: usize, took: Duration) -> Statement {
        Statement { version: self.migration.version, text: text.to_owned(), line, took }
    }
}

/// A session per table that has it in use as a writer has, in a transaction that stays open.
struct Users {
    sessions: Vec<(i32, PgConnection)>,
}

impl Users {
    async fn begin(database: &Database, tables: &[String]) -> CoreResult<Self> {
        let mut sessions = Vec::new();
        for table in tables {
            let mut session = database.connect().await?;
            let pid = pid(&mut session).await?;
            let name: Vec<String> = table.splitn(2, '.').map(sql::ident).collect();
            let text = format!("begin; lock table {} in row exclusive mode", name.join("."));
            sql::run(&mut session, "use a table", text).await?;
            sessions.push((pid, session));
        }
        Ok(Self { sessions })
    }

    /// Ends the transactions of these.
    async fn give_way(&mut self, blockers: &[i32]) {
        for (_, session) in self.sessions.iter_mut().filter(|(pid, _)| blockers.contains(pid)) {
            // A session that cannot roll back has lost its connection, and with it the lock.
            let _ = sql::run(session, "let a table go", "rollback").await;
        }
    }
}

/// A table's name, with its schema unless that is `public`.
const NAME: &str = "(case when n.nspname = 'public' then c.relname else n.nspname || '.' || c.relname end)::text";

/// The file of each table.
async fn files(session: &mut PgConnection, tables: &[String]) -> CoreResult<BTreeMap<String, String>> {
    let text = format!(
        "select {NAME} as name, pg_relation_filenode(c.oid)::text as mode from pg_class c \
         join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'"
    );
    let found = pairs(session, text).await?;
    Ok(found.into_iter().filter(|(table, _)| tables.contains(table)).collect())
}

async fn pairs(session: &mut PgConnection, text: String) -> CoreResult<Vec<(String, String)>> {
    let what = "look at the locks";
    let rows = sql::rows(session, what, text).await?;
    let pair = |row: &sqlx::postgres::PgRow| Ok((row.try_get("name")?, row.try_get("mode")?));
    rows.iter().map(pair).collect::<Result<_, sqlx::Error>>().map_err(|error| sql::query_error(what, error))
}

async fn pid(session: &mut PgConnection) -> CoreResult<i32> {
    first(session, "select pg_backend_pid() as it".to_owned()).await
}

async fn blockers(session: &mut PgConnection, pid: i32) -> CoreResult<Vec<i32>> {
    first(session, format!("select pg_blocking_pids({pid}) as it")).await
}

async fn lock_timeout(session: &mut PgConnection) -> CoreResult<Duration> {
    let text = "select setting::bigint as it from pg_settings where name = 'lock_timeout'".to_owned();
    let ms: i64 = first(session, text).await?;
    Ok(Duration::from_millis(ms.max(0).cast_unsigned()))
}

/// The value `it` of the first row.
async fn first<T>(session: &mut PgConnection, text: String) -> CoreResult<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let what = "look at a session";
    let rows = sql::rows(session, what, text).await?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Protocol, format!("could not {what}: no row came")))?;
    row.try_get("it").map_err(|error| sql::query_error(what, error))
}
