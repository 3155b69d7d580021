//! Sound systems conform in every sequence; each planted defect is found, and shrunk to what shows it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{
    Answer, BreakerCommand, BreakerUnderTest, BulkheadUnderTest, Entry, Exercise, Exercised, Server, answers, broken,
    calls, entered, limited, requests, retried, visits,
};
use crate::model::breaker::Breaker;
use crate::model::bulkhead::Bulkhead;
use crate::model::limiter::{SlidingWindow, TokenBucket};
use crate::model::retry::{Jitter, Retry};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn search() -> Exercise {
    Exercise::new(crate::env::rounds(100), 61)
}

/// So many commands are left of the counterexample, of more than there were.
fn shrunk<C: std::fmt::Debug>(found: &Exercised<C>, what: &str) -> usize {
    assert!(found.outcome().is_fail(), "{what}: {}", found.outcome());
    let counterexample = found.counterexample.as_ref().unwrap();
    assert!(counterexample.commands.len() < counterexample.found_with, "{what}: {counterexample:?}");
    counterexample.commands.len()
}

/// A breaker: three failures in a row open it for 100 ms, then one probe.
#[derive(Default, Clone, Copy)]
struct Ours {
    defect: &'static str,
    failures: u32,
    until: Option<Duration>,
    probe: Option<u64>,
    /// Calls up to this one began before it was last opened or closed.
    stale: u64,
    last: u64,
}

impl BreakerUnderTest for Ours {
    fn admits(&mut self, now: Duration, call: u64) -> bool {
        let Some(until) = self.until else {
            self.last = call;
            return true;
        };
        if (self.probe.is_some() && self.defect != "herd") || now < until {
            return false;
        }
        (self.probe, self.last) = (Some(call), call);
        true
    }

    fn ended(&mut self, now: Duration, call: u64, is_success: bool) {
        let wait = if self.defect == "short" { ms(50) } else { ms(100) };
        let open = |ours: &mut Self| {
            (ours.until, ours.probe, ours.failures, ours.stale) = (Some(now + wait), None, 0, ours.last)
        };
        if self.until.is_some() {
            if self.probe != Some(call) && self.defect != "stale" {
                return;
            }
            match is_success && self.defect != "stuck" {
                true => (self.until, self.probe, self.failures, self.stale) = (None, None, 0, call),
                false => open(self),
            }
            return;
        }
        if call <= self.stale {
            return;
        }
        self.failures = if is_success && self.defect != "counts" { 0 } else { self.failures + u32::from(!is_success) };
        if self.failures >= 3 {
            open(self);
        }
    }
}

#[test]
fn breakers_with_each_defect_are_found_and_a_sound_one_conforms() {
    let reference = Breaker::rate(100, 3, 3, ms(100));
    let run = |defect| {
        let ours = Ours { defect, ..Ours::default() };
        search().run(&reference, |random| calls(random, &reference), |commands| broken(commands, ours))
    };
    let sound = run("");
    assert!(sound.outcome().is_pass(), "{}", sound.outcome());
    // Three calls that fail, and what shows it.
    for (defect, most) in [("herd", 12), ("short", 10), ("stuck", 12), ("counts", 14)] {
        let left = shrunk(&run(defect), defect);
        assert!(left <= most, "{defect}: {left} commands");
    }
    let never = search().run(&reference, |_| vec![BreakerCommand::Call], |commands| broken(commands, Ours::default()));
    assert_eq!(
        never.outcome().detail(),
        format!("none of {} sequences showed everything: it never opened", never.rounds)
    );
}

#[test]
fn limiters_with_each_defect_are_found_and_sound_ones_conform() {
    let sliding = SlidingWindow::new(3, ms(100));
    let ours = |window: Duration, is_counting_refused: bool| {
        let mut past: VecDeque<Duration> = VecDeque::new();
        move |now: Duration| {
            past.retain(|then| *then + window > now);
            let is_allowed = past.len() < 3;
            if is_allowed || is_counting_refused {
                past.push_back(now);
            }
            is_allowed
        }
    };
    let run = |window, refused| {
        search().run(&sliding, |random| requests(random, ms(100)), |gaps| limited(gaps, ours(window, refused)))
    };
    assert!(run(ms(100), false).outcome().is_pass(), "{}", run(ms(100), false).outcome());
    assert_eq!(shrunk(&run(ms(99), false), "a window too short"), 4);
    assert!(shrunk(&run(ms(100), true), "refusals count") <= 6);

    let bucket = TokenBucket::new(2, 1, ms(100));
    let mut spare = 2_u32;
    let refills_at_once = search().run(
        &bucket,
        |random| requests(random, ms(100)),
        |gaps| {
            spare = 2;
            let mut last = Duration::ZERO;
            limited(gaps, |now| {
                if now >= last + ms(100) {
                    (spare, last) = (2, now);
                }
                let is_allowed = spare > 0;
                spare = spare.saturating_sub(1);
                is_allowed
            })
        },
    );
    assert!(shrunk(&refills_at_once, "refills at once") <= 5);
}

