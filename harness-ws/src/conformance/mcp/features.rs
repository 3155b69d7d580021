//! Resources, prompts, completion, logging, progress, cancellation.

use std::time::Instant;

use harness_core::ErrorKind;
use serde_json::{Value, json};

use super::tools::{invalid_params, is_base64};
use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::jsonrpc::{INVALID_PARAMS, METHOD_NOT_FOUND, is_reply, refuses_notification};
use crate::mcp::{Mcp, RequestId, Role, brief, meta_key};

checks! {
    "M49" Both Must "server/resources#listing-resources" "every resource has a uri and a name" Greeted Need::Capability("resources") => resources_listed;
    "M50" Both Must "server/resources#reading-resources" "what is read says its uri and has text or blob" Greeted Need::Capability("resources") => resource_read;
    "M51" Both Must "server/resources#reading-resources" "a blob is base64" Greeted Need::Capability("resources") => blob;
    "M52" Both Must "server/resources#resource-templates" "every template has a uriTemplate and a name" Greeted Need::Capability("resources") => templates;
    "M53" Both Should "server/resources#error-handling" "a resource that is not there gives the error of its version" Greeted Need::Capability("resources") => missing_resource;
    "M54" Both Must "server/resources#security-considerations" "an address that climbs out is refused" Greeted Need::Capability("resources") => traversal;
    "M55" Sessions Must "server/resources#subscriptions" "a change is told to who subscribed" Greeted Need::Roles(&[Role::Touch]) => subscribed;
    "M56" Sessions Must "server/resources#subscriptions" "who unsubscribed is told no more" Greeted Need::Roles(&[Role::Touch]) => unsubscribed;
    "M57" Sessions Must "server/resources#subscriptions" "who did not subscribe is told nothing" Greeted Need::Roles(&[Role::Touch]) => not_subscribed;
    "M58" Both Must "server/prompts#listing-prompts" "every prompt has a name, every argument too" Greeted Need::Capability("prompts") => prompts_listed;
    "M59" Both Must "server/prompts#getting-a-prompt" "the messages of a prompt have a role and content" Greeted Need::Capability("prompts") => prompt_got;
    "M60" Both Should "server/prompts#error-handling" "an unknown prompt gives -32602" Greeted Need::Capability("prompts") => unknown_prompt;
    "M61" Both Should "server/prompts#error-handling" "a prompt without its required argument gives -32602" Greeted Need::Capability("prompts") => missing_argument;
    "M62" Both Must "server/utilities/completion#completion-results" "a completion has at most 100 strings" Greeted Need::Capability("completions") => completion;
    "M63" Both Should "server/utilities/completion#error-handling" "a completion of nothing known gives -32602" Greeted Need::Capability("completions") => bad_completion;
    "M64" Sessions Must "server/utilities/logging#setting-log-level" "lower levels than the one set stay away" Greeted Need::Roles(&[Role::Log]) => lower_levels;
    "M65" Sessions Must "server/utilities/logging#log-message-notifications" "the level set and higher ones come" Greeted Need::Roles(&[Role::Log]) => higher_levels;
    "M66" Sessions Should "server/utilities/logging#error-handling" "a level that does not exist gives -32602" Greeted Need::Capability("logging") => bad_level;
    "M67" Sessions Must "server/utilities/logging#log-message-notifications" "a log message has a known level and data" Greeted Need::Roles(&[Role::Log]) => log_shape;
    "M68" Both Must "basic/utilities/progress#progress-flow" "progress carries its token and rises" Greeted Need::Roles(&[Role::Progress]) => progress_rises;
    "M69" Both Must "basic/utilities/progress#progress-flow" "without a token there is no progress" Greeted Need::Roles(&[Role::Progress]) => progress_unasked;
    "M70" Both Must "basic/utilities/progress#behavior-requirements" "progress stops with the reply" Greeted Need::Roles(&[Role::Progress]) => progress_stops;
    "M71" Both Should "basic/utilities/cancellation#behavior-requirements" "a cancelled request is not answered" Greeted Need::Roles(&[Role::Hold, Role::Release]) => cancelled;
    "M72" Both Must "basic/utilities/cancellation#error-handling" "cancelling what is unknown or done is ignored" Greeted Need::Nothing => cancel_nothing;
    "M73" Both Must "basic/utilities/cancellation#behavior-requirements" "other requests are not touched by a cancellation" Greeted Need::Roles(&[Role::Hold, Role::Release]) => cancel_one;
    "M74" Both Should "basic/utilities/cancellation#behavior-requirements" "cancelled work stops" Greeted Need::Roles(&[Role::Hold, Role::Release]) => cancelled_work;
    "M75" Both Should "basic#requests" "a request that takes long does not hold up the others" Greeted Need::Roles(&[Role::Hold, Role::Release]) => head_of_line;
    "M76" Both Must "basic#responses" "a request that took long is answered once" Greeted Need::Roles(&[Role::Hold, Role::Release]) => late_answer;
}

