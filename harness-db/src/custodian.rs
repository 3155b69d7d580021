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
/// Directory of a slot with a note per lease that has built a template: only those are looked for on the server.
#[cfg(feature = "postgres")]
pub(crate) const BUILDS: &str = "builds";
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

    fn attend(&self, server: &ServerState) -> CoreResult {
        databases::attend(server)
    }

    fn leave(&self, server: &ServerState) -> CoreResult {
        match is_postgres(server) {
            true => block_on(databases::leave(server)),
            false => Ok(()),
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
    use sqlx::postgres::PgConnectOptions;

    use super::{BUILDS, DATABASE};
    use crate::postgres::names::{POOL, Whose, whose};
    use crate::postgres::{guest, sql, status, steward};

    /// How the server is reached.
    fn options(server: &ServerState) -> CoreResult<PgConnectOptions> {
        match server.facts.get(guest::URL) {
            Some(url) => sql::parse_url("HARNESS_POSTGRES_URL", url),
            None => Ok(sql::own_options(server.address)),
        }
    }

    /// Databases that are claimed, and templates that leases build. Finished templates and the pool belong to the server
    /// and go with it.
    pub(super) async fn list(server: &ServerState, lease: Option<&LeaseId>) -> CoreResult<Vec<Left>> {
        let mut left = Vec::new();
        for (name, owner, _) in status(&server.slot, server.keeper).await?.claimed {
            left.push(Left::new(DATABASE, name, LeaseId::parse(&owner)));
        }
        left.extend(building(server).await?);
        left.retain(|thing| lease.is_none() || thing.lease.as_ref() == lease);
        Ok(left)
    }

    /// Templates under construction.
    async fn building(server: &ServerState) -> CoreResult<Vec<Left>> {
        let mut session = sql::connect(&options(server)?).await?;
        let all = guest::databases(&mut session).await?;
        let _ = session.close().await;
        let of_lease = |name: String| match whose(&name) {
            Some(Whose::Lease(owner)) if owner != POOL => {
                let owner = LeaseId::parse(owner);
                Some(Left::new(DATABASE, name, owner))
            }
            _ => None,
        };
        Ok(all.into_iter().filter_map(|(name, _)| of_lease(name)).collect())
    }

    /// Drops the template this lease was building. What it had claimed came back when its sockets closed.
    pub(super) async fn end(server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
        let note = server.slot.join(BUILDS).join(lease.as_str());
        if !note.exists() {
            return Ok(Vec::new());
        }
        let mut left = building(server).await?;
        left.retain(|thing| thing.lease.as_ref() == Some(lease) && !server.keeps(DATABASE, &thing.name));
        if left.is_empty() {
            std::fs::remove_file(note)?;
            return Ok(left);
        }
        let mut session = sql::connect(&options(server)?).await?;
        for thing in &left {
            guest::drop_one(&mut session, &thing.name).await?;
        }
        let _ = session.close().await;
        std::fs::remove_file(note)?;
        Ok(left)
    }

    /// Serves the pool of databases, on a thread of the keeper.
    pub(super) fn attend(server: &ServerState) -> CoreResult {
        // Which service it is nobody has said yet: a pool that nobody asks does nothing.
        steward::serve(server)
    }

    /// A foreign server outlives its keeper: nothing of it stays there.
    pub(super) async fn leave(server: &ServerState) -> CoreResult {
        match server.facts.get(guest::URL) {
            Some(url) => guest::move_out(url, server.keeper).await,
            None => Ok(()),
        }
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

    pub(super) fn attend(_: &ServerState) -> CoreResult {
        Ok(())
    }

    pub(super) async fn leave(_: &ServerState) -> CoreResult {
        Ok(())
    }
}

mod before_main {
    #[ctor::ctor(unsafe)]
    fn hook() {
        super::run_if_asked(super::HOOK, &[&super::Databases]);
    }
}
