//! JSON-RPC 2.0 framing: what a text frame means and what an answer looks like (specification, sections 4 to 6).
//!
//! Ids are kept as the bytes that came in, so that `1`, `1.0`, `"1"` and numbers beyond 64 bits go back unchanged.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Invalid JSON was received (section 5.1).
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is not a valid request object (section 5.1).
pub const INVALID_REQUEST: i64 = -32600;
/// There is no such method (section 5.1).
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not fit the method (section 5.1).
pub const INVALID_PARAMS: i64 = -32602;
/// The method failed inside (section 5.1).
pub const INTERNAL_ERROR: i64 = -32603;
/// This service: too many calls in one second (section 5.1, range for implementations).
pub const RATE_LIMITED: i64 = -32029;

/// A fault with its code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// One of the codes above.
    pub code: i64,
    /// A short sentence.
    pub message: String,
}

impl RpcError {
    /// A fault.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Parameters that do not fit.
    pub fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }
}

/// One member of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// To be answered under its id, which is raw JSON text.
    Request {
        /// Raw JSON text of the id.
        id: String,
        /// Name of the method.
        method: String,
        /// An object, an array, or null when there were none.
        params: Value,
    },
    /// Never answered.
    Notification {
        /// Name of the method.
        method: String,
    },
    /// An answer to a request; never answered itself.
    Response,
    /// Answered with the fault, under the id if it could be read, else null.
    Invalid {
        /// Raw JSON text of the id.
        id: String,
        /// What is wrong.
        error: RpcError,
    },
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// One message.
    Single(Incoming),
    /// A non-empty array of messages, answered by one array.
    Batch(Vec<Incoming>),
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps `null` apart from absence.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads a text frame; always gives something to act on.
pub fn parse(text: &str) -> Frame {
    let invalid = |code, message: &str| {
        Frame::Single(Incoming::Invalid { id: "null".to_owned(), error: RpcError::new(code, message) })
    };
    let Ok(whole) = serde_json::from_str::<&RawValue>(text) else {
        return invalid(PARSE_ERROR, "the frame is not valid JSON");
    };
    if !whole.get().starts_with('[') {
        return Frame::Single(member(whole.get()));
    }
    match serde_json::from_str::<Vec<&RawValue>>(whole.get()) {
        Ok(members) if members.is_empty() => invalid(INVALID_REQUEST, "a batch has at least one member"),
        Ok(members) => Frame::Batch(members.into_iter().map(|raw| member(raw.get())).collect()),
        Err(_) => invalid(PARSE_ERROR, "the frame is not valid JSON"),
    }
}

fn member(text: &str) -> Incoming {
    let invalid = |id: Option<&RawValue>, message: &str| Incoming::Invalid {
        id: id.map_or("null", RawValue::get).to_owned(),
        error: RpcError::new(INVALID_REQUEST, message),
    };
    if !text.starts_with('{') {
        return invalid(None, "a request is an object");
    }
    let Ok(members) = serde_json::from_str::<Members<'_>>(text) else {
        return invalid(None, "a member of the request appears twice");
    };
    let id = members.id;
    // MCP wants more than JSON-RPC: an id is a string or an integer, and never null (MCP, basic, requests).
    if id.is_some_and(|id| !id.get().starts_with('"') && id.get().contains(|c: char| !c.is_ascii_digit() && c != '-')) {
        return invalid(None, "an id is a string or an integer");
    }
    if members.jsonrpc.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()).as_deref() != Some("2.0") {
        return invalid(id, "the member jsonrpc must be \"2.0\"");
    }
    if members.method.is_none() && (members.result.is_some() || members.error.is_some()) {
        return Incoming::Response;
    }
    let Some(method) = members.method.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok()) else {
        return invalid(id, "the member method must be a string");
    };
    let params = match members.params.map(|raw| serde_json::from_str(raw.get())) {
        None => Value::Null,
        Some(Ok(params @ (Value::Object(_) | Value::Array(_)))) => params,
        Some(_) => return invalid(id, "the member params must be an object or an array"),
    };
    match id {
        Some(id) => Incoming::Request { id: id.get().to_owned(), method, params },
        None => Incoming::Notification { method },
    }
}

