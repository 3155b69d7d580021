//! Retries.

use std::collections::BTreeSet;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::model::retry::{Attempt, Jitter, Retry};

use super::found::{Found, counted, expect, judge};
use super::stand::{Stand, System};
use super::upstream::{Answer, Event, Failure, Request, Told, Upstream};
use crate::error::CoreResult;

/// Operations whose first pauses are compared, to see whether they are spread.
const SPREAD: usize = 24;

/// Whether retries conform to a model of them.
///
/// `make` gives a fresh system in front of an upstream. Sources: Brooker, *Exponential Backoff and Jitter*, AWS Architecture
/// Blog, 2015; `Retry-After`: RFC 9110, section 10.2.3; what may be repeated: RFC 9110, section 9.2.2.
#[derive(Debug)]
#[must_use = "a suite tests nothing until it is run"]
pub struct RetrySuite<F> {
    model: Retry,
    make: F,
    jitter: Jitter,
    tolerance: Duration,
    patience: Duration,
}

impl<F: AsyncFn(Upstream) -> CoreResult<System>> RetrySuite<F> {
    /// A suite for retries without jitter, whose pauses may be 50 ms too long.
    pub fn new(model: Retry, make: F) -> Self {
        let (jitter, patience) = (Jitter::None, Duration::from_secs(600));
        Self { model, make, jitter, tolerance: Duration::ZERO, patience }.tolerance(Duration::from_millis(50))
    }

    /// How pauses have to be spread. Those that are not spread at all fail, though each may be right.
    pub fn jitter(self, jitter: Jitter) -> Self {
        Self { model: self.model.jitter(jitter), jitter, ..self }
    }

    /// How much too long a pause may be.
    pub fn tolerance(self, tolerance: Duration) -> Self {
        Self { model: self.model.slack(tolerance), tolerance, ..self }
    }

    /// How long all attempts at an operation may take before it counts as endless.
    pub fn patience(self, limit: Duration) -> Self {
        Self { patience: limit, ..self }
    }

    /// Makes every check, each with a system of its own.
    ///
    /// # Errors
    /// Those of making a system.
    pub async fn run(&self) -> CoreResult<Found> {
        Ok(Found::new(
            "retry",
            [
                ("tries again until it succeeds", self.succeeds().await?),
                ("gives up after its attempts", self.gives_up().await?),
                ("pauses as long as it should", self.pauses().await?),
                ("spreads its pauses", self.spreads().await?),
                ("does not repeat what cannot be helped", self.once(Failure::lasting(), |_| {}).await?),
                (
                    "does not repeat what must not be done twice",
                    self.once(Failure::passing(), |r| r.is_idempotent = false).await?,
                ),
                ("keeps the key of what it repeats", self.keeps_key().await?),
                ("waits as long as it is asked to", self.is_asked_to_wait().await?),
            ],
        ))
    }

    fn attempts(&self) -> usize {
        self.model.attempts() as usize
    }

    async fn stand(&self, failures: usize, failure: Failure) -> CoreResult<Stand> {
        let upstream = Upstream::new();
        let system = (self.make)(upstream.clone()).await?;
        upstream.next(std::iter::repeat_n(Answer::Fail(failure), failures));
        Ok(Stand::new(upstream, system, self.patience))
    }

    /// It fails as often as it may, and then succeeds.
    async fn succeeds(&self) -> CoreResult<Outcome> {
        let stand = self.stand(self.attempts() - 1, Failure::passing()).await?;
        let told = stand.call().await;
        let attempts = stand.upstream.arrivals().len();
        Ok(expect(
            told == Told::Ok && attempts == self.attempts(),
            format!("{attempts} attempts, and the caller was told {told:?}"),
        ))
    }

    async fn gives_up(&self) -> CoreResult<Outcome> {
        let stand = self.stand(0, Failure::passing()).await?;
        // One attempt too many is seen at once; one that never ends need not be waited for.
        stand.upstream.next(std::iter::repeat_n(Answer::Fail(Failure::passing()), self.attempts() * 2));
        let told = stand.call().await;
        let attempts = stand.upstream.arrivals().len();
        Ok(match told {
            Told::Failed(_) | Told::Refused(_) | Told::TimedOut => counted("attempts", attempts, self.attempts()),
            told => Outcome::fail(format!("after {attempts} attempts the caller was told {told:?}")),
        })
    }

