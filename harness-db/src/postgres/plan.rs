//! What the planner does with a query: `EXPLAIN (FORMAT JSON)`, read and judged.
//!
//! Statistics are refreshed first (`ANALYZE`): a test's tables were filled moments ago. On tables of a few pages a
//! sequential scan is right whatever indexes exist; there the question is whether the index *can* serve the query, and the
//! plan is asked for with sequential scans discouraged. [`Plan::basis`] says which of the two was judged, and so does every
//! failure. [`Explain::as_planned`] judges the plan as it is.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Encode, PgConnection, Postgres, Row as _, Type};

use super::{Database, sql};

/// Tables of up to this many pages (8 KiB each) are small: the planner reads them whole whatever the indexes.
const SMALL_PAGES: i64 = 16;

/// A query about to be explained; await it to get its [`Plan`].
#[must_use = "nothing is explained until it is awaited"]
pub struct Explain<'a> {
    database: &'a Database,
    sql: String,
    arguments: PgArguments,
    unbound: Option<sqlx::error::BoxDynError>,
    analyze: bool,
    as_planned: bool,
    settings: Vec<(String, String)>,
}

impl fmt::Debug for Explain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explain")
            .field("sql", &self.sql)
            .field("parameters", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// How the planner runs a query.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The query.
    pub sql: String,
    /// The plan's nodes from the top, each with its depth.
    pub nodes: Vec<Node>,
    /// On what grounds this plan was judged.
    pub basis: String,
    /// True when sequential scans were discouraged, because the tables are small.
    pub is_forced: bool,
}

/// One node of a plan.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Distance from the top.
    pub depth: usize,
    /// `Seq Scan`, `Index Scan`, `Hash Join`, …
    pub kind: String,
    /// The table, for scans.
    pub relation: Option<String>,
    /// The index, for index scans.
    pub index: Option<String>,
    /// The condition the index or the filter applies.
    pub condition: Option<String>,
    /// True when an index is entered by a condition or gives the order, false when it is read from end to end.
    pub is_entered: bool,
    /// Rows that the planner expects.
    pub rows: f64,
    /// Rows that came, per loop, when the query was run.
    pub actual_rows: Option<f64>,
}

impl Database {
    /// Explains a query: `db.explain("select …").bind(1).await?.uses_index("…")?`.
    pub fn explain(&self, sql: impl Into<String>) -> Explain<'_> {
        Explain {
            database: self,
            sql: sql.into(),
            arguments: PgArguments::default(),
            unbound: None,
            analyze: false,
            as_planned: false,
            settings: Vec::new(),
        }
    }
}

