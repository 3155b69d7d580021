//! One session of the stub, without any I/O: a text in, messages out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::fixtures::{capabilities, complete, content, failed, find, get_prompt, info, prompts, resources, tools};
use crate::jsonrpc::{INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR};
use crate::mcp::meta_key;
use crate::mcp::profile::Version;

/// The levels of a log, least urgent first (RFC 5424, section 6.2.1).
pub(crate) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// A resource was not found, in the era of sessions.
const RESOURCE_NOT_FOUND: i64 = -32002;
/// A capability of the client is needed and was not declared, in the stateless era.
const MISSING_CAPABILITY: i64 = -32021;
/// The version is not supported, in the stateless era.
const UNSUPPORTED_VERSION: i64 = -32022;

pub(super) struct Fault {
    code: i64,
    message: String,
    data: Value,
}

pub(super) type Answer = Result<Value, Fault>;

pub(super) fn fault<T>(code: i64, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { code, message: message.into(), data: Value::Null })
}

/// A session.
pub(super) struct Desk {
    pub(super) session: u64,
    version: Version,
    page: usize,
    initialized: bool,
    client: Value,
    level: usize,
    /// Held calls: id and key.
    held: Vec<(Value, String)>,
    /// Held calls that came to their end, by key.
    finished: BTreeMap<String, usize>,
    subscribed: BTreeSet<String>,
    /// Open `subscriptions/listen` requests and what each opted for.
    listening: Vec<(Value, Value)>,
    state: BTreeMap<String, Value>,
    toggled: bool,
    /// Requests of ours that wait for the client's answer: our id, the id of the call behind it.
    asking: BTreeMap<u64, Value>,
    asked: u64,
}

