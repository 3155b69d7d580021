//! What a running scenario holds in its hand.

use std::borrow::Borrow;
use std::fmt::Display;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness_props::{DataVerdict, Outcome};

use super::preflight::masked;
use super::session::{Session, lock};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::record::{CriterionRecord, Event, Finding, FindingKind, ScenarioRecord, SeriesRecord, StepRecord};
use crate::run::SeedStream;
use crate::slo::{Measured, Threshold};
use crate::watchdog::Parties;

/// What a scenario has said so far; survives the scenario being cut.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) criteria: Vec<CriterionRecord>,
    pub(super) metrics: Vec<(String, Measured)>,
    pub(super) checks: Vec<Outcome>,
    pub(super) findings: Vec<Finding>,
}

/// A running scenario: its context, its seed, and everything it reports.
///
/// The scenario's outcome is the worst of its criteria, its checks and the `Result` it returns. A scenario that judged
/// nothing has no evidence, however happily it returned.
pub struct Scenario<C = ()> {
    context: Arc<C>,
    session: Arc<Session>,
    record: ScenarioRecord,
    declared: Vec<Threshold>,
    said: Arc<Mutex<Said>>,
    parties: Parties,
}

impl<C> std::fmt::Debug for Scenario<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario").field("id", &self.record.id).finish_non_exhaustive()
    }
}

impl<C> Scenario<C> {
    pub(super) fn new(
        context: Arc<C>,
        session: Arc<Session>,
        record: ScenarioRecord,
        declared: Vec<Threshold>,
        said: Arc<Mutex<Said>>,
        parties: Parties,
    ) -> Self {
        Self { context, session, record, declared, said, parties }
    }

    /// Who takes part: workers and clients [join](Parties::join) and say what they are at. A scenario that is killed at its limit
    /// shows what each was at.
    #[must_use]
    pub fn parties(&self) -> Parties {
        self.parties.clone()
    }

    /// The campaign's environment: servers, the system under test, clients.
    #[must_use]
    pub fn context(&self) -> &C {
        &self.context
    }

    /// The environment, to be moved into tasks.
    #[must_use]
    pub fn shared(&self) -> Arc<C> {
        Arc::clone(&self.context)
    }

    /// The scenario's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Random numbers that depend on the run's seed, the scenario and the label only.
    #[must_use]
    pub fn random(&self, label: &str) -> SeedStream {
        self.session.setup.seed().stream(&format!("{}/{label}", self.record.id))
    }

