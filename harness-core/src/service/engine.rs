//! The container engine, through testcontainers.
//!
//! All talk with the engine happens on one thread with a runtime of its own: connections then outlive the runtime of a
//! single test, and whoever has no runtime (a keeper, a `Drop`) can call, too. Containers are owned by label; removing
//! them never depends on a destructor here.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as EngineError;
#[cfg(feature = "fault")]
use testcontainers::bollard::models::{ContainerUpdateBody, NetworkConnectRequest, NetworkDisconnectRequest};
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{IntoContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::{Builder, Handle};

#[cfg(feature = "fault")]
use super::bounds::{Bounds, CPU_PERIOD_US, Change};
use super::{ContainerSpec, Exit};
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{seconds, within};

/// One question to a living engine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Whether an engine lives at all.
const PING_LIMIT: Duration = Duration::from_secs(5);

static ENGINE: Mutex<Option<Handle>> = Mutex::new(None);
/// Handles of testcontainers by container id. Kept so that its own destructor never removes what we still need.
static CONTAINERS: Mutex<BTreeMap<String, ContainerAsync<GenericImage>>> = Mutex::new(BTreeMap::new());

/// How a container is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) running: bool,
    pub(crate) paused: bool,
    pub(crate) exit: Exit,
    /// Its main process, as this machine numbers it.
    pub(crate) pid: Option<u32>,
}

/// Runs a future on the engine's thread.
fn on_engine<T: Send + 'static>(
    what: &str,
    limit: Duration,
    task: impl Future<Output = CoreResult<T>> + Send + 'static,
) -> CoreResult<T> {
    let (answer, result) = channel();
    let handle = handle()?;
    let name = what.to_owned();
    handle.spawn(async move {
        let _ = answer.send(within(name, limit, task).await.and_then(|result| result));
    });
    // The task is bounded by itself; the second bound is for an engine thread that hangs.
    result.recv_timeout(limit + PING_LIMIT).unwrap_or_else(|error| {
        let why = match error {
            RecvTimeoutError::Timeout => format!("{what} took longer than {}", seconds(limit)),
            RecvTimeoutError::Disconnected => format!("{what} was cut short"),
        };
        Err(Error::new(ErrorKind::Timeout, why))
    })
}

fn handle() -> CoreResult<Handle> {
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*engine {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("harness-engine".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    *engine = Some(handle.clone());
    Ok(handle)
}

async fn engine() -> CoreResult<Docker> {
    let docker = docker_client_instance().await.map_err(|error| unreachable_engine(&error))?;
    match tokio::time::timeout(PING_LIMIT, docker.ping()).await {
        Ok(Ok(_)) => Ok(docker),
        Ok(Err(error)) => Err(unreachable_engine(&error)),
        Err(_) => Err(unreachable_engine(&format!("no answer within {}", seconds(PING_LIMIT)))),
    }
}

fn unreachable_engine(error: &dyn std::fmt::Display) -> Error {
    let sockets = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(|path| match std::fs::metadata(path) {
        Ok(_) => format!("{path}: is there"),
        Err(error) => format!("{path}: {error}"),
    });
    let error = Error::new(ErrorKind::Environment, format!("no container engine can be reached: {error}"))
        .remedy("start one, or point DOCKER_HOST at it, or let HARNESS_PROVIDERS name other providers");
    sockets.into_iter().fold(error, Error::tried)
}

fn refused(what: impl Into<String>, error: EngineError) -> Error {
    Error::new(ErrorKind::Environment, what).caused_by(error)
}

/// True when the error says that the thing is not there.
fn is_missing(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 404, .. })
}

/// True when the error says that it is already so.
fn is_no_change(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 304 | 409, .. })
}

/// Proves that the engine answers and that the image is there or may be pulled. Nothing exists afterwards that did not
/// before, so that whoever fails here has nothing to remove.
pub(crate) fn reach(image: &str) -> CoreResult {
    let image = image.to_owned();
    on_engine("reaching the container engine", ANSWER_LIMIT, async move { check_image(&engine().await?, &image).await })
}

/// Creates and starts a container; its output is appended to `log`.
pub(crate) fn start(
    spec: &ContainerSpec,
    host_port: u16,
    labels: BTreeMap<String, String>,
    log: &Path,
    limit: Duration,
) -> CoreResult<String> {
    let (spec, log) = (spec.clone(), log.to_owned());
    on_engine(&format!("starting a container of {}", spec.image), limit, async move {
        let docker = engine().await?;
        let image = spec.image.clone();
        let container = request(spec, host_port, labels).start().await.map_err(|error| {
            Error::new(ErrorKind::Environment, format!("could not start a container of {image}"))
                .remedy("`docker logs` and `docker image inspect` say more; name another image by its variable")
                .caused_by(error)
        })?;
        let id = container.id().to_owned();
        CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), container);
        tokio::spawn(follow(docker, id.clone(), log, 0));
        Ok(id)
    })
}

