//! The queue judge: what was put in comes out, as often as promised, in order.
//!
//! Elements are unique. Order is judged between elements whose enqueueing did not overlap: what was put in first must not be
//! taken out only after the other was. Order and emptiness are each a condition that every linearizable queue meets.
//!
//! ```
//! use harness_props::history::queue::{Call, Queue, Reply};
//! use harness_props::history::{Delivery, End, History};
//!
//! let mut history = History::<Queue>::new();
//! for n in [1, 2] {
//!     history.call(0, Call::Enqueue(n.into()), End::Ok(Reply::Done))?;
//! }
//! history.call(1, Call::Dequeue, End::Ok(Reply::Element(Some(2.into()))))?;
//! history.call(1, Call::Drain, End::Ok(Reply::Elements(vec![1.into()])))?;
//! let verdict = history.judge(Delivery::ExactlyOnce);
//! assert_eq!(verdict.overtaken, [(1.into(), 2.into())]);
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Delivery;
use super::record::key::list as items;
use super::record::{End, History, Key, Kind, Operation};
use super::witness::{conclude, list};
use crate::{DataVerdict, Outcome};

/// Histories of a queue. In Jepsen's form: `enqueue` an element, `dequeue` one, `drain` all that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue;

/// What is asked of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Put in this element; every element is put in once only.
    Enqueue(Key),
    /// Take out the next element.
    Dequeue,
    /// Take out all that is left, in order.
    Drain,
}

/// What a queue answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The element was put in.
    Done,
    /// The element that was taken out; `None` when there was none.
    Element(Option<Key>),
    /// All that was left.
    Elements(Vec<Key>),
}

impl Kind for Queue {
    type Call = Call;
    type Reply = Reply;

    fn form(call: &Call, reply: Option<&Reply>) -> (&'static str, Value) {
        let value = match reply {
            Some(Reply::Element(Some(element))) => element.to_value(),
            Some(Reply::Elements(elements)) => elements.iter().map(Key::to_value).collect(),
            _ => Value::Null,
        };
        match call {
            Call::Enqueue(element) => ("enqueue", element.to_value()),
            Call::Dequeue => ("dequeue", value),
            Call::Drain => ("drain", value),
        }
    }

    fn call(f: &str, value: &Value) -> Result<Call, String> {
        match f {
            "enqueue" => Key::of_value(value).map(Call::Enqueue),
            "dequeue" => Ok(Call::Dequeue),
            "drain" => Ok(Call::Drain),
            other => Err(format!("`{other}` is no call of a queue")),
        }
    }

    fn reply(call: &Call, value: &Value) -> Result<Reply, String> {
        match call {
            Call::Enqueue(_) => Ok(Reply::Done),
            Call::Dequeue if value.is_null() => Ok(Reply::Element(None)),
            Call::Dequeue => Key::of_value(value).map(|key| Reply::Element(Some(key))),
            Call::Drain => items(value)?.iter().map(Key::of_value).collect::<Result<_, _>>().map(Reply::Elements),
        }
    }

    fn fits(call: &Call, reply: &Reply) -> bool {
        matches!(
            (call, reply),
            (Call::Enqueue(_), Reply::Done) | (Call::Dequeue, Reply::Element(_)) | (Call::Drain, Reply::Elements(_))
        )
    }
}

/// What the queue judge found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueVerdict {
    /// What was promised.
    pub delivery: Delivery,
    /// Elements attempted.
    pub attempted: usize,
    /// Elements acknowledged.
    pub acknowledged: usize,
    /// Elements taken out, repetitions counted.
    pub delivered: usize,
    /// True when the queue was seen empty after the last element was put in: without it nothing is lost for certain.
    pub is_drained: bool,
    /// Acknowledged and never taken out of a queue that was drained.
    pub lost: Vec<Key>,
    /// Taken out more than once.
    pub duplicated: Vec<Key>,
    /// Taken out though nobody had put them in.
    pub phantom: Vec<Key>,
    /// Refused for certain, and taken out all the same.
    pub refused_yet_there: Vec<Key>,
    /// Unknown ends that turn out to have happened.
    pub recovered: Vec<Key>,
    /// The first element was put in before the second and taken out after it; one pair per first element.
    pub overtaken: Vec<(Key, Key)>,
    /// Elements that were in the queue all the while it answered that it was empty.
    pub hidden: Vec<Key>,
    /// Elements put in more than once: nothing can be said about them.
    pub ambiguous: Vec<Key>,
}

