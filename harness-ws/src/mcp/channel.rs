//! One conversation, whatever carries it: text messages both ways over WebSocket, Streamable HTTP or stdio.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::client::{Http, Limits, mask};
use harness_core::service::{Dialogue, Exec};
use harness_core::wait::{seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::meta_key;
use super::profile::{Profile, Version};
use crate::events::SseReader;
use crate::ws::{Connect, End, Message, Ws};

/// Messages of a conversation that are kept for a failure.
const KEPT: usize = 512;
/// Bytes of a message that are kept; longer ones cannot be replayed and say so.
const KEPT_BYTES: usize = 16 << 10;
/// Requests over HTTP overtake one another: each gets so much of a start, unless its answer begins before.
const HEAD_START: Duration = Duration::from_millis(50);
/// How long a program may take to start.
const START: Duration = Duration::from_secs(30);
/// How long a program gets to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Where a server is, and what carries the messages.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// `ws://…`: one message per text message. WebSocket is no official transport of MCP.
    Ws {
        /// The address.
        url: String,
        /// Headers of the handshake.
        headers: Vec<(String, String)>,
    },
    /// `http://…`: Streamable HTTP.
    Http {
        /// The address of the endpoint.
        url: String,
        /// Headers of every request.
        headers: Vec<(String, String)>,
    },
    /// A program: one message per line. Every conversation starts it anew.
    Stdio(Exec),
}

impl Target {
    /// A server at an address, `ws://…` or `http://…`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another scheme.
    pub fn at(url: &str) -> CoreResult<Self> {
        let (url, headers) = (url.to_owned(), Vec::new());
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("ws") => Ok(Self::Ws { url, headers }),
            Some("http") => Ok(Self::Http { url, headers }),
            _ => Err(Error::new(ErrorKind::Config, format!("`{}` is not the address of a server", mask::url(&url)))
                .remedy("give one such as ws://127.0.0.1:8000/mcp or http://127.0.0.1:8000/mcp")),
        }
    }

    /// A program that speaks on its standard input and output.
    #[must_use]
    pub fn program(exec: Exec) -> Self {
        Self::Stdio(exec)
    }

    /// The same with one more header; a program has none.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Ws { headers, .. } | Self::Http { headers, .. } = &mut self {
            headers.push((name.into(), value.into()));
        }
        self
    }

    /// The same with `Authorization: Bearer …`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }
}

/// The handshake with a server over WebSocket, its headers included; no subprotocol is offered.
pub(crate) fn handshake(url: &str, headers: &[(String, String)], limit: Duration) -> Connect {
    let connect = Ws::builder(url).limit(limit).open_limit(limit.max(Duration::from_secs(2)));
    headers.iter().fold(connect, |connect, (name, value)| connect.header(name, value))
}

impl fmt::Display for Target {
    /// The address or the command line, secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ws { url, .. } | Self::Http { url, .. } => f.write_str(&mask::url(url)),
            Self::Stdio(exec) => f.write_str(&mask::text(&exec.command_line())),
        }
    }
}

/// What carries the messages.
enum Carrier {
    Ws(Box<Ws>),
    Http(Box<Posts>),
    Stdio(Box<Dialogue>),
}

/// One open conversation with what was said in it.
pub(crate) struct Channel {
    carrier: Carrier,
    shown: String,
    said: VecDeque<String>,
    /// The first frame of a WebSocket that a check wants to see again.
    limit: Duration,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("target", &self.shown).finish_non_exhaustive()
    }
}

impl Channel {
    /// Opens a conversation. Nothing is said yet.
    pub(crate) async fn open(target: &Target, profile: &Profile, limit: Duration) -> CoreResult<Self> {
        let carrier = match target {
            Target::Ws { url, headers } => {
                let connect = handshake(url, headers, limit);
                let connect = match &profile.subprotocol {
                    Some(name) => connect.subprotocol(name),
                    None => connect,
                };
                Carrier::Ws(Box::new(connect.connect().await?))
            }
            Target::Http { url, headers } => Carrier::Http(Box::new(Posts::new(url, headers, limit)?)),
            Target::Stdio(exec) => Carrier::Stdio(Box::new(Dialogue::start(exec)?)),
        };
        Ok(Self::over(carrier, target.to_string(), limit))
    }

    /// A conversation over a connection that is open already.
    pub(crate) fn over_ws(ws: Ws, limit: Duration) -> Self {
        let shown = ws.url().to_owned();
        Self::over(Carrier::Ws(Box::new(ws)), shown, limit)
    }

