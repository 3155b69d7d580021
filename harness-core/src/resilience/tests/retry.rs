//! Retries on virtual time, with defects to choose from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness_props::model::retry::{Jitter, Retry};

use super::{all_green, only_red};
use crate::resilience::{Failure, Found, Request, RetrySuite, System, Told, Upstream};
use crate::run::Seed;
use crate::wait::pause;

const ATTEMPTS: u32 = 4;
const BASE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    NeverRetries,
    GivesUpEarly,
    NeverGivesUp,
    SaysDone,
    DoesNotGrow,
    NoJitter,
    RetriesWhatCannotBeHelped,
    RetriesWhatMustNotBeDoneTwice,
    NewKeyEachTime,
    IgnoresRetryAfter,
}

async fn call(defect: Defect, draws: Arc<AtomicU64>, upstream: Upstream, mut request: Request) -> Told {
    let attempts = match defect {
        Defect::NeverRetries => 1,
        Defect::GivesUpEarly => ATTEMPTS - 1,
        Defect::NeverGivesUp => 1_000,
        _ => ATTEMPTS,
    };
    for attempt in 1..=attempts {
        let Err(failure) = upstream.serve(&request).await else { return Told::Ok };
        let helps = failure.is_retryable || defect == Defect::RetriesWhatCannotBeHelped;
        let may = request.may_be_repeated() || defect == Defect::RetriesWhatMustNotBeDoneTwice;
        if !helps || !may || attempt == attempts {
            break;
        }
        pause(wait(defect, attempt, &draws, failure)).await;
        if defect == Defect::NewKeyEachTime && request.idempotency_key.is_some() {
            request.idempotency_key = Some(format!("attempt-{attempt}"));
        }
    }
    if defect == Defect::SaysDone { Told::Ok } else { Told::Failed("upstream".to_owned()) }
}

/// Half of the pause and a drawn part of the other half.
fn wait(defect: Defect, attempt: u32, draws: &AtomicU64, failure: Failure) -> Duration {
    let times = if defect == Defect::DoesNotGrow { 1 } else { 1 << (attempt - 1).min(5) };
    let most = BASE * times;
    let draw = Seed::new(draws.fetch_add(1, Ordering::Relaxed)).stream("jitter").next_u64() % 1_000;
    let part = if defect == Defect::NoJitter { 1_000 } else { draw as u32 };
    let pause = most / 2 + most / 2 * part / 1_000;
    let asked = failure.retry_after.filter(|_| defect != Defect::IgnoresRetryAfter);
    pause.max(asked.unwrap_or_default())
}

async fn found(defect: Defect) -> Found {
    let draws = Arc::<AtomicU64>::default();
    let make = async |upstream: Upstream| {
        let draws = Arc::clone(&draws);
        Ok(System::new(move |request| call(defect, Arc::clone(&draws), upstream.clone(), request)))
    };
    let suite = RetrySuite::new(Retry::new(ATTEMPTS, BASE), make).jitter(Jitter::Equal);
    suite.tolerance(Duration::from_millis(5)).run().await.unwrap_or_else(|error| panic!("{error:?}"))
}

#[tokio::test(start_paused = true)]
async fn sound_retry_passes_every_check() {
    all_green(&found(Defect::None).await);
}

#[tokio::test(start_paused = true)]
async fn each_defect_of_a_retry_fails_exactly_its_own_check() {
    for (defect, check) in [
        (Defect::NeverGivesUp, "gives up after its attempts"),
        (Defect::SaysDone, "gives up after its attempts"),
        (Defect::DoesNotGrow, "pauses as long as it should"),
        (Defect::NoJitter, "spreads its pauses"),
        (Defect::RetriesWhatCannotBeHelped, "does not repeat what cannot be helped"),
        (Defect::RetriesWhatMustNotBeDoneTwice, "does not repeat what must not be done twice"),
        (Defect::NewKeyEachTime, "keeps the key of what it repeats"),
        (Defect::IgnoresRetryAfter, "waits as long as it is asked to"),
    ] {
        only_red(&found(defect).await, check, defect);
    }
}

#[tokio::test(start_paused = true)]
async fn too_few_attempts_fail_where_they_are_counted_and_prove_nothing_elsewhere() {
    for defect in [Defect::NeverRetries, Defect::GivesUpEarly] {
        let found = found(defect).await;
        assert_eq!(found.failed(), ["tries again until it succeeds", "gives up after its attempts"], "{found}");
        let pauses = found.checks.iter().find(|(check, _)| *check == "pauses as long as it should");
        assert!(pauses.is_some_and(|(_, outcome)| outcome.is_no_evidence()), "{found}");
    }
}
