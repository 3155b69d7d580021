//! The register judge against the definition, and what it says.

use super::zones::{Clusters, refute};
use super::{Call, Effect, Register, Reply, Span, search_key};
use crate::history::linear::Linearity;
use crate::history::{Budget, End, History};

/// A generator of numbers below a bound.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |bound| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    }
}

#[test]
fn zones_and_search_agree_on_random_histories() {
    let mut draw = numbers(11);
    let mut refuted = 0;
    for round in 0..20_000 {
        let mut order: Vec<u64> = (1..15).collect();
        // Nearly sequential, so that both verdicts occur.
        for n in 0..13 {
            let with = (n + draw(4) as usize).min(13);
            order.swap(n, with);
        }
        let mut written = 0;
        // Values that lie close together, and values that do not.
        let apart = if round % 2 == 0 { 1 } else { 1 << 40 };
        let spans: Vec<Span> = order
            .chunks(2)
            .map(|pair| {
                let kind = match draw(2) {
                    0 => {
                        written += 1;
                        Effect::Write(written * apart)
                    }
                    _ => Effect::Read(Some(draw(4) as i64 * apart).filter(|value| *value > 0)),
                };
                let is_unknown = matches!(kind, Effect::Write(_)) && draw(6) == 0;
                let ended = if is_unknown { u64::MAX } else { pair[0].max(pair[1]) };
                Span { operation: 0, invoked: pair[0].min(pair[1]), ended, kind }
            })
            .collect();
        let writes = Clusters::of(&spans).expect("each value is written once");
        let fast = refute(&spans, writes).is_some();
        let slow = matches!(search_key(&spans, &Budget::default()), Linearity::Refuted { .. });
        assert_eq!(fast, slow, "round {round}: {spans:?}");
        refuted += usize::from(slow);
    }
    assert!((2_000..18_000).contains(&refuted), "{refuted} of 20,000: one side is hardly tried");
}

#[test]
fn clusters_are_of_unique_writes_only_whatever_the_values() {
    let spans = |kinds: &[Effect]| -> Vec<Span> {
        let span = |(n, kind): (usize, &Effect)| Span {
            operation: n,
            invoked: 2 * n as u64 + 1,
            ended: 2 * n as u64 + 2,
            kind: *kind,
        };
        kinds.iter().enumerate().map(span).collect()
    };
    let refuted = |kinds: &[Effect]| Clusters::of(&spans(kinds)).map(|writes| refute(&spans(kinds), writes));
    let (write, read) = (Effect::Write, |value| Effect::Read(Some(value)));
    for (least, most) in [(1, 2), (i64::MIN, i64::MAX), (-5, 1 << 50), (i64::MAX - 1, i64::MAX)] {
        assert_eq!(refuted(&[write(least), read(least), write(most), read(most)]), Some(None), "{least} {most}");
        assert_eq!(refuted(&[write(most), write(least), read(most)]), Some(Some(vec![0, 1, 2])), "{least} {most}");
        assert_eq!(refuted(&[write(least), write(most), write(least)]), None, "{least} twice");
        assert_eq!(refuted(&[write(least), Effect::CompareAndSet(least, most)]), None);
        for stranger in [0, least.wrapping_sub(1), most.wrapping_add(1), least / 2 + most / 2]
            .into_iter()
            .filter(|n| ![least, most].contains(n))
        {
            assert_eq!(refuted(&[write(least), write(most), read(stranger)]), Some(Some(vec![2])), "{stranger}");
        }
    }
    assert_eq!(refuted(&[Effect::Read(None)]), Some(None));
}

fn sequence(calls: &[(Call, End<Reply>)]) -> History<Register> {
    let mut history = History::new();
    for (n, (call, end)) in calls.iter().enumerate() {
        history.call(n as u64, call.clone(), end.clone()).unwrap();
    }
    history
}

fn write(value: i64) -> (Call, End<Reply>) {
    (Call::write("x", value), End::Ok(Reply::Done))
}

fn read(value: i64) -> (Call, End<Reply>) {
    (Call::read("x"), End::Ok(Reply::Value(Some(value))))
}

#[test]
fn stale_phantom_refused_and_lost_values_are_violations() {
    let judge = |calls: &[(Call, End<Reply>)]| sequence(calls).judge(&Budget::default()).outcome();
    assert!(judge(&[write(1), read(1), write(2), read(2)]).is_pass());
    assert!(judge(&[write(1), (Call::write("x", 2), End::Info), read(1), read(2)]).is_pass());
    assert!(judge(&[write(1), write(2), read(1)]).is_fail(), "stale");
    assert!(judge(&[write(1), read(7)]).is_fail(), "phantom");
    assert!(judge(&[write(1), (Call::write("x", 2), End::Fail), read(2)]).is_fail(), "refused");
    assert!(judge(&[write(1), (Call::read("x"), End::Ok(Reply::Value(None))), read(1)]).is_fail(), "lost");
    assert!(judge(&[write(1), (Call::write("x", 2), End::Info), read(2), read(1)]).is_fail(), "back again");
}

