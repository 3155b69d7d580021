//! Looking into, and emptying, a Redis that belongs to the system under test.

use harness_core::{CoreResult, Error, ErrorKind};

use super::wire;

/// Lookups since a Redis server started, as it counts them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lookups {
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
}

/// Reads the server's own count of lookups (`INFO stats`), the second source for a hit rate.
///
/// # Errors
/// When the server does not answer or does not say.
pub async fn lookups(url: &str) -> CoreResult<Lookups> {
    let (info, _) = wire::parse_url("the URL of the observed Redis", url)?;
    let mut connection = wire::connect_within(&info, wire::CONNECT_LIMIT).await?;
    let page: String = wire::ask(&mut connection, &["INFO", "stats"]).await?;
    let read = |field: &str| {
        wire::info_field(&page, field)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::Protocol, format!("INFO stats of Redis gives no number for {field}")))
    };
    Ok(Lookups { hits: read("keyspace_hits")?, misses: read("keyspace_misses")? })
}

/// How often a Redis server ran a command since it started (`INFO commandstats`); 0 for one it never ran.
///
/// # Errors
/// When the server does not answer or does not say.
pub async fn calls(url: &str, command: &str) -> CoreResult<u64> {
    let (info, _) = wire::parse_url("the URL of the observed Redis", url)?;
    let mut connection = wire::connect_within(&info, wire::CONNECT_LIMIT).await?;
    let page: String = wire::ask(&mut connection, &["INFO", "commandstats"]).await?;
    let Some(entry) = wire::info_field(&page, &format!("cmdstat_{}", command.to_ascii_lowercase())) else {
        return Ok(0);
    };
    let calls = entry.split(',').find_map(|field| field.strip_prefix("calls=")?.parse().ok());
    calls.ok_or_else(|| Error::new(ErrorKind::Protocol, format!("INFO commandstats of Redis gives no calls: {entry}")))
}

/// Empties the logical database that the URL names, and returns how many keys it held. No other is touched.
///
/// # Errors
/// [`ErrorKind::Refused`] for database 0 or a URL without an index, before any connection is made: that is where
/// applications live.
pub async fn flush(url: &str) -> CoreResult<u64> {
    let (info, index) = wire::parse_url("the URL to flush", url)?;
    let Some(index) = index.filter(|index| *index > 0) else {
        let what =
            format!("`{}` names logical database 0 or none; only a database for tests is flushed", wire::masked(url));
        return Err(
            Error::new(ErrorKind::Refused, what).remedy("end the URL with the index of the test database, such as /1")
        );
    };
    let mut connection = wire::connect_within(&wire::at_index(&info, index), wire::CONNECT_LIMIT).await?;
    let keys: u64 = wire::ask(&mut connection, &["DBSIZE"]).await?;
    let _: String = wire::ask(&mut connection, &["FLUSHDB"]).await?;
    Ok(keys)
}
