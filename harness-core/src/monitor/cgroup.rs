//! What a control group uses, such as a container: memory, processor and the number of tasks (`cgroups(7)`, both versions).

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Reading, Sampled, Sampler, text};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::ProcessId;
use crate::slo::Unit;

/// Samples the control group a process belongs to: `memory`, `cpu` and `pids`, each after the label.
///
/// A container is one group, so its main process ([`Service::process`](crate::service::Service::process)) leads to all of it.
/// A process that runs in no group of its own shares one with its parent: then use
/// [`ProcessSampler`](super::ProcessSampler). `memory` counts the page cache of files the group read, as the limit of a
/// container does; `cpu` is a share of *all* cores since the sample before.
#[derive(Debug, Clone)]
pub struct CgroupSampler {
    label: String,
    process: ProcessId,
    before: Option<(Instant, f64)>,
}

impl CgroupSampler {
    /// Watches the group of this process.
    pub fn of(label: impl Into<String>, process: ProcessId) -> Self {
        Self { label: label.into(), process, before: None }
    }

    fn read(&mut self) -> CoreResult<Vec<Reading>> {
        let pid = self.process.pid;
        if !self.process.is_alive() {
            let what = format!("process {pid} of group `{}` does not run any more", self.label);
            return Err(Error::new(ErrorKind::Exited, what));
        }
        let seen = Seen::read(Path::new("/sys/fs/cgroup"), &text(format!("/proc/{pid}/cgroup"))?)?;
        let mut readings = vec![self.reading("memory", Unit::Bytes, seen.memory_bytes)];
        if let Some(tasks) = seen.tasks {
            readings.push(self.reading("pids", Unit::Count, tasks));
        }
        let now = Instant::now();
        if let Some((then, before)) = self.before.replace((now, seen.cpu_s)) {
            let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
            let share = (seen.cpu_s - before).max(0.0) / (now - then).as_secs_f64().max(1e-9) / cores * 100.0;
            readings.push(self.reading("cpu", Unit::Percent, share));
        }
        Ok(readings)
    }

    fn reading(&self, what: &str, unit: Unit, value: f64) -> Reading {
        Reading { name: format!("{} {what}", self.label), unit, value }
    }
}

impl Sampler for CgroupSampler {
    fn name(&self) -> &str {
        &self.label
    }

    fn sample(&mut self) -> Sampled<'_> {
        Box::pin(super::off_the_runtime(self, Self::read))
    }
}

/// What a group counts when it meets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg(feature = "fault")]
pub(crate) enum Met {
    /// Periods in which it was throttled: `nr_throttled` of `cpu.stat`.
    Cpu,
    /// Times it wanted more memory than it may have, and processes of it that were killed for that: `memory.failcnt` and `oom_kill` of
    /// `memory.oom_control`, or `max` and `oom_kill` of `memory.events`.
    Memory,
}

/// Counts how often a group met a limit. The group is found once: a process that is ending belongs to none any more, or to the root,
/// while its own still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg(feature = "fault")]
pub(crate) struct Meter {
    dir: PathBuf,
    limit: Met,
    is_unified: bool,
}

#[cfg(feature = "fault")]
impl Meter {
    /// The meter of the group that this process is in now.
    pub(crate) fn of(process: ProcessId, limit: Met) -> CoreResult<Self> {
        Self::within(Path::new("/sys/fs/cgroup"), &text(format!("/proc/{}/cgroup", process.pid))?, limit)
    }

    fn within(root: &Path, groups: &str, limit: Met) -> CoreResult<Self> {
        let controller = limit.controller();
        let groups = Groups { root, lines: groups };
        match groups.of(controller) {
            Some(dir) => Ok(Self { dir, limit, is_unified: false }),
            None => Ok(Self { dir: groups.unified(controller)?, limit, is_unified: true }),
        }
    }

    /// How often since the group exists; an error once it is gone.
    pub(crate) fn count(&self) -> CoreResult<u64> {
        let controller = self.limit.controller();
        let of = |file: &str, word: &str| counted(&self.dir.join(file), word, controller);
        match (self.limit, self.is_unified) {
            (Met::Cpu, _) => of("cpu.stat", "nr_throttled "),
            (Met::Memory, false) => {
                let kills = of("memory.oom_control", "oom_kill ").unwrap_or(0);
                number(&self.dir.join("memory.failcnt")).map(|count| count as u64 + kills)
            }
            (Met::Memory, true) => Ok(of("memory.events", "max ")? + of("memory.events", "oom_kill ").unwrap_or(0)),
        }
    }
}

#[cfg(feature = "fault")]
impl Met {
    fn controller(self) -> &'static str {
        if self == Self::Cpu { "cpu" } else { "memory" }
    }
}

/// The number behind this word in a file of words and numbers.
#[cfg(feature = "fault")]
fn counted(file: &Path, word: &str, controller: &str) -> CoreResult<u64> {
    let number = text(file)?.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    number.ok_or_else(|| missing(controller))
}

/// One look at a group.
#[derive(Debug, PartialEq)]
struct Seen {
    memory_bytes: f64,
    cpu_s: f64,
    tasks: Option<f64>,
}

impl Seen {
    /// `groups` is what `/proc/<pid>/cgroup` says.
    fn read(root: &Path, groups: &str) -> CoreResult<Self> {
        let groups = Groups { root, lines: groups };
        if let Some(memory) = groups.of("memory") {
            // Version 1: a hierarchy for each controller.
            let cpu = groups.of("cpuacct").ok_or_else(|| missing("cpuacct"))?;
            return Ok(Self {
                memory_bytes: number(&memory.join("memory.usage_in_bytes"))?,
                cpu_s: number(&cpu.join("cpuacct.usage"))? / 1e9,
                tasks: groups.of("pids").and_then(|pids| number(&pids.join("pids.current")).ok()),
            });
        }
        let dir = groups.unified("memory")?;
        let stat = text(dir.join("cpu.stat"))?;
        let usage =
            stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(|n| n.trim().parse::<f64>().ok());
        Ok(Self {
            memory_bytes: number(&dir.join("memory.current"))?,
            cpu_s: usage.ok_or_else(|| missing("cpu"))? / 1e6,
            tasks: number(&dir.join("pids.current")).ok(),
        })
    }
}

