//! Bulkheads.

use std::collections::BTreeMap;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::model::bulkhead::{Bulkhead, Call};
use tokio::task::JoinHandle;

use super::found::{Found, counted, expect, judge};
use super::stand::{Stand, System};
use super::upstream::{Answer, Event, Failure, Told, Upstream};
use crate::error::CoreResult;

/// Whether a bulkhead conforms to a model of it.
///
/// `make` gives a fresh system in front of an upstream.
#[derive(Debug)]
#[must_use = "a suite tests nothing until it is run"]
pub struct BulkheadSuite<F> {
    model: Bulkhead,
    make: F,
    settle: Duration,
}

impl<F: AsyncFn(Upstream) -> CoreResult<System>> BulkheadSuite<F> {
    /// A suite that gives each call 50 ms to get a place or be turned away; who then has neither, waits.
    pub fn new(model: Bulkhead, make: F) -> Self {
        Self { model, make, settle: Duration::from_millis(50) }
    }

    /// How long a call takes at most to get a free place, or to be turned away.
    pub fn settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }

    /// Makes every check, each with a system of its own.
    ///
    /// # Errors
    /// Those of making a system.
    pub async fn run(&self) -> CoreResult<Found> {
        Ok(Found::new(
            "bulkhead",
            [
                ("lets in as many as it has places", self.places().await?),
                ("lets as many wait as it should", self.queue().await?),
                ("serves those that wait in their order", self.order().await?),
                ("gives the place of a failed call back", self.given_back().await?),
                ("gives the place of a caller who left back", self.left().await?),
            ],
        ))
    }

    async fn stand(&self) -> CoreResult<Stand> {
        let upstream = Upstream::new();
        let system = (self.make)(upstream.clone()).await?;
        upstream.usually(Answer::Hold);
        Ok(Stand::new(upstream, system, self.settle.saturating_mul(1_000)))
    }

    /// Makes so many calls, one after the other, which stay.
    async fn enter(&self, stand: &Stand, calls: u32) -> Vec<JoinHandle<Told>> {
        let mut held = Vec::new();
        for _ in 0..calls {
            held.push(stand.start(stand.request()));
            stand.upstream.wait(self.settle).await;
        }
        held
    }

    async fn end(&self, stand: &Stand, held: Vec<JoinHandle<Told>>) {
        held.iter().for_each(JoinHandle::abort);
        stand.upstream.release(held.len(), Ok(()));
    }

    fn full(&self) -> u32 {
        self.model.places() + self.model.queue()
    }

    /// Whether places are as many as they should be; what becomes of the others is another question.
    async fn places(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        let held = self.enter(&stand, self.full() + 3).await;
        let inside = stand.upstream.arrivals().len();
        self.end(&stand, held).await;
        Ok(counted("calls are inside at once", inside, self.model.places() as usize))
    }

    /// Whether those beyond its places wait or are turned away, as the model has it.
    async fn queue(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        let mut held = self.enter(&stand, self.model.places()).await;
        let (claim, places) = (stand.mark(), self.model.places() as usize);
        let got_in = stand.upstream.arrivals().len();
        held.extend(self.enter(&stand, self.model.queue() + 3).await);
        let outcome = match stand.upstream.arrivals().len() {
            inside if inside > places || got_in < places => Outcome::no_evidence("it has another number of places"),
            _ => judge(&self.model, self.trace(&stand), claim),
        };
        self.end(&stand, held).await;
        Ok(outcome)
    }

    /// Whether the first of those that wait is the first to get a place.
    async fn order(&self) -> CoreResult<Outcome> {
        if self.model.queue() < 2 {
            return Ok(Outcome::not_applicable("not two can wait"));
        }
        let stand = self.stand().await?;
        let held = self.enter(&stand, self.full()).await;
        for _ in 0..self.model.queue() {
            stand.upstream.release(1, Ok(()));
            stand.upstream.wait(self.settle).await;
        }
        let served: Vec<u64> = stand.upstream.arrivals().iter().map(|arrival| arrival.request.number).collect();
        self.end(&stand, held).await;
        Ok(match served.len() == self.full() as usize {
            true => expect(served.is_sorted(), format!("served in the order {served:?}")),
            false => Outcome::no_evidence(format!("{} of {} calls were served", served.len(), self.full())),
        })
    }

    /// Whether as many fit in after all who were inside have failed.
    async fn given_back(&self) -> CoreResult<Outcome> {
        self.fits_again(async |stand, _| stand.upstream.release(self.model.places() as usize, Err(Failure::passing())))
            .await
    }

    /// The same when callers give up.
    async fn left(&self) -> CoreResult<Outcome> {
        self.fits_again(async |_, held| held.iter().for_each(JoinHandle::abort)).await
    }

    async fn fits_again(&self, leave: impl AsyncFn(&Stand, &[JoinHandle<Told>])) -> CoreResult<Outcome> {
        let (stand, places) = (self.stand().await?, self.model.places());
        let mut held = self.enter(&stand, places).await;
        let before = stand.upstream.arrivals().len();
        leave(&stand, &held).await;
        stand.upstream.wait(self.settle).await;
        let gone = stand.upstream.arrivals().len();
        held.extend(self.enter(&stand, places).await);
        let inside = stand.upstream.arrivals().len() - gone;
        self.end(&stand, held).await;
        Ok(match before == places as usize {
            true => expect(inside == before, format!("{inside} of {before} places can be had again")),
            false => Outcome::no_evidence("it has another number of places"),
        })
    }

    /// What the automaton is to see: who has neither a place nor an answer before the next one comes, waits.
    fn trace(&self, stand: &Stand) -> Vec<(usize, Duration, Call)> {
        #[derive(PartialEq)]
        enum At {
            Door,
            Queue,
            Inside,
        }
        let log = stand.upstream.log();
        let mut at_of: BTreeMap<u64, At> = BTreeMap::new();
        let mut trace = Vec::new();
        for (index, (at, event)) in log.iter().enumerate() {
            // Those at the door since the last event, for longer than it takes to get in.
            let settled = |n: &u64| {
                log[..index].iter().any(|(since, event)| *event == Event::Called(*n) && *since + self.settle <= *at)
            };
            let waiting: Vec<u64> =
                at_of.iter().filter(|(n, at)| **at == At::Door && settled(n)).map(|(n, _)| *n).collect();
            for number in waiting {
                at_of.insert(number, At::Queue);
                trace.push((index, *at, Call::Queued));
            }
            let call = match event {
                Event::Called(number) => {
                    at_of.insert(*number, At::Door);
                    continue;
                }
                Event::Arrived(request) => match at_of.insert(request.number, At::Inside) {
                    Some(At::Queue) => Call::Admitted,
                    _ => Call::Entered,
                },
                Event::Answered(..) | Event::Abandoned(_) => Call::Left,
                Event::Told(number, _) => match at_of.remove(number) {
                    Some(At::Door) => Call::Rejected,
                    Some(At::Queue) => Call::Abandoned,
                    _ => continue,
                },
            };
            trace.push((index, *at, call));
        }
        let end = log.len();
        let now = stand.upstream.now();
        trace.extend(at_of.values().filter(|at| **at == At::Door).map(|_| (end, now, Call::Queued)));
        trace
    }
}
