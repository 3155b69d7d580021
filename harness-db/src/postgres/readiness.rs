//! When a Postgres that was just started counts as ready: it answered twice, over the very address that tests will use,
//! and was the same server both times.
//!
//! Both matter: a container's proxy accepts connections before the server listens, and the official image starts a
//! temporary server first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Row as _};

use super::{Capabilities, names, sql};

/// How long one connection attempt to a server that is starting may take.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// Connects twice and compares; the facts are the server's capabilities and the settings that were asked for.
pub(crate) async fn probe(address: SocketAddr) -> CoreResult<BTreeMap<String, String>> {
    let options = sql::own_options(address);
    answers_twice(&options).await?;
    let mut session = sql::connect_within(&options, TRY_LIMIT).await?;
    let capabilities = Capabilities::ask(&mut session).await?;
    let _ = session.close().await;
    Ok(capabilities.into_facts())
}

/// Makes the roles of the house: the plain owner of the databases of tests, and a superuser that fills templates where the
/// owner may not. The owner sees the statistics of the whole server, as an application's monitoring does, and may set for
/// its own session what tests set: how soon a deadlock is looked for, whether triggers fire, what is logged.
pub(crate) async fn furnish(address: SocketAddr) -> CoreResult {
    let mut session = sql::connect(&sql::own_options(address)).await?;
    let text = format!(
        "CREATE ROLE {owner} LOGIN; GRANT pg_monitor TO {owner}; CREATE ROLE {builder} LOGIN SUPERUSER; \
         GRANT SET ON PARAMETER deadlock_timeout, session_replication_role, log_statement, \
         log_min_duration_statement, log_min_messages, lc_messages TO {owner}",
        owner = names::OWNER,
        builder = names::BUILDER
    );
    sql::run(&mut session, "create the roles of the house", text).await?;
    if Capabilities::ask(&mut session).await?.pg_stat_statements {
        // It counts the statements of all databases, and is read and reset from this one.
        let text = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
        sql::run(&mut session, "create the extension that counts statements", text).await?;
    }
    sql::close(session).await
}

/// An error unless the same server answers two times in a row.
pub(crate) async fn answers_twice(options: &PgConnectOptions) -> CoreResult {
    let (first, second) = (started_at(options).await?, started_at(options).await?);
    match first == second {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Connect, "the server restarted between two answers")),
    }
}

/// `SELECT 1`, and when the server that answered it was started.
pub(crate) async fn started_at(options: &PgConnectOptions) -> CoreResult<String> {
    let mut session = sql::connect_within(options, TRY_LIMIT).await?;
    let rows = sql::rows(&mut session, "get an answer", "select 1, pg_postmaster_start_time()::text as since").await?;
    let _ = session.close().await;
    rows.first()
        .and_then(|row| row.try_get("since").ok())
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "the server did not say since when it runs"))
}

/// Refuses a server that is too old, lacks pgvector though it is needed, or ignored its settings.
pub(crate) fn accept(facts: &BTreeMap<String, String>, vector: bool, settings: &[(&str, &str)]) -> CoreResult {
    let capabilities = Capabilities::from_facts(facts)?;
    capabilities.check_version()?;
    if vector {
        capabilities.check_vector()?;
    }
    for (name, found) in
        [("fsync", on_off(capabilities.fsync)), ("max_connections", capabilities.max_connections.to_string())]
    {
        if let Some((_, wanted)) = settings.iter().find(|(known, _)| *known == name)
            && *wanted != found
        {
            return Err(ignored(name, wanted, &found));
        }
    }
    Ok(())
}

/// The error for a setting that the server does not show.
pub(crate) fn ignored(name: &str, wanted: &str, found: &str) -> Error {
    Error::new(
        ErrorKind::Environment,
        format!("the server ignored a setting: {name} is {found}, {wanted} was asked for"),
    )
    .remedy("look for a postgresql.auto.conf or an image that overrides command-line settings")
}

fn on_off(value: bool) -> String {
    if value { "on" } else { "off" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, accept};

    #[test]
    fn ignored_settings_and_missing_vector_are_refused() {
        let good = Capabilities {
            version_num: 150_001,
            max_connections: 300,
            vector: Some("0.8".into()),
            ..Capabilities::default()
        };
        let settings = [("fsync", "off"), ("max_connections", "300")];
        let check = |capabilities: Capabilities| accept(&capabilities.into_facts(), true, &settings);
        assert!(check(good.clone()).is_ok());
        let text = check(Capabilities { fsync: true, ..good.clone() }).unwrap_err().to_string();
        assert!(text.contains("fsync is on, off was asked for"), "{text}");
        let text = check(Capabilities { max_connections: 100, ..good.clone() }).unwrap_err().to_string();
        assert!(text.contains("max_connections is 100"), "{text}");
        let text = check(Capabilities { vector: None, ..good.clone() }).unwrap_err().to_string();
        assert!(text.contains("pgvector"), "{text}");
        assert!(check(Capabilities { version_num: 140_009, ..good }).is_err());
    }
}
