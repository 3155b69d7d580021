//! One clean failover, and the same with one defect planted: exactly its check turns red.

use std::time::Duration;

use super::{Answer, FailoverLimits, FailoverTimeline, FailoverVerdict, Reading, Write};

const FAULT_MS: u64 = 1_000;
const PROMOTED_MS: u64 = 1_600;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn limits() -> FailoverLimits {
    FailoverLimits { promotion: ms(2_000), clients_back: ms(3_000), lost_writes: 0 }
}

/// A small generator (SplitMix64), so that each seed is another but always the same history.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Four clients write to `old` until the fault, fail, and write to `new` after its promotion. Everything acknowledged is
/// there, and some of the unanswered too.
fn clean(seed: u64) -> FailoverTimeline {
    let mut state = seed;
    let mut timeline = FailoverTimeline::new("old");
    let mut there = Vec::new();
    for client in 0..4 {
        let mut at = next(&mut state) % 20;
        while at < 4_000 {
            let took = 1 + next(&mut state) % 5;
            let id = format!("c{client}-{at}");
            let (node, answer) = match at {
                at if at + took < FAULT_MS => ("old", Answer::Acknowledged),
                at if at < FAULT_MS + 50 => ("old", Answer::Unknown),
                at if at <= PROMOTED_MS => ("old", Answer::Refused),
                _ => ("new", Answer::Acknowledged),
            };
            if answer == Answer::Acknowledged || answer == Answer::Unknown && next(&mut state).is_multiple_of(2) {
                there.push(id.clone());
            }
            let write = Write::new(id, format!("key{}", at % 3), client, node);
            timeline.writes.push(write.invoked(ms(at)).answered(ms(at + took), answer));
            at += took + next(&mut state) % 20;
        }
    }
    timeline.fault = Some(ms(FAULT_MS));
    timeline.promoted("new", ms(PROMOTED_MS));
    timeline.returned = Some(ms(3_500));
    timeline.reads = vec![Reading::new("new", there.clone()), Reading::new("old", there)];
    timeline
}

fn red(verdict: &FailoverVerdict) -> Vec<&'static str> {
    verdict.checks().iter().filter(|(_, outcome)| outcome.is_fail()).map(|(name, _)| *name).collect()
}

fn blind(verdict: &FailoverVerdict) -> Vec<&'static str> {
    verdict.checks().iter().filter(|(_, outcome)| outcome.is_no_evidence()).map(|(name, _)| *name).collect()
}

/// Judges a hundred histories, each with the same kind of defect planted.
fn always_red(expected: &[&str], plant: impl Fn(&mut FailoverTimeline, u64)) -> FailoverVerdict {
    let mut last = None;
    for seed in 0..100 {
        let mut timeline = clean(seed);
        plant(&mut timeline, seed);
        let verdict = timeline.judge(&limits());
        assert_eq!(red(&verdict), expected, "seed {seed}:\n{verdict}");
        last = Some(verdict);
    }
    last.unwrap()
}

#[test]
fn clean_failovers_pass_every_check() {
    let verdict = always_red(&[], |_, _| {});
    assert!(verdict.outcome().is_pass(), "{verdict}");
    assert_eq!(verdict.promotion.as_ref().unwrap().at, ms(PROMOTED_MS - FAULT_MS));
    let silence = verdict.downtime.unwrap();
    assert!(silence >= ms(600) && silence < ms(700), "{silence:?}");
    assert!(verdict.first_success.unwrap() >= ms(600));
}

#[test]
fn lost_acknowledged_writes_are_named_with_their_window() {
    let verdict = always_red(&["no loss"], |timeline, seed| {
        // Acknowledged before the fault and not replicated: the last ones of the old primary.
        let old = |write: &&Write| write.node == "old" && write.answer == Answer::Acknowledged;
        let mut last: Vec<Write> = timeline.writes.iter().filter(old).cloned().collect();
        last.sort_by_key(|write| write.answered);
        let lost: Vec<String> = last.iter().rev().take(1 + (seed % 7) as usize).map(|write| write.id.clone()).collect();
        timeline.reads.iter_mut().for_each(|reading| reading.ids.retain(|id| !lost.contains(id)));
    });
    let lost = verdict.lost.as_ref().unwrap();
    assert_eq!(lost.ids.len(), 2);
    assert!(lost.from_us <= lost.to_us && lost.to_us < 0 && verdict.is_data_loss());
    assert!(verdict.no_loss().detail().starts_with("2 acknowledged writes lost, acknowledged -"), "{verdict}");
}

