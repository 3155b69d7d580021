//! Category database: the service's migrations, there and back with rows, run twice, edited afterwards, under live traffic.

use std::time::Duration;

use harness_core::campaign::Scenario;
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_db::postgres::migration::Migration;
use harness_db::{Database, Migrations};
use pattern_service::patterns::Library;
use pattern_service::plant::Plants;
use pattern_service::schema;
use sqlx::postgres::PgConnectOptions;

use crate::world::World;

/// The longest that a migration may keep readers and writers of a table waiting.
const BLOCK: Duration = Duration::from_secs(2);
/// The last version before the youngest migration: what the release before lived with.
const BEFORE: i64 = 3;

/// C4: on databases of their own, by the service's own migrations and its own runner.
pub(crate) async fn migrations(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let plants = Plants::parse(&cx.plants().join(","))
        .map_err(|error| Error::new(ErrorKind::Config, "the plants cannot be read").caused_by(error))?;
    let (there_and_back, live) = (world.scratch("roundtrip").await?, world.scratch("locks").await?);
    let outcome = judge(cx, plants, &there_and_back, &live).await;
    for scratch in [there_and_back, live] {
        world.drop_scratch(scratch).await?;
    }
    outcome
}

async fn judge(cx: &Scenario<World>, plants: Plants, there_and_back: &Database, live: &Database) -> Result {
    let migrations = of(&schema::migrations(plants));
    let report = migrations
        .round_trip(there_and_back)
        .with_rows_between(rows)
        .compatible_with(BEFORE, |pool| async move {
            for text in ["select name, class, body, seed, version from patterns", OLD_INSERT] {
                sqlx::query(text).execute(&pool).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
        .await?;
    cx.evidence("round-trip.txt", format!("{report:#?}"))?;
    cx.check(
        "up, down and up again: the same schema, every row kept, the release before still works",
        report.outcome(),
    );
    let service = by_service(plants);
    let first = service.apply(there_and_back).await;
    cx.check("the service takes over what was migrated", word(&first.map(drop)));
    cx.check("a second run of the service does nothing", service.rerun(there_and_back).await?);
    let undrifted = migrations.check_drift(&cx.shared().database).await;
    cx.check("what is applied in the service's own database is what the files say", word(&undrifted));
    judge_locks(cx, &migrations, live).await?;
    judge_failure(cx, plants, there_and_back).await?;
    edited(there_and_back, "update _sqlx_migrations set checksum = '\\x00' where version = 2").await?;
    let refused = match service.apply(there_and_back).await {
        Ok(_) => Outcome::fail("the service starts on a schema that is not what its files say"),
        Err(error) if format!("{error:?}").contains("has been modified") => Outcome::pass("migration 2 was modified"),
        Err(error) => Outcome::fail(format!("refused for another reason: {error:?}")),
    };
    cx.check("a migration that was edited after it had been applied is refused", refused);
    Ok(())
}

/// The youngest migration on tables in use: whoever reads and writes them meanwhile hardly notices.
async fn judge_locks(cx: &Scenario<World>, migrations: &Migrations, live: &Database) -> Result {
    migrations.apply_to(live, BEFORE).await?;
    edited(live, &rows(1)).await?;
    let seen = migrations.watch_locks(live).tables(["patterns"]).await?;
    cx.evidence("locks.txt", seen.to_string())?;
    cx.check("no reader or writer waits longer than two seconds", seen.longest_block_within(BLOCK));
    cx.check("no table is written anew", word(&seen.never_rewrites("patterns").map(|_| ())));
    cx.check("locks are waited for within a limit", word(&seen.sets_lock_timeout().map(|_| ())));
    Ok(())
}

/// A migration that fails half-way leaves nothing of itself.
async fn judge_failure(cx: &Scenario<World>, plants: Plants, database: &Database) -> Result {
    let mut list = listed(&schema::migrations(plants));
    let next = list.len() as i64 + 1;
    list.push(Migration::new(next, "fails half-way", "create table half_done (id int); select 1 / 0"));
    let rolled_back = match Migrations::list(list).apply(database).await {
        Ok(_) => Outcome::fail("a division by zero was applied"),
        Err(error) => {
            let left: bool = sqlx::query_scalar("select to_regclass('half_done') is not null")
                .fetch_one(database.pool())
                .await
                .map_err(|error| Error::new(ErrorKind::Protocol, "the schema cannot be read").caused_by(error))?;
            if left { Outcome::fail("half of it is there") } else { Outcome::pass(error.what().to_owned()) }
        }
    };
    cx.check("a step that fails half-way is rolled back and reported", rolled_back);
    Ok(())
}

fn word(result: &CoreResult) -> Outcome {
    match result {
        Ok(()) => Outcome::pass("holds"),
        Err(error) if error.kind() == ErrorKind::NoEvidence => Outcome::no_evidence(error.to_string()),
        Err(error) => Outcome::fail(format!("{error:?}")),
    }
}

fn listed(migrations: &[schema::Migration]) -> Vec<Migration> {
    migrations.iter().map(|one| Migration::new(one.version, one.name, one.up).down(one.down)).collect()
}

fn of(migrations: &[schema::Migration]) -> Migrations {
    Migrations::list(listed(migrations)).bookkeeping("service_meta")
}

/// What the service does when it starts.
fn by_service(plants: Plants) -> Migrations {
    let run = move |url: String| async move {
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| error.to_string())?;
        let library = Library::load(None).map_err(|error| error.to_string())?;
        schema::migrate(&options, &library, plants).await.map_err(|error| error.to_string())
    };
    Migrations::run_by(run).bookkeeping("service_meta")
}

/// Rows that an installation has after each version.
fn rows(version: i64) -> String {
    match version {
        1 => "insert into patterns (name, class, body, seed) values ('kept', 'memory', 'edited', 'as shipped');
              insert into pattern_vectors (pattern, class, phrase, embedding)
              select 'kept', 'memory', 'keep this', array_fill(0.5::real, array[64])::vector"
            .to_owned(),
        2 => "insert into records (id, payload, checksum) values ('kept', 'what must not be lost', 'c0ffee');
              update accounts set balance = balance - 7 where id = 'account-1'"
            .to_owned(),
        3 => "insert into audit (agent, action, outcome) values ('agent-00', 'pattern.put:kept', 'ok')".to_owned(),
        _ => String::new(),
    }
}

/// What the release before writes.
const OLD_INSERT: &str = "insert into patterns (name, class, body, seed) values ('by the old build', 'hybrid', 'b', 'b') \
                          on conflict (name) do nothing";

async fn edited(database: &Database, text: &str) -> CoreResult {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(database.pool()).await;
    done.map(drop).map_err(|error| Error::new(ErrorKind::Protocol, format!("`{text}` fails")).caused_by(error))
}
