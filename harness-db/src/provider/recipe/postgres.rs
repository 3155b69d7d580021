//! How a Postgres would be started.

use std::path::Path;

use harness_core::keeper::Main;
use harness_core::service::{ContainerSpec, Exec, Signal};

#[cfg(not(feature = "portable"))]
use super::not_compiled;
#[cfg(feature = "portable")]
use super::portable;
use super::{Recipe, cluster, image};
use crate::env::DbSettings;
use crate::provider::image::POSTGRES_IMAGES;
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

/// A Postgres by this provider, with these settings.
pub(crate) fn recipe(provider: Provider, settings: &[(&str, &str)], vector: bool) -> Result<Recipe, Attempt> {
    let failed = |error: &harness_core::Error| Attempt::from_error(provider, error);
    match provider {
        Provider::Container => {
            let (image, engine) = image(DbSettings::get().postgres_image.as_deref(), &POSTGRES_IMAGES, "postgres")?;
            let mut words = vec!["postgres".to_owned()];
            words.extend(flags(settings, true));
            let spec = ContainerSpec::new(&*image, 5432)
                .env("POSTGRES_HOST_AUTH_METHOD", "trust")
                .cmd(words)
                .shm_bytes(256 << 20);
            Ok(Recipe { what: format!("image {image} on {engine}"), prepare: Vec::new(), main: Main::Container(spec) })
        }
        Provider::Local => {
            let places = local::postgres_places(&DbSettings::get().path);
            let found = local::postgres(&places, vector).map_err(|error| failed(&error))?;
            Ok(process(&found.bin_dir, &found.version, found.has_stat_statements, settings))
        }
        Provider::Portable => from_portable(settings, vector),
        Provider::Url | Provider::Shared => Err(Attempt::failed(provider, "starts nothing", None)),
    }
}

fn process(bin_dir: &Path, version: &str, stat_statements: bool, settings: &[(&str, &str)]) -> Recipe {
    let mut server = Exec::new(bin_dir.join("postgres")).args(["-D", "{data}", "-p", "{port}"]);
    server = server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    server = server.args(flags(settings, stat_statements));
    // TERM would wait for every client to leave; a server whose keeper dies stops at once.
    server = server.stop_signal(Signal::Int).death_signal(Signal::Quit);
    let user = server_user();
    Recipe {
        what: format!("PostgreSQL {version} in {}", bin_dir.display()),
        prepare: cluster::prepare(bin_dir, version, user),
        main: Main::Process(drop_to(server, user)),
    }
}

fn flags(settings: &[(&str, &str)], stat_statements: bool) -> Vec<String> {
    let preload = [("shared_preload_libraries", "pg_stat_statements")];
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
fn from_portable(settings: &[(&str, &str)], vector: bool) -> Result<Recipe, Attempt> {
    let found = portable(Portable::Postgres)?;
    if vector && !found.has_vector {
        return Err(Attempt::failed(Provider::Portable, format!("{} has no pgvector", found.origin), None));
    }
    let version = &found.version;
    Ok(process(&found.bin_dir, version, found.has_stat_statements, settings))
}

#[cfg(not(feature = "portable"))]
fn from_portable(_: &[(&str, &str)], _: bool) -> Result<Recipe, Attempt> {
    Err(not_compiled())
}
