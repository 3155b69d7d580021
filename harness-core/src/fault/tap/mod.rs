//! A tap that knows a protocol: it cuts both streams of a connection into frames and asks for each whether it passes, is lost, or
//! takes the connection with it.
//!
//! What a frame is, a [`Framing`] says: `harness-db` has that of Redis, `harness-ws` that of WebSocket. The tap runs on a thread of
//! its own, as [`FaultProxy`](super::FaultProxy) does, and passes frames on as they came, byte for byte.
//!
//! ```
//! use std::io::{Read, Write};
//! use harness_core::fault::{Fault, Framing, Frames, TapFault, Towards};
//!
//! /// Lines are frames.
//! struct Lines;
//!
//! impl Framing for Lines {
//!     type Frame = String;
//!     fn next(&mut self, _: Towards, bytes: &[u8]) -> Result<Option<(usize, String)>, String> {
//!         let end = bytes.iter().position(|byte| *byte == b'\n');
//!         Ok(end.map(|end| (end + 1, String::from_utf8_lossy(&bytes[..end]).into_owned())))
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let lost = TapFault::new("the word `two` is lost", server.local_addr()?, || Lines, |towards, line: &String| {
//!     (towards == Towards::Server && line == "two").then_some(Frames::Drop)
//! })?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! runtime.block_on(lost.inject())?;
//! std::net::TcpStream::connect(lost.address())?.write_all(b"one\ntwo\nthree\n")?;
//! let mut heard = String::new();
//! server.accept()?.0.read_to_string(&mut heard)?;
//! assert_eq!(heard, "one\nthree\n");
//! lost.bites().check("the word is lost")?;
//! # Ok(())
//! # }
//! ```

mod carry;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::{Bites, Effect, Fault, Towards, Upstream};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::Port;

/// Frames that the record keeps; later ones are only counted.
const RECORDED: usize = 20_000;

/// What a frame of a protocol is. One value reads both streams of one connection, since what an answer means depends on what was
/// asked.
pub trait Framing: Send + 'static {
    /// What a frame says, for those who decide and for the record.
    type Frame: fmt::Display;

    /// The frame that begins with the first byte, and its length in bytes; `None` while it is not whole. Bytes that were not taken
    /// come again, with more behind them. A length of nought is taken for a mistake.
    ///
    /// # Errors
    /// What is wrong with the bytes: the connection is then closed to both sides.
    fn next(&mut self, towards: Towards, bytes: &[u8]) -> Result<Option<(usize, Self::Frame)>, String>;
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// It goes on.
    Pass,
    /// It is lost; the connection lives on.
    Drop,
    /// It is lost, and its connection is closed to both sides at once.
    Cut,
    /// It goes on, and then its connection is closed to both sides.
    PassAndCut,
}

/// A frame that was decided on: the evidence of what a tap did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameRecord {
    /// The connection of the tap, counted from 1.
    pub connection: u64,
    /// Which way it went.
    pub towards: Towards,
    /// Its number among the frames of this direction of this connection, counted from 1.
    pub number: u64,
    /// What it says, up to 120 characters.
    pub text: String,
    /// What became of it.
    pub became: Frames,
}

impl fmt::Display for FrameRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, towards, number, text, became } = self;
        write!(f, "connection {connection}, frame {number} to {towards:?}: {text}: {became:?}")
    }
}

type Decide<F> = Box<dyn FnMut(Towards, &F) -> Frames + Send>;

/// What all connections of a tap share.
struct Shared<F: Framing> {
    upstream: Upstream,
    framing: Box<dyn Fn() -> F + Send + Sync>,
    decide: Mutex<Decide<F::Frame>>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    records: Mutex<Vec<FrameRecord>>,
    unrecorded: AtomicU64,
    /// Streams that were no frames, and why.
    broken: Mutex<Vec<String>>,
    /// Changed to end all connections of now.
    cuts: watch::Sender<u64>,
}

