//! Schedules on a paused clock: when faults happen, what is recorded, and what shrinking leaves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::{Chaos, Schedule, Target, Targets};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::fault::{Bites, Effect, Fault};
use crate::run::Seed;

/// A target that writes down when it was broken and healed. `gone` cannot be injected, `stuck` not healed, `idle` never bites.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(String, u128)>>>);

struct Entry {
    diary: Diary,
    name: String,
    begun: Instant,
    bites: AtomicU64,
}

impl Target for Diary {
    fn fault(&self, name: &str) -> CoreResult<Arc<dyn Fault>> {
        if name == "unknown" {
            return Err(Error::new(ErrorKind::Config, "no such fault"));
        }
        let (diary, name, begun) = (self.clone(), name.to_owned(), Instant::now());
        Ok(Arc::new(Entry { diary, name, begun, bites: AtomicU64::new(0) }))
    }
}

impl Entry {
    fn write(&self, what: &str, refused_by: &str) -> CoreResult {
        self.diary.0.lock().unwrap().push((format!("{what} {}", self.name), self.begun.elapsed().as_millis()));
        match self.name == refused_by {
            true => Err(Error::new(ErrorKind::Refused, format!("it is {}", self.name))),
            false => Ok(()),
        }
    }
}

impl Fault for Entry {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn inject(&self) -> Effect<'_> {
        self.bites.store(u64::from(self.name != "idle"), Ordering::Relaxed);
        Box::pin(async { self.write("inject", "gone") })
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(async { self.write("heal", "stuck") })
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "entries")
    }
}

fn schedule(line: &str) -> Schedule {
    line.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn faults_happen_at_their_times_and_overlap() {
    let diary = Diary::default();
    let targets = Targets::new().with("it", diary.clone());
    let played = schedule("1s..4s it: long; 2s..3s it: short").play(&targets).await.unwrap();
    let entries: Vec<String> = diary.0.lock().unwrap().iter().map(|(what, at)| format!("{at} {what}")).collect();
    assert_eq!(entries, ["1000 inject long", "2000 inject short", "3000 heal short", "4000 heal long"]);
    played.check_did_bite().unwrap();
    assert_eq!(played.steps()[0].to_string(), "1000ms..4000ms it: long: injected 1 s, healed 4 s, 1 entries");
}

#[tokio::test(start_paused = true)]
async fn target_that_is_gone_is_recorded_and_the_others_go_on() {
    let diary = Diary::default();
    let targets = Targets::new().with("it", diary.clone());
    let play = async |line: &str| schedule(line).play(&targets).await.unwrap();
    let gone = play("1s..2s it: gone; 3s..4s it: there").await;
    let error = gone.check_did_bite().unwrap_err();
    assert_eq!((error.kind(), gone.steps()[1].bites.count()), (ErrorKind::NoEvidence, 1));
    assert_eq!(error.what(), "`1000ms..2000ms it: gone` was not injected: it is gone");
    let idle = play("1s..2s it: idle").await.check_did_bite().unwrap_err();
    assert_eq!(idle.what(), "the fault `1000ms..2000ms it: idle` never bit: 0 entries");
    let stuck = play("1s..2s it: stuck").await.check_did_bite().unwrap_err();
    assert_eq!(
        (stuck.kind(), stuck.what()),
        (ErrorKind::Assertion, "`1000ms..2000ms it: stuck` was not healed: it is stuck")
    );
    assert!(play("").await.outcome().is_no_evidence(), "nothing was played");
}

#[tokio::test(start_paused = true)]
async fn schedule_that_is_given_up_is_healed() {
    let diary = Diary::default();
    let targets = Targets::new().with("it", diary.clone());
    let line = schedule("1s..9s it: long");
    let _ = tokio::time::timeout(Duration::from_secs(2), line.play(&targets)).await.unwrap_err();
    let entries: Vec<String> = diary.0.lock().unwrap().iter().map(|(what, _)| what.clone()).collect();
    assert_eq!(entries, ["inject long", "heal long"]);
}

#[tokio::test]
async fn nothing_is_broken_when_a_step_has_no_target() {
    let diary = Diary::default();
    let targets = Targets::new().with("it", diary.clone());
    for (line, why) in
        [("0s..1s it: a; 1s..2s that: b", "no target has the name `that`"), ("0s..1s it: unknown", "no such")]
    {
        let error = schedule(line).play(&targets).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.what().contains(why), "{error:?}");
    }
    assert!(diary.0.lock().unwrap().is_empty());
}

