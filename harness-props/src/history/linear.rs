//! Linearizability of anything with a sequential model: is there one order, within the intervals, that the model accepts?
//!
//! The search is that of Wing and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing
//! for Linearizability*, 2017): depth first over the calls that could be next, remembering which sets of operations with
//! which state were tried. Linearizability is local: search each object by itself. An operation with an unknown end may
//! take effect at any time after its invocation, or never.
//!
//! ```
//! use harness_props::history::linear::{Interval, Linearity, Sequential, search};
//! use harness_props::history::Budget;
//!
//! /// A lock: true takes it, false frees it.
//! struct Lock;
//! impl Sequential for Lock {
//!     type State = bool;
//!     type Operation = bool;
//!     fn initial(&self) -> bool { false }
//!     fn step(&self, is_held: &bool, takes: &bool) -> Option<bool> { (is_held != takes).then_some(*takes) }
//! }
//!
//! let both = [Interval::done(0, 2, true), Interval::done(1, 3, true)];
//! assert!(matches!(search(&Lock, &both, &Budget::default()), Linearity::Refuted { .. }));
//! let freed = [Interval::done(0, 2, true), Interval::done(1, 5, true), Interval::done(3, 4, false)];
//! assert!(matches!(search(&Lock, &freed, &Budget::default()), Linearity::Shown { .. }));
//! ```

use std::collections::HashSet;
use std::hash::Hash;

use super::Budget;

/// What an object does when it is used by one client at a time.
pub trait Sequential {
    /// The object's state.
    type State: Clone + Eq + Hash;
    /// A call together with what came back, as far as it is known.
    type Operation;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after an operation, or `None` when the object would not have answered like that.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation with the numbers of the events it began and ended at. All events of a search have different numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval<O> {
    /// When it was sent.
    pub invoked: u64,
    /// When it was answered; `u64::MAX` when it was not.
    pub ended: u64,
    /// What it was.
    pub operation: O,
}

impl<O> Interval<O> {
    /// An operation that was answered.
    pub fn done(invoked: u64, ended: u64, operation: O) -> Self {
        Self { invoked, ended, operation }
    }

