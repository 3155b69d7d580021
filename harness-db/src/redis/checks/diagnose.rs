//! Why a Redis cannot be used: refused, password, loading, a failed snapshot, too many clients and silence are different
//! causes with different remedies.
//!
//! Speaks the protocol itself (RESP, <https://redis.io/docs/latest/develop/reference/protocol-spec/>): a driver hides which
//! error met it while connecting. Sends `AUTH` and `SELECT` as the URL says, then `PING`, which a server also refuses when
//! it would refuse writes after a failed snapshot.

use std::time::Duration;

use harness_core::wait::{seconds, within};
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::net::TcpStream;

use super::wire;
use crate::diagnosis::{self, Diagnosis};

/// Why a Redis cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing is wrong: it answered `PING`.
    Answers,
    /// The URL is none, or asks for TLS or a socket file, which this diagnosis does not speak.
    Url,
    /// The host's name or address leads nowhere.
    Host,
    /// Nobody listens at the port.
    Refused,
    /// Somebody accepted the connection, or swallowed it, and said nothing.
    Timeout,
    /// Somebody answered who speaks another protocol.
    OtherProtocol,
    /// A password is needed, and the URL has none (`NOAUTH`).
    NoPassword,
    /// The password or the user is wrong (`WRONGPASS`).
    WrongPassword,
    /// The user may not run the command (`NOPERM`), or only local clients are served (`DENIED`).
    NotPermitted,
    /// It loads its data (`LOADING`).
    Loading,
    /// Its last snapshot failed, so it takes no writes (`MISCONF`).
    SnapshotFailed,
    /// All connections are taken (`maxclients`).
    TooManyClients,
    /// It has no logical database of this index.
    DatabaseMissing,
    /// It is a replica that lost its master (`MASTERDOWN`).
    MasterDown,
    /// A script occupies it (`BUSY`).
    Busy,
    /// The connection broke off.
    Broken,
    /// Something else, in the server's words.
    Other,
}

/// Tries to use a Redis and says what is wrong, within 5 s.
pub async fn diagnose(url: &str) -> Diagnosis<Cause> {
    diagnose_within(url, wire::CONNECT_LIMIT).await
}

/// [`diagnose`] with a limit: who says nothing for so long is silent.
pub async fn diagnose_within(url: &str, limit: Duration) -> Diagnosis<Cause> {
    let (place, (cause, found)) = match wire::parse_url("the URL", url) {
        Err(error) => ("Redis".to_owned(), (Cause::Url, error.to_string())),
        Ok((info, _)) => {
            let silence = || (Cause::Timeout, format!("no answer within {}", seconds(limit)));
            let found = within("the answer to PING", limit, ask(&info)).await.unwrap_or_else(|_| silence());
            (format!("Redis at {}", info.addr()), found)
        }
    };
    Diagnosis { cause, place, found, remedy: remedy(cause).to_owned() }
}

async fn ask(info: &ConnectionInfo) -> (Cause, String) {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return (Cause::Url, "only redis:// over TCP is diagnosed".to_owned());
    };
    let stream = match TcpStream::connect((host.as_str(), *port)).await {
        Ok(stream) => stream,
        Err(error) => return (cause_of_io(error.kind()), error.to_string()),
    };
    let settings = info.redis_settings();
    let mut commands: Vec<Vec<String>> = Vec::new();
    if let Some(password) = settings.password() {
        let user = settings.username().map(str::to_owned);
        commands.push(std::iter::once("AUTH".to_owned()).chain(user).chain([password.to_owned()]).collect());
    }
    if settings.db() != 0 {
        commands.push(vec!["SELECT".to_owned(), settings.db().to_string()]);
    }
    commands.push(vec!["PING".to_owned()]);
    for command in &commands {
        let answer = match exchange(&stream, command).await {
            Ok(answer) => answer,
            Err(error) => return (Cause::Broken, format!("it ended the connection: {error}")),
        };
        match cause_of_answer(&answer) {
            Cause::Answers => {}
            cause => return (cause, answer.trim_start_matches('-').to_owned()),
        }
    }
    (Cause::Answers, "PONG".to_owned())
}

/// Sends a command and reads the line that answers it.
async fn exchange(stream: &TcpStream, command: &[String]) -> std::io::Result<String> {
    let words: String = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    diagnosis::exchange(stream, format!("*{}\r\n{words}", command.len()).as_bytes()).await
}

