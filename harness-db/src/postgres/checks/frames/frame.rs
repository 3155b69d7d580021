//! One message of the protocol: who sent it, what it is, and the few fields that decisions need.

/// Bytes of a tagged message before its body: tag and length.
const HEAD: usize = 5;
/// Bytes of an untagged message (the first of a connection) before its code.
const UNTAGGED_HEAD: usize = 4;
/// The codes of requests that stand in the place of a start-up message.
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client: the frontend, in the words of the protocol.
    Client,
    /// The server: the backend.
    Server,
}

/// What a frame is, by the names of the protocol's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `StartupMessage`: the first of a session.
    Startup,
    /// `SSLRequest`; declined by the tap, and never forwarded.
    TlsRequest,
    /// `GSSENCRequest`; declined by the tap, and never forwarded.
    GssRequest,
    /// `CancelRequest`, on a connection of its own.
    CancelRequest,
    /// `PasswordMessage` and its SASL siblings.
    Password,
    /// `Query`: statements as text.
    Query,
    /// `Parse`: a statement to be prepared.
    Parse,
    /// `Bind`: parameters of a prepared statement.
    Bind,
    /// `Describe`.
    Describe,
    /// `Execute`: runs what was bound.
    Execute,
    /// `Close` of a prepared statement or portal.
    Close,
    /// `Sync`: the end of an extended batch; answered by `ReadyForQuery`.
    Sync,
    /// `Flush`.
    Flush,
    /// `FunctionCall`.
    FunctionCall,
    /// `Terminate`: goodbye.
    Terminate,
    /// `CopyData`, from either side.
    CopyData,
    /// `CopyDone`, from either side.
    CopyDone,
    /// `CopyFail`.
    CopyFail,
    /// `Authentication…`.
    Authentication,
    /// `BackendKeyData`: the server process's id.
    BackendKeyData,
    /// `ParameterStatus`.
    ParameterStatus,
    /// `ReadyForQuery`: everything up to the last `Query` or `Sync` is answered.
    ReadyForQuery,
    /// `RowDescription`.
    RowDescription,
    /// `DataRow`.
    DataRow,
    /// `CommandComplete`, with a tag such as `UPDATE 1`.
    CommandComplete,
    /// `ErrorResponse`, with an SQLSTATE.
    Error,
    /// `NoticeResponse`.
    Notice,
    /// `NotificationResponse`: something was sent on a channel that is listened to.
    Notification,
    /// Another frame of the server; its tag.
    OtherOfServer(u8),
    /// Another frame of the client; its tag.
    OtherOfClient(u8),
}

/// One message, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    side: Side,
    connection: u64,
    number: u64,
    tag: Option<u8>,
    bytes: Vec<u8>,
}

impl Frame {
    pub(super) fn new(side: Side, connection: u64, number: u64, tag: Option<u8>, bytes: Vec<u8>) -> Self {
        Self { side, connection, number, tag, bytes }
    }

    /// Who sent it.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Which connection of the tap carries it, counted from 1.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Its number among the frames of this side of this connection, counted from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// All its bytes, as they travel.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes after tag and length.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(if self.tag.is_some() { HEAD } else { UNTAGGED_HEAD }..).unwrap_or_default()
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (self.side, self.tag) {
            (_, None) => match self.body().first_chunk().map(|code| u32::from_be_bytes(*code)) {
                Some(CANCEL) => Kind::CancelRequest,
                Some(TLS) => Kind::TlsRequest,
                Some(GSS) => Kind::GssRequest,
                _ => Kind::Startup,
            },
            (_, Some(b'd')) => Kind::CopyData,
            (_, Some(b'c')) => Kind::CopyDone,
            (Side::Client, Some(tag)) => of_client(tag),
            (Side::Server, Some(tag)) => of_server(tag),
        }
    }

    /// The text of a `Query` or a `Parse`.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        match self.kind() {
            Kind::Query => text(self.body()).map(|(sql, _)| sql),
            Kind::Parse => text(text(self.body())?.1).map(|(sql, _)| sql),
            _ => None,
        }
    }

    /// The name of the prepared statement that a `Parse` makes or a `Bind` uses; empty for the unnamed one.
    #[must_use]
    pub fn statement(&self) -> Option<&str> {
        match self.kind() {
            Kind::Parse => text(self.body()).map(|(name, _)| name),
            Kind::Bind => text(text(self.body())?.1).map(|(name, _)| name),
            _ => None,
        }
    }

    /// The tag of a `CommandComplete`: `COMMIT`, `UPDATE 1`, …
    #[must_use]
    pub fn command_tag(&self) -> Option<&str> {
        (self.kind() == Kind::CommandComplete).then(|| text(self.body())).flatten().map(|(tag, _)| tag)
    }

    /// The SQLSTATE of an `ErrorResponse`.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.field(b'C')
    }

    /// The message of an `ErrorResponse`.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.field(b'M')
    }

    /// The server process's id, from a `BackendKeyData`.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self.kind() {
            Kind::BackendKeyData => self.body().first_chunk().map(|pid| i32::from_be_bytes(*pid)),
            _ => None,
        }
    }

    /// Of a `ReadyForQuery`: `I` idle, `T` in a transaction, `E` in a failed one.
    #[must_use]
    pub fn transaction_status(&self) -> Option<char> {
        (self.kind() == Kind::ReadyForQuery).then(|| self.body().first().map(|status| char::from(*status))).flatten()
    }

    fn field(&self, wanted: u8) -> Option<&str> {
        let mut rest = (self.kind() == Kind::Error).then(|| self.body())?;
        loop {
            let (&code, after) = rest.split_first().filter(|(code, _)| **code != 0)?;
            let (value, after) = text(after)?;
            if code == wanted {
                return Some(value);
            }
            rest = after;
        }
    }

    /// One line about it for a table: the statement, the tag, the error, or just its kind.
    pub(super) fn about(&self) -> String {
        let said = self.sql().or_else(|| self.command_tag()).map(str::to_owned);
        let said = said.or_else(|| Some(format!("{} {}", self.sqlstate()?, self.message()?)));
        said.unwrap_or_default().chars().take(200).collect()
    }
}

