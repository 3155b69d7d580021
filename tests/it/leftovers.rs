//! A test run is killed with SIGKILL at seeded moments, and nothing of it may be left: no container, no process, no
//! database, no directory.
//!
//! Method: this very binary is run again as a victim that takes a database, a keyspace and a directory, over and over,
//! under a state directory of its own. It is killed at a moment drawn from the run's seed, anywhere between its start and
//! its second second. After the linger and five seconds everything must be gone by itself: nobody sweeps.
//! `HARNESS_KILLS` sets the number of kills (3 in the normal run).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness_core::run::Run;
use harness_core::scope::TestScope;
use harness_core::wait::{Progress, pause_blocking, wait_for_blocking};

const LINGER: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(5);

/// The body of the victim: works until it is killed. Anywhere else it does nothing.
#[tokio::test]
async fn victim() -> harness_core::Result {
    if std::env::var_os("HARNESS_VICTIM").is_none() {
        return Ok(());
    }
    loop {
        let scope = TestScope::current();
        std::fs::write(scope.temp_dir()?.join("file"), "left over?")?;
        let (database, keyspace) = (harness_db::postgres().await?, harness_db::redis().await?);
        harness_db::sqlx::query("create table t (id int)").execute(database.pool()).await?;
        drop((database, keyspace));
        scope.shutdown().await?;
    }
}

fn start_victim(state: &Path) -> Child {
    Command::new(std::env::current_exe().expect("a test binary knows itself"))
        .args(["--exact", "leftovers::victim"])
        .env("HARNESS_VICTIM", "1")
        .env("HARNESS_LINGER", format!("{}s", LINGER.as_secs()))
        .env("HARNESS_OUT", state.join("out"))
        .env("XDG_RUNTIME_DIR", state)
        .env_remove("NEXTEST_RUN_ID") // the victim is a run of its own
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the victim starts")
}

/// Everything that still belongs to the state directory.
fn left(state: &Path) -> Vec<String> {
    let mark = state.display().to_string();
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(&mark) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            left.push(format!("process {} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    let listed = Command::new("docker").args(["ps", "-a", "--format", "{{.ID}} {{.Label \"harness.slot\"}}"]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    left.extend(text.lines().filter(|line| line.contains(&mark)).map(|line| format!("container {line}")));
    let slots = state.join("harness/v1");
    for entry in std::fs::read_dir(&slots).into_iter().flatten().flatten() {
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            left.push(format!("directory {}", entry.path().display()));
        }
    }
    left
}

#[test]
fn nothing_is_left_after_a_kill() {
    let kills: u32 = std::env::var("HARNESS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut moments = Run::current().seed().stream("leftovers");
    let mut seen_anything = false;
    for kill in 0..kills {
        let state = tempfile::Builder::new().prefix("harness-victim-").tempdir_in("/tmp").expect("a directory");
        let mut victim = start_victim(state.path());
        let moment = Duration::from_millis(200 + moments.below(3_000));
        pause_blocking(moment);
        seen_anything |= left(state.path()).iter().any(|thing| thing.starts_with("directory"));
        victim.kill().expect("a running victim can be killed");
        victim.wait().expect("a killed victim can be reaped");
        let what = format!("everything of kill {kill} (after {moment:?}) to be gone");
        let gone = wait_for_blocking(what, LINGER + AFTER, || match left(state.path()) {
            left if left.is_empty() => Progress::Ready(()),
            left => Progress::NotYet(left.join(", ")),
        });
        if let Err(error) = gone {
            panic!("{error:?}");
        }
    }
    assert!(seen_anything, "no victim ever had anything that could be left");
}

#[test]
fn what_is_left_is_seen() {
    let state = tempfile::Builder::new().prefix("harness-victim-").tempdir_in("/tmp").expect("a directory");
    std::fs::create_dir_all(state.path().join("harness/v1/postgres-left")).expect("a directory");
    let mut sleeper =
        Command::new("sleep").arg("60").env("XDG_RUNTIME_DIR", state.path()).spawn().expect("sleep starts");
    // A program that has just been executed shows its environment a moment later.
    let seen = wait_for_blocking("both to be seen", Duration::from_secs(10), || {
        let left = left(state.path());
        match ["directory", "process"].iter().all(|kind| left.iter().any(|thing| thing.starts_with(kind))) {
            true => Progress::Ready(()),
            false => Progress::NotYet(left.join(", ")),
        }
    });
    sleeper.kill().expect("it can be killed");
    sleeper.wait().expect("it can be reaped");
    if let Err(error) = seen {
        panic!("{error:?}");
    }
}
