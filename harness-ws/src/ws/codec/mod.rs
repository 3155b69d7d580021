//! RFC 6455 frames without I/O: bytes in, events out; frames in, bytes out.
//!
//! A WebSocket library refuses to send what breaks the protocol, and rightly so. A harness has to send it, and has to see
//! exactly what came back. [`Frame`] writes any frame, legal or not; [`Decoder`] reads strictly, says which rule a peer
//! broke ([`Violation`], with the close code section 7.4.1 has for it), and keeps little between two reads: no buffer
//! at all while whole messages arrive, so that ten thousand connections may share one.
//!
//! ```
//! use harness_ws::codec::{Decoder, Event, Frame, Role};
//!
//! let mut bytes = Frame::text("hello").masked([1, 2, 3, 4]).encoded();
//! let mut heard = Vec::new();
//! Decoder::new(Role::Server).feed(&mut bytes, &mut |event| heard.push(event.to_owned()))?;
//! assert_eq!(heard, [Event::Text("hello").to_owned()]);
//!
//! // What no peer may send is named, here an opcode that section 5.2 reserves.
//! let mut reserved = Frame::new(0x3, b"").encoded();
//! let violation = Decoder::new(Role::Client).feed(&mut reserved, &mut |_| {}).unwrap_err();
//! assert_eq!(violation.code(), 1002);
//! # Ok::<(), harness_ws::codec::Violation>(())
//! ```
//!
//! What it does not do: extensions. A reserved bit is always a violation, since none is ever negotiated.

mod decoder;
mod frame;
mod utf8;

use std::fmt;

pub(crate) use self::frame::put_final;
pub use self::{
    decoder::Decoder,
    frame::{Frame, Header, LengthForm, opcode},
};

/// Which side of the connection this is; a client masks what it sends, a server does not (RFC 6455, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// This side opened the connection.
    Client,
    /// This side accepted it.
    Server,
}

/// What a peer said. Payloads lie in the bytes that were fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping; the peer expects a pong with the same payload (section 5.5.2).
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// A close frame, after which nothing more is read.
    Close {
        /// The code, if the frame has a body.
        code: Option<u16>,
        /// The reason, often empty.
        reason: &'a str,
    },
}

/// An [`Event`] that owns its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame.
    Close {
        /// The code, if the frame had a body.
        code: Option<u16>,
        /// The reason, often empty.
        reason: String,
    },
}

impl Event<'_> {
    /// A copy that outlives the buffer.
    #[must_use]
    pub fn to_owned(self) -> Heard {
        match self {
            Self::Text(text) => Heard::Text(text.to_owned()),
            Self::Binary(bytes) => Heard::Binary(bytes.to_vec()),
            Self::Ping(bytes) => Heard::Ping(bytes.to_vec()),
            Self::Pong(bytes) => Heard::Pong(bytes.to_vec()),
            Self::Close { code, reason } => Heard::Close { code, reason: reason.to_owned() },
        }
    }
}

/// A rule of RFC 6455 that a peer broke, or a limit of this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    code: u16,
    section: &'static str,
    what: String,
}

impl Violation {
    pub(crate) fn new(code: u16, section: &'static str, what: impl Into<String>) -> Self {
        Self { code, section, what: what.into() }
    }

    /// The close code for it: 1002 (protocol), 1007 (text that is not UTF-8), 1009 (too big).
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The section of RFC 6455.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.section
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (RFC 6455 §{})", self.what, self.section)
    }
}

impl std::error::Error for Violation {}

/// Whether a close frame may carry this code (RFC 6455, section 7.4, and the codes registered since).
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
