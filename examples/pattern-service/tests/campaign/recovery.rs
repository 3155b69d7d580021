//! Category recovery: the database goes away while records are written, and comes back. The service answers in time and by a typed
//! error meanwhile, works again without being restarted, and no acknowledged record is missing.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use harness_core::campaign::Scenario;
use harness_core::client::{Answer, Http};
use harness_core::experiment::{Call, Called, Contract, Experiment, Recovery, Reply, SharedLedger, Steady};
use harness_core::fault::{Bites, Effect, Fault, Outage};
use harness_core::slo::Measured;
use harness_core::{CoreResult, Outcome, Result};
use harness_props::history::Recovered;
use serde_json::{Value, json};

use crate::pace::Pace;
use crate::world::World;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(25);
/// A call that takes longer hangs.
pub(crate) const HANG: Duration = Duration::from_secs(5);
/// How long a call may take while the database is away.
const ANSWERED: Duration = Duration::from_secs(3);
/// How soon the service has to be steady again.
pub(crate) const AGAIN: Duration = Duration::from_secs(10);
/// The typed error the service promises while its database is away.
const UNAVAILABLE: &str = "database_unavailable";

/// F1: records are written in an open loop while Postgres is stopped and started again.
pub(crate) async fn database_loss(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let postgres = world.postgres()?;
    let experiment = Records::new(&world)?.experiment(pace).before(pace.before_outage()).broken_for(pace.outage());
    let recovery = experiment.run(Outage::stop(postgres.service())).await?;
    world.keep_logs(cx)?;
    report(cx, &world, &recovery).await?;
    let (slowest, failed, typed) = while_broken(&recovery);
    cx.metric("outage.answer.max", slowest);
    cx.metric("outage.typed_errors", Measured::share(typed, failed));
    cx.check(
        "the outage was felt",
        match failed {
            0 => Outcome::no_evidence("no call failed while the database was stopped"),
            failed => Outcome::pass(format!("{failed} calls failed")),
        },
    );
    cx.metric("recovery.first_success", first_success(&recovery));
    Ok(())
}

/// F5: Postgres is killed while records are written, and started again.
pub(crate) async fn recovery_by_itself(cx: &mut Scenario<World>) -> Result {
    let (world, pace) = (cx.shared(), Pace::of(cx));
    let experiment = Records::new(&world)?.experiment(pace).broken_for(pace.killed_for());
    let recovery = experiment.run(Outage::kill(world.postgres()?.service())).await?;
    report(cx, &world, &recovery).await?;
    cx.metric("recovery.by_itself", first_success(&recovery));
    Ok(())
}

/// Everything an experiment found, as evidence, plots and checks of a scenario.
pub(crate) async fn report(cx: &Scenario<World>, world: &World, recovery: &Recovery) -> Result {
    cx.evidence("experiment.txt", recovery.to_string())?;
    recovery.series(cx.id()).into_iter().for_each(|series| cx.series(series));
    for (question, outcome) in recovery.checks() {
        cx.check(question, outcome);
    }
    if let Some(ledger) = &recovery.ledger {
        cx.evidence("ledger.json", serde_json::to_vec_pretty(ledger)?)?;
        cx.damage(ledger);
    }
    cx.check("the service was not restarted", world.service_still_runs().await);
    Ok(())
}

fn first_success(recovery: &Recovery) -> Measured {
    let never = || Measured::nothing("no call succeeded after the database was back");
    recovery.verdict.figures.first_success.map_or_else(never, |time| Measured::time(time, 1))
}

/// The slowest call that was due while it was broken, how many failed, and how many of those by the promised error.
fn while_broken(recovery: &Recovery) -> (Measured, u64, u64) {
    let calls: Vec<&Call> = due_while_broken(recovery).collect();
    let failed = calls.iter().filter(|call| call.reply != Reply::Ok).count();
    let typed = calls.iter().filter(|call| call.reply == Reply::error(UNAVAILABLE)).count();
    (slowest(&calls), failed as u64, typed as u64)
}

