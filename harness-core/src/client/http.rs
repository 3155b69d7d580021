//! The client itself: one base address, one pool, one set of limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::call::Call;
use super::renewal::Tokens;
use super::retry::Retry;
use super::{mask, packing, prometheus};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Run, fnv};

/// The header that carries the identity of a call, so that a line in the service's log can be found from a failure.
pub const CORRELATION_HEADER: &str = "x-correlation-id";

/// The header that carries the trace (W3C Trace Context, section 3.2).
pub const TRACE_HEADER: &str = "traceparent";

/// How long each stage of a call may take. Every call has all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// To a connected socket. Belongs to the client's pool, the same for all its calls.
    pub connect: Duration,
    /// From the start of the call to the status line and headers.
    pub first_byte: Duration,
    /// From the start of the call to the last byte of the body.
    pub total: Duration,
}

impl Default for Limits {
    /// 2 s to connect, 10 s to the first byte, 30 s in all.
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), first_byte: Duration::from_secs(10), total: Duration::from_secs(30) }
    }
}

impl Limits {
    /// Limits connecting.
    #[must_use]
    pub fn connect(mut self, limit: Duration) -> Self {
        self.connect = limit;
        self
    }

    /// Limits the time to the first byte.
    #[must_use]
    pub fn first_byte(mut self, limit: Duration) -> Self {
        self.first_byte = limit;
        self
    }

    /// Limits the whole call.
    #[must_use]
    pub fn total(mut self, limit: Duration) -> Self {
        self.total = limit;
        self
    }
}

/// An HTTP client bound to a base address. Cheap to clone; clones share the connection pool.
///
/// Plain HTTP/1.1, no proxy, no redirects, no retries. The pool keeps every connection that load needs.
#[derive(Debug, Clone)]
pub struct Http {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) client: reqwest::Client,
    base: String,
    pub(super) limits: Limits,
    pub(super) largest_body: usize,
    /// To how many bytes a packed body is unpacked; `None` leaves it as it comes.
    pub(super) unpacks: Option<usize>,
    headers: Vec<(String, String)>,
    pub(super) retry: Option<Retry>,
    pub(super) tokens: Option<Tokens>,
    traced: bool,
}

/// Calls of this process, over all clients: a correlation id is never used twice.
static CALLS: AtomicU64 = AtomicU64::new(0);

impl Http {
    /// A client with the default [`Limits`] for a base such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the base is not an `http://` address.
    pub fn new(base: impl Into<String>) -> CoreResult<Self> {
        Self::with_limits(base, Limits::default())
    }