/// Where the groups of a process lie: `lines` is what `/proc/<pid>/cgroup` says, lines of `number:controllers:path`.
#[derive(Clone, Copy)]
struct Groups<'a> {
    root: &'a Path,
    lines: &'a str,
}

impl<'a> Groups<'a> {
    fn path(self, is: impl Fn(&str) -> bool) -> Option<&'a str> {
        self.lines.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            is(controllers).then(|| path.trim_start_matches('/'))
        })
    }

    /// The group in the hierarchy of this controller: version 1 has one for each.
    fn of(self, controller: &str) -> Option<PathBuf> {
        let path = self.path(|controllers| controllers.split(',').any(|known| known == controller))?;
        Some(self.root.join(controller).join(path))
    }

    /// The one group of version 2; the error names the controller that was looked for.
    fn unified(self, controller: &str) -> CoreResult<PathBuf> {
        self.path(str::is_empty).map(|path| self.root.join(path)).ok_or_else(|| missing(controller))
    }
}

fn missing(controller: &str) -> Error {
    Error::new(ErrorKind::Environment, format!("the control group counts no `{controller}`"))
        .remedy("turn the controller on, or watch the process with ProcessSampler")
}

fn number(path: &Path) -> CoreResult<f64> {
    let text = text(path)?;
    text.trim()
        .parse()
        .map_err(|_| Error::new(ErrorKind::Protocol, format!("{} says `{}`, no number", path.display(), text.trim())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Seen;
    use crate::ErrorKind;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[cfg(feature = "fault")]
    #[test]
    fn times_a_limit_was_met_are_read_from_both_versions() {
        use super::{Met, Meter};
        let dir = tempfile::tempdir().unwrap();
        let met = |groups: &str, limit: Met| Meter::within(dir.path(), groups, limit)?.count();
        file(dir.path(), "cpu/a/cpu.stat", "nr_periods 9\nnr_throttled 7\n");
        file(dir.path(), "memory/a/memory.failcnt", "5\n");
        file(dir.path(), "memory/a/memory.oom_control", "under_oom 0\noom_kill 1\n");
        let groups = "4:memory:/a\n1:cpu:/a\n0::/a\n";
        assert_eq!(met(groups, Met::Cpu).unwrap(), 7);
        assert_eq!(met(groups, Met::Memory).unwrap(), 6);
        file(dir.path(), "b/cpu.stat", "usage_usec 1\nnr_throttled 3\n");
        file(dir.path(), "b/memory.events", "low 0\nmax 2\noom_kill 1\n");
        assert_eq!(met("0::/b\n", Met::Cpu).unwrap(), 3);
        assert_eq!(met("0::/b\n", Met::Memory).unwrap(), 3);
        assert_eq!(met("0::/nowhere\n", Met::Cpu).unwrap_err().kind(), ErrorKind::Io);
        file(dir.path(), "c/cpu.stat", "usage_usec 1\n");
        assert_eq!(met("0::/c\n", Met::Cpu).unwrap_err().kind(), ErrorKind::Environment);
        // Whoever ends is in the root group; the meter stays with the one it was made for, until that is gone.
        let own = Meter::within(dir.path(), "0::/b\n", Met::Memory).unwrap();
        assert_ne!(Meter::within(dir.path(), "0::/\n", Met::Memory).unwrap(), own);
        assert_eq!(own.count().unwrap(), 3);
        std::fs::remove_dir_all(dir.path().join("b")).unwrap();
        assert_eq!(own.count().unwrap_err().kind(), ErrorKind::Io, "gone is not nought");
    }

    #[test]
    fn both_versions_are_read() {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "memory/docker/x/memory.usage_in_bytes", "1048576\n");
        file(root.path(), "cpuacct/docker/x/cpuacct.usage", "2500000000\n");
        file(root.path(), "pids/docker/x/pids.current", "7\n");
        let first =
            Seen::read(root.path(), "9:pids:/docker/x\n3:cpuacct:/docker/x\n2:memory:/docker/x\n1:name=systemd:/x\n");
        assert_eq!(first.unwrap(), Seen { memory_bytes: 1_048_576.0, cpu_s: 2.5, tasks: Some(7.0) });
        file(root.path(), "app/memory.current", "4096\n");
        file(root.path(), "app/cpu.stat", "usage_usec 1500000\nuser_usec 1\n");
        let second = Seen::read(root.path(), "0::/app\n").unwrap();
        assert_eq!(second, Seen { memory_bytes: 4_096.0, cpu_s: 1.5, tasks: None });
    }

    #[test]
    fn group_that_does_not_count_is_an_error_and_not_zero() {
        let root = tempfile::tempdir().unwrap();
        for (groups, kind) in
            [("", ErrorKind::Environment), ("0::/nowhere\n", ErrorKind::Io), ("2:memory:/x\n", ErrorKind::Environment)]
        {
            assert_eq!(Seen::read(root.path(), groups).unwrap_err().kind(), kind, "{groups}");
        }
        file(root.path(), "app/memory.current", "max\n");
        file(root.path(), "app/cpu.stat", "usage_usec 1\n");
        assert_eq!(Seen::read(root.path(), "0::/app\n").unwrap_err().kind(), ErrorKind::Protocol);
    }
}
