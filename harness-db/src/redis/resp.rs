//! The wire of Redis (RESP 2 and 3), cut into commands and replies, and faults that take one of them.
//!
//! ```no_run
//! use harness_core::fault::inject;
//! use harness_db::redis::resp;
//!
//! # async fn body(own: &harness_db::OwnRedis) -> harness_db::Result {
//! let lost = resp::reply_lost(own.address(), "SET", 3)?; // the third `SET` is done, and its client never hears of it
//! let service = format!("redis://{}/1", lost.address()); // hand this to the system under test
//! let lost = inject(lost).await?;
//! # drop((service, lost));
//! # Ok(()) }
//! ```
//!
//! Source: the specification of the Redis serialization protocol, RESP2 and RESP3. Replies are matched with commands by their order,
//! as clients do; push messages belong to no command. A connection that has subscribed, or that turned replies off, is passed
//! without matching. TLS cannot be read, and a cluster announces addresses that bypass the tap: both leave the fault without a
//! bite.

use std::collections::VecDeque;
use std::fmt;

use harness_core::fault::{Frames, Framing, TapFault, Towards, Upstream};
use harness_core::{CoreResult, Error, ErrorKind};

/// Values in one frame: more is noise.
const VALUES: u64 = 4 << 20;
/// Bytes of a line that announces a value.
const LINE: usize = 64 * 1024;

/// A command, or the reply to one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RespFrame {
    /// The command in capitals: `SET`. Of a reply the command it answers; empty for a message that answers none.
    pub command: String,
    /// How many of this command the connection had sent with this one, counted from 1; nought for a message that answers none.
    pub number: u64,
    /// The first byte of a reply: `+`, `-`, `:`, `$`, `*`, and those of RESP3; `*` of a command.
    pub kind: char,
}

impl fmt::Display for RespFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.as_str() {
            "" => write!(f, "a message ({})", self.kind),
            command => write!(f, "{command} {} ({})", self.number, self.kind),
        }
    }
}

/// Reads both streams of one connection.
#[derive(Debug, Default)]
pub struct Resp {
    /// Commands that have no reply yet, the oldest first.
    asked: VecDeque<(String, u64)>,
    sent: std::collections::BTreeMap<String, u64>,
    /// Replies can no longer be told apart.
    is_loose: bool,
    up: Scan,
    down: Scan,
}

/// How far a frame was looked at, so that a long one that comes in pieces is read once.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    /// Values still to come.
    open: u64,
}

impl Scan {
    /// The length of the frame at the begin of the bytes, once it is whole.
    fn whole(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        if self.at == 0 {
            self.open = 1;
        }
        while self.open > 0 {
            let Some(line) = line(bytes.get(self.at..).unwrap_or_default())? else { return Ok(None) };
            let begin = self.at + line.len() + 2;
            let count = || -> Result<i64, String> {
                let text = std::str::from_utf8(&line[1..]).unwrap_or_default();
                text.parse().map_err(|_| format!("`{}` announces no number", String::from_utf8_lossy(line)))
            };
            let (end, more) = match line.first() {
                Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => (begin, 0),
                Some(b'$' | b'!' | b'=') => match usize::try_from(count()?) {
                    Ok(length) => (begin.saturating_add(length).saturating_add(2), 0),
                    Err(_) => (begin, 0), // -1: no value
                },
                Some(b'*' | b'~' | b'>') => (begin, u64::try_from(count()?).unwrap_or(0)),
                Some(b'%') => (begin, u64::try_from(count()?).unwrap_or(0).saturating_mul(2)),
                // Attributes come before the value they are about.
                Some(b'|') => (begin, u64::try_from(count()?).unwrap_or(0).saturating_mul(2).saturating_add(1)),
                _ => return Err(format!("`{}` begins no value", String::from_utf8_lossy(&line[..line.len().min(20)]))),
            };
            if end > bytes.len() {
                return Ok(None);
            }
            self.at = end;
            self.open = self.open - 1 + more;
            if self.open > VALUES {
                return Err(format!("a frame announces {} values", self.open));
            }
        }
        Ok(Some(std::mem::take(&mut self.at)))
    }
}

/// The line at the begin of the bytes, without its end.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    match bytes.windows(2).take(LINE).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(&bytes[..end])),
        None if bytes.len() > LINE => Err("a line has no end".to_owned()),
        None => Ok(None),
    }
}

/// The first word of a command in capitals: of an array of bulk strings, else of a line.
fn command(frame: &[u8]) -> String {
    let mut lines = frame.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let word = if first.starts_with(b"*") { lines.nth(1).unwrap_or_default() } else { first };
    let word = word.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    String::from_utf8_lossy(word).to_ascii_uppercase()
}

impl Framing for Resp {
    type Frame = RespFrame;

