//! The probe against limiters of three kinds, each seed with other numbers, and against limiters that lie.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use super::headers::http_date;
use super::{Asked, LimitHeaders, LimitKind, Pace, RateProbe, class_budgets, retry_after};
use crate::error::{CoreResult, ErrorKind};
use crate::run::Seed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Sliding,
    Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    NeverEnforced,
    SharedIdentities,
    ParallelBurst,
    RetryTooSoon,
    RetryTooLate,
    Remaining,
    Limit,
    Status,
}

/// A limiter on virtual time, in microseconds.
struct Limiter {
    kind: Kind,
    limit: u64,
    window: u64,
    phase: u64,
    lie: Lie,
    pace: Pace,
    books: Mutex<BTreeMap<String, Book>>,
}

#[derive(Default)]
struct Book {
    window: u64,
    count: u64,
    times: VecDeque<u64>,
    /// Millionths of a token times the window, and when they were counted.
    tokens: Option<(u64, u64)>,
}

impl Limiter {
    fn ask(&self, identity: &str) -> Asked {
        let now = self.pace.now().as_micros() as u64;
        let identity = if self.lie == Lie::SharedIdentities { "everybody" } else { identity };
        let mut books = self.books.lock().unwrap();
        let book = books.entry(identity.to_owned()).or_default();
        let (limit, window) = (self.limit, self.window);
        let (accepted, left, wait) = match self.kind {
            Kind::Fixed => {
                let current = (now + self.phase) / window;
                if book.window != current {
                    (book.window, book.count) = (current, 0);
                }
                let accepted = book.count < limit;
                book.count += u64::from(accepted);
                (accepted, limit - book.count, (current + 1) * window - self.phase - now)
            }
            Kind::Sliding => {
                while book.times.front().is_some_and(|used| now - used >= window) {
                    book.times.pop_front();
                }
                let accepted = (book.times.len() as u64) < limit;
                if accepted {
                    book.times.push_back(now);
                }
                let wait = book.times.front().map_or(0, |used| used + window - now);
                (accepted, limit - book.times.len() as u64, wait)
            }
            Kind::Bucket => {
                // A token is `window` parts; `limit` parts come back every microsecond.
                let (parts, at) = book.tokens.unwrap_or((limit * window, now));
                let parts = (parts + (now - at) * limit).min(limit * window);
                let accepted = parts >= window;
                let parts = if accepted { parts - window } else { parts };
                book.tokens = Some((parts, now));
                (accepted, parts / window, (window.saturating_sub(parts)).div_ceil(limit))
            }
        };
        let accepted = accepted
            || self.lie == Lie::NeverEnforced
            || (self.lie == Lie::ParallelBurst && identity.contains("burst"));
        let told = Duration::from_micros(wait).as_secs_f64().ceil();
        let told = match self.lie {
            Lie::RetryTooSoon => (told - 2.0).max(0.0),
            Lie::RetryTooLate => told + 5.0,
            _ => told,
        };
        let headers = LimitHeaders {
            limit: Some(if self.lie == Lie::Limit { limit + 1 } else { limit }),
            remaining: Some(if self.lie == Lie::Remaining { left + 1 } else { left }),
            retry_after: (!accepted).then(|| Duration::from_secs_f64(told)),
            ..LimitHeaders::default()
        };
        let refused = if self.lie == Lie::Status { 503 } else { 429 };
        Asked { status: if accepted { 200 } else { refused }, headers }
    }
}

/// A limiter of a seed: 2 to 40 in 4 to 60 s, its windows begun anywhere.
fn limiter(kind: Kind, seed: u64, lie: Lie) -> Limiter {
    let mut stream = Seed::new(seed).stream("limiter");
    let mut below = |n: u64| stream.next_u64() % n;
    let (limit, window) = (2 + below(39), 4_000_000 + below(56) * 1_000_000);
    let phase = below(window);
    Limiter { kind, limit, window, phase, lie, pace: Pace::virtual_time(), books: Mutex::default() }
}

async fn probe(limiter: &Limiter) -> CoreResult<super::FoundLimit> {
    RateProbe::new(async |identity: String| Ok(limiter.ask(&identity)))
        .pace(limiter.pace.clone())
        .most(500)
        .resolution(Duration::from_millis(10))
        .find()
        .await
}

