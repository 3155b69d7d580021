//! What a plan reads and how: checks of its shape.

use harness_core::{CoreResult, ErrorKind};

use super::{Node, Plan};

/// How many nodes a failure shows.
const SHOWN: usize = 4;

impl Plan {
    /// Holds when the plan reads this index, or a partition's index that belongs to it.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what the plan reads instead.
    pub fn uses_index(&self, name: &str) -> CoreResult<&Self> {
        self.all(|plan| match plan.nodes.iter().any(|node| plan.is_index(node, name)) {
            true => Ok(()),
            false => Err(plan.not_used(name, "does not use", &plan.nodes, &[])),
        })
    }

    /// Holds when this index *can* serve the query: the planner takes it once sequential scans are discouraged, whatever it
    /// does on tables as small as those of a test. The failure shows both plans.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when even then it is not used; [`ErrorKind::NoEvidence`] for a plan that was handed in.
    pub fn can_use_index(&self, name: &str) -> CoreResult<&Self> {
        self.all(|plan| {
            if plan.discouraged.is_empty() {
                let error = plan.wrong(ErrorKind::NoEvidence, "only one plan is known", []);
                return Err(error.remedy("explain the query by `db.explain(..)`, which asks for both plans"));
            }
            if plan.discouraged.iter().any(|node| plan.is_index(node, name)) {
                return Ok(());
            }
            let now =
                plan.reading(&plan.as_planned).into_iter().map(|line| format!("as planned {line}")).collect::<Vec<_>>();
            Err(plan.not_used(name, "cannot use", &plan.discouraged, &now))
        })
    }

    /// Holds when no node reads this table, or a partition of it, from end to end: at any depth, in CTEs and subplans too.
    /// The name may carry its schema: `audit.events`.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the node that does; [`ErrorKind::NoEvidence`] when the plan does not read the table at
    /// all.
    pub fn never_scans(&self, table: &str) -> CoreResult<&Self> {
        self.all(|plan| {
            let at = plan.places(|node| plan.is_of(node, table));
            if at.is_empty() && !plan.is_pruned() {
                let error = plan.wrong(
                    ErrorKind::NoEvidence,
                    &format!("the query does not read table `{table}`"),
                    plan.reading(&plan.nodes),
                );
                return Err(error.remedy("correct the table's name, or explain the query that reads it"));
            }
            let scans: Vec<usize> = at.into_iter().filter(|&index| plan.is_scan(&plan.nodes[index])).collect();
            match scans.is_empty() {
                true => Ok(()),
                false => Err(plan.scanned(&format!("the query scans table `{table}`"), &scans)),
            }
        })
    }

    /// Holds when none of these tables is read from end to end; tables the query does not read are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nodes that do; [`ErrorKind::NoEvidence`] without tables.
    pub fn never_scans_any(&self, tables: &[&str]) -> CoreResult<&Self> {
        self.all(|plan| {
            if tables.is_empty() {
                return Err(plan.wrong(ErrorKind::NoEvidence, "no table was named", []));
            }
            let scans = plan.places(|node| plan.is_scan(node) && tables.iter().any(|table| plan.is_of(node, table)));
            match scans.first().and_then(|&first| plan.nodes[first].relation.as_ref()) {
                None => Ok(()),
                Some(first) => Err(plan.scanned(&format!("the query scans table `{first}`"), &scans)),
            }
        })
    }

    /// Holds when the planner's price for what the server would do now is at most this, in its own unit (reading one page
    /// in sequence is 1).
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the node that adds most.
    pub fn costs_at_most(&self, limit: f64) -> CoreResult<&Self> {
        self.all(|plan| {
            let nodes = &plan.as_planned;
            let cost = nodes.first().map_or(0.0, |node| node.cost);
            if cost <= limit {
                return Ok(());
            }
            let own = |index: &usize| nodes[*index].cost - children(nodes, *index).map(|node| node.cost).sum::<f64>();
            let dearest = (0..nodes.len()).max_by(|a, b| own(a).total_cmp(&own(b)));
            let what = format!("the query costs {cost}, at most {limit} is allowed");
            let error = plan.wrong(ErrorKind::Assertion, &what, plan.shown(nodes, dearest.as_slice()));
            Err(error.remedy("look at the node that adds most: an index, or fewer rows"))
        })
    }

