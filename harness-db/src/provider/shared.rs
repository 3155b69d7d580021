//! The shared server of a service: attach to the live one, else ask the providers in order and publish what comes up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness_core::env::Settings;
#[cfg(feature = "postgres")]
use harness_core::keeper::Main;
use harness_core::keeper::{Attached, Launch, Slot, StartGuard};
use harness_core::run::fnv;
use harness_core::wait::{Progress, blocking, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};

use super::recipe::Recipe;
use super::{Attempt, Choice, Provider, order, remember, say};
use crate::env::DbSettings;

/// The fact that names the service.
pub(crate) const SERVICE: &str = "service";
/// The fact that holds the [`Choice`].
const CHOICE: &str = "choice";
/// Raised when servers of an older version of this crate would not do.
const FORMAT: &str = "9";
/// How long another process may take to start the server we wait for: a cold start may fetch binaries.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Free memory that makes a shared server keep its data there: those of some dozens of tests are a few hundred megabytes.
const MEMORY: u64 = 4 << 30;
/// How long a started server may take to answer.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What is wanted of a shared server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    #[cfg(feature = "postgres")]
    Postgres { vector: bool },
    #[cfg(feature = "redis")]
    Redis,
}

/// No provider gave a server.
#[derive(Debug, Clone)]
pub(crate) struct NothingWorked(pub(crate) Vec<Attempt>);

impl Wanted {
    pub(crate) fn service(self) -> &'static str {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => "postgres",
            #[cfg(feature = "redis")]
            Self::Redis => "redis",
        }
    }

    /// What decides which server will do: another setting is another server.
    fn key(self) -> String {
        let (core, own) = (Settings::get(), DbSettings::get());
        let image = match self.service() {
            "redis" => &own.redis_image,
            _ => &own.postgres_image,
        };
        let how = (&core.providers, image, &own.data, self.settings());
        fnv_hex(&format!("{FORMAT} {self:?} {how:?}"))
    }

    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => super::recipe::postgres::FAST,
            #[cfg(feature = "redis")]
            Self::Redis => super::recipe::redis::FAST,
        }
    }

    fn recipe(self, provider: Provider) -> Result<Recipe, Attempt> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { vector } => super::recipe::postgres::recipe(provider, self.settings(), vector),
            #[cfg(feature = "redis")]
            Self::Redis => super::recipe::redis::recipe(provider, self.settings()),
        }
    }

    /// Asks the server itself, over the very address that tests will use. The facts go to everybody who attaches.
    async fn probe(self, address: SocketAddr) -> CoreResult<BTreeMap<String, String>> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => crate::postgres::readiness::probe(address).await,
            #[cfg(feature = "redis")]
            Self::Redis => crate::redis::readiness::probe(address).await,
        }
    }

    /// Refuses a server that came up but is not what was wanted.
    fn accept(self, facts: &BTreeMap<String, String>) -> CoreResult {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { vector } => crate::postgres::readiness::accept(facts, vector, self.settings()),
            #[cfg(feature = "redis")]
            Self::Redis => crate::redis::readiness::accept(facts),
        }
    }

    /// Makes what tests expect on a server of the house.
    async fn furnish(self, address: SocketAddr) -> CoreResult {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => crate::postgres::readiness::furnish(address).await,
            #[cfg(feature = "redis")]
            Self::Redis => {
                let _ = address;
                Ok(())
            }
        }
    }

    fn slot(self) -> CoreResult<Slot> {
        Slot::open(self.service(), &self.key())
    }
}

fn fnv_hex(text: &str) -> String {
    format!("{:016x}", fnv(text.as_bytes()))
}

/// Attaches to a live server of this kind, without starting one.
#[cfg(feature = "postgres")]
pub(crate) async fn live(wanted: Wanted) -> CoreResult<Option<Attached>> {
    let slot = wanted.slot()?;
    if !slot.dir().exists() {
        return Ok(None);
    }
    slot.attach().await
}

/// The live server, else a new one. The inner error lists what was asked; the outer one means that asking failed.
pub(crate) async fn attach_or_start(wanted: Wanted) -> CoreResult<Result<Attached, NothingWorked>> {
    let order = order(Settings::get().providers.as_deref())?;
    let slot = wanted.slot()?;
    if let Some(attached) = slot.attach().await? {
        return Ok(Ok(attached));
    }
    let guard = slot.lock(START_LIMIT).await?;
    if let Some(attached) = slot.attach().await? {
        return Ok(Ok(attached)); // somebody else was faster
    }
    start(wanted, guard, &order).await
}

