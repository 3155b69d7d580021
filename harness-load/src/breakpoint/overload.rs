//! What happens beyond the capacity, and after it.

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::monitor::trend::median;
use harness_core::wait::seconds;
use harness_props::Outcome;

/// What a run at a multiple of the capacity did. A system that degrades gracefully keeps most of its goodput and turns
/// the rest away quickly, with an answer that says so.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an overload is to be judged"]
pub struct Overload {
    /// The best goodput seen below the breaking point, per second.
    pub peak: f64,
    /// The goodput under overload, per second.
    pub goodput: f64,
    /// The rate that was offered, per second.
    pub offered: f64,
    /// Everything that was due and did not succeed.
    pub failed: u64,
    /// Those of them that the system refused with an answer of a known kind, such as status 429 or 503.
    pub refused: u64,
    /// How long the slow ones of those refusals took: their p99.
    pub refusal_p99: Duration,
}

impl Overload {
    /// Judges goodput as a share of the peak, refusals as a share of failures (99 % must be typed), and how fast they were.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a share that is none.
    pub fn judge(&self, least_share: f64, slowest_refusal: Duration) -> CoreResult<Outcome> {
        if !(least_share > 0.0 && least_share <= 1.0) {
            return Err(Error::new(ErrorKind::Config, format!("goodput cannot be kept to a share of {least_share}"))
                .remedy("give a share of the peak, such as 0.8"));
        }
        let figures = [self.peak, self.goodput, self.offered];
        if figures.iter().any(|figure| !(figure.is_finite() && *figure >= 0.0)) || self.peak == 0.0 {
            return Ok(Outcome::no_evidence(format!("no peak, goodput and offered rate to compare: {figures:?}")));
        }
        if self.offered < 1.5 * self.peak {
            let (offered, peak) = (self.offered, self.peak);
            return Ok(Outcome::no_evidence(format!(
                "{offered:.1}/s are no overload of {peak:.1}/s: offer twice as much"
            )));
        }
        if self.failed == 0 {
            return Ok(Outcome::no_evidence("nothing failed: it was no overload, so the peak is not the peak"));
        }
        Ok(Outcome::worst([self.keeps(least_share), self.says_so(), self.is_quick(slowest_refusal)]))
    }

    fn keeps(&self, least_share: f64) -> Outcome {
        let share = self.goodput / self.peak;
        let told = format!(
            "{:.1}/s of {:.1}/s are left ({:.0} %) with {:.1}/s offered",
            self.goodput,
            self.peak,
            share * 100.0,
            self.offered
        );
        if share >= least_share { Outcome::pass(told) } else { Outcome::fail(format!("goodput collapses: {told}")) }
    }

    fn says_so(&self) -> Outcome {
        let (refused, failed) = (self.refused, self.failed);
        let told = format!("{refused} of {failed} failures were refusals of a known kind");
        match refused {
            _ if refused > failed => Outcome::no_evidence(format!("{told}: more than there were")),
            _ if u128::from(refused) * 100 >= u128::from(failed) * 99 => Outcome::pass(told),
            _ => Outcome::fail(format!("{told}; the others hung, timed out or broke")),
        }
    }

    fn is_quick(&self, slowest: Duration) -> Outcome {
        let told = format!("refusals took {} (p99), at most {}", seconds(self.refusal_p99), seconds(slowest));
        if self.refusal_p99 <= slowest { Outcome::pass(told) } else { Outcome::fail(format!("slow to refuse: {told}")) }
    }
}

/// The latency of one window of time after a spike; windows of equal length, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spike {
    /// When the spike ended, on the clock of the windows.
    pub ended: Duration,
    /// A window counts as recovered up to this multiple of the median before the spike: 1.2 for 20 % more.
    pub factor: f64,
    /// How many windows in a row must be recovered, to the end of the run.
    pub steady: usize,
    /// The longest it may take.
    pub limit: Duration,
}

/// How a recovery went.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Pass, fail with what was seen, or no evidence.
    pub outcome: Outcome,
    /// From the end of the spike to the first window from which on all are recovered.
    pub took: Option<Duration>,
}

/// Finds when latency came back after a spike. `before` are windows from before it; `after` are `(time, latency)` of
/// windows in rising time, in any one unit.
///
/// Recovered means *for good*: the time counts to the first window after which none is above again. A window without a
/// success belongs in as infinity.
#[must_use]
pub fn recovery(before: &[f64], after: &[(Duration, f64)], spike: Spike) -> Recovery {
    let none = |why: String| Recovery { outcome: Outcome::no_evidence(why), took: None };
    let (base, steady) = (median(before), spike.steady.max(1));
    if !(base.is_finite() && base > 0.0 && spike.factor >= 1.0) {
        return none(format!("{} windows before the spike give no latency to come back to", before.len()));
    }
    let after: Vec<_> = after.iter().filter(|(at, _)| *at >= spike.ended).collect();
    if after.len() < steady || after.last().is_none_or(|(at, _)| *at < spike.ended + spike.limit) {
        return none(format!("{} windows after the spike end before its limit; watch longer", after.len()));
    }
    let most = base * spike.factor;
    // A window that is not a number has not recovered.
    let last_bad = after.iter().rposition(|(_, latency)| latency.is_nan() || *latency > most);
    let from = last_bad.map_or(0, |bad| bad + 1);
    if after.len() - from < steady {
        let worst = after[after.len() - 1].1;
        let outcome =
            Outcome::fail(format!("never came back: {worst:.3} at the end, {base:.3} before, at most {most:.3}"));
        return Recovery { outcome, took: None };
    }
    let took = after[from].0 - spike.ended;
    let told = format!("back to {base:.3} (at most {most:.3}) after {}, limit {}", seconds(took), seconds(spike.limit));
    let outcome = if took <= spike.limit { Outcome::pass(told) } else { Outcome::fail(told) };
    Recovery { outcome, took: Some(took) }
}
