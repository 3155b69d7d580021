//! What must be right before a scenario runs: tools first, then the servers and the service.

use std::sync::Arc;
use std::time::Duration;

use harness_core::Outcome;
use harness_core::campaign::Probe;
use harness_core::service::{Exec, run_to_end};
use harness_db::probes::{postgres, redis};
use pattern_service::store::{POOL_BASE, POOL_OVERFLOW, pool_options};

use crate::world::{DATABASE, REDIS_INDEX, World};

const LIMIT: Duration = Duration::from_secs(2);

/// Probes of the machine, before anything is started.
pub(crate) fn tools() -> Vec<Probe> {
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
    probes
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
    let (metrics, health) = (Arc::clone(world), Arc::clone(world));
    vec![
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
