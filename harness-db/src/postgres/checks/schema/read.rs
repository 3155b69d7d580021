//! Reads the catalog in one snapshot.
//!
//! Each kind is one query that gives JSON in the shape of its type (PostgreSQL documentation, chapter 53, *System
//! Catalogs*). `search_path` is `public`, so that names there stand alone and all others carry their schema.

use std::collections::{BTreeMap, BTreeSet};

use harness_core::{CoreResult, Error, ErrorKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::catalog::{Column, Constraint, Function, Index, Policy, Schema, Sequence, Table, UserType, View};
use crate::postgres::sql;

/// What users make: not the system's schemas, and not what an extension brought (`pg_depend` of type `e`).
const OURS: &str = "n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%' \
                    and n.nspname not like 'pg\\_temp%'";

/// A condition that leaves out what an extension brought.
fn own(catalog: &str, oid: &str) -> String {
    format!(
        "{OURS} and not exists (select 1 from pg_depend e where e.classid = '{catalog}'::regclass and e.objid = {oid} \
         and e.deptype = 'e')"
    )
}

/// A name with its schema, unless that is `public`.
fn name(relation: &str) -> String {
    format!("case when n.nspname = 'public' then {relation} else n.nspname || '.' || {relation} end")
}

/// One part of a table, with the table's name.
#[derive(Deserialize)]
struct Of<T> {
    of_table: String,
    #[serde(flatten)]
    part: T,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Grants {
    role: String,
    privileges: BTreeSet<String>,
}

/// Reads everything, all of one moment.
pub(super) async fn snapshot(session: &mut PgConnection) -> CoreResult<Schema> {
    let begin = "begin isolation level repeatable read, read only; set local search_path = public";
    sql::run(session, "begin reading the catalog", begin).await?;
    let schema = everything(session).await;
    sql::run(session, "end reading the catalog", "rollback").await?;
    schema
}

/// Reads everything as the session sees it, uncommitted work of its own included.
pub(super) async fn inside(session: &mut PgConnection) -> CoreResult<Schema> {
    let failed = |error| sql::query_error("begin reading the catalog", error);
    let mut transaction = session.begin().await.map_err(failed)?;
    sql::run(&mut transaction, "begin reading the catalog", "set local search_path = public").await?;
    let schema = everything(&mut transaction).await;
    transaction.rollback().await.map_err(failed)?;
    schema
}

async fn everything(session: &mut PgConnection) -> CoreResult<Schema> {
    let mut schema = Schema::default();
    tables(session, &mut schema.tables).await?;
    let views: Vec<View> = rows(session, "views", views_sql()).await?;
    schema.views = views.into_iter().map(|view| (view.name.clone(), view)).collect();
    let sequences: Vec<Sequence> = rows(session, "sequences", sequences_sql()).await?;
    schema.sequences = sequences.into_iter().map(|sequence| (sequence.name.clone(), sequence)).collect();
    let functions: Vec<Function> = rows(session, "functions", functions_sql()).await?;
    schema.functions = functions.into_iter().map(|function| (function.name.clone(), function)).collect();
    let types: Vec<UserType> = rows(session, "types", types_sql()).await?;
    schema.types = types.into_iter().map(|one| (one.name.clone(), one)).collect();
    schema.extensions = pairs(session, "select extname as name, extversion as value from pg_extension").await?;
    let schemas =
        format!("select nspname as name, pg_get_userbyid(nspowner) as value from pg_namespace n where {OURS}");
    schema.schemas = pairs(session, &schemas).await?;
    let roles = "select rolname as name, '' as value from pg_roles where rolname not like 'pg\\_%'";
    schema.roles = pairs(session, roles).await?.into_keys().collect();
    let database = pairs(session, "select current_database() as name, '' as value").await?;
    schema.database = database.into_keys().next().unwrap_or_default();
    Ok(schema)
}

async fn tables(session: &mut PgConnection, into: &mut BTreeMap<String, Table>) -> CoreResult {
    let found: Vec<Table> = rows(session, "tables", tables_sql()).await?;
    into.extend(found.into_iter().map(|table| (table.name.clone(), table)));
    for Of { of_table, part } in rows::<Of<Column>>(session, "columns", columns_sql()).await? {
        into.entry(of_table).and_modify(|table| table.columns.push(part));
    }
    for Of { of_table, part } in rows::<Of<Constraint>>(session, "constraints", constraints_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.constraints.insert(part.name.clone(), part)));
    }
    for Of { of_table, part } in rows::<Of<Index>>(session, "indexes", indexes_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.indexes.insert(part.name.clone(), part)));
    }
    for Of { of_table, part } in rows::<Of<Pair>>(session, "triggers", triggers_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.triggers.insert(part.name, part.value)));
    }
    for Of { of_table, part } in rows::<Of<Policy>>(session, "policies", policies_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.policies.insert(part.name.clone(), part)));
    }
    for Of { of_table, part } in rows::<Of<Grants>>(session, "grants", grants_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.grants.insert(part.role, part.privileges)));
    }
    for Of { of_table, part } in rows::<Of<Grants>>(session, "privileges", effective_sql()).await? {
        into.entry(of_table).and_modify(|table| drop(table.effective.insert(part.role, part.privileges)));
    }
    Ok(())
}

