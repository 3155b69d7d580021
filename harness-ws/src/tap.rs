//! Frames of a WebSocket connection taken on the way: a server or a client that dies after the third frame, a frame that is lost.
//!
//! ```no_run
//! use harness_core::fault::{Towards, inject};
//! use harness_ws::tap;
//!
//! # async fn body(server: std::net::SocketAddr) -> harness_ws::Result {
//! let dies = tap::cut_after(server, Towards::Client, 3)?; // what the server sends reaches nobody after its third frame
//! let url = format!("ws://{}/ws", dies.address()); // hand this to the system under test
//! let dies = inject(dies).await?;
//! # drop((url, dies));
//! # Ok(()) }
//! ```
//!
//! The opening handshake (RFC 6455, section 4) passes as one frame of each side and is not counted. Frames are those of section 5.2,
//! control frames among them; their payload is not looked at, so that extensions may compress it. What was answered to the
//! handshake with anything but 101 passes as it is. TLS cannot be read.

use std::collections::BTreeMap;
use std::fmt;

use harness_core::fault::{Frames, Framing, TapFault, Towards, Upstream};
use harness_core::{CoreResult, Error, ErrorKind};

use crate::codec::{Header, opcode};

/// The longest head of a handshake.
const HANDSHAKE: usize = 64 * 1024;

/// What passes through a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WsFrame {
    /// The head of the request or of the answer, with the first line.
    Handshake(String),
    /// A frame.
    Frame {
        /// Its number among the frames of this side of this connection, counted from 1.
        number: u64,
        /// Its opcode (section 11.8).
        opcode: u8,
        /// True when a message ends with it.
        is_final: bool,
        /// Octets of payload.
        length: u64,
    },
    /// Bytes behind a handshake that was refused.
    Other(usize),
}

impl fmt::Display for WsFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(line) => write!(f, "handshake: {line}"),
            Self::Other(length) => write!(f, "{length} bytes of no WebSocket"),
            Self::Frame { number, opcode, is_final, length } => {
                let name = match *opcode {
                    opcode::CONTINUATION => "continuation",
                    opcode::TEXT => "text",
                    opcode::BINARY => "binary",
                    opcode::CLOSE => "close",
                    opcode::PING => "ping",
                    opcode::PONG => "pong",
                    _ => "reserved",
                };
                write!(f, "{name} {number} of {length} octets{}", if *is_final { "" } else { ", more follows" })
            }
        }
    }
}

/// Reads both streams of one connection.
#[derive(Debug, Default)]
pub struct WsFraming {
    /// Frames so far, by direction, once its handshake has passed.
    counts: BTreeMap<Towards, u64>,
    /// The server said no: the rest is HTTP.
    is_refused: bool,
}

impl Framing for WsFraming {
    type Frame = WsFrame;

    fn next(&mut self, towards: Towards, bytes: &[u8]) -> Result<Option<(usize, WsFrame)>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.is_refused {
            return Ok(Some((bytes.len(), WsFrame::Other(bytes.len()))));
        }
        let Some(count) = self.counts.get_mut(&towards) else {
            let end = bytes.windows(4).take(HANDSHAKE).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else {
                return if bytes.len() > HANDSHAKE { Err("the handshake has no end".to_owned()) } else { Ok(None) };
            };
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            self.is_refused = towards == Towards::Client && line.split(' ').nth(1) != Some("101");
            self.counts.insert(towards, 0);
            return Ok(Some((end + 4, WsFrame::Handshake(line))));
        };
        let Some((head, size)) = Header::parse(bytes).map_err(|violation| violation.to_string())? else {
            return Ok(None);
        };
        let whole = usize::try_from(head.length).ok().and_then(|length| length.checked_add(size));
        let Some(whole) = whole.filter(|whole| *whole <= bytes.len()) else { return Ok(None) };
        *count += 1;
        let frame = WsFrame::Frame { number: *count, opcode: head.opcode, is_final: head.fin, length: head.length };
        Ok(Some((whole, frame)))
    }
}

/// While injected, a connection is closed to both sides without a close frame as soon as its `nth` frame in this direction has
/// passed; frames are counted from the begin of each connection.
///
/// # Errors
/// [`ErrorKind::Config`] for nought; [`ErrorKind::Environment`] when no port can be had.
pub fn cut_after(upstream: impl Into<Upstream>, towards: Towards, nth: u64) -> CoreResult<TapFault> {
    taken(upstream.into(), towards, nth, Frames::PassAndCut, "its connection is cut after")
}

/// While injected, the `nth` frame of each connection in this direction is lost, and the connection lives on.
///
/// # Errors
/// As [`cut_after`].
pub fn lost(upstream: impl Into<Upstream>, towards: Towards, nth: u64) -> CoreResult<TapFault> {
    taken(upstream.into(), towards, nth, Frames::Drop, "what is lost is")
}

fn taken(upstream: Upstream, towards: Towards, nth: u64, fate: Frames, what: &str) -> CoreResult<TapFault> {
    if nth == 0 {
        return Err(Error::new(ErrorKind::Config, "frames are counted from 1"));
    }
    let side = if towards == Towards::Client { "server" } else { "client" };
    let name = format!("{what} frame {nth} of the {side}");
    TapFault::new(name, upstream, WsFraming::default, move |direction, frame: &WsFrame| match frame {
        WsFrame::Frame { number, .. } if direction == towards && *number == nth => Some(fate),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Framing as _, Towards, WsFrame, WsFraming};
    use crate::codec::Frame;

    #[test]
    fn handshake_and_frames_are_cut_and_a_refusal_passes() {
        let mut framing = WsFraming::default();
        let request = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(framing.next(Towards::Server, &request[..20]), Ok(None));
        let (length, head) = framing.next(Towards::Server, request).unwrap().unwrap();
        assert_eq!((length, head.to_string().as_str()), (request.len(), "handshake: GET /ws HTTP/1.1"));
        framing.next(Towards::Client, b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap().unwrap();
        let bytes = [Frame::text("Hel").unfinished().encoded(), Frame::ping("").encoded()].concat();
        assert_eq!(framing.next(Towards::Client, &bytes[..4]), Ok(None));
        let (length, frame) = framing.next(Towards::Client, &bytes).unwrap().unwrap();
        assert_eq!((length, frame.to_string().as_str()), (5, "text 1 of 3 octets, more follows"));
        let (length, frame) = framing.next(Towards::Client, &bytes[5..]).unwrap().unwrap();
        assert_eq!((length, frame.to_string().as_str()), (2, "ping 2 of 0 octets"));

        let mut refused = WsFraming::default();
        refused.next(Towards::Client, b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
        assert_eq!(refused.next(Towards::Client, b"no").unwrap(), Some((2, WsFrame::Other(2))));
    }
}
