//! The era without sessions: `server/discover`, `_meta` with every request, listening, input that is asked for.

use serde_json::{Value, json};

use super::features::log_level;
use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::jsonrpc::{INVALID_PARAMS, METHOD_NOT_FOUND};
use crate::mcp::{Role, brief, meta_key};

checks! {
    "N01" Stateless Must "server/discover#response" "server/discover lists this version among the supported ones" Greeted Need::Nothing => discover_versions;
    "N02" Stateless Must "server/discover#response" "server/discover states capabilities, name and version" Greeted Need::Nothing => discover_facts;
    "N04" Stateless Must "basic#meta" "a request without _meta gives -32602" Greeted Need::Nothing => no_meta;
    "N05" Stateless Must "basic#meta" "a request without its version gives -32602" Greeted Need::Nothing => no_version;
    "N06" Stateless Must "basic#meta" "a request without the client's capabilities gives -32602" Greeted Need::Nothing => no_capabilities;
    "N07" Stateless Must "basic/versioning#protocol-version-negotiation" "another version gives -32022 with supported and requested" Greeted Need::Nothing => other_version;
    "N08" Stateless Must "basic#meta" "work that needs an undeclared capability gives -32021" Greeted Need::Roles(&[Role::Sample]) => undeclared;
    "N09" Stateless Should "changelog" "methods of the era of sessions give -32601" Greeted Need::Nothing => removed;
    "N10" Stateless Must "server/tools#listing-tools" "two connections see the same list" Greeted Need::Capability("tools") => same_list;
    "N11" Stateless Must "server/utilities/logging" "without logLevel no log message comes" Greeted Need::Roles(&[Role::Log]) => no_logs;
    "N12" Stateless Must "server/utilities/logging" "logLevel lets its level and higher ones through" Greeted Need::Roles(&[Role::Log]) => some_logs;
    "N13" Stateless Must "basic/patterns/subscriptions#acknowledgment" "listening is acknowledged first, with what was opted for" Greeted Need::Capability("tools") => acknowledged;
    "N14" Stateless Must "basic/patterns/subscriptions#opening-a-stream" "only what was opted for is told" Greeted Need::Roles(&[Role::Toggle, Role::Touch]) => opted;
    "N15" Stateless Must "basic/patterns/subscriptions#receiving-notifications" "what is told carries the id of its stream" Greeted Need::Roles(&[Role::Toggle]) => tagged;
    "N16" Stateless Must "basic/patterns/subscriptions#multiple-concurrent-subscriptions" "two streams are told what each opted for" Greeted Need::Roles(&[Role::Toggle, Role::Touch]) => two_streams;
    "N17" Stateless Must "basic/patterns/subscriptions#cancellation" "a cancelled stream is told no more" Greeted Need::Roles(&[Role::Toggle]) => stream_cancelled;
    "N18" Stateless Must "basic/patterns/mrtr" "input that is needed is asked for in the result" Greeted Need::Roles(&[Role::Sample]) => input_required;
    "N19" Stateless Must "basic/patterns/mrtr" "a state that the server did not give is refused" Greeted Need::Roles(&[Role::Sample]) => tampered_state;
    "N20" Stateless Must "basic/patterns/mrtr" "the answer to what was asked completes the call" Greeted Need::Roles(&[Role::Sample]) => input_given;
    "N21" Stateless Must "server/utilities/caching" "lists say ttlMs and cacheScope" Greeted Need::Capability("tools") => cacheable;
    "N22" Stateless Sound "basic#meta" "a traceparent reaches the tool" Greeted Need::Roles(&[Role::Trace]) => traced;
    "N24" Stateless Must "basic#meta" "unknown members of _meta are ignored" Greeted Need::Nothing => unknown_meta;
}

async fn discover(cx: &mut Cx) -> Result<Value, Miss> {
    let reply = cx.a.call("server/discover", Value::Null).await?;
    reply.result().cloned().ok_or_else(|| Miss::Broken(format!("it was answered by {}", brief(reply.message()))))
}

