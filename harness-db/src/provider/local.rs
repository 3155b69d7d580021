//! Server binaries that are installed on this machine: where they are looked for, and why one is passed over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness_core::service::{Exec, run_to_end};
use harness_core::{CoreResult, Error, ErrorKind};

/// The oldest PostgreSQL that will do.
pub const POSTGRES_OLDEST: u32 = 15;
/// The oldest Redis that passes without being called degraded.
pub const REDIS_OLDEST: u32 = 7;

const ASK_LIMIT: Duration = Duration::from_secs(10);

/// Installed PostgreSQL binaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// Directory that holds `postgres` and `initdb`.
    pub bin_dir: PathBuf,
    /// The version as the binary states it, for example `15.13`.
    pub version: String,
    /// Whether pgvector is installed for it.
    pub has_vector: bool,
    /// Whether `pg_stat_statements` is installed for it.
    pub has_stat_statements: bool,
}

/// An installed redis-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// The executable.
    pub server: PathBuf,
    /// Its version, for example `7.0.15`.
    pub version: String,
}

/// Directories that may hold PostgreSQL binaries: `PATH`, `pg_config --bindir`, the distribution's place, Homebrew.
#[must_use]
pub fn postgres_places(path: &[PathBuf]) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = path.to_vec();
    if let Some(pg_config) = path.iter().map(|dir| dir.join("pg_config")).find(|file| file.is_file())
        && let Ok(done) = run_to_end(&Exec::new(pg_config).arg("--bindir"), ASK_LIMIT)
    {
        places.push(PathBuf::from(done.stdout.trim()));
    }
    for (base, below) in [("/usr/lib/postgresql", "bin"), ("/opt/homebrew/opt", "bin"), ("/usr/local/opt", "bin")] {
        let mut found: Vec<PathBuf> = std::fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join(below))
            .filter(|dir| dir.join("initdb").is_file())
            .collect();
        found.sort();
        places.extend(found.into_iter().rev());
    }
    places
}

/// The best PostgreSQL in these directories: the newest, and with `vector` the newest that has pgvector.
///
/// # Errors
/// [`ErrorKind::Environment`] that lists what was found and why it will not do.
pub fn postgres(places: &[PathBuf], vector: bool) -> CoreResult<Postgres> {
    let (mut seen, mut fit, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
    for place in places {
        // A directory of links (as in /usr/local/bin) stands for the directory it points to.
        let Ok(server) = place.join("postgres").canonicalize() else { continue };
        let Some(bin_dir) = server.parent().map(Path::to_path_buf) else { continue };
        if seen.contains(&bin_dir) || !bin_dir.join("initdb").exists() {
            continue;
        }
        seen.push(bin_dir.clone());
        match describe_postgres(&bin_dir) {
            Err(error) => unfit.push(format!("{}: {error}", bin_dir.display())),
            Ok(found) if major(&found.version) < POSTGRES_OLDEST => unfit.push(format!(
                "{}: PostgreSQL {} is too old, {POSTGRES_OLDEST} or later is needed",
                bin_dir.display(),
                found.version
            )),
            Ok(found) if vector && !found.has_vector => {
                unfit.push(format!("{}: PostgreSQL {} has no pgvector", bin_dir.display(), found.version));
            }
            Ok(found) => fit.push(found),
        }
    }
    fit.sort_by_key(|found| std::cmp::Reverse(major(&found.version)));
    match fit.into_iter().next() {
        Some(best) => Ok(best),
        None if unfit.is_empty() => Err(Error::new(ErrorKind::Environment, "no PostgreSQL binaries on this machine")
            .remedy("install postgresql (15 or later), or run `harness provision --only postgres`")),
        None => Err(Error::new(ErrorKind::Environment, unfit.join("; "))
            .remedy("install postgresql 15 or later with pgvector, or run `harness provision --only postgres`")),
    }
}

fn describe_postgres(bin_dir: &Path) -> CoreResult<Postgres> {
    let said = ask(&bin_dir.join("postgres"), "--version")?;
    let version = version_in(&said)
        .ok_or_else(|| Error::new(ErrorKind::Environment, format!("`postgres --version` said `{}`", said.trim())))?;
    let has = |extension: &str| {
        share_dirs(bin_dir, &version).iter().any(|dir| dir.join(format!("extension/{extension}.control")).is_file())
    };
    Ok(Postgres {
        bin_dir: bin_dir.to_path_buf(),
        has_vector: has("vector"),
        has_stat_statements: has("pg_stat_statements"),
        version,
    })
}

fn share_dirs(bin_dir: &Path, version: &str) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if bin_dir.join("pg_config").exists()
        && let Ok(said) = ask(&bin_dir.join("pg_config"), "--sharedir")
    {
        dirs.push(PathBuf::from(said.trim()));
    }
    dirs.push(PathBuf::from(format!("/usr/share/postgresql/{}", major(version))));
    dirs.extend(["share", "share/postgresql"].map(|below| bin_dir.join("..").join(below)));
    dirs
}

