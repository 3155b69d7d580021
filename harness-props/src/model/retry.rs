//! Retries: how often, how long between them, and of what.
//!
//! The pause before attempt *n* + 1 is `base · factor^(n-1)`, at most `cap`, spread by jitter (Brooker, *Exponential Backoff
//! and Jitter*, AWS Architecture Blog, 2015). A server's `Retry-After` (RFC 9110, section 10.2.3) is waited for if it is longer.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::model::retry::{Attempt, Jitter, Retry};
//! use harness_props::model::conform;
//!
//! let ms = Duration::from_millis;
//! let retry = Retry::new(3, ms(100)).jitter(Jitter::Full);
//! assert_eq!(retry.pause(2), ms(0)..=ms(200));
//! let trace = [
//!     (ms(0), Attempt::Begun), (ms(10), Attempt::failed()),
//!     (ms(90), Attempt::Begun), (ms(95), Attempt::failed()),
//!     (ms(290), Attempt::Begun), (ms(300), Attempt::Succeeded),
//! ];
//! assert!(conform(&retry, trace).outcome().is_pass());
//! ```

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Automaton;

/// What was seen of one operation and its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// An attempt was sent.
    Begun,
    /// It failed.
    Failed {
        /// Whether trying again may help and does no harm.
        is_retryable: bool,
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// It succeeded: the operation is over.
    Succeeded,
    /// The caller was told that it failed: the operation is over.
    GivenUp,
}

impl Attempt {
    /// A failure that is worth a retry.
    #[must_use]
    pub fn failed() -> Self {
        Self::Failed { is_retryable: true, retry_after: None }
    }

    /// A failure that a retry cannot help, such as status 400.
    #[must_use]
    pub fn refused() -> Self {
        Self::Failed { is_retryable: false, retry_after: None }
    }
}

/// How pauses are spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Exactly the pause.
    #[default]
    None,
    /// Anything from nothing to the pause.
    Full,
    /// Anything from half the pause to all of it.
    Equal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Trying,
    /// Failed at that time.
    Waiting {
        since: Duration,
        is_retryable: bool,
        retry_after: Duration,
    },
}

/// A retry as it must be. A trace may hold many operations, one after the other.
#[derive(Debug, Clone)]
pub struct Retry {
    attempts: u32,
    base: Duration,
    factor: u32,
    cap: Duration,
    jitter: Jitter,
    slack: Duration,
    state: State,
    made: u32,
    retried: bool,
}

impl Retry {
    /// At most so many attempts, the first one included. The pause doubles from `base`, without cap, jitter or slack.
    #[must_use]
    pub fn new(attempts: u32, base: Duration) -> Self {
        Self {
            attempts: attempts.max(1),
            base,
            factor: 2,
            cap: Duration::MAX,
            jitter: Jitter::None,
            slack: Duration::ZERO,
            state: State::Idle,
            made: 0,
            retried: false,
        }
    }

    /// By what the pause grows.
    #[must_use]
    pub fn factor(self, factor: u32) -> Self {
        Self { factor, ..self }
    }

    /// The longest pause.
    #[must_use]
    pub fn cap(self, cap: Duration) -> Self {
        Self { cap, ..self }
    }

    /// How pauses are spread.
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// How much longer than it should a pause may be: timers are late, never early.
    #[must_use]
    pub fn slack(self, slack: Duration) -> Self {
        Self { slack, ..self }
    }

    /// How long the pause after the `failed`th attempt may be, counted from 1, without slack.
    #[must_use]
    pub fn pause(&self, failed: u32) -> RangeInclusive<Duration> {
        let times = self.factor.checked_pow(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let most = self.base.checked_mul(times).unwrap_or(Duration::MAX).min(self.cap);
        let least = match self.jitter {
            Jitter::None => most,
            Jitter::Full => Duration::ZERO,
            Jitter::Equal => most / 2,
        };
        least..=most
    }

    /// How many attempts it makes at most, the first one included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The same number of attempts, with any pauses that are no shorter than a server asked for.
    #[must_use]
    pub fn at_any_pace(&self) -> Self {
        Self::new(self.attempts, Duration::ZERO).jitter(Jitter::Full).slack(Duration::MAX)
    }

    fn begun(&mut self, at: Duration) -> Result<(), String> {
        match self.state {
            State::Trying => return Err("an attempt began before the one before it had ended".to_owned()),
            State::Idle => self.made = 1,
            State::Waiting { is_retryable: false, .. } => {
                return Err("a failure that a retry cannot help was retried".to_owned());
            }
            State::Waiting { since, retry_after, .. } => {
                if self.made >= self.attempts {
                    return Err(format!("attempt {} of at most {}", self.made + 1, self.attempts));
                }
                let (pause, allowed) = (at.saturating_sub(since), self.pause(self.made));
                let least = *allowed.start().max(&retry_after);
                let most = allowed.end().max(&retry_after).saturating_add(self.slack);
                if pause < least || pause > most {
                    return Err(format!("a pause of {pause:?} where {least:?} to {most:?} is right"));
                }
                self.made += 1;
                self.retried = true;
            }
        }
        self.state = State::Trying;
        Ok(())
    }
}

impl Automaton for Retry {
    type Event = Attempt;

    fn observe(&mut self, at: Duration, event: &Attempt) -> Result<(), String> {
        match (event, self.state) {
            (Attempt::Begun, _) => self.begun(at)?,
            (Attempt::Succeeded, State::Trying) => self.state = State::Idle,
            (Attempt::Failed { is_retryable, retry_after }, State::Trying) => {
                let retry_after = retry_after.unwrap_or_default();
                self.state = State::Waiting { since: at, is_retryable: *is_retryable, retry_after };
            }
            (Attempt::GivenUp, State::Waiting { is_retryable, .. }) => {
                if is_retryable && self.made < self.attempts {
                    return Err(format!("given up after {} of {} attempts", self.made, self.attempts));
                }
                self.state = State::Idle;
            }
            (event, state) => return Err(format!("{event:?} while it is {state:?}")),
        }
        Ok(())
    }

    fn unseen(&self) -> Option<String> {
        match (self.retried, self.state) {
            (false, _) => Some("nothing was ever retried".to_owned()),
            (_, State::Idle) => None,
            (_, _) => Some("the last operation has no end".to_owned()),
        }
    }
}
