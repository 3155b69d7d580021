//! The ledger judge: acknowledged ⊆ recovered ⊆ attempted, each at most once, each intact.
//!
//! A write whose answer never came may or may not have happened: both are right. A write that was acknowledged must
//! be there; a record nobody attempted must not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// How many ids of one kind a witness lists before it only counts.
const SHOWN: usize = 5;

/// A 64-bit FNV-1a checksum, printed as 16 hexadecimal digits: damage detection, not security.
#[must_use]
pub fn checksum(payload: &str) -> String {
    let hash = payload
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    checksum: String,
    acknowledged: bool,
    refused: bool,
}

/// What was attempted and what was acknowledged, by id.
///
/// Ids must be unique: a second attempt under the same id is a retry of the same write and must carry the same
/// payload, otherwise the ledger itself is inconsistent and judges as a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: BTreeMap<String, Entry>,
    inconsistent: Vec<String>,
}

/// One record as the system returns it after recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The record's id.
    pub id: String,
    /// [`checksum`] of the payload that came back.
    pub checksum: String,
}

impl Recovered {
    /// A record as read back, its checksum computed here from the payload itself.
    #[must_use]
    pub fn intact(id: impl Into<String>, payload: &str) -> Self {
        Self { id: id.into(), checksum: checksum(payload) }
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a write is about to be sent. Call it before the request leaves.
    pub fn attempt(&mut self, id: impl Into<String>, payload: &str) {
        let (id, sum) = (id.into(), checksum(payload));
        match self.entries.get(&id) {
            Some(known) if known.checksum != sum => self.inconsistent.push(id),
            Some(_) => {}
            None => {
                self.entries.insert(id, Entry { checksum: sum, acknowledged: false, refused: false });
            }
        }
    }

    /// Notes that the system confirmed the write. Call it after the answer arrived.
    pub fn acknowledge(&mut self, id: &str) {
        match self.entries.get_mut(id) {
            Some(entry) => entry.acknowledged = true,
            None => self.inconsistent.push(id.to_owned()),
        }
    }

    /// Notes that the system refused the write with certainty. A time-out is *not* a refusal: it proves nothing.
    pub fn refuse(&mut self, id: &str) {
        match self.entries.get_mut(id) {
            Some(entry) => entry.refused = true,
            None => self.inconsistent.push(id.to_owned()),
        }
    }

    /// How many writes were attempted.
    #[must_use]
    pub fn attempted(&self) -> usize {
        self.entries.len()
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.entries.values().filter(|entry| entry.acknowledged).count()
    }

    /// Compares with what the system returns now.
    #[must_use]
    pub fn judge(&self, recovered: &[Recovered]) -> LedgerVerdict {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut verdict = LedgerVerdict {
            attempted: self.attempted(),
            acknowledged: self.acknowledged(),
            recovered: recovered.len(),
            inconsistent: self.inconsistent.clone(),
            ..LedgerVerdict::default()
        };
        for record in recovered {
            let times = seen.entry(&record.id).or_default();
            *times += 1;
            if *times == 2 {
                verdict.duplicated.push(record.id.clone());
            }
            match self.entries.get(&record.id) {
                None if *times == 1 => verdict.unknown.push(record.id.clone()),
                Some(entry) if entry.checksum != record.checksum => verdict.corrupted.push(record.id.clone()),
                Some(entry) if entry.refused && !entry.acknowledged && *times == 1 => {
                    verdict.refused_yet_there.push(record.id.clone());
                }
                _ => {}
            }
        }
        for (id, entry) in &self.entries {
            if entry.acknowledged && !seen.contains_key(id.as_str()) {
                verdict.lost.push(id.clone());
            }
        }
        verdict
    }
}

/// What the ledger judge found. Every list is sorted by first appearance and complete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerdict {
    /// Writes attempted.
    pub attempted: usize,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Records returned, duplicates counted.
    pub recovered: usize,
    /// Acknowledged and gone.
    pub lost: Vec<String>,
    /// Returned more than once.
    pub duplicated: Vec<String>,
    /// Returned though nobody attempted them.
    pub unknown: Vec<String>,
    /// Returned with another payload than was written.
    pub corrupted: Vec<String>,
    /// Refused with certainty and returned all the same.
    pub refused_yet_there: Vec<String>,
    /// Misuse of the ledger: an id with two payloads, an answer to a write never attempted.
    pub inconsistent: Vec<String>,
}

