//! What can be wrong with transactions, and which isolation forbids it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The guarantee a history is judged by (Adya, *Weak Consistency*, 1999, with the names of SQL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// PL-1: writes of two transactions do not interleave.
    ReadUncommitted,
    /// PL-2: what is read was committed, and in its final state.
    ReadCommitted,
    /// PL-SI: every transaction reads one state, and of two that change the same thing one fails.
    SnapshotIsolation,
    /// PL-3 on items: there is one order. Predicates are not judged, so that REPEATABLE READ of the standard is this too.
    Serializable,
}

/// What else the order has to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Nothing.
    Free,
    /// The order of each process.
    Session,
    /// The order in real time: what ended before another began comes first.
    RealTime,
}

/// A guarantee: a level and an order. `Isolation::from(Level::Serializable)` has no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Isolation {
    /// The level.
    pub level: Level,
    /// The order.
    pub order: Order,
}

impl Isolation {
    /// A level in an order.
    #[must_use]
    pub fn new(level: Level, order: Order) -> Self {
        Self { level, order }
    }
}

impl From<Level> for Isolation {
    fn from(level: Level) -> Self {
        Self { level, order: Order::Free }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.order {
            Order::Free => "",
            Order::Session => "strong session ",
            Order::RealTime => "strict ",
        })?;
        f.write_str(match self.level {
            Level::ReadUncommitted => "read uncommitted",
            Level::ReadCommitted => "read committed",
            Level::SnapshotIsolation => "snapshot isolation",
            Level::Serializable => "serializable",
        })
    }
}

/// A kind of anomaly; the names are those of Adya and of Elle (Kingsbury and Alvaro, 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Class {
    /// A read of something nobody wrote.
    Phantom,
    /// The same element twice in one list.
    Duplicate,
    /// Two reads of one list of which neither continues the other.
    IncompatibleOrder,
    /// Writes that come before one another.
    CyclicVersions,
    /// A transaction that does not read its own writes.
    Internal,
    /// Writes of two transactions interleave: a cycle of overwriting.
    G0,
    /// A committed write on top of one that was refused.
    DirtyUpdate,
    /// A read of what was refused.
    G1a,
    /// A read of a state that its writer itself went on to change.
    G1b,
    /// A cycle of reading and overwriting.
    G1c,
    /// The same read twice, with different answers.
    UnrepeatableRead,
    /// Two transactions read the same version of a thing and both changed it.
    LostUpdate,
    /// A cycle with exactly one anti-dependency: read skew.
    GSingle,
    /// Two transactions see the writes of two others, which have nothing to do with each other, in opposite orders (Cerone,
    /// Bernardi and Gotsman, *A Framework for Transactional Consistency Models with Atomic Visibility*, 2015): what parallel
    /// snapshot isolation allows and snapshot isolation does not.
    LongFork,
    /// Any other cycle with several anti-dependencies, no two in a row.
    GNonadjacent,
    /// A cycle with anti-dependencies in a row: write skew.
    G2Item,
}

impl Class {
    /// The weakest level that forbids it.
    #[must_use]
    pub fn forbidden_from(self) -> Level {
        match self {
            Self::Phantom
            | Self::Duplicate
            | Self::IncompatibleOrder
            | Self::CyclicVersions
            | Self::Internal
            | Self::G0 => Level::ReadUncommitted,
            Self::DirtyUpdate | Self::G1a | Self::G1b | Self::G1c => Level::ReadCommitted,
            Self::UnrepeatableRead | Self::LostUpdate | Self::GSingle | Self::LongFork | Self::GNonadjacent => {
                Level::SnapshotIsolation
            }
            Self::G2Item => Level::Serializable,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Phantom => "phantom",
            Self::Duplicate => "duplicate elements",
            Self::IncompatibleOrder => "incompatible order",
            Self::CyclicVersions => "cyclic versions",
            Self::Internal => "internal",
            Self::G0 => "G0",
            Self::DirtyUpdate => "dirty update",
            Self::G1a => "G1a",
            Self::G1b => "G1b",
            Self::G1c => "G1c",
            Self::UnrepeatableRead => "unrepeatable read",
            Self::LostUpdate => "lost update",
            Self::GSingle => "G-single",
            Self::LongFork => "long fork",
            Self::GNonadjacent => "G-nonadjacent",
            Self::G2Item => "G2-item",
        }
    }
}

/// A kind of anomaly, and the order without which it would be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Anomaly {
    /// What it is.
    pub class: Class,
    /// The order that its cycle needs.
    pub order: Order,
}

impl Anomaly {
    /// True when this guarantee excludes it.
    #[must_use]
    pub fn is_forbidden_by(self, isolation: Isolation) -> bool {
        self.class.forbidden_from() <= isolation.level && self.order <= isolation.order
    }
}

impl From<Class> for Anomaly {
    fn from(class: Class) -> Self {
        Self { class, order: Order::Free }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.name())?;
        f.write_str(match self.order {
            Order::Free => "",
            Order::Session => "-session",
            Order::RealTime => "-realtime",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Anomaly, Class, Order};

    #[test]
    fn anomaly_has_the_name_the_literature_gives_it_and_the_order_it_needs() {
        let named = |class, order| Anomaly { class, order }.to_string();
        assert_eq!(named(Class::G2Item, Order::Free), "G2-item");
        assert_eq!(named(Class::GSingle, Order::Session), "G-single-session");
        assert_eq!(named(Class::LostUpdate, Order::RealTime), "lost update-realtime");
    }
}