    async fn pauses(&self) -> CoreResult<Outcome> {
        let stand = self.stand(self.attempts() - 1, Failure::passing()).await?;
        if stand.call().await != Told::Ok {
            return Ok(Outcome::no_evidence("it did not succeed at its last attempt"));
        }
        Ok(judge(&self.model, trace(&stand.upstream), 0))
    }

    /// The first pauses of many operations.
    async fn spreads(&self) -> CoreResult<Outcome> {
        let allowed = self.model.pause(1);
        let width = *allowed.end() - *allowed.start();
        if self.jitter == Jitter::None || width.is_zero() {
            return Ok(Outcome::not_applicable("no jitter is declared"));
        }
        let mut pauses = Vec::new();
        for _ in 0..SPREAD {
            let stand = self.stand(1, Failure::passing()).await?;
            stand.call().await;
            let at: Vec<_> = stand.upstream.arrivals().iter().map(|arrival| arrival.at).collect();
            if let [first, second, ..] = at[..] {
                pauses.push(second - first);
            }
        }
        let (Some(least), Some(most)) = (pauses.iter().min(), pauses.iter().max()) else {
            return Ok(Outcome::no_evidence("nothing was ever tried again"));
        };
        // That so many even draws lie within a quarter of the range is as likely as guessing 46 coins.
        let said = format!("{} pauses between {least:?} and {most:?}, of {allowed:?}", pauses.len());
        Ok(expect(*most - *least > width / 4 + self.tolerance.min(width / 4), said))
    }

    /// A request that must reach the upstream once, whatever comes of it.
    async fn once(&self, failure: Failure, change: impl Fn(&mut Request)) -> CoreResult<Outcome> {
        let stand = self.stand(1, failure).await?;
        let mut request = stand.request();
        change(&mut request);
        let told = stand.send(request).await;
        Ok(match (told, stand.upstream.arrivals().len()) {
            (_, 0) => Outcome::no_evidence("it never reached the upstream"),
            (Told::Nothing, _) => Outcome::fail("the caller was told nothing"),
            (_, attempts) => counted("attempts", attempts, 1),
        })
    }

    async fn keeps_key(&self) -> CoreResult<Outcome> {
        let stand = self.stand(self.attempts() - 1, Failure::passing()).await?;
        let mut request = stand.request();
        request.is_idempotent = false;
        request.idempotency_key = Some("operation-1".to_owned());
        stand.send(request).await;
        let arrivals = stand.upstream.arrivals();
        let keys: BTreeSet<_> = arrivals.iter().map(|arrival| arrival.request.idempotency_key.clone()).collect();
        Ok(match arrivals.len() {
            0 | 1 => Outcome::no_evidence("it was not repeated, though its key allows it"),
            n => expect(
                keys == BTreeSet::from([Some("operation-1".to_owned())]),
                format!("{n} attempts with the keys {keys:?}"),
            ),
        })
    }

    async fn is_asked_to_wait(&self) -> CoreResult<Outcome> {
        let asked = *self.model.pause(1).end() * 3 + Duration::from_secs(1);
        let stand = self.stand(1, Failure { retry_after: Some(asked), ..Failure::passing() }).await?;
        stand.call().await;
        let judged = judge(&self.model.at_any_pace(), trace(&stand.upstream), 0);
        match stand.upstream.arrivals().len() {
            0 | 1 => Ok(Outcome::no_evidence("it was not tried again")),
            _ => Ok(judged),
        }
    }
}

/// What the automaton is to see of one operation.
fn trace(upstream: &Upstream) -> Vec<(usize, Duration, Attempt)> {
    let mut last_failed = false;
    let attempt = |(index, (at, event)): (usize, (Duration, Event))| {
        let attempt = match event {
            Event::Arrived(_) => Attempt::Begun,
            Event::Answered(_, Ok(())) => Attempt::Succeeded,
            Event::Answered(_, Err(Failure { is_retryable, retry_after })) => {
                Attempt::Failed { is_retryable, retry_after }
            }
            Event::Told(..) if last_failed => Attempt::GivenUp,
            Event::Called(_) | Event::Abandoned(_) | Event::Told(..) => return None,
        };
        last_failed = matches!(attempt, Attempt::Failed { .. });
        Some((index, at, attempt))
    };
    upstream.log().into_iter().enumerate().filter_map(attempt).collect()
}
