//! The set judge: what was added and acknowledged is there in every later reading, once.
//!
//! An element is *known* from its acknowledgement, or from the first reading that showed it. A reading that began later and
//! lacks it is a *stale* one when a later reading shows the element again, and a *loss* when none does.
//!
//! ```
//! use harness_props::history::set::{Call, Reply, Set, Staleness};
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Set>::new();
//! history.call(0, Call::Add(1.into()), End::Ok(Reply::Done))?;
//! history.call(1, Call::Add(2.into()), End::Info)?; // may be there or not
//! history.call(2, Call::Read, End::Ok(Reply::elements([1])))?;
//! assert!(history.judge(Staleness::Forbidden).outcome().is_pass());
//!
//! history.call(2, Call::Read, End::Ok(Reply::elements([2])))?;
//! assert_eq!(history.judge(Staleness::Forbidden).lost, [1.into()]);
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::key::list as items;
use super::record::{End, History, Key, Kind};
use super::witness::{conclude, list};
use crate::{DataVerdict, Outcome};

/// Histories of a set that only grows. In Jepsen's form: `add` an element, `read` all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set;

/// What is asked of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Add this element; every element is added once only.
    Add(Key),
    /// Return all elements.
    Read,
}

/// What a set answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The element was added.
    Done,
    /// All elements, in any order.
    Elements(Vec<Key>),
}

impl Reply {
    /// A reading of these elements.
    pub fn elements(elements: impl IntoIterator<Item = impl Into<Key>>) -> Self {
        Self::Elements(elements.into_iter().map(Into::into).collect())
    }
}

impl Kind for Set {
    type Call = Call;
    type Reply = Reply;

    fn form(call: &Call, reply: Option<&Reply>) -> (&'static str, Value) {
        match (call, reply) {
            (Call::Add(element), _) => ("add", element.to_value()),
            (Call::Read, Some(Reply::Elements(elements))) => ("read", elements.iter().map(Key::to_value).collect()),
            (Call::Read, _) => ("read", Value::Null),
        }
    }

    fn call(f: &str, value: &Value) -> Result<Call, String> {
        match f {
            "add" => Key::of_value(value).map(Call::Add),
            "read" => Ok(Call::Read),
            other => Err(format!("`{other}` is no call of a set")),
        }
    }

    fn reply(call: &Call, value: &Value) -> Result<Reply, String> {
        match call {
            Call::Add(_) => Ok(Reply::Done),
            Call::Read => items(value)?.iter().map(Key::of_value).collect::<Result<_, _>>().map(Reply::Elements),
        }
    }

    fn fits(call: &Call, reply: &Reply) -> bool {
        matches!((call, reply), (Call::Add(_), Reply::Done) | (Call::Read, Reply::Elements(_)))
    }
}

/// Whether a reading may lack what is there again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Staleness {
    /// Readings may come from a replica that is behind: stale elements are Degraded.
    Tolerated,
    /// Every reading shows all that was acknowledged before it began.
    Forbidden,
}

/// What the set judge found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetVerdict {
    /// What was asked of readings.
    pub staleness: Staleness,
    /// Elements attempted.
    pub attempted: usize,
    /// Elements acknowledged.
    pub acknowledged: usize,
    /// Readings that were answered.
    pub readings: usize,
    /// Acknowledged elements that some reading could have shown as missing.
    pub judged: usize,
    /// Known, and gone in all later readings.
    pub lost: Vec<Key>,
    /// Known, missing in a reading, and there again.
    pub stale: Vec<Key>,
    /// More than once in one reading.
    pub duplicated: Vec<Key>,
    /// Read before anybody had attempted to add them, or never added at all.
    pub phantom: Vec<Key>,
    /// Refused for certain, and read all the same.
    pub refused_yet_there: Vec<Key>,
    /// Unknown ends that turn out to have happened.
    pub recovered: Vec<Key>,
    /// Elements added more than once: nothing can be said about them.
    pub ambiguous: Vec<Key>,
}

/// One element's life.
struct Element {
    invoked: u64,
    acknowledged: Option<u64>,
    is_refused: bool,
    /// Indices of the readings that showed it.
    shown: Vec<usize>,
}

