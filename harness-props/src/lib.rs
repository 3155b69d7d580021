//! Pure judges for test suites.
//!
//! A judge looks at data and says what it found: [`Outcome::Pass`] with its coverage, [`Outcome::Fail`] with a
//! witness, or [`Outcome::NoEvidence`] when there was nothing to judge. Nothing in this crate talks to a network,
//! reads a clock or needs a runtime, so a verdict depends on the evidence alone.
//!
//! ```
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
//! ```
//!
//! It does *not* run your system, retry, or wait: `harness-core` and its siblings do, and hand the evidence over.

pub mod history;
pub mod outcome;

pub use outcome::Outcome;
