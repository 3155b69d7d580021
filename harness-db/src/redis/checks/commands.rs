//! Which commands a piece of work sends: counted, guarded against one per element, searched for forbidden ones.
//!
//! The server is asked to show every command it runs (`MONITOR`), and only those of this logical database are kept: of a
//! leased keyspace, all are the test's. Meanwhile the server writes each command of all its clients once more, which can
//! halve its throughput (redis.io, MONITOR): record for a guard, not during a measurement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use harness_core::run::Run;
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use redis::aio::MultiplexedConnection;

use super::info::{Info, added};
use super::logical::{LogicalDb, checked, shown};
use super::monitor::{Command, Recording, hidden};
use super::{Keyspace, OwnRedis, wire};

/// How many shapes of commands a witness shows.
const SHOWN: usize = 5;

/// The commands that some work sent to one logical database.
///
/// What prepares a connection (`SELECT`, `CLIENT`, `HELLO`, `AUTH`) is not counted. `MONITOR` does not show administrative
/// commands (`CONFIG`, `DEBUG`, …) nor `EXEC`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Commands {
    /// The commands, in the order in which the server ran them, those inside scripts included.
    pub all: Vec<Command>,
    /// How often the server read from its clients' sockets meanwhile; `None` where others use the server. A pipeline of many
    /// commands is read at once, so this counts round trips (`INFO stats`: `total_reads_processed`).
    pub round_trips: Option<u64>,
    /// Calls by command as the server counts them itself, administrative ones included; `None` where others use the server.
    pub calls: Option<BTreeMap<String, u64>>,
    hidden: BTreeSet<String>,
}

/// What only a server of one's own tells.
struct Counters {
    reads: u64,
    calls: BTreeMap<String, u64>,
}

impl Counters {
    async fn read(connection: &mut MultiplexedConnection) -> CoreResult<Self> {
        let calls = Info::read(connection, "commandstats").await?.calls();
        let reads = Info::read(connection, "stats").await?.number("total_reads_processed")?;
        Ok(Self { reads, calls })
    }
}

impl LogicalDb {
    /// Records the commands that some work sends to this logical database.
    ///
    /// Only commands that the server has answered when the work ends are counted for certain: work left in the background is
    /// not waited for.
    ///
    /// # Errors
    /// When the work itself fails: what it did until then proves nothing. When the recording cannot begin or breaks off.
    pub async fn commands<T, E: fmt::Display>(&self, work: impl AsyncFnOnce() -> Result<T, E>) -> CoreResult<Commands> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fence = format!("harness:fence:{}:{pid}:{n}", Run::current().id());
        // Everything this needs itself is asked for before the recording begins or after it has ended.
        let mut connection = self.connection().await?;
        let hidden = hidden(&mut connection).await?;
        let recording = Recording::begin(self.info(), fence).await?;
        let before = match self.is_alone() {
            true => Some(Counters::read(&mut connection).await?),
            false => None,
        };
        let _: String = wire::ask(&mut connection, &["ECHO", "harness:begin"]).await?;
        let done = work().await;
        let after = match before {
            Some(_) => Some(Counters::read(&mut connection).await?),
            None => None,
        };
        let all = recording.end(&mut connection).await?;
        if let Err(error) = done {
            let what = format!("the work whose commands were recorded failed: {error}");
            return Err(Error::new(ErrorKind::Assertion, what).tried(format!("{} commands until then", all.len())));
        }
        let mut commands = Commands { all: own_removed(all), round_trips: None, calls: None, hidden };
        if let (Some(before), Some(after)) = (before, after) {
            commands.count(&before, &after)?;
        }
        Ok(commands)
    }
}

/// Takes away what the recorder asked for itself: all up to its mark, and the questions it ended with.
fn own_removed(mut all: Vec<Command>) -> Vec<Command> {
    let is_mark = |command: &Command| command.name == "ECHO" && command.arguments == ["harness:begin"];
    let Some(mark) = all.iter().position(is_mark) else { return all };
    let own = all[mark].client.clone();
    all.drain(..=mark);
    all.retain(|command| command.client != own);
    all
}

/// The same for a leased keyspace.
impl Keyspace {
    /// As [`LogicalDb::commands`].
    ///
    /// # Errors
    /// As [`LogicalDb::commands`].
    pub async fn commands<T, E: fmt::Display>(&self, work: impl AsyncFnOnce() -> Result<T, E>) -> CoreResult<Commands> {
        self.logical().commands(work).await
    }
}

/// The same for an own server.
impl OwnRedis {
    /// As [`LogicalDb::commands`].
    ///
    /// # Errors
    /// As [`LogicalDb::commands`].
    pub async fn commands<T, E: fmt::Display>(&self, work: impl AsyncFnOnce() -> Result<T, E>) -> CoreResult<Commands> {
        self.logical().commands(work).await
    }
}

