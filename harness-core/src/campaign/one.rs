//! Runs one scenario to its end, whatever it does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness_props::Outcome;

use super::isolate::{End, isolated};
use super::plan::Planned;
use super::preflight::masked;
use super::progress::clock;
use super::scenario::{Said, Scenario};
use super::session::{Session, lock};
use super::{mask, turn};
use crate::error::{ErrorKind, Failure};
use crate::record::{CriterionRecord, Event, Finding, ScenarioRecord};
use crate::slo::{CriterionResult, Measured, ScenarioResult};
use crate::watchdog::Parties;

/// How long a scenario may wait for its turn on the machine.
const TURN: Duration = Duration::from_secs(3_600);

/// A scenario after it ran.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) record: ScenarioRecord,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    /// The failure in full; empty on a pass.
    pub(super) message: String,
    pub(super) criteria: Vec<CriterionRecord>,
    pub(super) metrics: Vec<(String, Measured)>,
    pub(super) findings: Vec<Finding>,
    /// It came to an end of its own, or was cut; false for what did not run.
    pub(super) has_ended: bool,
    /// The evidence is missing because the machine lacks something, not because the scenario is wrong.
    environmental: bool,
    /// A load run in which the generator was the limit.
    invalid: bool,
}

impl Finished {
    /// A planned scenario that did not run.
    pub(super) fn not_run(record: ScenarioRecord, why: &str) -> Self {
        Self {
            record,
            outcome: Outcome::no_evidence(format!("did not run: {why}")),
            took: Duration::ZERO,
            message: String::new(),
            criteria: Vec::new(),
            metrics: Vec::new(),
            findings: Vec::new(),
            has_ended: false,
            environmental: true,
            invalid: false,
        }
    }

    /// True if plain `cargo test` must fail: something is beyond critical, or the scenario proves nothing although the
    /// machine has what it needs.
    pub(super) fn fails_plain_test(&self) -> bool {
        self.outcome.is_fail()
            || (self.outcome.is_no_evidence() && (self.record.critical || !self.environmental))
            || self.criteria.iter().any(|criterion| criterion.is_critical && criterion.outcome.is_no_evidence())
            || self.findings.iter().any(|finding| finding.kind.severity().blocks())
    }

    /// What the decision needs to know.
    pub(super) fn result(&self) -> ScenarioResult {
        ScenarioResult {
            id: self.record.id.clone(),
            category: self.record.category.clone(),
            critical: self.record.critical,
            outcome: self.outcome.clone(),
        }
    }

    /// Its criteria as the decision sees them.
    pub(super) fn criterion_results(&self) -> impl Iterator<Item = CriterionResult> {
        self.criteria.iter().map(|criterion| CriterionResult {
            name: format!("{} {}", self.record.id, criterion.metric),
            critical: criterion.is_critical,
            outcome: criterion.outcome.clone(),
        })
    }
}

/// Runs scenarios side by side, each for at most its limit, in one turn: it is exclusive if one of them is.
pub(super) async fn run<C: Send + Sync + 'static>(
    session: &Arc<Session>,
    context: &Arc<C>,
    batch: &[&Planned<C>],
    limits: &[Duration],
    tick: &mut dyn FnMut(),
) -> Vec<Finished> {
    let turn = match turn::take(batch.iter().any(|planned| planned.exclusive), TURN).await {
        Ok(turn) => turn,
        Err(error) => {
            let why = format!("no turn on this machine: {error:?}");
            let not_run = |planned: &&Planned<C>| {
                session.record(Event::ScenarioNotRun { scenario: planned.record.clone(), why: why.clone() });
                Finished::not_run(planned.record.clone(), &why)
            };
            return batch.iter().map(not_run).collect();
        }
    };
    // One of them keeps the time for all.
    let mut tick = Some(tick);
    let runs = batch.iter().zip(limits).map(|(planned, limit)| {
        let mut tick = tick.take();
        async move {
            let mut tick = || tick.iter_mut().for_each(|tick| tick());
            in_turn(session, context, planned, *limit, &mut tick).await
        }
    });
    let finished = join_all(runs).await;
    drop(turn);
    finished
}

/// Runs a scenario for at most `limit`. A load run that was invalid, because the generator was the limit, is repeated
/// once; both tries are in the record.
async fn in_turn<C: Send + Sync + 'static>(
    session: &Arc<Session>,
    context: &Arc<C>,
    planned: &Planned<C>,
    limit: Duration,
    tick: &mut dyn FnMut(),
) -> Finished {
    let begun = Instant::now();
    let mut finished = attempt(session, context, planned, limit, tick).await;
    let left = limit.saturating_sub(begun.elapsed());
    if finished.invalid && finished.outcome.is_no_evidence() && !left.is_zero() {
        finished = attempt(session, context, planned, left, tick).await;
    }
    finished
}

