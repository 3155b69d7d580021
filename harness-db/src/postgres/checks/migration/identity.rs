//! Whether a second run did anything: not only the same schema, but the very same objects and rows.
//!
//! An index that is dropped and built again, a view that is replaced by itself, a row that is updated to its old value: the
//! definitions are equal, the object identifiers, files and row versions are not (`oid`, `relfilenode`, `xmin`, `ctid`;
//! PostgreSQL documentation, section 5.5, *System Columns*).

use std::collections::BTreeMap;

use harness_core::{CoreResult, Outcome};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::apply::{Step, Way};
use super::{From, Migrations};
use crate::postgres::{Database, sql};

/// Name and version of every object of the user's, over all catalogs that a migration writes.
const OBJECTS: &str = "\
    select 'relation ' || c.oid::regclass::text as name, concat_ws(' ', c.oid, c.relfilenode, c.xmin) as version \
      from pg_class c where c.relnamespace in (select oid from ours) and c.relkind <> 'c' \
    union all select 'columns of ' || a.attrelid::regclass::text, string_agg(concat_ws(' ', a.attnum, a.xmin), ',' order by a.attnum) \
      from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace in (select oid from ours) and a.attnum > 0 group by a.attrelid \
    union all select 'default of ' || d.adrelid::regclass::text || ' ' || d.adnum, concat_ws(' ', d.oid, d.xmin) \
      from pg_attrdef d join pg_class c on c.oid = d.adrelid where c.relnamespace in (select oid from ours) \
    union all select 'constraint ' || conname || ' of ' || conrelid::regclass::text, concat_ws(' ', oid, xmin) \
      from pg_constraint where connamespace in (select oid from ours) \
    union all select 'function ' || oid::regprocedure::text, concat_ws(' ', oid, xmin) from pg_proc where pronamespace in (select oid from ours) \
    union all select 'type ' || oid::regtype::text, concat_ws(' ', oid, xmin) from pg_type where typnamespace in (select oid from ours) \
    union all select 'enum label ' || enumlabel || ' of ' || enumtypid::regtype::text, concat_ws(' ', e.oid, e.xmin) \
      from pg_enum e join pg_type t on t.oid = e.enumtypid where t.typnamespace in (select oid from ours) \
    union all select 'rule ' || rulename || ' of ' || ev_class::regclass::text, concat_ws(' ', r.oid, r.xmin) \
      from pg_rewrite r join pg_class c on c.oid = r.ev_class where c.relnamespace in (select oid from ours) \
    union all select 'trigger ' || tgname || ' of ' || tgrelid::regclass::text, concat_ws(' ', t.oid, t.xmin) \
      from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace in (select oid from ours) \
    union all select 'policy ' || polname || ' of ' || polrelid::regclass::text, concat_ws(' ', p.oid, p.xmin) from pg_policy p \
    union all select 'comment on ' || d.classoid::regclass::text || ' ' || d.objoid || ' ' || d.objsubid, d.xmin::text \
      from pg_description d join pg_class c on d.classoid = 'pg_class'::regclass and c.oid = d.objoid where c.relnamespace in (select oid from ours) \
    union all select 'extension ' || extname, concat_ws(' ', oid, xmin) from pg_extension \
    union all select 'schema ' || nspname, concat_ws(' ', oid, xmin) from pg_namespace where oid in (select oid from ours)";

/// The schemas of the user's.
const OURS: &str = "select oid from pg_namespace where nspname not in ('pg_catalog', 'information_schema') \
                    and nspname not like 'pg\\_toast%' and nspname not like 'pg\\_temp%'";

/// Version of every object and of the rows of every table, by name.
pub(super) async fn identity(database: &Database, books: &[&str]) -> CoreResult<BTreeMap<String, String>> {
    let mut session = database.connect().await?;
    let mut found = pairs(&mut session, format!("with ours as ({OURS}) {OBJECTS}")).await?;
    let tables = format!(
        "with ours as ({OURS}) select c.oid::regclass::text as name, c.relname::text as version from pg_class c \
         where c.relkind = 'r' and c.relnamespace in (select oid from ours)"
    );
    for (table, bare) in pairs(&mut session, tables).await? {
        if !books.contains(&bare.as_str()) {
            let rows = format!(
                "select {} as name, count(*) || ' ' || coalesce(sum(hashtextextended(ctid::text || ' ' || xmin::text, 0)::numeric), 0) \
                 as version from {table}",
                sql::literal(&format!("rows of {table}"))
            );
            found.extend(pairs(&mut session, rows).await?);
        }
    }
    let _ = session.close().await;
    Ok(found)
}

async fn pairs(session: &mut PgConnection, text: String) -> CoreResult<BTreeMap<String, String>> {
    let what = "read the versions of objects";
    let rows = sql::rows(session, what, text).await?;
    let pair = |row: &sqlx::postgres::PgRow| Ok((row.try_get("name")?, row.try_get("version")?));
    rows.iter().map(pair).collect::<Result<_, sqlx::Error>>().map_err(|error| sql::query_error(what, error))
}

impl Migrations {
    /// Runs everything once more and passes when that did nothing at all: no migration applied, no object replaced, no row
    /// written. To be asked when the migrations are applied.
    ///
    /// # Errors
    /// As [`Migrations::apply`].
    pub async fn rerun(&self, database: &Database) -> CoreResult<Outcome> {
        let books = self.books();
        let before = identity(database, &books).await?;
        let applied = match &self.from {
            From::Own(runner) => {
                if before.keys().filter(|name| name.starts_with("relation ")).count() == 0 {
                    return Ok(Outcome::no_evidence(
                        "the database is empty: run the migrations before running them again",
                    ));
                }
                Step::Whole(runner).go(Way::Up, database, self.limit).await?;
                Vec::new()
            }
            From::Dir(_) | From::List(_) => {
                let all = self.read()?;
                let open = self.pending(database, &all).await?.len();
                if open == all.len() {
                    return Ok(Outcome::no_evidence(
                        "no migration is applied: run the migrations before running them again",
                    ));
                }
                self.apply(database).await?
            }
        };
        let after = identity(database, &books).await?;
        let changed: Vec<&String> =
            before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
        let changed: Vec<&String> = changed.into_iter().filter(|name| before.get(*name) != after.get(*name)).collect();
        Ok(match (applied.is_empty(), changed.first()) {
            (true, None) => Outcome::pass(format!("the second run did nothing to {} objects", after.len())),
            (false, _) => {
                let versions: Vec<String> = applied.iter().map(|one| one.version.to_string()).collect();
                Outcome::fail(format!("the second run applied migrations {}", versions.join(", ")))
            }
            (true, Some(first)) => {
                let what = match (before.contains_key(*first), after.contains_key(*first)) {
                    (true, false) => "is gone",
                    (false, true) => "is new",
                    _ => "was replaced or written",
                };
                Outcome::fail(format!("the second run is no no-op: {first} {what} ({} differences)", changed.len()))
            }
        })
    }
}
