//! The outage judge: steady before, as declared while broken, steady after, and how long each took.
//!
//! All times are durations since the beginning of the run, by one clock. The judge reads none.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::outage::{Call, Contract, OutageRules, OutageTimeline, Reply, Steady};
//!
//! let ms = Duration::from_millis;
//! let mut timeline = OutageTimeline { fault: Some(ms(1_000)), healing: Some(ms(2_000)), healed: Some(ms(2_000)), bites: 1, ..OutageTimeline::default() };
//! for n in 0..400 {
//!     let due = ms(n * 10);
//!     let down = due >= ms(1_000) && due < ms(2_300); // it comes back 300 ms after it was healed
//!     let reply = if down { Reply::error("unavailable") } else { Reply::Ok };
//!     timeline.calls.push(Call::new("put", due, due + ms(2), reply));
//! }
//! timeline.ended = ms(4_000);
//! let rules = OutageRules::new(Steady::new(ms(500), 99).within(ms(100)))
//!     .while_broken(Contract::within(ms(50)).errors(["unavailable"]))
//!     .recovers_within(ms(1_000));
//! let verdict = timeline.judge(&rules);
//! assert!(verdict.outcome().is_pass());
//! assert_eq!(verdict.figures.downtime, ms(1_300));
//! assert_eq!(verdict.figures.steady, Some(ms(300)));
//! ```

mod figures;
mod rules;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use figures::OutageFigures;
pub use rules::{Contract, OutageRules, Steady};
pub use verdict::OutageVerdict;

/// What a call came to, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It did what was asked.
    Ok,
    /// An answer that says no, by its kind: `503`, `timeout`, `refused`.
    Error(String),
    /// No answer for as long as the client was willing to wait.
    Hung,
}

impl Reply {
    /// An answer that says no.
    pub fn error(kind: impl Into<String>) -> Self {
        Self::Error(kind.into())
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What was asked, such as `put`.
    pub operation: String,
    /// When it was to be sent; its latency counts from here.
    pub due: Duration,
    /// When its client knew the answer, or gave up.
    pub ended: Duration,
    /// What it came to.
    pub reply: Reply,
    /// How often its client tried again.
    pub retries: u32,
}

impl Call {
    /// A call that was not tried again.
    #[must_use]
    pub fn new(operation: impl Into<String>, due: Duration, ended: Duration, reply: Reply) -> Self {
        Self { operation: operation.into(), due, ended, reply, retries: 0 }
    }

    /// How long its client waited.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.ended.saturating_sub(self.due)
    }

    fn is_ok(&self) -> bool {
        self.reply == Reply::Ok
    }
}

/// Everything that was seen of an outage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageTimeline {
    /// The calls, in any order.
    pub calls: Vec<Call>,
    /// When breaking it began.
    pub fault: Option<Duration>,
    /// When healing it began.
    pub healing: Option<Duration>,
    /// When it was healed.
    pub healed: Option<Duration>,
    /// How often the fault bit.
    pub bites: u64,
    /// How much work was waiting, and when that was read.
    pub backlog: Vec<(Duration, u64)>,
    /// When watching ended.
    pub ended: Duration,
}

impl OutageTimeline {
    /// Judges the outage by these rules.
    #[must_use]
    pub fn judge(&self, rules: &OutageRules) -> OutageVerdict {
        let mut calls: Vec<&Call> = self.calls.iter().collect();
        calls.sort_by_key(|call| call.due);
        OutageVerdict {
            before: verdict::before(self, rules, &calls),
            bit: verdict::bit(self),
            during: verdict::during(self, rules, &calls),
            after: verdict::after(self, rules, &calls),
            drained: verdict::drained(self),
            figures: OutageFigures::of(self, rules, &calls),
        }
    }
}
