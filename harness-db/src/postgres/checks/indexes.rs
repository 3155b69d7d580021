//! How long a query takes over every secondary index, one row per index.
//!
//! A query by equality is made for each B-tree and hash index, for values that are in the table; for indexes of other
//! methods a query has to be given, and an index without a query is missing evidence.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{Database, Latencies, REFRESH, sql};

/// Queries per index, unless asked otherwise.
const SAMPLES: usize = 50;

/// A survey of indexes about to run; await it to get the [`IndexTable`].
#[derive(Debug)]
#[must_use = "nothing is measured until it is awaited"]
pub struct IndexSurvey<'a> {
    database: &'a Database,
    tables: Vec<String>,
    samples: usize,
    queries: BTreeMap<String, String>,
}

/// Every secondary index with its times.
#[derive(Debug)]
#[non_exhaustive]
pub struct IndexTable {
    /// The indexes, slowest first.
    pub rows: Vec<IndexRow>,
}

/// One index and the queries over it.
#[derive(Debug)]
#[non_exhaustive]
pub struct IndexRow {
    /// The index.
    pub index: String,
    /// Its table, quoted and with its schema if that is not on the search path.
    pub table: String,
    /// `btree`, `hash`, `gin`, …
    pub method: String,
    /// The first query that was made; `None` when none could be made.
    pub sql: Option<String>,
    /// How long the queries took by the test's clock.
    pub latencies: Latencies,
    /// Why the plan does not use the index, if it does not.
    pub unused: Option<Error>,
}

impl Database {
    /// Measures a query over every index that is no primary key.
    pub fn index_latencies(&self) -> IndexSurvey<'_> {
        IndexSurvey { database: self, tables: Vec::new(), samples: SAMPLES, queries: BTreeMap::new() }
    }
}

impl IndexSurvey<'_> {
    /// Of these tables only.
    pub fn tables<S: Into<String>>(mut self, tables: impl IntoIterator<Item = S>) -> Self {
        self.tables.extend(tables.into_iter().map(Into::into));
        self
    }

    /// How many queries per index; 50 unless set.
    pub fn samples(mut self, samples: usize) -> Self {
        self.samples = samples.max(1);
        self
    }

    /// A query of your own for an index, without parameters.
    pub fn query(mut self, index: impl Into<String>, sql: impl Into<String>) -> Self {
        self.queries.insert(index.into(), sql.into());
        self
    }

    async fn measure(self) -> CoreResult<IndexTable> {
        let mut session = self.database.connect().await?;
        sql::run(&mut session, "refresh the statistics", REFRESH).await?;
        let mut rows = Vec::new();
        for index in indexes(&mut session, &self.tables).await? {
            let row = self.one(&mut session, &index).await?;
            rows.push(row);
        }
        let _ = session.close().await;
        let known = |name: &String| rows.iter().any(|row: &IndexRow| row.index == *name);
        if let Some(unknown) = self.queries.keys().find(|name| !known(name)) {
            let what = format!("a query was given for `{unknown}`, which is no secondary index of these tables");
            return Err(Error::new(ErrorKind::Config, what));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.latencies.p99()));
        Ok(IndexTable { rows })
    }

    async fn one(&self, session: &mut PgConnection, index: &Index) -> CoreResult<IndexRow> {
        let queries = match self.queries.get(&index.name) {
            Some(query) => vec![query.clone(); self.samples],
            None => index.queries(session, self.samples).await?,
        };
        let mut times = Vec::with_capacity(queries.len());
        for query in &queries {
            let begun = Instant::now();
            let done = sqlx::raw_sql(AssertSqlSafe(query.clone())).fetch_all(&mut *session).await;
            done.map_err(|error| sql::query_error(&format!("run `{query}`"), error))?;
            times.push(begun.elapsed());
        }
        let unused = match queries.first() {
            None => None,
            Some(query) => self.database.explain(query).keep_statistics().await?.uses_index(&index.name).err(),
        };
        Ok(IndexRow {
            index: index.name.clone(),
            table: index.table.clone(),
            method: index.method.clone(),
            sql: queries.into_iter().next(),
            latencies: times.into_iter().collect(),
            unused,
        })
    }
}

impl<'a> IntoFuture for IndexSurvey<'a> {
    type Output = CoreResult<IndexTable>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.measure())
    }
}

/// An index as the catalogue knows it.
struct Index {
    name: String,
    table: String,
    method: String,
    /// Columns or expressions, as SQL.
    keys: Vec<String>,
    /// The condition of a partial index.
    predicate: Option<String>,
}

