//! What each transport adds: headers and status over HTTP, lines over stdio, the close of a WebSocket.

use harness_core::Error;
use harness_core::client::{Call, Http, Method};
use serde_json::{Value, json};

use super::{Cx, Judged, Miss, Need, broken, checks};
use crate::mcp::{Mcp, Target, brief};
use crate::ws::End;

checks! {
    "T01" Both Should "basic/transports" "the end of a conversation is answered as the transport says" Greeted Need::Nothing => goodbye;
    "T02" Sessions Must "basic/transports#sending-messages-to-the-server" "HTTP: a notification is accepted by 202 without a body" Greeted Need::Nothing => accepted;
    "T03" Sessions Must "basic/transports#listening-for-messages-from-the-server" "HTTP: GET gives a stream of events or 405" Greeted Need::Nothing => get;
    "T04" Both Must "basic/transports#security-warning" "HTTP: a foreign Origin gives 403" Greeted Need::Nothing => origin;
    "T05" Sessions Must "basic/transports#session-management" "HTTP: a session id is visible ASCII, and never given twice" Greeted Need::Nothing => session_ids;
    "T06" Sessions Should "basic/transports#session-management" "HTTP: a request without the session id gives 400" Greeted Need::Nothing => no_session;
    "T07" Sessions Must "basic/transports#session-management" "HTTP: a session that was ended gives 404" Greeted Need::Nothing => ended_session;
    "T08" Sessions Must "basic/transports#protocol-version-header" "HTTP: an unknown MCP-Protocol-Version gives 400" Greeted Need::Nothing => bad_version_header;
    "T09" Both Sound "basic/transports#stdio" "stdio: an empty line and CRLF do no harm" Greeted Need::Nothing => odd_lines;
    "T18" Both Must "basic/authorization" "who shows no credentials, or wrong ones, is refused" Greeted Need::Nothing => no_credentials;
}

/// The address of a server over HTTP.
pub(super) fn over_http(cx: &Cx) -> Result<(Http, String), Miss> {
    let Target::Http { url, headers } = &cx.target else {
        return Err(Miss::Elsewhere("this transport is not HTTP".to_owned()));
    };
    let at = url.get(7..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| at + 7);
    let http = headers.iter().fold(Http::new(&url[..at])?, |http, (name, value)| http.header(name, value));
    Ok((http, url[at..].to_owned()))
}

/// A POST with the headers that are always due.
pub(super) fn post(http: &Http, path: &str, session: Option<&str>, message: &Value) -> Call {
    let call = http.request(Method::POST, path).json(message).header("accept", "application/json, text/event-stream");
    match session {
        Some(session) => call.header("mcp-session-id", session),
        None => call,
    }
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": "transport", "method": "ping"})
}

async fn goodbye(cx: &mut Cx) -> Judged {
    let leaving = Mcp::connect_within(&cx.target, &cx.profile, cx.limit).await?;
    match leaving.close().await? {
        true => Ok("1 conversation".to_owned()),
        false => broken!("the server did not go along"),
    }
}

async fn accepted(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    let session = cx.a.session_id();
    let message = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let call = post(&http, &path, session.as_deref(), &message);
    let answer = call.await?;
    match (answer.status(), answer.body().len()) {
        (202, 0) => Ok("1 notification".to_owned()),
        (status, bytes) => broken!("status {status} with {bytes} bytes"),
    }
}

async fn get(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    let mut call = http.get(&path).header("accept", "text/event-stream");
    if let Some(session) = cx.a.session_id() {
        call = call.header("mcp-session-id", session);
    }
    let answer = call.stream().await?;
    let is_stream = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    match (answer.status(), is_stream) {
        // 409: the one stream that a session may have is open already, by this very session.
        (200, true) | (405 | 409, _) => Ok(format!("status {}", answer.status())),
        (status, _) => broken!("status {status}"),
    }
}

async fn origin(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    let call = post(&http, &path, cx.a.session_id().as_deref(), &ping()).header("origin", "http://evil.example");
    let answer = call.await?;
    match answer.status() {
        403 => Ok("1 origin".to_owned()),
        status => broken!("status {status}"),
    }
}

async fn session_ids(cx: &mut Cx) -> Judged {
    const SESSIONS: usize = 20;
    over_http(cx)?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..SESSIONS {
        let Some(id) = cx.second().await?.session_id() else {
            return Err(Miss::Elsewhere("the server gives no session ids".to_owned()));
        };
        if id.is_empty() || !id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            broken!("a session id is {id:?}");
        }
        if !seen.insert(id.clone()) {
            broken!("{id} was given twice");
        }
    }
    Ok(format!("{SESSIONS} sessions"))
}

