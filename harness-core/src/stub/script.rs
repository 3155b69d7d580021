//! What the stub does, as data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::Seed;

/// The name under which an agent's behaviours stand for every agent that has none of its own.
pub(super) const ANY_AGENT: &str = "*";

/// A whole script: what each agent does, and what happens when its list is through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Decides everything random (the jitter of delays); the same seed and the same calls give the same run.
    #[serde(default)]
    pub seed: u64,
    /// Behaviours by agent; `*` stands for any other agent.
    pub agents: BTreeMap<String, Vec<Behaviour>>,
    /// What follows the last behaviour of a list.
    #[serde(default)]
    pub after: After,
}

/// What follows the last behaviour of an agent's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum After {
    /// The last behaviour goes on.
    #[default]
    Last,
    /// The list begins again.
    Cycle,
    /// The call is refused with status 410 and recorded.
    Refuse,
}

/// What the stub does with one call, or with `repeat` calls in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// Milliseconds before anything else happens.
    pub delay_ms: u64,
    /// Up to so many milliseconds more, drawn from the seed.
    pub jitter_ms: u64,
    /// The status of the answer.
    pub status: u16,
    /// The text of a model's answer.
    pub text: Option<String>,
    /// The whole body, in place of a model's answer.
    pub body: Option<Value>,
    /// `usage.total_tokens`; when absent, the words of prompt and text.
    pub tokens: Option<u64>,
    /// Leaves `usage` out.
    pub without_usage: bool,
    /// Answers `{"error": {"message": …}}`, with status 500 unless another is given.
    pub error: Option<String>,
    /// Answers with bytes that are not JSON, though the header says so.
    pub garbage: bool,
    /// Never answers.
    pub hang: bool,
    /// Closes the connection without an answer.
    pub disconnect: bool,
    /// Promises a whole body, sends half of it and closes the connection.
    pub half: bool,
    /// Adds a header such as `retry-after`.
    pub headers: BTreeMap<String, String>,
    /// How many calls this behaviour takes.
    pub repeat: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            delay_ms: 0,
            jitter_ms: 0,
            status: 200,
            text: None,
            body: None,
            tokens: None,
            without_usage: false,
            error: None,
            garbage: false,
            hang: false,
            disconnect: false,
            half: false,
            headers: BTreeMap::new(),
            repeat: 1,
        }
    }
}

impl Behaviour {
    /// A model's answer.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// A body of the caller's own.
    #[must_use]
    pub fn body(body: Value) -> Self {
        Self { body: Some(body), ..Self::default() }
    }

    /// An error answer with this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, error: Some(format!("scripted status {status}")), ..Self::default() }
    }

    /// Bytes that are not JSON.
    #[must_use]
    pub fn garbage() -> Self {
        Self { garbage: true, ..Self::default() }
    }

    /// No answer, ever.
    #[must_use]
    pub fn hang() -> Self {
        Self { hang: true, ..Self::default() }
    }

    /// A closed connection instead of an answer.
    #[must_use]
    pub fn disconnect() -> Self {
        Self { disconnect: true, ..Self::default() }
    }

    /// Half an answer and a closed connection.
    #[must_use]
    pub fn half() -> Self {
        Self { half: true, ..Self::text("only half of this arrives") }
    }

    /// Waits first, whole milliseconds.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Waits up to so much more, drawn from the seed.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter_ms = u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// States the tokens used.
    #[must_use]
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Sends a header with the answer.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Takes so many calls in a row.
    #[must_use]
    pub fn repeat(mut self, calls: u32) -> Self {
        self.repeat = calls;
        self
    }

    /// One word for the record of calls.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self { hang: true, .. } => "hang",
            Self { disconnect: true, .. } => "disconnect",
            Self { half: true, .. } => "half",
            Self { garbage: true, .. } => "garbage",
            Self { error: Some(_), .. } => "error",
            Self { body: Some(_), .. } => "body",
            _ => "text",
        }
    }

    fn problem(&self) -> Option<String> {
        let ways = [self.hang, self.disconnect, self.half, self.garbage].iter().filter(|way| **way).count();
        let contents =
            [self.body.is_some(), self.error.is_some(), self.text.is_some()].iter().filter(|given| **given).count();
        let silent = self.hang || self.disconnect;
        let bad_header = self.headers.iter().find(|(name, value)| {
            name.parse::<hyper::header::HeaderName>().is_err() || value.parse::<hyper::header::HeaderValue>().is_err()
        });
        match () {
            () if ways > 1 => Some("at most one of hang, disconnect, half and garbage can be set".to_owned()),
            () if contents > 1 => Some("at most one of text, body and error can be set".to_owned()),
            () if silent && contents > 0 => Some("a call that is never answered has no text, body or error".to_owned()),
            () if self.garbage && contents > 0 => Some("garbage has no text, body or error".to_owned()),
            () if !(200..600).contains(&self.status) => Some(format!("{} is not a final status", self.status)),
            () if self.repeat == 0 => Some("repeat is at least 1".to_owned()),
            () => bad_header.map(|(name, _)| format!("`{name}` is not a header that can be sent")),
        }
    }
}

impl Script {
    /// An empty script: every agent is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A script in which every agent gets the same behaviours, each counting for itself.
    #[must_use]
    pub fn any(behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        Self::new().agent(ANY_AGENT, behaviours)
    }

