//! The cache judge: are several instances with copies of their own coherent?
//!
//! Every write carries a version, every operation the interval in which it happened, measured on one clock. A write is
//! *newer* than another only when it began after the other was acknowledged: writes that overlapped may win in either
//! order, and no order of theirs is a fault. An older version that is returned although a newer one was known is charged
//! to exactly one verdict:
//!
//! | verdict | who knew the newer version |
//! |---|---|
//! | `resurrected` | this instance had returned it, and the bound was over: the old one was put back |
//! | `backwards` | this instance had returned it, within the bound (monotonic reads) |
//! | `own_write_missed` | this session had written it (read your writes) |
//! | `deaf` | everybody, and no invalidation ever reached this instance |
//! | `stale` | everybody: it was acknowledged longer ago than the bound |
//!
//! A version nobody wrote, or that is returned before its write began, is a `phantom`. A key that is absent is never
//! older than anything: caches may forget. Monotonic reads and read your writes are the session guarantees of Terry et
//! al., *Session Guarantees for Weakly Consistent Replicated Data*, 1994; the staleness bound is delta-atomicity (Golab,
//! Li, Shah, *Analyzing Consistency Properties for Fun and Profit*, 2011).
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::cache::{CacheHistory, Read, Write};
//!
//! let ms = Duration::from_millis;
//! let mut history = CacheHistory::new();
//! history.write(Write::acknowledged("a", "user:1", 1, ms(0), ms(2)));
//! history.write(Write::acknowledged("a", "user:1", 2, ms(10), ms(12)));
//! history.read(Read::of("b", "user:1", 1, ms(13), ms(14))); // within 50 ms it may still be the old one
//! history.read(Read::of("b", "user:1", 2, ms(70), ms(71)));
//! assert!(history.judge(ms(50)).outcome().is_pass());
//!
//! history.read(Read::of("b", "user:1", 1, ms(80), ms(81)));
//! let verdict = history.judge(ms(50));
//! assert!(verdict.stale.is_empty() && verdict.resurrected.len() == 1);
//! ```

mod judge;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use verdict::{Arrivals, CacheVerdict, Deaf, Offence};

/// One write, or one deletion, of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Write {
    /// The instance it went through.
    pub instance: String,
    /// Whose write it is: the instance, unless [`Write::by`] says otherwise.
    pub session: String,
    /// The key.
    pub key: String,
    /// The version, unique per key.
    pub version: u64,
    /// True when the key was deleted; the deletion is a version of its own.
    pub is_deletion: bool,
    /// When it was sent, since the beginning of the history.
    pub invoked: Duration,
    /// When it was confirmed; `None` when no confirmation came: it may have happened, or may still happen.
    pub acknowledged: Option<Duration>,
}

impl Write {
    /// A write that was confirmed.
    #[must_use]
    pub fn acknowledged(instance: &str, key: &str, version: u64, invoked: Duration, acknowledged: Duration) -> Self {
        let (instance, session) = (instance.to_owned(), instance.to_owned());
        let acknowledged = Some(acknowledged);
        Self { instance, session, key: key.to_owned(), version, is_deletion: false, invoked, acknowledged }
    }

    /// A write whose confirmation never came.
    #[must_use]
    pub fn unanswered(instance: &str, key: &str, version: u64, invoked: Duration) -> Self {
        Self { acknowledged: None, ..Self::acknowledged(instance, key, version, invoked, invoked) }
    }

    /// Says whose write it is.
    #[must_use]
    pub fn by(mut self, session: impl Into<String>) -> Self {
        self.session = session.into();
        self
    }

    /// Makes it a deletion of the key.
    #[must_use]
    pub fn deleting(mut self) -> Self {
        self.is_deletion = true;
        self
    }
}

/// One read that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Read {
    /// The instance that answered.
    pub instance: String,
    /// Whose read it is: the instance, unless [`Read::by`] says otherwise.
    pub session: String,
    /// The key.
    pub key: String,
    /// The version that came; `None` when the key was absent.
    pub seen: Option<u64>,
    /// Whether the instance answered from a copy of its own; `None` when it did not say.
    pub from_copy: Option<bool>,
    /// When it was sent, since the beginning of the history.
    pub invoked: Duration,
    /// When the answer came.
    pub returned: Duration,
}

impl Read {
    /// A read that returned a version.
    #[must_use]
    pub fn of(instance: &str, key: &str, version: u64, invoked: Duration, returned: Duration) -> Self {
        Self { seen: Some(version), ..Self::absent(instance, key, invoked, returned) }
    }

    /// A read that found nothing.
    #[must_use]
    pub fn absent(instance: &str, key: &str, invoked: Duration, returned: Duration) -> Self {
        let (instance, session) = (instance.to_owned(), instance.to_owned());
        Self { instance, session, key: key.to_owned(), seen: None, from_copy: None, invoked, returned }
    }

    /// Says whose read it is.
    #[must_use]
    pub fn by(mut self, session: impl Into<String>) -> Self {
        self.session = session.into();
        self
    }

    /// Says whether the instance answered from a copy of its own. Where reads say so and none did, no copy could be stale
    /// and the judge finds no evidence.
    #[must_use]
    pub fn from_copy(mut self, from_copy: bool) -> Self {
        self.from_copy = Some(from_copy);
        self
    }
}

/// The message that a version is no longer the newest, sent by one instance or received by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Invalidation {
    /// The sender, or the receiver.
    pub instance: String,
    /// The key.
    pub key: String,
    /// The version that made older ones invalid.
    pub version: u64,
    /// When, since the beginning of the history.
    pub at: Duration,
}

/// What several instances of a cache were asked and what they answered. Times are of one clock, since one beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheHistory {
    instances: BTreeSet<String>,
    writes: Vec<Write>,
    reads: Vec<Read>,
    failed_reads: usize,
    published: Vec<Invalidation>,
    received: Vec<Invalidation>,
}

impl CacheHistory {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares an instance, so that one that never answered is missed. Instances that read are known anyway.
    pub fn instance(&mut self, name: impl Into<String>) {
        self.instances.insert(name.into());
    }

    /// Adds a write.
    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Adds a read.
    pub fn read(&mut self, read: Read) {
        self.instances.insert(read.instance.clone());
        self.reads.push(read);
    }

    /// Counts a read that gave an error: it proves nothing, and coverage says how many there were.
    pub fn read_failed(&mut self) {
        self.failed_reads += 1;
    }

    /// Notes that an instance sent the invalidation of everything older than a version.
    pub fn published(&mut self, instance: &str, key: &str, version: u64, at: Duration) {
        self.published.push(Invalidation { instance: instance.to_owned(), key: key.to_owned(), version, at });
    }

    /// Notes that an instance received that invalidation.
    pub fn received(&mut self, instance: &str, key: &str, version: u64, at: Duration) {
        self.received.push(Invalidation { instance: instance.to_owned(), key: key.to_owned(), version, at });
    }

    /// The writes, in the order they were added.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The reads, in the order they were added.
    #[must_use]
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Judges everything: no read that began later than `bound` after a write was acknowledged may return an older version.
    /// Takes time in n log n of the operations.
    #[must_use]
    pub fn judge(&self, bound: Duration) -> CacheVerdict {
        judge::judge(self, bound)
    }
}
