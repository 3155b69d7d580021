//! The stub over Streamable HTTP: just enough of HTTP/1.1 to answer one request per connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::desk::Desk;
use super::streams::{Place, Streams};
use super::{House, HttpTurn, unguessable};
use crate::jsonrpc::METHOD_NOT_FOUND;
use crate::mcp::meta_key;
use crate::mcp::profile::Version;

/// The longest head and body that are read.
const LARGEST: usize = 16 << 20;

/// The headers of a request are not what its body says, in the stateless era.
const HEADER_MISMATCH: i64 = -32020;

/// All sessions over HTTP.
#[derive(Clone)]
pub(super) struct Posts {
    house: Arc<House>,
    sessions: Arc<Mutex<HashMap<String, Arc<Session>>>>,
    /// The one of the era without sessions.
    common: Arc<Session>,
}

struct Session {
    desk: Mutex<Desk>,
    /// What each request of the era without sessions is called inside, by its id: clients use the same ones.
    names: Mutex<HashMap<String, String>>,
    /// What is said in the era without sessions, each for whoever waits for its id.
    replies: broadcast::Sender<String>,
    /// Streams of the era of sessions.
    streams: Streams,
}

/// What a request is let in for.
enum Admitted {
    /// A message; for a new session with the header that tells its name.
    Post(Arc<Session>, Option<Header>),
    /// The rest of a stream that broke off.
    Resume(Arc<Session>, Place, String),
}

