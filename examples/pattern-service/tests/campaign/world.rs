//! The environment of a scenario: its own Postgres and Redis, a scripted model, and the service as a real process.
//!
//! With `TMWS_SERVICE_URL` the service is yours and nothing is started: then `TMWS_DATABASE_URL` lets the harness look
//! into its database, and scenarios that must stop a server say that they have no evidence.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::campaign::{Scenario, Setup};
use harness_core::client::Http;
use harness_core::monitor::{CgroupSampler, ProcessSampler};
use harness_core::scope::TestScope;
use harness_core::service::{Backend, Exec, Service, ServiceSpec};
use harness_core::stub::{Behaviour, ModelStub, Script};
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use harness_db::redis::LogicalDb;
use harness_db::{Database, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};
use harness_load::{Gate, Judged, Load, LoadRun};
use serde_json::{Value, json};

use crate::env::External;

/// The dedicated test database.
pub(crate) const DATABASE: &str = "tmws_test";
/// The logical Redis database of tests.
pub(crate) const REDIS_INDEX: u32 = 1;
/// How long the scripted model thinks, and what an answer of it costs.
const MODEL_DELAY_MS: u64 = 150;
const MODEL_TOKENS: u64 = 400;

/// A connection that is not back this long after the last answer is lost.
const RETURNED: Duration = Duration::from_secs(3);
/// How long the circuit breaker around the model stays open.
pub(crate) const BREAKER_OPEN: Duration = Duration::from_millis(1_000);

/// Requests per second and identity that the secure profile accepts.
pub(crate) const RATE_LIMIT: u64 = 20;

/// What scenarios share.
#[derive(Debug)]
pub(crate) struct World {
    /// The service under test.
    pub(crate) http: Http,
    /// The harness's own view into the service's database.
    pub(crate) database: Database,
    /// The URLs of the servers, for probes.
    pub(crate) urls: Urls,
    own: Option<Own>,
    plants: Vec<String>,
    scope: Mutex<Option<Arc<TestScope>>>,
}

/// One more instance of the service, for one scenario: what others measure is not to count its connections.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its client.
    pub(crate) http: Http,
    scope: TestScope,
}

impl Instance {
    /// Ends it.
    pub(crate) async fn end(self) -> CoreResult {
        self.scope.shutdown().await
    }
}

/// Where the parts are.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    /// The service.
    pub(crate) service: String,
    /// The service's database.
    pub(crate) database: String,
    /// The service's Redis, with its logical database.
    pub(crate) redis: String,
    /// True when Redis is a portable one, of which no version 7 exists.
    pub(crate) redis_is_portable: bool,
}

/// What was started here.
#[derive(Debug)]
struct Own {
    postgres: OwnPostgres,
    model: ModelStub,
    service: Service,
    redis: OwnRedis,
}

impl World {
    /// Starts everything, or moves in with a service that runs already.
    pub(crate) async fn start(setup: &Setup) -> CoreResult<Self> {
        let scope = TestScope::new("campaign");
        match crate::env::external()? {
            Some(external) => Self::visit(setup, scope, external).await,
            None => Self::build(setup, scope).await,
        }
    }

    async fn build(setup: &Setup, scope: TestScope) -> CoreResult<Self> {
        let redis_options = RedisOptions::new().setting("maxmemory", "1gb").setting("maxmemory-policy", "allkeys-lru");
        let (postgres, redis, model) = tokio::try_join!(
            OwnPostgres::start(&scope, OwnOptions::new().vector().setting("max_connections", "100")),
            OwnRedis::start(&scope, redis_options),
            ModelStub::start(model_script()),
        )?;
        setup.choice(postgres.choice().line());
        setup.choice(redis.choice().line());
        let database = postgres.create_database(DATABASE).await?;
        let urls = Urls {
            service: String::new(),
            database: database.clone(),
            redis: format!("redis://{}/{REDIS_INDEX}", redis.address()),
            redis_is_portable: redis.choice().provider == Provider::Portable,
        };
        if postgres.capabilities().pg_stat_statements {
            let view = harness_db::observe(&database).await?;
            let created = sqlx::query("create extension if not exists pg_stat_statements").execute(view.pool()).await;
            created.map_err(|error| {
                Error::new(ErrorKind::Connect, "could not create pg_stat_statements").caused_by(error)
            })?;
        }
        let service = start_service("pattern-service", &scope, &urls, &model.url(), setup.plants(), None).await?;
        let urls = Urls { service: format!("http://{}", service.address()), ..urls };
        Ok(Self {
            http: client(&urls.service)?,
            database: harness_db::observe(&urls.database).await?,
            urls,
            own: Some(Own { postgres, model, service, redis }),
            plants: setup.plants().to_vec(),
            scope: Mutex::new(Some(Arc::new(scope))),
        })
    }

