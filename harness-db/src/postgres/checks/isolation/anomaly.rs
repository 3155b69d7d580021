//! The ten anomalies, the three levels, and the scripts that show them.
//!
//! Sources: A. Adya, "Weak Consistency" (1999) for G0 to G2; H. Berenson et al., "A Critique of ANSI SQL Isolation Levels"
//! (1995) for P4; P. Bailis et al., "Highly Available Transactions" (2013) for OTV and PMP; M. Kleppmann, Hermitage
//! (<https://github.com/ept/hermitage>) for the idea of showing them by scripts, and for what each level of Postgres does.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::trace::{Answer, Trace};

/// Something that a serial execution never shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// G0, dirty write: the writes of two transactions are mixed.
    DirtyWrite,
    /// G1a, dirty read: what is read was never committed.
    AbortedRead,
    /// G1b, dirty read: what is read was overwritten by its own writer.
    IntermediateRead,
    /// G1c: two transactions each read what the other has not committed yet.
    CircularInformationFlow,
    /// OTV: of a transaction that was seen, a part is not there any more.
    ObservedTransactionVanishes,
    /// PMP, phantom: the same question, asked again, finds a row that another transaction brought.
    PredicateManyPreceders,
    /// P4, lost update: what one transaction wrote is overwritten by one that never saw it.
    LostUpdate,
    /// G-single, read skew (non-repeatable read): one row from before a transaction, another from after it.
    ReadSkew,
    /// G2-item, write skew: two transactions read the same rows and each writes another one of them.
    WriteSkew,
    /// G2, write skew over predicates: each brings a row that the other's question would have found.
    PredicateWriteSkew,
}

/// An isolation level of Postgres. `READ UNCOMMITTED` is read committed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// `READ COMMITTED`: each statement sees what was committed before it.
    ReadCommitted,
    /// `REPEATABLE READ`: a snapshot; snapshot isolation.
    RepeatableRead,
    /// `SERIALIZABLE`: serializable snapshot isolation.
    Serializable,
}

impl Anomaly {
    /// All ten, from the worst to the subtlest.
    pub const ALL: [Self; 10] = [
        Self::DirtyWrite,
        Self::AbortedRead,
        Self::IntermediateRead,
        Self::CircularInformationFlow,
        Self::ObservedTransactionVanishes,
        Self::PredicateManyPreceders,
        Self::LostUpdate,
        Self::ReadSkew,
        Self::WriteSkew,
        Self::PredicateWriteSkew,
    ];

    /// Its short name in the literature: `G0`, `P4`, …
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::DirtyWrite => "G0",
            Self::AbortedRead => "G1a",
            Self::IntermediateRead => "G1b",
            Self::CircularInformationFlow => "G1c",
            Self::ObservedTransactionVanishes => "OTV",
            Self::PredicateManyPreceders => "PMP",
            Self::LostUpdate => "P4",
            Self::ReadSkew => "G-single",
            Self::WriteSkew => "G2-item",
            Self::PredicateWriteSkew => "G2",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::DirtyWrite => "dirty write",
            Self::AbortedRead => "aborted read",
            Self::IntermediateRead => "intermediate read",
            Self::CircularInformationFlow => "circular information flow",
            Self::ObservedTransactionVanishes => "observed transaction vanishes",
            Self::PredicateManyPreceders => "phantom",
            Self::LostUpdate => "lost update",
            Self::ReadSkew => "read skew",
            Self::WriteSkew => "write skew",
            Self::PredicateWriteSkew => "write skew over a predicate",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words(), self.code())
    }
}

impl Level {
    /// All three, from the weakest.
    pub const ALL: [Self; 3] = [Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];

