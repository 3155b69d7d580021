//! Planted defects of an MCP server with sessions, each with the check that has to notice it, and no other.

use harness_ws::mcp::Turn;
use serde_json::{Value, json};

/// A planted defect: a name, the check it belongs to, and what it does to a turn.
pub(crate) type Planted = (&'static str, &'static str, fn(&mut Turn));
/// The same, with a memory of its own.
pub(crate) type Defect = (&'static str, &'static str, Box<dyn Fn(&mut Turn) + Send + Sync>);

pub(crate) fn is_ok(turn: &mut Turn, method: &str) -> bool {
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

pub(crate) fn refuse(turn: &mut Turn, code: i64) {
    let id = heard(turn, "/id");
    turn.said = vec![json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "planted"}})];
}

pub(crate) fn set(turn: &mut Turn, pointer: &str, value: Value) {
    if let Some(place) = turn.result().and_then(|result| result.pointer_mut(pointer)) {
        *place = value;
    }
}

pub(crate) const SESSIONS: &[Planted] = &[
    ("agrees on an older version", "M01", |turn| {
        if heard(turn, "/params/protocolVersion") == "2025-11-25" {
            set(turn, "/protocolVersion", json!("2025-06-18"));
        }
    }),
    ("echoes an unknown version", "M02", |turn| {
        let asked = heard(turn, "/params/protocolVersion");
        if asked == "1.0.0" {
            set(turn, "/protocolVersion", asked);
        }
    }),
    ("needs no version", "M03", |turn| {
        if turn.method() == "initialize" && heard(turn, "/params/protocolVersion").is_null() {
            answer(
                turn,
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}),
            );
        }
    }),
    ("needs no capabilities", "M04", |turn| {
        if turn.method() == "initialize" && heard(turn, "/params/capabilities").is_null() {
            answer(
                turn,
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}),
            );
        }
    }),
    ("needs no clientInfo", "M05", |turn| {
        if turn.method() == "initialize" && heard(turn, "/params/clientInfo").is_null() {
            answer(
                turn,
                json!({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}),
            );
        }
    }),
    ("states a capability as true", "M06", |turn| {
        if turn.method() == "initialize" {
            set(turn, "/capabilities/prompts", json!(true));
        }
    }),
    ("has no version", "M07", |turn| {
        if turn.method() == "initialize" {
            set(turn, "/serverInfo/version", Value::Null);
        }
    }),
    ("serves before initialize", "M08", |turn| {
        if turn.method() == "tools/list"
            && turn.error().is_some_and(|error| error["message"] == "initialize comes first")
        {
            answer(turn, json!({"tools": []}));
        }
    }),
    ("makes up a version for old clients", "M09", |turn| {
        if heard(turn, "/params/protocolVersion") == "2024-11-05" {
            set(turn, "/protocolVersion", json!("2024-12-24"));
        }
    }),
    ("speaks before initialized", "M10", |turn| {
        if turn.method() == "initialize" && turn.result().is_some() {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
        }
    }),
    ("ping tells something", "M12", |turn| {
        if is_ok(turn, "ping") && heard(turn, "/id") == 3 {
            set(turn, "", json!({"pong": true}));
        }
    }),
    ("answers initialized", "M13", |turn| {
        if turn.method() == "notifications/initialized" {
            turn.said.push(json!({"jsonrpc": "2.0", "id": "i", "result": {}}));
        }
    }),
    ("gives a newer client an empty welcome", "M15", |turn| {
        if turn.method() == "server/discover" {
            answer(turn, json!({}));
        }
    }),
    ("serves an undeclared method", "M14", |turn| {
        if turn.method() == "tasks/list" {
            answer(turn, json!({"tasks": []}));
        }
    }),
    ("serves the id null", "M16", |turn| {
        if turn.heard.as_ref().is_some_and(|heard| heard.get("id") == Some(&Value::Null)) && turn.method() == "ping" {
            turn.said = vec![json!({"jsonrpc": "2.0", "id": "null", "result": {}})];
        }
    }),
    ("serves a fractional id", "M17", |turn| {
        if heard(turn, "/id") == 1.5 {
            turn.said = vec![json!({"jsonrpc": "2.0", "id": "1.5", "result": {}})];
        }
    }),
    ("cuts long ids", "M18", |turn| {
        if heard(turn, "/id").as_str().is_some_and(|id| id.len() > 256) {
            turn.said[0]["id"] = json!("x".repeat(256));
        }
    }),
    ("serves a notification with an id", "M19", |turn| {
        if heard(turn, "/id") == "n-1" {
            answer(turn, json!({}));
        }
    }),
    ("answers stray responses", "M20", |turn| {
        if turn.method().is_empty() && heard(turn, "/id") == "nobody-asked" {
            turn.said
                .push(json!({"jsonrpc": "2.0", "id": "nobody-asked", "error": {"code": -32600, "message": "what?"}}));
        }
    }),
    ("serves array params", "M21", |turn| {
        if heard(turn, "/params").is_array() {
            answer(turn, json!({"tools": []}));
        }
    }),
    ("loses twins", "M22", |turn| {
        if heard(turn, "/id") == "twin" {
            turn.said.clear();
        }
    }),
    ("answers with another's payload", "M23", |turn| {
        if heard(turn, "/params/arguments/text") == "payload-40." {
            set(turn, "/content/0/text", json!("payload-41."));
        }
    }),
    ("refuses unknown members", "M24", |turn| {
        if heard(turn, "/x-unknown").is_object() {
            refuse(turn, -32600);
        }
    }),
    ("leaves at a lone surrogate", "M25", |turn| {
        if turn.text.contains("\\ud800") {
            turn.said.clear();
            turn.leaves = true;
        }
    }),
    ("cuts large arguments", "M26", |turn| {
        if heard(turn, "/params/arguments/text").as_str().is_some_and(|text| text.len() > 60_000) {
            set(turn, "/content/0/text", json!("cut"));
        }
    }),
    ("sends params that are no object", "M27", |turn| {
        if turn.tool() == "toggle" {
            turn.said.insert(0, json!({"jsonrpc": "2.0", "method": "notifications/custom", "params": "text"}));
        }
    }),
    ("tells what it did not declare", "M28", |turn| {
        if turn.tool() == "toggle" {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}));
        }
    }),
    ("asks who cannot sample", "M29", |turn| {
        if turn.tool() == "media" {
            turn.said.insert(0, json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}));
        }
    }),
    ("has a tool without a schema", "M30", |turn| {
        if turn.method() == "tools/list" {
            set(turn, "/tools/3/inputSchema", Value::Null);
        }
    }),
    ("lists a tool twice", "M31", |turn| {
        if is_ok(turn, "tools/list")
            && heard(turn, "/params/cursor").is_null()
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            let first = tools[0].clone();
            tools.push(first);
        }
    }),
    ("has a name with blanks", "M32", |turn| {
        if is_ok(turn, "tools/list")
            && heard(turn, "/params/cursor").is_null()
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            tools.push(json!({"name": "my tool", "inputSchema": {"type": "object"}}));
        }
    }),
    ("lists in another order each time", "M33", |turn| {
        if heard(turn, "/id") == 4
            && is_ok(turn, "tools/list")
            && heard(turn, "/params/cursor").is_null()
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            tools.reverse();
        }
    }),
    ("takes any cursor", "M35", |turn| {
        if heard(turn, "/params/cursor") == "never-given-by-you" {
            answer(turn, json!({"tools": []}));
        }
    }),
    ("has parts of unknown type", "M36", |turn| {
        if turn.tool() == "echo"
            && let Some(parts) = turn.result().and_then(|result| result["content"].as_array_mut())
        {
            parts.push(json!({"type": "txt"}));
        }
    }),
    ("sends a picture that is no base64", "M37", |turn| {
        if turn.tool() == "media" {
            set(turn, "/content/1/data", json!("not base64!"));
        }
    }),
    ("strips control characters", "M38", |turn| {
        if turn.tool() == "echo" {
            let clean = heard(turn, "/params/arguments/text")
                .as_str()
                .map(|text| text.replace('\u{1b}', ""))
                .unwrap_or_default();
            set(turn, "/content/0/text", json!(clean));
        }
    }),
    ("takes an unknown tool for failed work", "M39", |turn| {
        if turn.tool() == "harness-no-such-tool" {
            answer(turn, json!({"content": [], "isError": true}));
        }
    }),
    ("answers a missing argument by -32603", "M40", |turn| {
        if turn.tool() == "echo" && heard(turn, "/params/arguments") == json!({}) {
            refuse(turn, -32603);
        }
    }),
    ("takes any arguments", "M41", |turn| {
        if turn.tool() == "echo" && heard(turn, "/params/arguments").is_array() {
            answer(turn, json!({"content": [{"type": "text", "text": ""}]}));
        }
    }),
    ("fails as a protocol error", "M42", |turn| {
        if turn.tool() == "fail" {
            refuse(turn, -32000);
        }
    }),
    ("tells its stack", "M43", |turn| {
        if turn.tool() == "fail" {
            set(turn, "/content/0/text", json!("Traceback (most recent call last): /home/me/server.py"));
        }
    }),
    ("forgets structured content", "M44", |turn| {
        if turn.tool() == "structured"
            && let Some(result) = turn.result().and_then(Value::as_object_mut)
        {
            result.remove("structuredContent");
        }
    }),
    ("breaks its own schema", "M45", |turn| {
        if turn.tool() == "structured" {
            set(turn, "/structuredContent/sum", json!("three"));
            set(turn, "/content/0/text", json!("{\"sum\":\"three\"}"));
        }
    }),
    ("does not mirror structured content", "M46", |turn| {
        if turn.tool() == "structured" {
            set(turn, "/content/0/text", json!("three"));
        }
    }),
    ("does not tell changed tools", "M47", |turn| {
        if turn.tool() == "toggle" {
            turn.said.retain(|said| said.get("id").is_some());
        }
    }),
    ("lists a resource without a name", "M49", |turn| {
        if turn.method() == "resources/list" {
            set(turn, "/resources/0/name", Value::Null);
        }
    }),
    ("reads text and blob at once", "M50", |turn| {
        if heard(turn, "/params/uri") == "fixture://text"
            && let Some(one) = turn.result().and_then(|result| result.pointer_mut("/contents/0"))
        {
            one["blob"] = json!("AAAA");
        }
    }),
    ("reads a blob that is no base64", "M51", |turn| {
        if heard(turn, "/params/uri") == "fixture://blob" {
            set(turn, "/contents/0/blob", json!("\u{0}\u{1}"));
        }
    }),
    ("has a template without a name", "M52", |turn| {
        if turn.method() == "resources/templates/list" {
            set(turn, "/resourceTemplates/0/name", Value::Null);
        }
    }),
    ("answers a missing resource by nothing", "M53", |turn| {
        if heard(turn, "/params/uri") == "fixture://no/such/resource" {
            answer(turn, json!({"contents": []}));
        }
    }),
    ("climbs out", "M54", |turn| {
        if heard(turn, "/params/uri").as_str().is_some_and(|uri| uri.contains("%2e%2e")) {
            answer(turn, json!({"contents": [{"uri": "x", "text": "root:x:0:0"}]}));
        }
    }),
    ("never tells a change", "M55", |turn| {
        turn.said.retain(|said| said["method"] != "notifications/resources/updated");
    }),
    ("lists a prompt without a name", "M58", |turn| {
        if turn.method() == "prompts/list" {
            set(turn, "/prompts/1/name", Value::Null);
        }
    }),
    ("has a prompt of nobody", "M59", |turn| {
        if turn.method() == "prompts/get" {
            set(turn, "/messages/0/role", json!("robot"));
        }
    }),
    ("answers an unknown prompt by -32603", "M60", |turn| {
        if heard(turn, "/params/name") == "harness-no-such-prompt" {
            refuse(turn, -32603);
        }
    }),
    ("needs no argument", "M61", |turn| {
        if turn.method() == "prompts/get"
            && turn.error().is_some_and(|error| error["message"].as_str().is_some_and(|text| text.contains("missing")))
        {
            answer(turn, json!({"messages": []}));
        }
    }),
    ("completes without end", "M62", |turn| {
        if is_ok(turn, "completion/complete") {
            set(turn, "/completion/values", json!(vec!["x"; 101]));
        }
    }),
    ("completes what it does not know", "M63", |turn| {
        if heard(turn, "/params/ref/type") == "ref/nothing" {
            answer(turn, json!({"completion": {"values": []}}));
        }
    }),
    ("does not filter its log", "M64", |turn| {
        if turn.tool() == "log" && heard(turn, "/params/arguments/text") == "too low" {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "debug", "data": "too low"}}));
        }
    }),
    ("logs nothing", "M65", |turn| {
        if turn.tool() == "log" && heard(turn, "/params/arguments/level") == "critical" {
            turn.said.retain(|said| said.get("id").is_some());
        }
    }),
    ("takes any level", "M66", |turn| {
        if turn.method() == "logging/setLevel" {
            answer(turn, json!({}));
        }
    }),
    ("logs at a level of its own", "M67", |turn| {
        for said in &mut turn.said {
            if said["method"] == "notifications/message" {
                said["params"]["level"] = json!("warn");
            }
        }
    }),
    ("progress stands still", "M68", |turn| {
        for said in &mut turn.said {
            if said["method"] == "notifications/progress" {
                said["params"]["progress"] = json!(1);
            }
        }
    }),
    ("tells progress unasked", "M69", |turn| {
        if turn.tool() == "progress" && heard(turn, "/params/_meta").is_null() {
            turn.said.insert(0, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 0, "progress": 1}}));
        }
    }),
    ("tells progress after the reply", "M70", |turn| {
        let token = heard(turn, "/params/_meta/progressToken");
        if turn.tool() == "progress" && !token.is_null() {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 4}}));
        }
    }),
    ("answers cancellations", "M72", |turn| {
        if turn.method() == "notifications/cancelled" && heard(turn, "/params/requestId") == "never-sent" {
            turn.said.push(json!({"jsonrpc": "2.0", "id": "c", "error": {"code": -32602, "message": "unknown"}}));
        }
    }),
    ("finishes cancelled work", "M74", |turn| {
        if turn.tool() == "release" && heard(turn, "/params/arguments/key") == "work" {
            set(turn, "/content/0/text", json!("1"));
        }
    }),
];
