//! Whether what was applied is still what the files say.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;

use super::Migrations;
use super::runner::{Record, records};
use crate::postgres::Database;
use crate::postgres::books::Migration;

/// One difference between the books and the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Drift {
    /// A migration was edited after it had been applied.
    Edited {
        /// Its number.
        version: i64,
        /// SHA-384 of what was applied, in hexadecimal.
        applied: String,
        /// SHA-384 of what the file says now, in hexadecimal.
        file: String,
    },
    /// The books have a migration that no file has.
    Missing {
        /// Its number.
        version: i64,
    },
    /// A migration failed half-way and was booked as failed.
    Dirty {
        /// Its number.
        version: i64,
    },
    /// A migration that is not applied is older than one that is: it was added behind the others' backs.
    OutOfOrder {
        /// Its number.
        version: i64,
        /// The youngest applied one.
        newest: i64,
    },
}

impl Migrations {
    /// Compares the books of sqlx (its own runner's or ours) with the migrations.
    ///
    /// # Errors
    /// As [`Migrations::read`], and when the server does not answer.
    pub async fn drift(&self, database: &Database) -> CoreResult<Vec<Drift>> {
        let migrations = self.read()?;
        let mut session = database.connect().await?;
        let applied = records(&mut session).await;
        let _ = session.close().await;
        Ok(compare(&migrations, &applied?))
    }

    /// Holds when nothing drifted.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming each version with both checksums; [`ErrorKind::NoEvidence`] when no migration is
    /// applied.
    pub async fn check_drift(&self, database: &Database) -> CoreResult {
        let migrations = self.read()?;
        let mut session = database.connect().await?;
        let applied = records(&mut session).await;
        let _ = session.close().await;
        let applied = applied?;
        if applied.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, format!("no migration is applied in `{}`", database.name()))
                .remedy("apply the migrations first"));
        }
        match refused(&compare(&migrations, &applied), ErrorKind::Assertion) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What drifted.
pub(super) fn compare(migrations: &[Migration], applied: &[Record]) -> Vec<Drift> {
    let newest = applied.last().map_or(i64::MIN, |record| record.version);
    let mut found = Vec::new();
    for record in applied {
        let version = record.version;
        match migrations.iter().find(|migration| migration.version == version) {
            _ if !record.success => found.push(Drift::Dirty { version }),
            None => found.push(Drift::Missing { version }),
            Some(migration) if migration.checksum != record.checksum => {
                let (applied, file) = (hex(&record.checksum), hex(&migration.checksum));
                found.push(Drift::Edited { version, applied, file });
            }
            Some(_) => {}
        }
    }
    let late = |migration: &&Migration| {
        migration.version < newest && !applied.iter().any(|record| record.version == migration.version)
    };
    found.extend(migrations.iter().filter(late).map(|one| Drift::OutOfOrder { version: one.version, newest }));
    found
}

/// The error for a drift, if there is one.
pub(super) fn refused(drifts: &[Drift], kind: ErrorKind) -> Option<Error> {
    let first = drifts.first()?;
    let error = Error::new(kind, format!("the migrations drifted from the database: {first}"));
    let error = drifts.iter().skip(1).fold(error, |error, drift| error.tried(drift.to_string()));
    Some(error.remedy("restore the file and write a new migration, or begin with a fresh database"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Drift {
    /// The number of the migration.
    #[must_use]
    pub fn version(&self) -> i64 {
        match self {
            Self::Edited { version, .. } | Self::Missing { version } => *version,
            Self::Dirty { version } | Self::OutOfOrder { version, .. } => *version,
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { version, applied, file } => write!(
                f,
                "migration {version} was edited after it was applied (applied {}…, file {}…)",
                applied.get(..12).unwrap_or(applied),
                file.get(..12).unwrap_or(file)
            ),
            Self::Missing { version } => write!(f, "migration {version} is applied, and no file has it"),
            Self::Dirty { version } => write!(f, "migration {version} failed half-way before and is booked as failed"),
            Self::OutOfOrder { version, newest } => {
                write!(f, "migration {version} is not applied, though the younger {newest} is")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::listed;
    use super::super::runner::Record;
    use super::{Drift, compare};
    use crate::postgres::books::Migration;

    fn record(migration: &Migration) -> Record {
        Record { version: migration.version, checksum: migration.checksum.clone(), success: true }
    }

    #[test]
    fn each_kind_of_drift_is_found_alone() {
        let files = listed(["a", "b", "c"]);
        let books: Vec<Record> = files.iter().map(record).collect();
        assert_eq!(compare(&files, &books), []);
        assert_eq!(compare(&files, &books[..2]), []);
        let edited = listed(["a", "B", "c"]);
        assert!(
            matches!(&compare(&edited, &books)[..], [Drift::Edited { version: 2, applied, file }] if applied != file)
        );
        assert_eq!(compare(&files[..2], &books), [Drift::Missing { version: 3 }]);
        let dirty = Record { success: false, ..books[2].clone() };
        assert_eq!(compare(&files, &[books[0].clone(), books[1].clone(), dirty]), [Drift::Dirty { version: 3 }]);
        let late = [books[0].clone(), books[2].clone()];
        assert_eq!(compare(&files, &late), [Drift::OutOfOrder { version: 2, newest: 3 }]);
    }
}
