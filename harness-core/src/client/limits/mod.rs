//! What a rate limiter really does: its exact limit, its kind, whether identities are apart, and whether it tells the truth.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Mutex;
//! use std::time::Duration;
//!
//! use harness_core::client::limits::{Asked, LimitKind, Pace, RateProbe};
//!
//! let pace = Pace::virtual_time(); // a real service is probed in real time: `Pace::real()`
//! let (time, used) = (pace.clone(), Mutex::new(std::collections::BTreeMap::new()));
//! let found = RateProbe::new(async |identity: String| {
//!     let window = time.now().as_secs() / 60; // three a minute
//!     let mut used = used.lock().unwrap();
//!     let count = used.entry((identity, window)).or_insert(0);
//!     *count += 1;
//!     Ok(Asked::status(if *count <= 3 { 200 } else { 429 }))
//! })
//! .pace(pace)
//! .find()
//! .await?;
//! assert_eq!((found.limit, found.kind), (3, LimitKind::FixedWindow { window: Duration::from_secs(60) }));
//! # harness_core::Result::Ok(())
//! # }).unwrap();
//! ```
//!
//! Sources: RFC 6585 section 4 (status 429), RFC 9110 section 10.2.3 (`Retry-After`), draft-ietf-httpapi-ratelimit-headers:
//! up to -06 `RateLimit-Limit`, `-Remaining` and `-Reset`, from -07 on `RateLimit-Policy` and `RateLimit`.
//!
//! What it does not do: limits of bytes or of concurrency, and limiters that are tightened by refused requests.

mod classes;
mod headers;
mod probe;
#[cfg(test)]
mod tests;

#[cfg(feature = "http")]
pub(crate) use self::headers::http_date;
pub use self::{
    classes::class_budgets,
    headers::{LimitHeaders, retry_after},
    probe::{Asked, FoundLimit, LimitKind, RateProbe},
};
pub use crate::wait::Pace;
