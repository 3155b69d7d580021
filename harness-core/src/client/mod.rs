//! Clients that say what they saw: HTTP with staged time limits, and Prometheus text.
//!
//! ```
//! # #[cfg(feature = "http")]
//! # async fn example(base: &str) -> harness_core::Result {
//! use harness_core::client::Http;
//! use serde_json::json;
//!
//! let http = Http::new(base)?;
//! let answer = http.post("/v1/orders", &json!({"item": 7})).await?.expect_status(201)?;
//! let id: u64 = answer.at("/id")?;
//! let metrics = http.scrape("/metrics").await?;
//! metrics.require(&["orders_total"])?;
//! # let _ = id;
//! # Ok(())
//! # }
//! ```
//!
//! [`limits`] finds out what a rate limiter really does; `ApiTable` holds a service's routes as data.
//!
//! It tries again only where it is told to (a retry hides a failure), and only what may be repeated: `Retry`.
//!
//! Packed bodies (gzip, deflate) are left as they come unless the client is told to unpack them, and to how many bytes:
//! `Http::unpacks`; a call packs its own body by `Call::packed`.
//!
//! What it does not do: TLS, redirects (a redirect is an answer to look at).

#[cfg(feature = "http")]
mod answer;
#[cfg(feature = "http")]
mod call;
#[cfg(feature = "http")]
mod http;
pub mod limits;
pub mod mask;
#[cfg(feature = "http")]
mod packing;
pub mod prometheus;
#[cfg(feature = "http")]
mod renewal;
#[cfg(feature = "http")]
mod retry;
#[cfg(feature = "http")]
mod table;

/// The method of a call, re-exported.
#[cfg(feature = "http")]
pub use reqwest::Method;

#[cfg(feature = "http")]
pub use self::{
    answer::Answer,
    call::{Call, CallFailure, Stage, Streamed},
    http::{CORRELATION_HEADER, Http, Limits, TRACE_HEADER},
    packing::Packing,
    renewal::Tokens,
    retry::Retry,
    table::{ApiTable, Route},
};

#[cfg(all(test, feature = "http"))]
mod packing_tests;
#[cfg(all(test, feature = "http"))]
mod tests;
