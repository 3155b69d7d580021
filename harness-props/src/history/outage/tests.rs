//! One good outage, and a defect for each question.

use std::time::Duration;

use super::{Call, Contract, OutageRules, OutageTimeline, OutageVerdict, Reply, Steady};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Broken from 1 s to 2 s; `put` fails until 2.3 s, `get` never; backlog rises and is drained at 2.5 s.
fn outage() -> OutageTimeline {
    let mut timeline = OutageTimeline {
        fault: Some(ms(1_000)),
        healing: Some(ms(2_000)),
        healed: Some(ms(2_010)),
        bites: 3,
        ended: ms(4_000),
        ..OutageTimeline::default()
    };
    for n in 0..400 {
        let due = ms(n * 10);
        let is_down = n % 2 == 0 && due >= ms(1_000) && due < ms(2_300);
        let reply = if is_down { Reply::error("503") } else { Reply::Ok };
        timeline.calls.push(Call::new(if n % 2 == 0 { "put" } else { "get" }, due, due + ms(3), reply));
        let waiting = if due < ms(1_000) || due >= ms(2_500) { 2 } else { 50 };
        timeline.backlog.push((due, waiting));
    }
    timeline
}

fn rules() -> OutageRules {
    OutageRules::new(Steady::new(ms(500), 99).within(ms(100)))
        .while_broken(Contract::within(ms(50)).errors(["503"]).still("get"))
        .recovers_within(ms(400))
}

fn judge(change: impl FnOnce(&mut OutageTimeline)) -> OutageVerdict {
    let mut timeline = outage();
    change(&mut timeline);
    timeline.judge(&rules())
}

/// Which questions were not answered with a pass, and how.
fn red(verdict: &OutageVerdict) -> Vec<(&'static str, &'static str)> {
    let OutageVerdict { before, bit, during, after, drained, .. } = verdict;
    [("before", before), ("bit", bit), ("during", during), ("after", after), ("drained", drained)]
        .into_iter()
        .filter(|(_, outcome)| !outcome.is_pass())
        .map(|(name, outcome)| (name, outcome.word()))
        .collect()
}

#[test]
fn figures_of_a_good_outage_are_exact() {
    let verdict = judge(|_| {});
    assert!(verdict.outcome().is_pass(), "{verdict:?}");
    let figures = verdict.figures;
    assert_eq!((figures.detect, figures.downtime), (Some(ms(3)), ms(1_300)));
    assert_eq!((figures.first_success, figures.steady), (Some(ms(293)), Some(ms(280))));
    assert_eq!((figures.failed, figures.hung, figures.backlog, figures.drained), (65, 0, 50, Some(ms(490))));
}

#[test]
fn a_steady_time_has_to_be_watched_to_its_end() {
    let steady = |ended: Duration| judge(|timeline| timeline.ended = ended).figures.steady;
    // It begins at 2,290 ms, and a window has 500.
    assert_eq!(steady(ms(2_790)), Some(ms(280)));
    assert_eq!((steady(ms(2_790) - Duration::from_nanos(1)), steady(ms(2_700))), (None, None));
}

#[test]
fn a_backlog_read_in_the_moment_of_healing_is_one_read_after_it() {
    let drained = |readings: usize| judge(|timeline| timeline.backlog.truncate(readings)).drained;
    assert!(drained(201).is_no_evidence(), "the last one at 2,000 ms");
    assert!(drained(202).is_fail(), "at 2,010 ms, when it was healed, 50 are waiting");
}

