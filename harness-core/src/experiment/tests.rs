//! A simulated system on virtual time: one that keeps everything, and a defect for each question.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use harness_props::history::{Ledger, Recovered};
use tokio::time::Instant;

use super::{Called, Contract, Experiment, Recovery, SharedLedger, Steady};
use crate::ErrorKind;
use crate::fault::{Bites, Effect, Fault};
use crate::wait::pause;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    FaultDoesNotBite,
    UnsteadyBefore,
    HangsWhileBroken,
    UndeclaredError,
    ReadsFailToo,
    NeverComesBack,
    ComesBackLate,
    LosesAnAcknowledgedWrite,
    KeepsItsBacklog,
    Stalls,
}

/// An order service with a store that can break; it notices 200 ms after the store is back.
struct World {
    defect: Defect,
    broken: AtomicBool,
    back: Mutex<Option<Instant>>,
    bites: AtomicU64,
    waiting: AtomicU64,
    ledger: SharedLedger,
    stored: Mutex<Vec<Recovered>>,
}

impl Fault for World {
    fn name(&self) -> String {
        "the store is off".to_owned()
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(async {
            self.broken.store(self.defect != Defect::FaultDoesNotBite, SeqCst);
            Ok(())
        })
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(async {
            let pause = match self.defect {
                Defect::NeverComesBack => ms(1_000_000),
                Defect::ComesBackLate => ms(700),
                _ => ms(200),
            };
            *self.back.lock().unwrap() = Some(Instant::now() + pause);
            Ok(())
        })
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(SeqCst), "writes refused")
    }
}

impl World {
    fn new(defect: Defect) -> Arc<Self> {
        Arc::new(Self {
            defect,
            broken: AtomicBool::new(false),
            back: Mutex::default(),
            bites: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            ledger: Arc::default(),
            stored: Mutex::default(),
        })
    }

    fn is_down(&self) -> bool {
        let is_back = self.back.lock().unwrap().is_some_and(|back| Instant::now() >= back);
        self.broken.load(SeqCst) && !is_back
    }

    async fn put(self: Arc<Self>, number: u64) -> Called {
        let id = format!("order-{number}");
        self.ledger.lock().unwrap().attempt(id.clone(), "apples");
        pause(ms(2)).await;
        let is_unsteady = self.defect == Defect::UnsteadyBefore && number.is_multiple_of(10);
        if is_unsteady || self.is_down() {
            self.bites.fetch_add(1, SeqCst);
            self.waiting.fetch_add(1, SeqCst);
            match self.defect {
                Defect::HangsWhileBroken if number.is_multiple_of(50) => std::future::pending().await,
                Defect::UndeclaredError => return Called::error("500"),
                Defect::LosesAnAcknowledgedWrite if self.bites.load(SeqCst) == 3 => {
                    self.ledger.lock().unwrap().acknowledge(&id);
                    return Called::ok();
                }
                _ => return Called::error("503").retries(1),
            }
        }
        if self.defect != Defect::KeepsItsBacklog {
            self.waiting.store(0, SeqCst);
        }
        self.stored.lock().unwrap().push(Recovered::intact(&id, "apples"));
        self.ledger.lock().unwrap().acknowledge(&id);
        Called::ok()
    }

    async fn get(self: Arc<Self>) -> Called {
        pause(ms(1)).await;
        if self.defect == Defect::ReadsFailToo && self.is_down() { Called::error("503") } else { Called::ok() }
    }
}

async fn run(defect: Defect) -> Recovery {
    let world = World::new(defect);
    let (putting, getting, waiting, reading) = (world.clone(), world.clone(), world.clone(), world.clone());
    let experiment = Experiment::new(Steady::new(ms(400), 99).within(ms(50)))
        .operation("put", move |number| putting.clone().put(number))
        .operation("get", move |_| getting.clone().get())
        .every(ms(10))
        .broken_for(ms(500))
        .patience(ms(300))
        .at_most(if defect == Defect::Stalls { 1 } else { 100 })
        .while_broken(Contract::within(ms(100)).errors(["503"]).still("get"))
        .recovers_within(ms(500))
        .backlog(move || std::future::ready(Ok(waiting.waiting.load(SeqCst))))
        .ledger(world.ledger.clone(), move || std::future::ready(Ok(reading.stored.lock().unwrap().clone())));
    let experiment = if defect == Defect::Stalls { experiment.every(ms(1)) } else { experiment };
    experiment.run(world).await.unwrap_or_else(|error| panic!("{defect:?}: {error:?}"))
}

