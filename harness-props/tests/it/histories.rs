//! The kill matrix of the transaction judge: every class planted in clean histories is found as what it is, and clean
//! histories pass at their own level.

use std::collections::BTreeSet;

use harness_props::history::transactions::{
    Anomaly, Class, Isolation, Level, ListAppend, Order, RwRegister, TransactionsVerdict,
};
use harness_props::history::{Budget, History};

use crate::rounds;
use crate::simulated::{Defect, Load, Stored, clean, history, list_defects, planted, register_defects};

/// Transactions of a history: a fifth in the normal run.
fn size() -> usize {
    if rounds(0) > 0 { 1_000 } else { 200 }
}

fn check<K: Stored>(
    defects: &[Defect<K>],
    judge: impl Fn(&History<K>, Isolation) -> TransactionsVerdict,
) -> BTreeSet<Class> {
    let mut classes = BTreeSet::new();
    for (n, defect) in defects.iter().enumerate() {
        for seed in 0..rounds(5) {
            let seed = seed * 1_000 + n as u64;
            let history = planted(defect, Load::of(size()), seed).expect("legal");
            let verdict = judge(&history, Isolation::new(Level::Serializable, defect.order));
            let found: BTreeSet<Anomaly> = verdict.found.iter().map(|finding| finding.anomaly).collect();
            let expected: BTreeSet<Anomaly> =
                defect.found.iter().map(|class| Anomaly { class: *class, order: defect.order }).collect();
            assert_eq!(found, expected, "{} with seed {seed}: {}", defect.name, verdict.outcome());
            assert!(verdict.outcome().is_fail(), "{} with seed {seed}", defect.name);
            // The same history is fine where the class is allowed: it is this class that turned it red.
            let lenient = match defect.order {
                Order::Free => defect.found.iter().map(|class| class.forbidden_from()).min().and_then(below),
                _ => Some(Level::Serializable),
            };
            if let Some(level) = lenient {
                let outcome = judge(&history, level.into()).outcome();
                assert!(outcome.is_pass(), "{} at {level:?} with seed {seed}: {outcome}", defect.name);
            }
            classes.extend(defect.found);
        }
    }
    classes
}

fn below(level: Level) -> Option<Level> {
    match level {
        Level::ReadUncommitted => None,
        Level::ReadCommitted => Some(Level::ReadUncommitted),
        Level::SnapshotIsolation => Some(Level::ReadCommitted),
        Level::Serializable => Some(Level::SnapshotIsolation),
    }
}

#[test]
fn every_planted_anomaly_is_found_as_what_it_is() {
    let mut classes = check::<ListAppend>(&list_defects(), |history, isolation| history.judge(isolation));
    classes.extend(check::<RwRegister>(&register_defects(), |history, isolation| history.judge(isolation)));
    println!(
        "figure: {} classes of anomalies, each planted with {} seeds and found as what it is",
        classes.len(),
        rounds(5)
    );
    assert_eq!(classes.len(), 16, "a class is planted by nobody: {classes:?}");
}

#[test]
fn clean_histories_pass_at_their_own_level() {
    let levels = [Level::Serializable, Level::SnapshotIsolation, Level::ReadCommitted];
    // A store's level is told from the next one by what its histories show there.
    let mut seen_above = [0_u64; 3];
    let rounds = rounds(5) * 20;
    for seed in 0..rounds {
        let at = (seed % 3) as usize;
        let own = Isolation::new(levels[at], Order::RealTime);
        let load = Load::of(100);
        let lists = history(clean::<ListAppend>(levels[at], load, seed)).expect("legal");
        let outcome = lists.judge(own).outcome();
        assert!(outcome.is_pass(), "lists with seed {seed}: {outcome}");
        let registers = history(clean::<RwRegister>(levels[at], load, seed)).expect("legal");
        let outcome = registers.judge(own).outcome();
        assert!(outcome.is_pass(), "registers with seed {seed}: {outcome}");
        let above = if at == 2 { Level::SnapshotIsolation } else { Level::Serializable };
        seen_above[at] += u64::from(lists.judge(above).outcome().is_fail());
    }
    println!("figure: {rounds} clean histories of lists and as many of registers, none accused at their own level");
    assert_eq!(seen_above[0], 0);
    assert!(seen_above[1] * 6 > rounds && seen_above[2] * 4 > rounds, "the stores hardly differ: {seen_above:?}");
}

#[test]
fn past_its_bytes_the_judge_says_what_it_looked_at_and_never_passes() {
    let load = Load::of(400);
    let strict = Isolation::new(Level::Serializable, Order::RealTime);
    let lists = history(clean::<ListAppend>(Level::Serializable, load, 7)).expect("legal");
    let within =
        |history: &History<ListAppend>, bytes: usize| history.judge_within(strict, &Budget::default().bytes(bytes));
    let all = within(&lists, 64 << 20);
    assert!(all.outcome().is_pass(), "{}", all.outcome());
    let nothing = within(&lists, 1_000);
    assert!(nothing.outcome().is_no_evidence() && nothing.dependencies == [0; 3]);
    assert!(nothing.outcome().detail().ends_with("nothing was looked at"), "{}", nothing.outcome());
    // Somewhere in between the readings fit and the graph does not.
    let least = |history: &History<ListAppend>| {
        (1..4_000).map(|kib| kib << 10).find(|bytes| within(history, *bytes).dependencies != [0; 3]).expect("some fits")
    };
    let half = within(&lists, least(&lists));
    assert_eq!(half.dependencies, all.dependencies);
    assert!(half.outcome().is_no_evidence(), "{}", half.outcome());
    assert!(half.outcome().detail().ends_with("cycles of dependencies were not"), "{}", half.outcome());

    // What a reading alone shows is found all the same.
    let dirty = list_defects().into_iter().find(|defect| defect.found == [Class::G1a]).expect("planted");
    let planted = planted(&dirty, load, 8).expect("legal");
    let verdict = within(&planted, least(&planted));
    assert!(verdict.stopped.is_some() && verdict.has(Class::G1a), "{}", verdict.outcome());
    assert!(verdict.outcome().is_fail(), "{}", verdict.outcome());
}

#[test]
fn witness_of_a_register_says_what_was_read_and_what_had_been_written() {
    let defects = register_defects();
    let defect = defects.iter().find(|defect| defect.name == "internal").expect("planted");
    let history = planted(defect, Load::of(50), 1).expect("legal");
    let said = history.judge(Isolation::new(Level::Serializable, defect.order)).outcome().to_string();
    let (read, written) = said.split_once(" after it had written ").unwrap_or_else(|| panic!("{said}"));
    assert!(read.ends_with(" as nothing"), "{said}");
    assert!(written.starts_with(|first: char| first.is_ascii_digit()), "{said}");
}
