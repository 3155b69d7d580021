//! How a Postgres would be started.

use std::net::SocketAddr;
use std::path::Path;

use harness_core::keeper::Main;
use harness_core::service::{Exec, Signal};

use super::files::{self, ServerFile};
#[cfg(not(feature = "portable"))]
use super::not_compiled;
#[cfg(feature = "portable")]
use super::portable;
use super::{Recipe, cluster, container};
use crate::env::DbSettings;
#[cfg(feature = "portable")]
use crate::provider::portable::Portable;
use crate::provider::{Attempt, Provider, local};

/// Settings of a Postgres whose data nobody will miss: fast, and not durable.
pub(crate) const FAST: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
    ("max_connections", "300"),
];

/// Settings of a Postgres that keeps what it acknowledged.
pub(crate) const DURABLE: &[(&str, &str)] =
    &[("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")];

/// Settings of a careful production server: durable, PostgreSQL's own defaults stated one by one, logical decoding possible,
/// and a limit on statements, locks and forgotten transactions.
pub(crate) const PRODUCTION: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "logical"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("autovacuum", "on"),
    ("checkpoint_timeout", "5min"),
    ("checkpoint_completion_target", "0.9"),
    ("max_wal_size", "1GB"),
    ("max_connections", "100"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "1min"),
];

/// Where a container has its small disk.
pub(crate) const SMALL_DISK: &str = "/harness-disk";

/// What a Postgres shall be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// Settings; `{files}` in a value becomes the directory of the files below.
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// A server without pgvector will not do.
    pub(crate) vector: bool,
    /// Files the server reads besides its data.
    pub(crate) files: &'a [ServerFile],
    /// Servers beside it must reach it over 127.0.0.1: a container then lives in this machine's own network.
    #[cfg_attr(not(feature = "containers"), expect(dead_code, reason = "only containers lie in another network"))]
    pub(crate) reachable: bool,
    /// A disk of this size in bytes, besides the one of its data, at [`SMALL_DISK`].
    pub(crate) disk: Option<u64>,
    /// A standby of the server there, over a replication slot of this name.
    pub(crate) follows: Option<(SocketAddr, &'a str)>,
}

/// A Postgres by this provider, with these settings.
pub(crate) fn recipe(provider: Provider, settings: &[(&str, &str)], vector: bool) -> Result<Recipe, Attempt> {
    wished(provider, &Wish { settings, vector, ..Wish::default() })
}

/// A Postgres by this provider, as it is wished.
pub(crate) fn wished(provider: Provider, wish: &Wish<'_>) -> Result<Recipe, Attempt> {
    match provider {
        Provider::Container => container::postgres(wish),
        Provider::Local => {
            let places = local::postgres_places(&DbSettings::get().path);
            let found = local::postgres(&places, wish.vector).map_err(|error| Attempt::from_error(provider, &error))?;
            process(provider, &found.bin_dir, &found.version, found.has_stat_statements, wish)
        }
        Provider::Portable => from_portable(wish),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}

fn process(
    provider: Provider,
    bin_dir: &Path,
    version: &str,
    stat_statements: bool,
    wish: &Wish<'_>,
) -> Result<Recipe, Attempt> {
    if wish.disk.is_some() {
        let why = "a process has no small disk of its own: mounting one takes the rights of an administrator";
        return Err(Attempt::failed(provider, why, Some("use the provider container for tests of a full disk")));
    }
    let user = server_user();
    let mut prepare = match wish.follows {
        Some((primary, slot)) => {
            if !bin_dir.join("pg_basebackup").exists() {
                let why = format!("PostgreSQL {version} in {} has no pg_basebackup", bin_dir.display());
                return Err(Attempt::failed(provider, why, Some("install the server package of PostgreSQL")));
            }
            cluster::copy_of(bin_dir, primary, slot, user)
        }
        None => cluster::prepare(bin_dir, version, user),
    };
    prepare.extend(files::beside_data(wish.files).map(|exec| drop_to(exec, user)));
    let mut server = Exec::new(bin_dir.join("postgres")).args(["-D", "{data}", "-p", "{port}"]);
    server = server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    server =
        server.args(flags(wish.settings, stat_statements).iter().map(|word| word.replace("{files}", files::BESIDE)));
    // TERM would wait for every client to leave; a server whose keeper dies stops at once.
    server = server.stop_signal(Signal::Int).death_signal(Signal::Quit);
    let what = format!("PostgreSQL {version} in {}", bin_dir.display());
    Ok(Recipe { what, prepare, main: Main::Process(drop_to(server, user)) })
}

pub(super) fn flags(settings: &[(&str, &str)], stat_statements: bool) -> Vec<String> {
    // Room for the statements of a long run: what no longer fits is forgotten, and then nothing can be concluded.
    let preload = [("shared_preload_libraries", "pg_stat_statements"), ("pg_stat_statements.max", "20000")];
    let is_set = settings.iter().any(|(name, _)| *name == preload[0].0);
    let all = settings.iter().chain(preload.iter().filter(|_| stat_statements && !is_set));
    all.flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]).collect()
}

/// Postgres refuses to run as root: it runs as `postgres` if there is such a user, else as `nobody`.
fn server_user() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let exists = users.lines().any(|line| line.starts_with("postgres:"));
    Some(if exists { "postgres" } else { "nobody" })
}

fn drop_to(exec: Exec, user: Option<&str>) -> Exec {
    match user {
        Some(user) => exec.user(user),
        None => exec,
    }
}

#[cfg(feature = "portable")]
fn from_portable(wish: &Wish<'_>) -> Result<Recipe, Attempt> {
    if wish.settings.contains(&("ssl", "on")) {
        let remedy = "use the providers container or local for servers that speak TLS";
        return Err(Attempt::failed(Provider::Portable, "the portable PostgreSQL is built without TLS", Some(remedy)));
    }
    let found = portable(Portable::Postgres)?;
    if wish.vector && !found.has_vector {
        return Err(Attempt::failed(Provider::Portable, format!("{} has no pgvector", found.origin), None));
    }
    process(Provider::Portable, &found.bin_dir, &found.version, found.has_stat_statements, wish)
}

#[cfg(not(feature = "portable"))]
fn from_portable(_: &Wish<'_>) -> Result<Recipe, Attempt> {
    Err(not_compiled(Provider::Portable, "portable"))
}
