//! How `CREATE DATABASE` copies a template, and where the measured answer of a server is kept.

use std::path::Path;

use harness_core::CoreResult;

/// The file in the slot's directory.
const FILE: &str = "clone-strategy";

/// `STRATEGY` of `CREATE DATABASE` (PostgreSQL 15 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Copies files between two checkpoints: wins without fsync.
    FileCopy,
    /// Writes every block to the log: wins where checkpoints cost.
    WalLog,
}

impl Strategy {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::FileCopy => "FILE_COPY",
            Self::WalLog => "WAL_LOG",
        }
    }

    /// What was measured on this server, if it was.
    pub(crate) fn load(slot: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(slot.join(FILE)).ok()?;
        [Self::FileCopy, Self::WalLog].into_iter().find(|strategy| strategy.sql() == text.trim())
    }

    /// Keeps what was measured.
    pub(crate) fn store(self, slot: &Path) -> CoreResult {
        Ok(std::fs::write(slot.join(FILE), self.sql())?)
    }
}

#[cfg(test)]
mod tests {
    use super::Strategy;

    #[test]
    fn answer_is_kept_and_nonsense_is_measured_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Strategy::load(dir.path()), None);
        Strategy::FileCopy.store(dir.path()).unwrap();
        assert_eq!(Strategy::load(dir.path()), Some(Strategy::FileCopy));
        std::fs::write(dir.path().join(super::FILE), "torn").unwrap();
        assert_eq!(Strategy::load(dir.path()), None);
    }
}
