//! What a full server did, and whether its policy says so.

use std::fmt;

use harness_core::{CoreResult, Outcome};

use super::Policy;
use crate::redis::checks::logical::checked;
use crate::redis::checks::memory::bytes;

/// The share of hot keys that must stay, and by how much fewer cold ones may, in per cent.
const HOT_KEPT_PERCENT: usize = 90;
const MARGIN_PERCENT: usize = 10;

/// Keys of one group that were written and that are still there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Written.
    pub written: usize,
    /// Still there.
    pub left: usize,
}

impl Kept {
    fn percent(self) -> usize {
        (100 * self.left).checked_div(self.written).unwrap_or(0)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({} %)", self.left, self.written, self.percent())
    }
}

/// What a full server did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Eviction {
    /// The policy that was asked for.
    pub policy: Policy,
    /// The policy the server states.
    pub found: String,
    /// `maxmemory`, in bytes.
    pub max_bytes: u64,
    /// Keys the server evicted meanwhile (`evicted_keys`).
    pub evicted: u64,
    /// Writes it refused for lack of memory.
    pub refused: u64,
    /// Its words at the first refusal.
    pub refusal: Option<String>,
    /// Keys that were read again and again.
    pub hot: Kept,
    /// Keys that were left alone.
    pub cold: Kept,
    /// Keys without a time to live, under a policy that must spare them.
    pub pinned: Kept,
}

impl Eviction {
    /// Passes when the server states the policy and does what it says.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let seen = format!(
            "{} evicted and {} writes refused under {} of maxmemory; left: hot {}, cold {}",
            self.evicted,
            self.refused,
            bytes(self.max_bytes),
            self.hot,
            self.cold
        );
        match self.wrong() {
            None => Outcome::pass(format!("{}: {seen}", self.policy.name())),
            Some(why) => Outcome::fail(format!("{why}; {seen}")),
        }
    }

    fn wrong(&self) -> Option<String> {
        let name = self.policy.name();
        if self.found != name {
            let words =
                self.refusal.as_ref().map(|words| format!(", and writes are refused: {words}")).unwrap_or_default();
            return Some(format!("maxmemory-policy is {}, {name} is needed{words}", self.found));
        }
        if self.policy == Policy::NoEviction {
            return match (self.evicted, self.refused) {
                (0, 0) => Some("more was written than fits, and nothing was refused".to_owned()),
                (0, _) => None,
                (n, _) => Some(format!("{n} keys were evicted under noeviction")),
            };
        }
        if let Some(words) = &self.refusal {
            let spared = if self.policy.is_volatile() { " (it evicts keys with a time to live only)" } else { "" };
            return Some(format!("writes are refused under {name}{spared}: {words}"));
        }
        if self.evicted == 0 {
            return Some("more was written than fits, and nothing was evicted".to_owned());
        }
        if self.pinned.left < self.pinned.written {
            return Some(format!("keys without a time to live were evicted under {name}: {} left", self.pinned));
        }
        let (hot, cold) = (self.hot.percent(), self.cold.percent());
        if self.policy.prefers() && (hot < HOT_KEPT_PERCENT || cold + MARGIN_PERCENT > hot) {
            return Some(format!(
                "{name} did not spare what was used: at least {HOT_KEPT_PERCENT} % of hot keys must stay, and {MARGIN_PERCENT} points fewer of cold ones"
            ));
        }
        None
    }

    /// The failed [`Eviction::outcome`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`](harness_core::ErrorKind::Assertion) with what the server did instead.
    pub fn check(&self) -> CoreResult {
        checked(self.outcome())
    }
}

#[cfg(test)]
mod tests {
    use super::{Eviction, Kept};
    use crate::redis::eviction::Policy;

    fn kept(left: usize, written: usize) -> Kept {
        Kept { written, left }
    }

    fn good(policy: Policy) -> Eviction {
        Eviction {
            policy,
            found: policy.name().into(),
            max_bytes: 8 << 20,
            evicted: 300,
            refused: 0,
            refusal: None,
            hot: kept(150, 150),
            cold: kept(150, 450),
            pinned: Kept::default(),
        }
    }

    #[test]
    fn each_defect_turns_red() {
        use Policy::{AllKeysLru, AllKeysRandom, NoEviction, VolatileLru};
        assert!(good(AllKeysLru).outcome().is_pass() && good(AllKeysRandom).outcome().is_pass());
        let oom = || Some("OOM command not allowed".to_owned());
        for (defect, words) in [
            (Eviction { found: "noeviction".into(), ..good(AllKeysLru) }, "is noeviction, allkeys-lru is needed"),
            (Eviction { refused: 10, refusal: oom(), ..good(VolatileLru) }, "keys with a time to live only): OOM"),
            (Eviction { evicted: 0, ..good(AllKeysLru) }, "nothing was evicted"),
            (Eviction { hot: kept(120, 150), ..good(AllKeysLru) }, "did not spare what was used"),
            (Eviction { cold: kept(420, 450), ..good(AllKeysLru) }, "did not spare what was used"),
            (Eviction { pinned: kept(99, 100), ..good(VolatileLru) }, "99 of 100 (99 %) left"),
            (good(NoEviction), "300 keys were evicted under noeviction"),
            (Eviction { evicted: 0, ..good(NoEviction) }, "nothing was refused"),
        ] {
            let outcome = defect.outcome();
            assert!(outcome.is_fail() && outcome.detail().contains(words), "{words}: {outcome}");
        }
        let full = Eviction { evicted: 0, refused: 10, refusal: oom(), ..good(NoEviction) };
        assert!(full.outcome().is_pass(), "refusing is what noeviction is for");
    }
}
