//! Messages: ids, parameters, hostile text, many at once.

use serde_json::{Value, json};

use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::jsonrpc::{INVALID_PARAMS, INVALID_REQUEST, is_reply};
use crate::mcp::{Role, brief};

checks! {
    "M16" Both Must "basic#requests" "the id null is refused" Greeted Need::Nothing => null_id;
    "M17" Both Must "basic#requests" "an id with a fraction is refused" Greeted Need::Nothing => fractional_id;
    "M18" Both Must "basic#requests" "an id of 1 KB comes back unchanged" Greeted Need::Nothing => long_id;
    "M19" Both Should "basic#notifications" "a notification with an id is not answered by a result" Greeted Need::Nothing => notification_with_id;
    "M20" Both Sound "basic#responses" "a response to nothing is ignored" Greeted Need::Nothing => stray_response;
    "M21" Both Must "basic#requests" "params that are an array are refused" Greeted Need::Nothing => array_params;
    "M22" Both Sound "basic#requests" "two requests of the same id at once do no harm" Greeted Need::Nothing => same_id_twice;
    "M23" Both Must "basic#responses" "64 requests at once are each answered by their own result" Greeted Need::Roles(&[Role::Echo]) => interleaved;
    "M24" Both Must "basic#requests" "unknown members of a request are ignored" Greeted Need::Nothing => unknown_members;
    "M25" Both Sound "basic" "text at the edge of JSON does no harm" Greeted Need::Nothing => edge_of_json;
    "M26" Both Sound "server/tools" "64 KB in an argument come back whole" Greeted Need::Roles(&[Role::Echo]) => large;
}

/// A request that always gives a result.
fn known(cx: &Cx, id: &Value) -> Value {
    let method = if cx.profile.version().is_stateless() { "server/discover" } else { "ping" };
    cx.a.request(id, method, Value::Null)
}

/// Sends a text and gives everything that came before a fence was answered, except a refusal by a status alone.
///
/// A reply that is due is waited for first, since it may come behind that of the fence.
async fn said_to(cx: &mut Cx, text: String) -> Result<Vec<Value>, Miss> {
    let message: Value = serde_json::from_str(&text).unwrap_or_default();
    let id = message.get("id").filter(|id| id.is_string() || id.is_u64()).filter(|_| message["method"].is_string());
    cx.a.send_raw(text).await?;
    let mut said = Vec::new();
    if let Some(id) = id {
        let deadline = std::time::Instant::now() + cx.limit / 2;
        said.extend(
            cx.a.until(deadline, "a reply", |message| is_reply(message) && message.get("id") == Some(id)).await,
        );
    } else {
        cx.a.refused_status().await;
    }
    said.extend(cx.a.fence().await?);
    Ok(said)
}

/// A reply that is a result, among what was said.
fn served(said: &[Value]) -> Option<&Value> {
    said.iter().find(|message| is_reply(message) && message.get("result").is_some())
}

/// A request is answered by an error with one of these codes; over HTTP what is none may be refused by its status alone.
async fn refused(cx: &mut Cx, request: &Value, codes: &[i64]) -> Judged {
    cx.a.send_raw(request.to_string()).await?;
    let has_id = request["id"].is_string() || request["id"].is_u64();
    if !has_id && let Some(status) = cx.a.refused_status().await {
        return Ok(format!("status {status}"));
    }
    let replies = cx.a.gather(1, is_reply).await?;
    match replies.iter().find_map(|reply| reply["error"]["code"].as_i64()) {
        Some(code) if codes.contains(&code) => Ok(format!("{code}")),
        _ => broken!("{} was answered by {:?}", brief(request), replies.iter().map(brief).collect::<Vec<_>>()),
    }
}

async fn null_id(cx: &mut Cx) -> Judged {
    refused(cx, &known(cx, &Value::Null), &[INVALID_REQUEST]).await
}

async fn fractional_id(cx: &mut Cx) -> Judged {
    refused(cx, &known(cx, &json!(1.5)), &[INVALID_REQUEST]).await
}

async fn long_id(cx: &mut Cx) -> Judged {
    let id = json!(format!("{}é", "x".repeat(1024)));
    let text = known(cx, &id).to_string();
    cx.a.send_raw(text).await?;
    let deadline = std::time::Instant::now() + cx.limit;
    let reply = cx.a.until(deadline, "a reply", is_reply).await?;
    match reply.get("id") == Some(&id) {
        true => Ok("1,026 bytes".to_owned()),
        false => broken!("another id came back: {}", brief(&reply)),
    }
}

