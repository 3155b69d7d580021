//! A TCP proxy in the test process whose faults are changed live.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::time::Duration;
//!
//! use harness_core::fault::{FaultProxy, WireFault};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let proxy = FaultProxy::to(server.local_addr()?)?; // hand `proxy.address()` to the system under test
//! let latency = proxy.apply(WireFault::latency(Duration::from_millis(20)))?;
//!
//! TcpStream::connect(proxy.address())?.write_all(b"late")?;
//! let mut heard = String::new();
//! server.accept()?.0.read_to_string(&mut heard)?;
//!
//! assert_eq!(heard, "late");
//! latency.check_did_bite()?; // 4 bytes delayed: without a bite, nothing would be proven
//! proxy.heal()?;
//! # Ok(())
//! # }
//! ```
//!
//! The proxy runs on a thread of its own, so that neither a test that blocks nor one that pauses tokio's clock stops it, and so
//! that it needs no runtime. Faults are a snapshot that connections look at: applying and healing swap it and wait for nobody.
//! Where faults bite is decided by seed, fault, connection, direction and byte, never by time or by how TCP cuts a stream, so
//! that the same seed and the same streams give the same [log](FaultProxy::log).
//!
//! # What a client sees
//! | fault | a client sees | once healed |
//! |---|---|---|
//! | [`latency`](WireFault::latency) | answers later, as fast a stream as before | what is under way arrives at once |
//! | [`bandwidth`](WireFault::bandwidth) | a slow stream; writes that block once buffers are full | full speed |
//! | [`slice`](WireFault::slice) | short reads, messages in pieces | whole reads |
//! | [`stall`](WireFault::stall) | silence on a connection that looks well | everything arrives, in order |
//! | [`black_hole`](WireFault::black_hole) | silence; writes succeed and are lost | a reset, if bytes were lost |
//! | [`corrupt`](WireFault::corrupt) | wrong bytes: a broken protocol, or a wrong value | right bytes from there on |
//! | [`reset`](WireFault::reset), [`reset_after`](WireFault::reset_after) | `ECONNRESET`, at once or inside a message | new connections live |
//! | [`half_close_after`](WireFault::half_close_after) | the end of the stream inside a message; writes still succeed | the stream stays ended |
//! | [`refuse`](WireFault::refuse) | `ECONNREFUSED` for new connections, old ones live | connections at the same port |
//! | [`connect_timeout`](WireFault::connect_timeout) | connecting takes until the client gives up, old connections live | who still tries gets through within a second or so |
//! | [`accept_reset`](WireFault::accept_reset) | a connection that is reset before a byte | connections live |
//! | [`accept_delay`](WireFault::accept_delay), [`silence`](WireFault::silence) | a connection that answers late, or not | it is served, with what it has sent |
//!
//! # What it does not do
//! It loses no packets: a stream cannot have holes, and what loss looks like above TCP is a [stall](WireFault::stall). It speaks
//! no TLS; corrupted bytes below TLS only close connections. Clients that are told another address by their server (Redis
//! cluster) bypass it: [`ProxyFault::check_did_bite`] shows that. A client of an upstream that is down sees its connection
//! accepted and reset.

mod door;
mod flow;
mod link;
mod plan;
mod record;
mod thread;
mod upstream;
mod wire;

#[cfg(test)]
mod flow_tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Bites, Effect, Fault};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Run, Seed};
use crate::service::Port;

use door::{Door, Mode};
use plan::{Applied, Plan};
use record::Records;
use thread::Thread;

pub use record::{Connection, Decision};
pub use upstream::Upstream;
pub use wire::{Towards, WireFault, WireKind};

pub(super) use wire::duration_text;

/// A proxy to be started: its upstream, and if wished its port, its seed and faults that act from the first connection on.
#[derive(Debug, Clone)]
#[must_use = "nothing listens before `start`"]
pub struct ProxySpec {
    upstream: Upstream,
    port: Option<u16>,
    seed: Option<Seed>,
    faults: Vec<WireFault>,
}

impl ProxySpec {
    /// A proxy to this server, on a port that the harness picks, with the run's seed.
    pub fn new(upstream: impl Into<Upstream>) -> Self {
        Self { upstream: upstream.into(), port: None, seed: None, faults: Vec::new() }
    }

    /// Listens at this port of 127.0.0.1.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Decides by this seed.
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A fault that is there before the first connection can be.
    pub fn fault(mut self, fault: WireFault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Starts it. Needs no runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the port cannot be had, [`ErrorKind::Config`] for a fault that makes no sense.
    pub fn start(self) -> CoreResult<FaultProxy> {
        let port = self.port.map_or_else(Port::reserve, Port::exactly)?;
        let door = Door::new(port)?;
        let shared = Arc::new(Shared {
            address: door.address(),
            upstream: self.upstream,
            seed: self.seed.unwrap_or_else(|| Run::current().seed()),
            faults: AtomicU32::new(0),
            plan: watch::Sender::new(Plan::default()),
            door: Mutex::new(Some(door)),
            records: Records::default(),
        });
        let proxy = FaultProxy { thread: Thread::idle(Arc::clone(&shared)), shared };
        for fault in self.faults {
            proxy.apply(fault)?;
        }
        proxy.thread.start()?;
        Ok(proxy)
    }
}

/// A TCP proxy on 127.0.0.1. Dropping it ends its connections and gives its port back.
#[must_use = "the proxy ends when this is dropped"]
pub struct FaultProxy {
    thread: Thread,
    shared: Arc<Shared>,
}

/// What the proxy, its connections and its faults share.
struct Shared {
    address: SocketAddr,
    upstream: Upstream,
    seed: Seed,
    /// Faults made so far.
    faults: AtomicU32,
    plan: watch::Sender<Plan>,
    /// None once the proxy has ended.
    door: Mutex<Option<Door>>,
    records: Records,
}

impl FaultProxy {
    /// A proxy to this server: an address, or `host:port`, or an [`Upstream`].
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when no port can be had.
    pub fn to(upstream: impl Into<Upstream>) -> CoreResult<Self> {
        ProxySpec::new(upstream).start()
    }