    pub(super) fn places(&self, is: impl Fn(&Node) -> bool) -> Vec<usize> {
        self.nodes.iter().enumerate().filter(|(_, node)| is(node)).map(|(index, _)| index).collect()
    }

    /// True when some node reads this table.
    pub(super) fn mentions(&self, table: &str) -> bool {
        self.nodes.iter().any(|node| self.is_of(node, table))
    }

    /// True when the node reads this table, by its own name or that of a partitioned table above it.
    fn is_of(&self, node: &Node, table: &str) -> bool {
        node.reads(table)
            || self.table_of(node).is_some_and(|found| found.parents.iter().any(|parent| same(parent, table)))
    }

    fn is_index(&self, node: &Node, name: &str) -> bool {
        let Some(index) = &node.index else { return false };
        // A bitmap index scan names no table: every table that is read may own the index.
        let mut known = self.tables.iter().flat_map(|table| &table.indexes).filter(|(own, _)| own == index);
        index == name || known.any(|(_, above)| above.iter().any(|above| same(above, name)))
    }

    fn table_of(&self, node: &Node) -> Option<&super::Table> {
        self.tables.iter().find(|table| {
            node.relation.as_ref() == Some(&table.name)
                && node.schema.as_ref().is_none_or(|schema| *schema == table.schema)
        })
    }

    /// True when the planner proved that nothing need be read: every partition pruned, or a condition that cannot hold.
    fn is_pruned(&self) -> bool {
        self.nodes.iter().all(|node| node.relation.is_none() && node.index.is_none())
            && self.nodes.iter().any(|node| node.kind == "Result" || node.kind == "Append")
    }

    fn is_scan(&self, node: &Node) -> bool {
        // Where sequential scans are discouraged, an index read from end to end is the same thing in disguise.
        let disguised = self.is_forced && node.kind.starts_with("Index") && !node.is_entered;
        matches!(&*node.kind, "Seq Scan" | "Parallel Seq Scan" | "Sample Scan") || disguised
    }

    fn reading(&self, nodes: &[Node]) -> Vec<String> {
        let at: Vec<usize> =
            (0..nodes.len()).filter(|&at| nodes[at].relation.is_some() || nodes[at].index.is_some()).collect();
        self.shown(nodes, &at[..at.len().min(SHOWN)])
    }

    fn scanned(&self, what: &str, scans: &[usize]) -> harness_core::Error {
        self.wrong(ErrorKind::Assertion, what, self.shown(&self.nodes, &scans[..scans.len().min(SHOWN)]))
            .remedy("create the index, or write the condition so that it can be used")
    }

    fn not_used(&self, name: &str, verb: &str, nodes: &[Node], more: &[String]) -> harness_core::Error {
        let lines = self.reading(nodes).into_iter().chain(more.iter().cloned());
        self.wrong(ErrorKind::Assertion, &format!("the query {verb} index `{name}`"), lines).remedy(
            "create the index, or write the condition on the bare column and in its type: a function or a cast hides it",
        )
    }
}

/// The nodes right below one.
pub(super) fn children(nodes: &[Node], of: usize) -> impl Iterator<Item = &Node> {
    let depth = nodes[of].depth;
    nodes[of + 1..].iter().take_while(move |node| node.depth > depth).filter(move |node| node.depth == depth + 1)
}

/// `schema.name` against a name with or without its schema.
fn same(qualified: &str, name: &str) -> bool {
    qualified == name || qualified.split_once('.').is_some_and(|(_, bare)| bare == name)
}

impl Node {
    /// What it is and what it reads, without figures.
    pub(super) fn name(&self) -> String {
        let relation = self.relation.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
        let part = self.part.as_ref().map(|part| format!(" ({part})")).unwrap_or_default();
        format!("{}{relation}{part}", self.kind)
    }
}
