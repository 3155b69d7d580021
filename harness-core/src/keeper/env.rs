//! The variables of the keeper, read in one place.
//!
//! | variable | meaning |
//! |---|---|
//! | `HARNESS_KEEPER` | set by the harness itself: this process is a keeper; `<hook>:<order>:<slot directory>` |
//! | `HARNESS_KEEP` | whether it is set at all: then evidence of tests that passed stays, too |
//! | `CARGO_PKG_NAME` | set by cargo for test processes: the package in the line that repeats a test |

use std::path::{Path, PathBuf};

/// Makes a process a keeper.
pub(crate) const KEEPER_VARIABLE: &str = "HARNESS_KEEPER";

/// What a process was asked to keep.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) hook: String,
    /// Number of the order in `launch.json`.
    pub(crate) order: String,
    pub(crate) slot: PathBuf,
}

/// The value that asks for a keeper.
pub(crate) fn ask(hook: &str, order: &str, slot: &Path) -> String {
    format!("{hook}:{order}:{}", slot.display())
}

/// What this process shall keep, if it is a keeper.
pub(crate) fn asked() -> Option<Asked> {
    read(&std::env::var(KEEPER_VARIABLE).ok()?)
}

fn read(value: &str) -> Option<Asked> {
    let mut parts = value.splitn(3, ':');
    let mut next = || parts.next().map(str::to_owned);
    Some(Asked { hook: next()?, order: next()?, slot: PathBuf::from(next()?) })
}

/// True when `HARNESS_KEEP` is set and not zero.
pub(crate) fn keep_is_set() -> bool {
    std::env::var_os("HARNESS_KEEP").is_some_and(|value| !value.is_empty())
        && !crate::env::Settings::get().keep.is_zero()
}

/// The package whose tests run, if cargo says.
pub(crate) fn package() -> Option<String> {
    std::env::var("CARGO_PKG_NAME").ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ask, read};

    #[test]
    fn order_is_read_as_it_was_written() {
        let asked = read(&ask("core", "7", Path::new("/tmp/a:b/v1/x"))).unwrap();
        assert_eq!((&*asked.hook, &*asked.order, asked.slot.to_str()), ("core", "7", Some("/tmp/a:b/v1/x")));
        assert_eq!(read("core:/tmp/x"), None);
    }
}
