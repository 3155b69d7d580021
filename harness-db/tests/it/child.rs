//! This test binary as a process of its own, with a state directory of its own, for tests of what outlives a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use harness_core::keeper::{ServerIdentity, ServerState};
use harness_core::service::ProcessId;
use harness_core::wait::{Progress, wait_for_blocking};

/// Says what the child shall do; unset in every other process.
const ROLE: &str = "HARNESS_DB_TEST_ROLE";

/// A state directory nobody else uses: its servers end with its users.
pub(crate) fn state_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    // Root's servers run as another user, who must be able to pass.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// Kills the keeper of the one server of this kind in a state directory; false when it is dead already.
pub(crate) fn kill_keeper(state: &Path, kind: &str) -> bool {
    kill(state_of(state, kind).keeper)
}

/// Kills the one server of this kind in a state directory, which is a process, and leaves its keeper alive.
pub(crate) fn kill_server(state: &Path, kind: &str) -> bool {
    match state_of(state, kind).server {
        ServerIdentity::Process(server) => kill(server),
        other => panic!("{other:?} is no process"),
    }
}

fn kill(process: ProcessId) -> bool {
    let pid = rustix::process::Pid::from_raw(process.pid.cast_signed()).expect("a process");
    let was_there = process.is_alive() && rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok();
    let gone = || if process.is_alive() { Progress::NotYet("it dies".to_owned()) } else { Progress::Ready(()) };
    wait_for_blocking("the killed one to be gone", Duration::from_secs(10), gone).expect("death");
    was_there
}

fn state_of(state: &Path, kind: &str) -> ServerState {
    let slots = std::fs::read_dir(state.join("harness/v1")).unwrap().flatten();
    let slot =
        slots.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_string_lossy().starts_with(kind));
    let text = std::fs::read_to_string(slot.expect("a slot of this kind").join("state.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A child that plays a role.
pub(crate) struct Role {
    pub(crate) child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// Starts a child in this role.
pub(crate) fn start(state: &Path, role: &str, vars: &[(&str, &str)]) -> Role {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::plays_its_role", "--nocapture", "--test-threads=1"]);
    for name in ["NEXTEST_RUN_ID", "NEXTEST_TEST_NAME", "HARNESS_POSTGRES_URL", "HARNESS_REDIS_URL", "CI"] {
        command.env_remove(name);
    }
    command.env(ROLE, role).env("XDG_RUNTIME_DIR", state).env("HARNESS_LINGER", "1s").env("HARNESS_KEEP", "20s");
    command.env("HARNESS_PROVIDERS", "local").envs(vars.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    Role { child, out }
}

impl Role {
    /// Lets the child go on by one step.
    pub(crate) fn goes_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// The rest of the line that begins with this word; fails when the child ends without it.
    pub(crate) fn hears(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let mut error = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("the child ended without saying `{word}`:\n{error}");
            }
            // libtest prints its own words before the child's first line.
            if let Some((_, rest)) = line.split_once(&format!("child-{word} ")) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Lets the child end, and waits for it: how it ended and everything else it said.
    pub(crate) fn ends(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let (mut out, mut error) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (self.child.wait().unwrap(), format!("{out}{error}"))
    }

    /// Kills the child, so that none of its code runs any more.
    pub(crate) fn dies(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn say(word: &str, rest: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child-{word} {rest}").unwrap();
    out.flush().unwrap();
}

/// Blocks until the parent lets this child go (or dies itself).
fn wait_to_be_let_go() {
    let _ = std::io::stdin().read(&mut [0_u8; 1]);
}

#[tokio::test]
async fn plays_its_role() -> harness_db::Result {
    let Ok(role) = std::env::var(ROLE) else { return Ok(()) };
    match role.as_str() {
        "postgres" | "postgres fails" | "postgres panics" => {
            let db = harness_db::postgres().connections(2).await?;
            sqlx::query("create table proof(word text)").execute(db.pool()).await?;
            sqlx::query("insert into proof values ('here')").execute(db.pool()).await?;
            say("url", &db.url());
            say("server", &format!("{}:{}", db.options().get_host(), db.options().get_port()));
            wait_to_be_let_go();
            if role == "postgres fails" {
                Err(std::io::Error::other("planted failure"))?;
            }
            assert!(role != "postgres panics", "planted panic");
        }
        "postgres again and again" | "redis again and again" => loop {
            // Until the parent has seen enough: what dies in between must not matter.
            let url = match role.as_str() {
                "redis again and again" => harness_db::redis().await.map(|redis| redis.url()),
                _ => harness_db::postgres().await.map(|db| db.url()),
            };
            match url {
                Ok(url) => say("url", &url),
                Err(error) => say("url", &format!("none: {error:?}").replace('\n', " | ")),
            }
            let mut line = String::new();
            if std::io::stdin().read_line(&mut line)? == 0 {
                return Ok(());
            }
        },
        "redis" => {
            let redis = harness_db::redis().await?;
            say("url", &redis.url());
            wait_to_be_let_go();
        }
        "error" => {
            let error = harness_db::postgres().await.unwrap_err();
            say("kind", &format!("{:?}", error.kind()));
            say("report", &format!("{error:?}").replace('\n', " | "));
        }
        other => panic!("no role `{other}`"),
    }
    Ok(())
}
