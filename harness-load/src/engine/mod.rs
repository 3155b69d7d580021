//! The driver of a run: picks slots when they are due, runs their iterations, books their ends.
//!
//! One task owns everything: source, queue, seats and books. It polls the iterations itself, so that nothing is shared,
//! locked or handed over per request; the connections they use live on the caller's runtime.

mod arrive;
mod board;
mod books;
mod clock;
mod flow;
mod land;
mod look;
mod notes;
mod pacer;
mod seat;
mod source;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use harness_core::error::{CoreResult, panic_words};
use harness_core::monitor::Latest;
use harness_core::run::Seed;
use tokio::time::Instant;

use crate::arrival::Schedule;
use crate::generator::{Meter, Usage};
use crate::units::to_nanos;
use crate::watch::Watch;

use self::books::{PANIC, Spent};
use self::clock::Clock;
use self::flow::Running;
use self::notes::Notes;
use self::pacer::Pacer;
use self::seat::{NONE, Ready, Seat};
use self::source::Source;

pub(crate) use books::{Books, Second};
pub use books::{Cell, End};
pub use flow::Iteration;
pub(crate) use flow::{Classifiers, Flow, boxed, io_kind};
pub(crate) use notes::Noted;
pub(crate) use source::Closed;

/// This long before a slot is due the driver stops relying on the timer and looks at the clock: 50 µs, the time a
/// processor takes to wake up.
const LEAD: u64 = 50_000;
/// Looking at the clock is done only where slots are further apart than this, so that it never takes more than an eighth
/// of a core; above 2,500/s the timer alone paces, some 10 µs coarser.
const WORTH_IT: u64 = 8 * LEAD;

/// Everything a run needs to know.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) schedule: Schedule,
    pub(crate) measured: Vec<bool>,
    pub(crate) until_steady: Vec<bool>,
    pub(crate) closed: Option<Closed>,
    pub(crate) most: Option<u64>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) classifiers: Arc<Classifiers>,
    pub(crate) seed: Seed,
    pub(crate) limit: Duration,
    pub(crate) drain: Duration,
    pub(crate) in_flight: usize,
    pub(crate) queue: usize,
    pub(crate) watches: Vec<Watch>,
    /// What samplers saw last, for gates on it.
    pub(crate) latest: Latest,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) start: Instant,
    pub(crate) books: Books,
    pub(crate) noted: Noted,
    pub(crate) usage: Option<Usage>,
    pub(crate) pacing: &'static str,
    pub(crate) clock_reads: u64,
    /// How much each phase was shortened, summed up to its end.
    pub(crate) shortened: Vec<u64>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) aborted: Option<(Duration, String)>,
}

/// A slot on its way. Times are nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) n: u64,
    pub(crate) at: u64,
    pub(crate) phase: u32,
    pub(crate) flow: u32,
    /// When the driver took it up.
    pub(crate) picked: u64,
}

/// What a member of a burst returns.
pub(crate) struct Landed {
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
    pub(crate) end: End,
}

/// Runs a plan to its end.
pub(crate) async fn drive(plan: &mut Plan) -> CoreResult<Driven> {
    // The budget of the runtime is for tasks; the driver keeps its own, over all iterations.
    tokio::task::unconstrained(drive_on(plan)).await
}

async fn drive_on(plan: &mut Plan) -> CoreResult<Driven> {
    let mut pacer = Pacer::new()?;
    let mut driver = Driver::new(plan, pacer.is_virtual());
    loop {
        driver.poll_ready();
        driver.pick_due();
        driver.expire();
        driver.release_queued();
        driver.look();
        if driver.is_over() {
            break;
        }
        let wake = driver.next_wake();
        let now = driver.read_clock();
        let left = wake.saturating_sub(now);
        // Behind schedule, a full batch, or so close that a timer would be too coarse: only look at the sockets.
        if left == 0 || driver.close_to_due(left) {
            tokio::task::yield_now().await;
            continue;
        }
        let alarm = driver.start + Duration::from_nanos(if driver.is_worth_it(left) { wake - LEAD } else { wake });
        let ready = driver.ready.clone();
        tokio::select! {
            biased;
            () = ready.wait() => {}
            () = pacer.until(alarm) => {}
        }
    }
    Ok(driver.finish(pacer.name()))
}

struct Driver<'p> {
    plan: &'p Plan,
    watches: Vec<Watch>,
    start: Instant,
    clock: Clock,
    /// The last reading of the clock.
    now: u64,
    clock_reads: u64,
    source: Source,
    /// By how much the schedule is ahead of plan, since warm-ups ended early.
    shift: u64,
    shortened: Vec<u64>,
    ends: Vec<u64>,
    next_due: Option<u64>,
    last_due: u64,
    taken: u64,
    queue: VecDeque<Slot>,
    seats: Vec<Seat>,
    free: Vec<Vec<u32>>,
    /// First and last in the order of sending.
    eldest: u32,
    youngest: u32,
    flying: usize,
    ready: Arc<Ready>,
    batch: Vec<u32>,
    books: Books,
    notes: Notes,
    meter: Option<Meter>,
    /// When the last slot had been taken up.
    exhausted: Option<u64>,
    next_look: u64,
    aborted: Option<(Duration, String)>,
    is_virtual: bool,
}