/// Every item of a list has these members, each a string.
fn all_have(what: &str, all: &[Value], members: &[&str]) -> Judged {
    match all.iter().find(|one| members.iter().any(|member| !one[*member].is_string())) {
        Some(one) => broken!("a {what} is listed as {}", brief(one)),
        None => Ok(format!("{} of kind {what}", all.len())),
    }
}

async fn resources_listed(cx: &mut Cx) -> Judged {
    all_have("resource", &cx.a.list("resources/list", "resources").await?, &["uri", "name"])
}

/// The addresses that are listed, at most ten.
fn addresses(cx: &Cx) -> Vec<String> {
    cx.facts.resources.iter().filter_map(|one| one["uri"].as_str()).take(10).map(str::to_owned).collect()
}

async fn resource_read(cx: &mut Cx) -> Judged {
    let uris = addresses(cx);
    for uri in &uris {
        let reply = cx.a.call("resources/read", json!({"uri": uri})).await?;
        let contents = reply.result().and_then(|result| result["contents"].as_array()).cloned().unwrap_or_default();
        let fits = |one: &Value| one["uri"].is_string() && (one["text"].is_string() != one["blob"].is_string());
        if contents.is_empty() || !contents.iter().all(fits) {
            broken!("{uri} was read as {}", brief(reply.message()));
        }
    }
    match uris.len() {
        0 => Err(Miss::Elsewhere("no resource is listed".to_owned())),
        n => Ok(format!("{n} resources")),
    }
}

async fn blob(cx: &mut Cx) -> Judged {
    let mut blobs = 0;
    for uri in addresses(cx) {
        let reply = cx.a.call("resources/read", json!({"uri": uri})).await?;
        let contents = reply.result().and_then(|result| result["contents"].as_array()).cloned().unwrap_or_default();
        for blob in contents.iter().filter_map(|one| one["blob"].as_str()) {
            if !is_base64(blob) {
                broken!("the blob of {uri} is {blob:.80}");
            }
            blobs += 1;
        }
    }
    match blobs {
        0 => Err(Miss::Elsewhere("no listed resource is a blob".to_owned())),
        n => Ok(format!("{n} blobs")),
    }
}

async fn templates(cx: &mut Cx) -> Judged {
    let reply = cx.a.call("resources/templates/list", Value::Null).await?;
    if reply.error_code() == Some(METHOD_NOT_FOUND) {
        return Err(Miss::Elsewhere("the server has no templates".to_owned()));
    }
    let Some(all) = reply.result().and_then(|result| result["resourceTemplates"].as_array()) else {
        broken!("it was answered by {}", brief(reply.message()));
    };
    all_have("template", all, &["uriTemplate", "name"])
}

async fn missing_resource(cx: &mut Cx) -> Judged {
    let reply = cx.a.call("resources/read", json!({"uri": "fixture://no/such/resource"})).await?;
    let expected = if cx.profile.version().is_stateless() { INVALID_PARAMS } else { -32002 };
    match reply.error_code() {
        Some(code) if code == expected => Ok("1 address".to_owned()),
        _ => broken!("{expected} was expected: {}", brief(reply.message())),
    }
}

async fn traversal(cx: &mut Cx) -> Judged {
    const HOSTILE: [&str; 10] = [
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "fixture://item/../../etc/passwd",
        "fixture://item/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "fixture://item/..%252f..%252fetc",
        "fixture://item/..\\..\\windows\\win.ini",
        "fixture://item/a\u{0}b",
        "../../../../etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1:9/metadata",
    ];
    for uri in HOSTILE {
        let reply = cx.a.call("resources/read", json!({"uri": uri})).await?;
        if reply.error_code().is_none() {
            broken!("{uri:?} was answered by {}", brief(reply.message()));
        }
    }
    Ok(format!("{} addresses", HOSTILE.len()))
}

fn is_update(message: &Value) -> bool {
    message["method"] == "notifications/resources/updated"
}

/// How often it was told up to here that a resource has changed.
async fn updates(mcp: &mut Mcp) -> Result<usize, Miss> {
    Ok(mcp.fence().await?.iter().filter(|message| is_update(message)).count())
}

