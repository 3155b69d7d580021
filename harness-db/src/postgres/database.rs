//! One test's database: handed out clean, dropped afterwards, kept when the test failed.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use harness_core::env::Settings;
use harness_core::keeper::KeptThing;
use harness_core::run::test_name;
use harness_core::wait::seconds;
use harness_core::{CoreResult, scope};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool};

use super::{Server, Template, Tenancy, guest, servers, sql};
use crate::clerk;

/// Connections of [`Database::pool`], unless asked otherwise.
const CONNECTIONS: u32 = 5;
/// How long a failed test may be held up to mark its database as kept.
const KEEP_LIMIT: Duration = Duration::from_secs(5);

/// A database of its own for one test, on a server shared with all others.
///
/// Dropping the value recycles the database in the background; when the test failed (it panics, or an error passed through
/// [`harness_core::Result`]) the database is kept for `HARNESS_KEEP` and its URL printed.
#[must_use = "the database goes when this value is dropped"]
#[derive(Debug)]
pub struct Database {
    name: String,
    options: PgConnectOptions,
    pool: PgPool,
    server: Arc<Server>,
    gone: bool,
}

/// A request for a [`Database`]: await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct Request {
    template: Template,
    url: Option<String>,
    connections: u32,
}

impl Request {
    pub(crate) fn new(template: Template) -> Self {
        Self { template, url: None, connections: CONNECTIONS }
    }

    /// On the server with this URL, whatever the environment says.
    pub fn on(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// With a pool of up to this many connections; 5 unless asked.
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most;
        self
    }

    async fn serve(self) -> CoreResult<Database> {
        let script = self.template.read()?;
        let (url, vector) = (self.url, self.template.needs_vector());
        let (server, name) = clerk::run(move || async move {
            let server = servers::server(url, vector).await?;
            let name = server.database(script).await?;
            Ok((server, name))
        })
        .await?;
        Database::open(server, name, self.connections).await
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
    async fn open(server: Arc<Server>, name: String, connections: u32) -> CoreResult<Self> {
        let who: String = format!("harness:{}", test_name()).chars().take(60).collect();
        let options = server.options().clone().database(&name).application_name(&who).disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let database = Self { name, options, pool, server, gone: false };
        // The first connection is made here, so that a refused one is reported here and not by the test's first query.
        let first = database.pool.acquire().await;
        drop(first.map_err(|error| sql::query_error("connect to the test's database", error))?);
        Ok(database)
    }

    /// A database of the system under test: looked into, never dropped.
    pub(super) fn observed(server: Server, name: String) -> Self {
        let options = server.options().clone().disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options.clone());
        Self { name, options, pool, server: Arc::new(server), gone: true }
    }

    /// The pool of this test. It belongs to the runtime of this test.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The URL, for drivers of other kinds and for the system under test.
    #[must_use]
    pub fn url(&self) -> String {
        match self.server.tenancy() {
            // Somebody else's URL may ask for TLS and the like: everything but the database stays.
            Tenancy::Guest(presence) => presence.url_of(&self.name),
            Tenancy::Ours(attached) => format!("postgres://postgres@{}/{}", attached.address, self.name),
            Tenancy::Observed => self.options.to_url_lossy().to_string(),
        }
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

    /// Closes the pool and drops the database now, and says whether that worked.
    ///
    /// # Errors
    /// When the server does not drop it.
    pub async fn close(mut self) -> CoreResult {
        self.gone = true;
        self.pool.close().await;
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        clerk::run(move || async move { server.drop_database(&name).await }).await
    }

    fn keep(&self, keep: Duration) {
        let url = self.url();
        let kept = match self.server.tenancy() {
            Tenancy::Ours(attached) => attached.keep(&KeptThing::new(crate::custodian::DATABASE, &*self.name, &*url)),
            Tenancy::Observed => return,
            Tenancy::Guest(_) => {
                let until = SystemTime::now() + keep;
                let (server, name) = (Arc::clone(&self.server), self.name.clone());
                let mark = move || async move { server.mark_kept(&name, until).await };
                clerk::run_blocking("marking the database", KEEP_LIMIT, mark)
            }
        };
        match kept {
            Ok(()) => eprintln!(
                "harness: `{}` failed, its database is kept for {}\n  url   {url}\n  psql  psql '{url}'",
                test_name(),
                seconds(keep)
            ),
            Err(error) => {
                eprintln!("harness: the database {} of the failed test could not be kept: {error:?}", self.name)
            }
        }
    }

    fn recycle(&self) {
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        if self.server.is_guest() {
            // Nobody else drops it after this process: a foreign server has no keeper.
            let dropped = clerk::run_blocking("dropping the database", guest::DROP_LIMIT, move || async move {
                server.drop_database(&name).await
            });
            if let Err(error) = dropped {
                eprintln!(
                    "harness: the database {} stays on the server until the next run sweeps it: {error}",
                    self.name
                );
            }
            return;
        }
        clerk::spawn(move || async move {
            // What fails here is dropped by the keeper when this process has gone.
            let _ = server.drop_database(&name).await;
        });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        let keep = Settings::get().keep;
        match scope::test_failed() && !keep.is_zero() {
            true => self.keep(keep),
            false => self.recycle(),
        }
    }
}
