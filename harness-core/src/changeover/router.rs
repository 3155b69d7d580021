//! A switch in the test process: two versions side by side behind one address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::error::CoreResult;
use crate::fault::Upstream;
use crate::service::Port;
use crate::wait::{pause, within};

/// Bytes that are looked at to find out whose connection it is.
const LOOKED_AT: usize = 8 * 1024;
/// Whoever says nothing for so long belongs to nobody.
const FIRST_WORDS: Duration = Duration::from_secs(10);

type Key = Box<dyn Fn(&[u8]) -> Option<u64> + Send + Sync>;

struct Shared {
    old: Upstream,
    new: Upstream,
    key: Key,
    /// Of a hundred users the new version gets so many.
    percent: AtomicU32,
    routed: [AtomicU64; 2],
    unreachable: AtomicU64,
}

/// A TCP switch on 127.0.0.1 before an old and a new version.
///
/// Whose connection it is, `key` reads from its first bytes. A user belongs to the new version when its hash is below the share:
/// raising the share only adds users, and lowering it only takes some back, so that everybody else stays. The share holds for
/// connections to come; those that are under way end where they began, which is what drops none.
///
/// It stands in for the load balancer of a deployment and shows how one that works looks; the same
/// [`SwitchProbe`](super::SwitchProbe) judges any other.
#[must_use = "the switch ends when this is dropped"]
pub struct Router {
    port: Port,
    shared: Arc<Shared>,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// Everybody is served by the old version. `key` says who it is, or nothing while it cannot tell; after 8 KiB, or when the
    /// client says nothing for 10 s, nobody can, and the old version serves.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Environment`] when no port can be had.
    pub fn start(
        old: impl Into<Upstream>,
        new: impl Into<Upstream>,
        key: impl Fn(&[u8]) -> Option<u64> + Send + Sync + 'static,
    ) -> CoreResult<Self> {
        let port = Port::reserve()?;
        let listener = std::net::TcpListener::bind(port.address())?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            old: old.into(),
            new: new.into(),
            key: Box::new(key),
            percent: AtomicU32::new(0),
            routed: Default::default(),
            unreachable: AtomicU64::new(0),
        });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, theirs) = (Arc::<Notify>::default(), Arc::clone(&shared));
        let ended = Arc::clone(&end);
        let thread = std::thread::Builder::new().name("harness-router".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = ended.notified() => {}
                    () = accept(listener, theirs) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { port, shared, end, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The new version serves so many of a hundred users from now on: 100 is the switch, nought the roll-back.
    pub fn set_share(&self, percent: u32) {
        self.shared.percent.store(percent.min(100), Ordering::Release);
    }

    /// How many connections the old and the new version got.
    #[must_use]
    pub fn routed(&self) -> (u64, u64) {
        let [old, new] = &self.shared.routed;
        (old.load(Ordering::Relaxed), new.load(Ordering::Relaxed))
    }

    /// Connections whose version could not be reached: their clients saw them closed.
    #[must_use]
    pub fn unreachable(&self) -> u64 {
        self.shared.unreachable.load(Ordering::Relaxed)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it waits for nobody
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { old, new, percent, .. } = &*self.shared;
        let percent = percent.load(Ordering::Relaxed);
        write!(f, "Router({} -> {percent} % {}, else {})", self.address(), new.name(), old.name())
    }
}

/// Where a user stands among a hundred: always the same place (the finaliser of SplitMix64; Steele, Lea, Flood 2014).
pub(super) fn place(user: u64) -> u32 {
    let mut z = user.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % 100) as u32
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = links.join_next(), if !links.is_empty() => {} // forgets who has ended
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(links.spawn(carry(client, Arc::clone(&shared)))),
                Err(_) => pause(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let _ = client.set_nodelay(true);
    let mut first = Vec::new();
    let asked = within("the first words of a client", FIRST_WORDS, async {
        loop {
            let read = client.read_buf(&mut first).await.unwrap_or(0);
            let user = (shared.key)(&first);
            if user.is_some() || read == 0 || first.len() >= LOOKED_AT {
                return user;
            }
        }
    });
    let user = asked.await.ok().flatten();
    let is_new = user.is_some_and(|user| place(user) < shared.percent.load(Ordering::Acquire));
    let upstream = if is_new { &shared.new } else { &shared.old };
    let Ok(mut server) = upstream.connect().await else {
        shared.unreachable.fetch_add(1, Ordering::Relaxed);
        return;
    };
    shared.routed[usize::from(is_new)].fetch_add(1, Ordering::Relaxed);
    if server.write_all(&first).await.is_ok() {
        // An end of either side is no mistake of the switch.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}
