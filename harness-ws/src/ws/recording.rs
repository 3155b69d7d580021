//! Conversations kept in full, and replayed against another build of the server: do older clients still work?
//!
//! A replay sends what the recorded client sent and demands of each recorded reply that a message comes which has at
//! least its members, with the same values: additions are compatible, a member renamed, removed or changed is not.

use std::path::Path;
use std::time::Duration;

use harness_core::client::mask;
use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Direction, Ws};
use crate::pattern::{Pattern, capture};

/// Octets a recording keeps; what comes later is not recorded, and is said.
const BOUND: usize = 64 << 20;

/// A conversation in full, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    lines: Vec<Line>,
    octets: usize,
    is_cut: bool,
}

/// One message; a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sent(String),
    Received(String),
    SentBytes(Vec<u8>),
    ReceivedBytes(Vec<u8>),
}

impl Recording {
    pub(super) fn add(&mut self, direction: Direction, kind: &str, payload: &[u8]) {
        if self.is_cut || self.octets + payload.len() > BOUND {
            self.is_cut = true;
            return;
        }
        let text = || String::from_utf8_lossy(payload).into_owned();
        let line = match (direction, kind) {
            (Direction::Sent, "text") => Line::Sent(text()),
            (Direction::Received, "text") => Line::Received(text()),
            (Direction::Sent, "binary") => Line::SentBytes(payload.to_vec()),
            (Direction::Received, "binary") => Line::ReceivedBytes(payload.to_vec()),
            _ => return,
        };
        self.octets += payload.len();
        self.lines.push(line);
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// True when more was said than the 64 MiB it keeps.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Writes one JSON object a line, secrets masked.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> CoreResult {
        let path = path.as_ref();
        let masked = |line: &Line| match line {
            Line::Sent(text) => Line::Sent(masked_text(text)),
            Line::Received(text) => Line::Received(masked_text(text)),
            bytes => bytes.clone(),
        };
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(&masked(line)).unwrap_or_default());
            text.push('\n');
        }
        std::fs::write(path, text).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not write the recording {}", path.display())).caused_by(error)
        })
    }

    /// Reads what [`Recording::write`] wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the file cannot be read, [`ErrorKind::Config`] naming the line that is no message.
    pub fn read(path: impl AsRef<Path>) -> CoreResult<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not read the recording {}", path.display())).caused_by(error)
        })?;
        let mut recording = Self { octets: text.len(), ..Self::default() };
        for (n, line) in text.lines().enumerate() {
            recording.lines.push(serde_json::from_str(line).map_err(|error| {
                let what = format!("line {} of {} is not a recorded message", n + 1, path.display());
                Error::new(ErrorKind::Config, what).caused_by(error)
            })?);
        }
        Ok(recording)
    }

    /// A replay of this conversation.
    pub fn replay(&self) -> Replay<'_> {
        Replay { recording: self, open: Vec::new(), values: Vec::new(), limit: None }
    }
}

/// A recording to be played against a server.
#[must_use = "a replay plays when it is run"]
#[derive(Debug, Clone)]
pub struct Replay<'a> {
    recording: &'a Recording,
    open: Vec<String>,
    values: Vec<(String, Value)>,
    limit: Option<Duration>,
}

/// A replay that held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// Messages that were sent as recorded.
    pub sent: usize,
    /// Recorded messages that came again, with additions or without.
    pub matched: usize,
    /// Messages that came and are not in the recording.
    pub additional: usize,
}

