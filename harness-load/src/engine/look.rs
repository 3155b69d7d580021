//! Ten times a second the run is looked at: is the warm-up over, does a gate break for good?

use std::time::Duration;

use super::source::Source;
use super::{Driver, Slot};
use crate::units::to_nanos;

impl Driver<'_> {
    /// Every tenth of a second: are responses steady, does a gate break for good?
    pub(super) fn look(&mut self) {
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
}
