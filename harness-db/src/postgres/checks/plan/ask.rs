//! Asking the server: the statement is prepared, and its execution explained.
//!
//! Only so can both kinds of plan be had on every version: `EXPLAIN (GENERIC_PLAN)` came with PostgreSQL 16 and cannot be
//! run. `EXPLAIN EXECUTE` takes literals only, so the server writes the bound values down as literals first.

use harness_core::CoreResult;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::node::{self, Answer};
use super::{Node, Table};
use crate::postgres::sql;

/// The name of the prepared statement; also the mark by which statements of ours are known.
const PREPARED: &str = "harness_own_explained";

/// A statement with its parameters as the server wrote them down.
pub(super) struct Question {
    sql: String,
    types: Vec<String>,
    pub(super) values: Vec<String>,
    /// How many parameters the statement has.
    pub(super) parameters: usize,
}

/// One way to ask.
#[derive(Clone, Copy)]
pub(super) struct Asked<'s> {
    /// `plan_cache_mode`.
    pub(super) mode: &'s str,
    /// Discourage sequential scans.
    pub(super) force: bool,
    /// Run the statement.
    pub(super) run: bool,
    pub(super) settings: &'s [(String, String)],
}

impl Question {
    pub(super) async fn new(session: &mut PgConnection, text: &str, arguments: &PgArguments) -> CoreResult<Self> {
        let (types, values) = written_down(session, arguments).await?;
        let mut question = Self { sql: text.to_owned(), types, values, parameters: 0 };
        question.prepare(session).await?;
        let count = format!(
            "select cardinality(parameter_types)::int as harness_own from pg_prepared_statements where name = '{PREPARED}'"
        );
        let rows = sql::rows(session, "count the parameters", count).await?;
        question.parameters =
            rows.first().and_then(|row| row.try_get::<i32, _>("harness_own").ok()).map_or(0, |n| n.max(0) as usize);
        release(session).await?;
        Ok(question)
    }

    async fn prepare(&self, session: &mut PgConnection) -> CoreResult {
        let types = if self.types.is_empty() { String::new() } else { format!("({})", self.types.join(", ")) };
        let text = AssertSqlSafe(format!("PREPARE {PREPARED}{types} AS {}", self.sql));
        // Over the extended protocol: a second statement in the text is refused.
        let done = sqlx::query(text).persistent(false).execute(session).await;
        done.map(drop).map_err(|error| sql::query_error(&format!("explain `{}`", self.sql), error))
    }

    /// Prepares, explains and rolls back. A cached generic plan does not notice settings: each question has a statement of
    /// its own.
    pub(super) async fn ask(&self, session: &mut PgConnection, asked: Asked<'_>) -> CoreResult<Answer> {
        let failed = |error| sql::query_error(&format!("explain `{}`", self.sql), error);
        let mut transaction = session.begin().await.map_err(failed)?;
        let ours = [("plan_cache_mode", asked.mode)];
        // Discouraged scans look so dear that just-in-time compilation would seem to pay.
        let forced = [("enable_seqscan", "off"), ("jit", "off")];
        let theirs = asked.settings.iter().map(|(name, value)| (&**name, &**value));
        for (name, value) in ours.into_iter().chain(forced.into_iter().filter(|_| asked.force)).chain(theirs) {
            let name: Vec<String> = name.split('.').map(sql::ident).collect();
            let text = format!("SET LOCAL {} = {}", name.join("."), sql::literal(value));
            sql::run(&mut transaction, "set a planner setting", text).await?;
        }
        self.prepare(&mut transaction).await?;
        let values = match (self.parameters, self.values.is_empty()) {
            (0, true) => String::new(),
            (n, true) => format!("({})", vec!["NULL"; n].join(", ")),
            (_, false) => format!("({})", self.values.join(", ")),
        };
        let options = if asked.run {
            "ANALYZE, BUFFERS, SETTINGS, VERBOSE, FORMAT JSON"
        } else {
            "SETTINGS, VERBOSE, FORMAT JSON"
        };
        let text = AssertSqlSafe(format!("EXPLAIN ({options}) EXECUTE {PREPARED}{values}"));
        let row: PgRow = sqlx::raw_sql(text).fetch_one(&mut *transaction).await.map_err(failed)?;
        let json: String = row.try_get_unchecked(0).map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;
        release(session).await?;
        node::parse(&json)
    }
}

