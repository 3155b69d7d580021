//! One connection of a check: sends what the check says, then a fence, and hears everything in between.

use std::time::{Duration, Instant};

use harness_core::{CoreResult, ErrorKind};
use harness_props::Outcome;
use serde_json::Value;

use super::Options;
use crate::jsonrpc::{Call, is_reply, means_id, refuses_notification};
use crate::mcp::{Channel, Target, refused_by_status};
use crate::ws::End;

/// Ids of fences: far from those the checks use.
const FIRST_FENCE: u64 = 1_000_000;

/// A connection with its fence.
pub(super) struct Line {
    pub(super) channel: Channel,
    target: Target,
    fence: Call,
    next_fence: u64,
    limit: Duration,
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Replies besides the fence's, in order; single messages or arrays.
    pub(super) replies: Vec<Value>,
    /// Messages that are not JSON.
    pub(super) unreadable: usize,
    /// Over HTTP each message is answered by a status, and a notification may be refused by it.
    pub(super) over_http: bool,
    /// Whether the fence was answered.
    pub(super) alive: bool,
    /// Statuses by which alone frames were refused, over HTTP.
    pub(super) refused: Vec<u16>,
    /// How the stream ended meanwhile.
    pub(super) end: Option<End>,
}

/// An outcome with the conversation behind it.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) evidence: Vec<String>,
}

impl Verdict {
    pub(super) fn bare(outcome: Outcome) -> Self {
        Self { outcome, evidence: Vec::new() }
    }
}

impl Line {
    /// Opens a connection, passes the welcome unless a check wants to see it, and says the opening messages.
    pub(super) async fn open(target: &Target, options: &Options, raw: bool) -> CoreResult<Self> {
        let channel = Channel::open(target, &options.profile, options.limit).await?;
        let (fence, limit) = (options.known.clone(), options.limit);
        let mut line = Self { channel, target: target.clone(), fence, next_fence: FIRST_FENCE, limit };
        if !raw {
            for message in &options.opening {
                line.channel.send(message.to_string()).await?;
                if let Some(id) = message.get("id") {
                    line.hear_reply(id).await?;
                }
            }
            if !options.opening.is_empty() {
                line.exchange(&[], 0).await; // what is still said about the greeting is no check's concern
            }
            if options.profile.version().is_stateless() || !options.opening.is_empty() {
                line.channel.agreed(options.profile.version().text());
            }
        }
        Ok(line)
    }

    /// A fresh connection to the same server.
    pub(super) async fn again(&self, options: &Options) -> CoreResult<Self> {
        Self::open(&self.target, options, false).await
    }

    async fn hear_reply(&mut self, id: &Value) -> CoreResult {
        let deadline = Instant::now() + self.channel.first_limit(self.limit);
        loop {
            let text = self.channel.receive(deadline.saturating_duration_since(Instant::now())).await?;
            let reply: Option<Value> = serde_json::from_str(&text).ok();
            if reply.is_some_and(|reply| is_reply(&reply) && means_id(&reply, id)) {
                return Ok(());
            }
        }
    }

    /// Sends the frames and a fence; hears until the fence is answered and so many replies came, or time is up.
    ///
    /// The fence alone does not end the waiting while replies are due, since a server may answer out of order.
    pub(super) async fn exchange(&mut self, frames: &[String], due: usize) -> Heard {
        let mut heard = Heard { over_http: self.channel.is_http(), ..Heard::default() };
        let deadline = Instant::now() + self.limit;
        let fence = Value::from(self.next_fence);
        self.next_fence += 1;
        for frame in frames.iter().cloned().chain([self.fence.request(fence.clone()).to_string()]) {
            if let Err(error) = self.channel.send(frame).await {
                // What came before the end can still be read.
                heard.end = End::of(&error).cloned();
                break;
            }
        }
        while !heard.alive || heard.replies.len() + heard.refused.len() < due {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.channel.receive(left).await {
                Ok(text) => heard.take(&text, &fence),
                // Over HTTP a POST may end without a message, and the others go on.
                Err(error) if error.kind() == ErrorKind::Protocol && self.channel.is_http() => {
                    heard.refused.extend(refused_by_status(&error));
                }
                Err(error) => {
                    if error.kind() != ErrorKind::Timeout {
                        heard.end = End::of(&error).cloned().or(heard.end);
                    }
                    break;
                }
            }
        }
        heard
    }

    /// The conversation so far; of a check that looked at the WebSocket itself, its transcript.
    fn said(&mut self) -> Vec<String> {
        match (self.channel.lines(), self.channel.ws()) {
            (lines, Some(ws)) if lines.is_empty() => ws.transcript().lines(),
            (lines, _) => lines,
        }
    }

    /// The conversation so far, for a failure.
    pub(super) fn verdict(&mut self, outcome: Outcome) -> Verdict {
        Verdict { outcome, evidence: self.said() }
    }
}

impl Heard {
    fn take(&mut self, text: &str, fence: &Value) {
        match serde_json::from_str::<Value>(text).ok() {
            None => self.unreadable += 1,
            Some(reply) if is_reply(&reply) && means_id(&reply, fence) => self.alive = true,
            Some(reply) if is_reply(&reply) => self.replies.push(reply),
            // The server may speak on its own: a welcome, a log line, a request.
            Some(_) => {}
        }
    }

    /// The first reply, or in words why there is none.
    pub(super) fn first(&self) -> Result<&Value, String> {
        self.replies.first().ok_or_else(|| match (&self.end, self.alive) {
            (Some(end), _) => format!("no reply: {end}"),
            (None, true) => "no reply, though the connection works".to_owned(),
            (None, false) => "no reply, and the connection no longer answers".to_owned(),
        })
    }

    /// Nothing came before the fence was answered.
    pub(super) fn silence(&self, what: &str) -> Outcome {
        let answer = self.replies.iter().find(|reply| !(self.over_http && refuses_notification(reply)));
        match (answer, &self.end) {
            (Some(reply), _) => Outcome::fail(format!("{what} was answered: {}", short(reply))),
            (None, Some(end)) => Outcome::no_evidence(format!("silence is not shown: {end}")),
            (None, None) if self.unreadable > 0 => Outcome::fail(format!("{what} was answered by what is not JSON")),
            (None, None) if !self.alive => Outcome::no_evidence("silence is not shown: the fence was not answered"),
            (None, None) => Outcome::pass("silence proven by a fence"),
        }
    }
}

/// A message short enough for a witness.
pub(super) fn short(message: &Value) -> String {
    let text = harness_core::client::mask::text(&message.to_string());
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
