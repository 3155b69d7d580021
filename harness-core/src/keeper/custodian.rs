//! Who ends what a dead process left on a server.

use serde::{Deserialize, Serialize};

use super::{LeaseId, ServerState};
use crate::error::CoreResult;

/// Something a lease left, or that was ended because it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Left {
    /// What it is: `database`, `keyspace`, `dir`, `container`, `process`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The lease it belongs to, if its name tells.
    pub lease: Option<LeaseId>,
}

impl Left {
    /// A thing of a kind and name that belongs to a lease.
    pub fn new(kind: impl Into<String>, name: impl Into<String>, lease: Option<LeaseId>) -> Self {
        Self { kind: kind.into(), name: name.into(), lease }
    }
}

/// Lists and ends what leases leave on a kind of server. Blocking: the keeper calls it from a thread without a runtime.
///
/// A custodian never ends what [`ServerState::keeps`] names, and treats what is gone already as ended.
pub trait Custodian: Send + Sync {
    /// The hook whose servers it looks after.
    fn hook(&self) -> &'static str;

    /// Everything on the server that belongs to any lease.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn list(&self, server: &ServerState) -> CoreResult<Vec<Left>>;

    /// Ends what this lease left, and returns what it ended.
    ///
    /// # Errors
    /// When something could not be ended; the keeper tries again.
    fn end(&self, server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>>;

    /// Serves the processes that use the server, for as long as the keeper lives: called once, on a thread of its own, as
    /// soon as the server's process is there. Whether it is ready is not known yet, and `server` says so by its facts.
    ///
    /// # Errors
    /// When it cannot serve; the keeper notes it in its log and goes on without.
    fn attend(&self, server: &ServerState) -> CoreResult {
        let _ = server;
        Ok(())
    }

    /// Called once, in good time before the keeper ends the server and goes. Must be bounded: a keeper that is asked to
    /// end has seconds, not minutes.
    ///
    /// # Errors
    /// When something stays; the keeper notes it in its log and goes.
    fn leave(&self, server: &ServerState) -> CoreResult {
        let _ = server;
        Ok(())
    }
}
