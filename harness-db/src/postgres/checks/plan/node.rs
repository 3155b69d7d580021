//! One node of a plan, and how `EXPLAIN (FORMAT JSON)` is read.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;

/// One node of a plan.
///
/// Rows are per loop, as the server states them; blocks include those of the nodes below.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Node {
    /// Distance from the top.
    pub depth: usize,
    /// `Seq Scan`, `Index Scan`, `Hash Join`, …
    pub kind: String,
    /// The table's schema, where the plan states it.
    pub schema: Option<String>,
    /// The table, for scans.
    pub relation: Option<String>,
    /// The index, for index scans.
    pub index: Option<String>,
    /// `CTE recent`, `InitPlan 1`, `SubPlan 2`: the part of the query that begins here.
    pub part: Option<String>,
    /// The condition the index or the filter applies.
    pub condition: Option<String>,
    /// What a sort orders by.
    pub sort_key: Vec<String>,
    /// True when an index is entered by a condition or gives the order, false when it is read from end to end.
    pub is_entered: bool,
    /// Rows that the planner expects.
    pub rows: f64,
    /// The planner's price of this node and all below it, in its own unit (one sequential page read is 1).
    pub cost: f64,
    /// Rows that came, per loop, when the query was run.
    pub actual_rows: Option<f64>,
    /// How often the node was run; 0 is never.
    pub loops: f64,
    /// Rows that were read and thrown away, over all loops: by filter, join filter and recheck.
    pub removed: f64,
    /// Blocks found in shared buffers and blocks read into them, this node and all below.
    pub shared_blocks: u64,
    /// Temporary blocks written, this node and all below.
    pub temp_blocks: u64,
    /// How it went to disk: `external merge, 5400 kB on disk`, `8 hash batches`; `None` when it stayed in memory.
    pub spill: Option<String>,
    /// True when it may be stopped before its end, for example below a `Limit`: fewer rows than expected mean nothing.
    pub may_stop_early: bool,
}

/// What an answer of `EXPLAIN` holds besides its nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) nodes: Vec<Node>,
    pub(super) execution_ms: Option<f64>,
    pub(super) settings: Vec<(String, String)>,
}

/// Reads the answer of `EXPLAIN (FORMAT JSON)`.
pub(super) fn parse(json: &str) -> CoreResult<Answer> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| Error::new(ErrorKind::Protocol, "the server's plan is not JSON").caused_by(error))?;
    let top = &value[0];
    let mut nodes = Vec::new();
    collect(&top["Plan"], 0, false, &mut nodes);
    if nodes.is_empty() {
        return Err(Error::new(ErrorKind::Protocol, "the server's plan holds no node"));
    }
    let settings = top["Settings"].as_object().into_iter().flatten();
    let settings = settings.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    Ok(Answer { nodes, execution_ms: top["Execution Time"].as_f64(), settings: settings.collect() })
}

