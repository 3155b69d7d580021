//! Readers and writers on every table while a migration runs: what they had to wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::CoreResult;
use harness_core::wait::{Progress, wait_for};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;

use crate::clerk;
use crate::postgres::sql;

/// How long the clients may take until each has been served once.
const FIRST_LIMIT: Duration = Duration::from_secs(20);
/// How long the clients may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Between two statements of a client.
const THINK: Duration = Duration::from_millis(1);

/// What the clients of one table saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were answered.
    pub writes: u64,
    /// Statements that failed.
    pub failed: u64,
    /// The longest a reader waited.
    pub longest_read: Duration,
    /// The longest a writer waited.
    pub longest_write: Duration,
    /// What the last failure said.
    pub last_failure: Option<String>,
}

type Seen = Arc<Mutex<BTreeMap<String, Traffic>>>;

/// Clients at work. They run on the background thread, so that a busy test does not look like a lock.
pub(super) struct Clients {
    seen: Seen,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Begins with a reader and a writer per table, each of which has been served once when this returns.
    pub(super) async fn start(options: &PgConnectOptions, tables: &[String]) -> CoreResult<Self> {
        let (seen, over): (Seen, _) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut tasks = Vec::new();
        for table in tables {
            for is_writer in [false, true] {
                let (options, table) = (options.clone(), table.clone());
                let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
                let start = move || async move {
                    let session = sql::connect(&options).await?;
                    Ok(tokio::spawn(client(session, table, is_writer, seen, over)))
                };
                tasks.push(clerk::run(start).await?);
            }
        }
        let clients = Self { seen, over, tasks };
        clients.served(tables.len()).await?;
        Ok(clients)
    }

    async fn served(&self, tables: usize) -> CoreResult {
        let seen = Arc::clone(&self.seen);
        let served = async move || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let both = |traffic: &&Traffic| traffic.reads > 0 && traffic.writes > 0 || traffic.failed > 0;
            match seen.values().filter(both).count() {
                n if n == tables => Progress::Ready(()),
                n => Progress::NotYet(format!("{n} of {tables} tables")),
            }
        };
        clerk::run(move || wait_for("the first answers to readers and writers", FIRST_LIMIT, served)).await
    }

    /// Ends the clients and gives what they saw, the statement each was waiting for included.
    pub(super) async fn stop(mut self) -> CoreResult<BTreeMap<String, Traffic>> {
        self.over.store(true, Ordering::Relaxed);
        let tasks = std::mem::take(&mut self.tasks);
        let ended = async move || match tasks.iter().filter(|task| !task.is_finished()).count() {
            0 => Progress::Ready(()),
            n => Progress::NotYet(format!("{n} wait for an answer")),
        };
        clerk::run(move || wait_for("readers and writers to end", END_LIMIT, ended)).await?;
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn client(mut session: PgConnection, table: String, is_writer: bool, seen: Seen, over: Arc<AtomicBool>) {
    let name: Vec<String> = table.splitn(2, '.').map(sql::ident).collect();
    let name = name.join(".");
    // The writer takes the lock of a writer and writes nothing.
    let text = match is_writer {
        true => format!("delete from {name} where false"),
        false => format!("select 1 from {name} limit 1"),
    };
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let done = sql::run(&mut session, "read or write under a migration", text.as_str()).await;
        let took = begun.elapsed();
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let traffic = seen.entry(table.clone()).or_default();
            let longest = if is_writer { &mut traffic.longest_write } else { &mut traffic.longest_read };
            *longest = (*longest).max(took);
            match done {
                Ok(()) if is_writer => traffic.writes += 1,
                Ok(()) => traffic.reads += 1,
                Err(error) => {
                    traffic.failed += 1;
                    traffic.last_failure = Some(error.to_string());
                }
            }
        }
        harness_core::wait::pause(THINK).await;
    }
}
