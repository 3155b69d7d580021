//! The server as its keeper holds it: started on a thread of its own, so that the keeper can look around meanwhile.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::base::create_dir;
use super::data::{Launch, Main, PortPlan, ServerIdentity, nowhere};
use super::memory;
use super::sweep::{CONTAINERS, SLOT_LABEL, end_owned};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::spawn::user_to_drop_to;
use crate::service::{ContainerSpec, Exec, Exit, LAST_LINES, Port, Running, Signal, Streams, engine, run_owned};
use crate::wait::{Aside, Missing, aside};

/// A server that is asked to end is given this long before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// While a start is given up, what it has started is looked for this often.
const GIVE_UP_LOOK: Duration = Duration::from_millis(100);
/// A container is asked for its life at most this often.
const CONTAINER_LOOK: Duration = Duration::from_secs(1);

/// A server, or one that is being started.
pub(super) struct Held {
    dir: PathBuf,
    owner: String,
    starting: Option<Aside<CoreResult<Started>>>,
    started: Option<Started>,
    looked: Option<Instant>,
}

struct Started {
    body: Body,
    address: SocketAddr,
    _port: Option<Port>,
}

enum Body {
    Process { running: Running, stop: Signal },
    Container(String),
    Nothing,
}

impl Held {
    /// Begins to prepare and start what the launch says.
    pub(super) fn start(dir: &Path, launch: Launch) -> CoreResult<Self> {
        let owner = format!("{}/server", dir.display());
        let starter = Starter { dir: dir.to_owned(), owner: owner.clone(), until: Instant::now() + launch.limit };
        // A keeper that leaves meanwhile ends what was started by its owner's name.
        let starting = aside("harness-starter", move || starter.start(&launch))?;
        Ok(Self { dir: dir.to_owned(), owner, starting: Some(starting), started: None, looked: None })
    }

    /// What was started and where, once.
    pub(super) fn started(&mut self) -> Option<CoreResult<(ServerIdentity, SocketAddr)>> {
        let result = match self.starting.as_ref()?.within(Duration::ZERO) {
            Ok(result) => result,
            Err(Missing::NotYet) => return None,
            Err(Missing::Gone) => Err(Error::new(ErrorKind::Exited, "the keeper's starter panicked")),
        };
        self.starting = None;
        Some(result.map(|started| {
            let identity = match &started.body {
                Body::Process { running, .. } => ServerIdentity::Process(running.identity),
                Body::Container(id) => ServerIdentity::Container(id.clone()),
                Body::Nothing => ServerIdentity::Nothing,
            };
            let address = started.address;
            self.started = Some(started);
            (identity, address)
        }))
    }

    /// How the server ended, if it did.
    pub(super) fn exit(&mut self) -> Option<Exit> {
        match &mut self.started.as_mut()?.body {
            Body::Process { running, .. } => running.ended().ok().flatten(),
            Body::Nothing => None,
            Body::Container(id) => {
                if self.looked.is_some_and(|looked| looked.elapsed() < CONTAINER_LOOK) {
                    return None;
                }
                self.looked = Some(Instant::now());
                // An engine that does not answer says nothing about the container.
                engine::life(id).ok().filter(|life| !life.running).map(|life| life.exit)
            }
        }
    }

    /// Ends the server, or the attempt to start it.
    pub(super) fn end(&mut self) -> CoreResult {
        if let Some(starting) = self.starting.take() {
            self.give_up(&starting)?;
        }
        match self.started.take().map(|started| started.body) {
            Some(Body::Process { mut running, stop }) => {
                running.stop(stop, STOP_GRACE)?;
            }
            Some(Body::Container(id)) => engine::remove(&id)?,
            Some(Body::Nothing) | None => {}
        }
        Ok(())
    }
}

impl Held {
    /// Ends a start that is under way: again and again what it has started so far, so that it has nothing to wait for.
    fn give_up(&mut self, starting: &Aside<CoreResult<Started>>) -> CoreResult {
        let until = Instant::now() + STOP_GRACE * 3;
        while Instant::now() < until {
            end_owned(&self.owner, |found, owner| found == owner)?;
            if self.dir.join(CONTAINERS).exists() {
                // Whoever ends this slot asks the engine once more, and says what it answered.
                let _ = engine::remove_labelled(SLOT_LABEL, &self.dir.to_string_lossy());
            }
            match starting.within(GIVE_UP_LOOK) {
                Err(Missing::NotYet) => {}
                Ok(Ok(started)) => {
                    self.started = Some(started);
                    break;
                }
                Ok(Err(_)) | Err(Missing::Gone) => break,
            }
        }
        Ok(())
    }
}

struct Starter {
    dir: PathBuf,
    owner: String,
    until: Instant,
}

impl Starter {
    fn start(&self, launch: &Launch) -> CoreResult<Started> {
        let port = match (&launch.main, launch.port) {
            (Main::Nothing, _) => None,
            (Main::Container(ContainerSpec { host_port: Some(number), .. }), _) => Some(Port::exactly(*number)?),
            (_, PortPlan::Reserve) => Some(Port::reserve()?),
            (_, PortPlan::Fixed(number)) => Some(Port::exactly(number)?),
        };
        let address = port.as_ref().map_or_else(nowhere, Port::address);
        self.make_data_dir(launch)?;
        for exec in &launch.prepare {
            self.prepare(&self.fill(exec, address))?;
        }
        let log = self.dir.join("server.log");
        let body = match &launch.main {
            Main::Nothing => Body::Nothing,
            Main::Process(exec) => {
                let exec = self.fill(exec, address).log(log);
                Body::Process { running: exec.spawn(Streams::Logged, Some(&self.owner))?, stop: exec.stop_signal }
            }
            Main::Container(spec) => {
                engine::reach(&spec.image)?;
                // From here on there may be one: whoever ends this slot asks the engine.
                create_dir(&self.dir.join(CONTAINERS))?;
                let labels = [(SLOT_LABEL.to_owned(), self.dir.display().to_string())].into();
                Body::Container(engine::start(spec, address.port(), labels, &log, self.left())?)
            }
        };
        Ok(Started { body, address, _port: port })
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn fill(&self, exec: &Exec, address: SocketAddr) -> Exec {
        exec.fill("port", &address.port().to_string())
            .fill("data", &self.dir.join("data").to_string_lossy())
            .fill("dir", &self.dir.to_string_lossy())
    }

    fn make_data_dir(&self, launch: &Launch) -> CoreResult {
        let Main::Process(exec) = &launch.main else { return Ok(()) };
        let data = self.dir.join("data");
        let is_lent = match launch.memory {
            Some(least) => memory::lend(&self.dir, &data, least)?,
            None => false,
        };
        if !is_lent {
            std::fs::create_dir(&data)?;
        }
        // Postgres refuses a directory that others may read.
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
        if let Some(user) = exec.user.as_deref().map(user_to_drop_to).transpose()?.flatten() {
            std::os::unix::fs::chown(&data, Some(user.uid), Some(user.gid))?;
        }
        Ok(())
    }

    fn prepare(&self, exec: &Exec) -> CoreResult {
        let finished = run_owned(exec, self.left(), Some(&self.owner))?;
        if finished.is_success() {
            return Ok(());
        }
        let how = finished.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        let lines: Vec<_> = finished.stdout.lines().chain(finished.stderr.lines()).collect();
        Err(Error::new(ErrorKind::Exited, format!("preparing failed: `{}` ended with {how}", exec.program.display()))
            .tried(exec.command_line())
            .log(lines[lines.len().saturating_sub(LAST_LINES)..].iter().copied()))
    }
}
