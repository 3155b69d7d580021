//! How a stream ends.

use std::fmt;
use std::io;

use harness_core::Error;
use tokio_tungstenite::tungstenite::error::{Error as WireError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// The one way in which a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The peer sent a close frame; 1005 stands for one without a code (RFC 6455, section 7.4.1).
    Close {
        /// The code.
        code: u16,
        /// The reason, often empty.
        reason: String,
    },
    /// The peer closed TCP without a close frame, between frames or within one.
    Eof,
    /// The peer reset TCP.
    Reset,
    /// It did not end in the time given.
    Timeout,
    /// There never was a stream: the handshake was refused.
    HandshakeRejected(Box<Refusal>),
    /// The peer broke RFC 6455 or a limit of this client, which then gave up.
    Violation {
        /// The rule, in words.
        what: String,
    },
}

/// What a server answered instead of opening a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Refusal {
    /// The status; 101 when it agreed but its answer breaks a rule; 0 when the answer was not HTTP.
    pub status: u16,
    /// The headers in order, names in lower case, secrets masked.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, secrets masked.
    pub body: String,
    /// The rule that was broken, if one was.
    pub why: String,
}

impl Refusal {
    /// The refusal behind an error of [`crate::Ws::connect`], if it is one.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        match End::of(error)? {
            End::HandshakeRejected(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl End {
    /// How the stream behind an error ended, if it did.
    #[must_use]
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// True for a close frame with this code.
    #[must_use]
    pub fn is_close(&self, expected: u16) -> bool {
        matches!(self, Self::Close { code, .. } if *code == expected)
    }

    pub(super) fn from_close(frame: Option<&CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::Close { code: frame.code.into(), reason: frame.reason.as_str().to_owned() },
            None => Self::Close { code: 1005, reason: String::new() },
        }
    }

    pub(super) fn from_wire(error: &WireError) -> Self {
        match error {
            WireError::ConnectionClosed
            | WireError::AlreadyClosed
            | WireError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Eof,
            WireError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Eof,
            WireError::Io(_) => Self::Reset,
            other => Self::Violation { what: other.to_string() },
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close { code, reason } if reason.is_empty() => write!(f, "closed by the peer with code {code}"),
            Self::Close { code, reason } => write!(f, "closed by the peer with code {code}, {reason:?}"),
            Self::Eof => f.write_str("the peer closed TCP without a close frame"),
            Self::Reset => f.write_str("the peer reset TCP"),
            Self::Timeout => f.write_str("still open"),
            Self::HandshakeRejected(refusal) if refusal.why.is_empty() => {
                write!(f, "refused with status {}", refusal.status)
            }
            Self::HandshakeRejected(refusal) => f.write_str(&refusal.why),
            Self::Violation { what } => write!(f, "given up by this client: {what}"),
        }
    }
}

impl std::error::Error for End {}
