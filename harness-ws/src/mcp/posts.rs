//! Streamable HTTP under a conversation: a POST per message, answers as JSON or as a stream of events that may break off.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::client::{Call, Http, Limits, Method, Streamed, mask};
use harness_core::wait::{pause, seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::meta_key;
use super::profile::Version;
use crate::events::SseReader;
use crate::jsonrpc::is_reply;

/// Requests over HTTP overtake one another: each gets so much of a start, unless its answer begins before.
const HEAD_START: Duration = Duration::from_millis(50);
/// How long the stream of a session gets to open, for a server that sends no head before it has something to tell.
const OPENING: Duration = Duration::from_millis(500);
/// How often one stream is taken up again: a server that breaks it off each time must not keep a client for ever.
const MOST_RESUMES: usize = 100;

/// One conversation over Streamable HTTP.
pub(super) struct Posts {
    line: Line,
    inbox: mpsc::UnboundedReceiver<CoreResult<String>>,
    running: JoinSet<()>,
}

/// A POST was answered by a status and by no message.
#[derive(Debug, PartialEq, Eq)]
struct StatusAlone(u16);

impl fmt::Display for StatusAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} alone", self.0)
    }
}

impl std::error::Error for StatusAlone {}

/// The status from 400 to 499 by which alone a server refused what was posted, if that is why there is this error.
pub(crate) fn refused_by_status(error: &Error) -> Option<u16> {
    let StatusAlone(status) = std::error::Error::source(error)?.downcast_ref()?;
    (400..500).contains(status).then_some(*status)
}

/// What every request of the conversation needs.
#[derive(Clone)]
struct Line {
    http: Http,
    path: String,
    version: Option<String>,
    session: Arc<Mutex<Option<String>>>,
    outbox: mpsc::UnboundedSender<CoreResult<String>>,
    resumed: Arc<AtomicUsize>,
}

/// What an answer is read for.
#[derive(Debug, Clone, PartialEq)]
enum Awaited {
    /// Nothing in particular: a message was accepted.
    Nothing,
    /// The reply to the request of this id.
    Reply(Value),
    /// Whatever the server says, for as long as the conversation lasts.
    Everything,
}

impl Awaited {
    fn comes_with(&self, text: &str) -> bool {
        let Self::Reply(id) = self else { return false };
        serde_json::from_str::<Value>(text).is_ok_and(|message| is_reply(&message) && message.get("id") == Some(id))
    }
}

impl Posts {
    pub(super) fn new(url: &str, headers: &[(String, String)], limit: Duration) -> CoreResult<Self> {
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let path_at = url[after_scheme..].find('/').map_or(url.len(), |at| at + after_scheme);
        let limits = Limits::default().first_byte(limit.max(Duration::from_secs(30))).total(Duration::from_secs(600));
        let mut http = Http::with_limits(&url[..path_at], limits)?;
        for (name, value) in headers {
            http = http.header(name, value);
        }
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (session, resumed) = (Arc::default(), Arc::default());
        let line = Line { http, path: url[path_at..].to_owned(), version: None, session, outbox, resumed };
        Ok(Self { line, inbox, running: JoinSet::new() })
    }

    pub(super) fn session(&self) -> Option<String> {
        self.line.session()
    }

    /// From now on the version stands in the header of every request.
    pub(super) fn agreed(&mut self, version: &str) {
        self.line.version = Some(version.to_owned());
    }

    /// How often a stream was taken up again.
    pub(super) fn resumed(&self) -> usize {
        self.line.resumed.load(Ordering::Relaxed)
    }

