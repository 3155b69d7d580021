//! Ending what killed keepers left, and counting what is there. By lock and lease, never by age; nothing of a living
//! keeper or starter is touched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::data::{Kept, Phase, Ready, ServerIdentity, ServerState, read_json};
use super::{LeaseId, LeaseNote, Left, base, hook, lock, memory};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::process::owned_by;
use crate::service::{ProcessId, Signal, engine, forget_dead_ports};
use crate::wait::{Progress, wait_for_blocking};

/// Label of every container: the directory of the slot that owns it.
pub(crate) const SLOT_LABEL: &str = "harness.slot";
/// Label of a container that belongs to one lease: slot directory, `/`, lease.
pub(crate) const LEASE_LABEL: &str = "harness.lease";

/// Directory of a slot that may own containers; in it a file per lease that may.
pub(crate) const CONTAINERS: &str = "containers";

/// Killed processes are given this long to disappear.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// What [`sweep`] shall end besides leftovers.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct SweepOptions {
    /// Kept things of living servers, too: their keepers end them at their next look.
    pub kept: bool,
}

impl SweepOptions {
    /// Also ends kept things.
    #[must_use]
    pub fn kept(mut self, kept: bool) -> Self {
        self.kept = kept;
        self
    }
}

/// What [`sweep`] did.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// Slots that were left behind and are gone now.
    pub swept: Vec<String>,
    /// Kept things that were given up.
    pub given_up: Vec<Kept>,
    /// Slots with a living keeper or starter.
    pub live: Vec<String>,
    /// Slots that could not be swept, and why.
    pub failed: Vec<(String, String)>,
}

/// Everything the harness has on this machine for this user.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Census {
    /// The slots, by name.
    pub slots: Vec<SlotCensus>,
}

/// One slot as found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SlotCensus {
    /// Its name: kind, `-`, key.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// True while a keeper or a starter lives in it.
    pub live: bool,
    /// The keeper, if it said so.
    pub keeper: Option<ProcessId>,
    /// How far it is.
    pub phase: Option<Phase>,
    /// Where the server listens.
    pub address: Option<SocketAddr>,
    /// Its leases.
    pub leases: Vec<LeaseCensus>,
    /// What is kept, and until when.
    pub kept: Vec<Kept>,
    /// Leftovers: what belongs to no living lease and is not kept.
    pub left: Vec<Left>,
    /// Why the list of leftovers may be incomplete.
    pub problem: Option<String>,
}

/// One lease as found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LeaseCensus {
    /// Its name.
    pub id: LeaseId,
    /// True while its process lives.
    pub held: bool,
    /// What it says about its holder.
    pub note: Option<LeaseNote>,
}

impl Census {
    /// Every leftover, with the slot it is in.
    pub fn leftovers(&self) -> impl Iterator<Item = (&str, &Left)> {
        self.slots.iter().flat_map(|slot| slot.left.iter().map(|left| (&*slot.name, left)))
    }
}

/// Ends what dead keepers left, in every slot of this user.
///
/// # Errors
/// [`ErrorKind::Environment`] when the state directory cannot be used. What a single slot refuses is in the report.
pub fn sweep(options: SweepOptions) -> CoreResult<SweepReport> {
    let mut report = SweepReport::default();
    for (name, dir) in slots()? {
        match sweep_slot(&dir) {
            Ok(true) => report.swept.push(name),
            Ok(false) => {
                if options.kept {
                    for (file, kept) in kept_in(&dir) {
                        if std::fs::remove_file(dir.join("kept").join(file)).is_ok() {
                            report.given_up.push(kept);
                        }
                    }
                }
                report.live.push(name);
            }
            Err(error) => report.failed.push((name, format!("{error:?}"))),
        }
    }
    forget_dead_ports(base::dir()?);
    Ok(report)
}

/// Sweeps every slot but one, for a start that has better things to do than to fail over it.
pub(crate) fn sweep_others(own: &Path) {
    for (name, dir) in slots().unwrap_or_default().into_iter().filter(|(_, dir)| dir != own) {
        if let Err(error) = sweep_slot(&dir) {
            eprintln!("harness: slot {name} was left behind and could not be swept: {error}");
        }
    }
}

/// Lists slots, leases, kept things and leftovers. Changes nothing.
///
/// # Errors
/// [`ErrorKind::Environment`] when the state directory cannot be used.
pub fn census() -> CoreResult<Census> {
    let slots = slots()?.into_iter().filter(|(name, _)| !name.starts_with('.'));
    Ok(Census { slots: slots.map(|(name, dir)| look_at(name, dir)).collect() })
}

fn slots() -> CoreResult<Vec<(String, PathBuf)>> {
    let dir = base::slots()?;
    let mut slots: Vec<_> = std::fs::read_dir(&dir)
        .map_err(|error| base::unusable(&dir, error))?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    slots.sort();
    Ok(slots)
}

/// True when the slot was left behind and is gone now, false when it lives.
fn sweep_slot(dir: &Path) -> CoreResult<bool> {
    let (keeper, start) = (dir.join("keeper.lock"), dir.join("start.lock"));
    // Looking first keeps us off the start lock of a living slot, whose keeper would take us for somebody who comes.
    if lock::is_held(&keeper) || lock::is_held(&start) {
        return Ok(false);
    }
    let start_lock = match lock::try_exclusive(&start) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(base::unusable(&start, error)),
    };
    if lock::is_held(&keeper) {
        return Ok(false);
    }
    end_leftovers(dir)?;
    remove(dir)?;
    drop(start_lock);
    Ok(true)
}

