//! What must be right before a scenario runs: tools and the repository first, then the servers and the service.
//!
//! What was not looked at is no evidence. Probes of the repository and of the machine's ports only advise, as long as nothing is
//! to be released: with `TMWS_RELEASE_TAG` they must have their evidence, and the tag has to name what is tested.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness_core::campaign::Probe;
use harness_core::monitor::LogFigures;
use harness_core::probes::packages::{Advisory, check, from_dpkg, from_lock};
use harness_core::probes::repository::{Revision, checked, locked, tagged};
use harness_core::probes::{documents, ports, source};
use harness_core::service::{Exec, Service, run_to_end};
use harness_core::{CoreResult, Outcome};
use harness_db::Provider;
use harness_db::probes::{postgres, redis};
use pattern_service::patterns::Library;
use pattern_service::store::{POOL_BASE, POOL_OVERFLOW, pool_options};
use serde::Deserialize;

use crate::world::{DATABASE, REDIS_INDEX, World};

const LIMIT: Duration = Duration::from_secs(2);

/// Documents that have to be there, from the root of the workspace.
const DOCUMENTS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"];
/// Where the package is, and the root of its workspace.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Probes of the machine, before anything is started.
pub(crate) fn tools() -> Vec<Probe> {
    let mut probes = toolchain();
    probes.extend(repository().into_iter().map(advisory_until_release));
    probes
}

/// A probe whose missing evidence stops a release and nothing else.
fn advisory_until_release(probe: Probe) -> Probe {
    let probe = probe.limit(Duration::from_secs(4));
    if crate::env::release_tag().is_some() { probe } else { probe.advisory() }
}

/// Probes of what the service is built from, and of what was checked of it before.
fn repository() -> Vec<Probe> {
    let passed = |name: &str, requirement: &str, record: &'static str, verb: &str| {
        let path = records().join(format!("{record}.json"));
        Probe::new(name, async move || checked(&path, &Revision::of(Path::new(ROOT))))
            .requirement(requirement)
            .remedy(format!("commit, then {verb}"))
    };
    vec![
        Probe::new("documents are there and their links resolve", async || {
            documents::documents(Path::new(ROOT), &DOCUMENTS)
        })
        .requirement("T-003")
        .remedy("correct the links named"),
        passed("tests passed before", "T-036", "tests", "cargo xtask test"),
        passed("lints are clean", "T-040", "lints", "cargo xtask tidy"),
        passed("types are sound", "T-041", "types", "cargo xtask test"),
        Probe::new("the static scan finds nothing grave", async || source::scanned(&Path::new(PACKAGE).join("src")))
            .requirement("T-042")
            .remedy("look at the lines named"),
        Probe::new("no dependency with a known vulnerability", async || {
            forbidden(&Path::new(ROOT).join("Cargo.lock"), from_lock, |forbidden| forbidden.crates)
        })
        .requirement("T-052")
        .remedy("cargo update the packages named; the list is forbidden.json"),
        passed(
            "dependencies were scanned by cargo-deny",
            "T-053",
            "dependencies",
            "cargo install cargo-deny, and cargo xtask tidy",
        ),
        Probe::new("the release's tag is what is tested", async || match crate::env::release_tag() {
            Some(tag) => tagged(Path::new(ROOT), &tag),
            None => Outcome::not_applicable("nothing is to be released: TMWS_RELEASE_TAG is not set"),
        })
        .requirement("T-181")
        .remedy("commit, and tag that commit"),
    ]
}

/// Where `cargo xtask` keeps what passed.
fn records() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("checks")
}

/// Packages and versions that must not be used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forbidden {
    crates: Vec<Advisory>,
    images: Vec<Advisory>,
}

/// Holds the packages of a file against a part of the list.
fn forbidden(
    path: &Path,
    read: fn(&str) -> Vec<harness_core::probes::packages::Package>,
    part: fn(Forbidden) -> Vec<Advisory>,
) -> Outcome {
    let list = match serde_json::from_str::<Forbidden>(include_str!("../../forbidden.json")) {
        Ok(list) => part(list),
        Err(error) => return Outcome::fail(format!("forbidden.json: {error}")),
    };
    match std::fs::read_to_string(path) {
        Ok(text) => check(&read(&text), &list),
        Err(error) => Outcome::no_evidence(format!("{}: {error}", path.display())),
    }
}