    fn over(carrier: Carrier, shown: String, limit: Duration) -> Self {
        Self { carrier, shown, said: VecDeque::new(), limit }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The WebSocket under it, if it is one.
    pub(crate) fn ws(&mut self) -> Option<&mut Ws> {
        match &mut self.carrier {
            Carrier::Ws(ws) => Some(ws),
            _ => None,
        }
    }

    /// How long the first answer may take: that of a program includes its start.
    pub(crate) fn first_limit(&self, limit: Duration) -> Duration {
        match self.carrier {
            Carrier::Stdio(_) => limit.max(START),
            _ => limit,
        }
    }

    pub(crate) fn is_http(&self) -> bool {
        matches!(self.carrier, Carrier::Http(_))
    }

    /// The session id that the server gave over HTTP.
    pub(crate) fn http_session(&self) -> Option<String> {
        match &self.carrier {
            Carrier::Http(posts) => posts.session(),
            _ => None,
        }
    }

    /// From now on the version stands in the header of every POST.
    pub(crate) fn agreed(&mut self, version: &str) {
        if let Carrier::Http(posts) = &mut self.carrier {
            posts.version = Some(version.to_owned());
        }
    }

    /// Listens to what the server says outside of its answers (era of sessions, HTTP); a server need not offer it.
    pub(crate) fn listen(&mut self) {
        if let Carrier::Http(posts) = &mut self.carrier {
            posts.listen();
        }
    }

    /// Sends one message as it is.
    pub(crate) async fn send(&mut self, text: String) -> CoreResult {
        self.keep("> ", &text);
        match &mut self.carrier {
            Carrier::Ws(ws) => ws.send_raw(text).await,
            Carrier::Http(posts) => posts.send(text).await,
            Carrier::Stdio(program) => {
                let limit = self.limit;
                within("writing a line", limit, program.say(format!("{text}\n").as_bytes())).await?
            }
        }
    }

    /// The next message, whatever it is.
    pub(crate) async fn receive(&mut self, limit: Duration) -> CoreResult<String> {
        let text = match &mut self.carrier {
            Carrier::Ws(ws) => match ws.receive().within(limit).await? {
                Message::Text(text) => text,
                Message::Binary(bytes) => format!("(binary, {} bytes)", bytes.len()),
            },
            Carrier::Http(posts) => posts.receive(limit).await?,
            Carrier::Stdio(program) => match program.line(limit).await? {
                Some(line) => String::from_utf8_lossy(&line).into_owned(),
                None => {
                    let what = format!("{} closed its output", self.shown);
                    return Err(Error::new(ErrorKind::Connect, what).log(program.errors()).caused_by(End::Eof));
                }
            },
        };
        self.keep("< ", &text);
        Ok(text)
    }

    /// What was said, oldest first: `> ` before what was sent, `< ` before what came. Secrets are masked.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.iter().map(|line| mask::text(line)).collect()
    }

    fn keep(&mut self, arrow: &str, text: &str) {
        if self.said.len() == KEPT {
            self.said.pop_front();
        }
        let cut = text.char_indices().nth(KEPT_BYTES).map_or(text.len(), |(at, _)| at);
        let rest = if cut < text.len() { format!("… ({} bytes)", text.len()) } else { String::new() };
        self.said.push_back(format!("{arrow}{}{rest}", &text[..cut]));
    }

    /// Ends it as the transport wants it: a close frame, DELETE, or the end of input. True when the server went along.
    pub(crate) async fn close(self) -> CoreResult<bool> {
        match self.carrier {
            Carrier::Ws(mut ws) => Ok(matches!(ws.close().await?, End::Close { code: 1000 | 1005, .. })),
            Carrier::Http(posts) => posts.end_session().await,
            Carrier::Stdio(program) => Ok(program.shutdown(GRACE).await?.by_itself),
        }
    }
}

/// Streamable HTTP: a POST per message, answers as JSON or as a stream of events.
struct Posts {
    http: Http,
    path: String,
    version: Option<String>,
    session: Arc<Mutex<Option<String>>>,
    inbox: mpsc::UnboundedReceiver<CoreResult<String>>,
    outbox: mpsc::UnboundedSender<CoreResult<String>>,
    running: JoinSet<()>,
}

impl Posts {
    fn new(url: &str, headers: &[(String, String)], limit: Duration) -> CoreResult<Self> {
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let path_at = url[after_scheme..].find('/').map_or(url.len(), |at| at + after_scheme);
        let limits = Limits::default().first_byte(limit.max(Duration::from_secs(30))).total(Duration::from_secs(600));
        let mut http = Http::with_limits(&url[..path_at], limits)?;
        for (name, value) in headers {
            http = http.header(name, value);
        }
        let (outbox, inbox) = mpsc::unbounded_channel();
        let session = Arc::new(Mutex::new(None));
        Ok(Self {
            http,
            path: url[path_at..].to_owned(),
            version: None,
            session,
            inbox,
            outbox,
            running: JoinSet::new(),
        })
    }