    async fn visit(setup: &Setup, scope: TestScope, external: External) -> CoreResult<Self> {
        setup.choice(format!("service: {}, as TMWS_SERVICE_URL says; nothing was started", external.service));
        let urls = Urls {
            service: external.service,
            database: external.database,
            redis: external.redis,
            redis_is_portable: false,
        };
        Ok(Self {
            http: client(&urls.service)?,
            database: harness_db::observe(&urls.database).await?,
            urls,
            own: None,
            plants: setup.plants().to_vec(),
            scope: Mutex::new(Some(Arc::new(scope))),
        })
    }

    /// Ends what [`World::start`] started, in reverse order.
    pub(crate) async fn stop(&self) {
        self.database.pool().close().await;
        let scope = self.scope.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(scope) = scope.and_then(Arc::into_inner) else { return };
        if let Err(error) = scope.shutdown().await {
            eprintln!("the environment did not end in good order: {error:?}");
        }
    }

    fn scope(&self) -> CoreResult<Arc<TestScope>> {
        let scope = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        scope.clone().ok_or_else(|| Error::new(ErrorKind::Refused, "the environment has ended"))
    }

    fn own(&self, why: &str) -> CoreResult<&Own> {
        self.own.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::NoEvidence, format!("the service under test is not ours, so {why}"))
                .remedy("run the campaign without TMWS_SERVICE_URL")
        })
    }

    /// The service's Postgres, to be stopped and started.
    pub(crate) fn postgres(&self) -> CoreResult<&OwnPostgres> {
        self.own("its database cannot be stopped").map(|own| &own.postgres)
    }

    /// The service's Redis, to be stopped and started.
    pub(crate) fn redis(&self) -> CoreResult<&OwnRedis> {
        self.own("its cache cannot be stopped").map(|own| &own.redis)
    }

    /// The scripted model the service asks.
    pub(crate) fn model(&self) -> CoreResult<&ModelStub> {
        self.own("its model cannot be told what to answer").map(|own| &own.model)
    }

    /// A gauge or counter of the service.
    pub(crate) async fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> CoreResult<u64> {
        Ok(self.http.scrape("/metrics").await?.value(name, labels)? as u64)
    }

    /// Connections of the service's pool that somebody still holds once the work is done: waits until there are none, or
    /// until it is clear that some stay.
    pub(crate) async fn borrowed_connections(&self) -> CoreResult<u64> {
        let held = async || CoreResult::Ok(self.gauge("pool_size", &[]).await? - self.gauge("pool_idle", &[]).await?);
        let none = wait_for("connections to come back", RETURNED, async || match held().await {
            Ok(0) => Progress::Ready(()),
            Ok(n) => Progress::NotYet(format!("{n} are held")),
            Err(error) => Progress::Failed(error),
        });
        match none.await {
            Ok(()) => Ok(0),
            Err(error) if error.kind() == ErrorKind::Timeout => held().await,
            Err(error) => Err(error),
        }
    }

    /// A second instance on the same servers.
    pub(crate) async fn second(&self) -> CoreResult<Instance> {
        self.instance("second-instance", None).await
    }

    /// An instance in the secure profile, and a client that shows its token.
    pub(crate) async fn secure(&self) -> CoreResult<Instance> {
        let token = self.scope()?.unique("token-of-this-run");
        self.instance("secure-instance", Some(&token)).await
    }

    async fn instance(&self, name: &str, token: Option<&str>) -> CoreResult<Instance> {
        let own = self.own("another instance cannot be started")?;
        let scope = TestScope::new(name);
        let service = start_service(name, &scope, &self.urls, &own.model.url(), &self.plants, token).await?;
        let http = client(&format!("http://{}", service.address()))?;
        Ok(Instance { http: token.into_iter().fold(http, |http, token| http.bearer(token)), scope })
    }

    /// The address of a path over WebSocket.
    pub(crate) fn service_ws(&self, path: &str) -> String {
        format!("{}{path}", self.urls.service.replacen("http", "ws", 1))
    }

    /// The MCP endpoint for an agent.
    pub(crate) fn mcp(&self, agent: &str) -> String {
        self.service_ws(&format!("/ws/mcp?agent_id={agent}"))
    }

    /// A load that watches the service's process, its database and its Redis, for the plots on the load's time axis.
    pub(crate) async fn watched(&self, load: Load) -> CoreResult<Load> {
        let load = load
            .watch(self.database.sessions().sampler("postgres"))
            .watch(LogicalDb::at(&self.urls.redis)?.memory().sampler("redis"))
            .watch(ProcessSampler::own("harness"));
        // What is not ours has its processor and memory elsewhere.
        let Some(own) = &self.own else { return Ok(load) };
        let load = match own.service.process().await? {
            Some(service) => load.watch(ProcessSampler::of("service", service)),
            None => load,
        };
        let is_contained = own.postgres.choice().provider == Provider::Container;
        Ok(match own.postgres.service().process().await?.filter(|_| is_contained) {
            Some(server) => load.watch(CgroupSampler::of("postgres server", server)),
            None => load,
        })
    }

    /// A prefix no other run uses.
    pub(crate) fn unique(&self) -> CoreResult<String> {
        Ok(self.scope()?.unique("record"))
    }

    /// Reads the largest number of requests that were inside the service at once.
    pub(crate) fn peak_gauge(&self) -> impl Fn() -> Reading + Send + Sync + 'static {
        let http = self.http.clone();
        move || {
            let http = http.clone();
            Box::pin(async move { Ok(http.scrape("/metrics").await?.value("in_flight_peak", &[])? as u64) })
        }
    }

    /// Begins counting the peak anew.
    pub(crate) async fn reset_peak(&self) -> CoreResult {
        self.http.post("/admin/peak/reset", &json!({})).await?.expect_status(204).map(drop)
    }

    /// The plan of the statement the service runs, as it explains it itself.
    pub(crate) async fn plan_of_service(&self, query: &str, k: usize) -> CoreResult<Value> {
        let body = json!({"query": query, "k": k, "explain": true});
        self.http.post("/v1/search", &body).await?.expect_status(200)?.at("/plan")
    }

    /// Cache counters of the service and of Redis.
    pub(crate) async fn cache_counters(&self) -> CoreResult<CacheCounters> {
        let metrics = self.http.scrape("/metrics").await?;
        let read = |name: &str, tier: &str| CoreResult::Ok(metrics.value(name, &[("tier", tier)])? as u64);
        Ok(CacheCounters {
            local_hits: read("cache_hits_total", "local")?,
            local_misses: read("cache_misses_total", "local")?,
            shared_hits: read("cache_hits_total", "shared")?,
            shared_misses: read("cache_misses_total", "shared")?,
            redis_reads: harness_db::calls(&self.urls.redis, "HMGET").await?,
        })
    }

    /// Whether the process that was started is still the one that answers.
    pub(crate) async fn service_still_runs(&self) -> Outcome {
        let Some(own) = &self.own else { return Outcome::no_evidence("the service was not started here") };
        match own.service.exit().await {
            Ok(None) => Outcome::pass(format!("process {}", own.service.pid().unwrap_or_default())),
            Ok(Some(exit)) => Outcome::fail(format!("the service ended: {exit}")),
            Err(error) => Outcome::no_evidence(error.to_string()),
        }
    }

    /// The last lines of every log, for a paused run.
    pub(crate) async fn last_logs(&self) -> String {
        let Some(own) = &self.own else { return "the service was not started here: its logs are elsewhere".to_owned() };
        let logs = [("pattern-service", &own.service), ("postgres", own.postgres.service())];
        logs.iter().map(|(name, service)| format!("== {name}\n{}\n", service.log_lines(200).join("\n"))).collect()
    }

    /// The sessions that are not idle, for a paused run.
    pub(crate) async fn busy_sessions(&self) -> String {
        match self.database.busy_sessions().await {
            Ok(sessions) => sessions.iter().map(|session| format!("{session:?}\n")).collect(),
            Err(error) => format!("the sessions could not be listed: {error:?}"),
        }
    }

    /// Keeps the service's log as evidence of a scenario.
    pub(crate) fn keep_logs(&self, cx: &Scenario<Self>) -> CoreResult {
        if let Some(log) = self.own.as_ref().and_then(|own| own.service.log()) {
            cx.evidence("service.log", std::fs::read(log)?)?;
        }
        Ok(())
    }
}

