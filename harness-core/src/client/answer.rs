//! What came back, and what can be said about it.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;

use super::call::{CallFailure, Stage, excerpt};
use crate::error::{CoreResult, Error, ErrorKind};

/// A whole answer, of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) correlation: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) received: usize,
    pub(super) first_byte: Duration,
    pub(super) took: Duration,
    pub(super) trace: Option<String>,
    pub(super) tries: Vec<String>,
}

impl Answer {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// True for 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The address that was called, secrets masked.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The correlation id that was sent.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.correlation
    }

    /// A header's value, if it is there and is text; the first of several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body as it came, unpacked if the client unpacks.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Bytes of the body as they came off the wire.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received
    }

    /// From the start of the call to the headers.
    #[must_use]
    pub fn first_byte(&self) -> Duration {
        self.first_byte
    }

    /// From the start of the call to the last byte.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The id of the trace that was sent, if one was: the second part of `traceparent`.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_deref()?.split('-').nth(1)
    }

    /// What was tried before this answer came, a line each; empty unless the client tries again.
    #[must_use]
    pub fn tries(&self) -> &[String] {
        &self.tries
    }

    /// Checks the status and gives the answer back.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the status and the beginning of the body.
    pub fn expect_status(self, expected: u16) -> CoreResult<Self> {
        if self.status == expected {
            return Ok(self);
        }
        let what = format!("answered {} where {expected} was expected", self.status);
        Err(self.failure(String::new()).into_error(ErrorKind::Assertion, &what))
    }

    /// The body as text.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is not UTF-8.
    pub fn text(&self) -> CoreResult<String> {
        String::from_utf8(self.body.clone()).map_err(|error| {
            let packed = self.header("content-encoding").filter(|_| self.received == self.body.len());
            let packed = packed.map_or_else(String::new, |name| format!("; it is packed as `{name}`: Http::unpacks"));
            self.failure(format!("{error}{packed}")).into_error(ErrorKind::Protocol, "sent a body that is not UTF-8")
        })
    }

    /// The body read as JSON into a type.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is not JSON or does not fit, with the place and the beginning of the body.
    pub fn json<T: DeserializeOwned>(&self) -> CoreResult<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.misfit(format!("the body does not read as {}: {error}", std::any::type_name::<T>())))
    }

    /// One member of a JSON body by its JSON pointer (RFC 6901), read into a type: `answer.at::<u64>("/usage/total")`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when there is no such member or it does not fit.
    pub fn at<T: DeserializeOwned>(&self, pointer: &str) -> CoreResult<T> {
        let whole: serde_json::Value = self.json()?;
        let member = whole.pointer(pointer).ok_or_else(|| self.misfit(format!("there is no {pointer} in the body")))?;
        T::deserialize(member).map_err(|error| self.misfit(format!("{pointer} does not fit: {error}")))
    }

    fn misfit(&self, detail: String) -> Error {
        self.failure(detail).into_error(ErrorKind::Protocol, "sent another body than expected")
    }

    fn failure(&self, detail: String) -> CallFailure {
        CallFailure {
            method: self.method.clone(),
            url: self.url.clone(),
            stage: Stage::Answer,
            timed_out: false,
            status: Some(self.status),
            body: excerpt(&self.body),
            correlation: self.correlation.clone(),
            detail,
        }
    }
}
