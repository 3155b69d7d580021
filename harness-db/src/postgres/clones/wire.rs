//! What goes over a server's pool socket: one JSON document a line. Client and steward are of the same version, since the
//! version is part of the slot's key.

use harness_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::super::sql;

/// The socket in the slot's directory.
pub(super) const SOCKET: &str = "pool.sock";

/// What a test process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// A database, please. Answered with [`Answer::Yours`], [`Answer::Build`] or [`Answer::No`].
    Claim(Order),
    /// The template I was asked to build is there; what I claimed is still wanted.
    Built,
    /// Drop my database now. Answered with [`Answer::Gone`] or [`Answer::No`]; the claim is over.
    Drop,
    /// My database is kept: its note lies in the slot. Answered with [`Answer::Kept`]; the claim is over.
    Keep,
    /// Who has what? Answered with [`Answer::Status`].
    Status,
}

/// What is claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Name of the template.
    pub(crate) template: String,
    /// Connections, granted at once or not at all.
    pub(crate) connections: u32,
    /// The lease of the process.
    pub(crate) lease: String,
    /// The test.
    pub(crate) test: String,
    /// True when the database may be handed to another test after it was found unchanged.
    pub(crate) reusable: bool,
    /// How long to wait, in milliseconds.
    pub(crate) limit_ms: u64,
}

/// What the steward says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// This database, until the socket closes.
    Yours(String),
    /// Nobody has built the template yet: do it, then say [`Ask::Built`]. Everybody else waits for you.
    Build,
    /// The database is gone.
    Gone,
    /// The database stays until its note goes.
    Kept,
    /// Not possible, and why.
    No(Refusal),
    /// Who has what.
    Status(Status),
}

/// Why the steward says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) kind: Why,
    pub(super) what: String,
    pub(super) tried: Vec<String>,
    pub(super) remedy: Option<String>,
}

/// The kinds of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Why {
    Config,
    Timeout,
    Environment,
    /// The server has no space left (SQLSTATE 53100).
    DiskFull,
    Connect,
    Protocol,
}

impl Why {
    pub(super) fn kind(self) -> ErrorKind {
        match self {
            Self::Config => ErrorKind::Config,
            Self::Timeout => ErrorKind::Timeout,
            Self::Environment | Self::DiskFull => ErrorKind::Environment,
            Self::Connect => ErrorKind::Connect,
            Self::Protocol => ErrorKind::Protocol,
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            _ if sql::is_disk_full(error) => Self::DiskFull,
            ErrorKind::Config => Self::Config,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Environment => Self::Environment,
            ErrorKind::Connect => Self::Connect,
            _ => Self::Protocol,
        }
    }
}

/// Who has what of a server's databases and connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Connections that may be granted.
    pub(crate) budget: u32,
    /// Connections that are granted.
    pub(crate) granted: u32,
    /// Requests that wait.
    pub(crate) waiting: usize,
    /// Claimed databases: name, lease, test.
    pub(crate) claimed: Vec<(String, String, String)>,
    /// Databases that wait for a test.
    pub(crate) ready: usize,
    /// Databases that wait to be looked at or dropped.
    pub(crate) used: usize,
    /// Databases made since the server was started.
    pub(crate) cloned: u64,
    /// Times an unchanged database was handed out again.
    pub(crate) reused: u64,
}