/// When an element went in and out, as event numbers.
#[derive(Clone, Copy)]
struct Passage {
    invoked: u64,
    acknowledged: u64,
    is_ok: bool,
    is_refused: bool,
    /// Invocation and end of the first call that took it out.
    out: Option<(u64, u64)>,
    times: usize,
}

impl History<Queue> {
    /// Judges it.
    #[must_use]
    pub fn judge(&self, delivery: Delivery) -> QueueVerdict {
        let mut passages: BTreeMap<&Key, Passage> = BTreeMap::new();
        let mut ambiguous = BTreeSet::new();
        for operation in self.operations() {
            if let Call::Enqueue(key) = &operation.call {
                let passage = Passage {
                    invoked: operation.invoked.order,
                    acknowledged: operation.ended.order,
                    is_ok: operation.is_ok(),
                    is_refused: !operation.may_have_happened(),
                    out: None,
                    times: 0,
                };
                if passages.insert(key, passage).is_some() {
                    ambiguous.insert(key.clone());
                }
            }
        }
        let (mut phantom, mut delivered, mut empty) = (BTreeSet::new(), 0, Vec::new());
        for operation in self.operations() {
            let End::Ok(reply) = &operation.end else { continue };
            let span = (operation.invoked.order, operation.ended.order);
            for key in taken(reply) {
                delivered += 1;
                match passages.get_mut(key) {
                    Some(passage) if passage.invoked < span.1 => {
                        passage.times += 1;
                        passage.out.get_or_insert(span);
                    }
                    _ => {
                        phantom.insert(key.clone());
                    }
                }
            }
            if matches!(reply, Reply::Element(None) | Reply::Elements(_)) {
                empty.push(span);
            }
        }
        let last_put_in = passages.values().filter(|p| p.is_ok).map(|p| p.acknowledged).max().unwrap_or(0);
        let of = |which: &dyn Fn(&Passage) -> bool| {
            passages.iter().filter(|(_, p)| which(p)).map(|(key, _)| (*key).clone()).collect::<Vec<_>>()
        };
        let is_drained = empty.iter().any(|(invoked, _)| *invoked > last_put_in);
        QueueVerdict {
            delivery,
            attempted: passages.len(),
            acknowledged: passages.values().filter(|passage| passage.is_ok).count(),
            delivered,
            is_drained,
            lost: if is_drained { of(&|p| p.is_ok && p.times == 0) } else { Vec::new() },
            duplicated: of(&|p| p.times > 1),
            phantom: phantom.into_iter().collect(),
            refused_yet_there: of(&|p| p.is_refused && p.times > 0),
            recovered: of(&|p| !p.is_ok && !p.is_refused && p.times > 0),
            overtaken: overtaken(&passages, self.operations()),
            hidden: hidden(&passages, &empty),
            ambiguous: ambiguous.into_iter().collect(),
        }
    }
}

fn taken(reply: &Reply) -> &[Key] {
    match reply {
        Reply::Element(Some(key)) => std::slice::from_ref(key),
        Reply::Elements(keys) => keys,
        Reply::Element(None) | Reply::Done => &[],
    }
}

/// Pairs in the wrong order: of all that went in after an element was in, the one that was out first must not have been out
/// before the call began that took the element.
fn overtaken(passages: &BTreeMap<&Key, Passage>, operations: &[Operation<Queue>]) -> Vec<(Key, Key)> {
    let mut by_invocation: Vec<(&Key, Passage, (u64, u64))> =
        passages.iter().filter_map(|(key, passage)| Some((*key, *passage, passage.out?))).collect();
    by_invocation.sort_unstable_by_key(|(_, passage, _)| passage.invoked);
    // earliest[n]: of the elements from n on, the one that was out first.
    let mut earliest: Vec<usize> = (0..by_invocation.len()).collect();
    for n in (1..by_invocation.len()).rev() {
        if by_invocation[earliest[n]].2.1 < by_invocation[n - 1].2.1 {
            earliest[n - 1] = earliest[n];
        }
    }
    let mut found = Vec::new();
    for (key, passage, (asked, _)) in &by_invocation {
        let later = by_invocation.partition_point(|(_, other, _)| other.invoked < passage.acknowledged);
        if let Some(first) = earliest.get(later)
            && by_invocation[*first].2.1 < *asked
        {
            found.push(((*key).clone(), by_invocation[*first].0.clone()));
        }
    }
    // Within one draining the order is that of the list.
    for operation in operations {
        let Some(Reply::Elements(keys)) = operation.reply() else { continue };
        let known: Vec<(&Key, &Passage)> = keys.iter().filter_map(|key| Some((key, passages.get(key)?))).collect();
        let mut latest: Option<(&Key, u64)> = None;
        for (key, passage) in known {
            if let Some((before, invoked)) = latest
                && passage.acknowledged < invoked
            {
                found.push((key.clone(), before.clone()));
            }
            if latest.is_none_or(|(_, invoked)| passage.invoked > invoked) {
                latest = Some((key, passage.invoked));
            }
        }
    }
    found
}

