//! A database on a server of one test alone: for what belongs to a whole server.

use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;

use harness_core::CoreResult;
use harness_core::scope::TestScope;

use super::{Database, OwnOptions, OwnPostgres, Template, observe, server};
use crate::clerk;

/// The name of the database on a server that has no others.
const NAME: &str = "test";

/// A request for an [`Exclusive`]: await it, or set how first.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct ExclusiveRequest {
    template: Template,
    options: OwnOptions,
}

impl ExclusiveRequest {
    pub(super) fn new(template: Template) -> Self {
        Self { template, options: OwnOptions::new().fast() }
    }

    /// Changes how the server shall be, which begins as [`OwnOptions::fast`].
    pub fn options(mut self, change: impl FnOnce(OwnOptions) -> OwnOptions) -> Self {
        self.options = change(self.options);
        self
    }

    async fn serve(self) -> CoreResult<Exclusive> {
        let scope = TestScope::current(); // named after the test, which the background thread does not know
        let (template, options) = (self.template, self.options);
        let (scope, own) = clerk::run(move || async move {
            let own = start(&scope, template, options).await;
            Ok((scope, own)) // a scope that ends blocks its thread, which shall not be the one of the background
        })
        .await?;
        let own = own?;
        let url = own.url_of(NAME);
        let database = observe(&url).await?;
        Ok(Exclusive { database, url, own, scope })
    }
}

/// A server with one database as this template.
async fn start(scope: &TestScope, template: Template, options: OwnOptions) -> CoreResult<OwnPostgres> {
    let script = template.read()?;
    let options = if template.needs_vector() { options.vector() } else { options };
    let own = OwnPostgres::start(scope, options).await?;
    own.create_database(NAME).await?;
    server::fill_alone(&own.options().database(NAME), &own.url_of(NAME), &script).await?;
    Ok(own)
}

impl IntoFuture for ExclusiveRequest {
    type Output = CoreResult<Exclusive>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.serve())
    }
}

/// A database on a Postgres of this test alone. Everything of [`Database`] works on it; the server is gone when this value is.
///
/// ```no_run
/// # async fn example() -> harness_db::Result {
/// let db = harness_db::exclusive().await?;
/// sqlx::query("create role auditor").execute(db.pool()).await?; // nobody else sees it
/// sqlx::query("alter system set work_mem = '8MB'").execute(db.pool()).await?;
/// # Ok(()) }
/// # use harness_db::sqlx;
/// ```
///
/// What it costs: a whole server, started and stopped by each test that asks for one. Measured on a busy machine with two
/// cores: 1.5 to 2 s and 0.3 s to end it, by local binaries (from a cached `initdb`) as in a container; a database on the
/// shared server ([`postgres`](super::postgres)) 5 to 30 ms there, a [`TestTx`](super::TestTx) some 10 ms. Ask for it where
/// a test touches roles, `ALTER SYSTEM`, tablespaces or statistics of the whole server, and nowhere else.
///
/// It does not outlive a failed test: what the server logged stays as evidence, its databases do not.
#[must_use = "the server goes when this value is dropped"]
#[derive(Debug)]
pub struct Exclusive {
    // In this order: the pool goes before the server it is connected to.
    database: Database,
    url: String,
    own: OwnPostgres,
    scope: TestScope,
}

impl Exclusive {
    /// The URL of the database, with what the server demands.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server, which may be stopped, paused and started again; it is fast, so that a kill loses what it acknowledged.
    #[must_use]
    pub fn own(&self) -> &OwnPostgres {
        &self.own
    }

    /// Closes the pool and ends the server now, and says whether that worked. A drop does the same and says nothing.
    ///
    /// # Errors
    /// When the server does not end.
    pub async fn close(self) -> CoreResult {
        self.database.pool().close().await;
        self.own.pool().close().await;
        self.scope.shutdown().await
    }
}

impl Deref for Exclusive {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}
