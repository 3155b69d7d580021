//! Random sequences of commands against a system, held against its reference automaton, and shrunk when they deviate.
//!
//! Where [`conform`](super::conform) judges what was seen, this finds what to show: it draws commands, drives a fresh system with
//! them on a virtual clock, and looks for a trace that its automaton rules out. The counterexample is the shortest sequence
//! that still deviates. A search in which no sequence showed everything is no evidence.
//!
//! ```
//! use std::time::Duration;
//! use harness_props::model::exercise::{Exercise, limited, requests};
//! use harness_props::model::limiter::FixedWindow;
//!
//! // A limiter of ours: two per second, by the clock it is given.
//! let ours = || {
//!     let (mut window, mut used) = (0, 0);
//!     move |now: Duration| {
//!         if now.as_secs() != window { (window, used) = (now.as_secs(), 0); }
//!         used += 1;
//!         used <= 2
//!     }
//! };
//! let search = Exercise::new(200, 1);
//! let reference = FixedWindow::new(2, Duration::from_secs(1));
//! let found = search.run(&reference, |random| requests(random, Duration::from_secs(2)), |gaps| limited(gaps, ours()));
//! assert!(found.outcome().is_pass());
//!
//! let none = search.run(&reference, |random| requests(random, Duration::from_secs(2)), |gaps| limited(gaps, |_| true));
//! assert_eq!(none.counterexample.unwrap().commands.len(), 3, "the third one within a second");
//! ```

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

use super::{Automaton, Conformance, breaker, bulkhead, conform, limiter, retry};
use crate::Outcome;
use crate::generate::Random;
use crate::shrink::{self, Shrink};

/// How often to search, and from which seed.
#[derive(Debug, Clone, Copy)]
pub struct Exercise {
    rounds: usize,
    seed: u64,
}

/// A sequence of commands that leads to something which must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample<C> {
    /// The commands, as few as possible.
    pub commands: Vec<C>,
    /// At which event of their trace it shows, and why.
    pub deviation: Conformance,
    /// How many commands it had when it was found.
    pub found_with: usize,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exercised<C> {
    /// Sequences that were run before the search ended.
    pub rounds: usize,
    /// Of them, those whose trace showed everything and conformed.
    pub conforming: usize,
    /// What the last sequence that showed too little did not show.
    pub unseen: Option<String>,
    /// The shortest sequence that deviates, if one did.
    pub counterexample: Option<Counterexample<C>>,
}

impl<C: Debug> Exercised<C> {
    /// Pass with how many sequences conformed, Fail with the shortest that deviates, or NoEvidence when none showed everything.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.counterexample, self.conforming) {
            (Some(found), _) => {
                let Counterexample { commands, deviation, .. } = found;
                Outcome::fail(format!(
                    "{} after {} commands: {commands:?}",
                    deviation.outcome().detail(),
                    commands.len()
                ))
            }
            (None, 0) => {
                let why = self.unseen.as_deref().unwrap_or("nothing was run");
                Outcome::no_evidence(format!("none of {} sequences showed everything: {why}", self.rounds))
            }
            (None, conforming) => {
                Outcome::pass(format!("{conforming} of {} sequences showed everything and conform", self.rounds))
            }
        }
    }
}

impl Exercise {
    /// So many sequences, from a seed: the same seed draws the same sequences.
    #[must_use]
    pub fn new(rounds: usize, seed: u64) -> Self {
        Self { rounds, seed }
    }

    /// Draws sequences, drives a fresh system with each (`drive` makes the system and returns the trace) and holds the trace
    /// against the automaton. The first that deviates is shrunk, and the search ends.
    pub fn run<A: Automaton, C: Clone>(
        &self,
        automaton: &A,
        draw: impl Fn(&mut Random) -> Vec<C>,
        mut drive: impl FnMut(&[C]) -> Vec<(Duration, A::Event)>,
    ) -> Exercised<C> {
        let mut random = Random::new(self.seed);
        let mut result = Exercised { rounds: 0, conforming: 0, unseen: None, counterexample: None };
        for _ in 0..self.rounds {
            let commands = draw(&mut random);
            result.rounds += 1;
            match conform(automaton, drive(&commands)) {
                Conformance::Conforms { .. } => result.conforming += 1,
                Conformance::NoEvidence { why } => result.unseen = Some(why),
                Conformance::Deviates { .. } => {
                    let mut deviates =
                        |commands: &Vec<C>| matches!(conform(automaton, drive(commands)), Conformance::Deviates { .. });
                    let least = shrink::value(&commands, &mut deviates).value;
                    let deviation = conform(automaton, drive(&least));
                    result.counterexample =
                        Some(Counterexample { found_with: commands.size(), commands: least, deviation });
                    return result;
                }
            }
        }
        result
    }
}

