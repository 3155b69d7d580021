//! A JSON-RPC call and its reply, matched by id.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use harness_core::{CoreResult, ErrorKind};
use serde_json::{Value, json};

use super::Ws;
use crate::pattern::{Pattern, capture};

/// The `error` member of a reply (JSON-RPC 2.0, section 5.1).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RpcError {
    /// The code.
    pub code: i64,
    /// The message.
    pub message: String,
    /// The data, `null` if there is none.
    pub data: Value,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for RpcError {}

/// The reply to a request: a result or an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    method: String,
    message: Value,
    outcome: Result<Value, RpcError>,
    /// The conversation, kept when the outcome is an error.
    transcript: Vec<String>,
}

impl Reply {
    /// The whole message.
    #[must_use]
    pub fn message(&self) -> &Value {
        &self.message
    }

    /// The result, or the error as the server gave it.
    ///
    /// # Errors
    /// The `error` member.
    pub fn outcome(&self) -> Result<&Value, &RpcError> {
        self.outcome.as_ref()
    }

    /// The code of the error, if it is one.
    #[must_use]
    pub fn error_code(&self) -> Option<i64> {
        self.outcome.as_ref().err().map(|error| error.code)
    }

    /// The result.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with code and message when the server answered an error.
    pub fn result(self) -> CoreResult<Value> {
        let Self { method, outcome, transcript, .. } = self;
        outcome.map_err(|error| {
            harness_core::Error::new(ErrorKind::Assertion, format!("`{method}` was answered by an error"))
                .log(transcript)
                .caused_by(error)
        })
    }
}

impl Ws {
    /// Calls a JSON-RPC method under an id that this connection uses once, and waits for the reply with that id; other
    /// messages stay queued. `Value::Null` sends no `params`.
    ///
    /// # Errors
    /// As [`Ws::expect`]; [`ErrorKind::Protocol`] when the reply has both or neither of `result` and `error`.
    pub fn request(&mut self, method: impl Into<String>, params: Value) -> Request<'_> {
        Request { limit: self.limit, method: method.into(), params, ws: self }
    }
}

/// A call; awaiting it sends it and waits for the reply.
#[must_use = "a request is sent when it is awaited"]
#[derive(Debug)]
pub struct Request<'a> {
    ws: &'a mut Ws,
    method: String,
    params: Value,
    limit: Duration,
}

impl Request<'_> {
    /// Waits at most so long, in place of the connection's limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn run(self) -> CoreResult<Reply> {
        let Self { ws, method, params, limit } = self;
        let deadline = Instant::now() + limit;
        let id = ws.next_id();
        ws.send(call(id, &method, params)).await?;
        let message = ws.wait_matching(&reply_to(id), deadline, limit).await?.into_message();
        let (result, error) = (message.get("result"), message.get("error"));
        let outcome = match (result, error) {
            (Some(result), None) => Ok(result.clone()),
            (None, Some(error)) => match (error["code"].as_i64(), error["message"].as_str()) {
                (Some(code), Some(text)) => {
                    Err(RpcError { code, message: text.to_owned(), data: error["data"].clone() })
                }
                _ => {
                    return Err(ws.failure(ErrorKind::Protocol, "the reply's error lacks an integer code or a message"));
                }
            },
            _ => return Err(ws.failure(ErrorKind::Protocol, "the reply has not exactly one of result and error")),
        };
        let transcript = if outcome.is_err() { ws.transcript.lines() } else { Vec::new() };
        Ok(Reply { method, message, outcome, transcript })
    }
}

impl<'a> IntoFuture for Request<'a> {
    type Output = CoreResult<Reply>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

pub(super) fn call(id: u64, method: &str, params: Value) -> Value {
    let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
    if !params.is_null() {
        message["params"] = params;
    }
    message
}

pub(super) fn reply_to(id: u64) -> Pattern {
    Pattern::from(json!({"id": id, "method": capture::absent()}))
}
