//! A running service and what can be done to it. Every verb proves its effect before it returns.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::spec::{Backend, Endpoint, Ready, ServiceSpec, address_of};
use super::{
    ContainerSpec, Exec, Exit, LAST_LINES, Port, ProcessId, Running, Signal, Streams, engine, last_lines, process,
};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::{LEASE_LABEL, RunSlot, SLOT_LABEL};
use crate::scope::TestScope;
use crate::wait::{Progress, blocking, wait_for};

/// The effect of a verb must show within this time.
const EFFECT_LIMIT: Duration = Duration::from_secs(10);
/// Creating a container of an image that is present.
const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// A service that was started in a scope or runs elsewhere. Cheap to clone; all clones are the same service.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    ready: Ready,
    limit: Duration,
    grace: Duration,
    address: SocketAddr,
    log: Option<PathBuf>,
    body: Mutex<Body>,
    _port: Option<Port>,
}

enum Body {
    Process { exec: Box<Exec>, owner: String, running: Option<Running>, ended: Option<Exit> },
    Container(String),
    External,
}

impl Service {
    pub(super) async fn start(spec: ServiceSpec, scope: &TestScope) -> CoreResult<Self> {
        let log = match spec.backend {
            Backend::External(_) => None,
            _ => Some(scope.evidence_path(&format!("{}.log", spec.name))?),
        };
        let service = Self { inner: Arc::new(blocking(move || Inner::new(spec, log)).await?) };
        let ended = service.clone();
        scope.on_teardown(format!("service `{}`", service.name()), async move || ended.end().await);
        service.inner.spawn()?;
        service.wait_until_ready().await?;
        Ok(service)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Its process, while it is one of ours and runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &*self.inner.body() {
            Body::Process { running, .. } => running.as_ref().map(|running| running.identity.pid),
            Body::Container(_) | Body::External => None,
        }
    }

    /// Its main process as this machine sees it, of a container too, to be watched by a sampler; none while it does not run,
    /// for a server that is not ours, and for a container on an engine elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the engine does not answer.
    pub async fn process(&self) -> CoreResult<Option<ProcessId>> {
        self.on_body("look at", |body, _| match body {
            Body::Process { running, .. } => Ok(running.as_ref().map(|running| running.identity)),
            Body::Container(id) => Ok(engine::life(id)?.pid.and_then(ProcessId::of)),
            Body::External => Ok(None),
        })
        .await
    }

    /// The container it is; refused for anything else, which an engine cannot change.
    #[cfg(feature = "fault")]
    pub(crate) fn container(&self, verb: &str) -> CoreResult<String> {
        match &*self.inner.body() {
            Body::Container(id) => Ok(id.clone()),
            Body::Process { .. } => {
                let what = format!("service `{}` is a process and cannot be {verb}", self.name());
                Err(Error::new(ErrorKind::Refused, what).remedy("run it in a container for this"))
            }
            Body::External => Err(self.inner.not_ours(verb)),
        }
    }