pub(crate) fn due_while_broken(recovery: &Recovery) -> impl Iterator<Item = &Call> {
    let timeline = &recovery.timeline;
    let during = timeline.fault.unwrap_or(Duration::MAX)..timeline.healing.unwrap_or(Duration::MAX);
    timeline.calls.iter().filter(move |call| during.contains(&call.due))
}

pub(crate) fn slowest(calls: &[&Call]) -> Measured {
    match calls.iter().map(|call| call.latency()).max() {
        Some(slowest) => Measured::time(slowest, calls.len() as u64),
        None => Measured::nothing("nothing was called while it was broken"),
    }
}

/// Records that are written and looked for again, under a prefix of their own.
struct Records {
    http: Http,
    prefix: String,
    ledger: SharedLedger,
}

impl Records {
    fn new(world: &World) -> CoreResult<Self> {
        Ok(Self { http: world.http.clone(), prefix: world.unique()?, ledger: SharedLedger::default() })
    }

    /// Writes in an open loop, with what is promised while the database is away and afterwards.
    fn experiment(self, pace: Pace) -> Experiment {
        let (http, prefix, ledger) = (self.http.clone(), self.prefix.clone(), Arc::clone(&self.ledger));
        let write = move |number: u64| write(http.clone(), Arc::clone(&ledger), format!("{prefix}-{number:05}"));
        let (http, prefix) = (self.http, self.prefix);
        let found = move || found(http.clone(), prefix.clone());
        Experiment::new(Steady::new(pace.steady(), 95).within(Duration::from_secs(1)))
            .operation("write a record", write)
            .every(EVERY)
            .patience(HANG)
            .while_broken(Contract::within(ANSWERED).errors([UNAVAILABLE]))
            .recovers_within(AGAIN)
            .ledger(self.ledger, found)
    }
}

async fn write(http: Http, ledger: SharedLedger, id: String) -> Called {
    let payload = format!("payload of {id}: what an agent learned and must not forget");
    ledger.lock().unwrap_or_else(PoisonError::into_inner).attempt(&*id, &payload);
    let answer = http.post("/v1/records", &json!({"id": id, "payload": payload})).within(HANG).await;
    match &answer {
        Ok(answer) if answer.status() == 201 => {
            ledger.lock().unwrap_or_else(PoisonError::into_inner).acknowledge(&id);
            Called::ok()
        }
        Ok(answer) if is_unavailable(answer) => Called::error(UNAVAILABLE),
        // A success of another kind acknowledges nothing, so it is none.
        Ok(answer) => Called::error(answer.status().to_string()),
        Err(_) => Called::of(answer),
    }
}

fn is_unavailable(answer: &Answer) -> bool {
    answer.status() == 503 && answer.at::<String>("/error/kind").is_ok_and(|kind| kind == UNAVAILABLE)
}

async fn found(http: Http, prefix: String) -> CoreResult<Vec<Recovered>> {
    let found = http.get("/v1/records").query("prefix", &prefix).await?.expect_status(200)?;
    let found: Vec<Value> = found.at("/records")?;
    let field = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    Ok(found.iter().map(|one| Recovered::intact(field(one, "id"), &field(one, "payload"))).collect())
}

/// A fault that others can ask whether it is in effect: from when it is proven until it is being healed.
pub(crate) struct Told<F> {
    fault: F,
    is_broken: Arc<AtomicBool>,
}

impl<F: Fault> Told<F> {
    /// The fault, and what says whether it is in effect.
    pub(crate) fn of(fault: F) -> (Self, Arc<AtomicBool>) {
        let is_broken = Arc::new(AtomicBool::new(false));
        (Self { fault, is_broken: Arc::clone(&is_broken) }, is_broken)
    }
}

impl<F: Fault> Fault for Told<F> {
    fn name(&self) -> String {
        self.fault.name()
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(async {
            self.fault.inject().await?;
            self.is_broken.store(true, SeqCst);
            Ok(())
        })
    }

    fn heal(&self) -> Effect<'_> {
        self.is_broken.store(false, SeqCst);
        self.fault.heal()
    }

    fn bites(&self) -> Bites {
        self.fault.bites()
    }
}