/// A bulkhead with two places and a queue of one.
#[derive(Default, Clone)]
struct Rooms {
    defect: &'static str,
    inside: u32,
    waiting: VecDeque<u64>,
}

impl BulkheadUnderTest for Rooms {
    fn enter(&mut self, call: u64) -> Entry {
        if self.inside < 2 {
            self.inside += 1;
            return Entry::Entered;
        }
        let room = if self.defect == "endless" { 9 } else { 1 };
        if self.waiting.len() < room {
            self.waiting.push_back(call);
            return Entry::Queued;
        }
        Entry::Rejected
    }

    fn leave(&mut self, _: u64) -> Vec<u64> {
        match self.waiting.pop_front() {
            Some(next) if self.defect != "forgets" => vec![next],
            _ => {
                self.inside -= u32::from(self.defect != "leaks");
                Vec::new()
            }
        }
    }

    fn give_up(&mut self, call: u64) {
        self.waiting.retain(|waits| *waits != call);
    }
}

#[test]
fn bulkheads_with_each_defect_are_found_and_a_sound_one_conforms() {
    let reference = Bulkhead::new(2, 1);
    let run = |defect| {
        let rooms = || Rooms { defect, ..Rooms::default() };
        search().run(&reference, |random| visits(random, &reference), |commands| entered(commands, rooms()))
    };
    assert!(run("").outcome().is_pass(), "{}", run("").outcome());
    for (defect, most) in [("endless", 4), ("leaks", 4), ("forgets", 6)] {
        let left = shrunk(&run(defect), defect);
        assert!(left <= most, "{defect}: {left} commands");
    }
}

/// At most three attempts; pauses of 10 and 20 ms, or what was asked for.
fn ours(server: &mut Server<'_>, defect: &str) -> bool {
    let attempts = if defect == "insists" { 4 } else { 3 };
    for attempt in 1..=attempts {
        let asked = match server.attempt() {
            Answer::Good => return true,
            Answer::Never if defect != "hopes" => return false,
            Answer::After(time) if defect != "deaf" => time,
            _ => Duration::ZERO,
        };
        if attempt < attempts {
            let pause = if defect == "steady" { ms(10) } else { ms(10) * (1 << (attempt - 1)) };
            server.pause(pause.max(asked));
        }
    }
    false
}

#[test]
fn retries_with_each_defect_are_found_and_a_sound_one_conforms() {
    let reference = Retry::new(3, ms(10)).jitter(Jitter::None);
    let run = |defect| search().run(&reference, answers, |script| retried(script, |server| ours(server, defect)));
    let sound = run("");
    assert!(sound.outcome().is_pass(), "{}", sound.outcome());
    for (defect, left) in [("insists", 3), ("hopes", 1), ("deaf", 1), ("steady", 2)] {
        assert_eq!(shrunk(&run(defect), defect), left, "{defect}");
    }
}

#[test]
fn visits_fill_even_the_smallest_bulkhead_and_empty_it_again() {
    use super::BulkheadCommand::{Enter, GiveUp, Leave};
    for (places, queue) in [(1, 0), (3, 2)] {
        let room = (places + queue) as usize;
        let mut random = crate::generate::Random::new(62);
        let (mut early, mut late, mut gave_up) = (0, 0, 0);
        for _ in 0..200 {
            let commands = visits(&mut random, &Bulkhead::new(places, queue));
            assert_eq!(commands.len(), 3 * (2 * room + 4));
            let third = commands.len() / 3;
            let net = |part: &[super::BulkheadCommand]| {
                let count = |wanted| part.iter().filter(|one| **one == wanted).count() as i64;
                count(Enter) - count(Leave) - count(GiveUp)
            };
            early += net(&commands[..third]);
            late += net(&commands[third..2 * third]);
            gave_up += commands.iter().filter(|one| **one == GiveUp).count();
        }
        let room = room as i64;
        assert!(early > 200 * room && late < 0, "{early} come first, then {late}");
        assert!(gave_up > 200, "{gave_up} gave up");
    }
}
