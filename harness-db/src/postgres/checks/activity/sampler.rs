//! The sampler of sessions: one connection that it holds from the start, on a thread of its own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness_core::CoreResult;
use harness_core::monitor::{Reading, Sampled, Sampler};
use harness_core::slo::Unit;
use harness_core::wait::{pause, seconds};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use super::session::read;
use super::{SessionPoint, SessionSeries};
use crate::clerk;
use crate::postgres::checks::sampling::{SAMPLE_LIMIT, Sampling, Shared, locked};
use crate::postgres::sql;

/// A sampler of sessions that has not begun; made by [`Database::sessions`](crate::Database::sessions).
#[derive(Debug, Clone)]
#[must_use = "start it"]
pub struct Sessions {
    options: PgConnectOptions,
    database: String,
    every: Duration,
}

/// A sampler at work, on a connection and a thread of its own.
///
/// It holds its one connection from the start, so it goes on seeing when the system under test has used up
/// `max_connections`.
#[derive(Debug)]
#[must_use = "stop it to get the series"]
pub struct SessionSampler {
    sampling: Sampling<SessionSeries>,
}

impl Sessions {
    pub(super) fn new(options: PgConnectOptions, database: String) -> Self {
        Self { options, database, every: Duration::from_millis(100) }
    }

    /// Sets how often a sample is taken.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(1));
        self
    }

    /// Takes one sample.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn sample(&self) -> CoreResult<SessionPoint> {
        let mut connection = sql::connect(&self.options).await?;
        let sessions = read(&mut connection, &self.database).await;
        let _ = connection.close().await;
        Ok(SessionPoint::of(Duration::ZERO, &sessions?))
    }

    /// The sessions as series of a load or a monitor, over one connection that is kept: `<label> sessions` and `<label> idle in
    /// transaction`. How often is the monitor's business.
    pub fn sampler(self, label: impl Into<String>) -> impl Sampler + 'static {
        Watching { label: label.into(), sessions: self, connection: None }
    }

    /// Begins: the first sample is taken before this returns.
    ///
    /// # Errors
    /// When the sampler cannot connect or its first sample fails.
    pub async fn start(self) -> CoreResult<SessionSampler> {
        let series = Arc::new(Mutex::new(SessionSeries::default()));
        let shared = Arc::clone(&series);
        let (begun, task) = clerk::run(move || async move {
            let mut connection = sql::connect(&self.options).await?;
            let begun = Instant::now();
            let first = read(&mut connection, &self.database).await?;
            locked(&shared).push(Duration::ZERO, first);
            Ok((begun, tokio::spawn(self.sample_on(connection, begun, shared))))
        })
        .await?;
        Ok(SessionSampler { sampling: Sampling::new(series, begun, task) })
    }

    async fn sample_on(self, connection: PgConnection, begun: Instant, series: Shared<SessionSeries>) {
        let mut connection = Some(connection);
        loop {
            pause(self.every).await;
            let result = tokio::time::timeout(SAMPLE_LIMIT, self.one(&mut connection)).await;
            let at = begun.elapsed();
            let mut series = locked(&series);
            match result {
                Ok(Ok(sessions)) => series.push(at, sessions),
                Ok(Err(error)) => series.gaps.push((at, error.to_string())),
                Err(_) => {
                    series.gaps.push((at, format!("no answer for {}", seconds(SAMPLE_LIMIT))));
                    connection = None;
                }
            }
        }
    }

    /// One sample, over a new connection when the last one broke.
    async fn one(&self, connection: &mut Option<PgConnection>) -> CoreResult<Vec<super::Session>> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => sql::connect(&self.options).await?,
        };
        let sessions = read(&mut open, &self.database).await?;
        *connection = Some(open);
        Ok(sessions)
    }
}

#[derive(Debug)]
struct Watching {
    label: String,
    sessions: Sessions,
    connection: Option<PgConnection>,
}

impl Sampler for Watching {
    fn name(&self) -> &str {
        &self.label
    }

    fn sample(&mut self) -> Sampled<'_> {
        Box::pin(async move {
            let sessions = self.sessions.one(&mut self.connection).await?;
            let point = SessionPoint::of(Duration::ZERO, &sessions);
            let idle: u32 = point
                .by_state
                .iter()
                .filter(|(state, _)| state.starts_with("idle in transaction"))
                .map(|(_, n)| n)
                .sum();
            let of = |what, count: u32| Reading {
                name: format!("{} {what}", self.label),
                unit: Unit::Count,
                value: f64::from(count),
            };
            Ok(vec![of("sessions", point.total), of("idle in transaction", idle)])
        })
    }
}

impl SessionSampler {
    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> SessionSeries {
        let (series, lasted) = self.sampling.so_far();
        SessionSeries { lasted, ..series }
    }

    /// Ends sampling and gives the series.
    #[must_use]
    pub fn stop(self) -> SessionSeries {
        let (series, lasted) = self.sampling.stop();
        SessionSeries { lasted, ..series }
    }
}
