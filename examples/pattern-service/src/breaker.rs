//! A circuit breaker: closed, open, half-open with a single trial. Time is passed in, so tests need no clock.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What the breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// The time of refusal is over; one trial is allowed or under way.
    HalfOpen,
    /// Calls are refused without reaching the backend.
    Open,
}

/// Opens after a number of consecutive failures and refuses for a fixed time.
#[derive(Debug)]
pub struct Breaker {
    inner: Mutex<Inner>,
    failures_to_open: u32,
    open_for: Duration,
    never_opens: bool,
    herd: bool,
}

#[derive(Debug)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Instant },
    Trial,
}

/// Permission for one call; tell it how the call ended. Dropping it untold counts against a trial only.
#[must_use = "tell the permit how the call ended"]
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    trial: bool,
    admitted: Instant,
    told: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(failures_to_open: u32, open_for: Duration) -> Self {
        let inner = Mutex::new(Inner::Closed { failures: 0 });
        Self { inner, failures_to_open, open_for, never_opens: false, herd: false }
    }

    /// The same breaker with planted defects.
    pub fn with_defects(self, never_opens: bool, herd: bool) -> Self {
        Self { never_opens, herd, ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for permission; a refusal says how long to wait.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut inner = self.lock();
        let trial = match *inner {
            Inner::Closed { .. } => false,
            Inner::Open { until } if now < until => return Err(until - now),
            Inner::Trial if !self.herd => return Err(self.open_for),
            Inner::Open { .. } | Inner::Trial => {
                *inner = Inner::Trial;
                true
            }
        };
        Ok(Permit { breaker: self, trial, admitted: now, told: false })
    }

    /// The state at a moment.
    pub fn state(&self, now: Instant) -> State {
        match *self.lock() {
            Inner::Closed { .. } => State::Closed,
            Inner::Open { until } if now < until => State::Open,
            Inner::Open { .. } | Inner::Trial => State::HalfOpen,
        }
    }

    fn report(&self, trial: bool, ok: bool, now: Instant) {
        let mut inner = self.lock();
        let next = match *inner {
            Inner::Closed { .. } if ok => Inner::Closed { failures: 0 },
            Inner::Trial if ok && trial => Inner::Closed { failures: 0 },
            Inner::Closed { .. } if self.never_opens => return,
            Inner::Closed { failures } if failures + 1 < self.failures_to_open => {
                Inner::Closed { failures: failures + 1 }
            }
            Inner::Closed { .. } => Inner::Open { until: now + self.open_for },
            Inner::Trial if trial => Inner::Open { until: now + self.open_for },
            // A straggler from before the breaker opened says nothing about the backend of today.
            Inner::Trial | Inner::Open { .. } => return,
        };
        *inner = next;
    }
}

impl Permit<'_> {
    /// The call succeeded.
    pub fn success(mut self, now: Instant) {
        self.told = true;
        self.breaker.report(self.trial, true, now);
    }

    /// The call failed.
    pub fn failure(mut self, now: Instant) {
        self.told = true;
        self.breaker.report(self.trial, false, now);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.told && self.trial {
            self.breaker.report(true, false, self.admitted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, OPEN);
        (0..3).for_each(|_| breaker.admit(now).unwrap().failure(now));
        breaker
    }

    #[test]
    fn opens_after_consecutive_failures_only() {
        let (now, breaker) = (Instant::now(), Breaker::new(3, OPEN));
        for ok in [false, false, true, false, false] {
            let permit = breaker.admit(now).unwrap();
            if ok { permit.success(now) } else { permit.failure(now) }
        }
        assert_eq!(breaker.state(now), State::Closed);
        breaker.admit(now).unwrap().failure(now);
        assert_eq!(breaker.state(now), State::Open);
        assert_eq!(breaker.admit(now + OPEN / 5).unwrap_err(), OPEN - OPEN / 5);
    }

    #[test]
    fn half_open_lets_exactly_one_trial_through() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN;
        assert_eq!(breaker.state(later), State::HalfOpen);
        let trial = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "a second call while the trial is under way");
        trial.success(later);
        assert_eq!(breaker.state(later), State::Closed);
        assert!(breaker.admit(later).is_ok());
    }

    #[test]
    fn failed_or_abandoned_trial_opens_again() {
        let now = Instant::now();
        for abandoned in [false, true] {
            let (breaker, later) = (opened(now), now + OPEN);
            let trial = breaker.admit(later).unwrap();
            if abandoned {
                drop(trial)
            } else {
                trial.failure(later)
            }
            assert_eq!(breaker.state(later + OPEN / 2), State::Open);
            assert_eq!(breaker.state(later + OPEN), State::HalfOpen);
        }
    }

    #[test]
    fn straggler_does_not_close_an_open_breaker() {
        let now = Instant::now();
        let breaker = Breaker::new(1, OPEN);
        let straggler = breaker.admit(now).unwrap();
        breaker.admit(now).unwrap().failure(now);
        straggler.success(now);
        assert_eq!(breaker.state(now), State::Open);
    }

    #[test]
    fn planted_defects_show() {
        let now = Instant::now();
        let never = Breaker::new(1, OPEN).with_defects(true, false);
        never.admit(now).unwrap().failure(now);
        assert_eq!(never.state(now), State::Closed);
        let herd = opened(now).with_defects(false, true);
        let trials: Result<Vec<_>, _> = (0..5).map(|_| herd.admit(now + OPEN)).collect();
        assert_eq!(trials.unwrap().len(), 5);
    }
}
