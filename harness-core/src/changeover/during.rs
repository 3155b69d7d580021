//! A health endpoint before, during and after a fault.

use std::future::Future;
use std::time::Duration;

use harness_props::Outcome;
use harness_props::history::health::Health;

use super::Polling;
use crate::error::CoreResult;
use crate::fault::{Fault, inject};
use crate::wait::pause;

/// How often it is asked in the time it has to notice a change.
const ASKED: u32 = 5;

/// Whether a health endpoint says what is true: healthy for `phase`, not healthy for `phase` while this fault is injected, and healthy
/// again for `phase`; a change may be noticed `within` so long, and `phase` is stretched to twice that. What is said while the fault
/// is being injected or healed does not count. A fault that never bit leaves no evidence.
///
/// # Errors
/// Those of the fault.
pub async fn health_during<R>(
    fault: impl Fault + 'static,
    within: Duration,
    phase: Duration,
    ask: impl Fn() -> R + Send + 'static,
) -> CoreResult<Outcome>
where
    R: Future<Output = bool> + Send + 'static,
{
    let name = fault.name();
    let phase = phase.max(within * 2);
    let mut health = Health::new(within);
    let polling = Polling::start((within / ASKED).max(Duration::from_millis(1)), ask);
    health.truth(Duration::ZERO, true);
    pause(phase).await;
    let breaking = polling.now();
    let broken = inject(fault).await?;
    let since = polling.now();
    health.truth(since, false);
    pause(phase).await;
    let mending = polling.now();
    let bites = broken.heal().await?;
    let healed = polling.now();
    health.truth(healed, true);
    pause(phase).await;
    for (at, is_healthy) in polling.stop().await {
        if !(breaking..since).contains(&at) && !(mending..healed).contains(&at) {
            health.said(at, is_healthy);
        }
    }
    let bit = bites.outcome(&name);
    Ok(if bit.is_pass() { health.outcome() } else { bit })
}