async fn release(session: &mut PgConnection) -> CoreResult {
    sql::run(session, "release the prepared statement", format!("DEALLOCATE {PREPARED}")).await
}

/// The types and the values of the bound parameters as SQL.
async fn written_down(session: &mut PgConnection, arguments: &PgArguments) -> CoreResult<(Vec<String>, Vec<String>)> {
    if arguments.len() == 0 {
        return Ok((Vec::new(), Vec::new()));
    }
    let failed = |error| sql::query_error("write the parameters down", error);
    let of = |pattern: &str| {
        (1..=arguments.len()).map(|n| pattern.replace('#', &format!("${n}"))).collect::<Vec<_>>().join(", ")
    };
    let text =
        format!("select array[{}], array[{}] as harness_own", of("pg_typeof(#)::text"), of("quote_nullable(#::text)"));
    let query = sqlx::query_with(AssertSqlSafe(text), arguments.clone()).persistent(false);
    let row = query.fetch_one(session).await.map_err(failed)?;
    Ok((row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?))
}

/// The partitioned tables (or indexes) above this one, as `schema.name`.
fn above(oid: &str) -> String {
    format!(
        "array(with recursive up(oid) as (select inhparent from pg_inherits where inhrelid = {oid} \
         union select i.inhparent from pg_inherits i join up on i.inhrelid = up.oid) \
         select un.nspname || '.' || uc.relname from up join pg_class uc on uc.oid = up.oid \
         join pg_namespace un on un.oid = uc.relnamespace)::text[]"
    )
}

/// What the catalogue says of the tables that these nodes read.
pub(super) async fn tables(session: &mut PgConnection, nodes: impl Iterator<Item = &Node>) -> CoreResult<Vec<Table>> {
    let named = |node: &Node| match (&node.schema, &node.relation) {
        (Some(schema), Some(name)) => Some(format!("({}, {})", sql::literal(schema), sql::literal(name))),
        _ => None,
    };
    let named: std::collections::BTreeSet<String> = nodes.filter_map(named).collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let text = format!(
        "with named(s, r) as (values {named}), found as (select c.oid, n.nspname::text as schema, c.relname::text as name, \
         c.reltuples::float8 as rows, pg_relation_size(c.oid) / current_setting('block_size')::bigint as pages from named \
         join pg_namespace n on n.nspname = s join pg_class c on c.relnamespace = n.oid and c.relname = r) \
         select f.*, true as harness_own, {of_table} as parents, x.relname::text as index, {of_index} as index_parents from found f \
         left join pg_index i on i.indrelid = f.oid left join pg_class x on x.oid = i.indexrelid order by 1, index",
        named = named.into_iter().collect::<Vec<_>>().join(", "),
        of_table = above("f.oid"),
        of_index = above("i.indexrelid"),
    );
    let rows = sql::rows(session, "look at the tables", text).await?;
    let mut tables: Vec<Table> = Vec::new();
    for row in &rows {
        read_table(row, &mut tables).map_err(|error| sql::query_error("look at the tables", error))?;
    }
    Ok(tables)
}

fn read_table(row: &PgRow, into: &mut Vec<Table>) -> Result<(), sqlx::Error> {
    let (schema, name): (String, String) = (row.try_get("schema")?, row.try_get("name")?);
    if !into.last().is_some_and(|last| last.schema == schema && last.name == name) {
        let rows: f64 = row.try_get("rows")?;
        into.push(Table {
            schema,
            name,
            rows: (rows >= 0.0).then_some(rows as u64),
            pages: row.try_get::<i64, _>("pages")?.max(0).cast_unsigned(),
            parents: row.try_get("parents")?,
            indexes: Vec::new(),
        });
    }
    if let (Some(last), Some(index)) = (into.last_mut(), row.try_get::<Option<String>, _>("index")?) {
        last.indexes.push((index, row.try_get("index_parents")?));
    }
    Ok(())
}
