//! Every automaton: a system that keeps the pattern conforms, each planted defect deviates at the event that shows it.

use std::time::Duration;

use super::breaker::{Breaker, Call};
use super::bulkhead::{self, Bulkhead};
use super::limiter::{FixedWindow, Request, SlidingWindow, TokenBucket};
use super::retry::{Attempt, Jitter, Retry};
use super::{Automaton, Conformance, Keyed, conform};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn trace<E: Copy>(events: &[(u64, E)]) -> Vec<(Duration, E)> {
    events.iter().map(|(at, event)| (ms(*at), *event)).collect()
}

/// The index of the event that deviates; `None` when the trace conforms or shows too little.
fn deviation<A: Automaton>(automaton: &A, events: &[(u64, A::Event)]) -> Option<usize>
where
    A::Event: Copy,
{
    match conform(automaton, trace(events)) {
        Conformance::Deviates { at, .. } => Some(at),
        _ => None,
    }
}

use Call::{Admitted, Failed, Rejected, Succeeded};

/// Two failures of four open it at 7 ms for 100 ms; two permits.
fn breaker() -> Breaker {
    Breaker::rate(50, 4, 4, ms(100)).permits(2)
}

const OPENING: [(u64, Call); 8] = [
    (0, Admitted(1)),
    (1, Succeeded(1)),
    (2, Admitted(2)),
    (3, Failed(2)),
    (4, Admitted(3)),
    (5, Succeeded(3)),
    (6, Admitted(4)),
    (7, Failed(4)),
];

fn opened(then: &[(u64, Call)]) -> Vec<(u64, Call)> {
    [&OPENING, then].concat()
}

#[test]
fn breaker_tells_what_it_was_given() {
    let breaker = breaker();
    assert_eq!((breaker.probes(), breaker.wait(), breaker.gives_up_probes()), (2, ms(100), None));
}

#[test]
fn breaker_that_keeps_the_pattern_conforms() {
    let round = opened(&[
        (50, Rejected),
        (107, Admitted(5)),
        (108, Admitted(6)),
        (109, Rejected),
        (110, Failed(5)), // open again, until 210
        (111, Succeeded(6)),
        (209, Rejected),
        (210, Admitted(7)),
        (211, Succeeded(7)),
        (212, Admitted(8)),
        (213, Succeeded(8)),
        (214, Admitted(9)),
    ]);
    assert!(conform(&breaker(), trace(&round)).outcome().is_pass());
}

#[test]
fn each_broken_breaker_deviates_where_it_shows() {
    for (what, then, at) in [
        ("never opens", &[(8, Admitted(5))][..], 8),
        ("opens too short", &[(106, Admitted(5))], 8),
        ("stuck open", &[(108, Rejected)], 8),
        ("a herd through half-open", &[(107, Admitted(5)), (108, Admitted(6)), (109, Admitted(7))], 10),
        ("too few probes", &[(107, Admitted(5)), (108, Rejected)], 9),
        ("a failed probe does not open it", &[(107, Admitted(5)), (108, Failed(5)), (109, Admitted(6))], 10),
        ("a short wait after a failed probe", &[(107, Admitted(5)), (108, Failed(5)), (207, Admitted(6))], 10),
        (
            "never closes",
            &[(107, Admitted(5)), (108, Succeeded(5)), (109, Admitted(6)), (110, Succeeded(6)), (111, Rejected)],
            12,
        ),
    ] {
        assert_eq!(deviation(&breaker(), &opened(then)), Some(at), "{what}");
    }
    assert_eq!(deviation(&breaker(), &[(0, Admitted(1)), (1, Failed(1)), (2, Rejected)]), Some(2), "opens too early");
}

#[test]
fn successes_alone_open_no_breaker_however_touchy() {
    let touchy = Breaker::rate(0, 4, 2, ms(100));
    let good = [(0, Admitted(1)), (1, Succeeded(1)), (2, Admitted(2)), (3, Succeeded(2)), (4, Admitted(3))];
    assert_eq!(deviation(&touchy, &good), None);
    let failed = [&good[..], &[(5, Failed(3)), (6, Admitted(4))]].concat();
    assert_eq!(deviation(&touchy, &failed), Some(6), "the first failure does");
}

#[test]
fn a_breaker_that_hangs_on_a_lost_probe_is_wedged() {
    let breaker = breaker().permits(1).probe_limit(ms(30));
    let hung = opened(&[(107, Admitted(5)), (137, Rejected), (138, Rejected)]);
    assert_eq!(deviation(&breaker, &hung), Some(10));
    let freed = opened(&[(107, Admitted(5)), (120, Rejected), (138, Admitted(6)), (139, Succeeded(6))]);
    assert!(conform(&breaker, trace(&freed)).outcome().is_pass());
    assert_eq!(deviation(&breaker, &opened(&[(107, Admitted(5)), (130, Admitted(6))])), Some(9));
}

