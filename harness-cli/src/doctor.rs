//! `harness doctor`: what this machine has for tests with real servers, what it lacks, and the one line that mends it.
//!
//! It looks and changes nothing (but for a probe file in the state directory). A part that could not be looked at is
//! never called fine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use harness_db::provider::image::{CommandLine, Engine, Run};
use harness_db::provider::portable::{self, Portable};

use crate::provision::{held_image, images, installed};

/// How a part of the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// There, with limits that the detail states.
    Degraded,
    /// Not there, or not usable.
    Missing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        })
    }
}

/// One line of the diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub part: String,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(part: &str, state: State, detail: impl Into<String>) -> Self {
        Self { part: part.into(), state, detail: detail.into(), remedy: None }
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// All findings, and whether tests can have their servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// In the order of the table.
    pub findings: Vec<Finding>,
    /// A Postgres with pgvector is at hand, without fetching or building anything; of a given URL it is only known that
    /// something listens.
    pub postgres: bool,
    /// A Redis is at hand, likewise.
    pub redis: bool,
}

impl Diagnosis {
    /// 0 when both servers are at hand, else 3: nothing could start.
    pub fn exit_code(&self) -> u8 {
        if self.postgres && self.redis { 0 } else { 3 }
    }
}

/// The machine, as the caller sees it.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The environment.
    pub vars: &'a BTreeMap<String, String>,
    /// User id; 0 is root.
    pub uid: u32,
    /// Runs a program to its end.
    pub run: Run<'a>,
}

impl fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// Looks at every part and prints the table.
///
/// # Errors
/// Only writing to `out` can fail.
pub fn doctor(machine: &Machine<'_>, out: &mut dyn Write) -> io::Result<Diagnosis> {
    let mut findings = vec![
        program(machine, "rust toolchain", &["cargo", "--version"], State::Missing, "install Rust with rustup"),
        program(
            machine,
            "cargo-nextest",
            &["cargo", "nextest", "--version"],
            State::Degraded,
            "cargo install --locked cargo-nextest (cargo test works without it)",
        ),
    ];
    let engine = Engine::find(machine.vars);
    findings.push(match &engine {
        Ok(engine) => match engine.version() {
            Ok(version) => Finding::new("container engine", State::Ok, format!("{version} at {}", engine.address())),
            Err(error) => Finding::new("container engine", State::Degraded, error.to_string()),
        },
        Err(error) => Finding::new("container engine", State::Degraded, error.to_string())
            .remedy("start Docker or Podman; without one, installed or portable servers are used"),
    });
    let postgres = server(machine, Portable::Postgres, engine.as_ref().ok(), &mut findings);
    let redis = server(machine, Portable::Redis, engine.as_ref().ok(), &mut findings);
    findings.extend(server_user(machine.uid));
    findings.extend([state_dir(machine), shared_memory(), ports(), memory(), descriptors()]);
    findings.extend(variables(machine.vars));
    let diagnosis = Diagnosis { findings, postgres, redis };
    print(&diagnosis, out)?;
    Ok(diagnosis)
}

fn print(diagnosis: &Diagnosis, out: &mut dyn Write) -> io::Result<()> {
    let width = diagnosis.findings.iter().map(|finding| finding.part.chars().count()).max().unwrap_or(0);
    for Finding { part, state, detail, remedy } in &diagnosis.findings {
        writeln!(out, "{part:width$}  {state:8}  {detail}")?;
        if let Some(remedy) = remedy {
            writeln!(out, "{:width$}            -> {remedy}", "")?;
        }
    }
    let word = |at_hand| if at_hand { "at hand" } else { "NOT at hand: run `harness provision`" };
    writeln!(out, "\nPostgres with pgvector: {}\nRedis: {}", word(diagnosis.postgres), word(diagnosis.redis))
}

/// A program that states its version.
fn program(machine: &Machine<'_>, part: &str, argv: &[&str], otherwise: State, remedy: &str) -> Finding {
    let ran = (machine.run)(&CommandLine::new(argv.iter().copied(), Duration::from_secs(10)));
    match ran {
        Ok(ran) if ran.is_success() => Finding::new(part, State::Ok, ran.stdout.lines().next().unwrap_or_default()),
        Ok(ran) => Finding::new(part, otherwise, ran.last_words()).remedy(remedy),
        Err(error) => Finding::new(part, otherwise, error.to_string()).remedy(remedy),
    }
}