async fn indexes(session: &mut PgConnection, tables: &[String]) -> CoreResult<Vec<Index>> {
    let only = match tables.is_empty() {
        true => String::new(),
        false => {
            let names: Vec<String> = tables.iter().map(|name| format!("{}::regclass", sql::literal(name))).collect();
            format!("and i.indrelid in ({})", names.join(", "))
        }
    };
    let text = format!(
        "select x.relname::text as name, i.indrelid::regclass::text as tab, m.amname::text as method, \
         array(select pg_get_indexdef(i.indexrelid, n, true) from generate_series(1, i.indnkeyatts) n order by n)::text[] as keys, \
         pg_get_expr(i.indpred, i.indrelid, true) as predicate from pg_index i join pg_class x on x.oid = i.indexrelid \
         join pg_am m on m.oid = x.relam join pg_class c on c.oid = i.indrelid join pg_namespace s on s.oid = c.relnamespace \
         where not i.indisprimary and i.indisvalid and not c.relispartition and s.nspname not in ('pg_catalog', 'information_schema') \
         and s.nspname not like 'pg\\_toast%' {only} order by 2, 1"
    );
    let what = "list the secondary indexes";
    let rows = sql::rows(session, what, text).await?;
    let read = |row: &PgRow| {
        Ok::<_, sqlx::Error>(Index {
            name: row.try_get("name")?,
            table: row.try_get("tab")?,
            method: row.try_get("method")?,
            keys: row.try_get("keys")?,
            predicate: row.try_get("predicate")?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error(what, error))
}

impl Index {
    /// Queries by equality for values that are in the table, always the same ones for the same table.
    async fn queries(&self, session: &mut PgConnection, samples: usize) -> CoreResult<Vec<String>> {
        if self.method != "btree" && self.method != "hash" {
            return Ok(Vec::new());
        }
        let literals: Vec<String> = self.keys.iter().map(|key| format!("quote_literal(({key})::text)")).collect();
        let present: Vec<String> = self.keys.iter().map(|key| format!("({key}) is not null")).collect();
        let holds = self.predicate.as_ref().map(|predicate| format!(" and ({predicate})")).unwrap_or_default();
        let text = format!(
            "select array[{}] as key from {} where {}{holds} order by md5(ctid::text) limit {samples}",
            literals.join(", "),
            self.table,
            present.join(" and "),
        );
        let rows = sql::rows(session, "take values from the table", text).await?;
        let query = |row: &PgRow| {
            let values: Vec<String> = row.try_get("key")?;
            let equal: Vec<String> =
                self.keys.iter().zip(values).map(|(key, value)| format!("({key}) = {value}")).collect();
            Ok::<_, sqlx::Error>(format!("select * from {} where {}{holds}", self.table, equal.join(" and ")))
        };
        rows.iter().map(query).collect::<Result<_, _>>().map_err(|error| sql::query_error("read the values", error))
    }
}

impl IndexTable {
    /// Passes when the 99th percentile over every index is below the limit; the failure names the slow ones.
    #[must_use]
    pub fn p99_below(&self, limit: Duration) -> Outcome {
        self.every(|row| row.latencies.p99_below(limit))
    }

    /// Passes when every query's plan uses its index.
    #[must_use]
    pub fn all_used(&self) -> Outcome {
        self.every(|row| match &row.unused {
            None => Outcome::pass("used"),
            Some(error) => Outcome::fail(error.what()),
        })
    }

    fn every(&self, judge: impl Fn(&IndexRow) -> Outcome) -> Outcome {
        if self.rows.is_empty() {
            return Outcome::no_evidence("there is no secondary index");
        }
        let judged = self.rows.iter().map(|row| match row.sql {
            Some(_) => (row, judge(row)),
            None => (row, Outcome::no_evidence(format!("no query for a {} index of {}", row.method, row.table))),
        });
        let (mut failed, mut missing) = (Vec::new(), Vec::new());
        for (row, outcome) in judged {
            let text = format!("{}: {}", row.index, outcome.detail());
            match outcome {
                Outcome::Fail { .. } => failed.push(text),
                Outcome::NoEvidence { .. } => missing.push(text),
                _ => {}
            }
        }
        match (failed.is_empty(), missing.is_empty()) {
            (false, _) => Outcome::fail(failed.join("; ")),
            (_, false) => Outcome::no_evidence(format!("{}; give one by `.query(index, sql)`", missing.join("; "))),
            _ => Outcome::pass(format!("{} secondary indexes", self.rows.len())),
        }
    }

    /// Both as one error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the indexes that are slow or not used; [`ErrorKind::NoEvidence`] without indexes, or
    /// when one has neither rows nor a query.
    pub fn check_p99_below(&self, limit: Duration) -> CoreResult<&Self> {
        let wrong =
            |kind, what: String| self.to_string().lines().map(str::to_owned).fold(Error::new(kind, what), Error::tried);
        match self.p99_below(limit).worse(self.all_used()) {
            Outcome::Fail { witness } => Err(wrong(ErrorKind::Assertion, witness)),
            Outcome::NoEvidence { why } => Err(wrong(ErrorKind::NoEvidence, why)),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for IndexTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let used = if row.unused.is_some() { "not used" } else { "used" };
            let used = if row.sql.is_some() { used } else { "no query" };
            writeln!(f, "{} on {} ({}): {}, {used}", row.index, row.table, row.method, row.latencies)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Error, ErrorKind, IndexRow, IndexTable};

    fn row(index: &str, ms: u64, unused: bool) -> IndexRow {
        IndexRow {
            index: index.to_owned(),
            table: "t".to_owned(),
            method: "btree".to_owned(),
            sql: Some("select".to_owned()),
            latencies: [Duration::from_millis(ms)].into_iter().collect(),
            unused: unused.then(|| Error::new(ErrorKind::Assertion, "the query does not use it")),
        }
    }

    #[test]
    fn slow_unused_and_unmeasured_indexes_are_named_each_alone() {
        let limit = Duration::from_millis(100);
        let table = |rows: Vec<IndexRow>| IndexTable { rows };
        assert!(table(vec![row("a", 9, false)]).check_p99_below(limit).is_ok());
        let slow = table(vec![row("a", 9, false), row("b", 150, false)]).p99_below(limit);
        assert!(slow.is_fail() && slow.detail().starts_with("b: 99th percentile 150 ms"), "{slow}");
        let unused = table(vec![row("a", 9, false), row("b", 9, true)]).all_used();
        assert!(unused.is_fail() && unused.detail().starts_with("b: "), "{unused}");
        let bare = IndexRow { sql: None, latencies: Default::default(), ..row("g", 0, false) };
        assert!(table(vec![row("a", 9, false), bare]).p99_below(limit).is_no_evidence());
        assert!(table(Vec::new()).all_used().is_no_evidence());
    }
}
