//! One WebSocket connection: what was sent, what came, what is still unread, how it ended.

pub mod codec;
pub(crate) mod connect;
mod end;
mod expect;
mod recording;
mod request;
pub(crate) mod shared;
mod silence;
pub(crate) mod socket;
mod transcript;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use harness_core::client::mask;
use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use serde_json::{Value, json};
use tokio::time::timeout_at;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message as Packet};

pub use self::{
    connect::Connect,
    end::{End, Refusal},
    expect::{Expect, ExpectEnd, Receive},
    recording::{Recording, Replay, Replayed},
    request::{Reply, Request, RpcError},
    silence::{Fence, Proof, Silence, SilenceProof},
    transcript::{Direction, Transcript, TranscriptEntry},
    wire::{Fault, Wire},
};
use socket::Socket;

/// A data message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

impl Message {
    /// The text, if it is a text message.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The message read as JSON, if it is text and JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(self.text()?).ok()
    }

    /// Short, readable, without secrets.
    fn excerpt(&self) -> String {
        match self {
            Self::Binary(bytes) => format!("{} bytes, binary", bytes.len()),
            Self::Text(text) => {
                let text = mask::text(text);
                match text.char_indices().nth(160) {
                    Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
                    None => text,
                }
            }
        }
    }
}

/// What can be sent: JSON, text, or bytes as a binary message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing(Message);

impl From<Value> for Outgoing {
    fn from(value: Value) -> Self {
        Self(Message::Text(value.to_string()))
    }
}

impl From<&Value> for Outgoing {
    fn from(value: &Value) -> Self {
        Self(Message::Text(value.to_string()))
    }
}

impl From<&str> for Outgoing {
    fn from(text: &str) -> Self {
        Self(Message::Text(text.to_owned()))
    }
}

impl From<String> for Outgoing {
    fn from(text: String) -> Self {
        Self(Message::Text(text))
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Message::Binary(bytes))
    }
}

/// A connection. Every method that receives has a deadline (5 s unless told), and every error carries the transcript.
///
/// Awaiting may be given up at any point: no message is lost, those that did not match stay queued. Dropping it breaks
/// the
/// connection without a close frame; [`Ws::close`] ends it properly.
pub struct Ws {
    stream: WebSocketStream<Socket>,
    url: String,
    limit: Duration,
    inbox: VecDeque<Message>,
    inbox_bound: usize,
    dropped: u64,
    transcript: Transcript,
    recording: Option<Recording>,
    end: Option<End>,
    next_id: u64,
}

