//! File locks that notice when their file was removed under them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Locks a file, made if needed. `None` when somebody else holds it. The kernel releases it on any death.
pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<File>> {
    // Each round means that a file was removed between our open and our lock: rare, and never many times in a row.
    for _ in 0..100 {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) if is_named(&file, path)? => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// True while somebody holds the lock of this file. Never makes the file.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // Shared, so that two who look at the same time do not take each other for the owner.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok((own.dev(), own.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_held, try_exclusive};

    #[test]
    fn excludes_others_until_dropped() {
        let path = std::env::temp_dir().join(format!("harness-lock-{}", std::process::id()));
        assert!(!is_held(&path));
        let held = try_exclusive(&path).unwrap();
        assert!(held.is_some() && is_held(&path));
        assert!(try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(!is_held(&path) && try_exclusive(&path).unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
    }
}
