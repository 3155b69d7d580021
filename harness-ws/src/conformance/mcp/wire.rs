//! Rules about every message that the server sent in all other checks together.

use serde_json::Value;

use super::{Begin, Check, Era, Facts, Level, Need};
use crate::mcp::{Profile, brief};

/// What every message was found to be, or the witness and its line.
type Found = Result<String, (String, String)>;

const fn rule(id: &'static str, era: Era, section: &'static str, rule: &'static str) -> Check {
    let run: super::Run = |_| Box::pin(async { Ok(String::new()) });
    Check { id, era, level: Level::Must, section, rule, begin: Begin::Open, need: Need::Nothing, run }
}

const SHAPE: Check =
    rule("M27", Era::Both, "basic#messages", "every message is a request, a notification or a response, well formed");
const DECLARED: Check =
    rule("M28", Era::Both, "server/tools#capabilities", "notifications come only for what the server declared");
const ASKED: Check =
    rule("M29", Era::Both, "client/sampling#capabilities", "the client is asked only for what it declared");
const CODES: Check = rule("N25", Era::Stateless, "basic#error-codes", "no code of the reserved range is made up");
const TYPED: Check = rule("N03", Era::Stateless, "basic#result-type", "every result says its resultType");

/// Codes from -32020 to -32099 that the specification defines.
const DEFINED: [i64; 3] = [-32020, -32021, -32022];

/// Judges what was said in all checks: lines with `< ` in front.
pub(super) fn judge(said: &[String], profile: &Profile, facts: &Facts) -> Vec<(&'static Check, Found)> {
    let messages: Vec<(&String, Value)> = said
        .iter()
        .filter_map(|line| Some((line, line.strip_prefix("< ")?)))
        // A line that was cut off proves nothing.
        .filter(|(_, text)| !text.ends_with(" bytes)"))
        .map(|(line, text)| (line, serde_json::from_str(text).unwrap_or(Value::Null)))
        .collect();
    let check = |fits: &dyn Fn(&Value) -> Result<(), String>| -> Found {
        for (line, message) in &messages {
            let members = message.as_array().map_or_else(|| std::slice::from_ref(message), Vec::as_slice);
            if let Some(why) = members.iter().find_map(|member| fits(member).err()) {
                return Err((format!("{why}: {}", brief(message)), (*line).clone()));
            }
        }
        Ok(format!("{} messages", messages.len()))
    };
    vec![
        (&SHAPE, check(&|message| shape(message, profile))),
        (&DECLARED, check(&|message| declared(message, facts))),
        (&ASKED, check(&|message| asked(message, profile))),
        (&CODES, check(&codes)),
        (&TYPED, check(&typed)),
    ]
}

fn shape(message: &Value, profile: &Profile) -> Result<(), String> {
    let Some(members) = message.as_object() else { return Err("it is no object".to_owned()) };
    let welcome = members.get("method").is_some_and(|method| method == "welcome");
    if welcome && profile.welcome == crate::conformance::WelcomeFrame::Required {
        return Ok(()); // the rule of the house
    }
    if members.get("jsonrpc").is_none_or(|version| version != "2.0") {
        return Err("jsonrpc is not \"2.0\"".to_owned());
    }
    let id = members.get("id");
    let readable = id.is_none_or(|id| id.is_string() || id.is_i64() || id.is_u64());
    match (members.get("method"), members.get("result"), members.get("error")) {
        (Some(method), None, None) if method.is_string() && readable => match members.get("params") {
            None | Some(Value::Object(_)) => Ok(()),
            Some(_) => Err("params is no object".to_owned()),
        },
        (None, Some(result), None) if result.is_object() && id.is_some() && readable => Ok(()),
        (None, None, Some(error)) if readable || id.is_some_and(Value::is_null) => {
            match (error["code"].is_i64(), error["message"].is_string()) {
                (true, true) => Ok(()),
                _ => Err("an error has an integer code and a message".to_owned()),
            }
        }
        _ => Err("it is none of a request, a notification, a result and an error".to_owned()),
    }
}

fn declared(message: &Value, facts: &Facts) -> Result<(), String> {
    let method = message["method"].as_str().unwrap_or_default();
    let has = |pointer: &str| facts.capabilities.pointer(pointer).is_some_and(|value| *value != Value::Bool(false));
    let fine = match method {
        "notifications/message" => has("/logging"),
        "notifications/tools/list_changed" => has("/tools/listChanged"),
        "notifications/resources/list_changed" => has("/resources/listChanged"),
        "notifications/prompts/list_changed" => has("/prompts/listChanged"),
        "notifications/resources/updated" => has("/resources/subscribe"),
        _ => true,
    };
    if fine { Ok(()) } else { Err(format!("{method} was not declared")) }
}

fn asked(message: &Value, profile: &Profile) -> Result<(), String> {
    let (Some(method), Some(_)) = (message["method"].as_str(), message.get("id")) else { return Ok(()) };
    if profile.version().is_stateless() {
        return Err(format!("{method} asks a client, and this version has no such requests"));
    }
    let capability = match method {
        "sampling/createMessage" => "sampling",
        "elicitation/create" => "elicitation",
        "roots/list" => "roots",
        _ => return Ok(()),
    };
    match profile.client_capabilities.get(capability) {
        Some(_) => Ok(()),
        None => Err(format!("{method} needs `{capability}`, which the client did not declare")),
    }
}

fn codes(message: &Value) -> Result<(), String> {
    match message["error"]["code"].as_i64() {
        Some(code) if (-32099..=-32020).contains(&code) && !DEFINED.contains(&code) => {
            Err(format!("{code} is not defined"))
        }
        Some(code @ -32002) => Err(format!("{code} is of an older version")),
        _ => Ok(()),
    }
}

fn typed(message: &Value) -> Result<(), String> {
    match message.get("result") {
        Some(result) if !result["resultType"].is_string() => Err("resultType is missing".to_owned()),
        _ => Ok(()),
    }
}
