//! A Postgres for one test alone, which may be stopped, killed and started again.

use std::net::SocketAddr;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::wait::{Progress, wait_for, within};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

use super::channel::{Channel, Given};
use super::replica::Replica;
use super::settings::{Settings, read_back};
use super::{Capabilities, OwnOptions, readiness, sql};
use crate::provider::recipe::Recipe;
use crate::provider::recipe::files::ServerFile;
use crate::provider::recipe::postgres::{SMALL_DISK, Wish, wished};
use crate::provider::{Attempt, Choice, Provider, own};

/// How long [`OwnPostgres::run`] may take.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// How long a changed setting may take to show.
const EFFECT_LIMIT: Duration = Duration::from_secs(10);

/// A Postgres of one test alone: durable, at an address that survives stop and start, with its data kept meanwhile.
///
/// Its scope ends it. Each verb proves its effect: a stopped or killed server refuses connections, a started one answers a
/// query twice and shows its settings.
#[derive(Debug)]
pub struct OwnPostgres {
    pub(super) service: Service,
    pub(super) channel: Channel,
    pub(super) settings: Settings,
    pub(super) files: Vec<ServerFile>,
    pub(super) vector: bool,
    pub(super) reachable: bool,
    pub(super) on_small_disk: bool,
    capabilities: Capabilities,
    choice: Choice,
    pool: PgPool,
    replicas: Vec<Replica>,
}

impl OwnPostgres {
    /// Starts one.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] listing every provider that was asked, or naming the setting that was ignored.
    pub async fn start(scope: &TestScope, options: OwnOptions) -> CoreResult<Self> {
        let (channel, Given { settings: demanded, files }) = Channel::prepare(scope, options.wire)?;
        let (mut settings, vector) = (options.all_settings(), options.vector);
        settings.extend(demanded);
        let (for_recipe, for_files, with_replicas) = (settings.clone(), files.clone(), options.replicas > 0);
        let disk = options.disk;
        let plan = move |provider| {
            let wish = Wish { vector, files: &for_files, reachable: with_replicas, disk, ..Wish::default() };
            planned(provider, &for_recipe, wish)
        };
        let question = channel.clone();
        let ready = move |at: SocketAddr| -> own::Asking {
            let options = question.dress(sql::own_options(at));
            Box::pin(async move { readiness::answers_twice(&options).await.into() })
        };
        let (service, choice) = own::start("postgres", scope, options.providers, plan, ready).await?;
        let at = channel.dress(sql::own_options(service.address()));
        let mut session = sql::connect(&at).await?;
        let capabilities = Capabilities::ask(&mut session).await?;
        capabilities.check_version()?;
        if vector {
            capabilities.check_vector()?;
        }
        read_back(&mut session, &settings).await?;
        if disk.is_some() {
            take_small_disk(&mut session).await?;
        }
        let _ = session.close().await;
        let pool = pool_at(at);
        let reachable = with_replicas || choice.provider != Provider::Container;
        let mut own = Self {
            service,
            channel,
            settings,
            files,
            vector,
            reachable,
            on_small_disk: disk.is_some(),
            capabilities,
            choice,
            pool,
            replicas: Vec::new(),
        };
        for _ in 0..options.replicas {
            own.replicas.push(own.replica(scope).await?);
        }
        Ok(own)
    }

    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Its maintenance database as a URL, which says what the server demands: with TLS `sslmode=verify-ca` and the
    /// certificate to trust, with client certificates also one's own.
    #[must_use]
    pub fn url(&self) -> String {
        self.channel.url(&self.options())
    }

