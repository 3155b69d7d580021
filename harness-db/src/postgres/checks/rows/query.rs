//! Runs a query and reads every cell as text and as JSON, whatever its type.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Encode, Executor as _, PgConnection, Postgres, Row as _,
    SqlSafeStr as _, Statement as _, Type, TypeInfo as _,
};

use super::{Asked, Cell, RowColumn, Rows};
use crate::postgres::{Database, sql};

/// Under these settings the texts of cells are the same on every machine.
const SETTINGS: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
                        set extra_float_digits = 1; set bytea_output = 'hex'";

/// A query about to be run; await it to get its [`Rows`].
#[must_use = "nothing is asked until it is awaited"]
pub struct RowsQuery<'a> {
    asked: Asked<'a>,
}

impl fmt::Debug for RowsQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RowsQuery").field(&self.asked).finish()
    }
}

impl Database {
    /// Runs a query over a session of its own: `db.rows("select …").bind(1).await?.is_list(rows![[1, "a"]])?`.
    ///
    /// A query that writes (`insert … returning`) has written when its rows are there. `show` and `explain` give no rows
    /// that can be read this way.
    pub fn rows(&self, sql: impl Into<String>) -> RowsQuery<'_> {
        RowsQuery { asked: Asked::new(self, sql.into()) }
    }
}

impl RowsQuery<'_> {
    /// Binds the next parameter.
    pub fn bind<'q>(mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) -> Self {
        self.asked.bind(value);
        self
    }

    /// Asks as this role (`set role`): what row-level policies let it see.
    pub fn as_role(mut self, role: impl Into<String>) -> Self {
        self.asked.role = Some(role.into());
        self
    }

    /// Asks with this setting, for example `("app.tenant", "7")`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.asked.settings.push((name.into(), value.into()));
        self
    }

    async fn run(mut self) -> CoreResult<Rows> {
        let mut session = self.asked.session().await?;
        sql::run(&mut session, "set the forms of texts", SETTINGS).await?;
        self.asked.stand_in(&mut session, "session").await?;
        let text = self.asked.sql.trim().trim_end_matches(';').to_owned();
        let columns = columns(&mut session, &text).await?;
        let rows = cells(&mut session, &text, self.asked.arguments, columns.len()).await?;
        let _ = session.close().await;
        Ok(Rows { sql: text, columns, rows, tolerance: None })
    }
}

impl<'a> IntoFuture for RowsQuery<'a> {
    type Output = CoreResult<Rows>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

async fn columns(session: &mut PgConnection, text: &str) -> CoreResult<Vec<RowColumn>> {
    let statement = session.prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await;
    let statement = statement.map_err(|error| sql::query_error(&format!("prepare `{text}`"), error))?;
    let columns = statement.columns().iter().map(|column| RowColumn {
        name: column.name().to_owned(),
        type_name: column.type_info().name().to_ascii_lowercase(),
    });
    let columns: Vec<RowColumn> = columns.collect();
    match columns.is_empty() {
        false => Ok(columns),
        true => {
            Err(Error::new(ErrorKind::Config, format!("the query gives no rows: `{text}`")).remedy("add `returning …`"))
        }
    }
}

/// Runs the query inside a named one, whose columns are renamed by place: two of the same name stay apart. Its rows come in
/// its order, since a materialized query is read from its first row to its last.
async fn cells(
    session: &mut PgConnection,
    text: &str,
    arguments: PgArguments,
    count: usize,
) -> CoreResult<Vec<Vec<Cell>>> {
    let list = |form: &dyn Fn(usize) -> String| (0..count).map(form).collect::<Vec<_>>().join(", ");
    let materialized = if is_writing(text) { "" } else { "materialized" };
    let wrapped = format!(
        "with q({names}) as {materialized} (\n{text}\n) select array[{texts}]::text[], array[{jsons}]::text[] from q",
        names = list(&|at| format!("c{at}")),
        texts = list(&|at| format!("c{at}::text")),
        jsons = list(&|at| format!("to_jsonb(c{at})::text")),
    );
    let failed = |error| sql::query_error(&format!("run `{text}`"), error);
    let found = sqlx::query_with(AssertSqlSafe(wrapped), arguments).fetch_all(session).await.map_err(failed)?;
    found.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// True when the first word is that of a writing statement; `materialized` is not allowed there.
fn is_writing(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    ["insert", "update", "delete", "merge"].contains(&&*word)
}

fn read(row: &PgRow) -> Result<Vec<Cell>, sqlx::Error> {
    let (texts, jsons): (Vec<Option<String>>, Vec<Option<String>>) = (row.try_get(0)?, row.try_get(1)?);
    let json = |text: Option<String>| match text {
        Some(text) => serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into())),
        None => Ok(Value::Null),
    };
    texts.into_iter().zip(jsons).map(|(text, value)| Ok(Cell { text, json: json(value)? })).collect()
}
