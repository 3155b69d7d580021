//! Where migrations come from, a directory in one of the usual layouts or a list of SQL, and the books sqlx keeps of them.
//!
//! | layout | files |
//! |---|---|
//! | sqlx | `0001_users.sql`, or `0001_users.up.sql` with `0001_users.down.sql` |
//! | a numbered list | `1.sql`, `02-users.sql` |
//! | refinery | `V1__users.sql`, `U2__orders.sql` |
//! | diesel | `2024-01-01-000000_users/up.sql` with `down.sql` |
//!
//! Version, description, checksum (SHA-384 of the up file's bytes) and `-- no-transaction` on the first line mean what they
//! mean to sqlx, so that a service which runs `sqlx::migrate!` at its start finds its migrations done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness_core::{CoreResult, Error, ErrorKind};
use sha2::{Digest as _, Sha384};

use super::sql;

/// The books, as sqlx creates them.
pub(crate) const CREATE: &str = "create table if not exists _sqlx_migrations (version bigint primary key, description text not null, \
                      installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null, \
                      execution_time bigint not null)";
/// The first line by which sqlx knows a migration that must not run in a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// Its number; migrations run in this order.
    pub version: i64,
    /// What its name says after the number, with spaces for underscores.
    pub description: String,
    /// The SQL that brings the schema forward.
    pub up: String,
    /// The SQL that takes it back, if there is any.
    pub down: Option<String>,
    /// The file of `up`; `None` for SQL given as text.
    pub path: Option<PathBuf>,
    /// SHA-384 of the bytes of `up`.
    pub checksum: Vec<u8>,
    /// True when `up` begins with `-- no-transaction`.
    pub no_tx: bool,
}

impl Migration {
    /// A migration given as text.
    pub fn new(version: i64, description: impl Into<String>, up: impl Into<String>) -> Self {
        let up = up.into();
        Self {
            version,
            description: description.into(),
            checksum: checksum(&up),
            no_tx: up.starts_with(NO_TRANSACTION),
            up,
            down: None,
            path: None,
        }
    }

    /// Adds the way back.
    #[must_use]
    pub fn down(mut self, sql: impl Into<String>) -> Self {
        self.down = Some(sql.into());
        self
    }

    /// True when `down` begins with `-- no-transaction`.
    #[must_use]
    pub fn down_no_tx(&self) -> bool {
        self.down.as_ref().is_some_and(|down| down.starts_with(NO_TRANSACTION))
    }

    /// `3 (orders)`, for messages.
    pub(crate) fn label(&self) -> String {
        match self.description.is_empty() {
            true => self.version.to_string(),
            false => format!("{} ({})", self.version, self.description),
        }
    }

    /// What to call its SQL in a message: the file, else the version.
    pub(crate) fn place(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => format!("migration {}", self.label()),
        }
    }
}

/// SHA-384 of a migration's text, as sqlx stores it.
pub(crate) fn checksum(text: &str) -> Vec<u8> {
    Sha384::digest(text.as_bytes()).to_vec()
}

/// Reads a directory of migrations, in the order of their numbers.
///
/// # Errors
/// [`ErrorKind::Config`] naming the directory that is missing or empty, the file without a number, the number that two files
/// share, or the way back without a way forward.
pub(crate) fn read_dir(dir: &Path) -> CoreResult<Vec<Migration>> {
    let mut found: BTreeMap<i64, Pair> = BTreeMap::new();
    for path in entries(dir)? {
        let Some(file) = File::of(&path)? else { continue };
        let pair = found.entry(file.version).or_default();
        let slot = if file.is_down { &mut pair.down } else { &mut pair.up };
        if let Some((_, other)) = slot.replace((file.description, file.path.clone())) {
            return Err(twice(file.version, &other, &file.path));
        }
    }
    if found.is_empty() {
        let what = format!("no migrations (*.sql) in {}", absolute(dir).display());
        return Err(Error::new(ErrorKind::Config, what)
            .remedy("name them 0001_users.sql, V1__users.sql or 2024-01-01-000000_users/up.sql"));
    }
    found.into_iter().map(|(version, pair)| pair.read(version)).collect()
}