    /// Where it listens, for as long as it lives: also while it refuses.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The seed that decides where faults bite.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.shared.seed
    }

    /// Applies a fault to all connections of now and to come, beside those that are applied.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it makes no sense; [`ErrorKind::Environment`] when the door cannot be shut that way here.
    pub fn apply(&self, fault: WireFault) -> CoreResult<ProxyFault> {
        let fault = self.fault(fault)?;
        fault.apply()?;
        Ok(fault)
    }

    /// A fault that is not applied yet: for schedules and experiments.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it makes no sense.
    pub fn fault(&self, fault: WireFault) -> CoreResult<ProxyFault> {
        fault.check()?;
        let id = self.shared.faults.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(ProxyFault { applied: Arc::new(Applied::new(id, fault)), shared: Arc::clone(&self.shared) })
    }

    /// Heals all faults of now.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the door cannot be opened again.
    pub fn heal(&self) -> CoreResult {
        self.shared.change(|plan| plan.clear())
    }

    /// The faults that are applied now, as their lines.
    #[must_use]
    pub fn active(&self) -> Vec<String> {
        self.shared.plan.borrow().iter().map(|applied| applied.fault.to_string()).collect()
    }

    /// What happened to each connection: the first 20,000, in the order of accepting.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.records.all()
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.records.count()
    }

    /// Every decision of a fault, by connection, stream and byte: the same for the same seed and the same streams.
    #[must_use]
    pub fn log(&self) -> Vec<Decision> {
        self.connections().into_iter().flat_map(|connection| connection.decisions).collect()
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultProxy({} -> {}, {:?})", self.address(), self.shared.upstream.name(), self.active())
    }
}

impl Shared {
    fn plan(&self) -> watch::Receiver<Plan> {
        self.plan.subscribe()
    }

    fn door(&self) -> MutexGuard<'_, Option<Door>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the faults and the door together. Waits for no connection.
    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Applied>>)) -> CoreResult {
        let mut door = self.door();
        let mut plan = Vec::clone(&self.plan.borrow());
        change(&mut plan);
        let mode = |applied: &Arc<Applied>| match applied.fault.kind() {
            WireKind::Refuse => Some(Mode::Refusing),
            WireKind::ConnectTimeout => Some(Mode::Full),
            _ => None,
        };
        let shut = plan.iter().find(|applied| mode(applied).is_some()).cloned();
        if let Some(door) = &mut *door {
            let wanted = shut.as_ref().and_then(mode).unwrap_or(Mode::Open);
            if door.set(wanted)?
                && let Some(shut) = shut
            {
                shut.bite(1);
            }
        }
        self.plan.send_replace(Arc::new(plan));
        Ok(())
    }

    fn ended(&self) -> Error {
        let what = format!("the proxy at {} has ended", self.address);
        Error::new(ErrorKind::Refused, what).remedy("keep the `FaultProxy` alive for as long as its faults are used")
    }
}

/// A fault of a proxy. Clones are the same fault.
#[derive(Clone)]
pub struct ProxyFault {
    applied: Arc<Applied>,
    shared: Arc<Shared>,
}

impl ProxyFault {
    /// Applies it, if it is not applied.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the proxy has ended; [`ErrorKind::Environment`] when the door cannot be shut here.
    pub fn apply(&self) -> CoreResult {
        if self.shared.door().is_none() {
            return Err(self.shared.ended());
        }
        self.shared.change(|plan| {
            if !plan.iter().any(|applied| Arc::ptr_eq(applied, &self.applied)) {
                plan.push(Arc::clone(&self.applied));
            }
        })
    }

    /// Takes this fault away and leaves the others. What was delayed goes on at once, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the door cannot be opened again.
    pub fn lift(&self) -> CoreResult {
        self.shared.change(|plan| plan.retain(|applied| !Arc::ptr_eq(applied, &self.applied)))
    }

    /// What it does.
    pub fn wire(&self) -> WireFault {
        self.applied.fault
    }

    /// Holds when it bit at least once.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the fault, and how many connections the proxy saw.
    pub fn check_did_bite(&self) -> CoreResult {
        let checked = self.bites().check(&self.name());
        checked.map_err(|error| error.tried(format!("the proxy accepted {} connections", self.shared.records.count())))
    }
}

impl Fault for ProxyFault {
    fn name(&self) -> String {
        format!("{} before {}", self.applied.fault, self.shared.upstream.name())
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(std::future::ready(self.apply()))
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(std::future::ready(self.lift()))
    }

    fn bites(&self) -> Bites {
        Bites::new(self.applied.bites(), self.applied.fault.unit())
    }
}

impl fmt::Debug for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyFault({}, {})", self.name(), self.bites())
    }
}
