//! What is common to judging lists and registers: names become numbers, findings are collected.

use std::collections::{BTreeMap, HashMap};

use super::anomaly::{Anomaly, Class, Order};
use super::graph::{Edges, SESSION, TIME};
use super::{Step, Transactional};
use crate::history::record::{End, Key, KeyHash, Operation};

/// No transaction: an element that was refused, or that nobody wrote.
pub(super) const NOBODY: u32 = u32::MAX;

/// What was found: how often, and the first of each.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) seen: BTreeMap<Anomaly, (usize, Evidence)>,
    /// True when the budget ended before every shape was ruled out.
    pub(super) is_incomplete: bool,
}

/// What a finding rests on.
#[derive(Debug)]
pub(super) enum Evidence {
    /// Transactions by index, and a sentence.
    Text(Vec<u32>, String),
    /// A cycle: transactions, each with the kind of the edge that leaves it.
    Cycle(Vec<(u32, u8)>),
}

impl Findings {
    pub(super) fn text(&mut self, class: Class, transactions: &[u32], text: impl FnOnce() -> String) {
        let entry = self.seen.entry(class.into());
        entry
            .and_modify(|(times, _)| *times += 1)
            .or_insert_with(|| (1, Evidence::Text(transactions.to_vec(), text())));
    }

    pub(super) fn cycle(&mut self, anomaly: Anomaly, cycle: Vec<(u32, u8)>) {
        self.seen.entry(anomaly).and_modify(|(times, _)| *times += 1).or_insert_with(|| (1, Evidence::Cycle(cycle)));
    }
}

type Numbers<'h> = HashMap<&'h Key, u32, KeyHash>;

/// A write of a value under a key, by its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Write {
    pub(super) key: u32,
    pub(super) value: i64,
    pub(super) by: u32,
    /// True when the same transaction wrote to the key again later.
    pub(super) is_intermediate: bool,
}

/// A history with numbers for names.
pub(super) struct Numbered<'h> {
    /// Keys by number.
    pub(super) names: Vec<&'h Key>,
    /// The key of every step, over all operations in turn.
    pub(super) keys: Vec<u32>,
    /// Where each operation's steps begin in `keys`.
    pub(super) first: Vec<u32>,
    /// All writes, refused ones included, by key and value.
    pub(super) writes: Vec<Write>,
    /// Where each key's writes begin.
    pub(super) writes_of: Vec<u32>,
    /// Values written more than once under one key: the key's name, the value.
    pub(super) repeated: Vec<(&'h Key, i64)>,
}

impl<'h> Numbered<'h> {
    /// What numbers for so many operations with so many steps take at most, in bytes.
    pub(super) fn bytes(operations: usize, steps: usize) -> usize {
        operations * size_of::<u32>() + steps * (size_of::<u32>() + size_of::<Write>())
    }

    pub(super) fn of<K: Transactional>(operations: &'h [Operation<K>]) -> Self {
        let mut numbers = Numbers::default();
        let steps = operations.iter().map(|operation| operation.call.len()).sum();
        let mut numbered = Self {
            names: Vec::new(),
            keys: Vec::with_capacity(steps),
            first: Vec::with_capacity(operations.len() + 1),
            writes: Vec::new(),
            writes_of: Vec::new(),
            repeated: Vec::new(),
        };
        for (n, operation) in operations.iter().enumerate() {
            let first = numbered.keys.len();
            numbered.first.push(first as u32);
            for step in &operation.call {
                let names = &mut numbered.names;
                let number = *numbers.entry(step.key()).or_insert_with(|| {
                    names.push(step.key());
                    names.len() as u32 - 1
                });
                numbered.keys.push(number);
            }
            let keys = &numbered.keys[first..];
            for (at, step) in operation.call.iter().enumerate() {
                if let Step::Write(_, value) = step {
                    let is_again = |(key, step): (&u32, &Step)| *key == keys[at] && matches!(step, Step::Write(..));
                    let is_intermediate = keys.iter().zip(&operation.call).skip(at + 1).any(is_again);
                    numbered.writes.push(Write { key: keys[at], value: *value, by: n as u32, is_intermediate });
                }
            }
        }
        numbered.first.push(numbered.keys.len() as u32);
        numbered.sort();
        numbered
    }

    fn sort(&mut self) {
        self.writes.sort_unstable();
        let repeats =
            self.writes.windows(2).filter(|pair| (pair[0].key, pair[0].value) == (pair[1].key, pair[1].value));
        self.repeated = repeats.map(|pair| (self.names[pair[0].key as usize], pair[0].value)).collect();
        self.writes_of = vec![0; self.names.len() + 1];
        for write in &self.writes {
            self.writes_of[write.key as usize + 1] += 1;
        }
        for key in 0..self.names.len() {
            self.writes_of[key + 1] += self.writes_of[key];
        }
    }

