//! Processes of which we know more than a number: number and start time together are never reused.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Signal;
use crate::run::process_start;
use crate::wait::{Progress, wait_for_blocking};

/// A variable every started process inherits; it names who owns the process. The keeper and the sweep find
/// grandchildren by it that left their process group.
pub(crate) const OWNER_VARIABLE: &str = "HARNESS_LEASE";

/// Killed members of a group are given this long to disappear.
const GROUP_LIMIT: Duration = Duration::from_secs(5);

/// One process, for ever: its id and its start in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time, `/proc/<pid>/stat` field 22.
    pub start: u64,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { pid, start: process_start(pid).unwrap_or_default() }
    }

    /// The process that has this id now, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: process_start(pid)? })
    }

    /// True while it runs. A zombie does not run any more.
    #[must_use]
    pub fn is_alive(self) -> bool {
        process_start(self.pid) == Some(self.start)
            && state_of(self.pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Sends a signal to exactly this process. True when it was there.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid.cast_signed()) else { return false };
        #[cfg(target_os = "linux")]
        {
            // The descriptor pins the process, so that the check of the start time cannot go stale before the signal.
            let Ok(pinned) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
                return false;
            };
            self.is_alive() && rustix::process::pidfd_send_signal(&pinned, signal.to_rustix()).is_ok()
        }
        #[cfg(not(target_os = "linux"))]
        {
            self.is_alive() && rustix::process::kill_process(pid, signal.to_rustix()).is_ok()
        }
    }

    /// Sends a signal to the group this process leads. True when anybody was there.
    ///
    /// A number that was reused in the meantime is left alone: while members of the old group live, the kernel gives
    /// its number to nobody.
    pub(crate) fn signal_group(self, signal: Signal) -> bool {
        let reused = process_start(self.pid).is_some_and(|start| start != self.start);
        match rustix::process::Pid::from_raw(self.pid.cast_signed()) {
            Some(group) if !reused => rustix::process::kill_process_group(group, signal.to_rustix()).is_ok(),
            _ => false,
        }
    }

    /// Every living descendant, those included that lead groups and sessions of their own: each session of a Postgres does.
    pub(crate) fn descendants(self) -> Vec<ProcessId> {
        let all: Vec<(u32, u32)> = pids().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
        let mut found = vec![self.pid];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid)); // a tree: nobody has two parents
            at += 1;
        }
        found.into_iter().skip(1).filter_map(ProcessId::of).filter(|process| process.is_alive()).collect()
    }

    /// Sends a signal to its group and to every descendant outside of it.
    pub(crate) fn signal_tree(self, signal: Signal) {
        self.signal_group(signal);
        for process in self.descendants() {
            process.signal(signal);
        }
    }

    /// Kills its group and every descendant outside of it, and waits until none of those runs. The process itself is left
    /// to be waited for.
    pub(crate) fn kill_tree(self) {
        self.signal_group(Signal::Stop); // nobody is born while they are counted
        let tree = self.descendants();
        self.signal_group(Signal::Kill);
        for process in &tree {
            process.signal(Signal::Kill);
        }
        let what = format!("the descendants of process {} to end", self.pid);
        let _ = wait_for_blocking(what, GROUP_LIMIT, || match tree.iter().find(|process| process.is_alive()) {
            Some(process) => Progress::NotYet(format!("process {} runs", process.pid)),
            None => Progress::Ready(()),
        });
    }

    /// Kills the group this process led and waits until no member of it runs: a signal that was sent has not arrived yet.
    pub(crate) fn end_group(self) {
        if !self.signal_group(Signal::Kill) {
            return;
        }
        // What does not end within the limit hangs in the kernel; nothing more can be done about it.
        let _ =
            wait_for_blocking(format!("the group of process {} to end", self.pid), GROUP_LIMIT, || {
                match members(self.pid).into_iter().find(|member| member.is_alive()) {
                    Some(member) => Progress::NotYet(format!("process {} runs", member.pid)),
                    None => Progress::Ready(()),
                }
            });
    }
}

/// The processes of a group, this process excepted.
fn members(group: u32) -> Vec<ProcessId> {
    let others = pids().into_iter().filter(|pid| *pid != std::process::id());
    others.filter(|pid| group_of(*pid) == Some(group)).filter_map(ProcessId::of).collect()
}

/// The ids of all processes.
fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok();
    entries.flatten().filter_map(number).collect()
}

/// The children of a process, dead ones that nobody waited for included.
#[cfg(feature = "checks")]
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    pids().into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The parent of a process, `proc_pid_stat(5)` field 4.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The state letter of a process (`R`, `S`, `T`, `Z`, …), `proc_pid_stat(5)` field 3.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The group of a process, `proc_pid_stat(5)` field 5.
pub(crate) fn group_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// Every living process whose owner variable satisfies the predicate, this process excepted.
pub(crate) fn owned_by(owner: impl Fn(&str) -> bool) -> Vec<ProcessId> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let prefix = format!("{OWNER_VARIABLE}=").into_bytes();
    entries
        .flatten()
        .filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let found = ProcessId::of(pid)?;
            let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
            let value = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(&*prefix))?;
            (owner(&String::from_utf8_lossy(value)) && found.is_alive()).then_some(found)
        })
        .collect()
}
