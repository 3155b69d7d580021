//! A connection pool of this process, watched: who borrowed from where and since when, how long borrowers waited, and what
//! was never given back.
//!
//! Borrow through [`WatchedPool::acquire`], and every connection knows the line that borrowed it. Connections that code
//! borrows from the pool itself are counted, but nobody knows by whom: for these, and for pools of other processes, the
//! server's own list ([`Database::sessions_now`](crate::Database::sessions_now)) names application, last statement and since
//! when.

mod report;
mod stress;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use harness_core::wait::{Progress, pause, seconds, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

use super::sampling::locked;
use crate::clerk;

pub use report::{Holder, PoolPoint, PoolReport};
pub use stress::Stress;

/// How often the pool is looked at besides every borrow and return.
const EVERY: Duration = Duration::from_millis(10);

/// A pool under watch; clones are the same watch.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(db: &harness_db::Database) -> harness_db::Result {
/// let pool = harness_db::watch_pool(db.pool());
/// let mut connection = pool.acquire().await?; // remembers this line
/// sqlx::query("select 1").execute(&mut *connection).await?;
/// drop(connection);
/// pool.returned(Duration::from_secs(1)).await?; // else names the lines that still hold one
/// pool.report().check_no_wait_longer_than(Duration::from_millis(100))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct WatchedPool {
    pool: PgPool,
    book: Arc<Book>,
}

/// A borrowed connection; dropping it gives it back.
#[derive(Debug)]
pub struct Borrowed {
    connection: PoolConnection<Postgres>,
    entry: Entry,
}

/// What is known about the pool.
#[derive(Debug)]
struct Book {
    begun: Instant,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    held: BTreeMap<u64, Since>,
    waiting: BTreeMap<u64, Since>,
    waits: Vec<Duration>,
    slowest: Option<Holder>,
    refused: Vec<String>,
    points: Vec<PoolPoint>,
    samples: u64,
}

type Place = &'static Location<'static>;

#[derive(Debug, Clone, Copy)]
struct Since {
    place: Place,
    at: Instant,
}

/// One line in the book, as somebody who waits or who holds; gone when dropped, whatever cut the borrower short.
#[derive(Debug)]
struct Entry {
    book: Arc<Book>,
    number: u64,
    is_held: bool,
}

/// Watches a pool, from now until the last clone of the watch is dropped.
#[must_use = "borrow through it, and ask it for its report"]
pub fn watch_pool(pool: &PgPool) -> WatchedPool {
    let book = Arc::new(Book { begun: Instant::now(), pages: Mutex::default() });
    let watched = WatchedPool { pool: pool.clone(), book };
    watched.look();
    // The task holds no clone: a watch nobody holds any more ends it.
    let (pool, book) = (pool.clone(), Arc::downgrade(&watched.book));
    clerk::spawn(move || look_on(pool, book));
    watched
}

async fn look_on(pool: PgPool, book: Weak<Book>) {
    loop {
        pause(EVERY).await;
        let Some(book) = book.upgrade() else { return };
        book.look(&pool);
    }
}

impl WatchedPool {
    /// Borrows a connection and remembers the line that did.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the pool's own `acquire_timeout` is over, naming the lines that hold its connections;
    /// [`ErrorKind::Connect`] when none can be opened.
    #[track_caller]
    pub fn acquire(&self) -> impl Future<Output = CoreResult<Borrowed>> + Send + use<> {
        let (watched, place) = (self.clone(), Location::caller());
        async move { watched.borrow(place).await }
    }

    async fn borrow(self, place: Place) -> CoreResult<Borrowed> {
        let mut entry = Entry::waits(&self.book, place);
        let begun = Instant::now();
        let answer = self.pool.acquire().await;
        let waited = begun.elapsed();
        match answer {
            Ok(connection) => {
                entry.holds(place, waited);
                self.look();
                Ok(Borrowed { connection, entry })
            }
            Err(error) => Err(self.refused(place, waited, error)),
        }
    }

    fn refused(&self, place: Place, waited: Duration, error: sqlx::Error) -> Error {
        let kind = match error {
            sqlx::Error::PoolTimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Connect,
        };
        let what = format!("no connection for {place} within {}", seconds(waited));
        locked(&self.book.pages).refused.push(format!("{what}: {error}"));
        let report = self.report();
        let holders = report.holders_by_place();
        let error = Error::new(kind, what).caused_by(error);
        let error = holders.into_iter().fold(error, |error, holder| error.tried(format!("held: {holder}")));
        error.remedy("give connections back sooner, or raise the pool's maximum")
    }

