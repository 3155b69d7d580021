//! Probes before the first scenario: in parallel, each in bounded time, every failure at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness_props::Outcome;

use super::isolate::{End, LocalFuture, isolated};
use super::mask::mask_secrets;
use crate::record::PreflightRecord;

/// No probe may take longer, whatever limit it asks for.
const LONGEST: Duration = Duration::from_secs(300);

trait Body: Send + Sync {
    fn run(&self) -> LocalFuture<'_, Outcome>;
}

impl<F: AsyncFn() -> Outcome + Send + Sync> Body for F {
    fn run(&self) -> LocalFuture<'_, Outcome> {
        Box::pin(self())
    }
}

/// One thing that must be right before anything starts.
#[must_use = "a probe does nothing until a campaign runs it"]
#[derive(Clone)]
pub struct Probe {
    name: String,
    requirement: String,
    remedy: String,
    limit: Duration,
    advisory: bool,
    body: Arc<dyn Body>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("name", &self.name).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Probe {
    /// A probe with a limit of 2 s. Its outcome is masked before anybody sees it.
    pub fn new(name: impl Into<String>, body: impl AsyncFn() -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            requirement: String::new(),
            remedy: String::new(),
            limit: Duration::from_secs(2),
            advisory: false,
            body: Arc::new(body),
        }
    }

    /// The requirement it answers.
    pub fn requirement(mut self, id: impl Into<String>) -> Self {
        self.requirement = id.into();
        self
    }

    /// What to do when it fails.
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = text.into();
        self
    }

    /// How long it may take; at most 5 minutes.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Where it has no evidence, or takes longer than its limit, the run goes on all the same, and pre-flight alone ends as degraded; a failure stops the run like
    /// that of any other probe.
    pub fn advisory(mut self) -> Self {
        self.advisory = true;
        self
    }

    async fn run(self) -> PreflightRecord {
        let (begun, limit, body) = (Instant::now(), self.limit.min(LONGEST), self.body);
        let end = isolated(&self.name, limit, || {}, || {}, move || Box::pin(async move { body.run().await })).await;
        let outcome = match end {
            End::Done(outcome) => outcome,
            End::Panicked(message) => Outcome::fail(format!("the probe panicked: {message}")),
            End::Cut | End::Stuck if self.advisory => Outcome::no_evidence(format!("no answer within {limit:?}")),
            End::Cut => Outcome::fail(format!("no answer within {limit:?}")),
            End::Stuck => Outcome::fail(format!("no answer within {limit:?}; it blocks its thread")),
        };
        PreflightRecord {
            probe: self.name,
            requirement: self.requirement,
            outcome: masked(&outcome),
            remedy: self.remedy,
            took_ms: begun.elapsed().as_secs_f64() * 1e3,
            advisory: self.advisory,
        }
    }
}

/// The same conclusion without a secret in its text.
pub(super) fn masked(outcome: &Outcome) -> Outcome {
    let text = mask_secrets(outcome.detail());
    match outcome {
        Outcome::Pass { .. } => Outcome::pass(text),
        Outcome::Degraded { .. } => Outcome::degraded(text),
        Outcome::Fail { .. } => Outcome::fail(text),
        Outcome::NoEvidence { .. } => Outcome::no_evidence(text),
        Outcome::NotApplicable { .. } => Outcome::not_applicable(text),
    }
}

/// Runs all probes at once and returns their records in the order given. Takes no longer than the longest limit and a
/// second.
pub async fn preflight(probes: Vec<Probe>) -> Vec<PreflightRecord> {
    join_all(probes.into_iter().map(Probe::run)).await
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use harness_props::Outcome;

    use super::{Probe, preflight};
    use crate::record::PreflightRecord;

    #[tokio::test]
    async fn reports_every_probe_at_once_and_names_the_ones_it_cut() {
        let begun = Instant::now();
        let hang = |name: &str| {
            let probe = Probe::new(name, async || std::future::pending().await).limit(Duration::from_millis(200));
            probe.remedy("start it").requirement("R-1")
        };
        let records = preflight(vec![
            Probe::new("version", async || Outcome::pass("16.1 at postgres://u:hunter2@127.0.0.1/x_test")),
            hang("redis"),
            Probe::new("extension", async || Outcome::fail("vector is missing")),
            Probe::new("broken", async || panic!("oops")),
            hang("model"),
        ])
        .await;
        assert!(begun.elapsed() < Duration::from_millis(1_400), "in parallel: {:?}", begun.elapsed());
        let shown: Vec<_> = records.iter().map(|r| format!("{} {}", r.probe, r.outcome)).collect();
        assert_eq!(
            shown,
            [
                "version pass: 16.1 at postgres://u:***@127.0.0.1/x_test",
                "redis fail: no answer within 200ms",
                "extension fail: vector is missing",
                "broken fail: the probe panicked: oops",
                "model fail: no answer within 200ms",
            ]
        );
        assert_eq!((records[1].requirement.as_str(), records[1].remedy.as_str()), ("R-1", "start it"));
    }

    #[tokio::test]
    async fn missing_evidence_stops_unless_the_probe_only_advises_and_a_failure_always_does() {
        let missing = || Probe::new("lints", async || Outcome::no_evidence("no record"));
        let failed = Probe::new("lints", async || Outcome::fail("a warning"));
        let slow = Probe::new("lints", async || std::future::pending().await).limit(Duration::from_millis(50));
        let records = preflight(vec![missing(), missing().advisory(), slow.advisory(), failed.advisory()]).await;
        assert_eq!(records.iter().map(PreflightRecord::stops).collect::<Vec<_>>(), [true, false, false, true]);
        assert!(records[1..3].iter().all(|record| record.outcome.is_no_evidence()), "and it is no pass");
    }

    #[tokio::test]
    async fn a_probe_that_blocks_its_thread_delays_nobody() {
        let blocked = Probe::new("blocked", async || {
            loop {
                std::thread::park();
            }
        });
        let begun = Instant::now();
        let records =
            preflight(vec![blocked.limit(Duration::from_millis(50)), Probe::new("fine", async || Outcome::pass("ok"))])
                .await;
        assert!(records[0].outcome.is_fail() && records[1].outcome.is_pass());
        assert!(records[1].took_ms < 1_000.0 && begun.elapsed() < Duration::from_secs(3));
    }
}
