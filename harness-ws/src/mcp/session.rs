//! The session: requests matched with their replies, everything else queued, and an escape hatch to raw messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::{Value, json};

use super::channel::{Channel, Target};
use super::posts::refused_by_status;
use super::profile::{Profile, Version};
use crate::conformance::WelcomeFrame;
use crate::jsonrpc::is_reply;
use crate::ws::Ws;

/// Unread messages that are kept.
const UNREAD: usize = 4096;

/// The key of a member of `_meta` in the stateless era.
pub(crate) fn meta_key(name: &str) -> String {
    format!("io.modelcontextprotocol/{name}")
}

/// The reply to a request, judged by nobody yet.
#[derive(Debug, Clone, PartialEq)]
pub struct McpReply {
    message: Value,
}

impl McpReply {
    /// The whole message.
    #[must_use]
    pub fn message(&self) -> &Value {
        &self.message
    }

    /// The `result`, if it is one and no error.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.message.get("result").filter(|_| self.message.get("error").is_none())
    }

    /// The code of the `error`, if it is one.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        self.message.get("error")?.get("code")?.as_i64()
    }
}

/// A request that was sent and not yet answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The id as it stands on the wire.
    #[must_use]
    pub fn value(&self) -> Value {
        Value::from(self.0)
    }
}

/// What the server said about itself.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ServerFacts {
    /// The version that was agreed on.
    pub version: String,
    /// Its capabilities, an object.
    pub capabilities: Value,
    /// Its name and version.
    pub info: Value,
    /// What it tells a model about itself.
    pub instructions: Option<String>,
}

/// One conversation with an MCP server, over WebSocket, Streamable HTTP or stdio.
///
/// Every wait has a deadline (5 s unless told), and every error carries what was said. Requests of the server are
/// answered: `ping` with an empty result, others as [`Mcp::answers`] says, else with -32601.
#[derive(Debug)]
pub struct Mcp {
    pub(crate) channel: Channel,
    profile: Profile,
    limit: Duration,
    inbox: VecDeque<Value>,
    /// Messages that were no JSON objects.
    unreadable: Vec<String>,
    next_id: u64,
    server: ServerFacts,
    session: Option<String>,
    canned: BTreeMap<String, Value>,
    asked: Vec<Value>,
    /// Added to `_meta` of every request of the stateless era.
    meta: serde_json::Map<String, Value>,
}

impl Mcp {
    /// Opens a conversation and greets: `initialize` and `notifications/initialized` in the era of sessions,
    /// `server/discover` in the stateless one.
    ///
    /// # Errors
    /// As [`Ws::connect`] and [`harness_core::service::Dialogue::start`]; [`ErrorKind::Protocol`] when the greeting is
    /// answered by an error or by another version than the profile's.
    pub async fn connect(target: &Target, profile: &Profile) -> CoreResult<Self> {
        Self::connect_within(target, profile, Duration::from_secs(5)).await
    }

    /// [`Mcp::connect`] with a limit for every wait.
    ///
    /// # Errors
    /// As [`Mcp::connect`].
    pub async fn connect_within(target: &Target, profile: &Profile, limit: Duration) -> CoreResult<Self> {
        let mut mcp = Self::open(target, profile, limit).await?;
        mcp.greet().await?;
        Ok(mcp)
    }

    /// Opens a conversation and says nothing; a welcome that the profile allows is passed over when it comes.
    ///
    /// # Errors
    /// As [`Mcp::connect`] as far as opening goes.
    pub async fn open(target: &Target, profile: &Profile, limit: Duration) -> CoreResult<Self> {
        let channel = Channel::open(target, profile, limit).await?;
        let mut mcp = Self::new(channel, profile, limit);
        if profile.version().is_stateless() {
            mcp.channel.agreed(profile.version().text());
        }
        if profile.welcome == WelcomeFrame::Required {
            mcp.session = Some(mcp.welcome().await?);
        }
        Ok(mcp)
    }

    /// A conversation over a connection that is open already, and nothing said in it.
    #[must_use]
    pub fn over(ws: Ws, profile: &Profile, limit: Duration) -> Self {
        Self::new(Channel::over_ws(ws, limit), profile, limit)
    }

