//! What a full server does: the keys it gives up, and the writes it refuses.
//!
//! The probe fills a server with a small `maxmemory`: keys that are left alone (cold), keys that are read again and again
//! (hot), and then more than fits. LRU and LFU are approximations over samples (redis.io, Key eviction, "Approximated LRU
//! algorithm"), so the probe has the server look at 10 candidates per eviction, the most that is useful, and judges with a wide
//! margin: 90 % of the hot keys must stay, and at least 10 percentage points fewer of the cold ones. LRU counts idle time in
//! whole seconds, so the probe waits until the cold keys are two seconds old.

mod verdict;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use harness_core::wait::{pause, within};
use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;

use super::info::{Info, added};
use super::logical::LogicalDb;
use super::memory::bytes;
use super::{OwnRedis, wire};

pub use verdict::{Eviction, Kept};

/// Filling more than this takes too long for a test.
const MOST_BYTES: u64 = 64 << 20;
/// Less than this leaves no room for keys enough.
const LEAST_ROOM_BYTES: u64 = 1 << 20;
/// How many keys the room is cut into.
const KEYS: u64 = 1000;
/// Refused writes after which the probe stops to write.
const ENOUGH_REFUSALS: u64 = 10;
/// How long the cold keys may take to be two seconds old by the server's clock.
const COOL_LIMIT: Duration = Duration::from_secs(20);
const PREFIX: &str = "harness:eviction";

/// `maxmemory-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// `noeviction`: refuses writes.
    NoEviction,
    /// `allkeys-lru`: those unused for longest.
    AllKeysLru,
    /// `allkeys-lfu`: those used least often.
    AllKeysLfu,
    /// `allkeys-random`: any.
    AllKeysRandom,
    /// `volatile-lru`: those unused for longest, of keys with a time to live.
    VolatileLru,
    /// `volatile-lfu`: those used least often, of keys with a time to live.
    VolatileLfu,
    /// `volatile-random`: any with a time to live.
    VolatileRandom,
    /// `volatile-ttl`: those that expire soonest.
    VolatileTtl,
}

impl Policy {
    /// As the server writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    fn is_volatile(self) -> bool {
        self.name().starts_with("volatile")
    }

    /// Whether it spares what is used (or, for `volatile-ttl`, what lives long).
    fn prefers(self) -> bool {
        !matches!(self, Self::NoEviction | Self::AllKeysRandom | Self::VolatileRandom)
    }
}

/// A probe that has not begun: await it.
#[must_use = "a probe does nothing until it is awaited"]
#[derive(Debug)]
pub struct Probe<'a> {
    own: &'a OwnRedis,
    policy: Policy,
    without_ttl: bool,
}

/// Asks a server of one's own, empty and with a `maxmemory` of at most 64 MiB, whether it evicts by this policy.
///
/// The keys carry a time to live where the policy looks at keys with one only; [`Probe::without_ttl`] leaves it out, as an
/// application would that forgets it.
pub fn probe(own: &OwnRedis, policy: Policy) -> Probe<'_> {
    Probe { own, policy, without_ttl: false }
}

impl Probe<'_> {
    /// Writes keys without a time to live, whatever the policy.
    pub fn without_ttl(mut self) -> Self {
        self.without_ttl = true;
        self
    }
}

impl<'a> IntoFuture for Probe<'a> {
    type Output = CoreResult<Eviction>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

struct Filling {
    connection: MultiplexedConnection,
    value: String,
    refused: u64,
    refusal: Option<String>,
}

impl Filling {
    /// Writes one key; a refusal for lack of memory is counted, anything else is an error.
    async fn set(&mut self, key: &str, ttl_s: Option<&str>) -> CoreResult<bool> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&self.value);
        if let Some(ttl_s) = ttl_s {
            set.arg("EX").arg(ttl_s);
        }
        match set.query_async::<()>(&mut self.connection).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("OOM") => {
                self.refused += 1;
                self.refusal.get_or_insert_with(|| error.to_string());
                Ok(false)
            }
            Err(error) => Err(wire::failed(&["SET", key], error)),
        }
    }

    /// Writes a group and returns how many were taken.
    async fn group(&mut self, name: &str, keys: std::ops::Range<u64>, ttl_s: Option<&str>) -> CoreResult<usize> {
        let mut taken = 0;
        for n in keys {
            taken += usize::from(self.set(&key(name, n), ttl_s).await?);
            if self.refused >= ENOUGH_REFUSALS {
                break;
            }
        }
        Ok(taken)
    }

    async fn touch(&mut self, name: &str, keys: u64) -> CoreResult {
        for n in 0..keys {
            // STRLEN counts as a use and carries no value over the wire.
            let _: u64 = wire::ask(&mut self.connection, &["STRLEN", &key(name, n)]).await?;
        }
        Ok(())
    }

    async fn left(&mut self, name: &str, keys: u64) -> CoreResult<usize> {
        if keys == 0 {
            return Ok(0);
        }
        let mut pipe = redis::pipe();
        for n in 0..keys {
            pipe.cmd("EXISTS").arg(key(name, n));
        }
        let there: Vec<usize> =
            pipe.query_async(&mut self.connection).await.map_err(|error| wire::failed(&["EXISTS"], error))?;
        Ok(there.into_iter().sum())
    }

    /// Waits until a key has not been used for two seconds, by the server's own clock for that.
    async fn cool(&mut self, key: &str) -> CoreResult {
        let idle = async {
            loop {
                let idle_s: Option<u64> = wire::ask(&mut self.connection, &["OBJECT", "IDLETIME", key]).await?;
                if idle_s.is_some_and(|idle_s| idle_s >= 2) {
                    return Ok(());
                }
                pause(Duration::from_millis(50)).await;
            }
        };
        within("waiting for the cold keys to be two seconds old", COOL_LIMIT, idle).await?
    }
}

