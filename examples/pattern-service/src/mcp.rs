//! `/ws/mcp`: MCP sessions over WebSocket. The first frame is a welcome; then JSON-RPC 2.0, one message after the other.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::embed::Embedding;
use crate::error::ApiError;
use crate::execute::{ExecuteRequest, check_agent, check_query};
use crate::jsonrpc::{self, Frame, Incoming, RpcError};
use crate::plant::Plant;
use crate::{App, log};

/// Protocol versions that are spoken, newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const LARGEST_MESSAGE: usize = 1024 * 1024;
const MOST_KEYS: usize = 100;
const LARGEST_VALUE: usize = 16 * 1024;

type SessionState = HashMap<String, Value>;

struct Session {
    id: String,
    agent: String,
    state: SessionState,
    /// The protocol version that was agreed on; before that nothing but `ping` is served (MCP, lifecycle).
    agreed: Option<&'static str>,
}

/// Checks the agent and upgrades.
pub(crate) async fn upgrade(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let ignores_agent = app.config.plants.on(Plant::IgnoresAgentId);
    let agent = if ignores_agent { Ok("anonymous".to_owned()) } else { agent_id(uri.query().unwrap_or_default()) };
    let agent = match agent {
        Ok(agent) => agent,
        Err(error) => return error.into_response(),
    };
    if is_foreign(&headers) {
        return ApiError::refused(StatusCode::FORBIDDEN, "a page of another origin may not connect").into_response();
    }
    match upgrade {
        Ok(upgrade) => upgrade
            // What is a little too large is read, so that it can be refused by a close frame and not by a broken line.
            .max_message_size(2 * LARGEST_MESSAGE)
            .max_frame_size(2 * LARGEST_MESSAGE)
            .on_upgrade(move |socket| async move { app.converse(socket, agent).await }),
        Err(rejection) => ApiError::refused(rejection.status(), rejection.body_text()).into_response(),
    }
}

/// Whether a browser sends this for a page of another host (RFC 6455, section 10.2); other clients send no origin.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text(header::HOST).unwrap_or_default();
    headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).and_then(|origin| origin.split_once("://")).is_none_or(|(_, host)| host != own)
}

/// The percent-decoded `agent_id` of a query string.
fn agent_id(query: &str) -> Result<String, ApiError> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix("agent_id="));
    let raw = raw.ok_or_else(|| ApiError::invalid("the query parameter agent_id is missing"))?;
    let agent = percent_decoded(raw).ok_or_else(|| ApiError::invalid("agent_id is not percent-encoded UTF-8"))?;
    check_agent(&agent)?;
    Ok(agent)
}

/// Decodes as HTML forms do, `+` being a blank; nothing is guessed: a broken escape or broken UTF-8 gives `None`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(bytes.next()?), char::from(bytes.next()?));
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

impl App {
    async fn converse(&self, mut socket: WebSocket, agent: String) {
        self.metrics.sessions.fetch_add(1, Relaxed);
        let repeated = self.config.plants.on(Plant::RepeatedSessionId);
        let id = if repeated { "session-1".to_owned() } else { crate::unique_id() };
        log::debug!("session {id} of {agent:?} begins");
        let mut session = Session { id, agent, state: SessionState::new(), agreed: None };
        let mut stop = self.stop.clone();
        let closing = tokio::select! {
            closing = self.talk(&mut socket, &mut session) => closing,
            _ = stop.wait_for(|stop| *stop) => Some((close_code::AWAY, "the service stops")),
        };
        if let Some((code, reason)) = closing {
            let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        }
        log::debug!("session {} ends", session.id);
        self.metrics.sessions.fetch_sub(1, Relaxed);
    }