#[test]
fn a_breaker_that_was_never_asked_is_no_evidence() {
    let missing = |then: &[(u64, Call)]| conform(&breaker(), trace(then)).outcome();
    assert_eq!(missing(&OPENING[..2]).detail(), "it never opened");
    assert_eq!(missing(&OPENING).detail(), "no call was made while it was open");
    assert_eq!(missing(&opened(&[(50, Rejected)])).detail(), "it never closed again");
    assert!(missing(&[]).is_no_evidence());
    let slack = breaker().slack(ms(5));
    assert_eq!(deviation(&slack, &opened(&[(102, Admitted(5))])), None);
    assert_eq!(deviation(&slack, &opened(&[(112, Rejected), (113, Rejected)])), Some(9));
}

use Request::{Allowed, Refused};

#[test]
fn limits_are_exact_at_their_boundary() {
    let fixed = FixedWindow::new(2, ms(100));
    let good = [(0, Allowed), (99, Allowed), (99, Refused), (100, Allowed), (101, Allowed), (102, Refused)];
    assert!(conform(&fixed, trace(&good)).outcome().is_pass());
    assert_eq!(deviation(&fixed, &[(0, Allowed), (99, Allowed), (99, Allowed)]), Some(2));
    assert_eq!(deviation(&fixed, &[(0, Allowed), (99, Refused)]), Some(1));
    assert_eq!(deviation(&fixed, &[(0, Allowed), (1, Allowed), (100, Refused)]), Some(2));
    let shifted = FixedWindow::new(2, ms(100)).origin(ms(150));
    assert!(conform(&shifted, trace(&[(0, Allowed), (49, Allowed), (49, Refused), (50, Allowed)])).outcome().is_pass());

    let sliding = SlidingWindow::new(2, ms(100));
    let good = [(0, Allowed), (60, Allowed), (99, Refused), (100, Allowed), (159, Refused), (160, Allowed)];
    assert!(conform(&sliding, trace(&good)).outcome().is_pass());
    assert_eq!(deviation(&sliding, &[(0, Allowed), (60, Allowed), (99, Allowed)]), Some(2));
    assert_eq!(deviation(&sliding, &[(0, Allowed), (60, Allowed), (100, Refused)]), Some(2));
    // A fixed window lets twice the limit through around its boundary; a sliding one must not.
    assert_eq!(deviation(&sliding, &[(98, Allowed), (99, Allowed), (100, Allowed)]), Some(2));

    let bucket = TokenBucket::new(2, 1, ms(100));
    let good =
        [(0, Allowed), (0, Allowed), (99, Refused), (100, Allowed), (150, Refused), (200, Allowed), (900, Allowed)];
    assert!(conform(&bucket, trace(&good)).outcome().is_pass());
    assert_eq!(deviation(&bucket, &[(0, Allowed), (0, Allowed), (99, Allowed)]), Some(2));
    assert_eq!(deviation(&bucket, &[(0, Allowed), (0, Allowed), (100, Refused)]), Some(2));
    let burst = [(0, Allowed), (0, Allowed), (5_000, Allowed), (5_000, Allowed), (5_000, Allowed)];
    assert_eq!(deviation(&bucket, &burst), Some(4), "no more is saved up than fits");
}

#[test]
fn slack_blurs_boundaries_and_nothing_else() {
    let at = |events: &[(u64, Request)]| {
        [
            deviation(&FixedWindow::new(2, ms(100)).slack(ms(3)), events),
            deviation(&SlidingWindow::new(2, ms(100)).slack(ms(3)), events),
            deviation(&TokenBucket::new(2, 2, ms(100)).slack(ms(3)), events),
        ]
    };
    assert_eq!(at(&[(10, Allowed), (11, Allowed), (12, Allowed)]), [Some(2); 3]);
    assert_eq!(at(&[(10, Allowed), (11, Refused)]), [Some(1); 3]);
    assert_eq!(at(&[(0, Allowed), (0, Allowed), (98, Allowed)])[..2], [None; 2]);
    assert_eq!(at(&[(0, Allowed), (0, Allowed), (102, Refused)])[..2], [None; 2]);
    assert_eq!(at(&[(0, Allowed), (0, Allowed), (48, Allowed)])[2], None);
    assert_eq!(at(&[(0, Allowed), (0, Allowed), (46, Allowed)])[2], Some(2));
}

#[test]
fn a_system_without_a_limiter_never_passes() {
    let few = trace(&[(0, Allowed), (500, Allowed)]);
    assert!(conform(&FixedWindow::new(2, ms(100)), few.clone()).outcome().is_no_evidence());
    assert!(conform(&SlidingWindow::new(2, ms(100)), few.clone()).outcome().is_no_evidence());
    assert!(conform(&TokenBucket::new(2, 1, ms(100)), few).outcome().is_no_evidence());
}

