//! Trying again, where that can do no harm, and as often and as late as the server wants it.

use std::time::Duration;

use reqwest::Method;

use super::limits::retry_after;
use crate::error::{Error, ErrorKind};

/// How a client tries again: calls that may be repeated (RFC 9110, section 9.2.2), after a refused connection or a status
/// of 429, 502, 503 or 504. Every try stands in the error, or in [`super::Answer::tries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    pub(super) times: u32,
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Retry {
    /// So many more tries; the first after 50 ms, each after twice as long, none later than 2 s.
    pub fn idempotent(times: u32) -> Self {
        Self { times, first: Duration::from_millis(50), longest: Duration::from_secs(2) }
    }

    /// The wait before the first try where the server says nothing.
    pub fn first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// The longest wait. A server that wants a longer one is not asked again.
    pub fn longest(mut self, wait: Duration) -> Self {
        self.longest = wait;
        self
    }

    /// Whether a call may be repeated: by its method, or because it carries a key that the server knows it by.
    pub(super) fn allows(method: &Method, headers: &[(String, String)]) -> bool {
        let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        safe || headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"))
    }

    /// How long to wait before try number `n`, counted from 0; `None` when the server wants it later than is waited.
    pub(super) fn wait(&self, n: u32, told: Option<Duration>) -> Option<Duration> {
        match told {
            Some(told) if told > self.longest => None,
            Some(told) => Some(told),
            None => Some(self.first.saturating_mul(2_u32.saturating_pow(n)).min(self.longest)),
        }
    }

    /// Whether an error may pass by itself.
    pub(super) fn may_pass(error: &Error) -> bool {
        error.kind() == ErrorKind::Connect
    }
}

/// Whether a status may pass by itself, and when to come again if the server says it.
pub(super) fn transient(status: u16, told: Option<&str>, date: Option<&str>) -> Option<Option<Duration>> {
    let now = date.and_then(super::limits::http_date);
    matches!(status, 429 | 502 | 503 | 504).then(|| told.and_then(|told| retry_after(told, now)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::Method;

    use super::{Retry, transient};

    #[test]
    fn only_what_may_be_repeated_is_repeated_and_never_later_than_is_waited() {
        let key = [("Idempotency-Key".to_owned(), "k".to_owned())];
        for (method, headers, allowed) in [
            (Method::GET, &[][..], true),
            (Method::PUT, &[][..], true),
            (Method::DELETE, &[][..], true),
            (Method::POST, &[][..], false),
            (Method::PATCH, &[][..], false),
            (Method::POST, &key[..], true),
        ] {
            assert_eq!(Retry::allows(&method, headers), allowed, "{method}");
        }
        let retry = Retry::idempotent(9);
        let millis = |n, told: Option<u64>| retry.wait(n, told.map(Duration::from_millis)).map(|wait| wait.as_millis());
        assert_eq!([millis(0, None), millis(1, None), millis(30, None)], [Some(50), Some(100), Some(2000)]);
        assert_eq!([millis(0, Some(0)), millis(5, Some(1999)), millis(0, Some(2001))], [Some(0), Some(1999), None]);
        assert_eq!(transient(503, Some("7"), None), Some(Some(Duration::from_secs(7))));
        assert_eq!((transient(429, None, None), transient(500, Some("7"), None)), (Some(None), None));
    }
}
