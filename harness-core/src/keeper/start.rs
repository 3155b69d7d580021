//! Starting a slot's server: the right to do so, the keeper's launch, and its end when the attempt fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::data::{Launch, Order, Phase, Ready, ServerState, write_json};
use super::lease::Attached;
use super::slot::Slot;
use super::{KEEPER_VARIABLE, asked, hook, sweep};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Run, test_name};
use crate::service::{LAST_LINES, ProcessId, Signal, last_lines, spawn};
use crate::wait::{Progress, aside, blocking, wait_for, wait_for_blocking};

/// A keeper that is asked to end is given this long before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// The right to start a slot's server. Held by at most one process.
#[derive(Debug)]
#[must_use = "dropped here means the attempt is given up"]
pub struct StartGuard {
    slot: Slot,
    /// How the keeper we started ended, once it has.
    keeper_end: Mutex<Option<Arc<Mutex<Option<String>>>>>,
    _lock: File,
}

/// A server that was started and has not been found ready yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launched {
    /// Where it will listen.
    pub address: SocketAddr,
    /// Its output.
    pub log: PathBuf,
}

impl StartGuard {
    pub(crate) fn new(slot: Slot, lock: File) -> Self {
        let who = format!("process {} ({})", std::process::id(), test_name());
        // Only shown to those who wait; a note that cannot be written is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| (&lock).write_all(who.as_bytes()));
        Self { slot, keeper_end: Mutex::default(), _lock: lock }
    }

    /// The slot.
    #[must_use]
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Starts a keeper that starts the server, and waits until the server process or container is there. Whether the
    /// server is *ready* is for the caller to find out.
    ///
    /// What an earlier attempt left in the slot is ended first.
    ///
    /// # Errors
    /// [`ErrorKind::Exited`] with the last log lines when preparing failed or the server ended;
    /// [`ErrorKind::Environment`] when this machine cannot run it; [`ErrorKind::Timeout`] after `launch.limit`.
    pub async fn launch(&self, launch: &Launch) -> CoreResult<Launched> {
        self.abandon().await?;
        let limit = self.begin(launch)?;
        let launched = wait_for(self.what(), limit, async || self.try_launched()).await;
        launched.map_err(|error| self.with_log(error))
    }

    /// [`StartGuard::launch`] without a runtime.
    ///
    /// # Errors
    /// As [`StartGuard::launch`].
    pub fn launch_blocking(&self, launch: &Launch) -> CoreResult<Launched> {
        self.forget_keeper();
        clear(&self.slot)?;
        let limit = self.begin(launch)?;
        wait_for_blocking(self.what(), limit, || self.try_launched()).map_err(|error| self.with_log(error))
    }

    /// An error as soon as the launched server or its keeper has ended: call it while waiting for readiness.
    ///
    /// # Errors
    /// [`ErrorKind::Exited`] with how it ended and the last log lines.
    pub fn check_alive(&self) -> CoreResult {
        match self.try_launched() {
            Progress::Failed(error) => Err(self.with_log(error)),
            Progress::Ready(_) | Progress::NotYet(_) => Ok(()),
        }
    }

    /// Ends this attempt: server and keeper are gone afterwards, and the slot is as good as new.
    ///
    /// # Errors
    /// When something of it could not be ended.
    pub async fn abandon(&self) -> CoreResult {
        self.forget_keeper();
        let slot = self.slot.clone();
        blocking(move || clear(&slot)).await
    }

    /// Declares the server ready. `facts` reach everybody who attaches.
    ///
    /// # Errors
    /// [`ErrorKind::Exited`] when the server has ended meanwhile.
    pub fn publish(self, facts: BTreeMap<String, String>) -> CoreResult<Attached> {
        self.check_alive()?;
        let gone =
            || self.with_log(Error::new(ErrorKind::Exited, format!("{} was published but is gone", self.what())));
        let state = self.slot.state()?.ok_or_else(gone)?;
        write_json(&self.slot.dir().join("ready.json"), &Ready { keeper: state.keeper, facts })?;
        self.slot.attach_blocking()?.ok_or_else(gone)
    }

    fn what(&self) -> String {
        format!("the server of slot {}", self.slot.dir().file_name().unwrap_or_default().to_string_lossy())
    }

