//! The judge of health endpoints: do they say what is true, in time?
//!
//! ```
//! use std::time::Duration;
//! use harness_props::history::health::Health;
//!
//! let ms = Duration::from_millis;
//! let mut health = Health::new(ms(200));
//! health.truth(ms(0), true).truth(ms(1_000), false).truth(ms(2_000), true);
//! for at in (0..3_000).step_by(100) {
//!     health.said(ms(at), true); // always "ok"
//! }
//! assert_eq!(health.outcome().detail(), "8 said healthy while it was not: 1.2s, 1.3s, 1.4s, 1.5s, 1.6s … and 3 more");
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::witness::{conclude, list};
use crate::Outcome;

/// What was true and what was said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    within: Duration,
    /// Since when it is healthy, or not.
    truth: Vec<(Duration, bool)>,
    said: Vec<(Duration, bool)>,
}

impl Health {
    /// A change may be noticed so late.
    #[must_use]
    pub fn new(within: Duration) -> Self {
        Self { within, ..Self::default() }
    }

    /// From this time on it is healthy, or is not: known from the fault, not from what it says.
    pub fn truth(&mut self, at: Duration, is_healthy: bool) -> &mut Self {
        self.truth.push((at, is_healthy));
        self
    }

    /// What the endpoint said at this time.
    pub fn said(&mut self, at: Duration, is_healthy: bool) -> &mut Self {
        self.said.push((at, is_healthy));
        self
    }

    /// What must be said at a time; `None` shortly after a change and before the first one.
    fn must_say(&self, truth: &[(Duration, bool)], at: Duration) -> Option<bool> {
        let (since, is_healthy) = truth[..truth.partition_point(|(since, _)| *since <= at)].last()?;
        (at >= since.saturating_add(self.within)).then_some(*is_healthy)
    }

    /// Fail with every time at which it lied; NoEvidence unless it was asked both while it was healthy and while it was not.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut truth = self.truth.clone();
        truth.sort_by_key(|(at, _)| *at);
        let (mut hidden, mut alarms, mut asked) = (Vec::new(), Vec::new(), [0, 0]);
        for (at, said) in &self.said {
            let Some(must) = self.must_say(&truth, *at) else { continue };
            asked[usize::from(must)] += 1;
            match (must, said) {
                (false, true) => hidden.push(format!("{at:?}")),
                (true, false) => alarms.push(format!("{at:?}")),
                _ => {}
            }
        }
        let missing = match asked {
            [0, _] => Some("it was never asked while it was not healthy"),
            [_, 0] => Some("it was never asked while it was healthy"),
            _ => None,
        };
        let found = [list("said healthy while it was not", &hidden), list("said not healthy while it was", &alarms)];
        conclude(found, missing, || format!("{} answers while healthy and {} while not, all true", asked[1], asked[0]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Health;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn asked(says: impl Fn(u64) -> bool) -> crate::Outcome {
        let mut health = Health::new(ms(200));
        health.truth(ms(0), true).truth(ms(1_000), false).truth(ms(2_000), true);
        for at in (0..3_000).step_by(100) {
            health.said(ms(at), says(at));
        }
        health.outcome()
    }

    #[test]
    fn lies_in_both_directions_are_found_and_a_change_may_be_noticed_in_time() {
        assert!(asked(|at| !(1_000..2_000).contains(&at)).is_pass());
        assert!(asked(|at| !(1_200..2_200).contains(&at)).is_pass(), "noticed just in time");
        assert!(
            asked(|at| !(1_300..2_000).contains(&at)).detail().starts_with("1 said healthy while it was not: 1.2s")
        );
        assert!(
            asked(|at| !(1_000..2_300).contains(&at)).detail().starts_with("1 said not healthy while it was: 2.2s")
        );
        assert!(asked(|at| at != 500 && !(1_000..2_000).contains(&at)).detail().contains("500ms"), "a false alarm");
    }

    #[test]
    fn health_that_was_only_asked_in_good_times_is_no_evidence() {
        let mut health = Health::new(ms(200));
        assert!(health.outcome().is_no_evidence());
        health.truth(ms(0), true).said(ms(500), true);
        assert_eq!(health.outcome().detail(), "it was never asked while it was not healthy");
    }
}
