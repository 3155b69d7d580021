//! Every MCP check against the scripted server: the correct one passes, each planted defect turns exactly its own check
//! red.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness_core::env::Settings;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Expected, Mcp, McpStub, Profile, Script, Target, Turn, Version, replay};
use harness_ws::{ErrorKind, Findings, Result};
use serde_json::{Value, json};

pub(crate) fn scope() -> Scope {
    Scope::default().limit(Duration::from_millis(1500)).strict()
}

async fn judge(script: Script, profile: &Profile, scope: &Scope) -> Findings {
    let stub = McpStub::start(script).await.expect("a free port");
    let target = Target::at(&stub.ws_url()).expect("an address");
    conformance::mcp(&target, profile, scope).await.expect("the stub is up")
}

#[tokio::test]
async fn correct_server_passes_every_check_of_every_version() {
    for (version, least) in [
        (Version::V2024_11_05, 80),
        (Version::V2025_03_26, 80),
        (Version::V2025_06_18, 80),
        (Version::V2025_11_25, 90),
        (Version::V2026_07_28, 80),
    ] {
        let begun = Instant::now();
        let findings = judge(Script::new(version), &Profile::new(version), &scope()).await;
        findings.clone().at_least(least).assert();
        println!("{version}: {} checks executed in {:?}", findings.executed(), begun.elapsed());
    }
}

#[tokio::test]
async fn same_checks_run_over_streamable_http() -> Result {
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        let stub = McpStub::start(Script::new(version)).await?;
        let target = Target::at(&stub.http_url())?;
        let findings = conformance::mcp(&target, &Profile::new(version), &scope()).await?;
        findings.at_least(80).assert();
    }
    Ok(())
}

#[tokio::test]
async fn welcome_is_a_rule_of_the_house() -> Result {
    let profile = Profile::named("mcp-2025-11-25+welcome")?;
    let only = scope().only(["W01", "M01", "M27"]);
    judge(Script::new(Version::V2025_11_25).welcome(), &profile, &only).await.at_least(3).assert();
    let without = judge(Script::new(Version::V2025_11_25), &profile, &only).await;
    assert_eq!(without.failed(), ["W01"], "{without}");
    Ok(())
}

/// A planted defect: a name, the check it belongs to, and what it does to a turn.
type Planted = (&'static str, &'static str, fn() -> Box<dyn Fn(&mut Turn) + Send + Sync>);
/// The same, made.
type Defect = (&'static str, &'static str, Box<dyn Fn(&mut Turn) + Send + Sync>);

macro_rules! planted {
    ($($name:literal $check:literal |$turn:ident| $body:block)*) => {
        &[$(($name, $check, || Box::new(|$turn: &mut Turn| $body))),*]
    };
}

fn is_ok(turn: &mut Turn, method: &str) -> bool {
    turn.method() == method && turn.result().is_some()
}

/// What the request said, `null` if there was none.
pub(crate) fn heard(turn: &Turn, pointer: &str) -> Value {
    turn.heard.as_ref().and_then(|heard| heard.pointer(pointer)).cloned().unwrap_or_default()
}

pub(crate) fn answer(turn: &mut Turn, result: Value) {
    let id = heard(turn, "/id");
    let mut reply = json!({"jsonrpc": "2.0", "id": id});
    reply["result"] = result;
    turn.said = vec![reply];
}

fn refuse(turn: &mut Turn, code: i64) {
    let id = heard(turn, "/id");
    turn.said = vec![json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "planted"}})];
}

pub(crate) fn set(turn: &mut Turn, pointer: &str, value: Value) {
    if let Some(place) = turn.result().and_then(|result| result.pointer_mut(pointer)) {
        *place = value;
    }
}

