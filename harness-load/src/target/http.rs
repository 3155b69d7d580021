//! A lean HTTP/1.1 client (RFC 9112) for one connection kept alive, that costs a generator as little as can be.
//!
//! It sends bytes that were written once and reads answers with `content-length`, `chunked` or, at the end of a
//! connection, neither. It follows no redirect, decodes no content and speaks no TLS: for a real client write a flow
//! around one.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Target;
use crate::engine::Iteration;

/// The longest head and the longest line of a chunk.
const LONGEST_HEAD: usize = 64 * 1_024;
/// Bytes read at once.
const READ: usize = 16 * 1_024;

/// What may go wrong with an HTTP request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Http1Error {
    /// The connection could not be made, broke, or closed before the answer was complete.
    Io(std::io::Error),
    /// The bytes are no HTTP/1.1 answer; what is wrong with them.
    Garbage(&'static str),
    /// The answer was complete and its status was not the expected one.
    Status(u16),
}

impl fmt::Display for Http1Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Garbage(what) => write!(f, "the answer is not HTTP/1.1: {what}"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl std::error::Error for Http1Error {}

impl From<std::io::Error> for Http1Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A request, sent again and again over connections kept alive: a [`Target`].
///
/// Succeeds when the status is below 400, or the one that [`HttpRequest::expect`] says.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    address: SocketAddr,
    method: String,
    path: String,
    headers: String,
    body: Vec<u8>,
    expected: Option<u16>,
    bytes: Vec<u8>,
}

impl HttpRequest {
    /// `GET path`.
    #[must_use]
    pub fn get(address: SocketAddr, path: &str) -> Self {
        Self::new(address, "GET", path)
    }

    /// `POST path` with a body.
    #[must_use]
    pub fn post(address: SocketAddr, path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(address, "POST", path) }.written()
    }

    /// Any method, without a body. Line ends in what is given are left out, so that nothing can become a header.
    #[must_use]
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self {
            address,
            method: one_line(method),
            path: one_line(path),
            headers: String::new(),
            body: Vec::new(),
            expected: None,
            bytes: Vec::new(),
        }
        .written()
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{}: {}\r\n", one_line(name), one_line(value)));
        self.written()
    }

    /// The only status that counts as success.
    #[must_use]
    pub fn expect(mut self, status: u16) -> Self {
        self.expected = Some(status);
        self
    }

    fn written(mut self) -> Self {
        let Self { address, method, path, headers, body, .. } = &self;
        let length = if body.is_empty() && method == "GET" {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{headers}{length}\r\n");
        self.bytes = [head.as_bytes(), body].concat();
        self
    }
}

