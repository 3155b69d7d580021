//! The recorder: any thread, any executor, one order.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::history::{End, History, Kind};
use super::text::Event;

type Clock = Box<dyn Fn() -> Duration + Send + Sync>;
type Journal = Box<dyn FnMut(&str) + Send>;

/// Writes a history while it happens.
///
/// An operation is noted before it is sent and again after its answer came, in one order over all threads: what is recorded
/// as later may have overlapped, what is recorded as having ended before another began did. The recorder reads no clock
/// of its own; [`Recorder::clock`] gives it one for times in reports.
///
/// ```
/// use harness_props::history::register::{Call, Register, Reply};
/// use harness_props::history::{End, Recorder};
///
/// let recorder = Recorder::<Register>::new();
/// let mut client = recorder.process();
/// client.invoke(Call::write("x", 1)).ok(Reply::Done);
/// drop(client.invoke(Call::write("x", 2))); // gave up: nobody knows whether it was written
/// client.invoke(Call::read("x")).ok(Reply::Value(Some(2)));
///
/// let history = recorder.history();
/// assert_eq!(history.operations()[1].end, End::Info);
/// assert!(history.judge(&Default::default()).outcome().is_pass());
/// ```
pub struct Recorder<K: Kind> {
    shared: Arc<Shared<K>>,
}

struct Shared<K: Kind> {
    history: Mutex<Record<K>>,
    processes: AtomicU64,
    clock: Option<Clock>,
}

struct Record<K: Kind> {
    history: History<K>,
    journal: Option<Journal>,
}

impl<K: Kind> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Record<K>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> Option<u64> {
        self.clock.as_ref().map(|clock| u64::try_from(clock().as_nanos()).unwrap_or(u64::MAX))
    }

    fn new_process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::Relaxed)
    }
}

impl<K: Kind> Clone for Recorder<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Kind> Default for Recorder<K> {
    fn default() -> Self {
        Self::build(None, None)
    }
}

impl<K: Kind> fmt::Debug for Recorder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations = self.shared.lock().history.operations().len();
        f.debug_struct("Recorder").field("operations", &operations).finish_non_exhaustive()
    }
}

impl<K: Kind> Recorder<K> {
    /// A recorder that counts events and knows no time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A recorder whose moments carry the time of this clock: durations since any one beginning.
    #[must_use]
    pub fn clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self::build(Some(Box::new(clock)), None)
    }

    /// A recorder that hands every event to `journal` as a line of JSON, without its line end, before the call it belongs to
    /// goes on: what a killed process had recorded is then still there.
    #[must_use]
    pub fn journal(
        clock: impl Fn() -> Duration + Send + Sync + 'static,
        journal: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        Self::build(Some(Box::new(clock)), Some(Box::new(journal)))
    }

    fn build(clock: Option<Clock>, journal: Option<Journal>) -> Self {
        let history = Mutex::new(Record { history: History::new(), journal });
        Self { shared: Arc::new(Shared { history, processes: AtomicU64::new(0), clock }) }
    }

    /// A new process: one thread or task of calls.
    #[must_use]
    pub fn process(&self) -> Process<K> {
        Process { id: self.shared.new_process(), shared: Arc::clone(&self.shared) }
    }

    /// What was recorded so far; what is under way ends as [`End::Info`].
    #[must_use]
    pub fn history(&self) -> History<K> {
        self.shared.lock().history.clone()
    }
}

/// One thread or task of calls. Its number changes by itself after an operation with an unknown end.
pub struct Process<K: Kind> {
    id: u64,
    shared: Arc<Shared<K>>,
}

impl<K: Kind> fmt::Debug for Process<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("id", &self.id).finish_non_exhaustive()
    }
}

impl<K: Kind> Process<K> {
    /// The number its next operation is recorded under.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Notes that a call is about to be sent. The process is borrowed until its end is noted, so that it cannot have two
    /// open at once.
    pub fn invoke(&mut self, call: K::Call) -> Pending<'_, K> {
        let nanos = self.shared.nanos();
        let mut record = self.shared.lock();
        let Record { history, journal } = &mut *record;
        if let Some(journal) = journal {
            let (f, value) = K::form(&call, None);
            journal(&Event { kind: "invoke", process: self.id, f, value, nanos }.json());
        }
        // Cannot be refused: the process is borrowed while it waits, and has a new number after an unknown end.
        let noted = history.invoke_at(self.id, call, nanos);
        debug_assert!(noted.is_ok());
        drop(record);
        Pending { process: self }
    }

    /// Records a call around a future: notes the call, awaits, and notes the end that `end` reads off the output. Dropping
    /// the future on the way, as a time limit does, notes [`End::Info`].
    pub async fn observe<T>(
        &mut self,
        call: K::Call,
        work: impl Future<Output = T>,
        end: impl FnOnce(&T) -> End<K::Reply>,
    ) -> T {
        let pending = self.invoke(call);
        let output = work.await;
        pending.end(end(&output));
        output
    }
}

/// A call that was sent and not answered yet. Dropped without an answer, its end is unknown.
#[must_use = "an operation whose end is not noted ends as unknown"]
pub struct Pending<'p, K: Kind> {
    process: &'p mut Process<K>,
}

impl<K: Kind> fmt::Debug for Pending<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("process", &self.process.id).finish_non_exhaustive()
    }
}

impl<K: Kind> Pending<'_, K> {
    /// It was done, and this came back. A reply that cannot be one to the call is recorded as an unknown end.
    pub fn ok(self, reply: K::Reply) {
        self.end(End::Ok(reply));
    }

    /// It was refused for certain, and has no effect. A time-out is not that.
    pub fn fail(self) {
        self.end(End::Fail);
    }

    /// Nobody knows how it ended; the same as dropping it.
    pub fn info(self) {
        drop(self);
    }

    /// It ended like this.
    pub fn end(self, end: End<K::Reply>) {
        if !matches!(end, End::Info) {
            self.process.note(end);
        }
    }
}

impl<K: Kind> Drop for Pending<'_, K> {
    fn drop(&mut self) {
        let is_open = self.process.shared.lock().history.open(self.process.id).is_some();
        if is_open {
            self.process.note(End::Info);
        }
    }
}

impl<K: Kind> Process<K> {
    fn note(&mut self, end: End<K::Reply>) {
        let nanos = self.shared.nanos();
        let mut record = self.shared.lock();
        let Record { history, journal } = &mut *record;
        let fits = match (&end, history.open(self.id)) {
            (End::Ok(reply), Some(open)) => K::fits(&open.call, reply),
            _ => true,
        };
        let end = if fits { end } else { End::Info };
        if let (Some(journal), Some(open)) = (journal, history.open(self.id)) {
            let (kind, reply) = match &end {
                End::Ok(reply) => ("ok", Some(reply)),
                End::Fail => ("fail", None),
                End::Info => ("info", None),
            };
            let (f, value) = K::form(&open.call, reply);
            journal(&Event { kind, process: self.id, f, value, nanos }.json());
        }
        let retired = matches!(end, End::Info);
        let noted = history.complete_at(self.id, end, nanos);
        debug_assert!(noted.is_ok());
        drop(record);
        if retired {
            self.id = self.shared.new_process();
        }
    }
}