fn key(group: &str, n: u64) -> String {
    format!("{PREFIX}:{group}:{n}")
}

async fn setting(connection: &mut MultiplexedConnection, name: &str) -> CoreResult<String> {
    let pair: Vec<String> = wire::ask(connection, &["CONFIG", "GET", name]).await?;
    let what = || Error::new(ErrorKind::Protocol, format!("Redis does not state {name}"));
    pair.into_iter().nth(1).ok_or_else(what)
}

impl Probe<'_> {
    async fn run(self) -> CoreResult<Eviction> {
        let mut connection = self.own.connection().await?;
        let found = setting(&mut connection, "maxmemory-policy").await?;
        let max_bytes = room(&mut connection).await?;
        let samples = setting(&mut connection, "maxmemory-samples").await?;
        let () = wire::ask(&mut connection, &["CONFIG", "SET", "maxmemory-samples", "10"]).await?;
        let evicted_before: u64 = Info::read(&mut connection, "stats").await?.number("evicted_keys")?;
        let filled = self.fill(&mut connection, max_bytes, &found).await;
        let evicted_after: u64 = Info::read(&mut connection, "stats").await?.number("evicted_keys")?;
        let () = wire::ask(&mut connection, &["CONFIG", "SET", "maxmemory-samples", &samples]).await?;
        for batch in LogicalDb::keys(&mut connection, &format!("{PREFIX}:*")).await?.chunks(super::logical::BATCH) {
            let mut unlink = redis::cmd("UNLINK");
            let () = unlink.arg(batch).query_async(&mut connection).await.map_err(|e| wire::failed(&["UNLINK"], e))?;
        }
        let evicted = added("the count of evicted keys", evicted_before, evicted_after)?;
        Ok(Eviction { evicted, ..filled? })
    }

    /// Cold keys, then hot ones, then more than fits while the hot ones are used.
    async fn fill(&self, connection: &mut MultiplexedConnection, max_bytes: u64, found: &str) -> CoreResult<Eviction> {
        let used: u64 = Info::read(connection, "memory").await?.number("used_memory")?;
        let room = max_bytes.saturating_sub(used);
        let value = "x".repeat(usize::try_from((room / KEYS).clamp(256, 32 << 10)).unwrap_or(256));
        let mut filling = Filling { connection: connection.clone(), value, refused: 0, refusal: None };
        // Cold keys expire first and hot ones last, so that volatile-ttl has the same to prefer as the others.
        let (soon, late, last) = match self.policy.is_volatile() && !self.without_ttl {
            true => (Some("600"), Some("6000"), Some("60000")),
            false => (None, None, None),
        };
        filling.set(&key("cold", 0), soon).await?;
        let one: Option<u64> =
            wire::ask(&mut filling.connection, &["MEMORY", "USAGE", &key("cold", 0), "SAMPLES", "0"]).await?;
        let all = room / one.unwrap_or(room).max(1);
        // 130 % of what fits, so that two thirds of the cold keys have to go.
        let (cold, hot) = (all * 45 / 100, all * 15 / 100);
        let pinned = if soon.is_some() { all / 10 } else { 0 };
        let more = all * 70 / 100 - pinned;
        let mut report = Eviction {
            policy: self.policy,
            found: found.to_owned(),
            max_bytes,
            evicted: 0,
            refused: 0,
            refusal: None,
            hot: Kept::default(),
            cold: Kept::default(),
            pinned: Kept::default(),
        };
        report.pinned.written = filling.group("pinned", 0..pinned, None).await?;
        report.cold.written = 1 + filling.group("cold", 1..cold, soon).await?;
        report.hot.written = filling.group("hot", 0..hot, last).await?;
        if found.ends_with("-lru") && filling.refused == 0 {
            filling.cool(&key("cold", cold - 1)).await?;
        }
        // LFU counts the first uses most: several rounds lift the hot keys above the new ones.
        for round in 0..10_u64 {
            filling.touch("hot", hot).await?;
            filling.group("more", more * round / 10..more * (round + 1) / 10, late).await?;
        }
        report.hot.left = filling.left("hot", hot).await?;
        report.cold.left = filling.left("cold", cold).await?;
        report.pinned.left = filling.left("pinned", pinned).await?;
        (report.refused, report.refusal) = (filling.refused, filling.refusal);
        Ok(report)
    }
}

/// The server's `maxmemory`, if the probe can fill it.
async fn room(connection: &mut MultiplexedConnection) -> CoreResult<u64> {
    let memory = Info::read(connection, "memory").await?;
    let (max, used): (u64, u64) = (memory.number("maxmemory")?, memory.number("used_memory")?);
    let keys: u64 = wire::ask(connection, &["DBSIZE"]).await?;
    let why = match (max, keys) {
        (_, keys) if keys > 0 => format!("the server holds {keys} keys already, which would be evicted"),
        (0, _) => "the server has no maxmemory, so nothing is ever evicted".to_owned(),
        (max, _) if max > MOST_BYTES => format!("maxmemory is {}, filling that takes too long", bytes(max)),
        (max, _) if max < used + LEAST_ROOM_BYTES => {
            format!("maxmemory is {} and {} are used: there is no room for keys", bytes(max), bytes(used))
        }
        _ => return Ok(max),
    };
    Err(Error::new(ErrorKind::NoEvidence, format!("eviction cannot be probed: {why}"))
        .remedy("start one for the probe: `RedisOptions::new().setting(\"maxmemory\", \"8mb\")`"))
}