impl History<Set> {
    /// Judges it.
    #[must_use]
    pub fn judge(&self, staleness: Staleness) -> SetVerdict {
        let mut elements: BTreeMap<&Key, Element> = BTreeMap::new();
        let mut readings: Vec<(u64, u64, &[Key])> = Vec::new();
        let (mut ambiguous, mut phantom, mut duplicated) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for operation in self.operations() {
            let (invoked, ended) = (operation.invoked.order, operation.ended.order);
            match (&operation.call, &operation.end) {
                (Call::Add(key), end) => {
                    let acknowledged = operation.is_ok().then_some(ended);
                    let element =
                        Element { invoked, acknowledged, is_refused: matches!(end, End::Fail), shown: Vec::new() };
                    if elements.insert(key, element).is_some() {
                        ambiguous.insert(key);
                    }
                }
                (Call::Read, End::Ok(Reply::Elements(shown))) => readings.push((invoked, ended, shown)),
                (Call::Read, _) => {}
            }
        }
        for (n, (_, ended, shown)) in readings.iter().enumerate() {
            for key in *shown {
                match elements.get_mut(key) {
                    Some(element) if element.invoked < *ended => match element.shown.last() {
                        Some(last) if *last == n => {
                            duplicated.insert(key);
                        }
                        _ => element.shown.push(n),
                    },
                    _ => {
                        phantom.insert(key);
                    }
                }
            }
        }
        let owned = |keys: BTreeSet<&Key>| keys.into_iter().cloned().collect::<Vec<_>>();
        let mut verdict = SetVerdict {
            staleness,
            attempted: elements.len(),
            acknowledged: elements.values().filter(|element| element.acknowledged.is_some()).count(),
            readings: readings.len(),
            judged: 0,
            lost: Vec::new(),
            stale: Vec::new(),
            duplicated: owned(duplicated),
            phantom: owned(phantom),
            refused_yet_there: Vec::new(),
            recovered: Vec::new(),
            ambiguous: owned(ambiguous),
        };
        for (key, element) in &elements {
            verdict.judge(key, element, &readings);
        }
        verdict
    }
}

impl SetVerdict {
    fn judge(&mut self, key: &Key, element: &Element, readings: &[(u64, u64, &[Key])]) {
        let is_shown = !element.shown.is_empty();
        if element.is_refused && is_shown {
            self.refused_yet_there.push(key.clone());
        } else if element.acknowledged.is_none() && is_shown {
            self.recovered.push(key.clone());
        }
        let first_shown = element.shown.iter().map(|n| readings[*n].1).min();
        let Some(known) = [element.acknowledged, first_shown].into_iter().flatten().min() else { return };
        // Readings stand in the order in which they began.
        let after = readings.len() - readings.partition_point(|reading| reading.0 < known);
        self.judged += usize::from(after > 0);
        let shown_after = element.shown.iter().filter(|n| readings[**n].0 >= known).count();
        if shown_after == after {
            return;
        }
        let last_shown = element.shown.iter().map(|n| readings[*n].1).max().unwrap_or(0).max(known);
        match readings.last().is_some_and(|last| last.0 > last_shown) {
            true => self.lost.push(key.clone()),
            false => self.stale.push(key.clone()),
        }
    }

    /// Pass with coverage, Degraded for tolerated staleness, Fail with the elements, or NoEvidence when no reading began
    /// after an acknowledgement.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let stale = list("stale", &self.stale);
        let is_tolerated = self.staleness == Staleness::Tolerated;
        let found = [
            list("lost", &self.lost),
            list("duplicated", &self.duplicated),
            list("phantom", &self.phantom),
            list("refused yet there", &self.refused_yet_there),
            list("added more than once", &self.ambiguous),
            stale.clone().filter(|_| !is_tolerated),
        ];
        let missing =
            (self.judged == 0).then_some("no reading began after an element was known, so none could miss it");
        let sound = conclude(found, missing, || {
            format!(
                "{} of {} elements acknowledged, {} judged by {} readings, none lost",
                self.acknowledged, self.attempted, self.judged, self.readings
            )
        });
        match stale {
            Some(stale) if sound.is_pass() => Outcome::degraded(stale),
            _ => sound,
        }
    }

    /// True when acknowledged data is gone, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_data_loss(&self) -> bool {
        !self.lost.is_empty()
    }
}

