//! What machine this is, as far as it explains the figures of a run.

use crate::record::Machine;

/// Reads the machine's facts; what cannot be read stays empty.
pub(super) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    Machine {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: memory_mib(&read("/proc/meminfo")),
        kernel: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
        cpu: cpu(&read("/proc/cpuinfo")),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
    }
}

fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1_024)
}

fn cpu(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    model.and_then(|line| line.split_once(':')).map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, name)| name.split_whitespace().collect::<Vec<_>>().join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::{cpu, machine, memory_mib};

    #[test]
    fn reads_the_kernel_files() {
        assert_eq!(memory_mib("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), 16_000);
        assert_eq!(memory_mib("nothing"), 0);
        assert_eq!(cpu("processor : 0\nmodel name\t: Some  CPU @ 2.0GHz\n"), "Some CPU @ 2.0GHz");
        assert_eq!(cpu(""), std::env::consts::ARCH);
        assert!(machine().cores > 0);
    }
}
