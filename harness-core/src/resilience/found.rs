//! What a suite found, and how a sequence of events becomes an outcome.

use std::fmt;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::model::Automaton;

use crate::error::{CoreResult, Error, ErrorKind};

/// The checks of a suite, each a sentence with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what was found says nothing until it is looked at"]
#[non_exhaustive]
pub struct Found {
    /// What was tested: `circuit breaker`.
    pub what: &'static str,
    /// In the order they were made.
    pub checks: Vec<(&'static str, Outcome)>,
}

impl Found {
    pub(super) fn new(what: &'static str, checks: impl IntoIterator<Item = (&'static str, Outcome)>) -> Self {
        Self { what, checks: checks.into_iter().collect() }
    }

    /// The worst of all checks.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst(self.checks.iter().map(|(_, outcome)| outcome.clone()))
    }

    /// The sentence of each check that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|(_, outcome)| outcome.is_fail()).map(|(sentence, _)| *sentence).collect()
    }

    /// Holds when every check that applies passed.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with every check that failed, else [`ErrorKind::NoEvidence`] with those that could not be made.
    pub fn check(&self) -> CoreResult {
        let kind = match self.outcome() {
            Outcome::Fail { .. } => ErrorKind::Assertion,
            Outcome::NoEvidence { .. } => ErrorKind::NoEvidence,
            _ => return Ok(()),
        };
        let bad = self.checks.iter().filter(|(_, outcome)| outcome.is_fail() || outcome.is_no_evidence());
        let error = Error::new(kind, format!("the {} does not do what it should", self.what));
        Err(bad.map(|(sentence, outcome)| format!("{sentence}: {outcome}")).fold(error, Error::tried))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        self.checks.iter().try_for_each(|(sentence, outcome)| {
            writeln!(f, "  {:<14} {sentence}: {}", outcome.word(), outcome.detail())
        })
    }
}

/// Feeds events to a fresh automaton. Each event has the index of what it was made of; from `claim` on a deviation is the
/// system's failure in what is checked, before it the check could not be made.
pub(super) fn judge<A: Automaton>(
    automaton: &A,
    trace: impl IntoIterator<Item = (usize, Duration, A::Event)>,
    claim: usize,
) -> Outcome {
    let (mut automaton, mut judged) = (automaton.clone(), 0);
    for (index, at, event) in trace {
        if let Err(why) = automaton.observe(at, &event) {
            return match index < claim {
                true => Outcome::no_evidence(format!("it could not be brought that far: {why}, at {at:?}")),
                false => Outcome::fail(format!("{why}, at {at:?}")),
            };
        }
        judged += usize::from(index >= claim);
    }
    match judged {
        0 => Outcome::no_evidence("nothing happened that could be judged"),
        events => Outcome::pass(format!("{events} events conform")),
    }
}

/// Pass with its coverage, or Fail with its witness.
pub(super) fn expect(holds: bool, said: impl Into<String>) -> Outcome {
    if holds { Outcome::pass(said) } else { Outcome::fail(said) }
}

/// A number that was counted, and the right one.
pub(super) fn counted(what: &str, found: usize, right: usize) -> Outcome {
    expect(found == right, format!("{found} {what}, {right} are right"))
}
