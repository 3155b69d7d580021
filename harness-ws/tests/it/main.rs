//! The crate over real loopback sockets, against servers with planted defects.

mod conformance;
mod connect;
mod conversation;
mod damaged;
mod defective;
mod endings;
mod events;
mod exchange;
mod mcp;
mod mcp_defects;
mod mcp_memory;
mod mcp_overtaken;
mod mcp_resume;
mod mcp_sockets;
mod mcp_stateless_defects;
mod mcp_status;
mod mcp_transports;
mod rfc6455;
mod scripts;
mod server;
mod sessions;
mod silence;
#[cfg(feature = "fault")]
mod taps;
mod third_party;
mod wire;
