//! Approximate search with many queries in flight: each answer is compared with the exact one, and timed.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::Connection as _;
use tokio::sync::Mutex;

use super::{Recall, VectorIndex, share, text_of};
use crate::postgres::checks::concurrent::join_all;
use crate::postgres::{Latencies, sql};

/// How a search did with many queries in flight.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VectorLoad {
    /// Queries in flight.
    pub in_flight: usize,
    /// How much of the exact answers was found, over the queries that were answered.
    pub recall: Recall,
    /// Times of the queries that were answered, by the test's clock.
    pub latencies: Latencies,
    /// Queries that got no neighbour at all.
    pub empty: usize,
    /// Queries that failed, in the words of the error.
    pub failed: Vec<String>,
}

impl VectorIndex<'_> {
    /// Has `search` answer all queries, `in_flight` of them at a time, and compares each answer with the exact one. It
    /// gives distances in terms of [`VectorIndex::distance`]; [`VectorIndex::distances`] turns ids into them.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when fewer queries than `in_flight` are given, or the table holds fewer than `k` rows.
    pub async fn under_load<E: fmt::Display>(
        &self,
        in_flight: usize,
        queries: &[Vec<f32>],
        k: usize,
        search: impl AsyncFn(&[f32]) -> Result<Vec<f64>, E>,
    ) -> CoreResult<VectorLoad> {
        self.load(in_flight, queries, k, async |_: usize, query: &[f32]| search(query).await).await
    }

    /// [`VectorIndex::under_load`] with the search by this index itself, over `in_flight` connections that are opened first.
    ///
    /// # Errors
    /// As [`VectorIndex::under_load`], and when the server refuses a connection.
    pub async fn nearest_under_load(&self, in_flight: usize, queries: &[Vec<f32>], k: usize) -> CoreResult<VectorLoad> {
        let mut sessions = Vec::with_capacity(in_flight);
        for _ in 0..in_flight {
            sessions.push(Mutex::new(self.database.connect().await?));
        }
        let by_index = async |worker: usize, query: &[f32]| {
            let mut session = sessions[worker].lock().await;
            self.search(&mut session, query, k, false).await
        };
        let load = self.load(in_flight, queries, k, by_index).await;
        for session in sessions {
            let _ = session.into_inner().close().await;
        }
        load
    }

    async fn load<E: fmt::Display>(
        &self,
        in_flight: usize,
        queries: &[Vec<f32>],
        k: usize,
        search: impl AsyncFn(usize, &[f32]) -> Result<Vec<f64>, E>,
    ) -> CoreResult<VectorLoad> {
        if in_flight == 0 || k == 0 || queries.len() < in_flight {
            let what = format!("{} queries cannot keep {in_flight} in flight", queries.len());
            let error = Error::new(ErrorKind::NoEvidence, what);
            return Err(error.remedy("give at least as many queries as shall run at once"));
        }
        let exact = self.exact(queries, k).await?;
        let next = AtomicUsize::new(0);
        let worker = async |worker: usize| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (Some(query), Some(exact)) = (queries.get(at), exact.get(at)) else { return done };
                let begun = Instant::now();
                let found = search(worker, query).await.map_err(|error| error.to_string());
                done.push(found.map(|found| (begun.elapsed(), share(exact, &found), found.is_empty())));
            }
        };
        let done = join_all((0..in_flight).map(&worker)).await;
        Ok(VectorLoad::new(in_flight, k, done.into_iter().flatten()))
    }

    /// The exact answers.
    async fn exact(&self, queries: &[Vec<f32>], k: usize) -> CoreResult<Vec<Vec<f64>>> {
        let mut session = self.database.connect().await?;
        let mut exact = Vec::with_capacity(queries.len());
        for query in queries {
            exact.push(self.exact_one(&mut session, query, k).await?);
        }
        let _ = session.close().await;
        Ok(exact)
    }

    /// The distances of the `k` nearest rows by the index, over a connection of its own.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when the planner does not use the index.
    pub async fn nearest(&self, query: &[f32], k: usize) -> CoreResult<Vec<f64>> {
        let mut session = self.database.connect().await?;
        let found = self.search(&mut session, query, k, false).await;
        let _ = session.close().await;
        found
    }

    /// The distances of these rows from a query, nearest first: for a search that answers with ids. An id that does not
    /// exist gives none, and one that is named twice counts once.
    ///
    /// # Errors
    /// When there is no such column.
    pub async fn distances<I: fmt::Display>(&self, query: &[f32], id_column: &str, ids: &[I]) -> CoreResult<Vec<f64>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = ids.iter().map(|id| sql::literal(&id.to_string())).collect();
        let text = format!(
            "select ({} {} {})::float8 as d from {} where {}::text in ({}) order by 1",
            sql::ident(&self.column),
            self.distance.operator(),
            sql::literal(&text_of(query)),
            self.table,
            sql::ident(id_column),
            ids.join(", "),
        );
        let mut session = self.database.connect().await?;
        let rows = sql::rows(&mut session, "measure the distances of the rows found", text).await?;
        let _ = session.close().await;
        let read = |row: &sqlx::postgres::PgRow| sqlx::Row::try_get::<f64, _>(row, "d");
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| sql::query_error("read a distance", error))
    }
}

