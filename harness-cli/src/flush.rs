//! `harness flush`: empties one logical Redis database for tests, and nothing else.

use std::io::Write;

use harness_core::CoreResult;

/// Empties the logical database that the URL names (`redis://127.0.0.1:6379/1`) and says how many keys went.
///
/// # Errors
/// [`harness_core::ErrorKind::Refused`] for database 0 or a URL without an index, before any connection is made.
pub fn flush(url: &str, out: &mut dyn Write) -> CoreResult {
    let keys = runtime()?.block_on(harness_db::flush(url))?;
    writeln!(out, "{keys} keys removed from the database that the URL names; no other was touched")?;
    Ok(())
}

pub(crate) fn runtime() -> CoreResult<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
