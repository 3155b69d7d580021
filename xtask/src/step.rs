//! Running one step: a command with a name, its time printed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The steps of one verb, with the time each took.
#[derive(Default)]
pub(crate) struct Steps {
    taken: Vec<(String, Duration, bool)>,
}

impl Steps {
    /// Runs a step. After a failed one the rest is skipped, so that the first cause is the last thing on the screen.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> bool) -> bool {
        if self.failed() {
            return false;
        }
        println!("\n== {name}");
        let begun = Instant::now();
        let passed = step();
        self.taken.push((name.to_owned(), begun.elapsed(), passed));
        passed
    }

    /// True when a step failed.
    pub(crate) fn failed(&self) -> bool {
        self.taken.iter().any(|(_, _, passed)| !passed)
    }

    /// Prints the table of times and turns the result into an exit code.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n== time");
        for (name, took, passed) in &self.taken {
            println!("{:>8.1} s  {}{name}", took.as_secs_f64(), if *passed { "" } else { "FAILED: " });
        }
        let total: Duration = self.taken.iter().map(|(_, took, _)| *took).sum();
        println!("{:>8.1} s  in all", total.as_secs_f64());
        exit(!self.failed())
    }
}

/// Success or the plain failure code.
pub(crate) fn exit(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the workspace")
}

/// The target directory in use.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo` with arguments, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs a command to its end and says whether it succeeded; prints it first.
pub(crate) fn passes(command: &mut Command) -> bool {
    println!("$ {}", shown(command));
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("xtask: could not start `{}`: {error}", shown(command));
            false
        }
    }
}

/// Runs the `harness` binary.
///
/// Everything here is built with `--workspace`: one set of features, so that no step builds a dependency again.
pub(crate) fn harness(verb: &str, rest: &[String]) -> bool {
    if !cargo(&["build", "--quiet", "--workspace", "--bin", "harness"]).status().is_ok_and(|status| status.success()) {
        return false;
    }
    passes(Command::new(target().join("debug/harness")).arg(verb).args(rest).current_dir(root()))
}

/// True when `cargo nextest` can be run.
pub(crate) fn has_nextest() -> bool {
    answers("nextest")
}

/// True when a cargo subcommand answers `--version`.
pub(crate) fn answers(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let environment =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={} ", name.to_str()?, value?.to_str()?)));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    environment.collect::<String>() + &line
}

/// Lists the tests that recorded that they could not run here: they proved nothing.
pub(crate) fn list_skipped(out: &Path) {
    let mut skipped = Vec::new();
    let runs = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path().join("skipped"));
    for file in runs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let word = |name: &str| line["event"][name].as_str().unwrap_or("?").to_owned();
            skipped.push(format!("{} (lacks {})", word("test"), word("capability")));
        }
    }
    skipped.sort();
    println!("skipped: {}", skipped.len());
    for test in skipped {
        println!("  {test}");
    }
}
