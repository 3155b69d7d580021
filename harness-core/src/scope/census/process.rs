//! What belongs to this process: its descriptors, its children and the tasks of its runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Listing, Register};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::keeper::{KEEPER_VARIABLE, RunSlot, base};
use crate::service::ProcessId;
use crate::service::process::{children_of, owned_by, state_of};

/// Takes what this process takes once and for all, so that it is not called a leak of whoever comes first.
pub(super) fn warm_up() -> CoreResult {
    RunSlot::attach().map(drop)
}

fn now(list: CoreResult<BTreeSet<String>>) -> Listing<'static> {
    Box::pin(std::future::ready(list))
}

/// Open files, sockets of the internet and pipes, `proc_pid_fd(5)`.
pub(super) struct Descriptors;

impl Register for Descriptors {
    fn name(&self) -> String {
        "descriptors".to_owned()
    }

    fn is_of_process(&self) -> bool {
        true
    }

    fn list(&self) -> Listing<'_> {
        now(descriptors())
    }
}

fn descriptors() -> CoreResult<BTreeSet<String>> {
    let own = base::dir()?;
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|error| {
        Error::new(ErrorKind::Environment, "this system does not list open descriptors").caused_by(error)
    })?;
    let sockets = sockets();
    let named = entries.flatten().filter_map(|entry| {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = std::fs::read_link(entry.path()).ok()?;
        let what = target.to_string_lossy().into_owned();
        if let Some(inode) = what.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            return sockets.get(inode).map(|about| format!("{number}: socket {inode}, {about}"));
        }
        let is_counted = what.starts_with("pipe:") || target.is_absolute() && !is_of_harness(&target, own);
        is_counted.then(|| format!("{number}: {what}"))
    });
    Ok(named.collect())
}

/// Leases, locks and logs of the harness; and the listing of descriptors itself.
fn is_of_harness(target: &Path, own: &Path) -> bool {
    target.starts_with(own) || target.starts_with("/proc") || target.starts_with("/sys")
}

/// Sockets of the internet by inode: where from, where to, in which state (`proc_pid_net(5)`).
fn sockets() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for kind in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/self/net/{kind}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, remote, state, _, _, _, _, _, inode, ..] = words[..] {
                let state = if state == "0A" { "listening".to_owned() } else { format!("to port {}", port(remote)) };
                found.insert(inode.to_owned(), format!("{kind} of port {}, {state}", port(local)));
            }
        }
    }
    found
}

fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

/// Processes this one started, with all that descend from them, dead ones nobody waited for included.
pub(super) struct Children;

impl Register for Children {
    fn name(&self) -> String {
        "child processes".to_owned()
    }

    fn is_of_process(&self) -> bool {
        true
    }

    fn list(&self) -> Listing<'_> {
        now(children())
    }
}

fn children() -> CoreResult<BTreeSet<String>> {
    let own = ProcessId::own();
    let mut all = BTreeSet::new();
    let mut open = vec![own.pid];
    while let Some(parent) = open.pop() {
        // A keeper outlives tests on purpose, and so does everything it starts.
        let born = children_of(parent).into_iter().filter(|pid| !is_keeper(*pid)).filter_map(ProcessId::of);
        let new: Vec<ProcessId> = born.filter(|process| all.insert(*process)).collect();
        open.extend(new.iter().map(|process| process.pid));
    }
    let owner = RunSlot::attach()?.owner();
    // Those whose parents are gone, by their owner.
    all.extend(owned_by(|found| found == owner));
    let named = all.into_iter().map(|process| {
        let read = |file: &str| std::fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
        let words = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let name = String::from_utf8_lossy(&read("comm")).trim().to_owned();
        let dead = if state_of(process.pid) == Some('Z') { ", dead and not waited for" } else { "" };
        format!("{} started at {}: {name} ({}){dead}", process.pid, process.start, words.trim())
    });
    Ok(named.collect())
}

fn is_keeper(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = format!("{KEEPER_VARIABLE}=");
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
}

/// Tasks of the runtime that asks.
pub(super) struct Tasks;

impl Register for Tasks {
    fn name(&self) -> String {
        "tasks".to_owned()
    }

    fn is_of_process(&self) -> bool {
        true
    }

    fn list(&self) -> Listing<'_> {
        let alive = tokio::runtime::Handle::try_current().map(|runtime| runtime.metrics().num_alive_tasks());
        let none = |error| Error::new(ErrorKind::Refused, "outside a runtime there are no tasks").caused_by(error);
        // Tasks have no names: the last ones stand for those that are too many.
        now(alive.map_err(none).map(|alive| (1..=alive).map(|n| format!("task {n:04}")).collect()))
    }
}
