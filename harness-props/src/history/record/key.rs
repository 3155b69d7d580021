//! Names of the things a history is about: keys, elements, accounts.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A number or a name. Sixteen bytes, and cheap to clone either way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub enum Key {
    /// A number.
    Number(i64),
    /// Any other name.
    Name(Arc<str>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Number(i64),
    Name(String),
}

impl From<Form> for Key {
    fn from(form: Form) -> Self {
        match form {
            Form::Number(number) => Self::Number(number),
            Form::Name(name) => Self::from(name),
        }
    }
}

impl From<Key> for Form {
    fn from(key: Key) -> Self {
        match key {
            Key::Number(number) => Self::Number(number),
            Key::Name(name) => Self::Name(name.as_ref().to_owned()),
        }
    }
}

impl From<i64> for Key {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Self::Name(name.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Key {
    /// As JSON: a number or a string.
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Name(name) => name.as_ref().into(),
        }
    }

    /// From JSON: whole numbers and strings only.
    pub(crate) fn of_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(name) => Ok(Self::from(name.as_str())),
            Value::Number(number) => {
                number.as_i64().map(Self::Number).ok_or_else(|| format!("`{number}` is no whole number of 64 bits"))
            }
            other => Err(format!("`{other}` is neither a number nor a name")),
        }
    }

    /// From the key of a map, where numbers are spelled as text.
    pub(crate) fn of_name(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::from(name), Self::Number)
    }
}

/// A whole number of 64 bits from JSON.
pub(crate) fn int(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("`{value}` is no whole number of 64 bits"))
}

/// A list from JSON; `null` is the empty one.
pub(crate) fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(&[]),
        other => Err(format!("`{other}` is no list")),
    }
}

/// A fast hash for keys: a history is trusted not to attack its own test.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_i64(&mut self, n: i64) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }
}

/// Builds it for maps by key.
pub(crate) type KeyHash = BuildHasherDefault<Fold>;
