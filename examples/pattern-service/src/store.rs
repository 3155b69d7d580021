//! Postgres: the pool, bounded operations, and the statements about patterns.
//!
//! Every operation ends in bounded time: a connection is waited for at most [`ACQUIRE_LIMIT`], a statement is stopped by
//! the server, and if even the server is silent the client gives up and closes that connection.

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, Postgres, Row as _};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::embed::Embedding;
use crate::metrics::{Metrics, count};
use crate::patterns::Library;
use crate::plant::{Plant, Plants};
use crate::{log, schema};

/// Connections that are always kept.
pub const POOL_BASE: u32 = 10;
/// Connections that are opened on demand on top of [`POOL_BASE`] and closed when they are no longer needed.
pub const POOL_OVERFLOW: u32 = 20;
/// The pool as declared: base, overflow, and the longest wait.
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new()
        .min_connections(POOL_BASE)
        .max_connections(POOL_BASE + POOL_OVERFLOW)
        .acquire_timeout(ACQUIRE_LIMIT)
}

/// Longest wait for a connection.
pub const ACQUIRE_LIMIT: Duration = Duration::from_secs(1);

macro_rules! search_sql {
    () => {
        "select id, pattern, class, phrase, embedding <=> $1::text::vector as distance \
         from pattern_vectors order by embedding <=> $1::text::vector limit $2"
    };
}

/// The statement of every vector search: `$1` an embedding as text (`[0.1,...]`), `$2` how many rows (bigint).
/// The service runs it with `ivfflat.probes` set to [`schema::PROBES`].
pub const SEARCH_SQL: &str = search_sql!();

const EXPLAIN_SQL: &str = concat!("explain (analyze, format json) ", search_sql!());

/// What the planted wrong order runs: the same shape and the same index, but towards the opposite vector.
const WRONG_DISTANCE_SQL: &str = "select id, pattern, class, phrase, embedding <=> $1::text::vector as distance \
     from pattern_vectors order by embedding <=> ($1::text::vector * array_fill(-1::real, array[64])::vector) limit $2";

/// Why an operation on the database failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no usable connection; the text says what was tried.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The statement ran into its time limit.
    #[error("statement stopped at its time limit")]
    Timeout,
    /// Lost a race with other transactions (SQLSTATE 40001 or 40P01).
    #[error("serialization failure or deadlock, SQLSTATE {0}")]
    Contention(String),
    /// A row with this key exists.
    #[error("duplicate key")]
    Duplicate,
    /// The server rejected the statement.
    #[error("rejected: {0}")]
    Rejected(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        match error {
            Error::PoolTimedOut => Self::Unavailable(format!("no connection within {} ms", ACQUIRE_LIMIT.as_millis())),
            Error::PoolClosed => Self::Unavailable("the pool is closed".to_owned()),
            Error::Io(error) => Self::Unavailable(format!("connection lost ({})", error.kind())),
            Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => {
                Self::Unavailable("connection lost".to_owned())
            }
            Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
                "57014" => Self::Timeout,
                code @ ("40001" | "40P01") => Self::Contention(code.to_owned()),
                "23505" => Self::Duplicate,
                code if ["08", "28", "57P", "53", "3D"].iter().any(|class| code.starts_with(class)) => {
                    Self::Unavailable(format!("the server says SQLSTATE {code}"))
                }
                code => Self::Rejected(format!("SQLSTATE {code}: {}", error.message())),
            },
            other => Self::Rejected(other.to_string()),
        }
    }
}

/// A row found by vector search.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Hit {
    /// Key of the row.
    pub id: i64,
    /// Name of the pattern.
    pub pattern: String,
    /// Its class.
    pub class: String,
    /// The phrase that was found.
    pub phrase: String,
    /// Cosine distance, 0 to 2.
    pub distance: f64,
}

/// Access to Postgres.
#[derive(Debug)]
pub struct Store {
    pool: PgPool,
    limit: Duration,
    plants: Plants,
    metrics: Arc<Metrics>,
    leaked: Mutex<Vec<PoolConnection<Postgres>>>,
    /// Counted for a planted defect.
    searches: AtomicU64,
}

/// A borrowed connection. If it is dropped in the middle of an operation it is closed, not returned: the server then
/// stops the statement and no later borrower meets its remains.
#[derive(Debug)]
pub(crate) struct Conn<'s> {
    inner: PoolConnection<Postgres>,
    store: &'s Store,
    limit: Duration,
    clean: bool,
}

