//! Whether a circuit breaker, a retry, a time limit, a bulkhead and load shedding do what they say, from outside.
//!
//! The system under test stands between the suite and an [`Upstream`] that the suite counts and scripts: what reaches it is
//! evidence, what the system says about itself is not. The sequence of events is judged by the automata of
//! [`harness_props::model`]. Every check gets a fresh system; a deviation on the way to what a check is about is no evidence
//! for that check, so that one defect turns one check red.
//!
//! ```
//! use std::time::Duration;
//!
//! use harness_core::resilience::{RetrySuite, System, Told};
//! use harness_props::model::retry::Retry;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! /// Three attempts, 100 and 200 ms apart.
//! let found = RetrySuite::new(Retry::new(3, Duration::from_millis(100)), async |upstream| {
//!     Ok(System::new(move |request| {
//!         let upstream = upstream.clone();
//!         async move {
//!             let mut pause = Duration::from_millis(100);
//!             for attempt in 1..=3 {
//!                 match upstream.serve(&request).await {
//!                     Ok(()) => return Told::Ok,
//!                     Err(failure) if !failure.is_retryable || !request.may_be_repeated() || attempt == 3 => break,
//!                     Err(failure) => harness_core::wait::pause(pause.max(failure.retry_after.unwrap_or_default())).await,
//!                 }
//!                 pause *= 2;
//!             }
//!             Told::Failed("gave up".into())
//!         }
//!     }))
//! })
//! .run()
//! .await?;
//! found.check()?;
//! # harness_core::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! Systems on tokio's clock are tested in virtual time, under `#[tokio::test(start_paused = true)]`; others in real time, with
//! a tolerance. A service of its own process is tested in the same way: its backend calls [`Upstream::serve`] for each request.
//!
//! Rate limiters have a probe of their own: [`crate::client::limits`].

mod breaker;
mod bulkhead;
mod deadline;
mod found;
mod retry;
mod shedding;
mod stand;
#[cfg(test)]
mod tests;
mod upstream;

pub use breaker::BreakerSuite;
pub use bulkhead::BulkheadSuite;
pub use deadline::DeadlineSuite;
pub use found::Found;
pub use retry::RetrySuite;
pub use shedding::SheddingSuite;
pub use stand::System;
pub use upstream::{Answer, Arrival, Failure, Request, Told, Upstream};
