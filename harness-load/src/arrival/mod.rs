//! When each iteration is due: pure iterators of due times, no clock, no runtime.
//!
//! An *open loop* decides arrivals beforehand: a slow system does not slow the arrivals down, so its slowness shows in
//! the numbers. A [`Schedule`] lays the phases of a plan end to end, gives each its arrivals and deals the flows.

mod constant;
mod curve;
mod deck;
mod poisson;
mod replay;

use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::run::Seed;

use crate::units::Rate;

pub use constant::Constant;
pub use curve::Curve;
pub use deck::Deck;
pub use poisson::Poisson;
pub use replay::Trace;

/// The most slots one run may schedule: more is a soak test's business and would outgrow what a test should hold.
const MOST_SLOTS: u128 = 20_000_000;

/// The longest run.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// How the arrivals of a phase are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// Evenly: slot k of a phase is due k / rate after its start.
    #[default]
    Constant,
    /// Like independent users: exponential gaps from the seed, with the given mean rate.
    Poisson,
}

/// What a phase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Connections open, pools grow, caches fill. Not measured.
    WarmUp,
    /// The rate changes evenly. Not measured: its percentiles mix many loads.
    Ramp,
    /// One rate, judged.
    Hold,
    /// A multiple of the rate for a short time, judged.
    Spike,
    /// One rate for a long time, judged.
    Soak,
    /// What comes after the load, to see that things go back to rest. Not measured.
    CoolDown,
}

impl Kind {
    /// True if gates judge phases of this kind by default.
    #[must_use]
    pub fn is_measured(self) -> bool {
        matches!(self, Self::Hold | Self::Spike | Self::Soak)
    }

    /// The word in tables: `warm-up`, `ramp`, `hold`, `spike`, `soak`, `cool-down`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::WarmUp => "warm-up",
            Self::Ramp => "ramp",
            Self::Hold => "hold",
            Self::Spike => "spike",
            Self::Soak => "soak",
            Self::CoolDown => "cool-down",
        }
    }
}

/// How many arrive in a phase, and when.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// One rate.
    Rate(Rate),
    /// A rate that changes.
    Curve(Curve),
    /// What was recorded elsewhere.
    Trace(Trace),
    /// Nobody arrives from outside: users of a closed loop come back by themselves.
    Users,
}

/// A stretch of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Name in tables and in [`Gate::phase`](crate::Gate::phase).
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Its arrivals.
    pub shape: Shape,
    /// Length. A warm-up until steady ends earlier when it may.
    pub length: Duration,
    /// True if gates judge it by default.
    pub measured: bool,
    /// True if it ends as soon as the responses are steady.
    pub until_steady: bool,
}

/// One due slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Position in the run, from 0.
    pub n: u64,
    /// When, counted from the start of the run.
    pub at: Duration,
    /// Index of the phase.
    pub phase: usize,
    /// Index of the flow.
    pub flow: usize,
}

/// All due slots of a run, known before it starts. Two walks over it give the same slots.
#[derive(Debug, Clone)]
pub struct Schedule {
    segments: Vec<Segment>,
    arrivals: Arrivals,
    weights: Vec<u32>,
    seed: Seed,
}

#[derive(Debug, Clone)]
struct Segment {
    start: Duration,
    length: Duration,
    shape: Shape,
}

impl Shape {
    /// About how many slots it makes in this time.
    fn arrivals(&self, length: Duration) -> CoreResult<u128> {
        Ok(match self {
            Self::Rate(rate) => {
                length.as_nanos().saturating_mul(u128::from(rate.millionths()?)) / 1_000_000_000_000_000
            }
            Self::Curve(curve) => curve.arrivals() as u128,
            Self::Trace(trace) => trace.arrivals() as u128,
            Self::Users => 0,
        })
    }
}