    fn session(&self) -> Option<String> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&mut self, text: String) -> CoreResult {
        let message: Option<Value> = serde_json::from_str(&text).ok();
        let member = |name: &str| message.as_ref().and_then(|message| message.get(name));
        let method = member("method").and_then(Value::as_str).map(str::to_owned);
        let readable = member("id").is_some_and(|id| id.is_string() || id.is_i64() || id.is_u64());
        let awaited = readable && method.is_some();
        let mut call = self
            .http
            .request(harness_core::client::Method::POST, &self.path)
            .raw("application/json", text)
            .header("accept", "application/json, text/event-stream");
        for (name, value) in self.mirrors(message.as_ref()) {
            call = call.header(name, value);
        }
        if let Some(session) = self.session() {
            call = call.header("mcp-session-id", session);
        }
        let (outbox, session) = (self.outbox.clone(), Arc::clone(&self.session));
        let (begun, has_begun) = oneshot::channel();
        let post = async move {
            if let Err(error) = read_answer(call, &outbox, &session, awaited, Some(begun)).await {
                let _ = outbox.send(Err(error));
            }
        };
        // A request is answered when the server is done; everything else is accepted at once, and that orders a fence.
        if awaited {
            self.running.spawn(post);
            let _ = timeout(HEAD_START, has_begun).await;
        } else {
            post.await;
        }
        Ok(())
    }

    /// The headers that say what the body says; of what no header can hold there is none.
    fn mirrors(&self, message: Option<&Value>) -> Vec<(&'static str, String)> {
        let Some(agreed) = &self.version else { return Vec::new() };
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

    async fn receive(&mut self, limit: Duration) -> CoreResult<String> {
        let late = || {
            Error::new(ErrorKind::Timeout, format!("no message came within {} ({})", seconds(limit), self.http.base()))
        };
        match within("a message", limit, self.inbox.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => Err(late()),
        }
    }

    fn listen(&mut self) {
        let Some(session) = self.session() else { return };
        let mut call =
            self.http.get(&self.path).header("accept", "text/event-stream").header("mcp-session-id", session);
        if let Some(version) = &self.version {
            call = call.header("mcp-protocol-version", version);
        }
        let (outbox, session) = (self.outbox.clone(), Arc::clone(&self.session));
        self.running.spawn(async move {
            // 405 means that there is no such stream; what else goes wrong here is the check of GET's concern.
            let _ = read_answer(call, &outbox, &session, false, None).await;
        });
    }

    /// True when the server ended the session or has none.
    async fn end_session(mut self) -> CoreResult<bool> {
        self.running.abort_all();
        let Some(session) = self.session() else { return Ok(true) };
        let answer = self.http.delete(&self.path).header("mcp-session-id", session).await?;
        Ok(answer.is_success() || answer.status() == 405)
    }
}

async fn read_answer(
    call: harness_core::client::Call,
    outbox: &mpsc::UnboundedSender<CoreResult<String>>,
    session: &Mutex<Option<String>>,
    awaited: bool,
    has_begun: Option<oneshot::Sender<()>>,
) -> CoreResult {
    let begun = Instant::now();
    let mut answer = call.stream().await?;
    if let Some(begun) = has_begun {
        let _ = begun.send(());
    }
    if let Some(given) = answer.header("mcp-session-id") {
        *session.lock().unwrap_or_else(PoisonError::into_inner) = Some(given.to_owned());
    }
    let status = answer.status();
    let kind = answer.header("content-type").unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("text/event-stream") {
        let mut reader = SseReader::default();
        while let Some(chunk) = answer.chunk().await? {
            for event in reader.push(&chunk).into_iter().filter(|event| !event.data.is_empty()) {
                let _ = outbox.send(Ok(event.data));
            }
        }
        return Ok(());
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
        let _ = outbox.send(Ok(text));
    } else if awaited || !(200..300).contains(&status) {
        let what =
            format!("a POST was answered by status {status} without a message after {}", seconds(begun.elapsed()));
        let excerpt: String = mask::text(&text).chars().take(200).collect();
        return Err(Error::new(ErrorKind::Protocol, what).tried(format!("body begins: {excerpt}")));
    }
    Ok(())
}
