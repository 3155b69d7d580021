//! Where the counts come from: `pg_stat_statements`, read over the maintenance database.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::Statement;
use crate::postgres::{Database, Tenancy, sql};

/// The mark in every statement of the harness that runs in a test's database.
pub(super) const OWN: &str = "harness_own";
/// A statement nobody else writes. The server tells statements apart by their structure, not by the names of their columns:
/// a plain `select 1` of ours would swallow those of the system under test.
const MARK: &str = "select 1 as harness_own_mark where 1 = 2 and 3 = 4 or 5 > 6 and not 7 < 8 or 'a' <> 'b'";
/// How long open transactions may take to end after a block.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// Advisory lock under which the extension is created: two creators at once disturb each other.
const CREATION: i64 = 0x68_6172_6e65_7373;

/// A session with the maintenance database, and the identity of the database in question.
pub(super) struct Source {
    session: PgConnection,
    schema: String,
    oid: String,
}

/// The counters of one database at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) statements: BTreeMap<i64, Statement>,
    /// How often the server threw the least used entries away.
    thrown_away: i64,
    reset_at: String,
    /// The server's clock.
    pub(super) at: String,
}

impl Source {
    /// Opens the source and proves that statements in this database are counted.
    pub(super) async fn open(database: &Database) -> CoreResult<Self> {
        let server = database.server();
        let is_ours = matches!(server.tenancy(), Tenancy::Ours(_));
        if is_ours && !server.capabilities().pg_stat_statements {
            return Err(not_loaded());
        }
        let mut session = sql::connect(server.options()).await?;
        let schema = extension(&mut session, is_ours).await?;
        let text =
            format!("select oid::text as {OWN} from pg_database where datname = {}", sql::literal(database.name()));
        let oid = one(&mut session, "look the database up", text).await?.unwrap_or_default();
        let mut source = Self { session, schema, oid };
        if is_ours {
            source.make_room().await;
        }
        source.prove(database).await?;
        Ok(source)
    }

    /// Removes entries of databases that are gone, once half of the room is taken: a full table throws entries away that
    /// somebody counts. Without success it stays as it is, and says so when it matters.
    async fn make_room(&mut self) {
        let text = format!(
            "select 1 as {OWN}, {schema}.pg_stat_statements_reset(0, gone.dbid, 0) from \
             (select distinct dbid from {schema}.pg_stat_statements(false) where dbid not in (select oid from pg_database) \
             and (select count(*) from {schema}.pg_stat_statements(false)) > current_setting('pg_stat_statements.max')::int / 2 \
             limit 50) gone",
            schema = self.schema
        );
        let _ = sql::run(&mut self.session, "remove the counts of databases that are gone", text).await;
    }

    /// Runs a statement in the database and sees it counted: without that, no statements would look like none counted.
    async fn prove(&mut self, database: &Database) -> CoreResult {
        let before = self.marks().await?;
        let mut there = database.connect().await?;
        sql::run(&mut there, "run a statement to be counted", MARK).await?;
        let _ = there.close().await;
        if self.marks().await? > before {
            return Ok(());
        }
        let what = format!("a statement in `{}` was run and not counted by pg_stat_statements", database.name());
        Err(Error::new(ErrorKind::Environment, what).remedy(
            "set pg_stat_statements.track to top or all and compute_query_id to auto or on; as a plain user, get the role \
             pg_read_all_stats",
        ))
    }

