//! What a process uses, read from `/proc` (`proc(5)`). Elsewhere than on Linux every sample is an error, which is a gap.

use std::time::Instant;

use super::{Reading, Sampled, Sampler};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::service::ProcessId;
use crate::slo::Unit;

/// Samples one process: `rss`, `pss` (where the kernel shows it), `descriptors`, `sockets`, `threads` and `cpu`, each
/// after the label.
///
/// `cpu` is a share of *all* cores since the sample before, so 100 % is the whole machine. A process that is gone is an
/// error of each sample, never zeros.
#[derive(Debug, Clone)]
pub struct ProcessSampler {
    label: String,
    process: ProcessId,
    before: Option<(Instant, u64)>,
}

impl ProcessSampler {
    /// Watches exactly this process; a later one with the same number is another.
    pub fn of(label: impl Into<String>, process: ProcessId) -> Self {
        Self { label: label.into(), process, before: None }
    }

    /// Watches this very process.
    pub fn own(label: impl Into<String>) -> Self {
        Self::of(label, ProcessId::own())
    }

    fn read(&mut self) -> CoreResult<Vec<Reading>> {
        let pid = self.process.pid;
        if !self.process.is_alive() {
            return Err(Error::new(
                ErrorKind::Exited,
                format!("process {pid} (`{}`) does not run any more", self.label),
            ));
        }
        let page = rustix::param::page_size() as f64;
        let stat = super::text(format!("/proc/{pid}/stat"))?;
        // The command name may hold spaces and parentheses; fields are counted after the last one.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| -> CoreResult<u64> {
            let text = fields.get(number - 3).copied().unwrap_or_default();
            text.parse().map_err(|_| {
                Error::new(ErrorKind::Protocol, format!("field {number} of /proc/{pid}/stat is `{text}`, no number"))
            })
        };
        let mut readings = vec![
            self.reading("rss", Unit::Bytes, field(24)? as f64 * page),
            self.reading("threads", Unit::Count, field(20)? as f64),
        ];
        if let Some(pss) =
            super::text(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| kilobytes(&text, "Pss:"))
        {
            readings.push(self.reading("pss", Unit::Bytes, pss * 1_024.0));
        }
        let (descriptors, sockets) = descriptors(pid)?;
        readings.push(self.reading("descriptors", Unit::Count, descriptors as f64));
        readings.push(self.reading("sockets", Unit::Count, sockets as f64));
        let (now, ticks) = (Instant::now(), field(14)? + field(15)?);
        if let Some((then, before)) = self.before.replace((now, ticks)) {
            let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
            let used = ticks.saturating_sub(before) as f64 / rustix::param::clock_ticks_per_second() as f64;
            let share = used / (now - then).as_secs_f64().max(1e-9) / cores * 100.0;
            readings.push(self.reading("cpu", Unit::Percent, share));
        }
        Ok(readings)
    }

    fn reading(&self, what: &str, unit: Unit, value: f64) -> Reading {
        Reading { name: format!("{} {what}", self.label), unit, value }
    }
}

impl Sampler for ProcessSampler {
    fn name(&self) -> &str {
        &self.label
    }

    fn sample(&mut self) -> Sampled<'_> {
        Box::pin(super::off_the_runtime(self, Self::read))
    }
}

/// The number of kilobytes after a label: `Pss:      1234 kB`.
pub(super) fn kilobytes(text: &str, label: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Open descriptors, and how many of them are sockets.
fn descriptors(pid: u32) -> CoreResult<(usize, usize)> {
    let path = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&path)
        .map_err(|error| Error::new(ErrorKind::Io, format!("{path} cannot be listed")).caused_by(error))?;
    let (mut all, mut sockets) = (0, 0);
    for entry in entries.flatten() {
        all += 1;
        let target = std::fs::read_link(entry.path()).unwrap_or_default(); // closed in the meantime: not a socket any more
        sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok((all, sockets))
}
