//! The stub over Streamable HTTP: just enough of HTTP/1.1 to answer one request per connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use super::House;
use super::desk::Desk;
use crate::mcp::meta_key;
use crate::mcp::profile::Version;

/// The longest head and body that are read.
const LARGEST: usize = 16 << 20;

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
    /// Replies of this session, each for whoever waits for its id.
    replies: broadcast::Sender<String>,
}

struct Request {
    method: String,
    headers: HashMap<String, String>,
    body: String,
}

impl Posts {
    pub(super) fn new(house: Arc<House>) -> Self {
        let common = Session::new(&house);
        Self { house, sessions: Arc::default(), common }
    }

    pub(super) async fn serve(&self, mut socket: TcpStream) {
        let Some(request) = read(&mut socket).await else { return };
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let local = |origin: &str| origin.contains("//127.0.0.1") || origin.contains("//localhost");
        if header("origin").is_some_and(|origin| !local(origin)) {
            return say(&mut socket, "403 Forbidden", "", "").await;
        }
        let stateless = self.house.script.version.is_stateless();
        match (request.method.as_str(), header("mcp-session-id")) {
            ("POST", _) => self.post(socket, &request, stateless).await,
            ("DELETE", Some(id)) if !stateless => {
                let gone = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                let status = if gone.is_some() { "200 OK" } else { "404 Not Found" };
                say(&mut socket, status, "", "").await;
            }
            ("DELETE", None) if !stateless => say(&mut socket, "400 Bad Request", "", "").await,
            _ => say(&mut socket, "405 Method Not Allowed", "Allow: POST, DELETE\r\n", "").await,
        }
    }

    async fn post(&self, mut socket: TcpStream, request: &Request, stateless: bool) {
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let accepts = header("accept").unwrap_or_default();
        if !accepts.contains("application/json") || !accepts.contains("text/event-stream") {
            return say(&mut socket, "406 Not Acceptable", "", "").await;
        }
        if !header("content-type").unwrap_or_default().starts_with("application/json") {
            return say(&mut socket, "415 Unsupported Media Type", "", "").await;
        }
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let method = message["method"].as_str().unwrap_or_default();
        if header("mcp-protocol-version").is_some_and(|version| Version::parse(version).is_none()) {
            return say(&mut socket, "400 Bad Request", "", "").await;
        }
        let known = |id: &str| self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let mut given = String::new();
        let session = match header("mcp-session-id").filter(|_| !stateless) {
            _ if stateless => Arc::clone(&self.common),
            Some(id) => match known(id) {
                Some(session) => session,
                None => return say(&mut socket, "404 Not Found", "", "").await,
            },
            None if method == "initialize" => {
                let session = Session::new(&self.house);
                let id = format!("s-{:016x}", unguessable());
                given = format!("Mcp-Session-Id: {id}\r\n");
                self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&session));
                session
            }
            None => return say(&mut socket, "400 Bad Request", "", "").await,
        };
        let mut replies = session.replies.subscribe();
        let (body, inside) =
            if stateless { session.rename(&message, &request.body) } else { (request.body.clone(), None) };
        let (said, _) = {
            let mut desk = session.desk.lock().unwrap_or_else(PoisonError::into_inner);
            self.house.turn(&mut desk, &body)
        };
        let readable = |id: &&Value| id.is_string() || id.is_i64() || id.is_u64();
        let outside = message.get("id").filter(readable).filter(|_| message.get("method").is_some()).cloned();
        let awaited = inside.map(Value::String).or_else(|| outside.clone());
        let shown = |text: &str| restore(text, awaited.as_ref(), outside.as_ref());
        let is_own = |text: &str| {
            let said: Value = serde_json::from_str(text).unwrap_or_default();
            said.get("method").is_none() && said.get("id") == awaited.as_ref()
        };
        // What a stream opted for is told on that stream, under its id.
        let told = |text: &str| -> Option<Value> {
            let said: Value = serde_json::from_str(text).ok()?;
            said["params"]["_meta"].get(meta_key("subscriptionId")).cloned()
        };
        if awaited.is_none() {
            let accepted = said.is_empty();
            let status = if accepted { "202 Accepted" } else { "400 Bad Request" };
            return say(&mut socket, status, &given, &said.join("\n")).await;
        }
        if stateless
            && let [only] = &said[..]
            && is_own(only)
        {
            let code = serde_json::from_str::<Value>(only).ok().and_then(|said| said["error"]["code"].as_i64());
            let status = match code {
                None => "200 OK",
                Some(-32601) => "404 Not Found",
                Some(_) => "400 Bad Request",
            };
            return say(&mut socket, status, &given, &shown(only)).await;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n{given}Connection: close\r\n\r\n: here\n\n"
        );
        if socket.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let (mut own, others): (Vec<_>, Vec<_>) = said.into_iter().partition(|text| is_own(text));
        for text in others {
            let for_somebody = serde_json::from_str::<Value>(&text).is_ok_and(|said| said.get("method").is_none());
            let elsewhere = told(&text).is_some_and(|stream| Some(&stream) != awaited.as_ref());
            if for_somebody || elsewhere {
                let _ = session.replies.send(text);
            } else if event(&mut socket, &shown(&text)).await.is_err() {
                return;
            }
        }
        while own.is_empty() {
            match replies.recv().await {
                Ok(text) if is_own(&text) => own.push(text),
                Ok(text) if told(&text).is_some_and(|stream| Some(&stream) == awaited.as_ref()) => {
                    if event(&mut socket, &shown(&text)).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
        for text in own {
            let _ = event(&mut socket, &shown(&text)).await;
        }
        let _ = socket.shutdown().await;
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

    fn new(house: &House) -> Arc<Self> {
        let (replies, _) = broadcast::channel(1024);
        Arc::new(Self { desk: Mutex::new(house.open()), names: Mutex::default(), replies })
    }
}

/// A message as its client knows it: under the id that the client gave.
fn restore(text: &str, inside: Option<&Value>, outside: Option<&Value>) -> String {
    let (Some(inside), Some(outside)) = (inside, outside) else { return text.to_owned() };
    match inside == outside {
        true => text.to_owned(),
        false => text.replace(&inside.to_string(), &outside.to_string()),
    }
}

/// A number that a test cannot foresee; the stub keeps no secrets behind it.
fn unguessable() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

async fn event(socket: &mut TcpStream, text: &str) -> std::io::Result<()> {
    socket.write_all(format!("event: message\ndata: {text}\n\n").as_bytes()).await
}

async fn say(socket: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status}\r\n{kind}{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = socket.write_all(text.as_bytes()).await;
    let _ = socket.shutdown().await;
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
    let headers: HashMap<_, _> = lines
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
