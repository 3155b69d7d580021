//! Forty tests that clone a template in the test itself, as it is written by hand: an advisory lock around the one build,
//! a clone per test, a drop at its end. The copying strategy is the one that was measured to be faster on this server.

use std::str::FromStr as _;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};

const TEMPLATE: &str = "peers_inline_template";
const LOCK: i64 = 4_040_404;

async fn run(admin: &mut PgConnection, text: String) -> sqlx::Result<()> {
    admin.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(|_| ())
}

async fn is_there(admin: &mut PgConnection) -> sqlx::Result<bool> {
    let found = sqlx::query("select 1 from pg_database where datname = $1 and datistemplate").bind(TEMPLATE);
    Ok(found.fetch_optional(admin).await?.is_some())
}

async fn build(admin: &mut PgConnection, base: &PgConnectOptions) -> sqlx::Result<()> {
    run(admin, format!("select pg_advisory_lock({LOCK})")).await?;
    if !is_there(admin).await? {
        run(admin, format!("drop database if exists {TEMPLATE} with (force)")).await?;
        run(admin, format!("create database {TEMPLATE}")).await?;
        let mut inside = PgConnection::connect_with(&base.clone().database(TEMPLATE)).await?;
        forty::MIGRATOR.run(&mut inside).await?;
        inside.close().await?;
        run(admin, format!("alter database {TEMPLATE} with is_template true")).await?;
    }
    run(admin, format!("select pg_advisory_unlock({LOCK})")).await
}

/// Runs a body in a clone of its own and drops it afterwards.
async fn in_a_clone(body: impl AsyncFnOnce(&PgPool) -> sqlx::Result<()>) -> sqlx::Result<()> {
    let base = PgConnectOptions::from_str(&std::env::var("DATABASE_URL").expect("DATABASE_URL must be set"))?;
    let strategy = std::env::var("PEERS_STRATEGY").unwrap_or_else(|_| "wal_log".to_owned());
    let mut admin = PgConnection::connect_with(&base).await?;
    if !is_there(&mut admin).await? {
        build(&mut admin, &base).await?;
    }
    let name = format!("peers_inline_{}", std::process::id());
    run(&mut admin, format!("create database {name} template {TEMPLATE} strategy {strategy}")).await?;
    let pool = PgPoolOptions::new().max_connections(5).connect_with(base.database(&name)).await?;
    let result = body(&pool).await;
    pool.close().await;
    run(&mut admin, format!("drop database {name} with (force)")).await?;
    admin.close().await?;
    result
}

macro_rules! tests {
    ($($name:ident)*) => {
        mod select {
            $(#[tokio::test]
            async fn $name() -> sqlx::Result<()> {
                super::in_a_clone(async |pool| forty::select(pool).await).await
            })*
        }
        mod insert {
            $(#[tokio::test]
            async fn $name() -> sqlx::Result<()> {
                super::in_a_clone(async |pool| forty::insert(pool).await).await
            })*
        }
    };
}

forty::forty!(tests);
