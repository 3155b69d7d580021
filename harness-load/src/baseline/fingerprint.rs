//! What machine, what build.

use serde::{Deserialize, Serialize};

/// What must be equal for stored times to be comparable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Processor model, as the kernel names it.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Architecture and system.
    pub platform: String,
    /// `rustc --version`.
    pub rustc: String,
    /// Profile and optimisation level that the harness was built with: `release, opt-level 3`.
    pub build: String,
}

impl Fingerprint {
    /// Of this machine and this build.
    #[must_use]
    pub fn here() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = file("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        let (profile, level) = (env!("HARNESS_BUILT_FOR"), env!("HARNESS_BUILT_AT"));
        Self {
            cpu: known(model.map_or("", |(_, model)| model.trim())),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: known(file("/proc/sys/kernel/osrelease").trim()),
            platform: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            rustc: env!("HARNESS_BUILT_BY").to_owned(),
            build: format!("{profile}, opt-level {level}"),
        }
    }

    /// What differs: `kernel: 6.1 there, 6.6 here`.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let cores = (self.cores.to_string(), here.cores.to_string());
        let pairs = [
            ("cpu", &self.cpu, &here.cpu),
            ("cores", &cores.0, &cores.1),
            ("kernel", &self.kernel, &here.kernel),
            ("platform", &self.platform, &here.platform),
            ("rustc", &self.rustc, &here.rustc),
            ("build", &self.build, &here.build),
        ];
        let differing = pairs.into_iter().filter(|(_, there, here)| there != here);
        differing.map(|(what, there, here)| format!("{what}: {there} there, {here} here")).collect()
    }
}
