//! Approximate vector search (pgvector): which index, which distance, and how much of the exact answer it finds.

mod columns;
mod load;

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::{Connection as _, PgConnection, Row as _};

pub use columns::{VectorColumn, VectorColumns};
pub use load::VectorLoad;

use super::{Database, sql};

/// Distances that are this close (relative) count as equal: neighbours in a tie are interchangeable, and a client may
/// compute in single precision.
const TIE: f64 = 1e-6;

/// How two vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distance {
    /// Euclidean, `<->`.
    L2,
    /// Negative inner product, `<#>`.
    InnerProduct,
    /// Cosine, `<=>`.
    Cosine,
    /// Taxicab, `<+>`.
    L1,
}

impl Distance {
    /// The operator in SQL.
    #[must_use]
    pub fn operator(self) -> &'static str {
        match self {
            Self::L2 => "<->",
            Self::InnerProduct => "<#>",
            Self::Cosine => "<=>",
            Self::L1 => "<+>",
        }
    }

    fn of_class(class: &str) -> Option<Self> {
        match class {
            "vector_l2_ops" | "halfvec_l2_ops" | "sparsevec_l2_ops" => Some(Self::L2),
            "vector_ip_ops" | "halfvec_ip_ops" | "sparsevec_ip_ops" => Some(Self::InnerProduct),
            "vector_cosine_ops" | "halfvec_cosine_ops" | "sparsevec_cosine_ops" => Some(Self::Cosine),
            "vector_l1_ops" | "halfvec_l1_ops" | "sparsevec_l1_ops" => Some(Self::L1),
            _ => None,
        }
    }
}

/// An approximate index on a vector column, as the catalogue knows it.
#[derive(Debug)]
#[non_exhaustive]
pub struct VectorIndex<'a> {
    database: &'a Database,
    /// Name of the index.
    pub name: String,
    /// `ivfflat` or `hnsw`.
    pub method: String,
    /// Table, quoted and with its schema if that is not on the search path.
    pub table: String,
    /// Column.
    pub column: String,
    /// Distance the index is built for; a query with another operator cannot use it.
    pub distance: Distance,
    settings: Vec<(String, String)>,
}

/// How much of the exact answers an index found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Recall {
    /// Neighbours asked for per query.
    pub k: usize,
    /// Share found per query, 0 to 1.
    pub per_query: Vec<f64>,
}

impl Database {
    /// Looks an approximate vector index up by name.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when there is none of this name, or it is no `ivfflat` or `hnsw` index.
    pub async fn vector_index(&self, name: &str) -> CoreResult<VectorIndex<'_>> {
        let mut session = self.connect().await?;
        let text = format!(
            "select am.amname::text as method, i.indrelid::regclass::text as tab, a.attname::text as col, \
             c.opcname::text as class from pg_index i join pg_class x on x.oid = i.indexrelid join pg_am am on am.oid = x.relam \
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
             join pg_opclass c on c.oid = i.indclass[0] where x.relname = {}",
            sql::literal(name)
        );
        let rows = sql::rows(&mut session, "look the index up", text).await?;
        let _ = session.close().await;
        let wrong =
            |what: String| Err(Error::new(ErrorKind::Assertion, what).remedy("create an ivfflat or hnsw index"));
        let Some(row) = rows.first() else { return wrong(format!("there is no index `{name}`")) };
        let text =
            |field: &str| row.try_get::<String, _>(field).map_err(|error| sql::query_error("read the index", error));
        let (method, class) = (text("method")?, text("class")?);
        let Some(distance) = Distance::of_class(&class).filter(|_| method == "ivfflat" || method == "hnsw") else {
            return wrong(format!("index `{name}` is {method} over {class}, which is no approximate vector index"));
        };
        Ok(VectorIndex {
            database: self,
            name: name.to_owned(),
            method,
            table: text("tab")?,
            column: text("col")?,
            distance,
            settings: Vec::new(),
        })
    }
}

