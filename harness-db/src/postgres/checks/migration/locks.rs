//! Which locks migrations took, for how long, and who waited for them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use serde::{Deserialize, Serialize};

use super::mode::LockMode;
use super::traffic::Traffic;
use crate::postgres::schema::among;

/// A lock on a table that was there before its migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TakenLock {
    /// The table.
    pub table: String,
    /// Its mode.
    pub mode: LockMode,
    /// The version of the migration.
    pub version: i64,
    /// The statement by which it came.
    pub statement: String,
    /// The line of the statement in its file.
    pub line: usize,
    /// From before that statement to the end of the transaction: the longest that others may have waited for it.
    pub held: Duration,
    /// The session's `lock_timeout` when the statement began; zero for none.
    pub lock_timeout: Duration,
}

/// One statement that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Statement {
    /// The version of its migration.
    pub version: i64,
    /// Its text.
    pub text: String,
    /// Its line.
    pub line: usize,
    /// How long it took.
    pub took: Duration,
}

/// What was seen of the locks of migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LockReport {
    /// Every lock on a table that was there before, the strongest of each statement that was new.
    pub locks: Vec<TakenLock>,
    /// Tables whose file was replaced (rewritten or truncated), with the version that did it.
    pub rewritten: Vec<(String, i64)>,
    /// What ran.
    pub statements: Vec<Statement>,
    /// Tables that were there before the first migration, with what their readers and writers saw.
    pub traffic: BTreeMap<String, Traffic>,
    /// Versions that were applied.
    pub versions: Vec<i64>,
    /// True when no clients were at work.
    pub is_quiet: bool,
}

impl LockReport {
    /// Passes when no lock on a table that was there kept others waiting for longer than this. Judged is the time from
    /// before the statement that took the lock to the end of its transaction: nobody can have waited longer.
    #[must_use]
    pub fn longest_block_within(&self, limit: Duration) -> Outcome {
        if let Some(why) = self.blind() {
            return Outcome::no_evidence(why);
        }
        let blocking = self.locks.iter().filter(|lock| lock.mode.blocks_writers());
        let over: Vec<String> = blocking.filter(|lock| lock.held > limit).map(|lock| self.told(lock)).collect();
        match over.is_empty() {
            false => Outcome::fail(format!("longer than {}: {}", seconds(limit), over.join("; "))),
            true => {
                let answered: u64 = self.traffic.values().map(|traffic| traffic.reads + traffic.writes).sum();
                let clients =
                    if self.is_quiet { "no clients".to_owned() } else { format!("{answered} answers to clients") };
                Outcome::pass(format!("{} locks on {} tables, {clients}", self.locks.len(), self.traffic.len()))
            }
        }
    }

    /// The failed [`LockReport::longest_block_within`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with each lock and its statement; [`ErrorKind::NoEvidence`] when no migration ran, no table
    /// was there to be locked, or no client was answered.
    pub fn blocks_nobody_longer_than(&self, limit: Duration) -> CoreResult<&Self> {
        match self.longest_block_within(limit) {
            Outcome::Fail { witness } => {
                Err(Error::new(ErrorKind::Assertion, format!("a migration blocks others {witness}"))
                    .remedy("take the lock in a migration of its own, or build `concurrently` with -- no-transaction"))
            }
            Outcome::NoEvidence { why } => Err(Error::new(ErrorKind::NoEvidence, why)),
            _ => Ok(self),
        }
    }

    /// Holds when no migration takes this lock, or a stronger one, on this table.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the statement that does; [`ErrorKind::NoEvidence`] when the table was not there before,
    /// or nothing ran.
    pub fn never_takes(&self, mode: LockMode, table: &str) -> CoreResult<&Self> {
        self.knows(table)?;
        match self.locks.iter().find(|lock| lock.table == table && lock.mode >= mode) {
            None => Ok(self),
            Some(lock) => {
                Err(Error::new(ErrorKind::Assertion, format!("migration {} takes {}", lock.version, self.told(lock))))
            }
        }
    }

