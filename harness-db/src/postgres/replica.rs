//! A streaming replica of a server of one's own: a real standby, whose replay can be held up on purpose.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::wait::{Progress, seconds, wait_for, within};
use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection as _, PgConnection, PgPool, Row as _};

use super::channel::Channel;
use super::own::{planned, pool_at};
use super::settings::{Settings, read_back};
use super::{OwnPostgres, readiness, sql};
use crate::provider::own;
use crate::provider::recipe::postgres::Wish;

/// How long a new replica may take to show a write of its primary, and a verb to show its effect.
const EFFECT_LIMIT: Duration = Duration::from_secs(30);
/// `pg_promote` waits for this many seconds itself.
const PROMOTE_SECONDS: u64 = 30;

/// How far a replica is behind its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// Bytes of write-ahead log that the primary has written and the replica has not replayed.
    pub bytes: u64,
    /// How long ago the newest replayed transaction was committed on the primary; zero when nothing is behind, `None` when
    /// something is behind and none was replayed yet.
    pub time: Option<Duration>,
}

/// A streaming replica (hot standby) on 127.0.0.1: answers reads, refuses writes, follows its primary over a replication
/// slot (PostgreSQL documentation, 27.2 "Log-Shipping Standby Servers").
///
/// ```no_run
/// use std::time::Duration;
/// use harness_core::scope::TestScope;
/// use harness_db::{OwnOptions, OwnPostgres};
///
/// # async fn example() -> harness_db::Result {
/// let scope = TestScope::current();
/// let primary = OwnPostgres::start(&scope, OwnOptions::new().replicas(1)).await?;
/// let replica = &primary.replicas()[0];
/// primary.run("create table orders(id int); insert into orders values (1)").await?;
/// replica.caught_up(Duration::from_secs(5)).await?;
/// replica.pause_replay().await?; // from here on it answers with the past
/// primary.run("insert into orders values (2)").await?;
/// assert!(replica.lag().await?.bytes > 0);
/// replica.resume_replay().await?;
/// primary.kill().await?;
/// replica.promote().await?; // takes writes from now on
/// # Ok(()) }
/// ```
///
/// It was ready when a write made on the primary was visible on it. Its scope ends it.
#[derive(Debug)]
pub struct Replica {
    service: Service,
    channel: Channel,
    settings: Settings,
    pub(super) primary: PgConnectOptions,
    pool: PgPool,
}

impl OwnPostgres {
    /// Starts one more streaming replica of this server.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] when this server runs in a container of its own network, where a replica cannot reach it (ask
    /// for [`OwnOptions::replicas`](super::OwnOptions::replicas) at the start), or there is no `pg_basebackup`;
    /// [`ErrorKind::Config`] when its settings forbid replicas (`wal_level=minimal`); [`ErrorKind::Timeout`] when no write
    /// of the primary shows on it within 30 s.
    pub async fn replica(&self, scope: &TestScope) -> CoreResult<Replica> {
        static COUNT: AtomicU32 = AtomicU32::new(1);

        self.may_be_followed().await?;
        let (at, provider) = (self.address(), self.choice().provider);
        let slot = format!("replica_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut settings = self.settings.clone();
        // A replica whose primary was away asks for it again soon, and not after five seconds.
        settings.push(("wal_retrieve_retry_interval".to_owned(), "200ms".to_owned()));
        let (for_recipe, files, vector) = (settings.clone(), self.files.clone(), self.vector);
        let plan = move |provider| {
            planned(
                provider,
                &for_recipe,
                Wish { vector, files: &files, follows: Some((at, &slot)), ..Wish::default() },
            )
        };
        let question = self.channel.clone();
        let ready = move |at: SocketAddr| -> own::Asking {
            let options = question.dress(sql::own_options(at));
            Box::pin(async move { readiness::answers_twice(&options).await.into() })
        };
        let (service, _) = own::start("postgres-replica", scope, Some(vec![provider]), plan, ready).await?;
        let pool = pool_at(self.channel.dress(sql::own_options(service.address())));
        let (channel, primary) = (self.channel.clone(), self.options());
        let replica = Replica { service, channel, settings, primary, pool };
        replica.shows_a_write().await?;
        replica.check_settings().await?;
        Ok(replica)
    }

    /// Refuses what can never have a replica, before anything is copied.
    async fn may_be_followed(&self) -> CoreResult {
        if !self.reachable {
            let what = "a replica could not reach this server: it runs in a container with a network of its own";
            return Err(Error::new(ErrorKind::Environment, what)
                .tried(format!("the primary is {}", self.choice().what))
                .remedy("start it with `OwnOptions::replicas(1)`: it then shares this machine's network"));
        }
        let mut session = self.connect().await?;
        let ask = "select current_setting('wal_level'), current_setting('max_wal_senders')";
        let row = one(&mut session, "ask whether the server can have replicas", ask).await?;
        let _ = session.close().await;
        let (level, senders): (String, String) = (column(&row, 0)?, column(&row, 1)?);
        if level == "minimal" || senders == "0" {
            let what = format!("this server allows no replicas: wal_level={level}, max_wal_senders={senders}");
            return Err(Error::new(ErrorKind::Config, what)
                .remedy("start it durable (`OwnOptions::new()`), or with wal_level=replica and max_wal_senders=10"));
        }
        Ok(())
    }
}

impl Replica {
    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Its maintenance database as a URL; what it demands is what the primary demands.
    #[must_use]
    pub fn url(&self) -> String {
        self.channel.url(&self.options())
    }

