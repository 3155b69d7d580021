//! Lock waits as the server shows them: `pg_locks` with `pg_blocking_pids` (PostgreSQL docs 54.12 and 9.27).

use std::time::Duration;

use harness_core::CoreResult;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::graph::LockWait;
use crate::postgres::checks::sampling::OWN_NAME;
use crate::postgres::sql;

/// How long reading one row for a message may wait for a lock itself.
const LOOK_LIMIT_MS: u32 = 50;

/// How many sessions of the session's own database wait for a lock: cheap, asked in every sample.
pub(super) async fn count(session: &mut PgConnection) -> CoreResult<i64> {
    let text = format!(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
         and application_name is distinct from '{OWN_NAME}'"
    );
    let rows = sql::rows(session, "count the lock waits", text).await?;
    let n = rows.first().map(|row| row.try_get::<i64, _>(0)).transpose();
    n.map(Option::unwrap_or_default).map_err(|error| sql::query_error("count the lock waits", error))
}

/// The lock waits of the session's own database. A waiter for a row waits for the transaction that changed it, and holds
/// a lock of type `tuple` meanwhile, which tells the row.
pub(super) async fn waits(session: &mut PgConnection) -> CoreResult<Vec<LockWait>> {
    let text = format!(
        "with l as materialized (select * from pg_locks), w as (select a.pid, \
         coalesce(a.application_name, '') as application, left(a.query, 500) as query, l.mode, l.locktype, \
         coalesce(l.relation, t.relation) as relation, coalesce(l.page, t.page) as page, \
         coalesce(l.tuple, t.tuple) as tuple, l.waitstart from pg_stat_activity a \
         join l on l.pid = a.pid and not l.granted left join lateral (select g.relation, g.page, g.tuple from l g \
         where g.pid = a.pid and g.locktype = 'tuple' and g.granted limit 1) t on l.locktype = 'transactionid' \
         where a.datname = current_database() and a.wait_event_type = 'Lock' \
         and a.application_name is distinct from '{OWN_NAME}') \
         select pid, application, query, mode || ' on ' || locktype as wants, relation::regclass::text as relation, \
         '(' || page || ',' || tuple || ')' as place, waitstart::text as since, \
         coalesce(extract(epoch from clock_timestamp() - waitstart), 0)::float8 as lasted, \
         pg_blocking_pids(pid) as blocked from w order by pid"
    );
    let rows = sql::rows(session, "read the lock waits", text).await?;
    rows.iter().map(one).collect::<Result<_, _>>().map_err(|error| sql::query_error("read the lock waits", error))
}

fn one(row: &PgRow) -> Result<LockWait, sqlx::Error> {
    let mut blocked_by: Vec<i32> = row.try_get("blocked")?;
    blocked_by.sort_unstable();
    blocked_by.dedup(); // workers of a parallel query all name their leader
    Ok(LockWait {
        pid: row.try_get("pid")?,
        application: row.try_get("application")?,
        query: row.try_get("query")?,
        blocked_by,
        wants: row.try_get("wants")?,
        relation: row.try_get("relation")?,
        row: row.try_get("place")?,
        row_content: None,
        lasted: Duration::try_from_secs_f64(row.try_get("lasted")?).unwrap_or_default(),
        since: row.try_get("since")?,
    })
}

/// Reads what the row holds, for the message: parameters do not stand in the statement's text. `None` when it cannot be
/// read at once.
pub(super) async fn content(session: &mut PgConnection, wait: &LockWait) -> Option<String> {
    let (relation, row) = (wait.relation.as_ref()?, wait.row.as_ref()?);
    let text = format!(
        "set lock_timeout = {LOOK_LIMIT_MS}; \
         select left(row_to_json(t)::text, 160) as content from {relation} t where ctid = {}",
        sql::literal(row)
    );
    let rows = sql::rows(session, "read the row that is waited for", text).await.ok()?;
    rows.first().and_then(|row| row.try_get::<Option<String>, _>("content").ok()).flatten()
}
