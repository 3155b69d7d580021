//! Who takes part, and what each is at.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{pause, seconds};

/// How often a guard looks, per time that may pass in quiet.
const LOOKS: u32 = 10;

#[derive(Debug)]
struct Entry {
    name: String,
    at: String,
    since: Instant,
    steps: u64,
    is_gone: bool,
}

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    /// Everything anybody ever said.
    advances: u64,
}

/// Everybody who takes part in a test. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Parties(Arc<Mutex<Book>>);

/// One of them. Says what it is at; gone when dropped.
#[must_use = "a party that is dropped has left"]
pub struct Party {
    parties: Parties,
    number: usize,
}

impl Parties {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Somebody joins, which is an advance.
    pub fn join(&self, name: impl Into<String>) -> Party {
        let mut book = self.open();
        let entry =
            Entry { name: name.into(), at: "joined".to_owned(), since: Instant::now(), steps: 0, is_gone: false };
        book.entries.push(entry);
        book.advances += 1;
        Party { parties: self.clone(), number: book.entries.len() - 1 }
    }

    /// The first advance, before anybody has joined.
    pub(super) fn begin(&self) {
        self.open().advances += 1;
    }

    /// How often anybody advanced so far.
    #[must_use]
    pub fn advances(&self) -> u64 {
        self.open().advances
    }

    /// A line for each who has not left: what it is at, for how long, and how many steps it has made.
    #[must_use]
    pub fn dump(&self) -> Vec<String> {
        let book = self.open();
        let here = book.entries.iter().filter(|entry| !entry.is_gone);
        let line = |entry: &Entry| {
            let Entry { name, at, since, steps, .. } = entry;
            format!("{name}: {at}, for {}, after {steps} steps", seconds(since.elapsed()))
        };
        here.map(line).collect()
    }

    /// Awaits a future as long as somebody advances at least once in so much time.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when nobody did, with the state of everybody; the future is dropped.
    pub async fn guard<T>(&self, quiet: Duration, future: impl Future<Output = T>) -> CoreResult<T> {
        let mut future = pin!(future);
        let mut watch = pin!(self.quiet(quiet));
        tokio::select! {
            biased;
            done = &mut future => Ok(done),
            () = &mut watch => Err(self.hang(quiet)),
        }
    }

    /// Ready when nobody has advanced for so long.
    async fn quiet(&self, quiet: Duration) {
        let (mut seen, mut since) = (self.advances(), Instant::now());
        while since.elapsed() < quiet {
            pause((quiet / LOOKS).max(Duration::from_millis(1))).await;
            let now = self.advances();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    /// The error of a test in which nothing has advanced for so long.
    pub(super) fn hang(&self, quiet: Duration) -> Error {
        let error = Error::new(ErrorKind::Timeout, format!("nothing has advanced for {}", seconds(quiet)));
        let dump = self.dump();
        let error = match dump.is_empty() {
            true => error.tried("nobody takes part: let those who work join the parties"),
            false => dump.into_iter().fold(error, Error::tried),
        };
        let tasks = tokio::runtime::Handle::try_current().map(|runtime| runtime.metrics().num_alive_tasks());
        let error = match tasks {
            Ok(tasks) => error.tried(format!("runtime: {tasks} tasks are alive")),
            Err(_) => error,
        };
        error.remedy("look at who waits for whom, the longest first")
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Party {
    /// It is at something new, which is an advance.
    pub fn at(&mut self, what: impl Into<String>) {
        self.change(|entry| {
            entry.at = what.into();
            entry.since = Instant::now();
        });
    }

    /// It is at the same as before and has done another piece of it, which is an advance.
    pub fn step(&mut self) {
        self.change(|_| {});
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut book = self.parties.open();
        book.advances += 1;
        if let Some(entry) = book.entries.get_mut(self.number) {
            entry.steps += 1;
            change(entry);
        }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.change(|entry| entry.is_gone = true);
    }
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.parties.open();
        let entry = book.entries.get(self.number);
        write!(f, "Party({})", entry.map_or_else(String::new, |entry| format!("{}: {}", entry.name, entry.at)))
    }
}
