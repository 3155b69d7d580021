//! What the steward does to the server: clones, looks, drops.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use harness_core::keeper::ServerState;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::sync::Semaphore;

use super::super::names::{self, Whose};
use super::super::sql::{self, ident, literal};
use super::super::strategy::{Strategy, Trial};
use super::super::{Capabilities, guest};
use super::rinse::{self, Pristine, Traces};
use super::state::{SPARE, USUAL};

/// Sessions of the steward: four that clone, two that drop, and some that look.
const MOST_SESSIONS: usize = 8;
/// Sessions of a used database are given this long to leave by themselves, then they are cut off.
const LEAVES: Duration = Duration::from_millis(500);
/// `object_in_use`.
const IN_USE: &str = "55006";
/// Sessions that were cut off are gone within this.
const CUT: Duration = Duration::from_secs(10);

/// The steward's hands: sessions as superuser (or as the user of a foreign server).
#[derive(Debug)]
pub(super) struct Admin {
    base: PgConnectOptions,
    /// Owner of the clones; nobody in particular on a foreign server.
    owner: Option<&'static str>,
    /// Part of the names of clones.
    mark: String,
    presence: Option<guest::Presence>,
    /// The server counts statements, also those of the test before.
    counts_statements: bool,
    next: Cell<u64>,
    sessions: RefCell<Vec<PgConnection>>,
    /// Tests need the server's connections more than we do.
    turns: Semaphore,
    trial: RefCell<Trial>,
    /// When the statistics of each handed-back database were last reset, as the server says.
    resets: RefCell<HashMap<String, String>>,
    /// What of each template a used database can be taken back to: seen in its second clone. The first is in a hurry.
    pristine: RefCell<HashMap<String, Option<Rc<Pristine>>>>,
}

impl Admin {
    /// For a server that the keeper keeps.
    pub(super) fn ours(server: &ServerState, capabilities: &Capabilities) -> Self {
        Self {
            base: sql::own_options(server.address),
            owner: Some(names::OWNER),
            mark: names::POOL.to_owned(),
            presence: None,
            counts_statements: capabilities.pg_stat_statements,
            next: Cell::new(1),
            sessions: RefCell::default(),
            turns: Semaphore::new(MOST_SESSIONS),
            trial: RefCell::default(),
            resets: RefCell::default(),
            pristine: RefCell::default(),
        }
    }

    /// For somebody else's server: says there that this keeper lives.
    pub(super) async fn guest(url: &str, server: &ServerState, capabilities: &Capabilities) -> CoreResult<Self> {
        let base = sql::parse_url("HARNESS_POSTGRES_URL", url)?.application_name("harness");
        let mark = guest::lease(server.keeper);
        let presence = guest::Presence::take(&base, &mark).await?;
        let trial = if capabilities.fsync { Trial::settled(Strategy::WalLog) } else { Trial::default() };
        let ours = Self::ours(server, capabilities);
        Ok(Self { base, owner: None, mark, presence: Some(presence), trial: RefCell::new(trial), ..ours })
    }

    /// A session that waits for work, else a new one.
    async fn session(&self) -> CoreResult<PgConnection> {
        let waiting = self.sessions.borrow_mut().pop();
        match waiting {
            Some(session) => Ok(session),
            None => sql::connect(&self.base).await,
        }
    }