    /// Starts the keeper in a clear slot. Returns how long it may take.
    fn begin(&self, launch: &Launch) -> CoreResult<Duration> {
        if asked::asked().is_some() {
            return Err(Error::new(ErrorKind::Refused, "a keeper starts no other keepers"));
        }
        if !hook::is_known(&launch.hook) {
            return Err(Error::new(ErrorKind::Config, format!("this binary has no keeper hook `{}`", launch.hook))
                .remedy(
                    "call `harness_core::keeper::run_if_asked` from a `ctor` function of the crate that launches",
                ));
        }
        let order = Order { number: Order::next_number(), launch: launch.clone() };
        write_json(&self.slot.dir().join("launch.json"), &order)?;
        let value = asked::ask(&launch.hook, &order.number, self.slot.dir());
        let name = format!("harness-keeper {}", self.slot.dir().file_name().unwrap_or_default().to_string_lossy());
        let binary = hook::own_image();
        let mut child = spawn::detached(&binary, &name, (KEEPER_VARIABLE, &value)).map_err(|error| {
            Error::new(ErrorKind::Environment, format!("could not start {} as a keeper", binary.display()))
                .caused_by(error)
        })?;
        let end = Arc::new(Mutex::new(None));
        let told = Arc::clone(&end);
        // Somebody must wait for it, or it stays a zombie while this process lives.
        aside("harness-keeper-end", move || {
            let text = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        })?;
        *self.keeper_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        Ok(launch.limit + GRACE)
    }

    fn try_launched(&self) -> Progress<Launched> {
        let state = match self.slot.state() {
            Ok(state) => state,
            Err(error) => return Progress::Failed(error),
        };
        if let Some(state) = &state {
            match state.phase {
                Phase::Exited | Phase::Ending => return Progress::Failed(ended(&self.what(), state)),
                Phase::Running if self.keeper_ended().is_none() => {
                    return Progress::Ready(Launched { address: state.address, log: state.log.clone() });
                }
                Phase::Running | Phase::Starting => {}
            }
        }
        if let Some(how) = self.keeper_ended() {
            let lines = last_lines(&self.slot.dir().join("keeper.log"), LAST_LINES);
            return Progress::Failed(
                Error::new(ErrorKind::Exited, format!("the keeper of {} ended: {how}", self.what())).log(lines),
            );
        }
        Progress::NotYet(match state {
            Some(_) => "the keeper prepares it".to_owned(),
            None => "the keeper has not said anything yet".to_owned(),
        })
    }

    fn keeper_ended(&self) -> Option<String> {
        let end = self.keeper_end.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget_keeper(&self) {
        *self.keeper_end.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Adds the server's last lines, and a copy of its log that outlives the slot.
    fn with_log(&self, error: Error) -> Error {
        let log = self.slot.dir().join("server.log");
        let lines = last_lines(&log, LAST_LINES);
        let error = if lines.is_empty() { error } else { error.log(lines) };
        match save(&log, self.slot.dir()) {
            Some(saved) => error.evidence(saved),
            None => error,
        }
    }
}

impl Drop for StartGuard {
    /// An attempt that was not published ends by itself: its keeper sees the lock free and nothing ready. A slot in which
    /// nothing was ever launched is removed.
    fn drop(&mut self) {
        let dir = self.slot.dir();
        let launched = self.keeper_end.lock().is_ok_and(|end| end.is_some());
        if !launched && !self.slot.is_kept() && sweep::end_leftovers(dir).is_ok() {
            let _ = sweep::remove(dir);
        }
    }
}

/// Ends whatever keeper and server are in the slot, and removes everything but the start lock, which the caller holds.
fn clear(slot: &Slot) -> CoreResult {
    let dir = slot.dir();
    if slot.is_kept() {
        let what = format!("the keeper of {} to end", dir.display());
        // Asked anew each time: a keeper that has just begun does not say who it is yet.
        let gone_by = |signal| {
            if !slot.is_kept() {
                return Progress::Ready(());
            }
            let keeper = slot.state().ok().flatten().map(|state| state.keeper);
            let told = keeper.is_some_and(|keeper: ProcessId| keeper.signal(signal));
            Progress::NotYet(format!("its lock is held by {keeper:?}, signalled: {told}"))
        };
        if wait_for_blocking(what.as_str(), GRACE, || gone_by(Signal::Term)).is_err() {
            wait_for_blocking(what.as_str(), GRACE, || gone_by(Signal::Kill))?;
        }
    }
    sweep::end_leftovers(dir)?;
    sweep::empty(dir, |name| name == "start.lock")?;
    for room in ["leases", "kept"] {
        super::base::create_dir(&dir.join(room))?;
    }
    Ok(())
}

fn ended(what: &str, state: &ServerState) -> Error {
    if let Some(trouble) = &state.trouble {
        let mut lines = trouble.report.lines();
        let first = lines.next().unwrap_or_default();
        let kind = if trouble.environment { ErrorKind::Environment } else { ErrorKind::Exited };
        let error = Error::new(kind, format!("{what} could not be started: {first}"));
        return lines.fold(error, |error, line| error.tried(line.trim()));
    }
    let how = state.exit.map_or_else(|| "it is being ended".to_owned(), |exit| exit.to_string());
    Error::new(ErrorKind::Exited, format!("{what} ended: {how}"))
}

fn save(log: &Path, slot: &Path) -> Option<PathBuf> {
    let dir = Run::current().out().join("servers");
    let name = slot.file_name()?.to_string_lossy();
    let copy = dir.join(format!("{name}-{}.log", std::process::id()));
    std::fs::create_dir_all(&dir).ok()?;
    std::fs::copy(log, &copy).ok()?;
    Some(copy)
}
