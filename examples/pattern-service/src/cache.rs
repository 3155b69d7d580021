//! Two cache tiers for pattern texts: memory of this process and Redis, kept coherent by versions and Pub/Sub.
//!
//! No tier ever goes back to an older version it has been told about: a local slot keeps a floor, and the shared key keeps
//! the number of the newest version even while it has no text. How long a stale text can live: a few milliseconds
//! normally, [`LOCAL_TTL`] if a message is lost, and if Redis itself is away during a change, until the writer has
//! caught up, at most [`SHARED_TTL`] + [`LOCAL_TTL`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::Config;
use crate::log;
use crate::metrics::{Metrics, count};
use crate::plant::{Plant, Plants};

/// Age at which a local entry is no longer trusted.
pub const LOCAL_TTL: Duration = Duration::from_secs(30);
/// Age at which Redis drops an entry.
pub const SHARED_TTL: Duration = Duration::from_secs(60);
const REDIS_LIMIT: Duration = Duration::from_millis(250);
const BEAT: Duration = Duration::from_secs(1);
/// No pattern can have this name.
const BEAT_NAME: &str = "!beat";
const SILENCE: Duration = Duration::from_secs(4);

/// Stores unless a newer version is known. KEYS: entry. ARGV: version, text, milliseconds.
const FILL: &str = "local known = redis.call('HGET', KEYS[1], 'v')
if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[1], 'text', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

/// Drops the text, keeps the newest version, tells everybody. KEYS: entry. ARGV: version, milliseconds, channel, message.
const INVALIDATE: &str = "local known = redis.call('HGET', KEYS[1], 'v')
if not known or tonumber(known) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'v', ARGV[1])
  redis.call('HDEL', KEYS[1], 'text')
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('PUBLISH', ARGV[3], ARGV[4])";

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Memory of this process.
    Local,
    /// Redis.
    Shared,
    /// Neither; the text came from Postgres.
    Miss,
}

/// A pattern text with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Version in Postgres.
    pub version: i64,
    /// The text.
    pub text: Arc<str>,
}

#[derive(Debug, Default)]
struct Slot {
    floor: i64,
    entry: Option<(Text, Instant)>,
}

/// The local tier; as many slots as there are patterns.
#[derive(Debug, Default)]
struct Local(Mutex<HashMap<String, Slot>>);

impl Local {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &str, now: Instant) -> Option<Text> {
        let slots = self.lock();
        let (text, stored) = slots.get(name)?.entry.as_ref()?;
        (now.duration_since(*stored) < LOCAL_TTL).then(|| text.clone())
    }

    fn put(&self, name: &str, text: &Text, now: Instant) {
        let mut slots = self.lock();
        let slot = slots.entry(name.to_owned()).or_default();
        if text.version >= slot.floor {
            *slot = Slot { floor: text.version, entry: Some((text.clone(), now)) };
        }
    }

    fn invalidate(&self, name: &str, version: i64) {
        let mut slots = self.lock();
        let slot = slots.entry(name.to_owned()).or_default();
        if version > slot.floor {
            *slot = Slot { floor: version, entry: None };
        }
    }

    fn clear(&self) {
        self.lock().values_mut().for_each(|slot| slot.entry = None);
    }
}

/// Both tiers.
pub struct Cache {
    local: Local,
    link: Mutex<Link>,
    /// Those who know the primary; empty when the address does not change.
    sentinels: Vec<Client>,
    master: String,
    scope: String,
    instance: String,
    up: watch::Sender<bool>,
    /// Changes that Redis has not heard of yet.
    pending: Mutex<HashMap<String, i64>>,
    metrics: Arc<Metrics>,
    plants: Plants,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("scope", &self.scope).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Where the shared tier is at present.
#[derive(Clone)]
struct Link {
    url: String,
    client: Client,
    manager: ConnectionManager,
}

impl Link {
    fn to(url: String) -> Result<Self, RedisError> {
        let client = Client::open(url.as_str())?;
        let settings = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(REDIS_LIMIT))
            .set_response_timeout(Some(REDIS_LIMIT));
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), settings)?;
        Ok(Self { url, client, manager })
    }
}

