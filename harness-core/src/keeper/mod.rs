//! Who owns shared servers, and who cleans up when everybody is dead.
//!
//! A [`Slot`] is the directory of one shared server. The first test process to come takes its start lock, launches a
//! *keeper* and publishes the server; the others attach. Each test process holds a *lease*, a file lock that the kernel
//! releases on any death. The keeper is the parent of the server. It ends what single leases left, and when no lease is
//! held, no `cargo` that may start another test lives and nothing is kept, it ends everything after a linger.
//! What a killed keeper left is swept by whoever starts next: by lock and lease, never by age.
//!
//! ```no_run
//! # use std::{collections::BTreeMap, time::Duration};
//! # use harness_core::keeper::{Attached, CORE_HOOK, Launch, Main, Slot};
//! # use harness_core::service::Exec;
//! # async fn example() -> harness_core::CoreResult<Attached> {
//! let slot = Slot::open("redis", "default")?;
//! if let Some(attached) = slot.attach().await? {
//!     return Ok(attached);
//! }
//! let start = slot.lock(Duration::from_secs(120)).await?;
//! if let Some(attached) = slot.attach().await? {
//!     return Ok(attached); // somebody else was faster
//! }
//! let server = Exec::new("redis-server").args(["--port", "{port}", "--dir", "{data}"]);
//! let launched = start.launch(&Launch::new(CORE_HOOK, Main::Process(server))).await?;
//! // … poll `launched.address` until it answers, calling `start.check_alive()` in between …
//! start.publish(BTreeMap::new())
//! # }
//! ```

mod asked;
pub(crate) mod base;
mod custodian;
mod data;
mod end;
mod ender;
mod hook;
mod lease;
pub(crate) mod lock;
mod memory;
mod run;
mod runslot;
mod server;
mod slot;
mod start;
mod state;
mod sweep;

pub(crate) use asked::KEEPER_VARIABLE;
pub(crate) use runslot::RunSlot;
pub(crate) use sweep::{LEASE_LABEL, SLOT_LABEL};

pub use custodian::{Custodian, Left};
#[cfg(feature = "containers")]
pub(crate) use data::now_ms;
pub use data::{Kept, KeptThing, Launch, Main, Phase, PortPlan, ServerIdentity, ServerState, Trouble};
pub use end::end_slot;
pub use hook::{CORE_HOOK, run_if_asked};
pub use lease::{Attached, KEPT_MOST, LeaseId, LeaseNote};
pub use slot::Slot;
pub use start::{Launched, StartGuard};
pub use sweep::{Census, LeaseCensus, SlotCensus, SweepOptions, SweepReport, census, sweep};
