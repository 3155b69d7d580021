//! Showing that nothing came: by a fence, not by a nap.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, ErrorKind};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{Bytes, Message as Packet};

use super::request::{call, reply_to};
use super::{Event, Message, Ws};

/// What bounds a silence: something whose answer the server sends after all it had to say before.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fence {
    /// A WebSocket ping. Proves that the server's read loop has passed the fence; messages that another task of the
    /// server is still about to send may come later.
    Ping,
    /// A JSON-RPC call. Proves that the server's dispatcher has passed it: the stronger fence.
    Call {
        /// A method that always answers.
        method: String,
        /// Its parameters, `Value::Null` for none.
        params: Value,
    },
    /// No fence: only that nothing came for so long.
    Timed(Duration),
}

impl Fence {
    /// A call without parameters, such as `ping`.
    #[must_use]
    pub fn call(method: impl Into<String>) -> Self {
        Self::Call { method: method.into(), params: Value::Null }
    }
}

/// How strong the evidence for a silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The fence came back and nothing before it.
    Proven,
    /// Nothing came in the time given; a slow message may still come.
    TimedOnly,
}

/// A silence that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SilenceProof {
    /// How strong the evidence is.
    pub proof: Proof,
    /// How long it took.
    pub took: Duration,
}

impl Ws {
    /// Shows that no message is unread and none comes before the fence is answered.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the messages that broke the silence (they stay queued), [`ErrorKind::Timeout`]
    /// when the fence
    /// is not answered, [`ErrorKind::Connect`] when the stream ends: neither is silence.
    pub fn expect_silence(&mut self, fence: Fence) -> Silence<'_> {
        Silence { limit: self.limit, fence, ws: self }
    }
}

/// A silence to be shown; awaiting it waits for the fence.
#[must_use = "a silence is shown when it is awaited"]
#[derive(Debug)]
pub struct Silence<'a> {
    ws: &'a mut Ws,
    fence: Fence,
    limit: Duration,
}

impl Silence<'_> {
    /// Waits at most so long for the fence, in place of the connection's limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn run(self) -> CoreResult<SilenceProof> {
        let Self { ws, fence, limit } = self;
        let begun = Instant::now();
        let noise_before = ws.inbox.len();
        if noise_before > 0 {
            return Err(noisy(ws, noise_before));
        }
        let deadline = begun + if let Fence::Timed(quiet) = fence { quiet } else { limit };
        let id = ws.next_id();
        let payload = Bytes::from(format!("fence-{id}"));
        match &fence {
            Fence::Ping => ws.put(Packet::Ping(payload.clone()), "ping", deadline).await?,
            Fence::Call { method, params } => ws.send(call(id, method, params.clone())).await?,
            Fence::Timed(_) => {}
        }
        let reply = reply_to(id);
        let answers = |message: &Message| {
            matches!(fence, Fence::Call { .. }) && message.text().is_some_and(|text| reply.check(text).is_ok())
        };
        let mut noise = 0;
        let proof = loop {
            match ws.event(deadline).await {
                Event::Pong(answer) if answer == payload => break Proof::Proven,
                Event::Data(message) if answers(&message) => break Proof::Proven,
                Event::Data(message) => {
                    noise += 1;
                    ws.keep(message);
                }
                Event::Pong(_) | Event::Control => {}
                Event::End(end) => {
                    return Err(ws
                        .failure(ErrorKind::Connect, "the stream ended before the fence was answered")
                        .caused_by(end));
                }
                Event::Late if matches!(fence, Fence::Timed(_)) => break Proof::TimedOnly,
                Event::Late => {
                    let what = format!("the fence was not answered within {}, so silence is not shown", seconds(limit));
                    return Err(ws.failure(ErrorKind::Timeout, &what));
                }
            }
        };
        match noise {
            0 => Ok(SilenceProof { proof, took: begun.elapsed() }),
            noise => Err(noisy(ws, noise)),
        }
    }
}

fn noisy(ws: &Ws, noise: usize) -> harness_core::Error {
    let error = ws.failure(ErrorKind::Assertion, &format!("{noise} messages came where silence was expected"));
    ws.inbox.iter().rev().take(noise.min(5)).rev().fold(error, |error, message| error.tried(message.excerpt()))
}

impl<'a> IntoFuture for Silence<'a> {
    type Output = CoreResult<SilenceProof>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
