//! What the stub has to offer: tools, resources, prompts, and what it says of itself.

use serde_json::{Value, json};

use super::desk::{Answer, fault};
use crate::jsonrpc::INVALID_PARAMS;
use crate::mcp::profile::Version;

/// The tools of a version, and one more when the set was toggled.
pub(super) fn tools(version: Version, toggled: bool) -> Vec<Value> {
    let tool = |name: &str, members: &[&str]| {
        let properties: serde_json::Map<_, _> =
            members.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        let schema = json!({"type": "object", "properties": properties, "required": members});
        json!({"name": name, "description": format!("the fixture {name}"), "inputSchema": schema})
    };
    let mut tools = vec![
        tool("echo", &["text"]),
        tool("fail", &[]),
        tool("hold", &["key"]),
        tool("release", &["key"]),
        tool("progress", &[]),
        tool("log", &["level", "text"]),
        tool("touch", &["uri"]),
        tool("toggle", &[]),
        tool("structured", &[]),
        tool("media", &[]),
        tool("sample", &[]),
        tool("trace", &[]),
    ];
    let sum = json!({"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]});
    if version >= Version::V2025_06_18 {
        tools[8]["outputSchema"] = sum;
    }
    if !version.is_stateless() {
        tools.push(tool("remember", &["key", "value"]));
        tools.push(tool("recall", &["key"]));
    }
    if toggled {
        tools.push(tool("extra", &[]));
    }
    tools
}

pub(super) fn content(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": false})
}

pub(super) fn failed(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": true})
}

pub(super) fn info() -> Value {
    json!({"name": "harness-ws-stub", "version": env!("CARGO_PKG_VERSION")})
}

pub(super) fn capabilities(stateless: bool) -> Value {
    let mut all = json!({
        "tools": {"listChanged": true},
        "resources": {"subscribe": true},
        "prompts": {},
        "completions": {},
        "logging": {},
    });
    if stateless && let Some(all) = all.as_object_mut() {
        all.insert("resources".to_owned(), json!({"subscribe": true}));
    }
    all
}

pub(super) fn resources() -> Vec<Value> {
    vec![
        json!({"uri": "fixture://text", "name": "text", "mimeType": "text/plain"}),
        json!({"uri": "fixture://blob", "name": "blob", "mimeType": "application/octet-stream"}),
    ]
}

pub(super) fn find(uri: &str) -> Option<Value> {
    match uri {
        "fixture://text" => Some(json!({"uri": uri, "mimeType": "text/plain", "text": "a text"})),
        "fixture://blob" => Some(json!({"uri": uri, "mimeType": "application/octet-stream", "blob": "AAEC/w=="})),
        _ => {
            let name = uri.strip_prefix("fixture://item/")?;
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            plain.then(|| json!({"uri": uri, "mimeType": "text/plain", "text": format!("item {name}")}))
        }
    }
}

pub(super) fn prompts() -> Vec<Value> {
    vec![json!({"name": "greet", "arguments": [{"name": "name", "required": true}]}), json!({"name": "plain"})]
}

pub(super) fn get_prompt(params: &Value) -> Answer {
    let text = match params["name"].as_str() {
        Some("plain") => "a plain prompt".to_owned(),
        Some("greet") => match params["arguments"]["name"].as_str() {
            Some(name) => format!("greet {name}"),
            None => return fault(INVALID_PARAMS, "the argument `name` is missing"),
        },
        _ => return fault(INVALID_PARAMS, "there is no such prompt"),
    };
    Ok(json!({"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}))
}

pub(super) fn complete(params: &Value) -> Answer {
    let (Some(kind), Some(begun)) = (params["ref"]["type"].as_str(), params["argument"]["value"].as_str()) else {
        return fault(INVALID_PARAMS, "ref and argument are needed");
    };
    if !matches!(kind, "ref/prompt" | "ref/resource") {
        return fault(INVALID_PARAMS, "ref is of an unknown type");
    }
    let values: Vec<_> = ["anna", "berta", "carla"].into_iter().filter(|name| name.starts_with(begun)).collect();
    Ok(json!({"completion": {"values": values, "total": values.len(), "hasMore": false}}))
}
