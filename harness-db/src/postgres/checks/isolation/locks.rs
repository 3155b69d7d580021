//! The observer: a session of its own that asks the server who waits for whom.

use std::collections::BTreeMap;

use harness_core::{CoreResult, Error, ErrorKind};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row as _};

use crate::postgres::sql;

/// What the observer saw of a server process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The processes it waits for: locks (`pg_blocking_pids`) and safe snapshots.
    pub(super) blocked_by: Vec<i32>,
    /// False when the server has no such process any more.
    pub(super) lives: bool,
}

#[derive(Debug)]
pub(super) struct Observer(PgConnection);

impl Observer {
    /// Connects; the options of the server, so that it stands beside the database that is looked at.
    pub(super) async fn connect(options: &PgConnectOptions) -> CoreResult<Self> {
        Ok(Self(sql::connect(&options.clone().application_name("harness-observer")).await?))
    }

    /// Looks at these processes, now.
    pub(super) async fn look(&mut self, pids: &[i32]) -> CoreResult<BTreeMap<i32, Seen>> {
        let text = format!(
            "select p::text as pid, exists(select from pg_stat_get_activity(p)) as lives, \
             array_to_string(pg_blocking_pids(p) || pg_safe_snapshot_blocking_pids(p), ',') as blockers \
             from unnest(array[{}]::int[]) p",
            list(pids)
        );
        let rows = sql::rows(&mut self.0, "look at the locks", text).await?;
        let mut seen = BTreeMap::new();
        for row in &rows {
            let failed = |error| sql::query_error("look at the locks", error);
            let pid: String = row.try_get("pid").map_err(failed)?;
            let blockers: String = row.try_get("blockers").map_err(failed)?;
            let blocked_by = blockers.split(',').filter_map(|pid| pid.parse().ok()).collect();
            let lives = row.try_get("lives").map_err(failed)?;
            seen.insert(pid.parse().map_err(unreadable)?, Seen { blocked_by, lives });
        }
        Ok(seen)
    }

    /// The state of these processes and of those that block them, a line each, for an error.
    pub(super) async fn describe(&mut self, pids: &[i32]) -> Vec<String> {
        let text = format!(
            "with asked as (select unnest(array[{}]::int[]) as p) \
             select 'process ' || a.pid || ' (' || coalesce(application_name, '') || '): ' || coalesce(state, backend_type) \
             || coalesce(', waits for ' || wait_event_type || ' ' || wait_event, '') \
             || coalesce(', blocked by ' || nullif(array_to_string(pg_blocking_pids(a.pid), ', '), ''), '') \
             || coalesce(', `' || nullif(left(regexp_replace(query, '\\s+', ' ', 'g'), 100), '') || '`', '') as line \
             from pg_stat_activity a \
             where a.pid in (select p from asked union select unnest(pg_blocking_pids(p)) from asked) order by a.pid",
            list(pids)
        );
        match sql::rows(&mut self.0, "describe the locks", text).await {
            Ok(rows) => rows.iter().filter_map(|row| row.try_get("line").ok()).collect(),
            Err(error) => vec![error.to_string()],
        }
    }
}

fn list(pids: &[i32]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn unreadable(error: std::num::ParseIntError) -> Error {
    Error::new(ErrorKind::Protocol, "a process id is no number").caused_by(error)
}

/// True when some of these wait for each other in a circle: only the server's deadlock detector ends that.
pub(super) fn is_circular(waits: &BTreeMap<usize, Vec<usize>>) -> bool {
    // Whoever waits for nobody that waits is taken away, until nothing is left or nothing moves.
    let mut left = waits.clone();
    loop {
        let free: Vec<usize> = left
            .iter()
            .filter(|(_, by)| !by.iter().any(|other| left.contains_key(other)))
            .map(|(who, _)| *who)
            .collect();
        if free.is_empty() {
            return !left.is_empty();
        }
        left.retain(|who, _| !free.contains(who));
    }
}

#[cfg(test)]
mod tests {
    use super::is_circular;

    #[test]
    fn circle_is_told_from_a_queue() {
        let circular =
            |waits: &[(usize, &[usize])]| is_circular(&waits.iter().map(|(a, b)| (*a, b.to_vec())).collect());
        assert!(!circular(&[]));
        assert!(!circular(&[(1, &[0]), (2, &[1, 0])]));
        assert!(circular(&[(0, &[1]), (1, &[0])]));
        assert!(circular(&[(0, &[1]), (1, &[2]), (2, &[1]), (3, &[9])]));
    }
}
