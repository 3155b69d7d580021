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
use harness_core::fault::FaultProxy;
use harness_core::monitor::{CgroupSampler, ProcessSampler};
use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::stub::{Behaviour, ModelStub, Script};
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use harness_db::redis::{LogicalDb, Sentinel};
use harness_db::{Database, OwnOptions, OwnPostgres, OwnRedis, Provider, RedisOptions};
use harness_load::tokens::Reduction;
use harness_load::{Gate, Judged, Load, LoadRun};
use serde_json::{Value, json};

use crate::counters::CacheCounters;
use crate::env::External;
use crate::instance::{Instance, Wishes, start_service};
use crate::links::{Remote, through};
use crate::once::Once;
use crate::pace::Pace;

/// The dedicated test database.
pub(crate) const DATABASE: &str = "tmws_test";
/// The logical Redis database of tests.
pub(crate) const REDIS_INDEX: u32 = 1;
/// How long the scripted model thinks, and what an answer of it costs.
pub(crate) const MODEL_DELAY: Duration = Duration::from_millis(150);
const MODEL_TOKENS: u64 = 400;

/// A connection that is not back this long after the last answer is lost.
const RETURNED: Duration = Duration::from_secs(3);
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
    /// A load that several scenarios read in the shortest profile: the usual mix, and the benchmark's.
    pub(crate) mix: Once<(LoadRun, CacheCounters)>,
    pub(crate) benchmark: Once<LoadRun>,
    /// What requests of the usual mix cost in tokens, likewise.
    pub(crate) saved: Once<Reduction>,
    own: Option<Own>,
    pace: Pace,
    plants: Vec<String>,
    scope: Mutex<Option<Arc<TestScope>>>,
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
        let pace = Pace::named(setup.profile());
        let redis_options = RedisOptions::new().setting("maxmemory", "1gb").setting("maxmemory-policy", "allkeys-lru");
        // What this machine's disk does to a commit is no property of the service.
        let postgres_options = OwnOptions::new().vector().without_flushes().setting("max_connections", "100");
        let (postgres, redis, model) = tokio::try_join!(
            OwnPostgres::start(&scope, postgres_options),
            OwnRedis::start(&scope, redis_options),
            ModelStub::start(model_script()),
        )?;
        setup.choice(format!("{}; commits do not wait for the disk (fsync=off)", postgres.choice().line()));
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
        let wishes = Wishes { plants: setup.plants(), pace, token: None, settings: &[] };
        let service = start_service("pattern-service", &scope, &urls, &model.url(), &wishes).await?;
        let urls = Urls { service: format!("http://{}", service.address()), ..urls };
        Ok(Self {
            http: client(&urls.service)?,
            database: harness_db::observe(&urls.database).await?,
            urls,
            mix: Once::default(),
            benchmark: Once::default(),
            saved: Once::default(),
            own: Some(Own { postgres, model, service, redis }),
            pace: Pace::named(setup.profile()),
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
            mix: Once::default(),
            benchmark: Once::default(),
            saved: Once::default(),
            own: None,
            pace: Pace::named(setup.profile()),
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

    /// The service's process.
    pub(crate) fn service(&self) -> CoreResult<&Service> {
        self.own("its process cannot be looked at").map(|own| &own.service)
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
        self.instance_with("second-instance", &[]).await
    }

    /// A second instance that reaches Postgres and Redis through fault proxies.
    pub(crate) async fn remote(&self) -> CoreResult<Remote> {
        let own = self.own("another instance cannot be started")?;
        let (postgres, redis) = (own.postgres.address(), own.redis.address());
        let proxies = (FaultProxy::to(postgres)?, FaultProxy::to(redis)?);
        let urls = Urls {
            database: through(&self.urls.database, postgres, &proxies.0)?,
            redis: through(&self.urls.redis, redis, &proxies.1)?,
            ..self.urls.clone()
        };
        let wishes = Wishes { plants: &self.plants, pace: self.pace, token: None, settings: &[] };
        let instance = self.instance("remote-instance", &urls, &wishes).await?;
        Ok(Remote::new(instance, proxies.0, proxies.1))
    }

    /// An instance in the secure profile, and a client that shows its token.
    pub(crate) async fn secure(&self) -> CoreResult<Instance> {
        let token = self.scope()?.unique("token-of-this-run");
        let wishes = Wishes { plants: &self.plants, pace: self.pace, token: Some(&token), settings: &[] };
        self.instance("secure-instance", &self.urls, &wishes).await
    }

    /// An instance with further settings.
    pub(crate) async fn instance_with(&self, name: &str, settings: &[(&str, String)]) -> CoreResult<Instance> {
        let wishes = Wishes { plants: &self.plants, pace: self.pace, token: None, settings };
        self.instance(name, &self.urls, &wishes).await
    }

    /// An instance whose Redis is the primary of this topology, wherever it is.
    pub(crate) async fn behind(&self, sentinel: &Sentinel) -> CoreResult<Instance> {
        let addresses: Vec<_> = sentinel.sentinels().iter().map(|node| node.address().to_string()).collect();
        let settings =
            [("TMWS_REDIS_SENTINELS", addresses.join(",")), ("TMWS_REDIS_MASTER", sentinel.master_name().to_owned())];
        let urls = Urls { redis: format!("{}/{REDIS_INDEX}", sentinel.primary().await?.url()), ..self.urls.clone() };
        let wishes = Wishes { plants: &self.plants, pace: self.pace, token: None, settings: &settings };
        self.instance("failover-instance", &urls, &wishes).await
    }

    async fn instance(&self, name: &str, urls: &Urls, wishes: &Wishes<'_>) -> CoreResult<Instance> {
        let own = self.own("another instance cannot be started")?;
        let scope = TestScope::new(name);
        let service = start_service(name, &scope, urls, &own.model.url(), wishes).await?;
        let http = client(&format!("http://{}", service.address()))?;
        Ok(Instance { http: wishes.token.into_iter().fold(http, |http, token| http.bearer(token)), scope })
    }

    /// An empty database of its own on the service's server, with the extension that the service needs.
    pub(crate) async fn scratch(&self, word: &str) -> CoreResult<Database> {
        let name = format!("{DATABASE}_{word}_{}", std::process::id());
        let postgres = self.postgres()?;
        postgres.run(&format!("drop database if exists \"{name}\" with (force)")).await?;
        let database = harness_db::observe(postgres.create_database(&name).await?).await?;
        let made = sqlx::query("create extension if not exists vector").execute(database.pool()).await;
        made.map_err(|error| Error::new(ErrorKind::Connect, "could not create vector").caused_by(error))?;
        Ok(database)
    }

    /// Ends [`World::scratch`].
    pub(crate) async fn drop_scratch(&self, database: Database) -> CoreResult {
        let name = database.name().to_owned();
        database.pool().close().await;
        drop(database);
        self.postgres()?.run(&format!("drop database if exists \"{name}\" with (force)")).await
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
    cx.check("the load lasted as long as asked", run.complete());
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
        delay_ms: MODEL_DELAY.as_millis() as u64,
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
