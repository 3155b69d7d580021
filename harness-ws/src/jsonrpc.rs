//! JSON-RPC 2.0 messages as seen by a client that trusts nothing: codes, shapes, and comparisons strict or loose.

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

/// A method and its parameters, `Value::Null` for none.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The parameters.
    pub params: Value,
}

impl Call {
    /// A call.
    #[must_use]
    pub fn new(method: impl Into<String>, params: Value) -> Self {
        Self { method: method.into(), params }
    }

    /// The call as a request under an id (section 4).
    #[must_use]
    pub fn request(&self, id: impl Into<Value>) -> Value {
        let mut message = self.notification();
        message["id"] = id.into();
        message
    }

    /// The call as a notification (section 4.1).
    #[must_use]
    pub fn notification(&self) -> Value {
        let mut message = json!({"jsonrpc": "2.0", "method": self.method});
        if !self.params.is_null() {
            message["params"] = self.params.clone();
        }
        message
    }
}

/// An error that belongs to no request. Over HTTP it may be the body of the status that refuses a notification (2025-11-25,
/// basic/transports#sending-messages-to-the-server).
pub(crate) fn refuses_notification(message: &Value) -> bool {
    message.get("error").is_some() && message.get("id").is_none_or(Value::is_null)
}

/// True for a reply: an object, or an array of a batch's replies, that is no request and no notification.
#[must_use]
pub fn is_reply(message: &Value) -> bool {
    message.get("method").is_none()
}

/// The code of an error reply, also when it is written as a string or with a fraction of zero: for finding out *which*
/// error a server means, whatever the form.
#[must_use]
pub fn code(reply: &Value) -> Option<i64> {
    match reply.get("error")?.get("code")? {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        _ => None,
    }
}

/// True when a reply means this id, whatever the form: `7`, `7.0` and `"7"` mean the same.
#[must_use]
pub fn means_id(reply: &Value, id: &Value) -> bool {
    let plain = |id: &Value| match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(
            number.as_i64().or_else(|| whole(number.as_f64()?)).map_or_else(|| number.to_string(), |n| n.to_string()),
        ),
        _ => None,
    };
    match (reply.get("id").and_then(plain), plain(id)) {
        (Some(found), Some(asked)) => found == asked,
        _ => false,
    }
}

fn whole(number: f64) -> Option<i64> {
    // Beyond 2^53 a float is no longer one integer.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Call, code, is_reply, means_id};

    #[test]
    fn loose_comparisons_see_the_meaning_and_nothing_else() {
        for (id, same) in
            [(json!(7), true), (json!(7.0), true), (json!("7"), true), (json!(8), false), (json!(null), false)]
        {
            assert_eq!(means_id(&json!({"id": id}), &json!(7)), same, "{id}");
        }
        assert!(!means_id(&json!({}), &json!(null)) && !means_id(&json!([1]), &json!(1)));
        for (given, expected) in
            [(json!(-1), Some(-1)), (json!("-1"), Some(-1)), (json!(-1.0), Some(-1)), (json!(null), None)]
        {
            assert_eq!(code(&json!({"error": {"code": given}})), expected, "{given}");
        }
    }

    #[test]
    fn calls_become_messages() {
        assert_eq!(
            Call::new("m", json!([1])).request("a"),
            json!({"jsonrpc": "2.0", "method": "m", "id": "a", "params": [1]})
        );
        let notification = Call::new("m", json!(null)).notification();
        assert_eq!(notification, json!({"jsonrpc": "2.0", "method": "m"}));
        assert!(is_reply(&json!({"id": 1})) && is_reply(&json!([])) && !is_reply(&notification));
    }
}
