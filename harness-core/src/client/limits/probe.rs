//! The driver: asks, waits, and infers.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use harness_props::Outcome;

use super::LimitHeaders;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{self, Pace};

/// What one request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The status.
    pub status: u16,
    /// What the headers say.
    pub headers: LimitHeaders,
}

impl Asked {
    /// An answer without headers about limits.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: LimitHeaders::default() }
    }

    /// An answer of [`crate::client::Http`].
    #[cfg(feature = "http")]
    #[must_use]
    pub fn of(answer: &crate::client::Answer) -> Self {
        let headers = answer.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        Self { status: answer.status(), headers: LimitHeaders::read(headers) }
    }

    pub(super) fn accepted(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What kind of limiter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// So many in each window; all come back at once.
    FixedWindow {
        /// Its length.
        window: Duration,
    },
    /// So many in any window; each comes back a window after it was used.
    SlidingWindow {
        /// Its length.
        window: Duration,
    },
    /// So many at once; one comes back every so often.
    Bucket {
        /// The time between two that come back.
        refill: Duration,
    },
    /// A limit of one: the kinds do not differ.
    One {
        /// The time between two.
        every: Duration,
    },
}

/// What was found out about a limiter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "what was found says nothing until it is looked at"]
pub struct FoundLimit {
    /// How many are accepted at once by somebody who has not asked before.
    pub limit: u64,
    /// The kind, with its time to the resolution of the probe.
    pub kind: LimitKind,
    /// What was checked besides: a sentence and its outcome.
    pub checks: Vec<(&'static str, Outcome)>,
}

impl FoundLimit {
    /// The worst of all checks.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::worst(self.checks.iter().map(|(_, outcome)| outcome.clone()))
    }

    /// The sentence of each check that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|(_, outcome)| outcome.is_fail()).map(|(sentence, _)| *sentence).collect()
    }
}

/// A probe of one limited endpoint; the function shows an identity and gives what came.
#[derive(Debug)]
#[must_use = "nothing is asked before `find`"]
pub struct RateProbe<F> {
    ask: F,
    pace: Pace,
    most: u64,
    resolution: Duration,
    longest: Duration,
    names: AtomicUsize,
    declared: Option<u64>,
    upstream: Option<Count>,
}

/// How many requests have come through to what the limiter protects.
struct Count(Box<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} came through", (self.0)())
    }
}

/// What was found about times.
struct Recovery {
    after: Duration,
    count: u64,
}

impl<F: AsyncFn(String) -> CoreResult<Asked>> RateProbe<F> {
    /// A probe in real time: a limit of at most 10,000, times to 50 ms, no window longer than two minutes.
    pub fn new(ask: F) -> Self {
        Self {
            ask,
            pace: Pace::real(),
            most: 10_000,
            resolution: Duration::from_millis(50),
            longest: Duration::from_secs(120),
            names: AtomicUsize::new(0),
            declared: None,
            upstream: None,
        }
    }

    /// What the limit is said to be: one more or one less fails.
    pub fn declared(mut self, limit: u64) -> Self {
        self.declared = Some(limit);
        self
    }

    /// How many requests have come through so far to what the limiter protects: what is refused must not be among them.
    pub fn upstream(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.upstream = Some(Count(Box::new(count)));
        self
    }

    /// Lets time pass in another way.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The most requests that are tried before the limit counts as never enforced.
    pub fn most(mut self, requests: u64) -> Self {
        self.most = requests;
        self
    }

    /// How exactly times are told apart: somebody who was refused asks again so often.
    pub fn resolution(mut self, resolution: Duration) -> Self {
        self.resolution = resolution.max(Duration::from_micros(1));
        self
    }

