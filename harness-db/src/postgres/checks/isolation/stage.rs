//! The stage: sessions that wait at a gate before each step, let go one at a time.
//!
//! After each turn the stage waits until everything is still: every session stands at its gate, has ended, or waits for a
//! lock. A lock wait is seen in the server's lock table and not concluded from silence, so that it takes no time and leaves
//! no doubt: the session's server process is blocked by processes of the other sessions, none of which runs, and there is
//! no circle (a circle is a deadlock, and the server's detector will end it: its `40P01` is awaited).

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use harness_core::wait::{seconds, within};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::locks::{Observer, Seen, is_circular};
use super::trace::{Answer, Moment, Trace};
use crate::postgres::frames::{Gate, Tap};

/// How long a step may stay without an answer, and without a lock to explain it, unless set.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// How long an answer is waited for before the locks are looked at, and the longest pause between two looks.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(16));

/// What a session tells the stage.
#[derive(Debug)]
pub(super) enum Event {
    /// It has a server process.
    Connected(i32),
    /// It wants to take its next step.
    AtGate(Gate),
    /// The step's statement is this.
    Began(String),
    /// The step was answered.
    Done(Answer),
    /// It is over; its server processes may live on.
    Ended,
    /// The run is broken: this is no result of a step.
    Broke(Error),
    /// It closes its connections, and goes on afterwards if there is somebody to tell.
    Leaves(Departure),
}

pub(super) type Events = UnboundedSender<(usize, Event)>;
pub(super) type Play<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

#[derive(Debug)]
enum State {
    /// In its own code, between two steps.
    Coming,
    AtGate,
    /// A step was let go. `still` is true once it was seen to be blocked since the last turn.
    Unanswered {
        still: bool,
    },
    Leaving(Departure),
    Ended,
}

struct Seat {
    name: String,
    state: State,
    /// Open as soon as the session before it stands at its gate or is over: one after another they come.
    start: Gate,
    gates: VecDeque<Gate>,
    pids: Vec<i32>,
    step: usize,
    text: String,
    /// Who blocks its step, as last written to the trace.
    blocked_by: Vec<usize>,
    tap: Option<Rc<Tap>>,
    /// It wants to leave, but its last step has no answer yet: a client may act on an error before the server is done.
    leaves: Option<Departure>,
}

/// Whom to tell when a session has left, if it goes on.
type Departure = Option<oneshot::Sender<()>>;

pub(super) struct Stage<'o> {
    seats: Vec<Seat>,
    events: UnboundedReceiver<(usize, Event)>,
    observer: &'o mut Observer,
    limit: Duration,
    trace: Trace,
    broken: Option<Error>,
}

/// Chooses whose turn it is among those at the gate; never called without any.
pub(super) type Choose<'c> = &'c mut dyn FnMut(&[usize]) -> usize;

impl<'o> Stage<'o> {
    pub(super) fn new(names: &[String], observer: &'o mut Observer, limit: Duration) -> (Self, Events) {
        let (send, events) = unbounded_channel();
        let seat = |name: &String| Seat {
            name: name.clone(),
            state: State::Coming,
            start: Gate::new(),
            gates: VecDeque::new(),
            pids: Vec::new(),
            step: 0,
            text: String::new(),
            blocked_by: Vec::new(),
            tap: None,
            leaves: None,
        };
        let trace = Trace { sessions: names.to_vec(), ..Trace::default() };
        (Self { seats: names.iter().map(seat).collect(), events, observer, limit, trace, broken: None }, send)
    }

    /// What a session awaits before it begins, so that the first code of the sessions runs in their order.
    pub(super) fn start(&self, session: usize) -> Gate {
        if session == 0 {
            self.seats[0].start.open();
        }
        self.seats[session].start.clone()
    }

    /// Says over which tap a session reaches its server: it is cut when the session leaves.
    pub(super) fn over(&mut self, session: usize, tap: Rc<Tap>) {
        self.seats[session].tap = Some(tap);
    }

    /// Lets the sessions play until all have ended.
    pub(super) async fn run(mut self, plays: Vec<Play<'_>>, choose: Choose<'_>) -> CoreResult<Trace> {
        let mut plays: Vec<Option<Play<'_>>> = plays.into_iter().map(Some).collect();
        let mut lead = Box::pin(self.lead(choose));
        let led = poll_fn(|context| {
            for play in &mut plays {
                if play.as_mut().is_some_and(|it| it.as_mut().poll(context).is_ready()) {
                    *play = None;
                }
            }
            lead.as_mut().poll(context)
        })
        .await;
        drop(lead);
        led.map(|()| self.trace)
    }

