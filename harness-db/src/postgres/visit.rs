//! Looking into a database that belongs to the system under test.

use sqlx::Connection as _;

use super::{Capabilities, Database, Server, Tenancy, sql};
use crate::provider::{Attempt, Choice, Provider};
use harness_core::CoreResult;

/// How who only looks calls itself in `application_name`, so that no sampler counts itself or another one.
pub(crate) const OWN_NAME: &str = "harness-sampler";

/// Looks into a database that exists already: every assertion of [`Database`] works on it, and it is never dropped.
///
/// # Errors
/// [`harness_core::ErrorKind::Config`] for a URL that is none, [`harness_core::ErrorKind::Connect`] when nobody answers.
pub async fn observe(url: impl AsRef<str>) -> CoreResult<Database> {
    let url = url.as_ref();
    let options = sql::parse_url("the URL of the observed database", url)?.application_name("harness");
    // A session that was closed lives on in the server for some milliseconds: no sampler shall count this one.
    let mut session = sql::connect(&options.clone().application_name(OWN_NAME)).await?;
    let capabilities = Capabilities::ask(&mut session).await?;
    let name =
        sql::rows(&mut session, "ask for the database's name", "select current_database()::text as name".to_owned())
            .await?
            .first()
            .and_then(|row| sqlx::Row::try_get::<String, _>(row, "name").ok())
            .unwrap_or_default();
    let _ = session.close().await;
    let what = format!("PostgreSQL {} at {}", capabilities.version, sql::place(&options));
    let attempts = vec![Attempt::worked(Provider::Url, what.clone())];
    let choice = Choice { service: "postgres".into(), provider: Provider::Url, what, attempts };
    Ok(Database::observed(Server::new(options, capabilities, choice, Tenancy::Observed), name))
}