#[test]
fn tolerated_loss_is_degraded_and_not_a_pass() {
    let mut timeline = clean(1);
    let id = timeline.writes[0].id.clone();
    timeline.reads.iter_mut().for_each(|reading| reading.ids.retain(|known| *known != id));
    let tolerant = FailoverLimits { lost_writes: 1, ..limits() };
    let outcome = timeline.judge(&tolerant).no_loss();
    assert_eq!(outcome.word(), "degraded", "{outcome}");
}

#[test]
fn old_primary_that_goes_on_is_a_split_brain_even_when_nothing_is_lost() {
    let verdict = always_red(&["one primary"], |timeline, _| {
        let stale = Write::new("stale", "key0", 0, "old").invoked(ms(2_000));
        timeline.writes.push(stale.answered(ms(2_001), Answer::Acknowledged));
        timeline.reads.iter_mut().for_each(|reading| reading.ids.push("stale".to_owned()));
    });
    assert_eq!((verdict.split.len(), verdict.split[0].vanished.len()), (1, 0));
    assert!(verdict.split[0].by_primary > 0);
}

#[test]
fn split_brain_whose_writes_vanish_is_a_loss_too() {
    let verdict = always_red(&["no loss", "one primary"], |timeline, _| {
        let stale = Write::new("stale", "key0", 0, "old").invoked(ms(2_000));
        timeline.writes.push(stale.answered(ms(2_001), Answer::Acknowledged));
    });
    assert_eq!(verdict.split[0].vanished, ["stale"]);
    assert!(verdict.one_primary().detail().contains("old acknowledged 1 writes after new was primary"), "{verdict}");
}

#[test]
fn a_promotion_nobody_saw_is_known_by_what_the_node_acknowledged() {
    let mut timeline = clean(3);
    timeline.promotions.clear();
    timeline
        .writes
        .push(Write::new("stale", "key0", 0, "old").invoked(ms(3_000)).answered(ms(3_001), Answer::Acknowledged));
    timeline.reads.iter_mut().for_each(|reading| reading.ids.push("stale".to_owned()));
    assert_eq!(red(&timeline.judge(&limits())), ["one primary"]);
}

#[test]
fn a_write_that_left_before_the_promotion_is_no_split_brain() {
    let mut timeline = clean(4);
    let slow = Write::new("slow", "key0", 0, "old").invoked(ms(PROMOTED_MS - 1));
    timeline.writes.push(slow.answered(ms(PROMOTED_MS + 5), Answer::Acknowledged));
    timeline.reads.iter_mut().for_each(|reading| reading.ids.push("slow".to_owned()));
    assert!(timeline.judge(&limits()).one_primary().is_pass());
}

#[test]
fn writes_on_their_way_while_the_promotion_is_first_seen_are_no_split_brain() {
    // Several clients reach the new primary at once, before anybody noted that it is one.
    let verdict = always_red(&[], |timeline, _| {
        for client in 0..4 {
            let early = Write::new(format!("early{client}"), "key0", client, "new");
            let early = early
                .invoked(ms(PROMOTED_MS - 100))
                .answered(ms(PROMOTED_MS - 90 + client as u64), Answer::Acknowledged);
            timeline.writes.push(early);
            timeline.reads.iter_mut().for_each(|reading| reading.ids.push(format!("early{client}")));
        }
    });
    assert_eq!(verdict.promotion.unwrap().at, ms(PROMOTED_MS - 90 - FAULT_MS));
}

#[test]
fn primary_that_is_promoted_again_may_go_on() {
    let mut timeline = clean(5);
    timeline.promoted("old", ms(4_100));
    timeline
        .writes
        .push(Write::new("back", "key0", 0, "old").invoked(ms(4_200)).answered(ms(4_201), Answer::Acknowledged));
    timeline.reads.iter_mut().for_each(|reading| reading.ids.push("back".to_owned()));
    assert_eq!(red(&timeline.judge(&limits())), [""; 0]);
}

