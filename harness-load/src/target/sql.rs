//! SQL statements over the Postgres protocol (version 3.0), prepared once per connection, without a driver's row types.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use percent_encoding::percent_decode_str;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::Target;
use crate::engine::Iteration;

/// The name of the statement on each connection.
const NAME: &str = "load";
/// The longest message that is read into memory; rows are skipped, not read.
const LONGEST: usize = 1_024 * 1_024;

/// What may go wrong with a statement.
#[derive(Debug)]
#[non_exhaustive]
pub enum SqlError {
    /// The connection could not be made or broke.
    Io(std::io::Error),
    /// The bytes are no Postgres messages.
    Garbage(String),
    /// The address, or the way in which the server wants to be spoken to, is none that this target knows.
    Unsupported(String),
    /// The server refused: SQLSTATE and its words.
    Refused {
        /// Five characters, such as `23505` or `53300`.
        state: String,
        /// What the server says.
        message: String,
    },
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Garbage(what) => write!(f, "the answer is not of the Postgres protocol: {what}"),
            Self::Unsupported(what) => write!(f, "{what}: connect in another way, or write a target over a driver"),
            Self::Refused { state, message } => write!(f, "{message} (SQLSTATE {state})"),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<std::io::Error> for SqlError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// The arguments of one iteration, as text; `None` is SQL `NULL`.
type Arguments = Arc<dyn Fn(&Iteration) -> Vec<Option<Cow<'static, str>>> + Send + Sync>;

/// One statement, run again and again: a [`Target`]. It is prepared when a user connects; an iteration binds, executes and
/// reads to the end, so that whatever it changes is committed.
///
/// Rows are counted by the server and skipped here. An error of the server is an error of the iteration, of the kind of
/// its SQLSTATE; the connection stays.
///
/// ```no_run
/// use harness_load::target::SqlStatement;
/// use harness_load::{Load, per_second, secs};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let insert = SqlStatement::new("postgres://app:secret@127.0.0.1/orders", "insert into orders values ($1, $2)")?
///     .with(|iteration| vec![Some(iteration.n().to_string().into()), None]);
/// let run = Load::open(per_second(200)).hold(secs(10)).target("insert", 1, insert).run().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqlStatement {
    host: String,
    port: u16,
    user: String,
    database: String,
    password: String,
    statement: String,
    arguments: Option<Arguments>,
}

impl fmt::Debug for SqlStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, statement, .. } = self;
        write!(f, "SqlStatement({statement:?} as {user} at {host}:{port}/{database})")
    }
}