impl Commands {
    fn count(&mut self, before: &Counters, after: &Counters) -> CoreResult {
        // The recorder's own: its mark and its two questions at the end; of its calls the first question counted itself late.
        self.round_trips = Some(added("the count of reads", before.reads, after.reads)?.saturating_sub(3));
        let mut calls = BTreeMap::new();
        for (name, after) in &after.calls {
            let own = match name.as_str() {
                "ECHO" => 1,
                "INFO" => 2,
                _ => 0,
            };
            let n = added("the count of calls", before.calls.get(name).copied().unwrap_or(0), *after)?;
            calls.insert(name.clone(), n.saturating_sub(own));
        }
        calls.retain(|_, n| *n > 0);
        self.calls = Some(calls);
        Ok(())
    }

    /// How many commands clients sent; those inside scripts are not counted.
    #[must_use]
    pub fn count_sent(&self) -> usize {
        self.sent().count()
    }

    fn sent(&self) -> impl Iterator<Item = &Command> {
        self.all.iter().filter(|command| !command.is_from_script())
    }

    /// How often each command was sent, by name.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<&str, usize> {
        let mut names = BTreeMap::new();
        self.sent().for_each(|command| *names.entry(&*command.name).or_default() += 1);
        names
    }

    /// How often each shape was sent, most frequent first: `GET user:#` is a `GET` of any key that differs in digits only.
    #[must_use]
    pub fn by_shape(&self) -> Vec<(String, usize)> {
        let mut shapes: BTreeMap<String, usize> = BTreeMap::new();
        self.sent().for_each(|command| *shapes.entry(shape(command)).or_default() += 1);
        let mut shapes: Vec<_> = shapes.into_iter().collect();
        shapes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        shapes
    }

    fn shown(&self) -> String {
        let shapes = self.by_shape();
        let shown: Vec<String> = shapes.iter().take(SHOWN).map(|(shape, n)| format!("{n} × `{shape}`")).collect();
        match shapes.len().saturating_sub(SHOWN) {
            0 => shown.join(", "),
            more => format!("{} … and {more} more shapes", shown.join(", ")),
        }
    }

    fn nothing() -> Outcome {
        Outcome::no_evidence("no command reached this logical database: does the work use another one?")
    }

    /// Passes when at most `limit` commands were sent. Without any there is no evidence, unless none was wanted.
    #[must_use]
    pub fn within(&self, limit: usize) -> Outcome {
        match self.count_sent() {
            0 if limit > 0 => Self::nothing(),
            n if n <= limit => Outcome::pass(format!("{n} commands sent, at most {limit} are allowed")),
            n => Outcome::fail(format!("{n} commands sent, at most {limit} are allowed: {}", self.shown())),
        }
    }

    /// [`Commands::within`] as an error when it is not met: the guard against one command per element.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the shape that repeats; [`ErrorKind::NoEvidence`] when nothing was sent.
    pub fn at_most(&self, limit: usize) -> CoreResult<&Self> {
        match self.within(limit) {
            Outcome::Fail { witness } => Err(Error::new(ErrorKind::Assertion, witness)
                .remedy("ask for many keys at once: MGET, HMGET, or a pipeline (which counts by its commands)")),
            other => checked(other).map(|()| self),
        }
    }

    /// Passes when the server read at most `limit` times from its clients: a pipeline counts once. Connections that the work
    /// opens or closes count too, with what they send to prepare themselves.
    #[must_use]
    pub fn trips_within(&self, limit: u64) -> Outcome {
        let n = self.count_sent();
        match self.round_trips {
            _ if n == 0 => Self::nothing(),
            None => Outcome::no_evidence("others use this server, so its reads are theirs too: start an OwnRedis"),
            Some(trips) if trips <= limit => Outcome::pass(format!("{n} commands in {trips} round trips")),
            Some(trips) => Outcome::fail(format!(
                "{n} commands in {trips} round trips, at most {limit} are allowed: {}",
                self.shown()
            )),
        }
    }

    /// [`Commands::trips_within`] as an error when it is not met: the work uses pipelines.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the shape that repeats; [`ErrorKind::NoEvidence`] where others use the server, or when
    /// nothing was sent.
    pub fn round_trips_at_most(&self, limit: u64) -> CoreResult<&Self> {
        checked(self.trips_within(limit)).map(|()| self)
    }

    /// Passes when this command was never run, neither by a client nor by a script: `never("KEYS")`.
    #[must_use]
    pub fn never(&self, name: &str) -> Outcome {
        let name = name.to_ascii_uppercase();
        let found: Vec<&Command> = self.all.iter().filter(|command| command.name == name).collect();
        if let Some(first) = found.first() {
            let by = if first.is_from_script() { "a script".to_owned() } else { format!("client {}", first.client) };
            let words = shown(format!("{name} {}", first.arguments.join(" ")).trim_end().as_bytes());
            return Outcome::fail(format!("`{name}` was run {} times, first `{words}` by {by}", found.len()));
        }
        let counted = self.calls.as_ref().map(|calls| {
            let of_name =
                |known: &str| known == name || known.split_once('|').is_some_and(|(parent, _)| parent == name);
            calls.iter().filter(|(known, _)| of_name(known)).map(|(_, n)| n).sum::<u64>()
        });
        match counted {
            Some(n) if n > 0 => Outcome::fail(format!("`{name}` was run {n} times by the server's count")),
            None if self.hidden.contains(&name) => Outcome::no_evidence(format!(
                "MONITOR does not show `{name}`, and the server's own counts are shared with others: start an OwnRedis"
            )),
            _ if self.all.is_empty() => Self::nothing(),
            _ => Outcome::pass(format!("{} commands, no `{name}`", self.all.len())),
        }
    }

    /// [`Commands::never`] as an error when it is not met.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with the first such command; [`ErrorKind::NoEvidence`] when it could not have been seen, or
    /// nothing was sent.
    pub fn never_calls(&self, name: &str) -> CoreResult<&Self> {
        checked(self.never(name)).map(|()| self)
    }
}

