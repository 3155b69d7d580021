//! `MONITOR`: every command a server runs, as it runs them (redis.io, MONITOR).
//!
//! The stream is read by hand, line by line, on the background thread, so that the test's own work never delays it. It ends
//! at a fence: a word that the recorder sends itself after the work, so that everything that was answered before has passed.

use std::collections::BTreeSet;
use std::io::ErrorKind as IoKind;

use harness_core::wait::{seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::wire;
use crate::clerk;

/// Commands that prepare a connection: they are the driver's, not the application's.
const SET_UP: [&str; 5] = ["SELECT", "CLIENT", "HELLO", "AUTH", "READONLY"];
/// Commands `MONITOR` never shows, besides those of the category `admin`.
const NEVER_SHOWN: [&str; 5] = ["AUTH", "EXEC", "HELLO", "MONITOR", "QUIT"];

/// One command a server ran.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Command {
    /// When, in seconds since 1970 by the server's clock, to the microsecond.
    pub at_s: f64,
    /// Its name in upper case.
    pub name: String,
    /// Its arguments; bytes that are no text are replaced.
    pub arguments: Vec<String>,
    /// Address of the client, or `lua` for a command of a script.
    pub client: String,
}

impl Command {
    /// True for a command that a script ran inside the server.
    #[must_use]
    pub fn is_from_script(&self) -> bool {
        self.client == "lua"
    }

    fn is_set_up(&self) -> bool {
        SET_UP.contains(&&*self.name)
    }
}

/// A recording that has begun. Dropped, it ends.
pub(super) struct Recording {
    task: JoinHandle<CoreResult<Vec<Command>>>,
    fence: String,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recording {
    /// Begins: the server has confirmed before this returns.
    pub(super) async fn begin(info: &ConnectionInfo, fence: String) -> CoreResult<Self> {
        let (info, word) = (info.clone(), fence.clone());
        let task = clerk::run(move || async move {
            let index = info.redis_settings().db();
            let mut lines = within("beginning MONITOR", wire::CONNECT_LIMIT, Lines::begin(&info)).await??;
            Ok(tokio::spawn(async move { lines.until(&word, index).await }))
        })
        .await?;
        Ok(Self { task, fence })
    }

    /// Sends the fence and returns the commands before it.
    pub(super) async fn end(mut self, connection: &mut MultiplexedConnection) -> CoreResult<Vec<Command>> {
        let _: String = wire::ask(connection, &["ECHO", &self.fence]).await?;
        let what = format!("no fence in MONITOR for {}", seconds(wire::CONNECT_LIMIT));
        match within(what, wire::CONNECT_LIMIT, &mut self.task).await? {
            Ok(commands) => commands,
            Err(_) => Err(broke("its reader ended")),
        }
    }
}

/// The names `MONITOR` does not show on this server.
pub(super) async fn hidden(connection: &mut MultiplexedConnection) -> CoreResult<BTreeSet<String>> {
    let admin: Vec<String> = wire::ask(connection, &["ACL", "CAT", "admin"]).await?;
    let names = admin.iter().map(|name| name.split('|').next().unwrap_or(name).to_ascii_uppercase());
    Ok(names.chain(NEVER_SHOWN.map(str::to_owned)).collect())
}

fn broke(why: &str) -> Error {
    Error::new(ErrorKind::NoEvidence, format!("the recording of commands broke off: {why}"))
        .remedy("look whether the server was stopped, or the connection killed, while commands were recorded")
}

struct Lines {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Lines {
    async fn begin(info: &ConnectionInfo) -> CoreResult<Self> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            let what = format!("commands cannot be recorded at {}: MONITOR is read over plain TCP only", info.addr());
            return Err(Error::new(ErrorKind::Environment, what));
        };
        let failed =
            |error| Error::new(ErrorKind::Connect, format!("no Redis listens at {host}:{port}")).caused_by(error);
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
        let mut lines = Self { stream, buffer: Vec::new() };
        let settings = info.redis_settings();
        if let Some(password) = settings.password() {
            let mut auth = redis::cmd("AUTH");
            if let Some(user) = settings.username() {
                auth.arg(user);
            }
            auth.arg(password);
            lines.ask("AUTH", &auth.get_packed_command()).await?;
        }
        lines.ask("MONITOR", &redis::cmd("MONITOR").get_packed_command()).await?;
        Ok(lines)
    }