struct Request {
    method: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

type Header = (String, String);

/// An answer: all of it, or the beginning of a stream.
struct Head {
    status: u16,
    headers: Vec<Header>,
    body: String,
    streams: bool,
}

impl Head {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), streams: false }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn body(mut self, body: String) -> Self {
        self.body = body;
        if self.body.is_empty() { self } else { self.with("Content-Type", "application/json") }
    }

    fn text(&self) -> String {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\nConnection: close\r\n", self.status, reason.unwrap_or("Odd"));
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.streams {
            true => text.push_str("\r\n: here\n\n"),
            false => text.push_str(&format!("Content-Length: {}\r\n\r\n{}", self.body.len(), self.body)),
        }
        text
    }
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body, null if it is no JSON.
    fn message(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The id under which a reply is due, if the body is a request.
    fn awaited(&self) -> Option<Value> {
        let message = self.message();
        message.get("method")?;
        message.get("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64()).cloned()
    }

    /// What a POST of every version has to say of itself.
    fn check_types(&self) -> Result<(), Head> {
        let accepts = self.header("accept").unwrap_or_default();
        if !accepts.contains("application/json") || !accepts.contains("text/event-stream") {
            return Err(Head::new(406));
        }
        if !self.header("content-type").unwrap_or_default().starts_with("application/json") {
            return Err(Head::new(415));
        }
        Ok(())
    }

    /// Headers of the stateless era mirror the body; without a body that can be mirrored the desk says what is wrong.
    fn check_mirrors(&self) -> Result<(), Head> {
        let message = self.message();
        let Some(method) = message["method"].as_str() else { return Ok(()) };
        let params = &message["params"];
        let named = matches!(method, "tools/call" | "prompts/get" | "resources/read");
        let name = params["name"].as_str().or_else(|| params["uri"].as_str()).filter(|_| named);
        let version = params["_meta"][meta_key("protocolVersion")].as_str();
        for (header, body) in [("mcp-method", Some(method)), ("mcp-name", name), ("mcp-protocol-version", version)] {
            if body.is_some() && self.header(header) != body {
                let error = json!({"code": HEADER_MISMATCH, "message": format!("{header} is not what the body says")});
                let reply = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
                return Err(Head::new(400).body(reply.to_string()));
            }
        }
        Ok(())
    }
}

impl Posts {
    pub(super) fn new(house: Arc<House>) -> Self {
        let common = Session::new(&house);
        Self { house, sessions: Arc::default(), common }
    }

    pub(super) async fn serve(&self, mut socket: TcpStream) {
        let Some(request) = read(&mut socket).await else { return };
        match self.admit(&request) {
            Err(head) => self.say(&mut socket, &request, head).await,
            Ok(Admitted::Post(session, None)) if Arc::ptr_eq(&session, &self.common) => {
                self.post(socket, &request, &session).await;
            }
            Ok(Admitted::Post(session, given)) => self.post_in_session(socket, &request, &session, given).await,
            Ok(Admitted::Resume(session, place, shown)) => self.resume(socket, &request, &session, place, shown).await,
        }
    }

    /// What a request is let in for, or what is said in place of an answer.
    fn admit(&self, request: &Request) -> Result<Admitted, Head> {
        if let Some(status) = self.house.refuses(|name| request.headers.get(name).cloned()) {
            return Err(Head::new(status));
        }
        let stateless = self.house.script.version.is_stateless();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.method.as_str(), request.header("mcp-session-id")) {
            ("POST", _) => {}
            ("DELETE", None) if !stateless => return Err(Head::new(400)),
            ("DELETE", Some(id)) if !stateless => {
                return Err(Head::new(if sessions.remove(id).is_some() { 200 } else { 404 }));
            }
            ("GET", Some(id)) if !stateless && request.header("last-event-id").is_some() => {
                let session = sessions.get(id).ok_or_else(|| Head::new(404))?;
                let shown = request.header("last-event-id").unwrap_or_default().to_owned();
                let place = session.streams.find(&shown).filter(|_| self.house.script.event_ids);
                let place = place.ok_or_else(|| Head::new(400))?;
                return Ok(Admitted::Resume(Arc::clone(session), place, shown));
            }
            _ => return Err(Head::new(405).with("Allow", "POST, DELETE")),
        }
        request.check_types()?;
        if stateless {
            request.check_mirrors()?;
            return Ok(Admitted::Post(Arc::clone(&self.common), None));
        }
        if request.header("mcp-protocol-version").is_some_and(|version| Version::parse(version).is_none()) {
            return Err(Head::new(400));
        }
        match request.header("mcp-session-id") {
            Some(id) => {
                let session = sessions.get(id).ok_or_else(|| Head::new(404))?;
                Ok(Admitted::Post(Arc::clone(session), None))
            }
            None if request.message()["method"] == "initialize" => {
                let session = Session::new(&self.house);
                let number = session.desk.lock().unwrap_or_else(PoisonError::into_inner).session;
                let id = (self.house.script.session_ids)(number);
                sessions.insert(id.clone(), Arc::clone(&session));
                Ok(Admitted::Post(session, Some(("Mcp-Session-Id".to_owned(), id))))
            }
            None => Err(Head::new(400)),
        }
    }

    /// A message of the era of sessions. Its stream outlives the connection.
    async fn post_in_session(
        &self,
        mut socket: TcpStream,
        request: &Request,
        session: &Session,
        given: Option<Header>,
    ) {
        let said = session.turn(&self.house, &request.body);
        let head = |status: u16| Head { headers: given.iter().cloned().collect(), ..Head::new(status) };
        let Some(id) = request.awaited() else {
            let status = if said.is_empty() { 202 } else { 400 };
            return self.say(&mut socket, request, head(status).body(said.join("\n"))).await;
        };
        let ids = self.house.script.event_ids;
        let primes = ids && session.desk.lock().unwrap_or_else(PoisonError::into_inner).primes_streams();
        let place = session.streams.open(&request.body, id, primes, said);
        if self.begin_stream(&mut socket, request, head(200)).await.is_ok() {
            session.streams.serve(socket, place, ids, None, self.house.script.tamper_events.as_ref()).await;
        }
    }

    /// The rest of a stream that broke off, for who shows the id of the last event it heard.
    async fn resume(&self, mut socket: TcpStream, request: &Request, session: &Session, place: Place, shown: String) {
        self.house.resumed.lock().unwrap_or_else(PoisonError::into_inner).push(shown.clone());
        if self.begin_stream(&mut socket, request, Head::new(200)).await.is_ok() {
            session.streams.serve(socket, place, true, Some(shown), self.house.script.tamper_events.as_ref()).await;
        }
    }

    async fn begin_stream(&self, socket: &mut TcpStream, request: &Request, head: Head) -> std::io::Result<()> {
        let head = head.with("Content-Type", "text/event-stream").with("X-Accel-Buffering", "no");
        let head = self.changed(request, Head { streams: true, ..head });
        socket.write_all(head.text().as_bytes()).await
    }

    /// A message of the era without sessions.
    async fn post(&self, mut socket: TcpStream, request: &Request, session: &Session) {
        let mut replies = session.replies.subscribe();
        let (body, inside) = session.rename(&request.message(), &request.body);
        let said = session.turn(&self.house, &body);
        let outside = request.awaited();
        let due = Due { inside: inside.map(Value::String).or_else(|| outside.clone()), outside };
        if due.inside.is_none() {
            let status = if said.is_empty() { 202 } else { 400 };
            return self.say(&mut socket, request, Head::new(status).body(said.join("\n"))).await;
        }
        if let [only] = &said[..]
            && due.is_own(only)
        {
            return self.say(&mut socket, request, Head::new(status_of(only)).body(due.shown(only))).await;
        }
        if self.begin_stream(&mut socket, request, Head::new(200)).await.is_err() {
            return;
        }
        let (own, others): (Vec<_>, Vec<_>) = said.into_iter().partition(|text| due.is_own(text));
        for text in others {
            let for_somebody = serde_json::from_str::<Value>(&text).is_ok_and(|said| said.get("method").is_none());
            if for_somebody || (stream_of(&text).is_some() && !due.is_told(&text)) {
                let _ = session.replies.send(text);
            } else if event(&mut socket, &due.shown(&text)).await.is_err() {
                return;
            }
        }
        let own = if own.is_empty() { due.wait(&mut socket, &mut replies).await } else { Some(own) };
        for text in own.iter().flatten() {
            let _ = event(&mut socket, &due.shown(text)).await;
        }
        if own.is_none() {
            // In this era to close the stream is to cancel what it is for.
            let cancels =
                json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": due.inside}});
            session.turn(&self.house, &cancels.to_string());
        }
        let _ = socket.shutdown().await;
    }

    /// What a script makes of the head of an answer.
    fn changed(&self, request: &Request, head: Head) -> Head {
        let Some(tamper) = &self.house.script.tamper_http else { return head };
        let Head { status, headers, body, streams } = head;
        let (method, asked, text) = (request.method.clone(), request.headers.clone(), request.body.clone());
        let mut turn = HttpTurn { method, asked, text, status, headers, body };
        tamper(&mut turn);
        Head { status: turn.status, headers: turn.headers, body: turn.body, streams }
    }

    async fn say(&self, socket: &mut TcpStream, request: &Request, head: Head) {
        let head = self.changed(request, head);
        let _ = socket.write_all(head.text().as_bytes()).await;
        let _ = socket.shutdown().await;
    }
}