fn toolchain() -> Vec<Probe> {
    vec![
        Probe::new("Rust toolchain", async || tool("cargo").await)
            .requirement("T-070")
            .remedy("install Rust with rustup"),
        Probe::new("the service is built", async || match std::fs::metadata(env!("CARGO_BIN_EXE_pattern-service")) {
            Ok(file) => Outcome::pass(format!("{} MiB", file.len() >> 20)),
            Err(error) => Outcome::fail(error.to_string()),
        })
        .requirement("T-070")
        .remedy("cargo build -p pattern-service"),
        Probe::new("settings of the environment", async || match harness_core::env::Settings::get().validate() {
            Ok(()) => Outcome::pass("every HARNESS_ variable that is set can be read"),
            Err(error) => Outcome::fail(format!("{error:?}")),
        })
        .requirement("T-065")
        .remedy("correct or unset the variables named"),
    ]
}

/// Probes of the servers and the service, once they are there.
pub(crate) fn parts(world: &Arc<World>) -> Vec<Probe> {
    let mut probes = postgres_probes(world);
    probes.extend(redis_probes(world));
    probes.extend(service_probes(world));
    probes.extend(machine_probes(world).into_iter().map(advisory_until_release));
    probes
}

/// Probes of the machine: its dependencies, and ports, images and logs as far as they are ours.
fn machine_probes(world: &Arc<World>) -> Vec<Probe> {
    let probe = |name: &str, requirement: &str, body: fn(Arc<World>) -> Answer| {
        let world = Arc::clone(world);
        Probe::new(name, async move || body(Arc::clone(&world)).await).requirement(requirement)
    };
    vec![
        // It takes as long as the pool's, and so costs nothing beside it.
        Probe::new("dependencies can be had as locked", async || locked(Path::new(ROOT)))
            .requirement("T-037")
            .remedy("cargo fetch --locked; commit Cargo.lock with the manifests; end other cargos"),
        probe("the service opens its declared port alone", "T-046", |world| {
            Box::pin(async move { or_no_evidence(declared_ports(&world).await) })
        })
        .remedy("look for a listener that nobody declared"),
        probe("servers are reached from this machine alone", "T-047", |world| {
            Box::pin(async move { or_no_evidence(local_ports(&world)) })
        })
        .remedy("bind and publish on 127.0.0.1"),
        probe("images carry no forbidden package", "T-054", |world| {
            Box::pin(async move { or_no_evidence(images(&world).await) })
        })
        .remedy("harness provision builds them anew; the list is forbidden.json"),
        probe("figures can be read out of the log", "T-148", |world| {
            Box::pin(async move { or_no_evidence(log_figures(&world).await) })
        })
        .remedy("look at the lines named"),
    ]
}

fn or_no_evidence(looked: CoreResult<Outcome>) -> Outcome {
    looked.unwrap_or_else(|error| Outcome::no_evidence(error.to_string()))
}

async fn declared_ports(world: &World) -> CoreResult<Outcome> {
    let service = world.service()?;
    match service.process().await? {
        Some(process) => Ok(ports::only_declared(&ports::of_process(process)?, &[service.address()])),
        None => Ok(Outcome::no_evidence("the service does not run")),
    }
}

fn local_ports(world: &World) -> CoreResult<Outcome> {
    let servers = [world.postgres()?.address(), world.redis()?.address(), world.service()?.address()];
    let mut outcome = Outcome::not_applicable("there is no server");
    let mut open = Vec::new();
    for server in servers {
        let found = ports::at_port(server.port())?;
        outcome = outcome.worse(ports::only_local(&found));
        open.extend(found);
    }
    // One outcome says all addresses, unless one of the servers says something worse.
    Ok(if outcome.is_pass() { ports::only_local(&open) } else { outcome })
}

/// What is installed in the images, read from the containers that run.
async fn images(world: &World) -> CoreResult<Outcome> {
    let (postgres, redis) = (world.postgres()?, world.redis()?);
    let servers: [(&Service, Provider); 2] =
        [(postgres.service(), postgres.choice().provider), (redis.service(), redis.choice().provider)];
    let mut outcome = Outcome::not_applicable("no server runs in a container");
    for (server, _) in servers.into_iter().filter(|(_, provider)| *provider == Provider::Container) {
        let installed = match server.process().await? {
            Some(process) => {
                let path = format!("/proc/{}/root/var/lib/dpkg/status", process.pid);
                forbidden(Path::new(&path), from_dpkg, |forbidden| forbidden.images)
            }
            None => Outcome::no_evidence(format!("{} is a container elsewhere", server.name())),
        };
        outcome = outcome.worse(installed);
    }
    Ok(outcome)
}