    /// Its output, if it is ours.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.inner.log.as_deref()
    }

    /// The last lines of its output.
    #[must_use]
    pub fn log_lines(&self, count: usize) -> Vec<String> {
        self.inner.log.as_deref().map(|log| last_lines(log, count)).unwrap_or_default()
    }

    /// Asks it to end; kills it after its grace. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a server that is not ours; [`ErrorKind::Timeout`] when it cannot be ended.
    pub async fn stop(&self) -> CoreResult<Exit> {
        let exit = self.on_body("stop", |body, inner| match body {
            Body::Process { exec, running, ended, .. } => {
                if let Some(mut running) = running.take() {
                    *ended = Some(running.stop(exec.stop_signal, inner.grace)?);
                }
                Ok(ended.unwrap_or_else(|| Exit { code: None, signal: None }))
            }
            Body::Container(id) => {
                engine::stop(id, inner.grace)?;
                Ok(engine::life(id)?.exit)
            }
            Body::External => Err(inner.not_ours("stopped")),
        });
        let exit = exit.await?;
        self.prove_refused().await?;
        Ok(exit)
    }

    /// Kills it with its whole group and all its descendants, with no chance to say goodbye. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a server that is not ours or does not run.
    pub async fn kill(&self) -> CoreResult<Exit> {
        let exit = self.on_body("kill", |body, inner| match body {
            Body::Process { running, ended, .. } => {
                let Some(mut gone) = running.take() else { return Err(inner.not_running("killed")) };
                gone.identity.kill_tree();
                let exit = gone.stop(Signal::Kill, EFFECT_LIMIT)?;
                *ended = Some(exit);
                Ok(exit)
            }
            Body::Container(id) => {
                if !engine::life(id)?.running {
                    return Err(inner.not_running("killed"));
                }
                engine::kill(id)?;
                Ok(engine::life(id)?.exit)
            }
            Body::External => Err(inner.not_ours("killed")),
        });
        let exit = exit.await?;
        self.prove_refused().await?;
        Ok(exit)
    }

    /// Starts it again on the same address after it ended, and waits until it is ready.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs or is not ours; else as [`ServiceSpec::start`].
    pub async fn start_again(&self) -> CoreResult {
        self.on_body("start again", |body, inner| match body {
            Body::Process { exec, owner, running, ended } => {
                if running.as_mut().is_some_and(|running| matches!(running.ended(), Ok(None))) {
                    return Err(inner.running_already());
                }
                *running = Some(exec.spawn(Streams::Logged, Some(owner))?);
                *ended = None;
                Ok(())
            }
            Body::Container(id) => {
                if engine::life(id)?.running {
                    return Err(inner.running_already());
                }
                engine::start_again(id, inner.log.as_deref().unwrap_or_else(|| Path::new("/dev/null")))
            }
            Body::External => Err(inner.not_ours("started")),
        })
        .await?;
        self.wait_until_ready().await
    }

    /// Freezes it: it keeps its connections and answers nobody. Proven by its state.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a server that is not ours or does not run.
    pub async fn pause(&self) -> CoreResult {
        self.freeze(true).await
    }

    /// Ends [`Service::pause`]. Proven by its state.
    ///
    /// # Errors
    /// As [`Service::pause`].
    pub async fn resume(&self) -> CoreResult {
        self.freeze(false).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it still runs after `limit`; [`ErrorKind::Refused`] when it is not ours.
    pub async fn wait_exit(&self, limit: Duration) -> CoreResult<Exit> {
        if let Body::External = &*self.inner.body() {
            return Err(self.inner.not_ours("watched"));
        }
        wait_for(format!("service `{}` to end", self.name()), limit, async || match self.exit().await {
            Ok(Some(exit)) => Progress::Ready(exit),
            Ok(None) => Progress::NotYet("it runs".to_owned()),
            Err(error) => Progress::Failed(error),
        })
        .await
    }

    /// How it ended, if it did. A server that is not ours never ends as far as we know.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when the engine does not answer.
    pub async fn exit(&self) -> CoreResult<Option<Exit>> {
        self.on_body("look at", |body, _| match body {
            Body::Process { running, ended, .. } => match running {
                Some(running) => running.ended(),
                None => Ok(*ended),
            },
            Body::Container(id) => Ok(Some(engine::life(id)?).filter(|life| !life.running).map(|life| life.exit)),
            Body::External => Ok(None),
        })
        .await
    }

    async fn freeze(&self, frozen: bool) -> CoreResult {
        let verb = if frozen { "paused" } else { "resumed" };
        self.on_body("pause or resume", move |body, inner| match body {
            Body::Process { running, .. } => match running {
                Some(running) if running.identity.is_alive() => {
                    running.identity.signal_tree(if frozen { Signal::Stop } else { Signal::Cont });
                    Ok(())
                }
                _ => Err(inner.not_running(verb)),
            },
            Body::Container(id) if engine::life(id)?.running => {
                if frozen {
                    engine::pause(id)
                } else {
                    engine::resume(id)
                }
            }
            Body::Container(_) => Err(inner.not_running(verb)),
            Body::External => Err(inner.not_ours(verb)),
        })
        .await?;
        wait_for(format!("service `{}` to be {verb}", self.name()), EFFECT_LIMIT, async || {
            match self.is_frozen().await {
                Ok(now) if now == frozen => Progress::Ready(()),
                Ok(now) => Progress::NotYet(format!("frozen: {now}")),
                Err(error) => Progress::Failed(error),
            }
        })
        .await
    }

    async fn is_frozen(&self) -> CoreResult<bool> {
        self.on_body("look at", |body, _| match body {
            Body::Process { running, .. } => {
                let is_stopped = |pid| process::state_of(pid) == Some('T');
                Ok(running.as_ref().map(|running| running.identity).is_some_and(|leader| {
                    is_stopped(leader.pid) && leader.descendants().iter().all(|process| is_stopped(process.pid))
                }))
            }
            Body::Container(id) => Ok(engine::life(id)?.paused),
            Body::External => Ok(false),
        })
        .await
    }

    /// Asks the question of its spec until it is ready.
    pub(crate) async fn wait_until_ready(&self) -> CoreResult {
        let inner = &self.inner;
        let ready = wait_for(format!("service `{}`", inner.name), inner.limit, async || {
            (inner.ready)(Endpoint { name: inner.name.clone(), address: inner.address, pid: self.pid() }).await
        });
        // A readiness question may hang on a server that is already dead: its end is watched beside it.
        let dies = async {
            match self.wait_exit(inner.limit).await {
                Ok(exit) => {
                    Error::new(ErrorKind::Exited, format!("service `{}` ended before it was ready: {exit}", inner.name))
                }
                Err(_) => std::future::pending().await,
            }
        };
        let error = tokio::select! {
            biased;
            ready = ready => match ready {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            died = dies => died,
        };
        Err(inner.not_ready(&error))
    }

    async fn prove_refused(&self) -> CoreResult {
        let address = self.inner.address;
        wait_for(format!("{address} to refuse connections"), EFFECT_LIMIT, async || {
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => Progress::NotYet("it accepts".to_owned()),
                Err(_) => Progress::Ready(()),
            }
        })
        .await
    }

    /// The end of the scope: nothing of it runs or exists afterwards.
    async fn end(&self) -> CoreResult {
        self.on_body("end", |body, inner| match body {
            Body::Process { exec, running, ended, .. } => {
                if let Some(mut running) = running.take() {
                    // A frozen process does not hear its stop signal.
                    running.identity.signal_tree(Signal::Cont);
                    *ended = Some(running.stop(exec.stop_signal, inner.grace)?);
                }
                Ok(())
            }
            Body::Container(id) => engine::remove(id),
            Body::External => Ok(()),
        })
        .await
    }

    /// Waiting for processes and talking to engines blocks: both happen beside the test's runtime.
    async fn on_body<T: Send + 'static>(
        &self,
        verb: &'static str,
        act: impl FnOnce(&mut Body, &Inner) -> CoreResult<T> + Send + 'static,
    ) -> CoreResult<T> {
        let inner = Arc::clone(&self.inner);
        let done = blocking(move || act(&mut inner.body(), &inner)).await;
        done.map_err(|error| error.tried(format!("to {verb} service `{}`", self.inner.name)))
    }
}

