//! A running server that many tests share: claiming databases on it, and building its templates.

use std::time::Duration;

use harness_core::keeper::Attached;
use harness_core::wait::{Progress, pause, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::clones::{self, Answered, Claim, Order};
use super::sql::{self, ident, literal};
use super::template::{Part, Script, Work};
use super::{Capabilities, guest, names};
use crate::provider::Choice;

/// How long sessions of a template's builder are given to leave by themselves.
const LEAVES: Duration = Duration::from_secs(1);
/// Sessions that were cut off are gone within this.
const CUT: Duration = Duration::from_secs(10);
/// Whether a server still runs is looked at this often.
const LOOKS: Duration = Duration::from_millis(50);

/// A Postgres server shared by all tests of this user, or handed in by URL.
///
/// Nobody may stop, kill or pause it: other tests live on it. [`Server::stop`] and its siblings exist to say so.
#[derive(Debug)]
pub struct Server {
    base: PgConnectOptions,
    capabilities: Capabilities,
    choice: Choice,
    tenancy: Tenancy,
}

/// Under which roof the databases live.
#[derive(Debug)]
pub(crate) enum Tenancy {
    /// A shared server of the house: the keeper ends what a lease left behind.
    Ours(Box<Attached>),
    /// Somebody else's server, by its URL: a keeper of ours pools the databases on it.
    Guest { attached: Box<Attached>, url: String },
    /// The system under test owns it: we look and touch nothing.
    Observed,
}

impl Server {
    pub(crate) fn new(base: PgConnectOptions, capabilities: Capabilities, choice: Choice, tenancy: Tenancy) -> Self {
        Self { base, capabilities, choice, tenancy }
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

    /// How a client reaches its maintenance database.
    #[must_use]
    pub fn options(&self) -> &PgConnectOptions {
        &self.base
    }

    /// True when the server was handed in by URL.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        matches!(self.tenancy, Tenancy::Guest { .. })
    }

    pub(crate) fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// Refused: other tests live on a shared server.
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn stop(&self) -> CoreResult {
        self.refuse("stop")
    }

    /// Refused, as [`Server::stop`].
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn kill(&self) -> CoreResult {
        self.refuse("kill")
    }

    /// Refused, as [`Server::stop`].
    ///
    /// # Errors
    /// Always [`ErrorKind::Refused`].
    pub fn pause(&self) -> CoreResult {
        self.refuse("pause")
    }

    fn refuse(&self, verb: &str) -> CoreResult {
        let place = sql::place(&self.base);
        Err(Error::new(ErrorKind::Refused, format!("will not {verb} the Postgres at {place}: other tests share it"))
            .remedy("start one of your own for faults and outages: `harness_db::OwnPostgres::start(..)`"))
    }

    /// The slot of its keeper; an observed server has none.
    fn attached(&self) -> CoreResult<&Attached> {
        match &self.tenancy {
            Tenancy::Ours(attached) | Tenancy::Guest { attached, .. } => Ok(attached),
            Tenancy::Observed => {
                Err(Error::new(ErrorKind::Refused, "an observed server is looked at, nothing is made on it"))
            }
        }
    }

    /// The lease in the names of what this process builds: it goes when that is dead.
    fn lease(&self, attached: &Attached) -> String {
        match self.is_guest() {
            true => guest::lease(attached.keeper),
            false => attached.lease.to_string(),
        }
    }

    /// A database of this script's template and `connections` connections to it, both from the keeper's pool.
    pub(super) async fn claim(
        &self,
        script: &Script,
        connections: u32,
        test: String,
        limit: Duration,
    ) -> CoreResult<(String, Claim)> {
        let attached = self.attached()?;
        let template = self.template_of(script);
        let order = Order {
            template,
            connections,
            lease: attached.lease.to_string(),
            test,
            reusable: !script.superuser,
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let mut answered = clones::claim::claim(&attached.slot, attached.keeper, order).await?;
        loop {
            match answered {
                Answered::Yours(name, claim) => return Ok((name, claim)),
                Answered::Build(builder) => {
                    self.build(script).await?;
                    answered = builder.built().await?;
                }
            }
        }
    }

    /// Ends when the server or its keeper has ended. A server without a keeper never gets there.
    pub(super) async fn gone(&self) {
        let Ok(attached) = self.attached() else { return std::future::pending().await };
        loop {
            pause(LOOKS).await;
            if !attached.is_serving() {
                return;
            }
        }
    }

    /// The database that those of this script are cloned from.
    fn template_of(&self, script: &Script) -> String {
        match script.is_blank() {
            true => names::BLANK.to_owned(),
            false => names::template(&script.key(&self.capabilities)),
        }
    }

    /// Builds the template unless it is there: one builder at a time, also across machines.
    async fn build(&self, script: &Script) -> CoreResult {
        if let Some(parent) = script.parent.as_ref().filter(|parent| !parent.is_blank()) {
            Box::pin(self.build(parent)).await?;
        }
        let key = script.key(&self.capabilities);
        let mut session = sql::connect(&self.base).await?;
        let lock = names::build_lock(&key);
        sql::run(&mut session, "wait for the builder of the template", format!("select pg_advisory_lock({lock})"))
            .await?;
        let result = self.build_under_lock(&mut session, &key, script).await;
        let _ = session.close().await; // ends the lock too
        result
    }

    async fn build_under_lock(&self, session: &mut PgConnection, key: &str, script: &Script) -> CoreResult {
        let (attached, template) = (self.attached()?, names::template(key));
        if exists(session, &template).await? {
            return Ok(());
        }
        self.make_roles(session, script).await?;
        let parent = script.parent.as_ref().map(|parent| self.template_of(parent));
        let lease = self.lease(attached);
        let building = names::building(&lease, key);
        if !self.is_guest() {
            let notes = attached.slot.join(crate::custodian::BUILDS);
            std::fs::create_dir_all(&notes)?;
            std::fs::write(notes.join(lease), "")?;
        }
        sql::run(session, "clear an abandoned build", format!("DROP DATABASE IF EXISTS {}", ident(&building))).await?;
        let from = parent.as_deref().unwrap_or(names::BLANK);
        let owner = self.owner(script).map(|owner| format!(" OWNER {owner}")).unwrap_or_default();
        let blank = format!("CREATE DATABASE {} TEMPLATE {}{owner}", ident(&building), ident(from));
        sql::run(session, "create the template's database", blank).await?;
        if let Err(error) = self.fill(&building, script).await {
            let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&building));
            return Err(match sql::run(session, "drop the failed template", text).await {
                Ok(()) => error,
                Err(left) => error.tried(format!("{left}; the next build of it begins with dropping it")),
            });
        }
        nobody_is_in(session, &building).await?;
        // Sealed before it gets its name: whoever finds the name finds a finished template.
        let sealed = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true", ident(&building));
        sql::run(session, "seal the template", sealed).await?;
        let named = format!("ALTER DATABASE {} RENAME TO {}", ident(&building), ident(&template));
        sql::run(session, "name the template", named).await
    }

    /// Who owns the databases of this script: a plain role on servers of the house.
    fn owner(&self, script: &Script) -> Option<&'static str> {
        (!self.is_guest() && !script.superuser).then_some(names::OWNER)
    }

    /// How tests on a database of this script connect.
    pub(crate) fn test_options(&self, superuser: bool) -> PgConnectOptions {
        match &self.tenancy {
            Tenancy::Ours(_) if !superuser => self.base.clone().username(names::OWNER),
            _ => self.base.clone(),
        }
    }

    /// Roles belong to the whole server and are never taken back: they may do nothing but what a template grants them.
    async fn make_roles(&self, session: &mut PgConnection, script: &Script) -> CoreResult {
        for role in &script.roles {
            let known = format!("select 1 from pg_roles where rolname = {}", literal(role));
            if !sql::rows(session, "look for a role", known).await?.is_empty() {
                continue;
            }
            if self.is_guest() {
                let what = format!("the template needs the role `{role}`, which this server does not have");
                return Err(Error::new(ErrorKind::Config, what).remedy(format!(
                    "CREATE ROLE {} LOGIN: on a foreign server the harness makes no roles",
                    ident(role)
                )));
            }
            let text = format!("CREATE ROLE {} LOGIN", ident(role));
            match sql::run(session, "create a role", text).await {
                Err(error) if sql::has_code(&error, "42710") || sql::has_code(&error, "23505") => {} // somebody else did
                other => other?,
            }
        }
        Ok(())
    }

    async fn fill(&self, database: &str, script: &Script) -> CoreResult {
        let at = |options: PgConnectOptions| options.database(database);
        let plain = at(self.test_options(script.superuser));
        let mut owner = sql::connect(&plain).await?;
        for part in &script.parts {
            match &part.work {
                Work::Sql(text) if part.privileged && !self.is_guest() => {
                    let mut session = sql::connect(&at(self.base.clone())).await?;
                    execute(&mut session, text).await.map_err(|error| part_failed(part, text, error))?;
                    sql::close(session).await?;
                }
                Work::Sql(text) => match execute(&mut owner, text).await {
                    Err(error) if self.owner(script).is_some() && is_privilege(&error) => {
                        let builder = at(self.base.clone().username(names::BUILDER));
                        self.fill_as_builder(&builder, part, text).await?;
                    }
                    other => other.map_err(|error| part_failed(part, text, error))?,
                },
                Work::Code(_, code) => {
                    let url = self.url_of(&plain, database);
                    code(url).await.map_err(|failure| code_failed(part, &failure))?;
                }
            }
        }
        sql::close(owner).await
    }

    /// What the owner may not do, a superuser does for it, and hands over what was made.
    async fn fill_as_builder(&self, builder: &PgConnectOptions, part: &Part, text: &str) -> CoreResult {
        let mut session = sql::connect(builder).await?;
        execute(&mut session, text).await.map_err(|error| part_failed(part, text, error))?;
        let hand_over = format!("REASSIGN OWNED BY {} TO {}", names::BUILDER, names::OWNER);
        sql::run(&mut session, "hand the template over to its owner", hand_over).await.map_err(|error| {
            let what = format!("{} makes something that only a superuser can own", part.label);
            Error::new(ErrorKind::Config, what).caused_by(error).remedy("make the template with `.superuser()`")
        })?;
        sql::close(session).await
    }

    /// The URL of a database here, for whoever connects with these options.
    pub(crate) fn url_of(&self, options: &PgConnectOptions, database: &str) -> String {
        match &self.tenancy {
            // Somebody else's URL may ask for TLS and the like: everything but the database stays.
            Tenancy::Guest { url, .. } => guest::with_database(url, database),
            Tenancy::Ours(attached) => format!("postgres://{}@{}/{database}", options.get_username(), attached.address),
            Tenancy::Observed => sqlx::ConnectOptions::to_url_lossy(options).to_string(),
        }
    }
}

