//! One call: built, awaited, and explained when it fails.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::answer::Answer;
use super::http::{CORRELATION_HEADER, Http, Limits, TRACE_HEADER};
use super::mask;
use super::packing::{Misfit, Packing, Unpacker};
use super::retry::{Retry, transient};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{pause, seconds};

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Making the request.
    Build,
    /// Opening the socket.
    Connect,
    /// Waiting for the status line and the headers.
    FirstByte,
    /// Reading the body.
    Body,
    /// Judging the whole answer.
    Answer,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Connect => "connect",
            Self::FirstByte => "first byte",
            Self::Body => "body",
            Self::Answer => "answer",
        })
    }
}

/// The facts of a failed call, kept as the source of its [`Error`]; see [`CallFailure::of`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallFailure {
    /// The method, `POST`.
    pub method: String,
    /// The whole address, secrets masked.
    pub url: String,
    /// How far it got.
    pub stage: Stage,
    /// Whether a limit cut it.
    pub timed_out: bool,
    /// The status, if one came.
    pub status: Option<u16>,
    /// The beginning of the body, secrets masked; empty if none came.
    pub body: String,
    /// The value of the correlation header.
    pub correlation: String,
    pub(super) detail: String,
}

impl CallFailure {
    /// The facts behind an error of this client, if it is one.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// The error that a person reads.
    pub(super) fn into_error(self, kind: ErrorKind, what: &str) -> Error {
        let head = format!("{} {} {what}", self.method, self.url);
        let mut error = Error::new(kind, head).tried(format!("correlation id {}", self.correlation));
        if !self.body.is_empty() {
            error = error.tried(format!("body begins: {}", self.body));
        }
        if self.stage == Stage::Connect {
            error = error.remedy("is the service started, and is this its address?");
        }
        error.caused_by(self)
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}", self.stage)?;
        if let Some(status) = self.status {
            write!(f, ", status {status}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ", {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for CallFailure {}

/// A call being prepared; `.await` sends it.
#[must_use = "a call is sent when it is awaited"]
#[derive(Debug, Clone)]
pub struct Call {
    http: Http,
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    packing: Option<Packing>,
    correlation: String,
    limits: Limits,
    defect: Option<String>,
}

impl Call {
    pub(super) fn new(http: Http, method: Method, url: String, correlation: String) -> Self {
        let limits = http.shared.limits;
        let headers = Vec::new();
        Self { http, method, url, headers, body: None, packing: None, correlation, limits, defect: None }
    }

    /// Sends a header; a later one of the same name replaces an earlier one.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        if name.eq_ignore_ascii_case(CORRELATION_HEADER) {
            self.correlation = value;
            return self;
        }
        self.headers.retain(|(old, _)| !old.eq_ignore_ascii_case(&name));
        self.headers.push((name, value));
        self
    }

    /// Sends `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Shows a token as an attack wants it shown, several `Authorization` headers included.
    #[cfg(feature = "auth")]
    pub fn token(mut self, request: crate::auth::TokenRequest) -> Self {
        self.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        self.headers.extend(request.authorization.into_iter().map(|value| ("authorization".to_owned(), value)));
        if !request.query.is_empty() {
            self.url.push(if self.url.contains('?') { '&' } else { '?' });
            self.url.push_str(&request.query);
        }
        self
    }

    /// Adds a query parameter, percent-encoded.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        match reqwest::Url::parse(&self.url) {
            Ok(mut url) => {
                url.query_pairs_mut().append_pair(name, value);
                self.url = url.into();
            }
            Err(error) => self.defect = Some(error.to_string()),
        }
        self
    }

