//! The judge of audit chains: nothing was altered, removed, inserted or moved, and nothing is missing at the end.
//!
//! Every entry holds the hash of the one before it, and a hash over that and its own content (Haber and Stornetta, *How to
//! Time-Stamp a Digital Document*, 1991). The system under test defines the hash; it is handed in. A chain alone cannot show
//! that its end was cut off, or that all of it was written anew: for that its length and last hash are pinned elsewhere.
//!
//! ```
//! use harness_props::history::audit::{Entry, Pin, verify};
//! use harness_props::history::checksum;
//!
//! // A real log uses SHA-256.
//! let hash = |previous: &str, content: &str| checksum(&format!("{previous}\n{content}"));
//! let mut entries: Vec<Entry> = Vec::new();
//! for content in ["login alice", "grant bob", "logout alice"] {
//!     entries.push(Entry::after(entries.last(), content, hash));
//! }
//! let pin = Pin::of(&entries);
//! assert!(verify(&entries, hash, Some(&pin)).outcome().is_pass());
//! assert!(verify(&entries, hash, None).outcome().is_no_evidence());
//!
//! entries[1].content = "grant mallory".to_owned();
//! assert_eq!(verify(&entries, hash, Some(&pin)).outcome().detail(), "1 tampered: entry 1 was altered");
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

/// An entry of an audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The hash of the entry before it; empty for the first one.
    pub previous: String,
    /// What is logged, in the form in which it is hashed.
    pub content: String,
    /// The hash over `previous` and `content`.
    pub hash: String,
}

impl Entry {
    /// The entry that follows another, with its hash.
    pub fn after(before: Option<&Self>, content: &str, hash: impl Fn(&str, &str) -> String) -> Self {
        let previous = before.map(|before| before.hash.clone()).unwrap_or_default();
        let hash = hash(&previous, content);
        Self { previous, content: content.to_owned(), hash }
    }
}

/// How long a chain was and what its last hash was, kept where the system under test cannot write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Entries at the time.
    pub count: usize,
    /// The hash of the last one.
    pub head: String,
}

impl Pin {
    /// The pin of a chain as it is now.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        Self { count: entries.len(), head: entries.last().map(|entry| entry.hash.clone()).unwrap_or_default() }
    }
}

/// What was done to a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tampering {
    /// This entry does not have the hash of its content.
    Altered(usize),
    /// What stood before this entry is not in the chain any more.
    RemovedBefore(usize),
    /// This entry follows one that stands elsewhere: it, or what stands before it, was moved or inserted.
    Moved(usize),
    /// So many entries are missing at the end.
    Truncated(usize),
    /// The chain is sound and long enough, but it is not the one that was pinned.
    Rewritten,
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Altered(at) => write!(f, "entry {at} was altered"),
            Self::RemovedBefore(at) => write!(f, "something was removed before entry {at}"),
            Self::Moved(at) => write!(f, "entry {at} follows one that stands elsewhere"),
            Self::Truncated(missing) => write!(f, "{missing} entries are missing at the end"),
            Self::Rewritten => f.write_str("the chain is not the one that was pinned"),
        }
    }
}

/// What the judge of audit chains found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditVerdict {
    /// Entries.
    pub entries: usize,
    /// True when a pin was given.
    pub is_pinned: bool,
    /// What was done to it, from the first entry on.
    pub tampered: Vec<Tampering>,
}

/// Verifies a chain by the hash that the system under test defines, and against a pin of this or an earlier state of it.
pub fn verify(entries: &[Entry], hash: impl Fn(&str, &str) -> String, pin: Option<&Pin>) -> AuditVerdict {
    let mut tampered = Vec::new();
    let places: HashMap<&str, usize> = entries.iter().enumerate().map(|(n, entry)| (entry.hash.as_str(), n)).collect();
    let mut before = "";
    for (n, entry) in entries.iter().enumerate() {
        if entry.previous != before {
            tampered.push(match places.contains_key(entry.previous.as_str()) || entry.previous.is_empty() {
                true => Tampering::Moved(n),
                false => Tampering::RemovedBefore(n),
            });
        }
        if hash(&entry.previous, &entry.content) != entry.hash {
            tampered.push(Tampering::Altered(n));
        }
        before = &entry.hash;
    }
    if let Some(pin) = pin {
        let head = pin.count.checked_sub(1).map(|last| entries.get(last).map(|entry| entry.hash.as_str()));
        match head {
            Some(None) => tampered.push(Tampering::Truncated(pin.count - entries.len())),
            Some(Some(head)) if head != pin.head && tampered.is_empty() => tampered.push(Tampering::Rewritten),
            _ => {}
        }
    }
    AuditVerdict { entries: entries.len(), is_pinned: pin.is_some_and(|pin| pin.count > 0), tampered }
}

impl AuditVerdict {
    /// Pass with coverage, Fail with the places, or NoEvidence for a chain that is empty or not pinned.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let missing = match (self.entries, self.is_pinned) {
            (0, _) => Some("the chain is empty"),
            (_, false) => Some("the chain is not pinned: its end may be cut off, or all of it may be new"),
            _ => None,
        };
        conclude([list("tampered", &self.tampered)], missing, || {
            format!("{} entries, chained and pinned", self.entries)
        })
    }
}

/// What is wrong with a log that has to hold every action, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Completeness {
    /// Actions that were taken.
    pub actions: usize,
    /// Actions that are not in the log, or not as often as they were taken.
    pub missing: Vec<String>,
    /// Entries of actions that nobody took, or not so often.
    pub invented: Vec<String>,
    /// Entries behind one that was taken after them.
    pub out_of_order: Vec<String>,
}

