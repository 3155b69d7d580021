//! The slot of a run: a keeper without a server, whose leases own temporary directories, processes and containers of
//! tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::data::{KeptThing, Launch, Main};
use super::lease::Attached;
use super::slot::Slot;
use super::sweep::CONTAINERS;
use super::{CORE_HOOK, base};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Run, fnv};

/// How long the first user of a run may take to start its keeper.
const LIMIT: Duration = Duration::from_secs(60);

/// This process' part of the run slot.
#[derive(Debug, Clone)]
pub(crate) struct RunSlot {
    attached: Attached,
}

impl RunSlot {
    /// Attaches to the slot of this run and this binary, starting its keeper if nobody has. Blocking, some milliseconds.
    pub(crate) fn attach() -> CoreResult<Self> {
        let binary = std::env::current_exe().unwrap_or_default();
        let key =
            format!("{}-{:08x}", Run::current().id().to_lowercase(), fnv(binary.as_os_str().as_encoded_bytes()) >> 32);
        let slot = Slot::open("run", &key)?;
        if let Some(attached) = slot.attach_blocking()? {
            return Ok(Self { attached });
        }
        let start = slot.lock_blocking(LIMIT)?;
        if let Some(attached) = slot.attach_blocking()? {
            return Ok(Self { attached });
        }
        start.launch_blocking(&Launch::new(CORE_HOOK, Main::Nothing))?;
        Ok(Self { attached: start.publish(BTreeMap::new())? })
    }

    /// The name under which processes and containers of this process are owned: slot directory, `/`, lease.
    pub(crate) fn owner(&self) -> String {
        format!("{}/{}", self.attached.slot.display(), self.attached.lease)
    }

    /// The slot's directory.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.attached.slot
    }

    /// Notes that this lease may own containers, so that its end asks the engine for them.
    pub(crate) fn note_container(&self) -> CoreResult {
        let dir = self.attached.slot.join(CONTAINERS);
        base::create_dir(&dir)?;
        Ok(std::fs::write(dir.join(self.attached.lease.as_str()), "")?)
    }

    /// True once this lease may own containers.
    #[cfg(feature = "checks")]
    pub(crate) fn may_own_containers(&self) -> bool {
        self.attached.slot.join(CONTAINERS).join(self.attached.lease.as_str()).exists()
    }

    /// A fresh directory that goes when this process ends.
    pub(crate) fn temp_dir(&self) -> CoreResult<PathBuf> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tmp = self.attached.slot.join("tmp");
        let own = tmp.join(self.attached.lease.as_str());
        base::create_dir(&tmp)?;
        base::create_dir(&own)?;
        let dir = own.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&dir).map_err(|error| {
            Error::new(ErrorKind::Io, format!("could not make the directory {}", dir.display())).caused_by(error)
        })?;
        Ok(dir)
    }

    /// Keeps a temporary directory for `HARNESS_KEEP`.
    pub(crate) fn keep_dir(&self, dir: &std::path::Path) -> CoreResult {
        let path = dir.display().to_string();
        self.attached.keep(&KeptThing::new("dir", path.clone(), path))
    }
}
