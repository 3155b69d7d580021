//! One test's database: handed out clean, dropped afterwards, kept when the test failed.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness_core::env::Settings;
use harness_core::keeper::KeptThing;
use harness_core::run::test_name;
use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, ErrorKind, scope};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool};

use super::clones::{Claim, claim};
use super::template::Script;
use super::{Server, Template, Tenancy, servers, sql};
use crate::clerk;

/// Connections of [`Database::pool`], unless asked otherwise.
const CONNECTIONS: u32 = 5;
/// How long after its first try a request looks for another server in place of one that has gone.
const RECOVERS: Duration = Duration::from_secs(10);
/// How long a test waits for its connections and its database, unless asked otherwise.
const LIMIT: Duration = Duration::from_secs(180);

/// A database of its own for one test, on a server shared with all others.
///
/// Dropping the value gives the database back: the keeper of the server drops it in the background, or hands it to another
/// test when the server's own counters prove that nothing in it was changed. When the test failed (it panics, or an error
/// passed through [`harness_core::Result`]) the database is kept for `HARNESS_KEEP` and its URL printed.
///
/// On a server of the house the test connects as a plain role that owns the database and everything in it, as an
/// application does in production: it may create what it likes inside, and touch nothing of the server.
/// [`Template::superuser`] asks for more.
#[must_use = "the database goes when this value is dropped"]
#[derive(Debug)]
pub struct Database {
    name: String,
    options: PgConnectOptions,
    pool: PgPool,
    server: Arc<Server>,
    claim: Option<Claim>,
}

/// A request for a [`Database`]: await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct Request {
    template: Template,
    url: Option<String>,
    connections: u32,
    limit: Duration,
}

impl Request {
    pub(crate) fn new(template: Template) -> Self {
        Self { template, url: None, connections: CONNECTIONS, limit: LIMIT }
    }

    /// On the server with this URL, whatever the environment says.
    pub fn on(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// With up to this many connections; 5 unless asked. All tests of all processes share the connections of the server:
    /// each waits for its turn, gets all of its connections at once, and the server holds it to them.
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most;
        self
    }

    /// Waits at most this long for connections and a database; 180 s unless asked.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn serve(self) -> CoreResult<Database> {
        let script = self.template.script()?;
        let begun = Instant::now();
        loop {
            let (server, opened) = self.once(&script).await?;
            match opened {
                // Its keeper was killed, or the server: there is another one as soon as the dead are gone.
                Err(error) if error.kind() == ErrorKind::Connect && begun.elapsed() < RECOVERS.min(self.limit) => {
                    servers::forget(&server);
                    pause(Duration::from_millis(50)).await;
                }
                opened => return opened,
            }
        }
    }

    /// One try, and the server it was tried on.
    async fn once(&self, script: &Arc<Script>) -> CoreResult<(Arc<Server>, CoreResult<Database>)> {
        let (url, vector, connections, limit) =
            (self.url.clone(), self.template.needs_vector(), self.connections, self.limit);
        let (script, test) = (Arc::clone(script), test_name());
        let claimed = clerk::run(move || async move {
            let server = servers::server(url, vector).await?;
            let claimed = server.claim(&script, connections, test, limit).await;
            Ok((server, claimed))
        });
        let (server, claimed) = claimed.await?;
        let opened = match claimed {
            Ok((name, claim)) => {
                let superuser = self.template.is_superuser();
                Database::open(Arc::clone(&server), name, claim, connections, superuser).await
            }
            Err(error) => Err(error),
        };
        Ok((server, opened))
    }
}

impl IntoFuture for Request {
    type Output = CoreResult<Database>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.serve())
    }
}

impl Database {
    async fn open(
        server: Arc<Server>,
        name: String,
        claim: Claim,
        connections: u32,
        superuser: bool,
    ) -> CoreResult<Self> {
        let who: String = format!("harness:{}", test_name()).chars().take(60).collect();
        let options = server.test_options(superuser).database(&name).application_name(&who).disable_statement_logging();
        // The first connection is made here, so that a refused one is reported here and not by the test's first query.
        let connecting = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_with(options.clone());
        // A server that is being restarted refuses for a while, so the pool tries again; one that has gone never answers.
        let pool = tokio::select! {
            pool = connecting => pool.map_err(|error| sql::query_error("connect to the test's database", error))?,
            () = server.gone() => return Err(claim::gone()),
        };
        Ok(Self { name, options, pool, server, claim: Some(claim) })
    }

    /// A database of the system under test: looked into, never dropped.
    pub(super) fn observed(server: Server, name: String) -> Self {
        let options = server.options().clone().disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options.clone());
        Self { name, options, pool, server: Arc::new(server), claim: None }
    }

    /// The pool of this test. It belongs to the runtime of this test.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The URL, for drivers of other kinds and for the system under test.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url_of(&self.options, &self.name)
    }

    /// The name of the database.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Options to connect by, for pools of other sizes.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// The server it lives on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// One more connection, outside the pool.
    ///
    /// # Errors
    /// When the server refuses it or says nothing for 5 s.
    pub async fn connect(&self) -> CoreResult<PgConnection> {
        sql::connect(&self.options).await
    }

    /// Options to connect by as another role of this server: one that [`Template::role`] asked for.
    #[must_use]
    pub fn options_as(&self, role: &str) -> PgConnectOptions {
        self.options.clone().username(role)
    }

    /// The URL for another role of this server.
    #[must_use]
    pub fn url_as(&self, role: &str) -> String {
        self.server.url_of(&self.options_as(role), &self.name)
    }

    /// A connection as another role of this server, outside the pool.
    ///
    /// # Errors
    /// When the server does not know the role or refuses it.
    pub async fn connect_as(&self, role: &str) -> CoreResult<PgConnection> {
        sql::connect(&self.options_as(role)).await
    }

    /// Closes the pool and drops the database now, and says whether that worked.
    ///
    /// # Errors
    /// When the server does not drop it.
    pub async fn close(mut self) -> CoreResult {
        let claim = self.claim.take();
        self.pool.close().await;
        match claim {
            Some(claim) => clerk::run(move || claim.drop_now()).await,
            None => Ok(()),
        }
    }

    fn keep(&self, keep: Duration, claim: Claim) {
        let (Tenancy::Ours(attached) | Tenancy::Guest { attached, .. }) = self.server.tenancy() else { return };
        let url = self.url();
        let noted = attached.keep(&KeptThing::new(crate::custodian::DATABASE, &*self.name, &*url));
        match noted.and_then(|()| claim.keep()) {
            Ok(()) => eprintln!(
                "harness: `{}` failed, its database is kept for {}\n  url   {url}\n  psql  psql '{url}'",
                test_name(),
                seconds(keep)
            ),
            Err(error) => {
                eprintln!("harness: the database {} of the failed test could not be kept: {error:?}", self.name);
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let keep = Settings::get().keep;
        match scope::test_failed() && !keep.is_zero() {
            true => self.keep(keep, claim),
            // The end of the claim gives the database back.
            false => drop(claim),
        }
    }
}