impl Explain<'_> {
    /// Binds the next parameter.
    pub fn bind<'q>(mut self, value: impl Encode<'q, Postgres> + Type<Postgres>) -> Self {
        if let Err(error) = self.arguments.add(value) {
            self.unbound = Some(error);
        }
        self
    }

    /// Runs the query too (in a transaction that is rolled back), so that the plan carries the rows that came.
    pub fn analyze(mut self) -> Self {
        self.analyze = true;
        self
    }

    /// Judges the plan the server would use now, also on small tables.
    pub fn as_planned(mut self) -> Self {
        self.as_planned = true;
        self
    }

    /// Plans with this setting, for example `("enable_indexscan", "off")`.
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    async fn plan(mut self) -> CoreResult<Plan> {
        if let Some(error) = self.unbound.take() {
            return Err(sql::query_error("encode a parameter", sqlx::Error::Encode(error)));
        }
        let mut session = self.database.connect().await?;
        sql::run(&mut session, "refresh the statistics", "ANALYZE").await?;
        let natural = self.ask(&mut session, false).await?;
        let scanned: Vec<&str> =
            natural.iter().filter(|node| node.kind == "Seq Scan").filter_map(|node| node.relation.as_deref()).collect();
        let small = !scanned.is_empty() && largest(&mut session, &scanned).await? <= SMALL_PAGES;
        let (nodes, basis, is_forced) = if small && !self.as_planned {
            let basis = format!(
                "tables are small (up to {SMALL_PAGES} pages), so sequential scans were discouraged; statistics fresh by ANALYZE"
            );
            (self.ask(&mut session, true).await?, basis, true)
        } else {
            (natural, "as the server plans it; statistics fresh by ANALYZE".to_owned(), false)
        };
        let _ = session.close().await;
        Ok(Plan { sql: self.sql, nodes, basis, is_forced })
    }

    async fn ask(&self, session: &mut PgConnection, force: bool) -> CoreResult<Vec<Node>> {
        let failed = |error| sql::query_error(&format!("explain `{}`", self.sql), error);
        let mut transaction = session.begin().await.map_err(failed)?;
        let forced = [("enable_seqscan".to_owned(), "off".to_owned())];
        for (name, value) in self.settings.iter().chain(forced.iter().filter(|_| force)) {
            let text = format!("SET LOCAL {} = {}", sql::ident(name), sql::literal(value));
            sql::run(&mut transaction, "set a planner setting", text).await?;
        }
        let options = if self.analyze { "ANALYZE, FORMAT JSON" } else { "FORMAT JSON" };
        let text = AssertSqlSafe(format!("EXPLAIN ({options}) {}", self.sql));
        let row = sqlx::query_with(text, self.arguments.clone()).fetch_one(&mut *transaction).await.map_err(failed)?;
        let json: String = row.try_get_unchecked(0).map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;
        parse(&json)
    }
}

impl<'a> IntoFuture for Explain<'a> {
    type Output = CoreResult<Plan>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.plan())
    }
}

async fn largest(session: &mut PgConnection, tables: &[&str]) -> CoreResult<i64> {
    let names: Vec<String> = tables.iter().map(|name| sql::literal(name)).collect();
    let text = format!(
        "select coalesce(max(pg_relation_size(oid) / current_setting('block_size')::bigint), 0) as pages \
         from pg_class where relname in ({})",
        names.join(", ")
    );
    let rows = sql::rows(session, "measure the tables", text).await?;
    let pages = rows.first().map(|row| row.try_get::<i64, _>("pages"));
    pages.transpose().map(Option::unwrap_or_default).map_err(|error| sql::query_error("measure the tables", error))
}

/// Reads the answer of `EXPLAIN (FORMAT JSON)`.
fn parse(json: &str) -> CoreResult<Vec<Node>> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| Error::new(ErrorKind::Protocol, "the server's plan is not JSON").caused_by(error))?;
    let mut nodes = Vec::new();
    collect(&value[0]["Plan"], 0, &mut nodes);
    match nodes.is_empty() {
        true => Err(Error::new(ErrorKind::Protocol, "the server's plan holds no node")),
        false => Ok(nodes),
    }
}

fn collect(value: &Value, depth: usize, into: &mut Vec<Node>) {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let Some(kind) = text("Node Type") else { return };
    let entry = text("Index Cond").or_else(|| text("Order By"));
    into.push(Node {
        depth,
        is_entered: entry.is_some(),
        condition: entry.or_else(|| text("Filter")),
        relation: text("Relation Name"),
        index: text("Index Name"),
        rows: value["Plan Rows"].as_f64().unwrap_or_default(),
        actual_rows: value["Actual Rows"].as_f64(),
        kind,
    });
    for child in value["Plans"].as_array().into_iter().flatten() {
        collect(child, depth + 1, into);
    }
}

impl Plan {
    /// A plan that was made elsewhere, for example by the system under test in its own session: the answer of
    /// `EXPLAIN (FORMAT JSON)`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is no such answer.
    pub fn from_json(sql: impl Into<String>, answer: &Value) -> CoreResult<Self> {
        Ok(Self {
            sql: sql.into(),
            nodes: parse(&answer.to_string())?,
            basis: "as it was handed in".to_owned(),
            is_forced: false,
        })
    }

