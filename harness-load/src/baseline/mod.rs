//! Stored baselines: what it took last time, on this very kind of machine.
//!
//! ```
//! use harness_load::baseline::{Runs, baseline};
//! use harness_load::compare::Verdict;
//!
//! # let dir = std::env::temp_dir().join(format!("baseline-example-{}", std::process::id()));
//! let checkout = baseline("checkout").profile("200/s for 30 s").in_dir(&dir);
//! let figures = || (0..10).map(|n| 20.0 + f64::from(n) / 10.0); // the p95 of ten runs, in ms
//! checkout.save(Runs::of("p95", figures()))?;
//! let comparison = checkout.compare(&Runs::of("p95", figures()))?;
//! assert_ne!(comparison.verdict(), Verdict::Regressed, "{comparison}"); // `check()` also refuses what cannot be told
//! # std::fs::remove_dir_all(dir).unwrap();
//! # harness_core::CoreResult::Ok(())
//! ```
//!
//! A stored figure is worth less than an interleaved one: between two runs a machine changes. So a baseline carries the
//! [`Fingerprint`] of its machine and build and a hash of its profile, and is *refused* where they differ; it carries the
//! pace of its machine (arithmetic, and round trips to another thread), and what the machine itself became slower by is
//! taken off every worsening; and its floor is 10 %, not 2 %. Where old and new can both run now, use [`Baseline::interleaved`], which is
//! [`compare`](crate::compare()).
//!
//! [`criterion`] keeps the results of criterion's benches the same way, one figure per process, and makes `cargo bench`
//! fail on a real regression.
//! [`Baseline::append`] keeps a history of medians, and [`History::moved`] finds when they moved ([`change_points`]).
//! [`Saved::gate`] makes limits of what was normal.

mod again;
mod change;
mod criterion;
mod fingerprint;
mod history;
mod pace;
mod rank;
mod store;
#[cfg(test)]
mod tests;

pub use change::{ChangePoint, change_points};
pub use criterion::{CriterionGate, criterion};
pub use fingerprint::Fingerprint;
pub use history::{History, Moved};
pub use store::{Baseline, Runs, Saved, baseline};
