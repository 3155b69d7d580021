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
//! What it does not do: TLS, redirects (a redirect is an answer to look at), retries (a retry hides a failure).

#[cfg(feature = "http")]
mod answer;
#[cfg(feature = "http")]
mod call;
#[cfg(feature = "http")]
mod http;
pub mod mask;
pub mod prometheus;

#[cfg(feature = "http")]
pub use self::{
    answer::Answer,
    call::{Call, CallFailure, Stage},
    http::{CORRELATION_HEADER, Http, Limits},
};

#[cfg(all(test, feature = "http"))]
mod tests;