    pub(super) async fn send(&mut self, text: String) -> CoreResult {
        let message: Option<Value> = serde_json::from_str(&text).ok();
        let member = |name: &str| message.as_ref().and_then(|message| message.get(name));
        let readable = member("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64());
        let awaited = match (readable, member("method").and_then(Value::as_str)) {
            (Some(id), Some(_)) => Awaited::Reply(id.clone()),
            _ => Awaited::Nothing,
        };
        let mut call = self
            .line
            .http
            .request(Method::POST, &self.line.path)
            .raw("application/json", text)
            .header("accept", "application/json, text/event-stream");
        for (name, value) in self.mirrors(message.as_ref()) {
            call = call.header(name, value);
        }
        if let Some(session) = self.session() {
            call = call.header("mcp-session-id", session);
        }
        let (begun, has_begun) = oneshot::channel();
        let (line, is_request) = (self.line.clone(), awaited != Awaited::Nothing);
        let post = async move {
            if let Err(error) = line.read(call, &awaited, Some(begun)).await {
                let _ = line.outbox.send(Err(error));
            }
        };
        // A request is answered when the server is done; everything else is accepted at once, and that orders a fence.
        if is_request {
            self.running.spawn(post);
            let _ = timeout(HEAD_START, has_begun).await;
        } else {
            post.await;
        }
        Ok(())
    }

    /// The headers that say what the body says; of what no header can hold there is none.
    fn mirrors(&self, message: Option<&Value>) -> Vec<(&'static str, String)> {
        let Some(agreed) = &self.line.version else { return Vec::new() };
        let text = |pointer: &str| message.and_then(|message| message.pointer(pointer)).and_then(Value::as_str);
        let stated = format!("/params/_meta/{}", meta_key("protocolVersion").replace('/', "~1"));
        let mut mirrors = vec![("mcp-protocol-version", Some(text(&stated).unwrap_or(agreed)))];
        if agreed.as_str() >= Version::V2026_07_28.text() {
            mirrors.push(("mcp-method", text("/method")));
            mirrors.push(("mcp-name", text("/params/name").or_else(|| text("/params/uri"))));
        }
        let fits = |text: &&str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        mirrors.into_iter().filter_map(|(name, value)| Some((name, value.filter(fits)?.to_owned()))).collect()
    }

    pub(super) async fn receive(&mut self, limit: Duration) -> CoreResult<String> {
        let late = || {
            let what = format!("no message came within {} ({})", seconds(limit), self.line.http.base());
            Error::new(ErrorKind::Timeout, what)
        };
        match within("a message", limit, self.inbox.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => Err(late()),
        }
    }

    /// Listens to what the server says outside of its answers, where it offers that. Returns when the stream is open: what is
    /// told before has no way to get here, and a server may throw it away.
    pub(super) async fn listen(&mut self) {
        if self.session().is_none() {
            return;
        }
        let line = self.line.clone();
        let (begun, has_begun) = oneshot::channel();
        self.running.spawn(async move {
            // 405 means that there is no such stream; what else goes wrong here is the check of GET's concern.
            let _ = line.read(line.get(), &Awaited::Everything, Some(begun)).await;
        });
        let _ = timeout(OPENING, has_begun).await;
    }

    /// True when the server ended the session or has none.
    pub(super) async fn end_session(mut self) -> CoreResult<bool> {
        self.running.abort_all();
        let Some(session) = self.session() else { return Ok(true) };
        let answer = self.line.http.delete(&self.line.path).header("mcp-session-id", session).await?;
        Ok(answer.is_success() || answer.status() == 405)
    }
}

impl Line {
    fn session(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A GET for a stream of events of this session.
    fn get(&self) -> Call {
        let mut call = self.http.get(&self.path).header("accept", "text/event-stream");
        if let Some(session) = self.session() {
            call = call.header("mcp-session-id", session);
        }
        if let Some(version) = &self.version {
            call = call.header("mcp-protocol-version", version);
        }
        call
    }

    async fn read(&self, call: Call, awaited: &Awaited, has_begun: Option<oneshot::Sender<()>>) -> CoreResult {
        let begun = Instant::now();
        let mut answer = call.stream().await?;
        if let Some(begun) = has_begun {
            let _ = begun.send(());
        }
        if let Some(given) = answer.header("mcp-session-id") {
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(given.to_owned());
        }
        let status = answer.status();
        if is_events(&answer) {
            return self.read_events(answer, awaited).await;
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > 64 << 20 {
                return Err(Error::new(ErrorKind::Protocol, "the server sent more than 64 MiB"));
            }
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let is_json = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object() || value.is_array());
        if is_json {
            let _ = self.outbox.send(Ok(text));
        } else if matches!(awaited, Awaited::Reply(_)) || !(200..300).contains(&status) {
            let what =
                format!("a POST was answered by status {status} without a message after {}", seconds(begun.elapsed()));
            let excerpt: String = mask::text(&text).chars().take(200).collect();
            let error = Error::new(ErrorKind::Protocol, what).tried(format!("body begins: {excerpt}"));
            return Err(error.caused_by(StatusAlone(status)));
        }
        Ok(())
    }

    /// Reads a stream to its end. One that breaks off before what is awaited came is taken up again by the id of its last event,
    /// as late as the server wants it (2025-11-25, basic/transports#resumability-and-redelivery).
    async fn read_events(&self, mut answer: Streamed, awaited: &Awaited) -> CoreResult {
        let (mut reader, mut came) = (SseReader::default(), false);
        for _ in 0..MOST_RESUMES {
            let broke = loop {
                let chunk = match answer.chunk().await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                for event in reader.push(&chunk).into_iter().filter(|event| !event.data.is_empty()) {
                    came |= awaited.comes_with(&event.data);
                    let _ = self.outbox.send(Ok(event.data));
                }
            };
            let stateless = self.version.as_deref().is_some_and(|version| version >= Version::V2026_07_28.text());
            if came || stateless || *awaited == Awaited::Nothing || reader.last_id().is_empty() {
                return broke;
            }
            pause(reader.retry().unwrap_or_default()).await;
            answer = self.get().header("last-event-id", reader.last_id()).stream().await?;
            if !is_events(&answer) {
                let what = format!("a stream broke off, and taking it up was answered by status {}", answer.status());
                return Err(Error::new(ErrorKind::Protocol, what).tried(format!("Last-Event-ID: {}", reader.last_id())));
            }
            self.resumed.fetch_add(1, Ordering::Relaxed);
            reader = reader.resumed();
        }
        Err(Error::new(ErrorKind::Protocol, format!("a stream broke off {MOST_RESUMES} times before its reply came")))
    }
}

fn is_events(answer: &Streamed) -> bool {
    let kind = answer.header("content-type").unwrap_or_default();
    kind.to_ascii_lowercase().starts_with("text/event-stream")
}
