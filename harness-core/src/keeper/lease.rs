//! Leases: a file lock per process and slot that the kernel releases on any death.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::data::{Kept, KeptThing, Phase, ServerState, now_ms, read_json, write_json};
use super::{lock, sweep};
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{process_name, test_name};
use crate::service::ProcessId;

/// How many things of failed tests one server keeps.
pub const KEPT_MOST: usize = 20;

/// The name of a lease: letters and digits only, unique on this machine since its boot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(String);

impl LeaseId {
    /// A lease's name from its text, if it can be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            !text.is_empty() && text.len() <= 48 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn next() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = ProcessId::own();
        Self(format!("{}t{}n{}", own.pid, own.start, COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a lease file says about its holder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseNote {
    /// The process that holds it.
    pub process: ProcessId,
    /// The `cargo` or `cargo-nextest` that started it: while it lives, another test may follow.
    pub runner: Option<ProcessId>,
    /// The test that took it.
    pub test: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl LeaseNote {
    fn own() -> Self {
        let parent = std::os::unix::process::parent_id();
        let is_runner = process_name(parent).is_some_and(|name| matches!(&*name, "cargo" | "cargo-nextest"));
        let runner = is_runner.then(|| ProcessId::of(parent)).flatten();
        Self { process: ProcessId::own(), runner, test: test_name(), since_ms: now_ms() }
    }
}

/// A lease this process holds until it ends.
struct Held {
    slot: PathBuf,
    keeper: ProcessId,
    id: LeaseId,
    _lock: File,
}

/// The leases of this process by slot. Only files: the kernel needs no destructor to release them.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

/// The lease of this process on a slot of this keeper: the one it holds, else a new one.
/// `None` when the slot is gone.
pub(crate) fn hold(slot: &Path, keeper: ProcessId) -> CoreResult<Option<LeaseId>> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(held) = held.iter().find(|held| held.slot == slot && held.keeper == keeper) {
        return Ok(Some(held.id.clone()));
    }
    let id = LeaseId::next();
    let path = slot.join("leases").join(id.as_str());
    match take(&path) {
        Ok(lock) => {
            held.retain(|held| held.slot != slot);
            held.push(Held { slot: slot.to_owned(), keeper, id: id.clone(), _lock: lock });
            Ok(Some(id))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Error::new(ErrorKind::Io, format!("could not take the lease {}", path.display())).caused_by(error))
        }
    }
}

/// Gives a lease back that turned out to be worth nothing.
pub(crate) fn release(slot: &Path) {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held.slot != slot);
}

/// The file appears under its name already locked: a keeper that looks never takes it for abandoned.
fn take(path: &Path) -> std::io::Result<File> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}"));
    let lock = lock::try_exclusive(&fresh)?.ok_or_else(|| std::io::Error::other("a fresh file is locked"))?;
    let note = serde_json::to_vec(&LeaseNote::own()).map_err(std::io::Error::other)?;
    std::io::Write::write_all(&mut &lock, &note)?;
    std::fs::rename(&fresh, path)?;
    Ok(lock)
}

/// A slot's server, attached to. It lives at least as long as this process.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attached {
    /// Where the server listens; port 0 when the slot has no server.
    pub address: SocketAddr,
    /// What its starter found out about it.
    pub facts: BTreeMap<String, String>,
    /// The lease of this process: put it into the names of what you make on the server.
    pub lease: LeaseId,
    /// The slot's directory.
    pub slot: PathBuf,
    /// The server's output.
    pub log: PathBuf,
    /// The server's keeper.
    pub keeper: ProcessId,
}

impl Attached {
    /// True while the keeper lives and its server runs, as far as the keeper has seen. One look at two files.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let state: Option<ServerState> = read_json(&self.slot.join("state.json")).ok().flatten();
        let runs = state.is_some_and(|state| state.keeper == self.keeper && state.phase == Phase::Running);
        runs && self.keeper.is_alive()
    }

    /// Keeps a thing, and the server with it, for `HARNESS_KEEP` from now. Nothing happens when that is zero. At most
    /// [`KEPT_MOST`] things are kept at a time: the oldest goes first.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when it cannot be noted; then it will not be kept.
    pub fn keep(&self, what: &KeptThing) -> CoreResult {
        let keep = Settings::get().keep;
        if keep.is_zero() {
            return Ok(());
        }
        self.keep_for(what, now_ms().saturating_add(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX)))
    }

    fn keep_for(&self, what: &KeptThing, until_ms: u64) -> CoreResult {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let kept = Kept { thing: what.clone(), lease: self.lease.clone(), test: test_name(), until_ms };
        self.make_room();
        let name = format!("{}-{}.json", self.lease, COUNT.fetch_add(1, Ordering::Relaxed));
        write_json(&self.slot.join("kept").join(name), &kept)
    }

    /// Gives up the oldest kept things when there are too many. Two who do so at once may give up one too many.
    fn make_room(&self) {
        let mut kept = sweep::kept_in(&self.slot);
        kept.sort_by_key(|(_, kept)| kept.until_ms);
        let many = (kept.len() + 1).saturating_sub(KEPT_MOST);
        for (file, _) in kept.into_iter().take(many) {
            // Already gone is gone.
            let _ = std::fs::remove_file(self.slot.join("kept").join(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Attached, KEPT_MOST, LeaseId};
    use crate::keeper::{KeptThing, data::nowhere, sweep};
    use crate::service::ProcessId;

    #[test]
    fn oldest_kept_thing_makes_room_for_a_new_one() {
        let slot = std::env::temp_dir().join(format!("harness-kept-{}", std::process::id()));
        std::fs::create_dir_all(slot.join("kept")).unwrap();
        let attached = Attached {
            address: nowhere(),
            facts: Default::default(),
            lease: LeaseId::next(),
            slot: slot.clone(),
            log: slot.join("server.log"),
            keeper: ProcessId::own(),
        };
        for n in 0..KEPT_MOST + 3 {
            attached.keep_for(&KeptThing::new("database", format!("d{n}"), "url"), 1_000 + n as u64).unwrap();
        }
        let kept = sweep::kept_in(&slot);
        std::fs::remove_dir_all(&slot).unwrap();
        assert_eq!(kept.len(), KEPT_MOST);
        assert!(kept.iter().all(|(_, kept)| !["d0", "d1", "d2"].contains(&&*kept.thing.name)), "{kept:?}");
    }
}