impl SqlStatement {
    /// A statement without arguments at an address such as `postgres://user:password@host:5432/database`. The user proves
    /// itself as the server asks: by SCRAM-SHA-256, MD5 or clear text. Parameters of the address are not read.
    ///
    /// # Errors
    /// [`SqlError::Unsupported`] for what is no such address, and for one that demands TLS or a Unix socket.
    pub fn new(address: &str, statement: impl Into<String>) -> Result<Self, SqlError> {
        let unsupported = |why: &str| SqlError::Unsupported(format!("{why} in an address of Postgres"));
        let url = Url::parse(address).map_err(|error| unsupported(&error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(unsupported(&format!("scheme `{}`", url.scheme())));
        }
        let demands = url.query_pairs().find(|(name, value)| {
            name == "host" || name == "sslmode" && !matches!(&**value, "disable" | "allow" | "prefer")
        });
        if let Some((name, value)) = demands {
            return Err(unsupported(&format!("`{name}={value}`")));
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        // The scheme is not one of the web's, so that an IPv4 address is a name to this parser; either connects.
        let host = match url.host().ok_or_else(|| unsupported("no host"))? {
            Host::Domain(name) => decoded(name),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let user =
            Some(decoded(url.username())).filter(|user| !user.is_empty()).unwrap_or_else(|| "postgres".to_owned());
        let database = decoded(url.path().trim_start_matches('/'));
        Ok(Self {
            host,
            port: url.port().unwrap_or(5432),
            database: if database.is_empty() { user.clone() } else { database },
            user,
            password: decoded(url.password().unwrap_or_default()),
            statement: statement.into(),
            arguments: None,
        })
    }

    /// Arguments `$1`, `$2`, … of each iteration, as text; `None` is `NULL`.
    #[must_use]
    pub fn with(
        self,
        arguments: impl Fn(&Iteration) -> Vec<Option<Cow<'static, str>>> + Send + Sync + 'static,
    ) -> Self {
        Self { arguments: Some(Arc::new(arguments)), ..self }
    }
}

impl Target for SqlStatement {
    type User = Sql;
    type Error = SqlError;

    async fn connect(&self) -> Result<Sql, SqlError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let mut sql = Sql { stream: BufReader::new(stream), out: BytesMut::new(), body: Vec::new() };
        sql.start(self).await?;
        frontend::parse(NAME, &self.statement, [], &mut sql.out)?;
        frontend::sync(&mut sql.out);
        sql.finish().await?;
        Ok(sql)
    }

    async fn call(&self, sql: &mut Sql, iteration: &Iteration) -> Result<(), SqlError> {
        let arguments = self.arguments.as_ref().map_or_else(Vec::new, |arguments| arguments(iteration));
        let text = |argument: Option<Cow<'static, str>>, out: &mut BytesMut| {
            let Some(text) = argument else { return Ok(IsNull::Yes) };
            out.extend_from_slice(text.as_bytes());
            Ok(IsNull::No)
        };
        frontend::bind("", NAME, [], arguments, text, [], &mut sql.out)
            .map_err(|_| SqlError::Unsupported("more than 65,535 arguments, or one beyond 2 GiB".to_owned()))?;
        frontend::execute("", 0, &mut sql.out)?;
        frontend::sync(&mut sql.out);
        sql.finish().await
    }

    fn keeps(&self, error: &SqlError) -> bool {
        // A session that the server ends (class 57, and refused logins of class 28) says so and is gone.
        matches!(error, SqlError::Refused { state, .. } if !state.starts_with("57P") && !state.starts_with("28"))
    }
}

/// One connection with its prepared statement.
#[derive(Debug)]
pub struct Sql {
    stream: BufReader<TcpStream>,
    out: BytesMut,
    body: Vec<u8>,
}

impl Sql {
    /// Logs in, up to the first `ReadyForQuery`.
    async fn start(&mut self, statement: &SqlStatement) -> Result<(), SqlError> {
        let names =
            [("user", statement.user.as_str()), ("database", &statement.database), ("application_name", "load")];
        frontend::startup_message(names, &mut self.out)?;
        self.send().await?;
        let mut scram = None;
        loop {
            match self.message().await? {
                b'R' => {
                    let (kind, rest) = self.body.split_first_chunk().ok_or_else(|| garbage("an empty request"))?;
                    match i32::from_be_bytes(*kind) {
                        0 => continue,
                        3 => frontend::password_message(statement.password.as_bytes(), &mut self.out)?,
                        5 => {
                            let salt = rest.first_chunk().ok_or_else(|| garbage("MD5 without its salt"))?;
                            let (user, password) = (statement.user.as_bytes(), statement.password.as_bytes());
                            frontend::password_message(md5_hash(user, password, *salt).as_bytes(), &mut self.out)?;
                        }
                        10 => {
                            if !rest.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                                return Err(SqlError::Unsupported("the server offers no SCRAM-SHA-256".to_owned()));
                            }
                            let begun = ScramSha256::new(statement.password.as_bytes(), ChannelBinding::unsupported());
                            frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut self.out)?;
                            scram = Some(begun);
                        }
                        11 | 12 => {
                            let begun = scram.as_mut().ok_or_else(|| garbage("SCRAM that nobody began"))?;
                            if *kind == 12_i32.to_be_bytes() {
                                begun.finish(rest)?;
                                continue;
                            }
                            begun.update(rest)?;
                            frontend::sasl_response(begun.message(), &mut self.out)?;
                        }
                        other => {
                            return Err(SqlError::Unsupported(format!("the server asks for login method {other}")));
                        }
                    }
                    self.send().await?;
                }
                b'E' => return Err(refusal(&self.body)),
                b'Z' => return Ok(()),
                b'S' | b'K' | b'N' => {}
                other => return Err(garbage(&format!("message {:?} during login", char::from(other)))),
            }
        }
    }

    async fn send(&mut self) -> Result<(), SqlError> {
        self.stream.get_mut().write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Sends what was written, and reads up to `ReadyForQuery`; the first refusal is the result.
    async fn finish(&mut self) -> Result<(), SqlError> {
        self.send().await?;
        let mut refused = None;
        loop {
            match self.message().await? {
                b'E' => {
                    let refusal = refusal(&self.body);
                    // A server that ends the session says so, and no more.
                    if matches!(&refusal, SqlError::Refused { state, .. } if state.starts_with("57P")) {
                        return Err(refusal);
                    }
                    refused = refused.or(Some(refusal));
                }
                b'Z' => return refused.map_or(Ok(()), Err),
                b'G' | b'W' => return Err(SqlError::Unsupported("COPY needs a driver".to_owned())),
                b'1' | b'2' | b'C' | b'D' | b'I' | b'N' | b'S' | b'A' | b's' | b't' | b'n' | b'T' => {}
                other => return Err(garbage(&format!("message {:?}", char::from(other)))),
            }
        }
    }

    /// The kind of the next message; the body of requests to log in and of errors stays in memory, all else is skipped.
    async fn message(&mut self) -> Result<u8, SqlError> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).await?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        let mut left = length.checked_sub(4).ok_or_else(|| garbage(&format!("a length of {length}")))?;
        self.body.clear();
        let is_kept = matches!(kind, b'R' | b'E');
        // Rows may be long; whatever else is that long is no message.
        if kind != b'D' && left > LONGEST {
            return Err(garbage(&format!("a message of {left} bytes")));
        }
        while left > 0 {
            let here = self.stream.fill_buf().await?;
            if here.is_empty() {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            let taken = here.len().min(left);
            if is_kept {
                self.body.extend_from_slice(&here[..taken]);
            }
            self.stream.consume(taken);
            left -= taken;
        }
        Ok(kind)
    }
}