impl LedgerVerdict {
    /// Pass with coverage, Fail with the ids, or NoEvidence when nothing was ever acknowledged.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut witness = String::new();
        for (what, ids) in [
            ("lost", &self.lost),
            ("corrupted", &self.corrupted),
            ("duplicated", &self.duplicated),
            ("unknown", &self.unknown),
            ("refused yet there", &self.refused_yet_there),
            ("ledger inconsistent at", &self.inconsistent),
        ] {
            if ids.is_empty() {
                continue;
            }
            if !witness.is_empty() {
                witness.push_str("; ");
            }
            let shown = ids.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = ids.len().saturating_sub(SHOWN);
            let _ = write!(witness, "{} {what}: {shown}", ids.len());
            if more > 0 {
                let _ = write!(witness, " … and {more} more");
            }
        }
        if !witness.is_empty() {
            return Outcome::fail(witness);
        }
        if self.acknowledged == 0 {
            return Outcome::no_evidence("no write was ever acknowledged, so none could be lost");
        }
        Outcome::pass(format!(
            "{} attempted, {} acknowledged, {} recovered, none lost, duplicated, unknown or corrupted",
            self.attempted, self.acknowledged, self.recovered
        ))
    }

    /// True when data was lost or damaged, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_data_loss(&self) -> bool {
        !self.lost.is_empty() || !self.corrupted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, Recovered};

    fn three() -> Ledger {
        let mut ledger = Ledger::new();
        for id in ["a", "b", "c"] {
            ledger.attempt(id, id);
        }
        ledger.acknowledge("a");
        ledger.acknowledge("b");
        ledger
    }

    fn back(ids: &[&str]) -> Vec<Recovered> {
        ids.iter().map(|id| Recovered::intact(*id, id)).collect()
    }

    #[test]
    fn accepts_unanswered_writes_either_way() {
        assert!(three().judge(&back(&["a", "b"])).outcome().is_pass());
        assert!(three().judge(&back(&["a", "b", "c"])).outcome().is_pass());
    }

    #[test]
    fn names_each_defect_and_only_it() {
        let lost = three().judge(&back(&["a"]));
        assert_eq!((lost.lost, lost.duplicated.len(), lost.unknown.len()), (vec!["b".to_owned()], 0, 0));
        let twice = three().judge(&back(&["a", "b", "b", "b"]));
        assert_eq!((twice.duplicated, twice.lost.len()), (vec!["b".to_owned()], 0));
        let alien = three().judge(&back(&["a", "b", "x", "x"]));
        assert_eq!(alien.unknown, ["x"]);
        let mut damaged = back(&["a", "b"]);
        damaged[1].checksum = "0".into();
        let damaged = three().judge(&damaged);
        assert_eq!(damaged.corrupted, ["b"]);
        assert!(damaged.is_data_loss() && damaged.outcome().is_fail());
    }

    #[test]
    fn refused_write_that_shows_up_is_reported() {
        let mut ledger = three();
        ledger.refuse("c");
        assert_eq!(ledger.judge(&back(&["a", "b", "c"])).refused_yet_there, ["c"]);
        assert!(ledger.judge(&back(&["a", "b"])).outcome().is_pass());
    }

    #[test]
    fn nothing_acknowledged_is_no_evidence() {
        let mut ledger = Ledger::new();
        ledger.attempt("a", "a");
        assert!(ledger.judge(&back(&["a"])).outcome().is_no_evidence());
        assert!(Ledger::new().judge(&[]).outcome().is_no_evidence());
    }

    #[test]
    fn misuse_of_the_ledger_is_not_a_pass() {
        let mut ledger = three();
        ledger.attempt("a", "other payload");
        ledger.acknowledge("never attempted");
        assert_eq!(ledger.judge(&back(&["a", "b"])).inconsistent, ["a", "never attempted"]);
    }

    #[test]
    fn witness_lists_five_and_counts_the_rest() {
        let mut ledger = Ledger::new();
        for n in 0..9 {
            ledger.attempt(format!("r{n}"), "p");
            ledger.acknowledge(&format!("r{n}"));
        }
        assert_eq!(ledger.judge(&[]).outcome().detail(), "9 lost: r0, r1, r2, r3, r4 … and 4 more");
    }
}
