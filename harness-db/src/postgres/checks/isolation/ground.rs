//! The state that every interleaving begins with, and the state it leaves.

use std::collections::BTreeMap;

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::{PgConnection, Row as _};

use super::script::line;
use crate::postgres::sql::{self, ident, literal};

/// Rows of all tables that are compared when no state query is given.
const MOST_ROWS: usize = 10_000;
const SCHEMA: &str = "harness_probe";

/// How to put the database back, and what to read from it.
#[derive(Debug)]
pub(super) struct Ground {
    session: PgConnection,
    setup: Option<String>,
    state: Option<String>,
    tables: Vec<Table>,
    sequences: Vec<String>,
    may_set: bool,
}

#[derive(Debug)]
struct Table {
    name: String,
    copy: String,
    columns: String,
}

impl Ground {
    /// Remembers what is there, unless `setup` says how to make it.
    pub(super) async fn prepare(
        mut session: PgConnection,
        setup: Option<String>,
        state: Option<String>,
    ) -> CoreResult<Self> {
        let tables = tables(&mut session).await?;
        if tables.is_empty() && (setup.is_none() || state.is_none()) {
            let what = "the database holds no table whose state could be compared";
            return Err(Error::new(ErrorKind::NoEvidence, what).remedy("create the tables before the probe"));
        }
        let asked = "select has_parameter_privilege('session_replication_role', 'SET') \
                     and has_parameter_privilege('deadlock_timeout', 'SET') as it";
        let rights = sql::rows(&mut session, "ask for rights", asked).await?;
        let may_set = rights.first().and_then(|row| row.try_get::<bool, _>("it").ok()).unwrap_or(false);
        let mut ground = Self { session, setup, state, tables, sequences: Vec::new(), may_set };
        if ground.setup.is_none() {
            ground.remember().await?;
        }
        Ok(ground)
    }

    /// True when the user may set what others may not: whether triggers fire, how soon a deadlock is looked for.
    pub(super) fn may_set(&self) -> bool {
        self.may_set
    }

    async fn remember(&mut self) -> CoreResult {
        let mut text = format!("drop schema if exists {SCHEMA} cascade; create schema {SCHEMA}");
        for table in &self.tables {
            text += &format!("; create table {} as table {}", table.copy, table.name);
        }
        sql::run(&mut self.session, "copy the tables", text).await?;
        let asked = "select quote_ident(schemaname) || '.' || quote_ident(sequencename) as name, last_value \
                     from pg_sequences where schemaname <> 'harness_probe'";
        for row in sql::rows(&mut self.session, "read the sequences", asked).await? {
            let failed = |error| sql::query_error("read the sequences", error);
            let (name, value): (String, Option<i64>) =
                (row.try_get("name").map_err(failed)?, row.try_get("last_value").map_err(failed)?);
            let name = literal(&name);
            self.sequences.push(match value {
                Some(value) => format!("select setval({name}, {value})"),
                None => format!(
                    "select setval({name}, (select seqstart from pg_sequence where seqrelid = {name}::regclass), false)"
                ),
            });
        }
        Ok(())
    }

    /// Puts the database back to where every interleaving begins.
    pub(super) async fn restore(&mut self) -> CoreResult {
        if let Some(setup) = &self.setup {
            return sql::run(&mut self.session, "run the setup of the probe", setup.clone()).await;
        }
        let mut text = "begin".to_owned();
        if self.may_set {
            text += "; set local session_replication_role = replica";
        }
        for table in &self.tables {
            text += &format!("; delete from {}", table.name);
        }
        for Table { name, copy, columns } in &self.tables {
            text += &format!("; insert into {name} ({columns}) overriding system value select {columns} from {copy}");
        }
        for sequence in &self.sequences {
            text += &format!("; {sequence}");
        }
        let done = sql::run(&mut self.session, "put the tables back", format!("{text}; commit")).await;
        done.map_err(|error| error.remedy("give the probe its start with .setup(\"delete from …; insert into …\")"))
    }

    /// The state now: the rows of the state query, or of all tables.
    pub(super) async fn state(&mut self) -> CoreResult<Vec<String>> {
        if let Some(state) = self.state.clone() {
            let rows = sql::rows(&mut self.session, "read the state", state).await?;
            return Ok(rows.iter().map(line).collect());
        }
        let parts = self
            .tables
            .iter()
            .map(|table| format!("select {} || ': ' || t::text as line from {} t", literal(&table.name), table.name));
        let text = format!("{} order by 1 limit {}", parts.collect::<Vec<_>>().join(" union all "), MOST_ROWS + 1);
        let rows = sql::rows(&mut self.session, "read the state of all tables", text).await?;
        if rows.len() > MOST_ROWS {
            let what =
                format!("the tables hold more than {MOST_ROWS} rows, too many to compare after each interleaving");
            return Err(Error::new(ErrorKind::Config, what).remedy("say what matters with .state(\"select …\")"));
        }
        Ok(rows.iter().map(line).collect())
    }

    /// What a query that must be true says, for a person: `None` when it holds.
    pub(super) async fn broken(&mut self, name: &str, query: &str) -> CoreResult<Option<String>> {
        let rows = sql::rows(&mut self.session, &format!("ask for the invariant `{name}`"), query.to_owned()).await?;
        let answer: Vec<String> = rows.iter().map(line).collect();
        match &answer[..] {
            [one] if one == "t" => Ok(None),
            [one] if one == "f" => Ok(Some(format!("{name} does not hold"))),
            other => {
                let what = format!("the invariant `{name}` is not one row with true or false: {other:?}");
                Err(Error::new(ErrorKind::Config, what).remedy("write it as: select sum(n) = 100 from accounts"))
            }
        }
    }

    /// Leaves the database as it was found.
    pub(super) async fn leave(mut self) -> CoreResult {
        self.restore().await?;
        if self.setup.is_none() {
            sql::run(&mut self.session, "drop the copies", format!("drop schema {SCHEMA} cascade")).await?;
        }
        let _ = sqlx::Connection::close(self.session).await;
        Ok(())
    }
}

/// All tables of the user with rows of their own, and their columns that can be written.
async fn tables(session: &mut PgConnection) -> CoreResult<Vec<Table>> {
    let text = "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name, \
                string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns \
                from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' \
                where c.relkind = 'r' and c.relpersistence <> 't' \
                and n.nspname not in ('pg_catalog', 'information_schema', 'harness_probe', 'harness_suite') \
                and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e') \
                group by 1 order by 1";
    let rows = sql::rows(session, "list the tables", text).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let failed = |error| sql::query_error("list the tables", error);
        found.insert(row.try_get::<String, _>("name").map_err(failed)?, row.try_get("columns").map_err(failed)?);
    }
    let numbered = found.into_iter().enumerate();
    Ok(numbered
        .map(|(at, (name, columns))| Table { name, copy: format!("{SCHEMA}.{}", ident(&format!("t{at}"))), columns })
        .collect())
}
