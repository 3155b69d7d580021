//! Circuit breakers.

use std::collections::BTreeSet;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::model::breaker::{Breaker, Call};

use super::found::{Found, judge};
use super::stand::{Stand, System};
use super::upstream::{Answer, Event, Failure, Told, Upstream};
use crate::error::CoreResult;

/// Whether a circuit breaker conforms to a model of it.
///
/// `make` gives a fresh system, closed, in front of an upstream. Source of the pattern: Nygard, *Release It!*, 2nd edition,
/// chapter 5.
#[derive(Debug)]
#[must_use = "a suite tests nothing until it is run"]
pub struct BreakerSuite<F> {
    model: Breaker,
    make: F,
    tolerance: Duration,
    at_once: Duration,
}

impl<F: AsyncFn(Upstream) -> CoreResult<System>> BreakerSuite<F> {
    /// A suite that takes times as they are within a tenth of the breaker's wait, and a tenth of a second for at once.
    pub fn new(model: Breaker, make: F) -> Self {
        let tolerance = model.wait() / 10;
        Self { model: model.slack(tolerance), make, tolerance, at_once: Duration::from_millis(100) }
    }

    /// How far the system's times may be off.
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.model = self.model.slack(tolerance);
        self.tolerance = tolerance;
        self
    }

    /// How long a rejection may take.
    pub fn at_once(mut self, limit: Duration) -> Self {
        self.at_once = limit;
        self
    }

    /// Makes every check, each with a system of its own.
    ///
    /// # Errors
    /// Those of making a system.
    pub async fn run(&self) -> CoreResult<Found> {
        let (open, rejected) = self.while_open().await?;
        Ok(Found::new(
            "circuit breaker",
            [
                ("stays closed below its threshold", self.below().await?),
                ("opens at its threshold", self.opens().await?),
                ("lets nothing through while it is open", open),
                ("rejects at once while it is open", rejected),
                ("tries again after its wait", self.tries_again().await?),
                ("lets no more than its probes through", self.probes().await?),
                ("closes when its probes succeed", self.closes().await?),
                ("opens again for its full wait when a probe fails", self.opens_again().await?),
                ("is not wedged by a probe that hangs", self.is_not_wedged().await?),
                ("takes no late answer for that of a probe", self.late_answer().await?),
            ],
        ))
    }

    async fn stand(&self) -> CoreResult<Stand> {
        let upstream = Upstream::new();
        let system = (self.make)(upstream.clone()).await?;
        Ok(Stand::new(upstream, system, self.model.wait().saturating_mul(20)))
    }

    /// A system whose calls have failed often enough.
    async fn tripped(&self) -> CoreResult<Stand> {
        let stand = self.stand().await?;
        self.trip(&stand).await;
        Ok(stand)
    }

    async fn trip(&self, stand: &Stand) {
        stand.break_upstream();
        for _ in 0..self.model.failures_to_open() {
            stand.call().await;
        }
    }

    /// A system that was seen to be open and has to try again now.
    async fn due(&self) -> CoreResult<Stand> {
        let stand = self.tripped().await?;
        self.let_it_be_due(&stand).await;
        Ok(stand)
    }

    async fn let_it_be_due(&self, stand: &Stand) {
        stand.call().await;
        stand.upstream.wait(self.model.wait() + self.tolerance * 2).await;
    }

    fn judge(&self, stand: &Stand, claim: usize) -> Outcome {
        judge(&self.model, trace(&stand.upstream), claim)
    }

    async fn below(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        for _ in 0..2 {
            stand.break_upstream();
            for _ in 1..self.model.failures_to_open() {
                stand.call().await;
            }
            stand.mend_upstream();
            stand.call().await;
        }
        Ok(self.judge(&stand, 0))
    }

    async fn opens(&self) -> CoreResult<Outcome> {
        let stand = self.tripped().await?;
        let claim = stand.mark();
        stand.call().await;
        Ok(self.judge(&stand, claim))
    }

    /// What becomes of calls in the first half of its wait, and how long they take.
    async fn while_open(&self) -> CoreResult<(Outcome, Outcome)> {
        const CALLS: u32 = 20;
        let stand = self.tripped().await?;
        stand.call().await;
        let claim = stand.mark();
        let mut slowest = Duration::ZERO;
        for _ in 0..CALLS {
            stand.upstream.wait(self.model.wait() / 2 / CALLS).await;
            let begun = stand.upstream.now();
            let number = stand.request();
            let (sent, told) = (number.number, stand.send(number).await);
            if stand.attempts(sent) == 0 && told != Told::Ok {
                slowest = slowest.max(stand.upstream.now() - begun);
            }
        }
        let said = format!("the slowest of {CALLS} rejections took {slowest:?}, the limit is {:?}", self.at_once);
        match self.judge(&stand, claim) {
            Outcome::NoEvidence { why } => Ok((Outcome::no_evidence(why.clone()), Outcome::no_evidence(why))),
            // Slow rejections spread the calls beyond the wait: what comes through then says nothing.
            _ if slowest > self.at_once => {
                Ok((Outcome::no_evidence("its rejections are too slow"), Outcome::fail(said)))
            }
            open => Ok((open, Outcome::pass(said))),
        }
    }

    async fn tries_again(&self) -> CoreResult<Outcome> {
        let stand = self.due().await?;
        stand.mend_upstream();
        let claim = stand.mark();
        stand.call().await;
        Ok(self.judge(&stand, claim))
    }

    async fn probes(&self) -> CoreResult<Outcome> {
        let stand = self.due().await?;
        stand.upstream.usually(Answer::Hold);
        let mut calls = vec![stand.start(stand.request())];
        stand.upstream.wait(self.tolerance).await;
        let claim = stand.mark();
        calls.extend((0..self.model.probes() + 4).map(|_| stand.start(stand.request())));
        stand.upstream.wait(self.tolerance).await;
        let outcome = self.judge(&stand, claim);
        stand.upstream.release(calls.len(), Ok(()));
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(outcome)
    }

    async fn closes(&self) -> CoreResult<Outcome> {
        let stand = self.due().await?;
        stand.mend_upstream();
        for _ in 0..self.model.probes() {
            stand.call().await;
        }
        let claim = stand.mark();
        for _ in 0..5 {
            stand.call().await;
        }
        Ok(self.judge(&stand, claim))
    }

    async fn opens_again(&self) -> CoreResult<Outcome> {
        let stand = self.due().await?;
        stand.call().await;
        let claim = stand.mark();
        let early = self.model.wait() * 3 / 4;
        stand.call().await;
        stand.upstream.wait(early).await;
        stand.call().await;
        stand.mend_upstream();
        stand.upstream.wait(self.model.wait() - early + self.tolerance * 2).await;
        stand.call().await;
        Ok(self.judge(&stand, claim))
    }

    async fn is_not_wedged(&self) -> CoreResult<Outcome> {
        let Some(limit) = self.model.gives_up_probes() else {
            return Ok(Outcome::not_applicable("the model gives no probe up"));
        };
        let stand = self.due().await?;
        stand.upstream.usually(Answer::Hold);
        let probes: Vec<_> = (0..self.model.probes()).map(|_| stand.start(stand.request())).collect();
        stand.upstream.wait(limit + self.tolerance * 2).await;
        stand.mend_upstream();
        let claim = stand.mark();
        stand.call().await;
        let outcome = self.judge(&stand, claim);
        probes.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(outcome)
    }

    /// A call from before it opened succeeds while its probes are out: that closes nothing.
    async fn late_answer(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        stand.upstream.usually(Answer::Hold);
        let mut calls = vec![stand.start(stand.request())];
        stand.upstream.wait(self.tolerance).await;
        self.trip(&stand).await;
        self.let_it_be_due(&stand).await;
        stand.upstream.usually(Answer::Hold);
        calls.extend((0..self.model.probes()).map(|_| stand.start(stand.request())));
        stand.upstream.wait(self.tolerance).await;
        // Its probes are out: one more is turned away, before and after the late answer.
        calls.push(stand.start(stand.request()));
        stand.upstream.wait(self.tolerance).await;
        stand.upstream.release(1, Ok(()));
        stand.upstream.wait(self.tolerance).await;
        let claim = stand.mark();
        calls.push(stand.start(stand.request()));
        stand.upstream.wait(self.tolerance).await;
        let outcome = self.judge(&stand, claim);
        stand.upstream.release(calls.len(), Err(Failure::passing()));
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(outcome)
    }
}

/// What the automaton is to see: a call that was told something without having arrived was rejected.
fn trace(upstream: &Upstream) -> Vec<(usize, Duration, Call)> {
    let mut arrived = BTreeSet::new();
    let mut trace = Vec::new();
    for (index, (at, event)) in upstream.log().into_iter().enumerate() {
        let call = match event {
            Event::Arrived(request) => {
                arrived.insert(request.number);
                Call::Admitted(request.number)
            }
            Event::Answered(number, Ok(())) => Call::Succeeded(number),
            Event::Answered(number, Err(_)) => Call::Failed(number),
            Event::Told(number, _) if !arrived.contains(&number) => Call::Rejected,
            Event::Called(_) | Event::Abandoned(_) | Event::Told(..) => continue,
        };
        trace.push((index, at, call));
    }
    trace
}