impl Cache {
    /// Prepares both tiers; does not need Redis to be there.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, RedisError> {
        let sentinels = config.sentinels.iter().map(|at| Client::open(format!("redis://{at}")));
        Ok(Self {
            local: Local::default(),
            link: Mutex::new(Link::to(config.redis_url.expose().to_owned())?),
            sentinels: sentinels.collect::<Result<_, _>>()?,
            master: config.redis_master.clone(),
            // Channels do not know databases, so the number goes into the name.
            scope: format!("pattern-service:{}", config.redis_db),
            instance: crate::unique_id(),
            up: watch::Sender::new(false),
            pending: Mutex::default(),
            metrics,
            plants: config.plants,
        })
    }

    /// Whether Redis answers and the subscription has been proven to work.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until the shared tier works, but no longer than this.
    pub async fn wait_until_up(&self, limit: Duration) -> bool {
        let mut up = self.up.subscribe();
        timeout(limit, up.wait_for(|up| *up)).await.is_ok_and(|seen| seen.is_ok())
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to whom the sentinels name as the primary. Nobody answers: the old address is tried again.
    async fn find_primary(&self, is_first: bool) -> Result<(), RedisError> {
        if self.plants.on(Plant::StaysWithOldPrimary) && !is_first {
            return Ok(());
        }
        for sentinel in &self.sentinels {
            let asked = timeout(REDIS_LIMIT, async {
                let mut connection = sentinel.get_multiplexed_async_connection().await?;
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(&self.master);
                ask.query_async::<Option<(String, u16)>>(&mut connection).await
            });
            let Ok(Ok(Some((host, port)))) = asked.await else { continue };
            let now = self.link().url.clone();
            let primary = with_address(&now, &host, port).ok_or_else(|| {
                RedisError::from((redis::ErrorKind::InvalidClientConfig, "the sentinels name an odd address"))
            })?;
            if primary != now {
                log::info!("the primary of the shared cache is {host}:{port}");
                *self.link() = Link::to(primary)?;
            }
            return Ok(());
        }
        Ok(())
    }

    fn key(&self, name: &str) -> String {
        format!("{}:pattern:{name}", self.scope)
    }

    fn channel(&self) -> String {
        format!("{}:invalidate", self.scope)
    }

    /// Looks into the local tier, then into the shared one.
    pub async fn get(&self, name: &str) -> Option<(Text, Tier)> {
        if let Some(text) = self.local.get(name, Instant::now()) {
            count(&self.metrics.local.hits);
            if self.plants.on(Plant::SlowLocalTier) {
                sleep(Duration::from_millis(2)).await;
            }
            if !self.is_up() {
                count(&self.metrics.cache_fallbacks);
            }
            return Some((text, Tier::Local));
        }
        count(&self.metrics.local.misses);
        if !self.is_up() || self.pending().contains_key(name) {
            count(&self.metrics.cache_fallbacks);
            count(&self.metrics.shared.misses);
            return None;
        }
        if self.plants.on(Plant::SlowSharedTier) {
            sleep(Duration::from_millis(15)).await;
        }
        let mut get = redis::cmd("HMGET");
        get.arg(self.key(name)).arg("v").arg("text");
        match self.ask::<(Option<i64>, Option<String>)>(&get).await {
            Some((Some(version), Some(text))) => {
                count(&self.metrics.shared.hits);
                let text = Text { version, text: text.into() };
                self.keep_locally(name, &text);
                Some((text, Tier::Shared))
            }
            answer => {
                count(&self.metrics.shared.misses);
                if answer.is_none() {
                    count(&self.metrics.cache_fallbacks);
                }
                None
            }
        }
    }

    /// Fills both tiers after a miss.
    pub async fn fill(&self, name: &str, text: &Text) {
        self.keep_locally(name, text);
        if self.is_up() && !self.plants.on(Plant::NoCache) {
            let mut fill = redis::cmd("EVAL");
            fill.arg(FILL).arg(1).arg(self.key(name)).arg(text.version).arg(&*text.text).arg(self.lifetime_ms());
            let _: Option<i64> = self.ask(&fill).await;
        }
    }

    fn lifetime_ms(&self) -> u64 {
        let factor = if self.plants.on(Plant::ImmortalEntry) { 5_000_000 } else { 1 };
        SHARED_TTL.as_millis() as u64 * factor
    }

    fn keep_locally(&self, name: &str, text: &Text) {
        if !self.plants.on(Plant::NoCache) && !self.plants.on(Plant::NoLocalTier) {
            self.local.put(name, text, Instant::now());
        }
    }

    /// Makes every tier of every instance forget texts older than this version. If Redis is away the change is kept and
    /// told as soon as it is back; until then this instance reads around the shared tier.
    pub async fn invalidate(&self, name: &str, version: i64) {
        if self.plants.on(Plant::RefusesWhenFull) {
            let mut set = redis::cmd("CONFIG");
            let _: Option<String> = self.ask(set.arg("SET").arg("maxmemory-policy").arg("noeviction")).await;
        }
        if self.plants.on(Plant::LostInvalidation) {
            return;
        }
        self.local.invalidate(name, version);
        if !self.is_up() || !self.tell(name, version).await {
            let mut pending = self.pending();
            let newest = pending.entry(name.to_owned()).or_default();
            *newest = version.max(*newest);
        }
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, name: &str, version: i64) -> bool {
        let mut tell = redis::cmd("EVAL");
        tell.arg(INVALIDATE).arg(1).arg(self.key(name)).arg(version).arg(self.lifetime_ms());
        tell.arg(self.channel()).arg(format!("{name} {version}"));
        self.ask::<i64>(&tell).await.is_some()
    }

    /// Asks Redis within the time limit; a failure takes the shared tier out until the subscription proves it again.
    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let mut manager = self.link().manager.clone();
        match timeout(REDIS_LIMIT, command.query_async(&mut manager)).await {
            Ok(Ok(value)) => Some(value),
            failed => {
                if self.up.send_replace(false) {
                    log::warn!("the shared cache is away: {}", failed.err().map_or("error", |_| "time limit"));
                }
                None
            }
        }
    }

    /// Follows the messages of the other instances until told to stop; reconnects by itself.
    pub async fn follow(&self, mut stop: watch::Receiver<bool>) {
        let work = async {
            let mut is_first = true;
            loop {
                let ended = match self.find_primary(std::mem::take(&mut is_first)).await {
                    Ok(()) => self.subscribed().await,
                    Err(error) => Err(error),
                };
                self.up.send_replace(false);
                log::debug!("cache subscription ended: {ended:?}");
                sleep(BEAT / 4).await;
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// One subscription. The instance sends a beat through its command connection and takes the shared tier for usable
    /// only while the beat comes back through the subscription: that proves both.
    async fn subscribed(&self) -> Result<(), RedisError> {
        let silent = || RedisError::from((redis::ErrorKind::Io, "Redis is silent"));
        let client = self.link().client.clone();
        let mut subscription = timeout(REDIS_LIMIT, client.get_async_pubsub()).await.map_err(|_| silent())??;
        timeout(REDIS_LIMIT, subscription.subscribe(self.channel())).await.map_err(|_| silent())??;
        if !self.plants.on(Plant::KeepsMissedTexts) {
            self.local.clear(); // messages may have been missed
        }
        let mut messages = subscription.into_on_message();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return Ok(()) };
                    if self.hear(&message.get_payload::<String>()?).await {
                        heard = Instant::now();
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(silent());
                    }
                    let mut publish = redis::cmd("PUBLISH");
                    publish.arg(self.channel()).arg(format!("{BEAT_NAME} {}", self.instance));
                    if self.ask::<i64>(&publish).await.is_none() {
                        beat.reset_after(BEAT / 8); // the connection may be the one from before an outage
                    }
                }
            }
        }
    }

    /// Takes one message; true if it was this instance's own beat.
    async fn hear(&self, message: &str) -> bool {
        match message.split_once(' ') {
            Some((BEAT_NAME, instance)) if instance == self.instance => {
                let owed: Vec<(String, i64)> = self.pending().clone().into_iter().collect();
                for (name, version) in owed {
                    if !self.tell(&name, version).await {
                        return false;
                    }
                    self.pending().retain(|other, newest| *other != name || *newest > version);
                }
                if !self.up.send_replace(true) {
                    log::info!("the shared cache is there");
                }
                true
            }
            Some((name, version)) => {
                match version.parse() {
                    Ok(version) => self.local.invalidate(name, version),
                    Err(_) if name == BEAT_NAME => {}
                    Err(_) => log::warn!("odd message on the cache channel"),
                }
                false
            }
            None => false,
        }
    }
}

