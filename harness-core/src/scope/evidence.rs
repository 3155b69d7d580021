//! Files that stay when a test fails: `<out>/<test>/`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::locked;
use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::{Run, test_name};

/// Tests of the same name in other binaries of the run get numbers up to this one.
const SAME_NAMES: u32 = 1_000;

pub(super) struct Evidence {
    name: String,
    dir: Mutex<Option<PathBuf>>,
}

impl Evidence {
    pub(super) fn of(test: &str) -> Self {
        let attempt = Settings::get().nextest.as_ref().map_or(1, |nextest| nextest.attempt);
        let mut name = file_name(&test.replace("::", "."));
        if attempt > 1 {
            name.push_str(&format!("-attempt{attempt}"));
        }
        Self { name, dir: Mutex::default() }
    }

    /// The directory, if anything was put there.
    pub(super) fn dir(&self) -> Option<PathBuf> {
        locked(&self.dir).clone()
    }

    pub(super) fn path(&self, name: &str) -> CoreResult<PathBuf> {
        let mut dir = locked(&self.dir);
        let dir = match &mut *dir {
            Some(dir) => dir,
            none => none.insert(self.create()?),
        };
        Ok(dir.join(file_name(name)))
    }

    /// A directory that is ours alone: another binary may have a test of the same name.
    fn create(&self) -> CoreResult<PathBuf> {
        let out = Run::current().out();
        std::fs::create_dir_all(out).map_err(|error| unwritable(out, error))?;
        for n in 1..=SAME_NAMES {
            let suffix = if n == 1 { String::new() } else { format!("-{n}") };
            let dir = out.join(format!("{}{suffix}", self.name));
            match std::fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                // The test that ended last took the run's directory with it; the next number is as good as this one.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir_all(out).map_err(|error| unwritable(out, error))?;
                }
                Err(error) => return Err(unwritable(&dir, error)),
            }
        }
        Err(unwritable(&out.join(&self.name), std::io::Error::other("too many of the same name")))
    }

    /// The test passed: nothing needs to stay, unless `HARNESS_KEEP` was set on purpose.
    pub(super) fn end(&self) {
        if let Some(dir) = locked(&self.dir).take().filter(|_| !Settings::get().keep_is_set) {
            let _ = std::fs::remove_dir_all(dir);
            // The run's directory goes with its last content.
            let _ = std::fs::remove_dir(Run::current().out());
        }
    }
}

pub(super) fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("could not write the evidence {}", path.display()))
        .remedy("set HARNESS_OUT to a directory that can be written")
        .caused_by(error)
}

/// A text as the name of one file.
fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = text.chars().map(plain).take(120).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// The line that runs the test again as it ran. With `--test-threads=1` the thread does not name the test: then the
/// scope's name must do.
pub(super) fn again(scope: &str) -> String {
    let package = Settings::get().package.as_ref().map_or_else(String::new, |package| format!(" -p {package}"));
    let test = match test_name() {
        name if name == "main" => format!("'{}'", scope.replace('\'', "")),
        name => format!("--exact {name}"),
    };
    format!("HARNESS_SEED={} cargo test{package} -- {test}", Run::current().seed())
}
