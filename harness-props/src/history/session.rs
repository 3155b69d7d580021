//! The four session guarantees: does each client see at least what it must?
//!
//! Terry et al., *Session Guarantees for Weakly Consistent Replicated Data* (1994), judged per key, for what each process of a
//! register history did. Which version is newer is either in the values themselves, as with version numbers, or in an order
//! that the store tells, such as its log. A process that goes on after an unknown end is a new session.
//!
//! ```
//! use harness_props::history::register::{Call, Register, Reply};
//! use harness_props::history::session::{Guarantee, VersionOrder};
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Register>::new();
//! history.call(0, Call::write("x", 1), End::Ok(Reply::Done))?;
//! history.call(0, Call::read("x"), End::Ok(Reply::Value(None)))?;
//! let verdict = history.judge_sessions(&VersionOrder::ByValue);
//! assert!(verdict.outcome(Guarantee::ReadYourWrites).is_fail());
//! assert!(verdict.outcome(Guarantee::MonotonicReads).is_no_evidence());
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::{End, History, Key};
use super::register::{Call, Register, Reply};
use super::witness::{conclude, list};
use crate::Outcome;

/// What a session is promised, each per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// A reading shows the session's own last write, or something newer.
    ReadYourWrites,
    /// A reading shows nothing older than an earlier reading of the session.
    MonotonicReads,
    /// Writes of a session take effect in its order.
    MonotonicWrites,
    /// A write is newer than what its session had read before.
    WritesFollowReads,
}

impl Guarantee {
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::ReadYourWrites, Self::MonotonicReads, Self::MonotonicWrites, Self::WritesFollowReads];

    fn words(self) -> &'static str {
        match self {
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::MonotonicWrites => "monotonic writes",
            Self::WritesFollowReads => "writes follow reads",
        }
    }
}

/// Where it is known from which version is newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionOrder {
    /// A greater value is newer: values are version numbers.
    ByValue,
    /// The store tells: values by key, oldest first. A value that is not in it was never in effect.
    Told(BTreeMap<Key, Vec<i64>>),
}

/// A pair of operations of one session that breaks a guarantee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Breach {
    /// What is broken.
    pub guarantee: Guarantee,
    /// The session.
    pub process: u64,
    /// The key.
    pub key: Key,
    /// The version it knew.
    pub known: Option<i64>,
    /// The older version that came after.
    pub then: Option<i64>,
    /// Number of the event that began the second operation.
    pub event: u64,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: Option<i64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        let (known, then) = (show(self.known), show(self.then));
        write!(f, "process {} at {}: {known}, then {then} (#{})", self.process, self.key, self.event)
    }
}

/// What the judge of sessions found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionsVerdict {
    /// Every pair of operations that breaks a guarantee.
    pub breaches: Vec<Breach>,
    /// How many operations could have broken each guarantee.
    pub judged: BTreeMap<Guarantee, usize>,
    /// Values read that the told order lacks.
    pub unplaced: Vec<(Key, i64)>,
}

/// What a session knows of a key: value and rank of what it last read and wrote.
#[derive(Default, Clone, Copy)]
struct Known {
    read: Option<Version>,
    written: Option<Version>,
}

/// A value with its place in the order; the initial version has neither.
#[derive(Clone, Copy)]
struct Version {
    value: Option<i64>,
    rank: Option<i64>,
}

impl History<Register> {
    /// Judges the session guarantees.
    #[must_use]
    pub fn judge_sessions(&self, order: &VersionOrder) -> SessionsVerdict {
        let mut ranks: HashMap<(&Key, i64), i64> = HashMap::new();
        if let VersionOrder::Told(keys) = order {
            for (key, values) in keys {
                ranks.extend(values.iter().enumerate().map(|(rank, value)| ((key, *value), rank as i64)));
            }
        }
        let place = |key: &Key, value: Option<i64>| match (order, value) {
            (_, None) => Some(Version { value, rank: None }),
            (VersionOrder::ByValue, Some(number)) => Some(Version { value, rank: Some(number) }),
            (VersionOrder::Told(_), Some(number)) => {
                ranks.get(&(key, number)).map(|rank| Version { value, rank: Some(*rank) })
            }
        };
        let mut sessions: HashMap<(u64, &Key), Known> = HashMap::new();
        let mut verdict = SessionsVerdict::default();
        for operation in self.operations() {
            let key = operation.call.key();
            let (read, written) = match (&operation.call, &operation.end) {
                (Call::Read(_), End::Ok(Reply::Value(value))) => (Some(*value), None),
                (Call::Write(_, value), End::Ok(_)) => (None, Some(*value)),
                (Call::CompareAndSet(_, old, new), End::Ok(_)) => (Some(Some(*old)), Some(*new)),
                _ => continue,
            };
            let known = sessions.entry((operation.process, key)).or_default();
            let mut check = |guarantee, before: Option<Version>, now: Version| {
                let Some(before) = before else { return };
                *verdict.judged.entry(guarantee).or_default() += 1;
                if now.rank < before.rank {
                    let (process, event) = (operation.process, operation.invoked.order);
                    let (known, then) = (before.value, now.value);
                    verdict.breaches.push(Breach { guarantee, process, key: key.clone(), known, then, event });
                }
            };
            if let Some(value) = read {
                match place(key, value) {
                    Some(now) => {
                        check(Guarantee::ReadYourWrites, known.written, now);
                        check(Guarantee::MonotonicReads, known.read, now);
                        known.read = Some(now);
                    }
                    None => verdict.unplaced.extend(value.map(|value| (key.clone(), value))),
                }
            }
            // A write that never took effect is lost, which is for others to say.
            if let Some(now) = written.and_then(|value| place(key, Some(value))) {
                check(Guarantee::MonotonicWrites, known.written, now);
                check(Guarantee::WritesFollowReads, known.read, now);
                known.written = Some(now);
            }
        }
        verdict
    }
}