    /// The pool itself.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    fn look(&self) {
        self.book.look(&self.pool);
    }

    /// What was seen so far.
    #[must_use]
    pub fn report(&self) -> PoolReport {
        let point = self.book.look(&self.pool);
        let pages = locked(&self.book.pages);
        let tell = |since: &Since| Holder { place: since.place.to_string(), lasted: since.at.elapsed() };
        PoolReport {
            samples: pages.samples,
            points: pages.points.clone(),
            holders: pages.held.values().map(tell).collect(),
            waiting: pages.waiting.values().map(tell).collect(),
            waits: pages.waits.clone(),
            slowest: pages.slowest.clone(),
            refused: pages.refused.clone(),
            now: point,
        }
    }

    /// Waits until every borrowed connection was given back.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the lines that still hold one at the limit; [`ErrorKind::NoEvidence`] when nothing
    /// was ever borrowed.
    pub async fn returned(&self, limit: Duration) -> CoreResult {
        super::sampling::hold(self.returned_within(limit).await)
    }

    /// As [`WatchedPool::returned`], as an outcome.
    pub async fn returned_within(&self, limit: Duration) -> Outcome {
        let all_back = async || match self.report() {
            report if report.now.in_use == 0 => Progress::Ready(()),
            report => Progress::NotYet(format!("{} in use", report.now.in_use)),
        };
        // A connection goes back in a task of its own: it is in use for a moment after it was dropped.
        let _ = wait_for("all connections to come back", limit, all_back).await;
        self.report().nothing_leaked()
    }

    /// Waits until the pool has shrunk to at most `base` connections; passes when it did within `limit`.
    pub async fn shrinks_to(&self, base: u32, limit: Duration) -> Outcome {
        let peak = self.report().most_open();
        if peak <= base {
            return Outcome::no_evidence(format!("the pool never grew beyond {base} connections: {peak} at most"));
        }
        let settled = wait_for("the pool to shrink", limit, async || match self.pool.size() {
            size if size <= base => Progress::Ready(size),
            size => Progress::NotYet(format!("{size} connections")),
        });
        match settled.await {
            Ok(left) => Outcome::pass(format!("{left} connections after a peak of {peak}")),
            Err(_) => Outcome::fail(format!(
                "{} connections {} after a peak of {peak}, {base} at most are allowed at rest",
                self.pool.size(),
                seconds(limit)
            )),
        }
    }
}

impl Book {
    /// Takes a sample; kept when something changed.
    fn look(&self, pool: &PgPool) -> PoolPoint {
        let (size, idle) = (pool.size(), u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
        let mut pages = locked(&self.pages);
        let waiting = u32::try_from(pages.waiting.len()).unwrap_or(u32::MAX);
        let point = PoolPoint { at: self.begun.elapsed(), size, idle, in_use: size.saturating_sub(idle), waiting };
        pages.samples += 1;
        let same = pages.points.last().is_some_and(|last| PoolPoint { at: point.at, ..last.clone() } == point);
        if !same {
            pages.points.push(point.clone());
        }
        point
    }
}

impl Entry {
    fn waits(book: &Arc<Book>, place: Place) -> Self {
        let mut pages = locked(&book.pages);
        pages.next += 1;
        let number = pages.next;
        pages.waiting.insert(number, Since { place, at: Instant::now() });
        drop(pages);
        Self { book: Arc::clone(book), number, is_held: false }
    }

    fn holds(&mut self, place: Place, waited: Duration) {
        let mut pages = locked(&self.book.pages);
        pages.waiting.remove(&self.number);
        pages.held.insert(self.number, Since { place, at: Instant::now() });
        pages.waits.push(waited);
        if pages.slowest.as_ref().is_none_or(|known| known.lasted < waited) {
            pages.slowest = Some(Holder { place: place.to_string(), lasted: waited });
        }
        drop(pages);
        self.is_held = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut pages = locked(&self.book.pages);
        match self.is_held {
            true => pages.held.remove(&self.number),
            false => pages.waiting.remove(&self.number),
        };
    }
}

impl Borrowed {
    /// The line that borrowed it.
    #[must_use]
    pub fn place(&self) -> String {
        let pages = locked(&self.entry.book.pages);
        pages.held.get(&self.entry.number).map(|since| since.place.to_string()).unwrap_or_default()
    }
}

impl Deref for Borrowed {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl fmt::Display for Holder {
    /// `tests/orders.rs:40:28 for 3.2 s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.place, seconds(self.lasted))
    }
}
