//! Registers whose writes are all different: every reading names its write, and no search is needed.
//!
//! Gibbons and Korach, *Testing Shared Memories* (1997): a write and its readings form a cluster. From the first end within
//! the cluster to the last beginning, its value must be held: a forward zone; where all of the cluster overlap, it must be
//! held at some time between: a backward zone. The register is linearizable if and only if no reading ended before its
//! write began, no two forward zones overlap, and no backward zone lies within a forward zone.

use super::{Effect, Span};

/// A write with its readings.
#[derive(Debug)]
struct Cluster {
    /// Index of the write; `None` for the initial value.
    write: Option<usize>,
    first_end: u64,
    last_begin: u64,
}

/// No cluster.
const NOBODY: u32 = u32::MAX;

/// The clusters of unique writes, to be found by the value.
#[derive(Debug)]
pub(super) struct Clusters {
    /// One for each write, in the order of the spans.
    clusters: Vec<Cluster>,
    by_value: ByValue,
}

#[derive(Debug)]
enum ByValue {
    /// Values that lie close together, as those of a counter do: a table from the least one on.
    Near { least: i64, table: Vec<u32> },
    /// Any other, sorted.
    Far(Vec<(i64, u32)>),
}

impl ByValue {
    /// `None` when a value was written twice.
    fn of(mut writes: Vec<(i64, u32)>) -> Option<Self> {
        let (least, most) =
            writes.iter().fold((i64::MAX, i64::MIN), |(a, b), (value, _)| (a.min(*value), b.max(*value)));
        if most.wrapping_sub(least) as u64 / 4 >= writes.len() as u64 {
            writes.sort_unstable();
            let unique = writes.windows(2).all(|pair| pair[0].0 != pair[1].0);
            return unique.then_some(Self::Far(writes));
        }
        let mut table = vec![NOBODY; (most - least) as usize + 1];
        for (value, cluster) in writes {
            let seat = &mut table[(value - least) as usize];
            if *seat != NOBODY {
                return None;
            }
            *seat = cluster;
        }
        Some(Self::Near { least, table })
    }

    fn find(&self, value: i64) -> Option<usize> {
        let cluster = match self {
            Self::Near { least, table } => {
                *table.get(usize::try_from(value.checked_sub(*least)?).ok()?).filter(|cluster| **cluster != NOBODY)?
            }
            Self::Far(writes) => writes[writes.binary_search_by_key(&value, |(value, _)| *value).ok()?].1,
        };
        Some(cluster as usize)
    }
}

impl Clusters {
    /// The writes without their readings; `None` when a value was written twice, or somebody compares and sets.
    pub(super) fn of(spans: &[Span]) -> Option<Self> {
        let (mut clusters, mut writes) = (Vec::with_capacity(spans.len()), Vec::with_capacity(spans.len()));
        for (n, span) in spans.iter().enumerate() {
            match span.kind {
                Effect::Write(value) => {
                    writes.push((value, u32::try_from(clusters.len()).ok()?));
                    clusters.push(Cluster { write: Some(n), first_end: span.ended, last_begin: span.invoked });
                }
                Effect::CompareAndSet(..) => return None,
                Effect::Read(_) => {}
            }
        }
        Some(Self { clusters, by_value: ByValue::of(writes)? })
    }
}

/// Two operations or clusters that cannot both be: indices into the spans.
pub(super) fn refute(spans: &[Span], writes: Clusters) -> Option<Vec<usize>> {
    // A write that nobody read and nobody knows the end of may never have happened: its cluster bounds nothing.
    let Clusters { mut clusters, by_value } = writes;
    let mut initial = Cluster { write: None, first_end: 0, last_begin: 0 };
    for (n, span) in spans.iter().enumerate() {
        let Effect::Read(value) = span.kind else { continue };
        let cluster = match value {
            None => &mut initial,
            Some(value) => match by_value.find(value) {
                Some(found) => &mut clusters[found],
                None => return Some(vec![n]), // nobody wrote it
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
    // First end, last beginning, and the cluster.
    let mut forward: Vec<(u64, u64, usize)> = Vec::with_capacity(clusters.len());
    let zones = clusters.iter().enumerate().map(|(n, cluster)| (cluster.first_end, cluster.last_begin, n));
    forward.extend(zones.clone().filter(|(first_end, last_begin, _)| first_end < last_begin));
    forward.sort_unstable();
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        return Some(witness(spans, &[&clusters[pair[0].2], &clusters[pair[1].2]]));
    }
    // Clusters come in the order of their writes, so that the next one lies near the last.
    let mut before = 0;
    for (first_end, last_begin, n) in zones {
        if first_end <= last_begin || first_end == u64::MAX {
            continue;
        }
        before = partition_near(&forward, before, |zone| zone.0 < last_begin);
        if let Some(zone) = before.checked_sub(1).map(|at| forward[at])
            && first_end < zone.1
        {
            return Some(witness(spans, &[&clusters[zone.2], &clusters[n]]));
        }
    }
    None
}

/// [`slice::partition_point`], sought from a place near it: the logarithm of how far it is away.
fn partition_near<T>(sorted: &[T], near: usize, is_before: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut high, mut step) = (near, near, 1);
    while low > 0 && !is_before(&sorted[low - 1]) {
        (low, high, step) = (low.saturating_sub(step), low - 1, step * 2);
    }
    while high < sorted.len() && is_before(&sorted[high]) {
        (low, high, step) = (high + 1, (high + step).min(sorted.len()), step * 2);
    }
    low + sorted[low..high].partition_point(is_before)
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

#[cfg(test)]
mod tests {
    use super::partition_near;

    #[test]
    fn place_is_the_same_from_wherever_it_is_sought() {
        let sorted: Vec<u64> = (0..40).map(|n| n / 3 * 2).collect();
        for length in 0..=sorted.len() {
            let sorted = &sorted[..length];
            for limit in 0..30 {
                let place = sorted.partition_point(|n| *n < limit);
                for near in 0..=length {
                    assert_eq!(partition_near(sorted, near, |n| *n < limit), place, "{limit} from {near} of {length}");
                }
            }
        }
    }
}
