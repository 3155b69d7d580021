//! The judge of backups: what was restored is, table by table, what was backed up.
//!
//! ```
//! use harness_props::history::restore::StateDigest;
//!
//! let mut before = StateDigest::new();
//! before.row("tasks", "1,open").row("tasks", "2,done");
//! let mut after = StateDigest::new();
//! after.row("tasks", "2,done").row("tasks", "1,open"); // in any order
//! assert!(before.matches(&after).is_pass());
//! after.row("tasks", "3,open");
//! assert_eq!(before.matches(&after).detail(), "1 tables differ: tasks (2 rows before, 3 after)");
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checksum;
use super::witness::{conclude, list};
use crate::Outcome;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    rows: u64,
    /// The sum of the rows' checksums, so that their order does not matter and a row that stands twice counts twice.
    sum: u64,
    /// The sum of their squares: two rows that changed in opposite ways do not cancel.
    squares: u64,
}

/// A digest of a whole state, by table. Small, whatever the state's size; damage detection, not security.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest {
    tables: BTreeMap<String, Table>,
}

impl StateDigest {
    /// Of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table that is there, with or without rows.
    pub fn table(&mut self, table: &str) -> &mut Self {
        self.tables.entry(table.to_owned()).or_default();
        self
    }

    /// A row of a table, in one fixed text form.
    pub fn row(&mut self, table: &str, row: &str) -> &mut Self {
        let hash = u64::from_str_radix(&checksum(row), 16).unwrap_or_default();
        let entry = self.tables.entry(table.to_owned()).or_default();
        entry.rows += 1;
        entry.sum = entry.sum.wrapping_add(hash);
        entry.squares = entry.squares.wrapping_add(hash.wrapping_mul(hash));
        self
    }

    /// How many rows there are in all.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// The whole digest as 16 hexadecimal digits, to be kept beside a backup.
    #[must_use]
    pub fn text(&self) -> String {
        checksum(&format!("{:?}", self.tables))
    }

    /// Fail with every table that is missing, new or different after a restore; NoEvidence when there was nothing to lose.
    #[must_use]
    pub fn matches(&self, restored: &Self) -> Outcome {
        let missing: Vec<&String> = self.tables.keys().filter(|table| !restored.tables.contains_key(*table)).collect();
        let new: Vec<&String> = restored.tables.keys().filter(|table| !self.tables.contains_key(*table)).collect();
        let differ: Vec<String> = self
            .tables
            .iter()
            .filter_map(|(name, before)| Some((name, before, restored.tables.get(name)?)))
            .filter(|(_, before, after)| before != after)
            .map(|(name, before, after)| format!("{name} ({} rows before, {} after)", before.rows, after.rows))
            .collect();
        let found =
            [list("tables are missing", &missing), list("tables are new", &new), list("tables differ", &differ)];
        let empty = (self.rows() == 0).then_some("there was no row to lose");
        conclude(found, empty, || {
            format!("{} rows in {} tables, digest {}", self.rows(), self.tables.len(), self.text())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::StateDigest;

    fn state(rows: &[(&str, &str)]) -> StateDigest {
        let mut digest = StateDigest::new();
        for (table, row) in rows {
            digest.row(table, row);
        }
        digest
    }

    #[test]
    fn each_loss_is_named_by_its_table_and_nothing_to_lose_is_no_evidence() {
        let good = [("tasks", "1"), ("tasks", "2"), ("schedule", "noon"), ("messages", "hello")];
        let before = state(&good);
        assert!(before.matches(&before.clone()).is_pass());
        for (rows, witness) in [
            (vec![good[0], good[1], good[2]], "1 tables are missing: messages"),
            (vec![good[0], good[2], good[3]], "1 tables differ: tasks (2 rows before, 1 after)"),
            (vec![good[0], ("tasks", "3"), good[2], good[3]], "1 tables differ: tasks (2 rows before, 2 after)"),
            (vec![good[0], good[1], good[1], good[2], good[3]], "1 tables differ: tasks (2 rows before, 3 after)"),
            (vec![good[0], good[1], good[2], good[3], ("audit", "x")], "1 tables are new: audit"),
        ] {
            assert_eq!(before.matches(&state(&rows)).detail(), witness);
            assert_ne!(before.text(), state(&rows).text());
        }
        let mut empty = StateDigest::new();
        empty.table("tasks");
        assert!(empty.matches(&empty.clone()).is_no_evidence());
    }
}
