//! One connection of a check: sends what the check says, then a fence, and hears everything in between.

use std::time::{Duration, Instant};

use harness_core::{CoreResult, ErrorKind};
use harness_props::Outcome;
use serde_json::Value;

use super::Options;
use crate::jsonrpc::{Call, is_reply, means_id};
use crate::ws::{End, Message, Ws};

/// Ids of fences: far from those the checks use.
const FIRST_FENCE: u64 = 1_000_000;

/// A connection with its fence.
pub(super) struct Line {
    pub(super) ws: Ws,
    url: String,
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
    /// Whether the fence was answered.
    pub(super) alive: bool,
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
    pub(super) async fn open(url: &str, options: &Options, raw: bool) -> CoreResult<Self> {
        let ws = Ws::builder(url)
            .limit(options.limit)
            .open_limit(options.limit.max(Duration::from_secs(2)))
            .connect()
            .await?;
        let (fence, limit) = (options.known.clone(), options.limit);
        let mut line = Self { ws, url: url.to_owned(), fence, next_fence: FIRST_FENCE, limit };
        if !raw {
            for message in &options.opening {
                line.ws.send(message).await?;
                if let Some(id) = message.get("id") {
                    line.hear_reply(id).await?;
                }
            }
        }
        Ok(line)
    }

    /// A fresh connection to the same server.
    pub(super) async fn again(&self, options: &Options) -> CoreResult<Self> {
        Self::open(&self.url, options, false).await
    }

    async fn hear_reply(&mut self, id: &Value) -> CoreResult {
        loop {
            let message = self.ws.receive().await?;
            if message.json().is_some_and(|reply| is_reply(&reply) && means_id(&reply, id)) {
                return Ok(());
            }
        }
    }

    /// Sends the frames and a fence; hears until the fence is answered and so many replies came, or time is up.
    ///
    /// The fence alone does not end the waiting while replies are due, since a server may answer out of order.
    pub(super) async fn exchange(&mut self, frames: &[String], due: usize) -> Heard {
        let mut heard = Heard::default();
        let deadline = Instant::now() + self.limit;
        let fence = Value::from(self.next_fence);
        self.next_fence += 1;
        for frame in frames.iter().cloned().chain([self.fence.request(fence.clone()).to_string()]) {
            if let Err(error) = self.ws.send_raw(frame).await {
                // What came before the end can still be read.
                heard.end = End::of(&error).cloned();
                break;
            }
        }
        while !heard.alive || heard.replies.len() < due {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ws.receive().within(left).await {
                Ok(message) => heard.take(&message, &fence),
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

    /// The conversation so far, for a failure.
    pub(super) fn verdict(&self, outcome: Outcome) -> Verdict {
        Verdict { outcome, evidence: self.ws.transcript().lines() }
    }
}

impl Heard {
    fn take(&mut self, message: &Message, fence: &Value) {
        match message.json() {
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
        match (self.replies.first(), &self.end) {
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
