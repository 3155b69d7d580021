//! The roll-out as verified steps over two releases of the service: shares first, then real instances on one database.

use std::net::SocketAddr;
use std::time::Duration;

use harness_core::changeover::{Router, Stage, SwitchProbe};
use harness_core::client::Http;
use harness_core::scope::{Census, TestScope};
use harness_core::service::{Backend, Exec, Service, ServiceSpec};
use harness_core::slo::{Measured, Threshold};
use harness_core::wait::{Progress, pause};
use harness_core::{CoreResult, Outcome};
use harness_db::{OwnOptions, OwnPostgres, OwnRedis, RedisOptions};
use pattern_service::rollout::{Refused, STEPS, Split};
use serde_json::json;

fn agents(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|n| format!("agent-{n:05}"))
}

/// How far a share of 10,000 may lie from `percent`, at four standard deviations of a binomial.
fn is_within(found: usize, percent: f64) -> bool {
    let (n, p) = (10_000.0, percent / 100.0);
    (found as f64 - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt()
}

fn at(share: u8) -> Split {
    let mut split = Split::default();
    for step in STEPS.into_iter().filter(|step| (1..=share).contains(step)) {
        split.step(step, Ok(())).unwrap();
    }
    split
}

#[test]
fn share_is_what_was_set_and_agents_stay_where_they_are() {
    let on = |split: &Split| agents(10_000).filter(|agent| split.takes_new(agent)).collect::<Vec<_>>();
    let (ten, half) = (on(&at(10)), on(&at(50)));
    assert!(is_within(ten.len(), 10.0), "{}", ten.len());
    assert!(is_within(half.len(), 50.0), "{}", half.len());
    assert!(!is_within(half.len(), 10.0) && !is_within(2_000, 10.0), "20 % would be noticed");
    assert_eq!(on(&at(10)), ten, "asked again, the same agents");
    assert!(ten.iter().all(|agent| half.contains(agent)), "who has moved does not move back when the share grows");
    assert_eq!((on(&at(0)).len(), on(&at(100)).len()), (0, 10_000));
}

#[test]
fn share_moves_in_steps_and_a_jump_is_refused() {
    let mut split = Split::default();
    assert_eq!(split.step(100, Ok(())), Err(Refused::Jump(0, 100, 10)));
    split.step(10, Ok(())).unwrap();
    let red = split.step(50, Err("95th percentile 300 ms".to_owned())).unwrap_err();
    assert_eq!(red.to_string(), "10 % is not proven: 95th percentile 300 ms");
    assert_eq!(split.share(), 10, "a refused step changes nothing");
    split.step(50, Ok(())).unwrap();
    split.step(100, Ok(())).unwrap();
    assert_eq!(split.step(100, Ok(())), Err(Refused::Done));
    split.roll_back();
    assert_eq!(split.share(), 0);
}

#[test]
fn outsiders_stay_with_the_old_release_until_the_flag_is_open() {
    let mut split = Split::closed(["agent-00007".to_owned()]);
    let on: Vec<_> = agents(1_000).filter(|agent| split.takes_new(agent)).collect();
    assert_eq!(on, ["agent-00007"], "insiders alone");
    split.roll_back();
    assert!(!split.takes_new("agent-00007"), "back means everybody");
}

/// A release that runs.
struct Release {
    http: Http,
    service: Service,
}

/// The servers that both releases use.
struct Servers {
    postgres: OwnPostgres,
    redis: OwnRedis,
    database: String,
}

impl Servers {
    async fn start(scope: &TestScope) -> CoreResult<Self> {
        let (postgres, redis) = tokio::try_join!(
            OwnPostgres::start(scope, OwnOptions::new().vector()),
            OwnRedis::start(scope, RedisOptions::new()),
        )?;
        let database = postgres.create_database("tmws_test").await?;
        Ok(Self { postgres, redis, database })
    }

    async fn release(&self, scope: &TestScope, release: &str, plant: &str) -> CoreResult<Release> {
        let exec = Exec::new(env!("CARGO_BIN_EXE_pattern-service"))
            .args(["--listen", "127.0.0.1:{port}"])
            .env("TMWS_ENVIRONMENT", "testing")
            .env("TMWS_DATABASE_URL", &self.database)
            .env("TMWS_REDIS_URL", format!("redis://{}/1", self.redis.address()))
            .env("TMWS_RELEASE", release)
            .env("HARNESS_PLANT", plant);
        let service = ServiceSpec::new(format!("release-{release}"), Backend::Process(exec))
            .ready(async |at| match healthy(&format!("http://{}", at.address)).await {
                Ok(()) => Progress::Ready(()),
                Err(error) => Progress::NotYet(error.to_string()),
            })
            .start(scope)
            .await?;
        Ok(Release { http: Http::new(format!("http://{}", service.address()))?, service })
    }
}

async fn healthy(base: &str) -> CoreResult {
    Http::new(base)?.get("/health").await?.expect_status(200).map(drop)
}

/// The short subset: the release is the one that was meant, healthy, and serves a pattern, a record and a query.
async fn smoke(on: &Release, release: &str) -> CoreResult<Outcome> {
    let version: String = on.http.get("/version").await?.expect_status(200)?.at("/version")?;
    if version != release {
        return Ok(Outcome::fail(format!("release {version} answers instead of {release}")));
    }
    let status: String = on.http.get("/health").await?.expect_status(200)?.at("/status")?;
    on.http.get("/v1/patterns/disk-usage").await?.expect_status(200)?;
    on.http.post("/v1/search", &json!({"query": "show the disk usage", "k": 3})).await?.expect_status(200)?;
    Ok(if status == "ok" { Outcome::pass(release) } else { Outcome::fail(format!("health is {status}")) })
}

/// Requests of a hundred agents, each at the release that serves it; what the new one shows of itself.
async fn watch(split: &Split, old: &Release, new: &Release) -> CoreResult<(usize, Result<(), String>)> {
    let (mut asked, mut served, mut on_new) = (0_u64, 0_u64, 0);
    for agent in agents(100) {
        let (to, is_new) = if split.takes_new(&agent) { (new, true) } else { (old, false) };
        on_new += usize::from(is_new);
        let body = json!({"query": "show the disk usage on node seven", "agent_id": agent});
        let answer = to.http.post("/v1/execute", &body).await?;
        if is_new {
            (asked, served) = (asked + 1, served + u64::from(answer.is_success()));
        }
    }
    let success = Threshold::parse("success", ">= 95 %", None)?;
    let judged = success.judge(&Measured::share(served, asked));
    let green = if judged.is_pass() { Ok(()) } else { Err(judged.detail().to_owned()) };
    Ok((on_new, green))
}

#[tokio::test]
async fn release_is_what_the_service_says_and_an_old_one_is_noticed() -> harness_core::Result {
    let scope = TestScope::current();
    let servers = Servers::start(&scope).await?;
    let release = servers.release(&scope, "2.2.0", "").await?;
    assert!(smoke(&release, "2.2.0").await?.is_pass());
    let stale = smoke(&release, "2.3.0").await?;
    assert_eq!(stale.detail(), "release 2.2.0 answers instead of 2.3.0");
    scope.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn roll_out_goes_step_by_step_and_back_in_one() -> harness_core::Result {
    let scope = TestScope::current();
    let servers = Servers::start(&scope).await?;
    let old = servers.release(&scope, "2.1.0", "").await?;
    // The new release stands beside the old one and is tried before anybody is sent there.
    let good = servers.release(&scope, "2.2.0", "").await?;
    assert!(smoke(&good, "2.2.0").await?.is_pass());
    let mut split = Split::default();
    let mut shares = Vec::new();
    split.step(10, Ok(()))?;
    for next in [50, 100] {
        let (on_new, green) = watch(&split, &old, &good).await?;
        shares.push(on_new);
        split.step(next, green)?;
    }
    shares.push(watch(&split, &old, &good).await?.0);
    assert!((2..=25).contains(&shares[0]) && (30..=70).contains(&shares[1]) && shares[2] == 100, "{shares:?}");
    // The next release is broken: its first share shows it, the step is refused, and one move takes everybody back.
    let bad = servers.release(&scope, "2.3.0", "failing-requests").await?;
    assert!(smoke(&bad, "2.3.0").await?.is_pass(), "the short subset does not see everything");
    let mut split = Split::default();
    split.step(10, Ok(()))?;
    split.step(50, Ok(()))?; // somebody did not look
    bad.http.post("/v1/records", &json!({"id": "kept", "payload": "written by 2.3.0"})).await?.expect_status(201)?;
    let (_, red) = watch(&split, &good, &bad).await?;
    assert!(matches!(split.step(100, red), Err(Refused::NotGreen(50, _))));
    split.roll_back();
    let (on_new, _) = watch(&split, &old, &bad).await?;
    assert_eq!(on_new, 0, "nobody is left on the broken release");
    assert!(smoke(&old, "2.1.0").await?.is_pass(), "the release of before answers, and is well");
    let kept = old.http.get("/v1/records").query("prefix", "kept").await?.expect_status(200)?;
    assert_eq!(
        kept.at::<String>("/records/0/payload")?,
        "written by 2.3.0",
        "what the new one wrote the old one reads"
    );
    drop(servers.postgres);
    scope.shutdown().await?;
    Ok(())
}

/// Callers of the probe, one request of each in turn.
const CALLERS: u64 = 150;
const EVERY: Duration = Duration::from_millis(4);
/// Each caller comes about twice in a stage.
const STAGE: Duration = Duration::from_millis(1_200);
/// Who was sent before a change is routed by then, and may be served by either release.
const UNDER_WAY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);

/// The caller whom a request line names.
fn caller(bytes: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(bytes);
    let (number, _) = text.split_once("caller=")?.1.split_once(' ')?;
    number.parse().ok()
}

/// Which release answers a caller who connects anew.
async fn answered_by(at: SocketAddr, caller: u64) -> Result<String, String> {
    let asked = async {
        let answer = Http::new(format!("http://{at}"))?.get("/version").query("caller", &caller.to_string()).await?;
        answer.expect_status(200)?.at::<String>("/version")
    };
    asked.await.map_err(|error| error.to_string())
}

/// Real traffic while its share moves from one release to the other and back: nobody is dropped, everybody stays where the
/// share puts them, and going back is complete. Then the new release dies under traffic, and what it dropped is named.
#[tokio::test]
async fn traffic_moves_between_releases_and_no_request_is_lost() -> harness_core::Result {
    let scope = TestScope::current();
    scope.census(Census::new()).await?; // with all its connections, two processes, a switch and two servers it leaves nothing
    let servers = Servers::start(&scope).await?;
    let (old, new) = (servers.release(&scope, "2.1.0", "").await?, servers.release(&scope, "2.2.0", "").await?);
    let router = Router::start(old.service.address(), new.service.address(), caller)?;
    let at = router.address();
    let probe = SwitchProbe::start(EVERY, CALLERS, move |caller| answered_by(at, caller));
    pause(UNDER_WAY).await;
    let mut stages = Vec::new();
    for share in STEPS {
        router.set_share(u32::from(share));
        let from = probe.now() + UNDER_WAY;
        pause(UNDER_WAY + STAGE).await;
        stages.push(Stage::new(from, probe.now(), u32::from(share)));
        pause(UNDER_WAY).await;
    }
    router.set_share(0);
    let back = probe.now();
    pause(2 * UNDER_WAY).await;
    let switch = probe.stop(PATIENCE).await;
    for said in [
        switch.drops(PATIENCE),
        switch.shares("2.2.0", &stages),
        switch.sticks("2.2.0", &stages),
        switch.rolled_back("2.1.0", back, UNDER_WAY),
    ] {
        assert!(said.is_pass(), "{said}; {router:?}");
    }
    let jumped: Vec<Stage> = stages.iter().map(|stage| Stage::new(stage.from, stage.until, 100)).collect();
    assert!(switch.shares("2.2.0", &jumped).is_fail(), "an all-at-once jump would be seen");
    let probe = SwitchProbe::start(EVERY, CALLERS, move |caller| answered_by(at, caller));
    router.set_share(50);
    pause(UNDER_WAY).await;
    new.service.kill().await?;
    pause(UNDER_WAY).await;
    let dropped = probe.stop(PATIENCE).await.drops(PATIENCE);
    assert!(dropped.is_fail() && router.unreachable() > 0, "{dropped}; {router:?}");
    drop((servers, old, new, router));
    scope.shutdown().await?;
    Ok(())
}