fn one_line(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

impl Target for HttpRequest {
    type User = Http1;
    type Error = Http1Error;

    async fn connect(&self) -> Result<Http1, Http1Error> {
        Http1::connect(self.address).await
    }

    async fn call(&self, connection: &mut Http1, _: &Iteration) -> Result<(), Http1Error> {
        if connection.is_over {
            *connection = Http1::connect(self.address).await?;
        }
        let answer = connection.send(&self.bytes, self.method == "HEAD").await?;
        let as_expected = self.expected.map_or(answer.status < 400, |status| status == answer.status);
        if as_expected { Ok(()) } else { Err(Http1Error::Status(answer.status)) }
    }

    fn keeps(&self, error: &Http1Error) -> bool {
        matches!(error, Http1Error::Status(_))
    }
}

/// A complete answer, its body counted and thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Bytes of the body.
    pub body: u64,
    /// False when the server closes the connection after it.
    pub keeps_alive: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Http1 {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read and not yet used.
    filled: usize,
    is_over: bool,
}

impl Http1 {
    /// Connects, without Nagle's delay.
    ///
    /// # Errors
    /// [`Http1Error::Io`] when nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self, Http1Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; READ], filled: 0, is_over: false })
    }

    /// Sends the bytes of a request and reads its answer to the end. After an error the connection is of no more use.
    ///
    /// # Errors
    /// [`Http1Error::Io`] and [`Http1Error::Garbage`]; any status is an answer.
    pub async fn send(&mut self, request: &[u8], is_head: bool) -> Result<Answer, Http1Error> {
        self.is_over = true;
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = parse_head(&self.buffer[..self.filled])? {
                // Interim answers (RFC 9110, section 15.2) come before the real one.
                if !(100..200).contains(&head.status) || head.status == 101 {
                    break head;
                }
                self.consume(head.length);
                continue;
            }
            self.fill().await?;
        };
        self.consume(head.length);
        let has_none = is_head || head.status == 204 || head.status == 304;
        let body = match head.body {
            _ if has_none => 0,
            Body::Length(length) => self.skip(length).await?,
            Body::Chunked => self.chunks().await?,
            Body::UntilClose => self.rest().await?,
        };
        let keeps_alive = head.keeps_alive && (has_none || !matches!(head.body, Body::UntilClose));
        if self.filled > 0 && keeps_alive {
            return Err(Http1Error::Garbage("more bytes than the answer has"));
        }
        self.is_over = !keeps_alive;
        Ok(Answer { status: head.status, body, keeps_alive })
    }

    async fn fill(&mut self) -> Result<(), Http1Error> {
        if self.filled == self.buffer.len() {
            if self.filled >= LONGEST_HEAD {
                return Err(Http1Error::Garbage("its head is longer than 64 KiB"));
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]).await? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        if bytes < self.filled {
            self.buffer.copy_within(bytes..self.filled, 0);
        }
        self.filled = self.filled.saturating_sub(bytes);
    }

    /// Throws away so many bytes.
    async fn skip(&mut self, length: u64) -> Result<u64, Http1Error> {
        let mut left = length;
        loop {
            let here = left.min(self.filled as u64);
            self.consume(here as usize);
            left -= here;
            if left == 0 {
                return Ok(length);
            }
            self.fill().await?;
        }
    }

    async fn chunks(&mut self) -> Result<u64, Http1Error> {
        let mut body = 0;
        loop {
            let line = self.line().await?;
            let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
            match size.ok_or(Http1Error::Garbage("the size of a chunk is not a hexadecimal number"))? {
                0 => break,
                size => body += self.skip(size).await?,
            }
            if !self.line().await?.is_empty() {
                return Err(Http1Error::Garbage("a chunk does not end where its size says"));
            }
        }
        // Trailers, then an empty line.
        while !self.line().await?.is_empty() {}
        Ok(body)
    }

    async fn line(&mut self) -> Result<Vec<u8>, Http1Error> {
        loop {
            if let Some(end) = self.buffer[..self.filled].windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer[..end].to_vec();
                self.consume(end + 2);
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn rest(&mut self) -> Result<u64, Http1Error> {
        let mut body = self.filled as u64;
        loop {
            match self.stream.read(&mut self.buffer).await? {
                0 => return Ok(body),
                read => (body, self.filled) = (body + read as u64, 0),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Of the head itself, its empty line included.
    length: usize,
    body: Body,
    keeps_alive: bool,
}

/// The head of an answer; none while it is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Http1Error> {
    let start = &bytes[..bytes.len().min(9)];
    let minor = match start {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' '] => *minor,
        _ if start.len() < 9 && b"HTTP/1.1 ".iter().zip(start).all(|(a, b)| a == b || (*a == b'1' && *b == b'0')) => {
            return Ok(None);
        }
        _ => return Err(Http1Error::Garbage("it does not begin with HTTP/1.1")),
    };
    let Some(end) = find_end(bytes) else { return Ok(None) };
    let status = bytes.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let status = status.ok_or(Http1Error::Garbage("its status is not three digits"))?;
    let status = status.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let mut head = Head { status, length: end + 4, body: Body::UntilClose, keeps_alive: minor == b'1' };
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(Http1Error::Garbage("a header has no colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // The first letter decides for nearly all headers that this one does not matter.
        match name.first() {
            Some(b'c' | b'C') if name.eq_ignore_ascii_case(b"content-length") => {
                let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                let number = number.ok_or(Http1Error::Garbage("its content-length is not a number"))?;
                if head.body != Body::Chunked {
                    head.body = Body::Length(number);
                }
            }
            // Chunked is the last coding, and wins over any length (RFC 9112, section 6.3).
            Some(b't' | b'T') if name.eq_ignore_ascii_case(b"transfer-encoding") && ends_chunked(value) => {
                head.body = Body::Chunked;
            }
            Some(b'c' | b'C') if name.eq_ignore_ascii_case(b"connection") => {
                head.keeps_alive = value.eq_ignore_ascii_case(b"keep-alive")
                    || (head.keeps_alive && !value.eq_ignore_ascii_case(b"close"));
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

fn ends_chunked(value: &[u8]) -> bool {
    value.last_chunk::<7>().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"))
}

/// Where the empty line begins that ends a head.
fn find_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == b'\r') {
        let at = from + at;
        if bytes.get(at..at + 4)? == b"\r\n\r\n" {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Body, Head, HttpRequest, parse_head};

    #[test]
    fn heads_are_read_as_they_are() {
        let head = |text: &str| parse_head(text.as_bytes()).unwrap();
        let length = Head { status: 200, length: 38, body: Body::Length(5), keeps_alive: true };
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Some(length));
        let both = head("HTTP/1.1 500 No\r\ncontent-length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n").unwrap();
        assert_eq!((both.status, both.body), (500, Body::Chunked));
        assert!(!head("HTTP/1.0 200 OK\r\n\r\n").unwrap().keeps_alive);
        assert!(head("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n").unwrap().keeps_alive);
        assert!(!head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").unwrap().keeps_alive);
        for cut in 0..38 {
            assert_eq!(head(&"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..cut]), None, "{cut} bytes");
        }
    }

    #[test]
    fn garbage_is_named() {
        for text in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn requests_are_written_once_and_cannot_be_split() {
        let address = "127.0.0.1:80".parse().unwrap();
        let request = HttpRequest::post(address, "/a\r\nx: y", "{}").header("accept", "a\r\nb");
        assert_eq!(
            String::from_utf8(request.bytes).unwrap(),
            "POST /ax: y HTTP/1.1\r\nhost: 127.0.0.1:80\r\naccept: ab\r\ncontent-length: 2\r\n\r\n{}"
        );
        let get = String::from_utf8(HttpRequest::get(address, "/").bytes).unwrap();
        assert_eq!(get, "GET / HTTP/1.1\r\nhost: 127.0.0.1:80\r\n\r\n");
    }
}
