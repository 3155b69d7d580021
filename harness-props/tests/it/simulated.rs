//! A small store that keeps a promise exactly, and defects that break exactly one.
//!
//! Processes interleave one step at a time, drawn from a seed. Each level is kept the way the textbooks say, so that a clean
//! history must pass at its own level; a defect lives on keys and processes of its own and is woven into a clean history.

use std::collections::HashMap;

use harness_props::history::transactions::{Class, Level, ListAppend, Order, RwRegister, Step};
use harness_props::history::{End, History, HistoryError, Key, Kind};

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What happens at one point of a history.
#[derive(Debug, Clone)]
pub(crate) enum Event<K: Kind> {
    Invoke(u64, K::Call),
    End(u64, End<K::Reply>),
}

/// Makes a history of events.
pub(crate) fn history<K: Kind>(events: impl IntoIterator<Item = Event<K>>) -> Result<History<K>, HistoryError> {
    let mut history = History::new();
    for event in events {
        match event {
            Event::Invoke(process, call) => {
                history.invoke(process, call)?;
            }
            Event::End(process, end) => history.complete(process, end)?,
        }
    }
    Ok(history)
}

/// Lists or registers: how a reading is answered from the versions it may see, oldest first.
pub(crate) trait Stored: Kind<Call = Vec<Step>> {
    fn answer(readings: Vec<Vec<i64>>) -> Self::Reply;
}

impl Stored for ListAppend {
    fn answer(readings: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
        readings
    }
}

impl Stored for RwRegister {
    fn answer(readings: Vec<Vec<i64>>) -> Vec<Option<i64>> {
        readings.into_iter().map(|versions| versions.last().copied()).collect()
    }
}

/// How a simulated store is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) transactions: usize,
    pub(crate) processes: u64,
    /// Keys in use at a time; each is retired after `writes_per_key`.
    pub(crate) keys: u64,
    pub(crate) writes_per_key: u64,
    /// Steps of a transaction: 1 to this.
    pub(crate) steps: u64,
    /// In a hundred: commits that are refused, and ends that nobody learns of.
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl Load {
    /// Few keys, so that transactions meet.
    pub(crate) fn of(transactions: usize) -> Self {
        Self { transactions, processes: 8, keys: 5, writes_per_key: 24, steps: 5, refused: 4, unknown: 3 }
    }
}

/// A transaction under way.
struct Active {
    call: Vec<Step>,
    at: usize,
    /// Number of commits when it began.
    since: usize,
    readings: Vec<Vec<i64>>,
}

/// Committed versions of a key, each with the number of its commit.
type Versions = Vec<(usize, i64)>;

struct Store {
    versions: HashMap<Key, Versions>,
    commits: usize,
    /// Who writes to a key and has not ended, below snapshot isolation; nobody waits, who comes later is refused.
    locks: HashMap<Key, u64>,
}

impl Store {
    fn seen(&self, key: &Key, until: usize) -> Vec<i64> {
        let versions = self.versions.get(key).map_or(&[][..], Vec::as_slice);
        versions.iter().filter(|(commit, _)| *commit <= until).map(|(_, value)| *value).collect()
    }

    /// What a reading at this step sees: committed versions up to a commit, then the transaction's own.
    fn read(&self, call: &[Step], at: usize, until: usize) -> Vec<i64> {
        let mut seen = self.seen(call[at].key(), until);
        seen.extend(call[..at].iter().filter_map(|step| match step {
            Step::Write(key, value) if key == call[at].key() => Some(*value),
            _ => None,
        }));
        seen
    }

    fn commit(&mut self, call: &[Step]) {
        self.commits += 1;
        for step in call {
            if let Step::Write(key, value) = step {
                self.versions.entry(key.clone()).or_default().push((self.commits, *value));
            }
        }
    }

    fn is_outrun(&self, active: &Active) -> bool {
        active.call.iter().filter(|step| matches!(step, Step::Write(..))).any(|step| {
            let last = self.versions.get(step.key()).and_then(|versions| versions.last());
            last.is_some_and(|(commit, _)| *commit > active.since)
        })
    }
}