    async fn lead(&mut self, choose: Choose<'_>) -> CoreResult {
        loop {
            self.settle().await?;
            let at_gate = |seat: &Seat| matches!(seat.state, State::AtGate);
            let ready: Vec<usize> = (0..self.seats.len()).filter(|who| at_gate(&self.seats[*who])).collect();
            if ready.is_empty() {
                return self.close();
            }
            let who = choose(&ready);
            self.let_go(if ready.contains(&who) { who } else { ready[0] });
        }
    }

    fn let_go(&mut self, who: usize) {
        for seat in &mut self.seats {
            if let State::Unanswered { still } = &mut seat.state {
                *still = false;
            }
        }
        let seat = &mut self.seats[who];
        seat.state = State::Unanswered { still: false };
        seat.step += 1;
        seat.blocked_by.clear();
        self.trace.turns.push(who);
        if let Some(gate) = seat.gates.pop_front() {
            gate.open();
        }
    }

    /// Nobody is at the gate: fine when all have ended.
    fn close(&self) -> CoreResult {
        let Some(seat) = self.seats.iter().find(|seat| !matches!(seat.state, State::Ended)) else { return Ok(()) };
        let by: Vec<&str> = seat.blocked_by.iter().map(|by| &*self.seats[*by].name).collect();
        let what = format!(
            "{} waits at step {} for {}, which has no step left that would let it go on",
            seat.name,
            seat.step,
            by.join(", ")
        );
        let error = Error::new(ErrorKind::Config, what).log(self.trace.to_string().lines());
        Err(error.remedy("end each transaction with a step of its own: commit or rollback"))
    }

    /// Waits until every session stands at its gate, has ended, or is blocked for good.
    async fn settle(&mut self) -> CoreResult {
        let (begun, mut patience) = (Instant::now(), PATIENCE.0);
        let mut last = None;
        loop {
            self.hear();
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            if self.seats.iter().all(Seat::is_still) {
                return Ok(());
            }
            if begun.elapsed() >= self.limit {
                return Err(self.overdue().await);
            }
            if let Ok(Some((who, event))) = within("an answer", patience, self.events.recv()).await {
                self.take(who, event);
                continue;
            }
            patience = (patience * 2).min(PATIENCE.1);
            let asked = self.open_pids();
            if asked.is_empty() {
                continue;
            }
            let seen = self.observer.look(&asked).await?;
            if self.hear() {
                last = None;
                continue;
            }
            if self.leave(&seen) {
                last = None; // what was seen is older than what was heard
                continue;
            }
            self.judge(&seen, &mut last);
        }
    }

