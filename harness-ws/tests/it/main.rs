//! The crate over real loopback sockets, against servers with planted defects.

mod conformance;
mod connect;
mod conversation;
mod defective;
mod endings;
mod events;
mod exchange;
mod mcp;
mod mcp_defects;
mod mcp_memory;
mod mcp_transports;
mod rfc6455;
mod scripts;
mod server;
mod sessions;
mod silence;
mod third_party;
mod wire;
