//! The driver of a run: picks slots when they are due, starts their iterations, books their ends.
//!
//! One task owns everything: schedule, queue, tasks in flight and books. Iterations hand their end over as the value
//! of their task, so nothing is shared and nothing locked per request. They run on the caller's runtime, where the
//! caller's connections live.

mod books;
mod flow;
mod pacer;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use harness_core::error::CoreResult;
use harness_core::run::Seed;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::arrival::{Due, Schedule};
use crate::generator::{Meter, Usage};

use self::books::{PANIC, Spent};
use self::flow::Running;
use self::pacer::Pacer;

pub(crate) use books::{Books, Second};
pub use books::{Cell, End};
pub use flow::Iteration;
pub(crate) use flow::{Classifiers, Flow, StepBook, boxed};

/// How long cancelled iterations get to let go of what they hold.
const LETTING_GO: Duration = Duration::from_secs(1);

/// A slot taken up this late is in time even where its phase has just ended.
const IN_TIME: Duration = Duration::from_millis(10);

/// Everything a run needs to know.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    pub(crate) measured: Vec<bool>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) classifiers: Arc<Classifiers>,
    pub(crate) seed: Seed,
    pub(crate) limit: Duration,
    pub(crate) drain: Duration,
    pub(crate) in_flight: usize,
    pub(crate) queue: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) start: Instant,
    pub(crate) books: Books,
    pub(crate) steps: StepBook,
    pub(crate) usage: Option<Usage>,
    pub(crate) pacing: &'static str,
}

/// A slot on its way. `picked` is when the driver took it up.
#[derive(Debug, Clone, Copy)]
struct Slot {
    due: Due,
    picked: Instant,
}

/// A slot in flight. `released` is when its task was made, which is `picked` unless it had to queue.
#[derive(Debug, Clone, Copy)]
struct Flying {
    slot: Slot,
    released: Instant,
}

/// What a task returns.
pub(crate) struct Landed {
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
    pub(crate) end: End,
}

/// Runs a plan to its end.
pub(crate) async fn drive(plan: &Plan) -> CoreResult<Driven> {
    let mut pacer = Pacer::new()?;
    let mut slots = plan.schedule.slots().peekable();
    let start = Instant::now();
    let deadline = start + plan.schedule.end() + plan.drain;
    let mut driver = Driver {
        plan,
        start,
        queue: VecDeque::new(),
        tasks: JoinSet::new(),
        flying: HashMap::new(),
        books: Books::new(plan.measured.len(), plan.flows.len()),
        steps: StepBook::default(),
        meter: (!pacer.is_virtual()).then(Meter::new),
    };
    loop {
        while let Some(landed) = driver.tasks.try_join_next_with_id() {
            driver.land(landed);
        }
        let now = Instant::now();
        while let Some(due) = slots.next_if(|due| start + due.at <= now) {
            driver.pick(Slot { due, picked: now });
        }
        driver.release_queued();
        let next = slots.peek().map(|due| start + due.at);
        if next.is_none() {
            driver.meter.iter_mut().for_each(Meter::stop);
            if (driver.flying.is_empty() && driver.queue.is_empty()) || now >= deadline {
                break;
            }
        }
        let wake = next.unwrap_or(deadline);
        if wake <= Instant::now() {
            // Behind schedule: without this, a runtime of one thread would never get to the iterations.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            Some(landed) = driver.tasks.join_next_with_id(), if !driver.tasks.is_empty() => driver.land(landed),
            () = pacer.until(wake) => {}
        }
    }
    driver.cancel_the_rest().await;
    let usage = driver.meter.as_ref().and_then(Meter::usage);
    Ok(Driven { start, books: driver.books, steps: driver.steps, usage, pacing: pacer.name() })
}

struct Driver<'p> {
    plan: &'p Plan,
    start: Instant,
    queue: VecDeque<Slot>,
    tasks: JoinSet<Landed>,
    flying: HashMap<Id, Flying>,
    books: Books,
    steps: StepBook,
    meter: Option<Meter>,
}

