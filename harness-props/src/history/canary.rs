//! The crosstalk judge: a marked value of one owner never shows up at another.
//!
//! Every owner's data carries canaries minted here; whatever a receiver is given is searched for them, wherever they stand:
//! in a body, a header, a log line or an error message.
//!
//! ```
//! use harness_props::history::canary::Canaries;
//!
//! let mut canaries = Canaries::new(42);
//! let (alice, bob) = (canaries.mint("alice"), canaries.mint("bob"));
//! canaries.observe("alice", &format!("your note: {alice}"));
//! canaries.observe("bob", &format!("your note: {bob}"));
//! assert!(canaries.judge().outcome().is_pass());
//!
//! canaries.observe("bob", &format!("error: duplicate of {alice}"));
//! assert_eq!(canaries.judge().leaks[0].owner, "alice");
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::checksum;
use super::witness::{conclude, list};
use crate::Outcome;

/// How every canary begins.
const PREFIX: &str = "canary-";
/// Hexadecimal digits after it.
const DIGITS: usize = 32;

/// Canaries and where they were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    seed: u64,
    owners: BTreeMap<String, String>,
    sightings: BTreeMap<(String, String), usize>,
    receivers: BTreeSet<String>,
    observed: usize,
    forged: Vec<String>,
}

/// An owner's canary at somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Leak {
    /// Whose it is.
    pub owner: String,
    /// Who was given it.
    pub receiver: String,
    /// The canary.
    pub canary: String,
    /// How often.
    pub times: usize,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} at {}", self.canary, self.owner, self.receiver)?;
        if self.times > 1 { write!(f, " {} times", self.times) } else { Ok(()) }
    }
}

/// What the crosstalk judge found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CrosstalkVerdict {
    /// Owners with a canary.
    pub owners: usize,
    /// Texts searched.
    pub observed: usize,
    /// Owners that were given a canary of their own.
    pub reached: usize,
    /// Owners that were never given anything of their own: nothing shows that a canary could reach them.
    pub unreached: Vec<String>,
    /// Canaries at somebody else.
    pub leaks: Vec<Leak>,
    /// What looks like a canary and is none of ours: damaged, or of another run.
    pub forged: Vec<String>,
}

impl Canaries {
    /// Canaries of one run: the same seed mints the same ones.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (owners, sightings, receivers) = Default::default();
        Self { seed, owners, sightings, receivers, observed: 0, forged: Vec::new() }
    }

    /// A canary for this owner: 39 characters that stand in no other text by chance.
    pub fn mint(&mut self, owner: &str) -> String {
        let n = self.owners.len();
        let high = checksum(&format!("{}/{n}/{owner}", self.seed));
        let low = checksum(&format!("{owner}/{n}/{}/{high}", self.seed));
        let canary = format!("{PREFIX}{high}{low}");
        self.owners.insert(canary.clone(), owner.to_owned());
        canary
    }

    /// Searches what a receiver was given.
    pub fn observe(&mut self, receiver: &str, text: &str) {
        self.observed += 1;
        self.receivers.insert(receiver.to_owned());
        for (at, _) in text.match_indices(PREFIX) {
            let digits = text[at + PREFIX.len()..].bytes().take(DIGITS).take_while(u8::is_ascii_hexdigit).count();
            let canary = &text[at..at + PREFIX.len() + digits];
            if self.owners.contains_key(canary) {
                *self.sightings.entry((canary.to_owned(), receiver.to_owned())).or_default() += 1;
            } else if digits == DIGITS {
                self.forged.push(canary.to_owned());
            }
        }
    }

    /// Judges it.
    #[must_use]
    pub fn judge(&self) -> CrosstalkVerdict {
        let owners: BTreeSet<&String> = self.owners.values().collect();
        let is_own = |canary: &String, receiver: &String| self.owners.get(canary) == Some(receiver);
        let reached: BTreeSet<&String> =
            self.sightings.keys().filter(|(canary, receiver)| is_own(canary, receiver)).map(|(_, r)| r).collect();
        let leaks = self.sightings.iter().filter(|((canary, receiver), _)| !is_own(canary, receiver));
        CrosstalkVerdict {
            owners: owners.len(),
            observed: self.observed,
            reached: reached.len(),
            unreached: owners.difference(&reached).map(|owner| (*owner).clone()).collect(),
            leaks: leaks
                .map(|((canary, receiver), times)| Leak {
                    owner: self.owners.get(canary).cloned().unwrap_or_default(),
                    receiver: receiver.clone(),
                    canary: canary.clone(),
                    times: *times,
                })
                .collect(),
            forged: self.forged.clone(),
        }
    }
}

impl CrosstalkVerdict {
    /// Pass with coverage, Fail with the leaks, or NoEvidence with fewer than two owners, or when one of them was never given
    /// its own canary.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let unreached = list("owners never given a canary of their own", &self.unreached);
        let missing = match (self.owners, &unreached) {
            (0 | 1, _) => Some("fewer than two owners have canaries"),
            (_, unreached) => unreached.as_deref(),
        };
        conclude([list("leaked", &self.leaks), list("forged", &self.forged)], missing, || {
            format!(
                "{} texts searched, {} of {} owners saw their own canaries only",
                self.observed, self.reached, self.owners
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Canaries;

    #[test]
    fn leaks_are_found_wherever_they_stand() {
        for around in ["{}", "x{}y", "\"{}\",", "canary-{}", "é{}é"] {
            let mut canaries = Canaries::new(1);
            let (a, b) = (canaries.mint("a"), canaries.mint("b"));
            canaries.observe("a", &a);
            canaries.observe("b", &b);
            assert!(canaries.judge().outcome().is_pass());
            canaries.observe("b", &around.replace("{}", &a));
            let verdict = canaries.judge();
            assert_eq!((verdict.leaks.len(), verdict.leaks[0].receiver.as_str()), (1, "b"), "{around}");
            assert!(verdict.outcome().is_fail());
        }
    }

    #[test]
    fn nobody_reached_is_no_evidence() {
        let mut canaries = Canaries::new(1);
        let a = canaries.mint("a");
        assert!(canaries.judge().outcome().is_no_evidence());
        canaries.mint("b");
        canaries.observe("a", &a);
        let outcome = canaries.judge().outcome();
        assert_eq!(outcome.detail(), "1 owners never given a canary of their own: b");
        assert!(outcome.is_no_evidence());
    }

    #[test]
    fn a_damaged_canary_is_no_pass() {
        let mut canaries = Canaries::new(1);
        for owner in ["a", "b"] {
            let canary = canaries.mint(owner);
            canaries.observe(owner, &canary);
        }
        let stranger = Canaries::new(2).mint("a");
        canaries.observe("a", &stranger);
        assert!(canaries.judge().outcome().is_fail());
    }
}
