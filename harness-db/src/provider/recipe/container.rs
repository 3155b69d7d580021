//! How a server would be started in a container.

#[cfg(feature = "postgres")]
use std::net::SocketAddr;

use harness_core::keeper::Main;
use harness_core::service::ContainerSpec;

use super::files::{ServerFile, script, variables};
#[cfg(all(feature = "checks", feature = "redis"))]
use super::node::NodePlan;
#[cfg(feature = "redis")]
use super::redis;
use super::{Attempt, Provider, Recipe};
#[cfg(feature = "postgres")]
use super::{cluster::copy_words, postgres};
use crate::env::{DbSettings, variables as environment};
use crate::provider::image::Engine;
#[cfg(feature = "postgres")]
use crate::provider::image::POSTGRES_IMAGES;
#[cfg(feature = "redis")]
use crate::provider::image::REDIS_IMAGES;

/// Where the files lie in a container.
const INSIDE: &str = "/run/harness";
/// The port of a Redis.
#[cfg(feature = "redis")]
const REDIS_PORT: u16 = 6379;

/// A Postgres as it is wished.
#[cfg(feature = "postgres")]
pub(super) fn postgres(wish: &postgres::Wish<'_>) -> Result<Recipe, Attempt> {
    let (image, engine) = image(DbSettings::get().postgres_image.as_deref(), &POSTGRES_IMAGES, "postgres")?;
    let mut words = vec!["postgres".to_owned()];
    words.extend(postgres::flags(wish.settings, true).into_iter().map(|word| word.replace("{files}", INSIDE)));
    let mut spec = ContainerSpec::new(&*image, 5432).env("POSTGRES_HOST_AUTH_METHOD", "trust").shm_bytes(256 << 20);
    if let Some(bytes) = wish.disk {
        spec = spec.tmpfs(postgres::SMALL_DISK, format!("rw,size={bytes},mode=1777"));
    }
    let mut what = format!("image {image} on {engine}");
    if wish.reachable || wish.follows.is_some() {
        // A published port is reached from this machine, and not from another container: both share the machine's own
        // network instead, where they listen on 127.0.0.1 alone.
        words.extend(["-p", "{port}", "-c", "listen_addresses=127.0.0.1"].map(str::to_owned));
        (spec, what) = (spec.host_network(), what + ", in this machine's network");
    }
    if let Some((primary, slot)) = wish.follows {
        spec = spec.env("PGDATA", STANDBY);
        words = copied(primary, slot, words);
    }
    let spec = with_files(spec, wish.files, "postgres", words);
    Ok(Recipe { what, prepare: Vec::new(), main: Main::Container(spec) })
}

/// A Redis as it is wished.
#[cfg(feature = "redis")]
pub(super) fn redis(wish: &redis::Wish<'_>) -> Result<Recipe, Attempt> {
    let (image, engine) = image(DbSettings::get().redis_image.as_deref(), &REDIS_IMAGES, "redis")?;
    let mut words = vec!["redis-server".to_owned()];
    words.extend(wish.words(&REDIS_PORT.to_string(), INSIDE));
    let spec = with_files(ContainerSpec::new(&*image, REDIS_PORT), wish.files, "redis", words);
    Ok(Recipe { what: format!("image {image} on {engine}"), prepare: Vec::new(), main: Main::Container(spec) })
}

/// A node of a topology.
#[cfg(all(feature = "checks", feature = "redis"))]
pub(super) fn node(plan: &NodePlan) -> Result<Recipe, Attempt> {
    let (image, engine) = image(DbSettings::get().redis_image.as_deref(), &REDIS_IMAGES, "redis")?;
    let run = format!("{}; shift; exec redis-server \"$@\"", NodePlan::WRITE);
    let mut cmd = vec!["sh".to_owned(), "-c".to_owned(), run, plan.file.clone(), "/tmp/node.conf".to_owned()];
    cmd.extend(plan.words("7", "/tmp/node.conf", "/tmp", INSIDE));
    let spec = with_files(ContainerSpec::new(&*image, REDIS_PORT).host_network(), &plan.files, "redis", cmd);
    let what = format!("image {image} on {engine}, in this machine's network");
    Ok(Recipe { what, prepare: Vec::new(), main: Main::Container(spec) })
}

/// Where a standby in a container keeps its data: below the volume of the image, beside the cluster that may come with it.
#[cfg(feature = "postgres")]
const STANDBY: &str = "/var/lib/postgresql/data/standby";

/// What a container runs to become a standby of a running server, and later to go on as it was: it copies what
/// `pg_basebackup` copies, once, and continues with these words as its image would.
#[cfg(feature = "postgres")]
fn copied(primary: SocketAddr, slot: &str, words: Vec<String>) -> Vec<String> {
    // The copy is moved to its place when it is whole: a start that was killed copies again.
    let copy = copy_words(primary, slot, "$PGDATA.part").map(|word| format!("\"{word}\"")).join(" ");
    let script = format!(
        "set -e; if [ ! -s \"$PGDATA/PG_VERSION\" ]; then rm -rf \"$PGDATA.part\"; pg_basebackup {copy}; \
         chown -R postgres \"$PGDATA.part\"; chmod 0700 \"$PGDATA.part\"; mv \"$PGDATA.part\" \"$PGDATA\"; fi; \
         exec docker-entrypoint.sh \"$@\""
    );
    ["sh".to_owned(), "-c".to_owned(), script, "harness".to_owned()].into_iter().chain(words).collect()
}

/// A container that writes the files as this user's and goes on as its image would with these words: a mounted key would
/// belong to a user that exists only out here.
///
/// The entry points of the images (ours and the official ones) run a first word that is not their server as it is.
fn with_files(spec: ContainerSpec, files: &[ServerFile], owner: &str, words: Vec<String>) -> ContainerSpec {
    if files.is_empty() {
        return spec.cmd(words);
    }
    let spec = variables(files).fold(spec.env("HARNESS_FILES", INSIDE), |spec, (name, text)| spec.env(name, text));
    let names: Vec<String> = variables(files).map(|(name, _)| name).collect();
    let script = format!(
        "{} && chown -R {owner} \"$HARNESS_FILES\" && unset {} && exec docker-entrypoint.sh \"$@\"",
        script(files),
        names.join(" ")
    );
    spec.cmd(["sh".to_owned(), "-c".to_owned(), script, "harness".to_owned()].into_iter().chain(words))
}

/// The image to use and the engine that holds it. Only an image that is present will do: a test process never pulls.
fn image(wanted: Option<&str>, candidates: &[&str], service: &str) -> Result<(String, String), Attempt> {
    let failed = |outcome: String, remedy: &str| Attempt::failed(Provider::Container, outcome, Some(remedy));
    let engine = Engine::find(&environment())
        .map_err(|error| failed(error.to_string(), "start the engine, or go on without: the next provider is asked"))?;
    let names: Vec<&str> = wanted.map_or_else(|| candidates.to_vec(), |name| vec![name]);
    for name in &names {
        match engine.image(name) {
            Ok(Some(_)) => return Ok(((*name).to_owned(), engine.address().to_owned())),
            Ok(None) => {}
            Err(error) => return Err(failed(error.to_string(), "look whether the engine is well")),
        }
    }
    let remedy = match wanted {
        Some(name) => format!("docker pull {name}"),
        None => format!("harness provision --only {service}"),
    };
    Err(failed(format!("no image of {} is present", names.join(", ")), &remedy))
}