impl Replay<'_> {
    /// Lets the value at a JSON pointer (RFC 6901) of received messages differ. A string that differs there, such as a
    /// session id, is put in place of the recorded one in whatever is sent afterwards.
    pub fn open(mut self, pointer: impl Into<String>) -> Self {
        self.open.push(pointer.into());
        self
    }

    /// Puts a value at a JSON pointer of every sent message that has something there, such as a fresh token.
    pub fn substitute(mut self, pointer: impl Into<String>, value: impl Into<Value>) -> Self {
        self.values.push((pointer.into(), value.into()));
        self
    }

    /// Waits for each message at most so long, in place of the connection's limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Plays it.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] for a recording that received nothing, [`ErrorKind::Config`] when a masked secret would
    /// be sent, [`ErrorKind::Assertion`] with the line whose message did not come again, and how those that came differ.
    pub async fn run(self, ws: &mut Ws) -> CoreResult<Replayed> {
        let (mut sent, mut matched) = (0, 0);
        let mut carried: Vec<(String, String)> = Vec::new();
        for (n, line) in self.recording.lines.iter().enumerate() {
            let place = format!("line {} of the recording", n + 1);
            match line {
                Line::Sent(text) => {
                    ws.send(self.outgoing(text, &carried, &place)?).await?;
                    sent += 1;
                }
                Line::SentBytes(bytes) => {
                    ws.send(bytes.clone()).await?;
                    sent += 1;
                }
                Line::Received(text) => {
                    let recorded: Option<Value> = serde_json::from_str(text).ok();
                    let pattern = recorded.clone().map_or_else(|| Pattern::text(text), |value| self.pattern(value));
                    let came = match self.limit {
                        Some(limit) => ws.expect(pattern).within(limit).await,
                        None => ws.expect(pattern).await,
                    };
                    let came = match came {
                        Ok(came) => came,
                        Err(error) => {
                            let late = error.kind() == ErrorKind::Timeout;
                            let kind = if late { ErrorKind::Assertion } else { error.kind() };
                            let failed = ws.failure(kind, &format!("{place} did not come again"));
                            return Err(error.attempts().iter().fold(failed, Error::tried).caused_by(error));
                        }
                    };
                    matched += 1;
                    for pointer in &self.open {
                        let before = recorded.as_ref().and_then(|value| value.pointer(pointer)?.as_str());
                        let after = came.message().pointer(pointer).and_then(Value::as_str);
                        if let (Some(before), Some(after)) = (before, after) {
                            carried.push((before.to_owned(), after.to_owned()));
                        }
                    }
                }
                Line::ReceivedBytes(bytes) => {
                    let came = ws.receive().await?;
                    if came != super::Message::Binary(bytes.clone()) {
                        return Err(ws.failure(ErrorKind::Assertion, &format!("{place} did not come again")));
                    }
                    matched += 1;
                }
            }
        }
        if matched == 0 {
            return Err(Error::new(ErrorKind::NoEvidence, "the recording holds nothing that a server sent"));
        }
        Ok(Replayed { sent, matched, additional: ws.unread().len() })
    }

    fn pattern(&self, mut recorded: Value) -> Pattern {
        let any = serde_json::to_value(capture::any()).unwrap_or_default();
        for pointer in &self.open {
            if let Some(place) = recorded.pointer_mut(pointer) {
                *place = any.clone();
            }
        }
        open_masked(&mut recorded, &any);
        Pattern::from(recorded)
    }

    fn outgoing(&self, text: &str, carried: &[(String, String)], place: &str) -> CoreResult<String> {
        let Ok(mut message) = serde_json::from_str::<Value>(text) else { return Ok(text.to_owned()) };
        let before = message.clone();
        for (pointer, value) in &self.values {
            if let Some(place) = message.pointer_mut(pointer) {
                *place = value.clone();
            }
        }
        each_string(&mut message, &mut |text| {
            if let Some((_, after)) = carried.iter().rev().find(|(before, _)| before == text) {
                text.clone_from(after);
            }
        });
        let mut masked = false;
        each_string(&mut message, &mut |text| masked |= text.contains(mask::MASK));
        if masked {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{place} holds a secret that was masked when it was written"),
            )
            .remedy("give the value with `substitute(pointer, value)`"));
        }
        // Untouched messages go out octet by octet as they were.
        Ok(if message == before { text.to_owned() } else { message.to_string() })
    }
}

/// JSON stays JSON: only what is secret in it becomes the mask.
fn masked_text(text: &str) -> String {
    let Ok(mut message) = serde_json::from_str::<Value>(text) else { return mask::text(text) };
    let before = message.clone();
    mask_members(&mut message);
    if message == before { text.to_owned() } else { message.to_string() }
}

fn mask_members(value: &mut Value) {
    match value {
        Value::String(text) => *text = mask::text(text),
        Value::Array(elements) => elements.iter_mut().for_each(mask_members),
        Value::Object(members) => {
            for (name, member) in members {
                if member.is_string() && mask::is_secret_name(name) {
                    *member = mask::MASK.into();
                }
                mask_members(member);
            }
        }
        _ => {}
    }
}

fn open_masked(value: &mut Value, any: &Value) {
    match value {
        Value::String(text) if text.contains(mask::MASK) => *value = any.clone(),
        Value::Array(elements) => elements.iter_mut().for_each(|element| open_masked(element, any)),
        Value::Object(members) => members.values_mut().for_each(|member| open_masked(member, any)),
        _ => {}
    }
}

fn each_string(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(elements) => elements.iter_mut().for_each(|element| each_string(element, change)),
        Value::Object(members) => members.values_mut().for_each(|member| each_string(member, change)),
        _ => {}
    }
}
