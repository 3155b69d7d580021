//! A Redis for one test alone, which may be stopped, killed and started again, with the settings of a cache.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use harness_core::scope::TestScope;
use harness_core::service::Service;
use harness_core::{CoreResult, Error, ErrorKind};
use redis::ConnectionInfo;
use redis::aio::MultiplexedConnection;

use super::acl::{Grant, User, UserRequest};
use super::channel::{Channel, Wire};
use super::{readiness, wire};
use crate::provider::own::{self, Asking};
use crate::provider::recipe::redis::{Wish, wished};
use crate::provider::{Choice, Provider};

/// How an [`OwnRedis`] shall be.
#[derive(Debug, Clone)]
#[must_use]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
    password: Option<String>,
    wire: Wire,
    providers: Option<Vec<Provider>>,
}

impl Default for RedisOptions {
    /// A cache: 1 GiB at most, `allkeys-lru`, nothing on disk.
    fn default() -> Self {
        let settings = [("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru"), ("save", ""), ("appendonly", "no")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { settings: settings.into(), password: None, wire: Wire::Plain, providers: None }
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

    /// A cache as production has it: 1 GiB at most, `allkeys-lru`, an append-only file synced every second, and snapshots. A
    /// kill may lose the last second of writes.
    pub fn production_like(self) -> Self {
        let appending = self.setting("appendonly", "yes").setting("appendfsync", "everysec");
        appending.setting("save", "3600 1 300 100 60 10000")
    }

    /// Lets nobody in without this password (`requirepass`); [`OwnRedis::url`] carries it.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Speaks TLS and nothing else (`tls-port`, and `port 0`), by a certificate of a new authority for 127.0.0.1 and
    /// localhost: a client without TLS is refused, and so is the server by a client that does not trust the authority.
    /// [`OwnRedis::client`] does, and [`OwnRedis::root_certificate`] is for clients of other makes.
    #[cfg(feature = "tls")]
    pub fn tls(mut self) -> Self {
        self.wire = self.wire.max(Wire::Tls);
        self
    }

    /// As [`RedisOptions::tls`], and refuses every client without a certificate of the authority (`tls-auth-clients yes`).
    /// [`OwnRedis::client`] shows one; make others by [`OwnRedis::authority`].
    #[cfg(feature = "tls")]
    pub fn client_certificates(mut self) -> Self {
        self.wire = Wire::ClientCertificates;
        self
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
    channel: Channel,
    info: ConnectionInfo,
    users: Mutex<Vec<Grant>>,
    choice: Choice,
}

impl OwnRedis {
    /// Starts one.
    ///
    /// # Errors
    /// [`ErrorKind::Environment`] listing every provider that was asked, or naming the setting that was ignored.
    pub async fn start(scope: &TestScope, options: RedisOptions) -> CoreResult<Self> {
        let (channel, given) = Channel::prepare(scope, options.wire, options.password.clone())?;
        let (settings, password, tls) = (options.settings.clone(), options.password, channel.is_tls());
        let plan = move |provider| {
            let all = settings.iter().chain(&given.options);
            let mut all: Vec<(&str, &str)> = all.map(|(name, value)| (&**name, &**value)).collect();
            all.extend(password.as_deref().map(|password| ("requirepass", password)));
            wished(provider, &Wish { options: &all, files: &given.files, tls })
        };
        let question = channel.clone();
        let ready = move |at| ready(question.info(at));
        let (service, choice) = own::start("redis", scope, options.providers, plan, ready).await?;
        let info = channel.info(service.address())?;
        let own = Self { service, settings: options.settings, channel, info, users: Mutex::default(), choice };
        own.check_settings().await?;
        Ok(own)
    }

    /// A user with the rights that follow: `own.user("app").can("~app:* +get +set").await?`. What is not granted is
    /// forbidden, except `SELECT`. [`User::url`] is for the system under test.
    ///
    /// # Errors
    /// When awaited: [`ErrorKind::Config`] for a name or a rule that Redis does not take.
    pub fn user(&self, name: impl Into<String>) -> UserRequest<'_> {
        UserRequest::new(self, name.into())
    }

    /// Where it listens; the same over stop and start.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Logical database 1 as a URL, with the password if it has one: `rediss://…` if it speaks TLS. No word of a URL says
    /// what to trust: see [`OwnRedis::client`] and [`OwnRedis::root_certificate`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/1", self.channel.url(self.address(), None))
    }

    /// Logical database 1 as a URL that does not speak TLS: refused by a server that does.
    #[must_use]
    pub fn plain_url(&self) -> String {
        self.url().replacen("rediss://", "redis://", 1)
    }

    /// A client for logical database 1 that trusts the server's authority, and shows a certificate where one is demanded: for
    /// the system under test.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the driver does not take what it is given.
    pub fn client(&self) -> CoreResult<redis::Client> {
        redis::Client::open(wire::at_index(&self.info, 1)).map_err(|error| {
            let what = format!("there is no client for the Redis at {}", self.address());
            Error::new(ErrorKind::Config, what).caused_by(error)
        })
    }

    /// The authority of its certificates, if it speaks TLS: for certificates of more clients.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn authority(&self) -> Option<&crate::tls::Authority> {
        self.channel.keys.as_ref().map(|keys| &keys.authority)
    }

    /// The file (PEM) with the certificate to trust, if it speaks TLS: what `redis-cli --cacert` takes. Gone with the scope.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn root_certificate(&self) -> Option<&std::path::Path> {
        self.channel.keys.as_ref().map(|keys| &*keys.root)
    }

    /// What a client of the `redis` crate trusts and shows, if it speaks TLS: for `redis::Client::build_with_tls`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn certificates(&self) -> Option<redis::TlsCertificates> {
        self.channel.keys.as_ref().map(|keys| keys.certificates())
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
        wire::connect(&wire::at_index(&self.info, 1)).await
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

    /// Starts it again at the same address, with the users it had. Proven by an answer and by its settings.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs; [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        self.service.start_again().await?;
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = self.connection().await?;
        for user in &users {
            user.apply(&mut connection).await?;
        }
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
        readiness::probe_as(&self.info).await.map(drop)
    }

    /// How the harness itself reaches it.
    #[cfg(any(feature = "checks", feature = "fault"))]
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// A user at logical database 1, as this grant makes it.
    pub(super) fn user_of(&self, grant: &Grant) -> User {
        let url = format!("{}/1", self.channel.url(self.address(), Some(&grant.login())));
        User::new(grant, url, &wire::at_index(&self.info, 1))
    }

    /// Keeps a user for the next start.
    pub(super) fn remember(&self, user: Grant) {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).push(user);
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

fn ready(info: CoreResult<ConnectionInfo>) -> Asking {
    let ask = async move { readiness::probe_as(&info?).await };
    Box::pin(async move { ask.await.map(drop).into() })
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
