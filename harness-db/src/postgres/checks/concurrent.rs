//! The same query alone and among others: does it stay as fast, and does nobody wait for the pool?

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::{PgConnection, PgPool};

use super::{Database, Latencies, sql};

/// Calls per worker, unless asked otherwise.
const ROUNDS: usize = 20;

/// A comparison about to run; made by [`Database::concurrently`].
#[derive(Debug, Clone)]
#[must_use = "run it"]
pub struct Concurrently {
    pool: PgPool,
    workers: usize,
    rounds: usize,
}

/// How calls went one after the other, and how they went at once.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Concurrent {
    /// How many ran at once.
    pub workers: usize,
    /// Times of the calls that ran alone, with the wait for a connection.
    pub alone: Latencies,
    /// Times of the calls that ran at once, with the wait for a connection.
    pub together: Latencies,
    /// How long all calls at once took.
    pub took: Duration,
    /// The most calls that held a connection at the same time.
    pub peak: usize,
    /// How often a call found every connection of the pool taken by the others, and had to wait.
    pub waits: u64,
    /// Errors of calls, in the words of the server: refused, throttled, timed out.
    pub failed: Vec<String>,
}

impl Database {
    /// Compares a call alone with `workers` of them at once, on [`Database::pool`]. The pool needs that many connections:
    /// `APP.database().connections(8)`.
    ///
    /// ```
    /// # async fn example() -> harness_db::Result {
    /// use harness_db::sqlx::{self, PgConnection};
    /// let db = harness_db::postgres().connections(4).await?;
    /// let query = async |session: &mut PgConnection, _: usize| sqlx::query("select 1").execute(session).await;
    /// let run = db.concurrently(4).rounds(3).run(query).await?;
    /// assert!(run.never_waits().is_pass());
    /// println!("{run}");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
    /// ```
    pub fn concurrently(&self, workers: usize) -> Concurrently {
        Concurrently { pool: self.pool().clone(), workers, rounds: ROUNDS }
    }
}

impl Concurrently {
    /// Calls per worker, and calls alone; 20 unless set. Fewer than 100 calls make the 99th percentile the longest of them.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// On another pool, such as that of the service under test.
    pub fn pool(mut self, pool: &PgPool) -> Self {
        self.pool = pool.clone();
        self
    }

    /// Runs the calls one after the other, then at once. Each gets its number, so that it may ask for another row.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without workers or rounds; [`ErrorKind::Connect`] when the pool gives no connection.
    pub async fn run<T, E: fmt::Display>(
        self,
        call: impl AsyncFn(&mut PgConnection, usize) -> Result<T, E>,
    ) -> CoreResult<Concurrent> {
        if self.workers == 0 || self.rounds == 0 {
            return Err(Error::new(ErrorKind::Config, "no workers or no rounds to compare"));
        }
        self.warm_up().await?;
        let (alone, _) = self.calls(1, &call).await?;
        let begun = Instant::now();
        let (together, gauge) = self.calls(self.workers, &call).await?;
        let took = begun.elapsed();
        let mut failed = Vec::new();
        let mut times = |calls: Vec<(Duration, Option<String>)>| -> Latencies {
            let mut kept = Vec::new();
            for (time, error) in calls {
                match error {
                    None => kept.push(time),
                    Some(error) => failed.push(error),
                }
            }
            kept.into_iter().collect()
        };
        let (alone, together) = (times(alone), times(together));
        let (peak, waits) = (gauge.peak.into_inner(), gauge.waits.into_inner());
        Ok(Concurrent { workers: self.workers, alone, together, took, peak, waits, failed })
    }

    /// Opens the connections first: their set-up is not what is compared.
    async fn warm_up(&self) -> CoreResult {
        let most = self.workers.min(self.pool.options().get_max_connections() as usize);
        let mut held = Vec::new();
        for _ in 0..most {
            let connection = self.pool.acquire().await;
            held.push(connection.map_err(|error| sql::query_error("fill the pool", error))?);
        }
        Ok(())
    }

    async fn calls<T, E: fmt::Display>(
        &self,
        workers: usize,
        call: &impl AsyncFn(&mut PgConnection, usize) -> Result<T, E>,
    ) -> CoreResult<(Vec<(Duration, Option<String>)>, Gauge)> {
        let gauge = Gauge { room: self.pool.options().get_max_connections() as usize, ..Gauge::default() };
        let worker = async |first: usize| -> CoreResult<Vec<(Duration, Option<String>)>> {
            let mut times = Vec::with_capacity(self.rounds);
            for round in 0..self.rounds {
                let begun = Instant::now();
                gauge.wants();
                let session = self.pool.acquire().await;
                let mut session = session.map_err(|error| sql::query_error("get a connection of the pool", error))?;
                gauge.holds();
                let result = call(&mut session, first + round * workers).await;
                gauge.gives_back();
                drop(session);
                times.push((begun.elapsed(), result.err().map(|error| error.to_string())));
            }
            Ok(times)
        };
        let done = join_all((0..workers).map(&worker)).await;
        let all = done.into_iter().collect::<CoreResult<Vec<_>>>()?;
        Ok((all.into_iter().flatten().collect(), gauge))
    }
}

