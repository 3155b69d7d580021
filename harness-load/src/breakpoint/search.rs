//! Doubles, bisects, and confirms twice; what broke by a hair is repeated before it counts.

use std::fmt;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;

use super::probe::Observed;
use super::usl::{Usl, knee};
use crate::units::Rate;

/// Why a rate was not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A gate of the probe: latency, errors.
    Gate(String),
    /// Less succeeded than was started, though no gate said so.
    Goodput(String),
    /// The generator, not the system.
    Generator(String),
    /// The highest rate the search may ask for was held.
    Ceiling,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(why) | Self::Goodput(why) => f.write_str(why),
            Self::Generator(why) => write!(f, "the generator was the limit: {why}"),
            Self::Ceiling => f.write_str("the highest rate of the search was held"),
        }
    }
}

/// One probe as the search took it.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The rate asked for, per second.
    pub rate: f64,
    /// What was seen.
    pub observed: Observed,
    /// Why the rate was not held; none if it was.
    pub why: Option<Why>,
}

/// Where the system breaks.
#[derive(Debug, Clone, PartialEq)]
pub enum Capacity {
    /// It held the low rate twice and broke at the high one twice, or twice more often than not. Per second.
    Between {
        /// Held.
        low: f64,
        /// Broke.
        high: f64,
    },
    /// It held this rate, and what stopped the search was not the system. Per second.
    AtLeast(f64),
    /// It broke at every rate tried, down to this one. Per second.
    Below(f64),
}

/// A search for the breaking point.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "a search does nothing until it is run"]
pub struct Search {
    from: Rate,
    most: Rate,
    tolerance: f64,
    probes: usize,
}

impl Search {
    /// Begins at a rate that should hold. Up to a million per second, 5 % and 14 probes, unless told otherwise.
    pub fn from(rate: Rate) -> Self {
        Self { from: rate, most: crate::units::per_second(1e6), tolerance: 0.05, probes: 14 }
    }

    /// The highest rate to ask for.
    pub fn up_to(mut self, rate: Rate) -> Self {
        self.most = rate;
        self
    }

    /// How close the two ends must come, as a share; 0.05 by default. A rate whose goodput lacks more than this share
    /// was not held.
    pub fn tolerance(mut self, share: f64) -> Self {
        self.tolerance = share;
        self
    }

    /// The most probes; 14 by default.
    pub fn probes(mut self, most: usize) -> Self {
        self.probes = most;
        self
    }

    /// Runs it. A probe should settle, measure and drain by itself, so that one does not pay for the one before.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for settings that mean nothing; [`ErrorKind::NoEvidence`] for a probe whose numbers cannot
    /// be, for one that contradicts itself on every repetition, and when the probes run out; whatever a probe returns.
    pub async fn run(self, mut probe: impl AsyncFnMut(Rate) -> CoreResult<Observed>) -> CoreResult<Breakpoint> {
        self.check()?;
        let mut seen = Seen { probes: Vec::new(), search: self };
        let capacity = loop {
            match seen.next() {
                Next::Done(capacity) => break capacity,
                Next::OutOfProbes => return Err(seen.exhausted()),
                Next::Probe(rate) => {
                    let observed = probe(crate::units::per_second(rate)).await?;
                    observed.check(rate)?;
                    let why = observed.why(rate, self.tolerance);
                    seen.probes.push(Probe { rate, observed, why });
                }
            }
        };
        Ok(Breakpoint { capacity, probes: seen.probes })
    }

    fn check(&self) -> CoreResult {
        self.from.millionths()?;
        self.most.millionths()?;
        if !(self.tolerance > 0.0 && self.tolerance < 1.0) || self.from > self.most {
            return Err(Error::new(ErrorKind::Config, format!("a search cannot be like this: {self:?}"))
                .remedy("give a tolerance such as 0.05, and a highest rate above the first"));
        }
        Ok(())
    }
}

/// What the next step is.
enum Next {
    Probe(f64),
    Done(Capacity),
    OutOfProbes,
}

/// The probes so far. Every step is decided from them alone, so that the search is a pure function of what it saw.
struct Seen {
    probes: Vec<Probe>,
    search: Search,
}

impl Seen {
    fn next(&self) -> Next {
        let next = self.wanted();
        match next {
            Next::Probe(_) if self.probes.len() >= self.search.probes => Next::OutOfProbes,
            next => next,
        }
    }

