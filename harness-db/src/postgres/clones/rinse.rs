//! Taking back what a test did, where that is certain and cheaper than another clone.
//!
//! Postgres counts every row that a session inserts, changes or deletes, also in its own catalogs (documentation, "The
//! Cumulative Statistics System"). So a used database is in one of three states: nothing was changed; only rows of tables
//! were changed that are empty in the template, and sequences were drawn from that stand at their beginning there; or
//! something else happened. The first is handed out again as it is. In the second, truncating those tables and restarting
//! those sequences gives the template's state: a table without rows has none that could differ. The third is dropped.

use std::collections::BTreeSet;

use harness_core::CoreResult;
use sqlx::{PgConnection, Row as _};

use super::super::sql;

/// What of a template can be taken back to: looked up once in one of its clones.
#[derive(Debug, Default)]
pub(super) struct Pristine {
    /// Tables without a single page and without statistics, by object identifier: those of the clones are the template's.
    empty: BTreeSet<i64>,
    /// Sequences that have not been drawn from and stand at their first value.
    unused: BTreeSet<i64>,
}

/// What a test did inside its database.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Traces {
    None,
    /// Rows of these tables and steps of these sequences, by name.
    Rows {
        tables: Vec<String>,
        sequences: Vec<String>,
    },
    /// Something that only another clone takes back.
    Other,
}

const EMPTY: &str = "select c.oid::int8 as oid from pg_class c \
    where c.oid >= 16384 and c.relkind = 'r' and c.reltuples = -1 and pg_relation_size(c.oid) = 0";

/// Sequences that were never drawn from, with the names to ask them by.
const UNUSED: &str = "select s.seqrelid::int8 as oid, s.seqrelid::regclass::text as name, s.seqstart as first \
    from pg_sequence s where pg_sequence_last_value(s.seqrelid) is null";

/// Every table and sequence that the counters speak of, and `other` for what is not rows. Asked of the counters themselves:
/// the views over them cost four times as much. The catalogs' own tables have object identifiers below 16384
/// (`FirstNormalObjectId`), and so have their overflow tables; those of other tables change with their tables.
const TOUCHED: &str = "select case \
        when c.relkind = 'S' then 'sequence' \
        when c.oid < 16384 or pg_stat_get_vacuum_count(c.oid) + pg_stat_get_analyze_count(c.oid) > 0 then 'other' \
        when c.relkind = 't' then 'part' else 'table' end as what, c.oid::int8 as oid, c.oid::regclass::text as name \
    from pg_class c where not c.relisshared and case \
        when c.relkind = 'S' then pg_stat_get_blocks_fetched(c.oid) > 0 \
        when c.relkind in ('r', 't', 'm') then pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) \
            + pg_stat_get_tuples_deleted(c.oid) + pg_stat_get_vacuum_count(c.oid) + pg_stat_get_analyze_count(c.oid) > 0 \
        end";

/// What stands in the way of truncating these tables, and those that reference them: they have to be truncated with them.
/// Triggers that fire in any case would see it.
fn around(tables: &[i64]) -> String {
    let list = tables.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "with recursive changed(relid) as ( \
           select oid from pg_class where oid in ({list}) union \
           select f.conrelid from pg_constraint f join changed on f.confrelid = changed.relid where f.contype = 'f') \
         select case when exists (select 1 from pg_trigger t where t.tgrelid = relid and t.tgenabled in ('A', 'R') \
                and t.tgtype & 32 <> 0) then 'other' else 'table' end as what, \
                relid::int8 as oid, relid::regclass::text as name from changed"
    )
}

/// Looks into a clone that nobody has used. Its counters begin anew afterwards.
pub(super) async fn pristine(session: &mut PgConnection) -> CoreResult<Pristine> {
    let oid = |row: &sqlx::postgres::PgRow| row.try_get::<i64, _>("oid").ok();
    let empty = sql::rows(session, "look for empty tables", EMPTY).await?.iter().filter_map(oid).collect();
    let mut each = Vec::new();
    for row in sql::rows(session, "look for unused sequences", UNUSED).await? {
        let (Some(oid), Ok(name), Ok(first)) =
            (oid(&row), row.try_get::<String, _>("name"), row.try_get::<i64, _>("first"))
        else {
            continue;
        };
        each.push(format!("select {oid}::int8 as oid from {name} where last_value = {first}"));
    }
    let mut unused = BTreeSet::new();
    if !each.is_empty() {
        let rows = sql::rows(session, "ask the sequences", each.join(" union all ")).await?;
        unused = rows.iter().filter_map(oid).collect();
    }
    Ok(Pristine { empty, unused })
}

/// What the counters say, judged by what could be taken back.
pub(super) async fn traces(session: &mut PgConnection, pristine: Option<&Pristine>) -> CoreResult<Traces> {
    let touched = found(session, TOUCHED.to_owned()).await?;
    if touched.is_empty() {
        return Ok(Traces::None);
    }
    let Some(pristine) = pristine else { return Ok(Traces::Other) };
    let is_empty = |found: &Found| found.what == "table" && pristine.empty.contains(&found.oid);
    let (mut sequences, mut oids) = (Vec::new(), Vec::new());
    for found in touched {
        match &*found.what {
            "part" => {}
            "sequence" if pristine.unused.contains(&found.oid) => sequences.push(found.name),
            _ if is_empty(&found) => oids.push(found.oid),
            _ => return Ok(Traces::Other),
        }
    }
    let mut tables = Vec::new();
    if !oids.is_empty() {
        let all = found(session, around(&oids)).await?;
        if !all.iter().all(is_empty) {
            return Ok(Traces::Other);
        }
        tables.extend(all.into_iter().map(|found| found.name));
    }
    Ok(Traces::Rows { tables, sequences })
}

struct Found {
    what: String,
    oid: i64,
    name: String,
}

async fn found(session: &mut PgConnection, text: String) -> CoreResult<Vec<Found>> {
    let rows = sql::rows(session, "ask what was changed inside", text).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Found { what: row.try_get("what")?, oid: row.try_get("oid")?, name: row.try_get("name")? })
    };
    let read: Result<Vec<Found>, sqlx::Error> = rows.iter().map(read).collect();
    read.map_err(|error| sql::query_error("read what was changed inside", error))
}

/// Takes rows and steps back, without the triggers of the application, and has it counted before the counters are reset.
pub(super) async fn rinse(session: &mut PgConnection, tables: &[String], sequences: &[String]) -> CoreResult {
    let mut text = "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '2s'".to_owned();
    if !tables.is_empty() {
        text += &format!("; TRUNCATE ONLY {}", tables.join(", ONLY "));
    }
    for sequence in sequences {
        text += &format!("; ALTER SEQUENCE {sequence} RESTART");
    }
    text += "; SELECT pg_stat_force_next_flush(); COMMIT";
    sql::run(session, "take the test's rows back", text).await
}
