//! What a message must look like: JSON in which some places are open.
//!
//! An object in a pattern matches an object that has at least its members; an array matches an array of the same
//! length,
//! element by element; anything else must be equal, `1` and `1.0` being different. [`Pattern::closed`] allows no
//! other members anywhere.

use std::fmt;

use harness_core::{CoreResult, Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Places in a pattern that accept many values and remember which one came.
pub mod capture {
    use serde::{Serialize, Serializer};

    /// A member name no protocol uses: the mark of an open place inside plain JSON.
    pub(super) const MARK: &str = "\u{0}harness-ws:open";

    /// What an open place may accept.
    pub(super) const KINDS: [&str; 4] = ["string", "number", "any", "absent"];

    /// An open place; goes straight into `json!`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Capture(pub(super) &'static str);

    impl Serialize for Capture {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(MARK, self.0)])
        }
    }

    /// Accepts and remembers a non-empty string.
    #[must_use]
    pub fn string() -> Capture {
        Capture("string")
    }

    /// Accepts and remembers a number.
    #[must_use]
    pub fn number() -> Capture {
        Capture("number")
    }

    /// Accepts and remembers anything that is there, `null` included.
    #[must_use]
    pub fn any() -> Capture {
        Capture("any")
    }

    /// Demands that the member is not there; remembers nothing.
    #[must_use]
    pub fn absent() -> Capture {
        Capture("absent")
    }
}

/// What a message must look like; made from `json!`, or by one of the constructors.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(Shape);

#[derive(Debug, Clone, PartialEq)]
enum Shape {
    Json { value: Value, closed: bool },
    Text(String),
}

impl<T: Serialize> From<T> for Pattern {
    /// An open-world pattern; a value that cannot be written as JSON becomes `null`.
    fn from(value: T) -> Self {
        Self(Shape::Json { value: serde_json::to_value(value).unwrap_or_default(), closed: false })
    }
}

/// A message that matched, and what the open places held.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched {
    message: Value,
    captured: Vec<(String, Value)>,
}

impl Pattern {
    /// Like the conversion from JSON, but members the pattern does not name are a mismatch.
    #[must_use]
    pub fn closed(value: impl Serialize) -> Self {
        let Self(shape) = Self::from(value);
        match shape {
            Shape::Json { value, .. } => Self(Shape::Json { value, closed: true }),
            text @ Shape::Text(_) => Self(text),
        }
    }

    /// A message with exactly this text, JSON or not.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(Shape::Text(text.into()))
    }

    /// Matches a message's text.
    ///
    /// # Errors
    /// The first place that differs and how, in words.
    pub fn check(&self, text: &str) -> Result<Matched, String> {
        let (value, closed) = match &self.0 {
            Shape::Text(expected) if expected == text => {
                return Ok(Matched { message: Value::String(text.to_owned()), captured: Vec::new() });
            }
            Shape::Text(_) => return Err("the text differs".to_owned()),
            Shape::Json { value, closed } => (value, *closed),
        };
        let message: Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON that can be read: {error}"))?;
        let mut captured = Vec::new();
        compare(value, &message, closed, &mut String::new(), &mut captured)?;
        Ok(Matched { message, captured })
    }
}

impl fmt::Display for Pattern {
    /// The pattern as JSON, with `<string>` and the like in open places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::Text(text) => write!(f, "the text {text:?}"),
            Shape::Json { value, closed } => {
                write!(f, "{}{}", readable(value), if *closed { " and no other member" } else { "" })
            }
        }
    }
}

impl Matched {
    /// The whole message; for a text pattern, its text.
    #[must_use]
    pub fn message(&self) -> &Value {
        &self.message
    }

    /// The whole message, taken out.
    #[must_use]
    pub fn into_message(self) -> Value {
        self.message
    }

    /// Every captured value with its JSON pointer (RFC 6901), in the order of the pattern.
    #[must_use]
    pub fn captured(&self) -> &[(String, Value)] {
        &self.captured
    }

    /// A member of the message by its JSON pointer, read into a type.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when it is not there or does not fit.
    pub fn at<T: DeserializeOwned>(&self, pointer: &str) -> CoreResult<T> {
        let member = self.message.pointer(pointer).ok_or_else(|| {
            Error::new(ErrorKind::Assertion, format!("the message has no {pointer}")).tried(readable(&self.message))
        })?;
        T::deserialize(member).map_err(|error| {
            Error::new(ErrorKind::Assertion, format!("{pointer} of the message does not fit")).caused_by(error)
        })
    }

    /// The only captured value, read into a type.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the pattern captures not exactly one; [`ErrorKind::Assertion`] when it does not fit.
    pub fn capture<T: DeserializeOwned>(&self) -> CoreResult<T> {
        let [(pointer, value)] = &self.captured[..] else {
            let what = format!("the pattern captures {} values, not one", self.captured.len());
            return Err(Error::new(ErrorKind::Config, what).remedy("ask for a value with `at(pointer)`"));
        };
        T::deserialize(value)
            .map_err(|error| Error::new(ErrorKind::Assertion, format!("{pointer} does not fit")).caused_by(error))
    }

    /// The only captured value as a string.
    ///
    /// # Errors
    /// As [`Matched::capture`].
    pub fn string(&self) -> CoreResult<String> {
        self.capture()
    }
}