async fn attempt<C: Send + Sync + 'static>(
    session: &Arc<Session>,
    context: &Arc<C>,
    planned: &Planned<C>,
    limit: Duration,
    tick: &mut dyn FnMut(),
) -> Finished {
    let (record, said) = (planned.record.clone(), Arc::new(Mutex::new(Said::default())));
    session.record(Event::ScenarioStarted(record.clone()));
    let (begun, parties) = (Instant::now(), Parties::new());
    let mut cx = Scenario::new(
        Arc::clone(context),
        Arc::clone(session),
        record.clone(),
        planned.criteria.clone(),
        Arc::clone(&said),
        parties.clone(),
    );
    let body = Arc::clone(&planned.body);
    let work = move || -> super::isolate::LocalFuture<'static, _> {
        Box::pin(async move { body.run(&mut cx).await.map_err(Ended::from) })
    };
    // Whoever is cut leaves the parties while it is dropped: what it was at is asked for before.
    let (was_at, everybody) = (Arc::<Mutex<Vec<String>>>::default(), parties.clone());
    let noted = Arc::clone(&was_at);
    let at_limit = move || *lock(&noted) = everybody.dump();
    let end = isolated(&planned.name, limit, tick, at_limit, work).await;
    let took = begun.elapsed();
    let ended = match end {
        End::Done(Ok(())) => None,
        End::Done(Err(ended)) => Some(ended),
        End::Panicked(message) => Some(Ended::fail(format!("panicked: {message}"))),
        End::Cut => Some(Ended::killed(format!("killed at its limit of {}", clock(limit)), &lock(&was_at))),
        End::Stuck => {
            let limit = clock(limit);
            let what = format!("killed at its limit of {limit}; it blocks its thread, which was left behind");
            Some(Ended::killed(what, &parties.dump()))
        }
    };
    Scenario::<C>::close(&planned.criteria, &said, session, &record.id);
    let said = std::mem::take(&mut *lock(&said));
    finish(session, record, said, ended, took)
}

/// An error a scenario ended with, reduced to what outlives its thread.
struct Ended {
    outcome: Outcome,
    full: String,
    environmental: bool,
    invalid: bool,
}

impl Ended {
    fn fail(text: String) -> Self {
        Self { outcome: Outcome::fail(&text), full: text, environmental: false, invalid: false }
    }

    /// A failure with what each party was at.
    fn killed(text: String, was_at: &[String]) -> Self {
        let full = was_at.iter().fold(text.clone(), |text, line| format!("{text}\n  at         {line}"));
        Self { full, ..Self::fail(text) }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        let kind = failure.harness().map(crate::Error::kind);
        let full = mask::mask_secrets(&format!("{failure:?}"));
        let first = mask::mask_secrets(&failure.to_string());
        let outcome = match kind {
            Some(ErrorKind::Environment | ErrorKind::NoEvidence) => Outcome::no_evidence(first),
            _ => Outcome::fail(first),
        };
        let invalid = kind == Some(ErrorKind::NoEvidence) && first_word(&full) == "invalid:";
        Self { outcome, full, environmental: kind == Some(ErrorKind::Environment), invalid }
    }
}

fn finish(session: &Session, record: ScenarioRecord, said: Said, ended: Option<Ended>, took: Duration) -> Finished {
    let judged = said.criteria.iter().map(|criterion| criterion.outcome.clone()).chain(said.checks.iter().cloned());
    // How it ended comes first: of equally bad conclusions it is the cause, and criteria without a metric follow.
    let outcomes: Vec<_> = ended.iter().map(|ended| ended.outcome.clone()).chain(judged).collect();
    let outcome = match outcomes.is_empty() {
        true => Outcome::no_evidence("the scenario checked nothing"),
        false => masked(&Outcome::worst(outcomes.iter().cloned())),
    };
    let bad = !matches!(outcome, Outcome::Pass { .. } | Outcome::NotApplicable { .. });
    let message = if bad { message(&outcome, &outcomes, ended.as_ref()) } else { String::new() };
    session.record(Event::ScenarioFinished {
        id: record.id.clone(),
        outcome: outcome.clone(),
        took_ms: took.as_secs_f64() * 1e3,
        message: message.clone(),
        again: session.again(&record.id),
    });
    Finished {
        record,
        outcome,
        took,
        message,
        criteria: said.criteria,
        metrics: said.metrics,
        findings: said.findings,
        has_ended: true,
        environmental: ended.as_ref().is_some_and(|ended| ended.environmental),
        invalid: ended.is_some_and(|ended| ended.invalid),
    }
}

/// The worst conclusion first, in full, then the others that are not good.
fn message(worst: &Outcome, outcomes: &[Outcome], ended: Option<&Ended>) -> String {
    let mut lines = Vec::new();
    match ended {
        Some(ended) if ended.outcome.detail() == worst.detail() => lines.push(ended.full.clone()),
        Some(ended) => lines.extend([worst.detail().to_owned(), format!("  ended      {}", indent(&ended.full))]),
        None => lines.push(worst.detail().to_owned()),
    }
    let mut seen = BTreeSet::from([worst.detail()]);
    seen.extend(ended.map(|ended| ended.outcome.detail()));
    for other in outcomes.iter().filter(|outcome| !outcome.is_pass()) {
        if seen.insert(other.detail()) {
            lines.push(format!("  {:<10} {}", other.word(), indent(other.detail())));
        }
    }
    lines.join("\n")
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n             ")
}

/// The failure as people read it.
pub(super) fn failure_text(session: &Session, finished: &Finished) -> String {
    let record = &finished.record;
    let word = match &finished.outcome {
        Outcome::Fail { .. } => "failed",
        Outcome::Degraded { .. } => "is degraded",
        _ => "has no evidence",
    };
    let mut text = format!("scenario {} \"{}\" {word}: {}", record.id, record.title, finished.message);
    text.push_str(&format!("\n  expected   {}\n  remedy     {}", record.expectation, record.remedy));
    let dir = session.evidence_dir(&record.id);
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    files.sort();
    if !files.is_empty() {
        let files: Vec<_> = files.iter().map(|name| name.to_string_lossy()).collect();
        text.push_str(&format!("\n  evidence   {}/   ({})", dir.display(), files.join(", ")));
    }
    text.push_str(&format!("\n  again      {}", session.again(&record.id)));
    text
}
