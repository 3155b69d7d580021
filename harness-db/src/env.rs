//! The only place in this crate that reads the environment.
//!
//! | variable | meaning |
//! |---|---|
//! | `HARNESS_POSTGRES_URL` | a Postgres that is already running; tests get databases of their own on it |
//! | `HARNESS_REDIS_URL` | a Redis that is already running; tests get logical databases of their own on it |
//! | `HARNESS_POSTGRES_IMAGE` | image for the container provider |
//! | `HARNESS_REDIS_IMAGE` | image for the container provider |
//! | `HARNESS_DATA` | `disk`: shared servers of installed or portable binaries keep their data on disk, also where memory is plenty |
//!
//! `DATABASE_URL` is looked at for one purpose: to say in an error that it is never adopted. It may be somebody's real
//! database.

use std::path::PathBuf;
use std::sync::OnceLock;

/// What the environment says about servers.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DbSettings {
    /// `HARNESS_POSTGRES_URL`.
    pub postgres_url: Option<String>,
    /// `HARNESS_REDIS_URL`.
    pub redis_url: Option<String>,
    /// `HARNESS_POSTGRES_IMAGE`.
    pub postgres_image: Option<String>,
    /// `HARNESS_REDIS_IMAGE`.
    pub redis_image: Option<String>,
    /// `HARNESS_DATA`: `disk` for data that are larger than memory, `memory` where there is plenty, which is the default.
    pub data: Option<String>,
    /// True when `DATABASE_URL` is set; its value is not kept.
    pub database_url_is_set: bool,
    /// Directories of `PATH`, in order.
    pub path: Vec<PathBuf>,
}

/// All variables, for those who look for engines and package indexes as other programs of this machine do.
#[cfg(any(feature = "containers", feature = "portable"))]
pub(crate) fn variables() -> std::collections::BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl DbSettings {
    /// The settings of this process, read once.
    #[must_use]
    pub fn get() -> &'static Self {
        static SETTINGS: OnceLock<DbSettings> = OnceLock::new();
        SETTINGS.get_or_init(|| Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty())))
    }

    /// Reads the settings through a lookup, so that tests need no environment.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            postgres_url: lookup("HARNESS_POSTGRES_URL"),
            redis_url: lookup("HARNESS_REDIS_URL"),
            postgres_image: lookup("HARNESS_POSTGRES_IMAGE"),
            redis_image: lookup("HARNESS_REDIS_IMAGE"),
            data: lookup("HARNESS_DATA"),
            database_url_is_set: lookup("DATABASE_URL").is_some(),
            path: lookup("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DbSettings;

    #[test]
    fn never_adopts_database_url() {
        let settings =
            DbSettings::read(|name| (name == "DATABASE_URL").then(|| "postgres://real@prod/orders".to_owned()));
        assert!(settings.postgres_url.is_none() && settings.database_url_is_set);
        assert!(!format!("{settings:?}").contains("prod"), "the value must not even be kept");
    }
}
