//! Probes of a Postgres server and of a pool of connections to it.

use std::time::Duration;

use harness_core::wait::{Progress, seconds, wait_for};
use harness_core::{CoreResult, Outcome};
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgPool, Postgres, Row as _};

use super::{LIMIT, asked, text, wrong};
use crate::postgres::{SessionSeries, observe, sql};

/// The oldest `server_version_num` that will do.
const OLDEST: u32 = 150_000;

/// One text column of one query.
async fn column(url: &str, what: &str, query: &str) -> CoreResult<Vec<Option<String>>> {
    let mut session = sql::connect(&sql::parse_url("the probed URL", url)?).await?;
    let rows = sql::rows(&mut session, what, query).await?;
    let _ = session.close().await;
    let read = |row: &sqlx::postgres::PgRow| row.try_get::<Option<String>, _>(0);
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error(what, error))
}

async fn one(url: &str, what: &str, query: &str) -> CoreResult<Option<String>> {
    Ok(column(url, what, query).await?.into_iter().next().flatten())
}

/// The server answers `SELECT 1` within the limit. A closed port and a silent one fail with different messages.
pub async fn answers(url: &str, limit: Duration) -> Outcome {
    let question = one(url, "get an answer", "select 'PostgreSQL ' || current_setting('server_version')");
    asked("asking Postgres", limit, question, |answer| Outcome::pass(answer.unwrap_or_default())).await
}

/// PostgreSQL 15 or later.
pub async fn version(url: &str) -> Outcome {
    let question = one(url, "ask for the version", "select current_setting('server_version_num')");
    asked("asking for the version", LIMIT, question, |found| judge_version(found.as_deref())).await
}

/// Judges `server_version_num`.
#[must_use]
pub fn judge_version(server_version_num: Option<&str>) -> Outcome {
    match server_version_num.and_then(|text| text.parse::<u32>().ok()) {
        None => Outcome::no_evidence(format!("the server stated no version: {server_version_num:?}")),
        Some(number) if number >= OLDEST => Outcome::pass(format!("PostgreSQL {}", dotted(number))),
        Some(number) => wrong(
            format!("PostgreSQL {}", dotted(number)),
            "PostgreSQL 15 or later",
            "upgrade the server, or name another one",
        ),
    }
}