impl Store {
    /// Waits for the server, migrates and opens the pool.
    pub async fn open(config: &Config, library: &Library, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let base = config.database().map_err(StoreError::Rejected)?.application_name("pattern-service");
        wait_for_server(&base, library, config).await?;
        let plants = config.plants;
        let statement_limit = Duration::from_secs(2).max(config.pattern_limit + Duration::from_millis(500));
        let unbounded = plants.on(Plant::HangsOnOutage);
        let day = Duration::from_secs(86_400);
        let options = base.options([
            ("statement_timeout", format!("{}ms", statement_limit.as_millis())),
            ("idle_in_transaction_session_timeout", "10s".to_owned()),
            ("client_connection_check_interval", "250ms".to_owned()), // a caller who has gone frees the backend
            ("synchronous_commit", "on".to_owned()), // acknowledged means on disk, whatever the default
            ("ivfflat.probes", schema::PROBES.to_string()),
        ]);
        let pool = pool_options()
            .acquire_timeout(if unbounded { day } else { ACQUIRE_LIMIT })
            .idle_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        let limit = if unbounded { day } else { statement_limit + Duration::from_millis(500) };
        Ok(Self { pool, limit, plants, metrics, leaked: Mutex::default(), searches: AtomicU64::new(0) })
    }

    /// Connections open and idle.
    pub fn pool_state(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.leaked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.pool.close().await;
    }

    /// Closes overflow connections that nobody has needed for a second. The pool hands out the longest idle connection
    /// first, so under steady load its own idle timeout would never let it shrink.
    pub async fn trim_overflow(&self) {
        while !self.pool.is_closed() {
            let mut spare = usize::MAX;
            for _ in 0..4 {
                sleep(Duration::from_millis(250)).await;
                spare = spare.min(self.pool.num_idle());
            }
            for _ in 0..spare.min(self.pool.size().saturating_sub(POOL_BASE) as usize) {
                if let Some(connection) = self.pool.try_acquire() {
                    let _ = timeout(ACQUIRE_LIMIT, connection.close()).await;
                }
            }
        }
    }

    pub(crate) fn plants(&self) -> Plants {
        self.plants
    }

