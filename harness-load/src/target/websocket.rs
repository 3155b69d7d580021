//! A WebSocket request and its response (RFC 6455), lean: text or binary messages, one answer for each.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Target;
use crate::engine::Iteration;

/// The longest head of an upgrade.
const LONGEST_HEAD: usize = 16 * 1_024;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What may go wrong with a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebSocketError {
    /// The connection could not be made or broke.
    Io(std::io::Error),
    /// The server did not switch protocols; the first line of what it said.
    Refused(String),
    /// The server closed the WebSocket.
    Closed,
}

impl fmt::Display for WebSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(line) => write!(f, "the upgrade was refused: {line}"),
            Self::Closed => f.write_str("the server closed the WebSocket"),
        }
    }
}

impl std::error::Error for WebSocketError {}

impl From<std::io::Error> for WebSocketError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// One message, sent again and again, each time until a message comes back: a [`Target`].
#[derive(Debug, Clone)]
pub struct WebSocketCall {
    address: SocketAddr,
    path: String,
    frame: Vec<u8>,
}

impl WebSocketCall {
    /// A text message.
    #[must_use]
    pub fn text(address: SocketAddr, path: &str, message: &str) -> Self {
        let path = path.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        Self { address, path, frame: frame(TEXT, message.as_bytes()) }
    }
}

impl Target for WebSocketCall {
    type User = WebSocket;
    type Error = WebSocketError;

    async fn connect(&self) -> Result<WebSocket, WebSocketError> {
        WebSocket::connect(self.address, &self.path).await
    }

    async fn call(&self, connection: &mut WebSocket, _: &Iteration) -> Result<(), WebSocketError> {
        connection.stream.get_mut().write_all(&self.frame).await?;
        connection.message().await.map(|_| ())
    }
}

/// One connection.
#[derive(Debug)]
pub struct WebSocket {
    stream: BufReader<TcpStream>,
}

impl WebSocket {
    /// Connects and upgrades. The server's proof of the key is not checked: conformance is another crate's business.
    ///
    /// # Errors
    /// [`WebSocketError::Io`] when nobody listens there, [`WebSocketError::Refused`] when it does not upgrade.
    pub async fn connect(address: SocketAddr, path: &str) -> Result<Self, WebSocketError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: aGFybmVzcy1sb2FkIGtleQ==\r\n\r\n"
        );
        stream.get_mut().write_all(upgrade.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head.len() > LONGEST_HEAD {
                return Err(WebSocketError::Refused("a head without an end".to_owned()));
            }
        }
        if head.starts_with(b"HTTP/1.1 101") {
            return Ok(Self { stream });
        }
        let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Err(WebSocketError::Refused(String::from_utf8_lossy(first).into_owned()))
    }

    /// Reads one whole message, answers pings on the way, and says how many bytes it had.
    async fn message(&mut self) -> Result<u64, WebSocketError> {
        let mut bytes = 0;
        loop {
            let [first, second] = self.stream.read_u16().await?.to_be_bytes();
            let length = match second & 0x7f {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => u64::from(short),
            };
            match first & 0x0f {
                CLOSE => return Err(WebSocketError::Closed),
                PING => {
                    // Control frames hold at most 125 bytes (section 5.5).
                    let mut payload = vec![0; length.min(125) as usize];
                    self.stream.read_exact(&mut payload).await?;
                    self.stream.get_mut().write_all(&frame(PONG, &payload)).await?;
                }
                kind => {
                    let skipped = tokio::io::copy(&mut (&mut self.stream).take(length), &mut tokio::io::sink()).await?;
                    if skipped < length {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                    bytes += if kind == PONG { 0 } else { length };
                    if kind != PONG && first & 0x80 != 0 {
                        return Ok(bytes);
                    }
                }
            }
        }
    }
}

/// A whole frame from a client. The mask is zero, which is a mask like any other and leaves the payload as it is.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    #[test]
    fn frames_say_their_length_in_the_shortest_form() {
        assert_eq!(super::frame(1, b"hi"), [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(super::frame(1, &[0; 300])[..4], [0x81, 0xfe, 1, 44]);
        assert_eq!(super::frame(1, &[0; 70_000])[..10], [0x81, 0xff, 0, 0, 0, 0, 0, 1, 17, 112]);
    }
}
