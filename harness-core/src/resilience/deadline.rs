//! Time limits.

use std::time::Duration;

use harness_props::Outcome;

use super::found::{Found, expect};
use super::stand::{Stand, System};
use super::upstream::{Answer, Event, Told, Upstream};
use crate::error::CoreResult;

/// Whether a time limit ends what takes too long, and only that, and leaves nothing at work behind it.
///
/// `make` gives a fresh system in front of an upstream.
#[derive(Debug)]
#[must_use = "a suite tests nothing until it is run"]
pub struct DeadlineSuite<F> {
    limit: Duration,
    make: F,
    tolerance: Duration,
}

impl<F: AsyncFn(Upstream) -> CoreResult<System>> DeadlineSuite<F> {
    /// A suite for this limit, within a fifth of it.
    pub fn new(limit: Duration, make: F) -> Self {
        Self { limit, make, tolerance: limit / 5 }
    }

    /// How far the system's times may be off.
    pub fn tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }

    /// Makes every check, each with a system of its own.
    ///
    /// # Errors
    /// Those of making a system.
    pub async fn run(&self) -> CoreResult<Found> {
        let (ended, told, left) = self.endless().await?;
        Ok(Found::new(
            "time limit",
            [
                ("ends a call at its limit", ended),
                ("tells the caller that it was not done", told),
                ("leaves nothing at work behind it", left),
                ("lets a call be that ends in time", self.in_time().await?),
                ("serves the next call", self.next().await?),
            ],
        ))
    }

    async fn stand(&self) -> CoreResult<Stand> {
        let upstream = Upstream::new();
        let system = (self.make)(upstream.clone()).await?;
        Ok(Stand::new(upstream, system, self.limit.saturating_mul(5) + self.tolerance))
    }

    /// A call that is never answered.
    async fn endless(&self) -> CoreResult<(Outcome, Outcome, Outcome)> {
        let stand = self.stand().await?;
        stand.upstream.usually(Answer::Hold);
        let (begun, told) = (stand.upstream.now(), stand.call().await);
        let took = stand.upstream.now() - begun;
        if stand.upstream.arrivals().is_empty() {
            let missing = Outcome::no_evidence("the call never reached the upstream");
            return Ok((missing.clone(), missing.clone(), missing));
        }
        stand.upstream.wait(self.tolerance).await;
        let (least, most) = (self.limit.saturating_sub(self.tolerance), self.limit + self.tolerance);
        let said = format!("it took {took:?}, {least:?} to {most:?} are right");
        let missing = || Outcome::no_evidence("it was not ended");
        let is_ended = told != Told::Nothing;
        let was_left = stand.upstream.log().iter().any(|(_, event)| matches!(event, Event::Abandoned(_)));
        Ok((
            expect(is_ended && (least..=most).contains(&took), said),
            if is_ended { expect(told != Told::Ok, format!("{told:?}")) } else { missing() },
            match is_ended {
                true => expect(was_left, if was_left { "its work was given up" } else { "its work goes on" }),
                false => missing(),
            },
        ))
    }

    /// A call that is answered shortly before the limit.
    async fn in_time(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        let takes = self.limit.saturating_sub(self.tolerance * 2);
        stand.upstream.usually(Answer::Ok(takes));
        let told = stand.call().await;
        Ok(expect(told == Told::Ok, format!("a call that takes {takes:?} of {:?} was told {told:?}", self.limit)))
    }

    async fn next(&self) -> CoreResult<Outcome> {
        let stand = self.stand().await?;
        stand.upstream.next([Answer::Hold]);
        if stand.call().await == Told::Nothing {
            return Ok(Outcome::no_evidence("it was not ended"));
        }
        let told = stand.call().await;
        Ok(expect(told == Told::Ok, format!("the call after one that was ended was told {told:?}")))
    }
}
