//! The directory all processes of one user share: `$XDG_RUNTIME_DIR/harness`, else `/tmp/harness-<uid>`.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::env::Settings;
use crate::error::{CoreResult, Error, ErrorKind};

/// Version of everything below the base. Processes of another version use another directory and never meet.
pub(crate) const PROTOCOL: &str = "v1";

/// The base directory, made if needed.
pub(crate) fn dir() -> CoreResult<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let dir = choose(Settings::get().runtime_dir.as_deref());
    create_dir(&dir)?;
    Ok(DIR.get_or_init(|| dir))
}

/// Where the slots of this protocol version are.
pub(crate) fn slots() -> CoreResult<PathBuf> {
    let dir = dir()?.join(PROTOCOL);
    create_dir(&dir)?;
    Ok(dir)
}

fn choose(runtime_dir: Option<&Path>) -> PathBuf {
    let euid = rustix::process::geteuid();
    let usable = |dir: &Path| {
        dir.metadata().is_ok_and(|found| {
            // Root starts servers as another user, who must be able to pass through.
            let passable = !euid.is_root() || found.mode() & 0o001 != 0;
            found.is_dir() && found.uid() == euid.as_raw() && found.mode() & 0o300 == 0o300 && passable
        })
    };
    match runtime_dir {
        Some(dir) if dir.is_absolute() && usable(dir) => dir.join("harness"),
        _ => PathBuf::from(format!("/tmp/harness-{}", euid.as_raw())),
    }
}

/// Makes a directory that belongs to us and to nobody else, or accepts one that does.
pub(crate) fn create_dir(dir: &Path) -> CoreResult {
    let euid = rustix::process::geteuid();
    let mode = if euid.is_root() { 0o711 } else { 0o700 };
    match std::fs::DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => {
            // A strict umask must not lock the server's user out.
            return std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
                .map_err(|error| unusable(dir, error));
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unusable(dir, error)),
    }
    let found = dir.symlink_metadata().map_err(|error| unusable(dir, error))?;
    if !found.is_dir() || found.uid() != euid.as_raw() {
        let whose = format!("it is no directory of user {}", euid.as_raw());
        return Err(unusable(dir, std::io::Error::other(whose)));
    }
    Ok(())
}

/// The error of a state directory that does not work.
pub(crate) fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Environment, format!("the state directory cannot be used: {}", path.display()))
        .remedy("remove it, or set XDG_RUNTIME_DIR to a local directory of this user")
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{choose, create_dir};

    #[test]
    fn falls_back_when_the_runtime_directory_is_not_usable() {
        let uid = rustix::process::geteuid().as_raw();
        let fallback = format!("/tmp/harness-{uid}");
        for dir in [None, Some(Path::new("/no/such/dir")), Some(Path::new("relative"))] {
            assert_eq!(choose(dir).to_str(), Some(&*fallback));
        }
        let own = std::env::temp_dir().join(format!("harness-base-{}", std::process::id()));
        create_dir(&own).unwrap();
        assert_eq!(choose(Some(&own)), own.join("harness"));
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(choose(Some(&own)).to_str(), Some(&*fallback));
        std::fs::remove_dir(&own).unwrap();
    }

    #[test]
    fn refuses_a_link_in_place_of_its_directory() {
        let link = std::env::temp_dir().join(format!("harness-link-{}", std::process::id()));
        symlink("/tmp", &link).unwrap();
        let error = create_dir(&link).unwrap_err();
        std::fs::remove_file(&link).unwrap();
        assert!(error.is_environment(), "{error:?}");
    }
}