    /// A client with limits of its own.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn with_limits(base: impl Into<String>, limits: Limits) -> CoreResult<Self> {
        Self::build(base, limits, |builder| builder)
    }

    /// A client that speaks through a Unix socket; the host of the base goes into the `Host` header only.
    ///
    /// # Errors
    /// As [`Http::new`].
    #[cfg(unix)]
    pub fn over_socket(path: impl Into<PathBuf>, base: impl Into<String>, limits: Limits) -> CoreResult<Self> {
        let path = path.into();
        Self::build(base, limits, |builder| builder.unix_socket(path))
    }

    fn build(
        base: impl Into<String>,
        limits: Limits,
        more: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> CoreResult<Self> {
        let base = base.into();
        let base = base.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base).map_err(|error| refused_base(&base).caused_by(error))?;
        if parsed.scheme() != "http" || parsed.host_str().is_none() || parsed.query().is_some() {
            return Err(refused_base(&base));
        }
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits.connect)
            .pool_max_idle_per_host(usize::MAX)
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .http1_only();
        let client = more(builder)
            .build()
            .map_err(|error| Error::new(ErrorKind::Environment, "no HTTP client could be built").caused_by(error))?;
        let shared = Shared {
            client,
            base,
            limits,
            largest_body: 64 << 20,
            unpacks: None,
            headers: Vec::new(),
            retry: None,
            tokens: None,
            traced: false,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The same client, pool included, that sends one more header with every call.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.changed(|shared| shared.headers.push((name.into(), value.into())))
    }

    /// The same client that tries again.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        self.changed(|shared| shared.retry = Some(retry))
    }

    /// The same client that shows tokens of a source, and has one renewed that is answered by 401.
    #[must_use]
    pub fn tokens(self, tokens: Tokens) -> Self {
        self.changed(|shared| shared.tokens = Some(tokens))
    }

    /// The same client that asks for packed bodies (`Accept-Encoding: gzip, deflate`) and unpacks them, to so many bytes at
    /// most: one that unpacks to more fails the call, and never takes more memory than that. A stream is unpacked piece by
    /// piece under the same limit over all pieces. A body packed in another way fails the call, too.
    #[must_use]
    pub fn unpacks(self, most_bytes: usize) -> Self {
        self.changed(|shared| shared.unpacks = Some(most_bytes))
    }

    /// The same client that takes a body of so many bytes as they come off the wire; 64 MiB unless told. A longer one fails the
    /// call. Streams have no such limit.
    #[must_use]
    pub fn largest_body(self, bytes: usize) -> Self {
        self.changed(|shared| shared.largest_body = bytes)
    }

    /// The same client that sends a `traceparent` of its own with every call; see [`super::Answer::trace`].
    #[must_use]
    pub fn traced(self) -> Self {
        self.changed(|shared| shared.traced = true)
    }

    fn changed(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Shared::clone(&self.shared);
        change(&mut shared);
        Self { shared: Arc::new(shared) }
    }

    /// The same client that sends `Authorization: Bearer …` with every call.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The base address, without a slash at its end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.shared.base
    }

    /// A call to be awaited; `path` is appended to the base.
    pub fn get(&self, path: &str) -> Call {
        self.request(Method::GET, path)
    }

    /// A call with a JSON body.
    pub fn post(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Call {
        self.request(Method::POST, path).json(body)
    }

    /// A call with a JSON body.
    pub fn put(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Call {
        self.request(Method::PUT, path).json(body)
    }

    /// A call without a body.
    pub fn delete(&self, path: &str) -> Call {
        self.request(Method::DELETE, path)
    }

    /// A call of any method, without a body at first.
    pub fn request(&self, method: Method, path: &str) -> Call {
        let slash = if path.is_empty() || path.starts_with(['/', '?']) { "" } else { "/" };
        let url = format!("{}{slash}{path}", self.shared.base);
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{}-{number}", Run::current().id(), std::process::id());
        let mut call = Call::new(self.clone(), method, url, id);
        if self.shared.unpacks.is_some() {
            call = call.header("accept-encoding", packing::ACCEPTED);
        }
        if self.shared.traced {
            call = call.header(TRACE_HEADER, traceparent(number));
        }
        self.shared.headers.iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    /// Fetches a metrics page and parses it: the answer must be 200 and well-formed exposition text.
    ///
    /// # Errors
    /// As any call; [`ErrorKind::Assertion`] on another status, [`ErrorKind::Protocol`] naming a malformed line.
    pub async fn scrape(&self, path: &str) -> CoreResult<prometheus::Metrics> {
        let answer = self.get(path).await?.expect_status(200)?;
        let context = format!("the page {} is not Prometheus text", answer.url());
        prometheus::parse(&answer.text()?).map_err(|error| Error::new(ErrorKind::Protocol, context).caused_by(error))
    }
}

/// A trace and a span that no other call of this machine has.
fn traceparent(number: u64) -> String {
    let of =
        |label: &str| fnv(format!("{label} {} {} {number}", Run::current().id(), std::process::id()).as_bytes()).max(1);
    format!("00-{:016x}{:016x}-{:016x}-01", of("high"), of("low"), of("span"))
}

fn refused_base(base: &str) -> Error {
    Error::new(ErrorKind::Config, format!("`{}` is not a base address", mask::url(base)))
        .remedy("give one such as http://127.0.0.1:8080 (plain HTTP, no query)")
}
