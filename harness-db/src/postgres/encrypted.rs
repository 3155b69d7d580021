//! Whether the sessions of the system under test are encrypted, by the server's own account.

use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::{Connection as _, Row as _};

use super::{OwnPostgres, sql};

impl OwnPostgres {
    /// Whether all client sessions that are open now use TLS, as `pg_stat_ssl` says (PostgreSQL documentation, 28.2.7); the
    /// harness' own sessions are left out.
    ///
    /// Fails with the sessions that do not; without any session there is no evidence.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn encrypted(&self) -> CoreResult<Outcome> {
        let mut session = self.connect().await?;
        let ask = "select s.ssl, coalesce(s.version, '') as version, a.usename::text as who, a.application_name as app \
                   from pg_stat_ssl s join pg_stat_activity a using (pid) \
                   where a.backend_type = 'client backend' and a.application_name <> 'harness' order by pid";
        let rows = sql::rows(&mut session, "ask which sessions are encrypted", ask).await?;
        let _ = session.close().await;
        let text = |row: &sqlx::postgres::PgRow, name: &str| row.try_get::<String, _>(name).unwrap_or_default();
        let mut plain = Vec::new();
        for row in &rows {
            // What cannot be read does not count as encrypted.
            if !row.try_get::<bool, _>("ssl").unwrap_or(false) {
                plain.push(format!("`{}` as {}", text(row, "app"), text(row, "who")));
            }
        }
        Ok(match (rows.len(), plain.len()) {
            (0, _) => Outcome::no_evidence(format!("nobody has a session on the Postgres at {}", self.address())),
            (all, 0) => Outcome::pass(format!("{all} sessions, all by {}", text(&rows[0], "version"))),
            (all, some) => Outcome::fail(format!("{some} of {all} sessions are not encrypted: {}", plain.join(", "))),
        })
    }

    /// [`OwnPostgres::encrypted`], as a check.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the sessions; [`ErrorKind::NoEvidence`] when there are none.
    pub async fn check_encrypted(&self) -> CoreResult {
        match self.encrypted().await? {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)
                .remedy("set sslmode=verify-ca or stricter in the URL of the system under test")),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(()),
        }
    }
}
