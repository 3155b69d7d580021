//! Migrations, seed and index. Migrations are numbered, each with its way back, and booked with their checksums; the seed
//! follows the library. All of it under advisory locks, so that instances may start together, and nothing on a second run.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration as Booked, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _};

use crate::embed::{Embedding, hash};
use crate::patterns::{Library, Pattern};
use crate::plant::{Plant, Plants};

/// Key of the advisory lock; any constant that nothing else in the same database uses.
const LOCK: i64 = 0x7061_7474_6572_6e73;

/// One numbered change of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they run in this order.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// The SQL of the way forward.
    pub up: &'static str,
    /// The SQL of the way back.
    pub down: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal, $file:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../migrations/", $file, ".up.sql")),
            down: include_str!(concat!("../migrations/", $file, ".down.sql")),
        }
    };
}

const MIGRATIONS: [Migration; 4] = [
    migration!(1, "patterns", "0001_patterns"),
    migration!(2, "records", "0002_records"),
    migration!(3, "audit", "0003_audit"),
    migration!(4, "pattern times", "0004_pattern_times"),
];

/// The migrations of this service, in their order; planted defects of migrations are in the youngest one.
pub fn migrations(plants: Plants) -> Vec<Migration> {
    let mut all = MIGRATIONS.to_vec();
    if let Some(youngest) = all.last_mut() {
        if plants.on(Plant::OneWayMigration) {
            youngest.down = "select 'the column stays'";
        }
        if plants.on(Plant::RewritesTable) {
            youngest.up = "alter table patterns add column if not exists updated_at timestamptz not null \
                           default clock_timestamp()";
        }
    }
    all
}

/// Built after the rows are there, since its lists are centres of what it finds.
const INDEX: &str = "create index pattern_vectors_embedding on pattern_vectors \
                     using ivfflat (embedding vector_cosine_ops) with (lists = 20)";

/// Lists of the index that a search looks into, of 20; with 14 a search finds about 99 of 100 true neighbours.
pub const PROBES: u32 = 14;

/// Brings a database to the present form; does nothing to one that has it. A migration that was edited after it had been
/// applied is refused.
pub async fn migrate(options: &PgConnectOptions, library: &Library, plants: Plants) -> Result<(), sqlx::Error> {
    let options = options.clone().options([("lock_timeout", "20s"), ("client_min_messages", "warning")]);
    let mut connection = options.connect().await?;
    let outcome = steps(&mut connection, library, plants).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    outcome
}

async fn steps(connection: &mut PgConnection, library: &Library, plants: Plants) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    tx.execute("create extension if not exists vector").await?;
    tx.execute("create table if not exists service_meta (key text primary key, value text not null)").await?;
    tx.commit().await?;
    let migrations = migrations(plants);
    if !(plants.on(Plant::IgnoresDrift) && booked(connection).await? == migrations.len() as i64) {
        apply(connection, &migrations).await?;
    }
    let mut tx = connection.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    let form = format!("{:016x}-{}", hash(INDEX), library.fingerprint());
    let found: Option<String> =
        sqlx::query_scalar("select value from service_meta where key = 'form'").fetch_optional(&mut *tx).await?;
    if found.as_deref() != Some(&form) {
        seed(&mut tx, library).await?;
        sqlx::query(
            "insert into service_meta values ('form', $1) on conflict (key) do update set value = excluded.value",
        )
        .bind(&form)
        .execute(&mut *tx)
        .await?;
    }
    if plants.on(Plant::DuplicateWrite) {
        tx.execute("alter table records drop constraint if exists records_pkey").await?;
    }
    tx.commit().await
}

/// Applies what is not applied yet, each in a transaction of its own, and compares the checksums of the others.
async fn apply(connection: &mut PgConnection, migrations: &[Migration]) -> Result<(), sqlx::Error> {
    let forward = |one: &Migration| {
        let kind = MigrationType::ReversibleUp;
        Booked::new(one.version, Cow::Borrowed(one.name), kind, one.up.into_sql_str(), false)
    };
    let migrator = Migrator::with_migrations(migrations.iter().map(forward).collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error,
        other => other.into(),
    })
}

/// How many migrations the books have.
async fn booked(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let there = "select to_regclass('_sqlx_migrations') is not null";
    if !sqlx::query_scalar::<_, bool>(there).fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    sqlx::query_scalar("select count(*) from _sqlx_migrations").fetch_one(connection).await
}

/// Writes the library: new text replaces edited text only where the file itself has changed.
async fn seed(connection: &mut PgConnection, library: &Library) -> Result<(), sqlx::Error> {
    for pattern in library.iter() {
        sqlx::query(
            "insert into patterns (name, class, body, seed) values ($1, $2, $3, $3) on conflict (name) do update
             set class = excluded.class, body = excluded.body, seed = excluded.seed, version = patterns.version + 1
             where patterns.seed <> excluded.seed",
        )
        .bind(&pattern.name)
        .bind(pattern.class.name())
        .bind(&pattern.template)
        .execute(&mut *connection)
        .await?;
    }
    let rows: Vec<(&Pattern, String)> =
        library.iter().flat_map(|p| p.phrases().map(move |phrase| (p, phrase))).collect();
    connection.execute("drop index if exists pattern_vectors_embedding; delete from pattern_vectors").await?;
    sqlx::query(
        "insert into pattern_vectors (pattern, class, phrase, embedding) select p, c, f, e::vector
         from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as row(p, c, f, e)",
    )
    .bind(rows.iter().map(|(p, _)| p.name.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(p, _)| p.class.name()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, phrase)| phrase.clone()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, phrase)| Embedding::of(phrase).to_sql()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    connection.execute(INDEX).await?;
    connection.execute("analyze pattern_vectors").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_a_gap_and_planted_ones_differ_where_they_say() {
        let (sound, plant) = (migrations(Plants::default()), |name| migrations(Plants::parse(name).unwrap()));
        assert!(sound.iter().map(|one| one.version).eq(1..=sound.len() as i64));
        assert!(sound.iter().all(|one| !one.up.trim().is_empty() && !one.down.trim().is_empty()));
        let (one_way, rewrites) = (plant("one-way-migration"), plant("rewrites-table"));
        assert_eq!((&one_way[..3], one_way[3].up), (&sound[..3], sound[3].up));
        assert_ne!(one_way[3].down, sound[3].down);
        assert_eq!((&rewrites[..3], rewrites[3].down), (&sound[..3], sound[3].down));
        assert_ne!(rewrites[3].up, sound[3].up);
    }
}
