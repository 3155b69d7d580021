//! What a query did when it was run: checks of an analysed plan.

use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, ErrorKind};

use super::check::children;
use super::{Node, Plan};

/// How many nodes a failure shows.
const SHOWN: usize = 3;

impl Plan {
    /// Holds when the query read and threw away at most this many rows, over all nodes and loops (`Rows Removed by Filter`,
    /// `… by Join Filter`, `… by Index Recheck`). The server states a mean per loop, so the sum is exact up to half a row
    /// per loop.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nodes that throw away most; [`ErrorKind::NoEvidence`] when the query was not run.
    pub fn removes_at_most(&self, rows: u64) -> CoreResult<&Self> {
        self.measured(|plan| {
            let removed: f64 = plan.nodes.iter().map(|node| node.removed).sum();
            if removed <= rows as f64 {
                return Ok(());
            }
            let what = format!("the query throws away {removed} rows it has read, at most {rows} are allowed");
            let worst = plan.largest(|node| node.removed);
            Err(plan
                .wrong(ErrorKind::Assertion, &what, plan.shown(&plan.nodes, &worst))
                .remedy("move the condition into an index, so that the rows are never read"))
        })
    }

    /// Holds when every node that was run gave at most `factor` times as many rows per loop as the planner expected, and at
    /// least one `factor`-th of it. Fewer than expected is right where a node may be stopped before its end (below a
    /// `Limit`, an `EXISTS`, a merge join), and numbers below 1 count as 1.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the node that is farthest off; [`ErrorKind::NoEvidence`] when the query was not run.
    pub fn estimates_within(&self, factor: f64) -> CoreResult<&Self> {
        self.measured(|plan| {
            let wrong = plan.largest(|node| if miss(node) > factor { miss(node) } else { 0.0 });
            let Some(&first) = wrong.first() else { return Ok(()) };
            let off = miss(&plan.nodes[first]);
            let what = format!("the planner is off by a factor of {off:.1}, at most {factor} is allowed");
            Err(plan
                .wrong(ErrorKind::Assertion, &what, plan.shown(&plan.nodes, &wrong))
                .remedy("raise the statistics target, or CREATE STATISTICS on columns that depend on each other"))
        })
    }

    /// Holds when the query touched at most this many blocks of 8 KiB: found in shared buffers or read into them. The count
    /// does not depend on how warm the cache is.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the nodes that touch most themselves; [`ErrorKind::NoEvidence`] when the query was not
    /// run.
    pub fn reads_at_most_blocks(&self, limit: u64) -> CoreResult<&Self> {
        self.measured(|plan| {
            let blocks = plan.nodes.first().map_or(0, |node| node.shared_blocks);
            if blocks <= limit {
                return Ok(());
            }
            let own = |index: usize| {
                let below: u64 = children(&plan.nodes, index).map(|node| node.shared_blocks).sum();
                plan.nodes[index].shared_blocks.saturating_sub(below)
            };
            let mut order: Vec<usize> = (0..plan.nodes.len()).filter(|&index| own(index) > 0).collect();
            order.sort_by_key(|&index| std::cmp::Reverse(own(index)));
            order.truncate(SHOWN);
            let lines = plan.shown(&plan.nodes, &order);
            let lines = order.iter().zip(lines).map(|(&index, line)| format!("{} blocks by {line}", own(index)));
            let what = format!("the query touches {blocks} blocks, at most {limit} are allowed");
            let error = plan.wrong(ErrorKind::Assertion, &what, lines);
            Err(error.remedy("read fewer rows, or cover the query by an index"))
        })
    }

    /// Holds when everything stayed in memory: no sort or hash on disk, no temporary block.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the node that went to disk; [`ErrorKind::NoEvidence`] when the query was not run.
    pub fn never_spills(&self) -> CoreResult<&Self> {
        self.measured(|plan| {
            let own = |index: usize| {
                let below: u64 = children(&plan.nodes, index).map(|node| node.temp_blocks).sum();
                plan.nodes[index].temp_blocks.saturating_sub(below)
            };
            let spills: Vec<usize> =
                (0..plan.nodes.len()).filter(|&index| plan.nodes[index].spill.is_some() || own(index) > 0).collect();
            let Some(&first) = spills.first() else { return Ok(()) };
            let how = plan.nodes[first].spill.clone().unwrap_or_else(|| format!("{} temporary blocks", own(first)));
            let what = format!("{} goes to disk: {how}", plan.nodes[first].name());
            let shown = plan.shown(&plan.nodes, &spills[..spills.len().min(SHOWN)]);
            let error = plan.wrong(ErrorKind::Assertion, &what, shown);
            Err(error.remedy("raise work_mem for this query, or sort and hash fewer rows"))
        })
    }

    /// Holds when the execution took at most this long, by the server's clock and with the cost of measuring.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the time; [`ErrorKind::NoEvidence`] when the query was not run.
    pub fn takes_at_most(&self, limit: Duration) -> CoreResult<&Self> {
        self.measured(|plan| match plan.took {
            None => Err(plan.not_run()),
            Some(took) if took <= limit => Ok(()),
            Some(took) => {
                let what = format!("the query took {}, at most {} is allowed", seconds(took), seconds(limit));
                let top = plan.largest(|node| node.actual_rows.unwrap_or_default() * node.loops);
                Err(plan.wrong(ErrorKind::Assertion, &what, plan.shown(&plan.nodes, &top)))
            }
        })
    }

    fn measured(&self, check: impl Fn(&Self) -> CoreResult) -> CoreResult<&Self> {
        self.all(|plan| match plan.nodes.iter().any(|node| node.actual_rows.is_some()) {
            true => check(plan),
            false => Err(plan.not_run()),
        })
    }

    fn not_run(&self) -> harness_core::Error {
        let what = "the query was planned and not run, so there is nothing to measure";
        self.wrong(ErrorKind::NoEvidence, what, []).remedy("add `.analyze()`: it runs the query and rolls it back")
    }

    /// The nodes with the largest values above 0, largest first.
    fn largest(&self, of: impl Fn(&Node) -> f64) -> Vec<usize> {
        let mut order = self.places(|node| of(node) > 0.0);
        order.sort_by(|&a, &b| of(&self.nodes[b]).total_cmp(&of(&self.nodes[a])));
        order.truncate(SHOWN);
        order
    }
}

/// By which factor the planner was off, 1 when it was right or cannot be judged.
fn miss(node: &Node) -> f64 {
    let counted = node.was_run() && !matches!(&*node.kind, "BitmapAnd" | "BitmapOr");
    let Some(actual) = node.actual_rows.filter(|_| counted) else { return 1.0 };
    let (actual, expected) = (actual.max(1.0), node.rows.max(1.0));
    match actual >= expected {
        true => actual / expected,
        false if node.may_stop_early => 1.0,
        false => expected / actual,
    }
}
