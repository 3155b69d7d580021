//! Drives what changes under traffic, and judges it by what was seen: a switch between versions, a hot reload, a health endpoint
//! during a fault, a degraded mode.
//!
//! [`SwitchProbe`] sends a request at every due time and writes each down before it is sent, so that a gap of a few milliseconds
//! and a single lost request are seen; [`Router`] stands before two versions and gives the new one a share of the users, each of
//! whom stays; [`HotReload`] asks every instance which configuration it works with; [`health_during`] asks an endpoint before,
//! during and after a fault; [`Polling`] asks anything at intervals, and [`mode_followed`] judges a degraded mode from that. What
//! may be concluded is decided in [`harness_props::history`] and [`harness_props::model`].
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
//! use std::time::Duration;
//! use harness_core::changeover::SwitchProbe;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! let ms = Duration::from_millis;
//! let is_green = Arc::new(AtomicBool::new(false));
//! let asked = Arc::clone(&is_green);
//! let probe = SwitchProbe::start(ms(2), 10, move |_user| {
//!     std::future::ready(Ok(if asked.load(SeqCst) { "green" } else { "blue" }.to_owned()))
//! });
//! harness_core::wait::pause(ms(50)).await;
//! is_green.store(true, SeqCst);
//! harness_core::wait::pause(ms(50)).await;
//! let switch = probe.stop(ms(100)).await;
//! assert!(switch.drops(ms(5)).is_pass());
//! # });
//! ```

mod during;
mod polling;
mod probe;
mod reload;
mod router;

#[cfg(test)]
mod tests;

pub use during::health_during;
pub use harness_props::history::switch::{Stage, Switch};
pub use harness_props::model::mode::Mode;
pub use polling::{ModeSeen, Polling, mode_followed};
pub use probe::SwitchProbe;
pub use reload::HotReload;
pub use router::Router;
