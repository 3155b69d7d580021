//! The ledger judge: acknowledged ⊆ recovered ⊆ attempted, as often as promised, each intact.
//!
//! A write whose answer never came may or may not have happened: both are right. A write that was acknowledged must
//! be there; a record nobody attempted must not. [`LedgerRules`] say what else was promised: how often, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::{DataVerdict, Outcome};

/// A 64-bit FNV-1a checksum, printed as 16 hexadecimal digits: damage detection, not security.
#[must_use]
pub fn checksum(payload: &str) -> String {
    let hash = payload
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// How often what was acknowledged may come out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Never lost; repeated at times.
    AtLeastOnce,
    /// Never repeated; lost at times.
    AtMostOnce,
    /// Neither lost nor repeated.
    #[default]
    ExactlyOnce,
}

impl Delivery {
    /// As words: `exactly once`.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at least once",
            Self::AtMostOnce => "at most once",
            Self::ExactlyOnce => "exactly once",
        }
    }
}

/// What a ledger was promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRules {
    /// How often: exactly once, unless said otherwise.
    pub delivery: Delivery,
    /// Whether records come back in the order of their writing; where two writes overlapped, either is right.
    pub is_ordered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    checksum: String,
    refused: bool,
    /// Number of the note that it was about to be sent.
    attempted: u64,
    /// Number of the note that it was confirmed.
    acknowledged: Option<u64>,
}

/// What was attempted and what was acknowledged, by id.
///
/// Ids must be unique: a second attempt under the same id is a retry of the same write and must carry the same
/// payload, otherwise the ledger itself is inconsistent and judges as a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    entries: BTreeMap<String, Entry>,
    inconsistent: Vec<String>,
    notes: u64,
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
        let (id, checksum, attempted) = (id.into(), checksum(payload), self.note());
        match self.entries.get(&id) {
            Some(known) if known.checksum != checksum => self.inconsistent.push(id),
            Some(_) => {}
            None => {
                self.entries.insert(id, Entry { checksum, refused: false, attempted, acknowledged: None });
            }
        }
    }

    /// Notes that the system confirmed the write. Call it after the answer arrived.
    pub fn acknowledge(&mut self, id: &str) {
        let note = self.note();
        match self.entries.get_mut(id) {
            Some(entry) => entry.acknowledged = entry.acknowledged.or(Some(note)),
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

    fn note(&mut self) -> u64 {
        self.notes += 1;
        self.notes
    }

    /// How many writes were attempted.
    #[must_use]
    pub fn attempted(&self) -> usize {
        self.entries.len()
    }

    /// How many writes were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.entries.values().filter(|entry| entry.acknowledged.is_some()).count()
    }

    /// Compares with what the system returns now: exactly once, in any order.
    #[must_use]
    pub fn judge(&self, recovered: &[Recovered]) -> LedgerVerdict {
        self.judge_by(&LedgerRules::default(), &[recovered])
    }

    /// Compares with what the system returned in several readings, all begun after the last acknowledgement, by these rules.
    /// The last reading decides; what an earlier one lacked and the last one has was stale.
    #[must_use]
    pub fn judge_by(&self, rules: &LedgerRules, readings: &[&[Recovered]]) -> LedgerVerdict {
        let (last, earlier) = readings.split_last().map_or((&[][..], &[][..]), |(last, earlier)| (*last, earlier));
        let mut verdict = self.compare(last);
        verdict.rules = *rules;
        let ids = |reading: &[Recovered]| reading.iter().map(|record| record.id.clone()).collect::<BTreeSet<_>>();
        let shown = ids(last);
        let earlier: Vec<BTreeSet<String>> = earlier.iter().map(|reading| ids(reading)).collect();
        let acknowledged = self.entries.iter().filter(|(_, entry)| entry.acknowledged.is_some()).map(|(id, _)| id);
        verdict.stale = acknowledged
            .filter(|id| shown.contains(*id) && earlier.iter().any(|reading| !reading.contains(*id)))
            .cloned()
            .collect();
        if rules.is_ordered {
            verdict.overtaken = self.overtaken(last);
        }
        verdict
    }

    /// Records that stand behind one that was attempted only after they had been acknowledged.
    fn overtaken(&self, recovered: &[Recovered]) -> Vec<String> {
        let mut latest = 0;
        let mut found = Vec::new();
        for entry in recovered.iter().filter_map(|record| Some((&record.id, self.entries.get(&record.id)?))) {
            let (id, entry) = entry;
            if entry.acknowledged.is_some_and(|acknowledged| acknowledged < latest) {
                found.push(id.clone());
            }
            latest = latest.max(entry.attempted);
        }
        found
    }

    fn compare(&self, recovered: &[Recovered]) -> LedgerVerdict {
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
                Some(entry) if entry.refused && entry.acknowledged.is_none() && *times == 1 => {
                    verdict.refused_yet_there.push(record.id.clone());
                }
                _ => {}
            }
        }
        for (id, entry) in &self.entries {
            if entry.acknowledged.is_some() && !seen.contains_key(id.as_str()) {
                verdict.lost.push(id.clone());
            }
        }
        verdict
    }
}

