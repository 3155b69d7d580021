//! Probes of a Redis server.

use std::time::Duration;

use harness_core::{CoreResult, Outcome};

use super::{LIMIT, asked, text, wrong};
use crate::provider::local::{REDIS_OLDEST, major};
use crate::redis::wire;

/// One gibibyte, the memory ceiling commonly required: `maxmemory 1gb`.
pub const GIBIBYTE: u64 = 1 << 30;

async fn info(url: &str, section: &str) -> CoreResult<String> {
    let (info, _) = wire::parse_url("the probed URL", url)?;
    wire::ask(&mut wire::connect(&info).await?, &["INFO", section]).await
}

async fn setting(url: &str, name: &str) -> CoreResult<Option<String>> {
    let (info, _) = wire::parse_url("the probed URL", url)?;
    let pair: Vec<String> = wire::ask(&mut wire::connect(&info).await?, &["CONFIG", "GET", name]).await?;
    Ok(pair.into_iter().nth(1))
}

/// The server answers `PING` with `PONG` within the limit. A paused server fails by the limit, a closed port at once.
pub async fn answers(url: &str, limit: Duration) -> Outcome {
    let question = async {
        let (info, _) = wire::parse_url("the probed URL", url)?;
        wire::ask::<String>(&mut wire::connect_within(&info, limit).await?, &["PING"]).await
    };
    asked("asking Redis", limit, question, |answer| judge_pong(&answer)).await
}

/// Judges the answer to `PING`.
#[must_use]
pub fn judge_pong(answer: &str) -> Outcome {
    match answer {
        "PONG" => Outcome::pass("PING answered PONG"),
        other => wrong(format!("`{other}`"), "`PONG`", "look what listens there"),
    }
}

/// Redis 7 or later. 6.x is Degraded when the server is a portable one: no later one can be fetched.
pub async fn version(url: &str, is_portable: bool) -> Outcome {
    asked("asking for the version", LIMIT, info(url, "server"), |info| {
        judge_version(wire::info_field(&info, "redis_version"), is_portable)
    })
    .await
}

/// Judges `redis_version`.
#[must_use]
pub fn judge_version(found: Option<&str>, is_portable: bool) -> Outcome {
    let Some(version) = found.filter(|version| major(version) > 0) else {
        return Outcome::no_evidence(format!("the server stated no version: {found:?}"));
    };
    let reason = || {
        text(
            format!("Redis {version}"),
            format!("Redis {REDIS_OLDEST} or later"),
            "install redis-server 7, or run `harness provision --only redis`",
        )
    };
    match major(version) {
        at_least if at_least >= REDIS_OLDEST => Outcome::pass(format!("Redis {version}")),
        6 if is_portable => Outcome::degraded(reason()),
        _ => Outcome::fail(reason()),
    }
}

/// The URL names this logical database, and it is not 0. Asks no server.
#[must_use]
pub fn index(url: &str, needed: i64) -> Outcome {
    match wire::parse_url("the probed URL", url) {
        Err(error) => Outcome::fail(format!("{error}")),
        Ok((_, found)) => judge_index(found.unwrap_or(0), needed),
    }
}

/// Judges the index of a logical database.
#[must_use]
pub fn judge_index(found: i64, needed: i64) -> Outcome {
    match found {
        0 => wrong(
            "logical database 0",
            format!("{needed}: 0 is everybody's default"),
            format!("end the URL in /{needed}"),
        ),
        index if index == needed => Outcome::pass(format!("logical database {index}")),
        index => wrong(format!("logical database {index}"), needed.to_string(), format!("end the URL in /{needed}")),
    }
}

/// `maxmemory-policy` is this one, commonly `allkeys-lru`.
pub async fn eviction(url: &str, needed: &str) -> Outcome {
    let question = setting(url, "maxmemory-policy");
    asked("asking for the eviction policy", LIMIT, question, |found| judge_eviction(found.as_deref(), needed)).await
}

