//! Which keys are big: `MEMORY USAGE` of every key, found by `SCAN`.

use std::fmt;

use harness_core::{CoreResult, Outcome};
use redis::aio::MultiplexedConnection;

use super::logical::{BATCH, LogicalDb, checked, shown};
use super::memory::bytes;
use super::{Keyspace, OwnRedis, wire};

/// How many keys a witness names before it only counts.
const SHOWN: usize = 5;

/// One key with its size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BigKey {
    /// The key.
    pub key: String,
    /// `string`, `list`, `set`, `zset`, `hash` or `stream`.
    pub kind: String,
    /// What it takes in memory, in bytes, with its administration. Of collections Redis measures every element.
    pub bytes: u64,
    /// Its length: bytes of a string, elements of a collection; `None` for types of modules.
    pub length: Option<u64>,
}

impl fmt::Display for BigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}, {}", self.key, self.kind, bytes(self.bytes))?;
        match self.length {
            Some(length) if self.kind == "string" => write!(f, ", {length} bytes long)"),
            Some(length) => write!(f, ", {length} elements)"),
            None => f.write_str(")"),
        }
    }
}

/// The keys beyond a size, biggest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BigKeys {
    /// The size, in bytes.
    pub limit_bytes: u64,
    /// How many keys were measured.
    pub measured: usize,
    /// The size of the biggest of all, in bytes.
    pub biggest_bytes: u64,
    /// Those of the limit or more, biggest first.
    pub keys: Vec<BigKey>,
}

impl LogicalDb {
    /// The keys that take `limit_bytes` or more, biggest first.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn bigkeys(&self, limit_bytes: u64) -> CoreResult<BigKeys> {
        let mut connection = self.connection().await?;
        let mut found = BigKeys { limit_bytes, measured: 0, biggest_bytes: 0, keys: Vec::new() };
        for batch in Self::keys(&mut connection, "*").await?.chunks(BATCH) {
            let mut pipe = redis::pipe();
            for key in batch {
                pipe.cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            }
            let sizes: Vec<Option<u64>> =
                pipe.query_async(&mut connection).await.map_err(|error| wire::failed(&["MEMORY", "USAGE"], error))?;
            for (key, size) in batch.iter().zip(sizes) {
                let Some(size) = size else { continue }; // it went meanwhile
                found.measured += 1;
                found.biggest_bytes = found.biggest_bytes.max(size);
                if size >= limit_bytes {
                    found.keys.push(describe(&mut connection, key, size).await?);
                }
            }
        }
        found.keys.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        Ok(found)
    }
}

async fn describe(connection: &mut MultiplexedConnection, key: &[u8], bytes: u64) -> CoreResult<BigKey> {
    let failed = |error| wire::failed(&["TYPE"], error);
    let kind: String = redis::cmd("TYPE").arg(key).query_async(connection).await.map_err(failed)?;
    let command = match kind.as_str() {
        "string" => Some("STRLEN"),
        "list" => Some("LLEN"),
        "set" => Some("SCARD"),
        "zset" => Some("ZCARD"),
        "hash" => Some("HLEN"),
        "stream" => Some("XLEN"),
        _ => None,
    };
    let length = match command {
        Some(command) => {
            let failed = |error| wire::failed(&[command], error);
            Some(redis::cmd(command).arg(key).query_async(connection).await.map_err(failed)?)
        }
        None => None,
    };
    Ok(BigKey { key: shown(key), kind, bytes, length })
}

impl BigKeys {
    /// Passes when no key is as big as the limit.
    #[must_use]
    pub fn none(&self) -> Outcome {
        let (n, limit) = (self.measured, bytes(self.limit_bytes));
        if n == 0 {
            return Outcome::no_evidence("there is no key to measure");
        }
        if self.keys.is_empty() {
            return Outcome::pass(format!(
                "the biggest of {n} keys takes {}, less than {limit}",
                bytes(self.biggest_bytes)
            ));
        }
        let names: Vec<String> = self.keys.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = match self.keys.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" … and {more} more"),
        };
        Outcome::fail(format!("{} of {n} keys take {limit} or more: {}{more}", self.keys.len(), names.join(", ")))
    }

    /// The failed [`BigKeys::none`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) naming the keys;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when there are no keys at all.
    pub fn check_none(&self) -> CoreResult {
        checked(self.none())
    }
}

/// The same for a leased keyspace.
impl Keyspace {
    /// As [`LogicalDb::bigkeys`].
    ///
    /// # Errors
    /// As [`LogicalDb::bigkeys`].
    pub async fn bigkeys(&self, limit_bytes: u64) -> CoreResult<BigKeys> {
        self.logical().bigkeys(limit_bytes).await
    }
}

/// The same for an own server.
impl OwnRedis {
    /// As [`LogicalDb::bigkeys`].
    ///
    /// # Errors
    /// As [`LogicalDb::bigkeys`].
    pub async fn bigkeys(&self, limit_bytes: u64) -> CoreResult<BigKeys> {
        self.logical().bigkeys(limit_bytes).await
    }
}
