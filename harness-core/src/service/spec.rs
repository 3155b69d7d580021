//! What to start, and how to know that it is ready.

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{ContainerSpec, Exec, Service};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::scope::TestScope;
use crate::wait::Progress;

/// What runs a service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Backend {
    /// A program on this machine. `{port}` in its arguments and variables becomes its port.
    Process(Exec),
    /// A container on this machine's engine (feature `containers`).
    Container(ContainerSpec),
    /// A server that runs already: a URL, or `host:port`. It can be used but not stopped, killed or paused.
    External(String),
}

/// Where a service can be asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Endpoint {
    /// The service's name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process, where it is one of ours.
    pub pid: Option<u32>,
}

type Asking = Pin<Box<dyn Future<Output = Progress<()>> + Send>>;
pub(super) type Ready = Arc<dyn Fn(Endpoint) -> Asking + Send + Sync>;

/// A service to start.
///
/// ```no_run
/// # use std::time::Duration;
/// # use harness_core::scope::TestScope;
/// # use harness_core::service::{Backend, Exec, ServiceSpec};
/// # use harness_core::wait::Progress;
/// # async fn ask(_: std::net::SocketAddr) -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example() -> harness_core::CoreResult {
/// let scope = TestScope::current();
/// let orders = ServiceSpec::new("orders", Backend::Process(Exec::new("target/debug/orders").args(["--port", "{port}"])))
///     .ready(async |at| Progress::from(ask(at.address).await)) // its own protocol, not merely an open port
///     .limit(Duration::from_secs(10))
///     .start(&scope)
///     .await?;
/// orders.kill().await?;
/// orders.start_again().await?; // the same address
/// scope.shutdown().await
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing runs before `start`"]
pub struct ServiceSpec {
    pub(super) name: String,
    pub(super) backend: Backend,
    pub(super) ready: Ready,
    pub(super) limit: Duration,
    pub(super) grace: Duration,
}

impl ServiceSpec {
    /// A service with a name for messages and files. Ready when it accepts a connection, within 30 s; stopped with 10 s
    /// of grace.
    pub fn new(name: impl Into<String>, backend: Backend) -> Self {
        let spec = Self {
            name: name.into(),
            backend,
            ready: Arc::new(|_| Box::pin(std::future::pending())),
            limit: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        };
        spec.ready(async |at| tokio::net::TcpStream::connect(at.address).await.map(drop).into())
    }

    /// Asks this until it is ready. Ask in the service's own protocol: an engine's proxy accepts connections before the
    /// server inside listens.
    pub fn ready<F, Fut>(mut self, ask: F) -> Self
    where
        F: Fn(Endpoint) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Progress<()>> + Send + 'static,
    {
        self.ready = Arc::new(move |at| Box::pin(ask(at)));
        self
    }

    /// How long it may take to get ready.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How long it may take to stop before it is killed.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts it in a scope, whose end stops it, and waits until it is ready.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when it cannot be started here; [`ErrorKind::Exited`] as soon as it ends by itself;
    /// [`ErrorKind::Timeout`] when it does not get ready. The last two carry the last status, the last log lines and the
    /// log's path.
    pub async fn start(self, scope: &TestScope) -> CoreResult<Service> {
        Service::start(self, scope).await
    }
}

impl fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ServiceSpec");
        out.field("name", &self.name)
            .field("backend", &self.backend)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The address in `host:port` or in a URL that states its port.
pub(super) fn address_of(url: &str) -> CoreResult<SocketAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let unusable = || {
        // Never the whole URL: it may hold a password.
        Error::new(ErrorKind::Config, format!("`{host}` is not the address of a server"))
            .remedy("state host and port, such as 127.0.0.1:5432")
    };
    let mut found = host.to_socket_addrs().map_err(|error| unusable().caused_by(error))?;
    found.next().ok_or_else(unusable)
}

#[cfg(test)]
mod tests {
    use super::address_of;

    #[test]
    fn reads_addresses_and_never_repeats_a_password() {
        for url in ["127.0.0.1:5432", "postgres://u:p@127.0.0.1:5432/db?x=1", "http://127.0.0.1:5432#x"] {
            assert_eq!(address_of(url).unwrap().to_string(), "127.0.0.1:5432", "{url}");
        }
        let error = address_of("redis://u:secret@127.0.0.1/0").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
