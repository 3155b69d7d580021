//! Planted violations, each turning exactly its verdict red; random histories against a judge that is slow and obvious.

use std::time::Duration;

use super::{CacheHistory, CacheVerdict, Read, Write};

const BOUND: Duration = Duration::from_millis(50);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Three instances; `a` writes versions 1 and 2, everybody reads the new one, also past the bound.
fn coherent() -> CacheHistory {
    let mut history = CacheHistory::new();
    history.write(Write::acknowledged("a", "k", 1, ms(0), ms(5)));
    history.write(Write::acknowledged("a", "k", 2, ms(100), ms(105)));
    for instance in ["b", "c"] {
        history.published("a", "k", 2, ms(105));
        history.read(Read::of(instance, "k", 1, ms(60), ms(61)).from_copy(true));
        history.read(Read::of(instance, "k", 1, ms(110), ms(111)).from_copy(true)); // within the bound
        history.received(instance, "k", 2, ms(120));
        history.read(Read::of(instance, "k", 2, ms(130), ms(131)).from_copy(false));
        history.read(Read::of(instance, "k", 2, ms(200), ms(201)).from_copy(true));
    }
    history.write(Write::acknowledged("b", "own", 0, ms(0), ms(1)));
    history.write(Write::acknowledged("b", "own", 1, ms(2), ms(3)));
    history.read(Read::of("a", "own", 1, ms(300), ms(301)));
    history
}

fn reds(verdict: &CacheVerdict) -> Vec<&'static str> {
    let counts = [
        ("phantom", verdict.phantom.len()),
        ("resurrected", verdict.resurrected.len()),
        ("backwards", verdict.backwards.len()),
        ("own write missed", verdict.own_write_missed.len()),
        ("deaf", verdict.deaf.len()),
        ("stale", verdict.stale.len()),
        ("inconsistent", verdict.inconsistent.len()),
    ];
    counts.into_iter().filter(|(_, n)| *n > 0).map(|(name, _)| name).collect()
}

#[test]
fn coherent_history_passes_and_states_its_coverage() {
    let verdict = coherent().judge(BOUND);
    assert_eq!(reds(&verdict), [""; 0], "{}", verdict.outcome());
    assert!(verdict.outcome().is_pass(), "{}", verdict.outcome());
    assert!(verdict.coverage().starts_with("9 of 9 reads judged (0 absent, 0 failed, 6 from copies)"), "{verdict:?}");
    assert_eq!((verdict.past_bound, verdict.untested.len()), (3, 0));
}

#[test]
fn a_history_gives_back_what_was_added() {
    let history = coherent();
    assert_eq!((history.writes().len(), history.reads().len()), (4, 9));
    let newest = |version: u64| history.reads().iter().filter(|read| read.seen == Some(version)).count();
    assert_eq!((newest(2), history.writes()[1].version), (4, 2));
}

#[test]
fn reads_that_could_have_shown_a_missed_own_write_or_a_step_back_are_counted() {
    let (before, mut more) = (coherent().judge(BOUND), coherent());
    more.read(Read::of("new", "k", 2, ms(300), ms(301)).by("a"));
    let own = more.clone().judge(BOUND);
    assert_eq!((own.own_reads, own.repeated), (before.own_reads + 1, before.repeated));
    more.read(Read::of("new", "k", 2, ms(310), ms(311)));
    let again = more.judge(BOUND);
    assert_eq!((again.own_reads, again.repeated), (own.own_reads, own.repeated + 1));
    let told = format!("{} of own writes, {} repeated", again.own_reads, again.repeated);
    assert!(again.coverage().ends_with(&told), "{}", again.coverage());
}

/// A violation to plant.
type Plant = fn(&mut CacheHistory);

