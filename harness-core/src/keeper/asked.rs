//! What a process was asked to keep: `HARNESS_KEEPER=<hook>:<order>:<slot directory>`, set by the harness itself.

use std::path::{Path, PathBuf};

use crate::env::Settings;

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
    read(Settings::get().keeper.as_deref()?)
}

fn read(value: &str) -> Option<Asked> {
    let mut parts = value.splitn(3, ':');
    let mut next = || parts.next().map(str::to_owned);
    Some(Asked { hook: next()?, order: next()?, slot: PathBuf::from(next()?) })
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
