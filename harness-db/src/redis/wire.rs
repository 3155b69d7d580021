//! The few things every file here does with Redis: read a URL, connect in bounded time, send a command.

use std::time::Duration;

pub(crate) use crate::provider::masked;
use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo};

/// How long connecting may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Reads a Redis URL. The index is `None` when the URL names no logical database.
///
/// # Errors
/// [`ErrorKind::Config`] for a URL that is none, or whose path is no number.
pub(crate) fn parse_url(name: &str, url: &str) -> CoreResult<(ConnectionInfo, Option<i64>)> {
    let shown = masked(url);
    let wrong = |why: String| {
        Error::new(ErrorKind::Config, format!("{name} cannot be used: `{shown}`: {why}"))
            .remedy("write it as redis://host:6379/1")
    };
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
    let rest = rest.ok_or_else(|| wrong("it does not begin with redis://".to_owned()))?;
    let path = rest.split_once('/').map(|(_, path)| path.split('?').next().unwrap_or_default());
    let index = match path.filter(|path| !path.is_empty()) {
        None => None,
        Some(path) => Some(path.parse().map_err(|_| wrong(format!("`{path}` is no index of a logical database")))?),
    };
    let info = url.into_connection_info().map_err(|error| wrong(error.to_string()))?;
    Ok((info, index))
}

/// The same server, another logical database.
pub(crate) fn at_index(info: &ConnectionInfo, index: i64) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_db(index);
    info.clone().set_redis_settings(settings)
}

/// Connects within `limit`. A closed port and a silent one give different messages.
pub(crate) async fn connect_within(info: &ConnectionInfo, limit: Duration) -> CoreResult<MultiplexedConnection> {
    let place = info.addr().to_string();
    let failed = |error: redis::RedisError| {
        let what = match error.is_connection_refusal() {
            true => format!("no Redis listens at {place}"),
            false => format!("could not connect to Redis at {place}"),
        };
        let wrapped = Error::new(ErrorKind::Connect, what);
        match advice(&format!("{error} {error:?}"), is_tls(info)) {
            Some(advice) => wrapped.remedy(advice),
            None => wrapped,
        }
        .caused_by(error)
    };
    let silent = || {
        let what = format!(
            "Redis at {place} accepted the connection or swallowed it, but said nothing for {}",
            seconds(limit)
        );
        // A Redis without TLS takes a greeting of TLS for the beginning of a command, and waits for its end.
        Error::new(ErrorKind::Timeout, what).remedy(match is_tls(info) {
            true => {
                "look whether the server hangs, is paused, or speaks no TLS at this port (redis:// and not rediss://)"
            }
            false => "look whether the server hangs, is paused, or speaks another protocol",
        })
    };
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(ANSWER_LIMIT));
    let client = Client::open(info.clone()).map_err(failed)?;
    match tokio::time::timeout(limit, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if error.is_timeout() => Err(silent()),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(silent()),
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. })
}

/// What to do about a connection that failed for a reason of TLS, by the driver's words.
fn advice(words: &str, tls: bool) -> Option<&'static str> {
    let says = |some: &[&str]| some.iter().any(|word| words.contains(word));
    match tls {
        true if says(&["UnknownIssuer", "invalid peer certificate"]) => Some(
            "the server's certificate is of an authority this client does not trust: for an OwnRedis take `client()`, \
             elsewhere trust what `root_certificate()` names",
        ),
        true if says(&["CertificateRequired", "HandshakeFailure", "BadCertificate", "UnknownCA", "DecryptError"]) => {
            Some(
                "the server wants a client certificate of its own authority: for an OwnRedis take `client()`, or make one by \
             `authority()`",
            )
        }
        false if says(&["reset", "Broken pipe", "broken pipe", "unexpected end of file", "UnexpectedEof"]) => {
            Some("the server hung up at the first word: if it speaks TLS only, write the URL with rediss://")
        }
        _ => None,
    }
}

/// [`connect_within`] with the usual limit.
pub(crate) async fn connect(info: &ConnectionInfo) -> CoreResult<MultiplexedConnection> {
    connect_within(info, CONNECT_LIMIT).await
}

/// Sends one command: `ask(&mut c, &["CONFIG", "GET", "maxmemory"])`.
pub(crate) async fn ask<T: FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> CoreResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(connection).await.map_err(|error| failed(words, error))
}

/// Turns a driver error into ours, with the command that met it.
pub(crate) fn failed(words: &[&str], error: redis::RedisError) -> Error {
    let kind = match error.is_timeout() {
        true => ErrorKind::Timeout,
        false if error.is_io_error() => ErrorKind::Connect,
        false => ErrorKind::Protocol,
    };
    Error::new(kind, format!("Redis did not do `{}`", words.join(" "))).caused_by(error)
}

/// One field of an `INFO` answer.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::{advice, info_field, masked, parse_url};

    #[test]
    fn failures_of_tls_are_told_apart_and_others_get_no_advice() {
        let check = |words, tls, expected: &str| {
            let found = advice(words, tls).unwrap_or_default();
            assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{words}: {found}");
        };
        check("invalid peer certificate: UnknownIssuer", true, "does not trust");
        check("received fatal alert: CertificateRequired", true, "wants a client certificate");
        check("Connection reset by peer (os error 104)", false, "with rediss://");
        check("Connection reset by peer (os error 104)", true, "");
        check("Connection refused (os error 111)", false, "");
        check("WRONGPASS invalid username-password pair", true, "");
    }

    #[test]
    fn index_is_read_and_a_path_that_is_no_number_refused() {
        assert_eq!(parse_url("U", "redis://h:6379/1").unwrap().1, Some(1));
        assert_eq!(parse_url("U", "redis://h:6379").unwrap().1, None);
        assert_eq!(parse_url("U", "redis://h:6379/").unwrap().1, None);
        let text = parse_url("HARNESS_REDIS_URL", "redis://h:6379/cache").unwrap_err().to_string();
        assert!(text.contains("HARNESS_REDIS_URL") && text.contains("`cache`"), "{text}");
        assert!(parse_url("U", "http://h").is_err());
    }

    #[test]
    fn passwords_never_reach_a_message() {
        assert_eq!(masked("redis://u:secret@h:1/1"), "redis://u:***@h:1/1");
        assert_eq!(masked("redis://:secret@h:1/1"), "redis://:***@h:1/1");
    }

    #[test]
    fn info_fields_are_found_whole() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        assert_eq!(info_field(info, "redis_version"), Some("7.0.15"));
        assert_eq!(info_field(info, "redis"), None);
    }
}
