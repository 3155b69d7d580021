//! Living on somebody else's server: presence by a session advisory lock, and sweeping what the dead left there.
//!
//! Nothing is judged by age. A database of the harness is left over when the lock of its lease is free (its process has
//! gone, and its session with it) and it is not marked as kept. Databases of others are never looked at.

use std::collections::BTreeSet;
use std::time::SystemTime;

use harness_core::run::fnv;
use harness_core::service::ProcessId;
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use super::Capabilities;
use super::names::{self, Whose};
use super::sql::{self, ident};
use crate::provider::{Attempt, Provider};

/// The fact that holds the URL of a foreign server.
pub(crate) const URL: &str = "url";

/// A keeper on a server that is not its own: a session that holds locks for as long as the keeper lives. A server that was
/// killed has lost them with the session: they are taken again when it is back.
#[derive(Debug)]
pub(crate) struct Presence {
    base: PgConnectOptions,
    lease: i64,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    session: PgConnection,
    /// The locks of templates.
    templates: BTreeSet<i64>,
}

impl Presence {
    /// Takes the lock that says this lease lives.
    pub(crate) async fn take(base: &PgConnectOptions, lease: &str) -> CoreResult<Self> {
        let (lease, templates) = (names::lease_lock(lease), BTreeSet::new());
        let session = hold(base, lease, &templates).await?;
        Ok(Self { base: base.clone(), lease, held: Mutex::new(Held { session, templates }) })
    }

    /// Holds what it held, over a new session if need be; and from now on this template, which no sweep takes then.
    pub(crate) async fn lasts(&self, template: Option<&str>) -> CoreResult {
        let mut held = self.held.lock().await;
        let new = template.map(names::use_lock).filter(|lock| !held.templates.contains(lock));
        let text = match new {
            Some(lock) => format!("select pg_advisory_lock_shared({lock})"),
            None => "select 1".to_owned(),
        };
        held.templates.extend(new);
        match sql::run(&mut held.session, "say that this keeper lives", text).await {
            Err(error) if error.kind() == ErrorKind::Connect => {
                held.session = hold(&self.base, self.lease, &held.templates).await?;
                Ok(())
            }
            other => other,
        }
    }
}

async fn hold(base: &PgConnectOptions, lease: i64, templates: &BTreeSet<i64>) -> CoreResult<PgConnection> {
    let mut session = sql::connect(base).await?;
    let locks = templates.iter().map(|lock| format!("; select pg_advisory_lock_shared({lock})"));
    let text = format!("select pg_advisory_lock({lease}){}", locks.collect::<String>());
    sql::run(&mut session, "say that this keeper lives", text).await?;
    Ok(session)
}

/// A database on a foreign server that nobody owns any more, or that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Name of the database.
    pub name: String,
    /// Until when it is kept; `None` for what may go.
    pub kept_until: Option<SystemTime>,
}

/// Looks at a foreign server: refuses one that will not do, and sweeps what the dead left there.
pub(crate) async fn look(url: &str) -> CoreResult<Capabilities> {
    let base = sql::parse_url("HARNESS_POSTGRES_URL", url)?.application_name("harness");
    let mut session = sql::connect(&base).await.map_err(|error| unusable(url, &error))?;
    let capabilities = Capabilities::ask(&mut session).await?;
    capabilities.check_version()?;
    check_right(&mut session, url).await?;
    sweep_with(&mut session).await?;
    let _ = session.close().await;
    Ok(capabilities)
}

/// Drops what this keeper made on a foreign server, except what is kept. Templates stay: the next guest may need them.
pub(crate) async fn move_out(url: &str, keeper: ProcessId) -> CoreResult {
    let mut session = sql::connect(&sql::parse_url("HARNESS_POSTGRES_URL", url)?).await?;
    let lease = lease(keeper);
    for (name, kept_until) in databases(&mut session).await? {
        let is_kept = kept_until.is_some_and(|until| until > SystemTime::now());
        if names::whose(&name) == Some(Whose::Lease(&lease)) && !is_kept {
            drop_one(&mut session, &name).await?;
        }
    }
    session.close().await.map_err(|error| sql::query_error("leave the foreign server", error))
}

/// The same URL with another database: user, host and parameters stay.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (front, query) = url.split_once('?').map_or((url, None), |(front, query)| (front, Some(query)));
    let start = front.find("://").map_or(0, |at| at + 3);
    let server = front[start..].find('/').map_or(front, |at| &front[..start + at]);
    match query {
        Some(query) => format!("{server}/{database}?{query}"),
        None => format!("{server}/{database}"),
    }
}

fn unusable(url: &str, error: &Error) -> Error {
    let text = format!("the Postgres of HARNESS_POSTGRES_URL cannot be used: `{}`", sql::masked(url));
    Error::new(ErrorKind::Environment, text)
        .tried(Attempt::from_error(Provider::Url, error).to_string())
        .remedy("start that server, correct the URL, or unset HARNESS_POSTGRES_URL to have one started")
}