impl Schedule {
    /// Lays phases end to end and deals flows by their weights.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for no phase or flow, a rate that cannot be, a phase without length, weights that
    /// [`Deck`] refuses, or more slots than a run may hold.
    pub fn new(phases: &[Phase], weights: &[u32], arrivals: Arrivals, seed: Seed) -> CoreResult<Self> {
        let (mut segments, mut start, mut slots) = (Vec::with_capacity(phases.len()), Duration::ZERO, 0_u128);
        for phase in phases {
            if phase.length.is_zero() {
                return Err(
                    config(format!("phase `{}` has no length", phase.name)).remedy("give it more than zero time")
                );
            }
            slots = slots.saturating_add(phase.shape.arrivals(phase.length)?);
            segments.push(Segment { start, length: phase.length, shape: phase.shape.clone() });
            start = start.saturating_add(phase.length);
        }
        if start > LONGEST {
            return Err(
                config("the phases take more than a day").remedy("shorten them: a run is at most 24 hours long")
            );
        }
        if segments.is_empty() {
            return Err(config("a load without phases does nothing").remedy("add `.hold(secs(30))`"));
        }
        if slots > MOST_SLOTS {
            return Err(config(format!("this load has about {slots} slots, a run holds {MOST_SLOTS}"))
                .remedy("lower the rate, shorten the phases, or split the run"));
        }
        let schedule = Self { segments, arrivals, weights: weights.to_vec(), seed };
        schedule.deck(0)?;
        Ok(schedule)
    }

    /// The end of the last phase, counted from the start of the run.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.segments.last().map_or(Duration::ZERO, |last| last.start + last.length)
    }

    /// The index of the phase that a moment belongs to; none after the end.
    #[must_use]
    pub fn phase_at(&self, moment: Duration) -> Option<usize> {
        self.segments.iter().position(|s| moment >= s.start && moment < s.start + s.length)
    }

    /// When a phase starts, counted from the start of the run.
    #[must_use]
    pub fn phase_start(&self, phase: usize) -> Duration {
        self.segments.get(phase).map_or_else(|| self.end(), |segment| segment.start)
    }

    /// The end of each phase in nanoseconds since the start.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.segments.iter().map(|s| crate::units::to_nanos(s.start + s.length)).collect()
    }

    /// How many slots each phase holds for each flow: `counts[phase][flow]`. Walks the schedule.
    #[must_use]
    pub fn counts(&self) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.weights.len()]; self.segments.len()];
        for due in self.slots() {
            counts[due.phase][due.flow] += 1;
        }
        counts
    }

    /// The slots in order of due time.
    pub fn slots(&self) -> impl Iterator<Item = Due> + Send + use<> {
        let schedule = self.clone();
        (0..schedule.segments.len())
            .flat_map(move |phase| schedule.phase_slots(phase))
            .enumerate()
            .map(|(n, due)| Due { n: n as u64, ..due })
    }

    fn phase_slots(&self, phase: usize) -> impl Iterator<Item = Due> + Send + use<> {
        let Segment { start, length, shape } = self.segments[phase].clone();
        let stream = || self.seed.stream(&format!("arrivals/{phase}"));
        let times: Box<dyn Iterator<Item = Duration> + Send> = match (&shape, self.arrivals) {
            // `new` has refused rates that cannot be, so no rate is the same as no phase.
            (Shape::Rate(rate), Arrivals::Constant) => Box::new(Constant::new(*rate, length).into_iter().flatten()),
            (Shape::Rate(rate), Arrivals::Poisson) => {
                Box::new(Poisson::new(*rate, length, stream()).into_iter().flatten())
            }
            (Shape::Curve(curve), Arrivals::Constant) => Box::new(curve.due_times()),
            (Shape::Curve(curve), Arrivals::Poisson) => Box::new(curve.poisson(stream())),
            (Shape::Trace(trace), _) => Box::new(trace.due_times().take_while(move |at| *at < length)),
            (Shape::Users, _) => Box::new(std::iter::empty()),
        };
        // `new` has dealt once already, so an error here cannot be; if it were, the phase would be empty and the run
        // would end without evidence.
        let deck = self.deck(phase).into_iter().flatten();
        times.zip(deck).map(move |(at, flow)| Due { n: 0, at: start + at, phase, flow })
    }

    /// How many flows there are.
    pub(crate) fn flows(&self) -> usize {
        self.weights.len()
    }

    /// An endless deal of flows, for users who come back by themselves.
    pub(crate) fn dealt(&self) -> impl Iterator<Item = usize> + Send + use<> {
        self.deck(0).into_iter().flatten()
    }

    /// Every phase deals from a fresh deck, so that the shares of a measured phase do not depend on the warm-up.
    fn deck(&self, phase: usize) -> CoreResult<Deck> {
        Deck::new(&self.weights, self.seed.stream(&format!("flows/{phase}")))
    }
}

fn config(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what)
}
