//! WebSocket conversations for tests: every receive has a deadline, every failure prints the transcript.
//!
//! ```
//! # async fn example(url: &str) -> harness_ws::Result {
//! use harness_ws::{Fence, Ws, capture};
//! use serde_json::json;
//! use std::time::Duration;
//!
//! let mut ws = Ws::connect(url).await?; // a refusal carries status, headers and the beginning of the body
//! let welcome = ws.expect(json!({"method": "welcome", "params": {"session_id": capture::string()}})).await?;
//! let session: String = welcome.string()?;
//! ws.send(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).await?;
//! ws.expect(json!({"id": 1, "result": {}})).within(Duration::from_millis(500)).await?; // others stay queued
//! ws.expect_silence(Fence::Ping).await?; // proven by a fence, not slept
//! ws.close().await?;
//! # let _ = session;
//! # Ok(())
//! # }
//! ```
//!
//! What it does: [`Ws`] is one connection; [`Pattern`] is what a message must look like; [`End`] is how a stream ended;
//! [`Script`] is a conversation written down, for a client or for a mock server (`server`, feature `server`);
//! [`Recording`] is one that was kept, to be replayed against another build; [`Wire`] is a connection of frames, legal or
//! not, over the [`codec`]; [`Fleet`] is thousands of connections; [`crosstalk`] finds messages that reach the wrong
//! session, and [`sessions`] shows that sessions are apart; [`rfc6455`] checks any echo server by 263 cases and 21 handshakes;
//! with the feature `mcp`, `conformance` runs numbered JSON-RPC checks; with `tls`, `wss://` addresses are spoken.
//!
//! What it does not do: compression, reconnecting. A ping of the server is answered while some method of [`Ws`] is being
//! awaited, not in between.

#[cfg(feature = "client")]
pub mod crosstalk;
#[cfg(feature = "client")]
mod findings;
#[cfg(feature = "client")]
mod fleet;
#[cfg(feature = "client")]
mod pattern;
#[cfg(feature = "client")]
pub mod rfc6455;
#[cfg(feature = "client")]
mod script;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "client")]
pub mod sessions;
#[cfg(feature = "fault")]
pub mod tap;
#[cfg(feature = "client")]
mod ws;

#[cfg(feature = "client")]
pub use self::ws::codec;

#[cfg(feature = "mcp")]
pub mod conformance;
#[cfg(feature = "mcp")]
pub mod events;
#[cfg(feature = "mcp")]
pub mod jsonrpc;
#[cfg(feature = "mcp")]
pub mod mcp;

pub use harness_core::{CoreResult, Error, ErrorKind, Result};

#[cfg(feature = "client")]
pub use self::{
    findings::{Finding, Findings},
    fleet::{Fleet, OpenFleet},
    pattern::{Matched, Pattern, capture},
    script::{Kept, Played, Script, kept},
    ws::{
        Connect, Direction, End, Expect, ExpectEnd, Fault, Fence, Message, Outgoing, Proof, Receive, Recording,
        Refusal, Replay, Replayed, Reply, Request, RpcError, Silence, SilenceProof, Transcript, TranscriptEntry, Wire,
        Ws,
    },
};
