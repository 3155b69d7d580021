//! The tap: a listener on loopback, the decisions, and the record of what passed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::link;
use super::{Frame, Kind, Side};
use crate::postgres::sql;

/// Frames that the record keeps; later ones are only counted.
const RECORDED: usize = 20_000;

/// What happens to a frame.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It, and everything behind it in its direction, waits until the gate is open.
    Hold(Gate),
    /// It is lost; the connection lives on.
    Drop,
    /// It is lost, and its connection is closed to both sides at once.
    Cut,
}

/// Something that frames wait for: shut when made, and open for good once opened. Clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Gate(open)" } else { "Gate(shut)" })
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// A shut gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everything through that waits, and everything that comes.
    pub fn open(&self) {
        self.0.close();
    }

    /// True once opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_closed()
    }

    pub(crate) async fn opened(&self) {
        let _ = self.0.acquire().await; // there are no permits: this ends when the gate opens
    }
}

/// A frame that was decided on: the evidence that a fault did bite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passage {
    /// The connection of the tap, counted from 1.
    pub connection: u64,
    /// Who sent it.
    pub side: Side,
    /// Its number among the frames of this side of this connection, counted from 1.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Its statement, command tag or error, up to 200 characters.
    pub text: String,
    /// `passed`, `held`, `dropped` or `cut`.
    pub verdict: &'static str,
}

/// A tap between clients and their server. Dropping it closes its connections.
#[must_use = "connections are closed when the tap is dropped"]
pub struct Tap {
    address: SocketAddr,
    target: PgConnectOptions,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({} -> {})", self.address, sql::place(&self.target))
    }
}

type Decide = Box<dyn FnMut(&Frame) -> Verdict + Send>;

/// What all connections of a tap share.
pub(super) struct Shared {
    pub(super) target: PgConnectOptions,
    decide: Mutex<Decide>,
    record: Mutex<Vec<Passage>>,
    unrecorded: AtomicU64,
    /// Connections that are carried now.
    carried: AtomicUsize,
    /// Opened to end all connections of now.
    end: Mutex<Gate>,
}

impl Shared {
    /// Asks for the verdict on a frame and writes it down.
    pub(super) fn decide(&self, frame: &Frame) -> Verdict {
        let verdict = (self.decide.lock().unwrap_or_else(PoisonError::into_inner))(frame);
        let word = match &verdict {
            Verdict::Pass => "passed",
            Verdict::Hold(_) => "held",
            Verdict::Drop => "dropped",
            Verdict::Cut => "cut",
        };
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.len() < RECORDED {
            let (connection, side, number) = (frame.connection(), frame.side(), frame.number());
            record.push(Passage { connection, side, number, kind: frame.kind(), text: frame.about(), verdict: word });
        } else {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    pub(super) fn end(&self) -> Gate {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tap {
    /// Listens on a free port of 127.0.0.1 and forwards every connection to the server of `target`, asking `decide` about
    /// each frame in the order in which frames arrive. `decide` must not block; to wait, it returns [`Verdict::Hold`].
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when `target` demands TLS, [`ErrorKind::Io`] when no port can be had.
    pub async fn start(
        target: &PgConnectOptions,
        decide: impl FnMut(&Frame) -> Verdict + Send + 'static,
    ) -> CoreResult<Self> {
        if !matches!(target.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer) {
            let what = "frames of a connection that demands TLS cannot be read";
            return Err(Error::new(ErrorKind::Refused, what).remedy("use a URL without sslmode=require"));
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: target.clone(),
            decide: Mutex::new(Box::new(decide)),
            record: Mutex::default(),
            unrecorded: AtomicU64::new(0),
            carried: AtomicUsize::new(0),
            end: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, target: target.clone(), shared, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for a client, with the user, password and database of the target.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = self.target.to_url_lossy();
        // Both can be refused for URLs without a host only.
        let _ = url.set_host(Some(&self.address.ip().to_string()));
        let _ = url.set_port(Some(self.address.port()));
        {
            let mut query = url.query_pairs_mut();
            query.clear().append_pair("sslmode", "disable");
            if let Some(name) = self.target.get_application_name() {
                query.append_pair("application_name", name);
            }
            if let Some(options) = self.target.get_options() {
                query.append_pair("options", options);
            }
        }
        url.to_string()
    }

    /// Options for a client of this crate's driver.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the target cannot be written as a URL.
    pub fn options(&self) -> CoreResult<PgConnectOptions> {
        Ok(sql::parse_url("the tap's URL", &self.url())?.disable_statement_logging())
    }

    /// Closes all connections of now, to both sides; new ones are welcome.
    pub fn cut(&self) {
        let mut end = self.shared.end.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *end).open();
    }

    /// Connections that are carried now. One whose client has gone is carried until its server has said all it has to say.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.carried.load(Ordering::Acquire)
    }

    /// What was decided so far, in order: the first 20,000 frames.
    #[must_use]
    pub fn record(&self) -> Vec<Passage> {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Frames beyond those that [`Tap::record`] keeps.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.shared.unrecorded.load(Ordering::Relaxed)
    }

    /// Holds when at least one frame was held, dropped or cut: without that, no fault was injected and nothing is proven.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] with how many frames passed.
    pub fn check_did_bite(&self) -> CoreResult<&Self> {
        let record = self.record();
        if record.iter().any(|passage| passage.verdict != "passed") {
            return Ok(self);
        }
        let what = format!("the tap let all {} frames pass: no fault did bite", record.len());
        let last = record.iter().rev().find(|passage| passage.side == Side::Client);
        let last = last.map_or_else(|| "none".to_owned(), ToString::to_string);
        Err(Error::new(ErrorKind::NoEvidence, what).tried(format!("last frame of a client: {last}")))
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Client { "client" } else { "server" };
        write!(f, "connection {}, {side} frame {}: {:?} {}", self.connection, self.number, self.kind, self.verdict)?;
        if !self.text.is_empty() {
            write!(f, " ({})", self.text)?;
        }
        Ok(())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    while let Ok((client, _)) = listener.accept().await {
        number += 1;
        let (shared, carried) = (Arc::clone(&shared), Carried::new(&shared));
        connections.spawn(async move {
            let _carried = carried;
            if let Err(error) = link::join(client, number, &shared).await {
                eprintln!(
                    "harness: tap connection {number}: {error} (limit to connect {})",
                    seconds(sql::CONNECT_LIMIT)
                );
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a connection for as long as it is carried, however it ends.
struct Carried(Arc<Shared>);

impl Carried {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.carried.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.carried.fetch_sub(1, Ordering::AcqRel);
    }
}