impl Driver<'_> {
    fn pick(&mut self, slot: Slot) {
        let Due { at, phase, flow, .. } = slot.due;
        if self.plan.measured[phase] {
            self.meter.iter_mut().for_each(Meter::start);
        }
        let in_phase = self.plan.schedule.phase_at(slot.picked - self.start) == Some(phase);
        if in_phase || slot.picked - (self.start + at) < IN_TIME {
            self.books.cells[phase][flow].picked_in_time += 1;
        }
        if self.flying.len() < self.plan.in_flight && self.queue.is_empty() {
            self.release(slot, slot.picked);
        } else if self.queue.len() < self.plan.queue {
            self.queue.push_back(slot);
        } else {
            let lateness = slot.picked - (self.start + at);
            // Whoever is turned away has waited in vain: at least as bad as waiting for the whole time limit.
            let spent = Spent { response: self.plan.limit.max(lateness), service: None, lateness };
            self.books.book((phase, flow), at, slot.picked - self.start, End::Dropped, spent);
        }
    }

    fn release_queued(&mut self) {
        while self.flying.len() < self.plan.in_flight
            && let Some(slot) = self.queue.pop_front()
        {
            self.release(slot, Instant::now());
        }
    }

    fn release(&mut self, slot: Slot, released: Instant) {
        let Due { n, at, phase, flow } = slot.due;
        let iteration = Iteration {
            n,
            due: at,
            measured: self.plan.measured[phase],
            flow,
            seed: self.plan.seed,
            steps: self.steps.clone(),
        };
        let running = self.plan.flows[flow].start(iteration);
        let task = self.tasks.spawn(iterate(running, self.plan.limit, self.plan.classifiers.clone()));
        self.flying.insert(task.id(), Flying { slot, released });
        self.books.note_in_flight(released - self.start, self.flying.len());
    }

    fn land(&mut self, landed: Result<(Id, Landed), JoinError>) {
        let (id, landed) = match landed {
            Ok((id, landed)) => (id, Some(landed)),
            Err(error) if error.is_panic() => {
                // Panics in the closure are caught inside; this one came from dropping what it held.
                let (id, now) = (error.id(), Instant::now());
                (id, Some(Landed { sent: now, done: now, end: panicked(&*error.into_panic()) }))
            }
            Err(error) => (error.id(), None),
        };
        let Some(flying) = self.flying.remove(&id) else { return };
        match landed {
            Some(landed) => self.book_landed(flying, landed),
            None => self.book_unfinished(flying.slot, Instant::now()),
        }
    }

    fn book_landed(&mut self, Flying { slot, released }: Flying, Landed { sent, done, end }: Landed) {
        let Due { at, phase, flow, .. } = slot.due;
        let (due, ended) = (self.start + at, done - self.start);
        if end == End::Ok
            && let Some(during) = self.plan.schedule.phase_at(ended)
        {
            self.books.cells[during][flow].completed_in_phase += 1;
        }
        // Waiting in the queue is the system's doing, not the generator's.
        let lateness = (slot.picked - due) + sent.saturating_duration_since(released);
        let spent = Spent { response: done.saturating_duration_since(due), service: Some(done - sent), lateness };
        self.books.note_in_flight(ended, self.flying.len());
        self.books.book((phase, flow), at, ended, end, spent);
    }

    fn book_unfinished(&mut self, slot: Slot, now: Instant) {
        let Due { at, phase, flow, .. } = slot.due;
        let due = self.start + at;
        let spent = Spent { response: now - due, service: None, lateness: slot.picked - due };
        self.books.book((phase, flow), at, now - self.start, End::Unfinished, spent);
    }

    /// The drain is over: what has not ended by now is unfinished.
    async fn cancel_the_rest(&mut self) {
        self.tasks.abort_all();
        let letting_go = tokio::time::timeout(LETTING_GO, async {
            while let Some(landed) = self.tasks.join_next_with_id().await {
                self.land(landed);
            }
        });
        // Tasks that block their thread cannot be cancelled; they are booked below and left behind.
        let _gone = letting_go.await;
        let now = Instant::now();
        let flying = std::mem::take(&mut self.flying).into_values().map(|flying| flying.slot);
        let queued = std::mem::take(&mut self.queue);
        for slot in flying.chain(queued) {
            self.book_unfinished(slot, now);
        }
    }
}

/// One iteration, from the start of its closure to its end, whatever that is.
pub(crate) async fn iterate(running: Running, limit: Duration, classifiers: Arc<Classifiers>) -> Landed {
    let sent = Instant::now();
    let ending = async {
        match tokio::time::timeout(limit, running).await {
            Ok(Ok(())) => (Instant::now(), End::Ok),
            Ok(Err(error)) => {
                let done = Instant::now();
                let kind = classifiers.kind(&*error as &dyn Any).into_owned();
                (done, End::Error { kind, message: error.to_string() })
            }
            Err(_) => (Instant::now(), End::Timeout),
        }
    };
    let (done, end) =
        AssertUnwindSafe(ending).catch_unwind().await.unwrap_or_else(|panic| (Instant::now(), panicked(&*panic)));
    Landed { sent, done, end }
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> End {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    End::Error { kind: PANIC.to_owned(), message: text.unwrap_or("no message").to_owned() }
}
