//! The audit trail: who did what with which outcome, append-only, in Postgres.

use serde::Serialize;

use crate::metrics::count;
use crate::plant::Plant;
use crate::store::{Store, StoreError};
use crate::{App, log};

/// One entry of the trail.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Position; later entries have greater ones.
    pub id: i64,
    /// When, in UTC, as RFC 3339 with microseconds.
    pub at: String,
    /// Who.
    pub agent: String,
    /// What, such as `pattern.execute:disk-usage`.
    pub action: String,
    /// How it ended, such as `ok` or `denied`.
    pub outcome: String,
}

impl App {
    /// Writes an entry; the caller's action fails if its entry cannot be written.
    pub(crate) async fn audit(&self, agent: &str, action: &str, outcome: &str) -> Result<(), StoreError> {
        if self.config.plants.on(Plant::DropsAudit) {
            return Ok(());
        }
        let written = self.store.append_audit(agent, action, outcome).await;
        if let Err(error) = &written {
            count(&self.metrics.audit_failures);
            log::error!("audit entry lost: agent={agent:?} action={action:?} outcome={outcome:?}: {error}");
        }
        written
    }

    /// Writes an entry about something that has failed already, so that a second failure only goes to the log.
    pub(crate) async fn audit_failure(&self, agent: &str, action: &str, outcome: &str) {
        let _ = self.audit(agent, action, outcome).await;
    }
}

impl Store {
    async fn append_audit(&self, agent: &str, action: &str, outcome: &str) -> Result<(), StoreError> {
        let query = sqlx::query("insert into audit (agent, action, outcome) values ($1, $2, $3)");
        let query = query.bind(agent).bind(action).bind(outcome);
        self.connection().await?.run(|c| query.execute(c)).await.map(|_| ())
    }

    /// The newest action of an agent.
    pub(crate) async fn last_action(&self, agent: &str) -> Result<Option<String>, StoreError> {
        let query =
            sqlx::query_scalar("select action from audit where agent = $1 order by id desc limit 1").bind(agent);
        self.connection().await?.run(|c| query.fetch_optional(c)).await
    }

    /// Entries after a position in their order, at most `limit`, of one agent or of all.
    pub async fn audit_entries(&self, after: i64, limit: i64, agent: Option<&str>) -> Result<Vec<Entry>, StoreError> {
        let query = sqlx::query_as::<_, (i64, String, String, String, String)>(
            r#"select id, to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at, agent, action, outcome
               from audit where id > $1 and ($3::text is null or agent = $3) order by id limit $2"#,
        );
        let rows = self.connection().await?.run(|c| query.bind(after).bind(limit).bind(agent).fetch_all(c)).await?;
        let entry = |(id, at, agent, action, outcome)| Entry { id, at, agent, action, outcome };
        Ok(rows.into_iter().map(entry).collect())
    }
}
