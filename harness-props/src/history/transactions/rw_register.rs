//! Registers: every reading names its write, but the order of writes has to be inferred.
//!
//! A version comes after the initial one. From snapshot isolation upward what a transaction wrote comes after what it had
//! read of the same key, and where real time counts, after what had been written or seen before it began (Kingsbury and Alvaro,
//! *Elle*, 2020, section 5). What cannot be inferred gives no edge: with registers an anomaly may stay unseen.

use std::collections::HashSet;

use super::anomaly::{Class, Isolation, Level, Order};
use super::graph::{ALONE, Edges, RW, WR, WW};
use super::judge::{Findings, Numbered, is_refused};
use super::{RwRegister, Step};
use crate::history::record::{End, Operation};

type Operations<'h> = &'h [Operation<RwRegister>];

/// A first reading of a key by a transaction that had not written to it.
struct Reading {
    key: u32,
    /// The write it read; `None` for the initial version.
    write: Option<u32>,
    by: u32,
    /// The last write of the same transaction to the key.
    update: Option<u32>,
}

/// Finds everything but cycles, and the edges of which cycles are made.
pub(super) fn infer(
    operations: Operations<'_>,
    numbered: &Numbered<'_>,
    isolation: Isolation,
    findings: &mut Findings,
) -> Edges {
    let mut readings = Vec::new();
    for (n, operation) in operations.iter().enumerate() {
        if let End::Ok(values) = &operation.end {
            read(n, operation, values, operations, numbered, findings, &mut readings);
        }
    }
    lost_updates(&readings, numbered, findings);
    let mut order = Vec::new();
    if isolation.level >= Level::SnapshotIsolation {
        order.extend(readings.iter().filter_map(|reading| Some((reading.write?, reading.update?))));
    }
    if isolation.order == Order::RealTime {
        order.extend(in_real_time(operations, numbered, &readings, false));
    }
    let mut order = acyclic(order, numbered, findings);
    if isolation.order == Order::RealTime {
        let seen = in_real_time(operations, numbered, &readings, true);
        extend(&mut order, seen, numbered.writes.len());
    }
    link(operations, numbered, &readings, &order)
}

fn read(
    n: usize,
    operation: &Operation<RwRegister>,
    values: &[Option<i64>],
    operations: Operations<'_>,
    numbered: &Numbered<'_>,
    findings: &mut Findings,
    readings: &mut Vec<Reading>,
) {
    let by = n as u32;
    // What the transaction last knew of a key, whether from a write of its own, and its place in `readings`.
    let mut known: Vec<(u32, Option<i64>, bool, Option<usize>)> = Vec::new();
    let mut values = values.iter();
    for (key, step) in numbered.steps(operation, n) {
        let name = numbered.names[key as usize];
        let at = known.iter().position(|known| known.0 == key);
        match (step, at) {
            (Step::Write(_, value), at) => {
                let write = numbered.find(key, *value).map(|write| write as u32);
                match at {
                    Some(at) => {
                        if let Some(reading) = known[at].3 {
                            readings[reading].update = write;
                        }
                        known[at] = (key, Some(*value), true, known[at].3);
                    }
                    None => known.push((key, Some(*value), true, None)),
                }
            }
            (Step::Read(_), Some(at)) => {
                let Some(value) = values.next() else { return };
                let (_, before, is_own, reading) = known[at];
                if before != *value {
                    let class = if is_own { Class::Internal } else { Class::UnrepeatableRead };
                    let verb = if is_own { "written" } else { "read" };
                    findings.text(class, &[by], || {
                        format!("read {name} as {} after it had {verb} {}", show(*value), show(before))
                    });
                }
                known[at] = (key, *value, is_own, reading);
            }
            (Step::Read(_), None) => {
                let Some(value) = values.next() else { return };
                let write = match value {
                    None => None,
                    Some(value) => match source(n, key, *value, operations, numbered, findings) {
                        Some(write) => Some(write),
                        None => {
                            known.push((key, Some(*value), false, None));
                            continue;
                        }
                    },
                };
                readings.push(Reading { key, write, by, update: None });
                known.push((key, *value, false, Some(readings.len() - 1)));
            }
        }
    }
}

