//! What the cache judge found, and how it says so.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// How many offences of one kind a witness shows before it only counts.
const SHOWN: usize = 3;

/// An older version that one instance returned for one key, once or often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Offence {
    /// The instance that answered.
    pub instance: String,
    /// Whose read it was.
    pub session: String,
    /// The key.
    pub key: String,
    /// The version that was returned.
    pub seen: u64,
    /// The newer version that was known; `None` for a phantom.
    pub newer: Option<u64>,
    /// Which instance wrote the newer one.
    pub newer_by: Option<String>,
    /// True when the newer version is the deletion of the key.
    pub is_deleted: bool,
    /// When the newer version was acknowledged.
    pub acknowledged: Option<Duration>,
    /// When the first such read began.
    pub invoked: Duration,
    /// The bound it was judged by.
    pub bound: Duration,
    /// True when the invalidation by the newer version never reached the instance.
    pub invalidation_lost: bool,
    /// How many reads returned it.
    pub times: usize,
    /// When the last such read began.
    pub last: Duration,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, key, seen, .. } = self;
        write!(f, "`{instance}` read `{key}` at version {seen}")?;
        let Some(newer) = self.newer else {
            return write!(f, " at +{}, which nobody had written", millis(self.invoked));
        };
        if self.times > 1 {
            write!(f, " {} times", self.times)?;
        }
        let late = self.invoked.saturating_sub(self.acknowledged.unwrap_or(self.invoked));
        let what = if self.is_deleted { format!("its deletion ({newer})") } else { format!("version {newer}") };
        write!(f, ", first {} after {what}", millis(late))?;
        if let Some(writer) = &self.newer_by {
            write!(f, " by `{writer}`")?;
        }
        f.write_str(" was acknowledged")?;
        if self.invalidation_lost {
            write!(f, "; that invalidation never reached `{instance}`")?;
        }
        Ok(())
    }
}

/// An instance that no invalidation ever reached while others were reached, and that served older versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Deaf {
    /// The instance.
    pub instance: String,
    /// How many invalidations others sent.
    pub expected: usize,
    /// What it served for lack of them.
    pub stale: Vec<Offence>,
}

impl fmt::Display for Deaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {} invalidations reached `{}`: is it subscribed?", self.expected, self.instance)?;
        self.stale.first().map_or(Ok(()), |first| write!(f, " {first}"))
    }
}

/// The invalidations of others at one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Arrivals {
    /// The instance.
    pub instance: String,
    /// How many others sent.
    pub expected: usize,
    /// From sending to arrival, of each that arrived, shortest first.
    pub delays: Vec<Duration>,
    /// Key and version of each that did not.
    pub missed: Vec<(String, u64)>,
}

impl Arrivals {
    /// The delay that a share of the arrivals did not exceed, by nearest rank: `quantile(0.95)`. `None` without arrivals.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.delays.len() as f64).ceil() as usize;
        self.delays.get(rank.saturating_sub(1)).copied()
    }

    /// The longest delay; `None` without arrivals.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.delays.last().copied()
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {} of {} arrived", self.instance, self.delays.len(), self.expected)?;
        match (self.quantile(0.5), self.quantile(0.95), self.max()) {
            (Some(p50), Some(p95), Some(max)) => {
                write!(f, ", p50 {}, p95 {}, max {}", millis(p50), millis(p95), millis(max))
            }
            _ => Ok(()),
        }
    }
}

/// What the cache judge found. Each offending read stands in exactly one list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheVerdict {
    /// The staleness bound.
    pub bound: Duration,
    /// Instances known.
    pub instances: usize,
    /// Writes sent.
    pub writes: usize,
    /// Writes confirmed.
    pub acknowledged: usize,
    /// Reads answered.
    pub reads: usize,
    /// Reads that returned a version somebody wrote.
    pub judged: usize,
    /// Reads that found nothing: never older than anything.
    pub absent: usize,
    /// Reads that gave an error.
    pub failed_reads: usize,
    /// Reads that began later than the bound after another instance had replaced a version: where an old one could have
    /// come, and would have been charged.
    pub past_bound: usize,
    /// Reads of what their own session had written.
    pub own_reads: usize,
    /// Reads of a key that the instance had returned before.
    pub repeated: usize,
    /// Reads answered from a copy of the instance's own; `None` when reads do not say.
    pub from_copies: Option<usize>,
    /// Instances without a single read past the bound: nothing is known about them.
    pub untested: Vec<String>,
    /// Versions nobody wrote.
    pub phantom: Vec<Offence>,
    /// Put back after the bound, at an instance that had moved on.
    pub resurrected: Vec<Offence>,
    /// A step back within the bound.
    pub backwards: Vec<Offence>,
    /// A session that did not read its own write.
    pub own_write_missed: Vec<Offence>,
    /// Instances that nothing reaches.
    pub deaf: Vec<Deaf>,
    /// Older than the bound allows.
    pub stale: Vec<Offence>,
    /// Invalidations per instance, when sending was recorded.
    pub arrivals: Vec<Arrivals>,
    /// A history that contradicts itself.
    pub inconsistent: Vec<String>,
}