    fn wanted(&self) -> Next {
        if let Some(last) = self.probes.last().filter(|last| self.is_doubtful(last)) {
            return Next::Probe(last.rate);
        }
        let (from, most) = (self.search.from.as_f64(), self.search.most.as_f64());
        let (low, high) = (self.low(), self.high());
        match (low, high) {
            (None, None) => Next::Probe(from),
            (None, Some(high)) if self.generator_at(high) => Next::Done(Capacity::AtLeast(0.0)),
            // Broken from the start: halve until it holds, four times at most.
            (None, Some(high)) if high <= from / 16.0 => Next::Done(Capacity::Below(high)),
            (None, Some(high)) => Next::Probe(high / 2.0),
            (Some(low), None) if low >= most => Next::Done(Capacity::AtLeast(low)),
            (Some(low), None) => Next::Probe((low * 2.0).min(most)),
            (Some(low), Some(high)) => self.between(low, high),
        }
    }

    fn between(&self, low: f64, high: f64) -> Next {
        // The middle of what is left is off by at most half the tolerance then.
        if high / low > 1.0 + self.search.tolerance {
            return Next::Probe(self.hinted(low, high).unwrap_or_else(|| (low * high).sqrt()));
        }
        match () {
            () if !self.is_settled(high, false) => Next::Probe(high),
            () if !self.is_settled(low, true) => Next::Probe(low),
            () if self.generator_near(high) => Next::Done(Capacity::AtLeast(low)),
            () => Next::Done(Capacity::Between { low, high }),
        }
    }

    /// A gate broke, and the goodput does not bear it out: that may have been one hiccup of the machine. Such a rate is
    /// repeated until that is settled; to halve the range first would be to search it in vain.
    fn is_doubtful(&self, probe: &Probe) -> bool {
        let served = probe.observed.goodput >= probe.rate * (1.0 - self.search.tolerance);
        matches!(probe.why, Some(Why::Gate(_))) && served && !self.is_settled(probe.rate, false)
    }

    /// True if a rate held, or did not, twice more often than the other.
    fn is_settled(&self, rate: f64, held: bool) -> bool {
        self.count(rate, held) >= self.count(rate, !held) + 2
    }

    /// What the system still did when it first broke is a good guess at its capacity: one probe just below it and one just
    /// above replace most of the bisection. A guess that lies outside of what is left is not used, and none is used twice.
    fn hinted(&self, low: f64, high: f64) -> Option<f64> {
        let by_system = |probe: &&Probe| matches!(probe.why, Some(Why::Gate(_) | Why::Goodput(_)));
        let guess = self.probes.iter().find(by_system)?.observed.goodput;
        let (tolerance, edge) = (self.search.tolerance, 1.0 + self.search.tolerance / 10.0);
        let both = [guess / (1.0 + 0.4 * tolerance), guess * (1.0 + 0.5 * tolerance)];
        both.into_iter().find(|rate| *rate > low * edge && *rate < high / edge)
    }

    /// Repetitions of a rate that held, or did not.
    fn count(&self, rate: f64, held: bool) -> usize {
        self.probes.iter().filter(|probe| probe.rate == rate && probe.why.is_none() == held).count()
    }

    /// A rate counts as held or broken by most of its repetitions; the latest settles a tie.
    fn held(&self, rate: f64) -> bool {
        let (held, broke) = (self.count(rate, true), self.count(rate, false));
        let latest = self.probes.iter().rev().find(|probe| probe.rate == rate).is_some_and(|probe| probe.why.is_none());
        held > broke || held == broke && latest
    }

    /// The lowest rate that broke.
    fn high(&self) -> Option<f64> {
        let broken = self.probes.iter().map(|probe| probe.rate).filter(|rate| !self.held(*rate));
        broken.min_by(f64::total_cmp)
    }

    /// The highest rate that held, below the lowest that broke.
    fn low(&self) -> Option<f64> {
        let high = self.high().unwrap_or(f64::INFINITY);
        let held = self.probes.iter().map(|probe| probe.rate).filter(|rate| *rate < high && self.held(*rate));
        held.max_by(f64::total_cmp)
    }

    fn generator_at(&self, rate: f64) -> bool {
        let mut here = self.probes.iter().filter(|probe| probe.rate == rate);
        here.any(|probe| matches!(probe.why, Some(Why::Generator(_))))
    }

    /// True if the generator gave up within the tolerance of this rate: whose limit it was cannot be told then.
    fn generator_near(&self, rate: f64) -> bool {
        let most = rate * (1.0 + self.search.tolerance);
        self.probes.iter().any(|probe| probe.rate <= most && matches!(probe.why, Some(Why::Generator(_))))
    }