async fn rows<T: DeserializeOwned>(session: &mut PgConnection, what: &str, query: String) -> CoreResult<Vec<T>> {
    let what = format!("read the {what} from the catalog");
    let found = sql::rows(session, &what, format!("select to_jsonb(x)::text as json from ({query}) x")).await?;
    let parse = |row: &sqlx::postgres::PgRow| {
        let json: String = row.try_get("json").map_err(|error| sql::query_error(&what, error))?;
        serde_json::from_str(&json)
            .map_err(|error| Error::new(ErrorKind::Protocol, format!("could not {what}: {json}")).caused_by(error))
    };
    found.iter().map(parse).collect()
}

async fn pairs(session: &mut PgConnection, query: &str) -> CoreResult<BTreeMap<String, String>> {
    let found: Vec<Pair> = rows(session, "names", query.to_owned()).await?;
    Ok(found.into_iter().map(|pair| (pair.name, pair.value)).collect())
}

fn tables_sql() -> String {
    format!(
        "select {name} as name, pg_get_userbyid(c.relowner) as owner, obj_description(c.oid, 'pg_class') as comment, \
         case c.relkind when 'p' then 'partitioned table' when 'f' then 'foreign table' \
           else case when c.relispartition then 'partition' else 'table' end end as kind, \
         c.relpersistence = 'u' as is_unlogged, c.relrowsecurity as row_security, \
         c.relforcerowsecurity as row_security_forced, pg_get_partkeydef(c.oid) as partition_key, \
         (select string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno) from pg_inherits i \
          where i.inhrelid = c.oid) || coalesce(' ' || pg_get_expr(c.relpartbound, c.oid), '') as partition_of \
         {joined}",
        name = name("c.relname"),
        joined = joined(""),
    )
}

fn columns_sql() -> String {
    format!(
        "select {name} as of_table, a.attname as name, format_type(a.atttypid, a.atttypmod) as type_name, \
         a.attnotnull as not_null, \
         case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as default, \
         case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) end as generated, \
         case a.attidentity when 'a' then 'ALWAYS' when 'd' then 'BY DEFAULT' end as identity, \
         case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end as collation, \
         col_description(c.oid, a.attnum) as comment \
         {joined} order by 1, a.attnum",
        name = name("c.relname"),
        joined = joined(
            "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
             join pg_type t on t.oid = a.atttypid \
             left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum"
        ),
    )
}

/// The names of the columns whose numbers are in `array`, in its order.
fn column_names(relation: &str, array: &str) -> String {
    format!(
        "coalesce((select json_agg(a.attname order by u.at) from unnest({array}) with ordinality u(number, at) \
         join pg_attribute a on a.attrelid = {relation} and a.attnum = u.number), '[]')"
    )
}

/// The part of a query that joins what hangs on a table (`join`) to the tables.
fn joined(join: &str) -> String {
    format!(
        "from pg_class c join pg_namespace n on n.oid = c.relnamespace {join} \
         where c.relkind in ('r', 'p', 'f') and {}",
        own("pg_class", "c.oid")
    )
}

fn constraints_sql() -> String {
    // From version 18 on `NOT NULL` is a constraint too (type n); here it is a fact about the column.
    format!(
        "select {name} as of_table, k.conname as name, k.convalidated as is_valid, \
         pg_get_constraintdef(k.oid) as definition, \
         case when k.confrelid <> 0 then k.confrelid::regclass::text end as references, \
         {columns} as columns, {referenced} as referenced_columns, \
         case k.contype when 'p' then 'primary_key' when 'u' then 'unique' when 'f' then 'foreign_key' \
           when 'c' then 'check' when 'x' then 'exclusion' else 'other' end as kind \
         {joined}",
        name = name("c.relname"),
        columns = column_names("k.conrelid", "k.conkey"),
        referenced = column_names("k.confrelid", "k.confkey"),
        joined = joined("join pg_constraint k on k.conrelid = c.oid and k.contype not in ('t', 'n')"),
    )
}

fn indexes_sql() -> String {
    format!(
        "select {name} as of_table, i.relname as name, am.amname as method, pg_get_indexdef(i.oid) as definition, \
         x.indisunique as is_unique, x.indisprimary as is_primary, x.indisvalid and x.indisready as is_valid, \
         pg_get_expr(x.indpred, x.indrelid) as predicate, \
         (select json_agg(coalesce((select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum = x.indkey[g - 1] \
           and a.attnum <> 0), pg_get_indexdef(i.oid, g, true)) order by g) from generate_series(1, x.indnkeyatts) g) as columns \
         {joined}",
        name = name("c.relname"),
        joined = joined(
            "join pg_index x on x.indrelid = c.oid join pg_class i on i.oid = x.indexrelid join pg_am am on am.oid = i.relam"
        ),
    )
}