const SESSIONS: &[Planted] = planted! {
    "agrees on an older version" "M01" |turn| { if heard(turn, "/params/protocolVersion") == "2025-11-25" { set(turn, "/protocolVersion", json!("2025-06-18")); } }
    "echoes an unknown version" "M02" |turn| { let asked = heard(turn, "/params/protocolVersion"); if asked == "1.0.0" { set(turn, "/protocolVersion", asked); } }
    "needs no version" "M03" |turn| { if turn.method() == "initialize" && heard(turn, "/params/protocolVersion").is_null() { answer(turn, json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}})); } }
    "needs no capabilities" "M04" |turn| { if turn.method() == "initialize" && heard(turn, "/params/capabilities").is_null() { answer(turn, json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}})); } }
    "needs no clientInfo" "M05" |turn| { if turn.method() == "initialize" && heard(turn, "/params/clientInfo").is_null() { answer(turn, json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}})); } }
    "states a capability as true" "M06" |turn| { if turn.method() == "initialize" { set(turn, "/capabilities/prompts", json!(true)); } }
    "has no version" "M07" |turn| { if turn.method() == "initialize" { set(turn, "/serverInfo/version", Value::Null); } }
    "serves before initialize" "M08" |turn| { if turn.method() == "tools/list" && turn.error().is_some_and(|error| error["message"] == "initialize comes first") { answer(turn, json!({"tools": []})); } }
    "makes up a version for old clients" "M09" |turn| { if heard(turn, "/params/protocolVersion") == "2024-11-05" { set(turn, "/protocolVersion", json!("2024-12-24")); } }
    "speaks before initialized" "M10" |turn| { if turn.method() == "initialize" && turn.result().is_some() { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})); } }
    "ping tells something" "M12" |turn| { if is_ok(turn, "ping") && heard(turn, "/id") == 3 { set(turn, "", json!({"pong": true})); } }
    "answers initialized" "M13" |turn| { if turn.method() == "notifications/initialized" { turn.said.push(json!({"jsonrpc": "2.0", "id": "i", "result": {}})); } }
    "gives a newer client an empty welcome" "M15" |turn| { if turn.method() == "server/discover" { answer(turn, json!({})); } }
    "serves an undeclared method" "M14" |turn| { if turn.method() == "tasks/list" { answer(turn, json!({"tasks": []})); } }
    "serves the id null" "M16" |turn| { if turn.heard.as_ref().is_some_and(|heard| heard.get("id") == Some(&Value::Null)) && turn.method() == "ping" { turn.said = vec![json!({"jsonrpc": "2.0", "id": "null", "result": {}})]; } }
    "serves a fractional id" "M17" |turn| { if heard(turn, "/id") == 1.5 { turn.said = vec![json!({"jsonrpc": "2.0", "id": "1.5", "result": {}})]; } }
    "cuts long ids" "M18" |turn| { if heard(turn, "/id").as_str().is_some_and(|id| id.len() > 256) { turn.said[0]["id"] = json!("x".repeat(256)); } }
    "serves a notification with an id" "M19" |turn| { if heard(turn, "/id") == "n-1" { answer(turn, json!({})); } }
    "answers stray responses" "M20" |turn| { if turn.method().is_empty() && heard(turn, "/id") == "nobody-asked" { turn.said.push(json!({"jsonrpc": "2.0", "id": "nobody-asked", "error": {"code": -32600, "message": "what?"}})); } }
    "serves array params" "M21" |turn| { if heard(turn, "/params").is_array() { answer(turn, json!({"tools": []})); } }
    "loses twins" "M22" |turn| { if heard(turn, "/id") == "twin" { turn.said.clear(); } }
    "answers with another's payload" "M23" |turn| { if heard(turn, "/params/arguments/text") == "payload-40." { set(turn, "/content/0/text", json!("payload-41.")); } }
    "refuses unknown members" "M24" |turn| { if heard(turn, "/x-unknown").is_object() { refuse(turn, -32600); } }
    "leaves at a lone surrogate" "M25" |turn| { if turn.text.contains("\\ud800") { turn.said.clear(); turn.leaves = true; } }
    "cuts large arguments" "M26" |turn| { if heard(turn, "/params/arguments/text").as_str().is_some_and(|text| text.len() > 60_000) { set(turn, "/content/0/text", json!("cut")); } }
    "sends params that are no object" "M27" |turn| { if turn.tool() == "toggle" { turn.said.insert(0, json!({"jsonrpc": "2.0", "method": "notifications/custom", "params": "text"})); } }
    "tells what it did not declare" "M28" |turn| { if turn.tool() == "toggle" { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})); } }
    "asks who cannot sample" "M29" |turn| { if turn.tool() == "media" { turn.said.insert(0, json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})); } }
    "has a tool without a schema" "M30" |turn| { if turn.method() == "tools/list" { set(turn, "/tools/3/inputSchema", Value::Null); } }
    "lists a tool twice" "M31" |turn| { if is_ok(turn, "tools/list") && heard(turn, "/params/cursor").is_null() && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut()) { let first = tools[0].clone(); tools.push(first); } }
    "has a name with blanks" "M32" |turn| { if is_ok(turn, "tools/list") && heard(turn, "/params/cursor").is_null() && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut()) { tools.push(json!({"name": "my tool", "inputSchema": {"type": "object"}})); } }
    "lists in another order each time" "M33" |turn| { if heard(turn, "/id") == 4 && is_ok(turn, "tools/list") && heard(turn, "/params/cursor").is_null() && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut()) { tools.reverse(); } }
    "takes any cursor" "M35" |turn| { if heard(turn, "/params/cursor") == "never-given-by-you" { answer(turn, json!({"tools": []})); } }
    "has parts of unknown type" "M36" |turn| { if turn.tool() == "echo" && let Some(parts) = turn.result().and_then(|result| result["content"].as_array_mut()) { parts.push(json!({"type": "txt"})); } }
    "sends a picture that is no base64" "M37" |turn| { if turn.tool() == "media" { set(turn, "/content/1/data", json!("not base64!")); } }
    "strips control characters" "M38" |turn| { if turn.tool() == "echo" { let clean = heard(turn, "/params/arguments/text").as_str().map(|text| text.replace('\u{1b}', "")).unwrap_or_default(); set(turn, "/content/0/text", json!(clean)); } }
    "takes an unknown tool for failed work" "M39" |turn| { if turn.tool() == "harness-no-such-tool" { answer(turn, json!({"content": [], "isError": true})); } }
    "answers a missing argument by -32603" "M40" |turn| { if turn.tool() == "echo" && heard(turn, "/params/arguments") == json!({}) { refuse(turn, -32603); } }
    "takes any arguments" "M41" |turn| { if turn.tool() == "echo" && heard(turn, "/params/arguments").is_array() { answer(turn, json!({"content": [{"type": "text", "text": ""}]})); } }
    "fails as a protocol error" "M42" |turn| { if turn.tool() == "fail" { refuse(turn, -32000); } }
    "tells its stack" "M43" |turn| { if turn.tool() == "fail" { set(turn, "/content/0/text", json!("Traceback (most recent call last): /home/me/server.py")); } }
    "forgets structured content" "M44" |turn| { if turn.tool() == "structured" && let Some(result) = turn.result().and_then(Value::as_object_mut) { result.remove("structuredContent"); result["content"] = json!([{"type": "text", "text": "null"}]); result.remove("content"); result.insert("content".into(), json!([])); } }
    "breaks its own schema" "M45" |turn| { if turn.tool() == "structured" { set(turn, "/structuredContent/sum", json!("three")); set(turn, "/content/0/text", json!("{\"sum\":\"three\"}")); } }
    "does not mirror structured content" "M46" |turn| { if turn.tool() == "structured" { set(turn, "/content/0/text", json!("three")); } }
    "does not tell changed tools" "M47" |turn| { if turn.tool() == "toggle" { turn.said.retain(|said| said.get("id").is_some()); } }
    "lists a resource without a name" "M49" |turn| { if turn.method() == "resources/list" { set(turn, "/resources/0/name", Value::Null); } }
    "reads text and blob at once" "M50" |turn| { if heard(turn, "/params/uri") == "fixture://text" && let Some(one) = turn.result().and_then(|result| result.pointer_mut("/contents/0")) { one["blob"] = json!("AAAA"); } }
    "reads a blob that is no base64" "M51" |turn| { if heard(turn, "/params/uri") == "fixture://blob" { set(turn, "/contents/0/blob", json!("\u{0}\u{1}")); } }
    "has a template without a name" "M52" |turn| { if turn.method() == "resources/templates/list" { set(turn, "/resourceTemplates/0/name", Value::Null); } }
    "answers a missing resource by nothing" "M53" |turn| { if heard(turn, "/params/uri") == "fixture://no/such/resource" { answer(turn, json!({"contents": []})); } }
    "climbs out" "M54" |turn| { if heard(turn, "/params/uri").as_str().is_some_and(|uri| uri.contains("%2e%2e")) { answer(turn, json!({"contents": [{"uri": "x", "text": "root:x:0:0"}]})); } }
    "never tells a change" "M55" |turn| { turn.said.retain(|said| said["method"] != "notifications/resources/updated"); }
    "lists a prompt without a name" "M58" |turn| { if turn.method() == "prompts/list" { set(turn, "/prompts/1/name", Value::Null); } }
    "has a prompt of nobody" "M59" |turn| { if turn.method() == "prompts/get" { set(turn, "/messages/0/role", json!("robot")); } }
    "answers an unknown prompt by -32603" "M60" |turn| { if heard(turn, "/params/name") == "harness-no-such-prompt" { refuse(turn, -32603); } }
    "needs no argument" "M61" |turn| { if turn.method() == "prompts/get" && turn.error().is_some_and(|error| error["message"].as_str().is_some_and(|text| text.contains("missing"))) { answer(turn, json!({"messages": []})); } }
    "completes without end" "M62" |turn| { if is_ok(turn, "completion/complete") { set(turn, "/completion/values", json!(vec!["x"; 101])); } }
    "completes what it does not know" "M63" |turn| { if heard(turn, "/params/ref/type") == "ref/nothing" { answer(turn, json!({"completion": {"values": []}})); } }
    "does not filter its log" "M64" |turn| { if turn.tool() == "log" && heard(turn, "/params/arguments/text") == "too low" { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "debug", "data": "too low"}})); } }
    "logs nothing" "M65" |turn| { if turn.tool() == "log" && heard(turn, "/params/arguments/level") == "critical" { turn.said.retain(|said| said.get("id").is_some()); } }
    "takes any level" "M66" |turn| { if turn.method() == "logging/setLevel" { answer(turn, json!({})); } }
    "logs at a level of its own" "M67" |turn| { for said in &mut turn.said { if said["method"] == "notifications/message" { said["params"]["level"] = json!("warn"); } } }
    "progress stands still" "M68" |turn| { for said in &mut turn.said { if said["method"] == "notifications/progress" { said["params"]["progress"] = json!(1); } } }
    "tells progress unasked" "M69" |turn| { if turn.tool() == "progress" && heard(turn, "/params/_meta").is_null() { turn.said.insert(0, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 0, "progress": 1}})); } }
    "tells progress after the reply" "M70" |turn| { let token = heard(turn, "/params/_meta/progressToken"); if turn.tool() == "progress" && !token.is_null() { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 4}})); } }
    "answers cancellations" "M72" |turn| { if turn.method() == "notifications/cancelled" && heard(turn, "/params/requestId") == "never-sent" { turn.said.push(json!({"jsonrpc": "2.0", "id": "c", "error": {"code": -32602, "message": "unknown"}})); } }
    "finishes cancelled work" "M74" |turn| { if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "work" { set(turn, "/content/0/text", json!("1")); } }
};

