//! A conversation written down: what is sent, what is expected, in which order. The same type drives a client and a mock
//! server.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Error, ErrorKind};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::pattern::{Matched, Pattern};
use crate::ws::{End, Fence, Ws};

/// The member name that marks a place to be filled.
const MARK: &str = "\u{0}harness-ws:kept";

/// A place in a message that is filled when it is sent; see [`kept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept(String);

/// The value kept under a name by [`Script::keep`], or, for a name that begins with `/`, what stands at that JSON pointer
/// (RFC 6901) of the message expected last. Goes straight into `json!`.
#[must_use]
pub fn kept(name: impl Into<String>) -> Kept {
    Kept(name.into())
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(MARK, &self.0)])
    }
}

/// Steps of a conversation, played in order.
#[derive(Debug, Clone, Default)]
#[must_use = "a script is data until it is played"]
pub struct Script {
    steps: Vec<Step>,
    limit: Option<Duration>,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Value),
    SendRaw(String),
    SendBinary(Vec<u8>),
    Expect(Pattern),
    ExpectAll(Vec<Pattern>),
    Keep { name: String, pointer: String },
    Silence(Fence),
    Pause(Duration),
    Repeat { times: usize, script: Script },
    Answer { rules: Vec<(Pattern, Value)> },
    Close { code: u16, reason: String },
    ExpectClose(u16),
}

/// A script that was played to its end.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Played {
    /// Messages that were sent.
    pub sent: usize,
    /// Messages that came as expected.
    pub matched: usize,
    /// What was kept, by name.
    pub kept: BTreeMap<String, Value>,
    last: Value,
}

impl Script {
    /// A script without steps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends JSON, the places of [`kept`] filled.
    pub fn send(self, message: impl Into<Value>) -> Self {
        self.step(Step::Send(message.into()))
    }

    /// Sends text exactly as it is.
    pub fn send_raw(self, text: impl Into<String>) -> Self {
        self.step(Step::SendRaw(text.into()))
    }

