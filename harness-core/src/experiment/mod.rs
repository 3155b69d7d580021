//! Breaks a system while it works and judges what its clients saw: before, while it is broken, and after.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
//! use std::time::Duration;
//!
//! use harness_core::experiment::{Called, Contract, Experiment, Steady};
//! use harness_core::fault::{Bites, Effect, Fault};
//!
//! /// A store that can be switched off, and counts whom it turned away.
//! #[derive(Default)]
//! struct Store { off: AtomicBool, turned_away: AtomicU64 }
//!
//! impl Fault for Store {
//!     fn name(&self) -> String { "the store is off".into() }
//!     fn inject(&self) -> Effect<'_> { Box::pin(async { self.off.store(true, SeqCst); Ok(()) }) }
//!     fn heal(&self) -> Effect<'_> { Box::pin(async { self.off.store(false, SeqCst); Ok(()) }) }
//!     fn bites(&self) -> Bites { Bites::new(self.turned_away.load(SeqCst), "calls turned away") }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let ms = Duration::from_millis;
//! let store = Arc::new(Store::default());
//! let asked = Arc::clone(&store);
//! let recovery = Experiment::new(Steady::new(ms(300), 99).within(ms(100)))
//!     .operation("put", move |_| {
//!         let is_off = asked.off.load(SeqCst);
//!         asked.turned_away.fetch_add(u64::from(is_off), SeqCst);
//!         std::future::ready(if is_off { Called::error("503") } else { Called::ok() })
//!     })
//!     .every(ms(10))
//!     .while_broken(Contract::within(ms(50)).errors(["503"]))
//!     .recovers_within(ms(500))
//!     .run(store)
//!     .await?;
//! recovery.check()?;
//! assert_eq!(recovery.verdict.figures.steady, Some(Duration::ZERO));
//! # harness_core::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! Calls are sent at their due times whatever becomes of those before them, and their latency counts from there: a system that
//! stops answering does not stop the clock. Nothing is waited for by a fixed time: the time to be steady again is measured.
//!
//! What it does not do: load. A few hundred calls a second show what clients see; how much a system bears is for harness-load.

mod drive;
mod plan;
mod report;
mod series;
#[cfg(test)]
mod tests;
mod workload;

pub use harness_props::history::outage::{
    Call, Contract, OutageFigures, OutageRules, OutageTimeline, OutageVerdict, Reply, Steady,
};
pub use plan::{Experiment, SharedLedger};
pub use report::Recovery;
pub use workload::{Called, Calling, Workload};