type Reading = std::pin::Pin<Box<dyn Future<Output = CoreResult<u64>> + Send>>;

/// Counters of the cache tiers, from two sources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheCounters {
    local_hits: u64,
    local_misses: u64,
    shared_hits: u64,
    shared_misses: u64,
    redis_reads: u64,
}

impl CacheCounters {
    /// What was counted since an earlier reading.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            local_hits: self.local_hits - before.local_hits,
            local_misses: self.local_misses - before.local_misses,
            shared_hits: self.shared_hits - before.shared_hits,
            shared_misses: self.shared_misses - before.shared_misses,
            redis_reads: self.redis_reads - before.redis_reads,
        }
    }

    /// Reads that either tier answered.
    pub(crate) fn served(self) -> u64 {
        self.local_hits + self.shared_hits
    }

    /// Reads in all: each asks the local tier first.
    pub(crate) fn asked(self) -> u64 {
        self.local_hits + self.local_misses
    }

    /// Compares the service's count of reads of the shared tier with what Redis says it was asked.
    pub(crate) fn agrees_with_redis(self) -> Outcome {
        let (service, redis) = (self.shared_hits + self.shared_misses, self.redis_reads);
        match service == redis {
            true => Outcome::pass(format!("{service} reads by both counts")),
            false => Outcome::fail(format!("the service counts {service} reads of the shared tier, Redis {redis}")),
        }
    }
}