/// How many requests the service's log tells of and how long they took; a line that is no line of it is said.
async fn log_figures(world: &World) -> CoreResult<Outcome> {
    world.http.get("/v1/patterns").await?.expect_status(200)?;
    let log = world.service()?.log().map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    // Where it listens is said on standard output, which is kept in the same file.
    let log: Vec<_> = log.lines().filter(|line| !line.starts_with("listening on ")).collect();
    let figures = LogFigures::new("ts=").figure("requests", "request * in # ms").count("errors", "level=ERROR");
    let found = figures.read(&log.join("\n"));
    let (requests, errors) = (found.values["requests"].len(), found.counts["errors"]);
    let slowest = found.values["requests"].iter().copied().fold(0.0, f64::max);
    let said = format!("{requests} requests, the slowest {slowest:.1} ms, {errors} errors in {} lines", found.lines);
    Ok(match found.malformed.first() {
        Some((_, line)) => Outcome::degraded(format!("{said}; {} malformed, first: {line}", found.malformed.len())),
        None if requests == 0 => Outcome::fail(format!("the request that was made is not there: {said}")),
        None => Outcome::pass(said),
    })
}

fn postgres_probes(world: &Arc<World>) -> Vec<Probe> {
    let url = world.urls.database.clone();
    let probe = |name: &str, requirement: &str, body: fn(String) -> Answer| {
        let url = url.clone();
        Probe::new(name, async move || body(url.clone()).await).requirement(requirement)
    };
    vec![
        probe("Postgres answers SELECT 1", "T-067", |url| {
            Box::pin(async move { postgres::answers(&url, LIMIT).await })
        })
        .remedy("harness doctor"),
        probe("Postgres is 15 or later", "T-017", |url| Box::pin(async move { postgres::version(&url).await }))
            .remedy("set HARNESS_POSTGRES_IMAGE to a later one"),
        probe("pgvector in the test database", "T-068", |url| Box::pin(async move { postgres::vector(&url).await }))
            .remedy("create extension vector"),
        probe("the database is the test database", "T-019", |url| {
            Box::pin(async move { postgres::test_database(&url, DATABASE).await })
        })
        .remedy("point TMWS_DATABASE_URL at it"),
        probe("IVFFlat index on every vector column", "T-021", |url| {
            Box::pin(
                async move { postgres::vector_indexes(&url, "ivfflat", &[("pattern_vectors", "embedding")]).await },
            )
        })
        .remedy("the service creates it when it starts; see its log"),
        probe("pool of 10 and 20 more", "T-020", |url| Box::pin(async move { pool(&url).await }))
            .limit(Duration::from_secs(8))
            .remedy("compare POOL_BASE and POOL_OVERFLOW with the pool's settings"),
        probe("sessions can be sampled", "T-030", |url| Box::pin(async move { sessions(&url).await }))
            .remedy("grant pg_read_all_stats to the role"),
        probe("statements are counted", "T-030", |url| Box::pin(async move { statements(&url).await }))
            .remedy("preload pg_stat_statements"),
    ]
}

fn redis_probes(world: &Arc<World>) -> Vec<Probe> {
    let (url, portable) = (world.urls.redis.clone(), world.urls.redis_is_portable);
    let probe = |name: &str, requirement: &str, body: fn(String) -> Answer| {
        let url = url.clone();
        Probe::new(name, async move || body(url.clone()).await).requirement(requirement)
    };
    let version_url = url.clone();
    vec![
        probe("Redis answers PING", "T-069", |url| Box::pin(async move { redis::answers(&url, LIMIT).await }))
            .remedy("harness doctor"),
        Probe::new("Redis is 7 or later", async move || redis::version(&version_url, portable).await)
            .requirement("T-023")
            .remedy("set HARNESS_REDIS_IMAGE to a later one"),
        probe("tests use logical database 1", "T-024", |url| {
            Box::pin(async move { redis::index(&url, REDIS_INDEX.into()) })
        })
        .remedy("end TMWS_REDIS_URL with /1"),
        probe("eviction is allkeys-lru", "T-025", |url| {
            Box::pin(async move { redis::eviction(&url, "allkeys-lru").await })
        })
        .remedy("maxmemory-policy allkeys-lru"),
        probe("memory ceiling is 1 GB", "T-026", |url| {
            Box::pin(async move { redis::max_memory(&url, redis::GIBIBYTE).await })
        })
        .remedy("maxmemory 1gb"),
    ]
}

