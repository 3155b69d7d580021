//! Redis: a logical database per test on a shared server, and servers of one's own for faults and settings.
//!
//! What they are checked for: times to live, big keys, the commands some work sends, what a channel carries; and on servers of
//! one's own, where nobody else is counted: the hit rate, memory, the slow log, key events, [`eviction`], and whether
//! several instances of a cache are [coherent](Coherence).
//!
//! ```no_run
//! # async fn example() -> harness_db::Result {
//! let redis = harness_db::redis().await?;
//! redis.expects_ttl("session:*", 1..=3600).await?; // keys that never expire are named
//! let url = redis.url();
//! let seen = redis.commands(async || harness_db::redis::LogicalDb::at(&url)?.ttls("user:*").await).await?;
//! seen.at_most(3)?.never_calls("KEYS")?;
//! # Ok(()) }
//! ```

mod acl;
#[cfg(feature = "checks")]
mod census;
mod channel;
#[cfg(feature = "checks")]
mod checks;
#[cfg(feature = "fault")]
mod faults;
mod guest;
mod keyspace;
mod own;
pub(crate) mod readiness;
#[cfg(feature = "fault")]
pub mod resp;
mod server;
mod visit;
pub(crate) mod wire;

pub use acl::{User, UserRequest};
#[cfg(feature = "checks")]
pub use census::Clients;
#[cfg(feature = "checks")]
pub use checks::*;
#[cfg(feature = "fault")]
pub use faults::PausedWrites;
pub use keyspace::{Keyspace, Request};
pub use own::{OwnRedis, RedisOptions};
pub use server::Server;
pub use visit::flush;

/// A logical database of its own on the shared server, which is found or started. Never database 0.
///
/// # Errors
/// [`ErrorKind::Environment`](harness_core::ErrorKind::Environment) listing every provider that was asked and what would
/// make it work.
pub fn redis() -> Request {
    Request::new()
}
