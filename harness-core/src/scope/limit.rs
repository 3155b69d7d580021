//! The global guard against hangs: a thread that outlives whatever the test does, and ends the process with what everybody was at.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::evidence::Evidence;
use super::mark_failed;
use crate::wait::seconds;
use crate::watchdog::Parties;

/// The exit code of a test binary whose test failed.
const FAILED: i32 = 101;

/// A limit on a scope's life. Disarmed when dropped.
pub(super) struct Limit {
    /// Its end tells the thread that the scope has ended.
    _alive: Sender<()>,
}

impl Limit {
    pub(super) fn start(test: &str, limit: Duration, parties: Parties) -> Self {
        let (alive, ended) = channel::<()>();
        let name = test.to_owned();
        let thread = std::thread::Builder::new().name("harness-limit".to_owned()).spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                end(&name, limit, &parties);
            }
        });
        if let Err(error) = thread {
            eprintln!("harness: `{test}` has no limit, since no thread could be started: {error}");
        }
        Self { _alive: alive }
    }
}

fn end(test: &str, limit: Duration, parties: &Parties) -> ! {
    let mut lines = vec![format!("test `{test}` takes longer than {}; everybody at its end:", seconds(limit))];
    let dump = parties.dump();
    if dump.is_empty() {
        lines.push("  nobody takes part: let those who work join `TestScope::parties`".to_owned());
    }
    lines.extend(dump.into_iter().map(|line| format!("  {line}")));
    lines.extend(threads().into_iter().map(|line| format!("  thread {line}")));
    let mut text = lines.join("\n");
    mark_failed();
    if let Ok(path) = Evidence::of(test).path("hang.txt")
        && std::fs::write(&path, &text).is_ok()
    {
        text.push_str(&format!("\n  evidence   {}", path.display()));
    }
    text.push_str(&format!("\n  again      {}", super::evidence::again(test)));
    eprintln!("harness: {text}");
    std::process::exit(FAILED)
}

/// The threads of this process: name, state (`proc_pid_stat(5)`), and what each waits for in the kernel, where that is told.
fn threads() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let line = |dir: std::path::PathBuf| {
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()).unwrap_or('?');
        let waits = read("wchan");
        let waits = if waits.trim().is_empty() || waits.trim() == "0" {
            String::new()
        } else {
            format!(" in {}", waits.trim())
        };
        format!("{}: {state}{waits}", read("comm").trim())
    };
    let mut lines: Vec<String> = entries.map(|entry| line(entry.path())).collect();
    lines.sort();
    lines
}