    fn next(&mut self, towards: Towards, bytes: &[u8]) -> Result<Option<(usize, RespFrame)>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = match (towards, bytes[0]) {
            // A person's line: words and an end.
            (Towards::Server, first) if first != b'*' => line(bytes)?.map(|line| line.len() + 2),
            (Towards::Server, _) => self.up.whole(bytes)?,
            (Towards::Client, _) => self.down.whole(bytes)?,
        };
        let Some(length) = length else { return Ok(None) };
        let (frame, kind) = (&bytes[..length], char::from(bytes[0]));
        if towards == Towards::Server {
            let command = command(frame);
            let says_so = |word: &str| String::from_utf8_lossy(frame).to_ascii_uppercase().contains(word);
            self.is_loose |=
                command.ends_with("SUBSCRIBE") || command == "MONITOR" || command == "CLIENT" && says_so("REPLY");
            let number = self.sent.entry(command.clone()).or_default();
            *number += 1;
            let number = *number;
            if !command.is_empty() && !self.is_loose {
                self.asked.push_back((command.clone(), number));
            }
            return Ok(Some((length, RespFrame { command, number, kind })));
        }
        let asked = if self.is_loose || kind == '>' { None } else { self.asked.pop_front() };
        let (command, number) = asked.unwrap_or_default();
        Ok(Some((length, RespFrame { command, number, kind })))
    }
}

/// While injected, the reply to the `nth` command of this name since then is lost with its connection: the server has done it, and
/// the client cannot know. Counted over all connections; nought means every one.
///
/// # Errors
/// [`ErrorKind::Config`] for a name of several words; [`ErrorKind::Environment`] when no port can be had.
pub fn reply_lost(upstream: impl Into<Upstream>, command: &str, nth: u64) -> CoreResult<TapFault> {
    lost(upstream.into(), Towards::Client, command, nth)
}

/// While injected, the `nth` command of this name since then is lost with its connection before the server sees it: the client
/// cannot know, and nothing was done. Nought means every one.
///
/// # Errors
/// As [`reply_lost`].
pub fn command_lost(upstream: impl Into<Upstream>, command: &str, nth: u64) -> CoreResult<TapFault> {
    lost(upstream.into(), Towards::Server, command, nth)
}

fn lost(upstream: Upstream, towards: Towards, command: &str, nth: u64) -> CoreResult<TapFault> {
    let wanted = command.trim().to_ascii_uppercase();
    if wanted.is_empty() || wanted.contains(char::is_whitespace) {
        return Err(Error::new(ErrorKind::Config, format!("`{command}` is not the name of a command, such as SET")));
    }
    let which = if nth == 0 { "each".to_owned() } else { format!("number {nth}") };
    let what = if towards == Towards::Client { "the reply to" } else { "the command" };
    let name = format!("{what} {wanted} is lost, {which}");
    let mut seen = 0;
    TapFault::new(name, upstream, Resp::default, move |direction, frame: &RespFrame| {
        if direction != towards || frame.command != wanted {
            return None;
        }
        seen += 1;
        (nth == 0 || seen == nth).then_some(Frames::Cut)
    })
}

#[cfg(test)]
mod tests {
    use super::{Framing as _, Resp, Towards};

    /// All frames of a stream, fed byte by byte and at once: the same.
    fn frames(resp: &mut Resp, towards: Towards, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let mut begin = 0;
        for end in 1..=bytes.len() {
            while let Some((length, frame)) = resp.next(towards, &bytes[begin..end]).unwrap() {
                found.push(format!("{frame} {length}"));
                begin += length;
            }
        }
        assert_eq!(begin, bytes.len(), "something is left over");
        found
    }

    #[test]
    fn commands_and_replies_are_cut_and_matched_in_order() {
        let mut resp = Resp::default();
        let asked = b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$7\r\nHGETALL\r\n*1\r\n$3\r\nSET\r\n";
        assert_eq!(
            frames(&mut resp, Towards::Server, asked),
            ["SET 1 (*) 30", "GET 1 (*) 20", "PING 1 (P) 6", "HGETALL 1 (*) 17", "SET 2 (*) 13"]
        );
        let answered = b"+OK\r\n$4\r\na\r\nb\r\n>2\r\n+invalidate\r\n*-1\r\n+PONG\r\n|1\r\n+ttl\r\n:7\r\n%1\r\n$1\r\na\r\n*2\r\n:1\r\n#t\r\n-ERR no\r\n";
        assert_eq!(
            frames(&mut resp, Towards::Client, answered),
            ["SET 1 (+) 5", "GET 1 ($) 10", "a message (>) 22", "PING 1 (+) 7", "HGETALL 1 (|) 37", "SET 2 (-) 9"]
        );
    }

    #[test]
    fn subscribed_connection_is_passed_without_matching_and_noise_is_refused() {
        let mut resp = Resp::default();
        assert_eq!(frames(&mut resp, Towards::Server, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n").len(), 1);
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";
        assert_eq!(frames(&mut resp, Towards::Client, message), ["a message (*) 31"]);
        for noise in [&b"\x16\x03\x01\r\n"[..], b"*x\r\n", b"*99999999999\r\n$1\r\n"] {
            assert!(Resp::default().next(Towards::Client, noise).is_err(), "{noise:?}");
        }
        assert_eq!(Resp::default().next(Towards::Client, b"$-1\r\n").unwrap().unwrap().0, 5);
        assert_eq!(Resp::default().next(Towards::Client, b"*0\r\n").unwrap().unwrap().0, 4);
    }
}
