//! One test's logical database: leased, emptied, and emptied again afterwards; kept when the test failed.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness_core::env::Settings;
use harness_core::keeper::KeptThing;
use harness_core::run::test_name;
use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Error, ErrorKind, scope};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo};

use super::server::{self, Hold, Server, Tenancy, note_kept, now_s};
use super::wire;
use crate::clerk;

/// How long the end of a test may wait for its keyspace on a foreign server.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How long after its first try a request looks for another server in place of one that has gone.
const RECOVERS: Duration = Duration::from_secs(10);

/// A logical database of its own for one test, on a server shared with all others.
///
/// `FLUSHDB`, keys, TTLs and `SELECT`ed commands are its own. What crosses logical databases is not: `FLUSHALL`, scripts,
/// `CONFIG SET`, Pub/Sub channels, `CLIENT KILL`; for these start an [`OwnRedis`](super::OwnRedis).
#[must_use = "the keyspace goes when this value is dropped"]
#[derive(Debug)]
pub struct Keyspace {
    index: i64,
    pub(super) info: ConnectionInfo,
    server: Arc<Server>,
    hold: Option<Hold>,
}

/// A request for a [`Keyspace`]: await it.
#[must_use = "a request does nothing until it is awaited"]
#[derive(Debug)]
pub struct Request {
    url: Option<String>,
}

impl Request {
    pub(crate) fn new() -> Self {
        Self { url: None }
    }

    /// On the server with this URL, whatever the environment says.
    pub fn on(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    async fn serve(self) -> CoreResult<Keyspace> {
        let url = self.url;
        let (server, index, hold) = clerk::run(move || async move {
            let begun = Instant::now();
            loop {
                let server = server::server(url.clone()).await?;
                match server.lease().await {
                    // The server was killed, or its keeper: there is another one as soon as the dead are gone.
                    Err(error) if error.kind() == ErrorKind::Connect && begun.elapsed() < RECOVERS => {
                        server::forget(&server);
                        pause(Duration::from_millis(50)).await;
                    }
                    leased => return leased.map(|(index, hold)| (server, index, hold)),
                }
            }
        })
        .await?;
        let info = wire::at_index(&server.info, index);
        Ok(Keyspace { index, info, server, hold: Some(hold) })
    }
}

impl IntoFuture for Request {
    type Output = CoreResult<Keyspace>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.serve())
    }
}

impl Keyspace {
    /// The index of the logical database; never 0.
    #[must_use]
    pub fn index(&self) -> i64 {
        self.index
    }

    /// The URL, for drivers of other kinds and for the system under test.
    #[must_use]
    pub fn url(&self) -> String {
        let settings = self.info.redis_settings();
        let login = match (settings.username(), settings.password()) {
            (None, None) => String::new(),
            (user, password) => format!("{}:{}@", user.unwrap_or_default(), password.unwrap_or_default()),
        };
        let scheme = if matches!(self.info.addr(), ConnectionAddr::TcpTls { .. }) { "rediss" } else { "redis" };
        format!("{scheme}://{login}{}/{}", self.info.addr(), self.index)
    }

    /// The server it lives on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A new connection to this keyspace. It belongs to the runtime of this test.
    ///
    /// # Errors
    /// When the server refuses it or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&self.info).await
    }

    /// Empties this keyspace, and no other.
    ///
    /// # Errors
    /// When the server does not do it.
    pub async fn flush(&mut self) -> CoreResult {
        match &mut self.hold {
            Some(Hold::Marker(marker)) => marker.flush().await,
            _ => wire::ask(&mut wire::connect(&self.info).await?, &["FLUSHDB"]).await,
        }
    }

    /// Empties the keyspace and gives it back now, and says whether that worked.
    ///
    /// # Errors
    /// When the server does not empty it.
    pub async fn close(mut self) -> CoreResult {
        let (server, index) = (Arc::clone(&self.server), self.index);
        match self.hold.take() {
            Some(hold) => clerk::run(move || give_back(hold, server, index)).await,
            None => Ok(()),
        }
    }

    fn keep(&self, hold: Hold, keep: Duration) -> CoreResult {
        let url = self.url();
        match (hold, &self.server.tenancy) {
            (Hold::Lock(mut lock), Tenancy::Ours(attached)) => {
                note_kept(&mut lock, keep)?;
                attached.keep(&KeptThing::new("keyspace", self.index.to_string(), &*url))?;
            }
            (Hold::Marker(mut marker), _) => {
                let until = now_s() + keep.as_secs();
                let mark = move || async move { marker.keep(until).await };
                clerk::run_blocking("marking the keyspace as kept", END_LIMIT, mark)?;
            }
            (Hold::Lock(_), Tenancy::Guest { .. }) => {
                return Err(Error::new(ErrorKind::Refused, "a foreign server has no lock files"));
            }
        }
        eprintln!(
            "harness: `{}` failed, its keyspace is kept for {}\n  url   {url}\n  look  redis-cli -u {url}",
            test_name(),
            seconds(keep)
        );
        Ok(())
    }
}

/// Empties the database first: whoever gets the lease next finds nothing.
async fn give_back(mut hold: Hold, server: Arc<Server>, index: i64) -> CoreResult {
    match &mut hold {
        Hold::Marker(marker) => marker.clear().await,
        Hold::Lock(_) => server.empty(index).await,
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let keep = Settings::get().keep;
        if scope::test_failed() && !keep.is_zero() {
            if let Err(error) = self.keep(hold, keep) {
                eprintln!("harness: keyspace {} of the failed test could not be kept: {error:?}", self.index);
            }
            return;
        }
        let (server, index) = (Arc::clone(&self.server), self.index);
        match hold {
            // Nobody else clears a foreign server after this process.
            Hold::Marker(_) => {
                let cleared =
                    clerk::run_blocking("emptying the keyspace", END_LIMIT, move || give_back(hold, server, index));
                if let Err(error) = cleared {
                    eprintln!("harness: keyspace {} stays as it is until it is leased again: {error}", self.index);
                }
            }
            Hold::Lock(_) => clerk::spawn(move || async move {
                // What fails here is emptied by whoever leases it next.
                let _ = give_back(hold, server, index).await;
            }),
        }
    }
}
