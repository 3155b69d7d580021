//! What every test of a service needs: a life of its own, bounded waits, services that start and end, thresholds, and a
//! campaign that ends in one decision.
//!
//! ```
//! use std::time::Duration;
//!
//! use harness_core::scope::TestScope;
//! use harness_core::wait::{Progress, wait_for};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let scope = TestScope::new("an example");
//! let file = scope.temp_dir()?.join("answer"); // gone with the scope, kept if the test fails
//! std::fs::write(&file, "42")?;
//! let answer = wait_for("the answer", Duration::from_secs(5), async || match std::fs::read_to_string(&file) {
//!     Ok(text) => Progress::Ready(text),
//!     Err(error) => Progress::NotYet(error.to_string()), // the last status stands in the error when time runs out
//! })
//! .await?;
//! assert_eq!(answer, "42");
//! scope.shutdown().await?; // in reverse order, each step bounded; a drop does the same as a fallback
//! # harness_core::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! # Rooms
//! - [`run`]: identity and seed. [`env`](mod@env): the settings. [`error`]: one error for the family, and the error of a test body.
//! - [`scope`], [`wait`], [`watchdog`]: one test's life; the only place that sleeps; who ends a test that hangs, and with what.
//! - [`service`], [`keeper`]: things that run, and who ends them when everybody is dead.
//! - `auth` (feature `auth`): really signed tokens, hostile ones, and a reference verifier.
//! - `client`, `stub` (feature `http`): an HTTP client with staged time limits, and a scripted model server; of `client`, what needs no
//!   connection comes with `checks`.
//! - `fault` (feature `fault`): breaking things on purpose, with proof. `experiment` (feature `experiment`): judging how they come back.
//! - `changeover` (feature `experiment`): switches between versions, hot reloads, health endpoints and degraded modes under traffic.
//! - `resilience` (feature `experiment`): whether breakers, retries, time limits and bulkheads do what they say.
//! - `slo` (feature `checks`), `campaign` (feature `campaign`, on by default): thresholds with target and critical, phases and
//!   scenarios, the decision.
//! - `monitor` (feature `checks`): what a process uses over time, and whether it leaks. `probes` (feature `checks`): pre-flight
//!   probes of documents, dependencies, source, repository and open ports.
//! - [`record`], `report` (feature `report`): the event stream, and its writers.
//!
//! Who only needs services and scopes leaves out the default features, and compiles half.
//!
//! # What it does not do
//! It is no test runner and no mock. It does not retry until green, and it never calls missing evidence a pass: see
//! [`Outcome::NoEvidence`].

#[cfg(feature = "auth")]
pub mod auth;
#[cfg(feature = "campaign")]
pub mod campaign;
#[cfg(feature = "experiment")]
pub mod changeover;
#[cfg(feature = "checks")]
pub mod client;
pub mod env;
pub mod error;
#[cfg(feature = "experiment")]
pub mod experiment;
#[cfg(feature = "fault")]
pub mod fault;
pub mod keeper;
#[cfg(feature = "checks")]
pub mod monitor;
#[cfg(feature = "checks")]
pub mod probes;
pub mod record;
#[cfg(feature = "report")]
pub mod report;
#[cfg(feature = "experiment")]
pub mod resilience;
pub mod run;
pub mod scope;
pub mod service;
#[cfg(feature = "checks")]
pub mod slo;
#[cfg(feature = "http")]
pub mod stub;
pub mod wait;
pub mod watchdog;

pub use error::{CoreResult, Error, ErrorKind, Failure, Result};
pub use harness_props::{DataVerdict, Outcome};
