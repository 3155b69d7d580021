//! What processes tell each other through the files of a slot.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::LeaseId;
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::{ContainerSpec, Exec, Exit, ProcessId};

/// What a keeper shall start. In arguments, variables and directories `{port}` stands for the port, `{dir}` for the
/// slot's directory and `{data}` for its `data` directory, which belongs to the user of the main program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Launch {
    /// Name of the hook that runs the keeper; see [`super::run_if_asked`].
    pub hook: String,
    /// Programs to run to their ends first, in order.
    pub prepare: Vec<Exec>,
    /// The server.
    pub main: Main,
    /// Which port it gets.
    pub port: PortPlan,
    /// How long it outlives its last user.
    pub linger: Duration,
    /// How long preparing and starting may take together.
    pub limit: Duration,
    /// `{data}` may be in memory where at least this many bytes are free there: its loss with the machine is no loss.
    #[serde(default)]
    pub memory: Option<u64>,
}

impl Launch {
    /// Starts `main` on a reserved port, with `HARNESS_LINGER` and 180 s to start.
    pub fn new(hook: impl Into<String>, main: Main) -> Self {
        Self {
            hook: hook.into(),
            prepare: Vec::new(),
            main,
            port: PortPlan::Reserve,
            linger: Settings::get().linger,
            limit: Duration::from_secs(180),
            memory: None,
        }
    }

    /// Adds a program to run to its end first.
    #[must_use]
    pub fn prepare(mut self, exec: Exec) -> Self {
        self.prepare.push(exec);
        self
    }

    /// Sets which port it gets.
    #[must_use]
    pub fn port(mut self, port: PortPlan) -> Self {
        self.port = port;
        self
    }

    /// Sets how long it outlives its last user.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Puts `{data}` into a file system in memory where at least this many bytes are free there, and twice as many on the
    /// machine; else it stays on disk.
    #[must_use]
    pub fn in_memory(mut self, least_bytes: u64) -> Self {
        self.memory = Some(least_bytes);
        self
    }

    /// Sets how long preparing and starting may take together.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// `launch.json`: a launch with the number of its order. A keeper that was started for an earlier order finds another
/// number, and goes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: String,
    pub(crate) launch: Launch,
}

impl Order {
    /// A number nobody on this machine has used since its boot.
    pub(crate) fn next_number() -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = ProcessId::own();
        format!("{}-{}-{}", own.pid, own.start, COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The server of a slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Main {
    /// A program; its output goes to the slot's `server.log`.
    Process(Exec),
    /// A container (feature `containers`).
    Container(ContainerSpec),
    /// No server: the keeper only ends what leases leave behind.
    Nothing,
}

/// Which port a server gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PortPlan {
    /// One that no harness process has and that stays reserved while the keeper lives.
    Reserve,
    /// This one.
    Fixed(u16),
}

/// How far a keeper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// It prepares and starts the server.
    Starting,
    /// The server runs.
    Running,
    /// The server could not be started or has ended by itself.
    Exited,
    /// The keeper is about to end everything.
    Ending,
}

/// The server as the keeper knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ServerIdentity {
    /// A process.
    Process(ProcessId),
    /// A container's id.
    Container(String),
    /// There is none.
    Nothing,
}

/// `state.json`: what the keeper says about itself and its server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerState {
    /// The hook that runs the keeper.
    pub hook: String,
    /// The slot's directory.
    pub slot: PathBuf,
    /// How far it is.
    pub phase: Phase,
    /// The keeper.
    pub keeper: ProcessId,
    /// The server.
    pub server: ServerIdentity,
    /// Where the server listens; port 0 before it does and when there is none.
    pub address: SocketAddr,
    /// The server's output.
    pub log: PathBuf,
    /// Since when this phase lasts, in milliseconds since 1970.
    pub since_ms: u64,
    /// How the server ended, if it did.
    pub exit: Option<Exit>,
    /// Why it could not be started, if so.
    pub trouble: Option<Trouble>,
    /// What the starter found out about the server. Filled in for custodians, not stored in `state.json`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// What must not be ended now. Filled in for custodians, not stored in `state.json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
}

/// Why a server could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trouble {
    /// True when this machine lacks something: another provider may do better.
    pub environment: bool,
    /// The error's report.
    pub report: String,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self { environment: error.is_environment(), report: format!("{error:?}") }
    }
}

impl ServerState {
    /// The same server as it is known now: with what its starter found out, and with what is kept.
    #[must_use]
    pub fn current(&self) -> Self {
        super::sweep::with_facts(self, &self.slot)
    }

    /// True when something of this kind and name is kept.
    #[must_use]
    pub fn keeps(&self, kind: &str, name: &str) -> bool {
        self.kept.iter().any(|kept| kept.thing.kind == kind && kept.thing.name == name)
    }
}

/// `ready.json`: the starter found the server ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) keeper: ProcessId,
    pub(crate) facts: BTreeMap<String, String>,
}

/// Something that shall outlive its test for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeptThing {
    /// What it is: `database`, `dir`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How a person gets at it: a URL, a command.
    pub reach: String,
}

impl KeptThing {
    /// A thing of a kind and name, and how a person gets at it.
    pub fn new(kind: impl Into<String>, name: impl Into<String>, reach: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into(), reach: reach.into() }
    }
}

/// A kept thing with its owner and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// The thing.
    pub thing: KeptThing,
    /// The lease it belongs to.
    pub lease: LeaseId,
    /// The test that failed.
    pub test: String,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: u64,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// No address: 127.0.0.1 with port 0.
pub(crate) fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Writes a file so that readers see all of it or none.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> CoreResult {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let fresh = path.with_file_name(format!(".{name}-{}-{n}", std::process::id()));
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    write_private(&fresh, &text).and_then(|()| std::fs::rename(&fresh, path)).map_err(|error| {
        let _ = std::fs::remove_file(&fresh);
        Error::new(ErrorKind::Io, format!("could not write {}", path.display())).caused_by(error)
    })
}

/// Only this user may read it: facts may hold a URL with its password.
fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text)
}

/// Reads a file; `None` when it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> CoreResult<Option<T>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::new(ErrorKind::Io, format!("could not read {}", path.display())).caused_by(error));
        }
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::new(ErrorKind::Io, format!("{} is not what was expected", path.display()))
            .remedy("end its users and remove the directory")
            .caused_by(error)
    })
}
