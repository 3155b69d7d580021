//! Drives several instances of a cache against each other and has the history judged.
//!
//! Per key and round one instance writes a new version, reads it back, and all others read until they see it or the bound is
//! over; then, later than the bound, everybody reads again. Writers take turns. Keys are driven at the same time, so an
//! instance answers for several at once. Nothing is slept for but the bound itself. What the judge makes of it:
//! [`harness_props::history::cache`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::wait::{pause, pause_until, within};
use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::history::cache::{CacheHistory, CacheVerdict, Read, Write};
use tokio::task::JoinSet;

use super::logical::checked;

/// How long one read or write may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Between two reads of an instance that has not seen the new version.
const BETWEEN_READS: Duration = Duration::from_millis(2);

/// What one read of an instance found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    version: Option<u64>,
    from_copy: Option<bool>,
}

impl Seen {
    /// A version; it stands in the value.
    #[must_use]
    pub fn version(version: u64) -> Self {
        Self { version: Some(version), from_copy: None }
    }

    /// No such key.
    #[must_use]
    pub fn absent() -> Self {
        Self { version: None, from_copy: None }
    }

    /// Whether the instance answered from a copy of its own. Say so where you know it: a cache that never does proves nothing.
    #[must_use]
    pub fn from_copy(mut self, from_copy: bool) -> Self {
        self.from_copy = Some(from_copy);
        self
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

struct Instance {
    name: String,
    read: Box<dyn Fn(String) -> Answer<Seen> + Send + Sync>,
    write: Box<dyn Fn(String, u64) -> Answer<()> + Send + Sync>,
}

/// Where instances note the invalidations they send and receive. Clone it into them.
#[derive(Debug, Clone)]
pub struct Invalidations {
    begun: Instant,
    notes: Arc<Mutex<Vec<Note>>>,
}

#[derive(Debug, Clone)]
struct Note {
    is_sent: bool,
    instance: String,
    key: String,
    version: u64,
    at: Instant,
}

impl Default for Invalidations {
    fn default() -> Self {
        Self { begun: Instant::now(), notes: Arc::default() }
    }
}

impl Invalidations {
    /// Without notes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An instance tells the others that everything older than this version is invalid. Call it before sending.
    pub fn published(&self, instance: &str, key: &str, version: u64) {
        self.note(true, instance, key, version);
    }

    /// An instance was told so. Call it where the message is handled.
    pub fn received(&self, instance: &str, key: &str, version: u64) {
        self.note(false, instance, key, version);
    }

    fn note(&self, is_sent: bool, instance: &str, key: &str, version: u64) {
        let (instance, key, at) = (instance.to_owned(), key.to_owned(), Instant::now());
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(Note { is_sent, instance, key, version, at });
    }
}

/// Instances of a cache that are to be driven against each other.
#[must_use = "run it"]
pub struct Coherence {
    bound: Duration,
    keys: usize,
    rounds: u64,
    prefix: String,
    instances: Vec<Instance>,
    invalidations: Invalidations,
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.instances.iter().map(|instance| &*instance.name).collect();
        f.debug_struct("Coherence").field("bound", &self.bound).field("instances", &names).finish_non_exhaustive()
    }
}

/// What was done and what the judge made of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoherenceRun {
    /// Every operation.
    pub history: CacheHistory,
    /// The verdict.
    pub verdict: CacheVerdict,
    /// The first error of an instance, if there was one: failed reads prove nothing, failed writes may have happened.
    pub first_error: Option<String>,
}

impl CoherenceRun {
    /// The verdict as an error when the instances are not coherent.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the offences by kind; [`ErrorKind::NoEvidence`] when nothing was proven.
    pub fn check(&self) -> CoreResult<&Self> {
        match (checked(self.verdict.outcome()), &self.first_error) {
            (Err(error), Some(first)) => Err(error.tried(format!("an instance gave an error: {first}"))),
            (result, _) => result.map(|()| self),
        }
    }
}

impl Coherence {
    /// No read that begins later than `bound` after a write may return an older version. Choose the bound that the cache
    /// promises; a run takes the bound once per round.
    pub fn within(bound: Duration) -> Self {
        let (instances, invalidations) = (Vec::new(), Invalidations::new());
        Self { bound, keys: 4, rounds: 3, prefix: "coherence".to_owned(), instances, invalidations }
    }