    fn new(channel: Channel, profile: &Profile, limit: Duration) -> Self {
        Self {
            channel,
            profile: profile.clone(),
            limit,
            inbox: VecDeque::new(),
            unreadable: Vec::new(),
            next_id: 0,
            server: ServerFacts::default(),
            session: None,
            canned: BTreeMap::new(),
            asked: Vec::new(),
            meta: serde_json::Map::new(),
        }
    }

    /// Waits for the welcome frame and gives its session id.
    async fn welcome(&mut self) -> CoreResult<String> {
        let first = self.next(Instant::now() + self.limit).await?;
        let session = first.pointer("/params/session_id").and_then(Value::as_str).filter(|id| !id.is_empty());
        match (first["method"].as_str(), session) {
            (Some("welcome"), Some(session)) => Ok(session.to_owned()),
            _ => Err(self.failure(ErrorKind::Protocol, "the first frame is not a welcome with a session id")),
        }
    }

    /// `initialize` and `notifications/initialized`, or `server/discover`.
    ///
    /// # Errors
    /// As [`Mcp::connect`].
    pub async fn greet(&mut self) -> CoreResult<&ServerFacts> {
        let wanted = self.profile.version().text();
        let (method, params) = self.greeting();
        let reply = self.call(method, params).await?;
        let Some(result) = reply.result().cloned() else {
            let what = format!("`{method}` was answered by an error: {}", reply.message["error"]);
            return Err(self.failure(ErrorKind::Protocol, &what));
        };
        let stateless = self.profile.version().is_stateless();
        let version = if stateless {
            let offered = result["supportedVersions"].as_array();
            offered.and_then(|all| all.iter().filter_map(Value::as_str).find(|offered| *offered == wanted))
        } else {
            result["protocolVersion"].as_str()
        };
        if version != Some(wanted) {
            let what = format!("the server does not agree on {wanted}: {}", super::brief(&result));
            return Err(self.failure(ErrorKind::Protocol, &what));
        }
        self.server = ServerFacts {
            version: wanted.to_owned(),
            capabilities: result["capabilities"].clone(),
            info: result["serverInfo"].clone(),
            instructions: result["instructions"].as_str().map(str::to_owned),
        };
        self.channel.agreed(wanted);
        if !stateless {
            self.notify("notifications/initialized", Value::Null).await?;
            self.channel.listen().await;
        }
        Ok(&self.server)
    }

    /// The method and parameters that greet in this era.
    pub(crate) fn greeting(&self) -> (&'static str, Value) {
        if self.profile.version().is_stateless() {
            return ("server/discover", json!({}));
        }
        ("initialize", initialize_params(self.profile.version(), &self.profile.client_capabilities))
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What the server said about itself when it was greeted.
    #[must_use]
    pub fn server(&self) -> &ServerFacts {
        &self.server
    }

    /// The session id of the welcome frame or of the HTTP header, where there is one.
    #[must_use]
    pub fn session_id(&self) -> Option<String> {
        self.session.clone().or_else(|| self.channel.http_session())
    }

    /// Answers requests of the server for this method with this result, in place of -32601.
    pub fn answers(&mut self, method: impl Into<String>, result: Value) {
        self.canned.insert(method.into(), result);
    }

    /// Requests that the server made, in order.
    #[must_use]
    pub fn asked(&self) -> &[Value] {
        &self.asked
    }

    /// How often a stream of events broke off before its reply came and was taken up again by its last event id (HTTP, era of
    /// sessions).
    #[must_use]
    pub fn resumed(&self) -> usize {
        self.channel.resumed()
    }

    /// Adds a member to `_meta` of every request from now on, such as `traceparent`.
    pub fn meta(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.meta.insert(name.into(), value.into());
    }

    /// Unread messages that are neither taken nor awaited, oldest first; they are taken out.
    pub fn take_unread(&mut self) -> Vec<Value> {
        self.inbox.drain(..).collect()
    }

    /// Messages that were no JSON objects, shortened.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// What was said, oldest first: `> ` before what was sent, `< ` before what came. Secrets are masked.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.channel.lines()
    }

