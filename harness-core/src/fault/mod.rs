//! Breaking things on purpose, with proof that it hurt and that it was healed.
//!
//! A [`Fault`] can be injected and healed, both proven before they return, and counts how often it bit: a fault that
//! never bit proves nothing about the system that survived it. [`Injected`] heals when it is dropped, whatever ended the
//! test.
//!
//! ```
//! use harness_core::fault::{Bites, Effect, Fault, inject};
//!
//! /// A door that can be shut.
//! #[derive(Debug, Default)]
//! struct Door(std::sync::atomic::AtomicU64);
//!
//! impl Fault for Door {
//!     fn name(&self) -> String {
//!         "the door is shut".into()
//!     }
//!     fn inject(&self) -> Effect<'_> {
//!         Box::pin(async { Ok(()) })
//!     }
//!     fn heal(&self) -> Effect<'_> {
//!         Box::pin(async { Ok(()) })
//!     }
//!     fn bites(&self) -> Bites {
//!         Bites::new(self.0.load(std::sync::atomic::Ordering::Relaxed), "visitors turned away")
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let shut = inject(Door::default()).await?;
//! assert!(shut.check_did_bite().is_err()); // nobody came: nothing is proven
//! shut.heal().await?;
//! # harness_core::CoreResult::Ok(())
//! # }).unwrap();
//! ```

mod bites;
mod container;
mod injected;
mod outage;
mod proxy;
mod schedule;
mod tap;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::CoreResult;

pub use bites::Bites;
pub use container::ContainerFault;
pub use injected::{Injected, inject};
pub use outage::Outage;
pub use proxy::{Connection, Decision, FaultProxy, ProxyFault, ProxySpec, Towards, Upstream, WireFault, WireKind};
pub use schedule::{Chaos, Played, PlayedStep, Schedule, ShrunkSchedule, Step, Target, Targets};
pub use tap::{FrameRecord, FrameTap, Frames, Framing, TapFault};

/// What [`Fault::inject`] and [`Fault::heal`] return: done, and proven, when it is ready.
pub type Effect<'a> = Pin<Box<dyn Future<Output = CoreResult> + Send + 'a>>;

/// Something that can be broken and healed.
///
/// One value is one fault: injecting it twice, or healing what is whole, changes nothing and is no error.
pub trait Fault: Send + Sync {
    /// What it does to whom, for people: ``service `postgres` is killed``. The same for the whole life of the value.
    fn name(&self) -> String;

    /// Breaks it. Returns when the effect is proven: a refused connection, a dead process, a held lock.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Refused`] when the target must not be broken or is gone; else whatever kept the effect from
    /// showing. After an error nothing is known; [`Fault::heal`] may be called.
    fn inject(&self) -> Effect<'_>;

    /// Makes it whole again, and returns when that is proven. Healing what is whole is success.
    ///
    /// # Errors
    /// What kept it from healing. A target that is gone needs no healing.
    fn heal(&self) -> Effect<'_>;

    /// How often it bit so far, over all injections.
    fn bites(&self) -> Bites;
}

impl<F: Fault + ?Sized> Fault for Arc<F> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn inject(&self) -> Effect<'_> {
        (**self).inject()
    }

    fn heal(&self) -> Effect<'_> {
        (**self).heal()
    }

    fn bites(&self) -> Bites {
        (**self).bites()
    }
}
