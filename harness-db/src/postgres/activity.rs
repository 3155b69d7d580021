//! Who is connected to the database, sampled over time from `pg_stat_activity`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::wait::{pause, seconds};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::JoinHandle;

use super::{Database, sql};
use crate::clerk;

/// How the sampler calls itself, so that it does not count itself.
const OWN_NAME: &str = "harness-sampler";
/// How long one sample may take before it counts as a gap.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// One session of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Process id of the server process.
    pub pid: i32,
    /// What the client calls itself.
    pub application: String,
    /// `active`, `idle`, `idle in transaction`, …
    pub state: String,
    /// What it waits for: type and event, if it waits.
    pub waits_for: Option<String>,
    /// Server processes that block it (`pg_blocking_pids`).
    pub blocked_by: Vec<i32>,
    /// Its current or last statement.
    pub query: String,
}

/// One sample: how many sessions, by state and by application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionPoint {
    /// Time since sampling began.
    pub at: Duration,
    /// All client sessions of the database.
    pub total: u32,
    /// By state.
    pub by_state: BTreeMap<String, u32>,
    /// By application name.
    pub by_application: BTreeMap<String, u32>,
}

/// A sampler of sessions that has not begun; made by [`Database::sessions`].
#[derive(Debug, Clone)]
#[must_use = "start it"]
pub struct Sessions {
    options: PgConnectOptions,
    database: String,
    every: Duration,
}

/// A sampler at work, on a connection and a thread of its own.
#[derive(Debug)]
#[must_use = "stop it to get the series"]
pub struct SessionSampler {
    series: Arc<Mutex<SessionSeries>>,
    task: Option<JoinHandle<()>>,
}

/// Sessions over time. A sample that failed is a gap, never a zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionSeries {
    /// The samples, in order.
    pub points: Vec<SessionPoint>,
    /// Samples that failed: when, and why.
    pub gaps: Vec<(Duration, String)>,
}

impl Database {
    /// A sampler of this database's sessions, every 100 ms unless set otherwise.
    pub fn sessions(&self) -> Sessions {
        let options = self.server().options().clone().application_name(OWN_NAME);
        Sessions { options, database: self.name().to_owned(), every: Duration::from_millis(100) }
    }

    /// The sessions of this database that are not idle, now: what was going on when a test stopped. None is an empty list.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn busy_sessions(&self) -> CoreResult<Vec<Session>> {
        let options = self.server().options().clone().application_name(OWN_NAME);
        let mut session = sql::connect(&options).await?;
        let text = format!(
            "select pid, coalesce(application_name, '') as application, coalesce(state, '') as state, \
             wait_event_type || ' ' || wait_event as waits, pg_blocking_pids(pid) as blocked, query \
             from pg_stat_activity where datname = {} and state is distinct from 'idle' and state is not null \
             and pid <> pg_backend_pid() order by pid",
            sql::literal(self.name())
        );
        let rows = sql::rows(&mut session, "list the sessions", text).await?;
        let _ = session.close().await;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok::<_, sqlx::Error>(Session {
                pid: row.try_get("pid")?,
                application: row.try_get("application")?,
                state: row.try_get("state")?,
                waits_for: row.try_get("waits")?,
                blocked_by: row.try_get("blocked")?,
                query: row.try_get("query")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error("read the sessions", error))
    }
}

impl Sessions {
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
        let mut session = sql::connect(&self.options).await?;
        let point = count(&mut session, &self.database).await;
        let _ = session.close().await;
        point
    }

    /// Begins: the first sample is taken before this returns.
    ///
    /// # Errors
    /// When the sampler cannot connect or its first sample fails.
    pub async fn start(self) -> CoreResult<SessionSampler> {
        let series = Arc::new(Mutex::new(SessionSeries::default()));
        let shared = Arc::clone(&series);
        let task = clerk::run(move || async move {
            let mut session = sql::connect(&self.options).await?;
            let begun = Instant::now();
            let first = count(&mut session, &self.database).await?;
            shared.lock().unwrap_or_else(PoisonError::into_inner).points.push(first);
            Ok(tokio::spawn(self.sample_on(session, begun, shared)))
        })
        .await?;
        Ok(SessionSampler { series, task: Some(task) })
    }

    async fn sample_on(self, session: PgConnection, begun: Instant, series: Arc<Mutex<SessionSeries>>) {
        let mut session = Some(session);
        loop {
            pause(self.every).await;
            let at = begun.elapsed();
            let result = tokio::time::timeout(SAMPLE_LIMIT, self.one(&mut session)).await;
            let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(Ok(point)) => series.points.push(SessionPoint { at, ..point }),
                Ok(Err(error)) => series.gaps.push((at, error.to_string())),
                Err(_) => {
                    series.gaps.push((at, format!("no answer for {}", seconds(SAMPLE_LIMIT))));
                    session = None;
                }
            }
        }
    }

    /// One sample, over a new connection when the last one broke.
    async fn one(&self, session: &mut Option<PgConnection>) -> CoreResult<SessionPoint> {
        let mut connection = match session.take() {
            Some(connection) => connection,
            None => sql::connect(&self.options).await?,
        };
        let point = count(&mut connection, &self.database).await?;
        *session = Some(connection);
        Ok(point)
    }
}

