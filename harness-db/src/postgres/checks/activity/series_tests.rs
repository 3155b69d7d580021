//! What may be concluded from sessions over time, and what may not.

use std::time::Duration;

use super::{Session, SessionSeries};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn session(pid: usize, state: &str, in_state: Duration) -> Session {
    let in_transaction = state.starts_with("idle in").then_some(in_state + ms(5));
    Session {
        pid: i32::try_from(pid).unwrap(),
        application: "shop".into(),
        state: state.into(),
        in_state,
        in_transaction,
        query: format!("statement of {pid}"),
        ..Session::default()
    }
}

/// One sample every 10 ms with so many idle sessions.
fn series(totals: &[usize]) -> SessionSeries {
    let mut series = SessionSeries::default();
    for (n, &total) in totals.iter().enumerate() {
        let at = ms(10 * n as u64);
        series.push(at, (1..=total).map(|pid| session(pid, "idle", ms(1))).collect());
    }
    series
}

#[test]
fn limit_is_strict_and_too_few_samples_are_no_evidence() {
    assert!(series(&[3, 24, 3]).below(25).is_pass());
    assert!(series(&[3, 25, 3]).below(25).is_fail());
    assert!(series(&[3, 25, 3]).check_below(26).unwrap().check_below(25).is_err());
    let blind = SessionSeries { gaps: vec![(ms(0), "refused".into())], ..SessionSeries::default() };
    assert!(blind.below(25).is_no_evidence() && blind.max().is_none());
    let mut mostly_blind = series(&[3, 24]);
    mostly_blind.gaps = vec![(ms(11), "refused".into()), (ms(12), "refused".into())];
    let outcome = mostly_blind.below(25);
    assert!(outcome.is_no_evidence() && outcome.detail().contains("gaps: 2, the last at +12 ms"), "{outcome}");
    assert!(mostly_blind.below(24).is_fail(), "what was seen stands");
}

#[test]
fn cap_of_a_pool_is_counted_by_its_application() {
    assert!(series(&[1, 30]).at_most_of("shop", 30).is_pass());
    let outcome = series(&[1, 31]).at_most_of("shop", 30);
    assert!(outcome.is_fail() && outcome.detail().contains("31 sessions of `shop`"), "{outcome}");
    assert!(series(&[1, 30]).at_most_of("another", 30).is_no_evidence());
}

#[test]
fn leak_is_told_from_a_return_to_the_start_and_named() {
    assert!(series(&[2, 9, 2]).ends_as_it_began().is_pass());
    let outcome = series(&[2, 9, 3]).ends_as_it_began();
    assert!(outcome.is_fail() && outcome.detail().contains("pid 3 of \"shop\" idle for 1 ms"), "{outcome}");
    assert!(!outcome.detail().contains("pid 2 "), "{outcome}");
    assert!(series(&[2, 40]).ends_as_it_began().detail().contains("and 33 more"));
    assert!(series(&[2]).ends_as_it_began().is_no_evidence());
    let mut cut_short = series(&[2, 9, 2]);
    cut_short.gaps.push((ms(30), "refused".into()));
    assert!(cut_short.ends_as_it_began().is_no_evidence());
}

#[test]
fn idle_transaction_is_named_with_its_statement() {
    let mut series = series(&[1, 1]);
    series.push(ms(20), vec![session(8, "idle in transaction", ms(400)), session(9, "active", ms(70))]);
    let outcome = series.no_idle_in_transaction_longer_than(ms(399));
    assert!(outcome.is_fail(), "{outcome}");
    for part in ["400 ms", "\"shop\"", "statement of 8", "+20 ms"] {
        assert!(outcome.detail().contains(part), "{outcome}");
    }
    assert!(series.no_idle_in_transaction_longer_than(ms(400)).is_pass());
    assert!(series.no_transaction_longer_than(ms(404)).is_fail());
    assert!(series.no_transaction_longer_than(ms(405)).is_pass());
    let outcome = series.no_query_longer_than(ms(69));
    assert!(outcome.is_fail() && outcome.detail().contains("statement of 9"), "{outcome}");
    assert!(series.no_query_longer_than(ms(70)).is_pass());
}

#[test]
fn what_could_not_be_seen_is_no_pass() {
    let mut sparse = series(&[1, 1]);
    sparse.lasted = ms(500);
    assert!(sparse.no_query_longer_than(ms(490)).is_pass());
    let outcome = sparse.no_query_longer_than(ms(489));
    assert!(outcome.is_no_evidence() && outcome.detail().contains("nothing was seen for 490 ms"), "{outcome}");
    let mut foreign = series(&[1, 1]);
    foreign.push(ms(20), vec![Session { is_hidden: true, ..session(1, "", ms(0)) }]);
    let outcome = foreign.no_transaction_longer_than(ms(100));
    assert!(outcome.is_no_evidence() && outcome.detail().contains("pg_read_all_stats"), "{outcome}");
    assert!(foreign.below(25).is_pass(), "hidden sessions are counted all the same");
}
