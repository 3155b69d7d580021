//! Registers whose writes are all different: every reading names its write, and no search is needed.
//!
//! Gibbons and Korach, *Testing Shared Memories* (1997): a write and its readings form a cluster. From the first end within
//! the cluster to the last beginning, its value must be held: a forward zone; where all of the cluster overlap, it must be
//! held at some time between: a backward zone. The register is linearizable if and only if no reading ended before its
//! write began, no two forward zones overlap, and no backward zone lies within a forward zone.

use super::{Effect, Span};

/// A write with its readings.
struct Cluster {
    /// Index of the write; `None` for the initial value.
    write: Option<usize>,
    first_end: u64,
    last_begin: u64,
}

/// Two operations or clusters that cannot both be: indices into the spans.
pub(super) fn refute(spans: &[Span]) -> Option<Vec<usize>> {
    // Writes by value; clusters of writes that nobody read and nobody knows the end of may never have happened.
    let mut writes: Vec<(i64, usize)> = Vec::new();
    for (n, span) in spans.iter().enumerate() {
        if let Effect::Write(value) = span.kind {
            writes.push((value, n));
        }
    }
    writes.sort_unstable();
    let mut clusters: Vec<Cluster> = writes
        .iter()
        .map(|(_, n)| Cluster { write: Some(*n), first_end: spans[*n].ended, last_begin: spans[*n].invoked })
        .collect();
    let mut initial = Cluster { write: None, first_end: 0, last_begin: 0 };
    for (n, span) in spans.iter().enumerate() {
        let Effect::Read(value) = span.kind else { continue };
        let cluster = match value {
            None => &mut initial,
            Some(value) => match writes.binary_search_by_key(&value, |(value, _)| *value) {
                Ok(found) => &mut clusters[found],
                Err(_) => return Some(vec![n]), // nobody wrote it
            },
        };
        if let Some(write) = cluster.write
            && span.ended < spans[write].invoked
        {
            return Some(vec![n, write]);
        }
        cluster.first_end = cluster.first_end.min(span.ended);
        cluster.last_begin = cluster.last_begin.max(span.invoked);
    }
    clusters.push(initial);
    let mut forward: Vec<&Cluster> = clusters.iter().filter(|cluster| cluster.first_end < cluster.last_begin).collect();
    forward.sort_unstable_by_key(|cluster| cluster.first_end);
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].first_end < pair[0].last_begin) {
        return Some(witness(spans, &[pair[0], pair[1]]));
    }
    let is_backward = |cluster: &&Cluster| cluster.first_end > cluster.last_begin && cluster.first_end != u64::MAX;
    for backward in clusters.iter().filter(is_backward) {
        let before = forward.partition_point(|zone| zone.first_end < backward.last_begin);
        if let Some(zone) = before.checked_sub(1).map(|n| forward[n])
            && backward.first_end < zone.last_begin
        {
            return Some(witness(spans, &[zone, backward]));
        }
    }
    None
}

/// The operations that bound the zones: what ended first, what began last, and the writes.
fn witness(spans: &[Span], clusters: &[&Cluster]) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for cluster in clusters {
        found.extend(cluster.write);
        let edge = |n: &usize| spans[*n].ended == cluster.first_end || spans[*n].invoked == cluster.last_begin;
        found.extend((0..spans.len()).filter(edge));
    }
    found.sort_unstable();
    found.dedup();
    found
}
