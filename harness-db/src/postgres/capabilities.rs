//! What a server can do, asked once and handed on as facts.

use std::collections::BTreeMap;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _};

use super::sql;
use crate::provider::local::POSTGRES_OLDEST;

/// The fact under which a shared server's capabilities are published.
const FACT: &str = "capabilities";

/// What a server is and has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// `server_version`, for example `15.13 (Debian 15.13-0+deb12u1)`.
    pub version: String,
    /// `server_version_num`, for example 150013.
    pub version_num: u32,
    /// The version of pgvector that `CREATE EXTENSION vector` would give.
    pub vector: Option<String>,
    /// A digest over the names and versions of all extensions that `CREATE EXTENSION` would give.
    pub extensions: String,
    /// True when `pg_stat_statements` is preloaded, so that it counts.
    pub pg_stat_statements: bool,
    /// False on throw-away servers: a kill loses acknowledged commits there.
    pub fsync: bool,
    /// `max_connections`.
    pub max_connections: u32,
}

impl Capabilities {
    /// Asks a server. A plain user may not see which libraries are preloaded; then none counts as preloaded.
    pub(crate) async fn ask(connection: &mut PgConnection) -> CoreResult<Self> {
        let found = sql::rows(
            connection,
            "ask the server what it can do",
            "select current_setting('server_version') as version, current_setting('server_version_num') as num, \
             (select default_version from pg_available_extensions where name = 'vector') as vector, \
             (select md5(string_agg(name || ' ' || coalesce(default_version, ''), ',' order by name)) \
                from pg_available_extensions) as extensions, \
             (select setting from pg_settings where name = 'shared_preload_libraries') as preload, current_setting('fsync') as fsync, \
             current_setting('max_connections') as connections",
        )
        .await?;
        let row =
            found.first().ok_or_else(|| Error::new(ErrorKind::Protocol, "the server gave no row for its settings"))?;
        let text = |name: &str| row.try_get::<Option<String>, _>(name).ok().flatten().unwrap_or_default();
        Ok(Self {
            version: text("version"),
            version_num: text("num").parse().unwrap_or(0),
            vector: Some(text("vector")).filter(|version| !version.is_empty()),
            extensions: text("extensions"),
            pg_stat_statements: text("preload").split(',').any(|name| name.trim() == "pg_stat_statements"),
            fsync: text("fsync") == "on",
            max_connections: text("connections").parse().unwrap_or(0),
        })
    }

    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Refuses a server that is too old.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] saying what was found and what is needed.
    pub fn check_version(&self) -> CoreResult {
        if self.major() >= POSTGRES_OLDEST {
            return Ok(());
        }
        let what = format!("the server is PostgreSQL {}, {POSTGRES_OLDEST} or later is needed", self.version);
        Err(Error::new(ErrorKind::Environment, what).remedy(format!("use a PostgreSQL {POSTGRES_OLDEST} or later")))
    }

    /// Refuses a server without pgvector.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] saying what to install.
    pub fn check_vector(&self) -> CoreResult {
        match self.vector {
            Some(_) => Ok(()),
            None => Err(Error::new(
                ErrorKind::Environment,
                format!("the server (PostgreSQL {}) has no pgvector to create", self.version),
            )
            .remedy("install the package postgresql-<version>-pgvector there, or run `harness provision`")),
        }
    }

    /// As facts of a shared server.
    pub(crate) fn into_facts(self) -> BTreeMap<String, String> {
        BTreeMap::from([(FACT.to_owned(), serde_json::to_string(&self).unwrap_or_default())])
    }

    /// From facts of a shared server.
    pub(crate) fn from_facts(facts: &BTreeMap<String, String>) -> CoreResult<Self> {
        let text = facts.get(FACT).map(String::as_str).unwrap_or_default();
        serde_json::from_str(text).map_err(|error| {
            Error::new(ErrorKind::Protocol, "the shared server was published without its capabilities")
                .caused_by(error)
                .remedy("run `harness sweep`, then the tests again")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Capabilities;

    #[test]
    fn version_14_is_refused_with_found_and_needed() {
        let old = Capabilities { version: "14.9".into(), version_num: 140_009, ..Capabilities::default() };
        let text = format!("{:?}", old.check_version().unwrap_err());
        assert!(text.contains("14.9") && text.contains("15 or later"), "{text}");
        let new = Capabilities { version_num: 150_000, ..Capabilities::default() };
        assert!(new.check_version().is_ok());
    }

    #[test]
    fn facts_survive_the_round_trip_and_missing_ones_are_said() {
        let capabilities =
            Capabilities { version: "16.1".into(), vector: Some("0.8".into()), ..Capabilities::default() };
        assert_eq!(Capabilities::from_facts(&capabilities.clone().into_facts()).unwrap(), capabilities);
        assert!(Capabilities::from_facts(&Default::default()).is_err());
    }
}