fn show(value: Option<i64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

/// The write that a reading shows, unless it is one that must not be seen.
fn source(
    n: usize,
    key: u32,
    value: i64,
    operations: Operations<'_>,
    numbered: &Numbered<'_>,
    findings: &mut Findings,
) -> Option<u32> {
    let name = numbered.names[key as usize];
    let by = n as u32;
    let Some(at) = numbered.find(key, value) else {
        findings.text(Class::Phantom, &[by], || format!("{value} under {name}, which nobody wrote"));
        return None;
    };
    let write = numbered.writes[at];
    if write.by == by {
        findings.text(Class::Internal, &[by], || format!("read {value} under {name} before it wrote it"));
        return None;
    }
    if is_refused(&operations[write.by as usize]) {
        findings.text(Class::G1a, &[by, write.by], || format!("read {value} under {name}, which was refused"));
        if numbered.steps(&operations[n], n).any(|(other, step)| other == key && matches!(step, Step::Write(..))) {
            findings.text(Class::DirtyUpdate, &[by, write.by], || {
                format!("wrote {name} on top of {value}, which was refused")
            });
        }
        return None;
    }
    if write.is_intermediate {
        findings.text(Class::G1b, &[by, write.by], || {
            format!("read {value} under {name}, which its writer then overwrote")
        });
        let last = numbered.writes_to(key).iter().position(|other| other.by == write.by && !other.is_intermediate)?;
        return Some(numbered.writes_of[key as usize] + last as u32);
    }
    Some(at as u32)
}

fn lost_updates(readings: &[Reading], numbered: &Numbered<'_>, findings: &mut Findings) {
    let mut updates: Vec<(u32, Option<u32>, u32)> =
        readings.iter().filter(|reading| reading.update.is_some()).map(|r| (r.key, r.write, r.by)).collect();
    updates.sort_unstable();
    for pair in updates.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        findings.text(Class::LostUpdate, &[pair[0].2, pair[1].2], || {
            let value = pair[0].1.map(|write| numbered.writes[write as usize].value);
            format!("both read {} as {}, and both wrote it", numbered.names[pair[0].0 as usize], show(value))
        });
    }
}

/// Of each key, what was written before what, or, with readings, also what was seen before what: the transitive reduction of
/// real time.
fn in_real_time(
    operations: Operations<'_>,
    numbered: &Numbered<'_>,
    readings: &[Reading],
    with_readings: bool,
) -> Vec<(u32, u32)> {
    // Key, event, whether it is an end, the version known then, and when the transaction began.
    let mut events: Vec<(u32, u64, bool, u32, u64)> = Vec::new();
    let mut note = |key: u32, by: u32, first: u32, last: u32| {
        let by = &operations[by as usize];
        events.push((key, by.invoked.order, false, first, by.invoked.order));
        if by.is_ok() {
            events.push((key, by.ended.order, true, last, by.invoked.order));
        }
    };
    let mut has_read: HashSet<(u32, u32)> = HashSet::new();
    for reading in readings.iter().filter(|_| with_readings) {
        if let Some(first) = reading.write.or(reading.update) {
            has_read.insert((reading.key, reading.by));
            note(reading.key, reading.by, first, reading.update.unwrap_or(first));
        }
    }
    for (n, write) in numbered.writes.iter().enumerate().filter(|(_, write)| !write.is_intermediate) {
        if !is_refused(&operations[write.by as usize]) && !has_read.contains(&(write.key, write.by)) {
            note(write.key, write.by, n as u32, n as u32);
        }
    }
    events.sort_unstable();
    let mut order = Vec::new();
    for of_key in events.chunk_by(|a, b| a.0 == b.0) {
        let mut frontier: Vec<(u64, u32)> = Vec::new();
        for (_, at, is_end, version, begun) in of_key {
            if *is_end {
                frontier.retain(|(ended, _)| ended > begun);
                frontier.push((*at, *version));
            } else {
                let before = frontier.iter().filter(|(_, before)| before != version);
                order.extend(before.map(|(_, before)| (*before, *version)));
            }
        }
    }
    order
}