/// What the ledger judge found. Every list is sorted by first appearance and complete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerdict {
    /// What was promised.
    #[serde(default)]
    pub rules: LedgerRules,
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
    /// Acknowledged, missing in an earlier reading, and there in the last one: Degraded.
    #[serde(default)]
    pub stale: Vec<String>,
    /// Behind something that was written after them; judged only where order was promised.
    #[serde(default)]
    pub overtaken: Vec<String>,
    /// Misuse of the ledger: an id with two payloads, an answer to a write never attempted.
    pub inconsistent: Vec<String>,
}

impl LedgerVerdict {
    /// Pass with coverage, Fail with the ids, or NoEvidence when nothing was ever acknowledged.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let delivery = self.rules.delivery;
        let found = [
            list("lost", &self.lost).filter(|_| delivery != Delivery::AtMostOnce),
            list("corrupted", &self.corrupted),
            list("duplicated", &self.duplicated).filter(|_| delivery != Delivery::AtLeastOnce),
            list("unknown", &self.unknown),
            list("refused yet there", &self.refused_yet_there),
            list("overtaken", &self.overtaken),
            list("ledger inconsistent at", &self.inconsistent),
        ];
        let missing = (self.acknowledged == 0).then_some("no write was ever acknowledged, so none could be lost");
        let sound = conclude(found, missing, || {
            let mut coverage = format!(
                "{} attempted, {} acknowledged, {} recovered, none lost, duplicated, unknown or corrupted",
                self.attempted, self.acknowledged, self.recovered
            );
            if delivery != Delivery::ExactlyOnce {
                let _ = write!(coverage, " beyond {}", delivery.words());
            }
            coverage
        });
        match list("stale", &self.stale) {
            Some(stale) if sound.is_pass() => Outcome::degraded(stale),
            _ => sound,
        }
    }

    /// True when data was lost or damaged, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_data_loss(&self) -> bool {
        let loses = self.rules.delivery != Delivery::AtMostOnce && !self.lost.is_empty();
        loses || !self.corrupted.is_empty()
    }
}

impl DataVerdict for LedgerVerdict {
    fn outcome(&self) -> Outcome {
        self.outcome()
    }

    fn is_data_loss(&self) -> bool {
        self.rules.delivery != Delivery::AtMostOnce && !self.lost.is_empty()
    }

    fn is_corruption(&self) -> bool {
        !self.corrupted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{DataVerdict, Delivery, Ledger, LedgerRules, Recovered};

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
    fn loss_and_corruption_are_told_apart() {
        let told = |recovered: &[Recovered]| {
            let verdict = three().judge(recovered);
            (DataVerdict::is_data_loss(&verdict), DataVerdict::is_corruption(&verdict))
        };
        let mut damaged = back(&["a", "b"]);
        damaged[1].checksum = "0".into();
        assert_eq!(told(&back(&["a", "b", "c"])), (false, false));
        assert_eq!(told(&back(&["a"])), (true, false));
        assert_eq!(told(&damaged), (false, true));
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

    #[test]
    fn what_was_promised_decides_what_is_a_fault() {
        let judge = |delivery, ids: &[&str]| {
            let rules = LedgerRules { delivery, ..LedgerRules::default() };
            three().judge_by(&rules, &[&back(ids)])
        };
        assert!(judge(Delivery::AtLeastOnce, &["a", "b", "b"]).outcome().is_pass());
        assert!(judge(Delivery::AtLeastOnce, &["a"]).outcome().is_fail());
        assert!(judge(Delivery::AtMostOnce, &["a"]).outcome().is_pass());
        assert!(!judge(Delivery::AtMostOnce, &["a"]).is_data_loss());
        assert!(judge(Delivery::AtMostOnce, &["a", "b", "b"]).outcome().is_fail());
    }

    #[test]
    fn order_is_that_of_writes_that_did_not_overlap() {
        let mut ledger = Ledger::new();
        for id in ["a", "b", "c"] {
            ledger.attempt(id, id);
            ledger.acknowledge(id);
        }
        ledger.attempt("d", "d");
        ledger.attempt("e", "e");
        ledger.acknowledge("d");
        ledger.acknowledge("e");
        let rules = LedgerRules { is_ordered: true, ..LedgerRules::default() };
        let overtaken = |ids: &[&str]| ledger.judge_by(&rules, &[&back(ids)]).overtaken;
        assert!(overtaken(&["a", "b", "c", "e", "d"]).is_empty(), "d and e overlapped");
        assert_eq!(overtaken(&["a", "c", "b", "d", "e"]), ["b"]);
        assert!(ledger.judge(&back(&["a", "c", "b", "d", "e"])).outcome().is_pass(), "no order was promised");
    }

    #[test]
    fn what_comes_back_in_a_later_reading_was_stale() {
        let readings = [back(&["a"]), back(&["a", "b"])];
        let verdict = three().judge_by(&LedgerRules::default(), &[&readings[0], &readings[1]]);
        assert_eq!((verdict.stale.len(), verdict.lost.len()), (1, 0));
        assert_eq!(verdict.outcome().word(), "degraded");
        assert!(three().judge_by(&LedgerRules::default(), &[]).outcome().is_fail(), "nothing read: all is lost");
    }
}
