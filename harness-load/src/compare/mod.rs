//! Is the new one slower? Interleaved pairs, a sign-flip test, and three possible answers.
//!
//! ```
//! use harness_load::compare::{Judge, Metric, Verdict};
//!
//! let old = [10.1, 9.9, 10.0, 10.3, 9.8, 10.2, 10.0, 9.9]; // a figure per round, never per request
//! let pairs = |factor: f64| old.iter().enumerate().map(move |(n, old)| (*old, old * factor * (1.0 + n as f64 / 1e3)));
//! let slower = Judge::default().judge([Metric::new("p50", pairs(1.15))])?;
//! assert_eq!(slower.verdict(), Verdict::Regressed);
//! assert_eq!(Judge::default().judge([Metric::new("p50", pairs(1.0))])?.verdict(), Verdict::Ok);
//! # harness_core::CoreResult::Ok(())
//! ```
//!
//! - **Pairs.** Old and new are measured side by side, round by round, in alternating order. What a machine does to both
//!   cancels (Bulej and others, *Duet Benchmarking*, 2020).
//! - **Sign-flip test.** If nothing changed, each pair is as likely to lean one way as the other. No normal distribution,
//!   no table: all flips are counted.
//! - **Three answers.** [`Verdict::Regressed`] alarms in at most 1 of 100 comparisons of equal things.
//!   [`Verdict::Ok`] means that a worsening of 10 % is ruled out. Else it is [`Verdict::Inconclusive`], with the
//!   smallest worsening that would have been found, and never a pass.
//!
//! [`compare`] runs two closures interleaved; [`Judge`] takes figures from anywhere else, such as two load runs a round.

mod drive;
mod judge;
mod signflip;
#[cfg(test)]
mod tests;

pub use drive::{Compare, compare};
pub use judge::{Better, Comparison, Judge, Metric, Pair, Row, Verdict};
