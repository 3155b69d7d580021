//! The first database of a process: with no server at all, and with one that somebody else has started.

use std::path::Path;

use harness_db::env::DbSettings;

use crate::child::{self, State};
use crate::server::Bench;
use peers_common::{Asked, Measured, Result};

/// No server: ours from its warm caches against an `initdb` each time. Both are processes of their own.
pub(super) async fn against_initdb(asked: &Asked) -> Result<Vec<Measured>> {
    let bin = postgres_bin()?;
    let path = child::path_with_sudo(&asked.out.join("bin"))?;
    let state = State::new("cold")?;
    let dir = crate::migrations(asked, "migrations");
    let (mut rounds, mut with_schema) = (Vec::new(), Vec::new());
    // The first of ours fills the cache and is not counted.
    for round in 0..=asked.rounds() {
        let ours = child::row(state.child("0s", &["ours"])?)?;
        child::ends(&ours.place).await?;
        let mut initdb = child::command(&["initdb", &bin])?;
        initdb.env("PATH", &path);
        let theirs = child::row(initdb)?;
        let schema = child::row(state.child("0s", &["ours", dir])?)?;
        child::ends(&schema.place).await?;
        if round > 0 {
            rounds.push((ours.first_row.as_secs_f64(), theirs.first_row.as_secs_f64()));
            with_schema.push(schema.first_row.as_secs_f64());
        }
    }
    let note = "start of the process to the first row of an empty database; detail: ours with 40 migrations to build";
    Ok(vec![
        Measured::pairs("db.cold_start", "pgtemp", "s", &rounds)
            .note(note)
            .detail("ours_with_schema_s", with_schema)
            .detail("binaries", bin),
    ])
}

/// A live shared server: a process of ours against a process with a container of its own.
pub(super) async fn against_a_container(asked: &Asked) -> Result<Vec<Measured>> {
    let bench = Bench::start(asked).await?;
    let image = DbSettings::get().postgres_image.clone().unwrap_or_else(|| "harness/postgres:17".to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let dir = crate::migrations(asked, "migrations");
    let (mut rounds, mut with_schema) = (Vec::new(), Vec::new());
    for round in 0..=asked.rounds() {
        let ours = child::row(child::command(&["ours"])?)?;
        let theirs = child::row(child::command(&["container", name, tag])?)?;
        let schema = child::row(child::command(&["ours", dir])?)?;
        if round > 0 {
            rounds.push((ours.first_row.as_secs_f64(), theirs.first_row.as_secs_f64()));
            with_schema.push(schema.first_row.as_secs_f64());
        }
    }
    let note = "start of the process to the first row of an empty database; detail: ours with 40 migrations";
    Ok(vec![
        Measured::pairs("db.cold_shared", "testcontainers", "s", &rounds)
            .note(note)
            .detail("ours_with_schema_s", with_schema)
            .detail("image", image)
            .detail("server", bench.described),
    ])
}

/// The newest installed Postgres.
fn postgres_bin() -> Result<String> {
    let mut found = Vec::new();
    for version in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let number: u32 = version.file_name().to_string_lossy().parse().unwrap_or_default();
        found.push((number, version.path().join("bin")));
    }
    found.extend(DbSettings::get().path.iter().map(|dir| (0, dir.clone())));
    found.retain(|(_, dir): &(u32, std::path::PathBuf)| is_complete(dir));
    found.sort();
    let newest = found.pop().ok_or("no installed Postgres (initdb, postgres) to start each time")?;
    Ok(newest.1.display().to_string())
}

fn is_complete(dir: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file())
}
