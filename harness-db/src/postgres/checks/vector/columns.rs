//! Which vector columns there are, which indexes they have, and whether a query fits its index.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::{Connection as _, Row as _};

use super::{Distance, VectorIndex};
use crate::postgres::{Database, Plan, sql};

/// A vector column and the approximate indexes on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorColumn {
    /// The table, quoted and with its schema if that is not on the search path.
    pub table: String,
    /// The column.
    pub column: String,
    /// Its type: `vector(64)`, `halfvec(3)`, `sparsevec(9)`.
    pub kind: String,
    /// Its usable `ivfflat` and `hnsw` indexes, each as `name (method, operator class)`.
    pub indexes: Vec<String>,
}

/// Every vector column of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VectorColumns {
    /// The columns.
    pub columns: Vec<VectorColumn>,
}

impl Database {
    /// The vector columns of all tables, with their indexes.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn vector_columns(&self) -> CoreResult<VectorColumns> {
        let what = "look for vector columns";
        let text = "select a.attrelid::regclass::text as tab, a.attname::text as col, \
                    format_type(a.atttypid, a.atttypmod) as kind, \
                    array(select x.relname || ' (' || m.amname || ', ' || o.opcname || ')' from pg_index i \
                     join pg_class x on x.oid = i.indexrelid join pg_am m on m.oid = x.relam \
                     join pg_opclass o on o.oid = i.indclass[0] where i.indrelid = a.attrelid and i.indkey[0] = a.attnum \
                     and i.indisvalid and m.amname in ('ivfflat', 'hnsw') order by 1)::text[] as indexes \
                    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid \
                    where t.typname in ('vector', 'halfvec', 'sparsevec') and c.relkind in ('r', 'p') and a.attnum > 0 \
                    and not a.attisdropped and not c.relispartition order by 1, 2";
        let mut session = self.connect().await?;
        let rows = sql::rows(&mut session, what, text).await?;
        let _ = session.close().await;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok::<_, sqlx::Error>(VectorColumn {
                table: row.try_get("tab")?,
                column: row.try_get("col")?,
                kind: row.try_get("kind")?,
                indexes: row.try_get("indexes")?,
            })
        };
        let columns = rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error(what, error))?;
        Ok(VectorColumns { columns })
    }
}

impl VectorColumns {
    /// Passes when every vector column has an approximate index.
    #[must_use]
    pub fn all_indexed(&self) -> Outcome {
        let bare: Vec<String> =
            self.columns.iter().filter(|column| column.indexes.is_empty()).map(ToString::to_string).collect();
        match (self.columns.len(), bare.is_empty()) {
            (0, _) => Outcome::no_evidence("the database has no vector column"),
            (n, true) => Outcome::pass(format!("{n} vector columns, each with an approximate index")),
            (_, false) => Outcome::fail(format!("no approximate index on {}", bare.join(", "))),
        }
    }

    /// [`VectorColumns::all_indexed`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the columns; [`ErrorKind::NoEvidence`] without vector columns.
    pub fn check_all_indexed(&self) -> CoreResult<&Self> {
        match self.all_indexed() {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)
                .remedy("CREATE INDEX ON <table> USING ivfflat or hnsw (<column> vector_cosine_ops)")),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(self),
        }
    }
}

impl fmt::Display for VectorColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} {}", self.table, self.column, self.kind)
    }
}

impl VectorIndex<'_> {
    /// Holds when this index can serve the query: `index.serves(&db.explain(sql).bind(..).await?)`. One that orders by another
    /// distance than the index is built for cannot use it, and the failure says so. Whether the planner takes the index at
    /// the table's size is another question: [`Plan::uses_index`].
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the two distances, or with what the plan reads instead.
    pub fn serves(&self, plan: &Plan) -> CoreResult<&Self> {
        // A plan that was handed in comes without the one in which scans are discouraged.
        let judged =
            if plan.discouraged.is_empty() { plan.uses_index(&self.name) } else { plan.can_use_index(&self.name) };
        let Err(error) = judged else { return Ok(self) };
        match mismatch(plan, self.distance) {
            None => Err(error),
            Some(asked) => {
                let (index, name, built) = (&self.name, self.distance, self.distance.operator());
                let operator = asked.operator();
                let what = format!(
                    "the query orders by `{operator}` ({asked}), index `{index}` is built for `{built}` ({name})"
                );
                let error = error
                    .attempts()
                    .iter()
                    .fold(Error::new(ErrorKind::Assertion, what), |error, line| error.tried(line));
                Err(error.remedy("use the operator of the index, or build one with the operator class of the query"))
            }
        }
    }
}

/// The distance a plan sorts by, if it is another one.
fn mismatch(plan: &Plan, built: Distance) -> Option<Distance> {
    const ALL: [Distance; 4] = [Distance::L2, Distance::InnerProduct, Distance::Cosine, Distance::L1];
    let plans = std::iter::once(plan).chain(plan.generic.as_deref());
    let keys = plans.flat_map(|plan| plan.nodes.iter().chain(&plan.discouraged)).flat_map(|node| &node.sort_key);
    keys.flat_map(|key| ALL.into_iter().filter(|distance| key.contains(&format!(" {} ", distance.operator()))))
        .find(|&distance| distance != built)
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L2 => "Euclidean",
            Self::InnerProduct => "inner product",
            Self::Cosine => "cosine",
            Self::L1 => "taxicab",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Distance, VectorColumn, VectorColumns, mismatch};
    use crate::postgres::Plan;

    #[test]
    fn sort_by_another_distance_is_told_from_no_sort() {
        let plan = |key: &str| {
            let json = format!(r#"[{{"Plan": {{"Node Type": "Sort", "Sort Key": ["{key}"]}}}}]"#);
            Plan::from_json("select", &serde_json::from_str(&json).unwrap()).unwrap()
        };
        let cosine = plan("((embedding <=> '[1,0]'::vector))");
        assert_eq!(mismatch(&cosine, Distance::L2), Some(Distance::Cosine));
        assert_eq!(mismatch(&cosine, Distance::Cosine), None);
        assert_eq!(mismatch(&plan("id"), Distance::L2), None);
    }

    #[test]
    fn column_without_index_is_named_and_no_columns_are_no_evidence() {
        let column = |name: &str, indexes: &[&str]| VectorColumn {
            table: "docs".into(),
            column: name.into(),
            kind: "vector(8)".into(),
            indexes: indexes.iter().map(|index| (*index).to_owned()).collect(),
        };
        let good = column("embedding", &["docs_by_embedding (hnsw, vector_l2_ops)"]);
        assert!(VectorColumns { columns: vec![good.clone()] }.all_indexed().is_pass());
        let outcome = VectorColumns { columns: vec![good, column("title", &[])] }.all_indexed();
        assert!(outcome.is_fail() && outcome.detail().ends_with("on docs.title vector(8)"), "{outcome}");
        assert!(VectorColumns::default().all_indexed().is_no_evidence());
    }
}