/// Adds the part of `more` that contradicts neither itself nor the order: what contradicts it shows as a cycle elsewhere.
fn extend(order: &mut Vec<(u32, u32)>, more: Vec<(u32, u32)>, writes: usize) {
    let mut edges = Edges::new(writes);
    for (before, after) in order.iter().chain(&more) {
        edges.link(*before, *after, WW);
    }
    let graph = edges.graph();
    let parts = graph.components(0..graph.nodes() as u32, WW, |_| true);
    let of = |write: u32| parts.of[write as usize];
    order.extend(more.into_iter().filter(|(before, after)| of(*before) == ALONE || of(*before) != of(*after)));
    order.sort_unstable();
    order.dedup();
}

/// The order without what contradicts itself, which is a finding.
fn acyclic(mut order: Vec<(u32, u32)>, numbered: &Numbered<'_>, findings: &mut Findings) -> Vec<(u32, u32)> {
    order.sort_unstable();
    order.dedup();
    let mut edges = Edges::new(numbered.writes.len());
    for (before, after) in &order {
        edges.link(*before, *after, WW);
    }
    let graph = edges.graph();
    let parts = graph.components(0..graph.nodes() as u32, WW, |_| true);
    for part in &parts.members {
        let writes: Vec<_> = part.iter().map(|write| numbered.writes[*write as usize]).collect();
        let by: Vec<u32> = writes.iter().map(|write| write.by).collect();
        findings.text(Class::CyclicVersions, &by, || {
            let values: Vec<String> = writes.iter().map(|write| write.value.to_string()).collect();
            format!("{} under {} come before one another", values.join(", "), numbered.names[writes[0].key as usize])
        });
    }
    let of = |write: u32| parts.of[write as usize];
    order.retain(|(before, after)| of(*before) == ALONE || of(*before) != of(*after));
    order
}

fn link(operations: Operations<'_>, numbered: &Numbered<'_>, readings: &[Reading], order: &[(u32, u32)]) -> Edges {
    let mut edges = Edges::new(operations.len());
    let by = |write: u32| numbered.writes[write as usize].by;
    // Readers by version; the initial version of a key comes after all writes.
    let initial = |key: u32| numbered.writes.len() as u32 + key;
    let mut readers: Vec<(u32, u32)> = Vec::with_capacity(readings.len());
    for reading in readings {
        if let Some(write) = reading.write {
            edges.link(by(write), reading.by, WR);
        }
        readers.push((reading.write.unwrap_or_else(|| initial(reading.key)), reading.by));
    }
    readers.sort_unstable();
    // What was certainly written and follows nothing known follows the initial version.
    let mut has_before = vec![false; numbered.writes.len()];
    for (_, after) in order {
        has_before[*after as usize] = true;
    }
    let mut was_read = vec![false; numbered.writes.len()];
    for reading in readings {
        if let Some(write) = reading.write {
            was_read[write as usize] = true;
        }
    }
    let mut follows: Vec<(u32, u32)> = order.to_vec();
    for (n, write) in numbered.writes.iter().enumerate().filter(|(_, write)| !write.is_intermediate) {
        let happened = operations[write.by as usize].is_ok() || was_read[n];
        if happened && !has_before[n] {
            follows.push((initial(write.key), n as u32));
        }
    }
    follows.sort_unstable();
    for version in follows.chunk_by(|a, b| a.0 == b.0) {
        let before = version[0].0;
        let from = readers.partition_point(|(read, _)| *read < before);
        let to = readers.partition_point(|(read, _)| *read <= before);
        let readers = &readers[from..to];
        if (before as usize) < numbered.writes.len() {
            for (_, after) in version {
                edges.link(by(before), by(*after), WW);
            }
        }
        if !readers.is_empty() {
            let fan = edges.fan(version.iter().map(|(_, after)| by(*after)).collect());
            for (_, reader) in readers {
                edges.link_all(*reader, &fan, RW);
            }
        }
    }
    edges
}
