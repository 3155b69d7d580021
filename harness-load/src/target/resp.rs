//! Redis commands over the Redis serialization protocol (RESP2), without a driver.

use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Target;
use crate::engine::Iteration;

/// The longest line and the longest string of an answer, as Redis itself limits it.
const LONGEST: usize = 512 * 1_024 * 1_024;

/// What may go wrong with a command.
#[derive(Debug)]
#[non_exhaustive]
pub enum RespError {
    /// The connection could not be made or broke.
    Io(std::io::Error),
    /// The bytes are no RESP2 answer.
    Garbage(String),
    /// The server refused the command; its word for it, such as `WRONGTYPE` or `OOM`, and the rest.
    Refused(String),
}

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Garbage(what) => write!(f, "the answer is not RESP2: {what}"),
            Self::Refused(why) => write!(f, "{why}"),
        }
    }
}

impl std::error::Error for RespError {}

impl From<std::io::Error> for RespError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// One command, sent again and again: a [`Target`]. Any answer but an error is a success.
#[derive(Debug, Clone)]
pub struct RespCommand {
    address: SocketAddr,
    bytes: Vec<u8>,
}

impl RespCommand {
    /// A command with its arguments: `RespCommand::new(address, ["SET", "key", "value"])`.
    pub fn new<A: AsRef<[u8]>>(address: SocketAddr, command: impl IntoIterator<Item = A>) -> Self {
        Self { address, bytes: encode(command) }
    }
}

impl Target for RespCommand {
    type User = Resp;
    type Error = RespError;

    async fn connect(&self) -> Result<Resp, RespError> {
        Resp::connect(self.address).await
    }

    async fn call(&self, connection: &mut Resp, _: &Iteration) -> Result<(), RespError> {
        connection.send(&self.bytes).await
    }

    fn keeps(&self, error: &RespError) -> bool {
        matches!(error, RespError::Refused(_))
    }
}

fn encode<A: AsRef<[u8]>>(command: impl IntoIterator<Item = A>) -> Vec<u8> {
    let (mut words, mut count) = (Vec::new(), 0);
    for word in command {
        let word = word.as_ref();
        words.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        words.extend_from_slice(word);
        words.extend_from_slice(b"\r\n");
        count += 1;
    }
    [format!("*{count}\r\n").as_bytes(), &words].concat()
}

/// One connection.
#[derive(Debug)]
pub struct Resp {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Resp {
    /// Connects, without Nagle's delay.
    ///
    /// # Errors
    /// [`RespError::Io`] when nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self, RespError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), line: Vec::new() })
    }

    /// Sends an encoded command and reads its answer to the end.
    async fn send(&mut self, command: &[u8]) -> Result<(), RespError> {
        self.stream.get_mut().write_all(command).await?;
        // How many values are still to come: arrays add theirs, so that nesting needs no recursion.
        let (mut open, mut refused) = (1_u64, None);
        while open > 0 {
            open -= 1;
            match self.value().await? {
                Value::Whole => {}
                Value::Array(values) => open = open.saturating_add(values),
                Value::Refused(why) => refused = Some(why),
            }
        }
        refused.map_or(Ok(()), |why| Err(RespError::Refused(why)))
    }

    async fn value(&mut self) -> Result<Value, RespError> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line).await?;
        let garbage =
            |line: &[u8]| RespError::Garbage(String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned());
        let Some(([kind, rest @ ..], b"\r\n")) = self.line.split_last_chunk::<2>().map(|(line, end)| (line, &end[..]))
        else {
            let is_closed = self.line.is_empty();
            return Err(if is_closed {
                std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()
            } else {
                garbage(&self.line)
            });
        };
        let number = || {
            let text = std::str::from_utf8(rest).ok()?;
            text.parse::<i64>().ok().filter(|number| *number >= -1 && *number <= LONGEST as i64)
        };
        Ok(match (kind, number()) {
            (b'+' | b':', _) | (b'$', Some(-1)) => Value::Whole,
            (b'-', _) => Value::Refused(String::from_utf8_lossy(rest).into_owned()),
            (b'*', Some(values)) => Value::Array(values.max(0) as u64),
            (b'$', Some(length)) => {
                let mut left = length as usize + 2;
                while left > 0 {
                    let here = self.stream.fill_buf().await?.len().min(left);
                    if here == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                    self.stream.consume(here);
                    left -= here;
                }
                Value::Whole
            }
            _ => return Err(garbage(&self.line)),
        })
    }
}

enum Value {
    Whole,
    Array(u64),
    Refused(String),
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_arrays_of_strings() {
        assert_eq!(super::encode(["SET", "k", ""]), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
