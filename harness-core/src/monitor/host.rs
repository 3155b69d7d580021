//! What the whole machine uses, whoever uses it, read from `/proc` (`proc(5)`). Elsewhere than on Linux every sample is a gap.

use std::path::{Path, PathBuf};

use super::{Reading, Sampled, Sampler, text};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::slo::Unit;

/// Samples the machine: `cpu` and `memory`, each after the label.
///
/// `cpu` is a share of all cores since the sample before; time that a hypervisor took away counts as used, since nobody
/// here could have it. `memory` is what cannot be had any more without swapping (`MemTotal` less `MemAvailable`).
#[derive(Debug, Clone)]
pub struct HostSampler {
    label: String,
    proc: PathBuf,
    before: Option<Ticks>,
}

impl HostSampler {
    /// Watches the machine this runs on.
    pub fn new(label: impl Into<String>) -> Self {
        Self::below(label, "/proc")
    }

    fn below(label: impl Into<String>, proc: impl Into<PathBuf>) -> Self {
        Self { label: label.into(), proc: proc.into(), before: None }
    }

    fn read(&mut self) -> CoreResult<Vec<Reading>> {
        let mut readings = vec![self.reading("memory", Unit::Bytes, used_memory(&self.proc.join("meminfo"))?)];
        let now = Ticks::read(&self.proc.join("stat"))?;
        // Two looks within one tick have nothing to divide by.
        if let Some(share) = self.before.replace(now).and_then(|before| now.share_since(before)) {
            readings.push(self.reading("cpu", Unit::Percent, share * 100.0));
        }
        Ok(readings)
    }

    fn reading(&self, what: &str, unit: Unit, value: f64) -> Reading {
        Reading { name: format!("{} {what}", self.label), unit, value }
    }
}

impl Sampler for HostSampler {
    fn name(&self) -> &str {
        &self.label
    }

    fn sample(&mut self) -> Sampled<'_> {
        Box::pin(super::off_the_runtime(self, Self::read))
    }
}

/// Processor time of all cores since the machine started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    all: u64,
    idle: u64,
}

impl Ticks {
    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user and nice.
    fn read(stat: &Path) -> CoreResult<Self> {
        let text = text(stat)?;
        let line = text.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|number| number.parse().ok()).collect();
        let [user, nice, system, idle, waiting, rest @ ..] = &ticks[..] else {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("{} counts no processor time: `{line}`", stat.display()),
            ));
        };
        let idle = idle + waiting;
        Ok(Self { all: user + nice + system + idle + rest.iter().sum::<u64>(), idle })
    }

    fn share_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        // The kernel may take a little idle time back.
        Some(1.0 - self.idle.saturating_sub(before.idle).min(all) as f64 / all as f64)
    }
}

fn used_memory(meminfo: &Path) -> CoreResult<f64> {
    let text = text(meminfo)?;
    let of = |label: &str| {
        super::process::kilobytes(&text, label)
            .ok_or_else(|| Error::new(ErrorKind::Protocol, format!("{} does not say `{label}`", meminfo.display())))
    };
    Ok((of("MemTotal:")? - of("MemAvailable:")?) * 1_024.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::HostSampler;
    use crate::ErrorKind;
    use crate::monitor::{Monitor, Sampler};
    use crate::slo::Threshold;

    const MEMORY: &str = "MemTotal:        8000 kB\nMemFree:  10 kB\nMemAvailable:    3000 kB\n";

    fn proc(dir: &Path, memory: &str, stat: &str) {
        std::fs::write(dir.join("meminfo"), memory).unwrap();
        std::fs::write(dir.join("stat"), stat).unwrap();
    }

    fn named(sampler: &mut HostSampler, what: &str) -> Option<f64> {
        let readings = sampler.read().unwrap();
        readings.into_iter().find(|reading| reading.name == format!("host {what}")).map(|reading| reading.value)
    }

    #[test]
    fn shares_are_of_all_cores_and_between_two_samples() {
        let dir = tempfile::tempdir().unwrap();
        let mut host = HostSampler::below("host", dir.path());
        proc(dir.path(), MEMORY, "cpu  100 10 50 800 40 0 0 0 7 0\ncpu0 1 2 3 4\n");
        assert_eq!(named(&mut host, "cpu"), None, "there is nothing to compare with yet");
        assert_eq!(named(&mut host, "memory"), Some(5_000.0 * 1_024.0));
        assert_eq!(named(&mut host, "cpu"), None, "no tick has passed");
        // 100 ticks: 60 of work, 5 stolen, 30 idle and 5 waiting for a disk.
        proc(dir.path(), MEMORY, "cpu  150 10 60 830 45 0 0 5 9 0\n");
        let cpu = named(&mut host, "cpu").unwrap();
        assert!((cpu - 65.0).abs() < 1e-9, "{cpu}");
        proc(dir.path(), &MEMORY.replace("3000", "1000"), "cpu  150 10 60 830 45 0 0 5 9 0\n");
        assert_eq!(named(&mut host, "memory"), Some(7_000.0 * 1_024.0), "two thousand more were planted");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_a_gap_and_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let sample = |memory: &str, stat: &str| {
            proc(dir.path(), memory, stat);
            HostSampler::below("host", dir.path()).read().unwrap_err().kind()
        };
        assert_eq!(sample("MemTotal: 8000 kB\n", "cpu 1 2 3 4 5\n"), ErrorKind::Protocol);
        assert_eq!(sample(MEMORY, "cpu 1 2 3\n"), ErrorKind::Protocol);
        assert_eq!(sample(MEMORY, "intr 1\n"), ErrorKind::Protocol);
        let nowhere = HostSampler::below("host", dir.path().join("nowhere"));
        let every = std::time::Duration::from_millis(2);
        let monitoring = Monitor::new().every(every).watch(nowhere).start().unwrap();
        crate::wait::pause(every * 20).await;
        let watched = monitoring.stop().await.unwrap();
        assert!(watched.gaps()["host"].count >= 1 && watched.all().next().is_none(), "{watched:?}");
        let limit = Threshold::parse("processor", "< 80 %", None).unwrap();
        assert!(limit.judge(&watched.peak("host cpu")).is_no_evidence());
    }

    /// How much memory a block takes of a machine that others use, too, is shown above, on figures that nobody else moves.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn planted_load_is_seen_on_the_whole_machine() {
        const PLANTED: usize = 64 << 20;
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let mut host = HostSampler::new("host");
        host.sample().await.unwrap();
        let block = std::hint::black_box(vec![1_u8; PLANTED]); // written, so it is resident
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(200) {
            std::hint::spin_loop();
        }
        let seen = host.sample().await.unwrap();
        let (memory, cpu) = (seen[0].value, seen[1].value);
        drop(block);
        // This loop, or whoever was given its core meanwhile, kept one core busy for at least half of the time.
        assert!(cpu > 50.0 / cores && cpu <= 100.0, "{cpu} % of {cores} cores");
        assert!(memory >= PLANTED as f64, "{memory} bytes");
    }
}