    async fn marks(&mut self) -> CoreResult<i64> {
        let text = format!(
            "select coalesce(sum(calls), 0)::int8::text as {OWN} from {}.pg_stat_statements(true) \
             where dbid = {} and query like '%{OWN}_mark%'",
            self.schema, self.oid
        );
        let found = one(&mut self.session, "read the counts of statements", text).await.map_err(loaded)?;
        Ok(found.and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// The counters now. Texts cost the server a file; they are needed at the end only.
    pub(super) async fn snapshot(&mut self, texts: bool) -> CoreResult<Snapshot> {
        let text = format!(
            "select queryid, sum(calls)::int8 as calls, sum(total_exec_time)::float8 as ms, sum(rows)::int8 as rows, \
             sum(shared_blks_hit + shared_blks_read)::int8 as blocks, sum(temp_blks_written)::int8 as temp_blocks, \
             sum(wal_records)::int8 as wal_records, sum(wal_bytes)::int8 as wal_bytes, min(query) as {OWN} \
             from {}.pg_stat_statements({texts}) where dbid = {} and toplevel group by queryid",
            self.schema, self.oid
        );
        let info = format!(
            "select dealloc, stats_reset::text as reset, clock_timestamp()::text as {OWN} from {}.pg_stat_statements_info",
            self.schema
        );
        let what = "read the counts of statements";
        let rows = sql::rows(&mut self.session, what, text).await.map_err(loaded)?;
        let info = sql::rows(&mut self.session, what, info).await?;
        let read = || {
            let info = info.first().ok_or(sqlx::Error::RowNotFound)?;
            let mut snapshot = Snapshot {
                thrown_away: info.try_get("dealloc")?,
                reset_at: info.try_get::<Option<String>, _>("reset")?.unwrap_or_default(),
                at: info.try_get(OWN)?,
                ..Snapshot::default()
            };
            for row in &rows {
                let Some(id) = row.try_get::<Option<i64>, _>("queryid")? else { return Ok(None) };
                snapshot.statements.insert(id, statement(id, row)?);
            }
            Ok(Some(snapshot))
        };
        let snapshot: Option<Snapshot> = read().map_err(|error| sql::query_error(what, error))?;
        snapshot.ok_or_else(|| {
            Error::new(
                ErrorKind::Environment,
                "the statements of other roles in this database are hidden from this role",
            )
            .remedy("grant it pg_read_all_stats")
        })
    }

    /// Waits until no session is in the middle of something it began after `before`; else says how many are.
    pub(super) async fn settle(&mut self, before: &Snapshot) -> CoreResult<Option<String>> {
        // A statement is counted when it ends, and a `SELECT` in a transaction at the next statement or the end of that.
        let text = format!(
            "select count(*)::text as {OWN} from pg_stat_activity where datid = {} and backend_type = 'client backend' \
             and pid <> pg_backend_pid() and (state = 'active' and query_start >= {at}::timestamptz \
             or state like 'idle in transaction%' and state_change >= {at}::timestamptz)",
            self.oid,
            at = sql::literal(&before.at),
        );
        let session = &mut self.session;
        let settled = wait_for("sessions to end their transactions", SETTLES_WITHIN, async || {
            match one(session, "look for open transactions", text.clone()).await {
                Err(error) => Progress::Failed(error),
                Ok(Some(n)) if n != "0" => Progress::NotYet(format!("{n} sessions are in the middle of a transaction")),
                Ok(_) => Progress::Ready(()),
            }
        })
        .await;
        match settled {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Timeout => Ok(Some(
                "a session was still in a transaction when the block ended, and its last statement may not be counted"
                    .to_owned(),
            )),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn close(self) {
        let _ = self.session.close().await;
    }
}

impl Snapshot {
    /// What came since `before`, and why that is a lower bound, if it is.
    pub(super) fn since(&self, before: &Self) -> (Vec<Statement>, Option<String>) {
        let lost = if self.reset_at != before.reset_at {
            Some("somebody reset pg_stat_statements meanwhile".to_owned())
        } else if self.thrown_away != before.thrown_away {
            Some(
                "the server threw entries of pg_stat_statements away meanwhile (raise pg_stat_statements.max)"
                    .to_owned(),
            )
        } else {
            None
        };
        let nothing = Statement::default();
        let mut all = Vec::new();
        for (id, now) in self.statements.iter().filter(|(_, now)| !now.text.contains(OWN)) {
            let then = before.statements.get(id).unwrap_or(&nothing);
            // Fewer calls than before: the entry was thrown away and began anew.
            let then = if then.calls > now.calls { &nothing } else { then };
            if now.calls > then.calls {
                all.push(minus(now, then));
            }
        }
        (all, lost)
    }
}

fn minus(now: &Statement, then: &Statement) -> Statement {
    Statement {
        id: now.id,
        text: now.text.clone(),
        calls: now.calls - then.calls,
        total: now.total.saturating_sub(then.total),
        rows: now.rows.saturating_sub(then.rows),
        blocks: now.blocks.saturating_sub(then.blocks),
        temp_blocks: now.temp_blocks.saturating_sub(then.temp_blocks),
        wal_records: now.wal_records.saturating_sub(then.wal_records),
        wal_bytes: now.wal_bytes.saturating_sub(then.wal_bytes),
    }
}

fn statement(id: i64, row: &PgRow) -> Result<Statement, sqlx::Error> {
    let count = |name: &str| row.try_get::<Option<i64>, _>(name).map(|n| n.unwrap_or_default().max(0).cast_unsigned());
    let ms = row.try_get::<Option<f64>, _>("ms")?.unwrap_or_default();
    let text: Option<String> = row.try_get(OWN)?;
    Ok(Statement {
        id,
        text: text.unwrap_or_else(|| "<its text was lost>".to_owned()),
        calls: count("calls")?,
        total: Duration::from_secs_f64(ms.max(0.0) / 1e3),
        rows: count("rows")?,
        blocks: count("blocks")?,
        temp_blocks: count("temp_blocks")?,
        wal_records: count("wal_records")?,
        wal_bytes: count("wal_bytes")?,
    })
}

/// The schema of the extension in the maintenance database; on a server of the house it is created there.
async fn extension(session: &mut PgConnection, is_ours: bool) -> CoreResult<String> {
    let look = format!(
        "select quote_ident(n.nspname) as {OWN} from pg_extension e join pg_namespace n on n.oid = e.extnamespace \
         where e.extname = 'pg_stat_statements'"
    );
    if let Some(schema) = one(session, "look for pg_stat_statements", look.clone()).await? {
        return Ok(schema);
    }
    let missing = || {
        Error::new(ErrorKind::Environment, "the maintenance database has no extension pg_stat_statements")
            .remedy("run CREATE EXTENSION pg_stat_statements in the database that the server's URL names")
    };
    if !is_ours {
        // Somebody else's database is not ours to extend; whether the library is there decides what has to be done.
        return Err(if preloaded(session).await? { missing() } else { not_loaded() });
    }
    // One transaction: its lock is held until the extension is there for everybody to see.
    let create = format!("select pg_advisory_xact_lock({CREATION}); create extension if not exists pg_stat_statements");
    sql::run(session, "create pg_stat_statements in the maintenance database", create).await?;
    one(session, "look for pg_stat_statements", look).await?.ok_or_else(missing)
}

async fn preloaded(session: &mut PgConnection) -> CoreResult<bool> {
    let text = format!("select setting as {OWN} from pg_settings where name = 'shared_preload_libraries'");
    let libraries = one(session, "look for preloaded libraries", text).await?;
    // A plain user does not see the setting; then the extension is asked for, and says the rest.
    Ok(libraries.is_none_or(|list| list.split(',').any(|name| name.trim() == "pg_stat_statements")))
}

fn not_loaded() -> Error {
    Error::new(ErrorKind::Environment, "the server does not count statements: pg_stat_statements is not preloaded")
        .remedy("start it with shared_preload_libraries=pg_stat_statements")
}

/// 55000: the extension is created and its library is not loaded.
fn loaded(error: Error) -> Error {
    if sql::has_code(&error, "55000") { not_loaded().caused_by(error) } else { error }
}

/// The column of ours in the first row.
pub(super) async fn one(session: &mut PgConnection, what: &str, text: String) -> CoreResult<Option<String>> {
    let rows = sql::rows(session, what, text).await?;
    let value = rows.first().map(|row| row.try_get::<Option<String>, _>(OWN)).transpose();
    value.map(Option::flatten).map_err(|error| sql::query_error(what, error))
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, Statement};

    fn snapshot(thrown_away: i64, calls: &[(i64, u64)]) -> Snapshot {
        let statement =
            |&(id, calls): &(i64, u64)| (id, Statement { id, calls, text: format!("s{id}"), ..Statement::default() });
        Snapshot { thrown_away, statements: calls.iter().map(statement).collect(), ..Snapshot::default() }
    }

    fn calls(all: &[Statement]) -> Vec<(i64, u64)> {
        all.iter().map(|statement| (statement.id, statement.calls)).collect()
    }

    #[test]
    fn only_what_came_on_top_is_counted() {
        let (all, lost) = snapshot(3, &[(1, 7), (2, 2), (3, 1)]).since(&snapshot(3, &[(1, 5), (2, 2)]));
        assert_eq!((calls(&all), lost), (vec![(1, 2), (3, 1)], None));
    }

    #[test]
    fn thrown_away_entries_make_a_lower_bound() {
        let (all, lost) = snapshot(4, &[(1, 2)]).since(&snapshot(3, &[(1, 5), (2, 9)]));
        assert_eq!(calls(&all), [(1, 2)], "an entry that began anew counts from there");
        assert!(lost.unwrap().contains("threw entries"));
        let reset = Snapshot { reset_at: "later".into(), ..Snapshot::default() };
        assert!(reset.since(&Snapshot::default()).1.unwrap().contains("reset"));
    }

    #[test]
    fn statements_of_the_harness_are_left_out() {
        let mut after = snapshot(0, &[(1, 1)]);
        after.statements.entry(1).and_modify(|own| own.text = "select $1 as harness_own_mark".into());
        assert!(after.since(&Snapshot::default()).0.is_empty());
    }
}