/// Pauses before requests: none, for bursts; parts of the limiter's period; all of it, and a nanosecond less.
#[must_use]
pub fn requests(random: &mut Random, period: Duration) -> Vec<Duration> {
    let one = |random: &mut Random| match random.below(8) {
        0..4 => Duration::ZERO,
        4 => period / 10 * random.below(10) as u32,
        5 => period / 2 + period / 10 * random.below(10) as u32,
        6 => period,
        _ => period.saturating_sub(Duration::from_nanos(1)),
    };
    (0..40).map(|_| one(random)).collect()
}

/// Drives a limiter with requests: `allow` is told the time and says whether it lets one through.
pub fn limited(gaps: &[Duration], mut allow: impl FnMut(Duration) -> bool) -> Vec<(Duration, limiter::Request)> {
    let mut now = Duration::ZERO;
    let mut request = |gap: &Duration| {
        now += *gap;
        (now, if allow(now) { limiter::Request::Allowed } else { limiter::Request::Refused })
    };
    gaps.iter().map(&mut request).collect()
}

/// What is done to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerCommand {
    /// A call is tried.
    Call,
    /// The call that has been under way longest succeeds; nothing if there is none.
    Succeed,
    /// It fails.
    Fail,
    /// Time passes.
    Wait(Duration),
}

/// A circuit breaker under test, on a virtual clock.
pub trait BreakerUnderTest {
    /// Whether a call is let through at this time; its number is new.
    fn admits(&mut self, now: Duration, call: u64) -> bool;

    /// A call that was let through ended.
    fn ended(&mut self, now: Duration, call: u64, is_success: bool);
}

/// Commands for a breaker: runs of failures, runs of successes, and waits around the time for which it stays open.
#[must_use]
pub fn calls(random: &mut Random, automaton: &breaker::Breaker) -> Vec<BreakerCommand> {
    use BreakerCommand::{Call, Fail, Succeed, Wait};
    let mut commands = Vec::new();
    let limit = automaton.failures_to_open();
    while commands.len() < 20 + 4 * limit {
        match random.below(5) {
            0 | 1 => (0..=limit).for_each(|_| commands.extend([Call, Fail])),
            2 => (0..1 + random.below(3)).for_each(|_| commands.extend([Call, Succeed])),
            3 => {
                let permits = automaton.probes() as usize;
                commands.extend(vec![Call; permits + 1]);
                commands.extend(vec![if random.percent(70) { Succeed } else { Fail }; permits]);
            }
            _ => commands.push(Wait(automaton.wait() / 10 * random.between(1, 12) as u32)),
        }
    }
    commands
}

/// Drives a breaker with commands. Each takes a millisecond; what is under way at the end stays so.
pub fn broken(commands: &[BreakerCommand], mut system: impl BreakerUnderTest) -> Vec<(Duration, breaker::Call)> {
    let (mut now, mut next, mut open) = (Duration::ZERO, 0_u64, VecDeque::new());
    let mut trace = Vec::new();
    for command in commands {
        now += Duration::from_millis(1);
        match command {
            BreakerCommand::Wait(time) => now += *time,
            BreakerCommand::Call => {
                next += 1;
                if system.admits(now, next) {
                    open.push_back(next);
                    trace.push((now, breaker::Call::Admitted(next)));
                } else {
                    trace.push((now, breaker::Call::Rejected));
                }
            }
            BreakerCommand::Succeed | BreakerCommand::Fail => {
                let Some(call) = open.pop_front() else { continue };
                let is_success = *command == BreakerCommand::Succeed;
                system.ended(now, call, is_success);
                trace
                    .push((now, if is_success { breaker::Call::Succeeded(call) } else { breaker::Call::Failed(call) }));
            }
        }
    }
    trace
}

/// What is done to a bulkhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkheadCommand {
    /// A call comes.
    Enter,
    /// The call that has been inside longest leaves; nothing if there is none.
    Leave,
    /// The call that has waited longest gives up; nothing if there is none.
    GiveUp,
}

/// How a call was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It got a place.
    Entered,
    /// It waits.
    Queued,
    /// It was turned away.
    Rejected,
}

/// A bulkhead under test. Calls have numbers.
pub trait BulkheadUnderTest {
    /// A call comes.
    fn enter(&mut self, call: u64) -> Entry;

    /// A call leaves its place; the calls that waited and get a place by that.
    fn leave(&mut self, call: u64) -> Vec<u64>;