#[test]
fn lines_that_are_no_schedule_are_refused() {
    for (line, why) in [
        ("soon", "is no step"),
        ("1s it: a", "is no step"),
        ("1s..2s it", "is no step"),
        ("1s..x it: a", "is not a duration"),
        ("2s..1s it: a", "ends before it begins"),
        ("1s..2s : a", "target has no name"),
        ("1s..2s it:", "fault has no name"),
    ] {
        let error = line.parse::<Schedule>().unwrap_err();
        assert!(error.what().contains(why), "{line}: {error:?}");
    }
}

#[test]
fn schedule_longer_than_the_load_is_refused_by_its_step() {
    let line = schedule("1s..2s it: a; 3s..9s it: b");
    line.check_within(Duration::from_secs(10)).unwrap();
    let error = line.check_within(Duration::from_secs(9)).unwrap_err();
    assert!(error.what().contains("3000ms..9000ms it: b"), "{error:?}");
}

fn chaos() -> Chaos {
    let secs = Duration::from_secs;
    let chaos = Chaos::within(secs(2)..secs(30)).faults(8).lasting(secs(1)..=secs(5)).at_once(2);
    ["a", "b", "c"].into_iter().fold(chaos, |chaos, target| chaos.choice(target, "x").choice(target, "y"))
}

#[test]
fn chaos_stays_within_its_bounds_and_is_replayed_from_its_line() {
    let mut lines = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let drawn = chaos().draw(Seed::new(seed)).unwrap();
        assert_eq!(drawn, chaos().draw(Seed::new(seed)).unwrap());
        assert_eq!(drawn, schedule(&drawn.to_string()), "{drawn}");
        assert_eq!(drawn.steps().len(), 8);
        for step in drawn.steps() {
            let lasts = step.until - step.at;
            assert!(step.at >= Duration::from_secs(2) && step.until <= Duration::from_secs(30), "{step}");
            assert!((1..=5).contains(&lasts.as_secs()), "{step}");
            let now = |other: &&super::Step| other.at <= step.at && step.at < other.until;
            assert!(drawn.steps().iter().filter(now).count() <= 2, "seed {seed}: {drawn}");
        }
        lines.insert(drawn.to_string());
    }
    assert_eq!(lines.len(), 200, "two seeds gave the same schedule");
}

#[test]
fn bounds_without_room_are_refused() {
    let secs = Duration::from_secs;
    for chaos in [
        Chaos::within(secs(0)..secs(10)), // nothing to choose from
        Chaos::within(secs(0)..secs(10)).choice("a", "x").lasting(secs(11)..=secs(12)), // longer than the window
        Chaos::within(secs(9)..secs(1)).choice("a", "x"), // a window that ends before it begins
        Chaos::within(secs(0)..secs(10)).choice("a", "x").faults(50), // too many for one at a time
        chaos().at_once(0),
    ] {
        assert_eq!(chaos.draw(Seed::new(1)).unwrap_err().kind(), ErrorKind::Config, "{chaos:?}");
    }
}

/// The planted defect: a system that fails when `x` of `a` lasts for 300 ms while `y` of `b` is there.
fn fails(schedule: &Schedule) -> bool {
    let find = |target: &str, fault: &str| {
        schedule
            .steps()
            .iter()
            .filter(move |step| step.target == target && step.fault == fault)
            .cloned()
            .collect::<Vec<_>>()
    };
    find("a", "x").iter().any(|x| {
        x.until - x.at >= Duration::from_millis(300) && find("b", "y").iter().any(|y| y.at < x.until && x.at < y.until)
    })
}

#[tokio::test]
async fn failing_chaos_is_shrunk_to_the_two_faults_that_matter() {
    let failing: Vec<Schedule> =
        (0..400).map(|seed| chaos().draw(Seed::new(seed)).unwrap()).filter(fails).take(10).collect();
    assert_eq!(failing.len(), 10, "the planted defect was not met");
    for schedule in failing {
        let shrunk = schedule.shrink(500, async |candidate: &Schedule| fails(candidate)).await;
        let small = &shrunk.schedule;
        assert!(shrunk.is_minimal && fails(small), "{small}");
        assert_eq!(small.steps().len(), 2, "{small}");
        let total: Duration = small.steps().iter().map(|step| step.until - step.at).sum();
        assert!(total < Duration::from_millis(700), "{small}");
    }
}

#[tokio::test]
async fn shrinking_ends_with_its_budget_and_refuses_what_does_not_fail() {
    let whole = schedule("1s..2s it: a; 3s..4s it: b");
    let shrunk = whole.shrink(3, async |candidate: &Schedule| !candidate.steps().is_empty()).await;
    assert!(shrunk.calls == 3 && !shrunk.is_minimal);
    let sound = whole.shrink(100, async |_: &Schedule| false).await;
    assert!(sound.calls == 1 && !sound.is_minimal && sound.schedule == whole);
}
