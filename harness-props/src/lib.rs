//! Pure judges for test suites.
//!
//! A judge looks at data and says what it found: [`Outcome::Pass`] with its coverage, [`Outcome::Fail`] with a
//! witness, or [`Outcome::NoEvidence`] when there was nothing to judge. Nothing in this crate talks to a network,
//! reads a clock or needs a runtime, so a verdict depends on the evidence alone.
//!
//! ```
//! # #[cfg(feature = "judges")] {
//! use harness_props::history::{Ledger, Recovered};
//!
//! let mut ledger = Ledger::new();
//! ledger.attempt("order-1", "10 apples");
//! ledger.acknowledge("order-1");
//! ledger.attempt("order-2", "3 pears"); // the answer never came
//!
//! let verdict = ledger.judge(&[Recovered::intact("order-1", "10 apples")]);
//! assert!(verdict.outcome().is_pass());
//!
//! let lost = ledger.judge(&[]);
//! assert_eq!(lost.lost, ["order-1"]);
//! assert!(lost.outcome().is_fail());
//! # }
//! ```
//!
//! Besides histories it judges data that a system produced: [`plan`]s and [`solution`]s by 111 [`rule`]s, [`contract`]s
//! of documents, truncated [`context`]s; ranks and fronts in exact numbers ([`rank`], [`pareto`]). Every rule is proven
//! by planted defects ([`mutate`]) on valid subjects ([`generate`]), and failures are made small ([`shrink`]); anybody's
//! validator or ranking is tried by how its answers must relate ([`relation`]).
//!
//! It does *not* run your system, retry, or wait: `harness-core` and its siblings do, and hand the evidence over.
//!
//! The judges are the feature `judges`, on by default; without it there is only [`Outcome`].

#[cfg(feature = "judges")]
pub mod context;
#[cfg(feature = "judges")]
pub mod contract;
#[cfg(all(test, feature = "judges"))]
mod env;
#[cfg(feature = "judges")]
pub mod generate;
#[cfg(feature = "judges")]
pub mod history;
#[cfg(feature = "judges")]
pub mod model;
#[cfg(feature = "judges")]
pub mod mutate;
pub mod outcome;
#[cfg(feature = "judges")]
pub mod pareto;
#[cfg(feature = "judges")]
pub mod plan;
#[cfg(feature = "judges")]
pub mod rank;
#[cfg(feature = "judges")]
pub mod relation;
#[cfg(feature = "judges")]
pub mod rule;
#[cfg(feature = "judges")]
pub mod shrink;
#[cfg(feature = "judges")]
pub mod solution;

pub use outcome::{DataVerdict, Outcome};