fn service_probes(world: &Arc<World>) -> Vec<Probe> {
    let (metrics, health, library) = (Arc::clone(world), Arc::clone(world), Arc::clone(world));
    vec![
        Probe::new("every pattern is loaded", async move || loaded(&library).await)
            .requirement("T-033")
            .remedy("correct the definition named, and build the service anew"),
        Probe::new("the service is healthy", async move || match health.http.get("/health").await {
            Ok(answer) => match answer.at::<String>("/status") {
                Ok(status) if status == "ok" => Outcome::pass("status ok"),
                Ok(status) => Outcome::fail(format!("status {status}: {}", answer.text().unwrap_or_default())),
                Err(error) => Outcome::fail(format!("{error:?}")),
            },
            Err(error) => Outcome::fail(format!("{error:?}")),
        })
        .requirement("T-032")
        .remedy("see the service's log"),
        Probe::new("the metrics endpoint answers", async move || {
            const FAMILIES: [&str; 5] =
                ["requests_total", "in_flight_peak", "cache_hits_total", "pool_size", "tokens_used_total"];
            // A family appears with its first sample.
            if let Err(error) = metrics.http.get("/v1/patterns/disk-usage").await {
                return Outcome::fail(format!("{error:?}"));
            }
            match metrics.http.scrape("/metrics").await.and_then(|page| page.require(&FAMILIES)) {
                Ok(()) => Outcome::pass(format!("{} families", FAMILIES.len())),
                Err(error) => Outcome::fail(format!("{error:?}")),
            }
        })
        .requirement("T-029")
        .remedy("the missing family is named"),
    ]
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Outcome>>>;

/// The patterns the service has, against their definitions on disk.
async fn loaded(world: &World) -> Outcome {
    let library = match Library::load(Some(&Path::new(PACKAGE).join("data/patterns.json"))) {
        Ok(library) => library,
        Err(error) => return Outcome::fail(error.to_string()),
    };
    let names = async { world.http.get("/v1/patterns").await?.expect_status(200)?.at::<Vec<String>>("/patterns") };
    match names.await.map(|names| library.compare(&names)) {
        Ok(Ok(count)) => Outcome::pass(format!("{count} patterns")),
        Ok(Err(difference)) => Outcome::fail(difference),
        Err(error) => Outcome::fail(format!("{error:?}")),
    }
}

async fn tool(program: &'static str) -> Outcome {
    let asked = tokio::task::spawn_blocking(move || run_to_end(&Exec::new(program).arg("--version"), LIMIT)).await;
    match asked {
        Ok(Ok(finished)) if finished.is_success() => Outcome::pass(finished.stdout.trim()),
        Ok(Ok(finished)) => Outcome::fail(format!("{program} --version: {finished:?}")),
        Ok(Err(error)) => Outcome::fail(format!("{error:?}")),
        Err(error) => Outcome::no_evidence(error.to_string()),
    }
}

async fn pool(url: &str) -> Outcome {
    let settle = Duration::from_secs(4);
    let options = pool_options().idle_timeout(Duration::from_millis(250));
    match options.connect(url).await {
        Ok(pool) => {
            let outcome = postgres::pool(&pool, POOL_BASE, POOL_BASE + POOL_OVERFLOW, settle).await;
            pool.close().await;
            outcome
        }
        Err(error) => Outcome::fail(error.to_string()),
    }
}

async fn sessions(url: &str) -> Outcome {
    let sample = async { harness_db::observe(url).await?.sessions().sample().await };
    match sample.await {
        Ok(point) if point.total > 0 => Outcome::pass(format!("{} sessions", point.total)),
        Ok(_) => Outcome::no_evidence("the sampler saw no session, not even the service's"),
        Err(error) => Outcome::fail(format!("{error:?}")),
    }
}

/// Statement statistics are wanted, not needed: no scenario of this campaign reads them.
async fn statements(url: &str) -> Outcome {
    match postgres::statement_statistics(url).await {
        outcome @ Outcome::Pass { .. } => outcome,
        other => Outcome::degraded(format!("figures by statement will have no evidence: {}", other.detail())),
    }
}
