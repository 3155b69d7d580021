//! The clock that tokens are made by, and how a token travels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What time it is, in seconds since 1970: the system's, or one that a test moves. Clones share the hands.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The clock of the system.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands until it is moved.
    #[must_use]
    pub fn fixed(seconds: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(seconds))))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> u64 {
        match &self.0 {
            Some(hands) => hands.load(Ordering::Relaxed),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// Moves the hands on; the system's clock stays as it is.
    pub fn advance(&self, seconds: u64) {
        if let Some(hands) = &self.0 {
            hands.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}

/// How a token is shown to a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The values of the `Authorization` headers, in order.
    pub authorization: Vec<String>,
    /// A query string without its question mark.
    pub query: String,
}

impl TokenRequest {
    /// `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(token: &str) -> Self {
        Self { authorization: vec![format!("Bearer {token}")], query: String::new() }
    }
}
