//! A request at every due time, each in the ledger before it is sent.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness_props::history::switch::Switch;
use tokio::task::{JoinHandle, JoinSet};

use crate::wait::{Pace, within};

/// Requests under way at most: more are not sent, which the ledger shows as a time without any.
const MOST: usize = 10_000;

/// Sends requests at their due times until it is stopped, whatever becomes of those before them.
#[must_use = "the probe ends when this is dropped"]
pub struct SwitchProbe {
    switch: Arc<Mutex<Switch>>,
    pace: Pace,
    sender: Option<JoinHandle<JoinSet<()>>>,
    end: Arc<tokio::sync::Notify>,
}

impl SwitchProbe {
    /// One request each `every`, of `users` in turn. `ask` says which version served, or what went wrong in a word: `refused`,
    /// `reset`, `503`.
    pub fn start<F, R>(every: Duration, users: u64, ask: F) -> Self
    where
        F: Fn(u64) -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, String>> + Send + 'static,
    {
        let (switch, pace) = (Arc::<Mutex<Switch>>::default(), Pace::real());
        let end = Arc::<tokio::sync::Notify>::default();
        let (books, clock, ended) = (Arc::clone(&switch), pace.clone(), Arc::clone(&end));
        let sender = tokio::spawn(async move {
            let mut under_way = JoinSet::new();
            for number in 0_u64.. {
                let due = every.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
                tokio::select! {
                    biased;
                    () = ended.notified() => break,
                    () = clock.wait_until(due) => {}
                }
                while under_way.try_join_next().is_some() {}
                if under_way.len() >= MOST {
                    continue;
                }
                let user = number % users.max(1);
                let id = locked(&books).send(clock.now(), user);
                let (asking, books, clock) = (ask(user), Arc::clone(&books), clock.clone());
                under_way.spawn(async move {
                    let answer = asking.await;
                    let (at, mut books) = (clock.now(), locked(&books));
                    match answer {
                        Ok(version) => books.served(id, at, &version),
                        Err(why) => books.failed(id, at, &why),
                    }
                });
            }
            under_way
        });
        Self { switch, pace, sender: Some(sender), end }
    }

    /// The time of the ledger, to write down when a stage began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.pace.now()
    }

    /// How many requests were sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        locked(&self.switch).len()
    }

    /// Sends no more, gives those under way so long to end, and returns the ledger. What has not ended by then was dropped.
    pub async fn stop(mut self, patience: Duration) -> Switch {
        self.end.notify_one();
        if let Some(sender) = self.sender.take()
            && let Ok(mut under_way) = sender.await
        {
            let all = async { while under_way.join_next().await.is_some() {} };
            // Whoever is late stands in the ledger without an answer.
            drop(within("requests under way", patience, all).await);
        }
        std::mem::take(&mut *locked(&self.switch))
    }
}

impl Drop for SwitchProbe {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}

impl fmt::Debug for SwitchProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchProbe({} sent)", self.sent())
    }
}

fn locked(switch: &Mutex<Switch>) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}