fn of_client(tag: u8) -> Kind {
    match tag {
        b'Q' => Kind::Query,
        b'P' => Kind::Parse,
        b'B' => Kind::Bind,
        b'D' => Kind::Describe,
        b'E' => Kind::Execute,
        b'C' => Kind::Close,
        b'S' => Kind::Sync,
        b'H' => Kind::Flush,
        b'F' => Kind::FunctionCall,
        b'X' => Kind::Terminate,
        b'p' => Kind::Password,
        b'f' => Kind::CopyFail,
        other => Kind::OtherOfClient(other),
    }
}

fn of_server(tag: u8) -> Kind {
    match tag {
        b'R' => Kind::Authentication,
        b'K' => Kind::BackendKeyData,
        b'S' => Kind::ParameterStatus,
        b'Z' => Kind::ReadyForQuery,
        b'T' => Kind::RowDescription,
        b'D' => Kind::DataRow,
        b'C' => Kind::CommandComplete,
        b'E' => Kind::Error,
        b'N' => Kind::Notice,
        b'A' => Kind::Notification,
        other => Kind::OtherOfServer(other),
    }
}

/// A text that ends with a zero byte, and what follows it.
fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// The columns of a `DataRow`; `None` is NULL.
pub(crate) fn columns(frame: &Frame) -> Vec<Option<&[u8]>> {
    let mut found = Vec::new();
    let Some((_, mut rest)) = frame.body().split_first_chunk::<2>() else { return found };
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        found.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, after) = rest.split_at(length.min(rest.len()));
                rest = after;
                Some(value)
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Frame, Kind, Side, columns};

    fn frame(side: Side, tag: u8, body: &[u8]) -> Frame {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        Frame::new(side, 1, 1, Some(tag), bytes)
    }

    #[test]
    fn one_tag_means_two_things_by_its_side() {
        assert_eq!(frame(Side::Client, b'C', b"").kind(), Kind::Close);
        assert_eq!(frame(Side::Server, b'C', b"COMMIT\0").command_tag(), Some("COMMIT"));
        assert_eq!(frame(Side::Client, b'E', b"").kind(), Kind::Execute);
        assert_eq!(frame(Side::Server, b'S', b"").kind(), Kind::ParameterStatus);
        assert_eq!(frame(Side::Client, b'!', b"").kind(), Kind::OtherOfClient(b'!'));
    }

    #[test]
    fn statements_and_errors_are_read() {
        let parse = frame(Side::Client, b'P', b"s1\0select 1\0\0\0");
        assert_eq!((parse.statement(), parse.sql()), (Some("s1"), Some("select 1")));
        assert_eq!(frame(Side::Client, b'B', b"portal\0s1\0\0\0").statement(), Some("s1"));
        assert_eq!(frame(Side::Client, b'Q', b"begin\0").sql(), Some("begin"));
        let error = frame(Side::Server, b'E', b"SERROR\0C40001\0Mcould not serialize\0\0");
        assert_eq!((error.sqlstate(), error.message()), (Some("40001"), Some("could not serialize")));
        assert_eq!(frame(Side::Server, b'Z', b"T").transaction_status(), Some('T'));
        assert_eq!(frame(Side::Server, b'K', &[0, 0, 1, 2, 9, 9, 9, 9]).pid(), Some(258));
    }

    #[test]
    fn untagged_frames_are_told_by_their_code() {
        let first = |code: u32| {
            let bytes = [8_u32.to_be_bytes(), code.to_be_bytes()].concat();
            Frame::new(Side::Client, 1, 1, None, bytes).kind()
        };
        assert_eq!(
            [196_608, 80_877_102, 80_877_103, 80_877_104].map(first),
            [Kind::Startup, Kind::CancelRequest, Kind::TlsRequest, Kind::GssRequest]
        );
    }

    #[test]
    fn broken_bodies_give_nothing_and_do_not_panic() {
        for body in [&b""[..], b"\0", b"x", b"C4", b"\0\x02\0\0\0\x09ab"] {
            for tag in *b"PQBECZKDT" {
                for side in [Side::Client, Side::Server] {
                    let frame = frame(side, tag, body);
                    let _ = (frame.sql(), frame.statement(), frame.sqlstate(), frame.pid(), columns(&frame));
                }
            }
        }
    }

    #[test]
    fn columns_tell_null_from_empty() {
        let row = frame(Side::Server, b'D', b"\0\x03\0\0\0\x02hi\xff\xff\xff\xff\0\0\0\0");
        assert_eq!(columns(&row), [Some(&b"hi"[..]), None, Some(&b""[..])]);
    }
}