/// The ways to one server; true when at least one leads there now: degraded ones do, missing ones do not.
fn server(machine: &Machine<'_>, kind: Portable, engine: Option<&Engine>, findings: &mut Vec<Finding>) -> bool {
    let word = kind.word();
    let provision = format!("harness provision --only {word}");
    let first = findings.len();
    let url = format!("HARNESS_{}_URL", word.to_uppercase());
    if let Some(value) = machine.vars.get(&url).filter(|value| !value.is_empty()) {
        findings.push(given_url(&url, value, kind));
    }
    if let Some(engine) = engine {
        let part = format!("{word} image");
        let names = images(kind, machine.vars);
        findings.push(match held_image(engine, kind, &names) {
            Ok(Some(name)) => Finding::new(&part, State::Ok, name),
            Ok(None) => {
                let detail = format!("none of {} (or outdated)", names.join(", "));
                Finding::new(&part, State::Missing, detail).remedy(&format!("{provision} --provider container"))
            }
            Err(error) => Finding::new(&part, State::Missing, error.to_string()),
        });
    }
    findings.push(match installed(kind, machine.vars) {
        Ok(found) => {
            let finding = Finding::new(&format!("local {word}"), State::Ok, found.to_string());
            match found.has_stat_statements {
                Some(false) => Finding { state: State::Degraded, ..finding }
                    .remedy("install the contrib package for pg_stat_statements"),
                _ => finding,
            }
        }
        Err(reason) => Finding::new(&format!("local {word}"), State::Missing, reason)
            .remedy("not needed where an image or portable binaries are"),
    });
    findings.push(portable_cache(machine, kind, &provision));
    findings[first..].iter().any(|finding| finding.state != State::Missing)
}

/// A server that somebody gave: whether anything accepts connections there. More than that only a test can tell.
fn given_url(variable: &str, url: &str, kind: Portable) -> Finding {
    let default_port = if kind == Portable::Postgres { 5432 } else { 6379 };
    let part = format!("{} url", kind.word());
    match knock(url, default_port, Duration::from_secs(2)) {
        Ok(address) => Finding::new(
            &part,
            State::Degraded,
            format!("{address} accepts connections; version and extensions not checked"),
        ),
        Err(reason) => Finding::new(&part, State::Missing, format!("{variable}: {reason}"))
            .remedy(&format!("start that server, or unset {variable}")),
    }
}

/// Connects to the host of a URL and hangs up.
fn knock(url: &str, default_port: u16, limit: Duration) -> Result<String, String> {
    let (_, rest) = url.split_once("://").ok_or("not a URL")?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.parse::<u16>().is_ok());
    let address = if has_port { host.to_owned() } else { format!("{host}:{default_port}") };
    // A name is looked up without a limit of its own, so a thread does it.
    let (sender, answers) = mpsc::channel();
    let target = address.clone();
    thread::spawn(move || {
        let connect = || -> io::Result<()> {
            let target = target.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            TcpStream::connect_timeout(&target, limit).map(drop)
        };
        sender.send(connect().map_err(|error| error.to_string()))
    });
    let late = |_| Err(format!("no answer within {} s", limit.as_secs()));
    match answers.recv_timeout(limit).unwrap_or_else(late) {
        Ok(()) => Ok(address),
        Err(reason) => Err(format!("{address}: {reason}")),
    }
}

fn portable_cache(machine: &Machine<'_>, kind: Portable, provision: &str) -> Finding {
    let part = format!("portable {}", kind.word());
    let Some(cache) = portable::default_cache_dir(machine.uid == 0, machine.vars) else {
        return Finding::new(&part, State::Missing, "no place for a cache").remedy("set HOME or XDG_CACHE_HOME");
    };
    let Some(binaries) = portable::cached(kind, &cache) else {
        return Finding::new(&part, State::Missing, format!("nothing complete in {}", cache.display()))
            .remedy(&format!("{provision} --provider portable"));
    };
    let detail = format!("{} in {}", binaries.version, binaries.bin_dir.display());
    match (binaries.lacks(), kind) {
        (Some(lack), Portable::Postgres) => Finding::new(&part, State::Missing, format!("{detail}: {lack}")),
        (Some(lack), Portable::Redis) => Finding::new(&part, State::Degraded, format!("{detail}: {lack}")),
        (None, Portable::Postgres) if !binaries.has_stat_statements => {
            Finding::new(&part, State::Degraded, format!("{detail}: pgvector, but no pg_stat_statements"))
                .remedy("tests of statement statistics need an image or an installed server")
        }
        _ => Finding::new(&part, State::Ok, detail),
    }
}