#[tokio::test]
async fn limit_and_kind_are_exact_for_three_kinds_and_thirty_seeds() -> CoreResult {
    for kind in [Kind::Fixed, Kind::Sliding, Kind::Bucket] {
        for seed in 0..30 {
            let limiter = limiter(kind, seed, Lie::None);
            let found = probe(&limiter).await?;
            let near = |time: Duration, wanted: u64| time.as_micros().abs_diff(u128::from(wanted)) <= 10_000;
            let right = match found.kind {
                LimitKind::FixedWindow { window } => kind == Kind::Fixed && near(window, limiter.window),
                LimitKind::SlidingWindow { window } => kind == Kind::Sliding && near(window, limiter.window),
                LimitKind::Bucket { refill } => kind == Kind::Bucket && near(refill, limiter.window / limiter.limit),
                LimitKind::One { .. } => false,
            };
            let told = format!("{kind:?}, seed {seed}, {} in {} µs: {found:?}", limiter.limit, limiter.window);
            assert!(right && found.limit == limiter.limit, "{told}");
            assert!(found.outcome().is_pass(), "{told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_lie_fails_exactly_its_own_check() {
    for kind in [Kind::Fixed, Kind::Sliding] {
        for seed in 0..10 {
            for (lie, failed) in [
                (Lie::Status, "a refusal is status 429"),
                (Lie::Remaining, "the headers count down to the limit"),
                (Lie::Limit, "the headers count down to the limit"),
                (Lie::ParallelBurst, "a burst in parallel is held to the limit"),
                (Lie::RetryTooLate, "Retry-After tells the truth"),
            ] {
                let found = probe(&limiter(kind, seed, lie)).await.unwrap();
                assert_eq!(found.failed(), [failed], "{kind:?}, {lie:?}, seed {seed}: {found:?}");
            }
        }
    }
    let found = probe(&limiter(Kind::Sliding, 1, Lie::RetryTooSoon)).await.unwrap();
    assert_eq!(found.failed(), ["Retry-After tells the truth"]);
}

#[tokio::test]
async fn limit_that_is_never_enforced_or_shared_is_not_passed_over() {
    let error = probe(&limiter(Kind::Fixed, 3, Lie::NeverEnforced)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Assertion);
    assert!(error.what().contains("no limit is enforced"), "{error:?}");
    let error = probe(&limiter(Kind::Fixed, 3, Lie::SharedIdentities)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().contains("share a limit"), "{error:?}");
    let broken = RateProbe::new(async |_: String| Ok(Asked::status(500))).find().await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::NoEvidence);
}

#[tokio::test]
async fn limit_that_is_off_by_one_or_comes_through_all_the_same_fails_its_own_check() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    for (declared, leaks, failed) in [
        (0, false, vec![]),
        (1, false, vec!["the limit is the declared one"]),
        (-1, false, vec!["the limit is the declared one"]),
        (0, true, vec!["what is refused does not come through"]),
    ] {
        let (limiter, through) = (limiter(Kind::Sliding, 5, Lie::None), Arc::<AtomicU64>::default());
        let count = Arc::clone(&through);
        let ask = async |identity: String| {
            let asked = limiter.ask(&identity);
            through.fetch_add(u64::from(leaks || asked.accepted()), Ordering::SeqCst);
            Ok(asked)
        };
        let probe = RateProbe::new(ask)
            .pace(limiter.pace.clone())
            .resolution(Duration::from_millis(10))
            .declared(limiter.limit.saturating_add_signed(declared))
            .upstream(move || count.load(Ordering::SeqCst));
        assert_eq!(probe.find().await.unwrap().failed(), failed);
    }
}

#[tokio::test]
async fn classes_that_share_a_bucket_or_have_none_fail_and_apart_they_pass() -> CoreResult {
    let classes = [("planner", 5), ("coder", 3), ("tester", 4)];
    for (bucket, failed) in
        [("own", vec![]), ("shared", vec!["coder", "tester"]), ("none", vec!["planner", "coder", "tester"])]
    {
        let used = Mutex::new(BTreeMap::<String, u64>::new());
        let found = class_budgets(classes, async |class| {
            let budget = classes.iter().find(|(name, _)| *name == class).map_or(0, |(_, budget)| *budget);
            let mut used = used.lock().unwrap();
            let count = used.entry(if bucket == "shared" { "all" } else { class }.to_owned()).or_default();
            *count += 1;
            Ok(Asked::status(if bucket == "none" || *count <= budget { 200 } else { 429 }))
        })
        .await?;
        let red: Vec<_> = found.iter().filter(|(_, outcome)| outcome.is_fail()).map(|(class, _)| *class).collect();
        assert_eq!(red, failed, "{bucket}: {found:?}");
    }
    Ok(())
}

#[test]
fn both_generations_of_headers_and_both_forms_of_retry_after_are_read() {
    let old = LimitHeaders::read([
        ("RateLimit-Limit", "10, 10;w=60"),
        ("X-RateLimit-Remaining", "3"),
        ("ratelimit-reset", "7"),
    ]);
    assert_eq!((old.limit, old.remaining, old.reset), (Some(10), Some(3), Some(Duration::from_secs(7))));
    let new = LimitHeaders::read([
        ("ratelimit-policy", "\"default\";q=100;w=60"),
        ("RateLimit", "\"default\";r=50;t=30"),
        ("retry-after", "5"),
    ]);
    assert_eq!((new.limit, new.remaining, new.window), (Some(100), Some(50), Some(Duration::from_secs(60))));
    assert_eq!((new.reset, new.retry_after), (Some(Duration::from_secs(30)), Some(Duration::from_secs(5))));
    assert_eq!(LimitHeaders::read([("ratelimit", "garbage"), ("ratelimit-limit", "x")]), LimitHeaders::default());
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(http_date(date), Some(784_111_777));
    assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
    assert_eq!(retry_after(date, Some(784_111_770)), Some(Duration::from_secs(7)));
    assert_eq!(retry_after(date, Some(784_111_800)), Some(Duration::ZERO), "a date that is over");
    for bad in ["", "soon", "-1", "Sun, 99 Nov 1994 08:49:37 GMT", "06 Nov 1994 GMT"] {
        assert_eq!(retry_after(bad, Some(0)), None, "{bad}");
    }
}