/// Adds a load's series and distribution to the scenario; a load that the generator spoilt is no evidence.
///
/// `gates` are those whose limits the figures will be held against: lateness that cannot matter to them is tolerated.
pub(crate) fn report_load(
    cx: &Scenario<World>,
    run: &LoadRun,
    gates: impl IntoIterator<Item = Gate>,
) -> CoreResult<Judged> {
    for series in run.series(cx.id()).into_iter().chain(run.distribution(cx.id())) {
        cx.series(series);
    }
    cx.evidence("load.txt", run.to_string())?;
    let judged = run.judge(gates)?;
    match judged.invalid() {
        Some(why) => Err(Error::new(ErrorKind::NoEvidence, format!("invalid: {why}"))),
        None => Ok(judged),
    }
}

/// Whether something is what it has to be.
pub(crate) fn same<T: PartialEq + Display + Copy>(found: T, wanted: T) -> Outcome {
    if found == wanted {
        Outcome::pass(found.to_string())
    } else {
        Outcome::fail(format!("{found} instead of {wanted}"))
    }
}

fn client(base: &str) -> CoreResult<Http> {
    Http::new(base)
}

pub(crate) fn model_script() -> Script {
    let answer = Behaviour {
        delay_ms: MODEL_DELAY_MS,
        tokens: Some(MODEL_TOKENS),
        ..Behaviour::text("The model has thought about it and answers at length.")
    };
    scripted(&answer)
}

/// Every agent of the campaign gets this.
pub(crate) fn scripted(answer: &Behaviour) -> Script {
    // Data, not a wildcard: an agent the campaign did not plan is refused by the stub.
    let agents = (0..50).map(|n| (crate::traffic::agent(n), vec![answer.clone()])).collect::<BTreeMap<_, _>>();
    Script { agents, ..Script::default() }
}

async fn start_service(
    name: &str,
    scope: &TestScope,
    urls: &Urls,
    model: &str,
    plants: &[String],
    token: Option<&str>,
) -> CoreResult<Service> {
    let exec = Exec::new(env!("CARGO_BIN_EXE_pattern-service"))
        .args(["--listen", "127.0.0.1:{port}"])
        .env("TMWS_ENVIRONMENT", "testing")
        .env("TMWS_DATABASE_URL", &urls.database)
        .env("TMWS_REDIS_URL", &urls.redis)
        .env("TMWS_MODEL_URL", model)
        .env("TMWS_AUTH_ENABLED", token.is_some().to_string())
        .env("TMWS_BREAKER_OPEN_MS", BREAKER_OPEN.as_millis().to_string())
        .env("TMWS_LOG", "debug")
        .env("HARNESS_PLANT", plants.join(","));
    let exec = match token {
        Some(token) => exec.env("TMWS_TOKEN", token).env("TMWS_RATE_LIMIT", RATE_LIMIT.to_string()),
        None => exec,
    };
    ServiceSpec::new(name, Backend::Process(exec))
        .ready(async |at| match healthy(&format!("http://{}", at.address)).await {
            Ok(()) => Progress::Ready(()),
            Err(error) => Progress::NotYet(error.to_string()),
        })
        .start(scope)
        .await
}

async fn healthy(base: &str) -> CoreResult {
    Http::new(base)?.get("/health").await?.expect_status(200).map(drop)
}
