//! Tables, seed and index. Idempotent, in one transaction under an advisory lock, so that instances may start together.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::embed::{Embedding, hash};
use crate::patterns::{Library, Pattern};
use crate::plant::{Plant, Plants};

/// Key of the advisory lock; any constant that nothing else in the same database uses.
const LOCK: i64 = 0x7061_7474_6572_6e73;

const TABLES: &str = r#"
create extension if not exists vector;
create table if not exists patterns (
    name text primary key,
    class text not null,
    body text not null,
    seed text not null,
    version bigint not null default 1,
    updated_at timestamptz not null default now()
);
create table if not exists pattern_vectors (
    id bigint generated always as identity primary key,
    pattern text not null,
    class text not null,
    phrase text not null,
    embedding vector(64) not null
);
create table if not exists records (
    id text collate "C" primary key,
    payload text not null,
    checksum text not null,
    created_at timestamptz not null default now()
);
create table if not exists accounts (
    id text collate "C" primary key,
    balance bigint not null check (balance >= 0)
);
insert into accounts select 'account-' || n, 1000000 from generate_series(1, 10) n on conflict do nothing;
create table if not exists audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    agent text not null,
    action text not null,
    outcome text not null
);
create index if not exists audit_agent_id on audit (agent, id desc);
create or replace function audit_is_append_only() returns trigger language plpgsql as
    $$ begin raise exception 'the audit trail is append-only' using errcode = 'insufficient_privilege'; end $$;
create or replace trigger audit_no_change before update or delete on audit
    for each row execute function audit_is_append_only();
create or replace trigger audit_no_truncate before truncate on audit
    for each statement execute function audit_is_append_only();
"#;

/// Built after the rows are there, since its lists are centres of what it finds.
const INDEX: &str = "create index pattern_vectors_embedding on pattern_vectors \
                     using ivfflat (embedding vector_cosine_ops) with (lists = 20)";

/// Lists of the index that a search looks into, of 20; with 14 a search finds about 99 of 100 true neighbours.
pub const PROBES: u32 = 14;

/// Brings a database to the present form; does nothing to one that has it.
pub async fn migrate(options: &PgConnectOptions, library: &Library, plants: Plants) -> Result<(), sqlx::Error> {
    let options = options.clone().options([("lock_timeout", "20s"), ("client_min_messages", "warning")]);
    let mut connection = options.connect().await?;
    let outcome = in_lock(&mut connection, library, plants).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    outcome
}

async fn in_lock(connection: &mut PgConnection, library: &Library, plants: Plants) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    tx.execute("create table if not exists service_meta (key text primary key, value text not null)").await?;
    let form = format!("{:016x}-{}", hash(&format!("{TABLES}{INDEX}")), library.fingerprint());
    let found: Option<String> =
        sqlx::query_scalar("select value from service_meta where key = 'form'").fetch_optional(&mut *tx).await?;
    if found.as_deref() != Some(&form) {
        tx.execute(TABLES).await?;
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
