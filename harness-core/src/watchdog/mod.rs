//! Ends a test in which nothing advances any more, with the state of everybody who takes part.
//!
//! Workers, clients and services [join](Parties::join) and say what they are at. When nobody has said anything new for a
//! while, the guard ends the test and its error lists what each was at, and for how long: a deadlock shows who waits for whom,
//! where a time-out of the whole suite shows nothing.
//!
//! ```
//! use std::time::Duration;
//! use harness_core::watchdog::Parties;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let parties = Parties::new();
//! let stuck = async |parties: &Parties| {
//!     let mut reader = parties.join("reader");
//!     reader.at("waiting for the lock of 7");
//!     std::future::pending::<()>().await;
//! };
//! let error = parties.guard(Duration::from_secs(5), stuck(&parties)).await.unwrap_err();
//! assert_eq!(error.what(), "nothing has advanced for 5 s");
//! assert!(format!("{error:?}").contains("reader: waiting for the lock of 7, for 5 s"));
//! # });
//! ```
//!
//! Two guards: [`Parties::guard`] inside a runtime, and [`guarded`] around one, which ends also a test that blocks its thread.
//!
//! What it does not do: it cannot stop a thread that blocks; that is left behind and named.

mod parties;
#[cfg(test)]
mod tests;
mod thread;

pub use parties::{Parties, Party};
pub use thread::guarded;
