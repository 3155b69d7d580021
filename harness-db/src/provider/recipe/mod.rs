//! How each provider would start a server: programs and settings as data. Nothing starts here.

#[cfg(feature = "postgres")]
mod cluster;
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

use super::image::Engine;
use super::{Attempt, Provider};
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

/// The image to use and the engine that holds it. Only an image that is present will do: a test process never pulls.
fn image(wanted: Option<&str>, candidates: &[&str], service: &str) -> Result<(String, String), Attempt> {
    let failed = |outcome: String, remedy: &str| Attempt::failed(Provider::Container, outcome, Some(remedy));
    if cfg!(not(feature = "containers")) {
        return Err(failed("compiled without the feature `containers`".into(), "enable the feature `containers`"));
    }
    let engine = Engine::find(&variables())
        .map_err(|error| failed(error.to_string(), "start the engine, or go on without: the next provider is asked"))?;
    let names: Vec<&str> = wanted.map_or_else(|| candidates.to_vec(), |name| vec![name]);
    for name in &names {
        match engine.image(name) {
            Ok(Some(_)) => return Ok(((*name).to_owned(), engine.address().to_owned())),
            Ok(None) => {}
            Err(error) => return Err(failed(error.to_string(), "look whether the engine is well")),
        }
    }
    let remedy = match wanted {
        Some(name) => format!("docker pull {name}"),
        None => format!("harness provision --only {service}"),
    };
    Err(failed(format!("no image of {} is present", names.join(", ")), &remedy))
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

#[cfg(not(feature = "portable"))]
fn not_compiled() -> Attempt {
    Attempt::failed(
        Provider::Portable,
        "compiled without the feature `portable`",
        Some("enable the feature `portable`"),
    )
}