    /// Sends text exactly as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] or [`ErrorKind::Exited`] when the conversation has ended.
    pub async fn send_raw(&mut self, text: impl Into<String>) -> CoreResult {
        self.channel.send(text.into()).await
    }

    /// Sends a notification; `Value::Null` sends no `params`.
    ///
    /// # Errors
    /// As [`Mcp::send_raw`].
    pub async fn notify(&mut self, method: &str, params: Value) -> CoreResult {
        let mut message = json!({"jsonrpc": "2.0", "method": method});
        if !params.is_null() {
            message["params"] = params;
        }
        self.channel.send(message.to_string()).await
    }

    /// Sends a request and does not wait for its reply.
    ///
    /// # Errors
    /// As [`Mcp::send_raw`].
    pub async fn start(&mut self, method: &str, params: Value) -> CoreResult<RequestId> {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let message = self.request(&id.value(), method, params);
        self.channel.send(message.to_string()).await?;
        Ok(id)
    }

    /// A request as this era writes it, `_meta` included.
    pub(crate) fn request(&self, id: &Value, method: &str, params: Value) -> Value {
        let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
        let mut params = params;
        let mut meta = self.meta.clone();
        if self.profile.version().is_stateless() {
            for (name, value) in stateless_meta(self.profile.version(), &self.profile.client_capabilities) {
                meta.entry(name).or_insert(value);
            }
        }
        if !meta.is_empty() {
            if params.is_null() {
                params = json!({});
            }
            if let Some(given) = params.get("_meta").and_then(Value::as_object) {
                meta.extend(given.clone());
            }
            params["_meta"] = Value::Object(meta);
        }
        if !params.is_null() {
            message["params"] = params;
        }
        message
    }

