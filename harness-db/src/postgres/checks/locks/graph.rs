//! Who waits for whom: cycles in the graph of lock waits. Pure.
//!
//! An edge goes from a waiting session to each session of its `pg_blocking_pids`, which holds a conflicting lock or stands
//! ahead of it in the queue. A cycle is a deadlock in the making: the server resolves it by ending one of its members once
//! `deadlock_timeout` (1 s unless set) is over, or, when the cycle runs through a place in a queue only, by reordering the
//! queue (PostgreSQL source, `src/backend/storage/lmgr/README`, "Deadlock Detection").

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use harness_core::wait::seconds;
use serde::{Deserialize, Serialize};

use crate::postgres::checks::activity::one_line;

/// One session that waits for a heavyweight lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockWait {
    /// Process id of the server process.
    pub pid: i32,
    /// What the client calls itself.
    pub application: String,
    /// The statement that waits.
    pub query: String,
    /// Server processes it waits for; 0 is a prepared transaction.
    pub blocked_by: Vec<i32>,
    /// The lock it wants: `ShareLock on transactionid`, `AccessExclusiveLock on relation`, …
    pub wants: String,
    /// The table, where one is known.
    pub relation: Option<String>,
    /// The row's place in the table (`ctid`), where one is known.
    pub row: Option<String>,
    /// What the row holds, as JSON, where it could be read.
    pub row_content: Option<String>,
    /// How long it had waited when it was seen.
    pub lasted: Duration,
    /// The server's clock when the wait began; `None` for a short moment at its begin.
    pub since: Option<String>,
}

/// Sessions that wait for each other in a circle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cycle {
    /// When it was confirmed, since watching began.
    pub at: Duration,
    /// Its members: each waits for the next, the last for the first.
    pub members: Vec<LockWait>,
}

/// What makes a cycle the same one in the next sample: the same sessions in the same waits.
type Key = Vec<(i32, String)>;

/// Cycles that were seen once and may be an illusion: each `pg_blocking_pids` looks at the locks at its own moment.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    once: BTreeSet<Key>,
    told: BTreeSet<Key>,
}

impl Suspects {
    /// Cycles of this sample that stood in the one before, with the same waits, and were not told yet.
    pub(crate) fn confirm(&mut self, at: Duration, waits: &[LockWait]) -> Vec<Cycle> {
        let mut confirmed = Vec::new();
        let mut seen = BTreeSet::new();
        for members in cycles(waits) {
            let Some(key) = members.iter().map(|wait| Some((wait.pid, wait.since.clone()?))).collect::<Option<Key>>()
            else {
                continue; // a wait of which we do not know yet when it began
            };
            if self.once.contains(&key) && self.told.insert(key.clone()) {
                confirmed.push(Cycle { at, members: members.into_iter().cloned().collect() });
            }
            seen.insert(key);
        }
        self.once = seen;
        confirmed
    }
}

/// The shortest cycle through each knot of waits, each beginning with its smallest process id. A session that seems to
/// block itself (a parallel query names its leader) is no cycle.
pub(crate) fn cycles(waits: &[LockWait]) -> Vec<Vec<&LockWait>> {
    let by_pid: BTreeMap<i32, &LockWait> = waits.iter().map(|wait| (wait.pid, wait)).collect();
    let edges = knots(&by_pid);
    let (mut found, mut told) = (Vec::new(), BTreeSet::<i32>::new());
    for &start in edges.keys() {
        if told.contains(&start) {
            continue;
        }
        if let Some(path) = way_back(start, &edges).filter(|path| !path.iter().any(|pid| told.contains(pid))) {
            told.extend(&path);
            found.push(path.iter().map(|pid| by_pid[pid]).collect());
        }
    }
    found
}

