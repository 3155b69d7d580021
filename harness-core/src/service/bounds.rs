//! What an engine lets a container use, as data that needs no engine.

use std::collections::BTreeSet;

/// The period in which a quota of processor time is counted, in microseconds (`cpu.cfs_period_us`).
pub(crate) const CPU_PERIOD_US: i64 = 100_000;

/// What a container may use, and the networks it is on. Nought is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Billionths of a core, as it was created with.
    pub(crate) nano_cpus: i64,
    /// Microseconds in each [`CPU_PERIOD_US`].
    pub(crate) cpu_quota: i64,
    /// Bytes.
    pub(crate) memory: i64,
    /// The kernel killed it for want of memory.
    pub(crate) is_oom_killed: bool,
    /// Names of its networks.
    pub(crate) networks: BTreeSet<String>,
}

/// A change of a container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Billionths of a core; for a container that was created with such a limit.
    NanoCpus(i64),
    /// Microseconds in each [`CPU_PERIOD_US`]; -1 is no limit.
    CpuQuota(i64),
    /// Bytes of memory, with no swap on top.
    Memory(i64),
    /// Takes it off this network, with the ports it publishes there.
    Disconnect(String),
    /// Puts it on this network again.
    Connect(String),
}