impl VectorIndex<'_> {
    /// Searches with this setting, for example `("ivfflat.probes", "10")`.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Probes this many lists of an `ivfflat` index (`ivfflat.probes`): more lists, more recall, more time.
    #[must_use]
    pub fn probes(self, lists: u32) -> Self {
        self.with_setting("ivfflat.probes", lists.to_string())
    }

    /// Keeps this many candidates while it walks an `hnsw` index (`hnsw.ef_search`); no more than that can be found.
    #[must_use]
    pub fn ef_search(self, candidates: u32) -> Self {
        self.with_setting("hnsw.ef_search", candidates.to_string())
    }

    /// Asks for the `k` nearest of each query by the index and by an exact scan, and compares. Neighbours at the distance
    /// of the last exact one are as good as it.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] without queries, when the table holds fewer than `k` rows, or when the planner did not use
    /// the index (then both answers would be exact).
    pub async fn recall(&self, queries: &[Vec<f32>], k: usize) -> CoreResult<Recall> {
        if queries.is_empty() || k == 0 {
            return Err(Error::new(ErrorKind::NoEvidence, "no recall without queries and neighbours to ask for"));
        }
        let mut session = self.database.connect().await?;
        let mut per_query = Vec::with_capacity(queries.len());
        for query in queries {
            let exact = self.exact_one(&mut session, query, k).await?;
            let found = self.search(&mut session, query, k, false).await?;
            per_query.push(share(&exact, &found));
        }
        let _ = session.close().await;
        Ok(Recall { k, per_query })
    }

    /// Judges distances somebody else's search returned for a query, such as those of the system under test: the share of
    /// the `k` exact neighbours that is among them. Distances must be those of [`VectorIndex::distance`].
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn judge(&self, query: &[f32], found: &[f64], k: usize) -> CoreResult<f64> {
        let mut session = self.database.connect().await?;
        let exact = self.search(&mut session, query, k, true).await?;
        let _ = session.close().await;
        Ok(share(&exact, found))
    }

    /// The exact answer, of `k` rows.
    async fn exact_one(&self, session: &mut PgConnection, query: &[f32], k: usize) -> CoreResult<Vec<f64>> {
        let exact = self.search(session, query, k, true).await?;
        if exact.len() < k {
            let what = format!("{} holds {} rows, fewer than the {k} neighbours asked for", self.table, exact.len());
            return Err(Error::new(ErrorKind::NoEvidence, what));
        }
        Ok(exact)
    }

    async fn search(&self, session: &mut PgConnection, query: &[f32], k: usize, exact: bool) -> CoreResult<Vec<f64>> {
        let failed = |error| sql::query_error("search for neighbours", error);
        let mut transaction = session.begin().await.map_err(failed)?;
        let (index, scan) = if exact { ("off", "on") } else { ("on", "off") };
        let mut settings = vec![("enable_indexscan", index), ("enable_bitmapscan", "off"), ("enable_seqscan", scan)];
        settings.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for (name, value) in settings {
            // A setting of an extension has a dot in its name: each part is an identifier.
            let name: Vec<String> = name.split('.').map(sql::ident).collect();
            let text = format!("SET LOCAL {} = {}", name.join("."), sql::literal(value));
            sql::run(&mut transaction, "set how to search", text).await?;
        }
        let (column, operator, literal) =
            (sql::ident(&self.column), self.distance.operator(), sql::literal(&text_of(query)));
        let select = format!(
            "select ({column} {operator} {literal})::float8 as d from {} order by {column} {operator} {literal} limit {k}",
            self.table
        );
        let plan = sql::rows(&mut transaction, "explain the search", format!("EXPLAIN {select}")).await?;
        let plan: Vec<String> = plan.iter().filter_map(|row| row.try_get::<String, _>(0).ok()).collect();
        if plan.iter().any(|line| line.contains(&self.name)) == exact {
            let what = match exact {
                true => "the exact search used the index",
                false => "the approximate search did not use the index, so there is nothing to compare",
            };
            return Err(Error::new(ErrorKind::NoEvidence, format!("{what} `{}`", self.name)).log(plan));
        }
        let rows = sql::rows(&mut transaction, "search for neighbours", select).await?;
        transaction.rollback().await.map_err(failed)?;
        rows.iter().map(|row| row.try_get::<f64, _>("d").map_err(failed)).collect()
    }
}