/// The edges among sessions that may be in a cycle. Who waits for nobody that waits is in none, and neither is who waits
/// for these alone; they are taken away one after the other, so that a long queue costs no more than its edges.
fn knots(by_pid: &BTreeMap<i32, &LockWait>) -> BTreeMap<i32, Vec<i32>> {
    let mut edges: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut behind: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (&pid, wait) in by_pid {
        let to: Vec<i32> =
            wait.blocked_by.iter().copied().filter(|other| *other != pid && by_pid.contains_key(other)).collect();
        to.iter().for_each(|&other| behind.entry(other).or_default().push(pid));
        edges.insert(pid, to);
    }
    let mut left: BTreeMap<i32, usize> = edges.iter().map(|(&pid, to)| (pid, to.len())).collect();
    let mut free: Vec<i32> = left.iter().filter(|(_, n)| **n == 0).map(|(&pid, _)| pid).collect();
    while let Some(pid) = free.pop() {
        left.remove(&pid);
        for waiter in behind.get(&pid).into_iter().flatten() {
            if let Some(n) = left.get_mut(waiter) {
                *n -= 1;
                if *n == 0 {
                    free.push(*waiter);
                }
            }
        }
    }
    edges.retain(|pid, _| left.contains_key(pid));
    edges.values_mut().for_each(|to| to.retain(|pid| left.contains_key(pid)));
    edges
}

/// The shortest way from `start` back to itself, `start` first.
fn way_back(start: i32, edges: &BTreeMap<i32, Vec<i32>>) -> Option<Vec<i32>> {
    let mut from: BTreeMap<i32, i32> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(pid) = open.pop_front() {
        for &blocker in edges.get(&pid).into_iter().flatten() {
            if blocker == start {
                let mut path = vec![pid];
                while let Some(&before) = from.get(path.last().unwrap_or(&start)) {
                    path.push(before);
                }
                path.reverse();
                return Some(path);
            }
            if let Entry::Vacant(first) = from.entry(blocker) {
                first.insert(pid);
                open.push_back(blocker);
            }
        }
    }
    None
}

impl fmt::Display for LockWait {
    /// Two lines: who waits for what and for whom, and its statement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} of \"{}\" waits {} for {}", self.pid, self.application, seconds(self.lasted), self.wants)?;
        match (&self.relation, &self.row) {
            (Some(relation), Some(row)) => write!(f, ", row {row} of {relation}")?,
            (Some(relation), None) => write!(f, ", {relation}")?,
            _ => {}
        }
        if let Some(content) = &self.row_content {
            write!(f, " {content}")?;
        }
        let blockers: Vec<String> = self.blocked_by.iter().map(|pid| blocker(*pid)).collect();
        write!(f, ", held by {}\n    {}", blockers.join(", "), one_line(&self.query))
    }
}

