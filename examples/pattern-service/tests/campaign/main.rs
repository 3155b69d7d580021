//! The campaign of the pattern service: phases, scenarios, release matrix, decision.
//!
//! `cargo xtask campaign` runs it to a decision and a report; `cargo test -p pattern-service --test campaign` and
//! nextest run the same scenarios without one. The environment of a scenario is built in `world.rs`.

mod benchmark;
mod cache;
mod concurrency;
mod database;
mod env;
mod preflight;
mod protocol;
mod recovery;
mod release;
mod traffic;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use harness_core::campaign::Phase;
use harness_core::slo::Threshold;

use crate::world::World;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn main() -> ExitCode {
    let campaign = release::campaign().package("pattern-service");
    match env::guard() {
        Some(guard) => campaign.guard(guard),
        None => campaign,
    }
    .environment(World::start)
    .teardown(World::stop)
    .preflight(preflight::tools())
    .preflight_of(preflight::parts)
    .phase("concurrency", minutes(15), concurrency_phase)
    .phase("websocket", minutes(10), websocket_phase)
    .phase("database", minutes(20), database_phase)
    .phase("benchmark", minutes(30), benchmark_phase)
    .phase("recovery", minutes(15), recovery_phase)
    .on_pause("logs", World::last_logs)
    .on_pause("sessions", World::busy_sessions)
    .main()
}

/// A threshold from limits as written; the campaign refuses to start if one cannot be read.
fn limit(metric: &str, requirement: &str, target: &str, critical: Option<&str>) -> Threshold {
    match Threshold::parse(metric, target, critical) {
        Ok(threshold) => threshold.requirement(requirement),
        Err(error) => panic!("{error:?}"), // a mistake in this file, found before anything starts
    }
}

fn concurrency_phase(phase: Phase<World>) -> Phase<World> {
    phase
        .scenario("A1", "fifty agents complete at once", concurrency::fifty_agents)
        .exclusive()
        .requirement("T-072")
        .criterion(limit("agents.peak_at_server", "T-072", ">= 50", None))
        .criterion(limit("agents.success", "T-072", ">= 95 %", Some(">= 90 %")))
        .expects("fifty agents start together, all are inside the service at once by its own gauge, and finish")
        .remedy("look for a lock around the request path; compare in_flight_peak in /metrics")
        .limit(minutes(1))
        .scenario("A4", "no deadlock between crossing transfers", concurrency::no_deadlock)
        .critical()
        .requirement("T-075")
        .criterion(limit("transfers.deadlocks", "T-075", "0", None))
        .criterion(limit("transfers.success", "T-075", ">= 95 %", Some(">= 90 %")))
        .expects("transfers that lock the same two rows from both sides finish without a deadlock")
        .remedy("lock rows in one canonical order; the statements are in the Postgres log kept as evidence")
        .limit(minutes(2))
        .scenario("A5", "success, mean latency and cache hits of the phase", concurrency::phase_figures)
        .exclusive()
        .requirement("T-076")
        .requirement("T-077")
        .requirement("T-078")
        .criterion(limit("concurrency.success", "T-076", ">= 95 %", Some(">= 90 %")))
        .criterion(limit("concurrency.mean", "T-077", "< 300 ms", None))
        .criterion(limit("concurrency.cache_hit", "T-078", "> 70 %", Some("> 60 %")))
        .expects("success >= 95 %, mean below 300 ms, more than 70 % of cache reads answered")
        .remedy("read the stage times in Server-Timing and the cache counters in /metrics")
        .limit(minutes(1))
}

fn websocket_phase(phase: Phase<World>) -> Phase<World> {
    phase
        .scenario("B1", "JSON-RPC and MCP rules hold over WebSocket", protocol::protocol_rules)
        .requirement("T-089")
        .criterion(limit("websocket.rules_kept", "T-089", ">= 100 %", None))
        .expects("the profile mcp-2025-11-25+welcome+batches+pattern-service is kept: framing, sessions, tools")
        .remedy("each finding names the section of the specification and the frames; the transcript is evidence")
        .limit(minutes(2))
        .scenario("B4", "sessions do not share state", protocol::session_isolation)
        .critical()
        .requirement("T-092")
        .criterion(limit("websocket.isolation_kept", "T-092", ">= 100 %", None))
        .expects("session ids are unique, and what one session sets no other can read")
        .remedy("look for state that hangs on the process instead of on the session")
        .limit(minutes(1))
        .scenario("B5", "welcome frame and agent id", protocol::welcome)
        .requirement("T-095")
        .requirement("T-094")
        .criterion(limit("websocket.welcome", "T-095", "< 500 ms", None))
        .expects("the first frame is the welcome with a session id and the decoded agent id; without one: refused")
        .remedy("compare the first frames in the transcript with the house rule")
        .limit(minutes(1))
}