fn cause_of_answer(answer: &str) -> Cause {
    let Some(error) = answer.strip_prefix('-') else {
        return if answer.starts_with('+') { Cause::Answers } else { Cause::OtherProtocol };
    };
    match error.split(' ').next().unwrap_or_default() {
        "NOAUTH" => Cause::NoPassword,
        "WRONGPASS" => Cause::WrongPassword,
        "NOPERM" | "DENIED" => Cause::NotPermitted,
        "LOADING" => Cause::Loading,
        "MISCONF" => Cause::SnapshotFailed,
        "MASTERDOWN" => Cause::MasterDown,
        "BUSY" => Cause::Busy,
        // These have no code of their own.
        _ if error.contains("max number of clients") => Cause::TooManyClients,
        _ if error.contains("DB index is out of range") => Cause::DatabaseMissing,
        _ if error.contains("without any password configured") => Cause::WrongPassword,
        _ => Cause::Other,
    }
}

fn cause_of_io(kind: std::io::ErrorKind) -> Cause {
    match kind {
        std::io::ErrorKind::ConnectionRefused => Cause::Refused,
        std::io::ErrorKind::ConnectionReset => Cause::Broken,
        std::io::ErrorKind::TimedOut => Cause::Timeout,
        _ => Cause::Host,
    }
}

fn remedy(cause: Cause) -> &'static str {
    match cause {
        Cause::Answers => "",
        Cause::Url => "write it as redis://host:6379/1",
        Cause::Host => "correct the host of the URL, or its name resolution",
        Cause::Refused => "start the server, or correct host and port of the URL",
        Cause::Timeout => "look whether the server hangs or is paused, or a firewall swallows the packets",
        Cause::OtherProtocol => "look what listens there; correct the port of the URL",
        Cause::NoPassword => "write the password into the URL: redis://:password@host:6379/1",
        Cause::WrongPassword => "correct user and password of the URL; ACL LIST shows the users",
        Cause::NotPermitted => "ACL SETUSER grants commands; protected-mode no (with a password) serves other machines",
        Cause::Loading => "wait until it has loaded; INFO persistence shows loading_eta_seconds",
        Cause::SnapshotFailed => {
            "look at disk space and rights of its directory (CONFIG GET dir) and into its log; a cache needs no \
             snapshots: CONFIG SET save \"\""
        }
        Cause::TooManyClients => "count them (CLIENT LIST), then lower the pools, or raise maxclients",
        Cause::DatabaseMissing => "name a lower index at the end of the URL, or raise `databases` in redis.conf",
        Cause::MasterDown => "start its master, or REPLICAOF NO ONE",
        Cause::Busy => "wait for the script, or SCRIPT KILL",
        Cause::Broken => "read the server's log: it ended the connection, crashed, or speaks another protocol",
        Cause::Other => "read the server's words above, and its log",
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, cause_of_answer};

    #[test]
    fn each_answer_has_its_own_cause() {
        for (answer, cause) in [
            ("+PONG", Cause::Answers),
            ("+OK", Cause::Answers),
            ("-NOAUTH Authentication required.", Cause::NoPassword),
            ("-WRONGPASS invalid username-password pair or user is disabled.", Cause::WrongPassword),
            ("-ERR AUTH <password> called without any password configured for the default user.", Cause::WrongPassword),
            ("-NOPERM this user has no permissions", Cause::NotPermitted),
            ("-DENIED Redis is running in protected mode", Cause::NotPermitted),
            ("-LOADING Redis is loading the dataset in memory", Cause::Loading),
            ("-MISCONF Redis is configured to save RDB snapshots", Cause::SnapshotFailed),
            ("-ERR max number of clients reached", Cause::TooManyClients),
            ("-ERR DB index is out of range", Cause::DatabaseMissing),
            ("-MASTERDOWN Link with MASTER is down", Cause::MasterDown),
            ("-BUSY Redis is busy running a script", Cause::Busy),
            ("-ERR something new", Cause::Other),
            ("HTTP/1.1 400 Bad Request", Cause::OtherProtocol),
        ] {
            assert_eq!(cause_of_answer(answer), cause, "{answer}");
        }
    }
}