impl VectorLoad {
    fn new(in_flight: usize, k: usize, done: impl Iterator<Item = Result<(Duration, f64, bool), String>>) -> Self {
        let (mut times, mut per_query, mut empty, mut failed) = (Vec::new(), Vec::new(), 0, Vec::new());
        for one in done {
            match one {
                Ok((took, share, is_empty)) => {
                    times.push(took);
                    per_query.push(share);
                    empty += usize::from(is_empty);
                }
                Err(error) => failed.push(error),
            }
        }
        Self { in_flight, recall: Recall { k, per_query }, latencies: times.into_iter().collect(), empty, failed }
    }

    /// Passes when every query was answered with something, and the mean recall is at least this share.
    #[must_use]
    pub fn recall_at_least(&self, share: f64) -> Outcome {
        let all = self.recall.per_query.len() + self.failed.len();
        match (self.failed.first(), self.empty) {
            (Some(first), _) => Outcome::fail(format!("{} of {all} queries failed: {first}", self.failed.len())),
            (None, 0) => self.recall.at_least(share),
            (None, empty) => Outcome::fail(format!("{empty} of {all} queries found nothing at all")),
        }
    }

    /// Everything as one error: every query answered, recall at least this share, mean time below the limit.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what did not hold; [`ErrorKind::NoEvidence`].
    pub fn check(&self, recall: f64, mean_below: Duration) -> CoreResult<&Self> {
        match self.recall_at_least(recall).worse(self.latencies.mean_below(mean_below)) {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)
                .tried(format!("{} in flight: {}; {}", self.in_flight, self.latencies, self.recall))
                .remedy("look whether the index is used (`db.explain(..)`), and by which operator and settings it is searched")),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;

    use super::VectorLoad;

    fn load(done: Vec<Result<(Duration, f64, bool), String>>) -> VectorLoad {
        VectorLoad::new(2, 10, done.into_iter())
    }

    #[test]
    fn failed_empty_slow_and_wrong_answers_are_red_each_alone() {
        let (limit, fast) = (Duration::from_millis(200), Duration::from_millis(5));
        let good = || Ok((fast, 1.0, false));
        assert!(load(vec![good(), good()]).check(0.95, limit).is_ok());
        for (planted, says) in [
            (Ok((fast, 0.2, false)), "recall@10 is 0.600"),
            (Ok((fast, 0.0, true)), "1 of 2 queries found nothing"),
            (Ok((Duration::from_secs(1), 1.0, false)), "mean 502 ms"),
            (Err("no such index".to_owned()), "1 of 2 queries failed: no such index"),
        ] {
            let error = load(vec![good(), planted]).check(0.95, limit).unwrap_err();
            assert!(error.kind() == ErrorKind::Assertion && error.what().contains(says), "{error:?}");
        }
        assert_eq!(load(Vec::new()).check(0.0, limit).unwrap_err().kind(), ErrorKind::NoEvidence);
    }
}
