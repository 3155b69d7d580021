//! A package outside the workspace, as another team would have it: these crates as path dev-dependencies.

use std::fs;
use std::path::Path;

use crate::step::{cargo, has_nextest, passes, root, target};

/// Writes the consumer, then runs its tests under `cargo test` and, where present, nextest.
pub(crate) fn builds_and_passes() -> bool {
    let dir = std::env::temp_dir().join(format!("harness-consumer-{}", std::process::id()));
    let passed = match write(&dir) {
        Ok(()) => run(&dir),
        Err(error) => {
            eprintln!("xtask: could not write the consumer: {error}");
            false
        }
    };
    let _ = fs::remove_dir_all(&dir);
    passed
}

fn run(dir: &Path) -> bool {
    // The workspace's target directory and lock file are shared: what is built there is not built again.
    let in_consumer = |arguments: &[&str]| {
        let mut command = cargo(arguments);
        command.current_dir(dir).env("CARGO_TARGET_DIR", target());
        passes(&mut command)
    };
    in_consumer(&["test"]) && (!has_nextest() || in_consumer(&["nextest", "run"]))
}

fn write(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir.join("src"))?;
    fs::write(dir.join("src/lib.rs"), "//! A service of somebody else.\n")?;
    fs::write(dir.join("Cargo.toml"), manifest()?)?;
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    for folder in ["tests", "migrations"] {
        fs::create_dir_all(dir.join(folder))?;
        for entry in fs::read_dir(root().join("examples/quickstart").join(folder))? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, dir.join(folder).join(name))?;
            }
        }
    }
    Ok(())
}

/// The quickstart's dev-dependencies with paths and versions spelled out, and the workspace's profiles, so that both
/// builds share their artifacts.
fn manifest() -> std::io::Result<String> {
    let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
    let profiles = workspace.split_once("[profile.dev]").map(|(_, rest)| rest).unwrap_or_default();
    let shared: Vec<&str> =
        profiles.split("\n[").filter(|section| !section.starts_with("profile.dev.package.harness-")).collect();
    let quickstart = fs::read_to_string(root().join("examples/quickstart/Cargo.toml"))?;
    let dependencies: String = quickstart
        .lines()
        .skip_while(|line| *line != "[dev-dependencies]")
        .take_while(|line| !line.starts_with("[lints]"))
        .map(|line| format!("{}\n", spelled_out(line, &workspace)))
        .collect();
    Ok(format!(
        "[workspace]\n\n[package]\nname = \"outside-consumer\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         {dependencies}quickstart = {{ path = \"{}/examples/quickstart\" }}\n\n[profile.dev]{}",
        root().display(),
        shared.join("\n[")
    ))
}

/// Turns `x.workspace = true` or `x = { workspace = true, … }` into the workspace's own entry plus the features.
fn spelled_out(line: &str, workspace: &str) -> String {
    let Some((name, rest)) = line.split_once([' ', '.']).filter(|_| line.contains("workspace = true")) else {
        return line.to_owned();
    };
    let Some(entry) = workspace.lines().find_map(|known| known.strip_prefix(&format!("{name} = "))) else {
        return line.to_owned();
    };
    let entry = entry.split(" # ").next().unwrap_or(entry).trim();
    let entry = entry.replace("path = \"", &format!("path = \"{}/", root().display()));
    let inner = match entry.strip_prefix('{').and_then(|entry| entry.strip_suffix('}')) {
        Some(inner) => inner.trim().to_owned(),
        None => format!("version = {entry}"),
    };
    let features = rest.split_once("features = ").map(|(_, features)| features.trim_end_matches([' ', '}']));
    match features {
        // The line's own features add to those of the workspace.
        Some(own) => match inner.split_once("features = [") {
            Some((before, after)) => {
                let own = own.trim_matches(['[', ']']);
                format!("{name} = {{ {before}features = [{own}, {after} }}")
            }
            None => format!("{name} = {{ {inner}, features = {own} }}"),
        },
        None => format!("{name} = {{ {inner} }}"),
    }
}
