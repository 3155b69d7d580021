//! When a Redis that was just started counts as ready: it answers `PING` and is a master, over the address tests will use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};
use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::wire;
use crate::provider::local::major;

/// How long one connection attempt to a server that is starting may take.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Older ones lack commands this crate uses. 6.2 is what portable binaries carry; probes call it degraded.
const OLDEST: u32 = 6;

/// How to reach a server of our own.
pub(crate) fn own_info(address: SocketAddr) -> CoreResult<ConnectionInfo> {
    format!("redis://{address}/")
        .into_connection_info()
        .map_err(|error| Error::new(ErrorKind::Config, format!("{address} is no address of a Redis")).caused_by(error))
}

/// Asks for a sign of life; the facts are version, role and number of logical databases.
pub(crate) async fn probe(address: SocketAddr) -> CoreResult<BTreeMap<String, String>> {
    probe_as(&own_info(address)?).await
}

/// [`probe`] of a server that wants a password.
pub(crate) async fn probe_as(info: &ConnectionInfo) -> CoreResult<BTreeMap<String, String>> {
    let mut connection = wire::connect_within(info, TRY_LIMIT).await?;
    let pong: String = wire::ask(&mut connection, &["PING"]).await?;
    if pong != "PONG" {
        return Err(Error::new(ErrorKind::Protocol, format!("Redis answered PING with `{pong}`")));
    }
    facts(&mut connection).await
}

/// Version, role and number of logical databases.
pub(crate) async fn facts(connection: &mut redis::aio::MultiplexedConnection) -> CoreResult<BTreeMap<String, String>> {
    let info: String = wire::ask(connection, &["INFO"]).await?;
    // A foreign server may forbid CONFIG; 16 is what Redis has by default.
    let databases: Vec<String> = wire::ask(connection, &["CONFIG", "GET", "databases"]).await.unwrap_or_default();
    let field = |name: &str| wire::info_field(&info, name).unwrap_or_default().to_owned();
    if field("loading") == "1" {
        return Err(Error::new(ErrorKind::Connect, "Redis is loading its data"));
    }
    Ok(BTreeMap::from([
        ("version".to_owned(), field("redis_version")),
        ("role".to_owned(), field("role")),
        ("databases".to_owned(), databases.get(1).cloned().unwrap_or_else(|| "16".to_owned())),
    ]))
}

/// Refuses a server that is too old or that only copies another one.
pub(crate) fn accept(facts: &BTreeMap<String, String>) -> CoreResult {
    let fact = |name: &str| facts.get(name).map(String::as_str).unwrap_or_default();
    if major(fact("version")) < OLDEST {
        let what = format!("the server is Redis {}, {OLDEST}.2 or later is needed", fact("version"));
        return Err(Error::new(ErrorKind::Environment, what).remedy("use Redis 7"));
    }
    match fact("role") {
        "master" => Ok(()),
        role => Err(Error::new(ErrorKind::Environment, format!("the server's role is `{role}`, a master is needed"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::accept;

    #[test]
    fn old_servers_and_replicas_are_refused() {
        let facts = |version: &str, role: &str| {
            BTreeMap::from([("version".to_owned(), version.to_owned()), ("role".to_owned(), role.to_owned())])
        };
        assert!(accept(&facts("7.0.15", "master")).is_ok());
        assert!(accept(&facts("5.0.1", "master")).unwrap_err().to_string().contains("5.0.1"));
        assert!(accept(&facts("7.0.15", "slave")).unwrap_err().to_string().contains("`slave`"));
        assert!(accept(&BTreeMap::new()).is_err());
    }
}