    /// Waits for the reply to a request; everything else that comes stays queued.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when none came in time, [`ErrorKind::Connect`] when the conversation ended before.
    pub async fn finish(&mut self, id: &RequestId) -> CoreResult<McpReply> {
        let limit = if id.0 == 1 { self.channel.first_limit(self.limit) } else { self.limit };
        let deadline = Instant::now() + limit;
        let wanted = id.value();
        self.until(deadline, &format!("the reply to request {wanted}"), |message| {
            is_reply(message) && message.get("id") == Some(&wanted)
        })
        .await
        .map(|message| McpReply { message })
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Mcp::start`] and [`Mcp::finish`].
    pub async fn call(&mut self, method: &str, params: Value) -> CoreResult<McpReply> {
        let id = self.start(method, params).await?;
        self.finish(&id).await
    }

    /// Waits for a message that fits; others stay queued.
    ///
    /// # Errors
    /// As [`Mcp::finish`].
    pub async fn until(&mut self, deadline: Instant, what: &str, fits: impl Fn(&Value) -> bool) -> CoreResult<Value> {
        if let Some(at) = self.inbox.iter().position(&fits) {
            return Ok(self.inbox.remove(at).unwrap_or_default());
        }
        loop {
            let message = match self.next(deadline).await {
                Ok(message) => message,
                Err(error) => {
                    let what = format!("{what} did not come");
                    return Err(self.failure(error.kind(), &what).caused_by(error));
                }
            };
            if fits(&message) {
                return Ok(message);
            }
            self.keep(message);
        }
    }

    /// Waits for a notification of this method.
    ///
    /// # Errors
    /// As [`Mcp::finish`].
    pub async fn notification(&mut self, method: &str) -> CoreResult<Value> {
        let deadline = Instant::now() + self.limit;
        self.until(deadline, &format!("the notification `{method}`"), |message| {
            message["method"] == method && message.get("id").is_none()
        })
        .await
    }

    /// The next readable message, requests of the server answered in passing.
    async fn next(&mut self, deadline: Instant) -> CoreResult<Value> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let text = self.channel.receive(left).await?;
            let message = match serde_json::from_str::<Value>(&text) {
                Ok(message) if message.is_object() || message.is_array() => message,
                _ => {
                    self.unreadable.push(text.chars().take(200).collect());
                    continue;
                }
            };
            if let (Some(method), Some(id)) = (message["method"].as_str(), message.get("id")) {
                let answer = match (self.canned.get(method), method) {
                    (Some(result), _) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                    (None, "ping") => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
                    (None, _) => {
                        let error = json!({"code": -32601, "message": "this client has no such method"});
                        json!({"jsonrpc": "2.0", "id": id, "error": error})
                    }
                };
                self.asked.push(message.clone());
                self.channel.send(answer.to_string()).await?;
                continue;
            }
            return Ok(message);
        }
    }

    /// The messages that fit: all that come until a fence is answered, and where they are fewer than so many, those that come
    /// behind it, for at most half the limit.
    ///
    /// For what has to come: a reply may overtake another (JSON-RPC 2.0 orders none), and a notification the reply to what
    /// caused it. What has to stay away is shown by a fence.
    pub(crate) async fn gather(&mut self, least: usize, fits: impl Fn(&Value) -> bool) -> CoreResult<Vec<Value>> {
        let mut fitting = self.fence().await?;
        fitting.retain(&fits);
        let deadline = Instant::now() + self.limit / 2;
        while fitting.len() < least {
            match self.until(deadline, "what has to come", &fits).await {
                Ok(message) => fitting.push(message),
                Err(error) if error.kind() == ErrorKind::Timeout => break,
                Err(error) => return Err(error),
            }
        }
        Ok(fitting)
    }

    /// The status by which alone the server refused what was sent last and awaits no reply; over HTTP only, where that is known
    /// as soon as it was sent.
    pub(crate) async fn refused_status(&mut self) -> Option<u16> {
        while self.channel.is_http() {
            match self.next(Instant::now()).await {
                Ok(message) => self.keep(message),
                Err(error) => return refused_by_status(&error),
            }
        }
        None
    }

    fn keep(&mut self, message: Value) {
        if self.inbox.len() == UNREAD {
            self.inbox.pop_front();
        }
        self.inbox.push_back(message);
    }

    /// Sends a call whose reply ends the waiting, and gives what came before it. Over HTTP a fence orders what other
    /// requests caused only as far as the server orders it.
    ///
    /// # Errors
    /// As [`Mcp::call`].
    pub async fn fence(&mut self) -> CoreResult<Vec<Value>> {
        let (method, params) = if self.profile.version().is_stateless() {
            ("server/discover", Value::Null)
        } else {
            ("ping", Value::Null)
        };
        self.call(method, params).await?;
        Ok(self.take_unread())
    }

    /// Ends the conversation; true when the server went along as its transport says.
    ///
    /// # Errors
    /// As [`Ws::close`]; for HTTP as a DELETE of the session; for a program as its shutdown.
    pub async fn close(self) -> CoreResult<bool> {
        self.channel.close().await
    }

    pub(crate) fn failure(&self, kind: ErrorKind, what: &str) -> Error {
        let what = format!(
            "{what} ({}, profile {}, limit {})",
            self.channel.shown(),
            self.profile.name(),
            seconds(self.limit)
        );
        let lines = self.lines();
        let from = lines.len().saturating_sub(20);
        Error::new(kind, what).log(lines[from..].iter().map(|line| line.chars().take(300).collect::<String>()))
    }
}

/// The parameters of `initialize`.
pub(crate) fn initialize_params(version: Version, capabilities: &Value) -> Value {
    json!({
        "protocolVersion": version.text(),
        "capabilities": capabilities,
        "clientInfo": {"name": "harness-ws", "version": env!("CARGO_PKG_VERSION")},
    })
}

/// The members of `_meta` that every request of the stateless era carries.
pub(crate) fn stateless_meta(version: Version, capabilities: &Value) -> serde_json::Map<String, Value> {
    let info = json!({"name": "harness-ws", "version": env!("CARGO_PKG_VERSION")});
    [
        (meta_key("protocolVersion"), json!(version.text())),
        (meta_key("clientInfo"), info),
        (meta_key("clientCapabilities"), capabilities.clone()),
    ]
    .into_iter()
    .collect()
}
