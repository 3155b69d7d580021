//! A connection of frames: what [`super::Ws`] is too polite for.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use harness_core::run::{Run, SeedStream};
use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;

use super::codec::{Decoder, Event, Frame, Heard, LengthForm, Role, opcode, put_final};
use super::connect::Connect;
use super::socket::Socket;
use super::{Direction, End, Transcript};

/// Octets read at a time.
const READ: usize = 16 * 1024;

/// Something no decent peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Sends a frame exactly as it is, masked or not, legal or not.
    RawFrame(Frame),
    /// Sends a frame in TCP segments of so many octets, with a pause between two.
    Chopped {
        /// The frame.
        frame: Frame,
        /// Octets at a time, at least one.
        octets: usize,
        /// Between two.
        pause: Duration,
    },
    /// Takes nothing from the socket for so long: the peer's window fills.
    StopReading(Duration),
    /// Takes everything and answers nothing for so long, pings included: to the peer a line that swallows all.
    BlackHole(Duration),
    /// Resets TCP (RST).
    Reset,
    /// Ends this side of TCP (FIN) without a close frame.
    FinOnly,
    /// Sends so many pings at once.
    PingFlood(usize),
    /// Sends a text of so many octets with one that is not UTF-8 at a place.
    InvalidUtf8 {
        /// The place, counted from 0.
        at: usize,
        /// Octets in all.
        octets: usize,
    },
    /// Announces a binary message of so many octets and sends only the beginning of it.
    Oversized {
        /// What the frame's length says.
        announced: u64,
        /// Octets that are sent.
        sent: usize,
    },
}

/// A connection whose frames are all visible and all possible, read by the codec of this crate.
///
/// Pings are answered, a close frame is returned, and a peer that breaks the protocol is told so in one, while
/// [`Wire::hear`] is awaited, unless [`Wire::passive`] was asked for. Dropping it breaks the connection.
pub struct Wire {
    /// Gone after a reset.
    socket: Option<Socket>,
    role: Role,
    url: String,
    limit: Duration,
    decoder: Decoder,
    heard: VecDeque<Heard>,
    out: Vec<u8>,
    scratch: Box<[u8]>,
    transcript: Transcript,
    keys: SeedStream,
    passive: bool,
    closing: bool,
    /// The close frame of the peer, if one came.
    said: Option<End>,
    end: Option<End>,
    /// The code of a violation that the peer was not told of yet.
    untold: Option<u16>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("url", &self.url)
            .field("role", &self.role)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// Connects with the default settings; [`Connect::connect_wire`] takes others.
    ///
    /// # Errors
    /// As [`super::Ws::connect`].
    pub async fn connect(url: impl AsRef<str>) -> CoreResult<Self> {
        Connect::new(url.as_ref()).connect_wire().await
    }

    pub(crate) fn new(
        socket: Socket,
        rest: Vec<u8>,
        role: Role,
        decoder: Decoder,
        url: String,
        limit: Duration,
        transcript: Transcript,
    ) -> Self {
        // What came with the handshake is read like everything else.
        let mut wire = Self {
            socket: Some(socket),
            role,
            url,
            limit,
            decoder,
            heard: VecDeque::new(),
            out: Vec::new(),
            scratch: vec![0; READ].into_boxed_slice(),
            transcript,
            keys: Run::current().seed().stream("websocket masks"),
            passive: false,
            closing: false,
            said: None,
            end: None,
            untold: None,
        };
        let mut rest = rest;
        wire.take(&mut rest);
        wire
    }