fn database_phase(phase: Phase<World>) -> Phase<World> {
    phase
        .scenario("C1", "vector search with fifty queries in flight", database::vector_search)
        .critical()
        .exclusive()
        .requirement("T-098")
        .requirement("T-102")
        .requirement("T-103")
        .criterion(limit("database.queries_in_flight", "T-098", ">= 50", None))
        .criterion(limit("database.recall", "T-098", ">= 95 %", Some(">= 90 %")))
        .criterion(limit("database.vector_mean", "T-102", "< 200 ms", None))
        .criterion(limit("database.p95", "T-103", "< 500 ms", None))
        .expects("fifty searches in flight answer what the exact scan answers, on average below 200 ms")
        .remedy("check the operator, ivfflat.probes and the pool; C7 tells whether the index is used")
        .limit(minutes(1))
        .scenario("C7", "the vector index is really used", database::index_used)
        .requirement("T-105")
        .expects("the plan of the service's own statement scans the IVFFlat index and never the table")
        .remedy("ANALYZE, check enable_indexscan and the operator class; the offending node is in the message")
        .limit(minutes(1))
        .scenario("D1", "a changed pattern is seen by every instance", cache::invalidation)
        .category("cache")
        .critical()
        .requirement("T-108")
        .criterion(limit("cache.invalidation.p95", "T-108", "< 250 ms", Some("< 1 s")))
        .expects("after a write no instance serves the old version for longer than the bound")
        .remedy("look for the subscription of the instance that serves stale text, and at Redis's channel")
        .limit(minutes(1))
        .scenario("D4", "every entry of the shared tier expires", cache::expiry)
        .category("cache")
        .requirement("T-111")
        .criterion(limit("cache.expiring", "T-111", ">= 100 %", None))
        .expects("each key the service wrote has a time to live of at most a minute")
        .remedy("look for a write without PEXPIRE; the keys are listed in ttls.txt")
        .limit(minutes(1))
}

