//! The Postgres wire protocol, frame by frame: a tap on loopback between a client and its server, that asks for every
//! frame whether it passes, waits, is lost, or takes the connection with it.
//!
//! ```no_run
//! use harness_db::frames::{Kind, Tap, Verdict};
//!
//! # async fn body() -> harness_db::Result {
//! let db = harness_db::postgres().await?;
//! // The server commits; the client never hears of it.
//! let tap = Tap::start(&db.options(), |frame| match frame.kind() {
//!     Kind::CommandComplete if frame.command_tag() == Some("COMMIT") => Verdict::Cut,
//!     _ => Verdict::Pass,
//! })
//! .await?;
//! let service = tap.url(); // hand this to the system under test instead of `db.url()`
//! # drop(service);
//! # Ok(()) }
//! ```
//!
//! Source: PostgreSQL documentation, "Frontend/Backend Protocol" (message formats, protocol 3.0). The tap speaks plain
//! TCP: it declines TLS and GSSAPI encryption when a client asks for them, as a server without them does.

#[cfg(feature = "fault")]
mod fault;
mod frame;
mod link;
mod tap;

#[cfg(feature = "fault")]
pub use fault::FrameFault;
pub use frame::{Frame, Kind, Side};
pub use tap::{Gate, Passage, Tap, Verdict};

pub(crate) use frame::columns;
