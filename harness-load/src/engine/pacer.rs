//! Waking up when a slot is due.
//!
//! The runtime's own timers tick in milliseconds, which would be the answer of a fast server. On Linux a timer file
//! descriptor wakes the runtime through the same poll it waits in anyway: tens of microseconds, without a thread that
//! spins. Spinning was left out on purpose: on a small machine it takes the core the system under test needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::wait::pause_until;
use tokio::time::Instant;

#[cfg(target_os = "linux")]
use self::timer::Timer;

/// Wakes the driver at due times.
#[derive(Debug)]
pub(crate) enum Pacer {
    /// A timer file descriptor.
    #[cfg(target_os = "linux")]
    Timer(Timer),
    /// The runtime's timers, 1 ms.
    Wheel,
    /// A paused tokio clock: time is what the test says.
    Virtual,
}

impl Pacer {
    /// The best pacing this runtime offers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] outside a tokio runtime, or in one without its time or I/O driver.
    pub(crate) fn new() -> CoreResult<Self> {
        let refuse = |what: &str| {
            Error::new(ErrorKind::Config, format!("a load needs a tokio runtime {what}"))
                .remedy("run it below #[tokio::test] or in a runtime built with enable_all()")
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(refuse("and there is none on this thread"));
        }
        // Tokio panics for a missing driver and offers no question to ask beforehand.
        let timed = catch_unwind(|| drop(tokio::time::timeout(Duration::ZERO, std::future::ready(()))));
        timed.map_err(|_| refuse("with its time driver"))?;
        if clock_is_paused() {
            return Ok(Self::Virtual);
        }
        #[cfg(target_os = "linux")]
        {
            let timer = catch_unwind(AssertUnwindSafe(Timer::new)).map_err(|_| refuse("with its I/O driver"))?;
            Ok(timer.map_or(Self::Wheel, Self::Timer))
        }
        #[cfg(not(target_os = "linux"))]
        Ok(Self::Wheel)
    }

    /// Returns at about `at`, or earlier where an earlier alarm was set: look at the clock. Safe to drop halfway.
    pub(crate) async fn until(&mut self, at: Instant) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Timer(timer) => {
                if timer.until(at).await.is_err() {
                    // A timer that stops working costs precision, which the lateness then shows, not the run.
                    pause_until(at.into_std()).await;
                }
            }
            Self::Wheel | Self::Virtual => pause_until(at.into_std()).await,
        }
    }

    /// True on a paused clock, where wall-clock facts about the process mean nothing.
    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self, Self::Virtual)
    }

    /// What paces, for reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Timer(_) => "timer file descriptor",
            Self::Wheel => "runtime timers (1 ms)",
            Self::Virtual => "paused clock",
        }
    }
}

/// A running clock moves on while real time does; a paused one does not.
fn clock_is_paused() -> bool {
    let (real, tokio) = (std::time::Instant::now(), Instant::now());
    while real.elapsed() < Duration::from_micros(2) {
        std::hint::spin_loop();
    }
    Instant::now() == tokio
}

#[cfg(target_os = "linux")]
mod timer {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// One timer file descriptor, registered with the runtime.
    #[derive(Debug)]
    pub(crate) struct Timer {
        fd: AsyncFd<OwnedFd>,
        armed: Option<Instant>,
    }

    impl Timer {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; an OwnedFd that is never replaced keeps what it asks for"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            Ok(Self { fd: AsyncFd::new(fd)?, armed: None })
        }

        /// Returns at or after `at`, or a little earlier where an earlier alarm was still set: setting one costs more than
        /// looking again, and time limits that move with every request would set one each.
        pub(super) async fn until(&mut self, at: Instant) -> io::Result<()> {
            std::future::poll_fn(|cx| self.poll_until(cx, at)).await
        }

        fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<io::Result<()>> {
            loop {
                if self.armed.is_none_or(|armed| armed > at) {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Poll::Ready(Ok(()));
                    }
                    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
                    let it_value = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
                    let spec = Itimerspec { it_interval: zero, it_value };
                    timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
                    self.armed = Some(at);
                }
                let mut ready = std::task::ready!(self.fd.poll_read_ready(cx))?;
                let mut expirations = [0_u8; 8];
                // `Err` means readiness left over from an earlier arming: wait on.
                if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?)) {
                    read?;
                    self.armed = None;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use harness_core::ErrorKind;
    use tokio::time::Instant;

    use super::Pacer;

    #[tokio::test]
    async fn wakes_and_survives_being_dropped() {
        let mut pacer = Pacer::new().unwrap();
        for micros in [0, 50, 300, 1_500] {
            let far = Instant::now() + Duration::from_secs(60);
            tokio::select! { biased; () = pacer.until(far) => unreachable!(), () = std::future::ready(()) => {} }
            let at = Instant::now() + Duration::from_micros(micros);
            while Instant::now() < at {
                pacer.until(at).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn paused_clock_is_recognised() {
        assert!(Pacer::new().unwrap().is_virtual());
    }

    #[test]
    fn missing_runtime_or_driver_is_a_config_error() {
        assert_eq!(Pacer::new().unwrap_err().kind(), ErrorKind::Config);
        let bare = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = bare.block_on(async { Pacer::new().unwrap_err() });
        assert!(error.kind() == ErrorKind::Config && error.what().contains("time driver"), "{error:?}");
    }
}
