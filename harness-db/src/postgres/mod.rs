//! Postgres: a database per test on a shared server, servers of one's own for faults, and assertions about both.

mod activity;
mod capabilities;
mod database;
mod deadlocks;
pub(crate) mod guest;
pub(crate) mod names;
mod own;
mod plan;
pub(crate) mod readiness;
mod server;
pub(crate) mod servers;
pub(crate) mod sql;
mod strategy;
mod template;
mod vector;
mod visit;

pub use activity::{Session, SessionPoint, SessionSampler, SessionSeries, Sessions};
pub use capabilities::Capabilities;
pub use database::{Database, Request};
pub use deadlocks::Deadlocks;
pub use guest::{Leftover, leftovers, sweep};
pub use own::{OwnOptions, OwnPostgres};
pub use plan::{Explain, Plan};
pub use server::Server;
pub use template::Template;
pub use vector::{Distance, Recall, VectorIndex};
pub use visit::observe;

pub(crate) use server::Tenancy;
pub(crate) use strategy::Strategy;

/// A clean, empty database on the shared server, which is found or started.
///
/// # Errors
/// [`ErrorKind::Environment`](harness_core::ErrorKind::Environment) listing every provider that was asked and what would
/// make it work.
pub fn postgres() -> Request {
    Template::empty().database()
}

impl Template {
    /// A database that begins as this template. Await it, or set how first: `APP.database().connections(20).await?`.
    ///
    /// # Errors
    /// As [`postgres`], and [`ErrorKind::Config`](harness_core::ErrorKind::Config) naming the file and line of a
    /// statement that fails.
    pub fn database(&self) -> Request {
        Request::new(*self)
    }
}
