//! A Redis for one test alone, which may be stopped, killed and started again, with the settings of a cache.

use std::net::SocketAddr;
use std::pin::Pin;

use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::wait::Progress;
use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;

use super::{readiness, wire};
use crate::provider::recipe::redis::recipe;
use crate::provider::{Choice, Provider, own};

/// How an [`OwnRedis`] shall be.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
    providers: Option<Vec<Provider>>,
}

impl Default for RedisOptions {
    /// A cache: 1 GiB at most, `allkeys-lru`, nothing on disk.
    fn default() -> Self {
        let settings = [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru"), ("save", ""), ("appendonly", "no")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { settings: settings.into(), providers: None }
    }
}

impl RedisOptions {
    /// A cache: 1 GiB at most, `allkeys-lru`, nothing on disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option, for example `("maxmemory", "4mb")`. Read back after every start, and the server refused when it
    /// ignored it.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
        self
    }

    /// Keeps every acknowledged write: append-only file, synced on each write.
    pub fn durable(self) -> Self {
        self.setting("appendonly", "yes").setting("appendfsync", "always")
    }

    /// Asks these providers, in this order, instead of those of `HARNESS_PROVIDERS`.
    pub fn providers(mut self, providers: impl IntoIterator<Item = Provider>) -> Self {
        self.providers = Some(providers.into_iter().collect());
        self
    }
}

/// A Redis of one test alone, at an address that survives stop and start.
///
/// Its scope ends it. Each verb proves its effect: a stopped or killed server refuses connections, a started one answers
/// and shows its settings.
#[derive(Debug)]
pub struct OwnRedis {
    service: Service,
    settings: Vec<(String, String)>,
    choice: Choice,
}

impl OwnRedis {
    /// Starts one.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] listing every provider that was asked, or naming the setting that was ignored.
    pub async fn start(scope: &TestScope, options: RedisOptions) -> CoreResult<Self> {
        let settings = options.settings.clone();
        let plan = move |provider| {
            let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
            recipe(provider, &settings)
        };
        let (service, choice) = own::start("redis", scope, options.providers, plan, ready).await?;
        let own = Self { service, settings: options.settings, choice };
        own.check_settings().await?;
        Ok(own)
    }

    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Logical database 1 as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/1", self.address())
    }

    /// Which provider gave it, and what was tried before.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The service, for logs, pids and experiments.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A connection to logical database 1.
    ///
    /// # Errors
    /// When it refuses the connection or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&wire::at_index(&readiness::own_info(self.address())?, 1)).await
    }

    /// Stops it in good order. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn stop(&self) -> CoreResult {
        self.service.stop().await.map(drop)
    }

    /// Kills it. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn kill(&self) -> CoreResult {
        self.service.kill().await.map(drop)
    }

    /// Starts it again at the same address. Proven by an answer and by its settings.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs; [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        self.service.start_again().await?;
        self.check_settings().await
    }

    /// Freezes it: it keeps its connections and answers nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn pause(&self) -> CoreResult {
        self.service.pause().await
    }

    /// Ends [`OwnRedis::pause`]. Proven by an answer.
    ///
    /// # Errors
    /// When it does not answer afterwards.
    pub async fn resume(&self) -> CoreResult {
        self.service.resume().await?;
        readiness::probe(self.address()).await.map(drop)
    }

    /// Memory in use, in bytes.
    ///
    /// # Errors
    /// When the server does not answer or does not say.
    pub async fn used_memory(&self) -> CoreResult<u64> {
        self.number("memory", "used_memory").await
    }

    /// The most memory that was ever in use, in bytes.
    ///
    /// # Errors
    /// When the server does not answer or does not say.
    pub async fn used_memory_peak(&self) -> CoreResult<u64> {
        self.number("memory", "used_memory_peak").await
    }

    /// Keys evicted since the start.
    ///
    /// # Errors
    /// When the server does not answer or does not say.
    pub async fn evicted_keys(&self) -> CoreResult<u64> {
        self.number("stats", "evicted_keys").await
    }

    /// The share of lookups that found their key since the start, 0 to 1; `None` when nothing was looked up.
    ///
    /// # Errors
    /// When the server does not answer or does not say.
    pub async fn hit_rate(&self) -> CoreResult<Option<f64>> {
        let hits = self.number("stats", "keyspace_hits").await?;
        let misses = self.number("stats", "keyspace_misses").await?;
        Ok(rate(hits, misses))
    }

    async fn number(&self, section: &str, field: &str) -> CoreResult<u64> {
        let info: String = wire::ask(&mut self.connection().await?, &["INFO", section]).await?;
        let text = wire::info_field(&info, field);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, format!("INFO {section} of Redis gives no number for {field}"))
        })
    }

    /// Holds while the server shows every setting that was asked for. Checked after each start.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] naming the setting, what it is and what was asked for.
    pub async fn check_settings(&self) -> CoreResult {
        let mut connection = self.connection().await?;
        for (name, wanted) in &self.settings {
            let pair: Vec<String> = wire::ask(&mut connection, &["CONFIG", "GET", name]).await?;
            let found = pair.get(1).map(String::as_str).unwrap_or_default();
            if bytes(wanted) != bytes(found) {
                let what = format!("Redis ignored a setting: {name} is `{found}`, `{wanted}` was asked for");
                return Err(
                    Error::new(ErrorKind::Environment, what).remedy("look for a configuration file in the image")
                );
            }
        }
        Ok(())
    }
}

fn ready(at: SocketAddr) -> Pin<Box<dyn Future<Output = Progress<()>> + Send>> {
    Box::pin(async move { readiness::probe(at).await.map(drop).into() })
}

fn rate(hits: u64, misses: u64) -> Option<f64> {
    let lookups = hits + misses;
    (lookups > 0).then(|| hits as f64 / lookups as f64)
}

/// `1gb` as Redis shows it: `1073741824` (redis.conf: `kb` is 1024 bytes, `k` is 1000). Other words stay as they are.
fn bytes(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let factor: u64 = match unit {
        "k" => 1_000,
        "b" => 1,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return lower,
    };
    number.parse::<u64>().map_or_else(|_| lower.clone(), |number| (number * factor).to_string())
}

#[cfg(test)]
mod tests {
    use super::{RedisOptions, bytes, rate};

    #[test]
    fn sizes_are_compared_by_meaning() {
        assert_eq!(bytes("1gb"), "1073741824");
        assert_eq!(bytes("4mb"), bytes("4194304"));
        assert_ne!(bytes("1gb"), bytes("0"));
        assert_eq!(bytes("allkeys-lru"), "allkeys-lru");
    }

    #[test]
    fn rate_without_lookups_is_unknown_and_not_zero() {
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(3, 1), Some(0.75));
    }

    #[test]
    fn a_setting_replaces_the_default() {
        let options = RedisOptions::new().setting("maxmemory", "4mb");
        let found: Vec<_> = options.settings.iter().filter(|(name, _)| name == "maxmemory").collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, "4mb");
    }
}