#[test]
fn late_and_lost_clients_are_named() {
    let late = always_red(&["clients back"], |timeline, _| {
        let early = |write: &Write| write.client == 2 && write.invoked >= ms(FAULT_MS) && write.node == "new";
        for write in timeline.writes.iter_mut().filter(|write| early(write)) {
            write.answer = Answer::Unknown;
        }
        let back = Write::new("late", "key1", 2, "new").invoked(ms(9_000)).answered(ms(9_001), Answer::Acknowledged);
        timeline.writes.push(back);
        timeline.reads.iter_mut().for_each(|reading| reading.ids.push("late".to_owned()));
    });
    assert!(late.clients_back().detail().contains("client 2 after 8.00 s"), "{late}");
    let never = always_red(&["clients back"], |timeline, _| {
        for write in timeline.writes.iter_mut().filter(|write| write.client == 1 && write.invoked >= ms(FAULT_MS)) {
            write.answer = Answer::Unknown;
        }
    });
    assert!(never.clients_back().detail().contains("client 1 never"), "{never}");
}

#[test]
fn slow_promotion_fails_its_limit_alone() {
    let strict = FailoverLimits { promotion: ms(500), ..limits() };
    let verdict = clean(6).judge(&strict);
    assert_eq!(red(&verdict), ["promoted"]);
    assert!(verdict.promoted().detail().contains("600 ms after the fault, 500 ms are allowed"), "{verdict}");
}

#[test]
fn without_a_new_primary_the_system_is_unavailable_and_nothing_passes() {
    let mut timeline = clean(7);
    timeline.promotions.clear();
    timeline.reads.clear();
    for write in timeline.writes.iter_mut().filter(|write| write.node == "new") {
        (write.node, write.answer) = ("old".to_owned(), Answer::Refused);
    }
    let verdict = timeline.judge(&limits());
    assert_eq!(red(&verdict), ["promoted", "clients back"]);
    assert!(verdict.promoted().detail().starts_with("unavailable: nobody was promoted; 0 of"), "{verdict}");
    assert_eq!(blind(&verdict), ["no loss", "one primary", "converged"]);
    assert_eq!(verdict.downtime, None);
}

#[test]
fn nodes_that_disagree_are_named() {
    let verdict = always_red(&["converged"], |timeline, _| {
        timeline.reads[1].ids.pop();
        timeline.reads[1].ids.push("ghost".to_owned());
    });
    assert_eq!(verdict.diverged, [("old".to_owned(), 1, 1)]);
}

#[test]
fn duplicates_and_strangers_are_damage() {
    always_red(&["no loss"], |timeline, _| {
        timeline.reads.iter_mut().for_each(|reading| reading.ids.push("nobody-wrote-this".to_owned()));
    });
    always_red(&["no loss"], |timeline, _| {
        let id = timeline.reads[0].ids[0].clone();
        timeline.reads.iter_mut().for_each(|reading| reading.ids.push(id.clone()));
    });
}

#[test]
fn no_fault_no_bite_no_writes_and_no_reads_are_no_evidence() {
    let mut none = clean(8);
    none.fault = None;
    assert_eq!(blind(&none.judge(&limits()))[0], "fault bit");
    assert!(!none.judge(&limits()).outcome().is_pass());

    let mut unhurt = FailoverTimeline::new("old");
    for at in 0..20 {
        let write = Write::new(format!("w{at}"), "k", 0, "old").invoked(ms(at));
        unhurt.writes.push(write.answered(ms(at), Answer::Acknowledged));
    }
    unhurt.reads = vec![Reading::new("old", unhurt.writes.iter().map(|write| write.id.clone()))];
    unhurt.fault = Some(ms(10));
    let verdict = unhurt.judge(&limits());
    assert!(verdict.fault_bit().detail().contains("did not bite: all 10 writes"), "{verdict}");
    assert!(verdict.outcome().is_no_evidence(), "{verdict}");

    let mut late = clean(9);
    late.writes.retain(|write| write.invoked >= ms(FAULT_MS));
    assert!(late.judge(&limits()).fault_bit().detail().contains("before the fault"));
    let mut unread = clean(10);
    unread.reads.clear();
    assert_eq!(blind(&unread.judge(&limits())), ["no loss", "converged"]);
    assert!(FailoverTimeline::new("x").judge(&limits()).outcome().is_no_evidence());
}

#[test]
fn every_question_is_shown_on_a_line_with_its_answer() {
    let verdict = clean(1).judge(&limits());
    let text = verdict.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), verdict.checks().len(), "{text}");
    for ((name, outcome), line) in verdict.checks().iter().zip(lines) {
        assert!(line.starts_with(name) && line.ends_with(&outcome.to_string()), "{line}");
    }
}

#[test]
fn times_before_the_other_are_negative() {
    assert_eq!(
        [super::after_us(ms(5), ms(2)), super::after_us(ms(2), ms(5)), super::after_us(ms(2), ms(2))],
        [3_000, -3_000, 0]
    );
}
