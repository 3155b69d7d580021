//! What steady means, and what was promised for the time in which it is broken.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Call;

/// When a system counts as steady: a share of the calls of a window succeeds, each in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steady {
    /// The length of the window.
    pub window: Duration,
    /// How many of a hundred calls have to be good.
    pub percent: u32,
    /// How long a good call may take.
    pub within: Option<Duration>,
    /// How many calls a window needs to say anything.
    pub minimum: usize,
}

impl Steady {
    /// So many percent of the calls of a window of this length succeed, of at least ten, however long they take.
    #[must_use]
    pub fn new(window: Duration, percent: u32) -> Self {
        Self { window: window.max(Duration::from_nanos(1)), percent, within: None, minimum: 10 }
    }

    /// And each of them in this time.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { within: Some(limit), ..self }
    }

    /// How many calls a window needs.
    #[must_use]
    pub fn minimum(self, calls: usize) -> Self {
        Self { minimum: calls.max(1), ..self }
    }

    pub(super) fn is_good(&self, call: &Call) -> bool {
        call.is_ok() && self.within.is_none_or(|limit| call.latency() <= limit)
    }

    pub(super) fn holds(&self, good: usize, calls: usize) -> bool {
        calls >= self.minimum && good * 100 >= calls * self.percent as usize
    }
}

/// How a system may be while it is broken. Calls that hang are never allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// How long any call may take.
    pub within: Option<Duration>,
    /// The kinds of errors that may come; without this any.
    pub errors: Option<BTreeSet<String>>,
    /// Operations that have to succeed all the same.
    pub still: BTreeSet<String>,
}

impl Contract {
    /// Every call is answered in this time, with success or any error.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self { within: Some(limit), ..Self::default() }
    }

    /// Only errors of these kinds.
    #[must_use]
    pub fn errors(self, kinds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { errors: Some(kinds.into_iter().map(Into::into).collect()), ..self }
    }

    /// This operation has to succeed all the same.
    #[must_use]
    pub fn still(mut self, operation: impl Into<String>) -> Self {
        self.still.insert(operation.into());
        self
    }
}

/// What an outage is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageRules {
    /// What steady means, before and after.
    pub steady: Steady,
    /// What was promised for the time between.
    pub contract: Contract,
    /// How long after the healing it may take to be steady again.
    pub recovers_within: Duration,
}

impl OutageRules {
    /// Nothing hangs while it is broken, and it is steady a minute after it was healed.
    #[must_use]
    pub fn new(steady: Steady) -> Self {
        Self { steady, contract: Contract::default(), recovers_within: Duration::from_secs(60) }
    }

    /// What was promised for the time in which it is broken.
    #[must_use]
    pub fn while_broken(self, contract: Contract) -> Self {
        Self { contract, ..self }
    }

    /// How long after the healing it may take to be steady again.
    #[must_use]
    pub fn recovers_within(self, limit: Duration) -> Self {
        Self { recovers_within: limit, ..self }
    }
}
