//! What a killed run can leave, and how it is found: by its state directory, which stands in environments, labels and links.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What has to be remembered while it is there, since it carries no mark of its own.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Volumes of containers.
    volumes: Vec<String>,
    /// Data directories in memory.
    memory: Vec<PathBuf>,
    /// How many containers there were.
    pub(super) containers: usize,
    /// How many keepers were killed.
    pub(super) keepers: usize,
}

impl Seen {
    /// Remembers what is there now.
    pub(super) fn look(&mut self, state: &Path) {
        let containers = containers(state);
        self.containers = containers.len();
        for id in containers {
            let names = docker(&["inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", &id]);
            self.volumes.extend(names.split_whitespace().map(str::to_owned));
        }
        for slot in slots(state) {
            self.memory.extend(std::fs::read_link(slot.join("data")));
        }
    }
}

/// Everything that still belongs to the state directory.
pub(super) fn left(state: &Path, seen: &Seen) -> Vec<String> {
    let mut left = Vec::new();
    for (pid, _) in processes(state) {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        left.push(format!("process {pid} {}", name.trim()));
    }
    left.extend(containers(state).into_iter().map(|id| format!("container {id}")));
    let is_there =
        |volume: &&String| !docker(&["volume", "ls", "-q", "--filter", &format!("name={volume}")]).is_empty();
    left.extend(seen.volumes.iter().filter(is_there).map(|volume| format!("volume {volume}")));
    let memory = seen.memory.iter().filter(|path| path.exists());
    left.extend(memory.map(|path| format!("memory {}", path.display())));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    left.extend(slots(state).into_iter().filter(named).map(|path| format!("directory {}", path.display())));
    left
}

/// Kills every process of the state directory that runs this very binary: keepers and whoever is like them.
pub(super) fn kill_own_image(state: &Path) -> usize {
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let is_own = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own);
    let found: Vec<u32> = processes(state).into_iter().map(|(pid, _)| pid).filter(|pid| is_own(*pid)).collect();
    found.iter().for_each(|pid| kill(*pid));
    found.len()
}

/// Ends what a failed round left, so that the machine is clean for the next one.
pub(super) fn end(state: &Path, left: &[String]) {
    if left.is_empty() {
        return;
    }
    processes(state).into_iter().for_each(|(pid, _)| kill(pid));
    for id in containers(state) {
        docker(&["rm", "--force", "--volumes", &id]);
    }
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
}

/// Living processes whose environment names the state directory.
fn processes(state: &Path) -> Vec<(u32, String)> {
    let mark = state.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let environment = String::from_utf8_lossy(&environment).into_owned();
        environment.contains(&mark).then_some((pid, environment))
    });
    found.collect()
}

/// Containers whose label names the state directory, in whatever state they are.
fn containers(state: &Path) -> Vec<String> {
    let mark = state.display().to_string();
    let text = docker(&["ps", "-a", "--format", "{{.ID}} {{.Label \"harness.slot\"}}"]);
    let ours = text.lines().filter(|line| line.contains(&mark));
    ours.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn slots(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join("harness/v1")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// What the engine says; nothing where there is none.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// An image of Redis that is on this machine.
pub(super) fn redis_image() -> Option<&'static str> {
    let is_there = |image: &&str| {
        let found = Command::new("docker").args(["image", "inspect", image]).output();
        found.is_ok_and(|found| found.status.success())
    };
    ["redis:7", "harness/redis:7", "harness/redis:try"].into_iter().find(is_there)
}
