//! Random schedules within declared bounds.

use std::time::Duration;

use super::{Schedule, Step};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Seed, SeedStream};

/// Places that are tried for a fault before it is left out.
const TRIES: u32 = 50;

/// The bounds of random faults: which, how many, how long, how many at once, and when it is quiet.
///
/// ```
/// use std::time::Duration;
/// use harness_core::fault::Chaos;
/// use harness_core::run::Seed;
///
/// let secs = Duration::from_secs;
/// let chaos = Chaos::within(secs(10)..secs(50)).faults(5).lasting(secs(1)..=secs(5)).at_once(2)
///     .choice("redis", "latency 200ms").choice("redis", "connect-timeout").choice("postgres", "kill");
/// let schedule = chaos.draw(Seed::new(7)).unwrap();
/// assert_eq!(schedule.to_string(), chaos.draw(Seed::new(7)).unwrap().to_string());
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is drawn before `draw`"]
pub struct Chaos {
    window: (Duration, Duration),
    faults: usize,
    lasting: (Duration, Duration),
    at_once: usize,
    choices: Vec<(String, String)>,
}

impl Chaos {
    /// Faults that begin and end in this window: what is before it shows the steady state, what is after it the recovery. Three
    /// of 1 s, one at a time, unless told otherwise.
    pub fn within(window: std::ops::Range<Duration>) -> Self {
        let second = Duration::from_secs(1);
        Self {
            window: (window.start, window.end),
            faults: 3,
            lasting: (second, second),
            at_once: 1,
            choices: Vec::new(),
        }
    }

    /// So many faults.
    pub fn faults(mut self, count: usize) -> Self {
        self.faults = count;
        self
    }

    /// Each lasts a time between these two.
    pub fn lasting(mut self, lasting: std::ops::RangeInclusive<Duration>) -> Self {
        self.lasting = lasting.into_inner();
        self
    }

    /// At most so many at once.
    pub fn at_once(mut self, count: usize) -> Self {
        self.at_once = count;
        self
    }

    /// Adds a fault to choose from: a target and a fault in its words.
    pub fn choice(mut self, target: impl Into<String>, fault: impl Into<String>) -> Self {
        self.choices.push((target.into(), fault.into()));
        self
    }

    /// The schedule of a seed, within the bounds, to the millisecond.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the bounds leave no room: nothing to choose from, or more than the window holds.
    pub fn draw(&self, seed: Seed) -> CoreResult<Schedule> {
        let mut random = seed.stream("chaos");
        let mut steps = Vec::with_capacity(self.faults);
        while steps.len() < self.faults {
            let place = (0..TRIES).find_map(|_| self.step(&mut random).filter(|step| self.fits(&steps, step)));
            let Some(step) = place else { return Err(self.no_room(steps.len())) };
            steps.push(step);
        }
        Schedule::of(steps)
    }

    fn step(&self, random: &mut SeedStream) -> Option<Step> {
        let (target, fault) = self.choices.get(random.below(self.choices.len() as u64) as usize)?.clone();
        let mut between = |least: Duration, most: Duration| {
            let millis = most.checked_sub(least)?.as_millis() as u64;
            Some(least + Duration::from_millis(random.below(millis + 1)))
        };
        let lasts = between(self.lasting.0, self.lasting.1)?;
        let at = between(self.window.0, self.window.1.checked_sub(lasts)?)?;
        Some(Step { at, until: at + lasts, target, fault })
    }

    /// True when no moment of the step has too many faults, and none of the same target: which of two faults of one target
    /// bit could not be told.
    fn fits(&self, steps: &[Step], step: &Step) -> bool {
        let meets = |other: &&Step| other.at < step.until && step.at < other.until;
        let others: Vec<_> = steps.iter().filter(meets).collect();
        // The most at once is reached where one of them begins.
        let at_once =
            |moment: Duration| others.iter().filter(|other| other.at <= moment && moment < other.until).count();
        let moments = others.iter().map(|other| other.at.max(step.at)).chain([step.at]);
        others.iter().all(|other| other.target != step.target) && moments.map(at_once).max().unwrap_or(0) < self.at_once
    }

    fn no_room(&self, placed: usize) -> Error {
        let what =
            format!("{placed} of {} faults have a place within the bounds, and the next found none", self.faults);
        let (from, to) = (super::duration_text(self.window.0), super::duration_text(self.window.1));
        Error::new(ErrorKind::Config, what)
            .tried(format!("window {from}..{to}, {} choices, {} at once", self.choices.len(), self.at_once))
            .remedy("widen the window, allow more at once, shorten the faults, or ask for fewer")
    }
}
