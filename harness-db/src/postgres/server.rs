//! A running server that many tests share: its sessions for creating and dropping databases, and its templates.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness_core::keeper::Attached;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::guest::Presence;
use super::sql::{self, ident, literal};
use super::template::{Part, Script};
use super::{Capabilities, Strategy, names};
use crate::provider::Choice;

/// A Postgres server shared by all tests of this user, or handed in by URL.
///
/// Nobody may stop, kill or pause it: other tests live on it. [`Server::stop`] and its siblings exist to say so.
#[derive(Debug)]
pub struct Server {
    base: PgConnectOptions,
    capabilities: Capabilities,
    choice: Choice,
    tenancy: Tenancy,
    lease: String,
    next: AtomicU64,
    creator: AsyncMutex<Option<PgConnection>>,
    dropper: AsyncMutex<Option<PgConnection>>,
    built: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    warm: Mutex<HashMap<String, Warm>>,
    strategy: Mutex<Option<Strategy>>,
}

/// Under which roof the databases live.
#[derive(Debug)]
pub(crate) enum Tenancy {
    /// A shared server of the house: the keeper ends what a lease left behind.
    Ours(Box<Attached>),
    /// Somebody else's server: a session advisory lock says that we live.
    Guest(Presence),
    /// The system under test owns it: we look and touch nothing.
    Observed,
}

/// Databases made before they are asked for.
#[derive(Debug, Default)]
struct Warm {
    asked: u32,
    ready: Vec<String>,
}