fn text_of(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// The share of the exact neighbours that `found` holds, judged by distance, since neighbours at the same distance are
/// interchangeable. Each exact neighbour is found once at most: the nearest one given ten times is one right answer.
fn share(exact: &[f64], found: &[f64]) -> f64 {
    let sorted = |distances: &[f64], most: usize| {
        let mut sorted: Vec<f64> = distances.iter().copied().take(most).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (exact, found) = (sorted(exact, exact.len()), sorted(found, exact.len()));
    let (mut at, mut right) = (0, 0_usize);
    for &distance in &found {
        let tie = TIE * distance.abs().max(1.0);
        while exact.get(at).is_some_and(|&next| next < distance - tie) {
            at += 1;
        }
        if exact.get(at).is_some_and(|&next| (next - distance).abs() <= tie) {
            (at, right) = (at + 1, right + 1);
        }
    }
    if exact.is_empty() { 0.0 } else { right as f64 / exact.len() as f64 }
}

impl Recall {
    /// The mean over all queries.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self.per_query.len() {
            0 => 0.0,
            n => self.per_query.iter().sum::<f64>() / n as f64,
        }
    }

    /// The worst query's share.
    #[must_use]
    pub fn worst(&self) -> f64 {
        self.per_query.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0)
    }

    /// Passes when the mean is at least this share.
    #[must_use]
    pub fn at_least(&self, share: f64) -> Outcome {
        match self.per_query.is_empty() {
            true => Outcome::no_evidence("no query was searched for"),
            false if self.mean() >= share => Outcome::pass(self.to_string()),
            false => Outcome::fail(format!("{self}, at least {share} is needed")),
        }
    }
}

impl fmt::Display for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mean, worst, n) = (self.mean(), self.worst(), self.per_query.len());
        write!(f, "recall@{} is {mean:.3} (worst {worst:.3}) over {n} queries", self.k)
    }
}

#[cfg(test)]
mod tests {
    use super::{Distance, Recall, share, text_of};

    #[test]
    fn share_counts_ties_as_equal_and_far_ones_not() {
        assert_eq!(share(&[1.0, 2.0], &[1.0, 2.0]), 1.0);
        assert_eq!(share(&[1.0, 2.0, 2.0], &[1.0, 2.0, 2.0 + 1e-12]), 1.0);
        assert_eq!(share(&[1.0, 2.0], &[1.0, 3.0]), 0.5);
        assert_eq!(share(&[1.0, 2.0], &[]), 0.0);
        assert_eq!(share(&[], &[1.0]), 0.0);
        assert_eq!(share(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 1.0, 1.0]), 0.25, "the nearest one again and again");
        assert_eq!(share(&[1.0, 1.0, 2.0], &[2.0, 1.0, 1.0]), 1.0, "in any order");
        assert_eq!(share(&[-3.0, -2.0], &[-3.0, -1.0]), 0.5, "inner products are negative");
    }

    #[test]
    fn recall_without_queries_is_no_evidence_and_low_recall_fails() {
        let recall = |per_query: &[f64]| Recall { k: 10, per_query: per_query.to_vec() };
        assert!(recall(&[]).at_least(0.0).is_no_evidence());
        assert!(recall(&[1.0, 0.9]).at_least(0.95).is_pass());
        assert!(recall(&[1.0, 0.5]).at_least(0.95).is_fail());
    }

    #[test]
    fn classes_and_literals_are_understood() {
        assert_eq!(Distance::of_class("vector_cosine_ops").map(Distance::operator), Some("<=>"));
        assert_eq!(Distance::of_class("text_ops"), None);
        assert_eq!(text_of(&[1.0, -0.5]), "[1,-0.5]");
    }
}
