//! Degraded mode: entered and left on stated conditions, each with a cause, and not in between.
//!
//! A signal, such as the share of errors or the length of a queue, rises and falls. Above `high` for so long the mode has to be
//! entered, below `low` for so long it has to be left; between the two nothing may change, which is the hysteresis.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::model::mode::{Mode, Seen};
//! use harness_props::model::conform;
//!
//! let s = Duration::from_secs;
//! let mode = Mode::new(20, 80).hold(s(2), s(5)).slack(s(1));
//! let trace = [
//!     (s(0), Seen::Signal(10)), (s(10), Seen::Signal(90)), (s(12), Seen::entered("queue at 90")),
//!     (s(20), Seen::Signal(50)), (s(30), Seen::Signal(10)), (s(35), Seen::left("queue at 10")), (s(40), Seen::Signal(10)),
//! ];
//! assert!(conform(&mode, trace.clone()).outcome().is_pass());
//! let flapping = [&trace[..4], &[(s(21), Seen::left("queue at 50"))]].concat();
//! assert!(conform(&mode, flapping).outcome().detail().contains("left though the signal was not below 20"));
//! ```

use std::time::Duration;

use super::Automaton;

/// What was seen of the mode and of the signal it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The signal has this value from now on.
    Signal(u64),
    /// The mode was entered, and why, as the system itself records it.
    Entered(String),
    /// The mode was left, and why.
    Left(String),
}

impl Seen {
    /// The mode was entered, and why.
    pub fn entered(cause: impl Into<String>) -> Self {
        Self::Entered(cause.into())
    }

    /// The mode was left, and why.
    pub fn left(cause: impl Into<String>) -> Self {
        Self::Left(cause.into())
    }
}

/// A degraded mode as it must be.
#[derive(Debug, Clone)]
pub struct Mode {
    low: u64,
    high: u64,
    enter_after: Duration,
    leave_after: Duration,
    slack: Duration,
    is_degraded: bool,
    /// Since when the signal calls for a change, without a break.
    called: Option<Duration>,
    entered: u32,
    left: u32,
}

impl Mode {
    /// Entered when the signal is at `high` or above, left when it is at `low` or below; at once, a second too late at most.
    #[must_use]
    pub fn new(low: u64, high: u64) -> Self {
        Self {
            low: low.min(high),
            high,
            enter_after: Duration::ZERO,
            leave_after: Duration::ZERO,
            slack: Duration::from_secs(1),
            is_degraded: false,
            called: None,
            entered: 0,
            left: 0,
        }
    }

    /// How long the signal has to stay there before the mode is entered, and before it is left.
    #[must_use]
    pub fn hold(self, enter_after: Duration, leave_after: Duration) -> Self {
        Self { enter_after, leave_after, ..self }
    }

    /// How late a change may be, and by how much the times of the trace may be off.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }

    /// How long the signal has to call for the next change.
    fn wanted(&self) -> Duration {
        if self.is_degraded { self.leave_after } else { self.enter_after }
    }

    /// A change that had to come by now.
    fn overdue(&self, at: Duration) -> Result<(), String> {
        match self.called {
            Some(since) if at > since.saturating_add(self.wanted()).saturating_add(self.slack) => {
                let (what, beyond) = if self.is_degraded { ("left", self.low) } else { ("entered", self.high) };
                Err(format!("it was not {what} though the signal was beyond {beyond} since {since:?}"))
            }
            _ => Ok(()),
        }
    }

    fn changed(&mut self, at: Duration, cause: &str, is_degraded: bool) -> Result<(), String> {
        let what = if is_degraded { "entered" } else { "left" };
        if self.is_degraded == is_degraded {
            return Err(format!("it was {what} though it was so already"));
        }
        if cause.trim().is_empty() {
            return Err(format!("it was {what} without a recorded cause"));
        }
        let bound = if is_degraded { format!("above {}", self.high) } else { format!("below {}", self.low) };
        let Some(since) = self.called else {
            return Err(format!("it was {what} though the signal was not {bound}"));
        };
        if at.saturating_add(self.slack) < since.saturating_add(self.wanted()) {
            return Err(format!("it was {what} though the signal is {bound} only since {since:?}"));
        }
        self.is_degraded = is_degraded;
        self.called = None;
        *(if is_degraded { &mut self.entered } else { &mut self.left }) += 1;
        Ok(())
    }
}

impl Automaton for Mode {
    type Event = Seen;

    fn observe(&mut self, at: Duration, event: &Seen) -> Result<(), String> {
        self.overdue(at)?;
        match event {
            Seen::Signal(value) => {
                let calls = if self.is_degraded { *value <= self.low } else { *value >= self.high };
                self.called = if calls { self.called.or(Some(at)) } else { None };
                Ok(())
            }
            Seen::Entered(cause) => self.changed(at, cause, true),
            Seen::Left(cause) => self.changed(at, cause, false),
        }
    }

    fn unseen(&self) -> Option<String> {
        match (self.entered, self.left) {
            (0, _) => Some("it was never entered".to_owned()),
            (_, 0) => Some("it was never left again".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Mode, Seen};
    use crate::model::conform;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn verdict(trace: &[(u64, Seen)]) -> crate::Outcome {
        let mode = Mode::new(20, 80).hold(s(2), s(5)).slack(s(1));
        conform(&mode, trace.iter().map(|(at, seen)| (s(*at), seen.clone()))).outcome()
    }

    #[test]
    fn each_defect_of_a_mode_deviates_and_a_sound_one_conforms() {
        let signal = Seen::Signal;
        let (entered, left) = (Seen::entered("errors"), Seen::left("calm"));
        let good = vec![
            (0, signal(0)),
            (10, signal(85)),
            (12, entered.clone()),
            (20, signal(50)),
            (25, signal(81)),
            (30, signal(20)),
            (35, left.clone()),
            (60, signal(0)),
        ];
        assert!(verdict(&good).is_pass(), "{:?}", verdict(&good));
        for (why, trace) in [
            ("not entered though", vec![(0, signal(85)), (4, signal(85))]),
            ("only since", vec![(0, signal(85)), (0, entered.clone())]),
            ("signal was not above 80", vec![(0, signal(79)), (5, entered.clone())]),
            ("not left though", [&good[..6], &[(37, signal(10))]].concat()),
            ("left though the signal is below 20 only since", [&good[..6], &[(31, left.clone())]].concat()),
            ("left though the signal was not below 20", [&good[..4], &[(21, left)]].concat()),
            ("without a recorded cause", vec![(0, signal(85)), (2, Seen::entered(" "))]),
            ("so already", [&good[..3], &[(13, entered.clone())]].concat()),
            // A dip begins the hold time anew.
            ("only since", vec![(0, signal(85)), (1, signal(70)), (2, signal(85)), (2, entered)]),
        ] {
            let outcome = verdict(&trace);
            assert!(outcome.is_fail() && outcome.detail().contains(why), "{why}: {outcome}");
        }
    }

    #[test]
    fn mode_that_never_had_to_change_is_no_evidence() {
        assert!(verdict(&[(0, Seen::Signal(50)), (100, Seen::Signal(50))]).is_no_evidence());
        let never_left = [(0, Seen::Signal(85)), (2, Seen::entered("errors"))];
        assert_eq!(verdict(&never_left).detail(), "it was never left again");
    }
}