async fn check_image(docker: &Docker, image: &str) -> CoreResult {
    match docker.inspect_image(image).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) && Settings::get().offline => Err(Error::new(
            ErrorKind::Environment,
            format!("the image {image} is not present, and HARNESS_OFFLINE forbids to pull"),
        )
        .remedy("run `harness provision`, or `docker pull` it")),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(refused(format!("could not ask for the image {image}"), error)),
    }
}

fn request(
    spec: ContainerSpec,
    host_port: u16,
    labels: BTreeMap<String, String>,
) -> testcontainers::ContainerRequest<GenericImage> {
    // A colon after the last slash begins the tag; before it, it begins a registry's port.
    let (name, tag) = match spec.image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (spec.image.clone(), "latest".to_owned()),
    };
    let port = spec.container_port;
    let image = match spec.host_network {
        true => GenericImage::new(name, tag),
        false => GenericImage::new(name, tag).with_exposed_port(port.tcp()),
    };
    let mut request = image.with_labels(labels).with_labels(spec.labels);
    if !spec.cmd.is_empty() {
        let fill = |word: String| if spec.host_network { word.replace("{port}", &host_port.to_string()) } else { word };
        request = request.with_cmd(spec.cmd.into_iter().map(fill));
    }
    for (name, value) in spec.env {
        request = request.with_env_var(name, value);
    }
    for (here, inside) in spec.mounts {
        request = request.with_mount(Mount::bind_mount(here, inside));
    }
    if let Some(bytes) = spec.shm_bytes {
        request = request.with_shm_size(bytes);
    }
    if let Some(user) = spec.user {
        request = request.with_user(user);
    }
    let (memory, cpu, tmpfs, host_network) = (spec.memory_bytes, spec.cpu_millis, spec.tmpfs, spec.host_network);
    request.with_host_config_modifier(move |host: &mut HostConfig| {
        host.publish_all_ports = Some(false);
        if host_network {
            host.network_mode = Some("host".to_owned());
        } else {
            let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(host_port.to_string()) };
            host.port_bindings = Some(HashMap::from([(format!("{port}/tcp"), Some(vec![binding]))]));
        }
        host.memory = memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        host.nano_cpus = cpu.map(|millis| i64::from(millis) * 1_000_000);
        if !tmpfs.is_empty() {
            host.tmpfs = Some(tmpfs.clone().into_iter().collect());
        }
    })
}

/// Appends a container's output from a second since 1970 on to a file, until the container ends.
async fn follow(docker: Docker, id: String, log: PathBuf, since: i32) {
    let options = LogsOptionsBuilder::new().follow(true).since(since).stdout(true).stderr(true).build();
    let mut lines = docker.logs(&id, Some(options));
    let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log) else { return };
    while let Some(Ok(line)) = lines.next().await {
        if file.write_all(&line.into_bytes()).is_err() {
            return;
        }
    }
}

/// How the container is.
pub(crate) fn life(id: &str) -> CoreResult<Life> {
    let id = id.to_owned();
    on_engine("asking for a container", ANSWER_LIMIT, async move {
        let found = engine().await?.inspect_container(&id, None::<InspectContainerOptions>).await;
        let state = match found {
            Ok(found) => found.state.unwrap_or_default(),
            Err(error) if is_missing(&error) => Default::default(),
            Err(error) => return Err(refused(format!("could not ask for container {id}"), error)),
        };
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
        Ok(Life {
            running: state.running.unwrap_or(false),
            paused: state.paused.unwrap_or(false),
            exit: Exit { code, signal: None },
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        })
    })
}

/// One call about one container. Being so already is success.
fn tell<F: Future<Output = Result<(), EngineError>> + Send + 'static>(
    what: &'static str,
    id: &str,
    limit: Duration,
    call: impl FnOnce(Docker, String) -> F + Send + 'static,
) -> CoreResult {
    let id = id.to_owned();
    on_engine(what, limit, async move {
        match call(engine().await?, id.clone()).await {
            Err(error) if !is_no_change(&error) => Err(refused(format!("{what} {id} failed"), error)),
            _ => Ok(()),
        }
    })
}

pub(crate) fn stop(id: &str, grace: Duration) -> CoreResult {
    tell("stopping container", id, grace + ANSWER_LIMIT, move |docker, id| async move {
        let grace = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        docker.stop_container(&id, Some(StopContainerOptionsBuilder::new().t(grace).build())).await
    })
}

pub(crate) fn start_again(id: &str, log: &Path) -> CoreResult {
    let log = log.to_owned();
    tell("starting container", id, ANSWER_LIMIT, |docker, id| async move {
        // What was said before the end is in the log already.
        let since = i32::try_from(crate::keeper::now_ms() / 1_000).unwrap_or(0);
        docker.start_container(&id, None::<StartContainerOptions>).await?;
        tokio::spawn(follow(docker, id, log, since));
        Ok(())
    })
}