#[derive(Default)]
struct Pair {
    up: Option<(String, PathBuf)>,
    down: Option<(String, PathBuf)>,
}

impl Pair {
    fn read(self, version: i64) -> CoreResult<Migration> {
        let Some((description, path)) = self.up else {
            let down = self.down.map(|(_, path)| path.display().to_string()).unwrap_or_default();
            return Err(Error::new(ErrorKind::Config, format!("{down} takes back what no migration brings"))
                .remedy("add the .up.sql file of the same number"));
        };
        let mut migration = Migration::new(version, description, text(&path)?);
        migration.down = self.down.map(|(_, path)| text(&path)).transpose()?;
        migration.path = Some(path);
        Ok(migration)
    }
}

/// What the name of a file says.
#[derive(Debug, PartialEq, Eq)]
struct File {
    version: i64,
    description: String,
    is_down: bool,
    path: PathBuf,
}

impl File {
    /// `None` for what is no SQL file.
    fn of(path: &Path) -> CoreResult<Option<Self>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(stem) = name.strip_suffix(".sql") else { return Ok(None) };
        // diesel: the directory carries number and description, the file the direction.
        if stem == "up" || stem == "down" {
            let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
            let (stamp, rest) = parent.split_once('_').unwrap_or((&parent, ""));
            let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
            return Self::with(&digits, rest, stem == "down", path).map(Some);
        }
        let (stem, is_down) = match (stem.strip_suffix(".down"), stem.strip_suffix(".up")) {
            (Some(stem), _) => (stem, true),
            (_, Some(stem)) => (stem, false),
            _ => (stem, false),
        };
        // refinery: V1__users, U2__orders.
        let numbered = match stem.strip_prefix(['V', 'U']) {
            Some(rest) if rest.contains("__") => rest,
            _ => stem,
        };
        let split = numbered.find(|c: char| !c.is_ascii_digit()).unwrap_or(numbered.len());
        let (digits, rest) = numbered.split_at(split);
        let rest = match (rest.strip_prefix("__"), numbered == stem) {
            (Some(rest), false) => rest,
            _ => rest.strip_prefix(['_', '-', '.']).unwrap_or(rest),
        };
        Self::with(digits, rest, is_down, path).map(Some)
    }

    fn with(digits: &str, rest: &str, is_down: bool, path: &Path) -> CoreResult<Self> {
        let version = digits.parse().map_err(|_| {
            Error::new(
                ErrorKind::Config,
                format!("{} has no number, so its place in the order is unknown", path.display()),
            )
            .remedy("name it like 0001_users.sql, or keep it outside the directory of migrations")
        })?;
        Ok(Self { version, description: rest.replace('_', " "), is_down, path: path.to_owned() })
    }
}

/// The files of a directory and of its diesel-like subdirectories.
fn entries(dir: &Path) -> CoreResult<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for path in list(dir)? {
        match path.is_dir() {
            true => paths.extend(
                list(&path)?
                    .into_iter()
                    .filter(|path| path.file_name().is_some_and(|name| name == "up.sql" || name == "down.sql")),
            ),
            false => paths.push(path),
        }
    }
    paths.sort();
    Ok(paths)
}

fn list(dir: &Path) -> CoreResult<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        Error::new(ErrorKind::Config, format!("migrations cannot be read: {}", absolute(dir).display()))
            .caused_by(error)
            .remedy("give the directory relative to the package, or absolute")
    };
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}

fn text(path: &Path) -> CoreResult<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::Config, format!("cannot read {}", absolute(path).display())).caused_by(error)
    })
}

