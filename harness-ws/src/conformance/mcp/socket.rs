//! WebSocket under MCP: the handshake, fragments, what is no text, what is too large, coming again.
//!
//! WebSocket is no official transport of MCP, so that these rules are those of RFC 6455 and of the profile.

use std::time::{Duration, Instant};

use harness_core::ErrorKind;
use harness_core::client::Http;
use harness_core::wait::seconds;
use serde_json::{Value, json};

use super::transport::ends;
use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::conformance::WelcomeFrame;
use crate::jsonrpc::is_reply;
use crate::mcp::{Idle, Mcp, Role, SecondSocket, Target, brief, handshake};
use crate::ws::codec::{Frame, Heard};
use crate::ws::{Connect, End, Refusal, Wire};

checks! {
    "W02" Both Must "basic/transports#custom-transports" "WebSocket: no subprotocol is agreed to that was not offered" Greeted Need::Nothing => subprotocols;
    "W03" Both Must "basic/transports#custom-transports" "WebSocket: a message in fragments is put together, cut within a letter too" Greeted Need::Nothing => fragments;
    "W04" Both Must "basic/transports#custom-transports" "WebSocket: two messages in one segment are both answered" Greeted Need::Nothing => one_segment;
    "W05" Both Should "basic/transports#custom-transports" "WebSocket: a binary message is answered or refused by a close frame, not dropped with TCP" Greeted Need::Nothing => binary;
    "W06" Both Should "basic/transports#security-warning" "WebSocket: a foreign Origin is refused" Greeted Need::Nothing => origin;
    "W07" Both Must "basic/transports#custom-transports" "WebSocket: a GET without an upgrade gives a 4xx" Greeted Need::Nothing => plain_get;
    "W08" Both Must "basic/transports#custom-transports" "WebSocket: a message over the limit of the profile is refused by close 1009" Greeted Need::Nothing => oversized;
    "W09" Sessions Must "basic/lifecycle#shutdown" "WebSocket: who comes again has a new session with nothing of the old one" Greeted Need::Nothing => again;
    "W10" Both Should "basic/transports#custom-transports" "WebSocket: an idle connection is pinged, or left by a close frame, as the profile says" Greeted Need::Nothing => idle;
    "W11" Sessions Must "basic/transports#custom-transports" "WebSocket: a second socket of a session is refused, takes over or shares, as the profile says" Greeted Need::Nothing => second_socket;
}

/// The handshake of this target without a subprotocol, or why there is none.
fn connect(cx: &Cx) -> Result<Connect, Miss> {
    match &cx.target {
        Target::Ws { url, headers } => Ok(handshake(url, headers, cx.limit)),
        _ => Err(elsewhere()),
    }
}

fn elsewhere() -> Miss {
    Miss::Elsewhere("this transport is not WebSocket".to_owned())
}

/// The handshake as the profile has it.
fn proper(cx: &Cx) -> Result<Connect, Miss> {
    Ok(match &cx.profile.subprotocol {
        Some(name) => connect(cx)?.subprotocol(name),
        None => connect(cx)?,
    })
}

/// A connection of frames on which the greeting is done.
async fn wire(cx: &mut Cx) -> Result<Wire, Miss> {
    let mut wire = proper(cx)?.connect_wire().await?;
    if cx.profile.welcome == WelcomeFrame::Required {
        wire.hear().await?;
    }
    if !cx.profile.version().is_stateless() {
        let (method, params) = cx.a.greeting();
        let greeting = cx.a.request(&json!("greeting"), method, params);
        wire.send_text(&greeting.to_string()).await?;
        reply(&mut wire, "greeting", cx).await?;
        wire.send_text(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string()).await?;
    }
    Ok(wire)
}

/// A request that always gives a result.
fn known(cx: &Cx, id: &str) -> String {
    let method = if cx.profile.version().is_stateless() { "server/discover" } else { "ping" };
    cx.a.request(&json!(id), method, Value::Null).to_string()
}