async fn count(session: &mut PgConnection, database: &str) -> CoreResult<SessionPoint> {
    let text = format!(
        "select coalesce(state, '') as state, coalesce(application_name, '') as application, count(*) as n \
         from pg_stat_activity where datname = {} and backend_type = 'client backend' and application_name <> '{OWN_NAME}' \
         group by 1, 2",
        sql::literal(database)
    );
    let rows = sql::rows(session, "count the sessions", text).await?;
    let mut point = SessionPoint::default();
    for row in &rows {
        let failed = |error| sql::query_error("read the count of sessions", error);
        let n = u32::try_from(row.try_get::<i64, _>("n").map_err(failed)?).unwrap_or(u32::MAX);
        point.total += n;
        *point.by_state.entry(row.try_get("state").map_err(failed)?).or_default() += n;
        *point.by_application.entry(row.try_get("application").map_err(failed)?).or_default() += n;
    }
    Ok(point)
}

impl SessionSampler {
    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> SessionSeries {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends sampling and gives the series.
    #[must_use]
    pub fn stop(mut self) -> SessionSeries {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for SessionSampler {
    fn drop(&mut self) {
        self.end();
    }
}

impl SessionSeries {
    /// The largest number of sessions seen; `None` without samples.
    #[must_use]
    pub fn max(&self) -> Option<u32> {
        self.points.iter().map(|point| point.total).max()
    }

    /// The number of sessions at the start.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.points.first().map(|point| point.total)
    }

    /// The number of sessions at the end.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.points.last().map(|point| point.total)
    }

    /// Passes when fewer than `limit` sessions were there at any time (strictly: 25 is not below 25).
    #[must_use]
    pub fn below(&self, limit: u32) -> Outcome {
        let Some(worst) = self.points.iter().max_by_key(|point| point.total) else {
            return Outcome::no_evidence(format!("no sample of sessions ({} gaps)", self.gaps.len()));
        };
        let grounds = format!("{} samples, {} gaps", self.points.len(), self.gaps.len());
        if worst.total < limit {
            return Outcome::pass(format!("at most {} sessions in {grounds}", worst.total));
        }
        let holders: Vec<String> = worst.by_application.iter().map(|(name, n)| format!("{n} of `{name}`")).collect();
        let (total, at) = (worst.total, seconds(worst.at));
        Outcome::fail(format!("{total} sessions at +{at}, fewer than {limit} are allowed: {}", holders.join(", ")))
    }

    /// Passes when as many sessions are left at the end as were there at the start: none leaked, none lost.
    #[must_use]
    pub fn ends_as_it_began(&self) -> Outcome {
        match (self.points.first(), self.points.last()) {
            (Some(first), Some(last)) if self.points.len() > 1 => match first.total == last.total {
                true => Outcome::pass(format!("{} sessions at start and end", first.total)),
                false => Outcome::fail(format!(
                    "{} sessions at the start, {} at the end: {:?}",
                    first.total, last.total, last.by_application
                )),
            },
            _ => Outcome::no_evidence("fewer than two samples of sessions"),
        }
    }

    /// The failed [`SessionSeries::below`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when the limit was reached; [`ErrorKind::NoEvidence`] without samples.
    pub fn check_below(&self, limit: u32) -> CoreResult {
        match self.below(limit) {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SessionPoint, SessionSeries};

    fn series(totals: &[u32]) -> SessionSeries {
        let point = |&total| SessionPoint { total, ..SessionPoint::default() };
        SessionSeries { points: totals.iter().map(point).collect(), gaps: Vec::new() }
    }

    #[test]
    fn limit_is_strict_and_no_samples_are_no_evidence() {
        assert!(series(&[3, 24, 3]).below(25).is_pass());
        assert!(series(&[3, 25, 3]).below(25).is_fail());
        let blind = SessionSeries { gaps: vec![(Duration::ZERO, "refused".into())], ..SessionSeries::default() };
        assert!(blind.below(25).is_no_evidence());
        assert!(blind.max().is_none());
    }

    #[test]
    fn leak_is_told_from_a_return_to_the_start() {
        assert!(series(&[2, 9, 2]).ends_as_it_began().is_pass());
        assert!(series(&[2, 9, 3]).ends_as_it_began().is_fail());
        assert!(series(&[2]).ends_as_it_began().is_no_evidence());
    }
}