    /// Answers neither pings nor close frames from now on.
    #[must_use]
    pub fn passive(mut self) -> Self {
        self.passive = true;
        self
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

    /// How the stream ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// A fresh masking key where this side has to mask.
    pub fn key(&mut self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(|| (self.keys.next_u64() as u32).to_be_bytes())
    }

    /// Queues a text message for [`Wire::flush`].
    pub fn put_text(&mut self, text: &str) {
        self.put(opcode::TEXT, "text", text.as_bytes());
    }

    /// Queues a binary message for [`Wire::flush`].
    pub fn put_binary(&mut self, bytes: &[u8]) {
        self.put(opcode::BINARY, "binary", bytes);
    }

    fn put(&mut self, opcode: u8, kind: &'static str, payload: &[u8]) {
        let key = self.key();
        put_final(&mut self.out, opcode, key, payload);
        self.transcript.add(Direction::Sent, kind, payload);
    }

    /// Sends what is queued, in as few writes as possible.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when the stream has ended, [`ErrorKind::Timeout`] when the peer takes nothing more.
    pub async fn flush(&mut self) -> CoreResult {
        let out = std::mem::take(&mut self.out);
        let sent = self.send_bytes(&out).await;
        self.out = out;
        self.out.clear();
        sent
    }

    /// Sends a text message, masked as this side must.
    ///
    /// # Errors
    /// As [`Wire::flush`].
    pub async fn send_text(&mut self, text: &str) -> CoreResult {
        self.put_text(text);
        self.flush().await
    }

    /// Sends a binary message, masked as this side must.
    ///
    /// # Errors
    /// As [`Wire::flush`].
    pub async fn send_binary(&mut self, bytes: &[u8]) -> CoreResult {
        self.put_binary(bytes);
        self.flush().await
    }

    /// Sends a frame exactly as it is.
    ///
    /// # Errors
    /// As [`Wire::flush`].
    pub async fn send_frame(&mut self, frame: &Frame) -> CoreResult {
        self.transcript.add(Direction::Sent, "frame", &frame.payload);
        self.closing |= frame.opcode == opcode::CLOSE;
        self.send_bytes(&frame.encoded()).await
    }

    /// Sends octets that need not be frames.
    ///
    /// # Errors
    /// As [`Wire::flush`].
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> CoreResult {
        let deadline = Instant::now() + self.limit;
        match timeout_at(deadline.into(), written(&mut self.socket, bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(self.failure(ErrorKind::Connect, "could not send: the stream has ended").caused_by(error))
            }
            Err(_) => {
                let what = format!("the peer took nothing more for {}", seconds(self.limit));
                Err(self.failure(ErrorKind::Timeout, &what).remedy("does the peer still read?"))
            }
        }
    }

    /// The next event, whatever it is, a close frame included. At the end of TCP an error whose [`End::of`] says how.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the limit, [`ErrorKind::Connect`] at the end of the stream.
    pub async fn hear(&mut self) -> CoreResult<Heard> {
        self.hear_within(self.limit).await
    }

    /// [`Wire::hear`] with a limit of its own.
    ///
    /// # Errors
    /// As [`Wire::hear`].
    pub async fn hear_within(&mut self, limit: Duration) -> CoreResult<Heard> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(heard) = self.heard.pop_front() {
                self.answer(&heard, deadline).await;
                return Ok(heard);
            }
            if let Some(end) = &self.end {
                return Err(self.failure(ErrorKind::Connect, "the stream has ended").caused_by(end.clone()));
            }
            if !self.read(deadline).await {
                return Err(self.failure(ErrorKind::Timeout, &format!("nothing came within {}", seconds(limit))));
            }
        }
    }

    /// Waits for the end of the stream, TCP included, and throws away what still comes.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when TCP is still open at the limit.
    pub async fn hear_end(&mut self) -> CoreResult<End> {
        let deadline = Instant::now() + self.limit;
        loop {
            while let Some(heard) = self.heard.pop_front() {
                self.answer(&heard, deadline).await;
            }
            if let Some(end) = &self.end {
                return Ok(end.clone());
            }
            if !self.read(deadline).await {
                let what = format!("the stream had not ended within {}", seconds(self.limit));
                return Err(self.failure(ErrorKind::Timeout, &what).caused_by(End::Timeout));
            }
        }
    }

    /// Does what no decent peer does.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when the peer has ended the stream, [`ErrorKind::Timeout`] when it takes nothing more.
    pub async fn fault(&mut self, fault: Fault) -> CoreResult {
        match fault {
            Fault::RawFrame(frame) => self.send_frame(&frame).await,
            Fault::Chopped { frame, octets, pause: wait } => {
                for piece in frame.encoded().chunks(octets.max(1)) {
                    self.send_bytes(piece).await?;
                    pause(wait).await;
                }
                Ok(())
            }
            Fault::StopReading(time) => {
                pause(time).await;
                Ok(())
            }
            Fault::BlackHole(time) => {
                let deadline = Instant::now() + time;
                // Read and forgotten, unseen by the decoder: nothing is answered and nothing is kept.
                while let Ok(Ok(got)) = timeout_at(deadline.into(), read(&mut self.socket, &mut self.scratch)).await {
                    if got == 0 {
                        break;
                    }
                }
                Ok(())
            }
            Fault::Reset => {
                let Some(socket) = self.socket.take() else { return Ok(()) };
                // Without lingering the kernel resets TCP when the socket is dropped.
                let reset = socket.tcp().set_zero_linger();
                self.finish(End::Reset);
                reset.map_err(|error| self.failure(ErrorKind::Connect, "could not reset TCP").caused_by(error))
            }
            Fault::FinOnly => {
                let Some(socket) = &mut self.socket else { return Ok(()) };
                let ended = socket.shutdown().await;
                ended.map_err(|error| self.failure(ErrorKind::Connect, "could not end TCP").caused_by(error))
            }
            Fault::PingFlood(count) => {
                for n in 0..count {
                    self.put(opcode::PING, "ping", format!("flood-{n}").as_bytes());
                }
                self.flush().await
            }
            Fault::InvalidUtf8 { at, octets } => {
                let mut text = vec![b'x'; octets.max(1)];
                let at = at.min(text.len() - 1);
                text[at] = 0xff;
                let key = self.key();
                self.send_frame(&Frame { mask: key, ..Frame::text(text) }).await
            }
            Fault::Oversized { announced, sent } => {
                let key = self.key();
                let frame = Frame { mask: key, ..Frame::binary(vec![0; sent]) }.length(LengthForm::Claimed(announced));
                self.send_frame(&frame).await
            }
        }
    }

    /// Reads once; `false` at the deadline.
    async fn read(&mut self, deadline: Instant) -> bool {
        let Ok(read) = timeout_at(deadline.into(), read(&mut self.socket, &mut self.scratch)).await else {
            return false;
        };
        match read {
            Ok(0) => self.finish(End::Eof),
            Err(_) => self.finish(End::Reset),
            Ok(got) => {
                let mut scratch = std::mem::take(&mut self.scratch);
                self.take(&mut scratch[..got]);
                self.scratch = scratch;
                self.fail(deadline).await;
            }
        }
        true
    }

    /// Tells the peer which rule it broke (RFC 6455, section 7.1.7).
    async fn fail(&mut self, deadline: Instant) {
        let Some(code) = self.untold.take().filter(|_| !self.passive && !self.closing) else { return };
        let frame = Frame { mask: self.key(), ..Frame::close(code, "") };
        self.closing = true;
        self.transcript.add(Direction::Sent, "frame", &frame.payload);
        let _ = timeout_at(deadline.into(), written(&mut self.socket, &frame.encoded())).await;
    }

    fn take(&mut self, bytes: &mut [u8]) {
        let (transcript, heard, said) = (&mut self.transcript, &mut self.heard, &mut self.said);
        let fed = self.decoder.feed(bytes, &mut |event| {
            let (kind, payload) = match event {
                Event::Text(text) => ("text", text.as_bytes()),
                Event::Binary(bytes) => ("binary", bytes),
                Event::Ping(bytes) => ("ping", bytes),
                Event::Pong(bytes) => ("pong", bytes),
                Event::Close { reason, .. } => ("close", reason.as_bytes()),
            };
            transcript.add(Direction::Received, kind, payload);
            if let Event::Close { code, reason } = event {
                *said = Some(End::Close { code: code.unwrap_or(1005), reason: reason.to_owned() });
            }
            heard.push_back(event.to_owned());
        });
        if let Err(violation) = fed {
            self.untold = Some(violation.code());
            self.finish(End::Violation { what: violation.to_string() });
        }
    }

    /// The first end counts: a close frame is not undone by the EOF behind it.
    fn finish(&mut self, end: End) {
        let end = self.said.take().unwrap_or(end);
        self.transcript.add(Direction::Received, "end", end.to_string().as_bytes());
        self.end.get_or_insert(end);
    }

    async fn answer(&mut self, heard: &Heard, deadline: Instant) {
        let reply = match heard {
            _ if self.passive => return,
            Heard::Ping(payload) => Frame::pong(payload.clone()),
            Heard::Close { code, .. } if !self.closing => match code {
                Some(code) => Frame::close(*code, ""),
                None => Frame::new(opcode::CLOSE, ""),
            },
            _ => return,
        };
        let reply = Frame { mask: self.key(), ..reply };
        self.closing |= reply.opcode == opcode::CLOSE;
        self.transcript.add(Direction::Sent, "frame", &reply.payload);
        let _ = timeout_at(deadline.into(), written(&mut self.socket, &reply.encoded())).await;
    }

    fn failure(&self, kind: ErrorKind, what: &str) -> Error {
        Error::new(kind, format!("{what} ({})", self.url)).log(self.transcript.lines())
    }
}

async fn written(socket: &mut Option<Socket>, bytes: &[u8]) -> io::Result<()> {
    let socket = socket.as_mut().ok_or(io::ErrorKind::NotConnected)?;
    socket.write_all(bytes).await?;
    // TLS keeps records back until it is told; TCP does not.
    socket.flush().await
}

async fn read(socket: &mut Option<Socket>, into: &mut [u8]) -> io::Result<usize> {
    socket.as_mut().ok_or(io::ErrorKind::NotConnected)?.read(into).await
}
