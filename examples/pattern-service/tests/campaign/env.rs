//! The only place in this campaign that reads the environment.

use harness_core::campaign::Guard;
use harness_core::{CoreResult, Error, ErrorKind};

/// A service that runs already.
#[derive(Debug, Clone)]
pub(crate) struct External {
    /// `TMWS_SERVICE_URL`.
    pub(crate) service: String,
    /// `TMWS_DATABASE_URL`.
    pub(crate) database: String,
    /// `TMWS_REDIS_URL`.
    pub(crate) redis: String,
}

/// The service to visit, if the environment names one.
///
/// # Errors
/// [`ErrorKind::Config`] naming every variable that is missing beside `TMWS_SERVICE_URL`.
pub(crate) fn external() -> CoreResult<Option<External>> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(service) = read("TMWS_SERVICE_URL") else { return Ok(None) };
    match (read("TMWS_DATABASE_URL"), read("TMWS_REDIS_URL")) {
        (Some(database), Some(redis)) => Ok(Some(External { service, database, redis })),
        (database, redis) => {
            let missing = [("TMWS_DATABASE_URL", database.is_none()), ("TMWS_REDIS_URL", redis.is_none())];
            let names: Vec<_> = missing.iter().filter(|(_, missing)| *missing).map(|(name, _)| *name).collect();
            Err(Error::new(ErrorKind::Config, format!("TMWS_SERVICE_URL is set, but not {}", names.join(" and ")))
                .remedy("set them to the servers of that service, so that the harness can look into them"))
        }
    }
}

/// The tag of the release that is to be decided, from `TMWS_RELEASE_TAG`; nothing in a run that releases nothing.
pub(crate) fn release_tag() -> Option<String> {
    std::env::var("TMWS_RELEASE_TAG").ok().filter(|tag| !tag.is_empty())
}

/// What must be true before a service that is not ours is touched; nothing when the campaign starts its own.
pub(crate) fn guard() -> Option<Guard> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let service = read("TMWS_SERVICE_URL")?;
    let guard =
        Guard::new().environment("TMWS_ENVIRONMENT", read("TMWS_ENVIRONMENT").as_deref()).url("service", &service);
    let servers = [("database", "TMWS_DATABASE_URL"), ("cache", "TMWS_REDIS_URL")];
    let known = servers.into_iter().filter_map(|(what, name)| Some((what, read(name)?)));
    Some(known.fold(guard, |guard, (what, url)| guard.url(what, &url)))
}