impl DataVerdict for SetVerdict {
    fn outcome(&self) -> Outcome {
        self.outcome()
    }

    fn is_data_loss(&self) -> bool {
        self.is_data_loss()
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Reply, Set, SetVerdict, Staleness};
    use crate::history::{End, History};

    fn add(history: &mut History<Set>, n: i64, end: End<Reply>) {
        history.call(n as u64, Call::Add(n.into()), end).unwrap();
    }

    fn read(history: &mut History<Set>, elements: &[i64]) {
        history.call(99, Call::Read, End::Ok(Reply::elements(elements.iter().copied()))).unwrap();
    }

    fn two() -> History<Set> {
        let mut history = History::new();
        add(&mut history, 1, End::Ok(Reply::Done));
        add(&mut history, 2, End::Ok(Reply::Done));
        add(&mut history, 3, End::Info);
        add(&mut history, 4, End::Fail);
        history
    }

    fn judged(readings: &[&[i64]]) -> SetVerdict {
        let mut history = two();
        for elements in readings {
            read(&mut history, elements);
        }
        history.judge(Staleness::Forbidden)
    }

    #[test]
    fn each_defect_is_named_and_no_other() {
        let names = |verdict: &SetVerdict| {
            let lists =
                [&verdict.lost, &verdict.stale, &verdict.duplicated, &verdict.phantom, &verdict.refused_yet_there];
            lists.map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        for (readings, expected) in [
            (&[&[1, 2][..]][..], ["", "", "", "", ""]),
            (&[&[1, 2, 3]], ["", "", "", "", ""]),
            (&[&[1]], ["2", "", "", "", ""]),
            (&[&[1, 2], &[1]], ["2", "", "", "", ""]),
            (&[&[1], &[1, 2]], ["", "2", "", "", ""]),
            (&[&[1, 2, 3], &[1, 2]], ["3", "", "", "", ""]),
            (&[&[1, 2, 2]], ["", "", "2", "", ""]),
            (&[&[1, 2, 7]], ["", "", "", "7", ""]),
            (&[&[1, 2, 4]], ["", "", "", "", "4"]),
        ] {
            let verdict = judged(readings);
            assert_eq!(names(&verdict), expected, "{readings:?}");
            assert_eq!(verdict.outcome().is_fail(), expected.iter().any(|names| !names.is_empty()), "{verdict:?}");
        }
        assert_eq!(judged(&[&[1, 2, 3]]).recovered, [3.into()]);
        assert!(judged(&[&[1]]).is_data_loss() && !judged(&[&[1], &[1, 2]]).is_data_loss());
    }

    #[test]
    fn staleness_is_degraded_where_it_is_tolerated() {
        let mut history = two();
        read(&mut history, &[1]);
        read(&mut history, &[1, 2]);
        let outcome = history.judge(Staleness::Tolerated).outcome();
        assert_eq!(outcome.word(), "degraded");
    }

    #[test]
    fn a_reading_that_overlaps_the_addition_proves_nothing() {
        let mut history = History::<Set>::new();
        history.invoke(1, Call::Read).unwrap();
        add(&mut history, 5, End::Ok(Reply::Done));
        history.complete(1, End::Ok(Reply::Elements(Vec::new()))).unwrap();
        assert!(history.judge(Staleness::Forbidden).outcome().is_no_evidence());
        assert!(History::<Set>::new().judge(Staleness::Forbidden).outcome().is_no_evidence());
    }

    #[test]
    fn an_element_added_twice_is_no_pass() {
        let mut history = two();
        history.call(50, Call::Add(1.into()), End::Ok(Reply::Done)).unwrap();
        read(&mut history, &[1, 2]);
        assert!(history.judge(Staleness::Forbidden).outcome().is_fail());
    }
}