fn compare(
    expected: &Value,
    found: &Value,
    closed: bool,
    at: &mut String,
    captured: &mut Vec<(String, Value)>,
) -> Result<(), String> {
    let place = |at: &str| if at.is_empty() { "the message".to_owned() } else { at.to_owned() };
    if let Some(kind) = open_place(expected) {
        let fits = match kind {
            "string" => found.as_str().is_some_and(|text| !text.is_empty()),
            "number" => found.is_number(),
            kind => kind == "any",
        };
        if !fits {
            return Err(format!("{} should be {} but is {}", place(at), described(kind), brief(found)));
        }
        captured.push((at.clone(), found.clone()));
        return Ok(());
    }
    let length = at.len();
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, expected) in expected {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                match (found.get(name), open_place(expected)) {
                    (None, Some("absent")) => {}
                    (Some(found), Some("absent")) => {
                        return Err(format!("{at} should not be there but is {}", brief(found)));
                    }
                    (None, _) => return Err(format!("{at} is missing")),
                    (Some(found), _) => compare(expected, found, closed, at, captured)?,
                }
                at.truncate(length);
            }
            match found.keys().find(|name| closed && !expected.contains_key(*name)) {
                Some(name) => Err(format!("{} has the member `{name}`, which the pattern does not name", place(at))),
                None => Ok(()),
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (n, (expected, found)) in expected.iter().zip(found).enumerate() {
                at.push_str(&format!("/{n}"));
                compare(expected, found, closed, at, captured)?;
                at.truncate(length);
            }
            Ok(())
        }
        (Value::Array(expected), Value::Array(found)) => {
            Err(format!("{} should have {} elements but has {}", place(at), expected.len(), found.len()))
        }
        (expected, found) if expected == found => Ok(()),
        (expected, found) => Err(format!("{} should be {} but is {}", place(at), brief(expected), brief(found))),
    }
}

fn open_place(value: &Value) -> Option<&str> {
    let members = value.as_object()?;
    members.get(capture::MARK)?.as_str().filter(|_| members.len() == 1)
}

fn described(kind: &str) -> &'static str {
    match kind {
        "string" => "a non-empty string",
        "number" => "a number",
        "absent" => "absent",
        _ => "there",
    }
}

fn readable(value: &Value) -> String {
    let mut text = value.to_string();
    for kind in capture::KINDS {
        let mark = serde_json::to_string(&capture::Capture(kind)).unwrap_or_default();
        text = text.replace(&mark, &format!("<{kind}>"));
    }
    harness_core::client::mask::text(&text)
}

/// A value short enough for one line.
fn brief(value: &Value) -> String {
    let text = readable(value);
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Pattern, capture};

    fn check(pattern: impl Into<Pattern>, message: &str) -> Result<Value, String> {
        pattern.into().check(message).map(|matched| matched.captured().iter().map(|(_, value)| value.clone()).collect())
    }

    #[test]
    fn objects_match_by_subset_and_everything_else_exactly() {
        assert_eq!(check(json!({"a": {"b": 1}}), r#"{"x":0,"a":{"b":1,"c":2}}"#), Ok(json!([])));
        for (pattern, message, why) in [
            (json!({"a": 1}), r#"{"a":1.0}"#, "/a should be 1 but is 1.0"),
            (json!({"a": 1}), r#"{"a":"1"}"#, "/a should be 1 but is \"1\""),
            (json!({"a": {"b~/": 1}}), r#"{"a":{}}"#, "/a/b~0~1 is missing"),
            (json!({"a": [1, 2]}), r#"{"a":[1,2,3]}"#, "/a should have 2 elements but has 3"),
            (json!({"a": [1, {"b": 2}]}), r#"{"a":[1,{"b":3}]}"#, "/a/1/b should be 2 but is 3"),
            (json!({"a": null}), "{}", "/a is missing"),
            (json!({}), "[]", "the message should be {} but is []"),
            (json!({"a": capture::string()}), r#"{"a":""}"#, "/a should be a non-empty string but is \"\""),
            (json!({"a": capture::number()}), r#"{"a":"1"}"#, "/a should be a number but is \"1\""),
            (json!({"a": capture::any()}), "{}", "/a is missing"),
            (json!({"a": capture::absent()}), r#"{"a":null}"#, "/a should not be there but is null"),
        ] {
            assert_eq!(check(pattern, message), Err(why.to_owned()));
        }
        assert!(check(json!({}), "not json").unwrap_err().starts_with("it is not JSON"));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(check(json!({}), &deep).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn closed_patterns_allow_nothing_else() {
        let closed = Pattern::closed(json!({"a": {"b": capture::number()}}));
        assert_eq!(check(closed.clone(), r#"{"a":{"b":1}}"#), Ok(json!([1])));
        let why = "/a has the member `c`, which the pattern does not name";
        assert_eq!(check(closed, r#"{"a":{"b":1,"c":2}}"#), Err(why.to_owned()));
    }

    #[test]
    fn captures_are_remembered_with_their_place() {
        let pattern = Pattern::from(json!({"id": capture::any(), "p": [capture::string()], "e": capture::absent()}));
        assert_eq!(pattern.to_string(), r#"{"e":<absent>,"id":<any>,"p":[<string>]}"#);
        let matched = pattern.check(r#"{"id":null,"p":["x"]}"#).unwrap();
        assert_eq!(matched.captured(), [("/id".to_owned(), Value::Null), ("/p/0".to_owned(), json!("x"))]);
        assert!(matched.string().is_err() && matched.at::<String>("/p/0").is_ok() && matched.at::<u8>("/p/1").is_err());
    }

    #[test]
    fn text_patterns_are_literal() {
        assert!(check(Pattern::text("hi"), "hi").is_ok());
        assert!(check(Pattern::text("hi"), "hi ").is_err());
    }
}