    /// The settings profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        self.session.setup.profile()
    }

    /// How long to measure: what `--duration` says, else this.
    #[must_use]
    pub fn duration(&self, otherwise: Duration) -> Duration {
        self.session.setup.duration().unwrap_or(otherwise)
    }

    /// Names of planted defects.
    #[must_use]
    pub fn plants(&self) -> &[String] {
        self.session.setup.plants()
    }

    /// Reports a metric. It feeds the scenario's declared criteria and the rows of the release matrix of that name.
    pub fn metric(&self, name: &str, measured: impl Into<Measured>) {
        // JSON has no infinity: said as what it is, no evidence.
        let measured = match measured.into() {
            Measured::Value { value, .. } if !value.is_finite() => Measured::nothing(format!("the value is {value}")),
            measured => measured,
        };
        self.session.record(Event::Metric {
            scenario: self.record.id.clone(),
            name: name.to_owned(),
            measured: measured.clone(),
        });
        lock(&self.said).metrics.push((name.to_owned(), measured.clone()));
        for threshold in self.declared.iter().filter(|threshold| threshold.metric() == name) {
            self.judge(threshold, &measured);
        }
    }

    /// Reports durations in nanoseconds as `<name>.mean`, `<name>.p50`, `<name>.p95` and `<name>.p99`.
    pub fn durations(&self, name: &str, nanos: &[u64]) {
        let mut sorted = nanos.to_vec();
        sorted.sort_unstable();
        self.metric(&format!("{name}.mean"), Measured::mean(&sorted));
        for (quantile, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            self.metric(&format!("{name}.{quantile}"), Measured::quantile(q, &sorted));
        }
    }

    /// Judges a measured value by a threshold on the spot, and reports it as a metric too.
    pub fn criterion(&self, threshold: impl Borrow<Threshold>, measured: impl Into<Measured>) -> Outcome {
        let (threshold, measured) = (threshold.borrow(), measured.into());
        let outcome = self.judge(threshold, &measured);
        self.metric(threshold.metric(), measured);
        outcome
    }

    fn judge(&self, threshold: &Threshold, measured: &Measured) -> Outcome {
        let record = threshold.record(&self.record.id, measured);
        let outcome = record.outcome.clone();
        if outcome.is_fail() {
            crate::scope::mark_failed();
        }
        self.session.record(Event::Criterion(record.clone()));
        lock(&self.said).criteria.push(record);
        outcome
    }

    /// Adds the conclusion of a check to the scenario's own; returns it.
    pub fn check(&self, label: &str, outcome: impl Borrow<Outcome>) -> Outcome {
        let outcome = masked(outcome.borrow());
        if outcome.is_fail() {
            crate::scope::mark_failed();
        }
        self.record_step(label, 0.0, outcome.clone());
        lock(&self.said).checks.push(outcome.clone());
        outcome
    }

    /// Does a part of the scenario under a label, with its time and result in the report. Steps judge nothing: an
    /// error counts when the scenario returns it.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn step<T, E: Display>(&self, label: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let result = work.await;
        let outcome = match &result {
            Ok(_) => Outcome::pass("done"),
            Err(error) => masked(&Outcome::fail(error.to_string())),
        };
        self.record_step(label, begun.elapsed().as_secs_f64() * 1e3, outcome);
        result
    }

    fn record_step(&self, label: &str, took_ms: f64, outcome: Outcome) {
        self.session.record(Event::Step(StepRecord {
            scenario: self.record.id.clone(),
            label: label.to_owned(),
            took_ms,
            outcome,
        }));
    }

    /// Reports a series to plot; its scenario is filled in.
    pub fn series(&self, series: SeriesRecord) {
        self.session.record(Event::Series(SeriesRecord { scenario: self.record.id.clone(), ..series }));
    }

    /// Keeps bytes as evidence; returns where they are.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] when the file cannot be written, [`crate::ErrorKind::Config`] for an unusable name.
    pub fn evidence(&self, name: &str, bytes: impl AsRef<[u8]>) -> CoreResult<PathBuf> {
        self.session.keep(&self.record.id, name, bytes.as_ref())
    }

    /// Keeps a copy of a file as evidence, for example the log of a service that ends with the scenario.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] when it cannot be read or copied.
    pub fn evidence_file(&self, path: impl AsRef<Path>) -> CoreResult<PathBuf> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not read {} to keep it as evidence", path.display()))
                .caused_by(error)
        })?;
        self.evidence(&path.file_name().unwrap_or_default().to_string_lossy(), bytes)
    }

    /// Records the answer to a question about data, like [`Scenario::check`]; data that is lost or damaged goes on record as
    /// a finding too, so that the decision is NO-GO whatever the scenario weighs.
    pub fn verdict(&self, label: &str, verdict: &impl DataVerdict) -> Outcome {
        self.damage(verdict);
        self.check(label, verdict.outcome())
    }

    /// Puts on record what a verdict says of lost or damaged data; without either it says nothing.
    pub fn damage(&self, verdict: &impl DataVerdict) {
        let kinds =
            [(FindingKind::DataLoss, verdict.is_data_loss()), (FindingKind::Corruption, verdict.is_corruption())];
        for (kind, _) in kinds.into_iter().filter(|(_, is_there)| *is_there) {
            self.finding(kind, verdict.outcome().detail());
        }
    }

    /// Records a finding. Its kind gives its severity: data loss, corruption, security and crashes forbid a release.
    pub fn finding(&self, kind: FindingKind, text: &str) {
        let text = super::mask::mask_secrets(text);
        let finding = Finding { kind, found_by: self.record.id.clone(), text };
        self.session.record(Event::Finding(finding.clone()));
        lock(&self.said).findings.push(finding);
    }

    /// Says for every declared criterion that got no metric that there is no evidence.
    pub(super) fn close(declared: &[Threshold], said: &Mutex<Said>, session: &Session, id: &str) {
        let missing: Vec<_> = {
            let said = lock(said);
            let reported = |threshold: &&Threshold| said.metrics.iter().any(|(name, _)| name == threshold.metric());
            declared.iter().filter(|threshold| !reported(threshold)).collect()
        };
        for threshold in missing {
            let record = threshold.record(id, &Measured::nothing("the scenario did not report this metric"));
            session.record(Event::Criterion(record.clone()));
            lock(said).criteria.push(record);
        }
    }
}
