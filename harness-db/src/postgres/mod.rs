//! Postgres: a database per test on a shared server, servers of one's own for faults, and assertions about both.

pub(crate) mod books;
mod capabilities;
#[cfg(feature = "checks")]
mod census;
mod channel;
#[cfg(feature = "checks")]
mod checks;
mod clones;
mod database;
mod encrypted;
mod exclusive;
#[cfg(feature = "fault")]
mod faults;
pub(crate) mod guest;
pub(crate) mod names;
mod options;
mod own;
pub(crate) mod readiness;
mod replica;
mod server;
pub(crate) mod servers;
mod settings;
pub(crate) mod sql;
mod strategy;
mod template;
mod testtx;
mod visit;

pub use books::Migration;
pub use capabilities::Capabilities;
#[cfg(feature = "checks")]
pub use census::Connections;
#[cfg(feature = "checks")]
pub use checks::*;
pub use database::{Database, Request};
pub use exclusive::{Exclusive, ExclusiveRequest};
#[cfg(feature = "fault")]
pub use faults::PostgresFault;
pub use guest::{Leftover, leftovers, sweep};
pub use options::OwnOptions;
pub use own::OwnPostgres;
pub use replica::{Lag, Replica};
pub use server::Server;
pub use template::{BuildFn, Template};
pub use testtx::TestTx;
pub use visit::observe;

pub(crate) use clones::{claim::status, steward};
pub(crate) use server::Tenancy;

/// A clean, empty database on the shared server, which is found or started.
///
/// # Errors
/// [`ErrorKind::Environment`](harness_core::ErrorKind::Environment) listing every provider that was asked and what would
/// make it work.
pub fn postgres() -> Request {
    Template::empty().database()
}

/// An empty database on a Postgres of this test alone: for roles, `ALTER SYSTEM`, tablespaces and whatever else belongs to
/// a whole server. Fast, and not durable; for faults start an [`OwnPostgres`].
///
/// # Errors
/// As [`postgres`].
pub fn exclusive() -> ExclusiveRequest {
    Template::empty().exclusive()
}

impl Template {
    /// A database that begins as this template, on a Postgres of this test alone, as [`exclusive`].
    ///
    /// # Errors
    /// As [`Template::database`].
    pub fn exclusive(&self) -> ExclusiveRequest {
        ExclusiveRequest::new(*self)
    }

    /// A database that begins as this template. Await it, or set how first: `APP.database().connections(20).await?`.
    ///
    /// # Errors
    /// As [`postgres`], and [`ErrorKind::Config`](harness_core::ErrorKind::Config) naming the file and line of a
    /// statement that fails.
    pub fn database(&self) -> Request {
        Request::new(*self)
    }
}
