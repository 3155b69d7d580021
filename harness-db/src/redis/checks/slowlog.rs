//! Which commands were slow: the server's slow log, read from a moment on.
//!
//! Redis measures the execution of a command alone, without waiting for its turn and without the network (redis.io, SLOWLOG).

use std::fmt;
use std::time::Duration;

use harness_core::wait::seconds;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use redis::aio::MultiplexedConnection;

use super::info::{Info, added, began_anew, run_id};
use super::logical::{LogicalDb, checked, shown};
use super::{OwnRedis, wire};

/// How many entries the server keeps meanwhile.
const KEPT: u64 = 1024;
/// How many entries a witness shows.
const SHOWN: usize = 3;
/// How this watch calls itself, so that it does not report itself.
const OWN_NAME: &str = "harness-slowlog";

/// One command that was slow.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowCommand {
    /// Its number in the log.
    pub id: u64,
    /// How long it ran.
    pub took: Duration,
    /// The command with its arguments, as far as the server keeps them (32 arguments of 128 characters).
    pub words: Vec<String>,
    /// The client's address and name.
    pub client: String,
}

impl fmt::Display for SlowCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` took {}", shown(self.words.join(" ").as_bytes()), seconds(self.took))
    }
}

/// A watch over the slow log that began at some moment.
#[derive(Debug)]
#[must_use = "end it to see what was slow"]
pub struct SlowWatch {
    connection: MultiplexedConnection,
    run_id: String,
    threshold: Duration,
    last_id: Option<u64>,
    before: u64,
}

/// What was slow since the watch began, slowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowCommands {
    /// From how long on a command was logged.
    pub threshold: Duration,
    /// Commands the server ran in the meantime, those of the watch not counted.
    pub commands: u64,
    /// Those that were slow, slowest first.
    pub slow: Vec<SlowCommand>,
    /// True when more were slow than the server keeps, so that the oldest are missing.
    pub is_cut: bool,
}

impl LogicalDb {
    /// Begins to log commands that run longer than a threshold (whole microseconds) and returns the watch over them. The
    /// settings `slowlog-log-slower-than` and `slowlog-max-len` stay as this sets them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where others share the server; [`ErrorKind::Environment`] when it ignores the setting.
    pub async fn slowlog(&self, threshold: Duration) -> CoreResult<SlowWatch> {
        self.need_own_settings("a watch over the slow log")?;
        let mut connection = self.connection().await?;
        let () = wire::ask(&mut connection, &["CLIENT", "SETNAME", OWN_NAME]).await?;
        let threshold_us = threshold.as_micros().to_string();
        for (name, value) in [("slowlog-log-slower-than", &*threshold_us), ("slowlog-max-len", &*KEPT.to_string())] {
            let () = wire::ask(&mut connection, &["CONFIG", "SET", name, value]).await?;
            let found: Vec<String> = wire::ask(&mut connection, &["CONFIG", "GET", name]).await?;
            if found.get(1).map(String::as_str) != Some(value) {
                let what = format!("Redis ignored a setting: {name} is {found:?}, `{value}` was asked for");
                return Err(Error::new(ErrorKind::Environment, what));
            }
        }
        let run_id = run_id(&mut connection).await?;
        let last_id = entries(&mut connection).await?.iter().map(|entry| entry.id).max();
        let before = Info::read(&mut connection, "stats").await?.number("total_commands_processed")?;
        Ok(SlowWatch { connection, run_id, threshold, last_id, before })
    }
}

impl OwnRedis {
    /// As [`LogicalDb::slowlog`].
    ///
    /// # Errors
    /// As [`LogicalDb::slowlog`].
    pub async fn slowlog(&self, threshold: Duration) -> CoreResult<SlowWatch> {
        self.logical().slowlog(threshold).await
    }
}

type Entry = (u64, i64, u64, Vec<Vec<u8>>, String, String);

async fn entries(connection: &mut MultiplexedConnection) -> CoreResult<Vec<SlowCommand>> {
    let all: Vec<Entry> = wire::ask(connection, &["SLOWLOG", "GET", &KEPT.to_string()]).await?;
    let others = all.into_iter().filter(|(.., name)| name != OWN_NAME);
    let read = |(id, _, took_us, words, address, name): Entry| SlowCommand {
        id,
        took: Duration::from_micros(took_us),
        words: words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        client: format!("{address} {name}").trim_end().to_owned(),
    };
    Ok(others.map(read).collect())
}

impl SlowWatch {
    /// Ends the watch.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] when the server was restarted or its log was reset in between.
    pub async fn end(mut self) -> CoreResult<SlowCommands> {
        // Counted before anything else is asked: the answer does not count itself, but the `INFO` before it.
        let after = Info::read(&mut self.connection, "stats").await?.number("total_commands_processed")?;
        if run_id(&mut self.connection).await? != self.run_id {
            return Err(began_anew("the slow log"));
        }
        let commands = added("the count of commands", self.before, after)?.saturating_sub(1);
        let all = entries(&mut self.connection).await?;
        let mut slow: Vec<SlowCommand> =
            all.into_iter().filter(|entry| self.last_id.is_none_or(|last| entry.id > last)).collect();
        slow.sort_by(|a, b| b.took.cmp(&a.took).then(a.id.cmp(&b.id)));
        let is_cut = slow.len() as u64 >= KEPT;
        Ok(SlowCommands { threshold: self.threshold, commands, slow, is_cut })
    }
}

impl SlowCommands {
    /// Passes when commands ran and none was slower than the threshold.
    #[must_use]
    pub fn none(&self) -> Outcome {
        let (n, threshold) = (self.commands, seconds(self.threshold));
        if !self.slow.is_empty() {
            let shown: Vec<String> = self.slow.iter().take(SHOWN).map(ToString::to_string).collect();
            let more = match self.slow.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" … and {more} more"),
            };
            let many = self.slow.len();
            return Outcome::fail(format!(
                "{many} of {n} commands took longer than {threshold}: {}{more}",
                shown.join("; ")
            ));
        }
        match n {
            0 => Outcome::no_evidence("no command ran since the watch began"),
            n => Outcome::pass(format!("{n} commands, none longer than {threshold}")),
        }
    }

    /// The failed [`SlowCommands::none`] as an error.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] showing the slowest; [`ErrorKind::NoEvidence`] when no command ran.
    pub fn check_none(&self) -> CoreResult {
        checked(self.none())
    }
}