/// Fills a database of a server that no other test sees, as its superuser: the layers below first.
pub(super) async fn fill_alone(options: &PgConnectOptions, url: &str, script: &Script) -> CoreResult {
    if let Some(parent) = &script.parent {
        Box::pin(fill_alone(options, url, parent)).await?;
    }
    let mut session = sql::connect(options).await?;
    for role in &script.roles {
        sql::run(&mut session, "create a role", format!("CREATE ROLE {} LOGIN", ident(role))).await?;
    }
    for part in &script.parts {
        match &part.work {
            Work::Sql(text) => execute(&mut session, text).await.map_err(|error| part_failed(part, text, error))?,
            Work::Code(_, code) => code(url.to_owned()).await.map_err(|failure| code_failed(part, &failure))?,
        }
    }
    sql::close(session).await
}

fn code_failed(part: &Part, failure: &harness_core::Failure) -> Error {
    Error::new(ErrorKind::Config, format!("the template could not be built: {}", part.label))
        .tried(format!("{failure:?}"))
}

/// Runs one part, in one implicit transaction unless its text says otherwise.
async fn execute(session: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    session.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()))).await.map(drop)
}

/// `insufficient_privilege`.
fn is_privilege(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42501")
}

async fn exists(session: &mut PgConnection, name: &str) -> CoreResult<bool> {
    let text = format!("select 1 from pg_database where datname = {}", literal(name));
    Ok(!sql::rows(session, "look for the template", text).await?.is_empty())
}

