//! Ending a living slot because a person asked for it.

use std::time::Duration;

use super::{SlotCensus, sweep};
use crate::error::CoreResult;
use crate::service::Signal;
use crate::wait::{Progress, wait_for_blocking};

/// A server may take this long to stop in good order.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks the keeper of this slot to end its server and waits until it has. Tests that still use it lose it.
///
/// # Errors
/// [`crate::ErrorKind::Timeout`] when the keeper does not end; what a dead keeper left is swept instead.
pub fn end_slot(slot: &SlotCensus) -> CoreResult {
    let Some(keeper) = slot.keeper else { return sweep(super::SweepOptions::default()).map(drop) };
    keeper.signal(Signal::Term);
    wait_for_blocking(format!("the keeper of {} to end", slot.name), LIMIT, || match keeper.is_alive() {
        true => Progress::NotYet("it runs".to_owned()),
        false => Progress::Ready(()),
    })?;
    sweep(super::SweepOptions::default()).map(drop)
}