    pub(crate) async fn connection(&self) -> Result<Conn<'_>, StoreError> {
        match self.pool.acquire().await {
            Ok(inner) => Ok(Conn { inner, store: self, limit: self.limit, clean: true }),
            Err(error) => Err(self.note(error.into())),
        }
    }

    /// Looks at an error on its way out.
    fn note(&self, error: StoreError) -> StoreError {
        if matches!(error, StoreError::Unavailable(_)) {
            count(&self.metrics.database_outages);
            log::warn!("{error}");
            if self.plants.on(Plant::NeedsRestart) {
                let pool = self.pool.clone();
                tokio::spawn(async move { pool.close().await });
            }
        }
        error
    }

    /// Planted defect: keeps a connection for ever.
    pub(crate) async fn leak(&self) {
        if let Ok(connection) = self.pool.acquire().await {
            self.leaked.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.connection().await?.run(|c| c.ping()).await
    }

    /// The nearest rows through the index, nearest first.
    pub async fn nearest(&self, to: &Embedding, k: i64) -> Result<Vec<Hit>, StoreError> {
        let vector = to.to_sql();
        let mut connection = self.connection().await?;
        connection.run(|c| sqlx::query(SEARCH_SQL).bind(vector).bind(k).fetch_all(c)).await?.iter().map(hit).collect()
    }

    /// As [`Store::nearest`], for the search endpoint with its planted defects.
    pub async fn search(&self, to: &Embedding, k: i64) -> Result<Vec<Hit>, StoreError> {
        if self.plants.on(Plant::SlowVector) {
            sleep(Duration::from_millis(250)).await;
        }
        if self.plants.on(Plant::SlowSearchTail) && self.searches.fetch_add(1, Relaxed) % 12 == 11 {
            sleep(Duration::from_millis(600)).await;
        }
        let statement = if self.plants.on(Plant::WrongDistance) { WRONG_DISTANCE_SQL } else { SEARCH_SQL };
        self.search_rows(statement, to, k).await?.iter().map(hit).collect()
    }

    /// The plan of the very statement that [`Store::search`] runs, as the JSON of `EXPLAIN (ANALYZE, FORMAT JSON)`.
    pub async fn explain_search(&self, to: &Embedding, k: i64) -> Result<serde_json::Value, StoreError> {
        let rows = self.search_rows(EXPLAIN_SQL, to, k).await?;
        let text: String = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get_unchecked(0)?;
        serde_json::from_str(&text).map_err(|error| StoreError::Rejected(error.to_string()))
    }

    async fn search_rows(
        &self,
        statement: &'static str,
        to: &Embedding,
        k: i64,
    ) -> Result<Vec<sqlx::postgres::PgRow>, StoreError> {
        let (vector, no_index) = (to.to_sql(), self.plants.on(Plant::NoIndex));
        let mut connection = self.connection().await?;
        let query = sqlx::query(statement).bind(vector).bind(k);
        if !no_index {
            return connection.run(|c| query.fetch_all(c)).await;
        }
        connection
            .run(|c| async move {
                let mut tx = c.begin().await?;
                tx.execute("set local enable_indexscan = off; set local enable_bitmapscan = off").await?;
                let rows = query.fetch_all(&mut *tx).await?;
                tx.commit().await?;
                Ok(rows)
            })
            .await
    }

    /// Text and version of a pattern.
    pub async fn pattern_text(&self, name: &str) -> Result<Option<(String, i64)>, StoreError> {
        let mut connection = self.connection().await?;
        let query = sqlx::query_as("select body, version from patterns where name = $1").bind(name);
        connection.run(|c| query.fetch_optional(c)).await
    }

    /// Replaces the text of a pattern; gives the new version once it is committed.
    pub async fn put_pattern_text(&self, name: &str, text: &str) -> Result<Option<i64>, StoreError> {
        let mut connection = self.connection().await?;
        let query = sqlx::query_scalar(
            "update patterns set body = $2, version = version + 1, updated_at = now() where name = $1 returning version",
        );
        connection.run(|c| query.bind(name).bind(text).fetch_optional(c)).await
    }

    /// Holds a session for a time, as a pattern does that watches something.
    pub(crate) async fn hold(&self, time: Duration, unlimited: bool) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        if unlimited {
            connection.limit = Duration::from_secs(86_400);
        }
        connection
            .run(|c| async move {
                let mut tx = c.begin().await?;
                if unlimited {
                    tx.execute("set local statement_timeout = 0").await?;
                }
                sqlx::query("select pg_sleep($1)").bind(time.as_secs_f64()).execute(&mut *tx).await?;
                tx.commit().await
            })
            .await
    }
}

async fn wait_for_server(base: &PgConnectOptions, library: &Library, config: &Config) -> Result<(), StoreError> {
    let deadline = Instant::now() + config.start_limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let last = match timeout(left, schema::migrate(base, library, config.plants)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => StoreError::from(error),
            Err(_) => StoreError::Unavailable("the server is silent".to_owned()),
        };
        let again = matches!(last, StoreError::Unavailable(_) | StoreError::Contention(_));
        if !again || Instant::now() + Duration::from_millis(250) >= deadline {
            return Err(last);
        }
        log::debug!("waiting for Postgres: {last}");
        sleep(Duration::from_millis(250)).await;
    }
}

fn hit(row: &sqlx::postgres::PgRow) -> Result<Hit, StoreError> {
    Ok(Hit {
        id: row.try_get("id")?,
        pattern: row.try_get("pattern")?,
        class: row.try_get("class")?,
        phrase: row.try_get("phrase")?,
        distance: row.try_get("distance")?,
    })
}

impl Conn<'_> {
    /// Runs one operation within the time limit.
    pub(crate) async fn run<'c, T, F, Fut>(&'c mut self, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&'c mut PgConnection) -> Fut,
        Fut: Future<Output = Result<T, sqlx::Error>>,
    {
        let Self { inner, store, limit, clean } = self;
        *clean = false;
        let outcome = match timeout(*limit, work(inner)).await {
            Ok(outcome) => outcome.map_err(StoreError::from),
            Err(_) => Err(StoreError::Unavailable(format!("the server was silent for {} ms", limit.as_millis()))),
        };
        *clean = !matches!(outcome, Err(StoreError::Unavailable(_)));
        outcome.map_err(|error| store.note(error))
    }
}

impl Drop for Conn<'_> {
    fn drop(&mut self) {
        if !self.clean {
            self.inner.close_on_drop();
        }
    }
}
