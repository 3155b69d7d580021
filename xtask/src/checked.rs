//! What passed, and of which commit: `target/checks/NAME.json`, which pre-flight of a campaign reads instead of checking again.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::step;

/// How a check ended.
#[derive(Serialize)]
struct Checked {
    /// The commit; none when the tree had changes before or after.
    commit: Option<String>,
    passed: bool,
    /// How many things were checked, where they can be counted.
    count: Option<u64>,
}

/// Runs a step and keeps how it ended under this name; what it counts is asked for once it has passed.
pub(crate) fn recorded(name: &str, step: impl FnOnce() -> bool, count: impl FnOnce() -> Option<u64>) -> bool {
    record(&step::target().join("checks"), name, commit, step, count)
}

fn record(
    dir: &Path,
    name: &str,
    commit: impl Fn() -> Option<String>,
    step: impl FnOnce() -> bool,
    count: impl FnOnce() -> Option<u64>,
) -> bool {
    let before = commit();
    let passed = step();
    let commit = before.filter(|before| commit().as_ref() == Some(before));
    let record = Checked { commit, passed, count: if passed { count() } else { None } };
    let text = serde_json::to_string_pretty(&record).unwrap_or_default();
    let path = dir.join(format!("{name}.json"));
    if let Err(error) = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, text)) {
        eprintln!("xtask: {} was not written: {error}", path.display());
    }
    passed
}

/// The commit of the workspace, when nothing differs from it.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(step::root()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let is_clean = git(&["status", "--porcelain"])?.is_empty();
    git(&["rev-parse", "--verify", "HEAD"]).filter(|_| is_clean)
}

/// How many tests the last run with the profile `ci` of nextest had, by its JUnit file.
pub(crate) fn tests_run() -> Option<u64> {
    let text = std::fs::read_to_string(step::target().join("nextest/ci/junit.xml")).ok()?;
    tests_in(&text)
}

fn tests_in(junit: &str) -> Option<u64> {
    let (_, rest) = junit.split_once("<testsuites ")?;
    rest.split('>').next()?.split_once("tests=\"")?.1.split('"').next()?.parse().ok()
}

/// How many tests libtest lists in the workspace.
pub(crate) fn tests_listed() -> Option<u64> {
    let arguments =
        ["test", "--quiet", "--workspace", "--bins", "--lib", "--tests", "--", "--list", "--format", "terse"];
    let output = step::cargo(&arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().filter(|line| line.ends_with(": test")).count() as u64)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{record, tests_in};

    #[test]
    fn a_step_is_recorded_as_it_ended() {
        let dir = std::env::temp_dir().join(format!("harness-checks-{}", std::process::id()));
        let read = || std::fs::read_to_string(dir.join("lints.json")).unwrap().split_whitespace().collect::<String>();
        let here = || Some("abc".to_owned());
        assert!(record(&dir, "lints", here, || true, || Some(3)));
        assert_eq!(read(), r#"{"commit":"abc","passed":true,"count":3}"#);
        assert!(!record(&dir, "lints", here, || false, || Some(3)));
        assert_eq!(read(), r#"{"commit":"abc","passed":false,"count":null}"#);
        let changes = Cell::new(0);
        let moving = || {
            changes.set(changes.get() + 1);
            Some(changes.get().to_string())
        };
        assert!(record(&dir, "lints", moving, || true, || None));
        assert_eq!(read(), r#"{"commit":null,"passed":true,"count":null}"#, "the tree changed while it was checked");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn tests_are_counted_by_junit() {
        let junit = "<?xml?>\n<testsuites name=\"all\" tests=\"1204\" failures=\"0\">\n<testsuite tests=\"3\">";
        assert_eq!(tests_in(junit), Some(1_204));
        assert_eq!(tests_in("<testsuites>"), None);
    }
}
