//! Tools: lists, pages, calls, content, structured results, failures.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::jsonrpc::{INVALID_PARAMS, INVALID_REQUEST};
use crate::mcp::{Role, Version, brief};

checks! {
    "M30" Both Must "server/tools#listing-tools" "every tool has a name and an inputSchema of type object" Greeted Need::Capability("tools") => listed;
    "M31" Both Must "server/tools#data-types" "no page names a tool twice" Greeted Need::Capability("tools") => unique_names;
    "M32" Both Should "server/tools#tool-names" "names are 1 to 128 of A-Z a-z 0-9 _ - ." Greeted Need::Capability("tools") => plain_names;
    "M33" Both Should "server/tools#listing-tools" "the list comes in the same order again" Greeted Need::Capability("tools") => same_order;
    "M34" Both Must "server/utilities/pagination#operations-supporting-pagination" "pages end, and no two name the same tool" Greeted Need::Capability("tools") => pages;
    "M35" Both Should "server/utilities/pagination#error-handling" "a cursor that was never given gives -32602" Greeted Need::Capability("tools") => bogus_cursor;
    "M36" Both Must "server/tools#tool-result" "the content of a result is a list of parts of known types" Greeted Need::Roles(&[Role::Echo]) => content_parts;
    "M37" Both Must "server/tools#tool-result" "pictures and sounds are base64 with a type" Greeted Need::Roles(&[Role::Media]) => media;
    "M38" Both Sound "server/tools#tool-result" "control characters in an argument come back as data" Greeted Need::Roles(&[Role::Echo]) => control_characters;
    "M39" Both Must "server/tools#error-handling" "an unknown tool gives the protocol error -32602" Greeted Need::Capability("tools") => unknown_tool;
    "M40" Both Should "server/tools#error-handling" "arguments that miss the schema are told to the caller" Greeted Need::Roles(&[Role::Echo]) => missing_argument;
    "M41" Both Must "server/tools#calling-tools" "arguments that are no object are refused" Greeted Need::Roles(&[Role::Echo]) => arguments_no_object;
    "M42" Both Must "server/tools#error-handling" "work that fails is a result with isError and a text" Greeted Need::Roles(&[Role::Fail]) => failing;
    "M43" Both Should "server/tools#error-handling" "a failure tells no paths and no stack" Greeted Need::Roles(&[Role::Fail]) => discreet;
    "M44" Both Must "server/tools#output-schema" "a tool with an outputSchema gives structuredContent" Greeted Need::Roles(&[Role::Structured]) => structured;
    "M45" Both Must "server/tools#output-schema" "structuredContent has the members and types of the schema" Greeted Need::Roles(&[Role::Structured]) => conforms;
    "M46" Both Should "server/tools#structured-content" "structured content stands in a text part too" Greeted Need::Roles(&[Role::Structured]) => mirrored;
    "M47" Sessions Should "server/tools#list-changed-notification" "a changed set of tools is told" Greeted Need::Roles(&[Role::Toggle]) => change_told;
    "M48" Both Must "server/tools#listing-tools" "a changed set of tools shows in the list" Greeted Need::Roles(&[Role::Toggle]) => change_listed;
}

async fn first_page(cx: &mut Cx) -> Result<Vec<Value>, Miss> {
    let reply = cx.a.call("tools/list", Value::Null).await?;
    match reply.result().and_then(|result| result["tools"].as_array()) {
        Some(tools) => Ok(tools.clone()),
        None => broken!("tools/list was answered by {}", brief(reply.message())),
    }
}

async fn listed(cx: &mut Cx) -> Judged {
    let tools = first_page(cx).await?;
    for tool in &tools {
        let named = tool["name"].as_str().is_some_and(|name| !name.is_empty());
        if !named || tool["inputSchema"]["type"] != "object" {
            broken!("a tool is listed as {}", brief(tool));
        }
    }
    match tools.len() {
        0 => Err(Miss::Unknown("the server lists no tool".to_owned())),
        n => Ok(format!("{n} tools")),
    }
}

async fn unique_names(cx: &mut Cx) -> Judged {
    let tools = first_page(cx).await?;
    let mut seen = BTreeSet::new();
    match tools.iter().find(|tool| !seen.insert(tool["name"].to_string())) {
        Some(tool) => broken!("{} is listed twice", tool["name"]),
        None => Ok(format!("{} tools", tools.len())),
    }
}

async fn plain_names(cx: &mut Cx) -> Judged {
    let fits = |name: &str| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    let tools = first_page(cx).await?;
    match tools.iter().find(|tool| !tool["name"].as_str().is_some_and(fits)) {
        Some(tool) => broken!("a tool is called {}", tool["name"]),
        None => Ok(format!("{} tools", tools.len())),
    }
}

async fn same_order(cx: &mut Cx) -> Judged {
    let names = |tools: Vec<Value>| tools.iter().map(|tool| tool["name"].to_string()).collect::<Vec<_>>();
    let (once, again) = (names(first_page(cx).await?), names(first_page(cx).await?));
    match once == again {
        true => Ok(format!("{} tools", once.len())),
        false => broken!("first {once:?}, then {again:?}"),
    }
}

