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
//! # #[cfg(all(feature = "postgres", feature = "checks"))]
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
//! # #[cfg(all(feature = "postgres", feature = "checks"))]
//! # fn main() -> harness_db::Result { example::run() }
//! # #[cfg(not(all(feature = "postgres", feature = "checks")))]
//! # fn main() {}
//! ```
//!
//! Redis is the same: `harness_db::redis().await?` leases a logical database that is never 0.
//!
//! # What a test gets
//! | want | ask for |
//! |---|---|
//! | an empty database, or the project's schema | `harness_db::postgres()`, `Template::database` |
//! | schema, seed, a bigger seed, each built once on the one below | `Template::on` |
//! | more connections than 5, or a limit to the wait for them | `.connections(20)`, `.within(limit)` |
//! | a login role with the application's privileges | `Template::role`, `Database::connect_as` |
//! | two databases, or five | ask again: each request is a database of its own |
//! | isolation by rollback inside one database | `Database::transaction`: read its limits first |
//! | a server alone, for roles, `ALTER SYSTEM`, tablespaces | `harness_db::exclusive()` |
//! | a server to stop, kill and start, durable, set like production, over TLS, with a replica | `OwnPostgres`, `OwnOptions` |
//! | a plain `#[test]` without a runtime, drivers that block | [`blocking`] |
//! | a Redis keyspace; a server; replicas, Sentinel, a cluster; each with ACL users, passwords, TLS | `harness_db::redis()`, `OwnRedis`, `redis_replicas`, `redis_sentinel`, `redis_cluster` |
//!
//! A database that nobody changed, or in which only rows of tables were changed that are empty in the template, is taken
//! back to the template's state and handed out again; every other one is dropped, off the test's path. A test cannot tell the
//! difference: rows, sequences, sizes and statistics are those of a fresh clone. A database of a superuser is never reused.
//!
//! # What a test can ask
//! All of it, and the topologies of Redis, come with the feature `checks`: see [below](#what-it-costs-to-compile).
//!
//! | question | answer |
//! |---|---|
//! | does the query use its index, filter too much, spill, guess wrong? | `Database::explain`: this plan, or the custom and the generic one |
//! | how many statements did this block run, which are slow, what did they write? | `Database::statements`, `slowest`, `reads` |
//! | is a value ever concatenated into SQL? | `Database::parameterised` |
//! | who waits for whom, is there a cycle, for how long? | `Database::locks` |
//! | which line leaks a connection, does the pool survive a stampede? | `watch_pool`, `Database::sessions` |
//! | lost updates and write skew in *my* functions, at every interleaving | `isolation::probe`, `isolation::suite` |
//! | do migrations go there and back, keep rows, lock a live table, drift? | `Migrations` |
//! | is the schema what I think, are the rows? | `Database::schema`, `Database::rows` and `rows!` |
//! | what must be refused, by SQLSTATE and constraint | `Database::refuses` |
//! | does the approximate index find what the exact scan finds? | `Database::vector_index`, then `recall` |
//! | do keys expire, who evicts, what is slow, big, never deleted? | `Keyspace::expects_ttl`, `slowlog`, `bigkeys`, `commands`; `redis::eviction` |
//! | is a cache coherent across instances; what did a failover lose? | `redis::Coherence`, `Failover` |
//!
//! Each is shown red by a planted defect in this crate's own tests, and none passes without evidence: an empty table, a block
//! that ran nothing and a lock watch that saw no lock say so.
//!
//! # Other drivers
//! [`Database::url`](crate::Database::url) is all they need; the database is dropped behind them in the same way.
//! ```text
//! tokio-postgres   tokio_postgres::connect(&db.url(), NoTls).await?
//! sea-orm          sea_orm::Database::connect(db.url()).await?
//! diesel           diesel::PgConnection::establish(&db.url())?          in `blocking::…`, or in spawn_blocking
//! diesel-async     AsyncPgConnection::establish(&db.url()).await?
//! any program      Command::new("my-service").env("DATABASE_URL", db.url())
//! ```
//!
//! # Where servers come from
//! `HARNESS_POSTGRES_URL`/`HARNESS_REDIS_URL`, else a shared server that already runs, else a container, else installed
//! binaries, else portable binaries fetched once ([`provider`]). `HARNESS_PROVIDERS` overrides the order, [`choices`] says
//! what was chosen and why, and one line says it when a server starts. `DATABASE_URL` is never adopted: it may be
//! somebody's real database.
//!
//! # What it costs to compile
//! All features are additive, and on by default but for `tls` and `lint`.
//!
//! | feature | brings |
//! |---|---|
//! | `postgres`, `redis` | servers by URL, shared or of installed binaries; databases and keyspaces; servers of one's own |
//! | `checks` | everything a test can ask, replicas, Sentinel and cluster of Redis, pre-flight [`probes`], [`Diagnosis`] |
//! | `containers` | servers in containers, through testcontainers |
//! | `portable` | servers of binaries that are fetched once |
//! | `tls` | own servers that speak TLS |
//! | `lint` | migrations read by squawk's rules |
//!
//! Who only wants a clean database compiles two thirds less of this crate, half of `harness-core`, and none of what containers need, with
//! `default-features = false, features = ["postgres", "redis"]`.
//!
//! # What it does not do
//! - A shared server is never stopped, killed or paused: for faults start an `OwnPostgres` or an `OwnRedis`.
//! - Data of shared servers of installed or portable binaries are kept in memory where 4 GiB are free there and 8 on the machine
//!   (`HARNESS_DATA=disk` keeps them on disk).
//! - What is not part of a database is not isolated: roles, tablespaces, `ALTER SYSTEM` (take `harness_db::exclusive()`, a server
//!   of the test alone); in Redis scripts, Pub/Sub, `CONFIG`.
//! - Shared servers are fast and not durable: they lose acknowledged commits when killed. Own ones keep them.
//! - Templates run the SQL files of migrations in order; a migration tool of yours runs through [`Template::built`].
//! - Failure of a test is seen on a panic, or when an error passes through [`Result`]; a foreign result type is not seen.

