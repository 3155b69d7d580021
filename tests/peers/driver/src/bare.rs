//! What can be had without a harness: clones by hand, and how many of them a server makes per second.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use peers_common::Result;

/// A sealed template with the migrations of a directory, known to no harness.
pub(crate) const TEMPLATE: &str = "peers_bare_template";

/// How clones are made fastest: measured, not assumed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceiling {
    pub(crate) strategy: &'static str,
    pub(crate) jobs: usize,
}

/// Runs one statement.
pub(crate) async fn run(connection: &mut PgConnection, text: impl Into<String>) -> Result {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text.into()))).await?;
    Ok(())
}

/// Builds [`TEMPLATE`] anew.
pub(crate) async fn build_template(base: &PgConnectOptions, migrations: &str) -> Result {
    let mut admin = PgConnection::connect_with(base).await?;
    drop_template(&mut admin).await?;
    run(&mut admin, format!("create database {TEMPLATE}")).await?;
    let mut inside = PgConnection::connect_with(&base.clone().database(TEMPLATE)).await?;
    let mut files: Vec<_> =
        std::fs::read_dir(migrations)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    for file in files {
        run(&mut inside, std::fs::read_to_string(file)?).await?;
    }
    inside.close().await?;
    run(&mut admin, format!("alter database {TEMPLATE} with allow_connections false is_template true")).await
}

/// Drops [`TEMPLATE`] if it is there.
pub(crate) async fn drop_template(admin: &mut PgConnection) -> Result {
    let found = sqlx::query("select 1 from pg_database where datname = $1").bind(TEMPLATE);
    if found.fetch_optional(&mut *admin).await?.is_some() {
        run(admin, format!("alter database {TEMPLATE} with is_template false")).await?;
        run(admin, format!("drop database {TEMPLATE} with (force)")).await?;
    }
    Ok(())
}

/// The faster strategy for one clone after the other.
pub(crate) async fn faster_strategy(base: &PgConnectOptions) -> Result<&'static str> {
    let mut best = (Duration::MAX, "file_copy");
    for strategy in ["file_copy", "wal_log", "file_copy", "wal_log"] {
        let took = cloned(base, Ceiling { strategy, jobs: 1 }, 3, false).await?;
        best = best.min((took, strategy));
    }
    Ok(best.1)
}

/// The time for `count` clones, spread over the jobs; with `drops`, each is dropped by its own job before the next.
/// Without, they are dropped afterwards and not counted.
pub(crate) async fn cloned(base: &PgConnectOptions, how: Ceiling, count: usize, drops: bool) -> Result<Duration> {
    let mut jobs = Vec::new();
    for job in 0..how.jobs {
        let mine = count / how.jobs + usize::from(job < count % how.jobs);
        jobs.push((job, mine, PgConnection::connect_with(base).await?));
    }
    let begun = Instant::now();
    let running: Vec<_> = jobs
        .into_iter()
        .map(|(job, mine, mut connection)| {
            tokio::spawn(async move {
                for n in 0..mine {
                    let name = format!("peers_clone_{job}_{n}");
                    let text = format!("create database {name} template {TEMPLATE} strategy {}", how.strategy);
                    run(&mut connection, text).await?;
                    if drops {
                        run(&mut connection, format!("drop database {name}")).await?;
                    }
                }
                Ok::<_, peers_common::Failure>((job, mine, connection))
            })
        })
        .collect();
    let mut ended = Vec::new();
    for job in running {
        ended.push(job.await??);
    }
    let took = begun.elapsed();
    for (job, mine, mut connection) in ended {
        for n in 0..mine {
            run(&mut connection, format!("drop database if exists peers_clone_{job}_{n}")).await?;
        }
        connection.close().await?;
    }
    Ok(took)
}
