//! Slots are due: they are taken up, queued or turned away, and their iterations are started.

use std::task::Poll;

use super::books::{End, Spent};
use super::flow::Iteration;
use super::seat::{Flying, NONE, Seat};
use super::{Driver, Slot};
use crate::generator::Meter;
use crate::units::to_nanos;

/// A slot taken up this late is in time even where its phase has just ended.
const IN_TIME: u64 = 10_000_000;
/// The driver looks at sockets and timers after so many slots, or so many nanoseconds, at the latest.
const BATCH: usize = 256;
const LONGEST_BATCH: u64 = 50_000;

impl Driver<'_> {
    /// Takes up what is due, at most a batch of it.
    pub(super) fn pick_due(&mut self) {
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

    pub(super) fn release_queued(&mut self) {
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
            board: self.seats[seat as usize].board.lent(),
        };
        let flying = Flying { slot, released, sent };
        match self.seats[seat as usize].start(iteration) {
            Poll::Pending => {
                self.seats[seat as usize].flying = Some(flying);
                self.link(seat);
                self.books.note_in_flight(released, self.flying);
            }
            Poll::Ready(ended) => {
                let done = self.read_clock();
                self.land(seat, flying, done, ended);
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
}
