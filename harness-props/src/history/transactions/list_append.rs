//! Lists: every reading shows the order of the appends before it, so that nothing has to be guessed.
//!
//! The longest reading of a key is its order of versions, every other one must be a beginning of it. From it follow who
//! overwrote whom, who read whom, and who overwrote what somebody read (Kingsbury and Alvaro, *Elle*, 2020, section 4). What
//! was appended for certain and never read came after all that was.

use std::collections::HashSet;

use super::anomaly::Class;
use super::graph::{Edges, Fan, RW, WR, WW};
use super::judge::{Findings, NOBODY, Numbered, Write, is_refused};
use super::{ListAppend, Step};
use crate::history::record::{End, Operation};

/// A reading of what others appended: the first of its key in its transaction, before an append of its own.
struct Reading {
    key: u32,
    /// How many elements it showed.
    length: u32,
    by: u32,
    /// True when the transaction went on to append to the key.
    is_update: bool,
}

/// The order of versions of all keys, one after the other.
struct Versions<'h> {
    /// The longest reading of each key, and who read it.
    longest: Vec<(&'h [i64], u32)>,
    /// Who wrote each element; [`NOBODY`] for one that was refused or never written.
    writer: Vec<u32>,
    /// Where each key's elements begin.
    first: Vec<u32>,
}

impl Versions<'_> {
    fn writers(&self, key: u32) -> &[u32] {
        &self.writer[self.first[key as usize] as usize..self.first[key as usize + 1] as usize]
    }
}

type Operations<'h> = &'h [Operation<ListAppend>];

/// Finds everything but cycles, and the edges of which cycles are made.
pub(super) fn infer<'h>(operations: Operations<'h>, numbered: &Numbered<'h>, findings: &mut Findings) -> Edges {
    let versions = versions(operations, numbered, findings);
    let mut edges = Edges::new(operations.len());
    let mut readings = Vec::new();
    for (n, operation) in operations.iter().enumerate() {
        if let End::Ok(lists) = &operation.end {
            let n = n as u32;
            Transaction { n, operations, numbered, versions: &versions, findings }.read(lists, &mut readings);
        }
    }
    lost_updates(&mut readings, numbered, findings);
    link(numbered, operations, &versions, &readings, &mut edges);
    edges
}

fn versions<'h>(operations: Operations<'h>, numbered: &Numbered<'h>, findings: &mut Findings) -> Versions<'h> {
    let mut longest: Vec<(&[i64], u32)> = vec![(&[], NOBODY); numbered.names.len()];
    for (n, operation) in operations.iter().enumerate() {
        let End::Ok(lists) = &operation.end else { continue };
        let keys = numbered.steps(operation, n).filter(|(_, step)| matches!(step, Step::Read(_)));
        for ((key, _), list) in keys.zip(lists) {
            let known = &mut longest[key as usize];
            if list.len() > known.0.len() || known.1 == NOBODY {
                *known = (list, n as u32);
            }
        }
    }
    let mut versions = Versions { longest, writer: Vec::new(), first: vec![0] };
    let mut sorted: Vec<i64> = Vec::new();
    for (key, (list, by)) in versions.longest.iter().enumerate() {
        let mut refused: Option<(u32, i64)> = None;
        for value in *list {
            let write = numbered.find(key as u32, *value).map(|at| numbered.writes[at]);
            let writer = match write {
                None => {
                    findings.text(Class::Phantom, &[*by], || {
                        format!("{value} under {}, which nobody appended", numbered.names[key])
                    });
                    NOBODY
                }
                Some(write) if is_refused(&operations[write.by as usize]) => {
                    refused = refused.or(Some((write.by, *value)));
                    NOBODY
                }
                Some(write) => {
                    if let Some((aborted, under)) = refused {
                        findings.text(Class::DirtyUpdate, &[write.by, aborted], || {
                            format!("{value} under {} stands on {under}, which was refused", numbered.names[key])
                        });
                    }
                    write.by
                }
            };
            versions.writer.push(writer);
        }
        versions.first.push(versions.writer.len() as u32);
        sorted.clear();
        sorted.extend_from_slice(list);
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            findings.text(Class::Duplicate, &[*by], || format!("{} twice under {}", pair[0], numbered.names[key]));
        }
    }
    versions
}

/// One committed transaction.
struct Transaction<'a, 'h> {
    n: u32,
    operations: Operations<'h>,
    numbered: &'a Numbered<'h>,
    versions: &'a Versions<'h>,
    findings: &'a mut Findings,
}

/// What a transaction knows of a key on its way.
struct Known<'h> {
    key: u32,
    /// What it read of others.
    read: Option<&'h [i64]>,
    /// What it appended, as it should stand at the end of a reading.
    own: Vec<i64>,
    reading: Option<usize>,
}

