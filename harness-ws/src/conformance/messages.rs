//! Checks of single messages: ids, members, error codes, notifications, survival (JSON-RPC 2.0, sections 4 and 5).

use std::collections::BTreeMap;

use harness_core::CoreResult;
use harness_props::Outcome;
use serde_json::{Value, json};

use super::line::{Line, Verdict, short};
use super::{Check, Options, WelcomeFrame};
use crate::jsonrpc::{Call, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, code, means_id};
use crate::ws::End;

/// The check without which no other means anything.
pub(super) const BASE: &str = "J01";
/// The check of the first frame.
pub(super) const WELCOME: &str = "W01";

/// A frame that is not JSON, from the examples of section 7.
const BROKEN_JSON: &str = r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#;

macro_rules! check {
    ($id:expr, $source:literal, $rule:literal, |$options:ident, $line:ident| $run:expr) => {
        Check { id: $id, source: $source, rule: $rule, run: |$options, $line| Box::pin($run) }
    };
}
pub(super) use check;

pub(super) const CHECKS: &[Check] = &[
    check!(BASE, "JSON-RPC 2.0 §5", "a request is answered by a result", |o, l| answered(o, l)),
    check!(WELCOME, "service profile", "the first frame is a welcome with a session id", |o, l| welcome(o, l)),
    check!("J02", "JSON-RPC 2.0 §5", "a positive integer id comes back unchanged", |o, l| echo(
        o,
        l,
        vec![json!(7), json!(42)]
    )),
    check!("J03", "JSON-RPC 2.0 §5", "a string id comes back unchanged", |o, l| echo(
        o,
        l,
        vec![json!("7"), json!("a-é-ключ")]
    )),
    check!("J04", "JSON-RPC 2.0 §5", "the id 0 comes back unchanged", |o, l| echo(o, l, vec![json!(0)])),
    check!("J05", "JSON-RPC 2.0 §5", "a negative id comes back unchanged", |o, l| echo(o, l, vec![json!(-7)])),
    check!("J06", "JSON-RPC 2.0 §5", "the id 2^53-1 comes back unchanged", |o, l| echo(
        o,
        l,
        vec![json!(9_007_199_254_740_991_i64)]
    )),
    check!("J07", "JSON-RPC 2.0 §5", "every reply says jsonrpc \"2.0\"", |o, l| version(o, l)),
    check!("J08", "JSON-RPC 2.0 §5", "a result comes without an error", |o, l| exclusive(
        o.known.clone(),
        l,
        "result",
        "error"
    )),
    check!("J09", "JSON-RPC 2.0 §5", "an error comes without a result", |o, l| exclusive(
        o.unknown.clone(),
        l,
        "error",
        "result"
    )),
    check!("J10", "JSON-RPC 2.0 §5.1", "an error has an integer code and a message", |o, l| error_shape(o, l)),
    check!("J11", "JSON-RPC 2.0 §5.1", "an unknown method gives -32601", |o, l| {
        refused(l, vec![o.unknown.request(1).to_string()], &[METHOD_NOT_FOUND])
    }),
    check!("J12", "JSON-RPC 2.0 §5", "an error carries the id of its request", |o, l| error_id(o, l)),
    check!("J13", "JSON-RPC 2.0 §5.1", "invalid params give -32602", |o, l| invalid_params(o, l)),
    check!("J14", "JSON-RPC 2.0 §5.1", "text that is not JSON gives -32700", |_o, l| {
        refused(l, vec![BROKEN_JSON.into(), "[1,".into(), "{".into()], &[PARSE_ERROR])
    }),
    check!("J15", "JSON-RPC 2.0 §5", "where no id could be read, the error has id null", |o, l| null_id(o, l)),
    check!("J16", "JSON-RPC 2.0 §5.1", "JSON that is no request gives -32600", |_o, l| {
        let frames = ["1", "\"x\"", "null", "true", "{}", r#"{"foo":"boo"}"#];
        refused(l, frames.map(str::to_owned).to_vec(), &[INVALID_REQUEST])
    }),
    check!("J17", "JSON-RPC 2.0 §4", "jsonrpc other than \"2.0\" gives -32600", |o, l| {
        let versions = [json!("1.0"), json!(2.0), json!(null)];
        refused(
            l,
            versions
                .into_iter()
                .map(|version| altered(o, "jsonrpc", Some(version)))
                .chain([altered(o, "jsonrpc", None)])
                .collect(),
            &[INVALID_REQUEST],
        )
    }),
    check!("J18", "JSON-RPC 2.0 §4", "a method that is no string gives -32600", |o, l| {
        let methods = [json!(1), json!(null), json!({"a": 1})];
        refused(
            l,
            methods
                .into_iter()
                .map(|method| altered(o, "method", Some(method)))
                .chain([altered(o, "method", None)])
                .collect(),
            &[INVALID_REQUEST],
        )
    }),
    check!("J19", "JSON-RPC 2.0 §4.2", "params that are no object and no array are refused", |o, l| {
        let params = [json!("bar"), json!(7), json!(true)];
        let frames = params.into_iter().map(|params| altered(o, "params", Some(params))).collect();
        refused(l, frames, &[INVALID_REQUEST, INVALID_PARAMS])
    }),
    check!("J20", "JSON-RPC 2.0 §4", "an id that is an object, an array or a boolean is refused", |o, l| {
        let ids = [json!({}), json!([1]), json!(true)];
        refused(l, ids.into_iter().map(|id| altered(o, "id", Some(id))).collect(), &[INVALID_REQUEST])
    }),
    check!("J21", "JSON-RPC 2.0 §1.1", "names of members are case-sensitive", |o, l| {
        let method = o.known.method.clone();
        unserved(l, json!({"jsonrpc": "2.0", "id": 1, "METHOD": method}).to_string(), "METHOD in place of method")
    }),
    check!("J22", "JSON-RPC 2.0 §4.1", "a notification is never answered", |o, l| silent(l, o.known.notification())),
    check!("J23", "JSON-RPC 2.0 §4.1", "a notification of an unknown method is never answered", |o, l| {
        silent(l, o.unknown.notification())
    }),
    check!("J24", "JSON-RPC 2.0 §4.1", "a notification with invalid params is never answered", |o, l| async move {
        match &o.invalid {
            Some(call) => silent(l, call.notification()).await,
            None => Ok(Verdict::bare(Outcome::not_applicable("no call with invalid params is given"))),
        }
    }),
    check!("J30", "JSON-RPC 2.0 §5", "a response is not served as a request", |_o, l| {
        unserved(l, json!({"jsonrpc": "2.0", "id": 77, "result": {}}).to_string(), "a response")
    }),
    check!("J31", "JSON-RPC 2.0 §5.1", "the connection survives errors", |o, l| survives(o, l)),
    check!("J32", "JSON-RPC 2.0 §5", "sixteen requests in flight are answered once each", |o, l| in_flight(o, l)),
    check!("J33", "RFC 8259 §9", "JSON 10,000 deep does no harm", |o, l| deep(o, l)),
];

/// The known call with one member replaced or left out.
fn altered(options: &Options, member: &str, value: Option<Value>) -> String {
    let mut request = options.known.request(1);
    if let Some(members) = request.as_object_mut() {
        match value {
            Some(value) => members.insert(member.to_owned(), value),
            None => members.remove(member),
        };
    }
    request.to_string()
}

async fn answered(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    let heard = line.exchange(&[options.known.request(1).to_string()], 1).await;
    let outcome = match heard.first() {
        Err(why) => Outcome::fail(why),
        Ok(reply) if reply.get("result").is_none() => Outcome::fail(format!("no result: {}", short(reply))),
        Ok(_) if !heard.alive => Outcome::fail("a second call is not answered under its id"),
        Ok(_) => Outcome::pass("2 calls"),
    };
    Ok(line.verdict(outcome))
}

async fn welcome(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    if options.welcome == WelcomeFrame::Skipped {
        return Ok(Verdict::bare(Outcome::not_applicable("no welcome is required")));
    }
    let Some(ws) = line.channel.ws() else {
        return Ok(Verdict::bare(Outcome::not_applicable("only a WebSocket has a first frame")));
    };
    let outcome = match crate::sessions::welcome(ws).await {
        Ok(session) => Outcome::pass(format!("session {session}")),
        Err(error) => Outcome::fail(error.to_string()),
    };
    Ok(line.verdict(outcome))
}

async fn echo(options: &Options, mut line: Line, ids: Vec<Value>) -> CoreResult<Verdict> {
    for id in &ids {
        let heard = line.exchange(&[options.known.request(id.clone()).to_string()], 1).await;
        match heard.first() {
            Err(why) => return Ok(line.verdict(Outcome::fail(format!("id {id}: {why}")))),
            Ok(reply) if reply.get("id") != Some(id) => {
                let came = reply.get("id").map_or_else(|| "no id".to_owned(), ToString::to_string);
                return Ok(line.verdict(Outcome::fail(format!("id {id} came back as {came}"))));
            }
            Ok(_) => {}
        }
    }
    Ok(line.verdict(Outcome::pass(format!("{} ids", ids.len()))))
}

async fn version(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    for call in [&options.known, &options.unknown] {
        let heard = line.exchange(&[call.request(1).to_string()], 1).await;
        match heard.first() {
            Err(why) => return Ok(line.verdict(Outcome::no_evidence(why))),
            Ok(reply) if reply["jsonrpc"] != "2.0" => {
                return Ok(line.verdict(Outcome::fail(format!("jsonrpc is {} in {}", reply["jsonrpc"], short(reply)))));
            }
            Ok(_) => {}
        }
    }
    Ok(line.verdict(Outcome::pass("a result and an error")))
}

async fn exclusive(call: Call, mut line: Line, present: &'static str, absent: &'static str) -> CoreResult<Verdict> {
    let heard = line.exchange(&[call.request(1).to_string()], 1).await;
    let outcome = match heard.first() {
        Err(why) => Outcome::no_evidence(why),
        Ok(reply) if reply.get(present).is_none() => {
            Outcome::no_evidence(format!("no {present} came: {}", short(reply)))
        }
        Ok(reply) if reply.get(absent).is_some() => Outcome::fail(format!("both came: {}", short(reply))),
        Ok(_) => Outcome::pass("1 reply"),
    };
    Ok(line.verdict(outcome))
}

async fn error_shape(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    let heard = line.exchange(&[options.unknown.request(1).to_string()], 1).await;
    let outcome = match heard.first() {
        Err(why) => Outcome::no_evidence(why),
        Ok(reply) => match reply.get("error") {
            None => Outcome::no_evidence(format!("no error came: {}", short(reply))),
            Some(error) if !error["code"].is_i64() => Outcome::fail(format!("the code is {}", error["code"])),
            Some(error) if !error["message"].is_string() => {
                Outcome::fail(format!("the message is {}", error["message"]))
            }
            Some(_) => Outcome::pass("1 error"),
        },
    };
    Ok(line.verdict(outcome))
}

/// Every frame is answered by an error with one of these codes.
///
/// Over HTTP what is no request may be refused by its status alone: the body of such an answer may be empty (2025-11-25,
/// basic/transports#sending-messages-to-the-server).
pub(super) async fn refused(mut line: Line, frames: Vec<String>, codes: &[i64]) -> CoreResult<Verdict> {
    let is_no_request = codes.iter().any(|code| [PARSE_ERROR, INVALID_REQUEST].contains(code));
    for frame in &frames {
        let heard = line.exchange(std::slice::from_ref(frame), 1).await;
        let witness = match heard.first() {
            Err(_) if is_no_request && !heard.refused.is_empty() => None,
            Err(why) => Some(why),
            Ok(reply) if code(reply).is_some_and(|code| codes.contains(&code)) => None,
            Ok(reply) => Some(format!("answered {}", short(reply))),
        };
        if let Some(witness) = witness {
            return Ok(line.verdict(Outcome::fail(format!("{frame} should give {codes:?}: {witness}"))));
        }
        if heard.end.is_some() {
            // Surviving is another check's rule; the remaining frames need a living connection.
            return Ok(line.verdict(Outcome::pass(format!("{frame}, after which the connection ended"))));
        }
    }
    Ok(line.verdict(Outcome::pass(format!("{} frames", frames.len()))))
}

async fn error_id(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    for id in [json!(11), json!("eleven")] {
        let heard = line.exchange(&[options.unknown.request(id.clone()).to_string()], 1).await;
        match heard.first() {
            Err(why) => return Ok(line.verdict(Outcome::no_evidence(why))),
            Ok(reply) if reply.get("error").is_none() => {
                return Ok(line.verdict(Outcome::no_evidence(format!("no error came: {}", short(reply)))));
            }
            Ok(reply) if !means_id(reply, &id) => {
                return Ok(line.verdict(Outcome::fail(format!("id {id} came back in {}", short(reply)))));
            }
            Ok(_) => {}
        }
    }
    Ok(line.verdict(Outcome::pass("2 errors")))
}

async fn invalid_params(options: &Options, line: Line) -> CoreResult<Verdict> {
    match &options.invalid {
        Some(call) => refused(line, vec![call.request(1).to_string()], &[INVALID_PARAMS]).await,
        None => Ok(Verdict::bare(Outcome::not_applicable("no call with invalid params is given"))),
    }
}

async fn null_id(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    for frame in [BROKEN_JSON, "1"] {
        let heard = line.exchange(&[frame.to_owned()], 1).await;
        match heard.first() {
            Err(_) if !heard.refused.is_empty() => {
                let why = format!("{frame} was refused by status {} without an error", heard.refused[0]);
                return Ok(line.verdict(Outcome::not_applicable(why)));
            }
            Err(why) => return Ok(line.verdict(Outcome::no_evidence(format!("{frame}: {why}")))),
            Ok(reply) => match reply.get("id") {
                Some(Value::Null) => {}
                None if options.absent_id => {}
                _ => return Ok(line.verdict(Outcome::fail(format!("{frame} was answered {}", short(reply))))),
            },
        }
        if heard.end.is_some() {
            return Ok(line.verdict(Outcome::pass("1 error, after which the connection ended")));
        }
    }
    Ok(line.verdict(Outcome::pass("2 errors")))
}

/// An error or silence is right; a result is wrong.
async fn unserved(mut line: Line, frame: String, what: &'static str) -> CoreResult<Verdict> {
    let heard = line.exchange(&[frame], 0).await;
    let outcome = match heard.replies.iter().find(|reply| reply.get("result").is_some() && reply.get("error").is_none())
    {
        Some(reply) => Outcome::fail(format!("{what} was served: {}", short(reply))),
        None if heard.alive => Outcome::pass("no result before the fence"),
        None => Outcome::no_evidence("the fence was not answered"),
    };
    Ok(line.verdict(outcome))
}

async fn silent(mut line: Line, notification: Value) -> CoreResult<Verdict> {
    let heard = line.exchange(&[notification.to_string()], 0).await;
    Ok(line.verdict(heard.silence(&notification.to_string())))
}

async fn survives(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    let invalid = options.invalid.iter().map(|call| call.request(2).to_string());
    let frames = [BROKEN_JSON.to_owned(), "1".to_owned(), options.unknown.request(1).to_string()];
    let mut sent = 0;
    for frame in frames.into_iter().chain(invalid) {
        let heard = line.exchange(std::slice::from_ref(&frame), 0).await;
        if let (false, end) = (heard.alive, &heard.end) {
            let end = end.as_ref().map_or_else(|| "nothing is answered any more".to_owned(), ToString::to_string);
            return Ok(line.verdict(Outcome::fail(format!("after {frame}: {end}"))));
        }
        sent += 1;
    }
    Ok(line.verdict(Outcome::pass(format!("{sent} errors"))))
}

async fn in_flight(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    const REQUESTS: u64 = 16;
    let ids: Vec<Value> = (0..REQUESTS).map(|n| Value::from(format!("flight-{n}"))).collect();
    let frames: Vec<String> = ids.iter().map(|id| options.known.request(id.clone()).to_string()).collect();
    let mut heard = line.exchange(&frames, ids.len()).await;
    // A reply that comes twice may come late: one more fence flushes it out.
    heard.replies.extend(line.exchange(&[], 0).await.replies);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reply in &heard.replies {
        let id = reply
            .get("id")
            .map_or_else(|| "none".to_owned(), |id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        *counts.entry(id).or_default() += 1;
    }
    let wrong = ids.iter().filter_map(Value::as_str).find(|id| counts.get(*id) != Some(&1));
    let outcome = match (wrong, heard.replies.len()) {
        (Some(id), _) => Outcome::fail(format!("id {id} was answered {} times", counts.get(id).unwrap_or(&0))),
        (None, replies) if replies > ids.len() => Outcome::fail(format!("{replies} replies to {REQUESTS} requests")),
        _ => Outcome::pass(format!("{REQUESTS} requests")),
    };
    Ok(line.verdict(outcome))
}

async fn deep(options: &Options, mut line: Line) -> CoreResult<Verdict> {
    const DEPTH: usize = 10_000;
    let nested = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let params = altered(options, "params", Some(json!(["NESTED"]))).replace("\"NESTED\"", &nested);
    let mut survived = 0;
    for frame in [nested, params] {
        let heard = line.exchange(&[frame], 0).await;
        let end = match heard.end {
            None if heard.alive => None,
            None => Some("nothing is answered any more".to_owned()),
            Some(End::Close { .. }) => None, // to close politely is a way to refuse
            Some(end) => Some(end.to_string()),
        };
        if let Some(end) = end {
            return Ok(line.verdict(Outcome::fail(format!("after JSON {DEPTH} deep: {end}"))));
        }
        survived += 1;
        line = match line.again(options).await {
            Ok(fresh) => fresh,
            Err(error) => return Ok(line.verdict(Outcome::fail(format!("afterwards no new connection: {error}")))),
        };
        if !line.exchange(&[], 0).await.alive {
            return Ok(line.verdict(Outcome::fail("a new connection is not served afterwards")));
        }
    }
    Ok(line.verdict(Outcome::pass(format!("{survived} frames"))))
}