fn dotted(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// The extension `vector` is created in the database of this URL.
pub async fn vector(url: &str) -> Outcome {
    let query = "select (select extversion from pg_extension where extname = 'vector') \
                 union all select (select default_version from pg_available_extensions where name = 'vector')";
    let question = column(url, "look for pgvector", query);
    asked("looking for pgvector", LIMIT, question, |found| {
        let at = |index: usize| found.get(index).and_then(Option::as_deref);
        judge_vector(at(0), at(1))
    })
    .await
}

/// Judges the version created in the database, and the version that could be created.
#[must_use]
pub fn judge_vector(created: Option<&str>, available: Option<&str>) -> Outcome {
    match (created, available) {
        (Some(version), _) => Outcome::pass(format!("vector {version}")),
        (None, Some(version)) => wrong(
            format!("vector {version} installed but not created"),
            "the extension in this database",
            "CREATE EXTENSION vector",
        ),
        (None, None) => wrong(
            "no pgvector on the server",
            "the extension `vector`",
            "install postgresql-<version>-pgvector or use the image pgvector/pgvector, then CREATE EXTENSION vector",
        ),
    }
}

/// The database of this URL is the dedicated test database. Nothing is written, whatever the answer.
pub async fn test_database(url: &str, name: &str) -> Outcome {
    let question = one(url, "ask for the database's name", "select current_database()::text");
    asked("asking for the database's name", LIMIT, question, |found| judge_test_database(found.as_deref(), name)).await
}

/// Judges the name of the current database.
#[must_use]
pub fn judge_test_database(found: Option<&str>, needed: &str) -> Outcome {
    match found {
        None => Outcome::no_evidence("the server did not say which database this is"),
        Some(name) if name == needed => Outcome::pass(format!("database `{name}`")),
        Some(name) => {
            let kind = if name.contains("test") { "another test database" } else { "not a test database by its name" };
            wrong(
                format!("database `{name}` ({kind})"),
                format!("the test database `{needed}`"),
                format!("CREATE DATABASE {}, and point the URL at it", sql::ident(needed)),
            )
        }
    }
}

/// Each of these columns (`table`, `column`) has an index of this method: `ivfflat` or `hnsw`.
pub async fn vector_indexes(url: &str, method: &str, columns: &[(&str, &str)]) -> Outcome {
    let query = format!(
        "select c.relname || '.' || a.attname from pg_index i join pg_class x on x.oid = i.indexrelid \
         join pg_am m on m.oid = x.relam join pg_class c on c.oid = i.indrelid \
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] where m.amname = {} and i.indisvalid",
        sql::literal(method)
    );
    let needed: Vec<String> = columns.iter().map(|(table, column)| format!("{table}.{column}")).collect();
    asked("looking for vector indexes", LIMIT, column(url, "look for vector indexes", &query), |found| {
        let found: Vec<String> = found.into_iter().flatten().collect();
        judge_vector_indexes(&found, method, &needed)
    })
    .await
}

/// Judges which columns (`table.column`) carry such an index against those that need one.
#[must_use]
pub fn judge_vector_indexes(found: &[String], method: &str, needed: &[String]) -> Outcome {
    let missing: Vec<&str> = needed.iter().filter(|column| !found.contains(column)).map(String::as_str).collect();
    if needed.is_empty() {
        return Outcome::no_evidence("no vector column was declared");
    }
    if missing.is_empty() {
        return Outcome::pass(format!("{method} on {}", needed.join(", ")));
    }
    wrong(
        format!("no {method} index on {}", missing.join(", ")),
        format!("an {method} index on every vector column queried"),
        format!("CREATE INDEX ON <table> USING {method} (<column> vector_cosine_ops)"),
    )
}

/// `pg_stat_statements` is preloaded and created in this database, so that statements are counted.
pub async fn statement_statistics(url: &str) -> Outcome {
    let query = "select (select setting from pg_settings where name = 'shared_preload_libraries') \
                 union all select (select extversion from pg_extension where extname = 'pg_stat_statements')";
    asked("looking for statement statistics", LIMIT, column(url, "look for pg_stat_statements", query), |found| {
        let at = |index: usize| found.get(index).and_then(Option::as_deref);
        judge_statement_statistics(at(0).unwrap_or_default(), at(1))
    })
    .await
}

/// Judges `shared_preload_libraries` and the version created in the database.
#[must_use]
pub fn judge_statement_statistics(preloaded: &str, created: Option<&str>) -> Outcome {
    let is_preloaded = preloaded.split(',').any(|name| name.trim() == "pg_stat_statements");
    match (is_preloaded, created) {
        (true, Some(version)) => Outcome::pass(format!("pg_stat_statements {version}")),
        (true, None) => Outcome::no_evidence(text(
            "pg_stat_statements preloaded but not created",
            "the extension in this database",
            "CREATE EXTENSION pg_stat_statements",
        )),
        (false, _) => Outcome::no_evidence(text(
            format!("shared_preload_libraries = `{preloaded}`"),
            "pg_stat_statements among them",
            "set shared_preload_libraries=pg_stat_statements and restart the server",
        )),
    }
}

/// Samples that [`session_statistics`] takes.
const SAMPLES: usize = 3;

/// Figures about sessions can be had: `pg_stat_activity` is sampled, shows a session that was opened for it, and hides
/// nothing from this role.
pub async fn session_statistics(url: &str) -> Outcome {
    let question = async {
        let seen = sql::connect(&sql::parse_url("the probed URL", url)?).await?;
        let rights = one(
            url,
            "ask for the right to see all sessions",
            "select pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') || ' ' || current_setting('track_activities')",
        );
        let rights = rights.await?.unwrap_or_default();
        let sampler = observe(url).await?.sessions().every(Duration::from_millis(10)).start().await?;
        wait_for("samples of sessions", LIMIT, async || match sampler.so_far().points.len() {
            n if n >= SAMPLES => Progress::Ready(()),
            n => Progress::NotYet(format!("{n} samples")),
        })
        .await?;
        let _ = seen.close().await;
        Ok((sampler.stop(), rights))
    };
    asked("sampling the sessions", 2 * LIMIT, question, |(series, rights)| {
        let rights: Vec<&str> = rights.split(' ').collect();
        judge_session_statistics(&series, rights.first() == Some(&"true"), rights.last() == Some(&"on"))
    })
    .await
}

/// Judges a series of sessions, whether the role sees those of others, and whether the server tracks activities at all.
#[must_use]
pub fn judge_session_statistics(series: &SessionSeries, sees_all: bool, tracks: bool) -> Outcome {
    let needed = "samples of pg_stat_activity that show every session";
    if !tracks {
        return wrong("track_activities off", needed, "set track_activities=on");
    }
    if !sees_all {
        let remedy = "grant pg_read_all_stats to the role of the URL";
        return wrong("a role that sees its own sessions only", needed, remedy);
    }
    if series.points.windows(2).any(|pair| pair[0].at >= pair[1].at) {
        return wrong("a clock that does not run forward", needed, "look at the machine's clock");
    }
    match (series.points.len(), series.max()) {
        (0, _) | (_, None) => Outcome::no_evidence(format!("no sample ({} gaps)", series.gaps.len())),
        (_, Some(0)) => Outcome::no_evidence("the samples show no session, not even the one opened for them"),
        (n, Some(most)) => Outcome::pass(format!("{n} samples, at most {most} sessions")),
    }
}

/// The server counts at most `cap` sessions of this application now: what a pool of another process really opened. None at
/// all is no evidence.
pub async fn sessions_of(url: &str, application: &str, cap: u32) -> Outcome {
    let question = async { observe(url).await?.sessions().sample().await };
    asked("counting the sessions", LIMIT, question, |point| {
        judge_sessions_of(point.by_application.get(application).copied().unwrap_or_default(), application, cap)
    })
    .await
}

/// Judges how many sessions an application has.
#[must_use]
pub fn judge_sessions_of(found: u32, application: &str, cap: u32) -> Outcome {
    match found {
        0 => Outcome::no_evidence(format!("the server has no session of `{application}`")),
        n if n > cap => wrong(
            format!("{n} sessions of `{application}`"),
            format!("{cap} at most"),
            "lower the maximum of its pool, or of one of its pools",
        ),
        n => Outcome::pass(format!("{n} sessions of `{application}`, {cap} are allowed")),
    }
}

/// What borrowing from a pool showed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolFinding {
    /// Connections borrowed at the same time, up to the declared cap.
    pub granted: u32,
    /// True when one more than the cap was granted.
    pub beyond_cap: bool,
    /// Connections the pool holds some time after all were returned.
    pub left: u32,
}