impl Server {
    pub(crate) fn new(
        base: PgConnectOptions,
        capabilities: Capabilities,
        choice: Choice,
        tenancy: Tenancy,
        lease: String,
    ) -> Self {
        Self {
            base,
            capabilities,
            choice,
            tenancy,
            lease,
            next: AtomicU64::new(1),
            creator: AsyncMutex::new(None),
            dropper: AsyncMutex::new(None),
            built: Mutex::default(),
            warm: Mutex::default(),
            strategy: Mutex::default(),
        }
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
        matches!(self.tenancy, Tenancy::Guest(_))
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

    /// A database cloned from the template of this script, and its name.
    pub(crate) async fn database(self: &Arc<Self>, script: Script) -> CoreResult<String> {
        let key = script.key(&self.capabilities);
        let template = names::template(&key);
        let built = {
            let mut all = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key.clone()).or_default())
        };
        built.get_or_try_init(|| self.ensure_template(&key, &script)).await?;
        let name = match self.take_warm(&template, true) {
            Some(name) => name,
            None => self.clone_of(&template, false).await?,
        };
        self.warm_up(&template);
        Ok(name)
    }

    /// A database made ahead, if there is one. Counts how often the template is asked for.
    fn take_warm(&self, template: &str, is_request: bool) -> Option<String> {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = warm.entry(template.to_owned()).or_default();
        entry.asked += u32::from(is_request);
        entry.ready.pop()
    }

    /// Makes one database ahead once a template was asked for twice: a process of many tests will ask again, a process
    /// per test (nextest) never does.
    fn warm_up(self: &Arc<Self>, template: &str) {
        {
            let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
            let again = warm.get(template).is_some_and(|entry| entry.asked >= 2 && entry.ready.is_empty());
            if !again || self.is_guest() {
                return;
            }
        }
        let (server, template) = (Arc::clone(self), template.to_owned());
        crate::clerk::spawn(move || async move {
            // What fails here is tried again, and reported, by the request that would have got it.
            let _ = server.clone_of(&template, true).await;
        });
    }

    /// Clones the template; `ahead` puts the clone aside for the next request. One clone at a time: whoever waited for
    /// one that was made ahead takes it instead of making another.
    async fn clone_of(&self, template: &str, ahead: bool) -> CoreResult<String> {
        let mut session = self.creator.lock().await;
        if let Some(name) = self.take_warm(template, false) {
            if ahead {
                self.put_aside(template, name.clone());
            }
            return Ok(name);
        }
        let name = names::database(&self.lease, self.next.fetch_add(1, Ordering::Relaxed));
        let text = create(&name, template, self.strategy());
        self.admin_on(&mut session, "clone the template", &text).await?;
        if ahead {
            self.put_aside(template, name.clone());
        }
        Ok(name)
    }

    fn put_aside(&self, template: &str, name: String) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        warm.entry(template.to_owned()).or_default().ready.push(name);
    }

    /// Drops a database of ours; whoever is still connected to it is cut off.
    pub(crate) async fn drop_database(&self, name: &str) -> CoreResult {
        let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name));
        self.admin(&self.dropper, "drop the test's database", &text).await
    }

    /// Marks a database as kept until a moment, so that no sweep takes it.
    pub(crate) async fn mark_kept(&self, name: &str, until: std::time::SystemTime) -> CoreResult {
        let text = format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&names::kept_comment(until)));
        self.admin(&self.dropper, "mark the database as kept", &text).await
    }

    async fn admin(&self, session: &AsyncMutex<Option<PgConnection>>, what: &str, text: &str) -> CoreResult {
        self.admin_on(&mut *session.lock().await, what, text).await
    }

    /// Runs one statement over a session that is opened on first use, and opened again once when it broke.
    async fn admin_on(&self, session: &mut Option<PgConnection>, what: &str, text: &str) -> CoreResult {
        let fresh = session.is_none();
        let result = self.admin_once(session, what, text).await;
        match result {
            Err(error) if error.kind() == ErrorKind::Connect && !fresh => {
                *session = None;
                self.admin_once(session, what, text).await
            }
            other => other,
        }
    }

    async fn admin_once(&self, session: &mut Option<PgConnection>, what: &str, text: &str) -> CoreResult {
        let connection = match session {
            Some(connection) => connection,
            None => session.insert(sql::connect(&self.base).await?),
        };
        sql::run(connection, what, text).await
    }

    /// How clones are made: measured once per server of the house; on a guest's server by whether it syncs.
    fn strategy(&self) -> Strategy {
        let mut known = self.strategy.lock().unwrap_or_else(PoisonError::into_inner);
        *known.get_or_insert_with(|| match &self.tenancy {
            Tenancy::Ours(attached) => Strategy::load(&attached.slot).unwrap_or(Strategy::WalLog),
            Tenancy::Guest(_) | Tenancy::Observed if self.capabilities.fsync => Strategy::WalLog,
            Tenancy::Guest(_) | Tenancy::Observed => Strategy::FileCopy,
        })
    }

    /// Builds the template unless it is there: one builder at a time, across processes.
    async fn ensure_template(&self, key: &str, script: &Script) -> CoreResult {
        if let Tenancy::Guest(presence) = &self.tenancy {
            presence.uses_template(key).await?; // from here on no sweep takes it
        }
        let mut session = sql::connect(&self.base).await?;
        let lock = names::build_lock(key);
        sql::run(&mut session, "wait for the builder of the template", format!("select pg_advisory_lock({lock})"))
            .await?;
        let result = self.build_under_lock(&mut session, key, script).await;
        let _ = session.close().await; // ends the lock too
        result
    }

    async fn build_under_lock(&self, session: &mut PgConnection, key: &str, script: &Script) -> CoreResult {
        let template = names::template(key);
        if exists(session, &template).await? {
            return Ok(());
        }
        let building = names::building(&self.lease, key);
        let blank = create(&building, "template0", Strategy::WalLog);
        sql::run(session, "clear an abandoned build", format!("DROP DATABASE IF EXISTS {}", ident(&building))).await?;
        sql::run(session, "create the template's database", blank).await?;
        if let Err(error) = self.fill(&building, script).await {
            let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&building));
            sql::run(session, "drop the failed template", text).await?;
            return Err(error);
        }
        nobody_is_in(session, &building).await?;
        // Sealed before it gets its name: whoever finds the name finds a finished template.
        let sealed = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true", ident(&building));
        sql::run(session, "seal the template", sealed).await?;
        if let Tenancy::Ours(attached) = &self.tenancy
            && Strategy::load(&attached.slot).is_none()
        {
            let fastest = self.measure(session, &building).await?;
            fastest.store(&attached.slot)?;
            *self.strategy.lock().unwrap_or_else(PoisonError::into_inner) = Some(fastest);
        }
        let named = format!("ALTER DATABASE {} RENAME TO {}", ident(&building), ident(&template));
        sql::run(session, "name the template", named).await
    }

    async fn fill(&self, database: &str, script: &Script) -> CoreResult {
        let mut connection = sql::connect(&self.base.clone().database(database)).await?;
        for part in &script.parts {
            if let Err(error) = connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(part.text.clone()))).await {
                return Err(part_failed(part, error));
            }
        }
        connection.close().await.map_err(|error| sql::query_error("leave the template", error))
    }

    /// Clones twice with each strategy and takes the faster: which one wins depends on the disk, not on the version.
    async fn measure(&self, session: &mut PgConnection, template: &str) -> CoreResult<Strategy> {
        let mut best: Option<(Duration, Strategy)> = None;
        for strategy in [Strategy::FileCopy, Strategy::WalLog, Strategy::FileCopy, Strategy::WalLog] {
            let name = names::database(&self.lease, self.next.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            sql::run(session, "measure a clone", create(&name, template, strategy)).await?;
            let took = begun.elapsed();
            sql::run(session, "drop the measured clone", format!("DROP DATABASE {}", ident(&name))).await?;
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, strategy));
            }
        }
        Ok(best.map_or(Strategy::WalLog, |(_, strategy)| strategy))
    }
}

fn create(name: &str, template: &str, strategy: Strategy) -> String {
    format!("CREATE DATABASE {} TEMPLATE {} STRATEGY {}", ident(name), ident(template), strategy.sql())
}

async fn exists(session: &mut PgConnection, name: &str) -> CoreResult<bool> {
    let text = format!("select 1 from pg_database where datname = {}", literal(name));
    Ok(!sql::rows(session, "look for the template", text).await?.is_empty())
}

/// A session that was closed lives on in the server for some milliseconds; `RENAME` would poll for it every 100 ms.
async fn nobody_is_in(session: &mut PgConnection, name: &str) -> CoreResult {
    let text = format!("select count(*) from pg_stat_activity where datname = {}", literal(name));
    wait_for("the template's builder to leave", Duration::from_secs(10), async || {
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
fn part_failed(part: &Part, error: sqlx::Error) -> Error {
    let mut place = part.label.clone();
    if let sqlx::Error::Database(database) = &error
        && let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()
        && let Some(sqlx::postgres::PgErrorPosition::Original(at)) = postgres.position()
    {
        let before = part.text.chars().take(at.saturating_sub(1)).filter(|&c| c == '\n').count();
        place = format!("{place}, line {}", before + 1);
    }
    Error::new(ErrorKind::Config, format!("the template could not be built: {place}"))
        .caused_by(error)
        .remedy("correct the statement; nothing of this template was kept")
}