    /// Holds when the plan reads this index.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what the plan reads instead.
    pub fn uses_index(&self, name: &str) -> CoreResult<&Self> {
        if self.nodes.iter().any(|node| node.index.as_deref() == Some(name)) {
            return Ok(self);
        }
        let scans = self.nodes.iter().filter(|node| node.relation.is_some() || node.index.is_some());
        Err(self.wrong(format!("the query does not use index `{name}`"), scans))
    }

    /// Holds when no node reads this table from end to end.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the node that does.
    pub fn never_scans(&self, table: &str) -> CoreResult<&Self> {
        let of_table = |node: &&Node| node.relation.as_deref() == Some(table);
        let scans: Vec<&Node> = self.nodes.iter().filter(of_table).filter(|node| self.is_scan(node)).collect();
        match scans.is_empty() {
            true => Ok(self),
            false => Err(self.wrong(format!("the query scans table `{table}`"), scans.into_iter())),
        }
    }

    fn is_scan(&self, node: &Node) -> bool {
        // Where sequential scans are discouraged, an index read from end to end is the same thing in disguise.
        let disguised = self.is_forced && node.kind.starts_with("Index") && !node.is_entered;
        node.kind == "Seq Scan" || node.kind == "Parallel Seq Scan" || disguised
    }

    #[track_caller]
    fn wrong<'n>(&self, what: String, nodes: impl Iterator<Item = &'n Node>) -> Error {
        let error = Error::new(ErrorKind::Assertion, what).tried(format!("query: {}", self.sql));
        let error = nodes.fold(error, |error, node| error.tried(format!("node: {node}")));
        error
            .tried(format!("planned: {}", self.basis))
            .remedy("create the index, or write the condition so that it can be used")
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(index) = &self.index {
            write!(f, " using {index}")?;
        }
        if let Some(relation) = &self.relation {
            write!(f, " on {relation}")?;
        }
        write!(f, " ({} rows expected", self.rows)?;
        if let Some(actual) = self.actual_rows {
            write!(f, ", {actual} came")?;
        }
        match &self.condition {
            Some(condition) => write!(f, "; {condition})"),
            None => f.write_str(")"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n-- {}", self.sql, self.basis)?;
        self.nodes.iter().try_for_each(|node| writeln!(f, "{:indent$}{node}", "", indent = node.depth * 2))
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, parse};

    const NESTED: &str = r#"[{"Plan": {"Node Type": "Nested Loop", "Plan Rows": 2, "Plans": [
        {"Node Type": "Index Scan", "Index Name": "users_email_key", "Relation Name": "users", "Plan Rows": 1,
         "Index Cond": "(email = $1)"},
        {"Node Type": "Seq Scan", "Relation Name": "orders", "Plan Rows": 900, "Filter": "(lower(x) = 'a')"}]}}]"#;

    fn plan(json: &str, is_forced: bool) -> Plan {
        Plan { sql: "select 1".into(), nodes: parse(json).unwrap(), basis: "planted".into(), is_forced }
    }

    #[test]
    fn finds_the_index_and_the_scan_at_any_depth() {
        let plan = plan(NESTED, false);
        assert!(plan.uses_index("users_email_key").is_ok() && plan.never_scans("users").is_ok());
        let text = format!("{:?}", plan.never_scans("orders").unwrap_err());
        assert!(text.contains("Seq Scan on orders (900 rows expected; (lower(x) = 'a'))"), "{text}");
        assert!(!text.contains("Index Scan"), "only the offending node is shown: {text}");
        assert!(plan.uses_index("orders_pkey").is_err());
    }

    #[test]
    fn an_index_read_from_end_to_end_is_a_scan_in_disguise() {
        let json = r#"[{"Plan": {"Node Type": "Index Only Scan", "Index Name": "a_pkey", "Relation Name": "a"}}]"#;
        assert!(plan(json, true).never_scans("a").is_err());
        assert!(plan(json, false).never_scans("a").is_ok());
    }

    #[test]
    fn nonsense_is_an_error_and_not_an_empty_plan() {
        assert!(parse("{}").is_err() && parse("nope").is_err());
    }
}