    /// The longest time that a refusal may last.
    pub fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Finds the limit and its kind, and checks that identities are apart, that a burst in parallel is held, that refusals
    /// are 429, and that headers tell the truth.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when the limit is never enforced or shared by all, [`ErrorKind::NoEvidence`] when the first request is refused
    /// already or a refusal never ends; errors of the requests themselves are passed on.
    pub async fn find(&self) -> CoreResult<FoundLimit> {
        let first = self.stranger("first");
        let (limit, said, refusal) = self.exhaust(&first).await?;
        let mut checks = vec![
            ("a refusal is status 429", expect(refusal.status == 429, || format!("status {}", refusal.status))),
            ("the headers count down to the limit", truthful(limit, &said)),
        ];
        if let Some(declared) = self.declared {
            let said = || format!("{limit} were accepted, declared are {declared}");
            checks.push(("the limit is the declared one", expect(limit == declared, said)));
        }
        if let Some(Count(count)) = &self.upstream {
            checks.push(("what is refused does not come through", self.held_back(&first, count).await?));
        }
        let second = self.stranger("second");
        if !self.asks(&second).await?.accepted() {
            let what = "identities share a limit: one that never asked is refused once another has used it up";
            return Err(Error::new(ErrorKind::Assertion, what));
        }
        let theirs = self.exhaust(&second).await?.0 + 1;
        checks.push((
            "identities do not share a limit",
            expect(theirs == limit, || format!("{limit} for the first, {theirs} for the second")),
        ));
        checks.push(("a burst in parallel is held to the limit", self.burst(limit).await?));
        checks.push(("Retry-After tells the truth", self.honest().await?));
        let kind = self.kind(limit).await?;
        Ok(FoundLimit { limit, kind, checks })
    }

    /// Ten requests of somebody who has used the limit up.
    async fn held_back(&self, exhausted: &str, count: &(dyn Fn() -> u64 + Send + Sync)) -> CoreResult<Outcome> {
        if count() == 0 {
            return Ok(Outcome::no_evidence("nothing has come through at all: the count is of something else"));
        }
        let (before, mut accepted) = (count(), 0);
        for _ in 0..10 {
            accepted += u64::from(self.asks(exhausted).await?.accepted());
        }
        let through = count() - before;
        Ok(expect(through == accepted, || format!("{through} of 10 requests came through, {accepted} were accepted")))
    }