/// Ends every process and container a dead keeper of this slot left. The caller holds the start lock.
pub(crate) fn end_leftovers(dir: &Path) -> CoreResult {
    let state = read_json::<ServerState>(&dir.join("state.json")).unwrap_or_default();
    if let Some(ServerIdentity::Process(process)) = state.as_ref().map(|state| &state.server) {
        process.signal_group(Signal::Kill);
    }
    end_owned(&format!("{}/", dir.display()), |owner, prefix| owner.starts_with(prefix))?;
    if dir.join(CONTAINERS).exists() {
        engine::remove_labelled(SLOT_LABEL, &dir.to_string_lossy())?;
    }
    Ok(())
}

/// Kills the processes whose owner satisfies the predicate, and waits until they are gone.
pub(crate) fn end_owned(owner: &str, fits: fn(&str, &str) -> bool) -> CoreResult<Vec<ProcessId>> {
    let mut ended = Vec::new();
    wait_for_blocking(format!("the processes of {owner} to be gone"), GONE_LIMIT, || {
        let living = owned_by(|found| fits(found, owner));
        for process in &living {
            process.signal(Signal::Kill);
            if !ended.contains(process) {
                ended.push(*process);
            }
        }
        match living.as_slice() {
            [] => Progress::Ready(()),
            living => Progress::NotYet(format!("{living:?} live")),
        }
    })?;
    Ok(ended)
}

/// Removes a slot's directory. It vanishes at once: nobody finds half of it.
pub(crate) fn remove(dir: &Path) -> CoreResult {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let gone = if name.starts_with('.') {
        dir.to_owned()
    } else {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let gone = dir.with_file_name(format!(".gone-{name}-{}-{n}", std::process::id()));
        match std::fs::rename(dir, &gone) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        gone
    };
    let lent = memory::take_back(&gone);
    match lent.and_then(|()| std::fs::remove_dir_all(&gone)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::Io, format!("could not remove {}", gone.display())).caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Removes everything in a directory but what the predicate names.
pub(crate) fn empty(dir: &Path, keep: impl Fn(&str) -> bool) -> CoreResult {
    memory::take_back(dir)?;
    for entry in std::fs::read_dir(dir)?.flatten() {
        if keep(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::Io, format!("could not remove {}", path.display())).caused_by(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The leases in a slot, with whether they are held.
pub(crate) fn leases_in(dir: &Path) -> Vec<(LeaseId, bool)> {
    let Ok(entries) = std::fs::read_dir(dir.join("leases")) else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| LeaseId::parse(&entry.file_name().to_string_lossy()));
    ids.map(|id| (lock::is_held(&dir.join("leases").join(id.as_str())), id)).map(|(held, id)| (id, held)).collect()
}

/// The kept things of a slot, with their files.
pub(crate) fn kept_in(dir: &Path) -> Vec<(String, Kept)> {
    let Ok(entries) = std::fs::read_dir(dir.join("kept")) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| Some((name.clone(), read_json(&dir.join("kept").join(&name)).ok()??)))
        .collect()
}

fn look_at(name: String, dir: PathBuf) -> SlotCensus {
    let live = lock::is_held(&dir.join("keeper.lock")) || lock::is_held(&dir.join("start.lock"));
    let mut problems = Vec::new();
    let state = read_json::<ServerState>(&dir.join("state.json")).unwrap_or_else(|error| {
        problems.push(error.to_string());
        None
    });
    let leases: Vec<_> = leases_in(&dir)
        .into_iter()
        .map(|(id, held)| LeaseCensus {
            note: read_json(&dir.join("leases").join(id.as_str())).ok().flatten(),
            id,
            held,
        })
        .collect();
    let kept: Vec<_> = kept_in(&dir).into_iter().map(|(_, kept)| kept).collect();
    let is_free = |lease: &LeaseId| !leases.iter().any(|found| found.held && found.id == *lease);
    let mut left = Vec::new();
    if !live {
        left.push(Left::new("slot", name.clone(), None));
    }
    let prefix = format!("{}/", dir.display());
    for process in owned_by(|owner| owner.starts_with(&prefix) && (!live || owner_is_free(owner, &prefix, &is_free))) {
        left.push(Left::new("process", process.pid.to_string(), None));
    }
    if let (true, Some(state)) = (live, &state) {
        let server = with_facts(state, &dir);
        for custodian in hook::custodians(&state.hook) {
            match custodian.list(&server) {
                Ok(found) => {
                    left.extend(found.into_iter().filter(|left| {
                        left.lease.as_ref().is_some_and(&is_free) && !server.keeps(&left.kind, &left.name)
                    }))
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        if hook::custodians(&state.hook).is_empty() && state.hook != hook::CORE_HOOK {
            problems.push(format!("this binary has no custodian of `{}`", state.hook));
        }
    }
    SlotCensus {
        live,
        keeper: state.as_ref().map(|state| state.keeper),
        phase: state.as_ref().map(|state| state.phase),
        address: state.as_ref().map(|state| state.address).filter(|address| address.port() != 0),
        leases,
        kept,
        left,
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        name,
        dir,
    }
}

/// An owner `<slot>/<lease>` whose lease nobody holds. `<slot>/server` belongs to the keeper itself.
fn owner_is_free(owner: &str, prefix: &str, is_free: &impl Fn(&LeaseId) -> bool) -> bool {
    let Some(name) = owner.strip_prefix(prefix) else { return false };
    name != "server" && LeaseId::parse(name).is_none_or(|lease| is_free(&lease))
}

/// The state as custodians want it: with what the starter found out and with what is kept.
pub(crate) fn with_facts(state: &ServerState, dir: &Path) -> ServerState {
    let ready = read_json::<Ready>(&dir.join("ready.json")).ok().flatten();
    ServerState {
        facts: ready.map(|ready| ready.facts).unwrap_or_default(),
        kept: kept_in(dir).into_iter().map(|(_, kept)| kept).collect(),
        ..state.clone()
    }
}