/// Events of a store that keeps `level`, and real time.
pub(crate) fn clean<K: Stored>(level: Level, load: Load, seed: u64) -> Vec<Event<K>> {
    let mut draw = Draw(seed);
    let mut store = Store { versions: HashMap::new(), commits: 0, locks: HashMap::new() };
    let mut events = Vec::with_capacity(load.transactions * 2);
    let mut active: Vec<(u64, Option<Active>)> = (0..load.processes).map(|process| (process, None)).collect();
    let (mut next_process, mut begun, mut written) = (load.processes, 0, 0_i64);
    let mut keys: Vec<(i64, u64)> = (0..load.keys as i64).map(|key| (key, 0)).collect();
    while begun < load.transactions || active.iter().any(|(_, active)| active.is_some()) {
        let slot = draw.below(load.processes) as usize;
        let (process, current) = &mut active[slot];
        let Some(mut transaction) = current.take() else {
            if begun < load.transactions {
                begun += 1;
                let steps = 1 + draw.below(load.steps);
                let call: Vec<Step> = (0..steps)
                    .map(|_| {
                        let place = draw.below(load.keys) as usize;
                        if draw.below(2) == 0 {
                            return Step::read(keys[place].0);
                        }
                        written += 1;
                        let step = Step::write(keys[place].0, written);
                        keys[place].1 += 1;
                        if keys[place].1 == load.writes_per_key {
                            let newest = keys.iter().map(|(key, _)| *key).max().unwrap_or(0);
                            keys[place] = (newest + 1, 0);
                        }
                        step
                    })
                    .collect();
                events.push(Event::Invoke(*process, call.clone()));
                *current = Some(Active { call, at: 0, since: store.commits, readings: Vec::new() });
            }
            continue;
        };
        if transaction.at < transaction.call.len() && level != Level::Serializable {
            match &transaction.call[transaction.at] {
                Step::Read(_) => {
                    let until = if level == Level::SnapshotIsolation { transaction.since } else { store.commits };
                    transaction.readings.push(store.read(&transaction.call, transaction.at, until));
                }
                Step::Write(key, _) if level == Level::ReadCommitted => {
                    if *store.locks.entry(key.clone()).or_insert(*process) != *process {
                        store.locks.retain(|_, by| by != process);
                        events.push(Event::End(*process, End::Fail));
                        continue;
                    }
                }
                Step::Write(..) => {}
            }
            transaction.at += 1;
            *current = Some(transaction);
            continue;
        }
        if level == Level::Serializable {
            // One step: everything at the commit.
            let reads = transaction.call.iter().enumerate().filter(|(_, step)| matches!(step, Step::Read(_)));
            transaction.readings = reads.map(|(at, _)| store.read(&transaction.call, at, store.commits)).collect();
        }
        store.locks.retain(|_, by| by != process);
        let lost = level == Level::SnapshotIsolation && store.is_outrun(&transaction);
        if lost || draw.below(100) < load.refused {
            events.push(Event::End(*process, End::Fail));
            continue;
        }
        let is_unknown = draw.below(100) < load.unknown;
        if !is_unknown || draw.below(2) == 0 {
            store.commit(&transaction.call);
        }
        if is_unknown {
            events.push(Event::End(*process, End::Info));
            *process = next_process;
            next_process += 1;
        } else {
            events.push(Event::End(*process, End::Ok(K::answer(transaction.readings))));
        }
    }
    events
}

/// A defect: its name, what has to be found, and under which order it is one.
pub(crate) struct Defect<K: Kind> {
    pub(crate) name: &'static str,
    pub(crate) found: &'static [Class],
    pub(crate) order: Order,
    /// Transactions by process, with their end; `None` for the reply of a refused one.
    transactions: Vec<(u64, Vec<Step>, Option<K::Reply>)>,
    /// The order of invocations (`+n`) and ends (`-n`) of transactions by number from 1; all overlap when empty.
    script: &'static [i8],
}

