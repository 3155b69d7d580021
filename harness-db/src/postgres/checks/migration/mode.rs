//! The modes of table locks, and whom each keeps waiting (PostgreSQL documentation, section 13.3.1, *Table-Level Locks*).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The mode of a table lock, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// `SELECT`.
    AccessShare,
    /// `SELECT … FOR UPDATE`.
    RowShare,
    /// `INSERT`, `UPDATE`, `DELETE`.
    RowExclusive,
    /// `CREATE INDEX CONCURRENTLY`, `VALIDATE CONSTRAINT`, `VACUUM`.
    ShareUpdateExclusive,
    /// `CREATE INDEX`: keeps writers waiting.
    Share,
    /// `CREATE TRIGGER`, `ADD FOREIGN KEY`: keeps writers waiting.
    ShareRowExclusive,
    /// `REFRESH MATERIALIZED VIEW CONCURRENTLY`: keeps writers waiting.
    Exclusive,
    /// Most of `ALTER TABLE`, `DROP TABLE`, `TRUNCATE`: keeps everybody waiting.
    AccessExclusive,
}

impl LockMode {
    const NAMES: [(&'static str, Self); 8] = [
        ("AccessShareLock", Self::AccessShare),
        ("RowShareLock", Self::RowShare),
        ("RowExclusiveLock", Self::RowExclusive),
        ("ShareUpdateExclusiveLock", Self::ShareUpdateExclusive),
        ("ShareLock", Self::Share),
        ("ShareRowExclusiveLock", Self::ShareRowExclusive),
        ("ExclusiveLock", Self::Exclusive),
        ("AccessExclusiveLock", Self::AccessExclusive),
    ];

    /// The mode as `pg_locks` names it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }

    /// True when `SELECT` waits for it.
    #[must_use]
    pub fn blocks_readers(self) -> bool {
        self == Self::AccessExclusive
    }

    /// True when `INSERT`, `UPDATE` and `DELETE` wait for it.
    #[must_use]
    pub fn blocks_writers(self) -> bool {
        self >= Self::Share
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, mode)| mode == self).map_or("Lock", |(name, _)| name);
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::LockMode;

    #[test]
    fn who_waits_is_as_the_table_of_conflicts_says() {
        let of = |name| LockMode::parse(name).unwrap();
        assert!(of("AccessExclusiveLock").blocks_readers() && of("AccessExclusiveLock").blocks_writers());
        for name in ["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock"] {
            assert!(of(name).blocks_writers() && !of(name).blocks_readers(), "{name}");
        }
        for name in ["AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock"] {
            assert!(!of(name).blocks_writers() && !of(name).blocks_readers(), "{name}");
        }
        assert_eq!((LockMode::parse("NoLock"), of("ShareLock").to_string()), (None, "ShareLock".to_owned()));
    }
}
