//! Living on somebody else's Redis: a logical database is ours by a marker key and a living connection behind it.
//!
//! The connection calls itself `harness:<lease>:db<n>`. The server forgets it when our process dies, so a marker without
//! its connection is left over and may be taken, and nothing is judged by age. A database that holds keys and no marker is
//! somebody's data: it is never touched. Database 0 is never used.

use std::time::Instant;

use harness_core::run::{fnv, process_start};
use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;

use super::server::{Server, Tenancy, indexes, now_s};
use super::{readiness, wire};
use crate::provider::{Attempt, Choice, Provider};

/// The marker key.
pub(crate) const MARKER: &str = "harness:lease";
const KEPT: &str = "kept:";

/// The lease of one logical database on a foreign server.
#[derive(Debug)]
pub(crate) struct Marker {
    /// Lives on the background thread's runtime; dropping it frees the lease.
    connection: MultiplexedConnection,
    lease: String,
}

/// Checks a foreign server.
pub(crate) async fn move_in(url: &str) -> CoreResult<Server> {
    let begun = Instant::now();
    let (info, index) = wire::parse_url("HARNESS_REDIS_URL", url)?;
    if index == Some(0) {
        let what = format!("HARNESS_REDIS_URL names logical database 0: `{}`", wire::masked(url));
        return Err(Error::new(ErrorKind::Refused, what).remedy("name another, such as /1, or leave the index out"));
    }
    let mut connection = wire::connect(&wire::at_index(&info, 0)).await.map_err(|error| unusable(url, &error))?;
    let facts = readiness::facts(&mut connection).await.map_err(|error| unusable(url, &error))?;
    readiness::accept(&facts)?;
    let what = format!("Redis {} at {}", facts.get("version").map_or("?", String::as_str), info.addr());
    let attempt = Attempt::worked(Provider::Url, what.clone()).took(begun.elapsed());
    let choice = Choice { service: "redis".into(), provider: Provider::Url, what, attempts: vec![attempt] };
    Ok(Server::new(info, &facts, choice, Tenancy::Guest { index }))
}

fn unusable(url: &str, error: &Error) -> Error {
    let text = format!("the Redis of HARNESS_REDIS_URL cannot be used: `{}`", wire::masked(url));
    Error::new(ErrorKind::Environment, text)
        .tried(Attempt::from_error(Provider::Url, error).to_string())
        .remedy("start that server, correct the URL, or unset HARNESS_REDIS_URL to have one started")
}

/// Leases the one index that the URL names, or any that is free. `None`: all are taken at the moment.
pub(crate) async fn lease(
    info: &ConnectionInfo,
    only: Option<i64>,
    databases: i64,
) -> CoreResult<Option<(i64, Marker)>> {
    let mut foreign = Vec::new();
    let candidates: Vec<i64> = only.map_or_else(|| indexes(databases).collect(), |index| vec![index]);
    for &index in &candidates {
        match claim(info, index).await? {
            Claim::Ours(marker) => return Ok(Some((index, marker))),
            Claim::Taken => {}
            Claim::Foreign(keys) => foreign.push(format!("{index} ({keys} keys)")),
        }
    }
    if foreign.len() < candidates.len() {
        return Ok(None);
    }
    let what = format!("no logical database at {} may be used: each holds keys that are not the harness'", info.addr());
    Err(Error::new(ErrorKind::Refused, what)
        .tried(format!("databases {}", foreign.join(", ")))
        .remedy("empty one (`redis-cli -n <index> FLUSHDB`), or name an empty one in the URL"))
}

enum Claim {
    Ours(Marker),
    Taken,
    Foreign(i64),
}

async fn claim(info: &ConnectionInfo, index: i64) -> CoreResult<Claim> {
    let mut connection = wire::connect(&wire::at_index(info, index)).await?;
    let lease = lease_name();
    // Announced before anybody is looked at: of two that come at once, at least one sees the other.
    let () = wire::ask(&mut connection, &["CLIENT", "SETNAME", &format!("harness:{lease}:db{index}")]).await?;
    let clients: String = wire::ask(&mut connection, &["CLIENT", "LIST"]).await?;
    if holders(&clients, index).iter().any(|holder| *holder != lease) {
        return Ok(Claim::Taken);
    }
    let () = wire::ask(&mut connection, &["WATCH", MARKER]).await?;
    let marker: Option<String> = wire::ask(&mut connection, &["GET", MARKER]).await?;
    match marker {
        Some(text) if is_kept(&text, now_s()) => return Ok(Claim::Taken),
        Some(_) => {}
        None => {
            let keys: i64 = wire::ask(&mut connection, &["DBSIZE"]).await?;
            if keys > 0 {
                return Ok(Claim::Foreign(keys));
            }
        }
    }
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("FLUSHDB").ignore().cmd("SET").arg(MARKER).arg(&lease).ignore();
    let done: Option<()> =
        transaction.query_async(&mut connection).await.map_err(|error| wire::failed(&["MULTI"], error))?;
    Ok(match done {
        Some(()) => Claim::Ours(Marker { connection, lease }),
        None => Claim::Taken, // somebody changed the marker in between
    })
}

/// The leases of living connections that hold this index, from `CLIENT LIST`.
fn holders(clients: &str, index: i64) -> Vec<&str> {
    let names =
        clients.lines().flat_map(|line| line.split(' ')).filter_map(|field| field.strip_prefix("name=harness:"));
    names.filter_map(|name| name.strip_suffix(&format!(":db{index}"))).collect()
}

fn is_kept(marker: &str, now_s: u64) -> bool {
    marker.strip_prefix(KEPT).and_then(|until| until.parse::<u64>().ok()).is_some_and(|until| until > now_s)
}

fn lease_name() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let pid = std::process::id();
    let mut count = [0_u8; 8];
    count.copy_from_slice(&NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes());
    format!("{:016x}", fnv(format!("{boot} {pid} {:?} {count:?}", process_start(pid)).as_bytes()))
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

impl Marker {
    /// Empties the database and sets the marker again.
    pub(crate) async fn flush(&mut self) -> CoreResult {
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("FLUSHDB").ignore().cmd("SET").arg(MARKER).arg(&self.lease).ignore();
        transaction.query_async(&mut self.connection).await.map_err(|error| wire::failed(&["FLUSHDB"], error))
    }

    /// Leaves nothing behind.
    pub(crate) async fn clear(&mut self) -> CoreResult {
        wire::ask(&mut self.connection, &["FLUSHDB"]).await
    }

    /// Keeps the database until a moment, in seconds since 1970.
    pub(crate) async fn keep(&mut self, until_s: u64) -> CoreResult {
        wire::ask(&mut self.connection, &["SET", MARKER, &format!("{KEPT}{until_s}")]).await
    }
}

#[cfg(test)]
mod tests {
    use super::{holders, is_kept};

    #[test]
    fn holders_are_read_from_the_list_of_clients() {
        let list = "id=1 addr=127.0.0.1:1 name=harness:aa:db1 db=1\nid=2 name=harness:bb:db11 db=11\nid=3 name= db=1\n";
        assert_eq!(holders(list, 1), ["aa"]);
        assert_eq!(holders(list, 11), ["bb"]);
        assert!(holders(list, 2).is_empty());
    }

    #[test]
    fn a_marker_is_kept_until_its_time() {
        assert!(is_kept("kept:100", 99) && !is_kept("kept:100", 100) && !is_kept("abcd", 0));
    }
}
