//! Alerts: who is told what, and when, on any clock.
//!
//! An [`AlertPolicy`] is data: roles with contacts, metrics with their thresholds and classes, and steps of escalation such as
//! "red for more than 15 minutes: the lead". Opened, it is [`Alerts`], a state machine with time as a parameter, which says
//! what has to be sent. A [`Desk`] sends it, through a [`Sink`] per channel, and keeps what could not be delivered.
//!
//! ```
//! use std::time::Duration;
//! use harness_core::slo::alert::{AlertPolicy, Role, Signal};
//! use harness_core::slo::{Measured, Threshold};
//!
//! let minutes = |n: u64| Duration::from_secs(n * 60);
//! let policy = AlertPolicy::new()
//!     .role(Role::new("operator").duty("looks first").contact("chat", "@operator"))
//!     .role(Role::new("lead").duty("decides").contact("pager", "@lead"))
//!     .metric(Threshold::parse("p95", "< 250 ms", None)?, "performance")
//!     .tell("performance", Signal::Yellow, minutes(60), "operator")
//!     .tell("performance", Signal::Red, minutes(15), "lead");
//! let mut alerts = policy.open()?;
//!
//! let p95 = |ms: u64| Measured::Quantile { q: 0.95, nanos: ms * 1_000_000, samples: 100 };
//! assert!(alerts.observe(minutes(0), "p95", &p95(300))?.is_empty()); // red, but only just
//! assert!(alerts.advance(minutes(15))?.is_empty());
//! let notices = alerts.advance(minutes(16))?;
//! assert_eq!(notices.len(), 1);
//! assert_eq!(notices[0].to_string(), "p95 is red since 0 µs: 300 ms, target < 250 ms");
//! # harness_core::CoreResult::Ok(())
//! ```
//!
//! Colours are those of [`Colour`](super::Colour): yellow within a tenth of the target, red past it. A value that is missing
//! is never green: it ends no episode, and is a signal of its own, [`Signal::Silent`].
//!
//! What it does not do: no schedules of who is on call, no acknowledgement by people, no grouping of incidents.

mod desk;
mod engine;
#[cfg(feature = "http")]
mod inbox;
mod policy;
#[cfg(test)]
mod tests;
#[cfg(feature = "http")]
mod webhook;

pub use desk::{Desk, DeskReport, HookRun, Message, Sending, Sink, Undelivered};
pub use engine::{Alerts, Notice};
#[cfg(feature = "http")]
pub use inbox::Inbox;
pub use policy::{AlertPolicy, Role, Signal, Target};
#[cfg(feature = "http")]
pub use webhook::Webhook;
