//! Planted defects of an MCP server without sessions, each with the check that has to notice it, and no other.

use serde_json::{Value, json};

use crate::mcp_defects::{Planted, answer, heard, is_ok, refuse, set};

pub(crate) const STATELESS: &[Planted] = &[
    ("lists another version too late", "N01", |turn| {
        if turn.method() == "server/discover" && heard(turn, "/id") == 3 {
            set(turn, "/supportedVersions", json!(["2025-11-25"]));
        }
    }),
    ("has no name", "N02", |turn| {
        if turn.method() == "server/discover" {
            set(turn, "/serverInfo/name", Value::Null);
        }
    }),
    ("forgets the type of a result", "N03", |turn| {
        if turn.tool() == "fail"
            && let Some(result) = turn.result().and_then(Value::as_object_mut)
        {
            result.remove("resultType");
        }
    }),
    ("needs no _meta", "N04", |turn| {
        if heard(turn, "/id") == "bare" {
            answer(turn, json!({"tools": [], "resultType": "complete"}));
        }
    }),
    ("needs no version", "N05", |turn| {
        if heard(turn, "/id") == "no-version" {
            answer(turn, json!({"tools": [], "resultType": "complete"}));
        }
    }),
    ("needs no capabilities", "N06", |turn| {
        if heard(turn, "/id") == "no-capabilities" {
            answer(turn, json!({"tools": [], "resultType": "complete"}));
        }
    }),
    ("does not say what it supports", "N07", |turn| {
        if let Some(error) = turn.error()
            && error["code"] == -32022
        {
            error["data"] = Value::Null;
        }
    }),
    ("answers a missing capability by -32602", "N08", |turn| {
        if let Some(error) = turn.error()
            && error["code"] == -32021
        {
            error["code"] = json!(-32602);
        }
    }),
    ("still answers ping", "N09", |turn| {
        if turn.method() == "ping" {
            answer(turn, json!({"resultType": "complete"}));
        }
    }),
    ("lists another tool on every connection", "N10", |turn| {
        let name = format!("tool-{}", turn.session);
        if is_ok(turn, "tools/list")
            && heard(turn, "/params/cursor").is_null()
            && let Some(tools) = turn.result().and_then(|result| result["tools"].as_array_mut())
        {
            tools.push(json!({"name": name, "inputSchema": {"type": "object"}}));
        }
    }),
    ("logs unasked", "N11", |turn| {
        if turn.tool() == "log" && turn.said.len() == 1 && heard(turn, "/params/arguments/level") == "critical" {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "critical", "data": "said"}}));
        }
    }),
    ("does not log when asked", "N12", |turn| {
        if turn.tool() == "log" {
            turn.said.retain(|said| said["method"] != "notifications/message");
        }
    }),
    ("acknowledges under another id", "N13", |turn| {
        if heard(turn, "/id") == 3 {
            for said in &mut turn.said {
                if said["method"] == "notifications/subscriptions/acknowledged" {
                    said["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] = json!("another");
                }
            }
        }
    }),
    ("tells what nobody opted for", "N14", |turn| {
        if turn.tool() == "touch" && turn.said.len() == 1 {
            turn.said.push(json!({"jsonrpc": "2.0", "method": "notifications/prompts/updated", "params": {}}));
        }
    }),
    ("asks to sample like in old days", "M29", |turn| {
        if turn.tool() == "media" {
            turn.said.insert(0, json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {}}));
        }
    }),
    ("does not say that it needs input", "N18", |turn| {
        if turn.result().is_some_and(|result| result["resultType"] == "input_required") {
            set(turn, "/resultType", json!("needs_input"));
        }
    }),
    ("takes any state", "N19", |turn| {
        if heard(turn, "/params/requestState") == "made up" {
            answer(turn, json!({"content": [], "resultType": "complete"}));
        }
    }),
    ("never has enough input", "N20", |turn| {
        if heard(turn, "/params/requestState") == "state-of-sample" {
            refuse(turn, -32603);
        }
    }),
    ("does not say how long a list is good", "N21", |turn| {
        if turn.method() == "tools/list" {
            set(turn, "/ttlMs", json!(-1));
        }
    }),
    ("drops the trace", "N22", |turn| {
        if turn.tool() == "trace" {
            set(turn, "/content/0/text", json!("none"));
        }
    }),
    ("refuses unknown _meta", "N24", |turn| {
        if heard(turn, "/params/_meta/com.example~1unknown").is_object() {
            refuse(turn, -32602);
        }
    }),
    ("makes up a code", "N25", |turn| {
        if turn.tool() == "harness-no-such-tool" {
            turn.said
                .insert(0, json!({"jsonrpc": "2.0", "id": "other", "error": {"code": -32042, "message": "made up"}}));
        }
    }),
];