/// Postgres refuses to run as root, so that root needs somebody else to run it as.
fn server_user(uid: u32) -> Option<Finding> {
    if uid != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found =
        ["postgres", "nobody"].into_iter().find(|user| users.lines().any(|line| line.starts_with(&format!("{user}:"))));
    Some(match found {
        Some(user) => Finding::new("server user", State::Ok, format!("root starts local servers as {user}")),
        None => {
            Finding::new("server user", State::Degraded, "neither postgres nor nobody exists; Postgres refuses root")
                .remedy("useradd --system postgres")
        }
    })
}

/// Where the keeper and the leases live.
fn state_dir(machine: &Machine<'_>) -> Finding {
    let part = "state directory";
    let runtime = machine.vars.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    let base = runtime.unwrap_or_else(|| "/tmp".into());
    let probe = base.join(format!("harness-doctor-{}", std::process::id()));
    let written = fs::write(&probe, "probe").and_then(|()| fs::remove_file(&probe));
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let kind = filesystem_of(&base, &mounts).unwrap_or("filesystem not known");
    match written {
        Err(error) => Finding::new(part, State::Missing, format!("{}: {error}", base.display()))
            .remedy("set XDG_RUNTIME_DIR to a local directory of this user"),
        Ok(()) if ["nfs", "cifs", "smb", "9p", "fuse.sshfs"].iter().any(|remote| kind.starts_with(remote)) => {
            Finding::new(part, State::Degraded, format!("{} is on {kind}: locks may not hold", base.display()))
                .remedy("set XDG_RUNTIME_DIR to a local directory of this user")
        }
        Ok(()) => Finding::new(part, State::Ok, format!("below {} ({kind})", base.display())),
    }
}

/// Type of the file system that holds `path`, from the text of `/proc/mounts`.
fn filesystem_of<'a>(path: &Path, mounts: &'a str) -> Option<&'a str> {
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    let below = lines.filter(|(point, _)| path.starts_with(point));
    below.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind)
}

/// Postgres keeps the memory that its workers share in `/dev/shm`.
fn shared_memory() -> Finding {
    match rustix::fs::statvfs("/dev/shm") {
        Ok(facts) => {
            let free = facts.f_bavail.saturating_mul(facts.f_frsize) >> 20;
            at_least("/dev/shm", Some(free), 256, "MiB free", "give it more room: mount -o remount,size=1G /dev/shm")
        }
        Err(error) => Finding::new("/dev/shm", State::Degraded, error.to_string()),
    }
}

fn ports() -> Finding {
    let part = "loopback ports";
    if let Err(error) = TcpListener::bind("127.0.0.1:0") {
        return Finding::new(part, State::Missing, format!("cannot listen on 127.0.0.1: {error}"));
    }
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<u64>().ok());
    let count = ends.next().zip(ends.next()).map(|(low, high)| high.saturating_sub(low) + 1);
    at_least(part, count, 4_000, "in the automatic range", "sysctl net.ipv4.ip_local_port_range='32768 60999'")
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    at_least("memory", available_mib(&text), 2_048, "MiB available", "close programs, or run fewer tests at once")
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
}

fn descriptors() -> Finding {
    // No limit at all is as good as a high one.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    at_least("open files", Some(limit), 4_096, "allowed", "ulimit -n 65536")
}

/// Ok from `wanted` on, degraded below it; a figure that cannot be read is degraded too.
fn at_least(part: &str, seen: Option<u64>, wanted: u64, unit: &str, remedy: &str) -> Finding {
    match seen {
        None => Finding::new(part, State::Degraded, "cannot be read on this machine"),
        Some(seen) if seen < wanted => {
            Finding::new(part, State::Degraded, format!("{seen} {unit}, {wanted} are wanted")).remedy(remedy)
        }
        Some(u64::MAX) => Finding::new(part, State::Ok, format!("no limit {unit}")),
        Some(seen) => Finding::new(part, State::Ok, format!("{seen} {unit}")),
    }
}

/// The variables that steer a run, secrets hidden.
fn variables(vars: &BTreeMap<String, String>) -> Vec<Finding> {
    let ours = vars.iter().filter(|(name, _)| name.starts_with("HARNESS_"));
    let mut findings: Vec<Finding> =
        ours.map(|(name, value)| Finding::new(name, State::Ok, masked(name, value))).collect();
    if vars.contains_key("DATABASE_URL") {
        findings.push(Finding::new("DATABASE_URL", State::Ok, "set, and never used: it may be a real database"));
    }
    findings
}

