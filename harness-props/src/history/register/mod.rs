//! The register judge: is every key a single value that changes at one instant per write?
//!
//! Linearizability (Herlihy and Wing, 1990) is judged per key. Keys whose writes are all different, and that nobody compares
//! and sets, are judged in `n log n`; the others by a search within a [`Budget`], past which there is no evidence.
//!
//! ```
//! use harness_props::history::register::{Call, Register, Reply};
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Register>::new();
//! history.call(0, Call::write("x", 1), End::Ok(Reply::Done))?;
//! history.call(0, Call::write("x", 2), End::Ok(Reply::Done))?;
//! history.call(1, Call::read("x"), End::Ok(Reply::Value(Some(1))))?; // stale
//! let verdict = history.judge(&Default::default());
//! assert!(verdict.outcome().is_fail());
//! assert_eq!(verdict.violations[0].key, "x".into());
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

mod keys;
#[cfg(test)]
mod tests;
mod zones;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Budget;
use super::linear::{Interval, Linearity, Sequential, search};
use super::record::key::int;
use super::record::{End, History, Key, Kind, Operation};
use super::witness::{conclude, list};
use crate::Outcome;

/// Histories of registers, each under a key, without a value at first. In Jepsen's form, with independent keys: `read`
/// `[k nil]`, `write` `[k v]`, `cas` `[k [old new]]`; without a key, the key is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register;

/// What is asked of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Return the value.
    Read(Key),
    /// Set the value.
    Write(Key, i64),
    /// Set the value to the second number if it is the first; refused ([`End::Fail`]) otherwise.
    CompareAndSet(Key, i64, i64),
}

impl Call {
    /// A reading.
    pub fn read(key: impl Into<Key>) -> Self {
        Self::Read(key.into())
    }

    /// A write.
    pub fn write(key: impl Into<Key>, value: i64) -> Self {
        Self::Write(key.into(), value)
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Read(key) | Self::Write(key, _) | Self::CompareAndSet(key, _, _) => key,
        }
    }
}

/// What a register answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It was written.
    Done,
    /// The value; `None` while nothing was written.
    Value(Option<i64>),
}

impl Kind for Register {
    type Call = Call;
    type Reply = Reply;

    fn form(call: &Call, reply: Option<&Reply>) -> (&'static str, Value) {
        match (call, reply) {
            (Call::Read(key), Some(Reply::Value(value))) => ("read", json!([key.to_value(), value])),
            (Call::Read(key), _) => ("read", json!([key.to_value(), null])),
            (Call::Write(key, value), _) => ("write", json!([key.to_value(), value])),
            (Call::CompareAndSet(key, old, new), _) => ("cas", json!([key.to_value(), [old, new]])),
        }
    }

    fn call(f: &str, value: &Value) -> Result<Call, String> {
        let (key, value) = keyed(f, value)?;
        match (f, value) {
            ("read", _) => Ok(Call::Read(key)),
            ("write", value) => Ok(Call::Write(key, int(value)?)),
            ("cas", Value::Array(pair)) if pair.len() == 2 => {
                Ok(Call::CompareAndSet(key, int(&pair[0])?, int(&pair[1])?))
            }
            (f, value) => Err(format!("`{f}` of `{value}` is no call of a register")),
        }
    }

    fn reply(call: &Call, value: &Value) -> Result<Reply, String> {
        match call {
            Call::Read(_) => match keyed("read", value)?.1 {
                Value::Null => Ok(Reply::Value(None)),
                value => Ok(Reply::Value(Some(int(value)?))),
            },
            Call::Write(..) | Call::CompareAndSet(..) => Ok(Reply::Done),
        }
    }

    fn fits(call: &Call, reply: &Reply) -> bool {
        matches!(call, Call::Read(_)) == matches!(reply, Reply::Value(_))
    }
}

/// Key and value of `[k v]`; a bare value has the key 0.
fn keyed<'v>(f: &str, value: &'v Value) -> Result<(Key, &'v Value), String> {
    match value {
        Value::Array(pair) if pair.len() == 2 && (f != "cas" || pair[1].is_array()) => {
            Ok((Key::of_value(&pair[0])?, &pair[1]))
        }
        bare => Ok((Key::Number(0), bare)),
    }
}

/// A key that is no register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// Operations that cannot all be: of unique writes at most six that already contradict one another, else the ones around
    /// the operation at which the search got stuck.
    pub operations: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.key, self.operations.join(", "))
    }
}

/// What the register judge found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RegisterVerdict {
    /// Keys.
    pub keys: usize,
    /// Operations that were done for certain.
    pub operations: usize,
    /// Readings among them that returned a written value.
    pub readings: usize,
    /// Keys judged without a search.
    pub without_search: usize,
    /// Keys that are no registers, in the order in which they first appear.
    pub violations: Vec<Violation>,
    /// Keys whose search spent its budget, each with the states it visited.
    pub undecided: Vec<(Key, u64)>,
}