#[test]
fn each_planted_violation_turns_exactly_its_verdict_red() {
    let plants: [(&str, Plant, &str); 10] = [
        (
            "stale",
            |h| h.read(Read::of("new", "k", 1, ms(156), ms(157))),
            "`new` read `k` at version 1, first 51 ms after version 2 by `a`",
        ),
        ("own write missed", |h| h.read(Read::of("new", "k", 1, ms(106), ms(107)).by("a")), "version 2"),
        ("backwards", |h| h.read(Read::of("b", "k", 1, ms(140), ms(141))), "`b` read `k` at version 1"),
        ("resurrected", |h| h.read(Read::of("b", "k", 1, ms(400), ms(401))), "295 ms after version 2"),
        ("phantom", |h| h.read(Read::of("b", "k", 9, ms(400), ms(401))), "which nobody had written"),
        ("phantom", |h| h.read(Read::of("new", "k", 2, ms(70), ms(71))), "at version 2 at +70 ms"),
        (
            "resurrected",
            |h| {
                h.write(Write::acknowledged("a", "k", 3, ms(500), ms(501)).deleting());
                h.read(Read::absent("b", "k", ms(510), ms(511)));
                h.read(Read::of("b", "k", 2, ms(600), ms(601)));
            },
            "its deletion (3)",
        ),
        (
            "stale",
            |h| {
                h.write(Write::acknowledged("a", "k", 3, ms(500), ms(501)).deleting());
                h.read(Read::of("b", "k", 2, ms(600), ms(601)));
            },
            "its deletion (3)",
        ),
        (
            "deaf",
            |h| {
                h.read(Read::of("mute", "k", 1, ms(60), ms(61)));
                h.read(Read::of("mute", "k", 1, ms(200), ms(201)));
            },
            "none of 2 invalidations reached `mute`",
        ),
        (
            "inconsistent",
            |h| h.write(Write::acknowledged("b", "k", 2, ms(900), ms(901))),
            "version 2 of `k` was written twice",
        ),
    ];
    for (verdict, plant, witness) in plants {
        let mut history = coherent();
        plant(&mut history);
        // `new` stands for an instance whose invalidations are no matter here.
        history.received("new", "k", 2, ms(121));
        let found = history.judge(BOUND);
        assert_eq!(reds(&found), [verdict], "planted {verdict}: {}", found.outcome());
        assert!(found.outcome().is_fail() && found.outcome().detail().contains(witness), "{}", found.outcome());
    }
}

#[test]
fn bound_is_exact() {
    // Version 2 was acknowledged at 105 ms: a read that began at 155 ms may be old, one that began later may not.
    for (began, stale) in [(155, 0), (156, 1)] {
        let mut history = coherent();
        history.received("new", "k", 2, ms(121));
        history.read(Read::of("new", "k", 1, ms(began), ms(300)));
        assert_eq!(history.judge(BOUND).stale.len(), stale, "at {began} ms");
    }
}

#[test]
fn writes_that_overlapped_or_were_never_answered_may_win_in_either_order() {
    let mut history = coherent();
    history.write(Write::acknowledged("a", "x", 1, ms(0), ms(10)));
    history.write(Write::acknowledged("b", "x", 2, ms(5), ms(8)));
    history.write(Write::unanswered("b", "x", 3, ms(6)));
    for (n, version) in [1, 2, 3, 1].into_iter().enumerate() {
        let at = ms(500 + 10 * n as u64);
        history.read(Read::of("c", "x", version, at, at + ms(1)));
    }
    assert!(history.judge(BOUND).outcome().is_pass(), "{}", history.judge(BOUND).outcome());
}

#[test]
fn lost_invalidation_is_named_beside_the_stale_read_it_caused() {
    let mut history = coherent();
    history.write(Write::acknowledged("a", "k", 3, ms(500), ms(505)));
    history.published("a", "k", 3, ms(505));
    history.received("b", "k", 3, ms(507));
    history.read(Read::of("c", "k", 2, ms(600), ms(601)));
    history.read(Read::of("c", "k", 2, ms(700), ms(701)));
    let verdict = history.judge(BOUND);
    assert_eq!(reds(&verdict), ["stale"]);
    let text = verdict.outcome().detail().to_owned();
    assert!(text.contains("read `k` at version 2 2 times") && text.contains("never reached `c`"), "{text}");
    assert!(verdict.every_invalidation_arrived().detail().contains("1 of 3 never reached `c`, first version 3 of `k`"));
}