/// Elements that were certainly inside during an answer that says there is none: one per such answer.
fn hidden(passages: &BTreeMap<&Key, Passage>, empty: &[(u64, u64)]) -> Vec<Key> {
    let mut inside: Vec<(u64, u64, &Key)> = passages
        .iter()
        .filter(|(_, passage)| passage.is_ok && passage.times > 0)
        .map(|(key, passage)| (passage.acknowledged, passage.out.map_or(u64::MAX, |out| out.0), *key))
        .collect();
    inside.sort_unstable();
    // longest[n]: of the elements that were in first, up to n, the one that was asked for last.
    let mut longest: Vec<(u64, &Key)> = Vec::with_capacity(inside.len());
    for (_, out, key) in &inside {
        let best = longest.last().copied().filter(|(known, _)| known >= out);
        longest.push(best.unwrap_or((*out, key)));
    }
    let mut found: Vec<Key> = Vec::new();
    for (invoked, ended) in empty {
        let before = inside.partition_point(|(acknowledged, _, _)| acknowledged < invoked);
        if let Some((out, key)) = before.checked_sub(1).and_then(|n| longest.get(n))
            && out > ended
        {
            found.push((*key).clone());
        }
    }
    found.dedup();
    found
}

impl QueueVerdict {
    /// Pass with coverage, Fail with the elements, or NoEvidence when nothing was taken out, or when loss matters and the
    /// queue was never drained.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let overtaken: Vec<String> = self.overtaken.iter().map(|(a, b)| format!("{a} by {b}")).collect();
        let found = [
            list("lost", &self.lost).filter(|_| self.delivery != Delivery::AtMostOnce),
            list("duplicated", &self.duplicated).filter(|_| self.delivery != Delivery::AtLeastOnce),
            list("phantom", &self.phantom),
            list("refused yet there", &self.refused_yet_there),
            list("overtaken", &overtaken),
            list("hidden while the queue said it was empty", &self.hidden),
            list("put in more than once", &self.ambiguous),
        ];
        let missing = match (self.acknowledged.min(self.delivered), self.is_drained, self.delivery) {
            (0, _, _) => Some("nothing was both put in and taken out"),
            (_, false, Delivery::AtLeastOnce | Delivery::ExactlyOnce) => {
                Some("the queue was never seen empty after the last element was put in, so none is lost for certain")
            }
            _ => None,
        };
        conclude(found, missing, || {
            format!(
                "{} of {} elements acknowledged, {} deliveries, {}, in order",
                self.acknowledged,
                self.attempted,
                self.delivered,
                self.delivery.words()
            )
        })
    }

    /// True when acknowledged data is gone, which forces a NO-GO whatever else is green.
    #[must_use]
    pub fn is_data_loss(&self) -> bool {
        !self.lost.is_empty() && self.delivery != Delivery::AtMostOnce
    }
}

impl DataVerdict for QueueVerdict {
    fn outcome(&self) -> Outcome {
        self.outcome()
    }

    fn is_data_loss(&self) -> bool {
        self.is_data_loss()
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Queue, QueueVerdict, Reply};
    use crate::history::{Delivery, End, History};

    /// Puts in 1 to `n`, takes out the given ones in turn, drains the rest.
    fn passed(n: i64, out: &[i64], rest: &[i64]) -> QueueVerdict {
        let mut history = History::<Queue>::new();
        for key in 1..=n {
            history.call(0, Call::Enqueue(key.into()), End::Ok(Reply::Done)).unwrap();
        }
        for key in out {
            let reply = Reply::Element((*key != 0).then(|| (*key).into()));
            history.call(1, Call::Dequeue, End::Ok(reply)).unwrap();
        }
        let rest = rest.iter().map(|key| (*key).into()).collect();
        history.call(1, Call::Drain, End::Ok(Reply::Elements(rest))).unwrap();
        history.judge(Delivery::ExactlyOnce)
    }