fn benchmark_phase(phase: Phase<World>) -> Phase<World> {
    phase
        .scenario("E1", "latency of the usual mix", benchmark::latency)
        .exclusive()
        .requirement("T-114")
        .requirement("T-115")
        .requirement("T-116")
        .criterion(limit("latency.p50", "T-114", "< 100 ms", None))
        .criterion(limit("latency.p95", "T-115", "< 250 ms", Some("< 500 ms")))
        .criterion(limit("latency.p99", "T-116", "< 400 ms", None))
        .expects("at 110 arrivals per second p50 < 100 ms, p95 < 250 ms, p99 < 400 ms")
        .remedy("see which stage grew in Server-Timing; look at the latency plot for the moment it began")
        .limit(minutes(2))
        .scenario("E2", "sustained throughput of the usual mix", benchmark::sustained_throughput)
        .exclusive()
        .requirement("T-117")
        .requirement("T-118")
        .criterion(limit("throughput", "T-117", ">= 100/s", Some(">= 50/s")))
        .criterion(limit("success", "T-118", ">= 95 %", Some(">= 90 %")))
        .expects("of 110 arrivals per second at least 100 are answered within the second they belong to")
        .remedy("compare due and completed in the rate plot; look at processor, sessions and the pool's size")
        .limit(minutes(2))
        .scenario("E3", "a hundred workers at once, and calm afterwards", benchmark::hundred_workers)
        .exclusive()
        .requirement("T-120")
        .criterion(limit("stress.peak_at_server", "T-120", ">= 100", None))
        .criterion(limit("stress.success", "T-120", ">= 95 %", Some(">= 90 %")))
        .criterion(limit("stress.back_after", "T-120", "< 5 s", None))
        .criterion(limit("stress.success_afterwards", "T-120", ">= 99 %", Some(">= 95 %")))
        .expects("with 100 workers the service answers, and within 5 s of their end latency is what it was before")
        .remedy("look for what the stress left behind: sessions, memory and descriptors are plotted")
        .limit(minutes(2))
        .scenario("E4", "token reduction over real traffic", benchmark::token_reduction)
        .requirement("T-126")
        .criterion(limit("tokens.overall", "T-126", ">= 40 %", Some(">= 30 %")))
        .expects("weighted by real traffic at least 40 % of the tokens are saved")
        .remedy("see the share of traffic that went to the model, and the threshold of the match")
        .limit(minutes(1))
        .scenario("E5", "each stage within its budget", benchmark::stage_budgets)
        .exclusive()
        .requirement("T-128")
        .requirement("T-129")
        .requirement("T-130")
        .requirement("T-131")
        .criterion(limit("stage.match.p50", "T-128", "< 10 ms", Some("< 10 ms")))
        .criterion(limit("stage.infrastructure.p50", "T-129", "< 50 ms", Some("< 50 ms")))
        .criterion(limit("stage.memory.p50", "T-130", "< 100 ms", Some("< 100 ms")))
        .criterion(limit("stage.hybrid.p50", "T-131", "< 200 ms", Some("< 200 ms")))
        .expects("matching below 10 ms, infrastructure below 50, memory below 100, hybrid below 200 ms")
        .remedy("bottlenecks.txt ranks the stages by their own time")
        .limit(minutes(1))
        .scenario("E6", "token reduction by class", benchmark::token_reduction_by_class)
        .requirement("T-123")
        .requirement("T-124")
        .requirement("T-125")
        .criterion(limit("tokens.infrastructure", "T-123", ">= 90 %", None).decisive())
        .criterion(limit("tokens.memory", "T-124", ">= 80 %", None))
        .criterion(limit("tokens.hybrid", "T-125", ">= 60 %", None))
        .expects("patterns use 30, 80 and 150 tokens against 400")
        .remedy("see the class whose templates grew")
        .limit(minutes(1))
        .scenario("E7", "resource ceilings, and no leak", benchmark::resource_ceilings)
        .exclusive()
        .requirement("T-119")
        .requirement("T-122")
        .requirement("T-137")
        .requirement("T-138")
        .criterion(limit("resources.cpu", "T-119", "< 80 %", None))
        .criterion(limit("resources.memory", "T-122", "< 2 GB", None))
        .criterion(limit("resources.connections", "T-137", "< 25", None))
        .criterion(limit("resources.redis_memory", "T-138", "< 1 GB", None))
        .expects("CPU below 80 %, memory below 2 GB, fewer than 25 connections, Redis below 1 GB, and nothing grows")
        .remedy("the plots show what grew and since when; `--duration 10min` shows smaller leaks")
        .limit(minutes(30))
        .scenario("E8", "cache hit rate overall", benchmark::overall_cache_hits)
        .exclusive()
        .requirement("T-127")
        .criterion(limit("cache.hit_overall", "T-127", "> 80 %", Some("> 60 %")))
        .expects("once warm, more than 80 % of cache reads are answered by a tier, by two counts")
        .remedy("compare the tiers' counters in /metrics; look at time to live and invalidations")
        .limit(minutes(1))
}

fn recovery_phase(phase: Phase<World>) -> Phase<World> {
    phase
        .scenario("F1", "database loss under load and recovery by itself", recovery::database_loss)
        .critical()
        .exclusive()
        .requirement("T-140")
        .requirement("T-144")
        .requirement("T-145")
        .requirement("T-146")
        .requirement("T-147")
        .criterion(limit("recovery.first_success", "T-147", "< 10 s", Some("< 20 s")))
        .criterion(limit("outage.answer.max", "T-140", "< 2 s", None))
        .criterion(limit("outage.typed_errors", "T-145", ">= 100 %", Some(">= 95 %")))
        .expects(
            "while Postgres is stopped every call gets a typed error in bounded time; afterwards the service \
                  recovers without a restart and no acknowledged record is missing",
        )
        .remedy("read service.log from the fault mark on; lost ids are listed with the history in the evidence")
        .limit(minutes(2))
}