    /// Takes what has arrived; true when something had.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        while let Ok((who, event)) = self.events.try_recv() {
            self.take(who, event);
            heard = true;
        }
        heard
    }

    fn take(&mut self, who: usize, event: Event) {
        if let (Event::AtGate(_) | Event::Ended | Event::Leaves(_), Some(next)) = (&event, self.seats.get(who + 1)) {
            next.start.open();
        }
        let seat = &mut self.seats[who];
        match event {
            Event::Connected(pid) => seat.pids.push(pid),
            Event::AtGate(gate) => match seat.state {
                State::Leaving(_) | State::Ended => {}
                State::Coming => {
                    seat.gates.push_back(gate);
                    seat.state = State::AtGate;
                }
                _ => seat.gates.push_back(gate),
            },
            Event::Began(text) => seat.text = text,
            Event::Done(answer) => {
                let (step, text) = (seat.step, seat.text.clone());
                self.trace.moments.push(Moment { session: who, step, text, answer });
                if matches!(seat.state, State::Unanswered { .. }) {
                    seat.state = if seat.gates.is_empty() { State::Coming } else { State::AtGate };
                }
                if let Some(then) = seat.leaves.take() {
                    seat.leave(then);
                }
            }
            Event::Ended => seat.state = State::Ended,
            Event::Broke(error) => self.broken = Some(error),
            Event::Leaves(then) if matches!(seat.state, State::Unanswered { .. }) => seat.leaves = Some(then),
            Event::Leaves(then) => seat.leave(then),
        }
    }

    /// The server processes of all sessions that are still to be heard of.
    fn open_pids(&self) -> Vec<i32> {
        let open = self.seats.iter().filter(|seat| matches!(seat.state, State::Unanswered { .. } | State::Leaving(_)));
        open.flat_map(|seat| seat.pids.iter().copied()).collect()
    }

    /// Ends those whose server processes have gone, with all locks they held; true when something was heard meanwhile.
    fn leave(&mut self, seen: &BTreeMap<i32, Seen>) -> bool {
        let is_gone = |seat: &Seat| !seat.pids.iter().any(|pid| seen.get(pid).is_none_or(|seen| seen.lives));
        // A last answer may still be on its way when its server has gone, but not when its connection has ended too.
        let is_cut_off = |seat: &Seat| is_gone(seat) && seat.tap.as_ref().is_none_or(|tap| tap.connections() == 0);
        let cut_off: Vec<bool> = self.seats.iter().map(is_cut_off).collect();
        let heard = self.hear();
        for (seat, is_cut_off) in self.seats.iter_mut().zip(cut_off) {
            if let Some(then) = seat.leaves.take_if(|_| is_cut_off) {
                seat.leave(then);
            }
            if !is_gone(seat) || !matches!(seat.state, State::Leaving(_)) {
                continue;
            }
            seat.pids.clear();
            let go_on = match std::mem::replace(&mut seat.state, State::Ended) {
                State::Leaving(Some(then)) => then.send(()).is_ok(),
                _ => false,
            };
            seat.gates.clear();
            if go_on {
                seat.state = State::Coming;
            }
        }
        heard
    }

    /// Finds out whether all steps without an answer are blocked for good.
    fn judge(&mut self, seen: &BTreeMap<i32, Seen>, last: &mut Option<BTreeMap<usize, Vec<usize>>>) {
        let unanswered = |seat: &Seat| matches!(seat.state, State::Unanswered { .. });
        if self.seats.iter().any(|seat| !seat.is_still() && !unanswered(seat)) {
            *last = None; // somebody is on the way and may still take or give back a lock
            return;
        }
        let open = (0..self.seats.len()).filter(|who| unanswered(&self.seats[*who]));
        let waits: BTreeMap<usize, Vec<usize>> = open.map(|who| (who, self.blockers(who, seen))).collect();
        if waits.values().any(Vec::is_empty) || is_circular(&waits) {
            *last = None;
            return;
        }
        // The lock table is not read in one instant: two that wait must be seen to wait twice.
        if waits.len() > 1 && last.as_ref() != Some(&waits) {
            *last = Some(waits);
            return;
        }
        for (who, by) in waits {
            let names = by.iter().map(|by| self.seats[*by].name.clone()).collect();
            let seat = &mut self.seats[who];
            seat.state = State::Unanswered { still: true };
            if seat.blocked_by != by {
                let (step, text) = (seat.step, seat.text.clone());
                let answer = Answer::Blocked { by: names };
                self.trace.moments.push(Moment { session: who, step, text, answer });
                seat.blocked_by = by;
            }
        }
    }

    /// The other sessions that block this one. Others than ours (a vacuum, somebody at a prompt) end by themselves or not
    /// at all: they are waited for, and named when time runs out.
    fn blockers(&self, who: usize, seen: &BTreeMap<i32, Seen>) -> Vec<usize> {
        let pids = self.seats[who].pids.iter().filter_map(|pid| seen.get(pid)).flat_map(|seen| &seen.blocked_by);
        let owner = |pid: &i32| self.seats.iter().position(|seat| seat.pids.contains(pid));
        let mut owners: Vec<usize> = pids.filter_map(owner).filter(|owner| *owner != who).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    async fn overdue(&mut self) -> Error {
        let pids = self.open_pids();
        let limit = seconds(self.limit);
        let mut what = String::new();
        for seat in self.seats.iter().filter(|seat| !seat.is_still()) {
            let part = match &seat.state {
                State::Unanswered { .. } => {
                    format!("{}: no answer to step {} within {limit}: `{}`", seat.name, seat.step, seat.text)
                }
                State::Leaving(_) => format!("{}: its server process is still there after {limit}", seat.name),
                _ => format!("{}: no statement and no end within {limit} after step {}", seat.name, seat.step),
            };
            what += if what.is_empty() { "" } else { "; " };
            what += &part;
        }
        let mut error = Error::new(ErrorKind::Timeout, what);
        for line in self.observer.describe(&pids).await {
            error = error.tried(line);
        }
        let error = error.log(self.trace.to_string().lines());
        match pids.is_empty() {
            true => error
                .remedy("a session waits for something outside the database: step functions that wait for rows only"),
            false => error.remedy("end what blocks it, or raise the limit if the statement is slow"),
        }
    }
}

impl Seat {
    fn leave(&mut self, then: Departure) {
        self.gates.clear();
        if let Some(tap) = &self.tap {
            tap.cut();
        }
        self.state = State::Leaving(then);
    }

    fn is_still(&self) -> bool {
        matches!(self.state, State::AtGate | State::Ended | State::Unanswered { still: true })
    }
}
