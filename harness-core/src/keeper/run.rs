//! The keeper at work: looks, asks its state machine, acts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::asked::Asked;
use super::data::{Order, Phase, ServerIdentity, ServerState, Trouble, now_ms, nowhere, read_json, write_json};
use super::ender::Ender;
use super::server::Held;
use super::state::{Action, KeptSeen, Machine, Seen, Server};
use super::{Custodian, LeaseNote, lock, sweep};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::{ProcessId, os};
use crate::wait::{Progress, pause_blocking, wait_for_blocking};

/// Between two looks while nothing is expected.
const CALM: Duration = Duration::from_millis(200);
/// A request to end is heard this soon.
const HEARS: Duration = Duration::from_millis(50);
/// Between two looks while something is.
const RESTLESS: Duration = Duration::from_millis(20);
/// Somebody who only looks may hold our lock for an instant.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// Keeps the slot until its end, and ends the process.
pub(super) fn keep(asked: &Asked, custodians: &'static [&'static dyn Custodian]) -> ! {
    os::shrug_off_signals();
    let slot = asked.slot.as_path();
    let dir = slot.to_owned();
    std::panic::set_hook(Box::new(move |panic| say(&dir, &format!("panic: {panic}"))));
    let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Keeper::begin(asked, custodians).and_then(Keeper::run)
    }));
    let code = match kept {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            say(slot, &format!("{error:?}"));
            1
        }
        Err(_) => 101,
    };
    std::process::exit(code)
}

/// Adds a line to the keeper's log, if it still has one.
pub(super) fn say(slot: &Path, text: &str) {
    // Without a directory nobody can read it: the slot is gone.
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(slot.join("keeper.log")) {
        let _ = writeln!(file, "{} {text}", now_ms());
    }
}

struct Keeper {
    dir: PathBuf,
    begun: Instant,
    machine: Machine,
    state: ServerState,
    server: Held,
    ender: Ender,
    runners: Vec<ProcessId>,
    known: Vec<super::LeaseId>,
    closed: Option<File>,
    _lock: File,
}

