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
//! [`sessions`] shows that sessions are apart; with the feature `mcp`, `conformance` runs numbered JSON-RPC checks.
//!
//! What it does not do: TLS, compression, frames that break RFC 6455, reconnecting. A ping of the server is answered
//! while some method of [`Ws`] is being awaited, not in between.

#[cfg(feature = "client")]
mod findings;
#[cfg(feature = "client")]
mod pattern;
#[cfg(feature = "client")]
pub mod sessions;
#[cfg(feature = "client")]
mod ws;

#[cfg(feature = "mcp")]
pub mod conformance;
#[cfg(feature = "mcp")]
pub mod jsonrpc;

pub use harness_core::{CoreResult, Error, ErrorKind, Result};

#[cfg(feature = "client")]
pub use self::{
    findings::{Finding, Findings},
    pattern::{Matched, Pattern, capture},
    ws::{
        Connect, Direction, End, Expect, ExpectEnd, Fence, Message, Outgoing, Proof, Receive, Refusal, Reply, Request,
        RpcError, Silence, SilenceProof, Transcript, TranscriptEntry, Ws,
    },
};