/// The same address with another host and port: password and database stay.
fn with_address(url: &str, host: &str, port: u16) -> Option<String> {
    let mut url = reqwest::Url::parse(url).ok()?;
    url.set_host(Some(host)).ok()?;
    url.set_port(Some(port)).ok()?;
    Some(url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_primary_keeps_password_and_database() {
        let moved = with_address("redis://:secret@127.0.0.1:6379/1", "127.0.0.2", 7000);
        assert_eq!(moved.as_deref(), Some("redis://:secret@127.0.0.2:7000/1"));
        assert_eq!(with_address("nonsense", "127.0.0.1", 1), None);
    }

    fn text(version: i64) -> Text {
        Text { version, text: format!("v{version}").into() }
    }

    #[test]
    fn slow_reader_cannot_bring_an_old_version_back() {
        let (local, now) = (Local::default(), Instant::now());
        local.invalidate("a", 2);
        local.put("a", &text(1), now);
        assert_eq!(local.get("a", now), None);
        local.put("a", &text(2), now);
        assert_eq!(local.get("a", now), Some(text(2)));
        local.clear();
        local.put("a", &text(1), now);
        assert_eq!(local.get("a", now), None, "a cleared slot keeps its floor");
    }

    #[test]
    fn late_message_about_an_old_version_clears_nothing() {
        let (local, now) = (Local::default(), Instant::now());
        local.put("a", &text(3), now);
        local.invalidate("a", 3);
        local.invalidate("a", 2);
        assert_eq!(local.get("a", now), Some(text(3)));
    }

    #[test]
    fn local_entry_expires_as_a_safety_net() {
        let (local, now) = (Local::default(), Instant::now());
        local.put("a", &text(1), now);
        assert!(local.get("a", now + LOCAL_TTL - Duration::from_millis(1)).is_some());
        assert!(local.get("a", now + LOCAL_TTL).is_none());
    }
}
