//! The operations of each key, sorted out and judged where no search is needed, in as many threads as there are cores.

use std::collections::HashMap;
use std::thread::Builder;

use super::zones::{self, Clusters};
use super::{Effect, Register, Span};
use crate::history::record::{Key, KeyHash, Operation};

/// With fewer operations for each, another thread costs more than it saves.
const WORTH_A_THREAD: usize = 50_000;

/// How many threads so many operations are worth.
pub(super) fn threads(operations: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(operations / WORTH_A_THREAD).max(1)
}

/// A key and the indices of its operations, part by part of the history.
#[derive(Debug)]
pub(super) struct OfKey<'h> {
    pub(super) key: &'h Key,
    parts: Vec<Vec<usize>>,
}

/// What is known of a key before anything is searched.
#[derive(Debug)]
pub(super) struct Known {
    /// Operations that were done for certain.
    pub(super) done: usize,
    /// Readings of written values among them.
    pub(super) readings: usize,
    /// Operations that have an effect or say something.
    pub(super) spans: usize,
    /// The operations that contradict each other, if some do; nothing where a search has to tell.
    pub(super) refuted: Option<Option<Vec<usize>>>,
}

impl OfKey<'_> {
    /// Its operations, reduced to what matters.
    pub(super) fn spans(&self, operations: &[Operation<Register>], spans: &mut Vec<Span>) {
        spans.clear();
        spans.extend(self.parts.iter().flatten().filter_map(|n| Span::of(*n, &operations[*n])));
    }

    fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }
}

/// All keys, in the order in which they first appear.
pub(super) fn sorted_out(operations: &[Operation<Register>], threads: usize) -> Vec<OfKey<'_>> {
    let size = operations.len().div_ceil(threads).max(1);
    let parts: Vec<_> = operations.chunks(size).enumerate().map(|(part, chunk)| (part * size, chunk)).collect();
    let mut places: HashMap<&Key, usize, KeyHash> = HashMap::default();
    let mut keys: Vec<OfKey<'_>> = Vec::new();
    for (key, of_key) in in_threads(&parts, |(first, chunk)| part_by_key(first, chunk)).into_iter().flatten() {
        let place = *places.entry(key).or_insert_with(|| {
            keys.push(OfKey { key, parts: Vec::new() });
            keys.len() - 1
        });
        keys[place].parts.push(of_key);
    }
    keys
}

/// The keys of a part of the history, whose first operation has this index.
fn part_by_key(first: usize, operations: &[Operation<Register>]) -> Vec<(&Key, Vec<usize>)> {
    let mut places: HashMap<&Key, usize, KeyHash> = HashMap::default();
    let mut keys: Vec<(&Key, Vec<usize>)> = Vec::new();
    let mut place = 0;
    for (n, operation) in operations.iter().enumerate() {
        let key = operation.call.key();
        // Often it is the key of the operation before.
        if keys.get(place).is_none_or(|(last, _)| *last != key) {
            place = *places.entry(key).or_insert_with(|| {
                keys.push((key, Vec::new()));
                keys.len() - 1
            });
        }
        keys[place].1.push(first + n);
    }
    keys
}

/// What is known of each key, in their order.
pub(super) fn known(operations: &[Operation<Register>], keys: &[OfKey<'_>], threads: usize) -> Vec<Known> {
    let mut groups: Vec<&[OfKey<'_>]> = Vec::new();
    let (enough, mut rest) = (operations.len().div_ceil(threads), keys);
    while !rest.is_empty() {
        let mut sum = 0;
        let is_full = |of_key: &OfKey<'_>| {
            sum += of_key.len();
            sum >= enough
        };
        let (group, others) = rest.split_at(rest.iter().position(is_full).map_or(rest.len(), |last| last + 1));
        groups.push(group);
        rest = others;
    }
    let judged = in_threads(&groups, |group| {
        // One key at a time, so that what is sought lies close together.
        let mut spans = Vec::new();
        let one = |of_key: &OfKey<'_>| {
            of_key.spans(operations, &mut spans);
            Known::of(&spans)
        };
        group.iter().map(one).collect::<Vec<_>>()
    });
    judged.into_iter().flatten().collect()
}

impl Known {
    fn of(spans: &[Span]) -> Self {
        let refuted =
            |writes| zones::refute(spans, writes).map(|all| all.iter().map(|n| spans[*n].operation).collect());
        Self {
            done: spans.iter().filter(|span| span.ended != u64::MAX).count(),
            readings: spans.iter().filter(|span| matches!(span.kind, Effect::Read(Some(_)))).count(),
            spans: spans.len(),
            refuted: Clusters::of(spans).map(refuted),
        }
    }
}

/// Work on each part, in a thread of its own but for the first; also where no thread can be had. In the order of the parts.
fn in_threads<P: Copy + Send, R: Send>(parts: &[P], work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    let work = &work;
    std::thread::scope(|scope| {
        let spawn = |part: &P| {
            let part = *part;
            (part, Builder::new().spawn_scoped(scope, move || work(part)))
        };
        let begun: Vec<_> = others.iter().map(spawn).collect();
        let mut all = vec![work(*first)];
        all.extend(begun.into_iter().map(|(part, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => work(part),
        }));
        all
    })
}
