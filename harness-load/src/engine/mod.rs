//! The driver of a run: picks slots when they are due, runs their iterations, books their ends.
//!
//! One task owns everything: source, queue, seats and books. It polls the iterations itself, so that nothing is shared,
//! locked or handed over per request; the connections they use live on the caller's runtime.

mod books;
mod clock;
mod flow;
mod notes;
mod pacer;
mod seat;
mod source;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use harness_core::error::CoreResult;
use harness_core::monitor::Latest;
use harness_core::run::Seed;
use tokio::time::Instant;

use crate::arrival::Schedule;
use crate::generator::{Meter, Usage};
use crate::units::to_nanos;
use crate::watch::{Seen, Watch};

use self::books::{PANIC, Spent};
use self::clock::Clock;
use self::flow::Running;
use self::notes::Notes;
use self::pacer::Pacer;
use self::seat::{Ended, Failed, Flying, NONE, Ready, Seat};
use self::source::Source;

pub(crate) use books::{Books, Second};
pub use books::{Cell, End};
pub use flow::Iteration;
pub(crate) use flow::{Classifiers, Flow, boxed, io_kind};
pub(crate) use notes::Noted;
pub(crate) use source::Closed;

/// A slot taken up this late is in time even where its phase has just ended.
const IN_TIME: u64 = 10_000_000;
/// The driver looks at sockets and timers after so many slots, or so many nanoseconds, at the latest.
const BATCH: usize = 256;
const LONGEST_BATCH: u64 = 50_000;
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

    /// Polls the seats that were woken.
    fn poll_ready(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.ready.take(&mut batch);
        for seat in batch.drain(..) {
            let polled = match self.seats.get_mut(seat as usize) {
                Some(flying) if flying.flying.is_some() => flying.poll(),
                Some(idle) => {
                    idle.poll_idle();
                    continue;
                }
                None => continue,
            };
            if let Poll::Ready(ended) = polled {
                let done = self.read_clock();
                self.unlink(seat);
                self.books.note_in_flight(done, self.flying);
                self.land(seat, done, ended);
            }
        }
        self.batch = batch;
        self.see_who_came_back();
    }

    /// In a closed loop whoever has ended is due again.
    #[inline]
    fn see_who_came_back(&mut self) {
        if self.source.is_closed_loop() {
            self.next_due = self.source.next_at();
        }
    }

    /// Cancels what has run into its time limit.
    fn expire(&mut self) {
        while let Some(deadline) = self.first_deadline().filter(|deadline| *deadline <= self.now) {
            let eldest = self.eldest;
            let ended = self.seats[eldest as usize].cancel();
            self.unlink(eldest);
            let end = match ended {
                Ok(()) => End::Timeout,
                Err(failed) => self.failed(failed),
            };
            self.book_landed(eldest, self.now.max(deadline), &end);
        }
        self.see_who_came_back();
    }

    fn first_deadline(&self) -> Option<u64> {
        let eldest = self.seats.get(self.eldest as usize)?.flying?;
        Some(eldest.sent.saturating_add(to_nanos(self.plan.limit)))
    }

    /// Takes up what is due, at most a batch of it.
    fn pick_due(&mut self) {
        let begun = self.read_clock();
        for _ in 0..BATCH {
            if self.now - begun > LONGEST_BATCH {
                break;
            }
            // As soon as the last one is taken: whoever comes back after it must not keep the run open.
            if self.next_due.is_some() && self.plan.most.is_some_and(|most| self.taken >= most) {
                self.stop_arrivals();
            }
            if self.next_due.is_none_or(|at| at.saturating_sub(self.shift) > self.now) {
                break;
            }
            let Some(mut slot) = self.next_due.and_then(|at| self.source.take(at)) else { break };
            slot.at = slot.at.saturating_sub(self.shift);
            slot.picked = self.now;
            self.last_due = slot.at;
            self.taken += 1;
            self.pick(slot);
            self.next_due = self.source.next_at();
        }
    }

    #[inline]
    fn pick(&mut self, slot: Slot) {
        let (phase, flow) = (slot.phase as usize, slot.flow as usize);
        if self.plan.measured[phase] {
            self.meter.iter_mut().for_each(Meter::start);
        }
        let cell = &mut self.books.cells[phase][flow];
        cell.picked += 1;
        let late = slot.picked.saturating_sub(slot.at);
        if late < IN_TIME || slot.picked < self.ends[phase] {
            cell.picked_in_time += 1;
        }
        if self.flying < self.plan.in_flight && self.queue.is_empty() {
            self.release(slot, slot.picked);
        } else if self.queue.len() < self.plan.queue {
            self.queue.push_back(slot);
        } else {
            // Whoever is turned away has waited in vain: at least as bad as waiting for the whole time limit.
            let spent = Spent { response: to_nanos(self.plan.limit).max(late), service: None, lateness: late };
            self.book(slot, slot.picked, &End::Dropped, spent);
            self.source.back(slot.picked);
        }
    }

    fn release_queued(&mut self) {
        while self.flying < self.plan.in_flight
            && let Some(slot) = self.queue.pop_front()
        {
            let released = self.read_clock();
            self.release(slot, released);
        }
        self.see_who_came_back();
    }

    #[inline]
    fn release(&mut self, slot: Slot, released: u64) {
        let flow = slot.flow as usize;
        let seat = self.free[flow].pop().unwrap_or_else(|| {
            let number = self.seats.len() as u32;
            self.seats.push(Seat::new(number, &self.plan.flows[flow], &self.notes, &self.ready));
            number
        });
        self.flying += 1;
        let sent = self.read_clock();
        let iteration = Iteration {
            n: slot.n,
            due: slot.at,
            measured: self.plan.measured[slot.phase as usize],
            flow: slot.flow,
            seed: self.plan.seed,
            shared: self.seats[seat as usize].shared.clone(),
        };
        let here = &mut self.seats[seat as usize];
        here.flying = Some(Flying { slot, released, sent });
        match here.start(iteration) {
            Poll::Pending => {
                self.link(seat);
                self.books.note_in_flight(released, self.flying);
            }
            Poll::Ready(ended) => {
                let done = self.read_clock();
                self.land(seat, done, ended);
            }
        }
    }

    fn link(&mut self, seat: u32) {
        let youngest = std::mem::replace(&mut self.youngest, seat);
        let here = &mut self.seats[seat as usize];
        (here.before, here.after) = (youngest, NONE);
        match self.seats.get_mut(youngest as usize) {
            Some(youngest) => youngest.after = seat,
            None => self.eldest = seat,
        }
    }

    fn unlink(&mut self, seat: u32) {
        let Seat { before, after, .. } = self.seats[seat as usize];
        match self.seats.get_mut(before as usize) {
            Some(neighbour) => neighbour.after = after,
            None => self.eldest = after,
        }
        match self.seats.get_mut(after as usize) {
            Some(neighbour) => neighbour.before = before,
            None => self.youngest = before,
        }
    }

    fn failed(&self, failed: Failed) -> End {
        match failed {
            Failed::Error(error) => {
                let kind = self.plan.classifiers.kind(&*error as &dyn Any).into_owned();
                End::Error { kind, message: error.to_string() }
            }
            Failed::Panic(panic) => panicked(&*panic),
        }
    }

    #[inline]
    fn land(&mut self, seat: u32, done: u64, ended: Ended) {
        match ended {
            Ok(()) => self.book_landed(seat, done, &End::Ok),
            Err(failed) => self.land_failed(seat, done, failed),
        }
    }

    #[cold]
    fn land_failed(&mut self, seat: u32, done: u64, failed: Failed) {
        // A classifier or a message that panics is the flow's doing as well.
        let end = std::panic::catch_unwind(AssertUnwindSafe(|| self.failed(failed)));
        self.book_landed(seat, done, &end.unwrap_or_else(|panic| panicked(&*panic)));
    }

    #[inline]
    fn book_landed(&mut self, seat: u32, done: u64, end: &End) {
        let here = &mut self.seats[seat as usize];
        let Some(Flying { slot, released, sent }) = here.flying.take() else { return };
        let thought = here.shared.take_thought();
        self.free[slot.flow as usize].push(seat);
        if *end == End::Ok
            && let Some(during) = self.ends.iter().position(|end| done < *end)
        {
            self.books.cells[during][slot.flow as usize].completed_in_phase += 1;
        }
        // Waiting in the queue is the system's doing, not the generator's; thinking is nobody's.
        let lateness = slot.picked.saturating_sub(slot.at) + sent.saturating_sub(released);
        let response = done.saturating_sub(slot.at).saturating_sub(thought);
        let service = Some(done.saturating_sub(sent).saturating_sub(thought));
        self.flying -= 1;
        self.book(slot, done, end, Spent { response, service, lateness });
        if self.plan.most.is_none_or(|most| self.taken < most) {
            self.source.back(done);
        }
    }

    fn book_unfinished(&mut self, slot: Slot) {
        let lateness = slot.picked.saturating_sub(slot.at);
        let spent = Spent { response: self.now.saturating_sub(slot.at), service: None, lateness };
        self.book(slot, self.now, &End::Unfinished, spent);
    }

    #[inline]
    fn book(&mut self, slot: Slot, ended: u64, end: &End, spent: Spent) {
        if !self.watches.is_empty() && self.plan.measured[slot.phase as usize] {
            let seen = Seen { flow: slot.flow, is_ok: *end == End::Ok, end, spent: spent.response };
            self.watches.iter_mut().for_each(|watch| watch.note(ended, &seen));
        }
        self.books.book((slot.phase as usize, slot.flow as usize), slot.at, ended, end, spent);
    }

    /// Every tenth of a second: are responses steady, does a gate break for good?
    fn look(&mut self) {
        if self.now < self.next_look {
            return;
        }
        self.next_look = self.now + crate::watch::LOOK;
        self.end_warm_up();
        let (now, limit) = (self.now, to_nanos(self.plan.limit));
        let phase = self.ends.iter().position(|end| now < *end);
        let is_measured = phase.is_some_and(|phase| self.plan.measured[phase]);
        for n in 0..self.watches.len() {
            if is_measured {
                self.watches[n].see(now, &self.plan.latest);
            }
            // Whoever has waited longer than the limit of a gate counts before they have an answer.
            let overdue = self.overdue(self.watches[n].beyond_nanos().unwrap_or(limit), self.watches[n].flow());
            if let Some(why) = self.watches[n].look(now, overdue) {
                self.aborted = Some((Duration::from_nanos(now), why));
                self.stop_arrivals();
                return;
            }
        }
    }

    /// How many in flight or queued are older than this.
    fn overdue(&self, age: u64, flow: Option<u32>) -> u64 {
        let counts = |slot: &Slot| {
            flow.is_none_or(|flow| flow == slot.flow)
                && self.plan.measured[slot.phase as usize]
                && self.now.saturating_sub(slot.at) >= age
        };
        let (mut count, mut seat) = (0, self.eldest);
        while let Some(here) = self.seats.get(seat as usize) {
            count += u64::from(here.flying.is_some_and(|flying| counts(&flying.slot)));
            seat = here.after;
        }
        count + self.queue.iter().filter(|slot| counts(slot)).count() as u64
    }

    /// Ends a warm-up whose responses are steady: what was still to come of it is not due.
    fn end_warm_up(&mut self) {
        let Some(phase) = self.ends.iter().position(|end| self.now < *end) else { return };
        let begun = if phase == 0 { 0 } else { self.ends[phase - 1] };
        if !self.plan.until_steady[phase] || !self.books.is_steady(begun, self.now) {
            return;
        }
        let saved = self.ends[phase] - self.now;
        if let Source::Open(slots) = &mut self.source {
            while let Some(due) = slots.next_if(|due| due.phase == phase) {
                self.books.cells[phase][due.flow].not_due += 1;
            }
            self.shift += saved;
        }
        for later in phase..self.ends.len() {
            self.ends[later] -= saved;
            self.shortened[later] += saved;
        }
        self.source.shorten(&self.ends);
        self.next_due = self.source.next_at();
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
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    End::Error { kind: PANIC.to_owned(), message: text.unwrap_or("no message").to_owned() }
}