/// Something to subscribe to.
fn subject(cx: &Cx) -> Result<String, Miss> {
    if cx.facts.capabilities["resources"]["subscribe"] != true {
        return Err(Miss::Elsewhere("the server does not declare subscriptions".to_owned()));
    }
    addresses(cx).first().cloned().ok_or_else(|| Miss::Elsewhere("no resource is listed".to_owned()))
}

async fn subscribed(cx: &mut Cx) -> Judged {
    let uri = subject(cx)?;
    cx.a.subscribe(&uri).await?;
    cx.play(Role::Touch, "", &uri).await?;
    match cx.a.gather(1, is_update).await?.len() {
        1 => Ok("1 change".to_owned()),
        n => broken!("{n} notifications came of one change"),
    }
}

async fn unsubscribed(cx: &mut Cx) -> Judged {
    let uri = subject(cx)?;
    cx.a.subscribe(&uri).await?;
    cx.a.unsubscribe(&uri).await?;
    cx.play(Role::Touch, "", &uri).await?;
    match updates(&mut cx.a).await? {
        0 => Ok("silence proven by a fence".to_owned()),
        n => broken!("{n} notifications came after unsubscribing"),
    }
}

async fn not_subscribed(cx: &mut Cx) -> Judged {
    let uri = subject(cx)?;
    cx.a.subscribe(&uri).await?;
    cx.second().await?;
    cx.play(Role::Touch, "", &uri).await?;
    cx.a.fence().await?;
    let Some(other) = &mut cx.b else { return Err(Miss::Unknown("there is no second conversation".to_owned())) };
    match updates(other).await? {
        0 => Ok("silence proven by a fence".to_owned()),
        n => broken!("{n} notifications came to a session that did not subscribe"),
    }
}

async fn prompts_listed(cx: &mut Cx) -> Judged {
    let all = cx.a.list("prompts/list", "prompts").await?;
    for prompt in &all {
        all_have("argument", prompt["arguments"].as_array().map(Vec::as_slice).unwrap_or_default(), &["name"])?;
    }
    all_have("prompt", &all, &["name"])
}

