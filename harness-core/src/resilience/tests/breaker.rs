//! A breaker on virtual time, with defects to choose from.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_props::model::breaker::Breaker;
use tokio::time::Instant;

use super::{all_green, only_red};
use crate::resilience::{BreakerSuite, Found, Request, System, Told, Upstream};
use crate::wait::pause;

const THRESHOLD: u32 = 3;
const WAIT: Duration = Duration::from_secs(2);
const GIVES_UP: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    NeverOpens,
    OpensEarly,
    NeverForgetsFailures,
    LeaksWhileOpen,
    RejectsSlowly,
    NeverHalfOpens,
    TwoProbes,
    NeverCloses,
    ShortSecondWait,
    Wedged,
    CountsLateAnswers,
}

#[derive(Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Half { since: Instant, out: u32 },
}

struct TestBreaker {
    defect: Defect,
    /// The state, the number of the era it belongs to, and how many calls were asked for.
    state: Mutex<(State, u64, u64)>,
}

impl TestBreaker {
    /// The era a call belongs to, or nothing if it is turned away.
    fn admits(&self) -> Option<u64> {
        let mut books = self.state.lock().unwrap();
        let (state, era, asked) = &mut *books;
        *asked += 1;
        let now = Instant::now();
        match *state {
            State::Closed { .. } => Some(*era),
            State::Open { .. } if self.defect == Defect::LeaksWhileOpen && *asked % 20 == 0 => Some(*era),
            State::Open { until } if now < until || self.defect == Defect::NeverHalfOpens => None,
            State::Open { .. } => {
                *state = State::Half { since: now, out: 1 };
                *era += 1;
                Some(*era)
            }
            State::Half { since, .. } if now >= since + GIVES_UP && self.defect != Defect::Wedged => {
                *state = State::Half { since: now, out: 1 };
                *era += 1;
                Some(*era)
            }
            State::Half { since, out } if out < 2 && self.defect == Defect::TwoProbes => {
                *state = State::Half { since, out: out + 1 };
                Some(*era)
            }
            State::Half { .. } => None,
        }
    }

    fn ended(&self, of: u64, is_ok: bool) {
        let mut books = self.state.lock().unwrap();
        let (state, era, _) = &mut *books;
        if of != *era && self.defect != Defect::CountsLateAnswers {
            return;
        }
        let threshold = if self.defect == Defect::OpensEarly { THRESHOLD - 1 } else { THRESHOLD };
        let now = Instant::now();
        let (next, begins) = match *state {
            State::Closed { .. } if is_ok && self.defect != Defect::NeverForgetsFailures => {
                (State::Closed { failures: 0 }, false)
            }
            State::Closed { failures } if is_ok => (State::Closed { failures }, false),
            State::Closed { failures } if failures + 1 >= threshold && self.defect != Defect::NeverOpens => {
                (State::Open { until: now + WAIT }, true)
            }
            State::Closed { failures } => (State::Closed { failures: failures + 1 }, false),
            State::Open { until } => (State::Open { until }, false),
            State::Half { .. } if is_ok && self.defect != Defect::NeverCloses => (State::Closed { failures: 0 }, true),
            State::Half { .. } if is_ok => (State::Open { until: now + WAIT }, true),
            State::Half { .. } if self.defect == Defect::ShortSecondWait => {
                (State::Open { until: now + WAIT / 2 }, true)
            }
            State::Half { .. } => (State::Open { until: now + WAIT }, true),
        };
        *state = next;
        *era += u64::from(begins);
    }

    async fn call(self: Arc<Self>, upstream: Upstream, request: Request) -> Told {
        let Some(era) = self.admits() else {
            if self.defect == Defect::RejectsSlowly {
                pause(Duration::from_millis(150)).await;
            }
            return Told::Refused("circuit open".to_owned());
        };
        let result = upstream.serve(&request).await;
        self.ended(era, result.is_ok());
        result.map_or_else(|_| Told::Failed("upstream".to_owned()), |()| Told::Ok)
    }
}

async fn found(defect: Defect) -> Found {
    let model = Breaker::consecutive(THRESHOLD as usize, WAIT).probe_limit(GIVES_UP);
    let make = async |upstream: Upstream| {
        let breaker = Arc::new(TestBreaker { defect, state: Mutex::new((State::Closed { failures: 0 }, 0, 0)) });
        Ok(System::new(move |request| Arc::clone(&breaker).call(upstream.clone(), request)))
    };
    BreakerSuite::new(model, make).run().await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn sound_breaker_passes_every_check() {
    all_green(&found(Defect::None).await);
}

#[tokio::test(start_paused = true)]
async fn each_defect_of_a_breaker_fails_exactly_its_own_check() {
    for (defect, check) in [
        (Defect::NeverOpens, "opens at its threshold"),
        (Defect::OpensEarly, "stays closed below its threshold"),
        (Defect::NeverForgetsFailures, "stays closed below its threshold"),
        (Defect::LeaksWhileOpen, "lets nothing through while it is open"),
        (Defect::RejectsSlowly, "rejects at once while it is open"),
        (Defect::NeverHalfOpens, "tries again after its wait"),
        (Defect::TwoProbes, "lets no more than its probes through"),
        (Defect::NeverCloses, "closes when its probes succeed"),
        (Defect::ShortSecondWait, "opens again for its full wait when a probe fails"),
        (Defect::Wedged, "is not wedged by a probe that hangs"),
        (Defect::CountsLateAnswers, "takes no late answer for that of a probe"),
    ] {
        only_red(&found(defect).await, check, defect);
    }
}

#[tokio::test(start_paused = true)]
async fn system_that_never_reaches_its_upstream_passes_nothing() {
    let make = async |_: Upstream| Ok(System::new(|_| std::future::ready(Told::Refused("no".to_owned()))));
    let found = BreakerSuite::new(Breaker::consecutive(3, WAIT), make).run().await.unwrap();
    assert_eq!(found.failed(), ["stays closed below its threshold"], "{found}");
    assert!(found.checks.iter().all(|(_, outcome)| !outcome.is_pass()), "{found}");
}
