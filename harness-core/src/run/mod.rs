//! Who am I: the run, the test and the seed of this process.
//!
//! Under nextest every test is a process of its own; its identifiers come from nextest. Under `cargo test` all
//! binaries of one invocation share a run id made of the boot id, the parent's pid and the parent's start time.

mod seed;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::env::Settings;

pub use seed::{Seed, SeedStream, fnv};

/// The identity of this run.
#[derive(Debug, Clone)]
pub struct Run {
    id: String,
    seed: Seed,
    out: PathBuf,
}

impl Run {
    /// The run this process belongs to.
    #[must_use]
    pub fn current() -> &'static Self {
        static RUN: OnceLock<Run> = OnceLock::new();
        RUN.get_or_init(|| {
            let settings = Settings::get();
            let id = match &settings.nextest {
                Some(nextest) => short(&nextest.run_id),
                None => parent_run_id(),
            };
            let seed = Seed::new(settings.seed.unwrap_or_else(|| fnv(id.as_bytes()) & 0xffff_ffff));
            let base = settings.out.clone().unwrap_or_else(|| target_dir().join("harness"));
            let out = base.join(&id);
            Self { id, seed, out }
        })
    }

    /// A short identifier, safe in file and database names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The seed that replays everything random in this run.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Where records and evidence of this run go: `target/harness/<run>`.
    #[must_use]
    pub fn out(&self) -> &Path {
        &self.out
    }
}

/// The name of the running test: nextest's, else the thread's, which libtest names after the test.
#[must_use]
pub fn test_name() -> String {
    if let Some(nextest) = &Settings::get().nextest {
        return nextest.test_name.clone();
    }
    std::thread::current().name().unwrap_or("main").to_owned()
}

/// The process with this id started at this tick since boot (`/proc/<pid>/stat` field 22): guards against reused ids.
#[must_use]
pub fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses; fields are counted after the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The command name of a process, if it lives.
#[must_use]
pub fn process_name(pid: u32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

fn parent_run_id() -> String {
    let parent = std::os::unix::process::parent_id();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let identity = format!("{boot}-{parent}-{}", process_start(parent).unwrap_or_default());
    format!("{:012x}", fnv(identity.as_bytes()) >> 16)
}

fn short(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

/// The cargo target directory this executable was built into, else `target` in the working directory.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::{Run, process_name, process_start, test_name};

    #[test]
    fn knows_its_own_name_and_run() {
        assert!(test_name().ends_with("knows_its_own_name_and_run"));
        assert!(Run::current().id().len() >= 8);
        assert!(Run::current().out().ends_with(Run::current().id()));
    }

    #[test]
    fn tells_processes_apart_by_start() {
        let own = std::process::id();
        assert!(process_start(own).is_some() && process_name(own).is_some());
        assert_eq!(process_start(0x7fff_fff0), None);
    }
}
