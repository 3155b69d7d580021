//! Test servers: scripted bytes, scripted conversations, and a small JSON-RPC server with one planted defect.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Stops its server when dropped.
pub(crate) struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A TCP server that does this with every connection.
pub(crate) async fn tcp<F>(act: impl Fn(TcpStream) -> F + Send + 'static) -> (String, Guard)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}/ws", listener.local_addr().expect("an address"));
    let accept = async move {
        let mut tasks = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            // Small replies in a row would each wait for a delayed acknowledgement otherwise.
            let _ = socket.set_nodelay(true);
            tasks.spawn(act(socket));
        }
    };
    (url, Guard(tokio::spawn(accept)))
}

/// Reads the head of a request and answers with these bytes.
pub(crate) async fn answering(bytes: &'static [u8]) -> (String, Guard) {
    tcp(move |mut socket| async move {
        read_head(&mut socket).await;
        let _ = socket.write_all(bytes).await;
    })
    .await
}

pub(crate) async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A WebSocket server that does this with every connection.
pub(crate) async fn websocket<F>(
    act: impl Fn(WebSocketStream<TcpStream>) -> F + Send + Sync + 'static,
) -> (String, Guard)
where
    F: Future<Output = ()> + Send + 'static,
{
    let act = Arc::new(act);
    tcp(move |socket| {
        let act = Arc::clone(&act);
        async move {
            if let Ok(ws) = tokio_tungstenite::accept_async(socket).await {
                act(ws).await;
            }
        }
    })
    .await
}