impl<'h> Transaction<'_, 'h> {
    fn read(&mut self, lists: &'h [Vec<i64>], readings: &mut Vec<Reading>) {
        let mut known: Vec<Known<'h>> = Vec::new();
        let mut lists = lists.iter();
        let numbered = self.numbered;
        for (key, step) in numbered.steps(&self.operations[self.n as usize], self.n as usize) {
            let at = known.iter().position(|known| known.key == key).unwrap_or_else(|| {
                known.push(Known { key, read: None, own: Vec::new(), reading: None });
                known.len() - 1
            });
            let known = &mut known[at];
            match step {
                Step::Write(_, value) => {
                    known.own.push(*value);
                    if let Some(reading) = known.reading {
                        readings[reading].is_update = true;
                    }
                }
                Step::Read(_) => {
                    let Some(list) = lists.next() else { return };
                    if self.is_consistent(known, list) && known.own.is_empty() && known.read.is_none() {
                        known.reading = self.of_others(key, list, readings);
                    }
                    known.read = Some(&list[..list.len().saturating_sub(known.own.len())]);
                }
            }
        }
    }

    /// What a reading must be, from what the transaction did before.
    fn is_consistent(&mut self, known: &Known<'h>, list: &[i64]) -> bool {
        let name = self.numbered.names[known.key as usize];
        if !list.ends_with(&known.own) {
            self.findings.text(Class::Internal, &[self.n], || {
                format!("read {name} as {list:?} after it had appended {:?}", known.own)
            });
            return false;
        }
        let others = &list[..list.len() - known.own.len()];
        if let Some(before) = known.read
            && before != others
        {
            self.findings.text(Class::UnrepeatableRead, &[self.n], || {
                format!("read {name} as {others:?} after it had read {before:?}")
            });
        }
        true
    }

    /// A reading of others' appends, against the order of versions; its place in `readings` when it has one there.
    fn of_others(&mut self, key: u32, list: &'h [i64], readings: &mut Vec<Reading>) -> Option<usize> {
        let (longest, longest_by) = self.versions.longest[key as usize];
        let name = self.numbered.names[key as usize];
        if !longest.starts_with(list) {
            self.findings.text(Class::IncompatibleOrder, &[self.n, longest_by], || {
                format!("{name} was read as {list:?} and as {longest:?}")
            });
            self.elements(key, list);
            return None;
        }
        let writers = &self.versions.writers(key)[..list.len()];
        if writers.contains(&NOBODY) || writers.contains(&self.n) {
            self.elements(key, list);
        }
        if let Some(last) = list.last()
            && let Some(at) = self.numbered.find(key, *last)
        {
            let write = self.numbered.writes[at];
            if write.is_intermediate && write.by != self.n {
                self.findings.text(Class::G1b, &[self.n, write.by], || {
                    format!("read {name} up to {last}, after which its writer appended more")
                });
            }
        }
        readings.push(Reading { key, length: list.len() as u32, by: self.n, is_update: false });
        Some(readings.len() - 1)
    }

    /// Elements that should not be in a reading: refused, from nowhere, or its own from the future.
    fn elements(&mut self, key: u32, list: &[i64]) {
        let name = self.numbered.names[key as usize];
        for value in list {
            let Some(at) = self.numbered.find(key, *value) else {
                self.findings
                    .text(Class::Phantom, &[self.n], || format!("{value} under {name}, which nobody appended"));
                continue;
            };
            let by = self.numbered.writes[at].by;
            if by == self.n {
                let text = || format!("read {value} under {name} before it appended it");
                self.findings.text(Class::Internal, &[self.n], text);
            } else if is_refused(&self.operations[by as usize]) {
                let text = || format!("read {value} under {name}, which was refused");
                self.findings.text(Class::G1a, &[self.n, by], text);
            }
        }
    }
}

/// Committed transactions that read the same version and changed it.
fn lost_updates(readings: &mut [Reading], numbered: &Numbered<'_>, findings: &mut Findings) {
    let mut updates: Vec<(u32, u32, u32)> =
        readings.iter().filter(|reading| reading.is_update).map(|r| (r.key, r.length, r.by)).collect();
    updates.sort_unstable();
    for pair in updates.windows(2).filter(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        findings.text(Class::LostUpdate, &[pair[0].2, pair[1].2], || {
            let name = numbered.names[pair[0].0 as usize];
            format!("both read {name} with {} elements, and both appended to it", pair[0].1)
        });
    }
}

fn link(
    numbered: &Numbered<'_>,
    operations: Operations<'_>,
    versions: &Versions<'_>,
    readings: &[Reading],
    edges: &mut Edges,
) {
    // Of each key, all that was appended for certain, and never read.
    let mut unread: Vec<Option<Fan>> = (0..numbered.names.len()).map(|_| None).collect();
    for (key, slot) in unread.iter_mut().enumerate() {
        let writers = versions.writers(key as u32);
        let mut last = NOBODY;
        for writer in writers.iter().filter(|writer| **writer != NOBODY) {
            if last != NOBODY {
                edges.link(last, *writer, WW);
            }
            last = *writer;
        }
        let longest = versions.longest[key].0;
        let writes = numbered.writes_to(key as u32);
        if writes.len() == longest.len() {
            continue;
        }
        let seen: HashSet<i64> = longest.iter().copied().collect();
        let placed: HashSet<u32> = writers.iter().copied().collect();
        // What a transaction appended after something of it was read has its place with that.
        let is_later = |write: &&Write| {
            operations[write.by as usize].is_ok() && !seen.contains(&write.value) && !placed.contains(&write.by)
        };
        let later: Vec<u32> = writes.iter().filter(is_later).map(|write| write.by).collect();
        if !later.is_empty() {
            let fan = edges.fan(later);
            if last != NOBODY {
                edges.link_all(last, &fan, WW);
            }
            *slot = Some(fan);
        }
    }
    for reading in readings {
        let writers = versions.writers(reading.key);
        let (read, later) = writers.split_at((reading.length as usize).min(writers.len()));
        let last = read.last().copied().unwrap_or(NOBODY);
        if last != NOBODY {
            edges.link(last, reading.by, WR);
        }
        // The next version is by somebody else than the one that was read.
        match later.iter().find(|writer| **writer != NOBODY && **writer != last) {
            Some(next) => edges.link(reading.by, *next, RW),
            None => {
                if let Some(fan) = &unread[reading.key as usize] {
                    edges.link_all(reading.by, fan, RW);
                }
            }
        }
    }
}
