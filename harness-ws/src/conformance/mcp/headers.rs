//! Streamable HTTP without sessions: headers that mirror the body, statuses, streams.

use std::time::{Duration, Instant};

use harness_core::client::{Answer, Call, Http, Method, Streamed};
use harness_core::wait::{pause, seconds};
use serde_json::{Value, json};

use super::transport::over_http;
use super::{Cx, Judged, Miss, Need, broken, checks, result_of, text_of};
use crate::jsonrpc::METHOD_NOT_FOUND;
use crate::mcp::Role;

checks! {
    "T10" Stateless Must "basic/transports/streamable-http#server-validation" "HTTP: a request without Mcp-Method gives 400 and -32020" Greeted Need::Nothing => no_method;
    "T11" Stateless Must "basic/transports/streamable-http#server-validation" "HTTP: an Mcp-Method that is not the method gives 400 and -32020" Greeted Need::Nothing => other_method;
    "T12" Stateless Must "basic/transports/streamable-http#server-validation" "HTTP: a call without Mcp-Name, or with another, gives 400 and -32020" Greeted Need::Capability("tools") => other_name;
    "T13" Stateless Must "basic/transports/streamable-http#server-validation" "HTTP: an MCP-Protocol-Version that is not that of _meta gives 400 and -32020" Greeted Need::Nothing => other_version;
    "T14" Stateless Must "basic/transports/streamable-http" "HTTP: an unknown method gives 404 and -32601" Greeted Need::Nothing => unknown_method;
    "T15" Stateless Must "basic/transports/streamable-http" "HTTP: a session id and a Last-Event-ID are ignored, and no session is made" Greeted Need::Nothing => no_sessions;
    "T16" Stateless Should "basic/transports/streamable-http" "HTTP: a stream says X-Accel-Buffering: no" Greeted Need::Roles(&[Role::Hold, Role::Release]) => unbuffered;
    "T17" Stateless Must "basic/patterns/cancellation" "HTTP: who closes the stream of a request cancels it" Greeted Need::Roles(&[Role::Hold, Role::Release]) => closed_stream;
}

/// The code of a request whose headers are not what its body says.
const HEADER_MISMATCH: i64 = -32020;

/// A request of this era as it is posted, each header apart, so that one can be wrong.
struct Posted {
    http: Http,
    path: String,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

impl Posted {
    fn new(cx: &Cx, method: &str, params: Value) -> Result<Self, Miss> {
        let (http, path) = over_http(cx)?;
        let body = cx.a.request(&json!("headers"), method, params);
        let headers = vec![
            ("accept", "application/json, text/event-stream".to_owned()),
            ("mcp-protocol-version", cx.profile.version().text().to_owned()),
            ("mcp-method", method.to_owned()),
        ];
        let name = body.pointer("/params/name").and_then(Value::as_str).map(|name| ("mcp-name", name.to_owned()));
        Ok(Self { http, path, headers: headers.into_iter().chain(name).collect(), body })
    }

