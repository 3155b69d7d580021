//! Backup and restore: what came back is, row by row, what was there.
//!
//! ```no_run
//! use harness_db::postgres::restore;
//!
//! # async fn body(own: &harness_db::OwnPostgres) -> harness_db::Result {
//! let (from, to) = (own.options().database("orders"), own.options().database("restored"));
//! let outcome = restore::drill(&from, &to, async {
//!     // … your backup of the one, your restore into the other …
//!     Ok(())
//! })
//! .await?;
//! assert!(outcome.is_pass(), "{outcome}");
//! # Ok(()) }
//! ```
//!
//! The digest covers the rows of all tables that are nobody's system's, and the state of sequences, whose loss shows only with the
//! next insert. It does not cover what is no data: compare schemas with [`Schema`](super::Schema), and roles by hand.

use harness_core::CoreResult;
use harness_props::Outcome;
use harness_props::history::restore::StateDigest;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use crate::postgres::sql;

/// Rows that are fetched at a time.
const ROWS: u32 = 2_000;
/// Values read the same whatever a server or a role is set to.
const SETTINGS: &str = "begin isolation level repeatable read read only; set local datestyle = 'ISO, YMD'; \
                        set local timezone = 'UTC'; set local extra_float_digits = 3; set local bytea_output = 'hex'; \
                        set local intervalstyle = 'iso_8601'; set local row_security = off";

/// A digest of everything a database holds, at one moment.
///
/// # Errors
/// [`harness_core::ErrorKind::Connect`] when the server does not answer; else what it says of a table that this role may not read.
pub async fn digest(database: &PgConnectOptions) -> CoreResult<StateDigest> {
    let mut session = sql::connect(&database.clone().disable_statement_logging()).await?;
    sql::run(&mut session, "begin to read", SETTINGS).await?;
    let mut digest = StateDigest::new();
    let relations = "select c.oid::regclass::text as name, c.relkind::text as kind \
                     from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                     where c.relkind in ('r', 'S', 'm') and c.relpersistence <> 't' \
                     and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%' order by 1";
    for row in sql::rows(&mut session, "list tables", relations).await? {
        let read = |name: &str| row.try_get::<String, _>(name).map_err(|error| sql::query_error("list tables", error));
        let (name, kind) = (read("name")?, read("kind")?);
        if kind == "S" {
            let state = format!("select last_value::text || ' ' || is_called::text as line from {name}");
            add(&mut session, &mut digest, &format!("sequence {name}"), &state).await?;
        } else {
            add(&mut session, &mut digest, &name, &format!("select t::text as line from only {name} t")).await?;
        }
    }
    let _ = session.close().await;
    Ok(digest)
}

async fn add(session: &mut PgConnection, digest: &mut StateDigest, table: &str, query: &str) -> CoreResult {
    let what = format!("read {table}");
    digest.table(table);
    sql::run(session, &what, format!("declare harness_rows no scroll cursor for {query}")).await?;
    loop {
        let rows = sql::rows(session, &what, format!("fetch {ROWS} from harness_rows")).await?;
        for row in &rows {
            let line: Option<String> = row.try_get("line").map_err(|error| sql::query_error(&what, error))?;
            digest.row(table, line.as_deref().unwrap_or_default());
        }
        if rows.is_empty() {
            return sql::run(session, &what, "close harness_rows").await;
        }
    }
}

/// Takes a digest of one database, lets `backup_and_restore` do its work, and compares the other database with it. When the first one
/// changed meanwhile there is no evidence, since nobody can say which moment was backed up.
///
/// # Errors
/// Those of the work, and of [`digest`].
pub async fn drill(
    from: &PgConnectOptions,
    to: &PgConnectOptions,
    backup_and_restore: impl Future<Output = CoreResult>,
) -> CoreResult<Outcome> {
    let before = digest(from).await?;
    backup_and_restore.await?;
    let restored = digest(to).await?;
    match before.matches(&digest(from).await?) {
        changed if changed.is_fail() => {
            Ok(Outcome::no_evidence(format!("the source changed while it was backed up: {}", changed.detail())))
        }
        _ => Ok(before.matches(&restored)),
    }
}