    /// Reads a script from JSON; members that mean nothing are refused.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with the place.
    pub fn from_json(text: &str) -> CoreResult<Self> {
        let script: Self = serde_json::from_str(text)
            .map_err(|error| Error::new(ErrorKind::Config, "the script cannot be read").caused_by(error))?;
        script.validate()?;
        Ok(script)
    }

    /// Says what one agent does.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>, behaviours: impl IntoIterator<Item = Behaviour>) -> Self {
        self.agents.insert(name.into(), behaviours.into_iter().collect());
        self
    }

    /// Says what follows the last behaviour.
    #[must_use]
    pub fn after(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks the script as a whole.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] listing every behaviour that contradicts itself and every agent without one.
    pub fn validate(&self) -> CoreResult {
        let mut problems = Vec::new();
        for (agent, behaviours) in &self.agents {
            if behaviours.is_empty() {
                problems.push(format!("agent `{agent}` has no behaviour"));
            }
            let found = behaviours.iter().enumerate();
            problems
                .extend(found.filter_map(|(n, b)| Some(format!("agent `{agent}`, behaviour {n}: {}", b.problem()?))));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(problems.iter().fold(Error::new(ErrorKind::Config, "the script contradicts itself"), |e, p| e.tried(p)))
    }

    /// The behaviours of an agent, its own or those of any.
    pub(super) fn of(&self, agent: &str) -> Option<&[Behaviour]> {
        self.agents.get(agent).or_else(|| self.agents.get(ANY_AGENT)).map(Vec::as_slice)
    }

    /// The behaviour for the n-th call (from 0) of a list; `None` when the list is through and refuses.
    pub(super) fn nth<'a>(&self, behaviours: &'a [Behaviour], n: u64) -> Option<&'a Behaviour> {
        let length: u64 = behaviours.iter().map(|behaviour| u64::from(behaviour.repeat)).sum();
        let mut at = match self.after {
            After::Cycle => n.checked_rem(length)?,
            After::Last => n.min(length.checked_sub(1)?),
            After::Refuse => n,
        };
        behaviours.iter().find(|behaviour| {
            let repeat = u64::from(behaviour.repeat);
            let found = at < repeat;
            at = at.saturating_sub(repeat);
            found
        })
    }

    /// The delay of the n-th call of an agent, jitter included.
    pub(super) fn delay(&self, behaviour: &Behaviour, agent: &str, n: u64) -> Duration {
        let jitter = match behaviour.jitter_ms {
            0 => 0,
            most => Seed::new(self.seed).stream(&format!("{agent}/{n}")).below(most.saturating_add(1)),
        };
        Duration::from_millis(behaviour.delay_ms.saturating_add(jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::{After, Behaviour, Script};

    fn texts(script: &Script, calls: u64) -> Vec<Option<String>> {
        let behaviours = script.of("a").expect("known");
        (0..calls).map(|n| script.nth(behaviours, n).and_then(|behaviour| behaviour.text.clone())).collect()
    }

    #[test]
    fn takes_behaviours_in_order_and_then_what_follows() {
        let script = Script::new().agent("a", [Behaviour::text("x").repeat(2), Behaviour::text("y")]);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts(&script, 5), [some("x"), some("x"), some("y"), some("y"), some("y")]);
        assert_eq!(
            texts(&script.clone().after(After::Cycle), 5),
            [some("x"), some("x"), some("y"), some("x"), some("x")]
        );
        assert_eq!(texts(&script.after(After::Refuse), 4), [some("x"), some("x"), some("y"), None]);
    }

    #[test]
    fn reads_json_and_writes_the_same() {
        let text = r#"{"seed":7,"agents":{"a":[{"delay_ms":5,"text":"hi","tokens":3,"repeat":2},{"hang":true}]}}"#;
        let script = Script::from_json(text).unwrap();
        assert_eq!(Script::from_json(&serde_json::to_string(&script).unwrap()).unwrap(), script);
        assert_eq!(script.agents["a"][0], Behaviour { delay_ms: 5, repeat: 2, ..Behaviour::text("hi").tokens(3) });
    }

    #[test]
    fn contradictions_and_unknown_members_are_refused() {
        for (behaviour, why) in [
            (r#"{"hang":true,"disconnect":true}"#, "at most one of hang"),
            (r#"{"text":"a","error":"b"}"#, "at most one of text"),
            (r#"{"hang":true,"text":"a"}"#, "never answered"),
            (r#"{"garbage":true,"text":"a"}"#, "garbage has no"),
            (r#"{"status":99}"#, "not a final status"),
            (r#"{"repeat":0}"#, "at least 1"),
            (r#"{"headers":{"a b":"c"}}"#, "not a header"),
            (r#"{"dely_ms":5}"#, "unknown field"),
        ] {
            let error = Script::from_json(&format!(r#"{{"agents":{{"a":[{behaviour}]}}}}"#)).unwrap_err();
            assert!(format!("{error:?}").contains(why), "{behaviour}: {error:?}");
        }
        assert!(Script::from_json(r#"{"agents":{"a":[]}}"#).is_err());
    }

    #[test]
    fn jitter_repeats_with_the_seed() {
        let behaviour = Behaviour::text("x").jitter(std::time::Duration::from_millis(1000));
        let draws = |seed| -> Vec<_> { (0..8).map(|n| Script::new().seed(seed).delay(&behaviour, "a", n)).collect() };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        assert!(draws(3).iter().all(|delay| delay.as_millis() <= 1000));
    }
}