/// The name and the first argument with its numbers left out.
fn shape(command: &Command) -> String {
    let Some(key) = command.arguments.first() else { return command.name.clone() };
    let mut shape = String::new();
    for c in key.chars() {
        match c.is_ascii_digit() {
            true if shape.ends_with('#') => {}
            true => shape.push('#'),
            false => shape.push(c),
        }
    }
    format!("{} {}", command.name, shown(shape.as_bytes()))
}

/// How often a Redis server ran a command since it started (`INFO commandstats`), its subcommands included; 0 for one it
/// never ran.
///
/// # Errors
/// When the server does not answer or does not say.
pub async fn calls(url: &str, command: &str) -> CoreResult<u64> {
    let (info, _) = wire::parse_url("the URL of the observed Redis", url)?;
    let calls = Info::read(&mut wire::connect(&info).await?, "commandstats").await?.calls();
    let name = command.to_ascii_uppercase();
    let of_name = |known: &str| known == name || known.split_once('|').is_some_and(|(parent, _)| parent == name);
    Ok(calls.iter().filter(|(known, _)| of_name(known)).map(|(_, n)| n).sum())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Command, Commands};

    fn command(name: &str, key: &str, client: &str) -> Command {
        Command { at_s: 1.0, name: name.into(), arguments: vec![key.into()], client: client.into() }
    }

    fn commands(all: Vec<Command>) -> Commands {
        Commands { all, round_trips: None, calls: None, hidden: BTreeSet::from(["CONFIG".to_owned()]) }
    }

    #[test]
    fn one_command_per_element_is_named_by_its_shape() {
        let mut all: Vec<Command> = (0..9).map(|n| command("GET", &format!("user:{n}"), "1:1")).collect();
        all.push(command("MGET", "page", "1:1"));
        let seen = commands(all);
        assert!(seen.within(10).is_pass());
        let guard = seen.within(3);
        assert!(
            guard.detail().contains("10 commands sent, at most 3 are allowed: 9 × `GET user:#`, 1 × `MGET page`"),
            "{guard}"
        );
        assert!(commands(Vec::new()).within(3).is_no_evidence() && commands(Vec::new()).within(0).is_pass());
    }

    #[test]
    fn forbidden_command_is_found_in_scripts_and_by_the_servers_count() {
        let seen = commands(vec![command("KEYS", "*", "lua")]);
        assert!(seen.never("keys").detail().contains("first `KEYS *` by a script"));
        assert_eq!(seen.count_sent(), 0);
        assert!(seen.never("FLUSHALL").is_pass() && commands(Vec::new()).never("KEYS").is_no_evidence());
        // CONFIG is never shown: not having seen it is no evidence, unless the server counted.
        assert!(seen.never("CONFIG").is_no_evidence());
        let counted = Commands { calls: Some(BTreeMap::from([("CONFIG|SET".to_owned(), 2)])), ..seen.clone() };
        assert!(counted.never("CONFIG").detail().contains("2 times by the server's count"));
        assert!(Commands { calls: Some(BTreeMap::new()), ..seen }.never("CONFIG").is_pass());
    }

    #[test]
    fn round_trips_are_unknown_where_others_read_too() {
        let mut seen = commands(vec![command("GET", "a", "1:1"), command("GET", "b", "1:1")]);
        assert!(seen.trips_within(9).is_no_evidence());
        seen.round_trips = Some(2);
        assert!(seen.trips_within(2).is_pass() && seen.trips_within(1).is_fail());
    }
}
