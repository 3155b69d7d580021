//! A scripted MCP server for tests of clients: correct unless its script says otherwise, and it remembers what it heard.
//!
//! It has a fixture for every [`Role`](super::Role), three resources and two prompts. A script tampers with single turns:
//! that is how a test makes the server late, wrong or silent in one known way.

mod desk;
mod fixtures;
mod http;
mod socket;
mod streams;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use harness_core::CoreResult;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};

use self::desk::Desk;
pub use self::streams::{EventTurn, StubEvent};
use super::profile::{Idle, SecondSocket, Version};

/// Messages that are remembered.
const REMEMBERED: usize = 100_000;

type Tamper<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

/// What the server does: the rules of a version, and what is tampered with.
#[derive(Clone)]
#[must_use]
pub struct Script {
    version: Version,
    welcome: bool,
    page: usize,
    bearer: Option<String>,
    largest_message: usize,
    session_ids: fn(u64) -> String,
    tamper: Option<Tamper<Turn>>,
    tamper_http: Option<Tamper<HttpTurn>>,
    tamper_events: Option<Tamper<EventTurn>>,
    event_ids: bool,
    idle: Option<Idle>,
    second_socket: Option<(String, SecondSocket)>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("version", &self.version).field("welcome", &self.welcome).finish_non_exhaustive()
    }
}

/// One message that was heard and what is about to be said to it; a script may change either.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Turn {
    /// The session, numbered from 1. Number 0 is nobody.
    pub session: u64,
    /// The text that was heard; empty when the session has just been opened.
    pub text: String,
    /// The text read as JSON, if it is JSON.
    pub heard: Option<Value>,
    /// What is said to this session, in order.
    pub said: Vec<Value>,
    /// What is said to every session.
    pub everyone: Vec<Value>,
    /// Whether the server then leaves: a WebSocket is closed, a program ends.
    pub leaves: bool,
}

/// An answer over HTTP that is about to begin; a script may change it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpTurn {
    /// The method of the request, `POST`.
    pub method: String,
    /// The headers of the request, names in lower case.
    pub asked: BTreeMap<String, String>,
    /// The body of the request.
    pub text: String,
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer.
    pub headers: Vec<(String, String)>,
    /// The body of the answer; of a stream of events it is not sent.
    pub body: String,
}

impl HttpTurn {
    /// Puts another answer in place of this one, with a body that is JSON.
    pub fn answer(&mut self, status: u16, body: &Value) {
        (self.status, self.body) = (status, body.to_string());
        self.headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    }
}

impl Turn {
    /// The method that was heard, empty if there was none.
    #[must_use]
    pub fn method(&self) -> &str {
        self.heard.as_ref().and_then(|heard| heard["method"].as_str()).unwrap_or_default()
    }

    /// The name of the tool that was called, empty if none was.
    #[must_use]
    pub fn tool(&self) -> &str {
        let called = self.heard.as_ref().filter(|_| self.method() == "tools/call");
        called.and_then(|heard| heard["params"]["name"].as_str()).unwrap_or_default()
    }

    /// The result that is about to be said, if one is.
    pub fn result(&mut self) -> Option<&mut Value> {
        self.said.iter_mut().find_map(|said| said.get_mut("result"))
    }

    /// The error that is about to be said, if one is.
    pub fn error(&mut self) -> Option<&mut Value> {
        self.said.iter_mut().find_map(|said| said.get_mut("error"))
    }
}