impl<K: Stored> Defect<K> {
    /// The defect's own events: keys and processes of its own, by a number that occurs once.
    pub(crate) fn events(&self, number: i64) -> Vec<Event<K>> {
        let all: Vec<i8> = (1..=self.transactions.len() as i8).collect();
        let overlapping = all.iter().copied().chain(all.iter().map(|n| -n));
        let script: Vec<i8> = if self.script.is_empty() { overlapping.collect() } else { self.script.to_vec() };
        let place = |key: &Key| Key::from(format!("planted {number} {key}"));
        script
            .into_iter()
            .map(|n| {
                let (process, call, reply) = &self.transactions[usize::from(n.unsigned_abs()) - 1];
                let process = 1_000_000 + number as u64 * 100 + process;
                if n < 0 {
                    return Event::End(process, reply.clone().map_or(End::Fail, End::Ok));
                }
                let own = call.iter().map(|step| match step {
                    Step::Read(key) => Step::Read(place(key)),
                    Step::Write(key, value) => Step::Write(place(key), *value),
                });
                Event::Invoke(process, own.collect())
            })
            .collect()
    }
}

fn r(key: &str) -> Step {
    Step::read(key)
}

fn w(key: &str, value: i64) -> Step {
    Step::write(key, value)
}

/// Every class that lists can show.
pub(crate) fn list_defects() -> Vec<Defect<ListAppend>> {
    use Class::*;
    type Lists = Option<Vec<Vec<i64>>>;
    let free = |name, found, transactions: Vec<(u64, Vec<Step>, Lists)>| Defect {
        name,
        found,
        order: Order::Free,
        transactions,
        script: &[],
    };
    let t = |process, steps: &[Step], lists: &[&[i64]]| {
        (process, steps.to_vec(), Some(lists.iter().map(|list| list.to_vec()).collect()))
    };
    let refused = |process, steps: &[Step]| (process, steps.to_vec(), None);
    vec![
        free(
            "G0",
            &[G0],
            vec![
                t(1, &[w("x", 1), w("y", 1)], &[]),
                t(2, &[w("x", 2), w("y", 2)], &[]),
                t(3, &[r("x"), r("y")], &[&[1, 2], &[2, 1]]),
            ],
        ),
        free("G1a", &[G1a], vec![refused(1, &[w("x", 1)]), t(2, &[r("x")], &[&[1]])]),
        free(
            "G1b",
            &[G1b],
            vec![t(1, &[w("x", 1), w("x", 2)], &[]), t(2, &[r("x")], &[&[1]]), t(3, &[r("x")], &[&[1, 2]])],
        ),
        free("G1c", &[G1c], vec![t(1, &[w("x", 1), r("y")], &[&[1]]), t(2, &[w("y", 1), r("x")], &[&[1]])]),
        free(
            "G-single",
            &[GSingle],
            vec![t(1, &[r("x"), r("y")], &[&[], &[1]]), t(2, &[w("x", 1), w("y", 1)], &[]), t(3, &[r("x")], &[&[1]])],
        ),
        free(
            "G-single, unread",
            &[GSingle],
            vec![t(1, &[r("x"), r("y")], &[&[], &[1]]), t(2, &[w("x", 1), w("y", 1)], &[])],
        ),
        free(
            "long fork",
            &[LongFork],
            vec![
                t(1, &[r("a"), r("d")], &[&[], &[1]]),
                t(2, &[w("a", 1), w("b", 1)], &[]),
                t(3, &[r("b"), r("c")], &[&[1], &[]]),
                t(4, &[w("c", 1), w("d", 1)], &[]),
            ],
        ),
        free(
            "G-nonadjacent",
            &[GNonadjacent],
            vec![
                t(1, &[r("a"), r("f")], &[&[], &[1]]),
                t(2, &[w("a", 1), w("b", 1)], &[]),
                t(3, &[r("b"), r("c")], &[&[1], &[]]),
                t(4, &[w("c", 1), w("d", 1)], &[]),
                t(5, &[r("d"), r("e")], &[&[1], &[]]),
                t(6, &[w("e", 1), w("f", 1)], &[]),
            ],
        ),
        free("G2-item", &[G2Item], vec![t(1, &[r("x"), w("y", 1)], &[&[]]), t(2, &[r("y"), w("x", 1)], &[&[]])]),
        free(
            "G2-item of three",
            &[G2Item],
            vec![
                t(1, &[r("x"), w("y", 1)], &[&[]]),
                t(2, &[r("y"), w("z", 1)], &[&[]]),
                t(3, &[r("z"), w("x", 1)], &[&[]]),
            ],
        ),
        free(
            "lost update",
            &[LostUpdate, GSingle],
            vec![t(1, &[r("x"), w("x", 1)], &[&[]]), t(2, &[r("x"), w("x", 2)], &[&[]]), t(3, &[r("x")], &[&[1, 2]])],
        ),
        free("internal", &[Internal], vec![t(1, &[w("x", 1), r("x")], &[&[]])]),
        free("internal, from the future", &[Internal], vec![t(1, &[r("x"), w("x", 1)], &[&[1]])]),
        free(
            "unrepeatable read",
            &[UnrepeatableRead],
            vec![t(1, &[r("x"), r("x")], &[&[], &[1]]), t(2, &[w("x", 1)], &[])],
        ),
        free(
            "dirty update",
            &[DirtyUpdate, G1a],
            vec![refused(1, &[w("x", 1)]), t(2, &[w("x", 2)], &[]), t(3, &[r("x")], &[&[1, 2]])],
        ),
        free("duplicate", &[Duplicate], vec![t(1, &[w("x", 1)], &[]), t(2, &[r("x")], &[&[1, 1]])]),
        free(
            "incompatible order",
            &[IncompatibleOrder],
            vec![
                t(1, &[w("x", 1)], &[]),
                t(2, &[w("x", 2)], &[]),
                t(3, &[r("x")], &[&[1, 2]]),
                t(4, &[r("x")], &[&[2, 1]]),
            ],
        ),
        free("phantom", &[Phantom], vec![t(1, &[w("x", 1)], &[]), t(2, &[r("x")], &[&[1, 7]])]),
        Defect {
            name: "G-single-session",
            found: &[GSingle],
            order: Order::Session,
            transactions: vec![t(1, &[w("x", 1)], &[]), t(1, &[r("x")], &[&[]])],
            script: &[1, -1, 2, -2],
        },
        Defect {
            name: "G-single-realtime",
            found: &[GSingle],
            order: Order::RealTime,
            transactions: vec![t(1, &[w("x", 1)], &[]), t(2, &[r("x")], &[&[]])],
            script: &[1, -1, 2, -2],
        },
        Defect {
            name: "G0-realtime",
            found: &[G0],
            order: Order::RealTime,
            transactions: vec![t(1, &[w("x", 1)], &[]), t(2, &[w("x", 2)], &[]), t(3, &[r("x")], &[&[2, 1]])],
            script: &[1, -1, 2, -2, 3, -3],
        },
        Defect {
            name: "G1c-realtime",
            found: &[G1c],
            order: Order::RealTime,
            transactions: vec![t(1, &[r("x")], &[&[1]]), t(2, &[w("x", 1)], &[])],
            script: &[1, -1, 2, -2],
        },
        Defect {
            name: "G2-item-realtime",
            found: &[G2Item],
            order: Order::RealTime,
            transactions: vec![t(1, &[r("x"), w("y", 1)], &[&[]]), t(2, &[w("x", 1)], &[]), t(3, &[r("y")], &[&[]])],
            // 3 before 1 before 2 by what was read; only time says that 2 was before 3.
            script: &[1, 2, -2, 3, -3, -1],
        },
    ]
}

