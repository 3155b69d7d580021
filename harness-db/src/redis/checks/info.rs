//! What a server says about itself: one section of `INFO`, read field by field.

use std::collections::BTreeMap;

use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;

use super::wire;

/// One answer of `INFO`.
#[derive(Debug, Clone)]
pub(super) struct Info {
    section: String,
    page: String,
}

impl Info {
    pub(super) async fn read(connection: &mut MultiplexedConnection, section: &str) -> CoreResult<Self> {
        let page = wire::ask(connection, &["INFO", section]).await?;
        Ok(Self { section: section.to_owned(), page })
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        wire::info_field(&self.page, field)
    }

    pub(super) fn number<T: std::str::FromStr>(&self, field: &str) -> CoreResult<T> {
        let found = self.text(field).and_then(|text| text.parse().ok());
        let what = || format!("INFO {} of Redis gives no number for {field}", self.section);
        found.ok_or_else(|| Error::new(ErrorKind::Protocol, what()))
    }

    /// Calls by command, in upper case, from `INFO commandstats`. Subcommands stand apart, as `CONFIG|GET`.
    pub(super) fn calls(&self) -> BTreeMap<String, u64> {
        let entry = |line: &str| {
            let (name, fields) = line.trim_end().strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = fields.split(',').find_map(|field| field.strip_prefix("calls=")?.parse().ok())?;
            Some((name.to_ascii_uppercase(), calls))
        };
        self.page.lines().filter_map(entry).collect()
    }
}

/// Which life of the server this is: another one counts from zero again.
pub(super) async fn run_id(connection: &mut MultiplexedConnection) -> CoreResult<String> {
    let info = Info::read(connection, "server").await?;
    info.text("run_id").map(str::to_owned).ok_or_else(|| Error::new(ErrorKind::Protocol, "INFO server gives no run_id"))
}

/// The counters began anew in between, so their difference means nothing.
pub(super) fn began_anew(what: &str) -> Error {
    Error::new(
        ErrorKind::NoEvidence,
        format!("{what} began anew in between: the server was restarted, or its counters reset"),
    )
    .remedy("begin the count after the restart, and do not call CONFIG RESETSTAT meanwhile")
}

/// What was added to a counter; `NoEvidence` when it went backwards.
pub(super) fn added(what: &str, before: u64, after: u64) -> CoreResult<u64> {
    after.checked_sub(before).ok_or_else(|| began_anew(what))
}

#[cfg(test)]
mod tests {
    use super::{Info, added};

    #[test]
    fn calls_are_read_per_command_and_subcommand() {
        let page =
            "# Commandstats\r\ncmdstat_get:calls=4,usec=9,usec_per_call=2.25\r\ncmdstat_config|get:calls=1,usec=5\r\n";
        let calls = Info { section: "commandstats".into(), page: page.into() }.calls();
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), [("CONFIG|GET".to_owned(), 1), ("GET".to_owned(), 4)]);
    }

    #[test]
    fn counter_that_went_backwards_is_no_evidence() {
        assert_eq!(added("hits", 3, 5).unwrap(), 2);
        assert_eq!(added("hits", 5, 3).unwrap_err().kind(), harness_core::ErrorKind::NoEvidence);
    }
}