/// The pool gives `cap` connections at once, not one more, and shrinks back to at most `base` within `settle`.
pub async fn pool(pool: &PgPool, base: u32, cap: u32, settle: Duration) -> Outcome {
    let mut held: Vec<PoolConnection<Postgres>> = Vec::new();
    for _ in 0..cap {
        match tokio::time::timeout(LIMIT, pool.acquire()).await {
            Ok(Ok(connection)) => held.push(connection),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let granted = u32::try_from(held.len()).unwrap_or(u32::MAX);
    // Half a second is the proof that a connection beyond the cap has to wait.
    let extra = tokio::time::timeout(Duration::from_millis(500), pool.acquire()).await;
    let beyond_cap = granted == cap && matches!(extra, Ok(Ok(_)));
    drop(extra);
    drop(held);
    let settled = wait_for("the pool to shrink", settle, async || match pool.size() {
        size if size <= base => Progress::Ready(size),
        size => Progress::NotYet(format!("{size} connections")),
    })
    .await;
    let left = settled.unwrap_or_else(|_| pool.size());
    judge_pool(&PoolFinding { granted, beyond_cap, left }, base, cap, settle)
}

/// Judges what borrowing showed.
#[must_use]
pub fn judge_pool(found: &PoolFinding, base: u32, cap: u32, settle: Duration) -> Outcome {
    let needed = format!("{base} connections at rest and {cap} at most");
    if found.granted < cap {
        let found = format!("{} connections at most", found.granted);
        return wrong(found, needed, "raise the pool's maximum, or the server's max_connections");
    }
    if found.beyond_cap {
        return wrong(format!("more than {cap} connections"), needed, "lower the pool's maximum");
    }
    if found.left > base {
        let found = format!("{} connections {} after the peak", found.left, seconds(settle));
        return wrong(found, needed, "set the pool's idle time limit, so that it shrinks");
    }
    Outcome::pass(format!("{cap} connections granted, the next one waited, {} left at rest", found.left))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        PoolFinding, SessionSeries, judge_pool, judge_session_statistics, judge_sessions_of,
        judge_statement_statistics, judge_test_database, judge_vector, judge_vector_indexes, judge_version,
    };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn postgres_14_is_red_with_found_and_needed() {
        let outcome = judge_version(Some("140009"));
        assert!(outcome.is_fail(), "{outcome}");
        assert!(outcome.detail().contains("found PostgreSQL 14.9; needed PostgreSQL 15 or later"), "{outcome}");
        assert!(judge_version(Some("150000")).is_pass());
        assert!(judge_version(None).is_no_evidence() && judge_version(Some("?")).is_no_evidence());
    }

    #[test]
    fn missing_vector_is_red_with_the_fix() {
        assert!(judge_vector(Some("0.8.0"), Some("0.8.0")).is_pass());
        let outcome = judge_vector(None, Some("0.8.0"));
        assert!(outcome.is_fail() && outcome.detail().ends_with("CREATE EXTENSION vector"), "{outcome}");
        assert!(judge_vector(None, None).detail().contains("install"));
    }

    #[test]
    fn another_database_is_red() {
        assert!(judge_test_database(Some("shop_test"), "shop_test").is_pass());
        let outcome = judge_test_database(Some("shop"), "shop_test");
        assert!(outcome.is_fail() && outcome.detail().contains("not a test database"), "{outcome}");
        assert!(judge_test_database(None, "shop_test").is_no_evidence());
    }

    #[test]
    fn missing_index_is_red_and_names_the_column() {
        let needed = names(&["docs.embedding", "notes.embedding"]);
        assert!(judge_vector_indexes(&needed, "ivfflat", &needed).is_pass());
        let outcome = judge_vector_indexes(&names(&["docs.embedding"]), "ivfflat", &needed);
        assert!(outcome.is_fail() && outcome.detail().contains("notes.embedding"), "{outcome}");
        assert!(!outcome.detail().contains("docs.embedding"), "{outcome}");
        assert!(judge_vector_indexes(&[], "ivfflat", &[]).is_no_evidence());
    }

    #[test]
    fn absent_statistics_are_said_and_not_zero() {
        assert!(judge_statement_statistics("auto_explain, pg_stat_statements", Some("1.10")).is_pass());
        assert!(judge_statement_statistics("", None).is_no_evidence());
        assert!(judge_statement_statistics("pg_stat_statements", None).detail().contains("CREATE EXTENSION"));
    }

    #[test]
    fn sessions_that_cannot_be_seen_are_no_figures() {
        let none = SessionSeries::default();
        assert!(judge_session_statistics(&none, true, true).is_no_evidence(), "no samples");
        assert!(judge_session_statistics(&none, false, true).detail().contains("pg_read_all_stats"));
        assert!(judge_session_statistics(&none, true, false).detail().contains("track_activities"));
    }

    #[test]
    fn more_sessions_than_the_cap_are_red_and_none_are_no_evidence() {
        assert!(judge_sessions_of(30, "shop", 30).is_pass());
        assert!(judge_sessions_of(31, "shop", 30).detail().contains("found 31 sessions of `shop`; needed 30 at most"));
        assert!(judge_sessions_of(0, "shop", 30).is_no_evidence());
    }

    #[test]
    fn pool_is_red_when_too_small_too_large_or_never_shrinking() {
        let judge = |granted, beyond_cap, left| {
            judge_pool(&PoolFinding { granted, beyond_cap, left }, 10, 30, Duration::from_secs(1))
        };
        assert!(judge(30, false, 10).is_pass());
        assert!(judge(29, false, 10).detail().contains("found 29 connections at most"));
        assert!(judge(30, true, 10).detail().contains("more than 30"));
        assert!(judge(30, false, 30).detail().contains("30 connections 1 s after the peak"));
    }
}
