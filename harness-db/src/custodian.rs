//! What the keeper of our servers ends when a test process dies: its databases.
//!
//! Redis keyspaces need no custodian: a keyspace is leased by a file lock that the kernel releases, and whoever takes it
//! next flushes it first.

use std::time::Duration;

use harness_core::keeper::{Custodian, LeaseId, Left, ServerState, run_if_asked};
use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};

/// The hook that runs the keepers of servers of this crate.
pub(crate) const HOOK: &str = "harness-db";
/// What kept and left databases are called.
#[cfg(feature = "postgres")]
pub(crate) const DATABASE: &str = "database";
/// How long ending what one lease left may take; the keeper tries again.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends databases of dead leases.
#[derive(Debug)]
struct Databases;

impl Custodian for Databases {
    fn hook(&self) -> &'static str {
        HOOK
    }

    fn list(&self, server: &ServerState) -> CoreResult<Vec<Left>> {
        match is_postgres(server) {
            true => block_on(databases::list(server, None)),
            false => Ok(Vec::new()),
        }
    }

    fn end(&self, server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
        match is_postgres(server) {
            true => block_on(databases::end(server, lease)),
            false => Ok(Vec::new()),
        }
    }
}

/// The starter publishes what it started; see `provider::shared`.
fn is_postgres(server: &ServerState) -> bool {
    server.facts.get(crate::provider::shared::SERVICE).is_some_and(|service| service == "postgres")
}

fn block_on<T>(future: impl Future<Output = CoreResult<T>>) -> CoreResult<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Error::new(ErrorKind::Environment, "no runtime for ending what a dead process left").caused_by(error)
    })?;
    runtime.block_on(async { within("ending what a dead process left", LIMIT, future).await? })
}

#[cfg(feature = "postgres")]
mod databases {
    use harness_core::CoreResult;
    use harness_core::keeper::{LeaseId, Left, ServerState};
    use sqlx::Connection as _;

    use super::DATABASE;
    use crate::postgres::names::{Whose, whose};
    use crate::postgres::{guest, sql};

    /// Databases of leases, or of one lease. Templates belong to the server and go with it.
    pub(super) async fn list(server: &ServerState, lease: Option<&LeaseId>) -> CoreResult<Vec<Left>> {
        let mut session = sql::connect(&sql::own_options(server.address)).await?;
        let all = guest::databases(&mut session).await?;
        let _ = session.close().await;
        let of_lease = |name: String| {
            let Some(Whose::Lease(owner)) = whose(&name) else { return None };
            let owner = LeaseId::parse(owner);
            (lease.is_none() || owner.as_ref() == lease).then(|| Left::new(DATABASE, name, owner.clone()))
        };
        Ok(all.into_iter().filter_map(|(name, _)| of_lease(name)).collect())
    }

    /// Drops what this lease left, except what is kept.
    pub(super) async fn end(server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
        let mut left = list(server, Some(lease)).await?;
        left.retain(|thing| !server.keeps(DATABASE, &thing.name));
        let mut session = sql::connect(&sql::own_options(server.address)).await?;
        for thing in &left {
            guest::drop_one(&mut session, &thing.name).await?;
        }
        let _ = session.close().await;
        Ok(left)
    }
}

#[cfg(not(feature = "postgres"))]
mod databases {
    use harness_core::CoreResult;
    use harness_core::keeper::{LeaseId, Left, ServerState};

    pub(super) async fn list(_: &ServerState, _: Option<&LeaseId>) -> CoreResult<Vec<Left>> {
        Ok(Vec::new())
    }

    pub(super) async fn end(_: &ServerState, _: &LeaseId) -> CoreResult<Vec<Left>> {
        Ok(Vec::new())
    }
}

mod before_main {
    #[ctor::ctor(unsafe)]
    fn hook() {
        super::run_if_asked(super::HOOK, &[&super::Databases]);
    }
}
