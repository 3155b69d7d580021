//! What the planner does with a query: `EXPLAIN (FORMAT JSON)`, read and judged.
//!
//! Statistics are refreshed first (`ANALYZE`): a test's tables were filled moments ago. On tables of a few pages a
//! sequential scan is right whatever indexes exist; there the question is whether the index *can* serve the query, and the
//! plan is asked for with sequential scans discouraged. [`Plan::basis`] says which of the two was judged, and so does every
//! failure. [`Explain::as_planned`] judges the plan as it is.
//!
//! What a plan does not show: statements inside functions that the server did not inline, and triggers.
//!
//! Source: PostgreSQL documentation, "Using EXPLAIN" (14.1) and "EXPLAIN".

mod ask;
mod check;
mod explain;
mod many;
mod measure;
mod node;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;

pub use explain::Explain;
pub use many::Plans;
pub use node::Node;

/// How the planner runs a query.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The query.
    pub sql: String,
    /// `custom` (made for these parameters), `generic` (made for any), or empty for a query without parameters.
    pub variant: String,
    /// The nodes that are judged, from the top, each with its depth.
    pub nodes: Vec<Node>,
    /// What the server would do now, without being asked to run it.
    pub as_planned: Vec<Node>,
    /// What it would do with sequential scans discouraged: which indexes *can* serve the query.
    pub discouraged: Vec<Node>,
    /// On what grounds this plan was judged.
    pub basis: String,
    /// True when sequential scans were discouraged, because the tables are small.
    pub is_forced: bool,
    /// The tables that are read, with their sizes.
    pub tables: Vec<Table>,
    /// Planner settings that are not at their defaults.
    pub settings: Vec<(String, String)>,
    /// How long the query ran; `None` when it was not run.
    pub took: Option<Duration>,
    /// The generic plan, when both were asked for: every check holds for both or fails.
    pub generic: Option<Box<Plan>>,
}

/// A table that a plan reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Rows by the statistics; `None` when it was never analysed.
    pub rows: Option<u64>,
    /// Pages of 8 KiB (`block_size`).
    pub pages: u64,
    /// The partitioned tables it belongs to, as `schema.name`.
    pub parents: Vec<String>,
    /// Its indexes, each with the indexes of partitioned tables it belongs to.
    pub(super) indexes: Vec<(String, Vec<String>)>,
}

impl Plan {
    /// A plan that was made elsewhere, for example by the system under test in its own session or by `auto_explain`: the
    /// answer of `EXPLAIN (FORMAT JSON)`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is no such answer.
    pub fn from_json(sql: impl Into<String>, answer: &Value) -> CoreResult<Self> {
        // `auto_explain` logs the object alone, `EXPLAIN` a list of one.
        let answer = if answer.is_object() { Value::Array(vec![answer.clone()]) } else { answer.clone() };
        let answer = node::parse(&answer.to_string())?;
        Ok(Self {
            sql: sql.into(),
            as_planned: answer.nodes.clone(),
            nodes: answer.nodes,
            basis: "as it was handed in".to_owned(),
            settings: answer.settings,
            took: answer.execution_ms.map(|ms| Duration::from_secs_f64(ms.max(0.0) / 1e3)),
            ..Self::default()
        })
    }

    /// This plan, and the generic one if it was asked for.
    fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.generic.as_deref())
    }

    /// Runs a check on this plan and on the generic one; the first that fails is the answer.
    fn all(&self, check: impl Fn(&Self) -> CoreResult) -> CoreResult<&Self> {
        self.each().try_for_each(check)?;
        Ok(self)
    }

    fn parent(nodes: &[Node], of: usize) -> Option<&Node> {
        let depth = nodes.get(of)?.depth;
        nodes[..of].iter().rev().find(|node| node.depth + 1 == depth)
    }

    /// The nodes with these positions, each below its parent.
    fn shown(&self, nodes: &[Node], at: &[usize]) -> Vec<String> {
        let line = |&index: &usize| {
            let node = &nodes[index];
            let size = node.relation.as_ref().and_then(|name| self.tables.iter().find(|table| table.name == *name));
            let size = size.map(|table| format!(" — {table}")).unwrap_or_default();
            let parent =
                Self::parent(nodes, index).map(|parent| format!(", below {}", parent.name())).unwrap_or_default();
            format!("node: {node}{size}{parent}")
        };
        at.iter().map(line).collect()
    }

    /// A failed check: the nodes in question, and on what grounds.
    fn wrong(&self, kind: ErrorKind, what: &str, lines: impl IntoIterator<Item = String>) -> Error {
        let which = if self.variant.is_empty() { "" } else { " plan: " };
        let error = Error::new(kind, format!("{}{which}{what}", self.variant)).tried(format!("query: {}", self.sql));
        let error = lines.into_iter().fold(error, Error::tried);
        let error = error.tried(format!("planned: {}", self.basis));
        match self.settings.is_empty() {
            true => error,
            false => {
                let all: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                error.tried(format!("settings: {}", all.join(", ")))
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            Some(rows) => write!(f, "{} has {rows} rows in {} pages", self.name, self.pages),
            None => write!(f, "{} was never analysed, {} pages", self.name, self.pages),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plan in self.each() {
            let variant = if plan.variant.is_empty() { String::new() } else { format!("{} plan, ", plan.variant) };
            writeln!(f, "{}\n-- {variant}{}", plan.sql, plan.basis)?;
            plan.nodes.iter().try_for_each(|node| writeln!(f, "{:indent$}{node}", "", indent = node.depth * 2))?;
        }
        Ok(())
    }
}
