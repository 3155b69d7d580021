//! A campaign in memory with planted defects (`--plant`) and malformed variants (`HARNESS_DEMO`).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use harness_core::campaign::{Campaign, Guard, Phase, Probe, Profile, Scenario, Setup};
use harness_core::record::FindingKind;
use harness_core::slo::{Limit, Measured, Policy, ReleaseRow, Threshold, Unit, percent};
use harness_core::wait::pause;
use harness_core::{CoreResult, DataVerdict, Error, ErrorKind, Outcome, Result};
use tokio::sync::Barrier;

/// What the scenarios share.
pub(crate) struct World {
    plants: Vec<String>,
    tries: AtomicU32,
}

impl World {
    fn has(&self, plant: &str) -> bool {
        self.plants.iter().any(|own| own == plant)
    }
}

type Cx = Scenario<World>;

async fn build(setup: &Setup) -> CoreResult<World> {
    if variant("environment-fails") {
        return Err(Error::new(ErrorKind::Environment, "no engine answers").remedy("start one"));
    }
    setup.choice("store: memory, nothing else is needed");
    Ok(World { plants: setup.plants().to_vec(), tries: AtomicU32::new(0) })
}

async fn fifty_agents(cx: &mut Cx) -> Result {
    let ok = if cx.context().has("failing") {
        44
    } else if cx.context().has("degraded") {
        46
    } else {
        50
    };
    cx.criterion(Threshold::parse("concurrency success", ">= 95%", Some(">= 90%"))?, Measured::share(ok, 50));
    let slow = if cx.context().has("slow-tail") { 600 } else { 120 };
    let nanos: Vec<u64> = (0..600).map(|n| if n % 12 == 0 { slow } else { 100 } * 1_000_000).collect();
    cx.durations("execute", &nanos);
    Ok(())
}

async fn counts_exactly(cx: &mut Cx) -> Result {
    let deadlocks = u64::from(cx.context().has("deadlock"));
    cx.step("look", async { CoreResult::Ok(()) }).await?;
    if !cx.context().has("silent-metric") {
        cx.metric("deadlocks", Measured::count(deadlocks));
    }
    cx.check("sum", Outcome::pass("50 of 50 rows"));
    Ok(())
}

/// A verdict about a hundred orders.
struct Ledger {
    is_damaged: bool,
}

impl DataVerdict for Ledger {
    fn outcome(&self) -> Outcome {
        if self.is_damaged { Outcome::fail("corrupted: order 7") } else { Outcome::pass("100 acknowledged, 100 found") }
    }

    fn is_corruption(&self) -> bool {
        self.is_damaged
    }
}

async fn loses_nothing(cx: &mut Cx) -> Result {
    if cx.context().has("checks-nothing") {
        return Ok(());
    }
    cx.evidence("history.jsonl", format!("{{\"seed\":{}}}\n", cx.random("orders").next_u64()))?;
    if cx.context().has("data-loss") {
        cx.finding(FindingKind::DataLoss, "order 1043 was acknowledged and is gone");
    }
    cx.verdict("ledger", &Ledger { is_damaged: cx.context().has("corruption") });
    Ok(())
}

async fn database_loss(cx: &mut Cx) -> Result {
    let world = cx.shared();
    cx.check("recovered", Outcome::pass("after 2.3 s"));
    if world.has("panic") {
        panic!("the order of service is broken");
    }
    if world.has("hang") {
        let mut importer = cx.parties().join("importer");
        importer.at("waiting for the lock of 7");
        std::future::pending::<()>().await;
    }
    if world.has("killed") && !std::path::Path::new(&std::env::var("HARNESS_DEMO_MARK").unwrap_or_default()).exists() {
        std::process::abort();
    }
    if world.has("reads-stdin") {
        let mut reader = cx.parties().join("reader");
        reader.at("asking a person");
        // A person would answer; nobody is there.
        loop {
            std::thread::park();
        }
    }
    if world.has("asks-stdin") {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line)?;
        cx.check("answer", if read == 0 { Outcome::fail("nobody answered") } else { Outcome::pass(line) });
    }
    if world.has("lost-orders") {
        return Err(Error::new(ErrorKind::Assertion, "3 acknowledged orders are missing after recovery")
            .tried("read back through postgres://app:hunter2@127.0.0.1/demo_test")
            .log(["commit failed: server closed the connection"])
            .into());
    }
    if world.has("no-engine") {
        return Err(Error::new(ErrorKind::Environment, "skipped: no container engine").into());
    }
    Ok(())
}

async fn load(cx: &mut Cx) -> Result {
    let tries = cx.context().tries.fetch_add(1, Ordering::Relaxed);
    if cx.context().has("invalid") || (cx.context().has("invalid-once") && tries == 0) {
        return Err(Error::new(ErrorKind::NoEvidence, "invalid: the generator was the limit").into());
    }
    if cx.context().has("overrun") {
        pause(Duration::from_millis(1_200)).await;
    }
    cx.metric("throughput", Measured::Value { value: 105.0, unit: Unit::PerSecond, samples: 3_150 });
    cx.check("load", Outcome::pass("3150 requests"));
    Ok(())
}

/// Where the twelve parts meet in the variant `meet`.
static ALL: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(12));