    /// Somebody who has not asked before.
    fn stranger(&self, what: &str) -> String {
        format!("probe-{what}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    async fn asks(&self, identity: &str) -> CoreResult<Asked> {
        (self.ask)(identity.to_owned()).await
    }

    /// Asks until the first refusal: how many were accepted, what each said, and the refusal.
    async fn exhaust(&self, identity: &str) -> CoreResult<(u64, Vec<LimitHeaders>, Asked)> {
        let mut said = Vec::new();
        for accepted in 0..=self.most {
            let asked = self.asks(identity).await?;
            if asked.accepted() {
                said.push(asked.headers);
                continue;
            }
            if said.is_empty() && identity.contains("first") {
                let what = format!("the very first request was refused with status {}", asked.status);
                return Err(Error::new(ErrorKind::NoEvidence, what));
            }
            return Ok((accepted, said, asked));
        }
        let what = format!("no limit is enforced: {} requests of one identity were accepted", self.most + 1);
        Err(Error::new(ErrorKind::Assertion, what))
    }

    /// Waits until somebody who was refused is accepted again, and how many are then accepted at once.
    async fn recovery(&self, identity: &str) -> CoreResult<Recovery> {
        let begun = self.pace.now();
        loop {
            self.pace.wait(self.resolution).await;
            let after = self.pace.now() - begun;
            if self.asks(identity).await?.accepted() {
                let mut count = 1;
                while count <= self.most && self.asks(identity).await?.accepted() {
                    count += 1;
                }
                return Ok(Recovery { after, count });
            }
            if after > self.longest {
                let what = format!("a refusal lasts longer than {}", wait::seconds(self.longest));
                return Err(Error::new(ErrorKind::NoEvidence, what));
            }
        }
    }

    async fn kind(&self, limit: u64) -> CoreResult<LimitKind> {
        let who = self.stranger("kind");
        self.exhaust(&who).await?;
        self.recovery(&who).await?; // now everything that comes back has a known beginning
        let next = self.recovery(&who).await?;
        if limit == 1 {
            return Ok(LimitKind::One { every: next.after });
        }
        if next.count < limit {
            // One by one: several in a row, so that the resolution weighs less.
            const ROUNDS: u32 = 8;
            let begun = self.pace.now();
            let mut back = 0;
            for _ in 0..ROUNDS {
                back += self.recovery(&who).await?.count;
            }
            let refill = (self.pace.now() - begun).as_secs_f64() / back as f64;
            return Ok(LimitKind::Bucket { refill: Duration::from_secs_f64(refill) });
        }
        let window = next.after;
        // Half of the limit now, half later: a sliding window gives back a half, a fixed one all.
        let who = self.stranger("halves");
        self.exhaust(&who).await?;
        self.wait_for_edge(&who, limit / 2).await?;
        self.pace.wait(window / 2).await;
        for _ in limit / 2..limit {
            self.asks(&who).await?;
        }
        let half = self.recovery(&who).await?;
        Ok(if half.count >= limit { LimitKind::FixedWindow { window } } else { LimitKind::SlidingWindow { window } })
    }

    /// Waits until somebody is accepted again, and uses so many in all.
    async fn wait_for_edge(&self, identity: &str, uses: u64) -> CoreResult {
        let begun = self.pace.now();
        loop {
            self.pace.wait(self.resolution).await;
            if self.asks(identity).await?.accepted() {
                break;
            }
            if self.pace.now() - begun > self.longest {
                return Err(Error::new(ErrorKind::NoEvidence, "a refusal does not end"));
            }
        }
        for _ in 1..uses {
            self.asks(identity).await?;
        }
        Ok(())
    }

    /// Four times the limit at once.
    async fn burst(&self, limit: u64) -> CoreResult<Outcome> {
        let who = self.stranger("burst");
        let all = try_join_all((0..limit.saturating_mul(4).min(self.most)).map(|_| self.asks(&who))).await?;
        let accepted = all.iter().filter(|asked| asked.accepted()).count() as u64;
        Ok(match accepted {
            n if n > limit => Outcome::fail(format!("{n} of {} were accepted, the limit is {limit}", all.len())),
            0 => Outcome::fail("nothing was accepted at all"),
            n => Outcome::pass(format!("{n} of {} accepted", all.len())),
        })
    }

    /// Refused just before the time that was told, accepted just after it.
    async fn honest(&self) -> CoreResult<Outcome> {
        let who = self.stranger("honest");
        let (.., refusal) = self.exhaust(&who).await?;
        let Some(told) = refusal.headers.retry_after else {
            return Ok(Outcome::not_applicable("no Retry-After is sent"));
        };
        if told > self.longest {
            return Ok(Outcome::fail(format!("it says {}", wait::seconds(told))));
        }
        // Whole seconds are rounded up: up to one second earlier it may be too soon to be refused.
        let early = told.saturating_sub(Duration::from_secs(1)).saturating_sub(self.resolution);
        let mut passed = Duration::ZERO;
        if early > Duration::ZERO {
            self.pace.wait(early).await;
            passed = early;
            if self.asks(&who).await?.accepted() {
                let (told, early) = (wait::seconds(told), wait::seconds(early));
                return Ok(Outcome::fail(format!("it says {told}, and after {early} a request is accepted")));
            }
        }
        self.pace.wait(told.saturating_sub(passed) + self.resolution).await;
        let asked = self.asks(&who).await?;
        Ok(expect(asked.accepted(), || {
            format!("after the {} that it says: status {}", wait::seconds(told), asked.status)
        }))
    }
}

fn expect(holds: bool, witness: impl FnOnce() -> String) -> Outcome {
    if holds { Outcome::pass("as it should be") } else { Outcome::fail(witness()) }
}

/// What the headers of accepted requests say about the limit and what is left.
fn truthful(limit: u64, said: &[LimitHeaders]) -> Outcome {
    if said.iter().all(|headers| headers.limit.is_none() && headers.remaining.is_none()) {
        return Outcome::not_applicable("no header says anything about limits");
    }
    for (n, headers) in said.iter().enumerate() {
        let left = limit - n as u64 - 1;
        if headers.limit.is_some_and(|said| said != limit) {
            return Outcome::fail(format!("the headers say a limit of {:?}, it is {limit}", headers.limit));
        }
        if headers.remaining.is_some_and(|said| said != left) {
            return Outcome::fail(format!(
                "after {} requests the headers say {:?} are left, it is {left}",
                n + 1,
                headers.remaining
            ));
        }
    }
    Outcome::pass(format!("{} answers", said.len()))
}