    async fn ask(&mut self, name: &str, command: &[u8]) -> CoreResult {
        let mut left = command;
        while !left.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(left) {
                Ok(n) => left = &left[n..],
                Err(error) if error.kind() == IoKind::WouldBlock => {}
                Err(error) => return Err(broke(&error.to_string())),
            }
        }
        match self.next().await? {
            line if line == b"+OK" => Ok(()),
            line => {
                let what = format!("Redis did not do `{name}`: {}", String::from_utf8_lossy(&line));
                Err(Error::new(ErrorKind::Protocol, what)
                    .remedy("let the user of the URL run MONITOR (ACL category `admin`)"))
            }
        }
    }

    async fn next(&mut self) -> CoreResult<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].windows(2).position(|two| two == b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..searched + end + 2).collect();
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            searched = self.buffer.len().saturating_sub(1);
            self.stream.readable().await?;
            let mut chunk = [0; 16 << 10];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(broke("the server closed the connection")),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == IoKind::WouldBlock => {}
                Err(error) => return Err(broke(&error.to_string())),
            }
        }
    }

    async fn until(&mut self, fence: &str, index: i64) -> CoreResult<Vec<Command>> {
        let mut commands = Vec::new();
        loop {
            let line = self.next().await?;
            let Some((at, command)) = parse(&line) else {
                return Err(broke(&format!("`{}` is no line of MONITOR", String::from_utf8_lossy(&line))));
            };
            if command.name == "ECHO" && command.arguments.first().is_some_and(|word| word == fence) {
                return Ok(commands);
            }
            if at == index && !command.is_set_up() {
                commands.push(command);
            }
        }
    }
}

/// Reads `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`: the logical database and the command.
fn parse(line: &[u8]) -> Option<(i64, Command)> {
    let text = String::from_utf8_lossy(line.strip_prefix(b"+")?);
    let (at, rest) = text.split_once(" [")?;
    let (place, words) = rest.split_once("] \"")?;
    let (index, client) = place.split_once(' ')?;
    let mut words = unquote(words)?.into_iter();
    let command = Command {
        at_s: at.parse().ok()?,
        name: words.next()?.to_ascii_uppercase(),
        arguments: words.collect(),
        client: client.to_owned(),
    };
    Some((index.parse().ok()?, command))
}

/// Words in quotes, the first quote already taken off; escapes as the server writes them (`sdscatrepr`).
fn unquote(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), Vec::new(), true);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (quoted, byte) {
            (true, b'\\') => word.push(match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            }),
            (true, b'"') => {
                words.push(String::from_utf8_lossy(&word).into_owned());
                word.clear();
                quoted = false;
            }
            (true, byte) => word.push(byte),
            (false, b'"') => quoted = true,
            (false, b' ') => {}
            (false, _) => return None,
        }
    }
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lines_are_read_with_their_escapes() {
        let (index, command) =
            parse(br#"+1339518083.107412 [3 127.0.0.1:60866] "set" "a \"b\"\n" "\xc3\xa4\\""#).unwrap();
        assert_eq!((index, &*command.name, &*command.client), (3, "SET", "127.0.0.1:60866"));
        assert_eq!(command.arguments, ["a \"b\"\n", "ä\\"]);
        let (_, inner) = parse(br#"+1339518083.107412 [0 lua] "get" "x""#).unwrap();
        assert!(inner.is_from_script());
        let (_, six) = parse(br#"+1.5 [0 [::1]:6000] "ping""#).unwrap();
        assert_eq!((&*six.client, six.arguments.len()), ("[::1]:6000", 0));
    }

    #[test]
    fn what_is_no_line_is_not_taken_for_one() {
        for line in ["", "+OK", "-ERR x", "+1.5 [0 a] \"open", "+1.5 [x a] \"get\"", "+1.5 [0 a] \"get\" bare"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