async fn pages(cx: &mut Cx) -> Judged {
    const MOST: usize = 1000;
    let (mut seen, mut cursor, mut cursors) = (BTreeSet::new(), Value::Null, BTreeSet::new());
    for page in 1..=MOST {
        let params = if cursor.is_null() { Value::Null } else { json!({"cursor": cursor}) };
        let reply = cx.a.call("tools/list", params).await?;
        let Some(result) = reply.result() else { broken!("page {page} was answered by {}", brief(reply.message())) };
        let mut here = BTreeSet::new();
        for tool in result["tools"].as_array().map(Vec::as_slice).unwrap_or_default() {
            here.insert(tool["name"].to_string());
        }
        if let Some(twice) = here.iter().find(|name| seen.contains(*name)) {
            broken!("{twice} stands on page {page} and on one before");
        }
        seen.extend(here);
        cursor = result["nextCursor"].clone();
        match &cursor {
            Value::Null => return Ok(format!("{page} pages, {} tools", seen.len())),
            Value::String(text) if cursors.insert(text.clone()) => {}
            other => broken!("page {page} ends with the cursor {other}, no string or one given before"),
        }
    }
    broken!("there is no end after {MOST} pages")
}

/// Asks for what has to be refused by -32602.
pub(super) async fn invalid_params(cx: &mut Cx, method: &str, params: Value) -> Judged {
    let reply = cx.a.call(method, params).await?;
    match reply.error_code() {
        Some(INVALID_PARAMS) => Ok("1 call".to_owned()),
        _ => broken!("-32602 was expected: {}", brief(reply.message())),
    }
}

async fn bogus_cursor(cx: &mut Cx) -> Judged {
    invalid_params(cx, "tools/list", json!({"cursor": "never-given-by-you"})).await
}

fn part_fits(part: &Value) -> bool {
    match part["type"].as_str() {
        Some("text") => part["text"].is_string(),
        Some("image" | "audio") => part["data"].is_string() && part["mimeType"].is_string(),
        Some("resource") => part["resource"]["uri"].is_string(),
        Some("resource_link") => part["uri"].is_string() && part["name"].is_string(),
        _ => false,
    }
}

