//! Planted delays of each kind, on a clock that only moves when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness_core::ErrorKind;

use super::{Advice, Attribution, Class, Overlap, Span, Stages};
use crate::units::millis;

/// A virtual clock and stages on it.
#[derive(Clone)]
struct World {
    at_ms: Arc<AtomicU64>,
    stages: Stages,
}

impl World {
    fn new() -> Self {
        let at_ms = Arc::new(AtomicU64::new(0));
        let clock = at_ms.clone();
        Self { at_ms, stages: Stages::with_clock(move || millis(clock.load(Ordering::Relaxed))) }
    }

    fn passes(&self, ms: u64) {
        self.at_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Keeps a processor busy: time passes within a poll.
    async fn burns(&self, ms: u64) {
        self.passes(ms);
    }

    /// Waits for an answer: time passes between two polls.
    async fn awaits(&self, ms: u64) {
        let mut asked = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut asked, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            let at = self.at_ms.clone();
            // Polled again after everybody else had a turn; the answer arrives in the meantime.
            tokio::spawn(async move { at.fetch_add(ms, Ordering::Relaxed) });
            std::task::Poll::Pending
        })
        .await;
        // The spawned task has run: a current-thread runtime takes turns.
        tokio::task::yield_now().await;
    }
}

/// A request of three stages of 10 ms each, with 90 ms of one kind planted in one of them.
async fn planted(slow: &str, class: Class) -> Attribution {
    let world = World::new();
    for _ in 0..5 {
        let request = world.stages.begin("request");
        for name in ["match", "execute", "cache"] {
            let stage = request.stage(name);
            let extra = if name == slow { 90 } else { 0 };
            if class == Class::Queue {
                world.passes(extra);
            }
            stage
                .run(async {
                    match class {
                        Class::Network => world.awaits(extra).await,
                        Class::Cpu => world.burns(extra).await,
                        Class::Queue | Class::Mixed => {}
                    }
                    world.burns(10).await;
                })
                .await;
        }
        world.passes(5); // belongs to nobody
    }
    world.stages.attribution().unwrap()
}

#[tokio::test]
async fn each_planted_delay_is_ranked_first_and_classed_right() {
    let advice = [(Class::Cpu, Advice::Cache), (Class::Network, Advice::Batch), (Class::Queue, Advice::Async)];
    for slow in ["match", "execute", "cache"] {
        for (class, advised) in advice {
            let found = planted(slow, class).await;
            let (row, classed, advice) = found.bottleneck().unwrap();
            assert_eq!((row.stage.as_str(), classed, advice), (slow, class, advised), "{found}");
            assert_eq!((row.own, found.row(slow).unwrap().count), (millis(500), 5), "{found}");
            assert_eq!((found.unattributed(), found.whole()), (millis(25), millis(625)), "{found}");
        }
    }
}

#[tokio::test]
async fn nothing_stands_out_in_a_healthy_run() {
    let healthy = planted("none", Class::Cpu).await;
    assert_eq!(healthy.bottleneck(), None, "{healthy}");
    assert!(healthy.to_string().ends_with("none stands out"), "{healthy}");
}

#[tokio::test]
async fn a_caller_is_not_slow_because_of_its_callee() {
    let world = World::new();
    let request = world.stages.begin("request");
    let caller = request.begin("caller");
    world.passes(10);
    caller.stage("callee").run(world.burns(200)).await;
    drop(caller);
    request.stage("other").run(world.burns(20)).await;
    drop(request);
    let found = world.stages.attribution().unwrap();
    assert_eq!(found.rows()[0].stage, "callee", "{found}");
    assert_eq!((found.row("caller").unwrap().own, found.row("caller").unwrap().total), (millis(10), millis(210)));
}

#[tokio::test]
async fn a_recorder_that_leaves_something_out_is_found_from_outside() {
    let found = planted("match", Class::Cpu).await;
    assert!(found.accounts_for(millis(630), 0.05).is_pass());
    assert!(found.accounts_for(millis(900), 0.05).is_fail(), "a third is missing");
    assert!(found.accounts_for(Duration::ZERO, 0.05).is_no_evidence());
    assert!(found.leaves_unattributed_at_most(0.05).is_pass());
    assert!(found.leaves_unattributed_at_most(0.01).is_fail());
}

async fn agents(at_once: bool) -> Overlap {
    let world = World::new();
    let phase = world.stages.begin("phase 1");
    if at_once {
        let agents = (0..5).map(|n| phase.stage(format!("agent {n}")).run(world.awaits(100)));
        futures_util::future::join_all(agents).await;
    } else {
        for n in 0..5 {
            phase.stage(format!("agent {n}")).run(world.awaits(100)).await;
        }
    }
    drop(phase);
    Overlap::of(&world.stages.spans().unwrap(), |span| span.stage.starts_with("agent"))
}

#[tokio::test]
async fn agents_that_take_turns_are_caught_however_quick_they_are() {
    let parallel = agents(true).await;
    assert!(parallel.at_least(0.8).is_pass() && parallel.peak == 5, "{parallel:?}");
    let sequential = agents(false).await;
    assert_eq!((sequential.peak, sequential.wall), (1, millis(500)));
    let outcome = sequential.at_least(0.8);
    assert!(outcome.is_fail() && outcome.detail().starts_with("they take turns"), "{outcome}");
    let one = Overlap::of(&[], |_| true);
    assert!(one.at_least(0.8).is_no_evidence() && one.factor() == 0.0);
    assert!(parallel.at_least(f64::NAN).is_no_evidence());
}

#[tokio::test]
async fn a_stage_that_is_cut_off_counts_up_to_there() {
    let world = World::new();
    let request = world.stages.begin("request");
    let hung = request.stage("hung").run(std::future::pending::<()>());
    let mut hung = Box::pin(hung);
    assert_eq!(futures_util::future::poll_immediate(&mut hung).await, None);
    world.passes(70);
    assert_eq!(world.stages.attribution().unwrap_err().kind(), ErrorKind::NoEvidence, "two spans are open");
    drop((hung, request.stage("never ran"), request));
    let found = world.stages.attribution().unwrap();
    assert_eq!(found.row("hung").map(super::Row::class), Some(Class::Network));
    assert_eq!(found.row("hung").unwrap().own, millis(70));
}

fn span(parent: Option<usize>, queued: u64, start: u64, end: u64, busy: u64) -> Span {
    Span {
        stage: "s".into(),
        parent,
        queued: millis(queued),
        start: millis(start),
        end: millis(end),
        busy: millis(busy),
    }
}

#[test]
fn spans_that_cannot_be_are_refused_by_number() {
    let whole = span(None, 0, 0, 100, 0);
    for (part, why) in [
        (span(Some(7), 0, 0, 1, 0), "its parent is not there"),
        (span(Some(1), 0, 0, 1, 0), "its parent is not there"),
        (span(Some(0), 0, 0, 101, 0), "outside of its parent"),
        (span(Some(0), 5, 4, 6, 0), "ends before it begins"),
        (span(Some(0), 5, 5, 6, 2), "busy for longer"),
    ] {
        let error = Attribution::of(&[whole.clone(), part]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.what().starts_with("span 1") && error.what().contains(why), "{error}");
    }
    let circle = [span(Some(1), 0, 0, 9, 0), span(Some(0), 0, 0, 9, 0)];
    assert!(Attribution::of(&circle).unwrap_err().what().contains("a part of itself"));
    assert_eq!(Attribution::of(&[]).unwrap_err().kind(), ErrorKind::NoEvidence);
}