    /// An operation whose end is unknown.
    pub fn unknown(invoked: u64, operation: O) -> Self {
        Self { invoked, ended: u64::MAX, operation }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linearity {
    /// There is such an order: the indices of the operations that took effect, in it.
    Shown {
        /// One order.
        order: Vec<usize>,
    },
    /// There is none.
    Refuted {
        /// The longest order that the model accepts.
        longest: Vec<usize>,
        /// The operation that had to be next after it at the latest, and could not.
        stuck: usize,
    },
    /// The budget was spent before either was known.
    Exhausted {
        /// States visited.
        states: u64,
    },
}

/// A doubly linked list of calls and returns, in which a call is lifted out together with its return.
struct Events {
    /// Operation of an event, and whether it is the return.
    of: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    call: Vec<usize>,
    /// Event of the return; `usize::MAX` without one.
    answer: Vec<usize>,
}

/// Before the first event and after the last one.
const ENDS: usize = 0;

impl Events {
    fn new<O>(intervals: &[Interval<O>]) -> Self {
        let mut by_number: Vec<(u64, usize, bool)> = Vec::with_capacity(intervals.len() * 2);
        for (n, interval) in intervals.iter().enumerate() {
            by_number.push((interval.invoked, n, false));
            if interval.ended != u64::MAX {
                by_number.push((interval.ended, n, true));
            }
        }
        by_number.sort_unstable();
        let count = by_number.len();
        let mut events = Self {
            of: Vec::with_capacity(count + 1),
            next: (1..=count).chain([ENDS]).collect(),
            previous: std::iter::once(count).chain(0..count).collect(),
            call: vec![0; intervals.len()],
            answer: vec![usize::MAX; intervals.len()],
        };
        events.of.push((usize::MAX, true));
        for (_, n, is_return) in by_number {
            let side = if is_return { &mut events.answer } else { &mut events.call };
            side[n] = events.of.len();
            events.of.push((n, is_return));
        }
        events
    }

    fn unlink(&mut self, event: usize) {
        let (before, after) = (self.previous[event], self.next[event]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    fn link(&mut self, event: usize) {
        let (before, after) = (self.previous[event], self.next[event]);
        self.next[before] = event;
        self.previous[after] = event;
    }

    fn lift(&mut self, n: usize) {
        self.unlink(self.call[n]);
        if self.answer[n] != usize::MAX {
            self.unlink(self.answer[n]);
        }
    }

    fn unlift(&mut self, n: usize) {
        if self.answer[n] != usize::MAX {
            self.link(self.answer[n]);
        }
        self.link(self.call[n]);
    }
}

/// Searches an order of the operations of one object.
pub fn search<S: Sequential>(model: &S, intervals: &[Interval<S::Operation>], budget: &Budget) -> Linearity {
    let mut events = Events::new(intervals);
    let mut open = intervals.iter().filter(|interval| interval.ended != u64::MAX).count();
    let mut taken = vec![0_u64; intervals.len().div_ceil(64)];
    let mut tried: HashSet<(Box<[u64]>, S::State)> = HashSet::new();
    let mut path: Vec<(usize, S::State)> = Vec::new();
    let mut state = model.initial();
    let mut longest: (Vec<usize>, usize) = (Vec::new(), 0);
    let (mut states, mut bytes) = (0_u64, 0_usize);
    let mut at = events.next[ENDS];
    while open > 0 {
        let (n, is_return) = events.of[at];
        if !is_return && let Some(after) = model.step(&state, &intervals[n].operation) {
            taken[n / 64] |= 1 << (n % 64);
            states += 1;
            bytes += taken.len() * 8 + size_of::<(Box<[u64]>, S::State)>() + 16;
            if budget.is_spent(states, bytes) {
                return Linearity::Exhausted { states };
            }
            if tried.insert((taken.clone().into_boxed_slice(), after.clone())) {
                path.push((n, std::mem::replace(&mut state, after)));
                events.lift(n);
                open -= usize::from(intervals[n].ended != u64::MAX);
                at = events.next[ENDS];
                continue;
            }
            taken[n / 64] &= !(1 << (n % 64));
        }
        if !is_return && events.next[at] != ENDS {
            at = events.next[at];
            continue;
        }
        // An answer that nothing explains yet, or no call left: the last choice was wrong.
        if is_return && (longest.0.is_empty() || path.len() > longest.0.len()) {
            longest = (path.iter().map(|(n, _)| *n).collect(), n);
        }
        loop {
            let Some((n, before)) = path.pop() else {
                return Linearity::Refuted { longest: longest.0, stuck: longest.1 };
            };
            state = before;
            taken[n / 64] &= !(1 << (n % 64));
            events.unlift(n);
            open += usize::from(intervals[n].ended != u64::MAX);
            at = events.next[events.call[n]];
            if at != ENDS {
                break;
            }
        }
    }
    Linearity::Shown { order: path.into_iter().map(|(n, _)| n).collect() }
}

#[cfg(test)]
mod tests {
    use super::{Interval, Linearity, Sequential, search};
    use crate::history::Budget;

    /// A cell: `Ok(n)` writes, `Err(n)` reads.
    struct Cell;

    impl Sequential for Cell {
        type State = u8;
        type Operation = Result<u8, u8>;

        fn initial(&self) -> u8 {
            0
        }

        fn step(&self, state: &u8, operation: &Result<u8, u8>) -> Option<u8> {
            match operation {
                Ok(written) => Some(*written),
                Err(read) => (read == state).then_some(*state),
            }
        }
    }

    /// Every order of every subset that holds all answered operations: the definition, for few operations.
    fn by_definition(intervals: &[Interval<Result<u8, u8>>], taken: u32, state: u8) -> bool {
        let left = || (0..intervals.len()).filter(|n| taken & (1 << n) == 0);
        if left().all(|n| intervals[n].ended == u64::MAX) {
            return true;
        }
        let first_end = left().map(|n| intervals[n].ended).min().unwrap_or(u64::MAX);
        left().filter(|n| intervals[*n].invoked < first_end).any(|n| {
            Cell.step(&state, &intervals[n].operation)
                .is_some_and(|after| by_definition(intervals, taken | (1 << n), after))
        })
    }

    #[test]
    fn agrees_with_the_definition_on_random_histories() {
        let mut seed = 7_u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut shown = 0;
        for round in 0..3_000 {
            let mut numbers: Vec<u64> = (0..12).collect();
            for n in (1..12).rev() {
                numbers.swap(n, draw(n as u64 + 1) as usize);
            }
            let intervals: Vec<_> = numbers
                .chunks(2)
                .map(|pair| {
                    let operation = if draw(2) == 0 { Ok(draw(3) as u8) } else { Err(draw(3) as u8) };
                    let ended = if draw(8) == 0 { u64::MAX } else { pair[0].max(pair[1]) };
                    Interval::done(pair[0].min(pair[1]), ended, operation)
                })
                .collect();
            let expected = by_definition(&intervals, 0, 0);
            let found = search(&Cell, &intervals, &Budget::default());
            assert_eq!(matches!(found, Linearity::Shown { .. }), expected, "round {round}: {intervals:?} {found:?}");
            shown += usize::from(expected);
        }
        assert!((300..2_700).contains(&shown), "{shown} of 3,000: one side is hardly tried");
    }

    #[test]
    fn a_spent_budget_is_said_and_never_a_verdict() {
        // Twenty writes at once and a reading of what none of them wrote: every set of them is a state.
        let mut intervals: Vec<_> =
            (0..20_u8).map(|n| Interval::done(u64::from(n), 100 + u64::from(n), Ok(n))).collect();
        intervals.push(Interval::done(200, 201, Err(99)));
        let small = Budget::default().states(5_000);
        assert_eq!(search(&Cell, &intervals, &small), Linearity::Exhausted { states: 5_000 });
        // A state is as big as the set of operations in it: beside these, sixty-four that come too late to be in one.
        let bytes = |operations: usize| operations.div_ceil(64) * 8 + size_of::<(Box<[u64]>, u8)>() + 16;
        let late = (0..64_u64).map(|n| Interval::done(300 + 2 * n, 301 + 2 * n, Ok(1)));
        let more: Vec<_> = intervals.iter().copied().chain(late).collect();
        for all in [&intervals, &more] {
            let exact = Budget::default().bytes(5_000 * bytes(all.len()));
            assert_eq!(search(&Cell, all, &exact), Linearity::Exhausted { states: 5_000 });
        }
        let narrow = Budget::default().bytes(100_000);
        assert!(matches!(search(&Cell, &intervals, &narrow), Linearity::Exhausted { .. }));
        let stopped = Budget::default().until(|| true);
        assert_eq!(search(&Cell, &intervals, &stopped), Linearity::Exhausted { states: 1024 });
    }
}
