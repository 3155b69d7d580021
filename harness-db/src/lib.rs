//! A clean database for every test, on real servers that are found or started, shared by all test processes, and gone
//! when nobody needs them any more.
//!
//! ```
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! #[tokio::test]
//! async fn saves_a_user() -> harness_db::Result {               // harness_core::Result, re-exported by every crate
//!     let db = harness_db::postgres().await?;                  // own database, shared server, found or started
//!     sqlx::query("create table u(id int)").execute(db.pool()).await?;
//!     Ok(())                                                   // recycled on Ok; kept, its URL printed, on panic or on an Err
//!                                                              // that passed through harness_core::Result
//! }
//! # }
//! ```
//!
//! With the project's schema, built once per server and cloned per test, and the checks nobody else has:
//! ```
//! # #[cfg(feature = "postgres")]
//! # mod example {
//! use harness_db::Template;
//!
//! static APP: Template = Template::sql(&["create table users(id serial primary key, email text unique)"])
//!     .seed("insert into users(email) values ('a@b.c')");
//!
//! # async fn finds_by_email_through_the_index() -> harness_db::Result {
//! let db = APP.database().await?;
//! db.explain("select * from users where email = $1").bind("a@b.c").await?
//!     .uses_index("users_email_key")?.never_scans("users")?;
//! let sessions = db.sessions().start().await?;
//! // … exercise the service …
//! sessions.stop().check_below(25)?;
//! # Ok(()) }
//! # pub fn run() -> harness_db::Result {
//! #     tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(finds_by_email_through_the_index())
//! # }
//! # }
//! # #[cfg(feature = "postgres")]
//! # fn main() -> harness_db::Result { example::run() }
//! # #[cfg(not(feature = "postgres"))]
//! # fn main() {}
//! ```
//!
//! Redis is the same: `harness_db::redis().await?` leases a logical database that is never 0.
//!
//! # Where servers come from
//! `HARNESS_POSTGRES_URL`/`HARNESS_REDIS_URL`, else a shared server that already runs, else a container, else installed
//! binaries, else portable binaries fetched once ([`provider`]). `HARNESS_PROVIDERS` overrides the order, [`choices`] says
//! what was chosen and why, and one line says it when a server starts. `DATABASE_URL` is never adopted: it may be
//! somebody's real database.
//!
//! # What it does not do
//! - A shared server is never stopped, killed or paused: for faults start an `OwnPostgres` or an `OwnRedis`.
//! - What is not part of a database is not isolated: roles, tablespaces, `ALTER SYSTEM`; in Redis scripts, Pub/Sub, `CONFIG`.
//! - Shared servers are fast and not durable: they lose acknowledged commits when killed. Own ones keep them.
//! - It does not run migrations with a tool of yours; it runs their SQL files in order.
//! - Failure of a test is seen on a panic, or when an error passes through [`Result`]; a foreign result type is not seen.

#![cfg_attr(
    not(any(feature = "postgres", feature = "redis")),
    expect(dead_code, reason = "without a service only images and portable binaries are described")
)]

pub mod env;
pub mod probes;
pub mod provider;

#[cfg(any(feature = "postgres", feature = "redis"))]
mod clerk;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod custodian;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;

pub use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
pub use provider::{Attempt, Choice, Provider, choices};

#[cfg(feature = "postgres")]
pub use crate::postgres::{Database, OwnOptions, OwnPostgres, Plan, Template, observe, postgres};
#[cfg(feature = "redis")]
pub use crate::redis::{Keyspace, OwnRedis, RedisOptions, calls, flush, lookups, redis};
#[cfg(feature = "postgres")]
pub use sqlx;