    /// A database on it as a URL, whether it exists or not.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        self.channel.url(&self.options().database(database))
    }

    /// Its maintenance database as a URL that does not speak TLS: refused by a server that demands it.
    #[must_use]
    pub fn plain_url(&self) -> String {
        Channel::default().url(&sql::own_options(self.address())) + "?sslmode=disable"
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// When the server does not answer, or has a database of this name.
    pub async fn create_database(&self, name: &str) -> CoreResult<String> {
        let mut session = self.connect().await?;
        sql::run(&mut session, "create a database", format!("create database {}", sql::ident(name))).await?;
        let _ = session.close().await;
        Ok(self.url_of(name))
    }

    /// Options to connect by.
    #[must_use]
    pub fn options(&self) -> PgConnectOptions {
        self.channel.dress(sql::own_options(self.address()))
    }

    /// Up to five connections to its maintenance database, opened when they are needed. They belong to this test's runtime.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The replicas it was started with ([`OwnOptions::replicas`]).
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The authority of its certificates, if it speaks TLS: for certificates of more clients.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn authority(&self) -> Option<&crate::tls::Authority> {
        self.channel.authority.as_deref()
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Which provider gave it, and what was tried before.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The service, for logs, pids and experiments.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A connection to its maintenance database.
    ///
    /// # Errors
    /// When it refuses the connection or says nothing for 5 s; the error says how the server is.
    pub async fn connect(&self) -> CoreResult<PgConnection> {
        match sql::connect(&self.options()).await {
            Ok(session) => Ok(session),
            Err(error) => Err(self.with_state(error).await),
        }
    }

    /// Runs SQL text (one or several statements) on its maintenance database, for at most 60 s.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] with the server's words when it refuses a statement; [`ErrorKind::Connect`] naming the
    /// server and how it ended when it goes away meanwhile; [`ErrorKind::Timeout`] when it says nothing.
    pub async fn run(&self, statements: &str) -> CoreResult {
        let mut session = self.connect().await?;
        let what = format!("run a statement on the Postgres at {}", self.address());
        let ran = within(what.clone(), RUN_LIMIT, sql::run(&mut session, &what, statements)).await;
        match ran.and_then(|result| result) {
            Ok(()) => session.close().await.map_err(|error| sql::query_error("leave the server", error)),
            Err(error) => Err(self.with_state(error).await),
        }
    }

    /// The error of a server that went away, with how it ended; any other error as it is.
    async fn with_state(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Connect {
            return error;
        }
        match self.service.exit().await {
            Ok(Some(exit)) => error
                .tried(format!("the server of this test at {} has ended: {exit}", self.address()))
                .log(self.service.log_lines(5))
                .remedy("start it again first (`start_again`), if its end was meant"),
            _ => error,
        }
    }

    /// Stops it in good order (fast shutdown). Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn stop(&self) -> CoreResult {
        self.service.stop().await.map(drop)
    }

    /// Kills it and all its sessions without a goodbye. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn kill(&self) -> CoreResult {
        self.service.kill().await.map(drop)
    }

    /// Starts it again with the data it had, at the same address. Proven by two answers and by its settings.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs, or had a [small disk](OwnOptions::disk_bytes); [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        if self.on_small_disk {
            let what = "this server's small disk was in memory, and is gone with what lay on it";
            return Err(Error::new(ErrorKind::Refused, what).remedy("start another server instead"));
        }
        self.service.start_again().await?;
        self.check_settings().await
    }

    /// Holds while the server shows every setting that was asked for. Checked after each start.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] naming the setting, what it is and what was asked for.
    pub async fn check_settings(&self) -> CoreResult {
        let mut session = self.connect().await?;
        read_back(&mut session, &self.settings).await?;
        session.close().await.map_err(|error| sql::query_error("leave the server", error))
    }

    /// Freezes it: it keeps its connections and answers nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn pause(&self) -> CoreResult {
        self.service.pause().await
    }

    /// Ends [`OwnPostgres::pause`]. Proven by an answered query.
    ///
    /// # Errors
    /// When it does not answer afterwards.
    pub async fn resume(&self) -> CoreResult {
        self.service.resume().await?;
        readiness::started_at(&self.options()).await.map(drop)
    }
}

/// Has everything that is made from now on lie on the small disk.
async fn take_small_disk(session: &mut PgConnection) -> CoreResult {
    // The directory has to be the server's own, and a superuser's program runs as the server.
    let steps = [
        format!("copy (select 1) to program 'cat > /dev/null && mkdir -m 700 {SMALL_DISK}/tables'"),
        format!("create tablespace small location '{SMALL_DISK}/tables'"),
        "grant create on tablespace small to public".to_owned(),
        "alter system set default_tablespace = 'small'".to_owned(),
        "select pg_reload_conf()".to_owned(),
    ];
    for step in steps {
        sql::run(session, "put the databases on the small disk", step).await?;
    }
    let shown = "select current_setting('default_tablespace')";
    wait_for("the small disk to be the default", EFFECT_LIMIT, async || {
        match sql::rows(session, "ask where tables are made", shown).await {
            Ok(rows) => match rows.first().and_then(|row| row.try_get::<String, _>(0).ok()).as_deref() {
                Some("small") => Progress::Ready(()),
                other => Progress::NotYet(format!("{other:?}")),
            },
            Err(error) => Progress::Failed(error),
        }
    })
    .await
}

/// How this provider would start a server as it is wished, with these settings.
pub(super) fn planned(provider: Provider, settings: &[(String, String)], wish: Wish<'_>) -> Result<Recipe, Attempt> {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    wished(provider, &Wish { settings: &settings, ..wish })
}

/// A pool that opens its connections when they are needed, and tests them: the server may have been killed meanwhile.
pub(super) fn pool_at(options: PgConnectOptions) -> PgPool {
    use sqlx::ConnectOptions as _;

    PgPoolOptions::new()
        .max_connections(5)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options.disable_statement_logging())
}