    /// The same with a header in place of its own; `None` leaves it out.
    fn with(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.retain(|(there, _)| *there != name);
        self.headers.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    fn call(&self) -> Call {
        let call = self.http.request(Method::POST, &self.path).json(&self.body);
        self.headers.iter().fold(call, |call, (name, value)| call.header(*name, value))
    }
}

/// The answer has to be this status with an error of this code.
fn expect_refusal(answer: &Answer, status: u16, code: i64, what: &str) -> Result<(), Miss> {
    let text = answer.text()?;
    let given = serde_json::from_str::<Value>(&text).ok().and_then(|reply| reply["error"]["code"].as_i64());
    match (answer.status(), given) {
        (came, Some(given)) if came == status && given == code => Ok(()),
        (came, _) => broken!("{what} was answered by status {came}: {text:.200}"),
    }
}

/// Posts a request once for every wrong value of a header, after the right one was served.
async fn mismatched(cx: &Cx, method: &str, params: Value, header: &'static str, wrong: &[Option<&str>]) -> Judged {
    let right = Posted::new(cx, method, params.clone())?.call().await?;
    if right.status() != 200 {
        return Err(Miss::Unknown(format!("a proper {method} was answered by status {}", right.status())));
    }
    for value in wrong {
        let answer = Posted::new(cx, method, params.clone())?.with(header, *value).call().await?;
        expect_refusal(&answer, 400, HEADER_MISMATCH, &format!("{method} with {header} {value:?}"))?;
    }
    Ok(format!("{} requests", wrong.len()))
}

async fn no_method(cx: &mut Cx) -> Judged {
    mismatched(cx, "server/discover", Value::Null, "mcp-method", &[None]).await
}

async fn other_method(cx: &mut Cx) -> Judged {
    mismatched(cx, "server/discover", Value::Null, "mcp-method", &[Some("tools/list"), Some("Server/Discover")]).await
}

async fn other_name(cx: &mut Cx) -> Judged {
    let Some(tool) = cx.facts.tools.first().and_then(|tool| tool["name"].as_str()).map(str::to_owned) else {
        return Err(Miss::Unknown("the server lists no tool".to_owned()));
    };
    let wrong = [None, Some("harness-no-such-tool")];
    mismatched(cx, "tools/call", json!({"name": tool, "arguments": {}}), "mcp-name", &wrong).await
}

async fn other_version(cx: &mut Cx) -> Judged {
    mismatched(cx, "server/discover", Value::Null, "mcp-protocol-version", &[Some("2025-11-25")]).await
}

async fn unknown_method(cx: &mut Cx) -> Judged {
    let answer = Posted::new(cx, "harness/no-such-method", Value::Null)?.call().await?;
    expect_refusal(&answer, 404, METHOD_NOT_FOUND, "an unknown method")?;
    Ok("1 request".to_owned())
}

async fn no_sessions(cx: &mut Cx) -> Judged {
    for (header, value) in [("mcp-session-id", "made-up"), ("last-event-id", "7")] {
        let answer = Posted::new(cx, "server/discover", Value::Null)?.with(header, Some(value)).call().await?;
        if answer.status() != 200 {
            broken!("with {header} it was answered by status {}", answer.status());
        }
        if let Some(id) = answer.header("mcp-session-id") {
            broken!("the session {id:?} was made");
        }
    }
    Ok("2 requests".to_owned())
}

/// A call that is not answered yet, as the stream that it opened.
async fn held(cx: &Cx, key: &str) -> Result<Streamed, Miss> {
    let call = cx.profile.role(Role::Hold, key, "");
    let answer = Posted::new(cx, &call.method, call.params)?.call().stream().await?;
    match answer.header("content-type") {
        Some(kind) if kind.starts_with("text/event-stream") => Ok(answer),
        _ => Err(Miss::Elsewhere("the server opens no stream for a request that takes long".to_owned())),
    }
}

async fn unbuffered(cx: &mut Cx) -> Judged {
    let answer = held(cx, "unbuffered").await?;
    match answer.header("x-accel-buffering") {
        Some("no") => Ok("1 stream".to_owned()),
        other => broken!("X-Accel-Buffering is {other:?}"),
    }
}

/// The server sees the end of the stream when it looks there: it gets more and more time for it, up to the limit of a wait.
async fn closed_stream(cx: &mut Cx) -> Judged {
    let begun = Instant::now();
    let (mut patience, mut tries) = (Duration::from_millis(10), 0);
    loop {
        tries += 1;
        let key = format!("closed-{tries}");
        drop(held(cx, &key).await?);
        pause(patience).await;
        let call = cx.profile.role(Role::Release, &key, "");
        let finished = text_of(&result_of(&mut cx.a, &call).await?);
        match finished.trim() {
            "0" => return Ok(format!("1 request, gone within {}", seconds(patience))),
            _ if begun.elapsed() < cx.limit / 2 => patience *= 3,
            finished => {
                broken!("{} after its stream was closed the request still finished: {finished}", seconds(patience))
            }
        }
    }
}