#[tokio::test(start_paused = true)]
async fn recovery_of_a_good_system_is_measured_and_passes() {
    let recovery = run(Defect::None).await;
    recovery.check().unwrap();
    let figures = &recovery.verdict.figures;
    assert!(figures.detect.is_some_and(|detect| detect <= ms(30)), "{recovery}");
    assert!(figures.downtime >= ms(680) && figures.downtime <= ms(720), "{recovery}");
    assert!(figures.steady.is_some_and(|steady| steady >= ms(180) && steady <= ms(220)), "{recovery}");
    assert!(figures.first_success.is_some_and(|first| first >= ms(200) && first <= ms(230)), "{recovery}");
    assert_eq!((figures.hung, figures.retries), (0, figures.failed as u64));
    assert!(figures.backlog > 20 && figures.drained.is_some(), "{recovery}");
    assert!(recovery.ledger.as_ref().is_some_and(|ledger| ledger.acknowledged > 50));
    let text = recovery.to_string();
    assert!(text.starts_with("the store is off: ") && text.contains("figures    noticed "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn each_defect_turns_exactly_its_question_red() {
    for (defect, question, kind) in [
        (Defect::HangsWhileBroken, "kept its contract while broken", ErrorKind::Assertion),
        (Defect::UndeclaredError, "kept its contract while broken", ErrorKind::Assertion),
        (Defect::ReadsFailToo, "kept its contract while broken", ErrorKind::Assertion),
        (Defect::ComesBackLate, "steady again in time", ErrorKind::Assertion),
        (Defect::LosesAnAcknowledgedWrite, "no acknowledged write is lost", ErrorKind::Assertion),
        (Defect::KeepsItsBacklog, "worked off what had piled up", ErrorKind::Assertion),
        (Defect::FaultDoesNotBite, "the fault bit", ErrorKind::NoEvidence),
    ] {
        let recovery = run(defect).await;
        let red: Vec<_> = recovery
            .checks()
            .into_iter()
            .filter(|(_, outcome)| outcome.is_fail() || outcome.is_no_evidence())
            .map(|(question, _)| question)
            .collect();
        assert_eq!(red, [question], "{defect:?}: {recovery}");
        assert_eq!(recovery.check().unwrap_err().kind(), kind, "{defect:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn system_that_never_comes_back_is_given_up_in_bounded_time() {
    let begun = Instant::now();
    let recovery = run(Defect::NeverComesBack).await;
    assert!(recovery.verdict.after.is_fail() && recovery.verdict.drained.is_fail(), "{recovery}");
    assert!(recovery.verdict.during.is_pass() && recovery.verdict.figures.steady.is_none(), "{recovery}");
    assert!(begun.elapsed() < ms(3_000), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn system_that_is_unsteady_before_is_not_broken_at_all() {
    let recovery = run(Defect::UnsteadyBefore).await;
    assert!(recovery.bites.is_none() && recovery.timeline.fault.is_none(), "{recovery}");
    assert!(recovery.verdict.before.is_no_evidence() && recovery.outcome().is_no_evidence(), "{recovery}");
    assert_eq!(recovery.check().unwrap_err().kind(), ErrorKind::NoEvidence);
}

#[tokio::test(start_paused = true)]
async fn calls_that_could_not_be_sent_leave_no_evidence() {
    let recovery = run(Defect::Stalls).await;
    assert!(recovery.sender.is_no_evidence(), "{recovery}");
}

#[tokio::test(start_paused = true)]
async fn plots_show_each_operation_with_the_time_it_was_broken_as_a_band() {
    let recovery = run(Defect::None).await;
    let series = recovery.series("F1");
    let drawn: Vec<_> = series.iter().map(|one| (one.plot.as_str(), one.name.as_str(), one.unit.as_str())).collect();
    let (slow, errors) = ("slowest call over time", "errors over time");
    assert_eq!(drawn, [(slow, "get", "ms"), (slow, "put", "ms"), (errors, "get", "/s"), (errors, "put", "/s")]);
    let (fault, healed) = (recovery.timeline.fault.unwrap(), recovery.timeline.healed.unwrap());
    let band = [(fault.as_secs_f64(), "broken".to_owned()), (healed.as_secs_f64(), "healed".to_owned())];
    assert!(series.iter().all(|one| one.scenario == "F1" && one.marks == band), "{series:?}");
    assert!(series.iter().all(|one| one.points.is_sorted_by(|a, b| a.0 < b.0) && !one.points.is_empty()));
    // The rates add up to what failed, all of it after the fault.
    let failed = |at: usize| series[at].points.iter().map(|(_, rate)| rate * 0.1).sum::<f64>();
    assert!(failed(2).abs() < 1e-9 && (failed(3) - recovery.verdict.figures.failed as f64).abs() < 1e-6, "{series:?}");
    let early = series[3].points.iter().filter(|(at, rate)| *rate > 0.0 && *at + 0.1 < fault.as_secs_f64());
    assert_eq!(early.count(), 0);
    assert!(series[1].points.iter().all(|(_, ms)| (2.0..=4.0).contains(ms)), "{series:?}");
}

#[tokio::test(start_paused = true)]
async fn plots_of_what_was_never_broken_have_no_band() {
    let recovery = run(Defect::UnsteadyBefore).await;
    assert!(recovery.series("F1").iter().all(|one| one.marks.is_empty()));
}

#[tokio::test]
async fn experiment_without_operations_is_refused() {
    let experiment = Experiment::new(Steady::new(ms(100), 99));
    let error = experiment.run(World::new(Defect::None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(Ledger::new().judge(&[]).outcome().is_no_evidence());
}
