//! One session of a database as `pg_stat_activity` shows it, and how it is read and told.

use std::fmt;
use std::time::Duration;

use harness_core::CoreResult;
use harness_core::wait::seconds;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use crate::postgres::checks::sampling::OWN_NAME;
use crate::postgres::sql;

/// Characters of a statement that are kept.
const STATEMENT: u32 = 500;

/// One session of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Process id of the server process.
    pub pid: i32,
    /// What the client calls itself.
    pub application: String,
    /// The role it runs as.
    pub user: String,
    /// `active`, `idle`, `idle in transaction`, …; empty while a session begins, and for one that we may not see into.
    pub state: String,
    /// What it waits for: type and event, if it waits.
    pub waits_for: Option<String>,
    /// Server processes that block it (`pg_blocking_pids`), asked for when it waits for a lock; 0 is a prepared transaction.
    pub blocked_by: Vec<i32>,
    /// Its current or last statement, up to 500 characters.
    pub query: String,
    /// How long it has been in this state.
    pub in_state: Duration,
    /// How long its transaction has been open, if one is.
    pub in_transaction: Option<Duration>,
    /// True when the observer may not see state and statement: it lacks `pg_read_all_stats`, or `track_activities` is off.
    pub is_hidden: bool,
    /// Server clock of the transaction's begin.
    #[serde(skip)]
    pub(crate) transaction_began: Option<String>,
    /// Server clock of the last change of state.
    #[serde(skip)]
    pub(crate) state_changed: String,
}

impl Session {
    /// True when it runs a statement or holds a transaction open.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.state.is_empty() && self.state != "idle"
    }

    /// True when it holds a transaction open (aborted ones included) and does nothing.
    #[must_use]
    pub fn is_idle_in_transaction(&self) -> bool {
        self.state.starts_with("idle in transaction")
    }
}

impl fmt::Display for Session {
    /// `pid 4711 of "shop" idle in transaction for 3.2 s (transaction open for 3.4 s): update …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} of \"{}\" ", self.pid, self.application)?;
        match (self.is_hidden, self.state.as_str()) {
            (true, _) => return f.write_str("(state and statement hidden from the observer)"),
            (false, "") => f.write_str("beginning")?,
            (false, state) => write!(f, "{state} for {}", seconds(self.in_state))?,
        }
        if let Some(open) = self.in_transaction {
            write!(f, " (transaction open for {})", seconds(open))?;
        }
        if let Some(event) = self.waits_for.as_ref().filter(|_| self.state == "active") {
            write!(f, ", waits for {event}")?;
        }
        if !self.blocked_by.is_empty() {
            write!(f, " blocked by {:?}", self.blocked_by)?;
        }
        write!(f, ": {}", one_line(&self.query))
    }
}

/// A statement on one line, of a length that fits one.
pub(crate) fn one_line(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(160) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None if line.is_empty() => "(no statement yet)".to_owned(),
        None => line,
    }
}

/// All client sessions of a database, samplers of the harness left out, by process id. A session that we may not see into
/// does not show its type; those of the server itself have no role.
pub(crate) async fn read(session: &mut PgConnection, database: &str) -> CoreResult<Vec<Session>> {
    let text = format!(
        "select pid, coalesce(application_name, '') as application, coalesce(usename::text, '') as user_name, \
         coalesce(state, '') as state, wait_event_type || ' ' || wait_event as waits, \
         case when wait_event_type = 'Lock' then pg_blocking_pids(pid) else '{{}}'::int[] end as blocked, \
         left(query, {STATEMENT}) as query, query = '<insufficient privilege>' or coalesce(state, '') = 'disabled' as hidden, \
         coalesce(extract(epoch from clock_timestamp() - state_change), 0)::float8 as in_state, \
         extract(epoch from clock_timestamp() - xact_start)::float8 as in_transaction, \
         xact_start::text as began, coalesce(state_change::text, '') as changed \
         from pg_stat_activity where datname = {} \
         and (backend_type = 'client backend' or backend_type is null and usename is not null) \
         and application_name is distinct from '{OWN_NAME}' and pid <> pg_backend_pid() order by pid",
        sql::literal(database)
    );
    let rows = sql::rows(session, "read the sessions", text).await?;
    rows.iter().map(one).collect::<Result<_, _>>().map_err(|error| sql::query_error("read the sessions", error))
}

fn one(row: &PgRow) -> Result<Session, sqlx::Error> {
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Ok(Session {
        pid: row.try_get("pid")?,
        application: row.try_get("application")?,
        user: row.try_get("user_name")?,
        state: row.try_get("state")?,
        waits_for: row.try_get("waits")?,
        blocked_by: row.try_get("blocked")?,
        query: row.try_get("query")?,
        is_hidden: row.try_get("hidden")?,
        in_state: time(row.try_get("in_state")?),
        in_transaction: row.try_get::<Option<f64>, _>("in_transaction")?.map(time),
        transaction_began: row.try_get("began")?,
        state_changed: row.try_get("changed")?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Session, one_line};

    #[test]
    fn holder_is_told_on_one_line() {
        let session = Session {
            pid: 7,
            application: "shop".into(),
            state: "idle in transaction".into(),
            query: "update accounts\n   set n = n + 1".into(),
            in_state: Duration::from_millis(3200),
            in_transaction: Some(Duration::from_millis(3400)),
            waits_for: Some("Client ClientRead".into()),
            ..Session::default()
        };
        assert_eq!(
            session.to_string(),
            "pid 7 of \"shop\" idle in transaction for 3.2 s (transaction open for 3.4 s): update accounts set n = n + 1"
        );
        assert!(session.is_busy() && session.is_idle_in_transaction());
        let hidden = Session { is_hidden: true, ..session };
        assert!(hidden.to_string().contains("hidden") && !hidden.to_string().contains("update"), "{hidden}");
    }

    #[test]
    fn long_statements_are_cut_between_characters() {
        assert_eq!(one_line(""), "(no statement yet)");
        assert_eq!(one_line(&"ä".repeat(200)).chars().count(), 162);
    }
}