async fn start(wanted: Wanted, guard: StartGuard, order: &[Provider]) -> CoreResult<Result<Attached, NothingWorked>> {
    let mut attempts = Vec::new();
    for &provider in order {
        if provider == Provider::Url || provider == Provider::Shared {
            let url = format!("HARNESS_{}_URL is not set", wanted.service().to_uppercase());
            let what = if provider == Provider::Url { url } else { "none is running".to_owned() };
            attempts.push(Attempt::failed(provider, what, None));
            continue;
        }
        let begun = Instant::now();
        let recipe = blocking(move || Ok(wanted.recipe(provider))).await?;
        let result = match recipe {
            Ok(recipe) => try_recipe(wanted, &guard, &recipe).await.map(|facts| (recipe.what, facts)),
            Err(attempt) => {
                attempts.push(attempt.took(begun.elapsed()));
                continue;
            }
        };
        match result {
            Ok((what, mut facts)) => {
                attempts.push(Attempt::worked(provider, what.clone()).took(begun.elapsed()));
                let choice = Choice { service: wanted.service().to_owned(), provider, what, attempts };
                facts.insert(SERVICE.to_owned(), wanted.service().to_owned());
                facts.insert(CHOICE.to_owned(), serde_json::to_string(&choice).unwrap_or_default());
                let attached = guard.publish(facts)?;
                say(&choice.line());
                return Ok(Ok(attached));
            }
            Err(error) => {
                attempts.push(Attempt::from_error(provider, &error).took(begun.elapsed()));
                guard.abandon().await?;
            }
        }
    }
    Ok(Err(NothingWorked(attempts)))
}

async fn try_recipe(wanted: Wanted, guard: &StartGuard, recipe: &Recipe) -> CoreResult<BTreeMap<String, String>> {
    let mut launch = Launch::new(crate::custodian::HOOK, recipe.main.clone());
    launch = match DbSettings::get().data.as_deref() {
        None | Some("memory") => launch.in_memory(MEMORY),
        Some("disk") => launch,
        Some(other) => {
            let what = format!("HARNESS_DATA is `{other}`");
            return Err(Error::new(ErrorKind::Config, what).remedy("set it to `memory` or `disk`, or leave it out"));
        }
    };
    for exec in &recipe.prepare {
        launch = launch.prepare(exec.clone());
    }
    let launched = guard.launch(&launch).await?;
    let what = format!("{} to answer at {}", recipe.what, launched.address);
    let facts = wait_for(what, READY_LIMIT, async || {
        if let Err(error) = guard.check_alive() {
            return Progress::Failed(error);
        }
        match wanted.probe(launched.address).await {
            Ok(facts) => Progress::Ready(facts),
            Err(error) => Progress::NotYet(error.to_string()),
        }
    })
    .await?;
    wanted.accept(&facts)?;
    wanted.furnish(launched.address).await?;
    Ok(facts)
}

/// Attaches to the keeper that pools databases on a foreign Postgres, or starts one there.
#[cfg(feature = "postgres")]
pub(crate) async fn move_in(url: &str) -> CoreResult<Attached> {
    use crate::postgres::guest;

    let slot = Slot::open("guest", &fnv_hex(&format!("{FORMAT} {url}")))?;
    if let Some(attached) = slot.attach().await? {
        return Ok(attached);
    }
    let guard = slot.lock(START_LIMIT).await?;
    if let Some(attached) = slot.attach().await? {
        return Ok(attached);
    }
    let begun = Instant::now();
    let capabilities = guest::look(url).await?;
    let what = format!("PostgreSQL {} of HARNESS_POSTGRES_URL", capabilities.version);
    guard.launch(&Launch::new(crate::custodian::HOOK, Main::Nothing)).await?;
    let attempts = vec![Attempt::worked(Provider::Url, what.clone()).took(begun.elapsed())];
    let choice = Choice { service: "postgres".to_owned(), provider: Provider::Url, what, attempts };
    let mut facts = capabilities.into_facts();
    facts.insert(SERVICE.to_owned(), "postgres".to_owned());
    facts.insert(CHOICE.to_owned(), serde_json::to_string(&choice).unwrap_or_default());
    facts.insert(guest::URL.to_owned(), url.to_owned());
    guard.publish(facts)
}

/// The choice a shared server was published with; remembered for [`super::choices`].
pub(crate) fn choice_of(wanted: Wanted, attached: &Attached) -> Choice {
    let text = attached.facts.get(CHOICE).map(String::as_str).unwrap_or_default();
    let choice = serde_json::from_str(text).unwrap_or_else(|_| Choice {
        service: wanted.service().to_owned(),
        provider: Provider::Shared,
        what: format!("a shared server at {}", attached.address),
        attempts: Vec::new(),
    });
    remember(&choice);
    choice
}
