//! Reference automata of resilience patterns: what a circuit breaker, a limiter, a retry and a bulkhead must do, from outside.
//!
//! An automaton is fed a recorded trace of what the system did, each event with its time. Times are durations since any one
//! beginning, by the recorder's clock or a virtual one: nothing here reads a clock. It says that the trace *conforms*, or at
//! which event it *deviates* and why; a trace in which the pattern never had to act is no evidence, so that a system
//! without a limiter does not pass for one that was never asked. [`exercise`] draws the sequences of commands that show it, and
//! shrinks the one that deviates.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::model::limiter::{FixedWindow, Request};
//! use harness_props::model::{Conformance, conform};
//!
//! let s = Duration::from_secs;
//! let limit = FixedWindow::new(2, s(1));
//! let good = [(s(0), Request::Allowed), (s(0), Request::Allowed), (s(0), Request::Refused), (s(1), Request::Allowed)];
//! assert!(conform(&limit, good).outcome().is_pass());
//!
//! let no_limiter = [(s(0), Request::Allowed); 3];
//! let verdict = conform(&limit, no_limiter);
//! assert!(matches!(verdict, Conformance::Deviates { at: 2, .. }));
//! ```

pub mod breaker;
pub mod bulkhead;
pub mod exercise;
pub mod limiter;
pub mod mode;
pub mod retry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// A state machine that knows what may happen next.
///
/// A value of such a type is the machine before its first event: cloning it gives a fresh one.
pub trait Automaton: Clone {
    /// Something that was seen to happen.
    type Event;

    /// Takes an event at a time that is not before that of the event before it.
    ///
    /// # Errors
    /// A sentence that says why this must not happen now.
    fn observe(&mut self, at: Duration, event: &Self::Event) -> Result<(), String>;

    /// What the events so far have not shown, such as `it never opened`; `None` when they showed everything.
    fn unseen(&self) -> Option<String>;
}

/// What an automaton says about a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "conformance", rename_all = "snake_case")]
pub enum Conformance {
    /// Every event was one that may happen, and together they showed everything.
    Conforms {
        /// Events taken.
        events: usize,
    },
    /// An event that must not happen.
    Deviates {
        /// Its index.
        at: usize,
        /// Its time.
        time: Duration,
        /// Why it must not happen then.
        why: String,
    },
    /// Nothing wrong, and not enough seen.
    NoEvidence {
        /// What is missing.
        why: String,
    },
}

impl Conformance {
    /// As an [`Outcome`].
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Conforms { events } => Outcome::pass(format!("{events} events conform")),
            Self::Deviates { at, time, why } => Outcome::fail(format!("event {at} at {time:?}: {why}")),
            Self::NoEvidence { why } => Outcome::no_evidence(why.clone()),
        }
    }
}

/// Feeds a trace to a fresh copy of an automaton. A time that goes back deviates.
pub fn conform<A: Automaton>(automaton: &A, trace: impl IntoIterator<Item = (Duration, A::Event)>) -> Conformance {
    let mut automaton = automaton.clone();
    let (mut events, mut last) = (0, Duration::ZERO);
    for (at, (time, event)) in trace.into_iter().enumerate() {
        if time < last {
            return Conformance::Deviates { at, time, why: format!("the trace goes back in time, from {last:?}") };
        }
        if let Err(why) = automaton.observe(time, &event) {
            return Conformance::Deviates { at, time, why };
        }
        last = time;
        events += 1;
    }
    match automaton.unseen() {
        _ if events == 0 => Conformance::NoEvidence { why: "the trace is empty".to_owned() },
        Some(why) => Conformance::NoEvidence { why },
        None => Conformance::Conforms { events },
    }
}

/// One automaton per key, independent of each other: limits per client, breakers per backend.
#[derive(Debug, Clone)]
pub struct Keyed<A> {
    fresh: A,
    keys: BTreeMap<String, A>,
}

impl<A: Automaton> Keyed<A> {
    /// A copy of this automaton for every key.
    #[must_use]
    pub fn new(fresh: A) -> Self {
        Self { fresh, keys: BTreeMap::new() }
    }
}

impl<A: Automaton> Automaton for Keyed<A> {
    type Event = (String, A::Event);

    fn observe(&mut self, at: Duration, (key, event): &Self::Event) -> Result<(), String> {
        let automaton = self.keys.entry(key.clone()).or_insert_with(|| self.fresh.clone());
        automaton.observe(at, event).map_err(|why| format!("{key}: {why}"))
    }

    /// Independence shows only with two keys, of which each showed everything.
    fn unseen(&self) -> Option<String> {
        if self.keys.len() < 2 {
            return Some(format!("{} keys: whether they are independent needs two", self.keys.len()));
        }
        self.keys.iter().find_map(|(key, automaton)| Some(format!("{key}: {}", automaton.unseen()?)))
    }
}