    /// All writes under a key, by value.
    pub(super) fn writes_to(&self, key: u32) -> &[Write] {
        &self.writes[self.writes_of[key as usize] as usize..self.writes_of[key as usize + 1] as usize]
    }

    /// The index of a write among all.
    pub(super) fn find(&self, key: u32, value: i64) -> Option<usize> {
        let found = self.writes_to(key).binary_search_by_key(&value, |write| write.value).ok()?;
        Some(self.writes_of[key as usize] as usize + found)
    }

    /// The steps of an operation, each with its key's number.
    pub(super) fn steps<'o, K: Transactional>(
        &'o self,
        operation: &'o Operation<K>,
        n: usize,
    ) -> impl Iterator<Item = (u32, &'o Step)> + 'o {
        let keys = &self.keys[self.first[n] as usize..self.first[n + 1] as usize];
        keys.iter().copied().zip(&operation.call)
    }
}

/// True when a transaction was refused for certain.
pub(super) fn is_refused<K: Transactional>(operation: &Operation<K>) -> bool {
    matches!(operation.end, End::Fail)
}

/// Edges of the order that is asked for: each process's, and the transitive reduction of real time.
pub(super) fn link_order<K: Transactional>(operations: &[Operation<K>], order: Order, edges: &mut Edges) {
    if order >= Order::Session {
        let mut last: HashMap<u64, u32> = HashMap::new();
        for (n, operation) in operations.iter().enumerate().filter(|(_, operation)| !is_refused(*operation)) {
            if let Some(before) = last.insert(operation.process, n as u32) {
                edges.link(before, n as u32, SESSION);
            }
        }
    }
    if order < Order::RealTime {
        return;
    }
    let events = operations.iter().map(|operation| operation.invoked.order + 1).max().unwrap_or(0);
    let ends = operations.iter().filter(|operation| operation.is_ok()).map(|operation| operation.ended.order + 1).max();
    // What happens at each event: an invocation, an end, or nothing of interest.
    let mut at: Vec<(u32, bool)> = vec![(NOBODY, false); events.max(ends.unwrap_or(0)) as usize];
    for (n, operation) in operations.iter().enumerate().filter(|(_, operation)| !is_refused(*operation)) {
        at[operation.invoked.order as usize] = (n as u32, false);
        if operation.is_ok() {
            at[operation.ended.order as usize] = (n as u32, true);
        }
    }
    // What has ended, and is not before something else that has.
    let mut frontier: Vec<u32> = Vec::new();
    for (n, is_end) in at.into_iter().filter(|(n, _)| *n != NOBODY) {
        if is_end {
            let begun = operations[n as usize].invoked.order;
            frontier.retain(|before| operations[*before as usize].ended.order > begun);
            frontier.push(n);
        } else {
            for before in &frontier {
                edges.link(*before, n, TIME);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;

    use super::Numbered;
    use crate::history::transactions::{Isolation, Level, ListAppend, Order, Step};
    use crate::history::{Budget, End, History};

    /// Appends to one list, each after it was read if asked for.
    fn appends(count: i64, reads: bool) -> History<ListAppend> {
        let mut history = History::new();
        for n in 0..count {
            let read = reads.then(|| Step::read("x"));
            history.invoke(0, read.into_iter().chain([Step::append("x", n)]).collect()).unwrap();
            let seen = reads.then(|| (0..n).collect());
            history.complete(0, End::Ok(seen.into_iter().collect())).unwrap();
        }
        history
    }

    #[test]
    fn a_budget_of_what_the_numbers_take_is_enough_and_a_byte_less_is_not() {
        let writes = appends(100, false);
        let numbered = Numbered::of(writes.operations());
        let held =
            size_of_val(&numbered.keys[..]) + size_of_val(&numbered.first[..100]) + size_of_val(&numbered.writes[..]);
        assert_eq!(Numbered::bytes(100, 100), held);
        let (both, needed) = (appends(100, true), Numbered::bytes(100, 200));
        let serializable = Isolation::new(Level::Serializable, Order::Free);
        let judged = |bytes: usize| both.judge_within(serializable, &Budget::default().bytes(bytes)).dependencies;
        assert_ne!(judged(needed), [0; 3]);
        assert_eq!(judged(needed - 1), [0; 3]);
        // Begun ones do not count for the budget, and do for what is needed.
        let budget = Budget::default().bytes((3 << 20) + 12);
        let many = appends(150_000, false).judge_within(serializable, &budget);
        let said = "the budget of 3 MiB ended where 5 MiB are needed; nothing was looked at";
        assert_eq!(many.stopped.as_deref(), Some(said));
    }
}
