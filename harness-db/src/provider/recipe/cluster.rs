//! A fresh Postgres cluster: initialised once per version of the binaries and copied from then on, since `initdb` takes
//! about a second and a copy a fifth of that.
//!
//! The copy is an optimisation only: whatever goes wrong with the cache, the cluster is initialised in place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_core::run::fnv;
use harness_core::service::{Exec, run_to_end};

use crate::provider::own::hand_over;

/// Raised when clusters made by an older version of this crate would not do.
const FORMAT: &str = "1";
const LIMIT: Duration = Duration::from_secs(120);

/// The programs that fill `{data}` with a fresh cluster whose superuser is `postgres`, trusted.
pub(super) fn prepare(bin_dir: &Path, version: &str, user: Option<&str>) -> Vec<Exec> {
    let cache = super::cache_dir().map(|dir| dir.join("initdb"));
    let programs = match cache.and_then(|dir| cached(&dir, bin_dir, version, user)) {
        Some(cluster) => vec![
            Exec::new("cp").args(["-Rp", &format!("{}/.", cluster.display()), "{data}"]),
            Exec::new("chmod").args(["0700", "{data}"]), // anything wider is refused by the server
        ],
        None => vec![initdb(bin_dir, "{data}").arg("--no-sync")],
    };
    programs.into_iter().map(|program| as_user(program, user)).collect()
}

/// The words of `pg_basebackup`.
pub(super) fn copy_words(primary: SocketAddr, slot: &str, to: &str) -> [String; 14] {
    let (host, port) = (primary.ip(), primary.port());
    let from = format!("host={host} port={port} user=postgres sslmode=disable application_name={slot}");
    let words =
        ["-d", &from, "-D", to, "-R", "-C", "-S", slot, "-X", "stream", "-c", "fast", "--no-sync", "--no-password"];
    words.map(str::to_owned)
}

/// The programs that fill `{data}` with a copy of a running server that will follow it over a slot of this name.
///
/// `pg_basebackup` makes the slot, so that the primary keeps what the copy still needs, and writes `standby.signal` and
/// `primary_conninfo` (PostgreSQL documentation, 27.2 "Log-Shipping Standby Servers").
pub(super) fn copy_of(bin_dir: &Path, primary: SocketAddr, slot: &str, user: Option<&str>) -> Vec<Exec> {
    let copy = Exec::new(bin_dir.join("pg_basebackup")).args(copy_words(primary, slot, "{data}"));
    let narrow = Exec::new("chmod").args(["0700", "{data}"]); // anything wider is refused by the server
    [copy, narrow].into_iter().map(|program| as_user(program, user)).collect()
}

fn initdb(bin_dir: &Path, data: &str) -> Exec {
    let locale = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
    let program = Exec::new(bin_dir.join("initdb")).args(["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]);
    program.args([&format!("--locale={locale}"), "--no-instructions"])
}

/// The cluster in the cache, made if need be. `None` when somebody else is making it, or it cannot be made.
fn cached(dir: &Path, bin_dir: &Path, version: &str, user: Option<&str>) -> Option<PathBuf> {
    let key = fnv(format!("{FORMAT} {version} {} {user:?}", bin_dir.display()).as_bytes());
    let cluster = dir.join(format!("{version}-{key:016x}"));
    if cluster.join("PG_VERSION").exists() {
        return Some(cluster);
    }
    passable(dir)?;
    let _lock = lock(&dir.join(format!("{key:016x}.lock")))?;
    if cluster.join("PG_VERSION").exists() {
        return Some(cluster);
    }
    // Nobody else has the lock: what is here was left by a process that was killed.
    let fresh = dir.join(format!("{key:016x}.new"));
    let _ = std::fs::remove_dir_all(&fresh);
    let made = make(&fresh, bin_dir, user).and_then(|()| std::fs::rename(&fresh, &cluster).ok());
    if made.is_none() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    made.map(|()| cluster)
}

fn make(fresh: &Path, bin_dir: &Path, user: Option<&str>) -> Option<()> {
    DirBuilder::new().mode(0o700).create(fresh).ok()?;
    if let Some(user) = user {
        hand_over(fresh, user).ok()?;
    }
    let done = run_to_end(&as_user(initdb(bin_dir, fresh.to_str()?), user), LIMIT).ok()?;
    (done.code == Some(0)).then_some(())
}

/// A directory that the server's user can pass through.
fn passable(dir: &Path) -> Option<()> {
    std::fs::create_dir_all(dir).ok()?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, mode).ok()
}

fn lock(path: &Path) -> Option<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    file.try_lock().ok().map(|()| file)
}

fn as_user(program: Exec, user: Option<&str>) -> Exec {
    match user {
        Some(user) => program.user(user),
        None => program,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::cached;

    /// A directory with an `initdb` that writes what it must, and a line per run.
    fn fake_binaries(dir: &Path, exit: i32) {
        let file = dir.join("initdb");
        let text = format!(
            "#!/bin/sh\necho run >>{}/runs\n[ {exit} = 0 ] && echo 77 >\"$2/PG_VERSION\"\nexit {exit}\n",
            dir.display()
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runs(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("runs")).unwrap_or_default().lines().count()
    }

    #[test]
    fn cluster_is_made_once_per_version() {
        let (cache, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake_binaries(bin.path(), 0);
        let first = cached(cache.path(), bin.path(), "77.1", None).expect("made");
        assert_eq!(cached(cache.path(), bin.path(), "77.1", None), Some(first.clone()));
        assert_eq!(runs(bin.path()), 1);
        assert_ne!(cached(cache.path(), bin.path(), "77.2", None), Some(first));
        assert_eq!(runs(bin.path()), 2);
    }

    #[test]
    fn failed_initdb_leaves_nothing_that_looks_like_a_cluster() {
        let (cache, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake_binaries(bin.path(), 1);
        assert_eq!(cached(cache.path(), bin.path(), "77.1", None), None);
        let left = std::fs::read_dir(cache.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count();
        assert_eq!(left, 0);
    }

    #[test]
    fn torn_cluster_of_a_killed_process_is_made_again() {
        let (cache, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake_binaries(bin.path(), 0);
        let cluster = cached(cache.path(), bin.path(), "77.1", None).expect("made");
        std::fs::remove_file(cluster.join("PG_VERSION")).unwrap();
        std::fs::remove_dir(&cluster).unwrap();
        assert_eq!(cached(cache.path(), bin.path(), "77.1", None), Some(cluster));
    }
}