#[test]
fn delays_of_invalidations_are_exact_samples() {
    let verdict = coherent().judge(BOUND);
    let b = verdict.arrivals.iter().find(|found| found.instance == "b").unwrap();
    assert_eq!((b.expected, b.max(), b.quantile(0.5)), (2, Some(ms(15)), Some(ms(15))));
    assert!(verdict.every_invalidation_arrived().is_pass());
    assert!(verdict.invalidation_below(ms(16)).is_pass() && verdict.invalidation_below(ms(15)).is_fail());
    let silent = CacheHistory::new().judge(BOUND);
    assert!(silent.every_invalidation_arrived().is_no_evidence() && silent.invalidation_below(ms(1)).is_no_evidence());
}

#[test]
fn missing_evidence_is_no_pass() {
    assert!(CacheHistory::new().judge(BOUND).outcome().is_no_evidence());
    // Everybody reads what it wrote itself.
    let mut alone = CacheHistory::new();
    alone.write(Write::acknowledged("a", "k", 1, ms(0), ms(1)));
    alone.read(Read::of("a", "k", 1, ms(500), ms(501)));
    assert!(alone.judge(BOUND).outcome().is_no_evidence());
    // There was never an older version that could have come.
    let mut first = CacheHistory::new();
    first.write(Write::acknowledged("a", "k", 1, ms(0), ms(1)));
    first.read(Read::of("b", "k", 1, ms(500), ms(501)));
    assert!(first.judge(BOUND).outcome().is_no_evidence());
    // Nobody reads later than the bound.
    let mut soon = CacheHistory::new();
    soon.write(Write::acknowledged("a", "k", 0, ms(0), ms(1)));
    soon.write(Write::acknowledged("a", "k", 1, ms(2), ms(3)));
    soon.read(Read::of("b", "k", 1, ms(20), ms(21)));
    assert!(soon.judge(BOUND).outcome().detail().contains("no read began later than 50 ms"));
    // One instance was never asked.
    let mut silent = coherent();
    silent.instance("d");
    assert!(silent.judge(BOUND).outcome().detail().contains("`d` was never read"));
    // Nothing came from a copy: a cache that is switched off.
    let mut off = CacheHistory::new();
    off.write(Write::acknowledged("a", "k", 0, ms(0), ms(1)));
    off.write(Write::acknowledged("a", "k", 1, ms(2), ms(3)));
    off.read(Read::of("b", "k", 1, ms(500), ms(501)).from_copy(false));
    assert!(off.judge(BOUND).outcome().detail().contains("none of 1 reads was answered from a copy"));
}

/// A small generator of numbers (xorshift), seeded, so that a failure repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Any history at all: overlapping writes, lost answers, deletions, reads of any version.
fn any_history(dice: &mut Dice, operations: u64) -> CacheHistory {
    let mut history = CacheHistory::new();
    let name = |n: u64| ["a", "b", "c"][n as usize];
    let key = |n: u64| ["k", "l"][n as usize];
    let mut written = Vec::new();
    for n in 0..operations {
        let (instance, key, at) = (name(dice.below(3)), key(dice.below(2)), ms(dice.below(400)));
        let took = ms(dice.below(20));
        match dice.below(4) {
            0 => {
                written.push(n);
                history.write(match dice.below(6) {
                    0 => Write::unanswered(instance, key, n, at),
                    1 => Write::acknowledged(instance, key, n, at, at + took).deleting(),
                    _ => Write::acknowledged(instance, key, n, at, at + took),
                });
            }
            _ if dice.below(8) == 0 => history.read(Read::absent(instance, key, at, at + took)),
            _ => {
                let version = written.get(dice.below(1 + written.len() as u64) as usize).copied().unwrap_or(n);
                history.read(Read::of(instance, key, version, at, at + took));
            }
        }
    }
    history
}