    /// As SQL writes it: `repeatable read`.
    #[must_use]
    pub fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read committed",
            Self::RepeatableRead => "repeatable read",
            Self::Serializable => "serializable",
        }
    }

    /// What Postgres is published to do: true when this level prevents the anomaly (Hermitage's table for PostgreSQL).
    #[must_use]
    pub fn is_known_to_prevent(self, anomaly: Anomaly) -> bool {
        let first_possible = match self {
            Self::ReadCommitted => Anomaly::PredicateManyPreceders,
            Self::RepeatableRead => Anomaly::WriteSkew,
            Self::Serializable => return true,
        };
        anomaly < first_possible
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

/// How an anomaly is provoked, and how it is recognised. Every session begins a transaction first; the table is
/// `test(id, value)` with the rows (1, 10) and (2, 20).
pub(super) struct Recipe {
    pub(super) sessions: &'static [&'static [&'static str]],
    /// Turns after the beginnings.
    pub(super) order: &'static str,
    pub(super) is_seen: fn(&Shown<'_>) -> bool,
}

/// What a run left behind for recognition.
pub(super) struct Shown<'t> {
    pub(super) trace: &'t Trace,
    /// The table afterwards, ordered by id.
    pub(super) after: &'t [String],
}

impl Shown<'_> {
    /// The answers that brought rows (or none) to a session's questions, in order.
    fn reads(&self, session: usize) -> Vec<String> {
        let of_session = self.trace.moments.iter().filter(|moment| moment.session == session);
        let questions = of_session.filter(|moment| moment.text.starts_with("select"));
        let answered = questions.filter_map(|moment| match &moment.answer {
            Answer::Done { rows, .. } => Some(rows.join(" ")),
            _ => None,
        });
        answered.collect()
    }

    fn none_failed(&self) -> bool {
        !self.trace.moments.iter().any(|moment| matches!(moment.answer, Answer::Failed { .. }))
    }

    fn both_read(&self, rows: &str) -> bool {
        (0..2).all(|session| self.reads(session).first().is_some_and(|read| read == rows))
    }
}

const READ_1: &str = "select value from test where id = 1";
const READ_2: &str = "select value from test where id = 2";
const READ_BOTH: &str = "select value from test where id in (1, 2) order by id";
const BY_THREE: &str = "select id, value from test where value % 3 = 0";

impl Anomaly {
    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::DirtyWrite => Recipe {
                sessions: &[
                    &["update test set value = 11 where id = 1", "update test set value = 21 where id = 2", "commit"],
                    &["update test set value = 12 where id = 1", "update test set value = 22 where id = 2", "commit"],
                ],
                order: "1 2 2 1 1 2",
                is_seen: |shown| matches!(shown.after, [a, b] if (a == "1, 11") != (b == "2, 21")),
            },
            Self::AbortedRead => Recipe {
                sessions: &[&["update test set value = 101 where id = 1", "rollback"], &[READ_1, READ_1, "commit"]],
                order: "1 2 1 2 2",
                is_seen: |shown| shown.reads(1).iter().any(|read| read == "101"),
            },
            Self::IntermediateRead => Recipe {
                sessions: &[
                    &["update test set value = 101 where id = 1", "update test set value = 11 where id = 1", "commit"],
                    &[READ_1, READ_1, "commit"],
                ],
                order: "1 2 1 1 2 2",
                is_seen: |shown| shown.reads(1).iter().any(|read| read == "101"),
            },
            Self::CircularInformationFlow => Recipe {
                sessions: &[
                    &["update test set value = 11 where id = 1", READ_2, "commit"],
                    &["update test set value = 22 where id = 2", READ_1, "commit"],
                ],
                order: "1 2 1 2 1 2",
                is_seen: |shown| shown.reads(0) == ["22"] && shown.reads(1) == ["11"],
            },
            Self::ObservedTransactionVanishes => Recipe {
                sessions: &[
                    &["update test set value = 11 where id = 1", "update test set value = 19 where id = 2", "commit"],
                    &["update test set value = 12 where id = 1", "update test set value = 18 where id = 2", "commit"],
                    &[READ_1, READ_2, READ_2, READ_1, "commit"],
                ],
                order: "1 1 2 1 3 3 2 2 3 3 3",
                is_seen: |shown| match &shown.reads(2)[..] {
                    [a1, a2, b2, b1] => (a1 == "12" && a2 != "18") || (b2 == "18" && b1 != "12"),
                    _ => false,
                },
            },
            _ => self.recipe_of_snapshots(),
        }
    }

    /// Those that read committed lets happen.
    fn recipe_of_snapshots(self) -> Recipe {
        match self {
            Self::PredicateManyPreceders => Recipe {
                sessions: &[
                    &["select id, value from test where value = 30", BY_THREE, "commit"],
                    &["insert into test values (3, 30)", "commit"],
                ],
                order: "1 2 2 1 1",
                is_seen: |shown| shown.reads(0) == ["", "3, 30"],
            },
            Self::LostUpdate => Recipe {
                sessions: &[
                    &[READ_1, "update test set value = 11 where id = 1", "commit"],
                    &[READ_1, "update test set value = 12 where id = 1", "commit"],
                ],
                order: "1 2 1 2 1 2",
                is_seen: |shown| shown.both_read("10") && shown.none_failed(),
            },
            Self::ReadSkew => Recipe {
                sessions: &[
                    &[READ_1, READ_2, "commit"],
                    &["update test set value = 12 where id = 1", "update test set value = 18 where id = 2", "commit"],
                ],
                order: "1 2 2 2 1 1",
                is_seen: |shown| shown.reads(0) == ["10", "18"],
            },
            Self::PredicateWriteSkew => Recipe {
                sessions: &[
                    &[BY_THREE, "insert into test values (3, 30)", "commit"],
                    &[BY_THREE, "insert into test values (4, 42)", "commit"],
                ],
                order: "1 2 1 2 1 2",
                is_seen: |shown| shown.both_read("") && shown.none_failed(),
            },
            _ => Recipe {
                sessions: &[
                    &[READ_BOTH, "update test set value = 11 where id = 1", "commit"],
                    &[READ_BOTH, "update test set value = 21 where id = 2", "commit"],
                ],
                order: "1 2 1 2 1 2",
                is_seen: |shown| shown.both_read("10 20") && shown.none_failed(),
            },
        }
    }
}
