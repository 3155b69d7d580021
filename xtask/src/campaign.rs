//! `cargo xtask campaign`: provision, build in release, run the built executable itself.
//!
//! The executable is run directly, because cargo would turn its exit code (0 GO, 1 NO-GO, 2 CONDITIONAL, 3 nothing
//! could start, 64 usage) into its own.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::step;

/// Runs the pattern service's campaign with the given arguments.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let quiet = arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h" | "--list"));
    if !quiet && !step::harness("provision", &[]) {
        eprintln!("xtask: provisioning failed; the lines above say what is missing");
        return ExitCode::from(3);
    }
    let Some(executable) = build(&["--release"]) else {
        eprintln!("xtask: the campaign did not build");
        return ExitCode::from(3);
    };
    let status = Command::new(executable)
        .arg("--campaign")
        .args(keeping(arguments))
        .current_dir(step::root())
        .env("CARGO_MANIFEST_DIR", step::root().join("examples/pattern-service"))
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(code)) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(None) => {
            eprintln!("xtask: the campaign was ended by a signal");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("xtask: the campaign could not be started: {error}");
            ExitCode::from(3)
        }
    }
}

/// The arguments, and where runs are kept unless they say so themselves.
fn keeping(arguments: &[String]) -> Vec<String> {
    let mut all = arguments.to_vec();
    if !arguments.iter().any(|argument| argument.starts_with("--archive")) {
        all.extend(["--archive".to_owned(), "test-reports/archive".to_owned()]);
    }
    all
}

/// Builds service and campaign and returns the campaign's executable, as cargo's own messages name it.
pub(crate) fn build(profile: &[&str]) -> Option<PathBuf> {
    let mut command = step::cargo(&["build", "--workspace", "--bin", "pattern-service", "--test", "campaign"]);
    command.arg("--message-format=json-render-diagnostics").args(profile);
    let output = command.stderr(Stdio::inherit()).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "campaign")
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.contains("pattern-service")))
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}