async fn discover_versions(cx: &mut Cx) -> Judged {
    let result = discover(cx).await?;
    let versions = result["supportedVersions"].as_array().cloned().unwrap_or_default();
    match versions.iter().all(Value::is_string) && versions.contains(&json!(cx.profile.version().text())) {
        true => Ok(format!("{} versions", versions.len())),
        false => broken!("supportedVersions is {}", brief(&result["supportedVersions"])),
    }
}

async fn discover_facts(cx: &mut Cx) -> Judged {
    let result = discover(cx).await?;
    let info = &result["serverInfo"];
    match result["capabilities"].is_object() && info["name"].is_string() && info["version"].is_string() {
        true => Ok(brief(info)),
        false => broken!("it said {}", brief(&result)),
    }
}

/// Sends a request whose `_meta` was changed by hand; its reply.
async fn with_meta(cx: &mut Cx, id: &str, change: impl FnOnce(&mut Value)) -> Result<Value, Miss> {
    let mut request = cx.a.request(&json!(id), "tools/list", Value::Null);
    change(&mut request["params"]);
    cx.a.send_raw(request.to_string()).await?;
    let (deadline, id) = (std::time::Instant::now() + cx.limit, json!(id));
    Ok(cx.a.until(deadline, "the reply", |message| message.get("id") == Some(&id)).await?)
}

fn expect_code(reply: &Value, code: i64) -> Judged {
    match reply["error"]["code"].as_i64() {
        Some(given) if given == code => Ok(format!("{code}")),
        _ => broken!("{code} was expected: {}", brief(reply)),
    }
}

fn remove(params: &mut Value, name: &str) {
    if let Some(meta) = params["_meta"].as_object_mut() {
        meta.remove(&meta_key(name));
    }
}

async fn no_meta(cx: &mut Cx) -> Judged {
    let reply = with_meta(cx, "bare", |params| *params = json!({})).await?;
    expect_code(&reply, INVALID_PARAMS)
}

async fn no_version(cx: &mut Cx) -> Judged {
    let reply = with_meta(cx, "no-version", |params| remove(params, "protocolVersion")).await?;
    expect_code(&reply, INVALID_PARAMS)
}

async fn no_capabilities(cx: &mut Cx) -> Judged {
    let reply = with_meta(cx, "no-capabilities", |params| remove(params, "clientCapabilities")).await?;
    expect_code(&reply, INVALID_PARAMS)
}

async fn other_version(cx: &mut Cx) -> Judged {
    let reply =
        with_meta(cx, "other", |params| params["_meta"][meta_key("protocolVersion")] = json!("1999-01-01")).await?;
    expect_code(&reply, -32022)?;
    let data = &reply["error"]["data"];
    match data["supported"].is_array() && data["requested"] == "1999-01-01" {
        true => Ok(brief(data)),
        false => broken!("its data is {}", brief(data)),
    }
}

async fn undeclared(cx: &mut Cx) -> Judged {
    let call = cx.profile.role(Role::Sample, "", "");
    let reply = cx.a.call(&call.method, call.params).await?;
    expect_code(reply.message(), -32021)
}

async fn removed(cx: &mut Cx) -> Judged {
    let methods = ["initialize", "ping", "logging/setLevel", "resources/subscribe"];
    for method in methods {
        let reply = cx.a.call(method, json!({"level": "info", "uri": "fixture://text"})).await?;
        if reply.error_code() != Some(METHOD_NOT_FOUND) {
            broken!("{method} was answered by {}", brief(reply.message()));
        }
    }
    Ok(format!("{} methods", methods.len()))
}

async fn same_list(cx: &mut Cx) -> Judged {
    let ours = cx.a.list("tools/list", "tools").await?;
    let theirs = cx.second().await?.list("tools/list", "tools").await?;
    match ours == theirs {
        true => Ok(format!("{} tools", ours.len())),
        false => broken!("{} and {} tools, or not the same ones", ours.len(), theirs.len()),
    }
}

