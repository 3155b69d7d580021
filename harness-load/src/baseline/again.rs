//! The same benches once more, in a process of their own.

use std::path::Path;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::service::{Exec, run_to_end};

/// Runs the benches again, at most so long, and leaves what criterion writes below a directory.
pub(super) type Again = Box<dyn FnMut(&Path, Duration) -> CoreResult + Send>;

/// What `HARNESS_BASELINE` is for such a process: it measures, and leaves the judging to the one that started it.
pub(super) const PART: &str = "part";
/// One figure comes of each of them, so that many short ones tell more than few long ones. In seconds, and samples.
const SHORT: [(&str, &str); 3] = [("--warm-up-time", "0.3"), ("--measurement-time", "0.6"), ("--sample-size", "20")];
/// As much of what it said last is told when it fails.
const LINES: usize = 20;
/// Criterion's own baselines are not where such a process looks. Each takes a value.
const OWN_BASELINES: [&str; 5] = ["-s", "--save-baseline", "-b", "--baseline", "--baseline-lenient"];

/// This very program with these arguments.
pub(super) fn once_more(results: &Path, limit: Duration) -> CoreResult {
    let exec = Exec::new(std::env::current_exe()?)
        .args(shortened(std::env::args().skip(1)))
        .env("HARNESS_BASELINE", PART)
        .env("CRITERION_HOME", results.to_string_lossy());
    let finished = run_to_end(&exec, limit)?;
    if finished.is_success() {
        return Ok(());
    }
    let code = finished.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
    let said: Vec<_> = finished.stdout.lines().chain(finished.stderr.lines()).collect();
    Err(Error::new(ErrorKind::NoEvidence, format!("the benches ended with {code} in another process"))
        .tried(exec.command_line())
        .log(said[said.len().saturating_sub(LINES)..].iter().copied()))
}

/// The same arguments, but short where nothing is said about it.
pub(super) fn shortened(args: impl Iterator<Item = String>) -> Vec<String> {
    let (mut kept, mut args) = (Vec::new(), args);
    while let Some(arg) = args.next() {
        let (name, glued) = arg.split_once('=').map_or((arg.as_str(), false), |(name, _)| (name, true));
        match OWN_BASELINES.contains(&name) {
            true if glued => {}
            true => _ = args.next(),
            false => kept.push(arg),
        }
    }
    for (name, value) in SHORT {
        if !kept.iter().any(|arg| arg.split('=').next() == Some(name)) {
            kept.extend([name.to_owned(), value.to_owned()]);
        }
    }
    kept
}
