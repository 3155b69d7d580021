//! One logical database as a thing to be looked at, wherever it lives: leased, own, or of the system under test.

use std::collections::HashSet;

use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;

use super::{Keyspace, OwnRedis, wire};
use crate::redis::guest::MARKER;

/// How many keys one `SCAN` looks at, and one pipeline asks about.
pub(super) const BATCH: usize = 500;

/// A logical database to be looked at: keys and their times to live, sizes, commands, messages.
///
/// A [`Keyspace`] and an [`OwnRedis`] are looked at through their own methods of the same names; [`LogicalDb::at`] looks at the
/// Redis of the system under test. What Redis counts per server and not per database (lookups, commands, memory, the slow
/// log) belongs to everybody who uses the server: such checks give [`ErrorKind::NoEvidence`] unless the server is an
/// [`OwnRedis`], or [`LogicalDb::alone`] says that nobody else uses it.
#[derive(Debug, Clone)]
pub struct LogicalDb {
    info: Box<ConnectionInfo>,
    is_alone: bool,
}

impl LogicalDb {
    /// The one that a URL names, 0 when it names none.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that is none.
    pub fn at(url: &str) -> CoreResult<Self> {
        let (info, _) = wire::parse_url("the URL of the observed Redis", url)?;
        Ok(Self { info: Box::new(info), is_alone: false })
    }

    /// States that nobody but the system under test uses this server, so that what the server counts is the system's doing.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// A new connection. It belongs to the runtime of this test.
    ///
    /// # Errors
    /// When the server refuses it or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&self.info).await
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Refuses what the server counts for all its users together.
    pub(super) fn need_alone(&self, what: &str) -> CoreResult {
        if self.is_alone {
            return Ok(());
        }
        let text = format!("{what} would count what others do: Redis counts it per server, and this one is shared");
        Err(Error::new(ErrorKind::NoEvidence, text).remedy(
            "start an OwnRedis for this test; for a server that nobody else uses say `LogicalDb::at(url)?.alone()`",
        ))
    }

    /// Refuses to change a setting of a server that others use.
    pub(super) fn need_own_settings(&self, what: &str) -> CoreResult {
        if self.is_alone {
            return Ok(());
        }
        let text = format!("{what} would change settings of a Redis that others share");
        Err(Error::new(ErrorKind::Refused, text).remedy("start an OwnRedis for this test"))
    }

    /// All keys that match a glob, each once. `SCAN`, never `KEYS`: the server serves others meanwhile.
    pub(super) async fn keys(connection: &mut MultiplexedConnection, pattern: &str) -> CoreResult<Vec<Vec<u8>>> {
        let (mut cursor, mut seen, mut keys) = (0_u64, HashSet::new(), Vec::new());
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(BATCH);
            let (next, found): (u64, Vec<Vec<u8>>) =
                scan.query_async(connection).await.map_err(|error| wire::failed(&["SCAN", pattern], error))?;
            // SCAN may return a key more than once (redis.io, SCAN, "Scan guarantees"); the lease of a guest is no data.
            keys.extend(found.into_iter().filter(|key| key != MARKER.as_bytes() && seen.insert(key.clone())));
            cursor = next;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }
}

impl Keyspace {
    /// This keyspace as a thing to be looked at.
    #[must_use]
    pub fn logical(&self) -> LogicalDb {
        LogicalDb { info: Box::new(self.info.clone()), is_alone: false }
    }
}

impl OwnRedis {
    /// Logical database 1 as a thing to be looked at. Nobody else uses the server.
    #[must_use]
    pub fn logical(&self) -> LogicalDb {
        LogicalDb { info: Box::new(wire::at_index(self.info(), 1)), is_alone: true }
    }
}

/// A key or a value as people read it, cut after 80 characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().flat_map(char::escape_debug).collect();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text,
    }
}

/// Turns a verdict into a result: Pass, Degraded and NotApplicable are Ok.
pub(super) fn checked(outcome: harness_core::Outcome) -> CoreResult {
    match outcome {
        harness_core::Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)),
        harness_core::Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use harness_core::ErrorKind;

    use super::{LogicalDb, shown};

    #[test]
    fn what_is_counted_per_server_is_no_evidence_where_others_count_too() {
        let shared = LogicalDb::at("redis://127.0.0.1:6379/1").unwrap();
        assert_eq!(shared.need_alone("a count").unwrap_err().kind(), ErrorKind::NoEvidence);
        assert_eq!(shared.need_own_settings("a check").unwrap_err().kind(), ErrorKind::Refused);
        assert!(shared.alone().need_alone("a count").is_ok());
    }

    #[test]
    fn keys_are_shown_whole_when_short_and_cut_when_long() {
        assert_eq!(shown(b"a\nb"), "a\\nb");
        assert!(shown(&[b'x'; 200]).ends_with("… (200 bytes)"));
    }
}
