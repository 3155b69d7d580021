//! The counter judge: every reading lies between what must and what may have been added by then.
//!
//! Additions acknowledged before a reading began count; those that overlapped it, or whose end is unknown, may count or not;
//! refused ones never do.
//!
//! ```
//! use harness_props::history::counter::{Call, Counter, Reply};
//! use harness_props::history::{End, History};
//!
//! let mut history = History::<Counter>::new();
//! history.call(0, Call::Add(2), End::Ok(Reply::Done))?;
//! history.call(1, Call::Add(5), End::Info)?;
//! history.call(2, Call::Read, End::Ok(Reply::Value(7)))?;
//! assert!(history.judge().outcome().is_pass());
//! history.call(2, Call::Read, End::Ok(Reply::Value(1)))?;
//! assert_eq!(history.judge().outcome().detail(), "1 out of bounds: 1 where 2 to 7 is possible (#6 process 2)");
//! # Ok::<(), harness_props::history::HistoryError>(())
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::key::int;
use super::record::{End, History, Kind};
use super::witness::{conclude, list};
use crate::Outcome;

/// Histories of a counter that begins at zero. In Jepsen's form: `add` a number, `read` the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter;

/// What is asked of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Add this, which may be negative.
    Add(i64),
    /// Return the sum.
    Read,
}

/// What a counter answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was added.
    Done,
    /// The sum.
    Value(i64),
}

impl Kind for Counter {
    type Call = Call;
    type Reply = Reply;

    fn form(call: &Call, reply: Option<&Reply>) -> (&'static str, Value) {
        match (call, reply) {
            (Call::Add(n), _) => ("add", (*n).into()),
            (Call::Read, Some(Reply::Value(n))) => ("read", (*n).into()),
            (Call::Read, _) => ("read", Value::Null),
        }
    }

    fn call(f: &str, value: &Value) -> Result<Call, String> {
        match f {
            "add" => int(value).map(Call::Add),
            "read" => Ok(Call::Read),
            other => Err(format!("`{other}` is no call of a counter")),
        }
    }

    fn reply(call: &Call, value: &Value) -> Result<Reply, String> {
        match call {
            Call::Add(_) => Ok(Reply::Done),
            Call::Read => int(value).map(Reply::Value),
        }
    }

    fn fits(call: &Call, reply: &Reply) -> bool {
        matches!((call, reply), (Call::Add(_), Reply::Done) | (Call::Read, Reply::Value(_)))
    }
}

/// A reading that no order of the additions explains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutOfBounds {
    /// Who read.
    pub process: u64,
    /// Number of the event that began the reading.
    pub event: u64,
    /// What was read.
    pub read: i64,
    /// The least that was possible.
    pub least: i128,
    /// The most that was possible.
    pub most: i128,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, event, read, least, most } = self;
        write!(f, "{read} where {least} to {most} is possible (#{event} process {process})")
    }
}

/// What the counter judge found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CounterVerdict {
    /// Additions acknowledged.
    pub additions: usize,
    /// Readings that began after an acknowledged addition.
    pub readings: usize,
    /// Readings that cannot be.
    pub out_of_bounds: Vec<OutOfBounds>,
}

/// Running sums of what was added by events: sorted by event, looked up by the number of one.
struct Sums(Vec<(u64, i128)>);

impl Sums {
    fn of(mut additions: Vec<(u64, i64)>) -> Self {
        additions.sort_unstable();
        let mut sum = 0;
        Self(
            additions
                .into_iter()
                .map(|(event, n)| {
                    sum += i128::from(n);
                    (event, sum)
                })
                .collect(),
        )
    }

    fn before(&self, event: u64) -> i128 {
        let n = self.0.partition_point(|(at, _)| *at < event);
        n.checked_sub(1).map_or(0, |n| self.0[n].1)
    }
}

impl History<Counter> {
    /// Judges it.
    #[must_use]
    pub fn judge(&self) -> CounterVerdict {
        // By sign: what was acknowledged by when, and what was begun by when.
        let mut ended = [Vec::new(), Vec::new()];
        let mut begun = [Vec::new(), Vec::new()];
        for operation in self.operations().iter().filter(|operation| operation.may_have_happened()) {
            let Call::Add(n) = operation.call else { continue };
            let sign = usize::from(n < 0);
            begun[sign].push((operation.invoked.order, n));
            if operation.is_ok() {
                ended[sign].push((operation.ended.order, n));
            }
        }
        let additions = ended[0].len() + ended[1].len();
        let first = ended.iter().flatten().map(|(event, _)| *event).min().unwrap_or(u64::MAX);
        let (ended, begun) = (ended.map(Sums::of), begun.map(Sums::of));
        let mut verdict = CounterVerdict { additions, readings: 0, out_of_bounds: Vec::new() };
        for operation in self.operations() {
            let End::Ok(Reply::Value(read)) = operation.end else { continue };
            let (from, to) = (operation.invoked.order, operation.ended.order);
            let most = begun[0].before(to) + ended[1].before(from);
            let least = ended[0].before(from) + begun[1].before(to);
            verdict.readings += usize::from(from > first);
            if !(least..=most).contains(&i128::from(read)) {
                let process = operation.process;
                verdict.out_of_bounds.push(OutOfBounds { process, event: from, read, least, most });
            }
        }
        verdict
    }
}

impl CounterVerdict {
    /// Pass with coverage, Fail with the readings, or NoEvidence when no reading began after an addition.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let missing = (self.readings == 0).then_some("no reading began after an acknowledged addition");
        conclude([list("out of bounds", &self.out_of_bounds)], missing, || {
            format!("{} readings within bounds, {} additions acknowledged", self.readings, self.additions)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Counter, Reply};
    use crate::history::{End, History};

    fn read(value: i64) -> bool {
        let mut history = History::<Counter>::new();
        history.call(0, Call::Add(10), End::Ok(Reply::Done)).unwrap();
        history.call(0, Call::Add(-3), End::Ok(Reply::Done)).unwrap();
        history.call(1, Call::Add(100), End::Fail).unwrap();
        history.call(2, Call::Add(-5), End::Info).unwrap();
        history.invoke(3, Call::Add(1)).unwrap();
        history.invoke(4, Call::Read).unwrap();
        history.complete(3, End::Ok(Reply::Done)).unwrap();
        history.complete(4, End::Ok(Reply::Value(value))).unwrap();
        history.judge().outcome().is_pass()
    }

    #[test]
    fn bounds_are_exact() {
        let accepted: Vec<i64> = (-20..120).filter(|value| read(*value)).collect();
        assert_eq!(accepted, (2..=8).collect::<Vec<_>>(), "7, with or without -5 and +1");
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut history = History::<Counter>::new();
        for _ in 0..3 {
            history.call(0, Call::Add(i64::MAX), End::Ok(Reply::Done)).unwrap();
        }
        history.call(0, Call::Read, End::Ok(Reply::Value(i64::MAX))).unwrap();
        assert!(history.judge().outcome().is_fail());
    }

    #[test]
    fn a_reading_of_nothing_is_no_evidence() {
        let mut history = History::<Counter>::new();
        history.call(0, Call::Read, End::Ok(Reply::Value(0))).unwrap();
        assert!(history.judge().outcome().is_no_evidence());
    }
}