/// The reply of this id; what else comes is passed over.
async fn reply(wire: &mut Wire, id: &str, cx: &Cx) -> Result<Value, Miss> {
    let deadline = Instant::now() + cx.limit;
    loop {
        let heard = wire.hear_within(deadline.saturating_duration_since(Instant::now())).await?;
        let Heard::Text(text) = heard else { continue };
        let message: Value = serde_json::from_str(&text).unwrap_or_default();
        if is_reply(&message) && message["id"] == id {
            return Ok(message);
        }
    }
}

async fn subprotocols(cx: &mut Cx) -> Judged {
    // The client gives up a handshake that agrees to what it did not offer.
    connect(cx)?.connect().await?;
    match connect(cx)?.subprotocol("x-nobody-speaks-this").connect().await {
        Ok(_) => Ok("none offered, an unknown one offered".to_owned()),
        Err(error) => match Refusal::of(&error) {
            Some(refusal) if (400..500).contains(&refusal.status) => {
                Ok("none offered; an unknown one refused".to_owned())
            }
            _ => broken!("with an unknown subprotocol offered: {error}"),
        },
    }
}

async fn fragments(cx: &mut Cx) -> Judged {
    let mut wire = wire(cx).await?;
    let id = "fragments-é-\u{1f600}";
    let text = known(cx, id).into_bytes();
    let first = text.iter().position(|octet| !octet.is_ascii()).unwrap_or(1);
    let letters = 2 + 4 + 1; // the letters that take several octets, and what stands between
    let mut cuts: Vec<_> = (first..first + letters + 1).collect();
    cuts.push(text.len());
    let mut from = 0;
    for (n, to) in cuts.iter().copied().enumerate() {
        let piece = text[from..to].to_vec();
        let frame = if n == 0 { Frame::text(piece) } else { Frame::continuation(piece) };
        let frame = if to < text.len() { frame.unfinished() } else { frame };
        let key = wire.key().unwrap_or_default();
        wire.send_frame(&frame.masked(key)).await?;
        from = to;
    }
    let reply = reply(&mut wire, id, cx).await?;
    match reply.get("result") {
        Some(_) => Ok(format!("{} fragments", cuts.len())),
        None => broken!("it was answered by {}", brief(&reply)),
    }
}

async fn one_segment(cx: &mut Cx) -> Judged {
    let mut wire = wire(cx).await?;
    for id in ["first", "second"] {
        wire.put_text(&known(cx, id));
    }
    wire.flush().await?;
    let replies = (reply(&mut wire, "first", cx).await, reply(&mut wire, "second", cx).await);
    match replies {
        (Ok(first), Ok(second)) if first.get("result").is_some() && second.get("result").is_some() => {
            Ok("2 requests".to_owned())
        }
        _ => broken!("not both were answered by a result"),
    }
}