    /// Adds an instance: how to read a key through it, and how to write a version of a key through it. The version stands in
    /// the value. Instances may be tasks, clients of processes, anything that answers.
    pub fn instance<R, W, ER, EW>(
        mut self,
        name: impl Into<String>,
        read: impl Fn(String) -> R + Send + Sync + 'static,
        write: impl Fn(String, u64) -> W + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = Result<Seen, ER>> + Send + 'static,
        W: Future<Output = Result<(), EW>> + Send + 'static,
        ER: fmt::Display,
        EW: fmt::Display,
    {
        let read = move |key| {
            let answer = read(key);
            Box::pin(async move { answer.await.map_err(|error| error.to_string()) }) as Answer<Seen>
        };
        let write = move |key, version| {
            let answer = write(key, version);
            Box::pin(async move { answer.await.map_err(|error| error.to_string()) }) as Answer<()>
        };
        self.instances.push(Instance { name: name.into(), read: Box::new(read), write: Box::new(write) });
        self
    }

    /// How many keys are driven at the same time; 4 unless set.
    pub fn keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    /// How many new versions each key gets; 3 unless set.
    pub fn rounds(mut self, rounds: u64) -> Self {
        self.rounds = rounds;
        self
    }

    /// What keys begin with; `coherence` unless set: `coherence:0`, `coherence:1`, …
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Where the instances note their invalidations. Without notes an instance that nothing reaches is merely stale, and there
    /// are no delays.
    pub fn invalidations(mut self, invalidations: &Invalidations) -> Self {
        self.invalidations = invalidations.clone();
        self
    }

    /// Drives the instances and judges.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with fewer than two instances. What the instances do wrong stands in the verdict.
    pub async fn run(self) -> CoreResult<CoherenceRun> {
        if self.instances.len() < 2 || self.keys == 0 || self.rounds == 0 {
            let (n, keys, rounds) = (self.instances.len(), self.keys, self.rounds);
            let what = format!(
                "coherence needs two instances, a key and a round: {n} instances, {keys} keys, {rounds} rounds"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        let drive = Arc::new(Drive {
            begun: self.invalidations.begun,
            bound: self.bound,
            rounds: self.rounds,
            instances: self.instances.into_iter().map(Arc::new).collect(),
            log: Mutex::default(),
        });
        let mut keys = JoinSet::new();
        for n in 0..self.keys {
            let (drive, key) = (Arc::clone(&drive), format!("{}:{n}", self.prefix));
            keys.spawn(async move { drive.key(n, key).await });
        }
        while let Some(done) = keys.join_next().await {
            done.map_err(|error| Error::new(ErrorKind::Exited, "an instance of the cache panicked").caused_by(error))?;
        }
        let log = std::mem::take(&mut *drive.log.lock().unwrap_or_else(PoisonError::into_inner));
        let mut history = log.history;
        drive.instances.iter().for_each(|instance| history.instance(&instance.name));
        for note in self.invalidations.notes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let at = note.at.saturating_duration_since(drive.begun);
            match note.is_sent {
                true => history.published(&note.instance, &note.key, note.version, at),
                false => history.received(&note.instance, &note.key, note.version, at),
            }
        }
        let verdict = history.judge(self.bound);
        Ok(CoherenceRun { history, verdict, first_error: log.first_error })
    }
}

#[derive(Default)]
struct Log {
    history: CacheHistory,
    first_error: Option<String>,
}

impl Log {
    /// Keeps the first error.
    fn failed(&mut self, error: String) {
        self.first_error.get_or_insert(error);
    }
}

struct Drive {
    begun: Instant,
    bound: Duration,
    rounds: u64,
    instances: Vec<Arc<Instance>>,
    log: Mutex<Log>,
}

impl Drive {
    fn note(&self, note: impl FnOnce(&mut Log)) {
        note(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All rounds of one key.
    async fn key(self: &Arc<Self>, n: usize, key: String) {
        for version in 1..=self.rounds + 1 {
            let turn = usize::try_from(version).unwrap_or(0).wrapping_add(n) % self.instances.len();
            let writer = &self.instances[turn];
            let Some(acknowledged) = self.write(writer, &key, version).await else { continue };
            let _ = self.read(writer, &key).await;
            let mut readers = JoinSet::new();
            for reader in self.instances.iter().filter(|instance| !Arc::ptr_eq(instance, writer)) {
                let (drive, reader, key) = (Arc::clone(self), Arc::clone(reader), key.clone());
                readers.spawn(async move { drive.until(&reader, &key, version, acknowledged).await });
            }
            while let Some(done) = readers.join_next().await {
                if let Err(error) = done {
                    self.note(|log| log.failed(error.to_string()));
                }
            }
            pause_until(acknowledged + self.bound + Duration::from_millis(1)).await;
            for reader in &self.instances {
                let _ = self.read(reader, &key).await;
            }
        }
    }

    /// Reads until the version is seen, or a read began later than the bound.
    async fn until(&self, reader: &Instance, key: &str, version: u64, acknowledged: Instant) {
        loop {
            let begun = Instant::now();
            if self.read(reader, key).await == Some(version) || begun > acknowledged + self.bound {
                return;
            }
            pause(BETWEEN_READS).await;
        }
    }

    async fn write(&self, writer: &Instance, key: &str, version: u64) -> Option<Instant> {
        let invoked = self.begun.elapsed();
        let answer = within("a write", CALL_LIMIT, (writer.write)(key.to_owned(), version)).await;
        let acknowledged = Instant::now();
        let at = acknowledged.saturating_duration_since(self.begun);
        match answer.map_err(|error| error.to_string()).and_then(|answer| answer) {
            Ok(()) => {
                self.note(|log| log.history.write(Write::acknowledged(&writer.name, key, version, invoked, at)));
                Some(acknowledged)
            }
            Err(error) => {
                self.note(|log| {
                    log.history.write(Write::unanswered(&writer.name, key, version, invoked));
                    log.failed(format!("`{}` writing `{key}`: {error}", writer.name));
                });
                None
            }
        }
    }

    async fn read(&self, reader: &Instance, key: &str) -> Option<u64> {
        let invoked = self.begun.elapsed();
        let answer = within("a read", CALL_LIMIT, (reader.read)(key.to_owned())).await;
        let returned = self.begun.elapsed();
        match answer.map_err(|error| error.to_string()).and_then(|answer| answer) {
            Ok(seen) => {
                let read = match seen.version {
                    Some(version) => Read::of(&reader.name, key, version, invoked, returned),
                    None => Read::absent(&reader.name, key, invoked, returned),
                };
                let read = match seen.from_copy {
                    Some(from_copy) => read.from_copy(from_copy),
                    None => read,
                };
                self.note(|log| log.history.read(read));
                seen.version
            }
            Err(error) => {
                self.note(|log| {
                    log.history.read_failed();
                    log.failed(format!("`{}` reading `{key}`: {error}", reader.name));
                });
                None
            }
        }
    }
}
