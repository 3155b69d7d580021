//! What was called when, by whom, and how it ended: a history that is legal by construction.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::Value;

/// A kind of operation that a history can hold: what is called, what comes back, and how both are spelled in Jepsen's form.
///
/// The kinds of this crate are markers such as [`Register`](crate::history::register::Register) or
/// [`ListAppend`](crate::history::transactions::ListAppend); their histories have a `judge`.
pub trait Kind: Sized + fmt::Debug + Clone + PartialEq + 'static {
    /// What a client asks for.
    type Call: Clone + fmt::Debug + PartialEq + Send;
    /// What it is told when that was done.
    type Reply: Clone + fmt::Debug + PartialEq + Send;

    /// The operation's `f` and `value` in Jepsen's form: of the invocation without a reply, of the completion with one.
    fn form(call: &Self::Call, reply: Option<&Self::Reply>) -> (&'static str, Value);

    /// The call that an invocation spells.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn call(f: &str, value: &Value) -> Result<Self::Call, String>;

    /// The reply that a completion spells.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    fn reply(call: &Self::Call, value: &Value) -> Result<Self::Reply, String>;

    /// False when this cannot be an answer to that call, such as a balance for a transfer.
    fn fits(call: &Self::Call, reply: &Self::Reply) -> bool;
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<R> {
    /// It was done, and this came back.
    Ok(R),
    /// It was *not* done, and never will be. A time-out is no such thing.
    Fail,
    /// Nobody knows: a time-out, a lost connection, a dropped future, or it is still under way. It may take effect at any
    /// time after its invocation, or never.
    Info,
}

/// A point in a history: its place in the one order of all events, and the time of the recorder's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Number of the event, from 0. Judges order by this alone: clocks have ties, and go back.
    pub order: u64,
    /// Nanoseconds by the recorder's clock; without a clock, the number of the event.
    pub nanos: u64,
}

/// The moment of what has not ended: after everything.
const NEVER: Moment = Moment { order: u64::MAX, nanos: u64::MAX };

/// One operation of one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation<K: Kind> {
    /// The logical process: one thread of calls, each begun after the one before was answered.
    pub process: u64,
    /// What was asked for.
    pub call: K::Call,
    /// Before it was sent.
    pub invoked: Moment,
    /// After the answer came; beyond every other moment for [`End::Info`].
    pub ended: Moment,
    /// How it ended.
    pub end: End<K::Reply>,
}

impl<K: Kind> Operation<K> {
    /// What came back, when it was done.
    #[must_use]
    pub fn reply(&self) -> Option<&K::Reply> {
        match &self.end {
            End::Ok(reply) => Some(reply),
            End::Fail | End::Info => None,
        }
    }

    /// True when it was done for certain.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self.end, End::Ok(_))
    }

    /// True unless it was refused for certain.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        !matches!(self.end, End::Fail)
    }

    /// True when the other one was sent only after the answer to this one had come.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        self.ended.order < other.invoked.order
    }
}

impl<K: Kind> fmt::Display for Operation<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = K::form(&self.call, self.reply());
        let end = match self.end {
            End::Ok(_) => "ok",
            End::Fail => "refused",
            End::Info => "unknown",
        };
        write!(f, "#{} process {}: {name} {value} ({end})", self.invoked.order, self.process)
    }
}

/// Why an event cannot be part of a history, or a text is none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryError {
    /// The last line ends in the middle: whoever wrote it was stopped. The lines before it are a history of their own.
    Torn {
        /// Number of the line, from 1.
        line: usize,
    },
    /// Something that is no event of this kind of history.
    Malformed {
        /// Number of the line, or of the event where the text has no lines, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// An answer to a question that was never asked.
    NotInvoked {
        /// The process.
        process: u64,
    },
    /// A process that asks again before it was answered.
    StillOpen {
        /// The process.
        process: u64,
    },
    /// A process that goes on after an operation whose end it does not know: it needs a new number, since the old operation
    /// may still take effect.
    Retired {
        /// The process.
        process: u64,
    },
    /// An answer that cannot be one to the call.
    Unfit {
        /// The process.
        process: u64,
        /// The call and the answer.
        what: String,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { line } => write!(f, "line {line} is torn: its writer was stopped in the middle of it"),
            Self::Malformed { line, why } => write!(f, "event {line}: {why}"),
            Self::NotInvoked { process } => write!(f, "process {process} has an answer to what it never asked"),
            Self::StillOpen { process } => write!(f, "process {process} asks again before it was answered"),
            Self::Retired { process } => {
                write!(f, "process {process} goes on after an operation with an unknown end; give it a new number")
            }
            Self::Unfit { process, what } => write!(f, "process {process} was answered what it did not ask: {what}"),
        }
    }
}

