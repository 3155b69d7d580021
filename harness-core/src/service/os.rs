//! What the operating system offers only through `unsafe`: code between fork and exec, signal dispositions, and the
//! identifiers of other processes. Everything here is async-signal-safe where it must be, and says why.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Signal;

/// How a child relates to the process that starts it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bond {
    /// Own process group; gets the signal when the starting thread ends.
    DiesWithParent(Signal),
    /// Own session, survives its parent.
    Detached,
}

/// Arms a command with its bond and makes every inherited descriptor close on exec.
///
/// Descriptors: a pipe of the caller's shell that reached a server would keep a `| tee` waiting for ever.
#[expect(unsafe_code, reason = "pre_exec is the only way to run code in the child before exec")]
pub(crate) fn arm(command: &mut Command, bond: Bond) {
    if let Bond::DiesWithParent(_) = bond {
        command.process_group(0);
    }
    #[cfg(target_os = "linux")]
    let parent = rustix::process::getpid();
    let prepare = move || -> std::io::Result<()> {
        match bond {
            Bond::Detached => {
                rustix::process::setsid()?;
            }
            #[cfg(target_os = "linux")]
            Bond::DiesWithParent(signal) => {
                rustix::process::set_parent_process_death_signal(Some(signal.to_rustix()))?;
                // The parent may have died between fork and the line above; then no signal will ever come.
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            // Elsewhere there are no death signals: the sweep of the next start remains.
            #[cfg(not(target_os = "linux"))]
            Bond::DiesWithParent(_) => {}
        }
        close_on_exec();
        Ok(())
    };
    // SAFETY: the closure only makes system calls; it neither allocates nor takes locks.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
fn close_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only sets a flag on descriptors of the forked child. Old kernels answer ENOSYS, which changes nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

#[cfg(not(target_os = "linux"))]
fn close_on_exec() {}

static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Lets a keeper outlive terminals and pipes: HUP, INT and PIPE are ignored, TERM asks it to end in good order.
#[expect(unsafe_code, reason = "signal dispositions have no safe interface before the runtime is up")]
pub(crate) fn shrug_off_signals() {
    extern "C" fn note(_: libc::c_int) {
        ASKED_TO_END.store(true, Ordering::Relaxed);
    }
    // SAFETY: called once, before any thread exists; the handler does one atomic store, which is async-signal-safe.
    unsafe {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGQUIT] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::signal(libc::SIGTERM, note as *const () as libc::sighandler_t);
    }
}

/// True after SIGTERM in a process that called [`shrug_off_signals`].
pub(crate) fn asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::Relaxed)
}
