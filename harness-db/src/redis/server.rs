//! A running Redis that many tests share, and the lease of one of its logical databases.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness_core::env::Settings;
use harness_core::keeper::Attached;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio::sync::OnceCell;

use super::guest::{self, Marker};
use super::{readiness, wire};
use crate::env::DbSettings;
use crate::provider::shared::{self, NothingWorked, Wanted};
use crate::provider::{Choice, Provider, nothing_worked, order, remember};

/// How long to wait for a free logical database.
const LEASE_LIMIT: Duration = Duration::from_secs(60);

/// A Redis server shared by all tests of this user, or handed in by URL.
///
/// Nobody may stop, kill or pause it: other tests live on it. [`Server::stop`] and its siblings exist to say so.
#[derive(Debug)]
pub struct Server {
    pub(crate) info: ConnectionInfo,
    version: String,
    databases: i64,
    choice: Choice,
    pub(crate) tenancy: Tenancy,
    /// Empties logical databases; it lives on the background thread, where all of them are emptied.
    cleaner: tokio::sync::Mutex<Option<MultiplexedConnection>>,
}

/// Under which roof the keyspaces live.
#[derive(Debug)]
pub(crate) enum Tenancy {
    /// A shared server of the house: leases are file locks in its slot.
    Ours(Box<Attached>),
    /// Somebody else's server: leases are marker keys with a living connection behind them.
    Guest {
        /// The one index the URL names, if it names one.
        index: Option<i64>,
    },
}

/// What holds the lease of one logical database.
#[derive(Debug)]
pub(crate) enum Hold {
    Lock(File),
    Marker(Marker),
}

impl Server {
    /// Its version, for example `7.0.15`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Which provider gave it, and what was tried before.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// How many logical databases it has.
    #[must_use]
    pub fn databases(&self) -> i64 {
        self.databases
    }

    /// Refused: other tests live on a shared server.
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn stop(&self) -> CoreResult {
        self.refuse("stop")
    }

    /// Refused, as [`Server::stop`].
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn kill(&self) -> CoreResult {
        self.refuse("kill")
    }

    /// Refused, as [`Server::stop`].
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn pause(&self) -> CoreResult {
        self.refuse("pause")
    }

    fn refuse(&self, verb: &str) -> CoreResult {
        let what = format!("will not {verb} the Redis at {}: other tests share it", self.info.addr());
        Err(Error::new(ErrorKind::Refused, what)
            .remedy("start one of your own for faults and outages: `harness_db::OwnRedis::start(..)`"))
    }

    /// Leases a logical database that nobody uses, and empties it.
    pub(crate) async fn lease(&self) -> CoreResult<(i64, Hold)> {
        let what = format!("a free logical database at {}", self.info.addr());
        wait_for(what, LEASE_LIMIT, async || match self.try_lease().await {
            Ok(Some(lease)) => Progress::Ready(lease),
            Ok(None) => Progress::NotYet("all are leased or kept".to_owned()),
            Err(error) => Progress::Failed(error),
        })
        .await
    }