    fn exhausted(&self) -> Error {
        let (low, high) = (self.low().unwrap_or_default(), self.high().unwrap_or(f64::INFINITY));
        let what = format!("{} probes did not find the breaking point", self.probes.len());
        let error = Error::new(ErrorKind::NoEvidence, what)
            .tried(format!("somewhere between {low:.1}/s and {high:.1}/s"))
            .remedy("begin nearer to it, make probes longer so that they repeat, or allow more of them");
        self.probes.iter().fold(error, |error, probe| error.tried(line(probe)))
    }
}

/// Where it broke, and everything seen on the way. Its `Display` is a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Breakpoint {
    capacity: Capacity,
    probes: Vec<Probe>,
}

impl Breakpoint {
    /// Where it broke.
    #[must_use]
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// The capacity per second as one number, the middle of both ends; none unless both were found.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        match self.capacity {
            Capacity::Between { low, high } => Some((low * high).sqrt()),
            Capacity::AtLeast(_) | Capacity::Below(_) => None,
        }
    }

    /// Every probe in order.
    #[must_use]
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Why it went no further.
    #[must_use]
    pub fn why(&self) -> Why {
        let at_least = matches!(self.capacity, Capacity::AtLeast(_));
        let decides = |probe: &&Probe| match &probe.why {
            Some(Why::Generator(_)) => true,
            why => why.is_some() && !at_least,
        };
        let broken = self.probes.iter().filter(decides);
        let lowest = broken.min_by(|a, b| a.rate.total_cmp(&b.rate));
        lowest.and_then(|probe| probe.why.clone()).unwrap_or(Why::Ceiling)
    }

    /// The rate per second beyond which more load buys more waiting than work; see [`knee`].
    #[must_use]
    pub fn knee(&self) -> Option<f64> {
        let held = self.probes.iter().filter(|probe| probe.why.is_none());
        let points: Vec<_> =
            held.map(|probe| (probe.rate, probe.observed.goodput, probe.observed.latency.as_secs_f64())).collect();
        knee(&points)
    }

    /// Gunther's law of scaling fitted to the probes that the generator did not limit.
    ///
    /// # Errors
    /// As [`Usl::fit`].
    pub fn usl(&self) -> CoreResult<Usl> {
        let system = self.probes.iter().filter(|probe| !matches!(probe.why, Some(Why::Generator(_))));
        Usl::fit(system.map(|probe| (probe.observed.concurrency(), probe.observed.goodput)))
    }

    /// Holds the capacity against the rate that is needed. "At least" more than enough is a pass; what the generator
    /// could not reach is no evidence.
    #[must_use]
    pub fn at_least(&self, needed: Rate) -> Outcome {
        let needed = needed.as_f64();
        match self.capacity {
            Capacity::Between { low, .. } | Capacity::AtLeast(low) if low >= needed => Outcome::pass(self.headline()),
            Capacity::AtLeast(_) => Outcome::no_evidence(format!("{}, {needed:.1}/s are needed", self.headline())),
            Capacity::Between { .. } | Capacity::Below(_) => {
                Outcome::fail(format!("{}, {needed:.1}/s are needed", self.headline()))
            }
        }
    }

    fn headline(&self) -> String {
        let why = self.why();
        match self.capacity {
            Capacity::Between { low, high } => format!("holds {low:.1}/s, breaks at {high:.1}/s: {why}"),
            Capacity::AtLeast(low) => format!("≥ {low:.1}/s: {why}"),
            Capacity::Below(rate) => format!("breaks at {rate:.1}/s already: {why}"),
        }
    }
}

impl fmt::Display for Breakpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if let Some(knee) = self.knee() {
            write!(f, "\n  knee at {knee:.1}/s")?;
        }
        if let Ok(usl) = self.usl() {
            write!(f, "\n  {usl}")?;
        }
        self.probes.iter().try_for_each(|probe| write!(f, "\n  {}", line(probe)))
    }
}

fn line(probe: &Probe) -> String {
    let (goodput, latency) = (probe.observed.goodput, harness_core::wait::seconds(probe.observed.latency));
    let end = probe.why.as_ref().map_or_else(|| "held".to_owned(), |why| format!("broke: {why}"));
    format!("{:>10.1}/s  {goodput:>10.1}/s succeeded  {latency:>8}  {end}", probe.rate)
}