/// The first redis-server in these directories that can run.
///
/// # Errors
/// [`ErrorKind::Environment`] when there is none.
pub fn redis(places: &[PathBuf]) -> CoreResult<Redis> {
    let mut unfit = Vec::new();
    for server in places.iter().map(|dir| dir.join("redis-server")).filter(|file| file.is_file()) {
        match ask(&server, "--version").map(|said| redis_version_in(&said)) {
            Ok(Some(version)) if major(&version) >= REDIS_OLDEST => return Ok(Redis { server, version }),
            Ok(Some(version)) => {
                unfit.push(format!(
                    "{}: Redis {version} is too old, {REDIS_OLDEST} or later is needed",
                    server.display()
                ));
            }
            Ok(None) => unfit.push(format!("{}: does not state its version", server.display())),
            Err(error) => unfit.push(format!("{}: {error}", server.display())),
        }
    }
    let what = match unfit.is_empty() {
        true => "no redis-server on this machine".to_owned(),
        false => unfit.join("; "),
    };
    Err(Error::new(ErrorKind::Environment, what)
        .remedy("install redis-server (7 or later), or run `harness provision --only redis`"))
}

fn ask(program: &Path, argument: &str) -> CoreResult<String> {
    let done = run_to_end(&Exec::new(program).arg(argument), ASK_LIMIT)?;
    match done.code {
        Some(0) => Ok(done.stdout),
        code => Err(Error::new(ErrorKind::Exited, format!("{} {argument} ended with {code:?}", program.display()))
            .log(done.stderr.lines())),
    }
}

/// `15.13` in `postgres (PostgreSQL) 15.13 (Debian …)`.
fn version_in(said: &str) -> Option<String> {
    let word = said.split(") ").nth(1)?.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// `7.0.15` in `Redis server v=7.0.15 sha=…`.
fn redis_version_in(said: &str) -> Option<String> {
    Some(said.split(" v=").nth(1)?.split_whitespace().next()?.to_owned())
}

/// The leading number of a version; 0 when there is none.
pub(crate) fn major(version: &str) -> u32 {
    version.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::{major, postgres, redis, redis_version_in, version_in};

    fn script(dir: &Path, name: &str, said: &str) {
        let file = dir.join(name);
        std::fs::write(&file, format!("#!/bin/sh\necho '{said}'\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn fake(says_postgres: &str, says_redis: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "postgres", says_postgres);
        script(dir.path(), "initdb", "");
        script(dir.path(), "redis-server", says_redis);
        let places = vec![dir.path().to_path_buf()];
        (dir, places)
    }

    #[test]
    fn reads_what_the_binaries_say() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)").as_deref(), Some("15.13"));
        assert_eq!(version_in("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(version_in("command not found"), None);
        assert_eq!(redis_version_in("Redis server v=7.0.15 sha=0:0 bits=64").as_deref(), Some("7.0.15"));
        assert_eq!((major("18beta1"), major("15.13"), major("x")), (18, 15, 0));
    }

    #[test]
    fn postgres_14_is_refused_by_name() {
        let (_dir, places) = fake("postgres (PostgreSQL) 14.9", "");
        let text = format!("{:?}", postgres(&places, false).unwrap_err());
        assert!(text.contains("PostgreSQL 14.9 is too old, 15 or later is needed"), "{text}");
        assert!(text.contains("harness provision"), "{text}");
    }

    #[test]
    fn postgres_without_vector_is_passed_over_only_when_vector_is_needed() {
        let (_dir, places) = fake("postgres (PostgreSQL) 77.1", "");
        assert_eq!(postgres(&places, false).unwrap().version, "77.1");
        let text = postgres(&places, true).unwrap_err().to_string();
        assert!(text.contains("has no pgvector"), "{text}");
    }

    #[test]
    fn redis_6_is_refused_by_name_and_7_taken() {
        let (_dir, places) = fake("", "Redis server v=6.2.7 sha=0");
        let text = redis(&places).unwrap_err().to_string();
        assert!(text.contains("Redis 6.2.7 is too old"), "{text}");
        let (_dir, places) = fake("", "Redis server v=7.0.15 sha=0");
        assert_eq!(redis(&places).unwrap().version, "7.0.15");
    }

    #[test]
    fn nothing_installed_is_said() {
        assert!(postgres(&[], false).unwrap_err().to_string().contains("no PostgreSQL binaries"));
        assert!(redis(&[]).unwrap_err().to_string().contains("no redis-server"));
    }
}
