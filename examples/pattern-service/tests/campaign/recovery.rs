//! Category recovery: the database goes away under load and comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::campaign::Scenario;
use harness_core::client::{CallFailure, Http};
use harness_core::record::FindingKind;
use harness_core::slo::Measured;
use harness_core::wait::pause;
use harness_core::{CoreResult, Error, ErrorKind, Outcome, Result};
use harness_load::{Load, Marks, per_second, secs};
use harness_props::history::{Ledger, Recovered};
use serde_json::{Value, json};

use crate::world::{World, report_load};

/// Load before the fault, the fault, and load after it.
const BEFORE: Duration = Duration::from_secs(3);
const OUTAGE: Duration = Duration::from_secs(4);
const AFTER: u64 = 12;
/// Writes per second.
const WRITES: u32 = 40;
/// A call that takes longer than this during the outage hangs.
const HANG: Duration = Duration::from_secs(5);
/// Consecutive successes that count as steady.
const STEADY: usize = 20;

/// F1: records are written in an open loop while Postgres is stopped and started again.
pub(crate) async fn database_loss(cx: &mut Scenario<World>) -> Result {
    let world = cx.shared();
    let postgres = world.postgres()?;
    let history = Arc::new(History::default());
    let marks = Marks::default();
    let load = Load::open(per_second(WRITES)).hold(BEFORE + OUTAGE + secs(AFTER)).limit(HANG).marks(&marks).flow(
        "write",
        1,
        {
            let (http, history, run) = (world.http.clone(), Arc::clone(&history), world.unique()?);
            move |iteration| write(http.clone(), Arc::clone(&history), format!("{run}-{:05}", iteration.n()))
        },
    );
    let load = world.watched(load).await?;
    let fault = async {
        pause(BEFORE).await;
        marks.add("stop");
        let stopped = Instant::now();
        cx.step("stop Postgres; its port refuses", postgres.stop()).await?;
        pause(OUTAGE).await;
        marks.add("start");
        cx.step("start Postgres; it answers at the same address", postgres.start_again()).await?;
        CoreResult::Ok((stopped, Instant::now()))
    };
    let (run, fault) = tokio::join!(load.run(), fault);
    let (stopped, healed) = fault?;
    let run = run?;
    world.keep_logs(cx)?;
    report_load(cx, &run, [])?;
    let attempts = history.take();
    judge_outage(cx, &attempts, stopped, healed);
    judge_recovery(cx, &attempts, healed);
    cx.check("the service was not restarted", world.service_still_runs().await);
    judge_ledger(cx, &world, &attempts).await
}

/// What calls got while the database was away: an error of a known kind, soon.
fn judge_outage(cx: &Scenario<World>, attempts: &[Attempt], stopped: Instant, healed: Instant) {
    let during: Vec<_> = attempts.iter().filter(|a| a.sent > stopped && a.sent + HANG / 10 < healed).collect();
    let failed: Vec<_> = during.iter().filter(|attempt| attempt.end != End::Acknowledged).collect();
    if failed.is_empty() {
        cx.check("the outage was felt", Outcome::no_evidence("no call failed while the database was stopped"));
        return;
    }
    let slowest = during.iter().map(|attempt| attempt.took).max().unwrap_or_default();
    cx.metric("outage.answer.max", Measured::time(slowest, during.len() as u64));
    let typed = failed.iter().filter(|attempt| attempt.end == End::Unavailable).count();
    cx.metric("outage.typed_errors", Measured::share(typed as u64, failed.len() as u64));
    cx.check("the outage was felt", Outcome::pass(format!("{} of {} calls failed", failed.len(), during.len())));
}

