//! Containers of this process, by the label of their owner.

use super::{Listing, Register};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::{LEASE_LABEL, RunSlot};
use crate::service::engine;

/// Containers that carry the lease of this process. No engine is asked where this process never made a container.
pub(super) struct Containers;

impl Register for Containers {
    fn name(&self) -> String {
        "containers".to_owned()
    }

    fn is_of_process(&self) -> bool {
        true
    }

    fn list(&self) -> Listing<'_> {
        Box::pin(async {
            let listed = tokio::task::spawn_blocking(|| -> CoreResult<Vec<String>> {
                let slot = RunSlot::attach()?;
                match slot.may_own_containers() {
                    true => engine::labelled(LEASE_LABEL, &slot.owner()),
                    false => Ok(Vec::new()),
                }
            });
            let cut = |error| Error::new(ErrorKind::Io, "the listing was cut short").caused_by(error);
            Ok(listed.await.map_err(cut)??.into_iter().collect())
        })
    }
}
