//! A small service that answers the queries of agents by known patterns where it can and by a model where it must.
//!
//! A query is embedded and looked up in pgvector; a near pattern answers it for a fraction of the tokens, anything else
//! goes to the fallback model behind a circuit breaker. Pattern texts are versioned in Postgres and cached in two
//! coherent tiers. Agents come by HTTP or by MCP over WebSocket.
//!
//! The service exists to be tested: [`plant::Plant`] lists the ways in which it can be made wrong on purpose.
//! It does *not* scale beyond one database, and its records endpoint answers all rows at once.

pub mod app;
pub mod audit;
pub mod auth;
pub mod breaker;
pub mod cache;
pub mod config;
pub mod embed;
pub mod error;
pub mod execute;
pub mod jsonrpc;
pub mod log;
mod mcp;
pub mod metrics;
pub mod model;
pub mod patterns;
pub mod plant;
pub mod records;
pub mod rollout;
mod routes;
pub mod schema;
pub mod store;
mod tokens;
pub mod transfer;

pub use app::App;
pub(crate) use app::unique_id;
