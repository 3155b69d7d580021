//! Bulkheads on virtual time, with defects to choose from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use harness_props::model::bulkhead::Bulkhead;
use tokio::sync::{Notify, Semaphore};

use super::{all_green, only_red};
use crate::resilience::{BulkheadSuite, Found, Request, System, Told, Upstream};
use crate::wait::pause;

const PLACES: usize = 3;
const QUEUE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    OnePlaceMore,
    OnePlaceLess,
    EndlessQueue,
    NoQueue,
    LastComeFirstServed,
    LeaksOnFailure,
    LeaksOnLeaving,
}

/// Places, and a stack or a queue of those that wait.
struct TestBulkhead {
    defect: Defect,
    places: Semaphore,
    waiting: AtomicUsize,
    stack: std::sync::Mutex<Vec<Arc<Notify>>>,
}

impl TestBulkhead {
    fn new(defect: Defect) -> Arc<Self> {
        let places = match defect {
            Defect::OnePlaceMore => PLACES + 1,
            Defect::OnePlaceLess => PLACES - 1,
            _ => PLACES,
        };
        let (waiting, stack) = (AtomicUsize::new(0), std::sync::Mutex::default());
        Arc::new(Self { defect, places: Semaphore::new(places), waiting, stack })
    }

    async fn call(self: Arc<Self>, upstream: Upstream, request: Request) -> Told {
        let queue = match self.defect {
            Defect::EndlessQueue => usize::MAX,
            Defect::NoQueue => 0,
            _ => QUEUE,
        };
        if self.places.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
            if self.waiting.load(SeqCst) >= queue {
                return Told::Refused("full".to_owned());
            }
            self.waiting.fetch_add(1, SeqCst);
            self.wait_for_place().await;
            self.waiting.fetch_sub(1, SeqCst);
        }
        let mut place = Place { bulkhead: &self, is_kept: self.defect == Defect::LeaksOnLeaving };
        let result = upstream.serve(&request).await;
        place.is_kept = self.defect == Defect::LeaksOnFailure && result.is_err();
        result.map_or_else(|_| Told::Failed("upstream".to_owned()), |()| Told::Ok)
    }

    async fn wait_for_place(&self) {
        if self.defect != Defect::LastComeFirstServed {
            if let Ok(place) = self.places.acquire().await {
                place.forget();
            }
            return;
        }
        let turn = Arc::new(Notify::new());
        self.stack.lock().unwrap().push(Arc::clone(&turn));
        turn.notified().await;
    }

    fn give_back(&self) {
        match self.stack.lock().unwrap().pop() {
            Some(turn) => turn.notify_one(),
            None => self.places.add_permits(1),
        }
    }
}

struct Place<'a> {
    bulkhead: &'a TestBulkhead,
    is_kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.bulkhead.give_back();
        }
    }
}

async fn found(defect: Defect) -> Found {
    let make = async |upstream: Upstream| {
        let bulkhead = TestBulkhead::new(defect);
        Ok(System::new(move |request| Arc::clone(&bulkhead).call(upstream.clone(), request)))
    };
    let suite = BulkheadSuite::new(Bulkhead::new(PLACES as u32, QUEUE as u32), make);
    suite.run().await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn sound_bulkhead_passes_every_check() {
    all_green(&found(Defect::None).await);
    pause(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn each_defect_of_a_bulkhead_fails_exactly_its_own_check() {
    for (defect, check) in [
        (Defect::OnePlaceMore, "lets in as many as it has places"),
        (Defect::OnePlaceLess, "lets in as many as it has places"),
        (Defect::EndlessQueue, "lets as many wait as it should"),
        (Defect::NoQueue, "lets as many wait as it should"),
        (Defect::LastComeFirstServed, "serves those that wait in their order"),
        (Defect::LeaksOnFailure, "gives the place of a failed call back"),
        (Defect::LeaksOnLeaving, "gives the place of a caller who left back"),
    ] {
        only_red(&found(defect).await, check, defect);
    }
}
