//! Why a Postgres cannot be used: refused, password, too many clients, no such database and silence are different causes
//! with different remedies.
//!
//! The cause is read from the connection attempt and from the server's SQLSTATE (PostgreSQL docs, appendix A), never from
//! the text of a message, which may be in any language.

use std::io;
use std::time::Duration;

use harness_core::wait::{seconds, within};
use harness_core::{Error, ErrorKind};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use tokio::net::TcpStream;

use super::sql;
use crate::diagnosis::{self, Diagnosis};

/// Why a Postgres cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing is wrong: it answered a query.
    Answers,
    /// The URL is none.
    Url,
    /// The host's name or address leads nowhere.
    Host,
    /// Nobody listens at the port.
    Refused,
    /// Somebody accepted the connection, or swallowed it, and said nothing.
    Timeout,
    /// Somebody answered who speaks another protocol.
    OtherProtocol,
    /// Who came is not let in: password, role or `pg_hba.conf` (SQLSTATE class 28).
    Auth,
    /// All connections of the server, the database or the role are taken (53300).
    TooManyClients,
    /// There is no such database (3D000).
    DatabaseMissing,
    /// The role may not connect to this database, or nobody may (42501, 55000).
    NotPermitted,
    /// The server starts, stops or recovers (57P03).
    NotReady,
    /// The connection broke off, or the server ended it (57P01, 57P02).
    Broken,
    /// Something else, in the server's words.
    Other,
}

/// Tries to use a Postgres and says what is wrong, within 5 s; within 10 s when nobody says a word.
pub async fn diagnose(url: &str) -> Diagnosis<Cause> {
    diagnose_within(url, sql::CONNECT_LIMIT).await
}

/// [`diagnose`] with a limit: who says nothing for so long is silent, and is asked once more in another protocol.
pub async fn diagnose_within(url: &str, limit: Duration) -> Diagnosis<Cause> {
    let options = match sql::parse_url("the URL", url) {
        Ok(options) => options,
        Err(error) => {
            let (found, remedy) = (error.to_string(), "write it as postgres://user:password@host:5432/database");
            return Diagnosis { cause: Cause::Url, place: "Postgres".into(), found, remedy: remedy.into() };
        }
    };
    let place = format!("Postgres at {}", sql::place(&options));
    let asked = within("the answer to a query", limit, ask(&options, limit)).await.and_then(|answer| answer);
    let (mut cause, mut found) = match &asked {
        Ok(version) => (Cause::Answers, format!("PostgreSQL {version}")),
        Err(error) => (cause(error), words(error, limit)),
    };
    if matches!(cause, Cause::Timeout | Cause::Broken)
        && let Ok(Some(words)) = within("an answer in another protocol", limit, other_protocol(&options)).await
    {
        (cause, found) = (Cause::OtherProtocol, format!("it says `{words}`"));
    }
    let remedy = remedy(cause, asked.as_ref().err().and_then(database_error), &options);
    Diagnosis { cause, place, found, remedy }
}

async fn ask(options: &PgConnectOptions, limit: Duration) -> Result<String, Error> {
    let mut session = sql::connect_within(options, limit).await?;
    let rows = sql::rows(&mut session, "get an answer", "select current_setting('server_version')").await?;
    let _ = session.close().await;
    Ok(rows.first().and_then(|row| sqlx::Row::try_get(row, 0).ok()).unwrap_or_default())
}

/// What somebody says to a line of text, which is `PING` to a Redis and a bad request to an HTTP server. A Postgres hangs
/// up.
async fn other_protocol(options: &PgConnectOptions) -> Option<String> {
    let stream = TcpStream::connect((options.get_host(), options.get_port())).await.ok()?;
    diagnosis::exchange(&stream, b"PING\r\n\r\n").await.ok()
}

