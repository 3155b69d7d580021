//! What a control group uses, such as a container: memory, processor and the number of tasks (`cgroups(7)`, both versions).

use std::path::Path;
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

/// How often the group of this process met a limit since it exists.
#[cfg(feature = "fault")]
pub(crate) fn times_met(process: ProcessId, limit: Met) -> CoreResult<u64> {
    met(Path::new("/sys/fs/cgroup"), &text(format!("/proc/{}/cgroup", process.pid))?, limit)
}

#[cfg(feature = "fault")]
fn met(root: &Path, groups: &str, limit: Met) -> CoreResult<u64> {
    let controller = if limit == Met::Cpu { "cpu" } else { "memory" };
    let lines: Vec<Vec<&str>> = groups.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let path = |is: &dyn Fn(&str) -> bool| {
        lines.iter().find(|line| line.len() == 3 && is(line[1])).map(|line| line[2].trim_start_matches('/'))
    };
    let v1 =
        path(&|names| names.split(',').any(|name| name == controller)).map(|path| root.join(controller).join(path));
    let unified = || path(&str::is_empty).map(|path| root.join(path)).ok_or_else(|| missing(controller));
    match (v1, limit) {
        (Some(dir), Met::Cpu) => counted(&dir.join("cpu.stat"), "nr_throttled ", controller),
        (None, Met::Cpu) => counted(&unified()?.join("cpu.stat"), "nr_throttled ", controller),
        (Some(dir), Met::Memory) => {
            let kills = counted(&dir.join("memory.oom_control"), "oom_kill ", controller).unwrap_or(0);
            number(&dir.join("memory.failcnt")).map(|count| count as u64 + kills)
        }
        (None, Met::Memory) => {
            let events = unified()?.join("memory.events");
            Ok(counted(&events, "max ", controller)? + counted(&events, "oom_kill ", controller).unwrap_or(0))
        }
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
    /// `groups` is what `/proc/<pid>/cgroup` says: lines of `number:controllers:path`.
    fn read(root: &Path, groups: &str) -> CoreResult<Self> {
        let lines = || groups.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
        let of = |controller: &str| {
            lines().find_map(|[_, controllers, path]: [&str; 3]| {
                controllers
                    .split(',')
                    .any(|known| known == controller)
                    .then(|| root.join(controller).join(path.trim_start_matches('/')))
            })
        };
        if let Some(memory) = of("memory") {
            // Version 1: a hierarchy for each controller.
            let cpu = of("cpuacct").ok_or_else(|| missing("cpuacct"))?;
            return Ok(Self {
                memory_bytes: number(&memory.join("memory.usage_in_bytes"))?,
                cpu_s: number(&cpu.join("cpuacct.usage"))? / 1e9,
                tasks: of("pids").and_then(|pids| number(&pids.join("pids.current")).ok()),
            });
        }
        let unified = lines().find_map(|[_, controllers, path]: [&str; 3]| controllers.is_empty().then_some(path));
        let dir = root.join(unified.ok_or_else(|| missing("memory"))?.trim_start_matches('/'));
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
        use super::{Met, met};
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "cpu/a/cpu.stat", "nr_periods 9\nnr_throttled 7\n");
        file(dir.path(), "memory/a/memory.failcnt", "5\n");
        file(dir.path(), "memory/a/memory.oom_control", "under_oom 0\noom_kill 1\n");
        let groups = "4:memory:/a\n1:cpu:/a\n0::/a\n";
        assert_eq!(met(dir.path(), groups, Met::Cpu).unwrap(), 7);
        assert_eq!(met(dir.path(), groups, Met::Memory).unwrap(), 6);
        file(dir.path(), "b/cpu.stat", "usage_usec 1\nnr_throttled 3\n");
        file(dir.path(), "b/memory.events", "low 0\nmax 2\noom_kill 1\n");
        assert_eq!(met(dir.path(), "0::/b\n", Met::Cpu).unwrap(), 3);
        assert_eq!(met(dir.path(), "0::/b\n", Met::Memory).unwrap(), 3);
        assert_eq!(met(dir.path(), "0::/nowhere\n", Met::Cpu).unwrap_err().kind(), ErrorKind::Io);
        file(dir.path(), "c/cpu.stat", "usage_usec 1\n");
        assert_eq!(met(dir.path(), "0::/c\n", Met::Cpu).unwrap_err().kind(), ErrorKind::Environment);
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
