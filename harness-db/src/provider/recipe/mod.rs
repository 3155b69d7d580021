//! How each provider would start a server: programs and settings as data. Nothing starts here.

#[cfg(feature = "postgres")]
mod cluster;
#[cfg(feature = "containers")]
mod container;
#[cfg(not(feature = "containers"))]
#[path = "container_off.rs"]
mod container;
pub(crate) mod files;
#[cfg(all(feature = "checks", feature = "redis"))]
pub(crate) mod node;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;

#[cfg(feature = "portable")]
use harness_core::env::Settings;
use harness_core::keeper::Main;
use harness_core::service::Exec;

use super::{Attempt, Provider};
#[cfg(feature = "portable")]
use crate::env::variables;

/// What one provider would start.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Version and origin, for people.
    pub(crate) what: String,
    /// To run first.
    pub(crate) prepare: Vec<Exec>,
    /// The server; `{port}` and `{data}` are filled in by whoever starts it.
    pub(crate) main: Main,
}

/// The cache of this user.
#[cfg(feature = "portable")]
fn cache_dir() -> Option<std::path::PathBuf> {
    super::portable::default_cache_dir(rustix::process::geteuid().is_root(), &variables())
}

/// Without portable binaries there is no cache.
#[cfg(all(feature = "postgres", not(feature = "portable")))]
fn cache_dir() -> Option<std::path::PathBuf> {
    None
}

#[cfg(feature = "portable")]
fn portable(kind: super::portable::Portable) -> Result<super::portable::Binaries, Attempt> {
    use super::portable::{FetchOptions, fetch};

    let failed = |outcome: String| {
        Attempt::failed(Provider::Portable, outcome, Some(&format!("harness provision --only {}", kind.word())))
    };
    let vars = variables();
    let cache =
        cache_dir().ok_or_else(|| failed("no cache directory: neither HOME nor XDG_CACHE_HOME is set".into()))?;
    let options = FetchOptions {
        offline: Settings::get().offline,
        cache_dir: &cache,
        vars: &vars,
        say: &|line| super::say(line),
        run: &super::image::run,
    };
    fetch(kind, &options).map_err(|error| failed(error.to_string()))
}

#[cfg(not(all(feature = "containers", feature = "portable")))]
fn not_compiled(provider: Provider, feature: &str) -> Attempt {
    let outcome = format!("compiled without the feature `{feature}`");
    Attempt::failed(provider, outcome, Some(&format!("enable the feature `{feature}`")))
}