impl Script {
    /// A correct server: all versions with sessions if this one has sessions, else this one alone.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            welcome: false,
            page: 8,
            bearer: None,
            largest_message: 64 << 20,
            session_ids: |_| format!("s-{:016x}", unguessable()),
            tamper: None,
            tamper_http: None,
            tamper_events: None,
            event_ids: true,
            idle: None,
            second_socket: None,
        }
    }

    /// Sends a welcome with a session id as the first frame (WebSocket only).
    pub fn welcome(mut self) -> Self {
        self.welcome = true;
        self
    }

    /// Lists so many items on a page; 8 unless told.
    pub fn page(mut self, items: usize) -> Self {
        self.page = items.max(1);
        self
    }

    /// Refuses who does not show this bearer token, by status 401.
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// Takes messages of so many octets over WebSocket and leaves with code 1009 at a larger one; 64 MiB unless told.
    pub fn largest_message(mut self, octets: usize) -> Self {
        self.largest_message = octets;
        self
    }

    /// Gives the sessions over HTTP these ids, by their number; unless told they cannot be guessed.
    pub fn session_ids(mut self, name: fn(u64) -> String) -> Self {
        self.session_ids = name;
        self
    }

    /// Lets a function change every turn before it is said.
    pub fn tamper(mut self, tamper: impl Fn(&mut Turn) + Send + Sync + 'static) -> Self {
        self.tamper = Some(Arc::new(tamper));
        self
    }

    /// Lets a function change the head of every answer over HTTP before it is written, that of an upgrade included.
    pub fn tamper_http(mut self, tamper: impl Fn(&mut HttpTurn) + Send + Sync + 'static) -> Self {
        self.tamper_http = Some(Arc::new(tamper));
        self
    }

    /// Lets a function change the events of every stream of a session before they are written, or break the stream off.
    pub fn tamper_events(mut self, tamper: impl Fn(&mut EventTurn) + Send + Sync + 'static) -> Self {
        self.tamper_events = Some(Arc::new(tamper));
        self
    }

    /// Gives the events of its streams no ids, so that none can be taken up again (HTTP, era of sessions).
    pub fn without_event_ids(mut self) -> Self {
        self.event_ids = false;
        self
    }

    /// Pings a WebSocket on which nothing is said for so long, or leaves it; it waits for ever unless told.
    pub fn idle(mut self, idle: Idle) -> Self {
        self.idle = Some(idle);
        self
    }

    /// What becomes of a WebSocket that shows the id of a session, as told by its welcome, in this header of the handshake.
    /// Unless told, the header means nothing. A held call is answered on the socket that releases it.
    pub fn second_socket(mut self, header: impl Into<String>, rule: SecondSocket) -> Self {
        self.second_socket = Some((header.into().to_ascii_lowercase(), rule));
        self
    }

    /// Never answers this method.
    pub fn mute(self, method: &'static str) -> Self {
        self.tamper(move |turn| {
            if turn.method() == method {
                turn.said.clear();
            }
        })
    }

    fn apply(&self, turn: &mut Turn) {
        if let Some(tamper) = &self.tamper {
            tamper(turn);
        }
    }
}

/// What all sessions of one stub share.
struct House {
    script: Script,
    sessions: AtomicU64,
    heard: Mutex<Vec<Value>>,
    everyone: broadcast::Sender<String>,
    /// What was shown by who came again for the rest of a stream.
    resumed: Mutex<Vec<String>>,
    /// Sessions over WebSocket that a second socket may join, by the id of their welcome.
    joinable: Mutex<BTreeMap<String, Arc<socket::Shared>>>,
}

impl House {
    fn new(script: Script) -> Arc<Self> {
        let (everyone, _) = broadcast::channel(1024);
        Arc::new(Self {
            script,
            sessions: AtomicU64::new(0),
            heard: Mutex::default(),
            everyone,
            resumed: Mutex::default(),
            joinable: Mutex::default(),
        })
    }

    fn open(&self) -> Desk {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        Desk::new(session, self.script.version, self.script.page)
    }

    fn remember(&self, text: &str) -> Option<Value> {
        let heard: Option<Value> = serde_json::from_str(text).ok();
        let mut all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < REMEMBERED {
            all.push(heard.clone().unwrap_or_else(|| Value::String(text.to_owned())));
        }
        heard
    }

    /// One turn of a session: what is said to it, and whether the server then leaves.
    fn turn(&self, desk: &mut Desk, text: &str) -> (Vec<String>, bool) {
        let heard = self.remember(text);
        let said = desk.hear(text);
        let session = desk.session;
        let mut turn = Turn { session, text: text.to_owned(), heard, said, everyone: Vec::new(), leaves: false };
        self.script.apply(&mut turn);
        for message in &turn.everyone {
            let _ = self.everyone.send(message.to_string());
        }
        (turn.said.iter().map(said_text).collect(), turn.leaves)
    }