/// A tap between clients and their server. Dropping it closes its connections and gives its port back.
#[must_use = "connections are closed when the tap is dropped"]
pub struct FrameTap {
    port: Port,
    upstream: String,
    log: Arc<Log>,
    end: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl FrameTap {
    /// Listens on a port of 127.0.0.1 and forwards every connection, asking `decide` about each frame in the order in which frames
    /// arrive. `decide` must not block.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when no port can be had.
    pub fn start<F: Framing>(
        upstream: impl Into<Upstream>,
        framing: impl Fn() -> F + Send + Sync + 'static,
        decide: impl FnMut(Towards, &F::Frame) -> Frames + Send + 'static,
    ) -> CoreResult<Self> {
        let port = Port::reserve()?;
        let listener = std::net::TcpListener::bind(port.address())?;
        listener.set_nonblocking(true)?;
        let (upstream, log, end) = (upstream.into(), Arc::<Log>::default(), Arc::<Notify>::default());
        let name = upstream.name().to_owned();
        let framing = Box::new(framing);
        let shared =
            Arc::new(Shared { upstream, framing, decide: Mutex::new(Box::new(decide)), log: Arc::clone(&log) });
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ended = Arc::clone(&end);
        let thread = std::thread::Builder::new().name("harness-tap".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = ended.notified() => {}
                    () = accept(listener, shared) => {}
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { port, upstream: name, log, end, thread: Some(thread) })
    }

    /// Where it listens: hand this to the system under test.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Closes all connections of now, to both sides; new ones are welcome.
    pub fn cut(&self) {
        self.log.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What was decided so far, in order: the first 20,000 frames.
    #[must_use]
    pub fn record(&self) -> Vec<FrameRecord> {
        locked(&self.log.records).clone()
    }

    /// Frames beyond those that [`FrameTap::record`] keeps.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.log.unrecorded.load(Ordering::Relaxed)
    }

    /// Connections that were closed because their bytes were no frames of the protocol, and why: of TLS, say.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        locked(&self.log.broken).clone()
    }
}

impl Drop for FrameTap {
    fn drop(&mut self) {
        self.end.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it waits for nobody
        }
    }
}

impl fmt::Debug for FrameTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameTap({} -> {})", self.address(), self.upstream)
    }
}

async fn accept<F: Framing>(listener: std::net::TcpListener, shared: Arc<Shared<F>>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let (mut links, mut number) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            biased;
            _ = links.join_next(), if !links.is_empty() => {} // forgets who has ended
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    number += 1;
                    links.spawn(carry::carry(client, number, Arc::clone(&shared)));
                }
                // Out of descriptors, say: a moment later there may be some.
                Err(_) => crate::wait::pause(std::time::Duration::from_millis(50)).await,
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tap that lets everything pass until its fault is injected, and then gives the chosen frames their fate.
#[derive(Debug)]
pub struct TapFault {
    name: String,
    tap: FrameTap,
    is_injected: Arc<AtomicBool>,
    bites: Arc<AtomicU64>,
}

impl TapFault {
    /// While injected, each frame that this chooses gets its fate; all others pass. It is asked only while injected, so that a
    /// number it keeps counts frames since then.
    ///
    /// # Errors
    /// Those of [`FrameTap::start`].
    pub fn new<F: Framing>(
        name: impl Into<String>,
        upstream: impl Into<Upstream>,
        framing: impl Fn() -> F + Send + Sync + 'static,
        mut choose: impl FnMut(Towards, &F::Frame) -> Option<Frames> + Send + 'static,
    ) -> CoreResult<Self> {
        let (is_injected, bites) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (armed, bitten) = (Arc::clone(&is_injected), Arc::clone(&bites));
        let tap = FrameTap::start(upstream, framing, move |towards, frame: &F::Frame| {
            if !armed.load(Ordering::Acquire) {
                return Frames::Pass;
            }
            let chosen = choose(towards, frame).unwrap_or(Frames::Pass);
            bitten.fetch_add(u64::from(chosen != Frames::Pass), Ordering::Relaxed);
            chosen
        })?;
        Ok(Self { name: name.into(), tap, is_injected, bites })
    }

    /// Where the system under test connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.tap.address()
    }

    /// The tap: its record is evidence.
    pub fn tap(&self) -> &FrameTap {
        &self.tap
    }

    /// Holds when it bit at least once.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] naming the fault and the last frames that passed.
    pub fn check_did_bite(&self) -> CoreResult {
        self.bites().check(&self.name).map_err(|error| {
            let record = self.tap.record();
            let error = error.tried(format!("the tap saw {} frames", record.len()));
            let last = record.iter().rev().take(3).rev();
            let error = last.fold(error, |error, frame| error.tried(frame.to_string()));
            self.tap.broken().into_iter().take(3).fold(error, Error::tried)
        })
    }
}

impl Fault for TapFault {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn inject(&self) -> Effect<'_> {
        let is_over = self.tap.thread.as_ref().is_none_or(JoinHandle::is_finished);
        self.is_injected.store(!is_over, Ordering::Release);
        Box::pin(std::future::ready(match is_over {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Refused, format!("the tap at {} has ended", self.address()))),
        }))
    }

    fn heal(&self) -> Effect<'_> {
        self.is_injected.store(false, Ordering::Release);
        Box::pin(std::future::ready(Ok(())))
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "frames taken")
    }
}
