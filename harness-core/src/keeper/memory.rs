//! Data directories in memory: for servers whose data nobody will miss, on machines that have plenty.
//!
//! A file system in memory makes and removes the thousand small files of a fresh database in a few milliseconds, where a
//! disk with a journal takes seconds when it is busy. The slot's `data` is then a link. It is made before the directory
//! it names, and goes after it: whoever is killed in between, the slot still says what there is to remove.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::base;
use crate::error::CoreResult;
use crate::run::fnv;

/// Where Linux keeps POSIX shared memory (`shm_overview(7)`): a file system in memory that every user may write to.
const ROOM: &str = "/dev/shm";

/// Makes `data` a link to a directory in memory, when at least `least` bytes are free there and twice as many on the whole
/// machine. False when it was not done.
pub(super) fn lend(slot: &Path, data: &Path, least: u64) -> CoreResult<bool> {
    if !is_plenty(least) {
        return Ok(false);
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let room = room();
    // Somebody else's directory of this name, or none that can be made: the disk will do.
    if base::create_dir(&room).is_err() {
        return Ok(false);
    }
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let key = fnv(slot.as_os_str().as_encoded_bytes());
    let place = room.join(format!("{key:016x}-{}-{n}", std::process::id()));
    std::os::unix::fs::symlink(&place, data)?;
    fs::create_dir(&place)?;
    Ok(true)
}

/// Removes what the slot's `data` links to, if it was lent here.
pub(super) fn take_back(slot: &Path) -> std::io::Result<()> {
    let Ok(place) = fs::read_link(slot.join("data")) else { return Ok(()) };
    if place.parent() != Some(&*room()) {
        return Ok(());
    }
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn room() -> PathBuf {
    Path::new(ROOM).join(format!("harness-{}", rustix::process::geteuid().as_raw()))
}

fn is_plenty(least: u64) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let free = rustix::fs::statvfs(ROOM).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
    is_in_memory(&read("/proc/self/mounts"))
        && free >= least
        && available(&read("/proc/meminfo")).is_some_and(|machine| machine >= least.saturating_mul(2))
}

/// Whether the list of mounts (`proc(5)`) says that the room is a tmpfs.
fn is_in_memory(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(ROOM) && words.next() == Some("tmpfs")
    })
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{available, is_in_memory, lend, take_back};

    #[test]
    fn what_is_lent_is_taken_back_and_nothing_else() {
        let slot = tempfile::tempdir().unwrap();
        let data = slot.path().join("data");
        if !lend(slot.path(), &data, 1 << 20).unwrap() {
            return; // no such file system here: the disk is used
        }
        let place = std::fs::read_link(&data).unwrap();
        std::fs::write(data.join("file"), "in memory").unwrap();
        take_back(slot.path()).unwrap();
        assert!(!place.exists());
        take_back(slot.path()).unwrap(); // once more is no error

        let mine = tempfile::tempdir().unwrap();
        std::fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink(mine.path(), &data).unwrap();
        take_back(slot.path()).unwrap();
        assert!(mine.path().exists(), "a link to somewhere else was followed");
    }

    #[test]
    fn too_little_memory_means_disk() {
        let slot = tempfile::tempdir().unwrap();
        assert!(!lend(slot.path(), &slot.path().join("data"), 1 << 60).unwrap());
        assert!(!slot.path().join("data").exists());
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   24682416 kB\n"), Some(24_682_416 * 1024));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert!(is_in_memory("proc /proc proc rw 0 0\nshm /dev/shm tmpfs rw,nosuid 0 0\n"));
        assert!(!is_in_memory("/dev/vda / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/vdb /dev/shm ext4 rw 0 0\n"));
    }
}