#![cfg_attr(
    not(any(feature = "postgres", feature = "redis")),
    expect(dead_code, reason = "without a service only images and portable binaries are described")
)]

#[cfg(any(feature = "postgres", feature = "redis"))]
pub mod blocking;
pub mod env;
#[cfg(feature = "checks")]
pub mod probes;
pub mod provider;

#[cfg(any(feature = "postgres", feature = "redis"))]
mod clerk;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod custodian;
#[cfg(all(feature = "checks", any(feature = "postgres", feature = "redis")))]
mod diagnosis;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(all(feature = "tls", any(feature = "postgres", feature = "redis")))]
pub mod tls;

#[cfg(all(feature = "checks", any(feature = "postgres", feature = "redis")))]
pub use diagnosis::Diagnosis;
pub use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
pub use provider::{Attempt, Choice, Provider, choices};

#[cfg(feature = "postgres")]
pub use crate::postgres::{
    Database, Exclusive, OwnOptions, OwnPostgres, Replica, Template, TestTx, exclusive, observe, postgres,
};
#[cfg(all(feature = "checks", feature = "postgres"))]
pub use crate::postgres::{Migrations, Plan, Schema, frames, isolation, sqlstate, watch_pool};
#[cfg(all(feature = "checks", feature = "redis"))]
pub use crate::redis::{Failover, FailoverKind, calls, lookups, redis_cluster, redis_replicas, redis_sentinel};
#[cfg(feature = "redis")]
pub use crate::redis::{Keyspace, OwnRedis, RedisOptions, flush, redis};
#[cfg(all(feature = "checks", feature = "postgres"))]
pub use serde_json;
#[cfg(feature = "postgres")]
pub use sqlx;
