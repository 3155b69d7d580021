//! What is due next: a schedule known beforehand, or users who come back.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::iter::Peekable;
use std::time::Duration;

use harness_core::run::SeedStream;

use super::Slot;
use crate::arrival::{Due, Schedule};
use crate::load::Think;
use crate::units::to_nanos;

/// A closed loop: how many users, and how they pause.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) users: usize,
    pub(crate) think: Think,
    /// Users join one after the other over this time.
    pub(crate) stagger: Duration,
}

/// What is due, in order.
pub(super) enum Source {
    Open(Peekable<Box<dyn Iterator<Item = Due> + Send>>),
    Closed(Users),
}

impl Source {
    pub(super) fn new(schedule: &Schedule, closed: Option<&Closed>, think: SeedStream) -> Self {
        match closed {
            None => Self::Open((Box::new(schedule.slots()) as Box<dyn Iterator<Item = Due> + Send>).peekable()),
            Some(closed) => Self::Closed(Users::new(schedule, closed, think)),
        }
    }

    /// When the next slot is due, in nanoseconds since the start, shortened warm-ups aside.
    #[inline]
    pub(super) fn next_at(&mut self) -> Option<u64> {
        match self {
            Self::Open(slots) => slots.peek().map(|due| to_nanos(due.at)),
            Self::Closed(users) => users.next_at(),
        }
    }

    /// Takes up what is due next; `at` is what [`Source::next_at`] said.
    #[inline]
    pub(super) fn take(&mut self, at: u64) -> Option<Slot> {
        match self {
            Self::Open(slots) => slots.next().map(|due| Slot {
                n: due.n,
                at: to_nanos(due.at),
                phase: due.phase as u32,
                flow: due.flow as u32,
                picked: 0,
            }),
            Self::Closed(users) => users.take(at),
        }
    }

    /// A user has ended an iteration and will be back.
    #[inline]
    pub(super) fn back(&mut self, now: u64) {
        if let Self::Closed(users) = self {
            users.back(now);
        }
    }

    /// Phases end at other times than planned.
    pub(super) fn shorten(&mut self, ends: &[u64]) {
        if let Self::Closed(users) = self {
            users.ends = ends.to_vec();
        }
    }

    /// Nobody comes back any more.
    pub(super) fn close(&mut self) {
        if let Self::Closed(users) = self {
            users.waiting.clear();
            users.thinking.clear();
            users.is_closed = true;
        }
    }

    /// True if somebody in flight may come back.
    pub(super) fn is_closed_loop(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

pub(super) struct Users {
    /// Those who do not think, in the order of their return.
    waiting: VecDeque<u64>,
    thinking: BinaryHeap<Reverse<u64>>,
    think: Think,
    stream: SeedStream,
    /// None where there is but one flow.
    dealt: Option<Box<dyn Iterator<Item = usize> + Send>>,
    ends: Vec<u64>,
    phase: usize,
    n: u64,
    is_closed: bool,
}

impl Users {
    fn new(schedule: &Schedule, closed: &Closed, stream: SeedStream) -> Self {
        let every = |user: usize| to_nanos(closed.stagger) / closed.users.max(1) as u64 * user as u64;
        Self {
            waiting: VecDeque::with_capacity(closed.users),
            thinking: (0..closed.users).map(|user| Reverse(every(user))).collect(),
            think: closed.think,
            stream,
            dealt: (schedule.flows() > 1).then(|| Box::new(schedule.dealt()) as Box<_>),
            ends: schedule.ends(),
            phase: 0,
            n: 0,
            is_closed: false,
        }
    }

    #[inline]
    fn next_at(&self) -> Option<u64> {
        let at = match (self.waiting.front(), self.thinking.peek()) {
            (Some(waiting), Some(Reverse(thinking))) => *waiting.min(thinking),
            (Some(at), None) | (None, Some(Reverse(at))) => *at,
            (None, None) => return None,
        };
        // Who would come back after the end does not.
        (at < *self.ends.last()?).then_some(at)
    }

    #[inline]
    fn take(&mut self, at: u64) -> Option<Slot> {
        if self.waiting.front() == Some(&at) {
            self.waiting.pop_front();
        } else {
            self.thinking.pop();
        }
        while self.ends.get(self.phase).is_some_and(|end| at >= *end) {
            self.phase += 1;
        }
        let n = self.n;
        self.n += 1;
        let flow = self.dealt.as_mut().map_or(Some(0), |dealt| dealt.next())?;
        Some(Slot { n, at, phase: self.phase as u32, flow: flow as u32, picked: 0 })
    }

    #[inline]
    fn back(&mut self, now: u64) {
        if self.is_closed {
            return;
        }
        match self.think {
            Think::None => self.waiting.push_back(now),
            Think::Fixed(pause) => self.thinking.push(Reverse(now.saturating_add(to_nanos(pause)))),
            Think::Exponential(mean) => {
                let pause = -(1.0 - self.stream.unit()).ln() * to_nanos(mean) as f64;
                self.thinking.push(Reverse(now.saturating_add(pause as u64)));
            }
        }
    }
}