fn twice(version: i64, a: &Path, b: &Path) -> Error {
    Error::new(ErrorKind::Config, format!("two migrations have the number {version}"))
        .tried(a.display().to_string())
        .tried(b.display().to_string())
        .remedy("renumber the younger one: which of them runs first would be chance")
}

/// The path as a person can follow it from anywhere.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The SQL that books a migration as done.
pub(crate) fn booked(migration: &Migration) -> String {
    let sum: String = migration.checksum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values ({}, {}, true, '\\x{sum}', -1)",
        migration.version,
        sql::literal(&migration.description)
    )
}

/// The SQL that books all of these as done, in a database that has no books yet.
pub(crate) fn books(migrations: &[Migration]) -> String {
    std::iter::once(CREATE.to_owned()).chain(migrations.iter().map(booked)).collect::<Vec<_>>().join(";\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{File, Migration, read_dir};

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn names_of_every_layout_give_number_description_and_direction() {
        for (name, version, description, is_down) in [
            ("0001_users.sql", 1, "users", false),
            ("0002_more_orders.up.sql", 2, "more orders", false),
            ("0002_more_orders.down.sql", 2, "more orders", true),
            ("20240101120000_x.sql", 20_240_101_120_000, "x", false),
            ("7.sql", 7, "", false),
            ("08-users.sql", 8, "users", false),
            ("V3__users_too.sql", 3, "users too", false),
            ("U4__late.sql", 4, "late", false),
            ("m/2024-01-02-000000_users/up.sql", 20_240_102_000_000, "users", false),
            ("m/2024-01-02-000000_users/down.sql", 20_240_102_000_000, "users", true),
        ] {
            let file = File::of(Path::new(name)).unwrap().unwrap();
            assert_eq!((file.version, &*file.description, file.is_down), (version, description, is_down), "{name}");
        }
        assert_eq!(File::of(Path::new("README.md")).unwrap(), None);
        for wrong in ["users.sql", "V__users.sql", "_1.sql", "99999999999999999999_x.sql"] {
            let text = format!("{:?}", File::of(Path::new(wrong)).unwrap_err());
            assert!(text.contains(wrong) && text.contains("remedy"), "{text}");
        }
    }

    #[test]
    fn order_is_by_number_and_ways_back_are_found() {
        let dir = dir(&[
            ("10_b.sql", "-- no-transaction\ncreate index concurrently i on t(a);"),
            ("2_a.up.sql", "create table t(a int)"),
            ("2_a.down.sql", "drop table t"),
            ("notes.txt", ""),
        ]);
        let found = read_dir(dir.path()).unwrap();
        assert_eq!(found.iter().map(|one| one.version).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(found[0].down.as_deref(), Some("drop table t"));
        assert!(found[1].no_tx && !found[0].no_tx && found[1].down.is_none());
    }

    #[test]
    fn two_of_a_number_a_lone_way_back_and_an_empty_directory_are_refused() {
        for (files, words) in [
            (&[("1_a.sql", ""), ("01_b.sql", "")][..], "two migrations have the number 1"),
            (&[("1_a.sql", ""), ("2_b.down.sql", "")][..], "takes back what no migration brings"),
            (&[("readme.md", "")][..], "no migrations"),
        ] {
            let text = format!("{:?}", read_dir(dir(files).path()).unwrap_err());
            assert!(text.contains(words), "{text}");
        }
        assert!(format!("{:?}", read_dir(Path::new("no/such")).unwrap_err()).contains("no/such"));
    }

    #[test]
    fn checksum_is_sha_384_of_the_bytes() {
        // The SHA-384 of the empty string (FIPS 180-4 test value).
        let hex: String = Migration::new(1, "", "").checksum.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hex.starts_with("38b060a751ac96384cd9327eb1b1e36a21fdb71114be0743") && hex.len() == 96, "{hex}");
        assert_ne!(Migration::new(1, "", "select 1").checksum, Migration::new(1, "", "select 1 ").checksum);
    }
}