impl std::error::Error for HistoryError {}

/// Operations in the order of their invocation.
///
/// What is in a history is legal: one open operation per process, no answer without a question, no process that goes on
/// after an unknown end. What would not be legal is refused with a [`HistoryError`].
/// Two histories are equal when their operations are.
#[derive(Debug, Clone)]
pub struct History<K: Kind> {
    operations: Vec<Operation<K>>,
    open: HashMap<u64, usize>,
    retired: HashSet<u64>,
    events: u64,
}

impl<K: Kind> PartialEq for History<K> {
    fn eq(&self, other: &Self) -> bool {
        self.operations == other.operations
    }
}

impl<K: Kind> Default for History<K> {
    fn default() -> Self {
        Self { operations: Vec::new(), open: HashMap::new(), retired: HashSet::new(), events: 0 }
    }
}

impl<K: Kind> History<K> {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All operations, by invocation. What is still open ends as [`End::Info`].
    #[must_use]
    pub fn operations(&self) -> &[Operation<K>] {
        &self.operations
    }

    /// Notes that a process is about to send a call, and gives the operation's index.
    ///
    /// # Errors
    /// When the process still waits for an answer, or was retired by an unknown end.
    pub fn invoke(&mut self, process: u64, call: K::Call) -> Result<usize, HistoryError> {
        self.invoke_at(process, call, None)
    }

    /// Notes how the open operation of a process ended.
    ///
    /// # Errors
    /// When it has none open, or when the reply cannot be one to the call.
    pub fn complete(&mut self, process: u64, end: End<K::Reply>) -> Result<(), HistoryError> {
        self.complete_at(process, end, None)
    }

    /// [`History::invoke`] and [`History::complete`] in one: nothing else happens between them.
    ///
    /// # Errors
    /// As theirs.
    pub fn call(&mut self, process: u64, call: K::Call, end: End<K::Reply>) -> Result<(), HistoryError> {
        self.invoke(process, call)?;
        self.complete(process, end)
    }

    pub(crate) fn invoke_at(&mut self, process: u64, call: K::Call, nanos: Option<u64>) -> Result<usize, HistoryError> {
        if self.retired.contains(&process) {
            return Err(HistoryError::Retired { process });
        }
        let index = self.operations.len();
        match self.open.entry(process) {
            std::collections::hash_map::Entry::Occupied(_) => return Err(HistoryError::StillOpen { process }),
            std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(index),
        };
        let invoked = self.moment(nanos);
        self.operations.push(Operation { process, call, invoked, ended: NEVER, end: End::Info });
        Ok(index)
    }

    pub(crate) fn complete_at(
        &mut self,
        process: u64,
        end: End<K::Reply>,
        nanos: Option<u64>,
    ) -> Result<(), HistoryError> {
        let index = *self.open.get(&process).ok_or(HistoryError::NotInvoked { process })?;
        let call = &self.operations[index].call;
        if let End::Ok(reply) = &end
            && !K::fits(call, reply)
        {
            return Err(HistoryError::Unfit { process, what: format!("{call:?} was answered {reply:?}") });
        }
        self.open.remove(&process);
        let ended = self.moment(nanos);
        if matches!(end, End::Info) {
            self.retired.insert(process);
        } else {
            self.operations[index].ended = ended;
        }
        self.operations[index].end = end;
        Ok(())
    }

    /// The open operation of a process.
    pub(crate) fn open(&self, process: u64) -> Option<&Operation<K>> {
        self.open.get(&process).map(|index| &self.operations[*index])
    }

    fn moment(&mut self, nanos: Option<u64>) -> Moment {
        let order = self.events;
        self.events += 1;
        Moment { order, nanos: nanos.unwrap_or(order) }
    }
}
