//! Load shedding on virtual time, with defects to choose from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::{all_green, only_red};
use crate::resilience::{Found, Request, SheddingSuite, System, Told, Upstream};
use crate::wait::pause;

const BEARS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    ShedsWhenCalm,
    ShedsNothing,
    ShedsCoreWork,
    StopsUnderOverload,
    ShedsSlowly,
    StaysShedding,
}

#[derive(Default)]
struct Gate {
    inside: AtomicUsize,
    has_shed: AtomicBool,
}

async fn call(defect: Defect, gate: Arc<Gate>, upstream: Upstream, request: Request) -> Told {
    // Half of it is kept for core work.
    let most = match (request.is_core, defect) {
        (_, Defect::ShedsNothing) => usize::MAX,
        (false, Defect::ShedsWhenCalm) => BEARS / 2 - 1,
        (true, Defect::ShedsCoreWork) => BEARS / 2,
        (true, _) => BEARS,
        (false, _) => BEARS / 2,
    };
    let is_stuck = defect == Defect::StaysShedding && gate.has_shed.load(SeqCst) && gate.inside.load(SeqCst) == 0;
    if gate.inside.load(SeqCst) >= most || is_stuck {
        gate.has_shed.store(true, SeqCst);
        if defect == Defect::ShedsSlowly {
            pause(Duration::from_millis(500)).await;
        }
        return Told::Refused("503".to_owned());
    }
    gate.inside.fetch_add(1, SeqCst);
    let result = upstream.serve(&request).await;
    gate.inside.fetch_sub(1, SeqCst);
    if defect == Defect::StopsUnderOverload && !request.is_core && gate.has_shed.load(SeqCst) {
        return Told::Failed("given up".to_owned());
    }
    result.map_or_else(|_| Told::Failed("upstream".to_owned()), |()| Told::Ok)
}

async fn found(defect: Defect) -> Found {
    let make = async |upstream: Upstream| {
        let gate = Arc::<Gate>::default();
        Ok(System::new(move |request| call(defect, Arc::clone(&gate), upstream.clone(), request)))
    };
    SheddingSuite::new(BEARS, make).run().await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn sound_shedding_passes_every_check() {
    all_green(&found(Defect::None).await);
}

#[tokio::test(start_paused = true)]
async fn each_defect_of_shedding_fails_exactly_its_own_check() {
    for (defect, check) in [
        (Defect::ShedsWhenCalm, "turns nothing away that it can bear"),
        (Defect::ShedsNothing, "turns away what it cannot bear"),
        (Defect::ShedsCoreWork, "serves its core work all the same"),
        (Defect::StopsUnderOverload, "goes on working under overload"),
        (Defect::ShedsSlowly, "turns away at once"),
        (Defect::StaysShedding, "turns nothing away once the overload is over"),
    ] {
        only_red(&found(defect).await, check, defect);
    }
}