/// A session that was closed lives on in the server for some milliseconds; `RENAME` would poll for it every 100 ms. What
/// code leaves open longer is cut off: it said that it was done.
async fn nobody_is_in(session: &mut PgConnection, name: &str) -> CoreResult {
    match builder_leaves(session, name, LEAVES).await {
        Err(error) if error.kind() == ErrorKind::Timeout => {
            let cut =
                format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = {}", literal(name));
            sql::rows(session, "cut off what the template's builder left open", cut).await?;
            builder_leaves(session, name, CUT).await
        }
        other => other,
    }
}

async fn builder_leaves(session: &mut PgConnection, name: &str, limit: Duration) -> CoreResult {
    let text = format!("select count(*) from pg_stat_activity where datname = {}", literal(name));
    wait_for("the template's builder to leave", limit, async || {
        match sql::rows(session, "count sessions in the template", text.clone()).await {
            Ok(rows) => match rows.first().and_then(|row| row.try_get::<i64, _>(0).ok()) {
                Some(0) => Progress::Ready(()),
                Some(left) => Progress::NotYet(format!("{left} sessions left")),
                None => Progress::NotYet("no count".to_owned()),
            },
            Err(error) => Progress::Failed(error),
        }
    })
    .await
}

/// Names the file, the line and the server's words.
fn part_failed(part: &Part, text: &str, error: sqlx::Error) -> Error {
    let mut place = part.label.clone();
    if let sqlx::Error::Database(database) = &error
        && let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        && let Some(sqlx::postgres::PgErrorPosition::Original(at)) = postgres.position()
    {
        let before = text.chars().take(at.saturating_sub(1)).filter(|&c| c == '\n').count();
        place = format!("{place}, line {}", before + 1);
    }
    let error = sql::statement_error(format!("the template could not be built: {place}"), error);
    match error.kind() {
        ErrorKind::Config => error.remedy("correct the statement; nothing of this template was kept"),
        _ => error.tried("nothing of this template was kept"),
    }
}
