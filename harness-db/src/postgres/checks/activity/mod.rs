//! Who is connected to the database, now and sampled over time, from `pg_stat_activity` (PostgreSQL docs 27.2.3).

mod sampler;
mod series;
mod session;

use harness_core::CoreResult;
use sqlx::Connection as _;
use sqlx::postgres::PgConnectOptions;

use super::sampling::OWN_NAME;
use super::{Database, sql};

pub use sampler::{SessionSampler, Sessions};
pub use series::{Lasting, SessionPoint, SessionSeries};
pub use session::Session;
pub(crate) use session::{one_line, read};

impl Database {
    /// A sampler of this database's sessions, every 100 ms unless set otherwise.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.observer(), self.name().to_owned())
    }

    /// All client sessions of this database, now: idle ones too, with their last statement and since when.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn sessions_now(&self) -> CoreResult<Vec<Session>> {
        let mut connection = sql::connect(&self.observer()).await?;
        let sessions = read(&mut connection, self.name()).await;
        let _ = connection.close().await;
        sessions
    }

    /// The sessions of this database that are not idle, now: what was going on when a test stopped. None is an empty list.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn busy_sessions(&self) -> CoreResult<Vec<Session>> {
        Ok(self.sessions_now().await?.into_iter().filter(Session::is_busy).collect())
    }

    /// How an observer connects: by the server's own role, to its maintenance database, under a name that is not counted.
    pub(crate) fn observer(&self) -> PgConnectOptions {
        self.server().options().clone().application_name(OWN_NAME)
    }
}
