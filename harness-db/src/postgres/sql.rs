//! The few things every file here does with a connection: open it in bounded time, run text, quote names.

use std::time::Duration;

pub(crate) use crate::provider::masked;
use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};

/// How long opening one connection may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connect options for a server of our own: trusted superuser `postgres` on a loopback address.
pub(crate) fn own_options(address: std::net::SocketAddr) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&address.ip().to_string())
        .port(address.port())
        .username("postgres")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable)
        .application_name("harness")
}

/// Reads a Postgres URL.
///
/// # Errors
/// [`ErrorKind::Config`] that shows the URL without its password.
pub(crate) fn parse_url(name: &str, url: &str) -> CoreResult<PgConnectOptions> {
    let wrong = || {
        Error::new(ErrorKind::Config, format!("{name} is not a Postgres URL: `{}`", masked(url)))
            .remedy("write it as postgres://user:password@host:5432/database")
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    url.parse::<PgConnectOptions>().map_err(|error| wrong().caused_by(error))
}

/// `host:port` for messages.
pub(crate) fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(path) => path.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Opens a connection within `limit`. A closed port and a silent one give different messages.
pub(crate) async fn connect_within(options: &PgConnectOptions, limit: Duration) -> CoreResult<PgConnection> {
    let options = options.clone().disable_statement_logging();
    let place = place(&options);
    match tokio::time::timeout(limit, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(connect_error(&place, error)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "Postgres at {place} accepted the connection or swallowed it, but said nothing for {}",
                seconds(limit)
            ),
        )
        .remedy("look whether the server hangs, is paused, or speaks another protocol")),
    }
}

/// [`connect_within`] with the usual limit.
pub(crate) async fn connect(options: &PgConnectOptions) -> CoreResult<PgConnection> {
    connect_within(options, CONNECT_LIMIT).await
}

fn connect_error(place: &str, error: sqlx::Error) -> Error {
    let text = match &error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("no Postgres listens at {place}")
        }
        sqlx::Error::Database(_) => format!("Postgres at {place} refused the session"),
        _ => format!("could not connect to Postgres at {place}"),
    };
    let crowded = error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "53300");
    let error = Error::new(ErrorKind::Connect, text).caused_by(error);
    match crowded {
        true => error.remedy("the test holds all connections it was granted: ask for more with `.connections(n)`"),
        false => error,
    }
}

/// Runs SQL text (one or several statements) over the simple protocol.
pub(crate) async fn run(connection: &mut PgConnection, what: &str, sql: impl Into<String>) -> CoreResult {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(connection).await;
    done.map(drop).map_err(|error| query_error(what, error))
}

/// Rows of SQL text without parameters.
pub(crate) async fn rows(connection: &mut PgConnection, what: &str, sql: impl Into<String>) -> CoreResult<Vec<PgRow>> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_all(connection).await;
    done.map_err(|error| query_error(what, error))
}

/// SQLSTATE `disk_full`.
const DISK_FULL: &str = "53100";
/// What a server says (SQLSTATE `internal_error`) when what others changed could not be written; its log says why.
const NO_CHECKPOINT: &str = "checkpoint request failed";

/// The error of a server that has no space left, if that is what this driver error says.
fn disk_full(what: &str, error: sqlx::Error) -> Result<Error, sqlx::Error> {
    let Some(said) = error.as_database_error() else { return Err(error) };
    let text = match said.code().as_deref() {
        Some(DISK_FULL) => format!("{what}: the server's disk is full (SQLSTATE {DISK_FULL})"),
        Some("XX000") if said.message().starts_with(NO_CHECKPOINT) => {
            format!("{what}: the server cannot write what was changed, as when its disk is full (SQLSTATE {DISK_FULL})")
        }
        _ => return Err(error),
    };
    Ok(Error::new(ErrorKind::Environment, text).caused_by(error).remedy(
        "make room where the server keeps its data (`df -h`); `harness sweep` ends the kept databases of failed tests",
    ))
}

/// A statement of the user's that failed: the user's to correct, unless the server had no space left for it.
pub(crate) fn statement_error(what: String, error: sqlx::Error) -> Error {
    disk_full(&what, error).unwrap_or_else(|error| Error::new(ErrorKind::Config, what).caused_by(error))
}

/// Turns a driver error into ours: what was being done first, the server's words as the cause.
pub(crate) fn query_error(what: &str, error: sqlx::Error) -> Error {
    let error = match disk_full(&format!("could not {what}"), error) {
        Ok(full) => return full,
        Err(other) => other,
    };
    let kind = match &error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => ErrorKind::Connect,
        // The last words of a server that goes away: admin_shutdown, crash_shutdown, cannot_connect_now.
        sqlx::Error::Database(said) if matches!(said.code().as_deref(), Some("57P01" | "57P02" | "57P03")) => {
            ErrorKind::Connect
        }
        _ => ErrorKind::Protocol,
    };
    Error::new(kind, format!("could not {what}")).caused_by(error)
}

/// Ends a session in good order.
pub(crate) async fn close(connection: PgConnection) -> CoreResult {
    sqlx::Connection::close(connection).await.map_err(|error| query_error("leave the database", error))
}

/// True when the server had no space left.
pub(crate) fn is_disk_full(error: &Error) -> bool {
    error.kind() == ErrorKind::Environment && error.what().contains(DISK_FULL)
}

/// True when the server answered with this SQLSTATE.
pub(crate) fn has_code(error: &Error, code: &str) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(sqlx::Error::Database(database)) = error.downcast_ref::<sqlx::Error>() {
            return database.code().as_deref() == Some(code);
        }
        cause = error.source();
    }
    false
}

/// A name as an SQL identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL literal (`standard_conforming_strings` is on since PostgreSQL 9.1).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{ident, literal, masked, parse_url};

    #[test]
    fn passwords_never_reach_a_message() {
        assert_eq!(masked("postgres://u:secret@h:1/d"), "postgres://u:***@h:1/d");
        assert_eq!(masked("postgres://u:se@cret@h/d"), "postgres://u:***@h/d");
        assert_eq!(masked("postgres://h/d"), "postgres://h/d");
        let error = parse_url("HARNESS_POSTGRES_URL", "mysql://u:secret@h/d").unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("HARNESS_POSTGRES_URL") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn quotes_survive() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
