//! The crate over real loopback sockets, against servers with planted defects.

mod conformance;
mod connect;
mod conversation;
mod endings;
mod server;
mod sessions;