    /// A database of the primary as a URL to the replica.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        self.channel.url(&self.options().database(database))
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

    /// The service, for logs, pids and experiments.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A connection to its maintenance database.
    ///
    /// # Errors
    /// When it refuses the connection or says nothing for 5 s.
    pub async fn connect(&self) -> CoreResult<PgConnection> {
        sql::connect(&self.options()).await
    }

    /// How far it is behind what its primary had written when it was asked.
    ///
    /// # Errors
    /// When one of the two does not answer.
    pub async fn lag(&self) -> CoreResult<Lag> {
        self.behind(&self.primary_position().await?).await
    }

    /// Waits until it has replayed everything the primary had written at the time of the call.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] saying how far it is behind, and whether replay is paused.
    pub async fn caught_up(&self, limit: Duration) -> CoreResult {
        let position = self.primary_position().await?;
        wait_for(format!("the replica at {} to replay {position}", self.address()), limit, async || {
            match self.behind(&position).await {
                Ok(Lag { bytes: 0, .. }) => Progress::Ready(()),
                Ok(lag) => {
                    let state = self.replay_state().await.unwrap_or_else(|error| error.to_string());
                    Progress::NotYet(format!("{} bytes behind, replay {state}", lag.bytes))
                }
                Err(error) => Progress::NotYet(error.to_string()),
            }
        })
        .await
    }

    /// Holds up replay: what the primary writes from here on is received and not shown (`pg_wal_replay_pause`, PostgreSQL
    /// documentation, 9.27.4 "Recovery Control Functions"). Proven by its state.
    ///
    /// # Errors
    /// When it does not answer, is no replica any more, or does not pause.
    pub async fn pause_replay(&self) -> CoreResult {
        self.run("pause the replay", "select pg_wal_replay_pause()").await?;
        self.until_replay("paused").await
    }

    /// Ends [`Replica::pause_replay`]. Proven by its state; what was held up is shown soon after: see
    /// [`Replica::caught_up`].
    ///
    /// # Errors
    /// As [`Replica::pause_replay`].
    pub async fn resume_replay(&self) -> CoreResult {
        self.run("resume the replay", "select pg_wal_replay_resume()").await?;
        self.until_replay("not paused").await
    }

    /// Makes it a primary of its own: it stops to follow and takes writes. Proven by its state. What it had not received
    /// is lost to it.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it was promoted already; [`ErrorKind::Timeout`] when it does not become one.
    pub async fn promote(&self) -> CoreResult {
        let text = format!("select pg_promote(true, {PROMOTE_SECONDS})");
        let limit = Duration::from_secs(PROMOTE_SECONDS) + EFFECT_LIMIT;
        within("the promotion of the replica", limit, self.run("promote the replica", &text)).await??;
        wait_for(format!("the replica at {} to take writes", self.address()), EFFECT_LIMIT, async || {
            match self.is_following().await {
                Ok(false) => Progress::Ready(()),
                Ok(true) => Progress::NotYet("it is in recovery".to_owned()),
                Err(error) => Progress::NotYet(error.to_string()),
            }
        })
        .await
    }

    /// True while it is a standby, false once it was promoted.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn is_following(&self) -> CoreResult<bool> {
        let mut session = self.connect().await?;
        let row = one(&mut session, "ask the replica what it is", "select pg_is_in_recovery()").await?;
        let _ = session.close().await;
        column(&row, 0)
    }