    async fn try_lease(&self) -> CoreResult<Option<(i64, Hold)>> {
        match &self.tenancy {
            Tenancy::Guest { index } => {
                let found = guest::lease(&self.info, *index, self.databases).await?;
                Ok(found.map(|(index, marker)| (index, Hold::Marker(marker))))
            }
            Tenancy::Ours(attached) => {
                let dir = attached.slot.join("keyspaces");
                std::fs::create_dir_all(&dir)?;
                for index in indexes(self.databases) {
                    if let Some(lock) = try_lock(&dir.join(index.to_string()))? {
                        self.empty(index).await?;
                        // One that still answers has nobody left to end it.
                        if !attached.keeper.is_alive() {
                            let what = format!("the keeper of the Redis at {} was killed", self.info.addr());
                            return Err(Error::new(ErrorKind::Connect, what).remedy("run the tests again"));
                        }
                        return Ok(Some((index, Hold::Lock(lock))));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Empties one logical database, over a session that is kept: a lease costs no connection of its own.
    pub(crate) async fn empty(&self, index: i64) -> CoreResult {
        let mut kept = self.cleaner.lock().await;
        if let Some(mut session) = kept.take()
            && flush_at(&mut session, index).await.is_ok()
        {
            *kept = Some(session);
            return Ok(());
        }
        let mut session = wire::connect(&self.info).await?;
        flush_at(&mut session, index).await?;
        *kept = Some(session);
        Ok(())
    }
}

/// In one write, so that nothing comes between the two.
async fn flush_at(session: &mut MultiplexedConnection, index: i64) -> CoreResult {
    let mut both = redis::pipe();
    both.cmd("SELECT").arg(index).ignore().cmd("FLUSHDB").ignore();
    both.query_async::<()>(session).await.map_err(|error| wire::failed(&["FLUSHDB"], error))
}

/// Indexes to try, beginning at a place of our own, so that processes rarely meet. Never 0.
pub(crate) fn indexes(databases: i64) -> impl Iterator<Item = i64> {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    let width = (databases - 1).max(0);
    let own = i64::from(std::process::id()).wrapping_mul(2_654_435_761) + NEXT.fetch_add(1, Ordering::Relaxed);
    (0..width).map(move |n| 1 + (own + n).rem_euclid(width.max(1)))
}

/// The lock of an index, unless somebody holds it or it is kept.
fn try_lock(path: &PathBuf) -> CoreResult<Option<File>> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut note = String::new();
    file.read_to_string(&mut note)?;
    let kept = note.trim().parse::<u64>().is_ok_and(|until| until > now_s());
    Ok((!kept).then_some(file))
}

/// Notes in the lock file that its index is kept.
pub(crate) fn note_kept(lock: &mut File, keep: Duration) -> CoreResult {
    lock.set_len(0)?;
    Ok(lock.write_all((now_s() + keep.as_secs()).to_string().as_bytes())?)
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

type Answer = Result<Arc<Server>, NothingWorked>;
type Cell = Arc<OnceCell<Answer>>;

/// The servers this process uses, by URL.
static SERVERS: Mutex<Vec<(Option<String>, Cell)>> = Mutex::new(Vec::new());

/// The server for this URL, else for the environment's URL, else the shared one.
pub(crate) async fn server(url: Option<String>) -> CoreResult<Arc<Server>> {
    let order = order(Settings::get().providers.as_deref())?;
    let url = url.or_else(|| DbSettings::get().redis_url.clone().filter(|_| order.contains(&Provider::Url)));
    let cell = {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        match servers.iter().find(|(known, _)| *known == url) {
            Some((_, cell)) => Arc::clone(cell),
            None => {
                let cell = Cell::default();
                servers.push((url.clone(), Arc::clone(&cell)));
                cell
            }
        }
    };
    match cell.get_or_try_init(|| find(url)).await? {
        Ok(server) => Ok(Arc::clone(server)),
        Err(NothingWorked(attempts)) => Err(nothing_worked("redis", attempts)),
    }
}

/// Looks anew at the next request: this server has gone.
pub(crate) fn forget(gone: &Arc<Server>) {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    servers.retain(|(_, cell)| !matches!(cell.get(), Some(Ok(server)) if Arc::ptr_eq(server, gone)));
}

async fn find(url: Option<String>) -> CoreResult<Answer> {
    if let Some(url) = url {
        let server = guest::move_in(&url).await?;
        remember(server.choice());
        return Ok(Ok(Arc::new(server)));
    }
    match shared::attach_or_start(Wanted::Redis).await? {
        Err(nothing) => Ok(Err(nothing)),
        Ok(attached) => {
            let choice = shared::choice_of(Wanted::Redis, &attached);
            let info = readiness::own_info(attached.address)?;
            let facts = attached.facts.clone();
            Ok(Ok(Arc::new(Server::new(info, &facts, choice, Tenancy::Ours(Box::new(attached))))))
        }
    }
}

impl Server {
    pub(crate) fn new(
        info: ConnectionInfo,
        facts: &std::collections::BTreeMap<String, String>,
        choice: Choice,
        tenancy: Tenancy,
    ) -> Self {
        let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
        let databases = fact("databases").parse().unwrap_or(16);
        let cleaner = tokio::sync::Mutex::default();
        Self { info, version: fact("version"), databases, choice, tenancy, cleaner }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{indexes, note_kept, try_lock};

    #[test]
    fn every_index_but_zero_is_tried_once() {
        let mut all: Vec<i64> = indexes(16).collect();
        all.sort_unstable();
        assert_eq!(all, (1..16).collect::<Vec<_>>());
        assert_eq!(indexes(1).count(), 0);
    }

    #[test]
    fn an_index_is_leased_once_and_a_kept_one_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let mut held = try_lock(&path).unwrap().expect("free");
        assert!(try_lock(&path).unwrap().is_none(), "held by another descriptor");
        note_kept(&mut held, Duration::from_secs(60)).unwrap();
        drop(held);
        assert!(try_lock(&path).unwrap().is_none(), "kept");
        std::fs::write(&path, "1").unwrap();
        assert!(try_lock(&path).unwrap().is_some(), "kept until 1970 is over");
    }
}
