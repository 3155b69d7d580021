//! Ends what dead leases left, on a thread of its own: a server that does not answer must not stop the keeper.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::data::ServerState;
use super::run::say;
use super::sweep::{CONTAINERS, LEASE_LABEL, end_owned};
use super::{Custodian, LeaseId, Left};
use crate::error::CoreResult;
use crate::service::engine;
use crate::wait::{aside, pause_blocking};

/// How often ending a lease's leavings is tried.
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Ender {
    custodians: &'static [&'static dyn Custodian],
    jobs: Sender<(LeaseId, ServerState)>,
    ended: Arc<Mutex<BTreeSet<LeaseId>>>,
}

impl Ender {
    pub(super) fn start(dir: &Path, custodians: &'static [&'static dyn Custodian]) -> CoreResult<Self> {
        let (jobs, incoming) = channel::<(LeaseId, ServerState)>();
        let ended = Arc::new(Mutex::new(BTreeSet::new()));
        let (dir, done) = (dir.to_owned(), Arc::clone(&ended));
        std::thread::Builder::new().name("harness-ender".to_owned()).spawn(move || {
            for (lease, server) in incoming {
                for n in 1..=TRIES {
                    match end(&dir, custodians, &server, &lease) {
                        Ok(left) => {
                            say(&dir, &format!("ended lease {lease}: {left:?}"));
                            break;
                        }
                        Err(error) => say(&dir, &format!("try {n} to end lease {lease}: {error:?}")),
                    }
                    pause_blocking(PAUSE);
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).insert(lease);
            }
        })?;
        Ok(Self { custodians, jobs, ended })
    }

    pub(super) fn end(&self, lease: LeaseId, server: ServerState) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
        // The thread ends only with the process.
        let _ = self.jobs.send((lease, server));
    }

    /// Lets every custodian serve, each on a thread of its own.
    pub(super) fn attend(&self, server: &ServerState) -> CoreResult {
        for custodian in self.custodians {
            let server = server.clone();
            aside("harness-attendant", move || {
                if let Err(error) = custodian.attend(&server) {
                    say(&server.slot, &format!("cannot serve: {error:?}"));
                }
            })?;
        }
        Ok(())
    }

    /// Says good-bye for every custodian.
    pub(super) fn leave(&self, server: &ServerState) {
        for custodian in self.custodians {
            if let Err(error) = custodian.leave(server) {
                say(&server.slot, &format!("left something: {error:?}"));
            }
        }
    }

    pub(super) fn ended(&self) -> BTreeSet<LeaseId> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn end(dir: &Path, custodians: &[&dyn Custodian], server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
    let mut left = Vec::new();
    let owner = format!("{}/{lease}", dir.display());
    for process in end_owned(&owner, |found, owner| found == owner)? {
        left.push(Left::new("process", process.pid.to_string(), Some(lease.clone())));
    }
    let containers = dir.join(CONTAINERS).join(lease.as_str());
    if containers.exists() {
        for id in engine::remove_labelled(LEASE_LABEL, &owner)? {
            left.push(Left::new("container", id, Some(lease.clone())));
        }
        std::fs::remove_file(&containers)?;
    }
    left.extend(end_dirs(&dir.join("tmp").join(lease.as_str()), server, lease)?);
    for custodian in custodians {
        left.extend(custodian.end(server, lease)?);
    }
    Ok(left)
}

fn end_dirs(tmp: &Path, server: &ServerState, lease: &LeaseId) -> CoreResult<Vec<Left>> {
    let Ok(entries) = std::fs::read_dir(tmp) else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.display().to_string();
        if !server.keeps("dir", &name) {
            std::fs::remove_dir_all(&path)?;
            left.push(Left::new("dir", name, Some(lease.clone())));
        }
    }
    // Not empty when something in it is kept; then its end comes here again.
    let _ = std::fs::remove_dir(tmp);
    Ok(left)
}
