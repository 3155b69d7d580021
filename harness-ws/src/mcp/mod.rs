//! The Model Context Protocol: a typed session over WebSocket, Streamable HTTP or stdio, checks of any server, and a
//! scripted server for tests of clients.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use harness_ws::mcp::{Mcp, McpStub, Profile, Script, Target, Version};
//! use serde_json::json;
//!
//! let stub = McpStub::start(Script::new(Version::V2025_11_25)).await?;
//! let profile = Profile::named("mcp-2025-11-25")?; // always named; nothing here is an official certificate
//! let mut mcp = Mcp::connect(&Target::at(&stub.ws_url())?, &profile).await?;
//! let echoed = mcp.call_tool("echo", json!({"text": "hello"})).await?;
//! assert_eq!(echoed.text(), "hello");
//! mcp.send_raw(r#"{"jsonrpc":"2.0","id":"raw","method":"ping"}"#).await?; // the escape hatch
//! assert!(mcp.close().await?);
//! assert!(stub.heard().iter().any(|message| message["method"] == "tools/call"));
//! # harness_ws::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! Two eras: up to 2025-11-25 a session begins with `initialize`; from 2026-07-28 on there is none, every request carries
//! `_meta`, and `server/discover` says what the server is. WebSocket is not an official transport in either.
//!
//! A stream of a session over HTTP that breaks off before its reply is taken up again by its last event id, as late as the
//! server wants it ([`Mcp::resumed`]).
//!
//! What it does not do: OAuth flows, tasks.

mod channel;
mod expected;
mod posts;
mod profile;
mod replay;
mod session;
mod stub;
mod typed;

use serde_json::Value;

pub(crate) use self::channel::{Channel, handshake};
pub(crate) use self::posts::refused_by_status;
pub(crate) use self::session::{initialize_params, meta_key, stateless_meta};
pub use self::{
    channel::Target,
    expected::Expected,
    profile::{Idle, Profile, Role, SecondSocket, Version},
    replay::{Replay, replay},
    session::{Mcp, McpReply, RequestId, ServerFacts},
    stub::{EventTurn, HttpTurn, McpStub, Script, StubEvent, Turn, serve_stdio},
    typed::{Prompt, Resource, Tool, ToolResult},
};

/// A message short enough for a sentence.
pub(crate) fn brief(message: &Value) -> String {
    let text = harness_core::client::mask::text(&message.to_string());
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