/// Defects that remember something from one turn to the next.
fn remembering() -> Vec<Defect> {
    let memory = || Mutex::new(BTreeMap::<String, Value>::new());
    let seen = || Mutex::new(BTreeSet::<String>::new());
    let mut all: Vec<Defect> = Vec::new();
    let begun = seen();
    all.push((
        "a second initialize resets",
        "M11",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.method() == "initialize" && !begun.lock().unwrap().insert(session.clone()) {
                begun.lock().unwrap().insert(format!("{session} reset"));
            }
            if turn.tool() == "recall" && begun.lock().unwrap().contains(&format!("{session} reset")) {
                set(turn, "/content/0/text", json!("nothing"));
            }
        }),
    ));
    all.push(("pages overlap", "M34", Box::new(|turn| {
        if is_ok(turn, "tools/list") && heard(turn, "/params/cursor") == "page-8"
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            tools.insert(0, json!({"name": "echo", "description": "the fixture echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}));
        }
    })));
    all.push((
        "the list never changes",
        "M48",
        Box::new(|turn| {
            if is_ok(turn, "tools/list")
                && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
            {
                tools.retain(|tool| tool["name"] != "extra");
            }
        }),
    ));
    let subscribed = seen();
    all.push(("unsubscribing does nothing", "M56", Box::new(move |turn| {
        let session = turn.session.to_string();
        match turn.method() {
            "resources/unsubscribe" => { subscribed.lock().unwrap().insert(session); }
            _ if turn.tool() == "touch" && subscribed.lock().unwrap().contains(&session) => {
                turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "fixture://text"}}));
            }
            _ => {}
        }
    })));
    all.push((
        "everybody is told of a change",
        "M57",
        Box::new(|turn| {
            let updates: Vec<_> =
                turn.said.iter().filter(|said| said["method"] == "notifications/resources/updated").cloned().collect();
            if !updates.is_empty() {
                turn.said.retain(|said| said["method"] != "notifications/resources/updated");
                turn.everyone.extend(updates);
            }
        }),
    ));
    let held = memory();
    all.push((
        "a cancelled call is answered",
        "M71",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.method() == "notifications/cancelled" && heard(turn, "/params/requestId").is_u64() {
                held.lock().unwrap().insert(session.clone(), heard(turn, "/params/requestId"));
            }
            if turn.tool() == "release"
                && heard(turn, "/params/arguments/key") == "cancelled"
                && let Some(id) = held.lock().unwrap().remove(&session)
            {
                turn.said.insert(0, json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}));
            }
        }),
    ));
    all.push((
        "a cancellation takes all",
        "M73",
        Box::new(|turn| {
            if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "one" {
                let own = heard(turn, "/id");
                turn.said.retain(|said| said["id"] == own);
            }
        }),
    ));
    let waiting = seen();
    all.push((
        "one at a time",
        "M75",
        Box::new(move |turn| {
            let session = turn.session.to_string();
            if turn.tool() == "hold" && heard(turn, "/params/arguments/key") == "line" {
                waiting.lock().unwrap().insert(session);
            } else if waiting.lock().unwrap().contains(&session) {
                turn.said.clear();
            }
        }),
    ));
    all.push((
        "a late answer comes twice",
        "M76",
        Box::new(|turn| {
            if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "late" {
                let first = turn.said[0].clone();
                turn.said.push(first);
            }
        }),
    ));
    let shared = memory();
    all.push((
        "state is shared",
        "M77",
        Box::new(move |turn| {
            let key = heard(turn, "/params/arguments/key").to_string();
            if turn.tool() == "remember" {
                shared.lock().unwrap().insert(key, heard(turn, "/params/arguments/value"));
            } else if turn.tool() == "recall"
                && let Some(value) = shared.lock().unwrap().get(&key)
            {
                set(turn, "/content/0/text", value.clone());
            }
        }),
    ));
    all.push((
        "replies go to everybody",
        "M78",
        Box::new(|turn| {
            if heard(turn, "/params/arguments/text").as_str().is_some_and(|text| text.starts_with("canary-b")) {
                turn.everyone.append(&mut turn.said);
            }
        }),
    ));
    let left = Arc::new(memory());
    all.push((
        "a reply reaches the next session",
        "M79",
        Box::new(move |turn| {
            if heard(turn, "/params/arguments/key") != "left" {
                return;
            }
            if turn.tool() == "hold" {
                left.lock().unwrap().insert("left".into(), json!(format!("left-{}", heard(turn, "/id"))));
            } else if let Some(id) = left.lock().unwrap().remove("left") {
                turn.said.insert(0, json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}));
            }
        }),
    ));
    let last = memory();
    all.push((
        "errors tell the last argument",
        "M80",
        Box::new(move |turn| {
            if turn.tool() == "echo" {
                last.lock().unwrap().insert("last".into(), heard(turn, "/params/arguments/text"));
            } else if turn.method() == "harness/no-such-method"
                && let (Some(text), Some(error)) = (last.lock().unwrap().get("last"), turn.error())
            {
                error["message"] = json!(format!("after {text}: no such method"));
            }
        }),
    ));
    all
}