/// One operation of a key, reduced to what matters.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// Index in the history.
    operation: usize,
    invoked: u64,
    ended: u64,
    kind: Effect,
}

/// What an operation of a key did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Read(Option<i64>),
    Write(i64),
    CompareAndSet(i64, i64),
}

impl Span {
    /// `None` for what has no effect and says nothing.
    #[inline]
    fn of(index: usize, operation: &Operation<Register>) -> Option<Self> {
        let kind = match (&operation.call, &operation.end) {
            (_, End::Fail) | (Call::Read(_), End::Info) => return None,
            (Call::Read(_), End::Ok(Reply::Value(value))) => Effect::Read(*value),
            (Call::Read(_), End::Ok(Reply::Done)) => return None,
            (Call::Write(_, value), _) => Effect::Write(*value),
            (Call::CompareAndSet(_, old, new), _) => Effect::CompareAndSet(*old, *new),
        };
        // Events are counted from 1 here: at 0 the initial value was written.
        let after = |order: u64| order.saturating_add(1);
        Some(Self {
            operation: index,
            invoked: after(operation.invoked.order),
            ended: after(operation.ended.order),
            kind,
        })
    }
}

/// The sequential register.
struct Model;

impl Sequential for Model {
    type State = Option<i64>;
    type Operation = Effect;

    fn initial(&self) -> Option<i64> {
        None
    }

    fn step(&self, state: &Option<i64>, operation: &Effect) -> Option<Option<i64>> {
        match operation {
            Effect::Read(value) => (value == state).then_some(*state),
            Effect::Write(value) => Some(Some(*value)),
            Effect::CompareAndSet(old, new) => (*state == Some(*old)).then_some(Some(*new)),
        }
    }
}

impl History<Register> {
    /// Judges it, spending the budget on each key that needs a search. Keys that need none are judged on all cores.
    #[must_use]
    pub fn judge(&self, budget: &Budget) -> RegisterVerdict {
        self.judge_in(keys::threads(self.operations().len()), budget)
    }

    fn judge_in(&self, threads: usize, budget: &Budget) -> RegisterVerdict {
        let operations = self.operations();
        let keys = keys::sorted_out(operations, threads);
        let mut verdict = RegisterVerdict::default();
        for (of_key, known) in keys.iter().zip(keys::known(operations, &keys, threads)) {
            if known.spans == 0 {
                continue;
            }
            verdict.keys += 1;
            verdict.operations += known.done;
            verdict.readings += known.readings;
            verdict.without_search += usize::from(known.refuted.is_some());
            let refuted = known.refuted.unwrap_or_else(|| {
                let mut spans = Vec::with_capacity(known.spans);
                of_key.spans(operations, &mut spans);
                verdict.search(of_key.key, &spans, budget)
            });
            if let Some(around) = refuted {
                let operations = around.into_iter().map(|n| operations[n].to_string()).collect();
                verdict.violations.push(Violation { key: of_key.key.clone(), operations });
            }
        }
        verdict
    }
}

impl RegisterVerdict {
    /// The operations around the one that no order explains, if there is one.
    fn search(&mut self, key: &Key, spans: &[Span], budget: &Budget) -> Option<Vec<usize>> {
        match search_key(spans, budget) {
            Linearity::Shown { .. } => None,
            Linearity::Refuted { longest, stuck } => {
                let around = longest.iter().rev().take(3).rev().copied().chain([stuck]);
                Some(around.map(|n| spans[n].operation).collect())
            }
            Linearity::Exhausted { states } => {
                self.undecided.push((key.clone(), states));
                None
            }
        }
    }

    /// Pass with coverage, Fail with the keys, or NoEvidence when no written value was read or a search spent its budget.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let spent = self.undecided.first().map(|(key, states)| {
            format!("{} of {} keys undecided, first {key} after {states} states", self.undecided.len(), self.keys)
        });
        let missing = match (self.readings, &spent) {
            (0, _) => Some("no written value was ever read"),
            (_, spent) => spent.as_deref(),
        };
        conclude([list("not linearizable", &self.violations)], missing, || {
            format!(
                "{} operations on {} keys, {} readings of written values; {} keys without a search",
                self.operations, self.keys, self.readings, self.without_search
            )
        })
    }
}

fn search_key(spans: &[Span], budget: &Budget) -> Linearity {
    let intervals: Vec<Interval<Effect>> =
        spans.iter().map(|span| Interval::done(span.invoked, span.ended, span.kind)).collect();
    search(&Model, &intervals, budget)
}