    /// The status by which a request is refused at the door, if it is: a foreign page, or no token where one is due.
    fn refuses(&self, header: impl Fn(&str) -> Option<String>) -> Option<u16> {
        let local = |origin: String| origin.contains("//127.0.0.1") || origin.contains("//localhost");
        let due = self.script.bearer.as_ref().map(|token| format!("Bearer {token}"));
        match (header("origin").is_none_or(local), due.is_none() || due == header("authorization")) {
            (false, _) => Some(403),
            (true, false) => Some(401),
            (true, true) => None,
        }
    }

    /// The turn before anything was heard: a welcome, if there is one.
    fn opening(&self, session: u64) -> Vec<String> {
        let welcome =
            json!({"jsonrpc": "2.0", "method": "welcome", "params": {"session_id": format!("session-{session}")}});
        let said = if self.script.welcome { vec![welcome] } else { Vec::new() };
        let mut turn = Turn { session, text: String::new(), heard: None, said, everyone: Vec::new(), leaves: false };
        self.script.apply(&mut turn);
        turn.said.iter().map(said_text).collect()
    }
}

/// A string is said as it is: that is how a script says what is not JSON.
fn said_text(message: &Value) -> String {
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// A running scripted server, over WebSocket and Streamable HTTP at once. Dropping it stops it.
#[must_use = "the server stops when it is dropped"]
pub struct McpStub {
    address: SocketAddr,
    house: Arc<House>,
    task: JoinHandle<()>,
}

impl fmt::Debug for McpStub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpStub").field("address", &self.address).finish_non_exhaustive()
    }
}

impl McpStub {
    /// Starts it on a free port of 127.0.0.1, as a task of the current runtime.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(script: Script) -> CoreResult<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let house = House::new(script);
        let task = tokio::spawn(accept(listener, Arc::clone(&house)));
        Ok(Self { address, house, task })
    }

    /// `ws://127.0.0.1:<port>/mcp`.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}/mcp", self.address)
    }

    /// `http://127.0.0.1:<port>/mcp`.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// The `Last-Event-ID` of everybody who came again for the rest of a stream, in order.
    #[must_use]
    pub fn resumed(&self) -> Vec<String> {
        self.house.resumed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every message that was heard, in order; one that is no JSON stands there as a string.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        self.house.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for McpStub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, house: Arc<House>) {
    let posts = http::Posts::new(Arc::clone(&house));
    let mut tasks = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let (house, posts) = (Arc::clone(&house), posts.clone());
        tasks.spawn(async move {
            let mut head = [0; 2048];
            // The path is the same: who wants to upgrade says so in its head.
            loop {
                let Ok(seen @ 1..) = socket.peek(&mut head).await else { return };
                let text = String::from_utf8_lossy(&head[..seen]).to_ascii_lowercase();
                if text.contains("upgrade: websocket") {
                    return socket::converse(socket, house).await;
                }
                if text.contains("\r\n\r\n") || seen == head.len() {
                    return posts.serve(socket).await;
                }
                tokio::task::yield_now().await;
            }
        });
        while tasks.try_join_next().is_some() {}
    }
}

/// A number that a test cannot foresee; the stub keeps no secrets behind it.
fn unguessable() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Serves the script on standard input and output until the input ends. Blocking; for the `main` of a program that a test
/// starts.
///
/// # Errors
/// When a stream breaks.
pub fn serve_stdio(script: Script) -> std::io::Result<()> {
    let house = House::new(script);
    let mut desk = house.open();
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let (said, leaves) = house.turn(&mut desk, line.trim_end_matches('\r'));
        for text in said {
            writeln!(output, "{text}")?;
        }
        output.flush()?;
        if leaves {
            break;
        }
    }
    Ok(())
}