impl Keeper {
    fn begin(asked: &Asked, custodians: &'static [&'static dyn Custodian]) -> CoreResult<Self> {
        let dir = asked.slot.as_path();
        let path = dir.join("keeper.lock");
        let lock = wait_for_blocking("the keeper's lock", LOCK_LIMIT, || match lock::try_exclusive(&path) {
            Ok(Some(lock)) => Progress::Ready(lock),
            Ok(None) => Progress::NotYet("another keeper has it".to_owned()),
            Err(error) => Progress::Failed(error.into()),
        })?;
        let order: Option<Order> = read_json(&dir.join("launch.json"))?;
        let launch = order.filter(|order| order.number == asked.order).map(|order| order.launch).ok_or_else(|| {
            Error::new(ErrorKind::Refused, format!("order {} of {} was withdrawn", asked.order, dir.display()))
        })?;
        let state = ServerState {
            hook: launch.hook.clone(),
            slot: dir.to_owned(),
            phase: Phase::Starting,
            keeper: ProcessId::own(),
            server: ServerIdentity::Nothing,
            address: nowhere(),
            log: dir.join("server.log"),
            since_ms: now_ms(),
            exit: None,
            trouble: None,
            facts: BTreeMap::new(),
            kept: Vec::new(),
        };
        write_json(&dir.join("state.json"), &state)?;
        Ok(Self {
            dir: dir.to_owned(),
            begun: Instant::now(),
            machine: Machine::new(launch.linger),
            state,
            ender: Ender::start(dir, custodians)?,
            server: Held::start(dir, launch)?,
            runners: Vec::new(),
            known: Vec::new(),
            closed: None,
            _lock: lock,
        })
    }

    fn run(mut self) -> CoreResult {
        loop {
            let seen = self.look()?;
            for action in self.machine.step(&seen) {
                if self.act(action)? {
                    return Ok(());
                }
            }
            let restless = self.machine.is_restless() || self.closed.is_some();
            let until = Instant::now() + if restless { RESTLESS } else { CALM };
            while Instant::now() < until && !os::asked_to_end() {
                pause_blocking(if restless { RESTLESS } else { HEARS });
            }
        }
    }

    fn look(&mut self) -> CoreResult<Seen> {
        let server = self.look_at_server()?;
        let leases: BTreeMap<_, _> = sweep::leases_in(&self.dir).into_iter().collect();
        for lease in leases.keys().filter(|lease| !self.known.contains(lease)) {
            let note = read_json::<LeaseNote>(&self.dir.join("leases").join(lease.as_str()));
            let runner = note.ok().flatten().and_then(|note| note.runner);
            self.runners.extend(runner.filter(|runner| !self.runners.contains(runner)));
        }
        self.known = leases.keys().cloned().collect();
        self.runners.retain(|runner| runner.is_alive());
        let now = now_ms();
        let kept = sweep::kept_in(&self.dir).into_iter();
        Ok(Seen {
            now: self.begun.elapsed(),
            starter: self.closed.is_none() && lock::is_held(&self.dir.join("start.lock")),
            closed: self.closed.is_some(),
            ready: self.dir.join("ready.json").exists(),
            server,
            leases,
            ended: self.ender.ended(),
            runner: !self.runners.is_empty(),
            kept: kept
                .map(|(file, kept)| (file, KeptSeen { lease: kept.lease, expired: kept.until_ms <= now }))
                .collect(),
            // Somebody who removed our directory by hand wants everything gone.
            asked_to_end: os::asked_to_end() || !self.dir.join("keeper.lock").exists(),
        })
    }

    /// Notices that the server is up, or that it never will be.
    fn look_at_server(&mut self) -> CoreResult<Server> {
        if self.state.phase == Phase::Starting {
            match self.server.started() {
                None => return Ok(Server::Starting),
                Some(Ok((identity, address))) => {
                    self.state.server = identity;
                    self.state.address = address;
                    self.announce(Phase::Running)?;
                    self.ender.attend(&self.state)?;
                }
                Some(Err(error)) => {
                    say(&self.dir, &format!("{error:?}"));
                    self.state.trouble = Some(Trouble::from(&error));
                    self.announce(Phase::Exited)?;
                }
            }
        }
        if self.state.phase == Phase::Exited {
            return Ok(Server::Exited);
        }
        self.state.exit = self.server.exit();
        Ok(if self.state.exit.is_some() { Server::Exited } else { Server::Running })
    }

    fn announce(&mut self, phase: Phase) -> CoreResult {
        self.state.phase = phase;
        self.state.since_ms = now_ms();
        say(&self.dir, &format!("{phase:?} {:?} at {}", self.state.server, self.state.address));
        write_json(&self.dir.join("state.json"), &self.state)
    }

    /// True when it was the last action.
    fn act(&mut self, action: Action) -> CoreResult<bool> {
        match action {
            Action::EndLease(lease) => self.ender.end(lease, sweep::with_facts(&self.state, &self.dir)),
            Action::ForgetLease(lease) => remove_file(&self.dir.join("leases").join(lease.as_str())),
            Action::ForgetKept(file) => remove_file(&self.dir.join("kept").join(file)),
            Action::Close => {
                if let Some(lock) = lock::try_exclusive(&self.dir.join("start.lock"))? {
                    self.closed = Some(lock);
                    self.announce(Phase::Ending)?;
                }
            }
            Action::Reopen => {
                self.announce(Phase::Running)?;
                self.closed = None;
            }
            Action::AnnounceExit if self.state.phase != Phase::Exited => self.announce(Phase::Exited)?,
            Action::AnnounceExit => {}
            Action::Leave => {
                self.leave()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn leave(&mut self) -> CoreResult {
        if self.dir.exists() {
            self.announce(Phase::Ending)?;
        }
        self.ender.leave(&sweep::with_facts(&self.state, &self.dir));
        self.server.end()?;
        sweep::end_leftovers(&self.dir)?;
        // A starter that asked us to end holds the lock and goes on with the directory.
        let lock = match self.closed.take() {
            Some(lock) => Some(lock),
            None => lock::try_exclusive(&self.dir.join("start.lock")).ok().flatten(),
        };
        if lock.is_some() {
            sweep::remove(&self.dir)?;
        }
        // A starter that was killed before it had a keeper left a slot that nobody else looks at.
        sweep::sweep_others(&self.dir);
        Ok(())
    }
}

fn remove_file(path: &Path) {
    // Already gone is gone.
    let _ = std::fs::remove_file(path);
}