impl fmt::Debug for Ws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ws")
            .field("url", &self.url)
            .field("unread", &self.inbox.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// What one look at the socket gave.
enum Event {
    Data(Message),
    Pong(Bytes),
    Control,
    End(End),
    Late,
}

impl Ws {
    /// Connects with the default settings; see [`Ws::builder`] for others.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an address that cannot be used, [`ErrorKind::Connect`] when the port is closed or the
    /// server answers another status than 101 (see [`Refusal::of`]), [`ErrorKind::Protocol`] when its answer breaks
    /// RFC 6455 section 4, [`ErrorKind::Timeout`] when it gives none.
    pub fn connect(url: impl AsRef<str>) -> impl Future<Output = CoreResult<Self>> + Send {
        Self::builder(url).connect()
    }

    /// A connection to be, with headers, limits and bounds.
    pub fn builder(url: impl AsRef<str>) -> Connect {
        Connect::new(url.as_ref())
    }

    /// The address, secrets masked.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What went both ways so far.
    #[must_use]
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Every message in full, if [`Connect::record`] asked for it.
    #[must_use]
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
    }

    /// Messages that arrived and were not yet taken.
    #[must_use]
    pub fn unread(&self) -> impl ExactSizeIterator<Item = &Message> {
        self.inbox.iter()
    }

    /// Unread messages that were thrown away because more arrived than the queue holds.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How the stream ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Sends one message: JSON, text, or bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when the stream has ended, [`ErrorKind::Timeout`] when the peer takes nothing more.
    pub async fn send(&mut self, message: impl Into<Outgoing>) -> CoreResult {
        let (wire, kind) = match message.into().0 {
            Message::Text(text) => (Packet::text(text), "text"),
            Message::Binary(bytes) => (Packet::binary(bytes), "binary"),
        };
        self.put(wire, kind, Instant::now() + self.limit).await
    }

    /// Sends text exactly as it is, to show a server what it does not expect.
    ///
    /// # Errors
    /// As [`Ws::send`].
    pub async fn send_raw(&mut self, text: impl Into<String>) -> CoreResult {
        self.send(text.into()).await
    }

    /// Sends a JSON-RPC notification (JSON-RPC 2.0, section 4.1).
    ///
    /// # Errors
    /// As [`Ws::send`].
    pub async fn notify(&mut self, method: &str, params: Value) -> CoreResult {
        let mut message = json!({"jsonrpc": "2.0", "method": method});
        if !params.is_null() {
            message["params"] = params;
        }
        self.send(message).await
    }

    /// Closes with code 1000 and waits for the peer's close frame; messages that still arrive are queued.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the peer does not answer the close frame.
    pub async fn close(&mut self) -> CoreResult<End> {
        self.close_with(1000, "").await
    }

    /// [`Ws::close`] with a code and a reason of at most 123 bytes.
    ///
    /// # Errors
    /// As [`Ws::close`].
    pub async fn close_with(&mut self, code: u16, reason: &str) -> CoreResult<End> {
        let deadline = Instant::now() + self.limit;
        if self.end.is_none() {
            let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
            self.put(Packet::Close(Some(frame)), "close", deadline).await?;
        }
        self.wait_for_end(deadline).await
    }

    async fn wait_for_end(&mut self, deadline: Instant) -> CoreResult<End> {
        loop {
            match self.event(deadline).await {
                Event::Data(message) => self.keep(message),
                Event::Pong(_) | Event::Control => {}
                Event::End(end) => return Ok(end),
                Event::Late => {
                    return Err(self
                        .failure(ErrorKind::Timeout, "the stream had not ended in time")
                        .caused_by(End::Timeout));
                }
            }
        }
    }

    async fn put(&mut self, wire: Packet, kind: &'static str, deadline: Instant) -> CoreResult {
        if let Some(end) = self.end.clone() {
            return Err(self
                .failure(ErrorKind::Connect, &format!("cannot send {kind}: the stream has ended"))
                .caused_by(end));
        }
        let shown = wire.clone().into_data();
        // `feed` hands the message over whole or not at all; a `flush` that is given up is finished by the next call.
        let fed = timeout_at(deadline.into(), self.stream.feed(wire)).await;
        if matches!(fed, Ok(Ok(()))) {
            self.transcript.add(Direction::Sent, kind, &shown);
            self.record(Direction::Sent, kind, &shown);
        }
        let sent = match fed {
            Ok(Ok(())) => timeout_at(deadline.into(), self.stream.flush()).await,
            other => other,
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let end = End::from_wire(&error);
                // The peer may have said why before it went; what can still be read says more than the failed write.
                let end = match self.wait_for_end(Instant::now() + Duration::from_millis(100).min(self.limit)).await {
                    Ok(said @ End::Close { .. }) => said,
                    _ => end,
                };
                self.end = Some(end.clone());
                Err(self.failure(ErrorKind::Connect, &format!("could not send {kind}")).caused_by(end))
            }
            Err(_) => {
                let what = format!("could not send {kind} within {}", seconds(self.limit));
                Err(self.failure(ErrorKind::Timeout, &what).remedy("does the peer still read?"))
            }
        }
    }

    /// One look at the socket. Giving it up loses nothing.
    async fn event(&mut self, deadline: Instant) -> Event {
        if let Some(end) = &self.end {
            return Event::End(end.clone());
        }
        let Ok(read) = timeout_at(deadline.into(), self.stream.next()).await else { return Event::Late };
        let end = match read {
            Some(Ok(Packet::Text(text))) => {
                self.transcript.add(Direction::Received, "text", text.as_bytes());
                self.record(Direction::Received, "text", text.as_bytes());
                return Event::Data(Message::Text(text.as_str().to_owned()));
            }
            Some(Ok(Packet::Binary(bytes))) => {
                self.transcript.add(Direction::Received, "binary", &bytes);
                self.record(Direction::Received, "binary", &bytes);
                return Event::Data(Message::Binary(bytes.to_vec()));
            }
            Some(Ok(Packet::Pong(payload))) => {
                self.transcript.add(Direction::Received, "pong", &payload);
                return Event::Pong(payload);
            }
            Some(Ok(Packet::Ping(payload))) => {
                self.transcript.add(Direction::Received, "ping", &payload);
                return Event::Control;
            }
            Some(Ok(Packet::Frame(_))) => return Event::Control,
            Some(Ok(Packet::Close(frame))) => End::from_close(frame.as_ref()),
            Some(Err(error)) => End::from_wire(&error),
            None => End::Eof,
        };
        self.transcript.add(Direction::Received, "end", end.to_string().as_bytes());
        self.end = Some(end.clone());
        if matches!(end, End::Close { .. }) {
            // Sends the answering close frame (RFC 6455, section 5.5.1); a peer that no longer reads is not waited for.
            let soon = deadline.min(Instant::now() + Duration::from_millis(200));
            let _ = timeout_at(soon.into(), self.stream.flush()).await;
        }
        Event::End(end)
    }

    fn record(&mut self, direction: Direction, kind: &str, payload: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.add(direction, kind, payload);
        }
    }

    /// Queues an unread message; of too many the oldest goes.
    fn keep(&mut self, message: Message) {
        if self.inbox.len() >= self.inbox_bound {
            self.inbox.pop_front();
            self.dropped += 1;
        }
        self.inbox.push_back(message);
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// An error of this connection: what, where, what is unread, and the transcript.
    fn failure(&self, kind: ErrorKind, what: &str) -> Error {
        let mut error = Error::new(kind, format!("{what} ({})", self.url));
        if self.dropped > 0 {
            error = error.tried(format!("{} older unread messages were thrown away", self.dropped));
        }
        error.log(self.transcript.lines())
    }
}
