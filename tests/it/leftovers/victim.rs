//! The victim: a test that takes everything there is to take, tells how far it is, gives it all back, and begins again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness_core::CoreResult;
use harness_core::fault::{FaultProxy, Outage, WireFault, inject};
use harness_core::scope::TestScope;
use harness_core::service::{Backend, ContainerSpec, Exec, Service, ServiceSpec};
use harness_core::wait::{Progress, pause};
use harness_db::redis::PausedWrites;
use harness_db::{OwnRedis, RedisOptions};

use super::{LINGER, traces};

/// What a victim tells when it holds all of it.
pub(super) const EVERYTHING: &str = "everything";
/// A Redis that anybody may ask: the command of its container.
const REDIS: &str = "exec redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save ''";

/// The body of the victim: works until it is killed. Anywhere else it does nothing.
#[tokio::test]
async fn victim() -> harness_core::Result {
    let Some(state) = std::env::var_os("HARNESS_VICTIM") else { return Ok(()) };
    loop {
        round(&PathBuf::from(&state)).await?;
    }
}

/// Whoever comes next: a run that takes a little and ends. Anywhere else it does nothing.
#[tokio::test]
async fn next_run() -> harness_core::Result {
    if std::env::var_os("HARNESS_NEXT").is_none() {
        return Ok(());
    }
    let scope = TestScope::current();
    std::fs::write(scope.temp_dir()?.join("file"), "the next one")?;
    let (database, keyspace) = (harness_db::postgres().await?, harness_db::redis().await?);
    drop((database, keyspace));
    scope.shutdown().await?;
    Ok(())
}

async fn round(state: &Path) -> CoreResult {
    let scope = TestScope::current();
    std::fs::write(scope.temp_dir()?.join("file"), "left over?")?;
    tell(state, "a directory");
    let (database, keyspace) = (harness_db::postgres().await?, harness_db::redis().await?);
    let made = harness_db::sqlx::query("create table t (id int)").execute(database.pool()).await;
    made.map_err(|error| harness_core::Error::new(harness_core::ErrorKind::Io, error.to_string()))?;
    tell(state, "databases");
    let child = child(&scope).await?;
    let frozen = inject(Outage::freeze(&child)).await?;
    tell(state, "a frozen child with a child that leads a session");
    let mut paused = None;
    if let Some(container) = container(&scope).await? {
        paused = Some(inject(Outage::freeze(&container)).await?);
        tell(state, "a paused container");
    }
    let own = OwnRedis::start(&scope, RedisOptions::new()).await?;
    let held = inject(PausedWrites::of(&own)).await?;
    let proxy = FaultProxy::to(own.address())?;
    proxy.apply(WireFault::stall())?;
    let through = tokio::net::TcpStream::connect(proxy.address()).await?;
    tell(state, "faults that act");
    tell(state, EVERYTHING);
    pause(Duration::from_millis(150)).await;
    drop(through);
    held.heal().await?;
    if let Some(paused) = paused {
        paused.heal().await?;
    }
    frozen.heal().await?;
    drop((database, keyspace, proxy));
    scope.shutdown().await
}

/// A process with a child that left its group and its session.
pub(super) async fn child(scope: &TestScope) -> CoreResult<Service> {
    let sleeper = Exec::new("sh").args(["-c", "setsid sleep 600 & exec sleep 600"]);
    ServiceSpec::new("child", Backend::Process(sleeper)).ready(async |_| Progress::Ready(())).start(scope).await
}

/// A container, where there is an engine with an image.
pub(super) async fn container(scope: &TestScope) -> CoreResult<Option<Service>> {
    let Some(image) = traces::redis_image() else { return Ok(None) };
    let spec = ContainerSpec::new(image, 6379).cmd(["sh", "-c", REDIS]);
    ServiceSpec::new("contained", Backend::Container(spec)).start(scope).await.map(Some)
}

fn tell(state: &Path, stage: &str) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(state.join("stages"));
    // Whoever counts the stages misses one that could not be written.
    let _ = file.and_then(|mut file| writeln!(file, "{stage}"));
}

/// How far a victim got.
pub(super) fn stages(state: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(state.join("stages")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The last words of a victim.
pub(super) fn said(state: &Path) -> String {
    let text = std::fs::read_to_string(state.join("said")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    format!("at {:?}; it said: {}", stages(state).last(), lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
}

/// This binary, or a copy of it, as a run of its own that plays one test in a state directory of its own.
pub(super) fn act(program: &Path, test: &str, state: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]);
    command.env("HARNESS_LINGER", format!("{}ms", LINGER.as_millis())).env("HARNESS_KEEP", "0");
    command.env("HARNESS_OUT", state.join("out")).env("XDG_RUNTIME_DIR", state);
    for name in ["NEXTEST_RUN_ID", "NEXTEST_TEST_NAME", "NEXTEST", "HARNESS_FIGURES"] {
        command.env_remove(name); // a run of its own
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn own_image() -> PathBuf {
    std::env::current_exe().expect("a test binary knows itself")
}

pub(super) fn start(state: &Path) -> Child {
    let said = std::fs::File::create(state.join("said")).expect("a file");
    let mut command = act(&own_image(), "leftovers::victim::victim", state);
    command.env("HARNESS_VICTIM", state).stderr(said).spawn().expect("the victim starts")
}

/// Runs the next one to its end; what it said.
pub(super) fn next(state: &Path) -> String {
    let mut command = act(&own_image(), "leftovers::victim::next_run", state);
    let output = command.env("HARNESS_NEXT", "1").stderr(Stdio::piped()).stdout(Stdio::piped()).output();
    let output = output.expect("the next run starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "the next run failed: {text}\n{}", String::from_utf8_lossy(&output.stdout));
    text
}
