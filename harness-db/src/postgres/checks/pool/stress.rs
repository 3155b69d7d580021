//! More borrowers than connections: all shall finish, and nothing be lost.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Outcome};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{PoolReport, WatchedPool};
use crate::postgres::checks::sampling::hold;

/// How long connections may take to come back once the last borrower has ended.
const BACK_LIMIT: Duration = Duration::from_secs(1);

/// How a pool fared under more borrowers than it has connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stress {
    /// Borrowers that were started, all at once.
    pub borrowers: u32,
    /// Those that finished well.
    pub finished: u32,
    /// Those that ended in an error or a panic, with it.
    pub failed: Vec<String>,
    /// Those that had not ended at the limit, and were cut short.
    pub unfinished: u32,
    /// How long they had.
    pub limit: Duration,
    /// The pool's declared maximum.
    pub cap: u32,
    /// What the pool showed when the last had ended, or the limit was over.
    pub at_end: PoolReport,
    /// What the pool showed when its connections had come back, or had not within a second.
    pub after: PoolReport,
}

impl WatchedPool {
    /// Runs so many borrowers at once, each with its number, for at most `limit`.
    ///
    /// Each borrows from the watch it is given, so that a connection that is never given back is known by its line.
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(db: &harness_db::Database) -> harness_db::Result {
    /// let pool = harness_db::watch_pool(db.pool());
    /// let stress = pool.stress(50, Duration::from_secs(10), |pool, _| async move {
    ///     let mut connection = pool.acquire().await?;
    ///     sqlx::query("select 1").execute(&mut *connection).await?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    /// });
    /// stress.await.check_survived()?;
    /// # Ok(()) }
    /// ```
    pub async fn stress<F, Fut, E>(&self, borrowers: u32, limit: Duration, work: F) -> Stress
    where
        F: Fn(Self, u32) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let until = Instant::now() + limit;
        let mut running = JoinSet::new();
        for number in 0..borrowers {
            let one = work(self.clone(), number);
            running.spawn(async move { one.await.map_err(|error| error.to_string()) });
        }
        let (mut finished, mut failed) = (0, Vec::new());
        while let Ok(Some(ended)) = timeout_at(until, running.join_next()).await {
            match ended {
                Ok(Ok(())) => finished += 1,
                Ok(Err(error)) => failed.push(error),
                Err(died) => failed.push(died.to_string()),
            }
        }
        let unfinished = u32::try_from(running.len()).unwrap_or(u32::MAX);
        let at_end = self.report();
        running.shutdown().await;
        let _ = self.returned_within(BACK_LIMIT).await;
        let (cap, after) = (self.pool().options().get_max_connections(), self.report());
        Stress { borrowers, finished, failed, unfinished, limit, cap, at_end, after }
    }
}

impl Stress {
    /// Passes when every borrower finished well and every connection came back. When the pool was never full, or nobody
    /// had to wait, there was no stress: no evidence.
    #[must_use]
    pub fn survived(&self) -> Outcome {
        if self.unfinished > 0 {
            let (n, all, limit) = (self.unfinished, self.borrowers, seconds(self.limit));
            let holders = self.at_end.holders_by_place();
            return Outcome::fail(format!(
                "{n} of {all} borrowers had not finished after {limit}; {} wait for a connection, {} of {} are held:\n  {}",
                self.at_end.waiting.len(),
                self.at_end.now.in_use,
                self.cap,
                holders.join("\n  ")
            ));
        }
        if let Some(first) = self.failed.first() {
            let (n, all) = (self.failed.len(), self.borrowers);
            let held = self.after.holders_by_place();
            let held = if held.is_empty() { String::new() } else { format!("\n  held: {}", held.join("\n  held: ")) };
            return Outcome::fail(format!("{n} of {all} borrowers failed, the first: {first}{held}"));
        }
        match self.after.nothing_leaked() {
            Outcome::Pass { .. } => {}
            other => return other,
        }
        let most = self.after.most_in_use();
        if self.borrowers <= self.cap || most < self.cap {
            return Outcome::no_evidence(format!(
                "{} borrowers had {most} of {} connections at most: without a full pool there is no stress",
                self.borrowers, self.cap
            ));
        }
        let slowest = self.after.slowest.as_ref().map(|wait| wait.lasted).unwrap_or_default();
        Outcome::pass(format!(
            "{} borrowers finished on {} connections, the longest wait {}, all are back",
            self.finished,
            self.cap,
            seconds(slowest)
        ))
    }

    /// The failed [`Stress::survived`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) naming who holds the connections;
    /// [`ErrorKind::NoEvidence`](harness_core::ErrorKind::NoEvidence) when the pool was never full.
    pub fn check_survived(&self) -> CoreResult<&Self> {
        hold(self.survived()).map(|()| self)
    }
}
