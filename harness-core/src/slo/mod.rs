//! Limits, verdicts and the decision, in exact numbers.
//!
//! A [`Limit`] is written the way people write it (`< 250 ms`, `>= 95 %`) and compared exactly that way: `<` is not
//! `≤`, and 94.96 % is never 95 %. A [`Threshold`] pairs a target with a critical limit and judges a [`Measured`]
//! value: better than the target is a pass, between target and critical is degraded, beyond critical is a failure,
//! and nothing measured is never a pass. [`decide`] turns many verdicts into one: GO, CONDITIONAL or NO-GO.
//! Over time, a [`WatchWindow`] wants so long without red, and [`alert`] says who is told.
//!
//! ```
//! use harness_core::slo::{Measured, Threshold};
//!
//! let p95 = Threshold::parse("p95", "< 250 ms", Some("< 500 ms")).unwrap();
//! let at = |ms: u64| p95.judge(&Measured::Quantile { q: 0.95, nanos: ms * 1_000_000, samples: 1_000 });
//! assert_eq!(at(249).word(), "pass");
//! assert_eq!(at(250).word(), "degraded"); // `<` as written: exactly on the limit misses it
//! assert_eq!(at(500).word(), "fail");
//! assert!(p95.judge(&Measured::nothing("no request was sent")).is_no_evidence());
//! ```

pub mod alert;
mod amount;
mod colour;
mod decision;
mod exit;
mod limit;
mod measured;
mod threshold;
mod watch;
mod wide;

pub use amount::{Amount, Percent, Unit, mebibytes, per_second, percent};
pub use colour::Colour;
pub use decision::{
    CriterionResult, Decision, Inputs, MatrixRow, Policy, ReleaseRow, ScenarioResult, Verdict, decide, judge_rows,
};
pub use exit::{codes, preflight_exit_code};
pub use limit::{Limit, Op};
pub use measured::Measured;
pub use threshold::Threshold;
pub use watch::{Breach, Watch, WatchWindow};