    /// Answers until the peer leaves (`None`) or has to be sent away.
    async fn talk(&self, socket: &mut WebSocket, session: &mut Session) -> Option<(u16, &'static str)> {
        if !self.config.plants.on(Plant::NoWelcome) {
            let params = json!({"session_id": session.id, "agent_id": session.agent});
            let welcome = json!({"jsonrpc": "2.0", "method": "welcome", "params": params});
            socket.send(Message::Text(welcome.to_string().into())).await.ok()?;
        }
        loop {
            match socket.recv().await?.ok()? {
                Message::Text(text) if text.len() > LARGEST_MESSAGE => {
                    return Some((close_code::SIZE, "a message has at most 1 MiB"));
                }
                Message::Text(text) => {
                    if let Some(answer) = self.answer_frame(&text, session).await {
                        socket.send(Message::Text(answer.into())).await.ok()?;
                    }
                }
                Message::Binary(_) => return Some((close_code::UNSUPPORTED, "only text frames are understood")),
                Message::Ping(_) | Message::Pong(_) => {} // the WebSocket layer has answered
                Message::Close(_) => {}                   // answered by the next look at the socket, which then ends
            }
        }
    }

    /// The answer to a whole frame, if it needs one (JSON-RPC 2.0, section 6).
    async fn answer_frame(&self, text: &str, session: &mut Session) -> Option<String> {
        match jsonrpc::parse(text) {
            Frame::Single(message) => self.answer(message, session).await,
            Frame::Batch(messages) => {
                let mut answers = Vec::new();
                for message in messages {
                    answers.extend(self.answer(message, session).await);
                }
                (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
            }
        }
    }

    async fn answer(&self, message: Incoming, session: &mut Session) -> Option<String> {
        let plants = self.config.plants;
        match message {
            Incoming::Request { id, method, params } => {
                let outcome = self.call(&method, params, session).await;
                let id = if plants.on(Plant::WrongId) { another_id(&id) } else { id };
                Some(jsonrpc::answer(&id, outcome))
            }
            Incoming::Notification { method } => {
                log::debug!("session {}: notification {method:?}", session.id);
                plants.on(Plant::AnswersNotification).then(|| jsonrpc::answer("null", Ok(json!({}))))
            }
            Incoming::Response => None, // this service asks nothing, so nothing waits for it
            Incoming::Invalid { error, .. }
                if error.code == jsonrpc::PARSE_ERROR && plants.on(Plant::SwallowsParseError) =>
            {
                None
            }
            Incoming::Invalid { id, error } => Some(jsonrpc::answer(&id, Err(error))),
        }
    }

    async fn call(&self, method: &str, params: Value, session: &mut Session) -> Result<Value, RpcError> {
        if params.is_array() {
            return Err(RpcError::params("named parameters (an object) are expected"));
        }
        match method {
            "initialize" => session.initialize(&params),
            "ping" => Ok(json!({})),
            _ if session.agreed.is_none() => Err(RpcError::new(jsonrpc::INVALID_REQUEST, "initialize comes first")),
            "tools/list" if params.get("cursor").is_some() => {
                Err(RpcError::params("there is one page, without a cursor"))
            }
            "tools/list" => Ok(json!({"tools": tools()})),
            "tools/call" => {
                self.limit(&session.agent).map_err(|seconds| {
                    RpcError::new(jsonrpc::RATE_LIMITED, format!("too many calls; retry after {seconds} s"))
                })?;
                let mut request = self.metrics.enter("/ws/mcp tools/call".to_owned());
                let outcome = self.call_tool(params, session).await;
                request.answered(if outcome.is_ok() { 200 } else { 400 });
                outcome
            }
            other => Err(RpcError::new(jsonrpc::METHOD_NOT_FOUND, format!("there is no method {other:?}"))),
        }
    }

    /// Faults of the call are JSON-RPC errors; faults of the tool's work are results with `isError` (MCP, tools).
    async fn call_tool(&self, params: Value, session: &mut Session) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Call {
            name: String,
            #[serde(default)]
            arguments: Option<Value>,
        }
        let call: Call = arguments(params)?;
        let given = call.arguments.unwrap_or_else(|| json!({}));
        let outcome = match call.name.as_str() {
            "execute_pattern" => self.tool_execute(arguments(given)?, session).await,
            "search" => self.tool_search(arguments(given)?).await,
            "session_set" => Ok(self.session_set(arguments(given)?, session)?),
            "session_get" => Ok(self.session_get(&arguments(given)?, session)),
            other => return Err(RpcError::params(format!("there is no tool {other:?}"))),
        };
        let (structured, is_error) = match outcome {
            Ok(value) => (value, false),
            Err(error) if error.kind == "invalid_request" => return Err(RpcError::params(error.message)),
            Err(error) => (error.body(), true),
        };
        let content = json!([{"type": "text", "text": structured.to_string()}]);
        Ok(json!({"content": content, "structuredContent": structured, "isError": is_error}))
    }