/// A value without its secret: the password of a URL, or all of it where the name says so.
fn masked(name: &str, value: &str) -> String {
    if ["PASSWORD", "SECRET", "TOKEN", "KEY"].iter().any(|word| name.contains(word)) {
        return "***".into();
    }
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let rest = rest.split('?').next().unwrap_or_default(); // options may hold a password too
    // A password may hold any character, badly quoted as URLs in variables are: the last @ ends it.
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness_db::provider::image::Ran;

    fn diagnose(vars: &BTreeMap<String, String>) -> (Diagnosis, String) {
        let run = |command: &CommandLine| {
            let known = command.argv == ["cargo", "--version"];
            if known {
                Ok(Ran { code: Some(0), stdout: "cargo 1.95.0\n".into(), ..Ran::default() })
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        };
        let mut out = Vec::new();
        let diagnosis = doctor(&Machine { vars, uid: 1000, run: &run }, &mut out).unwrap();
        (diagnosis, String::from_utf8(out).unwrap())
    }

    fn find<'a>(diagnosis: &'a Diagnosis, part: &str) -> &'a Finding {
        diagnosis.findings.iter().find(|finding| finding.part == part).unwrap()
    }

    #[test]
    fn a_missing_part_is_told_with_its_remedy() {
        let home = tempfile::tempdir().unwrap();
        let vars = BTreeMap::from([
            ("DOCKER_HOST".to_owned(), "unix:///none/docker.sock".to_owned()),
            ("HOME".to_owned(), home.path().display().to_string()),
        ]);
        let (diagnosis, text) = diagnose(&vars);
        assert_eq!(find(&diagnosis, "rust toolchain").state, State::Ok);
        assert_eq!(find(&diagnosis, "cargo-nextest").state, State::Degraded);
        assert_eq!(find(&diagnosis, "container engine").state, State::Degraded);
        assert_eq!(find(&diagnosis, "portable redis").state, State::Missing);
        assert!(text.contains("-> harness provision --only redis --provider portable"), "{text}");
        assert!(!text.contains("redis image"), "{text}");
    }

    #[test]
    fn a_given_url_counts_only_while_something_listens_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://user:p@{}/0", listener.local_addr().unwrap());
        assert_eq!(given_url("HARNESS_REDIS_URL", &url, Portable::Redis).state, State::Degraded);
        // Nothing listens on the first port, whatever other tests open meanwhile.
        let gone = given_url("HARNESS_REDIS_URL", "redis://user:p@127.0.0.1:1/0", Portable::Redis);
        assert_eq!(gone.state, State::Missing);
        assert!(!gone.detail.contains("user:p"), "{}", gone.detail);
        assert_eq!(given_url("HARNESS_REDIS_URL", "nonsense", Portable::Redis).state, State::Missing);
    }

    #[test]
    fn exit_code_wants_both_servers() {
        let code = |postgres, redis| Diagnosis { findings: Vec::new(), postgres, redis }.exit_code();
        assert_eq!([code(true, true), code(true, false), code(false, true), code(false, false)], [0, 3, 3, 3]);
    }

    #[test]
    fn secrets_do_not_reach_the_table() {
        let check = |name, value, expected: &str| assert_eq!(masked(name, value), expected);
        check("HARNESS_POSTGRES_URL", "postgres://u:p@ss/w@h:1/d?password=x", "postgres://u:***@h:1/d");
        check("HARNESS_POSTGRES_URL", "postgres://u:p@h:1/d?password=x", "postgres://u:***@h:1/d");
        check("HARNESS_POSTGRES_URL", "postgres://h/d?user=u&password=x", "postgres://h/d");
        check("HARNESS_API_TOKEN", "abc", "***");
        check("HARNESS_SEED", "7", "7");
    }

    #[test]
    fn figures_below_what_is_wanted_or_unreadable_are_not_ok() {
        let state = |seen| at_least("memory", seen, 10, "MiB", "more").state;
        assert_eq!([state(Some(10)), state(Some(9)), state(None)], [State::Ok, State::Degraded, State::Degraded]);
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:    4096 kB\n"), Some(4));
        assert_eq!(available_mib(""), None);
    }

    #[test]
    fn the_deepest_mount_decides_the_filesystem() {
        let mounts = "none / ext4 rw 0 0\nx /run tmpfs rw 0 0\ny /run/user/7 fuse.sshfs rw 0 0\n";
        let check = |path: &str, expected| assert_eq!(filesystem_of(Path::new(path), mounts), expected, "{path}");
        check("/run/user/7/a", Some("fuse.sshfs"));
        check("/run/user/77", Some("tmpfs"));
        check("/runs", Some("ext4"));
        assert_eq!(filesystem_of(Path::new("/x"), ""), None);
    }
}