/// Compares the actions that were taken, in their order, with the log's entries, in theirs; both as one text for each.
pub fn complete(actions: &[impl AsRef<str>], log: &[impl AsRef<str>]) -> Completeness {
    let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (place, action) in actions.iter().enumerate() {
        places.entry(action.as_ref()).or_default().push_back(place);
    }
    let mut verdict = Completeness { actions: actions.len(), ..Completeness::default() };
    let mut latest = 0;
    for entry in log.iter().map(AsRef::as_ref) {
        match places.get_mut(entry).and_then(VecDeque::pop_front) {
            None => verdict.invented.push(entry.to_owned()),
            Some(place) if place < latest => verdict.out_of_order.push(entry.to_owned()),
            Some(place) => latest = place,
        }
    }
    let mut missing: Vec<(usize, &str)> =
        places.iter().flat_map(|(action, left)| left.iter().map(move |place| (*place, *action))).collect();
    missing.sort_unstable();
    verdict.missing = missing.into_iter().map(|(_, action)| action.to_owned()).collect();
    verdict
}

impl Completeness {
    /// Pass with coverage, Fail with the actions, or NoEvidence when no action was taken.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = [
            list("missing", &self.missing),
            list("invented", &self.invented),
            list("out of order", &self.out_of_order),
        ];
        let missing = (self.actions == 0).then_some("no action was taken, so none could be missing");
        conclude(found, missing, || format!("{} actions, each in the log once and in order", self.actions))
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Pin, Tampering, complete, verify};
    use crate::history::checksum;

    fn hash(previous: &str, content: &str) -> String {
        checksum(&format!("{previous}\n{content}"))
    }

    fn chain(contents: &[&str]) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        for content in contents {
            entries.push(Entry::after(entries.last(), content, hash));
        }
        entries
    }

    #[test]
    fn each_tampering_is_located() {
        let good = chain(&["a", "b", "c", "d", "e"]);
        let pin = Pin::of(&good);
        let after = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = good.clone();
            change(&mut entries);
            verify(&entries, hash, Some(&pin)).tampered
        };
        assert_eq!(after(&|_| {}), []);
        assert_eq!(after(&|entries| entries[2].content = "x".into()), [Tampering::Altered(2)]);
        assert_eq!(after(&|entries| drop(entries.remove(2))), [Tampering::RemovedBefore(2), Tampering::Truncated(1)]);
        assert_eq!(after(&|entries| drop(entries.remove(0))), [Tampering::RemovedBefore(0), Tampering::Truncated(1)]);
        assert_eq!(after(&|entries| entries.truncate(3)), [Tampering::Truncated(2)]);
        assert_eq!(after(&|entries| entries.clear()), [Tampering::Truncated(5)]);
        assert!(after(&|entries| entries.swap(1, 2)).contains(&Tampering::Moved(1)));
        let inserted = Entry::after(Some(&good[1]), "x", hash);
        assert_eq!(after(&|entries| entries.insert(2, inserted.clone())), [Tampering::Moved(3)]);
        assert_eq!(after(&|entries| *entries = chain(&["a", "b", "c", "d", "x"])), [Tampering::Rewritten]);
        // Altered, and hashed anew from there on: only the pin shows it.
        assert_eq!(after(&|entries| *entries = chain(&["a", "x", "c", "d", "e"])), [Tampering::Rewritten]);
    }

    #[test]
    fn log_that_lacks_invents_or_swaps_an_action_is_told_apart() {
        let actions = ["login", "create 1", "create 2", "login", "delete 1"];
        let with = |change: &dyn Fn(&mut Vec<&str>)| {
            let mut log = actions.to_vec();
            change(&mut log);
            complete(&actions, &log).outcome().to_string()
        };
        assert_eq!(with(&|_| {}), "pass: 5 actions, each in the log once and in order");
        assert_eq!(with(&|log| log.retain(|action| *action != "create 2")), "fail: 1 missing: create 2");
        assert_eq!(with(&|log| drop(log.drain(3..4))), "fail: 1 missing: login");
        assert_eq!(with(&|log| log.truncate(4)), "fail: 1 missing: delete 1");
        assert_eq!(with(&|log| log.push("delete 2")), "fail: 1 invented: delete 2");
        assert_eq!(with(&|log| log.insert(2, "create 1")), "fail: 1 invented: create 1");
        assert_eq!(with(&|log| log.swap(1, 2)), "fail: 1 out of order: create 1");
        assert!(complete(&[""; 0], &["login"]).outcome().is_fail());
        assert!(complete(&[""; 0], &[""; 0]).outcome().is_no_evidence());
    }

    #[test]
    fn a_chain_may_grow_beyond_its_pin_and_proves_nothing_without_one() {
        let pin = Pin::of(&chain(&["a", "b"]));
        assert!(verify(&chain(&["a", "b", "c"]), hash, Some(&pin)).outcome().is_pass());
        assert!(verify(&chain(&["a", "x", "c"]), hash, Some(&pin)).outcome().is_fail());
        assert!(verify(&chain(&["a"]), hash, None).outcome().is_no_evidence());
        assert!(verify(&[], hash, Some(&Pin::of(&[]))).outcome().is_no_evidence());
        assert!(verify(&chain(&["a"]), hash, Some(&Pin::of(&[]))).outcome().is_no_evidence());
    }
}
