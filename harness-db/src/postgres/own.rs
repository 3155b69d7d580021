//! A durable Postgres for one test alone, which may be stopped, killed and started again.

use std::net::SocketAddr;
use std::pin::Pin;

use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::wait::Progress;
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::{Capabilities, readiness, sql};
use crate::provider::recipe::postgres::{DURABLE, recipe};
use crate::provider::{Choice, Provider, own};

/// How an [`OwnPostgres`] shall be.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct OwnOptions {
    vector: bool,
    settings: Vec<(String, String)>,
    providers: Option<Vec<Provider>>,
}

impl OwnOptions {
    /// Durable, by the first provider that works.
    pub fn new() -> Self {
        Self::default()
    }

    /// Needs pgvector: providers without it are passed over.
    pub fn vector(mut self) -> Self {
        self.vector = true;
        self
    }

    /// Adds a server setting, for example `("wal_level", "logical")`. Read back after every start, and the server refused
    /// when it ignored it.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Asks these providers, in this order, instead of those of `HARNESS_PROVIDERS`.
    pub fn providers(mut self, providers: impl IntoIterator<Item = Provider>) -> Self {
        self.providers = Some(providers.into_iter().collect());
        self
    }

    /// The durable settings, then those added; the last one of a name wins.
    fn all_settings(&self) -> Vec<(String, String)> {
        let durable = DURABLE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut all: Vec<(String, String)> =
            durable.filter(|(name, _)| !self.settings.iter().any(|(own, _)| own == name)).collect();
        all.extend(self.settings.iter().cloned());
        all
    }
}

/// A Postgres of one test alone: durable, at an address that survives stop and start, with its data kept meanwhile.
///
/// Its scope ends it. Each verb proves its effect: a stopped or killed server refuses connections, a started one answers a
/// query twice and shows its settings.
#[derive(Debug)]
pub struct OwnPostgres {
    service: Service,
    capabilities: Capabilities,
    settings: Vec<(String, String)>,
    choice: Choice,
}

impl OwnPostgres {
    /// Starts one.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] listing every provider that was asked, or naming the setting that was ignored.
    pub async fn start(scope: &TestScope, options: OwnOptions) -> CoreResult<Self> {
        let (settings, vector) = (options.all_settings(), options.vector);
        let for_recipe = settings.clone();
        let plan = move |provider| {
            let settings: Vec<(&str, &str)> = for_recipe.iter().map(|(name, value)| (&**name, &**value)).collect();
            recipe(provider, &settings, vector)
        };
        let (service, choice) = own::start("postgres", scope, options.providers, plan, ready).await?;
        let mut session = sql::connect(&sql::own_options(service.address())).await?;
        let capabilities = Capabilities::ask(&mut session).await?;
        capabilities.check_version()?;
        if vector {
            capabilities.check_vector()?;
        }
        read_back(&mut session, &settings).await?;
        let _ = session.close().await;
        Ok(Self { service, capabilities, settings, choice })
    }

    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Its maintenance database as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = self.options().application_name("").to_url_lossy();
        url.set_query(None);
        url.to_string()
    }

    /// A database on it as a URL, whether it exists or not.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let mut url = self.options().database(database).application_name("").to_url_lossy();
        url.set_query(None);
        url.to_string()
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// When the server does not answer, or has a database of this name.
    pub async fn create_database(&self, name: &str) -> CoreResult<String> {
        let mut session = self.connect().await?;
        sql::run(&mut session, "create a database", format!("create database {}", sql::ident(name))).await?;
        let _ = session.close().await;
        Ok(self.url_of(name))
    }

    /// Options to connect by.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        sql::own_options(self.address())
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Which provider gave it, and what was tried before.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The service, for logs, pids and experiments.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A connection to its maintenance database.
    ///
    /// # Errors
    /// When it refuses the connection or says nothing for 5 s.
    pub async fn connect(&self) -> CoreResult<PgConnection> {
        sql::connect(&self.options()).await
    }

    /// Stops it in good order (fast shutdown). Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn stop(&self) -> CoreResult {
        self.service.stop().await.map(drop)
    }

    /// Kills it and all its sessions without a goodbye. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn kill(&self) -> CoreResult {
        self.service.kill().await.map(drop)
    }

    /// Starts it again with the data it had, at the same address. Proven by two answers and by its settings.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs; [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        self.service.start_again().await?;
        self.check_settings().await
    }

    /// Holds while the server shows every setting that was asked for. Checked after each start.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] naming the setting, what it is and what was asked for.
    pub async fn check_settings(&self) -> CoreResult {
        let mut session = self.connect().await?;
        read_back(&mut session, &self.settings).await?;
        session.close().await.map_err(|error| sql::query_error("leave the server", error))
    }

    /// Freezes it: it keeps its connections and answers nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn pause(&self) -> CoreResult {
        self.service.pause().await
    }

    /// Ends [`OwnPostgres::pause`]. Proven by an answered query.
    ///
    /// # Errors
    /// When it does not answer afterwards.
    pub async fn resume(&self) -> CoreResult {
        self.service.resume().await?;
        readiness::started_at(&self.options()).await.map(drop)
    }
}