    /// Runs over a session; one that broke while it waited is replaced once.
    async fn run(&self, what: &str, text: &str) -> CoreResult {
        let _turn = self.turns.acquire().await;
        let mut session = self.session().await?;
        let mut result = sql::run(&mut session, what, text).await;
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Connect) {
            session = sql::connect(&self.base).await?;
            result = sql::run(&mut session, what, text).await;
        }
        self.sessions.borrow_mut().push(session);
        result
    }

    async fn rows(&self, what: &str, text: &str) -> CoreResult<Vec<PgRow>> {
        let _turn = self.turns.acquire().await;
        let mut session = self.session().await?;
        let rows = sql::rows(&mut session, what, text).await;
        if rows.is_ok() {
            self.sessions.borrow_mut().push(session);
        }
        rows
    }

    /// True when the template is there. On a foreign server no sweep takes it from here on.
    pub(super) async fn exists(&self, template: &str) -> CoreResult<bool> {
        if let (Some(presence), Some(Whose::Template(key))) = (&self.presence, names::whose(template)) {
            presence.lasts(Some(key)).await?;
        }
        let text = format!("select 1 from pg_database where datname = {}", literal(template));
        Ok(!self.rows("look for the template", &text).await?.is_empty())
    }

    /// Clones a template; the clone's name.
    pub(super) async fn clone_of(&self, template: &str) -> CoreResult<String> {
        if let Some(presence) = &self.presence {
            presence.lasts(None).await?; // else another machine takes the clone for one of a dead keeper
        }
        let n = self.next.replace(self.next.get() + 1);
        let name = names::database(&self.mark, n);
        let owner = self.owner.map(|owner| format!(" OWNER {}", ident(owner))).unwrap_or_default();
        let strategy = self.trial.borrow_mut().next();
        let text = format!(
            "CREATE DATABASE {} TEMPLATE {} STRATEGY {}{owner} CONNECTION LIMIT {}",
            ident(&name),
            ident(template),
            strategy.sql(),
            USUAL + SPARE,
        );
        let begun = Instant::now();
        let cloned = self.run("clone the template", &text).await;
        if cloned.as_ref().is_err_and(sql::is_disk_full) {
            self.trial.borrow_mut().disk_was_full();
        }
        cloned.map_err(|error| match sql::has_code(&error, IN_USE) {
            true => Error::new(ErrorKind::Environment, format!("the template {} is in use", ident(template)))
                .tried("whoever is connected to it changed it: the harness seals its templates against that")
                .remedy(format!(
                    "end that session: select pid, application_name from pg_stat_activity where datname = {}",
                    literal(template)
                ))
                .caused_by(error),
            false => error,
        })?;
        self.trial.borrow_mut().took(strategy, begun.elapsed());
        self.look_into(template, &name).await;
        Ok(name)
    }

    /// Sees what a used database can be taken back to. Where that fails, used databases are dropped: nothing is lost.
    async fn look_into(&self, template: &str, clone: &str) {
        let is_first = !self.pristine.borrow().contains_key(template);
        let is_known = self.pristine.borrow().get(template).is_some_and(Option::is_some);
        if is_first {
            self.pristine.borrow_mut().insert(template.to_owned(), None);
        }
        // Only a superuser may leave the triggers of the application out.
        if is_first || is_known || self.presence.is_some() {
            return;
        }
        let Ok(mut inside) = sql::connect(&self.base.clone().database(clone)).await else { return };
        if let Ok(pristine) = rinse::pristine(&mut inside).await
            && let Ok(Some(reset)) = begin_anew(&mut inside).await
        {
            self.resets.borrow_mut().insert(clone.to_owned(), reset);
            self.pristine.borrow_mut().insert(template.to_owned(), Some(Rc::new(pristine)));
        }
        let _ = inside.close().await;
        let _ = self.leave_no_trace(clone).await; // the clone is good; only the counts of our own look may stay
    }

    /// Nobody is in the database any more, and no statement counts that was run in it so far: the next test finds its own.
    async fn leave_no_trace(&self, name: &str) -> CoreResult {
        self.everybody_leaves(name).await?;
        if !self.counts_statements {
            return Ok(());
        }
        let text =
            format!("select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = {}", literal(name));
        self.run("forget the statements run in the database so far", &text).await
    }

    pub(super) async fn limit(&self, name: &str, connections: u32) -> CoreResult {
        let text = format!("ALTER DATABASE {} WITH CONNECTION LIMIT {}", ident(name), connections + SPARE);
        self.run("set how many connections the database takes", &text).await
    }

    /// Drops a database with whoever is connected to it.
    pub(super) async fn drop_database(&self, name: &str) -> CoreResult {
        self.resets.borrow_mut().remove(name);
        let text = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name));
        self.run("drop the test's database", &text).await
    }

    /// On a foreign server the database itself says that it is kept: other machines sweep there too.
    pub(super) async fn mark_kept(&self, name: &str, until: SystemTime) -> CoreResult {
        if self.presence.is_none() {
            return Ok(());
        }
        let text = format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&names::kept_comment(until)));
        self.run("mark the database as kept", &text).await
    }

    /// True when the database is as it was cloned: because nothing in it was changed, or because what was changed could be
    /// taken back.
    ///
    /// A session reports what it did before it goes, so that the counters are complete once nobody is there (PostgreSQL
    /// documentation, "The Cumulative Statistics System"). Whatever cannot be told counts as a change.
    pub(super) async fn settle(&self, name: &str, template: &str) -> CoreResult<bool> {
        let rows = self.rows("ask what was changed", &changes(name)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let reset: String = row.try_get::<Option<String>, _>("reset").ok().flatten().unwrap_or_default();
        let known = self.resets.borrow().get(name).cloned().unwrap_or_default();
        if row.try_get::<bool, _>("changed").unwrap_or(true) || reset != known {
            return Ok(false);
        }
        let pristine = self.pristine.borrow().get(template).cloned().flatten();
        let mut inside = sql::connect(&self.base.clone().database(name)).await?;
        let is_clean = match rinse::traces(&mut inside, pristine.as_deref()).await? {
            Traces::None => true,
            Traces::Rows { tables, sequences } => rinse::rinse(&mut inside, &tables, &sequences).await.is_ok(),
            Traces::Other => false,
        };
        let reset = if is_clean { begin_anew(&mut inside).await? } else { None };
        let _ = inside.close().await;
        let Some(reset) = reset else { return Ok(false) };
        self.resets.borrow_mut().insert(name.to_owned(), reset);
        self.leave_no_trace(name).await?;
        Ok(true)
    }

    /// Waits until every session has left; those that stay are cut off.
    pub(super) async fn everybody_leaves(&self, name: &str) -> CoreResult {
        let name = literal(name);
        let count = format!("select pg_stat_get_db_numbackends(oid) from pg_database where datname = {name}");
        let gone = async || match self.rows("count the sessions of the database", &count).await {
            Ok(rows) => match rows.first().map(|row| row.try_get::<i32, _>(0)) {
                None | Some(Ok(0)) => Progress::Ready(()),
                left => Progress::NotYet(format!("{left:?} sessions left")),
            },
            Err(error) => Progress::Failed(error),
        };
        match wait_for("the test's sessions to leave", LEAVES, gone).await {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                let cut = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = {name}");
                self.rows("cut off the sessions of the database", &cut).await?;
                wait_for("the test's sessions to be gone", CUT, gone).await
            }
            other => other,
        }
    }
}

