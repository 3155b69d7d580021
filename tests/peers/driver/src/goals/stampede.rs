//! Hundreds of processes in one instant: how many servers, how many builds of the template, how many without a database.

use std::collections::BTreeSet;

use sqlx::{Connection as _, PgConnection};

use crate::bare;
use crate::child::{self, Seen, State};
use peers_common::{Asked, Measured, Result};

/// A statement of the migrations that nothing else runs: the server counts it over all databases.
const MARK: &str = "create table t_01%";

/// Starts them all, waits for all, and asks the server what it saw.
pub(super) async fn measure(asked: &Asked) -> Result<Vec<Measured>> {
    let state = State::new("stampede")?;
    let dir = crate::migrations(asked, "migrations");
    let count = asked.times(500, 60);
    let rows: Vec<Result<Seen>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..count).map(|_| scope.spawn(|| child::row(state.child("20s", &["ours", dir])?))).collect();
        running.into_iter().map(|child| child.join().unwrap_or_else(|_| Err("a thread died".into()))).collect()
    });
    let (seen, failed): (Vec<_>, Vec<_>) = rows.into_iter().partition(Result::is_ok);
    let seen: Vec<Seen> = seen.into_iter().flatten().collect();
    let failed: Vec<String> = failed.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    let places: BTreeSet<&str> = seen.iter().map(|seen| &*seen.place).collect();
    let first = *places.first().ok_or_else(|| format!("no process got a database: {}", failed.concat()))?;
    let started = seen.iter().filter(|seen| seen.said.contains("harness: postgres from ")).count();
    let builds = builds(first).await?;
    let servers = places.len().max(started) as u64;
    let refused = failed.iter().filter(|text| is_refusal(text)).count();
    let slowest = seen.iter().map(|seen| seen.first_row.as_secs_f64()).fold(0.0, f64::max);
    let note = format!("{count} processes at once, each to its first row");
    Ok(vec![
        Measured::count("db.stampede_servers", &[servers]).note(&*note).detail("slowest_s", slowest),
        Measured::count("db.stampede_builds", &[builds]).note(&*note),
        Measured::count("db.stampede_failures", &[failed.len() as u64])
            .note(note)
            .detail("too_many_clients", refused)
            .detail("first", failed.first().cloned().unwrap_or_default()),
    ])
}

/// True for SQLSTATE 53300, in the server's words.
pub(super) fn is_refusal(text: &str) -> bool {
    ["53300", "too many clients", "remaining connection slots"].iter().any(|words| text.contains(words))
}

async fn builds(place: &str) -> Result<u64> {
    let mut admin = PgConnection::connect(&format!("postgres://postgres@{place}/postgres")).await?;
    bare::run(&mut admin, "create extension if not exists pg_stat_statements").await?;
    let count: i64 =
        sqlx::query_scalar("select coalesce(sum(calls), 0)::int8 from pg_stat_statements where query like $1")
            .bind(MARK)
            .fetch_one(&mut admin)
            .await?;
    Ok(count.try_into()?)
}