    /// A call that waits gives up.
    fn give_up(&mut self, call: u64);
}

/// Commands for a bulkhead: more come than leave, so that it fills up, and then less.
#[must_use]
pub fn visits(random: &mut Random, automaton: &bulkhead::Bulkhead) -> Vec<BulkheadCommand> {
    let room = (automaton.places() + automaton.queue()) as usize;
    let mut commands = Vec::new();
    for share in [80, 30, 60] {
        commands.extend((0..2 * room + 4).map(|_| match random.below(100) {
            come if come < share => BulkheadCommand::Enter,
            rest if rest % 5 == 0 => BulkheadCommand::GiveUp,
            _ => BulkheadCommand::Leave,
        }));
    }
    commands
}

/// Drives a bulkhead with commands, one per millisecond.
pub fn entered(commands: &[BulkheadCommand], mut system: impl BulkheadUnderTest) -> Vec<(Duration, bulkhead::Call)> {
    let (mut inside, mut waiting, mut next) = (VecDeque::new(), VecDeque::new(), 0_u64);
    let mut trace = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let mut seen = |call| trace.push((Duration::from_millis(at as u64), call));
        match command {
            BulkheadCommand::Enter => {
                next += 1;
                match system.enter(next) {
                    Entry::Entered => (inside.push_back(next), seen(bulkhead::Call::Entered)).1,
                    Entry::Queued => (waiting.push_back(next), seen(bulkhead::Call::Queued)).1,
                    Entry::Rejected => seen(bulkhead::Call::Rejected),
                }
            }
            BulkheadCommand::Leave => {
                let Some(call) = inside.pop_front() else { continue };
                seen(bulkhead::Call::Left);
                for admitted in system.leave(call) {
                    waiting.retain(|waits| *waits != admitted);
                    inside.push_back(admitted);
                    seen(bulkhead::Call::Admitted);
                }
            }
            BulkheadCommand::GiveUp => {
                let Some(call) = waiting.pop_front() else { continue };
                system.give_up(call);
                seen(bulkhead::Call::Abandoned);
            }
        }
    }
    trace
}

/// What the other side answers to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It succeeds.
    Good,
    /// It fails in a way that a retry may help.
    Busy,
    /// It fails so and asks to wait.
    After(Duration),
    /// It fails in a way that a retry cannot help.
    Never,
}

/// The other side of a retry under test: it answers attempts as scripted and keeps the time.
#[derive(Debug)]
pub struct Server<'a> {
    script: &'a [Answer],
    now: Duration,
    trace: Vec<(Duration, retry::Attempt)>,
}

impl Server<'_> {
    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets time pass: what the system sleeps.
    pub fn pause(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
    }

    /// One attempt, which takes a millisecond. Beyond the end of the script everything succeeds.
    pub fn attempt(&mut self) -> Answer {
        let answer = self.script.split_first().map_or(Answer::Good, |(first, rest)| {
            self.script = rest;
            *first
        });
        self.trace.push((self.now, retry::Attempt::Begun));
        self.now += Duration::from_millis(1);
        let ended = match answer {
            Answer::Good => retry::Attempt::Succeeded,
            Answer::Busy => retry::Attempt::failed(),
            Answer::After(time) => retry::Attempt::Failed { is_retryable: true, retry_after: Some(time) },
            Answer::Never => retry::Attempt::refused(),
        };
        self.trace.push((self.now, ended));
        answer
    }
}

/// Answers for a retry: mostly failures that a retry may help, in runs.
#[must_use]
pub fn answers(random: &mut Random) -> Vec<Answer> {
    let one = |random: &mut Random| match random.below(10) {
        0..6 => Answer::Busy,
        6 | 7 => Answer::Good,
        8 => Answer::After(Duration::from_millis(random.below(500))),
        _ => Answer::Never,
    };
    (0..24).map(|_| one(random)).collect()
}

/// Drives a retry: `operation` is one operation with all its attempts and says whether it succeeded; it runs again and again
/// until the script is used up.
pub fn retried(
    script: &[Answer],
    mut operation: impl FnMut(&mut Server<'_>) -> bool,
) -> Vec<(Duration, retry::Attempt)> {
    let mut server = Server { script, now: Duration::ZERO, trace: Vec::new() };
    // Every operation makes an attempt, or else the script would never end.
    for _ in 0..=script.len() {
        if server.script.is_empty() {
            break;
        }
        if !operation(&mut server) {
            let now = server.now;
            server.trace.push((now, retry::Attempt::GivenUp));
        }
    }
    server.trace
}

#[cfg(test)]
mod tests;
