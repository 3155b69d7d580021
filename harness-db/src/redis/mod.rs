//! Redis: a logical database per test on a shared server, and servers of one's own for faults and settings.

mod guest;
mod keyspace;
mod own;
pub(crate) mod readiness;
mod server;
mod visit;
pub(crate) mod wire;

pub use keyspace::{Keyspace, Request};
pub use own::{OwnRedis, RedisOptions};
pub use server::Server;
pub use visit::{Lookups, calls, flush, lookups};

/// A logical database of its own on the shared server, which is found or started. Never database 0.
///
/// # Errors
/// [`ErrorKind::Environment`](harness_core::ErrorKind::Environment) listing every provider that was asked and what would
/// make it work.
pub fn redis() -> Request {
    Request::new()
}