    /// Holds when no migration writes this table anew (a new type, a volatile default, `cluster`, `truncate`): that takes
    /// as long as the table is large, under the strongest lock.
    ///
    /// # Errors
    /// As [`LockReport::never_takes`].
    pub fn never_rewrites(&self, table: &str) -> CoreResult<&Self> {
        self.knows(table)?;
        let Some((_, version)) = self.rewritten.iter().find(|(name, _)| name == table) else { return Ok(self) };
        let error = Error::new(ErrorKind::Assertion, format!("migration {version} writes table `{table}` anew"));
        let ran = self.statements.iter().filter(|statement| statement.version == *version);
        Err(ran.fold(error, |error, statement| {
            error.tried(format!("line {}: {}", statement.line, first_line(&statement.text)))
        }))
    }

    /// Holds when every statement that takes a lock which others wait for runs under a `lock_timeout`: else it stands in line
    /// behind the longest query, and everybody stands in line behind it.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the statements; [`ErrorKind::NoEvidence`] when nothing ran or no table was there.
    pub fn sets_lock_timeout(&self) -> CoreResult<&Self> {
        if let Some(why) = self.blind() {
            return Err(Error::new(ErrorKind::NoEvidence, why));
        }
        let bare = self.locks.iter().filter(|lock| lock.mode.blocks_writers() && lock.lock_timeout.is_zero());
        let bare: Vec<String> = bare.map(|lock| self.told(lock)).collect();
        match bare.is_empty() {
            true => Ok(self),
            false => {
                let error = Error::new(ErrorKind::Assertion, "locks are waited for without a `lock_timeout`");
                let error = bare.into_iter().fold(error, Error::tried);
                Err(error.remedy("begin the migration with `set local lock_timeout = '2s';`"))
            }
        }
    }

    fn knows(&self, table: &str) -> CoreResult {
        let why = match self.blind() {
            Some(why) => why,
            None if self.traffic.contains_key(table) => return Ok(()),
            None => {
                let known = among(table, self.traffic.keys().map(String::as_str));
                format!("table `{table}` was not watched; {known}")
            }
        };
        Err(Error::new(ErrorKind::NoEvidence, why))
    }

    /// Why nothing can be said, if so.
    fn blind(&self) -> Option<String> {
        let silent = self.traffic.iter().find(|(_, traffic)| !self.is_quiet && traffic.reads.min(traffic.writes) == 0);
        match (self.versions.is_empty(), self.traffic.is_empty(), silent) {
            (true, ..) => Some("no migration ran: all were applied before".to_owned()),
            (_, true, _) => {
                Some("no table was there before these migrations, so nobody could be kept waiting".to_owned())
            }
            (.., Some((table, traffic))) => {
                let why = traffic.last_failure.as_deref().unwrap_or("none was asked");
                Some(format!("no client of `{table}` was answered: {why}"))
            }
            _ => None,
        }
    }

    fn told(&self, lock: &TakenLock) -> String {
        let waited = self.traffic.get(&lock.table).filter(|_| !self.is_quiet).map(|traffic| {
            format!(
                ", readers waited up to {}, writers {}",
                seconds(traffic.longest_read),
                seconds(traffic.longest_write)
            )
        });
        format!("{lock}{}", waited.unwrap_or_default())
    }
}

fn first_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

impl fmt::Display for TakenLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, mode, line) = (&self.table, self.mode, self.line);
        write!(f, "{mode} on `{table}` for {} (line {line}: {})", seconds(self.held), first_line(&self.statement))
    }
}

impl fmt::Display for LockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} migrations, {} statements", self.versions.len(), self.statements.len())?;
        self.locks.iter().try_for_each(|lock| write!(f, "\n{}: {}", lock.version, self.told(lock)))?;
        self.rewritten.iter().try_for_each(|(table, version)| write!(f, "\n{version}: writes `{table}` anew"))
    }
}