    async fn tool_execute(&self, arguments: Query, session: &Session) -> Result<Value, ApiError> {
        let request = ExecuteRequest { query: arguments.query, agent_id: session.agent.clone() };
        let (response, _) = self.execute(&request).await?;
        serde_json::to_value(response).map_err(|error| ApiError::internal(error.to_string()))
    }

    async fn tool_search(&self, arguments: Search) -> Result<Value, ApiError> {
        check_query(&arguments.query)?;
        let k = arguments.k.unwrap_or(10);
        if !(1..=100).contains(&k) {
            return Err(ApiError::invalid("k is 1 to 100"));
        }
        let rows = self.store.search(&Embedding::of(&arguments.query), k).await?;
        Ok(json!({"results": rows}))
    }

    fn session_set(&self, Set { key, value }: Set, session: &mut Session) -> Result<Value, RpcError> {
        if key.is_empty() || key.len() > 256 || value.to_string().len() > LARGEST_VALUE {
            return Err(RpcError::params("a key has 1 to 256 bytes, a value up to 16,384"));
        }
        self.with_state(session, |state| {
            if state.len() >= MOST_KEYS && !state.contains_key(&key) {
                return Err(RpcError::params(format!("a session holds up to {MOST_KEYS} keys")));
            }
            state.insert(key.clone(), value);
            Ok(json!({"key": key, "stored": true}))
        })
    }

    fn session_get(&self, Get { key }: &Get, session: &mut Session) -> Value {
        let name = if self.config.plants.on(Plant::RenamesMember) { "val" } else { "value" };
        let mut value = self.with_state(session, |state| state.get(key).cloned());
        if self.config.plants.on(Plant::EvaluatesTemplates) && value == Some(json!("{{7*7}}")) {
            value = Some(json!("49"));
        }
        json!({"key": key, name: value})
    }

    fn with_state<T>(&self, session: &mut Session, work: impl FnOnce(&mut SessionState) -> T) -> T {
        if self.config.plants.on(Plant::SharedSessionState) {
            return work(&mut self.shared_state.lock().unwrap_or_else(PoisonError::into_inner));
        }
        work(&mut session.state)
    }
}

#[derive(Deserialize)]
struct Query {
    query: String,
}

#[derive(Deserialize)]
struct Search {
    query: String,
    k: Option<i64>,
}

#[derive(Deserialize)]
struct Set {
    key: String,
    value: Value,
}

#[derive(Deserialize)]
struct Get {
    key: String,
}

fn arguments<T: DeserializeOwned>(value: Value) -> Result<T, RpcError> {
    if !value.is_object() {
        return Err(RpcError::params("named parameters (an object) are expected"));
    }
    serde_json::from_value(value).map_err(|error| RpcError::params(error.to_string()))
}

