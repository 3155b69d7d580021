//! A world of its own for a test: a state directory nobody else uses, and processes that live in it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use harness_core::wait::{Progress, wait_for_blocking};
use serde_json::Value;

/// Nothing here takes this long unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long servers outlive their users in a world, unless a test says otherwise.
pub(crate) const LINGER: Duration = Duration::from_millis(300);

/// A state directory and what lives in it. Everything in it is killed at the end, also when the test failed.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
}

/// A process playing an act.
pub(crate) struct Actor {
    child: Child,
    lines: Receiver<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("harness-world-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        Self { dir }
    }

    /// Where the slots are.
    pub(crate) fn slots(&self) -> PathBuf {
        self.dir.join("harness/v1")
    }

    pub(crate) fn command(&self, act: &str) -> Command {
        self.command_as(&std::env::current_exe().unwrap(), act)
    }

    pub(crate) fn command_as(&self, program: &Path, act: &str) -> Command {
        let mut command = Command::new(program);
        command.env("HARNESS_ACT", act).env("XDG_RUNTIME_DIR", &self.dir).env("HARNESS_OUT", self.dir.join("out"));
        command.env("HARNESS_LINGER", format!("{}ms", LINGER.as_millis())).env("HARNESS_KEEP", "0");
        for name in ["HARNESS_KEEPER", "NEXTEST_RUN_ID", "NEXTEST_TEST_NAME"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn start(&self, mut command: Command) -> Actor {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Actor { child, lines }
    }

    pub(crate) fn act(&self, act: &str) -> Actor {
        self.start(self.command(act))
    }

    pub(crate) fn census(&self) -> Value {
        serde_json::from_str(&self.act("census").hear("census")).unwrap()
    }

    /// Names of leftovers, as `harness sweep --check` would list them.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let census = self.census();
        let slots = census["slots"].as_array().unwrap().iter();
        slots
            .flat_map(|slot| slot["left"].as_array().unwrap())
            .map(|left| format!("{}: {}", left["kind"], left["name"]))
            .collect()
    }

    /// Living processes that carry this world in their environment, the keepers included.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mark = format!("{}/harness/v1/", self.dir.display()).into_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.windows(mark.len()).any(|window| window == mark) && is_alive(*pid)
            })
            .collect()
    }

    /// What is there and should not be, once everybody is gone.
    pub(crate) fn remains(&self) -> Vec<String> {
        let slots = std::fs::read_dir(self.slots()).into_iter().flatten().flatten();
        let slots = slots.map(|entry| format!("slot {}", entry.file_name().display()));
        slots.chain(self.processes().into_iter().map(|pid| format!("process {pid} {}", command_line(pid)))).collect()
    }

    /// Waits until nothing remains, at most five seconds longer than the linger.
    pub(crate) fn wait_until_nothing_remains(&self) {
        let waited = wait_for_blocking("nothing to remain", LINGER + Duration::from_secs(5), || match self.remains() {
            remains if remains.is_empty() => Progress::Ready(()),
            remains => Progress::NotYet(format!("{remains:?}")),
        });
        waited.unwrap_or_else(|error| panic!("{error:?}"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill(pid);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Actor {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line `@what …` and returns the rest of it.
    pub(crate) fn hear(&mut self, what: &str) -> String {
        let begin = format!("@{what}");
        let mut heard = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => match line.strip_prefix(&*begin) {
                    Some(rest) => return rest.trim().to_owned(),
                    None => heard.push(line),
                },
                Err(error) => panic!("process {} never told {what:?} ({error}); it told {heard:?}", self.pid()),
            }
        }
    }

    /// Ends like a test that passed: closes its input and waits.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        let ended = wait_for_blocking("an actor to end", LIMIT, || match self.child.try_wait() {
            Ok(Some(status)) => Progress::Ready(status),
            Ok(None) => Progress::NotYet("it runs".to_owned()),
            Err(error) => Progress::Failed(error.into()),
        });
        assert!(ended.unwrap().success());
    }

    /// As [`Actor::finish`]; true when nobody holds the other end of its output any more.
    pub(crate) fn finish_and_hear_the_end(mut self) -> bool {
        drop(self.child.stdin.take());
        let (_, nobody) = channel();
        let lines = std::mem::replace(&mut self.lines, nobody);
        self.finish();
        loop {
            match lines.recv_timeout(Duration::from_secs(2)) {
                Ok(_) => {}
                Err(end) => return end == RecvTimeoutError::Disconnected,
            }
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X') | None))
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
