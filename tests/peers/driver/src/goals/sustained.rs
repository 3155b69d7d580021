//! A thousand tests of 1 ms: as many per second as the server makes and drops databases at its best.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stampede::is_refusal;
use crate::bare::{self, Ceiling};
use crate::child;
use crate::server::Bench;
use peers_common::{Asked, Measured, Result};

const JOBS: usize = 8;
/// What is still being dropped counts until the server has been at rest for this long.
const REST: Duration = Duration::from_secs(1);

/// Eight jobs in one process against eight loops of `CREATE DATABASE … TEMPLATE` and `DROP DATABASE`.
pub(super) async fn measure(asked: &Asked) -> Result<Vec<Measured>> {
    let mut bench = Bench::start(asked).await?;
    bare::build_template(&bench.base, crate::migrations(asked, "migrations")).await?;
    let (tests, clones) = (asked.times(1000, 24), asked.times(160, 8));
    let (mut best, mut alone, tried) = ceilings(asked, &mut bench, clones).await?;
    let (mut rounds, mut failures, mut without_drops) = (Vec::new(), Failures::default(), Vec::new());
    for _ in 0..asked.rounds() {
        bench.settle(REST).await?;
        best.0 = rate(clones, bare::cloned(&bench.base, best.1, clones, true).await?);
        bench.settle(REST).await?;
        alone.0 = rate(clones, bare::cloned(&bench.base, alone.1, clones, false).await?);
        bench.settle(REST).await?;
        let begun = Instant::now();
        failures.add(jobs(&bench, tests).await);
        let last_test = begun.elapsed();
        let dropped = last_test + bench.settle(REST).await?;
        rounds.push((rate(tests, dropped), best.0));
        without_drops.push(json!([rate(tests, last_test), alone.0]));
    }
    let processes = processes(asked, tests)?;
    bare::drop_template(&mut bench.admin).await?;
    let note = "databases per second, 8 jobs; ours until the last database is dropped, theirs the faster strategy and the \
                best of 1, 2, 4, 8 loops of clone + drop; detail: until the last test ended against clones alone";
    let lost = failures.count + processes.1.count;
    Ok(vec![
        Measured::pairs("db.sustained", "clone + drop by hand", "1/s", &rounds)
            .note(note)
            .detail("until_last_test_and_clones_alone", without_drops)
            .detail("process_per_test_per_s", processes.0)
            .detail("ceilings", tried)
            .detail("server", bench.described),
        Measured::count("db.sustained_failures", &[lost])
            .note(format!("{} tests in one process, {tests} in a process each", tests * asked.rounds()))
            .detail("too_many_clients", failures.refused + processes.1.refused)
            .detail("first", failures.first.or(processes.1.first).unwrap_or_default()),
    ])
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

type Best = (f64, Ceiling);

/// The best way to clone and drop, the best way to clone, and everything that was tried.
async fn ceilings(asked: &Asked, bench: &mut Bench, clones: usize) -> Result<(Best, Best, Value)> {
    let none = (0.0, Ceiling { strategy: "file_copy", jobs: 1 });
    let (mut best, mut tried) = ([none, none], Vec::new());
    for strategy in ["file_copy", "wal_log"] {
        for jobs in [1, 2, 4, 8].into_iter().filter(|jobs| !asked.quick || jobs % 4 == 0) {
            let how = Ceiling { strategy, jobs };
            for (best, drops) in best.iter_mut().zip([true, false]) {
                let count = (clones / 2).max(jobs);
                let found = rate(count, bare::cloned(&bench.base, how, count, drops).await?);
                tried.push(json!({"strategy": strategy, "jobs": jobs, "drops": drops, "per_s": found}));
                if found > best.0 {
                    *best = (found, how);
                }
                bench.settle(Duration::from_millis(200)).await?;
            }
        }
    }
    Ok((best[0], best[1], tried.into()))
}

/// Tests that did not get their database.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    refused: u64,
    first: Option<String>,
}

impl Failures {
    fn add(&mut self, errors: Vec<String>) {
        self.count += errors.len() as u64;
        self.refused += errors.iter().filter(|text| is_refusal(text)).count() as u64;
        self.first = self.first.take().or_else(|| errors.into_iter().next());
    }
}

/// Eight jobs in this process share the tests; what failed is said.
async fn jobs(bench: &Bench, tests: usize) -> Vec<String> {
    let (next, schema) = (Arc::new(AtomicUsize::new(0)), bench.schema);
    let running: Vec<_> = (0..JOBS)
        .map(|_| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < tests {
                    match schema.database().await {
                        Ok(db) => {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            drop(db);
                        }
                        Err(error) => failed.push(format!("{error:?}")),
                    }
                }
                failed
            })
        })
        .collect();
    let mut failed = Vec::new();
    for job in running {
        failed.extend(job.await.unwrap_or_else(|error| vec![error.to_string()]));
    }
    failed
}

/// A process for each test, eight at a time, as nextest does it: tests per second, and what failed.
fn processes(asked: &Asked, tests: usize) -> Result<(f64, Failures)> {
    let (next, dir) = (AtomicUsize::new(0), crate::migrations(asked, "migrations"));
    let begun = Instant::now();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..JOBS)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while next.fetch_add(1, Ordering::Relaxed) < tests {
                        let row = child::command(&["ours", dir]).and_then(child::row);
                        failed.extend(row.err().map(|error| error.to_string()));
                    }
                    failed
                })
            })
            .collect();
        running.into_iter().flat_map(|job| job.join().unwrap_or_else(|_| vec!["a job died".to_owned()])).collect()
    });
    let took = begun.elapsed();
    let mut failures = Failures::default();
    failures.add(errors);
    Ok((rate(tests, took), failures))
}