async fn check_right(session: &mut PgConnection, url: &str) -> CoreResult {
    let text =
        "select current_user::text as name, rolcreatedb or rolsuper as may from pg_roles where rolname = current_user";
    let rows = sql::rows(session, "ask for the right to create databases", text).await?;
    let user = rows.first().and_then(|row| row.try_get::<String, _>("name").ok()).unwrap_or_default();
    if rows.first().and_then(|row| row.try_get::<bool, _>("may").ok()) == Some(true) {
        return Ok(());
    }
    let what = format!("user `{user}` may not create databases on `{}`", sql::masked(url));
    Err(Error::new(ErrorKind::Environment, what).remedy(format!("ALTER ROLE {} CREATEDB", ident(&user))))
}

/// The lease of a keeper on a foreign server: one keeper for ever, also across machines.
pub(crate) fn lease(keeper: ProcessId) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("g{:016x}", fnv(format!("{boot} {} {}", keeper.pid, keeper.start).as_bytes()))
}

/// Lists the databases of the harness on a foreign server that are left over or kept; drops nothing.
///
/// # Errors
/// When the server does not answer.
pub async fn leftovers(url: &str) -> CoreResult<Vec<Leftover>> {
    let base = sql::parse_url("the URL", url)?;
    crate::clerk::run(move || async move {
        let mut session = sql::connect(&base).await?;
        let mut found = Vec::new();
        for (name, kept_until) in databases(&mut session).await? {
            let lock = lock_of(&name);
            if kept_until.is_some() || take(&mut session, lock).await? {
                if kept_until.is_none() {
                    give_back(&mut session, lock).await?;
                }
                found.push(Leftover { name, kept_until });
            }
        }
        let _ = session.close().await;
        Ok(found)
    })
    .await
}

/// Drops the databases that dead processes left on a foreign server. Kept ones stay until their time is over.
///
/// # Errors
/// When the server does not answer.
pub async fn sweep(url: &str) -> CoreResult<Vec<String>> {
    let base = sql::parse_url("the URL", url)?;
    crate::clerk::run(move || async move {
        let mut session = sql::connect(&base).await?;
        let dropped = sweep_with(&mut session).await?;
        let _ = session.close().await;
        Ok(dropped)
    })
    .await
}

async fn sweep_with(session: &mut PgConnection) -> CoreResult<Vec<String>> {
    let mut dropped = Vec::new();
    for (name, kept_until) in databases(session).await? {
        if kept_until.is_some_and(|until| until > SystemTime::now()) {
            continue;
        }
        let lock = lock_of(&name);
        if take(session, lock).await? {
            // Two sweeps may meet: the other one has dropped it then.
            let gone = drop_one(session, &name).await;
            give_back(session, lock).await?;
            gone?;
            dropped.push(name);
        }
    }
    Ok(dropped)
}

fn lock_of(name: &str) -> i64 {
    match names::whose(name) {
        Some(Whose::Template(key)) => names::use_lock(key),
        Some(Whose::Lease(lease)) => names::lease_lock(lease),
        None => 0,
    }
}

async fn take(session: &mut PgConnection, lock: i64) -> CoreResult<bool> {
    let rows = sql::rows(session, "try a lock", format!("select pg_try_advisory_lock({lock})")).await?;
    Ok(rows.first().and_then(|row| row.try_get::<bool, _>(0).ok()).unwrap_or(false))
}

async fn give_back(session: &mut PgConnection, lock: i64) -> CoreResult {
    sql::run(session, "release a lock", format!("select pg_advisory_unlock({lock})")).await
}

/// All databases of the harness, with the moment until which each is kept.
pub(crate) async fn databases(session: &mut PgConnection) -> CoreResult<Vec<(String, Option<SystemTime>)>> {
    let text = "select datname::text as name, shobj_description(oid, 'pg_database') as note from pg_database \
                where starts_with(datname, 'h_') and pg_has_role(current_user, datdba, 'MEMBER') order by 1";
    let rows = sql::rows(session, "list the databases of the harness", text).await?;
    let read = rows.iter().filter_map(|row| {
        let name: String = row.try_get("name").ok()?;
        let note: Option<String> = row.try_get("note").ok()?;
        names::whose(&name)?;
        Some((name, names::kept_until(note.as_deref())))
    });
    Ok(read.collect())
}

/// Drops one database, sealed or not, with whoever is connected to it.
pub(crate) async fn drop_one(session: &mut PgConnection, name: &str) -> CoreResult {
    let unseal = format!("ALTER DATABASE {} WITH IS_TEMPLATE false", ident(name));
    match sql::run(session, "unseal a left database", unseal).await {
        Err(error) if sql::has_code(&error, "3D000") => return Ok(()), // somebody else dropped it
        other => other?,
    }
    let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name));
    sql::run(session, "drop a left database", text).await
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_changes() {
        let full = with_database("postgres://u:p@h:5432/shop?sslmode=require", "h_1");
        assert_eq!(full, "postgres://u:p@h:5432/h_1?sslmode=require");
        assert_eq!(with_database("postgres://h", "h_1"), "postgres://h/h_1");
        assert_eq!(with_database("postgres://h/", "h_1"), "postgres://h/h_1");
    }
}