fn garbage(what: &str) -> SqlError {
    SqlError::Garbage(what.to_owned())
}

/// An `ErrorResponse`: fields of a letter and a text each, ended by zeros.
fn refusal(body: &[u8]) -> SqlError {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let text = fields.find_map(|field| field.split_first().filter(|(own, _)| **own == letter));
        text.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    };
    SqlError::Refused { state: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::{SqlError, SqlStatement, refusal};

    #[test]
    fn addresses_are_read_as_drivers_read_them() {
        let read =
            |address: &str| SqlStatement::new(address, "select 1").map(|own| format!("{own:?} {}", own.password));
        let full = read("postgresql://a%40b:p%2Fw@[::1]:6000/my%20db?application_name=x").unwrap();
        assert_eq!(full, r#"SqlStatement("select 1" as a@b at ::1:6000/my db) p/w"#);
        let short = read("postgres://127.0.0.1").unwrap();
        assert_eq!(short, r#"SqlStatement("select 1" as postgres at 127.0.0.1:5432/postgres) "#);
        for wrong in ["", "mysql://h/d", "postgres:///d", "postgres://h/d?sslmode=require", "postgres://h/d?host=/run"]
        {
            assert!(matches!(read(wrong), Err(SqlError::Unsupported(_))), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_holds_its_state_and_its_words() {
        let SqlError::Refused { state, message } = refusal(b"SERROR\0C23505\0Mit is there already\0\0") else {
            panic!("not a refusal");
        };
        assert_eq!((state.as_str(), message.as_str()), ("23505", "it is there already"));
    }
}
