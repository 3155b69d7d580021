//! Judges over what was done to a system and what it says afterwards.
//!
//! A [`Recorder`] writes a [`History`] of some [`Kind`] while clients work; the history's `judge` says what must not be. Each
//! verdict has an `outcome`: Pass with coverage, Fail with a witness, NoEvidence when nothing could have been seen.
//!
//! | kind of history | question |
//! |---|---|
//! | [`set::Set`] | is everything that was added still there? |
//! | [`queue::Queue`] | does everything come out, as often as promised, in order? |
//! | [`counter::Counter`], [`bank::Bank`], [`ids::Ids`] | do sums, totals and ids hold? |
//! | [`register::Register`] | is it linearizable? Does each session see what it must? |
//! | [`transactions::ListAppend`], [`transactions::RwRegister`] | which isolation does it give? |
//!
//! Other evidence has judges of its own: [`Ledger`] for what must be there after a disaster and [`restore`] for all of a state,
//! [`cache`] for copies, [`FailoverTimeline`] for what a failover cost, [`outage`] for what one looked like from outside,
//! [`switch`] for changes of versions under traffic, [`reload`] for those of the configuration, [`health`] for what a service says
//! of itself, [`chain`] for events, [`canary`] for data at the wrong receiver, [`audit`] for logs that must be complete and not
//! change and [`query`] for what they answer, [`assignment`] for who got which task, [`Integrity`] for damaged payloads.
//!
//! # Write your own judge, with its negative control
//!
//! A judge is a function from a history to an [`Outcome`](crate::Outcome). It needs three tests: a sound history passes, each
//! planted defect fails with its witness, and a history in which the defect could not have shown is no evidence.
//!
//! ```
//! use harness_props::Outcome;
//! use harness_props::history::queue::{Call, Queue, Reply};
//! use harness_props::history::{End, History};
//!
//! // Nothing comes out of a queue that went in more than `most` operations before: nobody is starved.
//! fn fair(history: &History<Queue>, most: usize) -> Outcome {
//!     let all = history.operations();
//!     let mut waited = 0;
//!     for (out, operation) in all.iter().enumerate() {
//!         let Some(Reply::Element(Some(element))) = operation.reply() else { continue };
//!         let put = all.iter().position(|one| one.call == Call::Enqueue(element.clone()) && one.is_ok());
//!         let Some(put) = put else { continue };
//!         if out - put > most {
//!             return Outcome::fail(format!("{element} waited for {} operations: {operation}", out - put));
//!         }
//!         waited += 1;
//!     }
//!     match waited {
//!         0 => Outcome::no_evidence("nothing came out"),
//!         count => Outcome::pass(format!("{count} elements came out in time")),
//!     }
//! }
//!
//! let run = |order: &[i64]| {
//!     let mut history = History::<Queue>::new();
//!     for n in 1..=4 { history.call(0, Call::Enqueue(n.into()), End::Ok(Reply::Done)).unwrap(); }
//!     for n in order { history.call(1, Call::Dequeue, End::Ok(Reply::Element(Some((*n).into())))).unwrap(); }
//!     history
//! };
//! assert!(fair(&run(&[1, 2, 3, 4]), 4).is_pass());
//! assert!(fair(&run(&[4, 3, 2, 1]), 4).is_fail(), "the planted defect: a stack");
//! assert!(fair(&run(&[]), 4).is_no_evidence());
//! ```

pub mod assignment;
pub mod audit;
pub mod bank;
mod budget;
pub mod cache;
pub mod canary;
pub mod chain;
pub mod counter;
mod failover;
pub mod health;
pub mod ids;
mod ledger;
pub mod linear;
pub mod outage;
pub mod query;
pub mod queue;
mod record;
pub mod register;
pub mod reload;
pub mod restore;
mod sealed;
pub mod session;
pub mod set;
pub mod switch;
pub mod transactions;
pub(crate) mod witness;

pub use budget::Budget;
pub use failover::{
    Answer, ClientReturn, FailoverLimits, FailoverTimeline, FailoverVerdict, LostWindow, Promotion, Reading,
    SplitBrain, Write,
};
pub use ledger::{Delivery, Ledger, LedgerRules, LedgerVerdict, Recovered, checksum};
pub use record::{End, History, HistoryError, Key, Kind, Moment, Operation, Pending, Process, Recorder};
pub use sealed::{Integrity, seal};