fn blocker(pid: i32) -> String {
    match pid {
        0 => "a prepared transaction (pg_prepared_xacts)".to_owned(),
        pid => format!("pid {pid}"),
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions wait for each other at +{}:", self.members.len(), seconds(self.at))?;
        self.members.iter().try_for_each(|wait| write!(f, "\n  {wait}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LockWait, Suspects, cycles};

    fn waits(edges: &[(i32, &[i32])]) -> Vec<LockWait> {
        let wait = |&(pid, blocked_by): &(i32, &[i32])| LockWait {
            pid,
            blocked_by: blocked_by.to_vec(),
            application: format!("app {pid}"),
            query: format!("statement of {pid}"),
            wants: "ShareLock on transactionid".into(),
            since: Some(format!("begin of {pid}")),
            lasted: Duration::from_millis(30),
            ..LockWait::default()
        };
        edges.iter().map(wait).collect()
    }

    fn found(edges: &[(i32, &[i32])]) -> Vec<Vec<i32>> {
        let waits = waits(edges);
        cycles(&waits).iter().map(|cycle| cycle.iter().map(|wait| wait.pid).collect()).collect()
    }

    #[test]
    fn graphs_without_a_cycle_have_none() {
        let none = Vec::<Vec<i32>>::new();
        assert_eq!(found(&[]), none);
        assert_eq!(found(&[(1, &[9])]), none, "a wait for a session that works");
        assert_eq!(found(&[(1, &[2]), (2, &[3]), (3, &[9])]), none, "a chain");
        assert_eq!(found(&[(1, &[9]), (2, &[9]), (3, &[9, 1, 2])]), none, "a queue behind one holder");
        assert_eq!(found(&[(1, &[2, 3]), (2, &[4]), (3, &[4]), (4, &[9])]), none, "a diamond");
        assert_eq!(found(&[(1, &[1, 9]), (2, &[0])]), none, "itself, and a prepared transaction");
    }

    #[test]
    fn cycles_are_found_once_each_and_the_shortest_of_a_knot() {
        assert_eq!(found(&[(2, &[1]), (1, &[2])]), [[1, 2]]);
        assert_eq!(found(&[(1, &[2]), (2, &[3]), (3, &[1])]), [[1, 2, 3]]);
        assert_eq!(
            found(&[(5, &[1]), (1, &[2]), (2, &[1]), (6, &[5])]),
            [[1, 2]],
            "who waits for a cycle is not in it"
        );
        assert_eq!(found(&[(1, &[2]), (2, &[1]), (3, &[4]), (4, &[3])]), [[1, 2], [3, 4]]);
        assert_eq!(found(&[(1, &[2, 3]), (2, &[3]), (3, &[1])]), [[1, 3]]);
    }

    #[test]
    fn large_queue_behind_one_holder_is_judged_at_once() {
        let queue: Vec<Vec<i32>> = (0..300).map(|n| (1000..1000 + n).collect()).collect();
        let edges: Vec<(i32, &[i32])> = (0_i32..).zip(&queue).map(|(n, ahead)| (1000 + n, &ahead[..])).collect();
        assert!(found(&edges).is_empty());
    }

    #[test]
    fn cycle_is_told_when_it_stands_twice_with_the_same_waits_and_once_only() {
        let (at, knot) = (Duration::from_millis(20), waits(&[(1, &[2]), (2, &[1])]));
        let mut suspects = Suspects::default();
        assert!(suspects.confirm(at, &knot).is_empty(), "seen once");
        assert_eq!(suspects.confirm(at, &knot).len(), 1);
        assert!(suspects.confirm(at, &knot).is_empty(), "told already");

        let mut suspects = Suspects::default();
        let mut moved = knot.clone();
        moved[0].since = Some("a later begin".into());
        suspects.confirm(at, &knot);
        assert!(suspects.confirm(at, &moved).is_empty(), "another wait of the same session: the first was an illusion");
        assert_eq!(suspects.confirm(at, &moved).len(), 1);

        let mut unknown = knot.clone();
        unknown[1].since = None;
        let mut suspects = Suspects::default();
        assert!(suspects.confirm(at, &unknown).is_empty() && suspects.confirm(at, &unknown).is_empty());
        suspects.confirm(at, &knot);
        suspects.confirm(at, &[]);
        assert!(suspects.confirm(at, &knot).is_empty(), "not twice in a row");
    }

    #[test]
    fn cycle_prints_every_party_with_statement_and_row() {
        let mut knot = waits(&[(1, &[2]), (2, &[1])]);
        knot[0].relation = Some("accounts".into());
        knot[0].row = Some("(0,2)".into());
        knot[0].row_content = Some("{\"id\":2}".into());
        let mut suspects = Suspects::default();
        suspects.confirm(Duration::ZERO, &knot);
        let cycle = suspects.confirm(Duration::from_millis(20), &knot).remove(0);
        assert_eq!(
            cycle.to_string(),
            "2 sessions wait for each other at +20 ms:\n  \
             pid 1 of \"app 1\" waits 30 ms for ShareLock on transactionid, row (0,2) of accounts {\"id\":2}, held by pid 2\n    \
             statement of 1\n  \
             pid 2 of \"app 2\" waits 30 ms for ShareLock on transactionid, held by pid 1\n    \
             statement of 2"
        );
    }
}