/// The log messages of a call, of which so many have to come.
async fn logged(cx: &mut Cx, level: &str, meta: Value, least: usize) -> Result<Vec<Value>, Miss> {
    let mut call = cx.profile.role(Role::Log, level, "said in the stateless era");
    call.params["_meta"] = meta;
    cx.a.call(&call.method, call.params).await?;
    Ok(cx.a.gather(least, |message| message["method"] == "notifications/message").await?)
}

async fn no_logs(cx: &mut Cx) -> Judged {
    match logged(cx, "critical", json!({}), 0).await?.first() {
        Some(message) => broken!("it came: {}", brief(message)),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

async fn some_logs(cx: &mut Cx) -> Judged {
    let low = logged(cx, "info", log_level("error"), 0).await?;
    let high = logged(cx, "critical", log_level("error"), 1).await?;
    match (low.len(), high.len()) {
        (0, 1) => Ok("2 levels".to_owned()),
        (low, high) => broken!("{low} lower and {high} higher messages came"),
    }
}

async fn acknowledged(cx: &mut Cx) -> Judged {
    let id = cx.a.start("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    let heard = cx.a.gather(1, |_| true).await?;
    let Some(first) = heard.first() else { broken!("nothing came") };
    let tag = &first["params"]["_meta"][meta_key("subscriptionId")];
    match first["method"] == "notifications/subscriptions/acknowledged" && *tag == id.value() {
        true => Ok("1 stream".to_owned()),
        false => broken!("first came {}", brief(first)),
    }
}

/// Changes tools and a resource; what is told of it, of which so many have to come: the methods and the ids of the streams.
async fn change(cx: &mut Cx, least: usize) -> Result<Vec<(String, Value)>, Miss> {
    let uri = cx.facts.resources.first().and_then(|one| one["uri"].as_str()).unwrap_or_default().to_owned();
    if cx.has_tool(Role::Touch) {
        cx.play(Role::Touch, "", &uri).await?;
    }
    cx.play(Role::Toggle, "", "").await?;
    let told = cx.a.gather(least, |message| message.get("id").is_none()).await?;
    let tagged = told.iter().map(|message| {
        let tag = message["params"]["_meta"][meta_key("subscriptionId")].clone();
        (message["method"].as_str().unwrap_or_default().to_owned(), tag)
    });
    Ok(tagged.collect())
}

async fn opted(cx: &mut Cx) -> Judged {
    cx.a.listen(json!({"toolsListChanged": true})).await?;
    match change(cx, 0).await?.iter().find(|(method, _)| method != "notifications/tools/list_changed") {
        Some((method, _)) => broken!("{method} was not opted for"),
        None => Ok("2 changes".to_owned()),
    }
}

async fn tagged(cx: &mut Cx) -> Judged {
    let (id, _) = cx.a.listen(json!({"toolsListChanged": true})).await?;
    let told = change(cx, 1).await?;
    match told.iter().find(|(method, _)| method == "notifications/tools/list_changed") {
        Some((_, tag)) if *tag == id.value() => Ok("1 change".to_owned()),
        Some((_, tag)) => broken!("it carries the id {tag} in place of {}", id.value()),
        None => broken!("the change was not told"),
    }
}

async fn two_streams(cx: &mut Cx) -> Judged {
    let uri = cx.facts.resources.first().map_or(Value::Null, |one| one["uri"].clone());
    let (tools, _) = cx.a.listen(json!({"toolsListChanged": true})).await?;
    let (resources, _) = cx.a.listen(json!({"resourceSubscriptions": [uri]})).await?;
    let told = change(cx, 2).await?;
    let count = |id: &Value| told.iter().filter(|(_, tag)| tag == id).count();
    match (count(&tools.value()), count(&resources.value())) {
        (1, 1) => Ok("2 streams".to_owned()),
        (tools, resources) => broken!("the streams were told {tools} and {resources} changes in place of one each"),
    }
}

async fn stream_cancelled(cx: &mut Cx) -> Judged {
    let (id, _) = cx.a.listen(json!({"toolsListChanged": true})).await?;
    cx.a.cancel(&id, "heard enough").await?;
    match change(cx, 0).await?.iter().find(|(method, _)| method == "notifications/tools/list_changed") {
        Some((method, _)) => broken!("{method} came after the cancellation"),
        None => Ok("silence proven by a fence".to_owned()),
    }
}

/// Calls the tool that needs the client to sample, which this request says it can.
async fn sample(cx: &mut Cx, more: Value) -> Result<Value, Miss> {
    let mut call = cx.profile.role(Role::Sample, "", "");
    call.params["_meta"] = json!({meta_key("clientCapabilities"): {"sampling": {}}});
    if let (Some(params), Value::Object(more)) = (call.params.as_object_mut(), more) {
        params.extend(more);
    }
    Ok(cx.a.call(&call.method, call.params).await?.message().clone())
}

async fn input_required(cx: &mut Cx) -> Judged {
    let reply = sample(cx, Value::Null).await?;
    let result = &reply["result"];
    match result["resultType"] == "input_required" && result["inputRequests"].is_object() {
        true => Ok("1 call".to_owned()),
        false => broken!("it was answered by {}", brief(&reply)),
    }
}

fn answers(asked: &Value) -> Value {
    let answer = json!({"role": "assistant", "content": {"type": "text", "text": "as you wish"}, "model": "none"});
    let names =
        asked["inputRequests"].as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    names.into_iter().map(|name| (name, answer.clone())).collect::<serde_json::Map<_, _>>().into()
}

async fn tampered_state(cx: &mut Cx) -> Judged {
    let asked = sample(cx, Value::Null).await?["result"].clone();
    if !asked["requestState"].is_string() {
        return Err(Miss::Elsewhere("the server keeps no state in the request".to_owned()));
    }
    let reply = sample(cx, json!({"inputResponses": answers(&asked), "requestState": "made up"})).await?;
    match reply.get("error") {
        Some(_) => Ok("1 state".to_owned()),
        None => broken!("it was answered by {}", brief(&reply)),
    }
}

async fn input_given(cx: &mut Cx) -> Judged {
    let asked = sample(cx, Value::Null).await?["result"].clone();
    let mut more = json!({"inputResponses": answers(&asked)});
    if asked["requestState"].is_string() {
        more["requestState"] = asked["requestState"].clone();
    }
    let reply = sample(cx, more).await?;
    match text_of(&reply["result"]).contains("as you wish") {
        true => Ok("1 call".to_owned()),
        false => broken!("it was answered by {}", brief(&reply)),
    }
}

async fn cacheable(cx: &mut Cx) -> Judged {
    let reply = cx.a.call("tools/list", Value::Null).await?;
    let result = &reply.message()["result"];
    let scoped = matches!(result["cacheScope"].as_str(), Some("public" | "private"));
    match result["ttlMs"].as_f64().is_some_and(|ttl| ttl >= 0.0) && scoped {
        true => Ok("1 list".to_owned()),
        false => broken!("ttlMs is {}, cacheScope is {}", result["ttlMs"], result["cacheScope"]),
    }
}

async fn traced(cx: &mut Cx) -> Judged {
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut call = cx.profile.role(Role::Trace, "", "");
    call.params["_meta"] = json!({"traceparent": sent});
    let reply = cx.a.call(&call.method, call.params).await?;
    let came = reply.result().map(text_of).unwrap_or_default();
    match came.contains("0af7651916cd43dd8448eb211c80319c") {
        true => Ok("1 trace".to_owned()),
        false => broken!("the tool saw {came:?}"),
    }
}

async fn unknown_meta(cx: &mut Cx) -> Judged {
    let reply = with_meta(cx, "extra", |params| params["_meta"]["com.example/unknown"] = json!({"a": 1})).await?;
    match reply.get("result") {
        Some(_) => Ok("1 member".to_owned()),
        None => broken!("it was answered by {}", brief(&reply)),
    }
}