/// Says these texts, then answers pings and closes until the client leaves.
pub(crate) async fn saying(texts: &'static [&'static str]) -> (String, Guard) {
    websocket(move |mut ws| async move {
        for text in texts {
            let _ = ws.send(Message::text(*text)).await;
        }
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await
}

/// One defect each, named after what the server then does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// No defect: every reply is held back until a fence was answered.
    RepliesAfterTheFence,
    AnswersNothing,
    FloatId,
    StringIdToNumber,
    ZeroIdIsNone,
    NegativeIdAbs,
    LargeIdCut,
    NoVersion,
    NullErrorBesideResult,
    NullResultBesideError,
    CodeIsText,
    NoErrorMessage,
    UnknownMethodInternal,
    ErrorIdNull,
    InvalidParamsInternal,
    ParseErrorAsInvalid,
    NoIdWhereUnreadable,
    NonRequestInternal,
    AnyVersion,
    MethodCoerced,
    ScalarParams,
    ObjectId,
    CaseInsensitive,
    AnswersNotification,
    AnswersUnknownNotification,
    AnswersInvalidNotification,
    BatchLosesThird,
    NotificationBatchAnswered,
    EmptyBatchAsArray,
    InvalidBatchAsOne,
    MixedBatchRefused,
    ServesResponses,
    ClosesAfterError,
    AnswersOneTwice,
    DiesOfDepth,
    NoWelcome,
    OtherWelcome,
    WelcomeWithoutId,
    SameSessionId,
    ForgetsState,
    SharedState,
    BroadcastsReplies,
}

/// What a server shares between its sessions.
struct Shared {
    bug: Bug,
    batches: bool,
    state: Mutex<HashMap<String, Value>>,
    sessions: Mutex<u32>,
    astray: broadcast::Sender<(u32, String)>,
}

/// The JSON-RPC server: methods `ping`, `tools/call`, `set`, `get`.
pub(crate) async fn jsonrpc(bug: Bug) -> (String, Guard) {
    jsonrpc_with(bug, true).await
}

/// The same, with or without batches.
pub(crate) async fn jsonrpc_with(bug: Bug, batches: bool) -> (String, Guard) {
    let shared = Arc::new(Shared {
        bug,
        batches,
        state: Mutex::default(),
        sessions: Mutex::default(),
        astray: broadcast::channel(256).0,
    });
    websocket(move |ws| Session::talk(Arc::clone(&shared), ws)).await
}

struct Session {
    shared: Arc<Shared>,
    state: HashMap<String, Value>,
}

fn error(code: i64) -> Result<Value, i64> {
    Err(code)
}

impl Session {
    async fn talk(shared: Arc<Shared>, mut ws: WebSocketStream<TcpStream>) {
        let bug = shared.bug;
        let n = {
            let mut sessions = shared.sessions.lock().expect("not poisoned");
            *sessions += 1;
            *sessions
        };
        let mut astray = shared.astray.subscribe();
        let id = if bug == Bug::SameSessionId { "s-1".to_owned() } else { format!("s-{n}") };
        let welcome = match bug {
            Bug::NoWelcome => None,
            Bug::OtherWelcome => Some(json!({"method": "hello", "params": {"session_id": id}})),
            Bug::WelcomeWithoutId => Some(json!({"method": "welcome", "params": {"session_id": ""}})),
            _ => Some(json!({"method": "welcome", "params": {"session_id": id}})),
        };
        if let Some(welcome) = welcome {
            let _ = ws.send(Message::text(welcome.to_string())).await;
        }
        let mut session = Self { shared, state: HashMap::new() };
        let mut held = Vec::new();
        loop {
            let text = tokio::select! {
                Ok((from, text)) = astray.recv() => {
                    if from != n && ws.send(Message::text(text)).await.is_err() { return; }
                    continue;
                }
                message = ws.next() => match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(_)) => continue,
                    _ => return,
                },
            };
            if bug == Bug::DiesOfDepth && text.contains(&"[".repeat(500)) {
                return;
            }
            if let Some(answer) = session.answer(&text) {
                let late = bug == Bug::RepliesAfterTheFence;
                if late && !text.contains("\"id\":10000") {
                    held.push(answer);
                    continue;
                }
                if bug == Bug::BroadcastsReplies && text.contains("\"key.") {
                    let _ = session.shared.astray.send((n, answer.clone()));
                }
                let twice = bug == Bug::AnswersOneTwice && answer.contains("flight-9");
                for _ in 0..=u8::from(twice) {
                    if ws.send(Message::text(answer.clone())).await.is_err() {
                        return;
                    }
                }
            }
            for answer in held.drain(..) {
                let _ = ws.send(Message::text(answer)).await;
            }
            if bug == Bug::ClosesAfterError && serde_json::from_str::<Value>(&text).is_err() {
                let _ = ws.close(None).await;
                return;
            }
        }
    }

    fn bug(&self, bug: Bug) -> bool {
        self.shared.bug == bug
    }

    fn answer(&mut self, text: &str) -> Option<String> {
        let Ok(whole) = serde_json::from_str::<Value>(text) else {
            let code = if self.bug(Bug::ParseErrorAsInvalid) { -32600 } else { -32700 };
            return Some(self.unreadable(code).to_string());
        };
        match whole {
            Value::Array(_) if !self.shared.batches => Some(self.unreadable(-32600).to_string()),
            Value::Array(members) => self.answer_batch(&members).map(|answer| answer.to_string()),
            one if !one.is_object() => {
                let code = if self.bug(Bug::NonRequestInternal) { -32603 } else { -32600 };
                Some(self.unreadable(code).to_string())
            }
            one => self.answer_one(&one, true).map(|answer| answer.to_string()),
        }
    }

    fn answer_batch(&mut self, members: &[Value]) -> Option<Value> {
        if members.is_empty() {
            return Some(if self.bug(Bug::EmptyBatchAsArray) { json!([]) } else { self.unreadable(-32600) });
        }
        let wrong = members.iter().filter(|member| member.get("jsonrpc").is_none()).count();
        if (self.bug(Bug::InvalidBatchAsOne) && wrong == members.len())
            || (self.bug(Bug::MixedBatchRefused) && wrong > 0 && wrong < members.len())
        {
            return Some(self.unreadable(-32600));
        }
        let mut answers: Vec<_> = members.iter().filter_map(|member| self.answer_one(member, false)).collect();
        if self.bug(Bug::BatchLosesThird) && answers.iter().all(|answer| answer.get("result").is_some()) {
            answers.truncate(2);
        }
        (!answers.is_empty() || self.bug(Bug::NotificationBatchAnswered)).then_some(Value::Array(answers))
    }

    fn answer_one(&mut self, message: &Value, alone: bool) -> Option<Value> {
        let Some(members) = message.as_object() else { return Some(self.unreadable(-32600)) };
        let id = members.get("id").filter(|id| !(self.bug(Bug::ZeroIdIsNone) && **id == json!(0)));
        let known_id = !id.is_some_and(|id| id.is_object() || id.is_array() || id.is_boolean());
        if !known_id && !self.bug(Bug::ObjectId) {
            return Some(self.unreadable(-32600));
        }
        if self.bug(Bug::ServesResponses) && members.contains_key("result") {
            return Some(self.reply(id.unwrap_or(&Value::Null), Ok(json!({}))));
        }
        let null = Value::Null;
        let invalid = |session: &Self| Some(session.reply(id.unwrap_or(&null), error(-32600)));
        if members.get("jsonrpc") != Some(&json!("2.0"))
            && !(self.bug(Bug::AnyVersion) && members.contains_key("method"))
        {
            return invalid(self);
        }
        let upper = members.get("METHOD").filter(|_| self.bug(Bug::CaseInsensitive));
        let method = match members.get("method").or(upper) {
            Some(Value::String(method)) => method.clone(),
            _ if self.bug(Bug::MethodCoerced) => "undefined".to_owned(),
            _ => return invalid(self),
        };
        let params = members.get("params").cloned().unwrap_or_default();
        let scalar = !(params.is_object() || params.is_array() || params.is_null());
        if scalar && !self.bug(Bug::ScalarParams) {
            return invalid(self);
        }
        let outcome = self.call(&method, &params);
        let Some(id) = id else {
            let planted = match outcome {
                Ok(_) => Bug::AnswersNotification,
                Err(-32602) => Bug::AnswersInvalidNotification,
                Err(_) => Bug::AnswersUnknownNotification,
            };
            return (alone && self.bug(planted)).then(|| self.reply(&Value::Null, outcome));
        };
        (!self.bug(Bug::AnswersNothing)).then(|| self.reply(id, outcome))
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, i64> {
        let key = params["key"].as_str().unwrap_or_default().to_owned();
        match method {
            "ping" => Ok(json!({})),
            "tools/call" if params["name"].is_string() => Ok(json!({"content": []})),
            "tools/call" if self.bug(Bug::InvalidParamsInternal) => error(-32603),
            "tools/call" => error(-32602),
            "set" | "get" => {
                let shared = Arc::clone(&self.shared);
                let mut common = shared.state.lock().expect("not poisoned");
                let state = if self.bug(Bug::SharedState) { &mut *common } else { &mut self.state };
                if method == "get" {
                    return Ok(json!({"value": state.get(&key)}));
                }
                if shared.bug != Bug::ForgetsState {
                    state.insert(key, params["value"].clone());
                }
                Ok(json!({"stored": true}))
            }
            _ if self.bug(Bug::UnknownMethodInternal) => error(-32603),
            _ => error(-32601),
        }
    }

    /// An error to what has no id that can be read.
    fn unreadable(&self, code: i64) -> Value {
        let mut reply = self.reply(&Value::Null, error(code));
        if let (true, Some(members)) = (self.bug(Bug::NoIdWhereUnreadable), reply.as_object_mut()) {
            members.remove("id");
        }
        reply
    }

    fn reply(&self, id: &Value, outcome: Result<Value, i64>) -> Value {
        let number = id.as_i64();
        let id = match (self.shared.bug, number) {
            (Bug::FloatId, Some(n)) if (1..1000).contains(&n) => json!(n as f64),
            (Bug::NegativeIdAbs, Some(n)) if n < 0 => json!(-n),
            (Bug::LargeIdCut, Some(n)) if n > i64::from(i32::MAX) => json!(n & 0x7fff_ffff),
            (Bug::StringIdToNumber, None) => {
                id.as_str().and_then(|text| text.parse::<i64>().ok()).map_or_else(|| id.clone(), Value::from)
            }
            (Bug::ErrorIdNull, _) if outcome == Err(-32601) => Value::Null,
            _ => id.clone(),
        };
        let mut reply = json!({"jsonrpc": "2.0", "id": id});
        match outcome {
            Ok(result) => {
                reply["result"] = result;
                if self.bug(Bug::NullErrorBesideResult) {
                    reply["error"] = Value::Null;
                }
            }
            Err(code) => {
                let code = if self.bug(Bug::CodeIsText) { json!(code.to_string()) } else { json!(code) };
                let message = if self.bug(Bug::NoErrorMessage) { Value::Null } else { json!("planted or not") };
                reply["error"] = json!({"code": code, "message": message});
                if self.bug(Bug::NullResultBesideError) {
                    reply["result"] = Value::Null;
                }
            }
        }
        if let (true, Some(members)) = (self.bug(Bug::NoVersion), reply.as_object_mut()) {
            members.remove("jsonrpc");
        }
        reply
    }
}