impl Inner {
    fn new(spec: ServiceSpec, log: Option<PathBuf>) -> CoreResult<Self> {
        let (address, port, body) = match spec.backend {
            Backend::External(url) => (address_of(&url)?, None, Body::External),
            Backend::Process(exec) => {
                let port = Port::reserve()?;
                let exec = exec.fill("port", &port.number().to_string()).log(log.clone().unwrap_or_default());
                let owner = RunSlot::attach()?.owner();
                (port.address(), Some(port), Body::Process { exec: Box::new(exec), owner, running: None, ended: None })
            }
            Backend::Container(container) => {
                let port = container.host_port.map_or_else(Port::reserve, Port::exactly)?;
                let id = create(&container, &port, log.as_deref())?;
                (port.address(), Some(port), Body::Container(id))
            }
        };
        let (ready, limit, grace) = (spec.ready, spec.limit, spec.grace);
        Ok(Self { name: spec.name, ready, limit, grace, address, log, body: Mutex::new(body), _port: port })
    }

    fn body(&self) -> std::sync::MutexGuard<'_, Body> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the program; a container runs already.
    fn spawn(&self) -> CoreResult {
        if let Body::Process { exec, owner, running: running @ None, .. } = &mut *self.body() {
            *running = Some(exec.spawn(Streams::Logged, Some(owner))?);
        }
        Ok(())
    }

    fn not_ours(&self, verb: &str) -> Error {
        Error::new(ErrorKind::Refused, format!("service `{}` runs elsewhere and cannot be {verb}", self.name))
            .remedy("use a process or a container of the test's own for this")
    }

    fn not_running(&self, verb: &str) -> Error {
        Error::new(ErrorKind::Refused, format!("service `{}` does not run and cannot be {verb}", self.name))
            .log(self.log.as_deref().map(|log| last_lines(log, LAST_LINES)).unwrap_or_default())
            .remedy("start it again first")
    }

    fn running_already(&self) -> Error {
        Error::new(ErrorKind::Refused, format!("service `{}` runs already", self.name)).remedy("stop or kill it first")
    }

    fn not_ready(&self, cause: &Error) -> Error {
        let what = match cause.kind() {
            ErrorKind::Timeout => format!("service `{}` did not get ready: {}", self.name, cause.what()),
            _ => cause.what().to_owned(),
        };
        let mut error = Error::new(cause.kind(), what).tried(format!("address: {}", self.address));
        error = cause.attempts().iter().fold(error, Error::tried);
        if let Some(log) = &self.log {
            error = error.log(last_lines(log, LAST_LINES)).evidence(log);
        }
        let remedy = "read the log; if it only needs longer, raise `ServiceSpec::limit`";
        error.remedy(cause.remedy_text().unwrap_or(remedy))
    }
}

fn create(container: &ContainerSpec, port: &Port, log: Option<&Path>) -> CoreResult<String> {
    engine::reach(&container.image)?;
    let slot = RunSlot::attach()?;
    slot.note_container()?;
    let labels = [(SLOT_LABEL, slot.dir().display().to_string()), (LEASE_LABEL, slot.owner())];
    let labels = labels.map(|(name, value)| (name.to_owned(), value)).into();
    engine::start(container, port.number(), labels, log.unwrap_or_else(|| Path::new("/dev/null")), CREATE_LIMIT)
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Service");
        out.field("name", &self.inner.name).field("address", &self.inner.address).field("log", &self.inner.log);
        out.finish_non_exhaustive()
    }
}