fn collect(value: &Value, depth: usize, may_stop_early: bool, into: &mut Vec<Node>) {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let number = |name: &str| value[name].as_f64().unwrap_or_default();
    let count = |name: &str| value[name].as_u64().unwrap_or_default();
    let Some(kind) = text("Node Type") else { return };
    let entry = text("Index Cond").or_else(|| text("Order By")).or_else(|| text("TID Cond"));
    let loops = value["Actual Loops"].as_f64().unwrap_or_default();
    // The server states removed rows as a mean per loop.
    let removed = ["Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck"];
    into.push(Node {
        depth,
        is_entered: entry.is_some(),
        condition: entry.or_else(|| text("Filter")).or_else(|| text("Join Filter")),
        schema: text("Schema"),
        relation: text("Relation Name"),
        index: text("Index Name"),
        part: text("Subplan Name"),
        sort_key: value["Sort Key"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        rows: number("Plan Rows"),
        cost: number("Total Cost"),
        actual_rows: value["Actual Rows"].as_f64(),
        loops,
        removed: removed.iter().map(|name| number(name)).sum::<f64>() * loops,
        shared_blocks: count("Shared Hit Blocks") + count("Shared Read Blocks"),
        temp_blocks: count("Temp Written Blocks"),
        spill: spill(value),
        may_stop_early,
        kind,
    });
    let kind = value["Node Type"].as_str().unwrap_or_default();
    for child in value["Plans"].as_array().into_iter().flatten() {
        collect(child, depth + 1, stops_early(value, kind, child, may_stop_early), into);
    }
}

/// Whether a child may be left before its end: its parent stops when it has enough, unless the parent reads everything
/// before it gives its first row.
fn stops_early(parent: &Value, kind: &str, child: &Value, inherited: bool) -> bool {
    let relationship = child["Parent Relationship"].as_str().unwrap_or_default();
    let join = parent["Join Type"].as_str().unwrap_or_default();
    match kind {
        // An EXISTS reads one row; a CTE is read as far as somebody asks.
        _ if matches!(relationship, "SubPlan" | "InitPlan") => true,
        "Limit" | "Merge Join" => true,
        "Sort" | "Hash" | "Bitmap Heap Scan" | "ModifyTable" => false,
        "Aggregate" => inherited && parent["Strategy"].as_str() == Some("Sorted"),
        "Nested Loop" if relationship == "Inner" => inherited || matches!(join, "Semi" | "Anti"),
        // A memory of rows is filled as far as it is asked, and read again from there.
        "Materialize" | "Memoize" => true,
        // An empty side ends the whole join.
        "Hash Join" if relationship == "Outer" => inherited,
        _ => inherited,
    }
}

/// How a node went to disk, by its own words or those of its parallel workers.
fn spill(value: &Value) -> Option<String> {
    let workers = value["Workers"].as_array().into_iter().flatten();
    std::iter::once(value).chain(workers).find_map(|part| {
        let number = |name: &str| part[name].as_u64().unwrap_or_default();
        if part["Sort Space Type"].as_str() == Some("Disk") {
            let method = part["Sort Method"].as_str().unwrap_or("external sort");
            return Some(format!("{method}, {} kB on disk", number("Sort Space Used")));
        }
        if number("Hash Batches") > 1 {
            return Some(format!("{} hash batches", number("Hash Batches")));
        }
        if number("Disk Usage") > 0 {
            return Some(format!("{} kB of hashed groups on disk", number("Disk Usage")));
        }
        // PostgreSQL 18 says where a CTE, a window or a materialised result is kept.
        (part["Storage"].as_str() == Some("Disk")).then(|| format!("{} kB on disk", number("Maximum Storage")))
    })
}

impl Node {
    /// True when this node was run at least once.
    pub(super) fn was_run(&self) -> bool {
        self.actual_rows.is_some() && self.loops > 0.0
    }

    /// True when `name` is this node's table, with or without its schema.
    pub(super) fn reads(&self, name: &str) -> bool {
        let Some(relation) = &self.relation else { return false };
        relation == name || self.schema.as_ref().is_some_and(|schema| format!("{schema}.{relation}") == name)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(part) = &self.part {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.kind)?;
        if let Some(index) = &self.index {
            write!(f, " using {index}")?;
        }
        if let Some(relation) = &self.relation {
            write!(f, " on {relation}")?;
        }
        write!(f, " ({} rows expected", self.rows)?;
        if let Some(actual) = self.actual_rows {
            match self.loops {
                n if n < 1.0 => f.write_str(", never run")?,
                n if n > 1.0 => write!(f, ", {actual} came in each of {n} loops")?,
                _ => write!(f, ", {actual} came")?,
            }
        }
        if self.removed > 0.0 {
            write!(f, ", {} thrown away", self.removed)?;
        }
        match &self.condition {
            Some(condition) => write!(f, "; {condition})"),
            None => f.write_str(")"),
        }
    }
}