impl Session {
    /// Agrees on a version, once (MCP, lifecycle, initialization).
    fn initialize(&mut self, params: &Value) -> Result<Value, RpcError> {
        if self.agreed.is_some() {
            return Err(RpcError::new(jsonrpc::INVALID_REQUEST, "the session has begun already"));
        }
        let asked = params["protocolVersion"].as_str().ok_or_else(|| RpcError::params("protocolVersion is missing"))?;
        if !params["capabilities"].is_object() {
            return Err(RpcError::params("capabilities is missing or no object"));
        }
        if !params["clientInfo"]["name"].is_string() || !params["clientInfo"]["version"].is_string() {
            return Err(RpcError::params("clientInfo needs a name and a version"));
        }
        let version = *VERSIONS.iter().find(|version| **version == asked).unwrap_or(&VERSIONS[0]);
        self.agreed = Some(version);
        Ok(json!({
            "protocolVersion": version,
            "capabilities": {"tools": {"listChanged": false}},
            "serverInfo": {"name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")},
        }))
    }
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        let schema = json!({"type": "object", "properties": properties, "required": required});
        json!({"name": name, "description": description, "inputSchema": schema})
    };
    let query = json!({"type": "string", "minLength": 1, "maxLength": 4000});
    let k = json!({"type": "integer", "minimum": 1, "maximum": 100});
    let key = json!({"type": "string", "minLength": 1, "maxLength": 256});
    json!([
        tool("execute_pattern", "Answers a query by a pattern or the model", json!({"query": query}), &["query"]),
        tool("search", "Finds the nearest pattern phrases", json!({"query": query, "k": k}), &["query"]),
        tool("session_set", "Keeps a value for this session", json!({"key": key, "value": {}}), &["key", "value"]),
        tool("session_get", "Reads a value of this session", json!({"key": key}), &["key"]),
    ])
}

/// Planted defect: the id that a careless server would answer with.
fn another_id(id: &str) -> String {
    match (id.parse::<i64>(), id.strip_suffix('"')) {
        (Ok(number), _) => number.wrapping_add(1).to_string(),
        (Err(_), Some(text)) => format!("{text}1\""),
        (Err(_), None) => "1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_id_is_decoded_strictly() {
        assert_eq!(agent_id("agent_id=test-agent").unwrap(), "test-agent");
        assert_eq!(agent_id("x=1&agent_id=%C3%BC%20a%2Bb%26c+d").unwrap(), "ü a+b&c d");
        for query in [
            "",
            "agent_id=",
            "agent_id",
            "xagent_id=a",
            "agent_id=%",
            "agent_id=%4",
            "agent_id=%zz",
            "agent_id=%FF",
            "agent_id=%00",
        ] {
            assert!(agent_id(query).is_err(), "{query}");
        }
    }

    #[test]
    fn page_of_another_host_is_foreign_and_a_program_is_not() {
        let headers = |origin: Option<&'static str>| {
            let host = (header::HOST, "127.0.0.1:8080".parse().unwrap());
            let origin = origin.map(|origin| (header::ORIGIN, origin.parse().unwrap()));
            std::iter::once(host).chain(origin).collect::<HeaderMap>()
        };
        assert!(!is_foreign(&headers(None)) && !is_foreign(&headers(Some("http://127.0.0.1:8080"))));
        for origin in ["http://evil.example", "http://127.0.0.1:81", "null", ""] {
            assert!(is_foreign(&headers(Some(origin))), "{origin}");
        }
    }

    #[test]
    fn planted_id_always_differs() {
        for id in ["1", "-5", "\"a\"", "null", "1.5"] {
            let other = another_id(id);
            assert_ne!(other, id);
            assert!(serde_json::from_str::<Value>(&other).is_ok(), "{other}");
        }
    }

    #[test]
    fn initialize_keeps_a_known_version_offers_the_newest_for_others_and_comes_once() {
        let asks = |version: &str| json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let session = || Session { id: "s".into(), agent: "a".into(), state: SessionState::new(), agreed: None };
        for (asked, expected) in [("2025-03-26", "2025-03-26"), ("1999-01-01", VERSIONS[0])] {
            let mut session = session();
            assert_eq!(session.initialize(&asks(asked)).unwrap()["protocolVersion"], expected);
            assert_eq!(session.initialize(&asks(asked)).unwrap_err().code, jsonrpc::INVALID_REQUEST);
        }
        for missing in ["protocolVersion", "capabilities", "clientInfo"] {
            let mut params = asks(VERSIONS[0]);
            params.as_object_mut().unwrap().remove(missing);
            assert_eq!(session().initialize(&params).unwrap_err().code, jsonrpc::INVALID_PARAMS, "{missing}");
        }
        assert_eq!(session().initialize(&Value::Null).unwrap_err().code, jsonrpc::INVALID_PARAMS);
    }
}