    /// Sends a JSON body.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body = Some(bytes),
            Err(error) => self.defect = Some(format!("the body cannot be written as JSON: {error}")),
        }
        self.header("content-type", "application/json")
    }

    /// Sends bytes as they are, to show a service what it does not expect.
    pub fn raw(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }

    /// Packs the body and says so in `Content-Encoding`. A service need not take it: 415 is the answer of one that does not.
    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = Some(packing);
        self.header("content-encoding", packing.name())
    }

    /// Limits the time to the first byte of the answer, from the start of the call.
    pub fn first_byte(mut self, limit: Duration) -> Self {
        self.limits.first_byte = limit;
        self
    }

    /// Limits the whole call, from its start to the last byte.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limits.total = limit;
        self
    }

    /// Sends it, with what the client adds: a token that is renewed, and tries where they do no harm.
    async fn run(self) -> CoreResult<Answer> {
        let retry = self.http.shared.retry.filter(|_| Retry::allows(&self.method, &self.headers));
        let mut tries = Vec::new();
        loop {
            let n = tries.len() as u32;
            let left = retry.filter(|retry| n < retry.times);
            let result = self.clone().authorized().await;
            let told = match &result {
                Ok(answer) => transient(answer.status, answer.header("retry-after"), answer.header("date")),
                Err(error) if Retry::may_pass(error) => Some(None),
                Err(_) => None,
            };
            let wait = left.zip(told).and_then(|(retry, told)| retry.wait(n, told));
            let Some(wait) = wait else {
                return match result {
                    Ok(answer) => Ok(Answer { tries, ..answer }),
                    Err(error) => Err(tries.into_iter().fold(error, Error::tried)),
                };
            };
            let what = result.map_or_else(|error| error.to_string(), |answer| format!("status {}", answer.status));
            tries.push(format!("try {}: {what}; again after {}", n + 1, seconds(wait)));
            pause(wait).await;
        }
    }

    /// Sends it with a token of the client's source; a 401 renews the token, once.
    async fn authorized(self) -> CoreResult<Answer> {
        let Some(tokens) = self.http.shared.tokens.clone() else { return self.once().await };
        let (number, token) = tokens.get(None).await?;
        let answer = self.clone().bearer(&token).once().await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let (_, token) = tokens.get(Some(number)).await?;
        self.bearer(&token).once().await
    }

    async fn once(self) -> CoreResult<Answer> {
        let mut streamed = self.stream().await?;
        let largest = streamed.call.http.shared.largest_body;
        let mut body = Vec::new();
        while let Some(chunk) = streamed.chunk_after(&body).await? {
            if streamed.received > largest {
                let failure = streamed.call.failure(Stage::Body, Some(streamed.status), &body);
                return Err(failure.into_error(ErrorKind::Protocol, &format!("sent more than {largest} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let Streamed { call, status, headers, begun, first_byte, received, .. } = streamed;
        let (method, url) = (call.method.to_string(), mask::url(&call.url));
        let (correlation, took) = (call.correlation, begun.elapsed());
        let trace = call.headers.iter().find(|(name, _)| name == TRACE_HEADER).map(|(_, value)| value.clone());
        let tries = Vec::new();
        Ok(Answer { method, url, correlation, status, headers, body, received, first_byte, took, trace, tries })
    }

    /// Sends it and gives the answer as soon as its headers are there; the body is read piece by piece.
    ///
    /// # Errors
    /// As awaiting the call, up to the headers.
    pub async fn stream(mut self) -> CoreResult<Streamed> {
        let begun = Instant::now();
        let client = self.http.shared.client.clone();
        let request = self.build(&client)?;
        let first = self.limits.first_byte.min(self.limits.total);
        let mut response = match tokio::time::timeout(first, client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.broken(&error)),
            Err(_) => return Err(self.late(Stage::FirstByte, first, None, &[])),
        };
        let (status, first_byte) = (response.status().as_u16(), begun.elapsed());
        let headers = std::mem::take(response.headers_mut());
        let unpacker = match self.http.shared.unpacks {
            None => None,
            Some(most) => {
                let named = headers.get("content-encoding").map(|value| String::from_utf8_lossy(value.as_bytes()));
                Unpacker::of(named.as_deref(), most).map_err(|misfit| self.misfit(&misfit, status))?
            }
        };
        Ok(Streamed { call: self, response, status, headers, begun, first_byte, received: 0, unpacker })
    }

    fn misfit(&self, misfit: &Misfit, status: u16) -> Error {
        self.failure(Stage::Body, Some(status), &[]).into_error(ErrorKind::Protocol, &misfit.to_string())
    }

    fn build(&mut self, client: &reqwest::Client) -> CoreResult<reqwest::Request> {
        let refuse = |call: &Self, why: String| {
            let mut failure = call.failure(Stage::Build, None, &[]);
            failure.detail = why;
            failure.into_error(ErrorKind::Config, "cannot be sent")
        };
        if let Some(why) = self.defect.take() {
            return Err(refuse(self, why));
        }
        let mut request = client.request(self.method.clone(), &self.url);
        for (name, value) in self.headers.iter().chain([&(CORRELATION_HEADER.to_owned(), self.correlation.clone())]) {
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| refuse(self, format!("`{name}` is not a header name")))?;
            let value = HeaderValue::try_from(value.as_str())
                .map_err(|_| refuse(self, format!("the value of header `{name}` has forbidden characters")))?;
            request = request.header(name, value);
        }
        if let Some(mut body) = self.body.take() {
            if let Some(packing) = self.packing {
                body = packing.pack(&body).map_err(|error| refuse(self, error.to_string()))?;
            }
            request = request.body(body);
        }
        request.build().map_err(|error| refuse(self, deepest(&error)))
    }

    fn failure(&self, stage: Stage, status: Option<u16>, body: &[u8]) -> CallFailure {
        CallFailure {
            method: self.method.to_string(),
            url: mask::url(&self.url),
            stage,
            timed_out: false,
            status,
            body: excerpt(body),
            correlation: self.correlation.clone(),
            detail: String::new(),
        }
    }

    fn late(&self, stage: Stage, limit: Duration, status: Option<u16>, body: &[u8]) -> Error {
        let mut failure = self.failure(stage, status, body);
        failure.timed_out = true;
        failure.detail = format!("limit {}", seconds(limit));
        let what = match stage {
            Stage::Connect => format!("could not connect within {}", seconds(limit)),
            Stage::Body => format!("had not sent its whole body within {}", seconds(limit)),
            _ => format!("gave no first byte within {}", seconds(limit)),
        };
        failure.into_error(ErrorKind::Timeout, &what)
    }

    /// What `execute` says when it fails before the headers.
    fn broken(&self, error: &reqwest::Error) -> Error {
        if error.is_connect() && error.is_timeout() {
            return self.late(Stage::Connect, self.limits.connect, None, &[]);
        }
        let (stage, kind, what) = if error.is_connect() {
            (Stage::Connect, ErrorKind::Connect, "could not connect")
        } else {
            (Stage::FirstByte, ErrorKind::Protocol, "got no HTTP answer")
        };
        let mut failure = self.failure(stage, None, &[]);
        failure.detail = deepest(error);
        failure.into_error(kind, what)
    }
}

/// An answer whose body is still coming. Dropping it closes the connection.
#[must_use = "the body is read by `chunk`"]
#[derive(Debug)]
pub struct Streamed {
    call: Call,
    response: reqwest::Response,
    status: u16,
    headers: HeaderMap,
    begun: Instant,
    first_byte: Duration,
    received: usize,
    unpacker: Option<Unpacker>,
}

impl Streamed {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header's value, if it is there and is text; the first of several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Bytes of the body so far, as they came off the wire.
    #[must_use]
    pub fn received(&self) -> usize {
        self.received
    }

    /// The next piece of the body as it came off the wire, unpacked if the client unpacks; `None` at its end. Bounded by the
    /// limit of the whole call.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the limit, [`ErrorKind::Protocol`] when the body breaks off or cannot be unpacked.
    pub async fn chunk(&mut self) -> CoreResult<Option<Bytes>> {
        self.chunk_after(&[]).await
    }

    /// [`Streamed::chunk`] with what came before, which a failure shows.
    async fn chunk_after(&mut self, body: &[u8]) -> CoreResult<Option<Bytes>> {
        loop {
            let chunk = self.packed_chunk(body).await?;
            let Some(unpacker) = &mut self.unpacker else { return Ok(chunk) };
            let unpacked = match &chunk {
                Some(piece) => unpacker.push(piece),
                None => unpacker.finish().map(|()| Vec::new()),
            };
            let unpacked = unpacked.map_err(|misfit| self.call.misfit(&misfit, self.status))?;
            match chunk {
                // A piece may hold less than one byte of what was packed.
                Some(_) if unpacked.is_empty() => {}
                Some(_) => return Ok(Some(unpacked.into())),
                None => return Ok(None),
            }
        }
    }

    /// The next piece as it came off the wire.
    async fn packed_chunk(&mut self, body: &[u8]) -> CoreResult<Option<Bytes>> {
        let left = self.call.limits.total.saturating_sub(self.begun.elapsed());
        match tokio::time::timeout(left, self.response.chunk()).await {
            Ok(Ok(chunk)) => {
                self.received += chunk.as_ref().map_or(0, Bytes::len);
                Ok(chunk)
            }
            Ok(Err(error)) => {
                let mut failure = self.call.failure(Stage::Body, Some(self.status), body);
                failure.detail = deepest(&error);
                let what = format!("broke off after {} bytes of the body", self.received);
                Err(failure.into_error(ErrorKind::Protocol, &what))
            }
            Err(_) => Err(self.call.late(Stage::Body, self.call.limits.total, Some(self.status), body)),
        }
    }
}

impl IntoFuture for Call {
    type Output = CoreResult<Answer>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The beginning of a body, readable and without secrets.
pub(super) fn excerpt(body: &[u8]) -> String {
    const LENGTH: usize = 512;
    let cut = &body[..body.len().min(LENGTH)];
    let mut text = mask::text(&String::from_utf8_lossy(cut));
    if body.len() > LENGTH {
        text.push_str(&format!(" … ({} bytes)", body.len()));
    }
    text
}

/// The last cause, which is the one that tells something.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    mask::text(&cause.to_string())
}