impl CacheVerdict {
    /// Pass with coverage, Fail with the offences by kind, or NoEvidence when some instance was never read later than the
    /// bound after another had replaced a version, or when no read came from a copy.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let kinds = [
            list("resurrected", &self.resurrected),
            list("deaf", &self.deaf),
            list("stale", &self.stale),
            list("own write missed", &self.own_write_missed),
            list("backwards", &self.backwards),
            list("phantom", &self.phantom),
            list("history inconsistent", &self.inconsistent),
        ];
        let witness: Vec<String> = kinds.into_iter().flatten().collect();
        if !witness.is_empty() {
            return Outcome::fail(format!("{} (bound {})", witness.join("\n"), millis(self.bound)));
        }
        self.missing().map_or_else(|| Outcome::pass(self.coverage()), Outcome::no_evidence)
    }

    /// Why a history without offences proves nothing.
    fn missing(&self) -> Option<String> {
        if self.past_bound == 0 {
            let bound = millis(self.bound);
            return Some(format!(
                "no read began later than {bound} after another instance had replaced a version: {}",
                self.coverage()
            ));
        }
        if !self.untested.is_empty() {
            let names = self.untested.join("`, `");
            return Some(format!(
                "`{names}` was never read later than the bound after another instance had replaced a version"
            ));
        }
        let none = format!("none of {} reads was answered from a copy, so none could be stale", self.reads);
        (self.from_copies == Some(0)).then_some(none)
    }

    /// On what grounds: reads judged of reads seen, and how many of them could have shown what.
    #[must_use]
    pub fn coverage(&self) -> String {
        let copies = self.from_copies.map(|n| format!(", {n} from copies")).unwrap_or_default();
        format!(
            "{} of {} reads judged ({} absent, {} failed{copies}) at {} instances, {} of {} writes acknowledged; \
             {} reads past the bound of {}, {} of own writes, {} repeated",
            self.judged,
            self.reads,
            self.absent,
            self.failed_reads,
            self.instances,
            self.acknowledged,
            self.writes,
            self.past_bound,
            millis(self.bound),
            self.own_reads,
            self.repeated
        )
    }

    /// Passes when every invalidation reached every other instance. One that did not is no incoherence by itself: the copy
    /// may have expired in time.
    #[must_use]
    pub fn every_invalidation_arrived(&self) -> Outcome {
        let expected: usize = self.arrivals.iter().map(|found| found.expected).sum();
        if expected == 0 {
            return Outcome::no_evidence("no invalidation was recorded as sent to another instance");
        }
        let missed = self.arrivals.iter().filter(|found| !found.missed.is_empty());
        let missed: Vec<String> = missed
            .map(|found| {
                let first = found.missed.first().map(|(key, version)| format!("version {version} of `{key}`"));
                let (name, n) = (&found.instance, found.missed.len());
                format!("{n} of {} never reached `{name}`, first {}", found.expected, first.unwrap_or_default())
            })
            .collect();
        match missed.is_empty() {
            true => Outcome::pass(format!("{expected} invalidations arrived")),
            false => Outcome::fail(missed.join("; ")),
        }
    }

    /// Passes when every invalidation that arrived did so in less than `limit` (strictly).
    #[must_use]
    pub fn invalidation_below(&self, limit: Duration) -> Outcome {
        let arrived: usize = self.arrivals.iter().map(|found| found.delays.len()).sum();
        let slow = self.arrivals.iter().filter(|found| found.max().is_some_and(|max| max >= limit));
        let slow: Vec<String> = slow.map(ToString::to_string).collect();
        match (arrived, slow.is_empty()) {
            (0, _) => Outcome::no_evidence("no invalidation was recorded as received"),
            (_, true) => Outcome::pass(format!("{arrived} invalidations in less than {}", millis(limit))),
            (_, false) => Outcome::fail(format!("less than {} is allowed: {}", millis(limit), slow.join("; "))),
        }
    }
}

fn list<T: fmt::Display>(what: &str, all: &[T]) -> Option<String> {
    if all.is_empty() {
        return None;
    }
    let shown: Vec<String> = all.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = match all.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" … and {more} more"),
    };
    Some(format!("{} {what}: {}{more}", all.len(), shown.join("; ")))
}

pub(super) fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        m if m < 1.0 && m > 0.0 => format!("{m:.3} ms"),
        m => format!("{} ms", format!("{m:.1}").trim_end_matches(".0")),
    }
}