#[test]
fn each_defect_turns_exactly_its_question_red() {
    type Defect = Box<dyn FnOnce(&mut OutageTimeline)>;
    let at = |ms: u64| (ms / 10) as usize;
    let change = |n: usize, change: fn(&mut Call)| -> Defect { Box::new(move |t| change(&mut t.calls[n])) };
    let hang: fn(&mut Call) = |call| call.reply = Reply::Hung;
    let slow: fn(&mut Call) = |call| call.ended = call.due + Duration::from_millis(51);
    let other: fn(&mut Call) = |call| call.reply = Reply::error("500");
    let cases: Vec<(&str, Defect, &str, &str)> = vec![
        (
            "unsteady before",
            Box::new(move |t| (50..60).for_each(|n| t.calls[n].reply = Reply::Hung)),
            "before",
            "no evidence",
        ),
        ("fault never bit", Box::new(|t| t.bites = 0), "bit", "no evidence"),
        ("hangs while broken", change(at(1_500), hang), "during", "fail"),
        ("slow while broken", change(at(1_500), slow), "during", "fail"),
        ("undeclared error", change(at(1_500), other), "during", "fail"),
        ("what should answer does not", change(at(1_510), |call| call.reply = Reply::error("503")), "during", "fail"),
        (
            "what should answer is not asked",
            Box::new(|t| t.calls.retain(|c| c.operation == "put" || c.due < ms(1_000) || c.due > ms(2_000))),
            "during",
            "no evidence",
        ),
        (
            "late",
            Box::new(move |t| (at(2_300)..at(2_500)).for_each(|n| t.calls[n].reply = Reply::error("503"))),
            "after",
            "fail",
        ),
        (
            "never",
            Box::new(move |t| (at(2_300)..400).for_each(|n| t.calls[n].reply = Reply::error("503"))),
            "after",
            "fail",
        ),
        ("relapses", Box::new(move |t| (at(3_500)..400).for_each(|n| t.calls[n].reply = Reply::Hung)), "after", "fail"),
        ("slow after", Box::new(move |t| (at(2_300)..400).for_each(|n| t.calls[n].ended += ms(200))), "after", "fail"),
        ("watched too short", Box::new(|t| t.ended = ms(2_700)), "after", "no evidence"),
        ("not drained", Box::new(|t| t.backlog.push((ms(3_999), 3))), "drained", "fail"),
        ("backlog not read after", Box::new(|t| t.backlog.truncate(150)), "drained", "no evidence"),
        ("backlog never read", Box::new(|t| t.backlog.clear()), "drained", "not applicable"),
    ];
    for (name, defect, question, word) in cases {
        let verdict = judge(defect);
        assert_eq!(red(&verdict), [(question, word)], "{name}: {verdict:?}");
    }
}

#[test]
fn what_is_asked_from_the_fault_to_the_healing_counts_as_broken() {
    let during = |due: u64| judge(|t| t.calls[(due / 10) as usize].reply = Reply::error("500")).during;
    assert!(during(990).is_pass() && during(2_000).is_pass(), "before the one and from the other on");
    assert!(during(1_000).is_fail() && during(1_990).is_fail());
}

#[test]
fn what_is_not_steady_is_told_with_the_last_window() {
    let at = |ms: u64| (ms / 10) as usize;
    let verdict = judge(|t| (at(3_500)..400).step_by(2).for_each(|n| t.calls[n].reply = Reply::Hung));
    let told = verdict.after.detail();
    assert!(told.contains("25 of the last 50 calls were good"), "{told}");
}

#[test]
fn a_window_of_fewer_calls_than_the_minimum_is_not_steady() {
    let few = |minimum: usize| OutageRules::new(Steady::new(ms(500), 99).minimum(minimum));
    assert!(outage().judge(&few(50)).before.is_pass(), "{:?}", outage().judge(&few(50)).before);
    assert!(outage().judge(&few(51)).before.is_no_evidence());
    assert_eq!(few(0).steady.minimum, 1);
}

#[test]
fn an_empty_timeline_is_evidence_of_nothing() {
    let verdict = OutageTimeline::default().judge(&rules());
    for outcome in [&verdict.before, &verdict.bit, &verdict.during, &verdict.after] {
        assert!(outcome.is_no_evidence(), "{verdict:?}");
    }
    let silent = judge(|timeline| timeline.calls.clear());
    assert!(silent.before.is_no_evidence() && silent.during.is_no_evidence() && silent.after.is_fail(), "{silent:?}");
}