fn required(prompt: &Value) -> Vec<String> {
    let arguments = prompt["arguments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let needed = arguments.iter().filter(|argument| argument["required"] == true);
    needed.filter_map(|argument| argument["name"].as_str()).map(str::to_owned).collect()
}

async fn prompt_got(cx: &mut Cx) -> Judged {
    let facts = std::sync::Arc::clone(&cx.facts);
    for prompt in facts.prompts.iter().filter(|prompt| prompt["name"].is_string()).take(5) {
        let arguments: serde_json::Map<_, _> = required(prompt).into_iter().map(|name| (name, json!("x"))).collect();
        let reply = cx.a.call("prompts/get", json!({"name": prompt["name"], "arguments": arguments})).await?;
        let messages = reply.result().and_then(|result| result["messages"].as_array()).cloned().unwrap_or_default();
        let fits = |message: &Value| {
            matches!(message["role"].as_str(), Some("user" | "assistant")) && message["content"]["type"].is_string()
        };
        if messages.is_empty() || !messages.iter().all(fits) {
            broken!("{} was got as {}", prompt["name"], brief(reply.message()));
        }
    }
    match facts.prompts.len() {
        0 => Err(Miss::Elsewhere("no prompt is listed".to_owned())),
        n => Ok(format!("{n} prompts")),
    }
}

async fn unknown_prompt(cx: &mut Cx) -> Judged {
    invalid_params(cx, "prompts/get", json!({"name": "harness-no-such-prompt"})).await
}

async fn missing_argument(cx: &mut Cx) -> Judged {
    match cx.facts.prompts.iter().find(|prompt| !required(prompt).is_empty()).cloned() {
        None => Err(Miss::Elsewhere("no prompt needs an argument".to_owned())),
        Some(prompt) => invalid_params(cx, "prompts/get", json!({"name": prompt["name"], "arguments": {}})).await,
    }
}

async fn completion(cx: &mut Cx) -> Judged {
    let Some(prompt) = cx.facts.prompts.iter().find(|prompt| !required(prompt).is_empty()).cloned() else {
        return Err(Miss::Elsewhere("no prompt has an argument to complete".to_owned()));
    };
    let argument = json!({"name": required(&prompt)[0], "value": ""});
    let params = json!({"ref": {"type": "ref/prompt", "name": prompt["name"]}, "argument": argument});
    let reply = cx.a.call("completion/complete", params).await?;
    let values = reply.result().and_then(|result| result.pointer("/completion/values")?.as_array().cloned());
    match values {
        Some(values) if values.len() <= 100 && values.iter().all(Value::is_string) => {
            Ok(format!("{} values", values.len()))
        }
        Some(values) => broken!("{} values came: {}", values.len(), brief(reply.message())),
        None => broken!("no values came: {}", brief(reply.message())),
    }
}

async fn bad_completion(cx: &mut Cx) -> Judged {
    let params = json!({"ref": {"type": "ref/nothing", "name": "x"}, "argument": {"name": "x", "value": ""}});
    invalid_params(cx, "completion/complete", params).await
}

/// A log message with this text.
pub(super) fn is_log(message: &Value, text: &str) -> bool {
    message["method"] == "notifications/message" && message["params"]["data"].to_string().contains(text)
}

/// A tool that would log is not enough: without the capability there is no level to set.
pub(super) fn logging_declared(cx: &Cx) -> Result<(), Miss> {
    match cx.facts.capabilities.get("logging") {
        Some(_) => Ok(()),
        None => Err(Miss::Elsewhere("the server does not declare `logging`".to_owned())),
    }
}

async fn lower_levels(cx: &mut Cx) -> Judged {
    logging_declared(cx)?;
    cx.a.set_level("error").await?;
    for level in ["debug", "info", "warning"] {
        cx.play(Role::Log, level, "too low").await?;
    }
    match cx.a.fence().await?.iter().filter(|message| is_log(message, "too low")).count() {
        0 => Ok("3 levels, silence proven by a fence".to_owned()),
        n => broken!("{n} messages came below the level `error`"),
    }
}

async fn higher_levels(cx: &mut Cx) -> Judged {
    logging_declared(cx)?;
    cx.a.set_level("warning").await?;
    for level in ["warning", "critical"] {
        cx.play(Role::Log, level, "high enough").await?;
    }
    match cx.a.gather(2, |message| is_log(message, "high enough")).await?.len() {
        2 => Ok("2 levels".to_owned()),
        n => broken!("{n} of 2 messages came"),
    }
}

async fn bad_level(cx: &mut Cx) -> Judged {
    invalid_params(cx, "logging/setLevel", json!({"level": "harness-no-such-level"})).await
}

async fn log_shape(cx: &mut Cx) -> Judged {
    logging_declared(cx)?;
    const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    cx.a.set_level("debug").await?;
    cx.play(Role::Log, "info", "shape").await?;
    let heard = cx.a.gather(1, |message| message["method"] == "notifications/message").await?;
    let Some(message) = heard.first() else {
        return Err(Miss::Unknown("no log message came".to_owned()));
    };
    let params = &message["params"];
    match LEVELS.iter().any(|level| params["level"] == *level) && params.get("data").is_some() {
        true => Ok("1 message".to_owned()),
        false => broken!("it is {}", brief(params)),
    }
}

/// Calls the tool that reports progress, with a token; everything that came before the reply, and the reply.
async fn progress(cx: &mut Cx, token: &str) -> Result<(Vec<Value>, Value), Miss> {
    let mut call = cx.profile.role(Role::Progress, "", "");
    call.params["_meta"] = json!({"progressToken": token});
    let id = cx.a.start(&call.method, call.params).await?;
    let reply = cx.a.finish(&id).await?.message().clone();
    let before = cx.a.take_unread();
    Ok((before.into_iter().filter(|message| message["method"] == "notifications/progress").collect(), reply))
}

async fn progress_rises(cx: &mut Cx) -> Judged {
    let (mut told, _) = progress(cx, "token-1").await?;
    if told.is_empty() {
        told = cx.a.gather(1, |message| message["method"] == "notifications/progress").await?;
    }
    let mut last = f64::NEG_INFINITY;
    for message in &told {
        let params = &message["params"];
        let now = params["progress"].as_f64().unwrap_or(f64::NEG_INFINITY);
        if params["progressToken"] != "token-1" || now <= last {
            broken!("after {last} came {}", brief(params));
        }
        last = now;
    }
    match told.len() {
        0 => broken!("no progress was told"),
        n => Ok(format!("{n} notifications")),
    }
}

async fn progress_unasked(cx: &mut Cx) -> Judged {
    cx.play(Role::Progress, "", "").await?;
    let heard = cx.a.fence().await?;
    match heard.iter().find(|message| message["method"] == "notifications/progress") {
        Some(message) => broken!("it came: {}", brief(message)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn progress_stops(cx: &mut Cx) -> Judged {
    if cx.a.channel.is_http() {
        return Err(Miss::Elsewhere(
            "over HTTP the streams of a session are not ordered against each other".to_owned(),
        ));
    }
    progress(cx, "token-2").await?;
    let after = cx.a.fence().await?;
    match after.iter().find(|message| message["method"] == "notifications/progress") {
        Some(message) => broken!("after the reply came {}", brief(message)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

/// Calls the tool that waits until it is released.
pub(super) async fn hold(cx: &mut Cx, key: &str) -> Result<RequestId, Miss> {
    let call = cx.profile.role(Role::Hold, key, "");
    Ok(cx.a.start(&call.method, call.params).await?)
}

/// Releases what is held until this call is answered: a server that works on several requests at once may release before
/// it holds.
pub(super) async fn released(cx: &mut Cx, key: &str, id: &RequestId) -> Result<Value, Miss> {
    let (deadline, wanted) = (Instant::now() + cx.limit, id.value());
    loop {
        cx.play(Role::Release, key, "").await?;
        let patience = deadline.min(Instant::now() + cx.limit / 4);
        let answers = |message: &Value| is_reply(message) && message["id"] == wanted;
        match cx.a.until(patience, "the reply to the held call", answers).await {
            Err(error) if error.kind() == ErrorKind::Timeout && patience < deadline => {}
            answered => return Ok(answered?),
        }
    }
}

async fn cancelled(cx: &mut Cx) -> Judged {
    let id = hold(cx, "cancelled").await?;
    cx.a.cancel(&id, "no longer needed").await?;
    cx.play(Role::Release, "cancelled", "").await?;
    let heard = cx.a.fence().await?;
    match heard.iter().find(|message| is_reply(message) && message["id"] == id.value()) {
        Some(reply) => broken!("it was answered by {}", brief(reply)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn cancel_nothing(cx: &mut Cx) -> Judged {
    let (method, params) =
        if cx.profile.version().is_stateless() { ("server/discover", Value::Null) } else { ("ping", Value::Null) };
    let done = cx.a.start(method, params).await?;
    cx.a.finish(&done).await?;
    for _ in 0..2 {
        cx.a.cancel(&done, "done long ago").await?;
    }
    cx.a.notify("notifications/cancelled", json!({"requestId": "never-sent"})).await?;
    cx.a.notify("notifications/cancelled", json!({})).await?;
    let heard = cx.a.fence().await?;
    let over_http = cx.a.channel.is_http();
    match heard.iter().find(|message| is_reply(message) && !(over_http && refuses_notification(message))) {
        Some(reply) => broken!("it was answered by {}", brief(reply)),
        None => Ok("4 notifications".to_owned()),
    }
}

async fn cancel_one(cx: &mut Cx) -> Judged {
    let (gone, kept) = (hold(cx, "one").await?, hold(cx, "one").await?);
    cx.a.cancel(&gone, "no longer needed").await?;
    let reply = released(cx, "one", &kept).await?;
    match reply.get("result") {
        Some(_) => Ok("1 of 2 cancelled".to_owned()),
        None => broken!("the other was answered by {}", brief(&reply)),
    }
}

async fn cancelled_work(cx: &mut Cx) -> Judged {
    let id = hold(cx, "work").await?;
    cx.a.cancel(&id, "no longer needed").await?;
    let result = cx.play(Role::Release, "work", "").await?;
    match text_of(&result).trim() {
        "0" => Ok("no held call was finished".to_owned()),
        finished => broken!("{finished} held calls were finished after the cancellation"),
    }
}

async fn head_of_line(cx: &mut Cx) -> Judged {
    let id = hold(cx, "line").await?;
    let heard = match cx.a.fence().await {
        Ok(heard) => heard,
        Err(error) => broken!("while one request waits no other is answered: {error}"),
    };
    if heard.iter().any(|message| message["id"] == id.value()) {
        return Err(Miss::Unknown("the request did not wait".to_owned()));
    }
    cx.play(Role::Release, "line", "").await?;
    Ok("1 request in front".to_owned())
}

async fn late_answer(cx: &mut Cx) -> Judged {
    let id = hold(cx, "late").await?;
    let reply = released(cx, "late", &id).await?;
    if reply.get("result").is_none() {
        broken!("it was answered by {}", brief(&reply));
    }
    let more = cx.a.fence().await?;
    match more.iter().find(|message| is_reply(message) && message["id"] == id.value()) {
        Some(_) => broken!("it was answered twice"),
        None => Ok("1 request".to_owned()),
    }
}

/// The key under which a request asks for log messages in the stateless era.
pub(super) fn log_level(level: &str) -> Value {
    json!({meta_key("logLevel"): level})
}
