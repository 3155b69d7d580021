//! A test run is killed with SIGKILL at seeded moments, and nothing of it may be left: no container, no volume, no process,
//! no database, no directory; and what others hold meanwhile is not touched.
//!
//! Method: this very binary is run again as a [victim] that takes everything there is to take, over and over, under a state
//! directory of its own. One kill in two comes at a moment of its first three seconds; the other when it holds a paused
//! container, a frozen child and faults that act, up to a second later. After the linger and five seconds everything must be
//! gone by itself: nobody sweeps. Where the keepers are killed with it, everything must be gone after the next start.
//!
//! `HARNESS_KILLS` sets the number of kills (3 in the normal run) and `HARNESS_KILLS_FROM` the number of the first one;
//! `HARNESS_FIGURES` is a file that gets a line of JSON for each.

mod neighbours;
mod traces;
mod victim;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness_core::run::Run;
use harness_core::wait::{Progress, pause_blocking, wait_for_blocking};
use serde_json::{Value, json};

use traces::{Seen, left};
use victim::{EVERYTHING, start};

/// How long servers of a victim outlive it.
const LINGER: Duration = Duration::from_secs(1);
/// What is left may be there for so long.
const AFTER: Duration = Duration::from_secs(5);
/// A victim that has not got there by then never will.
const LIMIT: Duration = Duration::from_secs(180);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The numbers of the kills to do.
fn kills(default: u64) -> std::ops::Range<u64> {
    let from = number("HARNESS_KILLS_FROM", 0);
    from..from + number("HARNESS_KILLS", default)
}

/// Writes a line for whoever counts.
fn note(figure: &Value) {
    println!("{figure}");
    let Some(path) = std::env::var_os("HARNESS_FIGURES") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.expect("the file of figures can be opened"), "{figure}").expect("a line can be written");
}

/// A state directory of a victim's own. What fails in it is ended with it.
fn world() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new().prefix("harness-victim-").tempdir_in("/tmp").expect("a directory");
    // A server that runs as another user passes through.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    dir
}

/// Starts a victim, waits for the moment of this kill, and kills it; with its keepers when told so.
fn killed(kill: u64, state: &Path, keepers_too: bool) -> (Duration, Vec<String>, Seen) {
    let mut draws = Run::current().seed().stream(&format!("leftovers {kill}"));
    let mut victim = start(state);
    let begun = Instant::now();
    if kill.is_multiple_of(2) {
        pause_blocking(Duration::from_millis(200 + draws.below(2_800)));
    } else {
        let all = wait_for_blocking("the victim to have everything", LIMIT, || match victim.try_wait() {
            Ok(None) if victim::stages(state).iter().any(|stage| stage == EVERYTHING) => Progress::Ready(()),
            Ok(None) => Progress::NotYet(victim::said(state)),
            ended => panic!("the victim ended by itself ({ended:?}): {}", victim::said(state)),
        });
        all.unwrap_or_else(|error| panic!("{error:?}"));
        pause_blocking(Duration::from_millis(draws.below(1_000)));
    }
    let moment = begun.elapsed();
    let mut had = victim::stages(state);
    let mut seen = Seen::default();
    seen.look(state);
    victim.kill().expect("a running victim can be killed");
    victim.wait().expect("a killed victim can be reaped");
    if keepers_too {
        seen.keepers = traces::kill_own_image(state);
    }
    had.sort();
    had.dedup();
    (moment, had, seen)
}

/// Waits until nothing is left; what was left at the last look, and when that look began. What goes later was left.
fn gone(state: &Path, seen: &Seen) -> (Vec<String>, Duration) {
    let (begun, mut last, mut at) = (Instant::now(), Vec::new(), Duration::ZERO);
    let waited = wait_for_blocking("everything to be gone", LINGER + AFTER, || {
        at = begun.elapsed();
        last = left(state, seen);
        if last.is_empty() { Progress::Ready(()) } else { Progress::NotYet(last.join(", ")) }
    });
    assert_eq!(waited.is_ok(), last.is_empty(), "the last look decides");
    (last, at)
}

#[test]
fn nothing_is_left_after_a_kill() {
    let mut had_anything = false;
    for kill in kills(3) {
        let state = world();
        let (moment, had, seen) = killed(kill, state.path(), false);
        had_anything |= !had.is_empty();
        let (left, took) = gone(state.path(), &seen);
        note(&json!({
            "kill": kill, "moment_ms": moment.as_millis() as u64, "had": had, "containers": seen.containers,
            "left": left.len(), "gone_ms": took.as_millis() as u64, "names": left,
        }));
        traces::end(state.path(), &left);
        assert!(left.is_empty(), "of kill {kill} (after {moment:?}) is left: {}", left.join(", "));
    }
    assert!(had_anything, "no victim ever had anything that could be left");
}

#[test]
fn nothing_is_left_of_a_killed_keeper_after_the_next_start() {
    let mut was_left = 0;
    // One with everything, unless told otherwise.
    let kills = if std::env::var_os("HARNESS_KILLS").is_some() { kills(1) } else { 1..2 };
    for kill in kills {
        let state = world();
        let (moment, had, seen) = killed(kill, state.path(), true);
        let before = left(state.path(), &seen);
        was_left += before.len();
        let next = victim::next(state.path());
        let (left, took) = gone(state.path(), &seen);
        note(&json!({
            "kill": kill, "moment_ms": moment.as_millis() as u64, "had": had, "keepers": seen.keepers,
            "before": before.len(), "left": left.len(), "gone_ms": took.as_millis() as u64, "names": left,
        }));
        traces::end(state.path(), &left);
        assert!(left.is_empty(), "of kill {kill} (after {moment:?}) is left: {}\n{next}", left.join(", "));
    }
    assert!(was_left > 0, "a killed keeper left nothing that the next start could sweep");
}

#[test]
fn what_is_left_is_seen() {
    let state = world();
    let path = state.path();
    std::fs::create_dir_all(path.join("harness/v1/postgres-left")).expect("a directory");
    let memory = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink(memory.path(), path.join("harness/v1/postgres-left/data")).expect("a link");
    let mut seen = Seen::default();
    seen.look(path);
    let mut sleeper = Command::new("sleep").arg("60").env("XDG_RUNTIME_DIR", path).spawn().expect("sleep starts");
    // A program that has just been executed shows its environment a moment later.
    let all = wait_for_blocking("all of it to be seen", Duration::from_secs(10), || {
        let left = left(path, &seen);
        match ["directory", "process", "memory"].iter().all(|kind| left.iter().any(|thing| thing.starts_with(kind))) {
            true => Progress::Ready(()),
            false => Progress::NotYet(left.join(", ")),
        }
    });
    sleeper.kill().expect("it can be killed");
    sleeper.wait().expect("it can be reaped");
    if let Err(error) = all {
        panic!("{error:?}");
    }
}
