//! As much of EDN (<https://github.com/edn-format/edn>) as histories are written in. Keywords and symbols are read as strings.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::history::HistoryError;

/// Deeper nesting is refused instead of overflowing the stack.
const DEEPEST: usize = 64;

/// Micro-operations whose names Jepsen spells as keywords.
const NAMES: &[&str] = &["append", "r", "w"];

/// All forms of a text.
pub(super) fn read(text: &str) -> Result<Vec<Value>, HistoryError> {
    let mut reader = Reader { text: text.as_bytes(), at: 0, line: 1 };
    let mut forms = Vec::new();
    while reader.skip() {
        forms.push(reader.form(0)?);
    }
    Ok(forms)
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
}

impl Reader<'_> {
    /// Skips blanks, commas and comments; false at the end.
    fn skip(&mut self) -> bool {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\n' => self.line += 1,
                b';' => {
                    while self.text.get(self.at + 1).is_some_and(|byte| *byte != b'\n') {
                        self.at += 1;
                    }
                }
                b',' => {}
                byte if byte.is_ascii_whitespace() => {}
                _ => return true,
            }
            self.at += 1;
        }
        false
    }

    fn torn(&self) -> HistoryError {
        HistoryError::Torn { line: self.line }
    }

    fn malformed(&self, why: impl Into<String>) -> HistoryError {
        HistoryError::Malformed { line: self.line, why: why.into() }
    }

    fn form(&mut self, depth: usize) -> Result<Value, HistoryError> {
        if depth > DEEPEST {
            return Err(self.malformed("nested too deep"));
        }
        if !self.skip() {
            return Err(self.torn());
        }
        match self.text[self.at] {
            b'{' => {
                self.at += 1;
                let items = self.until(b'}', depth)?;
                if !items.len().is_multiple_of(2) {
                    return Err(self.malformed("a map with a key and no value"));
                }
                let mut map = Map::new();
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    let key = match key {
                        Value::String(name) => name,
                        other => other.to_string(),
                    };
                    map.insert(key, value);
                }
                Ok(Value::Object(map))
            }
            b'[' => {
                self.at += 1;
                self.until(b']', depth).map(Value::Array)
            }
            b'(' => {
                self.at += 1;
                self.until(b')', depth).map(Value::Array)
            }
            b'#' => self.dispatch(depth),
            b'"' => self.string(),
            b']' | b'}' | b')' => Err(self.malformed("a bracket that closes nothing")),
            _ => self.token(),
        }
    }

    /// Sets are lists; tags and discarded forms are dropped.
    fn dispatch(&mut self, depth: usize) -> Result<Value, HistoryError> {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'{') => {
                self.at += 1;
                self.until(b'}', depth).map(Value::Array)
            }
            Some(b'_') => {
                self.at += 1;
                self.form(depth + 1)?;
                self.form(depth)
            }
            Some(_) => {
                self.token()?;
                self.form(depth + 1)
            }
            None => Err(self.torn()),
        }
    }

    fn until(&mut self, close: u8, depth: usize) -> Result<Vec<Value>, HistoryError> {
        let mut items = Vec::new();
        loop {
            if !self.skip() {
                return Err(self.torn());
            }
            if self.text[self.at] == close {
                self.at += 1;
                return Ok(items);
            }
            items.push(self.form(depth + 1)?);
        }
    }

    fn string(&mut self) -> Result<Value, HistoryError> {
        let mut bytes = Vec::new();
        loop {
            self.at += 1;
            match self.text.get(self.at) {
                None => return Err(self.torn()),
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    bytes.push(match self.text.get(self.at) {
                        Some(b'n') => b'\n',
                        Some(b't') => b'\t',
                        Some(b'r') => b'\r',
                        Some(other) => *other,
                        None => return Err(self.torn()),
                    });
                }
                Some(byte) => bytes.push(*byte),
            }
        }
        self.at += 1;
        String::from_utf8(bytes).map(Value::String).map_err(|_| self.malformed("a string that is no UTF-8"))
    }

    fn token(&mut self) -> Result<Value, HistoryError> {
        let from = self.at;
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",;()[]{}\"".contains(byte);
        while self.text.get(self.at).is_some_and(|byte| !ends(byte)) {
            self.at += 1;
        }
        let token = std::str::from_utf8(&self.text[from..self.at]).map_err(|_| self.malformed("no UTF-8"))?;
        if let Some(keyword) = token.strip_prefix(':') {
            return Ok(Value::String(keyword.to_owned()));
        }
        Ok(match token {
            "nil" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => match (number.trim_end_matches('N').parse::<i64>(), number.parse::<f64>()) {
                (Ok(whole), _) => whole.into(),
                (_, Ok(float)) if number.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => float.into(),
                _ => Value::String(number.to_owned()),
            },
        })
    }
}

/// Spells a value; the names of micro-operations become keywords, as do the keys of maps that are no numbers.
pub(super) fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("nil"),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(' ');
                }
                match item {
                    Value::String(name) if n == 0 && items.len() == 3 && NAMES.contains(&name.as_str()) => {
                        let _ = write!(out, ":{name}");
                    }
                    item => write(item, out),
                }
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (n, (key, value)) in map.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                if key.parse::<i64>().is_err() {
                    out.push(':');
                }
                let _ = write!(out, "{key} ");
                write(value, out);
            }
            out.push('}');
        }
        scalar => {
            let _ = write!(out, "{scalar}");
        }
    }
}
