//! Emptying a Redis that belongs to the system under test.

use harness_core::{CoreResult, Error, ErrorKind};

use super::wire;

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