/// Every class that registers can show.
pub(crate) fn register_defects() -> Vec<Defect<RwRegister>> {
    use Class::*;
    type Values = Option<Vec<Option<i64>>>;
    let free = |name, found, transactions: Vec<(u64, Vec<Step>, Values)>| Defect {
        name,
        found,
        order: Order::Free,
        transactions,
        script: &[],
    };
    // 0 stands for nothing.
    let t = |process, steps: &[Step], values: &[i64]| {
        (process, steps.to_vec(), Some(values.iter().map(|value| (*value != 0).then_some(*value)).collect()))
    };
    let refused = |process, steps: &[Step]| (process, steps.to_vec(), None);
    vec![
        free("G1a", &[G1a], vec![refused(1, &[w("x", 1)]), t(2, &[r("x")], &[1])]),
        free("G1b", &[G1b], vec![t(1, &[w("x", 1), w("x", 2)], &[]), t(2, &[r("x")], &[1])]),
        free("G1c", &[G1c], vec![t(1, &[w("x", 1), r("y")], &[1]), t(2, &[w("y", 1), r("x")], &[1])]),
        free("G-single", &[GSingle], vec![t(1, &[r("x"), r("y")], &[0, 1]), t(2, &[w("x", 1), w("y", 1)], &[])]),
        free("G2-item", &[G2Item], vec![t(1, &[r("x"), w("y", 1)], &[0]), t(2, &[r("y"), w("x", 1)], &[0])]),
        free(
            "long fork",
            &[LongFork],
            vec![
                t(1, &[r("a"), r("d")], &[0, 1]),
                t(2, &[w("a", 1), w("b", 1)], &[]),
                t(3, &[r("b"), r("c")], &[1, 0]),
                t(4, &[w("c", 1), w("d", 1)], &[]),
            ],
        ),
        free(
            "G-nonadjacent",
            &[GNonadjacent],
            vec![
                t(1, &[r("a"), r("f")], &[0, 1]),
                t(2, &[w("a", 1), w("b", 1)], &[]),
                t(3, &[r("b"), r("c")], &[1, 0]),
                t(4, &[w("c", 1), w("d", 1)], &[]),
                t(5, &[r("d"), r("e")], &[1, 0]),
                t(6, &[w("e", 1), w("f", 1)], &[]),
            ],
        ),
        free(
            "lost update",
            &[LostUpdate, G2Item],
            vec![t(1, &[r("x"), w("x", 1)], &[0]), t(2, &[r("x"), w("x", 2)], &[0])],
        ),
        free("internal", &[Internal], vec![t(1, &[w("x", 1), r("x")], &[0])]),
        free("unrepeatable read", &[UnrepeatableRead], vec![t(1, &[r("x"), r("x")], &[0, 1]), t(2, &[w("x", 1)], &[])]),
        free("dirty update", &[DirtyUpdate, G1a], vec![refused(1, &[w("x", 1)]), t(2, &[r("x"), w("x", 2)], &[1])]),
        free("phantom", &[Phantom], vec![t(1, &[r("x")], &[7])]),
        free(
            "cyclic versions",
            &[CyclicVersions, G1c],
            vec![t(1, &[r("x"), w("x", 2)], &[1]), t(2, &[r("x"), w("x", 1)], &[2])],
        ),
        Defect {
            name: "stale read in real time",
            found: &[GSingle],
            order: Order::RealTime,
            transactions: vec![t(1, &[w("x", 1)], &[]), t(2, &[w("x", 2)], &[]), t(3, &[r("x")], &[1])],
            script: &[1, -1, 2, -2, 3, -3],
        },
        Defect {
            name: "forgotten write of the session",
            found: &[GSingle],
            order: Order::Session,
            transactions: vec![t(1, &[w("x", 1)], &[]), t(1, &[r("x")], &[0])],
            script: &[1, -1, 2, -2],
        },
    ]
}

/// A clean history with one defect woven in at random places, in its own order.
pub(crate) fn planted<K: Stored>(defect: &Defect<K>, load: Load, seed: u64) -> Result<History<K>, HistoryError> {
    let mut draw = Draw(seed ^ 0x5eed);
    let base = clean::<K>(Level::Serializable, load, seed);
    let mut own = defect.events(seed as i64).into_iter().peekable();
    let (mut left, mut woven) = (base.len() as u64, Vec::with_capacity(base.len() + own.len()));
    for event in base {
        while own.peek().is_some() && draw.below(left + 1) < own.len() as u64 {
            woven.extend(own.next());
        }
        woven.push(event);
        left -= 1;
    }
    woven.extend(own);
    history(woven)
}