async fn no_session(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    if cx.a.session_id().is_none() {
        return Err(Miss::Elsewhere("the server gives no session ids".to_owned()));
    }
    let call = post(&http, &path, None, &ping());
    match call.await?.status() {
        400 => Ok("1 request".to_owned()),
        status => broken!("status {status}"),
    }
}

async fn ended_session(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    let Some(session) = cx.a.session_id() else {
        return Err(Miss::Elsewhere("the server gives no session ids".to_owned()));
    };
    let call = http.delete(&path).header("mcp-session-id", &session);
    let ended = call.await?;
    if ended.status() == 405 {
        return Err(Miss::Elsewhere("the server lets nobody end a session".to_owned()));
    }
    let call = post(&http, &path, Some(&session), &ping());
    match call.await?.status() {
        404 => Ok("1 session".to_owned()),
        status => broken!("status {status}"),
    }
}

async fn bad_version_header(cx: &mut Cx) -> Judged {
    let (http, path) = over_http(cx)?;
    let call = post(&http, &path, cx.a.session_id().as_deref(), &ping());
    let call = call.header("mcp-protocol-version", "1999-01-01");
    match call.await?.status() {
        400 => Ok("1 header".to_owned()),
        status => broken!("status {status}"),
    }
}

async fn odd_lines(cx: &mut Cx) -> Judged {
    if !matches!(cx.target, Target::Stdio(_)) {
        return Err(Miss::Elsewhere("this transport has no lines".to_owned()));
    }
    cx.a.send_raw("").await?;
    let method = if cx.profile.version().is_stateless() { "server/discover" } else { "ping" };
    let request = cx.a.request(&json!("crlf"), method, Value::Null);
    cx.a.send_raw(format!("{request}\r")).await?;
    match cx.a.gather(1, |message| message["id"] == "crlf").await?.first() {
        Some(reply) if reply.get("result").is_some() => Ok("2 lines".to_owned()),
        other => broken!("a line with CRLF was answered by {:?}", other.map(brief)),
    }
}

/// The conversation of this check was let in with its credentials: that is the positive control.
async fn no_credentials(cx: &mut Cx) -> Judged {
    let (Target::Ws { headers, .. } | Target::Http { headers, .. }) = &cx.target else {
        return Err(Miss::Elsewhere("a program asks for no credentials".to_owned()));
    };
    let is_credential = |name: &str| name.eq_ignore_ascii_case("authorization");
    if !headers.iter().any(|(name, _)| is_credential(name)) {
        return Err(Miss::Elsewhere("the target shows no credentials".to_owned()));
    }
    let with = |change: fn(&str) -> Option<String>| {
        let mut target = cx.target.clone();
        if let Target::Ws { headers, .. } | Target::Http { headers, .. } = &mut target {
            let changed = headers.drain(..).filter_map(|(name, value)| match is_credential(&name) {
                true => change(&value).map(|value| (name, value)),
                false => Some((name, value)),
            });
            *headers = changed.collect();
        }
        target
    };
    let altered = |value: &str| Some(format!("{value}x"));
    for (what, target) in [("without credentials", with(|_| None)), ("with altered credentials", with(altered))] {
        match Mcp::connect_within(&target, &cx.profile, cx.limit).await {
            Ok(_) => broken!("a conversation {what} was begun"),
            Err(error) if refuses(&error) => {}
            Err(error) => broken!("a conversation {what} was not refused by 401, 403 or a close frame, but: {error}"),
        }
    }
    Ok("2 conversations".to_owned())
}

/// How the stream under an error ended, or that it was refused, wherever it stands among the causes.
pub(super) fn ends(error: &Error) -> impl Iterator<Item = &End> {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<End>())
}

/// Status 401 or 403, or a close frame that says so.
fn refuses(error: &Error) -> bool {
    let refused = ends(error).any(|end| match end {
        End::HandshakeRejected(refusal) => matches!(refusal.status, 401 | 403),
        End::Close { code, .. } => matches!(code, 1008 | 3000 | 3003 | 4000..=4999),
        _ => false,
    });
    // Over HTTP the status stands in the sentence.
    refused || ["status 401", "status 403"].iter().any(|status| error.to_string().contains(status))
}