    #[test]
    fn each_defect_is_named_and_no_other() {
        assert!(passed(4, &[1, 2], &[3, 4]).outcome().is_pass());
        for (out, rest, expected) in [
            (&[1, 2][..], &[4][..], "1 lost: 3"),
            (&[1, 1, 2], &[3, 4], "1 duplicated: 1"),
            (&[1, 2, 9], &[3, 4], "1 phantom: 9"),
            (&[2, 1], &[3, 4], "1 overtaken: 1 by 2"),
            (&[1, 2], &[4, 3], "1 overtaken: 3 by 4"),
            (&[1], &[4, 2, 3], "2 overtaken: 2 by 4, 3 by 4"),
            (&[1, 4, 2, 3], &[], "2 overtaken: 2 by 4, 3 by 4"),
            (&[3, 1, 2, 4], &[], "2 overtaken: 1 by 3, 2 by 3"),
            (&[1, 0, 2], &[3, 4], "1 hidden while the queue said it was empty: 3"),
        ] {
            assert_eq!(passed(4, out, rest).outcome().detail(), expected, "{out:?} {rest:?}");
        }
        assert!(passed(2, &[1], &[]).is_data_loss());
    }

    #[test]
    fn what_was_promised_decides_what_is_a_fault() {
        let twice = |delivery| QueueVerdict { delivery, ..passed(2, &[1, 1, 2], &[]) };
        assert!(twice(Delivery::AtLeastOnce).outcome().is_pass() && twice(Delivery::AtMostOnce).outcome().is_fail());
        let lost = |delivery| QueueVerdict { delivery, ..passed(2, &[2], &[]) };
        assert!(lost(Delivery::AtMostOnce).outcome().is_pass() && lost(Delivery::AtLeastOnce).outcome().is_fail());
    }

    #[test]
    fn what_was_refused_and_what_nobody_knows_of_are_told_apart() {
        let mut history = History::<Queue>::new();
        for (process, end) in
            [(0, End::Ok(Reply::Done)), (1, End::Fail), (2, End::Info), (3, End::Fail), (4, End::Info)]
        {
            history.call(process, Call::Enqueue((process as i64).into()), end).unwrap();
        }
        history.call(9, Call::Drain, End::Ok(Reply::Elements([0, 1, 2].map(i64::into).to_vec()))).unwrap();
        let verdict = history.judge(Delivery::ExactlyOnce);
        assert_eq!((verdict.refused_yet_there, verdict.recovered), (vec![1.into()], vec![2.into()]));
    }

    #[test]
    fn overlapping_producers_have_no_order() {
        let mut history = History::<Queue>::new();
        history.invoke(0, Call::Enqueue(1.into())).unwrap();
        history.call(1, Call::Enqueue(2.into()), End::Ok(Reply::Done)).unwrap();
        history.complete(0, End::Ok(Reply::Done)).unwrap();
        history.call(2, Call::Drain, End::Ok(Reply::Elements(vec![2.into(), 1.into()]))).unwrap();
        assert!(history.judge(Delivery::ExactlyOnce).outcome().is_pass());
    }

    #[test]
    fn a_queue_that_was_not_drained_is_no_evidence() {
        let mut history = History::<Queue>::new();
        history.call(0, Call::Enqueue(1.into()), End::Ok(Reply::Done)).unwrap();
        history.call(0, Call::Enqueue(2.into()), End::Ok(Reply::Done)).unwrap();
        history.call(1, Call::Dequeue, End::Ok(Reply::Element(Some(1.into())))).unwrap();
        assert!(history.judge(Delivery::ExactlyOnce).outcome().is_no_evidence());
        assert!(history.judge(Delivery::AtMostOnce).outcome().is_pass());
        assert!(History::<Queue>::new().judge(Delivery::AtMostOnce).outcome().is_no_evidence());
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let mut history = History::<Queue>::new();
        history.invoke(0, Call::Dequeue).unwrap();
        assert!(history.complete(0, End::Ok(Reply::Done)).is_err());
    }
}