/// The status that goes with a single reply of the stateless era.
fn status_of(reply: &str) -> u16 {
    let code = serde_json::from_str::<Value>(reply).ok().and_then(|said| said["error"]["code"].as_i64());
    match code {
        None => 200,
        Some(METHOD_NOT_FOUND) => 404,
        Some(_) => 400,
    }
}

/// The stream that a notification is told on.
fn stream_of(text: &str) -> Option<Value> {
    let said: Value = serde_json::from_str(text).ok()?;
    said["params"]["_meta"].get(meta_key("subscriptionId")).cloned()
}

/// The reply that a POST waits for, if it waits for one: under the id inside the house, and under its client's.
struct Due {
    inside: Option<Value>,
    outside: Option<Value>,
}

impl Due {
    fn is_own(&self, text: &str) -> bool {
        let said: Value = serde_json::from_str(text).unwrap_or_default();
        said.get("method").is_none() && said.get("id") == self.inside.as_ref()
    }

    /// What a stream opted for is told on that stream, under its id.
    fn is_told(&self, text: &str) -> bool {
        stream_of(text).is_some_and(|stream| Some(&stream) == self.inside.as_ref())
    }

    /// A message as its client knows it.
    fn shown(&self, text: &str) -> String {
        let (Some(inside), Some(outside)) = (&self.inside, &self.outside) else { return text.to_owned() };
        match inside == outside {
            true => text.to_owned(),
            false => text.replace(&inside.to_string(), &outside.to_string()),
        }
    }

    /// The reply when it comes, and on the way what this stream is told; `None` when the client is gone.
    async fn wait(&self, socket: &mut TcpStream, replies: &mut broadcast::Receiver<String>) -> Option<Vec<String>> {
        let mut nothing = [0; 1];
        loop {
            tokio::select! {
                gone = socket.read(&mut nothing) => if matches!(gone, Ok(0) | Err(_)) { return None },
                text = replies.recv() => match text {
                    Ok(text) if self.is_own(&text) => return Some(vec![text]),
                    Ok(text) if self.is_told(&text) => event(socket, &self.shown(&text)).await.ok()?,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

impl Session {
    /// The message under a name of its own, and that name; a cancellation names the request that is meant.
    fn rename(&self, message: &Value, text: &str) -> (String, Option<String>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = message.clone();
        if let Some(name) = message.pointer("/params/requestId").and_then(|id| names.get(&id.to_string())) {
            message["params"]["requestId"] = Value::from(name.as_str());
            return (message.to_string(), None);
        }
        match message.get("id") {
            Some(id) if (id.is_string() || id.is_i64() || id.is_u64()) && message.get("method").is_some() => {
                let name = format!("post-{:016x}", unguessable());
                names.insert(id.to_string(), name.clone());
                message["id"] = Value::from(name.as_str());
                (message.to_string(), Some(name))
            }
            _ => (text.to_owned(), None),
        }
    }

    fn turn(&self, house: &House, text: &str) -> Vec<String> {
        house.turn(&mut self.desk.lock().unwrap_or_else(PoisonError::into_inner), text).0
    }

    fn new(house: &House) -> Arc<Self> {
        let (replies, _) = broadcast::channel(1024);
        Arc::new(Self { desk: Mutex::new(house.open()), names: Mutex::default(), replies, streams: Streams::new() })
    }
}

async fn event(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    socket.write_all(format!("event: message\ndata: {text}\n\n").as_bytes()).await
}

async fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if bytes.len() > LARGEST || socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let method = lines.next()?.split(' ').next()?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if length > LARGEST || socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&bytes[end..end + length]).into_owned();
    Some(Request { method, headers, body })
}
