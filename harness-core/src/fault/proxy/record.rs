//! What happened to each connection: the log of decisions that a seed replays, and the bytes that passed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::wire::{Towards, duration_text};

/// Decisions that are kept of one connection; later ones are only counted.
const DECISIONS: usize = 256;
/// Connections that are kept; later ones are only counted.
const CONNECTIONS: usize = 20_000;

/// One decision of a fault: where it bit and what it did there. Holds no time, so that a seed gives the same log again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// The connection, counted from 1 in the order of accepting.
    pub connection: u64,
    /// The stream; none for faults of accepting.
    pub towards: Option<Towards>,
    /// The byte of the stream, counted from 0.
    pub offset: u64,
    /// The fault, counted from 1 in the order in which the proxy's faults were made.
    pub fault: u32,
    /// What it did there: `turned bit 3`.
    pub what: String,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.connection)?;
        match self.towards {
            Some(Towards::Server) => write!(f, ", to server, byte {}", self.offset)?,
            Some(Towards::Client) => write!(f, ", to client, byte {}", self.offset)?,
            None => {}
        }
        write!(f, ": fault {} {}", self.fault, self.what)
    }
}

/// What is known of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Connection {
    /// Counted from 1 in the order of accepting.
    pub number: u64,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// Bytes the server was sent.
    pub to_server: u64,
    /// Bytes the client was sent.
    pub to_client: u64,
    /// What faults did to it: the first 256 decisions of each stream, by place.
    pub decisions: Vec<Decision>,
    /// Decisions beyond those.
    pub unlogged: u64,
    /// How it ended; none while it lives.
    pub end: Option<String>,
}

/// The living record of one connection.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) number: u64,
    client: Option<SocketAddr>,
    passed: [AtomicU64; 2],
    unlogged: AtomicU64,
    /// By stream: what comes first in one must not depend on how fast the other is.
    decisions: Mutex<[Vec<Decision>; 3]>,
    end: Mutex<Option<String>>,
}

impl Record {
    fn new(number: u64, client: Option<SocketAddr>) -> Self {
        Self {
            number,
            client,
            passed: Default::default(),
            unlogged: AtomicU64::new(0),
            decisions: Mutex::default(),
            end: Mutex::default(),
        }
    }

    pub(super) fn passed(&self, towards: Towards, bytes: u64) {
        self.passed[towards as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn decided(&self, towards: Option<Towards>, offset: u64, fault: u32, what: impl Into<String>) {
        let decision = Decision { connection: self.number, towards, offset, fault, what: what.into() };
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        let of_stream = &mut decisions[towards.map_or(2, |towards| towards as usize)];
        if of_stream.len() < DECISIONS {
            of_stream.push(decision);
        } else {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn delayed(&self, towards: Towards, offset: u64, fault: u32, delay: std::time::Duration) {
        self.decided(Some(towards), offset, fault, format!("delayed {}", duration_text(delay)));
    }

    /// The first end is the one that counts.
    pub(super) fn ended(&self, how: impl Into<String>) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| how.into());
    }

    fn seen(&self) -> Connection {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner).concat();
        decisions.sort();
        Connection {
            number: self.number,
            client: self.client,
            to_server: self.passed[Towards::Server as usize].load(Ordering::Relaxed),
            to_client: self.passed[Towards::Client as usize].load(Ordering::Relaxed),
            decisions,
            unlogged: self.unlogged.load(Ordering::Relaxed),
            end: self.end.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The records of all connections of a proxy.
#[derive(Debug, Default)]
pub(super) struct Records {
    kept: Mutex<Vec<Arc<Record>>>,
    count: AtomicU64,
}

impl Records {
    /// A record for the connection that was accepted just now.
    pub(super) fn open(&self, client: Option<SocketAddr>) -> Arc<Record> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Arc::new(Record::new(number, client));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < CONNECTIONS {
            kept.push(Arc::clone(&record));
        }
        record
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn all(&self) -> Vec<Connection> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|record| record.seen()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Records, Towards};

    #[test]
    fn log_is_in_the_order_of_places_and_is_cut_per_stream() {
        let records = Records::default();
        let record = records.open(None);
        record.decided(Some(Towards::Client), 7, 1, "turned bit 3");
        for offset in 0..300 {
            record.decided(Some(Towards::Server), offset, 1, "turned bit 0");
        }
        record.ended("first");
        record.ended("second");
        let seen = records.all().remove(0);
        assert_eq!((seen.decisions.len(), seen.unlogged, seen.end.as_deref()), (257, 44, Some("first")));
        assert_eq!(seen.decisions[256].to_string(), "connection 1, to client, byte 7: fault 1 turned bit 3");
    }
}