fn triggers_sql() -> String {
    format!(
        "select {name} as of_table, t.tgname as name, pg_get_triggerdef(t.oid) || \
         case t.tgenabled when 'D' then ' (disabled)' when 'A' then ' (always)' when 'R' then ' (replica)' else '' end as value \
         {joined}",
        name = name("c.relname"),
        joined = joined("join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal"),
    )
}

fn policies_sql() -> String {
    format!(
        "select {name} as of_table, p.polname as name, p.polpermissive as is_permissive, \
         case p.polcmd when 'r' then 'SELECT' when 'a' then 'INSERT' when 'w' then 'UPDATE' when 'd' then 'DELETE' \
           else 'ALL' end as command, \
         (select json_agg(case when r = 0 then 'PUBLIC' else pg_get_userbyid(r) end order by r) from unnest(p.polroles) r) as roles, \
         pg_get_expr(p.polqual, p.polrelid) as using_expression, pg_get_expr(p.polwithcheck, p.polrelid) as check_expression \
         {joined}",
        name = name("c.relname"),
        joined = joined("join pg_policy p on p.polrelid = c.oid"),
    )
}

fn grants_sql() -> String {
    format!(
        "select of_table, role, json_agg(distinct privilege) as privileges from (\
         select {name} as of_table, case when a.grantee = 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end as role, \
         a.privilege_type || case when a.is_grantable then ' WITH GRANT OPTION' else '' end as privilege \
         {joined} and a.grantee <> c.relowner) g group by 1, 2",
        name = name("c.relname"),
        joined = joined("cross join aclexplode(c.relacl) a"),
    )
}

fn effective_sql() -> String {
    format!(
        "select of_table, role, json_agg(privilege) as privileges from (\
         select {name} as of_table, r.rolname as role, p.privilege \
         {joined} and r.rolname not like 'pg\\_%' and has_table_privilege(r.oid, c.oid, p.privilege)) g group by 1, 2",
        name = name("c.relname"),
        joined = joined(
            "cross join pg_roles r cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', \
             'REFERENCES', 'TRIGGER']) p(privilege)"
        ),
    )
}

fn views_sql() -> String {
    format!(
        "select {name} as name, c.relkind = 'm' as is_materialized, pg_get_userbyid(c.relowner) as owner, \
         pg_get_viewdef(c.oid) as definition, coalesce(to_jsonb(c.reloptions), '[]') as options, \
         coalesce((select json_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) order by a.attnum) \
           from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('v', 'm') and {own}",
        name = name("c.relname"),
        own = own("pg_class", "c.oid")
    )
}

fn sequences_sql() -> String {
    // A sequence of type `i` in pg_depend is that of an identity column: part of the column.
    format!(
        "select {name} as name, \
         format('%s start %s increment %s min %s max %s cache %s%s', format_type(s.seqtypid, null), s.seqstart, s.seqincrement, \
           s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then ' cycle' else '' end) as definition, \
         (select d.refobjid::regclass::text || '.' || a.attname from pg_depend d \
          join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
          where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'a' and d.refobjsubid > 0 limit 1) as owned_by \
         from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace \
         where {own} and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid \
           and d.deptype = 'i')",
        name = name("c.relname"),
        own = own("pg_class", "c.oid")
    )
}

fn functions_sql() -> String {
    format!(
        "select {name} as name, l.lanname as language, pg_get_function_result(p.oid) as returns, \
         case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' when 'w' then 'window function' \
           else 'function' end as kind, \
         case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end as volatility, \
         p.proisstrict as is_strict, p.prosecdef as is_definer, pg_get_userbyid(p.proowner) as owner, \
         case when p.prokind = 'a' then (select format('aggregate of %s, %s', g.aggtransfn, g.aggfinalfn) from pg_aggregate g \
           where g.aggfnoid = p.oid) else pg_get_functiondef(p.oid) end as definition \
         from pg_proc p join pg_language l on l.oid = p.prolang join pg_namespace n on n.oid = p.pronamespace where {own}",
        name = name("p.proname || '(' || oidvectortypes(p.proargtypes) || ')'"),
        own = own("pg_proc", "p.oid")
    )
}

fn types_sql() -> String {
    format!(
        "select {name} as name, \
         case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'c' then 'composite' else 'range' end as kind, \
         case t.typtype when 'd' then format_type(t.typbasetype, t.typtypmod) || case when t.typnotnull then ' not null' else '' end \
             || coalesce(' default ' || t.typdefault, '') \
           when 'r' then (select format_type(r.rngsubtype, null) from pg_range r where r.rngtypid = t.oid) end as base, \
         coalesce(case t.typtype \
           when 'e' then (select json_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid) \
           when 'd' then (select json_agg(k.conname || ' ' || pg_get_constraintdef(k.oid) order by k.conname) \
             from pg_constraint k where k.contypid = t.oid and k.contype = 'c') \
           when 'c' then (select json_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) order by a.attnum) \
             from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) end, '[]') as parts \
         from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid \
         where t.typtype in ('e', 'd', 'r', 'c') and (t.typtype <> 'c' or c.relkind = 'c') and {own}",
        name = name("t.typname"),
        own = own("pg_type", "t.oid")
    )
}