fn driver_error(error: &Error) -> Option<&sqlx::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn database_error(error: &Error) -> Option<&PgDatabaseError> {
    match driver_error(error)? {
        sqlx::Error::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

fn cause(error: &Error) -> Cause {
    if error.kind() == ErrorKind::Timeout {
        return Cause::Timeout;
    }
    match driver_error(error) {
        Some(sqlx::Error::Database(error)) => cause_of_state(error.code().as_deref().unwrap_or_default()),
        Some(sqlx::Error::Io(error)) => cause_of_io(error.kind()),
        Some(sqlx::Error::Protocol(_)) => Cause::OtherProtocol,
        _ => Cause::Other,
    }
}

fn cause_of_state(state: &str) -> Cause {
    match state {
        "53300" => Cause::TooManyClients,
        "3D000" => Cause::DatabaseMissing,
        "42501" | "55000" => Cause::NotPermitted,
        "57P03" => Cause::NotReady,
        "57P01" | "57P02" => Cause::Broken,
        state if state.starts_with("28") => Cause::Auth,
        _ => Cause::Other,
    }
}

fn cause_of_io(kind: io::ErrorKind) -> Cause {
    match kind {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => Cause::Timeout,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Cause::Broken,
        _ => Cause::Host,
    }
}

fn words(error: &Error, limit: Duration) -> String {
    match (database_error(error), cause(error)) {
        (Some(server), _) => format!("{} (SQLSTATE {})", server.message(), server.code()),
        (None, Cause::Refused) => "nobody listens there".to_owned(),
        (None, Cause::Timeout) => format!("no answer within {}", seconds(limit)),
        (None, _) => error.to_string(),
    }
}

fn remedy(cause: Cause, server: Option<&PgDatabaseError>, options: &PgConnectOptions) -> String {
    let database = sql::ident(options.get_database().unwrap_or_else(|| options.get_username()));
    let user = sql::ident(options.get_username());
    match cause {
        Cause::Answers => String::new(),
        Cause::Url => "write it as postgres://user:password@host:5432/database".to_owned(),
        Cause::Host => "correct the host of the URL, or its name resolution".to_owned(),
        Cause::Refused => "start the server, or correct host and port of the URL".to_owned(),
        Cause::Timeout => "look whether the server hangs or is paused, or a firewall swallows the packets".to_owned(),
        Cause::OtherProtocol => "look what listens there; correct the port of the URL".to_owned(),
        // Which check it was is told by the routine that spoke; its name is in no language.
        Cause::Auth => match server.and_then(PgDatabaseError::routine) {
            Some("ClientAuthentication") => {
                format!("add a line for {user} from this address to pg_hba.conf, then select pg_reload_conf()")
            }
            Some("InitializeSessionUserId") => format!("create role {user} login, or alter role {user} login"),
            _ => format!("correct the password of the URL, or alter role {user} password '…'"),
        },
        Cause::TooManyClients => format!(
            "count them (select application_name, state, count(*) from pg_stat_activity group by 1, 2), then lower the \
             pools, or raise max_connections, or the connection limit of role {user} or database {database}"
        ),
        Cause::DatabaseMissing => format!("create database {database}, or correct the name at the end of the URL"),
        Cause::NotPermitted => {
            format!("grant connect on database {database} to {user}; a template allows no connections at all")
        }
        Cause::NotReady => "wait until it has started; when it does not, read its log".to_owned(),
        Cause::Broken => "read the server's log: it ended the session, or it crashed".to_owned(),
        Cause::Other => "read the server's words above, and its log".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind as Io;

    use super::{Cause, cause_of_io, cause_of_state};

    #[test]
    fn each_state_and_each_kind_has_its_own_cause() {
        for (state, cause) in [
            ("28P01", Cause::Auth),
            ("28000", Cause::Auth),
            ("53300", Cause::TooManyClients),
            ("3D000", Cause::DatabaseMissing),
            ("42501", Cause::NotPermitted),
            ("55000", Cause::NotPermitted),
            ("57P03", Cause::NotReady),
            ("57P01", Cause::Broken),
            ("XX000", Cause::Other),
        ] {
            assert_eq!(cause_of_state(state), cause, "{state}");
        }
        assert_eq!(cause_of_io(Io::ConnectionRefused), Cause::Refused);
        assert_eq!(cause_of_io(Io::ConnectionReset), Cause::Broken);
        assert_eq!(cause_of_io(Io::TimedOut), Cause::Timeout);
        assert_eq!(cause_of_io(Io::HostUnreachable), Cause::Host);
    }
}
