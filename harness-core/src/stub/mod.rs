//! A scripted stand-in for a model or an agent provider that nobody can run locally.
//!
//! The stub is a real HTTP server on 127.0.0.1 that answers `POST {"agent": …, "prompt": …}` with
//! `{"text": …, "usage": {"total_tokens": …}}`, as a [`Script`] says: per agent a list of [`Behaviour`]s, taken in
//! order.
//! Scripts are data and can be kept as JSON. Every call is recorded; an agent the script does not know is refused with
//! status 404 and recorded, so that a misspelled agent cannot pass as a quiet one.
//!
//! ```
//! # async fn example() -> harness_core::Result {
//! use harness_core::stub::{Behaviour, ModelStub, Script};
//!
//! let script = Script::new()
//!     .agent("planner", [Behaviour::text("go left").tokens(12), Behaviour::status(503).repeat(2), Behaviour::hang()]);
//! let stub = ModelStub::start(script).await?;
//! // … give stub.url() to the service under test …
//! assert_eq!(stub.unknown_agents(), Vec::<String>::new());
//! stub.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: streaming answers, TLS, judging prompts.

mod accept;
mod script;
mod server;

pub use self::{
    script::{After, Behaviour, Script},
    server::{ModelStub, StubCall},
};
pub(crate) use accept::accept;
