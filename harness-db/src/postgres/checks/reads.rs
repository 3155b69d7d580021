//! Read your own writes: does a system that reads from replicas show its users what they have just written?

use std::fmt::{Debug, Display};
use std::pin::pin;
use std::time::Duration;

use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use sqlx::Connection as _;

use super::Replica;
use crate::postgres::replica::{column, one};
use crate::postgres::sql;

/// How long a write may take, and a read after replay has gone on.
const ACT_LIMIT: Duration = Duration::from_secs(10);
/// A read that takes longer while replay is held up is taken for one that waits for the replica.
const PATIENCE: Duration = Duration::from_secs(3);

impl Replica {
    /// Whether a read sees the write before it, though this replica is behind: replay is held up while both run, so that
    /// luck decides nothing ("read your writes", Terry et al., Session Guarantees for Weakly Consistent Replicated Data, 1994).
    ///
    /// `write` writes through the system under test and says what was written; `read` reads it back through the system, as
    /// the same user. A read that does not come back within 3 s is taken for one that waits for the replica: replay goes on,
    /// and the read has to return what was written.
    ///
    /// Passes when the read returned what was written; fails with both values when it did not; without a transaction that
    /// wrote on this replica's primary there is no evidence. Replay goes on afterwards.
    ///
    /// # Errors
    /// When one of the servers does not answer, or `write` fails or takes longer than 10 s.
    pub async fn read_your_writes<T, E>(
        &self,
        write: impl AsyncFnOnce() -> Result<T, E>,
        read: impl AsyncFnOnce() -> Result<Option<T>, E>,
    ) -> CoreResult<Outcome>
    where
        T: PartialEq + Debug,
        E: Display,
    {
        self.caught_up(ACT_LIMIT).await?;
        self.pause_replay().await?;
        let judged = self.judge(write, read).await;
        self.resume_replay().await?;
        judged
    }

    /// [`Replica::read_your_writes`], as a check.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what was written and what was read; [`ErrorKind::NoEvidence`]; else as there.
    pub async fn check_read_your_writes<T, E>(
        &self,
        write: impl AsyncFnOnce() -> Result<T, E>,
        read: impl AsyncFnOnce() -> Result<Option<T>, E>,
    ) -> CoreResult
    where
        T: PartialEq + Debug,
        E: Display,
    {
        match self.read_your_writes(write, read).await? {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)
                .remedy("read from the primary after a write, or wait until the replica has replayed it")),
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(()),
        }
    }

    /// How many transactions the primary has begun to write: it grows with each one that writes, and with nothing else.
    async fn primary_writes(&self) -> CoreResult<i64> {
        let mut session = sql::connect(&self.primary).await?;
        let ask = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        let row = one(&mut session, "count the primary's writes", ask).await?;
        let _ = session.close().await;
        column(&row, 0)
    }

    async fn judge<T, E>(
        &self,
        write: impl AsyncFnOnce() -> Result<T, E>,
        read: impl AsyncFnOnce() -> Result<Option<T>, E>,
    ) -> CoreResult<Outcome>
    where
        T: PartialEq + Debug,
        E: Display,
    {
        let before = self.primary_writes().await?;
        let written = within("the write", ACT_LIMIT, write()).await?;
        let written = written.map_err(|error| {
            Error::new(ErrorKind::Protocol, format!("the write failed, so that nothing could be read: {error}"))
        })?;
        if self.primary_writes().await? == before {
            let why = "no transaction wrote on the primary of this replica while the write ran";
            return Ok(Outcome::no_evidence(format!("{why}: does the system use this server?")));
        }
        let lag = self.lag().await?;
        let mut reading = pin!(read());
        let (found, how) = match within("the read", PATIENCE, &mut reading).await {
            Ok(found) => (found, format!("with the replica {lag} behind")),
            Err(_) => {
                self.resume_replay().await?;
                match within("the read", ACT_LIMIT, &mut reading).await {
                    Ok(found) => (found, format!("after waiting for the replica, {lag} behind")),
                    Err(error) => {
                        return Ok(Outcome::fail(format!("{written:?} was written, and the read hangs: {error}")));
                    }
                }
            }
        };
        Ok(match found {
            Ok(Some(found)) if found == written => Outcome::pass(format!("the read saw its write {how}")),
            Ok(Some(found)) => Outcome::fail(format!("stale read: {written:?} was written, {found:?} was read {how}")),
            Ok(None) => Outcome::fail(format!("stale read: {written:?} was written, nothing was found {how}")),
            Err(error) => Outcome::fail(format!("{written:?} was written, and the read failed {how}: {error}")),
        })
    }
}
