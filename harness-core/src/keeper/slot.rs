//! A slot: the directory of one shared server, and how processes meet in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::data::{Phase, Ready, ServerState, read_json};
use super::lease::{self, Attached};
use super::start::StartGuard;
use super::{base, lock, sweep};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{Progress, wait_for, wait_for_blocking};

/// A keeper that announced its end is given this long to be gone or to change its mind.
const ENDING_LIMIT: Duration = Duration::from_secs(60);

/// The directory of one shared server.
#[derive(Debug, Clone)]
pub struct Slot {
    dir: PathBuf,
}

impl Slot {
    /// The slot of a kind of server and a key of its settings. Nothing is made yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for names other than lower-case letters, digits, `_` and `-`;
    /// [`ErrorKind::Environment`] when the state directory cannot be used.
    pub fn open(kind: &str, key: &str) -> CoreResult<Self> {
        let name = format!("{kind}-{key}");
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
        if kind.is_empty() || key.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(Error::new(ErrorKind::Config, format!("`{name}` cannot name a slot"))
                .remedy("use at most 64 lower-case letters, digits, `_` and `-`"));
        }
        Ok(Self { dir: base::slots()?.join(name) })
    }

    /// The slot's directory. It exists while somebody starts or keeps a server in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Attaches to the live server of this slot, if there is one: takes a lease that this process holds until it ends.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when a keeper announced its end but does not go.
    pub async fn attach(&self) -> CoreResult<Option<Attached>> {
        wait_for(self.ending(), ENDING_LIMIT, async || self.try_attach()).await
    }

    /// [`Slot::attach`] without a runtime.
    ///
    /// # Errors
    /// As [`Slot::attach`].
    pub fn attach_blocking(&self) -> CoreResult<Option<Attached>> {
        wait_for_blocking(self.ending(), ENDING_LIMIT, || self.try_attach())
    }

    /// Takes the right to start this slot's server, waiting for whoever has it. Check [`Slot::attach`] again afterwards.
    ///
    /// What killed keepers left in other slots is swept first.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] naming who holds the right.
    pub async fn lock(&self, limit: Duration) -> CoreResult<StartGuard> {
        sweep::sweep_others(&self.dir);
        wait_for(self.turn(), limit, async || self.try_lock()).await
    }

    /// [`Slot::lock`] without a runtime.
    ///
    /// # Errors
    /// As [`Slot::lock`].
    pub fn lock_blocking(&self, limit: Duration) -> CoreResult<StartGuard> {
        sweep::sweep_others(&self.dir);
        wait_for_blocking(self.turn(), limit, || self.try_lock())
    }

    /// What the slot's keeper says, if there ever was one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when its file cannot be read.
    pub fn state(&self) -> CoreResult<Option<ServerState>> {
        read_json(&self.dir.join("state.json"))
    }

    /// True while a keeper lives here.
    pub(crate) fn is_kept(&self) -> bool {
        lock::is_held(&self.dir.join("keeper.lock"))
    }

    fn ending(&self) -> String {
        format!("the keeper of {} to end or to go on", self.dir.display())
    }

    fn turn(&self) -> String {
        format!("the right to start the server of {}", self.dir.display())
    }

    /// The order matters: first the lease, then a second look. Either the keeper sees the lease before it ends, or we see
    /// that it is ending.
    fn try_attach(&self) -> Progress<Option<Attached>> {
        let look = || -> CoreResult<Option<(Ready, ServerState)>> {
            // Files that a dead keeper left may be torn or strange; whoever starts next removes them.
            if !self.is_kept() {
                return Ok(None);
            }
            let (Some(ready), Some(state)) = (read_json::<Ready>(&self.dir.join("ready.json"))?, self.state()?) else {
                return Ok(None);
            };
            Ok((ready.keeper == state.keeper).then_some((ready, state)))
        };
        let attach = || -> CoreResult<Progress<Option<Attached>>> {
            let Some((ready, before)) = look()? else { return Ok(Progress::Ready(None)) };
            match before.phase {
                Phase::Running => {}
                Phase::Ending => return Ok(Progress::NotYet("it is ending".to_owned())),
                Phase::Starting | Phase::Exited => return Ok(Progress::Ready(None)),
            }
            let Some(lease) = lease::hold(&self.dir, before.keeper)? else { return Ok(Progress::Ready(None)) };
            match look()? {
                Some((_, now)) if now.keeper == before.keeper && now.phase == Phase::Running => {
                    Ok(Progress::Ready(Some(Attached {
                        address: now.address,
                        facts: ready.facts,
                        lease,
                        slot: self.dir.clone(),
                        log: now.log,
                        keeper: now.keeper,
                    })))
                }
                Some((_, now)) if now.phase == Phase::Ending => Ok(Progress::NotYet("it is ending".to_owned())),
                _ => {
                    lease::release(&self.dir);
                    Ok(Progress::Ready(None))
                }
            }
        };
        attach().unwrap_or_else(Progress::Failed)
    }

    fn try_lock(&self) -> Progress<StartGuard> {
        let path = self.dir.join("start.lock");
        if let Err(error) = self.make() {
            return match error {
                Lost::Race => Progress::NotYet("the directory is being removed".to_owned()),
                Lost::For(error) => Progress::Failed(error),
            };
        }
        match lock::try_exclusive(&path) {
            Ok(Some(lock)) => Progress::Ready(StartGuard::new(self.clone(), lock)),
            Ok(None) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                Progress::NotYet(format!("held by {}", if holder.is_empty() { "somebody" } else { &holder }))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Progress::NotYet("it was removed".to_owned()),
            Err(error) => Progress::Failed(base::unusable(&path, error)),
        }
    }

    fn make(&self) -> Result<(), Lost> {
        for room in ["", "leases", "kept"] {
            // A keeper that ends may move the directory away between two lines.
            match base::create_dir(&self.dir.join(room)) {
                Err(_) if !self.dir.exists() => return Err(Lost::Race),
                made => made.map_err(Lost::For)?,
            }
        }
        Ok(())
    }
}

/// Why a directory could not be made.
enum Lost {
    Race,
    For(Error),
}