/// The definition, word by word, in quadratic time: how many reads each verdict is charged with.
fn by_definition(history: &CacheHistory) -> [usize; 5] {
    let mut counts = [0; 5];
    let newer = |write: &&Write, than: &Write| than.acknowledged.is_some_and(|end| write.invoked > end);
    let find = |key: &str, version| history.writes.iter().find(|write| write.key == key && write.version == version);
    for read in &history.reads {
        let Some(version) = read.seen else { continue };
        let same = || history.writes.iter().filter(|write| write.key == read.key && write.acknowledged.is_some());
        let Some(seen) = find(&read.key, version).filter(|write| write.invoked <= read.returned) else {
            counts[0] += 1;
            continue;
        };
        let everybody =
            same().any(|write| newer(&write, seen) && write.acknowledged.is_some_and(|at| at + BOUND < read.invoked));
        let session = same().any(|write| {
            newer(&write, seen)
                && write.session == read.session
                && write.acknowledged.is_some_and(|at| at < read.invoked)
        });
        let earlier = history
            .reads
            .iter()
            .filter(|other| other.instance == read.instance && other.key == read.key && other.returned < read.invoked);
        let instance = earlier.into_iter().any(|other| match other.seen {
            Some(version) => find(&read.key, version).is_some_and(|write| newer(&write, seen)),
            None => {
                let deleted = same().filter(|write| write.is_deletion);
                deleted.filter(|write| write.acknowledged.is_some_and(|at| at < other.invoked)).any(|w| newer(&w, seen))
            }
        });
        match (instance, session, everybody) {
            (true, _, true) => counts[1] += 1,
            (true, _, false) => counts[2] += 1,
            (false, true, _) => counts[3] += 1,
            (false, false, true) => counts[4] += 1,
            (false, false, false) => {}
        }
    }
    counts
}

#[test]
fn agrees_with_the_definition_on_random_histories() {
    let mut seen = [0; 5];
    for seed in 1..=400_u64 {
        let history = any_history(&mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 60);
        let verdict = history.judge(BOUND);
        let lists =
            [&verdict.phantom, &verdict.resurrected, &verdict.backwards, &verdict.own_write_missed, &verdict.stale];
        let counts = lists.map(|list| list.iter().map(|offence| offence.times).sum::<usize>());
        assert_eq!(counts, by_definition(&history), "seed {seed}");
        seen.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }
    assert!(seen.iter().all(|n| *n > 100), "every verdict was met often: {seen:?}");
}

/// A register that every instance reads as it is: writes take effect at a moment within their interval.
fn linearizable(dice: &mut Dice, operations: u64) -> CacheHistory {
    let mut history = CacheHistory::new();
    let mut now = 1_000_u64;
    let mut effective = [0_u64; 8];
    for key in 0..8 {
        history.write(Write::acknowledged("a", &format!("k{key}"), 0, Duration::ZERO, ms(1)));
    }
    for n in 1..=operations {
        let (before, after, key) = (dice.below(5), dice.below(5), dice.below(8));
        now += 1 + dice.below(30);
        let (instance, name) = (["a", "b", "c"][dice.below(3) as usize], format!("k{key}"));
        let (invoked, answered) = (ms(now - before), ms(now + after));
        if dice.below(5) == 0 {
            effective[key as usize] = n;
            history.write(Write::acknowledged(instance, &name, n, invoked, answered));
        } else {
            history.read(Read::of(instance, &name, effective[key as usize], invoked, answered));
        }
    }
    history
}

#[test]
fn a_linearizable_register_is_never_accused() {
    for seed in 1..=200_u64 {
        let history = linearizable(&mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 400);
        let outcome = history.judge(BOUND).outcome();
        assert!(outcome.is_pass(), "seed {seed}: {outcome}");
        assert!(history.judge(Duration::ZERO).outcome().is_pass(), "seed {seed}, also without a bound");
    }
}

#[test]
fn a_hundred_thousand_operations_cost_about_ten_times_ten_thousand() {
    let judge = |operations| {
        let history = linearizable(&mut Dice(42), operations);
        let begun = std::time::Instant::now();
        let verdict = history.judge(BOUND);
        assert!(verdict.outcome().is_pass());
        begun.elapsed()
    };
    let ratio =
        (0..5).map(|_| judge(100_000).as_secs_f64() / judge(10_000).as_secs_f64()).fold(f64::INFINITY, f64::min);
    assert!(ratio < 40.0, "quadratic would be 100 times; this is {ratio:.1}");
    eprintln!("100,000 operations: {:?}", judge(100_000));
}

#[test]
fn times_are_shown_as_short_as_they_can_be() {
    let us = Duration::from_micros;
    let shown = [us(0), us(250), us(999), us(1_000), us(1_500), us(20_000)].map(super::verdict::millis);
    assert_eq!(shown, ["0 ms", "0.250 ms", "0.999 ms", "1 ms", "1.5 ms", "20 ms"]);
}
