//! Partial data: does the code live with every column empty that may be empty?
//!
//! ```no_run
//! use harness_db::postgres::partial;
//!
//! # async fn plan(_: &harness_db::Database) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn body(database: &harness_db::Database) -> harness_db::Result {
//! let outcome = partial::without_each(&database.options(), "tasks", async |_missing| plan(database).await).await?;
//! assert!(outcome.is_pass(), "{outcome}");
//! # Ok(()) }
//! ```
//!
//! A column is emptied in all rows, the use case runs, the values are put back; then the next one. Triggers of the table run as they
//! would for anybody. What the use case changes in the rows meanwhile stays, but for that one column.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use harness_core::error::{CoreResult, Error, ErrorKind, panic_words};
use harness_props::Outcome;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::postgres::sql::{self, ident, literal};

/// `check_violation` and `not_null_violation`: a rule beside the column's own says that it is never empty.
const NEVER_EMPTY: [&str; 2] = ["23514", "23502"];

/// What is missing while a use case runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The table, as it was asked for.
    pub table: String,
    /// The column that is null.
    pub column: String,
    /// In so many rows.
    pub rows: u64,
}

/// Runs a use case once for each column of a table that may be null, while it is null in every row. Passes when it always ends
/// well; fails with the name of each column without which it ended with an error or a panic.
///
/// No evidence is a table without rows, or without a column that may be null: nothing was ever missing.
///
/// # Errors
/// [`ErrorKind::Config`] for a table that is not there or has no primary key, by which values are put back; else what the server
/// says while columns are emptied and filled again.
pub async fn without_each<E: fmt::Display>(
    database: &PgConnectOptions,
    table: &str,
    mut use_case: impl AsyncFnMut(Missing) -> Result<(), E>,
) -> CoreResult<Outcome> {
    let mut session = sql::connect(database).await?;
    let columns = Columns::of(&mut session, table).await?;
    let (mut lived, mut failed, mut never) = (Vec::new(), Vec::new(), Vec::new());
    for column in &columns.optional {
        let rows = match columns.empty(&mut session, column).await {
            Ok(0) => return Ok(Outcome::no_evidence(format!("{table} has no row: nothing was missing"))),
            Ok(rows) => rows,
            Err(error) if NEVER_EMPTY.iter().any(|code| sql::has_code(&error, code)) => {
                never.push(column.clone());
                continue;
            }
            Err(error) => return Err(error),
        };
        let ended = caught(use_case(Missing { table: table.to_owned(), column: column.clone(), rows })).await;
        columns.fill(&mut session, column).await?;
        match ended {
            Ok(()) => lived.push(column.clone()),
            Err(why) => failed.push(format!("{column} ({why})")),
        }
    }
    let _ = session.close().await;
    if !failed.is_empty() {
        return Ok(Outcome::fail(format!("does not live without {}", failed.join(", "))));
    }
    if lived.is_empty() {
        return Ok(Outcome::no_evidence(format!("no column of {table} may be null: nothing was missing")));
    }
    let never = if never.is_empty() { String::new() } else { format!("; a rule keeps {} filled", never.join(", ")) };
    Ok(Outcome::pass(format!("lives without each of {}{never}", lived.join(", "))))
}

/// The columns of a table that matter here.
struct Columns {
    /// As SQL.
    table: String,
    key: Vec<String>,
    optional: Vec<String>,
}

impl Columns {
    async fn of(session: &mut PgConnection, table: &str) -> CoreResult<Self> {
        let refused = |what: String| Error::new(ErrorKind::Config, what);
        let found =
            sql::rows(session, "look for the table", format!("select to_regclass({})::text", literal(table))).await?;
        let found = found.first().and_then(|row| row.try_get::<Option<String>, _>(0).ok().flatten());
        let Some(found) = found else {
            return Err(refused(format!("there is no table {table}"))
                .remedy("name it as in SQL, with its schema where that is not on the search path"));
        };
        let text = format!(
            "select a.attname::text as name, coalesce(a.attnum = any (i.indkey), false) as is_key, \
             not a.attnotnull and a.attgenerated = '' as is_optional \
             from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary \
             where a.attrelid = {}::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum",
            literal(&found)
        );
        let mut columns = Self { table: found, key: Vec::new(), optional: Vec::new() };
        for row in sql::rows(session, "list the columns", text).await? {
            let failed = |error| sql::query_error("list the columns", error);
            let name: String = row.try_get("name").map_err(failed)?;
            if row.try_get("is_key").map_err(failed)? {
                columns.key.push(name);
            } else if row.try_get("is_optional").map_err(failed)? {
                columns.optional.push(name);
            }
        }
        if columns.key.is_empty() {
            return Err(refused(format!("{table} has no primary key: its values could not be put back"))
                .remedy("give it one in the test's database, or empty its columns by hand"));
        }
        Ok(columns)
    }

    /// Empties a column and remembers what it held; how many rows there are.
    async fn empty(&self, session: &mut PgConnection, column: &str) -> CoreResult<u64> {
        let (table, column) = (&self.table, ident(column));
        let key: Vec<String> = self.key.iter().map(|name| ident(name)).collect();
        let text = format!(
            "begin; drop table if exists pg_temp.harness_partial; \
             create temporary table harness_partial as select {}, {column} from {table}; \
             update {table} set {column} = null; commit",
            key.join(", ")
        );
        let what = format!("empty {column} of {table}");
        if let Err(error) = sql::run(session, &what, text).await {
            sql::run(session, "take back what was begun", "rollback").await?;
            return Err(error);
        }
        let count = sql::rows(session, &what, "select count(*) from pg_temp.harness_partial").await?;
        let count = count.first().map(|row| row.try_get::<i64, _>(0).map_err(|error| sql::query_error(&what, error)));
        Ok(count.transpose()?.unwrap_or_default().cast_unsigned())
    }

    /// Puts back what the column held.
    async fn fill(&self, session: &mut PgConnection, column: &str) -> CoreResult {
        let (table, column) = (&self.table, ident(column));
        let same: Vec<String> = self.key.iter().map(|name| format!("t.{0} = s.{0}", ident(name))).collect();
        let text = format!(
            "update {table} t set {column} = s.{column} from pg_temp.harness_partial s where {}",
            same.join(" and ")
        );
        sql::run(session, &format!("fill {column} of {table} again"), text).await
    }
}

/// How it ended; a panic is the use case's doing and no reason to leave the column empty.
async fn caught<E: fmt::Display>(use_case: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    let mut use_case = pin!(use_case);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| use_case.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(ended)) => Poll::Ready(ended.map_err(|error| error.to_string())),
        Err(panic) => Poll::Ready(Err(format!("panicked: {}", panic_words(&*panic)))),
    })
    .await
}