/// Who holds a connection, and who wants one.
#[derive(Debug, Default)]
struct Gauge {
    room: usize,
    /// Calls that hold a connection or wait for one.
    claims: AtomicUsize,
    held: AtomicUsize,
    peak: AtomicUsize,
    waits: AtomicU64,
}

impl Gauge {
    fn wants(&self) {
        let full = self.claims.fetch_add(1, Ordering::Relaxed) >= self.room;
        self.waits.fetch_add(u64::from(full), Ordering::Relaxed);
    }

    fn holds(&self) {
        let now = self.held.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn gives_back(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.claims.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A future and its answer, once it has one.
struct Slot<F: Future> {
    future: Pin<Box<F>>,
    answer: Option<F::Output>,
}

/// Polls all futures in one task until each has ended; their answers in order.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<Slot<F>> =
        futures.into_iter().map(|future| Slot { future: Box::pin(future), answer: None }).collect();
    poll_fn(|context| {
        let mut open = false;
        for slot in all.iter_mut().filter(|slot| slot.answer.is_none()) {
            match slot.future.as_mut().poll(context) {
                Poll::Ready(value) => slot.answer = Some(value),
                Poll::Pending => open = true,
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    all.into_iter().filter_map(|slot| slot.answer).collect()
}

impl Concurrent {
    /// Calls per second while they ran at once.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.together.len() as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Passes when the 99th percentile among others is at most `factor` times that alone, and no call failed.
    #[must_use]
    pub fn p99_within(&self, factor: f64) -> Outcome {
        if let Some(failed) = self.failure() {
            return failed;
        }
        let (Some(alone), Some(together)) = (self.alone.p99(), self.together.p99()) else {
            return Outcome::no_evidence("no call was measured");
        };
        let times = together.as_secs_f64() / alone.as_secs_f64().max(f64::EPSILON);
        let (n, alone, together) = (self.workers, seconds(alone), seconds(together));
        let text = format!("p99 {together} with {n} at once, {alone} alone: {times:.1} times");
        match times <= factor {
            true => Outcome::pass(text),
            false => Outcome::fail(format!("{text}, at most {factor} is allowed; {} waits for the pool", self.waits)),
        }
    }

    /// Passes when no call had to wait for a connection of the pool, and none failed.
    #[must_use]
    pub fn never_waits(&self) -> Outcome {
        if let Some(failed) = self.failure() {
            return failed;
        }
        match (self.together.len(), self.waits) {
            (0, _) => Outcome::no_evidence("no call was measured"),
            (calls, 0) => {
                Outcome::pass(format!("{calls} calls, up to {} at once, none waited for the pool", self.peak))
            }
            (calls, waits) => Outcome::fail(format!(
                "{waits} of {calls} calls waited for the pool: {} connections for {} at once",
                self.peak, self.workers
            )),
        }
    }

    /// Both as one error: within the factor, and nobody waited.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when calls slow each other down, wait for the pool or fail; [`ErrorKind::NoEvidence`].
    pub fn check_p99_within(&self, factor: f64) -> CoreResult<&Self> {
        match self.never_waits().worse(self.p99_within(factor)) {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness).tried(self.to_string()).remedy(
                "give the pool as many connections as calls run at once, or look what they wait for: `db.sessions()`",
            )),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(self),
        }
    }

    fn failure(&self) -> Option<Outcome> {
        let first = self.failed.first()?;
        let all = self.failed.len() + self.alone.len() + self.together.len();
        Some(Outcome::fail(format!("{} of {all} calls failed: {first}", self.failed.len())))
    }
}

impl fmt::Display for Concurrent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, alone, together, peak, waits, .. } = self;
        let per_second = self.throughput();
        write!(f, "alone: {alone}; {workers} at once: {together}, {per_second:.1}/s, {peak} connections, {waits} waits")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Concurrent, Latencies, join_all};

    fn run(alone_ms: &[u64], together_ms: &[u64], waits: u64, failed: &[&str]) -> Concurrent {
        let times = |ms: &[u64]| ms.iter().copied().map(Duration::from_millis).collect::<Latencies>();
        let failed = failed.iter().map(|text| (*text).to_owned()).collect();
        Concurrent {
            workers: 4,
            alone: times(alone_ms),
            together: times(together_ms),
            waits,
            failed,
            ..Concurrent::default()
        }
    }

    #[test]
    fn slower_among_others_waits_and_failures_are_red_each_alone() {
        assert!(run(&[10], &[20], 0, &[]).check_p99_within(2.0).is_ok());
        assert!(run(&[10], &[21], 0, &[]).p99_within(2.0).is_fail());
        assert!(
            run(&[10], &[10], 1, &[]).never_waits().is_fail()
                && run(&[10], &[10], 1, &[]).check_p99_within(2.0).is_err()
        );
        assert!(
            run(&[10], &[10], 0, &["too many clients"])
                .p99_within(2.0)
                .detail()
                .contains("1 of 3 calls failed: too many")
        );
        assert!(
            run(&[], &[], 0, &[]).p99_within(2.0).is_no_evidence()
                && run(&[], &[], 0, &[]).never_waits().is_no_evidence()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn futures_run_at_once_and_answer_in_order() {
        let begun = tokio::time::Instant::now();
        let answers = join_all((1..=3_u64).rev().map(|n| async move {
            harness_core::wait::pause(Duration::from_secs(n)).await;
            n
        }));
        assert_eq!(answers.await, [3, 2, 1]);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