async fn bulk(cx: &mut Cx) -> Result {
    if variant("meet") {
        let met = tokio::time::timeout(Duration::from_millis(500), ALL.wait()).await.is_ok();
        cx.check("all at once", if met { Outcome::pass("12") } else { Outcome::fail("nobody came") });
    }
    let failing: usize = if cx.context().has("two-fail") { 2 } else { usize::from(cx.context().has("one-fails")) };
    let bad = (1..=failing).any(|n| cx.id() == format!("P{n}"));
    cx.check("bulk", if bad { Outcome::fail("planted") } else { Outcome::pass("1") });
    Ok(())
}

fn variant(name: &str) -> bool {
    std::env::var("HARNESS_DEMO").is_ok_and(|value| value == name)
}

fn told(phase: Phase<World>) -> Phase<World> {
    phase.expects("it holds").remedy("read the evidence")
}

fn rows() -> [ReleaseRow; 5] {
    let row = |name: &str, metric: &str, target: &str, critical| {
        ReleaseRow::metric(name, Threshold::parse(metric, target, critical).expect("limits are well formed"))
    };
    [
        row("Success", ReleaseRow::SCENARIO_SUCCESS, ">= 95%", Some(">= 90%")),
        row("P95", "execute.p95", "< 250 ms", Some("< 500 ms")).critical().requirement("R-1"),
        row("Throughput", "throughput", ">= 100 RPS", Some(">= 50 RPS")),
        ReleaseRow::category("Recovery", "recovery").critical(),
        ReleaseRow::not_in_scope("Soak", "needs a night").requirement("R-9"),
    ]
}

fn probes() -> [Probe; 3] {
    let redis = Probe::new("redis", async || match () {
        () if variant("probe-down") => Outcome::fail("redis://:hunter2@127.0.0.1:6379/1 refused the connection"),
        () if variant("probe-hangs") => std::future::pending().await,
        () if variant("probe-degraded") => Outcome::degraded("6.2, 7 is wanted"),
        () if variant("probe-advises") => Outcome::no_evidence("nobody asked"),
        () => Outcome::pass("7.0"),
    });
    let redis = redis.limit(Duration::from_millis(300)).remedy("start redis");
    [
        Probe::new("memory", async || Outcome::pass("there is some")),
        if variant("probe-advises") { redis.advisory() } else { redis },
        Probe::new("clock", async || Outcome::pass("ticks")),
    ]
}

/// The campaign.
pub(crate) fn campaign() -> Campaign<World> {
    let minute = Duration::from_mins(1);
    let marker = if variant("production") { "production" } else { "testing" };
    let mut campaign = Campaign::new("demo 1.0")
        .package("harness-core")
        .guard(Guard::new().environment("DEMO_ENVIRONMENT", Some(marker)).url("store", "http://127.0.0.1/"))
        .preflight(probes())
        .roles([("Hera", "strategy"), ("Muses", "documents")])
        .approvers(["Hera", "Artemis", "Hestia", "Athena"])
        .policy(Policy::new(Limit::at_least(percent(95)), Limit::at_least(percent(90))))
        .matrix(rows())
        .environment(build)
        .teardown(async |_: &World| println!("demo torn down"))
        .on_pause("service.log", async |_: &World| "error: marker line".to_owned());
    if variant("empty") {
        return campaign;
    }
    campaign = campaign
        .phase("concurrency", minute, |p| {
            let p = told(p.scenario("A1", "fifty agents", fifty_agents)).critical().requirement("R-1");
            let p = told(p.scenario("A2", "counts exactly", counts_exactly));
            let p = p.criterion(Threshold::parse("deadlocks", "0", None).expect("well formed"));
            told(p.scenario("A3", "loses nothing", loses_nothing)).tag("data")
        })
        .phase("recovery", minute, |p| {
            let p = told(p.scenario("F1", "database loss", database_loss)).limit(Duration::from_millis(500)).critical();
            let p = p.tag("data").tag("fault");
            let p = told(p.scenario("F2", "load", load)).exclusive().category("load test");
            p.criterion(Threshold::parse("throughput", ">= 100 RPS", None).expect("well formed"))
        });
    if variant("tight") {
        campaign = campaign.phase("tight", Duration::from_millis(500), |p| {
            let p = told(p.scenario("T1", "slow", load));
            told(p.scenario("T2", "after", bulk))
        });
    }
    campaign = campaign.phase("bulk", minute, |p| {
        (1..=12).fold(p, |p, n| told(p.scenario(&format!("P{n}"), &format!("part {n}"), bulk)).aside())
    });
    if variant("profiles") || variant("meet") {
        let ids =
            ["A1", "A2", "A3", "F1", "F2"].map(str::to_owned).into_iter().chain((1..=12).map(|n| format!("P{n}")));
        let ids: Vec<_> = ids.collect();
        let profile = |name: &str, each| {
            let times = ids.iter().map(|id| (id.as_str(), Duration::from_millis(each)));
            Profile::new(name, "as it says").within(Duration::from_millis(each)).takes(times)
        };
        campaign = campaign.profile(profile("default", 60_000)).profile(profile("hasty", 1).side_by_side());
    }
    if variant("malformed") {
        campaign = campaign.expects_scenarios(99).plan_file("tests/demo/no-such-plan.md").phase("bulk", minute, |p| {
            let p = told(p.critical().scenario("A1", "again", bulk));
            p.scenario("x y", "", bulk)
        });
    }
    campaign
}