/// The answer to one request; `id` is raw JSON text.
pub fn answer(id: &str, outcome: Result<Value, RpcError>) -> String {
    let body = match outcome {
        Ok(result) => format!("\"result\":{result}"),
        Err(error) => format!("\"error\":{}", json!({"code": error.code, "message": error.message})),
    };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{body}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_and_code(text: &str) -> (String, i64) {
        match parse(text) {
            Frame::Single(Incoming::Invalid { id, error }) => (id, error.code),
            other => panic!("{text} became {other:?}"),
        }
    }

    #[test]
    fn ids_go_back_byte_for_byte() {
        for id in ["1", "\"1\"", "\"a\\u0062\"", "-7", "123456789012345678901234567890", "0"] {
            let frame = parse(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
            let Frame::Single(Incoming::Request { id: kept, method, params }) = frame else { panic!("{frame:?}") };
            assert_eq!((kept.as_str(), method.as_str(), params), (id, "ping", Value::Null));
            assert_eq!(answer(&kept, Ok(json!({}))), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
    }

    #[test]
    fn missing_id_is_a_notification_and_null_is_no_id() {
        let frame = parse(r#"{"jsonrpc":"2.0","method":"x"}"#);
        assert_eq!(frame, Frame::Single(Incoming::Notification { method: "x".to_owned() }));
        for id in ["null", "1.5", "1e3"] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"x","id":{id}}}"#);
            assert_eq!(id_and_code(&text), ("null".to_owned(), INVALID_REQUEST), "{id}");
        }
    }

    #[test]
    fn response_is_no_request_and_nothing_to_answer() {
        for rest in [r#""result":{}"#, r#""result":null"#, r#""error":{"code":1,"message":"m"}"#] {
            let frame = parse(&format!(r#"{{"jsonrpc":"2.0","id":77,{rest}}}"#));
            assert_eq!(frame, Frame::Single(Incoming::Response), "{rest}");
        }
        let both = parse(r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#);
        assert!(matches!(both, Frame::Single(Incoming::Request { .. })), "{both:?}");
    }

    #[test]
    fn faults_have_the_codes_of_the_specification() {
        let null = |code| ("null".to_owned(), code);
        for text in ["", "{", "[1,", "{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]"] {
            assert_eq!(id_and_code(text), null(PARSE_ERROR), "{text}");
        }
        for text in ["1", "\"x\"", "null", "[]", "{}", r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#] {
            assert_eq!(id_and_code(text), null(INVALID_REQUEST), "{text}");
        }
        let seven = ("7".to_owned(), INVALID_REQUEST);
        for rest in [
            r#""method":"x""#,
            r#""jsonrpc":"1.0","method":"x""#,
            r#""jsonrpc":"2.0""#,
            r#""jsonrpc":2.0,"method":"x""#,
        ] {
            assert_eq!(id_and_code(&format!(r#"{{"id":7,{rest}}}"#)), seven, "{rest}");
        }
        assert_eq!(id_and_code(r#"{"jsonrpc":"2.0","id":7,"method":"x","params":3}"#), seven);
        assert_eq!(id_and_code(r#"{"jsonrpc":"2.0","id":7,"method":"x","params":null}"#), seven);
        assert_eq!(id_and_code(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#), null(INVALID_REQUEST));
        assert_eq!(id_and_code(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#), null(INVALID_REQUEST));
    }

    #[test]
    fn batch_keeps_order_and_judges_each_member() {
        let text = r#" [1, {"jsonrpc":"2.0","method":"n"}, {"jsonrpc":"2.0","method":"m","id":"b","params":[1]}]"#;
        let Frame::Batch(members) = parse(text) else { panic!("not a batch") };
        assert!(matches!(&members[0], Incoming::Invalid { error, .. } if error.code == INVALID_REQUEST));
        assert!(matches!(&members[1], Incoming::Notification { method } if method == "n"));
        assert!(matches!(&members[2], Incoming::Request { id, params, .. } if id == "\"b\"" && *params == json!([1])));
    }

    #[test]
    fn error_answer_has_no_result() {
        let text = answer("null", Err(RpcError::new(PARSE_ERROR, "no \"json\"")));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["error"], json!({"code": -32700, "message": "no \"json\""}));
        assert!(value.get("result").is_none() && value["id"].is_null());
    }
}
