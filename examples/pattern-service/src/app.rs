//! The whole of a running service, its start and its stop.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::serve::ListenerExt as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::auth::RateLimiter;
use crate::cache::Cache;
use crate::config::{Config, masked};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::patterns::{Library, LoadError};
use crate::records::Record;
use crate::store::{Store, StoreError};
use crate::tokens::Tokens;
use crate::{log, routes};

/// How long requests under way may take to finish after the signal to stop.
pub const GRACE: Duration = Duration::from_secs(5);

/// Why the service did not start or did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pattern library was refused.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// Postgres was not usable in time.
    #[error("Postgres at {address}: {source}; the service needs a server with the extension vector (pgvector)")]
    Database {
        /// Address without password.
        address: String,
        /// Last failure.
        source: StoreError,
    },
    /// The address of Redis is unusable.
    #[error("Redis at {0}: the address is not usable")]
    Redis(String),
    /// The HTTP client could not be built.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Address as configured.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server stopped by itself.
    #[error("serving failed: {0}")]
    Serve(std::io::Error),
}

/// All parts of one running service.
#[derive(Debug)]
pub struct App {
    /// Settings.
    pub config: Config,
    /// Pattern library.
    pub library: Library,
    /// Postgres.
    pub store: Store,
    /// Both cache tiers.
    pub cache: Cache,
    /// Fallback model.
    pub model: Model,
    /// Counters.
    pub metrics: Arc<Metrics>,
    pub(crate) limiter: RateLimiter,
    pub(crate) tokens: Tokens,
    /// Places for requests under way.
    pub(crate) places: Semaphore,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) executions: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) next_turn: tokio::sync::Mutex<Instant>,
    pub(crate) one_at_a_time: tokio::sync::Mutex<()>,
    pub(crate) write_behind: mpsc::UnboundedSender<Record>,
    pub(crate) shared_state: Mutex<HashMap<String, Value>>,
}

/// An id that no other call on any machine gives; not a credential.
pub(crate) fn unique_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let half = || {
        let mut hasher = RandomState::new().build_hasher(); // keyed by the random source of the system
        hasher.write_u64(COUNT.fetch_add(1, Relaxed));
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(), half())
}

impl App {
    /// Starts all parts and their background work, which ends when `stop` turns true.
    pub async fn start(config: Config, stop: watch::Receiver<bool>) -> Result<Arc<Self>, StartError> {
        let library = Library::load(config.patterns_file.as_deref())?;
        let metrics = Arc::new(Metrics::default());
        let cache =
            Cache::new(&config, metrics.clone()).map_err(|_| StartError::Redis(masked(config.redis_url.expose())))?;
        let model = Model::new(&config, metrics.clone())?;
        let store = Store::open(&config, &library, metrics.clone())
            .await
            .map_err(|source| StartError::Database { address: masked(config.database_url.expose()), source })?;
        let (write_behind, queue) = mpsc::unbounded_channel();
        let app = Arc::new(Self {
            places: Semaphore::new(config.max_in_flight),
            config,
            library,
            store,
            cache,
            model,
            metrics,
            limiter: RateLimiter::default(),
            tokens: Tokens::default(),
            stop: stop.clone(),
            executions: AtomicU64::new(0),
            records: AtomicU64::new(0),
            next_turn: tokio::sync::Mutex::new(Instant::now()),
            one_at_a_time: tokio::sync::Mutex::new(()),
            write_behind,
            shared_state: Mutex::default(),
        });
        let part = app.clone();
        tokio::spawn(async move { part.cache.follow(stop).await });
        let part = app.clone();
        tokio::spawn(async move { part.store.trim_overflow().await });
        let part = app.clone();
        tokio::spawn(async move { part.write_later(queue).await });
        if !app.cache.wait_until_up(Duration::from_millis(500)).await {
            log::warn!("Redis is away: starting with the local cache tier only");
        }
        Ok(app)
    }
}

/// Runs the service until `stop` turns true; `ready` is called once with the bound address.
pub async fn serve(
    config: Config,
    mut stop: watch::Receiver<bool>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), StartError> {
    let address = config.listen;
    let app = App::start(config, stop.clone()).await?;
    if !app.config.plants.is_empty() {
        log::warn!("planted defects: {:?}", app.config.plants);
    }
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    ready(listener.local_addr().map_err(failed)?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let service = routes::router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let mut signal = stop.clone();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = signal.wait_for(|stop| *stop).await;
    });
    let deadline = async {
        let _ = stop.wait_for(|stop| *stop).await;
        log::info!("stopping: requests under way have {} s", GRACE.as_secs());
        sleep(GRACE).await;
    };
    tokio::select! {
        ended = async { serving.await } => ended.map_err(StartError::Serve)?,
        () = deadline => log::warn!("stopping: requests under way were cut off"),
    }
    let goodbye = Instant::now() + Duration::from_secs(1);
    while app.metrics.sessions.load(Relaxed) > 0 && Instant::now() < goodbye {
        sleep(Duration::from_millis(10)).await;
    }
    if timeout(Duration::from_secs(2), app.store.close()).await.is_err() {
        log::warn!("stopping: some database connections did not close in time");
    }
    log::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_ids_do_not_repeat() {
        let ids: std::collections::HashSet<String> = (0..10_000).map(|_| unique_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