    /// Sends a binary message.
    pub fn send_binary(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::SendBinary(bytes.into()))
    }

    /// Waits for a message that fits; others stay queued.
    pub fn expect(self, pattern: impl Into<Pattern>) -> Self {
        self.step(Step::Expect(pattern.into()))
    }

    /// Waits for a message for each of these, in whatever order they come.
    pub fn expect_all<P: Into<Pattern>>(self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.step(Step::ExpectAll(patterns.into_iter().map(Into::into).collect()))
    }

    /// Keeps what stands at a JSON pointer of the message expected last.
    pub fn keep(self, name: impl Into<String>, pointer: impl Into<String>) -> Self {
        self.step(Step::Keep { name: name.into(), pointer: pointer.into() })
    }

    /// Shows that nothing is unread and nothing comes before the fence is answered.
    pub fn silence(self, fence: Fence) -> Self {
        self.step(Step::Silence(fence))
    }

    /// Lets time pass on purpose.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Plays another script so many times.
    pub fn repeat(self, times: usize, script: Self) -> Self {
        self.step(Step::Repeat { times, script })
    }

    /// Until the other side closes, answers each message that fits a pattern with what goes with it; the first pattern
    /// that fits counts, and a message that fits none is ignored.
    pub fn answer(self, rules: impl IntoIterator<Item = (Pattern, Value)>) -> Self {
        self.step(Step::Answer { rules: rules.into_iter().collect() })
    }

    /// Closes, and waits for the other close frame.
    pub fn close(self, code: u16, reason: impl Into<String>) -> Self {
        self.step(Step::Close { code, reason: reason.into() })
    }

    /// Waits for a close frame with this code.
    pub fn expect_close(self, code: u16) -> Self {
        self.step(Step::ExpectClose(code))
    }

    /// Waits in each step at most so long, in place of the connection's limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Plays the script.
    ///
    /// # Errors
    /// The number and the words of the step that did not hold, with the error of [`Ws`] behind it;
    /// [`ErrorKind::Config`] when a place cannot be filled.
    pub async fn play(&self, ws: &mut Ws) -> CoreResult<Played> {
        let mut played = Played::default();
        self.play_into(ws, &mut played).await?;
        Ok(played)
    }

    async fn play_into(&self, ws: &mut Ws, played: &mut Played) -> CoreResult {
        for (n, step) in self.steps.iter().enumerate() {
            // Boxed, since a script may hold scripts.
            let done = Box::pin(self.take(step, ws, played)).await;
            if let Err(error) = done {
                let what = format!("step {} of the script did not hold: {step}", n + 1);
                let failed = Error::new(error.kind(), what).log(ws.transcript().lines());
                return Err(error.attempts().iter().fold(failed, Error::tried).caused_by(error));
            }
        }
        Ok(())
    }

    async fn take(&self, step: &Step, ws: &mut Ws, played: &mut Played) -> CoreResult {
        match step {
            Step::Send(message) => {
                let message = played.fill(message)?;
                played.sent += 1;
                ws.send(message).await
            }
            Step::SendRaw(text) => {
                played.sent += 1;
                ws.send(text.as_str()).await
            }
            Step::SendBinary(bytes) => {
                played.sent += 1;
                ws.send(bytes.clone()).await
            }
            Step::Expect(pattern) => {
                played.last = self.expected(ws, pattern).await?.into_message();
                played.matched += 1;
                Ok(())
            }
            Step::ExpectAll(patterns) => {
                for pattern in patterns {
                    played.last = self.expected(ws, pattern).await?.into_message();
                    played.matched += 1;
                }
                Ok(())
            }
            Step::Keep { name, pointer } => {
                let found = played.last.pointer(pointer).cloned();
                let found = found.ok_or_else(|| {
                    Error::new(ErrorKind::Assertion, format!("the message expected last has no {pointer}"))
                })?;
                played.kept.insert(name.clone(), found);
                Ok(())
            }
            Step::Silence(fence) => match self.limit {
                Some(limit) => ws.expect_silence(fence.clone()).within(limit).await.map(drop),
                None => ws.expect_silence(fence.clone()).await.map(drop),
            },
            Step::Pause(time) => {
                pause(*time).await;
                Ok(())
            }
            Step::Repeat { times, script } => {
                for _ in 0..*times {
                    script.play_into(ws, played).await?;
                }
                Ok(())
            }
            Step::Answer { rules } => self.answers(ws, rules, played).await,
            Step::Close { code, reason } => ws.close_with(*code, reason).await.map(drop),
            Step::ExpectClose(code) => match ws.expect_end().await? {
                end if end.is_close(*code) => Ok(()),
                end => Err(Error::new(ErrorKind::Assertion, format!("the stream ended otherwise: {end}"))
                    .log(ws.transcript().lines())
                    .caused_by(end)),
            },
        }
    }

    async fn expected(&self, ws: &mut Ws, pattern: &Pattern) -> CoreResult<Matched> {
        match self.limit {
            Some(limit) => ws.expect(pattern.clone()).within(limit).await,
            None => ws.expect(pattern.clone()).await,
        }
    }

    async fn answers(&self, ws: &mut Ws, rules: &[(Pattern, Value)], played: &mut Played) -> CoreResult {
        loop {
            let message = match ws.receive().await {
                Ok(message) => message,
                // A client that closes, or goes, has heard all it wanted.
                Err(error) if End::of(&error).is_some() => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Timeout => continue,
                Err(error) => return Err(error),
            };
            let fits = |rule: &&(Pattern, Value)| message.text().is_some_and(|text| rule.0.check(text).is_ok());
            if let Some((_, answer)) = rules.iter().find(fits) {
                played.last = message.json().unwrap_or_default();
                played.matched += 1;
                let answer = played.fill(answer)?;
                ws.send(answer).await?;
                played.sent += 1;
            }
        }
    }
}

impl Played {
    fn fill(&self, message: &Value) -> CoreResult<Value> {
        if let Some(name) =
            message.as_object().filter(|members| members.len() == 1).and_then(|members| members.get(MARK))
        {
            let name = name.as_str().unwrap_or_default();
            let found = if name.starts_with('/') { self.last.pointer(name) } else { self.kept.get(name) };
            return found
                .cloned()
                .ok_or_else(|| Error::new(ErrorKind::Config, format!("nothing is kept under `{name}`")));
        }
        Ok(match message {
            Value::Object(members) => Value::Object(
                members.iter().map(|(name, value)| Ok((name.clone(), self.fill(value)?))).collect::<CoreResult<_>>()?,
            ),
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|element| self.fill(element)).collect::<CoreResult<_>>()?)
            }
            plain => plain.clone(),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(message) => write!(f, "send {}", Pattern::from(message)),
            Self::SendRaw(text) => write!(f, "send {:?}", harness_core::client::mask::text(text)),
            Self::SendBinary(bytes) => write!(f, "send {} bytes", bytes.len()),
            Self::Expect(pattern) => write!(f, "expect {pattern}"),
            Self::ExpectAll(patterns) => write!(f, "expect {} messages in any order", patterns.len()),
            Self::Keep { name, pointer } => write!(f, "keep {pointer} as {name}"),
            Self::Silence(_) => f.write_str("silence"),
            Self::Pause(time) => write!(f, "pause {}", seconds(*time)),
            Self::Repeat { times, .. } => write!(f, "{times} times another script"),
            Self::Answer { rules } => write!(f, "answer by {} rules", rules.len()),
            Self::Close { code, .. } => write!(f, "close with {code}"),
            Self::ExpectClose(code) => write!(f, "expect the close code {code}"),
        }
    }
}