    /// Stops it in good order. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn stop(&self) -> CoreResult {
        self.service.stop().await.map(drop)
    }

    /// Kills it. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn kill(&self) -> CoreResult {
        self.service.kill().await.map(drop)
    }

    /// Starts it again at the same address; the primary kept what it missed. Proven by two answers and its settings.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs; [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        self.service.start_again().await?;
        self.check_settings().await
    }

    async fn check_settings(&self) -> CoreResult {
        let mut session = self.connect().await?;
        read_back(&mut session, &self.settings).await?;
        session.close().await.map_err(|error| sql::query_error("leave the replica", error))
    }

    /// The end of the primary's write-ahead log.
    pub(super) async fn primary_position(&self) -> CoreResult<String> {
        let mut session = sql::connect(&self.primary).await?;
        let row = one(&mut session, "ask the primary for its position", "select pg_current_wal_lsn()::text").await?;
        let _ = session.close().await;
        column(&row, 0)
    }

    async fn behind(&self, position: &str) -> CoreResult<Lag> {
        let mut session = self.connect().await?;
        let ask = format!(
            "select greatest(pg_wal_lsn_diff({}, pg_last_wal_replay_lsn()), 0)::bigint, \
             extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8",
            sql::literal(position)
        );
        let row = one(&mut session, "ask the replica for its position", &ask).await?;
        let _ = session.close().await;
        let bytes = column::<Option<i64>>(&row, 0)?.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, format!("the server at {} has replayed nothing", self.address()))
                .remedy("it is no replica; was it promoted?")
        })?;
        let age: Option<f64> = column(&row, 1)?;
        let time = match bytes {
            0 => Some(Duration::ZERO),
            _ => age.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
        };
        Ok(Lag { bytes: bytes.unsigned_abs(), time })
    }

    async fn replay_state(&self) -> CoreResult<String> {
        let mut session = self.connect().await?;
        let ask = "select pg_get_wal_replay_pause_state()";
        let row = one(&mut session, "ask for the state of the replay", ask).await?;
        let _ = session.close().await;
        column(&row, 0)
    }

    async fn until_replay(&self, wanted: &str) -> CoreResult {
        wait_for(format!("replay at {} to be {wanted}", self.address()), EFFECT_LIMIT, async || {
            match self.replay_state().await {
                Ok(state) if state == wanted => Progress::Ready(()),
                Ok(state) => Progress::NotYet(state),
                Err(error) => Progress::Failed(error),
            }
        })
        .await
    }

    async fn run(&self, what: &str, text: &str) -> CoreResult {
        let mut session = self.connect().await?;
        sql::run(&mut session, &format!("{what} at {}", self.address()), text).await?;
        let _ = session.close().await;
        Ok(())
    }

    /// Ready means: a table made on the primary is seen here. It is dropped again.
    async fn shows_a_write(&self) -> CoreResult {
        let table = format!("public.harness_seen_{}", self.address().port());
        let mut primary = sql::connect(&self.primary).await?;
        sql::run(&mut primary, "make a write for the replica to show", format!("create table {table}()")).await?;
        let ask = format!("select to_regclass({}) is not null", sql::literal(&table));
        let what = format!("a write of the primary to show on the replica at {}", self.address());
        let shown = wait_for(what, EFFECT_LIMIT, async || match self.sees(&ask).await {
            Ok(true) => Progress::Ready(()),
            Ok(false) => Progress::NotYet("it does not show".to_owned()),
            Err(error) => Progress::NotYet(error.to_string()),
        })
        .await;
        sql::run(&mut primary, "take the write back", format!("drop table {table}")).await?;
        let _ = primary.close().await;
        shown.map_err(|error| {
            let why = format!("the replica at {} does not follow its primary", self.address());
            Error::new(error.kind(), why).caused_by(error).log(self.service.log_lines(10))
        })
    }

    async fn sees(&self, ask: &str) -> CoreResult<bool> {
        let mut session = self.connect().await?;
        let row = one(&mut session, "look for the write", ask).await?;
        let _ = session.close().await;
        column(&row, 0)
    }
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.time {
            Some(time) => write!(f, "{} bytes, {}", self.bytes, seconds(time)),
            None => write!(f, "{} bytes, nothing replayed yet", self.bytes),
        }
    }
}

pub(super) async fn one(session: &mut PgConnection, what: &str, text: &str) -> CoreResult<PgRow> {
    let rows = sql::rows(session, what, text).await?;
    rows.into_iter().next().ok_or_else(|| Error::new(ErrorKind::Protocol, format!("got no row to {what}")))
}

pub(super) fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> CoreResult<T> {
    row.try_get(at).map_err(|error| sql::query_error("read the server's answer", error))
}
