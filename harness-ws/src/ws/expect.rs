//! Waiting for a message or for the end.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};

use super::{End, Event, Message, Ws};
use crate::pattern::{Matched, Pattern};

type Waiting<'a, T> = Pin<Box<dyn Future<Output = CoreResult<T>> + Send + 'a>>;

/// How many messages that did not fit an error explains.
const EXPLAINED: usize = 5;

impl Ws {
    /// Waits for a message that fits; messages that do not fit stay queued in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline, [`ErrorKind::Connect`] when the stream ends before (see [`End::of`]);
    /// both say why the messages that came did not fit, and carry the transcript.
    pub fn expect(&mut self, pattern: impl Into<Pattern>) -> Expect<'_> {
        Expect { limit: self.limit, pattern: pattern.into(), ws: self }
    }

    /// Takes the oldest unread message, or waits for the next one, whatever it is.
    ///
    /// # Errors
    /// As [`Ws::expect`].
    pub fn receive(&mut self) -> Receive<'_> {
        Receive { limit: self.limit, ws: self }
    }

    /// Waits for the end of the stream and says which it was; data that comes before stays queued.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the stream is still open at the deadline.
    pub fn expect_end(&mut self) -> ExpectEnd<'_> {
        ExpectEnd { limit: self.limit, ws: self }
    }

    pub(super) async fn wait_matching(
        &mut self,
        pattern: &Pattern,
        deadline: Instant,
        limit: Duration,
    ) -> CoreResult<Matched> {
        let mut misfits = Vec::new();
        for n in 0..self.inbox.len() {
            match fits(pattern, &self.inbox[n]) {
                Ok(matched) => {
                    self.inbox.remove(n);
                    return Ok(matched);
                }
                Err(why) => misfits.push(format!("{why}: {}", self.inbox[n].excerpt())),
            }
        }
        loop {
            let (kind, what, end) = match self.event(deadline).await {
                Event::Data(message) => match fits(pattern, &message) {
                    Ok(matched) => return Ok(matched),
                    Err(why) => {
                        misfits.push(format!("{why}: {}", message.excerpt()));
                        self.keep(message);
                        continue;
                    }
                },
                Event::Pong(_) | Event::Control => continue,
                Event::End(end) => (ErrorKind::Connect, "the stream ended before", Some(end)),
                Event::Late => (ErrorKind::Timeout, "did not come", None),
            };
            let what = match end {
                None => format!("{pattern} {what} within {}", seconds(limit)),
                Some(_) => format!("{what} {pattern} came"),
            };
            let error = self.failure(kind, &what);
            return Err(explain(error, &misfits, end));
        }
    }
}

fn fits(pattern: &Pattern, message: &Message) -> Result<Matched, String> {
    message.text().ok_or_else(|| "it is binary".to_owned()).and_then(|text| pattern.check(text))
}

fn explain(error: Error, misfits: &[String], end: Option<End>) -> Error {
    let skipped = misfits.len().saturating_sub(EXPLAINED);
    let mut error = match misfits.len() {
        0 => error.tried("no message came at all"),
        n => error.tried(format!("{n} unread messages do not fit")),
    };
    if skipped > 0 {
        error = error.tried(format!("({skipped} older ones not explained)"));
    }
    error = misfits[skipped..].iter().fold(error, |error, misfit| error.tried(misfit));
    match end {
        Some(end) => error.caused_by(end),
        None => error,
    }
}

/// An expectation; awaiting it waits.
#[must_use = "an expectation waits when it is awaited"]
#[derive(Debug)]
pub struct Expect<'a> {
    ws: &'a mut Ws,
    pattern: Pattern,
    limit: Duration,
}

impl Expect<'_> {
    /// Waits at most so long, in place of the connection's limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl<'a> IntoFuture for Expect<'a> {
    type Output = CoreResult<Matched>;
    type IntoFuture = Waiting<'a, Matched>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = Instant::now() + self.limit;
        Box::pin(async move { self.ws.wait_matching(&self.pattern, deadline, self.limit).await })
    }
}

/// The next message; awaiting it waits.
#[must_use = "receiving waits when it is awaited"]
#[derive(Debug)]
pub struct Receive<'a> {
    ws: &'a mut Ws,
    limit: Duration,
}

impl Receive<'_> {
    /// Waits at most so long, in place of the connection's limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn run(self) -> CoreResult<Message> {
        let Self { ws, limit } = self;
        if let Some(message) = ws.inbox.pop_front() {
            return Ok(message);
        }
        let deadline = Instant::now() + limit;
        loop {
            match ws.event(deadline).await {
                Event::Data(message) => return Ok(message),
                Event::Pong(_) | Event::Control => {}
                Event::End(end) => {
                    return Err(ws
                        .failure(ErrorKind::Connect, "the stream ended before a message came")
                        .caused_by(end));
                }
                Event::Late => {
                    return Err(ws.failure(ErrorKind::Timeout, &format!("no message came within {}", seconds(limit))));
                }
            }
        }
    }
}

impl<'a> IntoFuture for Receive<'a> {
    type Output = CoreResult<Message>;
    type IntoFuture = Waiting<'a, Message>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The end of the stream; awaiting it waits.
#[must_use = "the end is waited for when it is awaited"]
#[derive(Debug)]
pub struct ExpectEnd<'a> {
    ws: &'a mut Ws,
    limit: Duration,
}

impl ExpectEnd<'_> {
    /// Waits at most so long, in place of the connection's limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl<'a> IntoFuture for ExpectEnd<'a> {
    type Output = CoreResult<End>;
    type IntoFuture = Waiting<'a, End>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = Instant::now() + self.limit;
        Box::pin(self.ws.wait_for_end(deadline))
    }
}
