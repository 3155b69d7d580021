//! Virtual environments below `target/peers`: what others wrote in Python, each at the version that the figures are of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::{passes, target};

/// The virtual environment of this name, with these packages installed; false when it could not be made.
pub(crate) fn environment(name: &str, packages: &[&str]) -> bool {
    installed(name, packages, |venv| passes(Command::new("python3").args(["-m", "venv"]).arg(venv)))
}

/// Makes an environment unless it is there with exactly these packages.
fn installed(name: &str, packages: &[&str], make: impl FnOnce(&Path) -> bool) -> bool {
    let venv = target().join("peers").join(name);
    let (mark, wanted) = (venv.join("installed"), packages.join("\n"));
    std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted)
        || (make(&venv)
            && passes(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(packages))
            && std::fs::write(&mark, wanted).is_ok())
}

/// Autobahn's `wstest`, which runs on Python 2.7 alone: where there is one, in an environment that its last `virtualenv` makes.
pub(crate) fn autobahn() -> bool {
    let Some(python) = python_2() else {
        eprintln!("xtask: there is no Python 2.7 here: what Autobahn judges is not measured");
        return false;
    };
    environment("virtualenv", &["virtualenv==20.15.1"])
        && installed("wstest", &["cryptography==3.3.2", "autobahntestsuite==25.10.1"], |venv| {
            let virtualenv = target().join("peers/virtualenv/bin/virtualenv");
            passes(Command::new(virtualenv).args(["--quiet", "--python"]).arg(python).arg(venv))
        })
}

/// A Python 2.7 that answers: on the path, or one that `pyenv` keeps.
fn python_2() -> Option<PathBuf> {
    let kept = Command::new("pyenv").args(["root"]).stderr(Stdio::null()).output().ok();
    let kept = kept.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("versions"));
    let versions = kept.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let of_pyenv = versions.map(|version| version.path().join("bin/python2.7")).filter(|python| python.exists());
    std::iter::once(PathBuf::from("python2.7")).chain(of_pyenv).find(|python| {
        let asked = Command::new(python).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    })
}