pub(crate) fn kill(id: &str) -> CoreResult {
    tell("killing container", id, ANSWER_LIMIT, |docker, id| async move {
        docker.kill_container(&id, None::<KillContainerOptions>).await
    })
}

pub(crate) fn pause(id: &str) -> CoreResult {
    tell("pausing container", id, ANSWER_LIMIT, |docker, id| async move { docker.pause_container(&id).await })
}

pub(crate) fn resume(id: &str) -> CoreResult {
    tell("resuming container", id, ANSWER_LIMIT, |docker, id| async move { docker.unpause_container(&id).await })
}

/// What the container may use, and where it is; none when it is gone.
#[cfg(feature = "fault")]
pub(crate) fn bounds(id: &str) -> CoreResult<Option<Bounds>> {
    let id = id.to_owned();
    on_engine("asking for a container's limits", ANSWER_LIMIT, async move {
        let found = match engine().await?.inspect_container(&id, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(refused(format!("could not ask for container {id}"), error)),
        };
        let host = found.host_config.unwrap_or_default();
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        Ok(Some(Bounds {
            nano_cpus: host.nano_cpus.unwrap_or(0),
            cpu_quota: host.cpu_quota.unwrap_or(0),
            memory: host.memory.unwrap_or(0),
            is_oom_killed: found.state.and_then(|state| state.oom_killed).unwrap_or(false),
            networks: networks.into_keys().collect(),
        }))
    })
}

/// Changes what a container may use, or where it is.
#[cfg(feature = "fault")]
pub(crate) fn change(id: &str, change: Change) -> CoreResult {
    let id = id.to_owned();
    on_engine("changing a container", ANSWER_LIMIT, async move {
        let docker = engine().await?;
        let mut body = ContainerUpdateBody::default();
        let done = match &change {
            Change::Connect(network) => {
                let request = NetworkConnectRequest { container: id.clone(), ..Default::default() };
                docker.connect_network(network, request).await
            }
            Change::Disconnect(network) => {
                let request = NetworkDisconnectRequest { container: id.clone(), ..Default::default() };
                docker.disconnect_network(network, request).await
            }
            limit => {
                match limit {
                    Change::NanoCpus(nanos) => body.nano_cpus = Some(*nanos),
                    Change::CpuQuota(micros) => {
                        (body.cpu_period, body.cpu_quota) = (Some(CPU_PERIOD_US), Some(*micros));
                    }
                    Change::Memory(bytes) => (body.memory, body.memory_swap) = (Some(*bytes), Some(*bytes)),
                    Change::Connect(_) | Change::Disconnect(_) => {}
                }
                docker.update_container(&id, body).await
            }
        };
        done.map_err(|error| {
            refused(format!("the engine does not take {change:?} for container {id}"), error)
                .remedy("the engine's log says more; a container cannot get less memory than it holds")
        })
    })
}

/// Names and ids of all containers with this label, whatever they do.
pub(crate) fn labelled(label: &str, value: &str) -> CoreResult<Vec<String>> {
    let filter = format!("{label}={value}");
    on_engine("listing containers by label", ANSWER_LIMIT, async move {
        let filters = HashMap::from([("label".to_owned(), vec![filter.clone()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = engine().await?.list_containers(Some(options)).await;
        let found = found.map_err(|error| refused(format!("could not list containers with {filter}"), error))?;
        let line = |container: testcontainers::bollard::models::ContainerSummary| {
            let id: String = container.id.unwrap_or_default().chars().take(12).collect();
            format!("{id} of {}", container.image.unwrap_or_default())
        };
        Ok(found.into_iter().map(line).collect())
    })
}

async fn remove_one(docker: &Docker, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(id, Some(options)).await {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

/// Removes a container with its anonymous volumes, whatever it does.
pub(crate) fn remove(id: &str) -> CoreResult {
    let handle = CONTAINERS.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    tell("removing container", id, ANSWER_LIMIT, |docker, id| async move {
        remove_one(&docker, &id).await?;
        // testcontainers would remove it on drop; its own removal of nothing is an error that we expect.
        if let Some(handle) = handle {
            let _ = handle.rm().await;
        }
        Ok(())
    })
}

/// Removes every container with this label; returns their ids. Without an engine nobody knows, which is an error.
pub(crate) fn remove_labelled(label: &str, value: &str) -> CoreResult<Vec<String>> {
    let filter = format!("{label}={value}");
    on_engine("removing containers by label", ANSWER_LIMIT, async move {
        let docker = engine().await?;
        let filters = HashMap::from([("label".to_owned(), vec![filter.clone()])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = docker.list_containers(Some(options)).await;
        let found = found.map_err(|error| refused(format!("could not list containers with {filter}"), error))?;
        let mut removed = Vec::new();
        for id in found.into_iter().filter_map(|container| container.id) {
            remove_one(&docker, &id)
                .await
                .map_err(|error| refused(format!("could not remove container {id}"), error))?;
            removed.push(id);
        }
        Ok(removed)
    })
}