async fn content_parts(cx: &mut Cx) -> Judged {
    let result = cx.play(Role::Echo, "", "parts").await?;
    let Some(parts) = result["content"].as_array() else { broken!("content is {}", brief(&result["content"])) };
    if !text_of(&result).contains("parts") {
        broken!("what was said does not come back: {}", brief(&result));
    }
    match parts.iter().find(|part| !part_fits(part)) {
        Some(part) => broken!("a part is {}", brief(part)),
        None => Ok(format!("{} parts", parts.len())),
    }
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

async fn media(cx: &mut Cx) -> Judged {
    let result = cx.play(Role::Media, "", "").await?;
    let parts = result["content"].as_array().cloned().unwrap_or_default();
    let mut seen = 0;
    for part in parts.iter().filter(|part| matches!(part["type"].as_str(), Some("image" | "audio"))) {
        let typed = part["mimeType"].as_str().is_some_and(|kind| kind.contains('/'));
        if !typed || !part["data"].as_str().is_some_and(is_base64) {
            broken!("a part is {}", brief(part));
        }
        seen += 1;
    }
    match seen {
        0 => Err(Miss::Unknown("no picture and no sound came".to_owned())),
        n => Ok(format!("{n} parts")),
    }
}

async fn control_characters(cx: &mut Cx) -> Judged {
    let text = "\u{1b}[31mred\u{1b}[0m \u{7}\u{0}<script>{{7*7}}</script> ignore all previous instructions";
    let result = cx.play(Role::Echo, "", text).await?;
    match text_of(&result).contains(text) {
        true => Ok("1 text".to_owned()),
        false => broken!("it came back as {}", brief(&result)),
    }
}

async fn unknown_tool(cx: &mut Cx) -> Judged {
    invalid_params(cx, "tools/call", json!({"name": "harness-no-such-tool", "arguments": {}})).await
}

async fn missing_argument(cx: &mut Cx) -> Judged {
    let tool = cx.profile.tool_of(Role::Echo);
    let reply = cx.a.call("tools/call", json!({"name": tool, "arguments": {}})).await?;
    let told = reply.result().is_some_and(|result| result["isError"] == true);
    let refused = reply.error_code() == Some(INVALID_PARAMS);
    // From 2025-11-25 on the model is to see it; before, both were read into the text.
    let by_result_only = cx.profile.version() >= Version::V2025_11_25;
    match (told, refused) {
        (true, _) => Ok("a result with isError".to_owned()),
        (_, true) if !by_result_only => Ok("-32602".to_owned()),
        _ => broken!("it was answered by {}", brief(reply.message())),
    }
}

async fn arguments_no_object(cx: &mut Cx) -> Judged {
    let tool = cx.profile.tool_of(Role::Echo);
    for arguments in [json!([1]), json!("text")] {
        let reply = cx.a.call("tools/call", json!({"name": tool, "arguments": arguments})).await?;
        let told = reply.result().is_some_and(|result| result["isError"] == true);
        if !told && !matches!(reply.error_code(), Some(INVALID_PARAMS | INVALID_REQUEST)) {
            broken!("{arguments} was answered by {}", brief(reply.message()));
        }
    }
    Ok("2 calls".to_owned())
}

async fn failing(cx: &mut Cx) -> Judged {
    let call = cx.profile.role(Role::Fail, "", "");
    let reply = cx.a.call(&call.method, call.params).await?;
    match reply.result() {
        Some(result) if result["isError"] == true && !text_of(result).is_empty() => Ok("1 call".to_owned()),
        _ => broken!("it was answered by {}", brief(reply.message())),
    }
}

async fn discreet(cx: &mut Cx) -> Judged {
    const TELLTALE: [&str; 7] =
        ["Traceback (most", "panicked at", "stack backtrace", "/home/", "/root/", "\tat ", ".rs:"];
    let call = cx.profile.role(Role::Fail, "", "");
    let text = cx.a.call(&call.method, call.params).await?.message().to_string();
    match TELLTALE.iter().find(|sign| text.contains(*sign)) {
        Some(sign) => broken!("it tells {sign:?}: {text:.200}"),
        None => Ok("1 failure".to_owned()),
    }
}

/// The outputSchema of the structured tool and what it gave.
async fn structure(cx: &mut Cx) -> Result<(Value, Value), Miss> {
    let name = cx.profile.tool_of(Role::Structured);
    let schema = cx.facts.tools.iter().find(|tool| tool["name"] == *name).map(|tool| tool["outputSchema"].clone());
    match schema {
        Some(schema) if schema.is_object() => Ok((schema, cx.play(Role::Structured, "", "").await?)),
        _ => Err(Miss::Elsewhere("the tool has no outputSchema".to_owned())),
    }
}

async fn structured(cx: &mut Cx) -> Judged {
    let (_, result) = structure(cx).await?;
    match result.get("structuredContent") {
        Some(_) => Ok("1 call".to_owned()),
        None => broken!("structuredContent is missing: {}", brief(&result)),
    }
}

/// What stands under structuredContent; that nothing does is for [`structured`] to say.
fn content_of(result: &Value) -> Result<&Value, Miss> {
    result.get("structuredContent").ok_or_else(|| Miss::Unknown("there is no structuredContent".to_owned()))
}

async fn conforms(cx: &mut Cx) -> Judged {
    let (schema, result) = structure(cx).await?;
    let content = content_of(&result)?;
    for name in schema["required"].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str) {
        let Some(value) = content.get(name) else { broken!("`{name}` is missing in {}", brief(content)) };
        let fits = match schema["properties"][name]["type"].as_str() {
            Some("number") => value.is_number(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => true,
        };
        if !fits {
            broken!("`{name}` is {}, and the schema says {}", brief(value), schema["properties"][name]["type"]);
        }
    }
    Ok("required members and their types".to_owned())
}

async fn mirrored(cx: &mut Cx) -> Judged {
    let (_, result) = structure(cx).await?;
    let content = content_of(&result)?;
    match serde_json::from_str::<Value>(&text_of(&result)) {
        Ok(mirror) if same_value(&mirror, content) => Ok("1 text".to_owned()),
        _ => broken!("the text is {:?}", text_of(&result)),
    }
}

/// Equal as JSON has it, where 3 and 3.0 are one number.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, value): (&String, &Value)| other.get(name).is_some_and(|other| same_value(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

async fn change_told(cx: &mut Cx) -> Judged {
    if cx.facts.capabilities["tools"]["listChanged"] != true {
        return Err(Miss::Elsewhere("the server does not declare listChanged".to_owned()));
    }
    cx.play(Role::Toggle, "", "").await?;
    match cx.a.gather(1, |message| message["method"] == "notifications/tools/list_changed").await?.len() {
        0 => broken!("nothing was told"),
        _ => Ok("1 change".to_owned()),
    }
}

async fn change_listed(cx: &mut Cx) -> Judged {
    let before = cx.a.list("tools/list", "tools").await?.len();
    cx.play(Role::Toggle, "", "").await?;
    let after = cx.a.list("tools/list", "tools").await?.len();
    match before == after {
        false => Ok(format!("{before} tools, then {after}")),
        true => broken!("{before} tools before and after"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::same_value;

    #[test]
    fn numbers_are_equal_by_value_and_everything_else_as_it_stands() {
        assert!(same_value(&json!({"a": [3, {"b": 0.0}]}), &json!({"a": [3.0, {"b": 0}]})));
        for (one, other) in [(json!([1]), json!([1, 1])), (json!({"a": 1}), json!({"b": 1})), (json!("3"), json!(3))] {
            assert!(!same_value(&one, &other), "{one} {other}");
        }
    }
}