fn ready(at: SocketAddr) -> Pin<Box<dyn Future<Output = Progress<()>> + Send>> {
    Box::pin(async move { readiness::answers_twice(&sql::own_options(at)).await.into() })
}

/// Compares what the server shows with what was asked for.
async fn read_back(session: &mut PgConnection, settings: &[(String, String)]) -> CoreResult {
    for (name, wanted) in settings {
        let text = format!("select current_setting({}, true)", sql::literal(name));
        let rows = sql::rows(session, "read a setting back", text).await?;
        let found = rows.first().and_then(|row| row.try_get::<Option<String>, _>(0).ok()).flatten();
        let found = found.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("this server knows no setting `{name}`")).remedy("correct its name")
        })?;
        if !same(wanted, &found) {
            return Err(readiness::ignored(name, wanted, &found));
        }
    }
    Ok(())
}

/// True when two values mean the same: `on` is `true`, and `4GB` is `4096MB`.
fn same(wanted: &str, found: &str) -> bool {
    match (amount(wanted), amount(found)) {
        (Some(a), Some(b)) => a == b,
        _ => word(wanted) == word(found),
    }
}

fn word(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => "on".to_owned(),
        "false" | "no" | "0" => "off".to_owned(),
        other => other.to_owned(),
    }
}

/// A number with a unit of memory (in bytes) or of time (in microseconds).
fn amount(text: &str) -> Option<(u8, u128)> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let (kind, factor) = match unit.trim() {
        "B" => (0, 1),
        "kB" => (0, 1 << 10),
        "MB" => (0, 1 << 20),
        "GB" => (0, 1 << 30),
        "TB" => (0, 1 << 40),
        "us" => (1, 1),
        "ms" => (1, 1_000),
        "s" => (1, 1_000_000),
        "min" => (1, 60_000_000),
        "h" => (1, 3_600_000_000),
        "d" => (1, 86_400_000_000),
        _ => return None,
    };
    Some((kind, number.parse::<u128>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::{OwnOptions, same};

    #[test]
    fn values_are_compared_by_meaning() {
        for (a, b) in
            [("on", "on"), ("true", "on"), ("4GB", "4096MB"), ("1h", "60min"), ("logical", "LOGICAL"), ("300", "300")]
        {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [("on", "off"), ("4GB", "4MB"), ("300", "100"), ("1h", "1min"), ("1s", "1kB")] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn an_own_setting_replaces_the_durable_one() {
        let all = OwnOptions::new().setting("synchronous_commit", "remote_apply").all_settings();
        let of =
            |name: &str| all.iter().filter(|(known, _)| known == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(of("synchronous_commit"), ["remote_apply"]);
        assert_eq!(of("fsync"), ["on"]);
    }
}
