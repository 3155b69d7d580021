//! Iterations end: by themselves, by their time limit or by a panic, and their ends are booked.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::task::Poll;

use super::books::{End, Spent};
use super::seat::{Ended, Failed, Flying};
use super::{Driver, Slot, panicked};
use crate::units::to_nanos;
use crate::watch::Seen;

impl Driver<'_> {
    /// Polls the seats that were woken.
    pub(super) fn poll_ready(&mut self) {
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
                self.books.note_in_flight(done, self.flying);
                if let Some(flying) = self.unlink(seat) {
                    self.land(seat, flying, done, ended);
                }
            }
        }
        self.batch = batch;
        self.see_who_came_back();
    }

    /// In a closed loop whoever has ended is due again.
    #[inline]
    pub(super) fn see_who_came_back(&mut self) {
        if self.source.is_closed_loop() {
            self.next_due = self.source.next_at();
        }
    }

    /// Cancels what has run into its time limit.
    pub(super) fn expire(&mut self) {
        while let Some(deadline) = self.first_deadline().filter(|deadline| *deadline <= self.now) {
            let eldest = self.eldest;
            let ended = self.seats[eldest as usize].cancel();
            let end = match ended {
                Ok(()) => End::Timeout,
                Err(failed) => self.failed(failed),
            };
            let Some(flying) = self.unlink(eldest) else { break };
            self.book_landed(eldest, flying, self.now.max(deadline), &end);
        }
        self.see_who_came_back();
    }

    pub(super) fn first_deadline(&self) -> Option<u64> {
        let eldest = self.seats.get(self.eldest as usize)?.flying?;
        Some(eldest.sent.saturating_add(to_nanos(self.plan.limit)))
    }

    /// Takes an iteration that has ended out of those in flight.
    fn unlink(&mut self, seat: u32) -> Option<Flying> {
        let here = self.seats.get_mut(seat as usize)?;
        let (flying, before, after) = (here.flying.take()?, here.before, here.after);
        match self.seats.get_mut(before as usize) {
            Some(neighbour) => neighbour.after = after,
            None => self.eldest = after,
        }
        match self.seats.get_mut(after as usize) {
            Some(neighbour) => neighbour.before = before,
            None => self.youngest = before,
        }
        Some(flying)
    }

    pub(super) fn failed(&self, failed: Failed) -> End {
        match failed {
            Failed::Error(error) => {
                let kind = self.plan.classifiers.kind(&*error as &dyn Any).into_owned();
                End::Error { kind, message: error.to_string() }
            }
            Failed::Panic(panic) => panicked(&*panic),
        }
    }

    #[inline]
    pub(super) fn land(&mut self, seat: u32, flying: Flying, done: u64, ended: Ended) {
        match ended {
            Ok(()) => self.book_landed(seat, flying, done, &End::Ok),
            Err(failed) => self.land_failed(seat, flying, done, failed),
        }
    }

    #[cold]
    fn land_failed(&mut self, seat: u32, flying: Flying, done: u64, failed: Failed) {
        // A classifier or a message that panics is the flow's doing as well.
        let end = std::panic::catch_unwind(AssertUnwindSafe(|| self.failed(failed)));
        self.book_landed(seat, flying, done, &end.unwrap_or_else(|panic| panicked(&*panic)));
    }

    #[inline]
    fn book_landed(&mut self, seat: u32, flying: Flying, done: u64, end: &End) {
        let Flying { slot, released, sent } = flying;
        let thought = self.seats[seat as usize].board.take_thought();
        self.free[slot.flow as usize].push(seat);
        if matches!(end, End::Ok)
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

    pub(super) fn book_unfinished(&mut self, slot: Slot) {
        let lateness = slot.picked.saturating_sub(slot.at);
        let spent = Spent { response: self.now.saturating_sub(slot.at), service: None, lateness };
        self.book(slot, self.now, &End::Unfinished, spent);
    }

    #[inline]
    pub(super) fn book(&mut self, slot: Slot, ended: u64, end: &End, spent: Spent) {
        if !self.watches.is_empty() && self.plan.measured[slot.phase as usize] {
            let seen = Seen { flow: slot.flow, is_ok: matches!(end, End::Ok), end, spent: spent.response };
            self.watches.iter_mut().for_each(|watch| watch.note(ended, &seen));
        }
        self.books.book((slot.phase as usize, slot.flow as usize), slot.at, ended, end, spent);
    }
}
