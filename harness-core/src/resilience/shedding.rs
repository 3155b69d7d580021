//! Load shedding.

use std::time::Duration;

use harness_props::Outcome;

use super::found::{Found, expect};
use super::stand::{Stand, System};
use super::upstream::{Answer, Told, Upstream};
use crate::error::CoreResult;

/// How much of an overload is core work, as a share of what the system bears: it must all be served.
const CORE_SHARE: usize = 2;

/// Whether a system that bears so many calls at once keeps its core work up under overload, turns the rest away at once, and
/// turns nothing away otherwise.
///
/// `make` gives a fresh system in front of an upstream.
#[derive(Debug)]
#[must_use = "a suite tests nothing until it is run"]
pub struct SheddingSuite<F> {
    bears: usize,
    make: F,
    work: Duration,
    at_once: Duration,
}

/// What became of one kind of calls.
#[derive(Debug, Default)]
struct Kind {
    made: usize,
    served: usize,
    refused: usize,
    slowest: Duration,
    slowest_refusal: Duration,
}

impl<F: AsyncFn(Upstream) -> CoreResult<System>> SheddingSuite<F> {
    /// A suite for a system that bears so many calls at once, each of 200 ms; a refusal may take half of that.
    pub fn new(bears: usize, make: F) -> Self {
        let work = Duration::from_millis(200);
        Self { bears: bears.max(2), make, work, at_once: work / 2 }
    }

    /// How long the upstream works on a call, and how long a refusal may take.
    pub fn times(self, work: Duration, at_once: Duration) -> Self {
        Self { work, at_once, ..self }
    }

    /// Makes every check, each with a system of its own.
    ///
    /// # Errors
    /// Those of making a system.
    pub async fn run(&self) -> CoreResult<Found> {
        let (calm, share) = (self.stand().await?, self.bears / CORE_SHARE);
        // One kind after the other: which of them yields is asked under overload only.
        let calm = (self.wave(calm.clone(), share, 0).await.0, self.wave(calm, 0, share).await.1);
        let stand = self.stand().await?;
        let (core, rest) = self.wave(stand.clone(), share, self.bears * 3).await;
        stand.upstream.wait(self.work * 2).await;
        let after = self.wave(stand, share, 0).await.0;
        let is_shed = rest.refused > 0;
        let shed = |outcome: Outcome| if is_shed { outcome } else { Outcome::no_evidence("nothing was turned away") };
        let all =
            |kind: &Kind| format!("{} of {} were served, the slowest in {:?}", kind.served, kind.made, kind.slowest);
        let (made, served) = (calm.0.made + calm.1.made, calm.0.served + calm.1.served);
        let slowest = rest.slowest_refusal;
        Ok(Found::new(
            "load shedding",
            [
                (
                    "turns nothing away that it can bear",
                    expect(served == made, format!("{served} of {made} were served")),
                ),
                (
                    "turns away what it cannot bear",
                    expect(is_shed, format!("{} of {} were turned away", rest.refused, rest.made)),
                ),
                ("serves its core work all the same", shed(expect(core.served == core.made, all(&core)))),
                ("goes on working under overload", shed(expect(rest.served * 4 >= self.bears, all(&rest)))),
                (
                    "turns away at once",
                    shed(expect(slowest <= self.at_once, format!("the slowest refusal took {slowest:?}"))),
                ),
                ("turns nothing away once the overload is over", shed(expect(after.served == after.made, all(&after)))),
            ],
        ))
    }

    async fn stand(&self) -> CoreResult<Stand> {
        let upstream = Upstream::new();
        let system = (self.make)(upstream.clone()).await?;
        upstream.usually(Answer::Ok(self.work));
        Ok(Stand::new(upstream, system, self.work.saturating_mul(50)))
    }

    /// So many calls of core work and so many others, the others first, all at once.
    async fn wave(&self, stand: Stand, core: usize, rest: usize) -> (Kind, Kind) {
        let mut calls = Vec::new();
        for n in 0..core + rest {
            let mut request = stand.request();
            request.is_core = n >= rest;
            let (stand, is_core) = (stand.clone(), request.is_core);
            calls.push(tokio::spawn(async move {
                let begun = stand.upstream.now();
                let told = stand.send(request).await;
                (is_core, told, stand.upstream.now() - begun)
            }));
        }
        let (mut of_core, mut of_rest) = (Kind::default(), Kind::default());
        for (is_core, told, took) in futures_util::future::join_all(calls).await.into_iter().flatten() {
            let kind = if is_core { &mut of_core } else { &mut of_rest };
            kind.made += 1;
            match told {
                Told::Ok => {
                    kind.served += 1;
                    kind.slowest = kind.slowest.max(took);
                }
                Told::Refused(_) => {
                    kind.refused += 1;
                    kind.slowest_refusal = kind.slowest_refusal.max(took);
                }
                _ => {}
            }
        }
        (of_core, of_rest)
    }
}