/// Time from the start of the database to the first success, and to steady success.
fn judge_recovery(cx: &Scenario<World>, attempts: &[Attempt], healed: Instant) {
    let after: Vec<_> = attempts.iter().filter(|attempt| attempt.sent + attempt.took > healed).collect();
    let since = |attempt: &Attempt| (attempt.sent + attempt.took).saturating_duration_since(healed);
    let first = after.iter().find(|attempt| attempt.end == End::Acknowledged);
    match first {
        Some(attempt) => cx.metric("recovery.first_success", Measured::time(since(attempt), 1)),
        None => {
            cx.check(
                "writes succeed again without a restart",
                Outcome::fail("no write succeeded after the database was back"),
            );
            return;
        }
    }
    let steady = after.windows(STEADY).find(|window| window.iter().all(|attempt| attempt.end == End::Acknowledged));
    cx.check(
        "writes succeed again without a restart",
        match steady {
            Some(window) => {
                Outcome::pass(format!("steady {:.2} s after the database was back", since(window[0]).as_secs_f64()))
            }
            None => Outcome::fail(format!("never {STEADY} successes in a row after the database was back")),
        },
    );
}

/// Acknowledged writes against what the service has now.
async fn judge_ledger(cx: &Scenario<World>, world: &World, attempts: &[Attempt]) -> Result {
    let mut ledger = Ledger::new();
    for attempt in attempts {
        ledger.attempt(&*attempt.id, &payload(&attempt.id));
        if attempt.end == End::Acknowledged {
            ledger.acknowledge(&attempt.id);
        }
    }
    let prefix = attempts.first().and_then(|attempt| attempt.id.rsplit_once('-')).map_or("", |(prefix, _)| prefix);
    let found: Vec<Value> =
        world.http.get("/v1/records").query("prefix", prefix).await?.expect_status(200)?.at("/records")?;
    let field = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let recovered: Vec<_> =
        found.iter().map(|record| Recovered::intact(field(record, "id"), &field(record, "payload"))).collect();
    let verdict = ledger.judge(&recovered);
    cx.evidence("ledger.json", serde_json::to_vec_pretty(&json!({"ledger": ledger, "verdict": verdict}))?)?;
    let outcome = cx.check("no acknowledged record is lost, none duplicated, unknown or corrupted", verdict.outcome());
    if !verdict.lost.is_empty() {
        cx.finding(FindingKind::DataLoss, outcome.detail());
    }
    if !verdict.corrupted.is_empty() {
        cx.finding(FindingKind::Corruption, outcome.detail());
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Status 201.
    Acknowledged,
    /// The typed error the service promises for this case.
    Unavailable,
    /// Anything else, silence included.
    Other,
}

#[derive(Debug, Clone)]
struct Attempt {
    id: String,
    sent: Instant,
    took: Duration,
    end: End,
}

/// What was attempted. An attempt is entered before the call and completed after it, so that one that is cut off
/// stays as what it is: unanswered.
#[derive(Debug, Default)]
struct History(Mutex<Vec<Attempt>>);

impl History {
    fn begin(&self, id: &str) -> usize {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.push(Attempt { id: id.to_owned(), sent: Instant::now(), took: HANG, end: End::Other });
        attempts.len() - 1
    }

    fn end(&self, index: usize, end: End) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = attempts.get_mut(index) {
            (attempt.took, attempt.end) = (attempt.sent.elapsed(), end);
        }
    }

    fn take(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn payload(id: &str) -> String {
    format!("payload of {id}: what an agent learned and must not forget")
}

async fn write(http: Http, history: Arc<History>, id: String) -> CoreResult {
    let index = history.begin(&id);
    let answer = http.post("/v1/records", &json!({"id": id, "payload": payload(&id)})).within(HANG).await;
    let end = match &answer {
        Ok(answer) if answer.status() == 201 => End::Acknowledged,
        Ok(answer) if answer.status() == 503 && is_unavailable(&answer.at("/error/kind")) => End::Unavailable,
        Ok(_) | Err(_) => End::Other,
    };
    history.end(index, end);
    match end {
        End::Acknowledged => Ok(()),
        End::Unavailable => Err(Error::new(ErrorKind::Connect, "database_unavailable")),
        End::Other => Err(match answer {
            Ok(answer) => Error::new(ErrorKind::Protocol, format!("status {}", answer.status())),
            Err(error) => match CallFailure::of(&error) {
                Some(failure) if failure.timed_out => Error::new(ErrorKind::Timeout, "no answer"),
                _ => error,
            },
        }),
    }
}

fn is_unavailable(kind: &CoreResult<String>) -> bool {
    kind.as_ref().is_ok_and(|kind| kind == "database_unavailable")
}