impl SessionsVerdict {
    /// One guarantee: Pass with coverage, Fail with the breaches, or NoEvidence when nothing could have broken it.
    #[must_use]
    pub fn outcome(&self, guarantee: Guarantee) -> Outcome {
        let breaches: Vec<&Breach> = self.breaches.iter().filter(|breach| breach.guarantee == guarantee).collect();
        let unplaced: Vec<String> = self.unplaced.iter().map(|(key, value)| format!("{value} at {key}")).collect();
        let judged = self.judged.get(&guarantee).copied().unwrap_or(0);
        let words = guarantee.words();
        let missing = (judged == 0).then(|| format!("no operation could have broken {words}"));
        let found = [list(&format!("break {words}"), &breaches), list("read and not in the order", &unplaced)];
        conclude(found, missing.as_deref(), || format!("{words}: {judged} operations judged"))
    }

    /// The worst of all four.
    #[must_use]
    pub fn all(&self) -> Outcome {
        Outcome::worst(Guarantee::ALL.map(|guarantee| self.outcome(guarantee)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Guarantee, VersionOrder};
    use crate::history::register::{Call, Register, Reply};
    use crate::history::{End, History};

    /// Positive numbers write, negative ones read, zero reads nothing: all of one session.
    fn broken(steps: &[i64], order: &VersionOrder) -> Vec<Guarantee> {
        let mut history = History::<Register>::new();
        for step in steps {
            let (call, reply) = match step {
                0 => (Call::read("x"), Reply::Value(None)),
                step if *step < 0 => (Call::read("x"), Reply::Value(Some(-step))),
                step => (Call::write("x", *step), Reply::Done),
            };
            history.call(7, call, End::Ok(reply)).unwrap();
        }
        history.judge_sessions(order).breaches.iter().map(|breach| breach.guarantee).collect()
    }

    #[test]
    fn each_breach_is_named_and_no_other() {
        use Guarantee::{MonotonicReads, MonotonicWrites, ReadYourWrites, WritesFollowReads};
        let by_value = VersionOrder::ByValue;
        assert_eq!(broken(&[1, -1, -4, 5, -5, 6], &by_value), []);
        assert_eq!(broken(&[2, -1], &by_value), [ReadYourWrites]);
        assert_eq!(broken(&[2, 0], &by_value), [ReadYourWrites]);
        assert_eq!(broken(&[-2, -1], &by_value), [MonotonicReads]);
        assert_eq!(broken(&[-2, 0], &by_value), [MonotonicReads]);
        assert_eq!(broken(&[2, 1], &by_value), [MonotonicWrites]);
        assert_eq!(broken(&[-2, 1], &by_value), [WritesFollowReads]);
        let told = VersionOrder::Told(BTreeMap::from([("x".into(), vec![9, 2, 5])]));
        assert_eq!(broken(&[9, -2, 5], &told), []);
        assert_eq!(broken(&[2, 9], &told), [MonotonicWrites]);
    }

    #[test]
    fn sessions_do_not_answer_for_one_another() {
        let mut history = History::<Register>::new();
        history.call(0, Call::write("x", 2), End::Ok(Reply::Done)).unwrap();
        history.call(1, Call::read("x"), End::Ok(Reply::Value(None))).unwrap();
        history.call(0, Call::write("x", 3), End::Info).unwrap();
        assert!(history.judge_sessions(&VersionOrder::ByValue).all().is_no_evidence());
    }

    #[test]
    fn a_value_outside_the_told_order_is_no_pass() {
        let mut history = History::<Register>::new();
        history.call(0, Call::read("x"), End::Ok(Reply::Value(Some(4)))).unwrap();
        let verdict = history.judge_sessions(&VersionOrder::Told(BTreeMap::new()));
        assert!(verdict.outcome(Guarantee::MonotonicReads).is_fail());
    }
}
