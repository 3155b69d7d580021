//! Where a proxy connects to, asked anew for each connection.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::error::CoreResult;
use crate::wait::within;

/// Connecting to the upstream may take this long; a client hears a reset afterwards.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

type Resolving = Pin<Box<dyn Future<Output = io::Result<SocketAddr>> + Send>>;

/// A server behind a proxy. Its address is asked for again for every connection, so that a server that comes back elsewhere is
/// found.
#[derive(Clone)]
pub struct Upstream {
    name: String,
    resolve: Arc<dyn Fn() -> Resolving + Send + Sync>,
}

impl Upstream {
    /// An upstream whose address this knows. Called for each connection, on the proxy's thread: it must not block.
    pub fn of(name: impl Into<String>, address: impl Fn() -> CoreResult<SocketAddr> + Send + Sync + 'static) -> Self {
        let resolve = move || -> Resolving { Box::pin(std::future::ready(address().map_err(io::Error::other))) };
        Self { name: name.into(), resolve: Arc::new(resolve) }
    }

    /// A name for messages: the address, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let connecting = async {
            let stream = TcpStream::connect((self.resolve)().await?).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let connected = within(format!("connecting to {}", self.name), CONNECT_LIMIT, connecting).await;
        connected.map_err(io::Error::other)?
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self::of(address.to_string(), move || Ok(address))
    }
}

impl From<&str> for Upstream {
    /// `host:port`; the name is looked up for each connection.
    fn from(text: &str) -> Self {
        let host = text.to_owned();
        let resolve = move || -> Resolving {
            let host = host.clone();
            Box::pin(async move {
                let mut found = tokio::net::lookup_host(host.as_str()).await?;
                found.next().ok_or_else(|| io::Error::other(format!("{host} has no address")))
            })
        };
        Self { name: text.to_owned(), resolve: Arc::new(resolve) }
    }
}

impl From<String> for Upstream {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.name)
    }
}
