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
//! change, [`Integrity`] for damaged payloads.

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
mod witness;

pub use budget::Budget;
pub use failover::{
    Answer, ClientReturn, FailoverLimits, FailoverTimeline, FailoverVerdict, LostWindow, Promotion, Reading,
    SplitBrain, Write,
};
pub use ledger::{Delivery, Ledger, LedgerRules, LedgerVerdict, Recovered, checksum};
pub use record::{End, History, HistoryError, Key, Kind, Moment, Operation, Pending, Process, Recorder};
pub use sealed::{Integrity, seal};