#[test]
fn compare_and_set_and_repeated_values_are_searched() {
    let swap = |old, new, end| (Call::CompareAndSet("x".into(), old, new), end);
    let judge = |calls: &[(Call, End<Reply>)]| sequence(calls).judge(&Budget::default());
    let good = judge(&[write(1), swap(1, 2, End::Ok(Reply::Done)), read(2), write(1), read(1)]);
    assert!(good.outcome().is_pass() && good.without_search == 0);
    let bad = judge(&[write(1), swap(3, 2, End::Ok(Reply::Done)), read(2)]);
    assert!(bad.outcome().is_fail());
    assert!(judge(&[write(1), swap(1, 2, End::Info), read(1), read(2)]).outcome().is_pass());
    assert!(judge(&[write(1), swap(1, 2, End::Fail), read(2)]).outcome().is_fail());
}

#[test]
fn witness_names_the_operations_that_contradict() {
    let verdict = sequence(&[write(1), write(2), read(1)]).judge(&Budget::default());
    assert_eq!(
        verdict.outcome().detail(),
        "1 not linearizable: x by #0 process 0: write [\"x\",1] (ok), #2 process 1: write [\"x\",2] (ok), \
         #4 process 2: read [\"x\",1] (ok)"
    );
}

#[test]
fn nothing_read_and_nothing_decided_are_no_evidence() {
    assert!(History::<Register>::new().judge(&Budget::default()).outcome().is_no_evidence());
    assert!(sequence(&[write(1), write(2)]).judge(&Budget::default()).outcome().is_no_evidence());
    let searched = sequence(&[write(1), write(1), read(1)]);
    let outcome = searched.judge(&Budget::default().states(1)).outcome();
    assert_eq!(outcome.detail(), "1 of 1 keys undecided, first x after 1 states");
    assert!(outcome.is_no_evidence());
}

#[test]
fn the_verdict_is_the_same_in_any_number_of_threads() {
    let mut draw = numbers(5);
    let (mut violated, mut searched) = (0, 0);
    for round in 0..300 {
        let mut history = History::<Register>::new();
        let mut stores = [[None; 2]; 7];
        for n in 0..60 {
            let key = draw(7) as usize;
            // One key writes values again, so that it has to be searched.
            let value = if key == 6 { draw(3) as i64 } else { n };
            let (call, end) = match draw(3) {
                0 => {
                    stores[key] = [Some(value), stores[key][0]];
                    (Call::write(key as i64, value), End::Ok(Reply::Done))
                }
                // Now and then what was there before.
                _ => (Call::read(key as i64), End::Ok(Reply::Value(stores[key][usize::from(draw(40) == 0)]))),
            };
            history.call(draw(3), call, end).unwrap();
        }
        let one = history.judge_in(1, &Budget::default());
        for threads in [2, 3, 8, 100] {
            assert_eq!(history.judge_in(threads, &Budget::default()), one, "round {round} in {threads}");
        }
        assert_eq!(history.judge(&Budget::default()), one);
        violated += usize::from(!one.violations.is_empty());
        searched += usize::from(one.without_search < one.keys);
    }
    assert!((30..270).contains(&violated) && searched > 100, "{violated} violated, {searched} searched, of 300");
    let empty = History::<Register>::new();
    assert_eq!(empty.judge_in(4, &Budget::default()), empty.judge_in(1, &Budget::default()));
}

#[test]
fn long_histories_are_worth_a_thread_for_each_core() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(
        (super::keys::threads(0), super::keys::threads(99_999), super::keys::threads(100_000)),
        (1, 1, cores.min(2))
    );
    assert_eq!(super::keys::threads(usize::MAX), cores);
}

#[test]
fn only_what_was_done_for_certain_is_counted() {
    let mut history = History::<Register>::new();
    history.call(0, Call::write("a", 1), End::Ok(Reply::Done)).unwrap();
    history.call(1, Call::write("a", 2), End::Info).unwrap();
    history.call(2, Call::write("a", 3), End::Fail).unwrap();
    history.call(3, Call::read("a"), End::Ok(Reply::Value(Some(1)))).unwrap();
    history.call(4, Call::read("b"), End::Ok(Reply::Value(None))).unwrap();
    history.call(5, Call::write("c", 1), End::Fail).unwrap();
    let verdict = history.judge(&Budget::default());
    assert_eq!((verdict.keys, verdict.operations, verdict.readings), (2, 3, 1), "{verdict:?}");
}