/// True unless everything that the whole server notes about this database says: as it was cloned. What happened inside is
/// asked inside.
fn changes(name: &str) -> String {
    format!(
        "select s.stats_reset::text as reset, coalesce( \
           s.xact_commit + s.xact_rollback = 0 \
           or d.datacl is not null or not d.datallowconn or d.datistemplate \
           or exists (select 1 from pg_db_role_setting where setdatabase = d.oid) \
           or exists (select 1 from pg_shdescription where classoid = 'pg_database'::regclass and objoid = d.oid) \
           or exists (select 1 from pg_shseclabel where classoid = 'pg_database'::regclass and objoid = d.oid) \
           or exists (select 1 from pg_prepared_xacts where database = d.datname) \
           or exists (select 1 from pg_replication_slots where database = d.datname) \
           or exists (select 1 from pg_subscription where subdbid = d.oid), true) as changed \
         from pg_database d left join pg_stat_database s on s.datid = d.oid where d.datname = {}",
        literal(name)
    )
}

/// The next test finds statistics that begin with it; when they did, as the server says.
async fn begin_anew(inside: &mut PgConnection) -> CoreResult<Option<String>> {
    let text = "select pg_stat_reset(); \
                select pg_stat_get_db_stat_reset_time(oid)::text as reset from pg_database where datname = current_database()";
    let rows = sql::rows(inside, "begin its statistics anew", text).await?;
    Ok(rows.last().and_then(|row| row.try_get::<Option<String>, _>("reset").ok().flatten()))
}

impl From<&Error> for super::wire::Refusal {
    fn from(error: &Error) -> Self {
        let mut lines = format!("{error:?}");
        if let Some(at) = lines.find('\n') {
            lines = lines.split_off(at);
        } else {
            lines.clear();
        }
        let tried = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("remedy"));
        Self {
            kind: super::wire::Why::of(error),
            what: error.what().to_owned(),
            tried: tried.map(str::to_owned).collect(),
            remedy: error.remedy_text().map(str::to_owned),
        }
    }
}