#[test]
fn keys_have_budgets_of_their_own() {
    let limit = Keyed::new(FixedWindow::new(1, ms(100)));
    let keyed = |events: &[(u64, &str, Request)]| {
        conform(&limit, events.iter().map(|(at, key, event)| (ms(*at), ((*key).to_owned(), *event)))).outcome()
    };
    let fair = [
        (0, "a", Allowed),
        (0, "b", Allowed),
        (1, "a", Refused),
        (1, "b", Refused),
        (100, "a", Allowed),
        (100, "b", Allowed),
    ];
    assert!(keyed(&fair).is_pass());
    let shared = [(0, "a", Allowed), (0, "b", Refused)];
    assert_eq!(keyed(&shared).detail(), "event 1 at 0ns: b: a request was refused though only 0 of 1 were made");
    assert!(keyed(&[(0, "a", Allowed), (1, "a", Refused), (100, "a", Allowed)]).is_no_evidence());
}

#[test]
fn each_broken_retry_deviates_where_it_shows() {
    use Attempt::{Begun, GivenUp, Succeeded};
    let failed = Attempt::failed();
    let retry = Retry::new(3, ms(10)).cap(ms(15)).slack(ms(2));
    let good = [(0, Begun), (1, failed), (11, Begun), (12, failed), (29, Begun), (30, failed), (31, GivenUp)];
    assert!(conform(&retry, trace(&good)).outcome().is_pass());
    for (what, events, at) in [
        ("too soon", &[(0, Begun), (1, failed), (10, Begun)][..], 2),
        ("too late", &[(0, Begun), (1, failed), (14, Begun)], 2),
        ("does not grow", &[(0, Begun), (1, failed), (11, Begun), (12, failed), (22, Begun)], 4),
        (
            "one too many",
            &[(0, Begun), (0, failed), (10, Begun), (10, failed), (25, Begun), (25, failed), (40, Begun)],
            6,
        ),
        ("gives up early", &[(0, Begun), (1, failed), (2, GivenUp)], 2),
        ("retries what cannot be helped", &[(0, Begun), (1, Attempt::refused()), (11, Begun)], 2),
        ("two at once", &[(0, Begun), (1, Begun)], 1),
        ("an end without a beginning", &[(0, Succeeded)], 0),
    ] {
        assert_eq!(deviation(&retry, events), Some(at), "{what}");
    }
    let asked = Attempt::Failed { is_retryable: true, retry_after: Some(ms(50)) };
    assert_eq!(deviation(&retry, &[(0, Begun), (0, asked), (49, Begun)]), Some(2), "does not wait as it was asked");
    assert_eq!(deviation(&retry, &[(0, Begun), (0, asked), (51, Begun)]), None);
    assert!(conform(&retry, trace(&[(0, Begun), (1, Succeeded)])).outcome().is_no_evidence());
    assert_eq!(Retry::new(9, ms(10)).jitter(Jitter::Equal).pause(3), ms(20)..=ms(40));
    assert_eq!(*Retry::new(9, Duration::MAX).pause(200).end(), Duration::MAX, "no overflow");
}

#[test]
fn each_broken_bulkhead_deviates_where_it_shows() {
    use bulkhead::Call::{Admitted, Entered, Left, Queued, Rejected};
    let bulkhead = Bulkhead::new(1, 1);
    let full = [(0, Entered), (1, Queued)];
    let good = [&full[..], &[(2, Rejected), (3, Left), (4, Admitted), (5, Left), (6, Entered)]].concat();
    assert!(conform(&bulkhead, trace(&good)).outcome().is_pass());
    for (what, then, at) in [
        ("no limit", &[(2, Admitted)][..], 2),
        ("a queue without end", &[(2, Queued)], 2),
        ("a place that is not given back", &[(2, Left), (3, Queued)], 3),
        ("jumps the queue", &[(2, Left), (3, Entered)], 3),
        ("rejects too early", &[(2, Left), (3, Admitted), (4, Left), (5, Rejected)], 5),
        ("leaves twice", &[(2, Left), (3, Left)], 3),
    ] {
        assert_eq!(deviation(&bulkhead, &[&full[..], then].concat()), Some(at), "{what}");
    }
    assert!(conform(&bulkhead, trace(&full)).outcome().is_no_evidence());
}

#[test]
fn a_trace_that_goes_back_in_time_deviates() {
    let limit = FixedWindow::new(2, ms(100));
    assert_eq!(deviation(&limit, &[(5, Allowed), (4, Allowed)]), Some(1));
}

#[test]
fn what_came_so_early_that_it_may_belong_to_the_window_before_is_not_held_against_this_one() {
    let deviates = |times: &[u64]| {
        let events = times.iter().map(|at| (ms(*at), Allowed));
        matches!(conform(&FixedWindow::new(2, ms(100)).slack(ms(3)), events), Conformance::Deviates { .. })
    };
    assert!(!deviates(&[101, 110, 120]) && deviates(&[101, 110, 120, 130]));
    assert!(deviates(&[110, 120, 130]), "none of these is early");
}