/// Judges `maxmemory-policy`.
#[must_use]
pub fn judge_eviction(found: Option<&str>, needed: &str) -> Outcome {
    match found {
        None => Outcome::no_evidence("the server did not state its maxmemory-policy"),
        Some(policy) if policy == needed => Outcome::pass(format!("maxmemory-policy {policy}")),
        Some(policy) => wrong(
            format!("maxmemory-policy {policy}"),
            format!("maxmemory-policy {needed}"),
            format!("redis-cli CONFIG SET maxmemory-policy {needed}, and in redis.conf"),
        ),
    }
}

/// `maxmemory` is this many bytes; 0 means unlimited and fails. See [`GIBIBYTE`].
pub async fn max_memory(url: &str, needed_bytes: u64) -> Outcome {
    let question = setting(url, "maxmemory");
    asked("asking for the memory ceiling", LIMIT, question, |found| judge_max_memory(found.as_deref(), needed_bytes))
        .await
}

/// Judges `maxmemory`.
#[must_use]
pub fn judge_max_memory(found: Option<&str>, needed_bytes: u64) -> Outcome {
    let Some(bytes) = found.and_then(|text| text.parse::<u64>().ok()) else {
        return Outcome::no_evidence(format!("the server did not state its maxmemory: {found:?}"));
    };
    if bytes == needed_bytes {
        return Outcome::pass(format!("maxmemory {bytes} bytes"));
    }
    let unlimited = if bytes == 0 { " (unlimited)" } else { "" };
    wrong(
        format!("maxmemory {bytes}{unlimited}"),
        format!("maxmemory {needed_bytes}"),
        format!("redis-cli CONFIG SET maxmemory {needed_bytes}, and in redis.conf"),
    )
}

#[cfg(test)]
mod tests {
    use harness_core::Outcome;

    use super::{GIBIBYTE, index, judge_eviction, judge_index, judge_max_memory, judge_pong, judge_version};

    #[test]
    fn redis_6_is_red_and_degraded_only_where_it_is_portable() {
        assert!(judge_version(Some("7.0.15"), false).is_pass());
        assert!(judge_version(Some("6.2.14"), false).is_fail());
        assert!(matches!(judge_version(Some("6.2.14"), true), Outcome::Degraded { .. }));
        assert!(judge_version(Some("5.0.1"), true).is_fail());
        assert!(judge_version(None, true).is_no_evidence());
    }

    #[test]
    fn noeviction_is_red_with_found_and_needed() {
        assert!(judge_eviction(Some("allkeys-lru"), "allkeys-lru").is_pass());
        let outcome = judge_eviction(Some("noeviction"), "allkeys-lru");
        assert!(outcome.is_fail(), "{outcome}");
        assert!(
            outcome.detail().contains("found maxmemory-policy noeviction; needed maxmemory-policy allkeys-lru"),
            "{outcome}"
        );
        assert!(judge_eviction(None, "allkeys-lru").is_no_evidence());
    }

    #[test]
    fn unlimited_memory_is_red() {
        assert!(judge_max_memory(Some("1073741824"), GIBIBYTE).is_pass());
        assert!(judge_max_memory(Some("0"), GIBIBYTE).detail().contains("0 (unlimited)"));
        assert!(judge_max_memory(Some("1073741823"), GIBIBYTE).is_fail());
        assert!(judge_max_memory(Some("1gb"), GIBIBYTE).is_no_evidence());
    }

    #[test]
    fn database_zero_is_red() {
        assert!(judge_index(1, 1).is_pass() && judge_index(0, 1).is_fail() && judge_index(2, 1).is_fail());
        assert!(index("redis://localhost:6379/1", 1).is_pass());
        assert!(index("redis://localhost:6379", 1).is_fail());
        assert!(index("redis://localhost:6379/x", 1).is_fail());
    }

    #[test]
    fn another_answer_than_pong_is_red() {
        assert!(judge_pong("PONG").is_pass() && judge_pong("LOADING").is_fail());
    }
}