impl Desk {
    pub(super) fn new(session: u64, version: Version, page: usize) -> Self {
        Self {
            session,
            version,
            page,
            initialized: version.is_stateless(),
            client: json!({}),
            level: 0,
            held: Vec::new(),
            finished: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            listening: Vec::new(),
            state: BTreeMap::new(),
            toggled: false,
            asking: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Whether a stream begins with an event that tells an id and nothing else (from 2025-11-25 on).
    pub(super) fn primes_streams(&self) -> bool {
        self.version >= Version::V2025_11_25
    }

    /// What is said to a text.
    pub(super) fn hear(&mut self, text: &str) -> Vec<Value> {
        let mut said = Vec::new();
        match serde_json::from_str::<Value>(text) {
            Err(_) => said.push(reply(&Value::Null, fault(PARSE_ERROR, "this is not JSON"))),
            Ok(Value::Array(members)) if self.version == Version::V2025_03_26 && !members.is_empty() => {
                let (mut answers, mut others) = (Vec::new(), Vec::new());
                for member in &members {
                    let mut said = Vec::new();
                    self.hear_one(member, &mut said);
                    let (replies, rest): (Vec<_>, Vec<_>) = said.into_iter().partition(crate::jsonrpc::is_reply);
                    answers.extend(replies);
                    others.extend(rest);
                }
                said.extend(others);
                if !answers.is_empty() {
                    said.push(Value::Array(answers));
                }
            }
            Ok(one) => self.hear_one(&one, &mut said),
        }
        said
    }

    fn hear_one(&mut self, message: &Value, said: &mut Vec<Value>) {
        let id = message.get("id");
        let readable = id.filter(|id| id.is_string() || id.is_i64() || id.is_u64());
        let null = Value::Null;
        let invalid = |why: &str| reply(readable.unwrap_or(&null), fault(INVALID_REQUEST, why));
        let Some(members) = message.as_object() else { return said.push(invalid("a message is an object")) };
        if members.contains_key("method") && id.is_some() && readable.is_none() {
            return said.push(invalid("an id is a string or an integer"));
        }
        if members.get("jsonrpc") != Some(&json!("2.0")) {
            return said.push(invalid("jsonrpc is \"2.0\""));
        }
        if !members.contains_key("method") && (members.contains_key("result") || members.contains_key("error")) {
            return self.hear_response(message, said);
        }
        let Some(method) = members.get("method").and_then(Value::as_str) else {
            return said.push(invalid("method is a string"));
        };
        let params = members.get("params").cloned().unwrap_or_else(|| json!({}));
        match readable {
            None => self.hear_notification(method, &params),
            Some(id) if !params.is_object() => {
                said.push(reply(id, fault(INVALID_REQUEST, "params are an object")));
            }
            Some(id) => {
                if let Some(answer) = self.serve(id, method, &params, said) {
                    let answer = answer.map(|result| self.complete(method, result));
                    said.push(reply(id, answer));
                }
            }
        }
    }

    fn hear_response(&mut self, message: &Value, said: &mut Vec<Value>) {
        let behind = message["id"].as_str().and_then(|id| id.strip_prefix("ask-")?.parse().ok());
        if let Some(id) = behind.and_then(|n: u64| self.asking.remove(&n)) {
            let text = message.pointer("/result/content/text").and_then(Value::as_str).unwrap_or("refused");
            said.push(reply(&id, Ok(content(text))));
        }
    }

    fn hear_notification(&mut self, method: &str, params: &Value) {
        match method {
            "notifications/initialized" => self.initialized = true,
            "notifications/cancelled" => {
                let id = &params["requestId"];
                self.held.retain(|(held, _)| held != id);
                self.listening.retain(|(held, _)| held != id);
            }
            _ => {}
        }
    }

    /// What every result of the stateless era carries.
    fn complete(&self, method: &str, mut result: Value) -> Value {
        if self.version.is_stateless() {
            if result.get("resultType").is_none() {
                result["resultType"] = json!("complete");
            }
            if method.ends_with("/list") || method == "resources/read" || method == "server/discover" {
                result["ttlMs"] = json!(60_000);
                result["cacheScope"] = json!("public");
            }
        }
        result
    }

    /// The answer to a request; `None` when it comes later or never.
    fn serve(&mut self, id: &Value, method: &str, params: &Value, said: &mut Vec<Value>) -> Option<Answer> {
        if self.version.is_stateless() {
            if let Err(fault) = check_meta(method, params) {
                return Some(Err(fault));
            }
            self.client = params["_meta"][meta_key("clientCapabilities")].clone();
        } else if !self.initialized && !matches!(method, "initialize" | "ping") && self.client.get("begun").is_none() {
            return Some(fault(INVALID_REQUEST, "initialize comes first"));
        }
        Some(match (method, self.version.is_stateless()) {
            ("initialize", false) => self.initialize(params),
            ("ping", false) => Ok(json!({})),
            ("logging/setLevel", false) => self.set_level(params),
            ("resources/subscribe", false) => self.subscribe(params, true),
            ("resources/unsubscribe", false) => self.subscribe(params, false),
            ("server/discover", true) => Ok(json!({
                "supportedVersions": [self.version.text()],
                "capabilities": capabilities(true),
                "serverInfo": info(),
            })),
            ("subscriptions/listen", true) => {
                self.listen(id, params, said);
                return None;
            }
            ("tools/list", _) => self.paged(params, "tools", &tools(self.version, self.toggled)),
            ("tools/call", _) => return self.call(id, params, said),
            ("resources/list", _) => self.paged(params, "resources", &resources()),
            ("resources/templates/list", _) => {
                let template = json!({"uriTemplate": "fixture://item/{name}", "name": "item"});
                self.paged(params, "resourceTemplates", &[template])
            }
            ("resources/read", _) => self.read(params),
            ("prompts/list", _) => self.paged(params, "prompts", &prompts()),
            ("prompts/get", _) => get_prompt(params),
            ("completion/complete", _) => complete(params),
            _ => fault(METHOD_NOT_FOUND, format!("there is no method {method:?}")),
        })
    }

    fn initialize(&mut self, params: &Value) -> Answer {
        if self.client.get("begun").is_some() {
            return fault(INVALID_REQUEST, "the session has begun already");
        }
        let Some(asked) = params["protocolVersion"].as_str() else {
            return fault(INVALID_PARAMS, "protocolVersion is a string");
        };
        if !params["capabilities"].is_object() {
            return fault(INVALID_PARAMS, "capabilities is an object");
        }
        if !params["clientInfo"]["name"].is_string() || !params["clientInfo"]["version"].is_string() {
            return fault(INVALID_PARAMS, "clientInfo has a name and a version");
        }
        let known = Version::parse(asked).filter(|version| !version.is_stateless());
        self.version = known.unwrap_or(Version::V2025_11_25);
        self.client = params["capabilities"].clone();
        self.client["begun"] = json!(true);
        Ok(json!({
            "protocolVersion": self.version.text(),
            "capabilities": capabilities(false),
            "serverInfo": info(),
        }))
    }

    fn set_level(&mut self, params: &Value) -> Answer {
        match LEVELS.iter().position(|level| params["level"] == *level) {
            Some(level) => {
                self.level = level;
                Ok(json!({}))
            }
            None => fault(INVALID_PARAMS, "there is no such level"),
        }
    }

    fn subscribe(&mut self, params: &Value, on: bool) -> Answer {
        let Some(uri) = params["uri"].as_str() else { return fault(INVALID_PARAMS, "uri is a string") };
        if on && find(uri).is_none() {
            return fault(RESOURCE_NOT_FOUND, "there is no such resource");
        }
        if on {
            self.subscribed.insert(uri.to_owned());
        } else {
            self.subscribed.remove(uri);
        }
        Ok(json!({}))
    }

    fn listen(&mut self, id: &Value, params: &Value, said: &mut Vec<Value>) {
        let wanted = params["notifications"].clone();
        let params = json!({"_meta": {meta_key("subscriptionId"): id}, "notifications": wanted});
        said.push(notification("notifications/subscriptions/acknowledged", params));
        self.listening.push((id.clone(), wanted));
    }

    fn paged(&self, params: &Value, member: &str, items: &[Value]) -> Answer {
        let from = match params.get("cursor") {
            None => 0,
            Some(cursor) => match cursor.as_str().and_then(|text| text.strip_prefix("page-")?.parse::<usize>().ok()) {
                Some(from) if from > 0 && from < items.len() => from,
                _ => return fault(INVALID_PARAMS, "there is no such cursor"),
            },
        };
        let to = (from + self.page).min(items.len());
        let mut page = json!({member: &items[from..to]});
        if to < items.len() {
            page["nextCursor"] = json!(format!("page-{to}"));
        }
        Ok(page)
    }

    fn read(&self, params: &Value) -> Answer {
        let Some(uri) = params["uri"].as_str() else { return fault(INVALID_PARAMS, "uri is a string") };
        match find(uri) {
            Some(contents) => Ok(json!({"contents": [contents]})),
            None => {
                let code = if self.version.is_stateless() { INVALID_PARAMS } else { RESOURCE_NOT_FOUND };
                Err(Fault { code, message: "there is no such resource".to_owned(), data: json!({"uri": uri}) })
            }
        }
    }

    fn call(&mut self, id: &Value, params: &Value, said: &mut Vec<Value>) -> Option<Answer> {
        let name = params["name"].as_str();
        let Some(tool) =
            tools(self.version, self.toggled).into_iter().find(|tool| tool["name"].as_str() == name && name.is_some())
        else {
            return Some(fault(INVALID_PARAMS, "there is no such tool"));
        };
        let given = params.get("arguments").cloned().unwrap_or_else(|| json!({}));
        let required = tool["inputSchema"]["required"].as_array().cloned().unwrap_or_default();
        let missing = required.iter().filter_map(Value::as_str).find(|member| !given[*member].is_string());
        if let Some(member) = missing {
            let why = format!("the argument `{member}` has to be a string");
            // From 2025-11-25 on a model is told, so that it can correct itself.
            let told = self.version >= Version::V2025_11_25;
            return Some(if told { Ok(failed(&why)) } else { fault(INVALID_PARAMS, why) });
        }
        let text = |member: &str| given[member].as_str().unwrap_or_default().to_owned();
        let meta = &params["_meta"];
        Some(match name.unwrap_or_default() {
            "echo" => Ok(content(&text("text"))),
            "fail" => Ok(failed("the work went wrong, as it should")),
            "hold" => {
                self.held.push((id.clone(), text("key")));
                return None;
            }
            "release" => {
                let key = text("key");
                let (done, held): (Vec<_>, Vec<_>) = self.held.drain(..).partition(|(_, held)| *held == key);
                self.held = held;
                let finished = self.finished.entry(key).or_default();
                *finished += done.len();
                let finished = finished.to_string();
                let released: Vec<_> =
                    done.iter().map(|(id, _)| reply(id, Ok(self.complete("", content("released"))))).collect();
                said.extend(released);
                Ok(content(&finished))
            }
            "progress" => {
                if let Some(token) = meta.get("progressToken") {
                    for step in 1..=3 {
                        let params = json!({"progressToken": token, "progress": step, "total": 3});
                        said.push(notification("notifications/progress", params));
                    }
                }
                Ok(content("done"))
            }
            "log" => {
                self.log(&text("level"), &text("text"), meta, said);
                Ok(content("logged"))
            }
            "touch" => {
                self.touch(&text("uri"), said);
                Ok(content("touched"))
            }
            "toggle" => {
                self.toggled = !self.toggled;
                self.tell("toolsListChanged", "notifications/tools/list_changed", said);
                Ok(content("toggled"))
            }
            "structured" => {
                let sum = json!({"sum": 3});
                let mut result = content(&sum.to_string());
                result["structuredContent"] = sum;
                Ok(result)
            }
            "media" => Ok(json!({"content": [
                {"type": "text", "text": "a picture, a sound, a resource"},
                {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"},
                {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"},
                {"type": "resource", "resource": {"uri": "fixture://text", "mimeType": "text/plain", "text": "text"}},
            ], "isError": false})),
            "sample" => return self.sample(id, params, said),
            "trace" => Ok(content(meta["traceparent"].as_str().unwrap_or("none"))),
            "remember" => {
                self.state.insert(text("key"), json!(text("value")));
                Ok(content("kept"))
            }
            "recall" => Ok(content(self.state.get(&text("key")).and_then(Value::as_str).unwrap_or("nothing"))),
            _ => Ok(content("extra")),
        })
    }

    fn log(&self, level: &str, text: &str, meta: &Value, said: &mut Vec<Value>) {
        let Some(of) = LEVELS.iter().position(|known| *known == level) else { return };
        let least = if self.version.is_stateless() {
            let asked = meta.get(meta_key("logLevel"));
            asked.and_then(|asked| LEVELS.iter().position(|known| *asked == *known)).unwrap_or(LEVELS.len())
        } else {
            self.level
        };
        if of >= least {
            said.push(notification(
                "notifications/message",
                json!({"level": level, "logger": "fixture", "data": text}),
            ));
        }
    }

    fn touch(&self, uri: &str, said: &mut Vec<Value>) {
        if self.subscribed.contains(uri) {
            said.push(notification("notifications/resources/updated", json!({"uri": uri})));
        }
        for (id, wanted) in &self.listening {
            let wants = wanted["resourceSubscriptions"].as_array();
            if wants.is_some_and(|uris| uris.iter().any(|wanted| wanted == uri)) {
                let params = json!({"_meta": {meta_key("subscriptionId"): id}, "uri": uri});
                said.push(notification("notifications/resources/updated", params));
            }
        }
    }

    fn tell(&self, wish: &str, method: &str, said: &mut Vec<Value>) {
        if !self.version.is_stateless() {
            return said.push(json!({"jsonrpc": "2.0", "method": method}));
        }
        for (id, wanted) in &self.listening {
            if wanted[wish] == true {
                said.push(notification(method, json!({"_meta": {meta_key("subscriptionId"): id}})));
            }
        }
    }

    fn sample(&mut self, id: &Value, params: &Value, said: &mut Vec<Value>) -> Option<Answer> {
        let message = json!({"role": "user", "content": {"type": "text", "text": "say something"}});
        let wish = json!({"messages": [message], "maxTokens": 10});
        let declared = self.client.get("sampling").is_some();
        if !self.version.is_stateless() {
            if !declared {
                return Some(Ok(failed("this client cannot sample")));
            }
            self.asked += 1;
            self.asking.insert(self.asked, id.clone());
            let id = format!("ask-{}", self.asked);
            said.push(json!({"jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": wish}));
            return None;
        }
        if !declared {
            let data = json!({"requiredCapabilities": {"sampling": {}}});
            return Some(Err(Fault { code: MISSING_CAPABILITY, message: "sampling is needed".to_owned(), data }));
        }
        Some(match (params.get("inputResponses"), params["requestState"].as_str()) {
            (None, None) => Ok(json!({
                "resultType": "input_required",
                "inputRequests": {"say": {"method": "sampling/createMessage", "params": wish}},
                "requestState": "state-of-sample",
            })),
            (Some(responses), Some("state-of-sample")) => match responses.pointer("/say/content/text") {
                Some(text) => Ok(content(text.as_str().unwrap_or_default())),
                None => return self.sample(id, &json!({}), said),
            },
            _ => fault(INVALID_PARAMS, "the state of the request is not ours"),
        })
    }
}

/// What a request of the stateless era has to say.
fn check_meta(method: &str, params: &Value) -> Result<(), Fault> {
    let supported = Version::V2026_07_28.text();
    if matches!(method, "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe") {
        let data = json!({"supported": [supported]});
        return Err(Fault { code: METHOD_NOT_FOUND, message: "there are no sessions here".to_owned(), data });
    }
    let meta = &params["_meta"];
    let Some(version) = meta[meta_key("protocolVersion")].as_str() else {
        return fault(INVALID_PARAMS, "_meta has to say the version");
    };
    if version != supported {
        let data = json!({"supported": [supported], "requested": version});
        return Err(Fault { code: UNSUPPORTED_VERSION, message: "the version is not supported".to_owned(), data });
    }
    if !meta[meta_key("clientCapabilities")].is_object() {
        return fault(INVALID_PARAMS, "_meta has to say the capabilities of the client");
    }
    Ok(())
}

fn reply(id: &Value, answer: Answer) -> Value {
    match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(Fault { code, message, data }) => {
            let mut error = json!({"code": code, "message": message});
            if !data.is_null() {
                error["data"] = data;
            }
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
    }
}

fn notification(method: &str, params: Value) -> Value {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    message["params"] = params;
    message
}