async fn binary(cx: &mut Cx) -> Judged {
    let mut wire = wire(cx).await?;
    wire.send_binary(known(cx, "binary").as_bytes()).await?;
    wire.send_text(&known(cx, "behind")).await?;
    let deadline = Instant::now() + cx.limit;
    loop {
        match wire.hear_within(deadline.saturating_duration_since(Instant::now())).await {
            Ok(Heard::Close { code, .. }) => return Ok(format!("closed with {}", code.unwrap_or(1005))),
            Ok(Heard::Text(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                if is_reply(&message) && (message["id"] == "binary" || message["id"] == "behind") {
                    return Ok("answered, or passed over".to_owned());
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Timeout => broken!("after it nothing is answered any more"),
            Err(error) => match End::of(&error) {
                Some(end) => broken!("{end}"),
                None => return Err(error.into()),
            },
        }
    }
}

async fn origin(cx: &mut Cx) -> Judged {
    match proper(cx)?.header("Origin", "http://evil.example").connect().await {
        Ok(_) => broken!("a page of http://evil.example may connect"),
        Err(error) => match Refusal::of(&error) {
            Some(refusal) if (400..500).contains(&refusal.status) => Ok(format!("status {}", refusal.status)),
            _ => Err(error.into()),
        },
    }
}

async fn plain_get(cx: &mut Cx) -> Judged {
    let Target::Ws { url, headers } = &cx.target else { return Err(elsewhere()) };
    let address = url.strip_prefix("ws://").unwrap_or_default();
    let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let http =
        headers.iter().fold(Http::new(format!("http://{host}"))?, |http, (name, value)| http.header(name, value));
    match http.get(path).await?.status() {
        status @ 400..500 => Ok(format!("status {status}")),
        status => broken!("status {status}"),
    }
}

async fn oversized(cx: &mut Cx) -> Judged {
    let Some(largest) = cx.profile.largest_message else {
        return Err(Miss::Elsewhere("the profile names no largest message".to_owned()));
    };
    let mut wire = wire(cx).await?;
    let request = known(cx, "large");
    let padded = |octets: usize| format!("{request}{}", " ".repeat(octets.saturating_sub(request.len())));
    wire.send_text(&padded(largest)).await?;
    if let Err(Miss::Broken(why)) = reply(&mut wire, "large", cx).await {
        broken!("a message of {largest} octets was not answered: {why}");
    }
    // The server may leave while this is still on its way.
    let _ = wire.send_text(&padded(largest + 1)).await;
    match wire.hear_end().await? {
        End::Close { code: 1009, .. } => Ok(format!("{largest} octets and one more")),
        end => broken!("one octet more: {end}"),
    }
}

async fn again(cx: &mut Cx) -> Judged {
    if !matches!(cx.target, Target::Ws { .. }) {
        return Err(elsewhere());
    }
    let before = cx.a.session_id();
    let remembers = cx.has_tool(Role::Remember) && cx.has_tool(Role::Recall);
    if remembers {
        cx.play(Role::Remember, "again", "canary-of-before").await?;
    }
    if before.is_none() && !remembers {
        return Err(Miss::Elsewhere("the server names no sessions and has no tool that remembers".to_owned()));
    }
    cx.afresh().await?; // the old connection is gone with its conversation
    if before.is_some() && cx.a.session_id() == before {
        broken!("the session is {before:?} again");
    }
    let stray = cx.a.fence().await?;
    if let Some(message) = stray.iter().find(|message| message.to_string().contains("canary-of-before")) {
        broken!("what belongs to the old session came: {}", brief(message));
    }
    if remembers && text_of(&cx.play(Role::Recall, "again", "").await?).contains("canary-of-before") {
        // Sessions that share what they keep while both are open are the defect of another check.
        cx.play(Role::Remember, "beside", "canary-of-now").await?;
        if text_of(&cx.recalled_elsewhere("beside").await?).contains("canary-of-now") {
            return Err(Miss::Unknown("sessions share what they keep while both are open".to_owned()));
        }
        broken!("the new session knows what the old one kept");
    }
    Ok("1 connection after another".to_owned())
}

/// What a connection on which nothing is said comes to: a ping or its end, and when.
async fn first_sign(wire: &mut Wire, patience: Duration) -> Result<(Result<(), End>, Duration), Miss> {
    let begun = Instant::now();
    loop {
        match wire.hear_within(patience.saturating_sub(begun.elapsed())).await {
            Ok(Heard::Ping(_)) => return Ok((Ok(()), begun.elapsed())),
            Ok(Heard::Close { code, reason }) => {
                let end = End::Close { code: code.unwrap_or(1005), reason };
                return Ok((Err(end), begun.elapsed()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Timeout => {
                broken!("neither a ping nor a close frame came within {}", seconds(begun.elapsed()));
            }
            Err(error) => match End::of(&error) {
                Some(end) => return Ok((Err(end.clone()), begun.elapsed())),
                None => return Err(error.into()),
            },
        }
    }
}

async fn idle(cx: &mut Cx) -> Judged {
    let Some(rule) = cx.profile.idle else {
        return Err(Miss::Elsewhere("the profile says nothing of an idle connection".to_owned()));
    };
    let mut wire = wire(cx).await?;
    let (Idle::Pinged(after) | Idle::Closed(after)) = rule;
    let (sign, took) = first_sign(&mut wire, after + cx.limit).await?;
    match (rule, sign) {
        (Idle::Pinged(_), Ok(())) => {
            wire.send_text(&known(cx, "after-the-ping")).await?;
            reply(&mut wire, "after-the-ping", cx).await?;
            Ok(format!("a ping after {}", seconds(took)))
        }
        // The server began to wait a little earlier than this side.
        (Idle::Closed(_), Err(End::Close { code, .. })) if took >= after.mul_f64(0.9) => {
            Ok(format!("closed with {code} after {}", seconds(took)))
        }
        (Idle::Closed(_), Ok(())) => broken!("a ping came after {} in place of the close frame", seconds(took)),
        (_, Err(end)) => broken!("the connection ended after {}: {end}", seconds(took)),
    }
}

/// A second socket of this check's session; `None` when it is refused.
async fn joined(cx: &Cx, header: &str, session: &str) -> Result<Option<Mcp>, Miss> {
    let target = cx.target.clone().header(header, session);
    let mut second = match Mcp::open(&target, &cx.profile, cx.limit).await {
        Ok(second) => second,
        Err(error) => {
            let refused = ends(&error).any(|end| match end {
                End::HandshakeRejected(refusal) => (400..500).contains(&refusal.status),
                End::Close { .. } => true,
                _ => false,
            });
            return if refused { Ok(None) } else { Err(error.into()) };
        }
    };
    if second.session_id().as_deref() != Some(session) {
        broken!("the second socket was let into another session: {:?}", second.session_id());
    }
    second.fence().await?;
    Ok(Some(second))
}

async fn second_socket(cx: &mut Cx) -> Judged {
    if !matches!(cx.target, Target::Ws { .. }) {
        return Err(elsewhere());
    }
    let Some((header, rule)) = cx.profile.second_socket.clone() else {
        return Err(Miss::Elsewhere("the profile says nothing of a second socket".to_owned()));
    };
    let Some(session) = cx.a.session_id() else {
        return Err(Miss::Unknown("the server names no session: the profile has to require a welcome".to_owned()));
    };
    let remembers = cx.has_tool(Role::Remember) && cx.has_tool(Role::Recall);
    if remembers {
        cx.play(Role::Remember, "second", "canary-of-both").await?;
    }
    let second = joined(cx, &header, &session).await?;
    if rule == SecondSocket::TakesOver && second.is_some() {
        let Some(first) = cx.a.channel.ws() else { return Err(elsewhere()) };
        match first.expect_end().await {
            Ok(End::Close { .. }) => {}
            Ok(end) => broken!("the first socket was not left by a close frame: {end}"),
            Err(error) => broken!("the first socket is still there beside the second one: {error}"),
        }
    } else if let Err(error) = cx.a.fence().await {
        broken!("the first socket ended when a second one came: {error}");
    }
    let mut second = match (rule, second) {
        (SecondSocket::Refused, None) => return Ok("1 socket refused".to_owned()),
        (SecondSocket::Refused, Some(_)) => broken!("a second socket of the session was let in"),
        (_, None) => broken!("a second socket of the session was refused"),
        (_, Some(second)) => second,
    };
    if remembers {
        let call = cx.profile.role(Role::Recall, "second", "");
        let found = second.call(&call.method, call.params).await?;
        if !found.result().map(text_of).unwrap_or_default().contains("canary-of-both") {
            broken!("the second socket does not know what the session keeps: {}", brief(found.message()));
        }
    }
    Ok("2 sockets".to_owned())
}