impl<'p> Driver<'p> {
    fn new(plan: &'p mut Plan, is_virtual: bool) -> Self {
        let watches = std::mem::take(&mut plan.watches);
        let plan = &*plan;
        let mut source = Source::new(&plan.schedule, plan.closed.as_ref(), plan.seed.stream("think"));
        let next_due = source.next_at();
        let looks = !watches.is_empty() || plan.until_steady.contains(&true);
        Self {
            watches,
            clock: Clock::new(is_virtual),
            start: Instant::now(),
            now: 0,
            clock_reads: 0,
            source,
            shift: 0,
            shortened: vec![0; plan.measured.len()],
            ends: plan.schedule.ends(),
            next_due,
            last_due: 0,
            taken: 0,
            queue: VecDeque::new(),
            seats: Vec::new(),
            free: vec![Vec::new(); plan.flows.len()],
            eldest: NONE,
            youngest: NONE,
            flying: 0,
            ready: Arc::new(Ready::default()),
            batch: Vec::new(),
            books: Books::new(plan.measured.len(), plan.flows.len()),
            notes: Notes::default(),
            meter: (!is_virtual).then(Meter::new),
            exhausted: None,
            next_look: if looks { crate::watch::LOOK } else { u64::MAX },
            aborted: None,
            is_virtual,
            plan,
        }
    }

    #[inline]
    fn read_clock(&mut self) -> u64 {
        self.clock_reads += 1;
        self.now = self.clock.now(self.start);
        self.now
    }

    /// Nothing more is due: what the schedule still holds is counted as not due.
    fn stop_arrivals(&mut self) {
        if let Source::Open(slots) = &mut self.source {
            for due in slots {
                self.books.cells[due.phase][due.flow].not_due += 1;
            }
        }
        self.source.close();
        self.next_due = None;
    }

    fn deadline(&self) -> u64 {
        let end = self.ends.last().copied().unwrap_or_default();
        self.exhausted.map_or(end, |at| at.min(end)).saturating_add(to_nanos(self.plan.drain))
    }

    fn is_over(&mut self) -> bool {
        if self.aborted.is_some() {
            return true;
        }
        if self.next_due.is_some()
            || (self.source.is_closed_loop()
                && self.now < *self.ends.last().unwrap_or(&0)
                && self.plan.most.is_none_or(|most| self.taken < most)
                && self.flying + self.queue.len() > 0)
        {
            return false;
        }
        let now = self.now;
        self.exhausted.get_or_insert(now);
        self.meter.iter_mut().for_each(Meter::stop);
        (self.flying == 0 && self.queue.is_empty()) || self.now >= self.deadline()
    }

    fn next_wake(&self) -> u64 {
        let due = self.next_due.map_or(u64::MAX, |at| at.saturating_sub(self.shift));
        due.min(self.first_deadline().unwrap_or(u64::MAX)).min(self.deadline()).min(self.next_look)
    }

    fn is_worth_it(&self, left: u64) -> bool {
        let due = self.next_due.map(|at| at.saturating_sub(self.shift));
        !self.is_virtual && left > LEAD && due.is_some_and(|due| due.saturating_sub(self.last_due) >= WORTH_IT)
    }

    fn close_to_due(&self, left: u64) -> bool {
        let due = self.next_due.map(|at| at.saturating_sub(self.shift));
        left <= LEAD
            && !self.is_virtual
            && due.is_some_and(|due| {
                due.saturating_sub(self.last_due) >= WORTH_IT && due.saturating_sub(self.now) <= LEAD
            })
    }

    /// The drain is over: what has not ended by now is unfinished.
    fn finish(mut self, pacing: &'static str) -> Driven {
        self.read_clock();
        self.meter.iter_mut().for_each(Meter::stop);
        self.source.close();
        for seat in 0..self.seats.len() {
            if let Some(flying) = self.seats[seat].flying.take() {
                match self.seats[seat].cancel() {
                    Ok(()) => self.book_unfinished(flying.slot),
                    Err(failed) => {
                        let end = self.failed(failed);
                        let (response, lateness) =
                            (self.now.saturating_sub(flying.slot.at), flying.slot.picked - flying.slot.at);
                        self.book(flying.slot, self.now, &end, Spent { response, service: None, lateness });
                    }
                }
            }
        }
        for slot in std::mem::take(&mut self.queue) {
            self.book_unfinished(slot);
        }
        let now = self.now;
        self.watches.iter_mut().for_each(|watch| watch.end(now));
        Driven {
            start: self.start,
            usage: self.meter.as_ref().and_then(Meter::usage),
            books: self.books,
            noted: self.notes.take(),
            pacing,
            clock_reads: self.clock_reads,
            shortened: self.shortened,
            watches: self.watches,
            aborted: self.aborted,
        }
    }
}

/// One action of a member of a burst, from the start of its closure to its end, whatever that is.
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
    End::Error { kind: PANIC.to_owned(), message: panic_words(panic).to_owned() }
}
