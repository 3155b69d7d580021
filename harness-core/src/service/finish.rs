//! Running a program to its end within a limit.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Signal;
use super::exec::{Exec, Streams};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::wait::{Aside, aside, seconds};

/// Output beyond this many bytes per stream is read and thrown away.
const CAPTURE_BYTES: usize = 8 << 20;
/// After the child has ended, its grandchildren may hold the pipes open for this long.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// What a program that ran to its end left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, at most 8 MiB, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Finished {
    /// True for exit code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a program to its end. Blocking.
///
/// An exit code other than 0 is a result, not an error.
///
/// # Errors
/// [`ErrorKind::Environment`] when it cannot be started; [`ErrorKind::Timeout`] with its last output when it runs longer
/// than `limit`: its whole process group is killed then.
pub fn run_to_end(exec: &Exec, limit: Duration) -> CoreResult<Finished> {
    run_owned(exec, limit, None)
}

/// [`run_to_end`] of a program that carries the name of its owner.
pub(crate) fn run_owned(exec: &Exec, limit: Duration, owner: Option<&str>) -> CoreResult<Finished> {
    let begun = Instant::now();
    let mut running = exec.spawn(Streams::Piped, owner)?;
    let stdout = Capture::of(running.child.stdout.take(), "stdout")?;
    let stderr = Capture::of(running.child.stderr.take(), "stderr")?;
    let Ok(exit) = running.wait(limit) else {
        running.identity.signal_group(Signal::Kill);
        running.wait(PIPE_GRACE)?;
        let until = Instant::now() + PIPE_GRACE;
        let (stdout, stderr) = (stdout.finish(until), stderr.finish(until));
        let last = stdout.lines().chain(stderr.lines()).rev().take(20).map(str::to_owned).collect::<Vec<_>>();
        return Err(Error::new(
            ErrorKind::Timeout,
            format!("`{}` did not end within {} and was killed", exec.program.display(), seconds(limit)),
        )
        .tried(exec.command_line())
        .log(last.into_iter().rev()));
    };
    // Grandchildren in the background may keep the pipes open: they get the rest of the limit, bounded by the grace.
    let until = Instant::now() + limit.saturating_sub(begun.elapsed()).min(PIPE_GRACE);
    Ok(Finished { code: exit.code, stdout: stdout.finish(until), stderr: stderr.finish(until) })
}

/// One output stream being read by a thread of its own, so that a full pipe never blocks the program.
struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    end: Option<Aside<()>>,
}

impl Capture {
    fn of(stream: Option<impl Read + Send + 'static>, name: &str) -> CoreResult<Self> {
        let text = Arc::new(Mutex::new(Vec::new()));
        let mut end = None;
        if let Some(mut stream) = stream {
            let sink = Arc::clone(&text);
            end = Some(aside(&format!("harness-{name}"), move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let mut text = sink.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = CAPTURE_BYTES.saturating_sub(text.len());
                    text.extend_from_slice(&buffer[..n.min(room)]);
                }
            })?);
        }
        Ok(Self { text, end })
    }

    fn finish(&self, until: Instant) -> String {
        if let Some(end) = &self.end {
            let _ = end.within(until.saturating_duration_since(Instant::now()));
        }
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Exec, run_to_end};
    use crate::error::ErrorKind;
    use crate::service::process::{group_of, owned_by};

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn captures_both_streams_and_the_code() {
        let finished = run_to_end(&Exec::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), LIMIT).unwrap();
        assert_eq!((finished.code, &*finished.stdout, &*finished.stderr), (Some(3), "out\n", "err\n"));
    }

    #[test]
    fn reads_more_than_a_pipe_holds() {
        let finished = run_to_end(&Exec::new("head").args(["-c", "1000000", "/dev/zero"]), LIMIT).unwrap();
        assert_eq!(finished.stdout.len(), 1_000_000);
    }

    #[test]
    fn kills_the_whole_group_of_a_hung_child_at_its_limit() {
        let exec =
            Exec::new("sh").args(["-c", "sleep 600 & echo started; sleep 600"]).env("HARNESS_LEASE", "hung-group");
        let begun = Instant::now();
        let error = run_to_end(&exec, Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(format!("{error:?}").contains("started"), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(owned_by(|owner| owner == "hung-group"), []);
    }

    #[test]
    fn background_grandchild_does_not_hold_the_caller() {
        let begun = Instant::now();
        let finished = run_to_end(&Exec::new("sh").args(["-c", "sleep 30 & echo done"]), LIMIT).unwrap();
        assert_eq!(finished.stdout, "done\n");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn unknown_program_and_user_are_named() {
        let error = run_to_end(&Exec::new("no-such-program-here").arg("x"), LIMIT).unwrap_err();
        assert!(error.is_environment());
        assert!(format!("{error:?}").contains("no-such-program-here x"), "{error:?}");
        if rustix::process::geteuid().is_root() {
            let error = run_to_end(&Exec::new("true").user("no-such-user"), LIMIT).unwrap_err();
            assert!(error.is_environment() && format!("{error:?}").contains("`no-such-user`"), "{error:?}");
        }
    }

    #[test]
    fn leads_its_own_group_and_drops_to_the_user() {
        let finished = run_to_end(
            &Exec::new("sh").args(["-c", "echo $$; cut -d' ' -f5 /proc/$$/stat; id -un"]).user("nobody"),
            LIMIT,
        )
        .unwrap();
        let lines: Vec<_> = finished.stdout.lines().collect();
        assert_eq!(lines[0], lines[1]);
        assert_ne!(group_of(std::process::id()).map(|g| g.to_string()).as_deref(), Some(lines[1]));
        if rustix::process::geteuid().is_root() {
            assert_eq!(lines[2], "nobody");
        }
    }
}