async fn notification_with_id(cx: &mut Cx) -> Judged {
    let text = cx.a.request(&json!("n-1"), "notifications/roots/list_changed", Value::Null).to_string();
    match served(&said_to(cx, text).await?) {
        Some(reply) => broken!("it was answered by {}", brief(reply)),
        None => Ok("1 notification".to_owned()),
    }
}

async fn stray_response(cx: &mut Cx) -> Judged {
    let mut sent = 0;
    for text in [
        json!({"jsonrpc": "2.0", "id": "nobody-asked", "result": {}}),
        json!({"jsonrpc": "2.0", "id": 424_242, "error": {"code": -1, "message": "stray"}}),
    ] {
        let said = said_to(cx, text.to_string()).await?;
        if let Some(reply) = said.iter().find(|message| is_reply(message)) {
            broken!("it was answered by {}", brief(reply));
        }
        sent += 1;
    }
    Ok(format!("{sent} responses"))
}

async fn array_params(cx: &mut Cx) -> Judged {
    let request = json!({"jsonrpc": "2.0", "id": "array", "method": "tools/list", "params": [1, 2]});
    refused(cx, &request, &[INVALID_REQUEST, INVALID_PARAMS]).await
}

async fn same_id_twice(cx: &mut Cx) -> Judged {
    let text = known(cx, &json!("twin")).to_string();
    cx.a.send_raw(text.clone()).await?;
    let said = said_to(cx, text).await?;
    let replies = said.iter().filter(|message| is_reply(message) && message["id"] == "twin").count();
    match replies {
        1 | 2 => Ok(format!("{replies} replies to two requests of one id")),
        _ => broken!("{replies} replies came to two requests of one id"),
    }
}

async fn interleaved(cx: &mut Cx) -> Judged {
    const REQUESTS: usize = 64;
    let mut ids = Vec::new();
    for n in 0..REQUESTS {
        let call = cx.profile.role(Role::Echo, "", &format!("payload-{n}."));
        ids.push(cx.a.start(&call.method, call.params).await?);
    }
    for (n, id) in ids.iter().enumerate().rev() {
        let reply = cx.a.finish(id).await?;
        let text = reply.result().map(text_of).unwrap_or_default();
        if !text.contains(&format!("payload-{n}.")) {
            broken!("request {n} was answered by {}", brief(reply.message()));
        }
    }
    let more = cx.a.fence().await?;
    match more.iter().find(|message| is_reply(message)) {
        Some(reply) => broken!("one more reply came: {}", brief(reply)),
        None => Ok(format!("{REQUESTS} requests")),
    }
}

async fn unknown_members(cx: &mut Cx) -> Judged {
    let mut request = known(cx, &json!("extra"));
    request["x-unknown"] = json!({"a": [1]});
    let said = said_to(cx, request.to_string()).await?;
    match served(&said) {
        Some(_) => Ok("1 member".to_owned()),
        None => broken!("it was answered by {:?}", said.iter().map(brief).collect::<Vec<_>>()),
    }
}

async fn edge_of_json(cx: &mut Cx) -> Judged {
    let texts = [
        "\u{feff}{}".to_owned(),
        r#"{"jsonrpc":"2.0","id":"e1","method":"\ud800"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"e2","method":"a\u0000b"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"e3","method":"x","params":{"n":1e400}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"e4","id":"e5","method":"x"}"#.to_owned(),
        format!(r#"{{"jsonrpc":"2.0","id":"e6","method":"{}"}}"#, "m".repeat(10_000)),
        "\u{1}".to_owned(),
    ];
    let count = texts.len();
    for text in texts {
        let said = said_to(cx, text.clone()).await?;
        if let Some(reply) = served(&said) {
            broken!("{text:.60} was served: {}", brief(reply));
        }
    }
    Ok(format!("{count} texts"))
}

async fn large(cx: &mut Cx) -> Judged {
    let text = "0123456789abcdef".repeat(4096);
    let result = cx.play(Role::Echo, "", &text).await?;
    match text_of(&result).contains(&text) {
        true => Ok("65,536 bytes".to_owned()),
        false => broken!("{} bytes came back", text_of(&result).len()),
    }
}
