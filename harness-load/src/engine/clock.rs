//! The clock of a run, read twice per iteration.

use tokio::time::Instant;

use crate::units::to_nanos;

/// Nanoseconds since the start of a run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    /// Real time, without the arithmetic on seconds and nanoseconds that `Instant` does.
    #[cfg(target_os = "linux")]
    Monotonic(i64),
    /// What tokio says, which may be a paused clock.
    Tokio,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn new(is_virtual: bool) -> Self {
        #[cfg(target_os = "linux")]
        if !is_virtual {
            return Self::Monotonic(monotonic());
        }
        #[cfg(not(target_os = "linux"))]
        let _same_everywhere = is_virtual;
        Self::Tokio
    }

    #[inline]
    pub(super) fn now(self, start: Instant) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::Monotonic(begun) => (monotonic() - begun).cast_unsigned(),
            Self::Tokio => to_nanos(start.elapsed()),
        }
    }
}

/// CLOCK_MONOTONIC, the clock of `Instant` (clock_gettime(2)): it never goes back.
#[cfg(target_os = "linux")]
#[inline]
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Clock;

    #[test]
    fn both_clocks_agree() {
        let (start, ours, theirs) = (Instant::now(), Clock::new(false), Clock::Tokio);
        harness_core::wait::pause_blocking(Duration::from_millis(20));
        let (first, between, last) = (theirs.now(start), ours.now(start), theirs.now(start));
        // The clocks were started one after the other.
        assert!(between <= last && between + 5_000_000 >= first && first >= 20_000_000, "{first} {between} {last}");
    }
}
