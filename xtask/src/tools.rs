//! Programs that others wrote in Rust, installed below `target/peers`, each at the version that the figures are of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::{cargo, passes, target};

/// The load generator `oha`. With TLS, which no figure needs, but without which this version does not compile.
const OHA: &str = "1.16.0";

/// Where `oha` is: installed below `target/peers` before, on the path, or installed now. None where it cannot be had; the goals
/// that need it then say so.
pub(crate) fn oha() -> Option<PathBuf> {
    let dir = target().join("peers/oha");
    let own = dir.join("bin/oha");
    let there = |program: &Path| says(program).is_some_and(|said| said == format!("oha {OHA}"));
    if let Some(found) = [own.as_path(), Path::new("oha")].into_iter().find(|program| there(program)) {
        return Some(found.to_path_buf());
    }
    let mut install = cargo(&["install", "oha", "--version", OHA, "--locked", "--force", "--root"]);
    // A target directory of its own: what it is built of has nothing to do with this workspace.
    install.arg(&dir).current_dir(target()).env("CARGO_TARGET_DIR", target().join("peers/oha-build"));
    (passes(&mut install) && there(&own)).then_some(own)
}

/// The first line of what a program says of its version.
fn says(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}