const STATELESS: &[Planted] = planted! {
    "lists another version too late" "N01" |turn| { if turn.method() == "server/discover" && heard(turn, "/id") == 3 { set(turn, "/supportedVersions", json!(["2025-11-25"])); } }
    "has no name" "N02" |turn| { if turn.method() == "server/discover" { set(turn, "/serverInfo/name", Value::Null); } }
    "forgets the type of a result" "N03" |turn| { if turn.tool() == "fail" && let Some(result) = turn.result().and_then(Value::as_object_mut) { result.remove("resultType"); } }
    "needs no _meta" "N04" |turn| { if heard(turn, "/id") == "bare" { answer(turn, json!({"tools": [], "resultType": "complete"})); } }
    "needs no version" "N05" |turn| { if heard(turn, "/id") == "no-version" { answer(turn, json!({"tools": [], "resultType": "complete"})); } }
    "needs no capabilities" "N06" |turn| { if heard(turn, "/id") == "no-capabilities" { answer(turn, json!({"tools": [], "resultType": "complete"})); } }
    "does not say what it supports" "N07" |turn| { if let Some(error) = turn.error() && error["code"] == -32022 { error["data"] = Value::Null; } }
    "answers a missing capability by -32602" "N08" |turn| { if let Some(error) = turn.error() && error["code"] == -32021 { error["code"] = json!(-32602); } }
    "still answers ping" "N09" |turn| { if turn.method() == "ping" { answer(turn, json!({"resultType": "complete"})); } }
    "lists another tool on every connection" "N10" |turn| { let name = format!("tool-{}", turn.session); if is_ok(turn, "tools/list") && heard(turn, "/params/cursor").is_null() && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut()) { tools.push(json!({"name": name, "inputSchema": {"type": "object"}})); } }
    "logs unasked" "N11" |turn| { if turn.tool() == "log" && turn.said.len() == 1 && heard(turn, "/params/arguments/level") == "critical" { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "critical", "data": "said"}})); } }
    "does not log when asked" "N12" |turn| { if turn.tool() == "log" { turn.said.retain(|said| said["method"] != "notifications/message"); } }
    "acknowledges under another id" "N13" |turn| { if heard(turn, "/id") == 3 { for said in &mut turn.said { if said["method"] == "notifications/subscriptions/acknowledged" { said["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] = json!("another"); } } } }
    "tells what nobody opted for" "N14" |turn| { if turn.tool() == "touch" && turn.said.len() == 1 { turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/prompts/updated", "params": {}})); } }
    "asks to sample like in old days" "M29" |turn| { if turn.tool() == "media" { turn.said.insert(0, json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {}})); } }
    "does not say that it needs input" "N18" |turn| { if turn.result().is_some_and(|result| result["resultType"] == "input_required") { set(turn, "/resultType", json!("needs_input")); } }
    "takes any state" "N19" |turn| { if heard(turn, "/params/requestState") == "made up" { answer(turn, json!({"content": [], "resultType": "complete"})); } }
    "never has enough input" "N20" |turn| { if heard(turn, "/params/requestState") == "state-of-sample" { refuse(turn, -32603); } }
    "does not say how long a list is good" "N21" |turn| { if turn.method() == "tools/list" { set(turn, "/ttlMs", json!(-1)); } }
    "drops the trace" "N22" |turn| { if turn.tool() == "trace" { set(turn, "/content/0/text", json!("none")); } }
    "refuses unknown _meta" "N24" |turn| { if heard(turn, "/params/_meta/com.example~1unknown").is_object() { refuse(turn, -32602); } }
    "makes up a code" "N25" |turn| { if turn.tool() == "harness-no-such-tool" { turn.said.insert(0, json!({"jsonrpc": "2.0", "id": "other", "error": {"code": -32042, "message": "made up"}})); } }
};

/// Runs the checks against every planted defect, several at a time; what was not caught by its own check alone.
async fn escapes(defects: Vec<Defect>, version: Version) -> Vec<String> {
    let (profile, scope) = (Profile::new(version), Scope::default().limit(Duration::from_millis(700)).strict());
    // Every defect meets its own check; every eighth meets all of them, or every one in the long run.
    let every = if Settings::get().rounds.is_some() { 1 } else { 8 };
    // Rules about all messages together need the messages of all checks.
    let together = ["M27", "M28", "M29", "N03", "N25"];
    let runs = defects.into_iter().enumerate().map(|(n, (name, check, tamper))| {
        let profile = &profile;
        let scope =
            if n % every == 0 || together.contains(&check) { scope.clone() } else { scope.clone().only([check]) };
        async move {
            let findings = judge(Script::new(version).tamper(tamper), profile, &scope).await;
            let caught = findings.failed() == [check];
            let evidence = findings
                .get(check)
                .is_some_and(|finding| finding.evidence.len() > 1 && finding.evidence[0].starts_with("spec https://"));
            (!caught || !evidence).then(|| {
                format!(
                    "`{name}` should fail {check} alone: {:?}\n{}",
                    findings.failed(),
                    findings
                        .list()
                        .iter()
                        .filter(|finding| finding.outcome.is_fail())
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("\n")
                )
            })
        }
    });
    stream::iter(runs).buffer_unordered(8).filter_map(|escaped| async { escaped }).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_defect_of_a_session_fails_exactly_its_own_check() {
    let mut defects: Vec<_> = SESSIONS.iter().map(|(name, check, make)| (*name, *check, make())).collect();
    defects.extend(remembering());
    let checks: BTreeSet<_> = defects.iter().map(|(_, check, _)| *check).collect();
    assert!(checks.len() >= 70, "{} checks have a planted defect", checks.len());
    let begun = Instant::now();
    let escaped = escapes(defects, Version::V2025_11_25).await;
    assert!(escaped.is_empty(), "{} of {}:\n{}", escaped.len(), checks.len(), escaped.join("\n"));
    println!("{} checks, each with its defect, in {:?}", checks.len(), begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_defect_of_the_stateless_era_fails_exactly_its_own_check() {
    let defects: Vec<_> = STATELESS.iter().map(|(name, check, make)| (*name, *check, make())).collect();
    let escaped = escapes(defects, Version::V2026_07_28).await;
    assert!(escaped.is_empty(), "{} of {}:\n{}", escaped.len(), STATELESS.len(), escaped.join("\n"));
}

#[tokio::test]
async fn a_wish_that_is_not_met_is_degraded_unless_the_scope_is_strict() {
    let careless = || {
        Script::new(Version::V2025_11_25).tamper(|turn| {
            if turn.method() == "logging/setLevel" {
                answer(turn, json!({}));
            }
        })
    };
    let profile = Profile::new(Version::V2025_11_25);
    let loose = judge(careless(), &profile, &Scope::default().only(["M66"])).await;
    assert!(loose.check().is_ok() && loose.get("M66").unwrap().outcome.word() == "degraded", "{loose}");
    assert_eq!(judge(careless(), &profile, &Scope::default().only(["M66"]).strict()).await.failed(), ["M66"]);
}

#[tokio::test]
async fn disabling_a_check_lets_its_defect_escape_and_is_not_silent() {
    let broken = Script::new(Version::V2025_11_25).tamper(|turn| {
        if turn.tool() == "harness-no-such-tool" {
            answer(turn, json!({"content": []}));
        }
    });
    let findings = judge(broken, &Profile::new(Version::V2025_11_25), &scope().skip("M39")).await;
    assert!(findings.failed().is_empty(), "{findings}");
    assert_eq!(findings.get("M39").unwrap().outcome.word(), "not applicable");
}

#[tokio::test]
async fn server_that_answers_nothing_passes_nothing() {
    let mute = Script::new(Version::V2025_11_25).tamper(|turn| turn.said.clear());
    let scope = Scope::default().limit(Duration::from_millis(50));
    let findings = judge(mute, &Profile::new(Version::V2025_11_25), &scope).await;
    let passed: Vec<_> =
        findings.list().iter().filter(|finding| finding.outcome.is_pass()).map(|finding| finding.id).collect();
    assert!(passed.iter().all(|id| ["M27", "M28", "M29"].contains(id)), "{passed:?}");
    assert_eq!(findings.check().unwrap_err().kind(), ErrorKind::Assertion);
}

#[tokio::test]
async fn a_finding_can_be_replayed_against_any_build() -> Result {
    let version = Version::V2025_11_25;
    let broken = || {
        Script::new(version).tamper(|turn| {
            if turn.tool() == "harness-no-such-tool" {
                answer(turn, json!({"content": []}))
            }
        })
    };
    let profile = Profile::new(version);
    let findings = judge(broken(), &profile, &scope().only(["M39"])).await;
    let evidence = &findings.get("M39").unwrap().evidence;
    for (script, same) in [(broken(), true), (Script::new(version), false)] {
        let stub = McpStub::start(script).await?;
        let again = replay(&Target::at(&stub.ws_url())?, &profile, evidence, Duration::from_secs(2)).await?;
        assert_eq!(again.same, same, "{:#?}", again.lines);
    }
    Ok(())
}

#[tokio::test]
async fn expected_failures_are_accepted_and_stale_entries_are_not() -> Result {
    let version = Version::V2025_11_25;
    let broken = Script::new(version).tamper(|turn| {
        if turn.tool() == "harness-no-such-tool" {
            answer(turn, json!({"content": []}))
        }
    });
    let findings = judge(broken, &Profile::new(version), &scope().only(["M38", "M39"])).await;
    Expected::parse("M39 takes unknown tools\n")?.judge(&findings)?;
    for wrong in ["", "M39 x\nM38 y\n"] {
        assert_eq!(Expected::parse(wrong)?.judge(&findings).unwrap_err().kind(), ErrorKind::Assertion, "{wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn typed_session_reaches_every_feature_over_both_transports() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25).page(3)).await?;
    for url in [stub.ws_url(), stub.http_url()] {
        let mut mcp = Mcp::connect(&Target::at(&url)?, &Profile::named("mcp-2025-11-25")?).await?;
        mcp.ping().await?;
        let tools = mcp.list_tools().await?;
        assert!(tools.len() > 10 && tools.iter().any(|tool| tool.name == "echo"), "{} tools over {url}", tools.len());
        assert_eq!(mcp.call_tool("echo", json!({"text": "ü"})).await?.text(), "ü");
        assert!(mcp.call_tool("fail", json!({})).await?.is_error);
        assert_eq!(mcp.call_tool("structured", json!({})).await?.structured, Some(json!({"sum": 3})));
        assert_eq!(mcp.list_resources().await?[0].uri, "fixture://text");
        assert_eq!(mcp.read_resource("fixture://item/a1").await?[0]["text"], "item a1");
        assert_eq!(mcp.list_resource_templates().await?.len(), 1);
        mcp.subscribe("fixture://text").await?;
        mcp.call_tool("touch", json!({"uri": "fixture://text"})).await?;
        assert_eq!(mcp.notification("notifications/resources/updated").await?["params"]["uri"], "fixture://text");
        mcp.unsubscribe("fixture://text").await?;
        assert_eq!(mcp.list_prompts().await?.len(), 2);
        assert_eq!(mcp.get_prompt("greet", json!({"name": "you"})).await?[0]["content"]["text"], "greet you");
        assert_eq!(mcp.complete(json!({"type": "ref/prompt", "name": "greet"}), "name", "an").await?, ["anna"]);
        mcp.set_level("error").await?;
        let held = mcp.start("tools/call", json!({"name": "hold", "arguments": {"key": "k"}})).await?;
        mcp.ping().await?;
        mcp.cancel(&held, "enough").await?;
        assert_eq!(mcp.call_tool("release", json!({"key": "k"})).await?.text(), "0");
        assert!(mcp.close().await?, "{url}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_of_the_server_are_answered_as_the_client_says() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25)).await?;
    let profile = Profile::named("mcp-2025-11-25")?.client_capabilities(json!({"sampling": {}}));
    let mut mcp = Mcp::connect(&Target::at(&stub.ws_url())?, &profile).await?;
    let content = json!({"role": "assistant", "content": {"type": "text", "text": "a word"}, "model": "none"});
    mcp.answers("sampling/createMessage", content);
    assert_eq!(mcp.call_tool("sample", json!({})).await?.text(), "a word");
    assert_eq!(mcp.asked().len(), 1);
    Ok(())
}

#[tokio::test]
async fn waits_end_at_their_limit_and_say_what_was_said() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25).mute("tools/list")).await?;
    let profile = Profile::named("mcp-2025-11-25")?;
    let mut mcp = Mcp::connect_within(&Target::at(&stub.ws_url())?, &profile, Duration::from_millis(200)).await?;
    let error = mcp.list_tools().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(format!("{error:?}").contains("tools/list"), "{error:?}");
    let error = Mcp::connect(&Target::at(&stub.ws_url())?, &Profile::named("mcp-2026-07-28")?).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    assert_eq!(Target::at("ftp://x").unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}
