//! Where iterations run: seats that are used again and again, polled by the driver itself.
//!
//! A task per iteration would cost an allocation, a queue and a hand-over for each. A seat keeps the memory of its
//! future, its waker and its user, so that an iteration that needs not wait costs little more than its own work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::Slot;
use super::board::Owned;
use super::flow::{AnyError, Flow, Iteration, Runner};
use super::notes::Notes;

/// No seat: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Seats whose futures want to be polled, and the driver that does it.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    seats: Vec<u32>,
    driver: Option<Waker>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over the seats that want to be polled; `batch` comes back empty otherwise.
    pub(super) fn take(&self, batch: &mut Vec<u32>) {
        std::mem::swap(&mut self.lock().seats, batch);
    }

    /// Ready when a seat wants to be polled.
    pub(super) async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut waiting = self.lock();
            if !waiting.seats.is_empty() {
                return Poll::Ready(());
            }
            if !waiting.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                waiting.driver = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// The waker of one seat, made once. A wake-up meant for an earlier iteration costs one idle poll.
struct Bell {
    seat: u32,
    is_rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = {
            let mut waiting = self.ready.lock();
            waiting.seats.push(self.seat);
            waiting.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// An iteration under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flying {
    pub(super) slot: Slot,
    /// When there was a place for it: `picked`, unless it had to queue. Nanoseconds since the start, as all here.
    pub(super) released: u64,
    pub(super) sent: u64,
}

/// How a poll or a cancellation ended.
pub(super) type Ended = Result<(), Failed>;

/// What an iteration failed with.
pub(super) enum Failed {
    /// The flow's own error.
    Error(Box<dyn AnyError>),
    /// It panicked.
    Panic(Box<dyn Any + Send>),
}

pub(super) struct Seat {
    runner: Box<dyn Runner>,
    bell: Arc<Bell>,
    waker: Waker,
    pub(super) board: Owned,
    pub(super) flying: Option<Flying>,
    /// Neighbours in the order of sending, which is the order of time limits.
    pub(super) before: u32,
    pub(super) after: u32,
}

impl Drop for Seat {
    /// A run that is given up must not end in two panics at once.
    fn drop(&mut self) {
        let _panic = self.cancel();
    }
}

impl Seat {
    pub(super) fn new(number: u32, flow: &Flow, notes: &Notes, ready: &Arc<Ready>) -> Self {
        let bell = Arc::new(Bell { seat: number, is_rung: AtomicBool::new(false), ready: ready.clone() });
        Self {
            runner: flow.runner(),
            waker: bell.clone().into(),
            bell,
            board: Owned::new(notes),
            flying: None,
            before: NONE,
            after: NONE,
        }
    }

    /// Starts an iteration and polls it for the first time.
    #[inline]
    pub(super) fn start(&mut self, iteration: Iteration) -> Poll<Ended> {
        self.catch(|runner, cx| runner.start(iteration, cx))
    }

    pub(super) fn poll(&mut self) -> Poll<Ended> {
        self.bell.is_rung.store(false, Ordering::Release);
        self.catch(|runner, cx| runner.poll(cx))
    }

    /// Answers a wake-up that was meant for an iteration that has ended.
    pub(super) fn poll_idle(&self) {
        self.bell.is_rung.store(false, Ordering::Release);
    }

    /// Drops the iteration; the panic, if letting go of what it held panicked.
    pub(super) fn cancel(&mut self) -> Ended {
        let runner = &mut self.runner;
        catch_unwind(AssertUnwindSafe(|| runner.clear())).map_err(Failed::Panic)
    }

    #[inline]
    fn catch(
        &mut self,
        act: impl FnOnce(&mut dyn Runner, &mut Context<'_>) -> Poll<Result<(), Box<dyn AnyError>>>,
    ) -> Poll<Ended> {
        let Self { runner, waker, .. } = self;
        let caught = catch_unwind(AssertUnwindSafe(|| act(&mut **runner, &mut Context::from_waker(waker))));
        match caught {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(result.map_err(Failed::Error)),
            Err(panic) => {
                // What panicked may panic again when it is dropped; the first panic is the one to report.
                let _second = self.cancel();
                Poll::Ready(Err(Failed::Panic(panic)))
            }
        }
    }
}
