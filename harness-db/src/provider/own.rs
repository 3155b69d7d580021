//! A server for one test alone: the same providers, but in the test's scope, at a fixed address, with data that survives
//! stop and start.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness_core::env::Settings;
use harness_core::keeper::Main;
use harness_core::scope::TestScope;
use harness_core::service::{Backend, Exec, Service, ServiceSpec, run_to_end};
use harness_core::wait::{Progress, blocking};
use harness_core::{CoreResult, Error, ErrorKind};

use super::recipe::Recipe;
use super::{Attempt, Choice, Provider, nothing_worked, order, remember};

/// How long preparing the data (`initdb`) may take.
const PREPARE_LIMIT: Duration = Duration::from_secs(120);
/// How long a start, the first one included, may take.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How each provider would start the server.
pub(crate) type Planning = Arc<dyn Fn(Provider) -> Result<Recipe, Attempt> + Send + Sync>;
/// Asks the server at this address whether it is ready.
pub(crate) type Question = Arc<dyn Fn(SocketAddr) -> Asking + Send + Sync>;
/// The answer to the question whether a server is ready.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Progress<()>> + Send>>;

/// Asks the starting providers in order and starts the first one that works.
pub(crate) async fn start(
    service: &'static str,
    scope: &TestScope,
    providers: Option<Vec<Provider>>,
    recipe: impl Fn(Provider) -> Result<Recipe, Attempt> + Send + Sync + 'static,
    ready: impl Fn(SocketAddr) -> Asking + Send + Sync + 'static,
) -> CoreResult<(Service, Choice)> {
    let started = start_named(service, service, scope, providers, Arc::new(recipe), Arc::new(ready));
    let (running, choice) = started.await?;
    remember(&choice);
    Ok((running, choice))
}

/// [`start`] of one of several servers that belong together: it has a name of its own, and its choice is the caller's to
/// remember.
pub(crate) async fn start_named(
    service: &'static str,
    name: &str,
    scope: &TestScope,
    providers: Option<Vec<Provider>>,
    recipe: Planning,
    ready: Question,
) -> CoreResult<(Service, Choice)> {
    let order = match providers {
        Some(providers) => providers,
        None => order(Settings::get().providers.as_deref())?,
    };
    let mut attempts = Vec::new();
    for provider in order.into_iter().filter(|provider| Provider::STARTERS.contains(provider)) {
        let begun = Instant::now();
        let ask = Arc::clone(&recipe);
        let planned = blocking(move || Ok(ask(provider))).await?;
        let started = match planned {
            Err(attempt) => Err(attempt),
            Ok(recipe) => {
                let what = recipe.what.clone();
                let started = start_recipe(name, scope, recipe, Arc::clone(&ready)).await;
                started.map(|service| (service, what)).map_err(|error| Attempt::from_error(provider, &error))
            }
        };
        match started {
            Ok((running, what)) => {
                attempts.push(Attempt::worked(provider, what.clone()).took(begun.elapsed()));
                let choice = Choice { service: service.to_owned(), provider, what, attempts };
                return Ok((running, choice));
            }
            Err(attempt) => attempts.push(attempt.took(begun.elapsed())),
        }
    }
    // A URL would not do: what runs already is never stopped, killed or reconfigured.
    Err(nothing_worked(service, &attempts).remedy("run `harness provision`, or follow what an attempt above asks for"))
}

async fn start_recipe(service: &str, scope: &TestScope, recipe: Recipe, ready: Question) -> CoreResult<Service> {
    let backend = match recipe.main {
        Main::Container(spec) => Backend::Container(spec), // its port is explicit: an automatic one moves at a restart
        Main::Process(main) => {
            let data = data_dir(scope, &main)?;
            let prepare: Vec<Exec> = recipe.prepare.iter().map(|exec| exec.fill("data", &data)).collect();
            blocking(move || prepare.iter().try_for_each(prepared)).await?;
            Backend::Process(main.fill("data", &data))
        }
        _ => return Err(Error::new(ErrorKind::Config, "a provider planned no server")),
    };
    ServiceSpec::new(free_name(service, scope)?, backend)
        .ready(move |at| ready(at.address))
        .limit(START_LIMIT)
        .start(scope)
        .await
}

/// A name whose log nobody in this scope writes yet: `postgres`, `postgres-2`, …
fn free_name(service: &str, scope: &TestScope) -> CoreResult<String> {
    let mut name = service.to_owned();
    for n in 2.. {
        if !scope.evidence_path(&format!("{name}.log"))?.exists() {
            break;
        }
        name = format!("{service}-{n}");
    }
    Ok(name)
}

/// A directory for the server's data that belongs to the server's user.
fn data_dir(scope: &TestScope, main: &Exec) -> CoreResult<String> {
    let data: PathBuf = scope.temp_dir()?.join("data");
    std::fs::create_dir_all(&data)?;
    if let Some(user) = &main.user
        && rustix::process::geteuid().is_root()
    {
        hand_over(&data, user)?;
    }
    Ok(data.display().to_string())
}

/// Makes a directory the property of a user.
pub(crate) fn hand_over(dir: &Path, user: &str) -> CoreResult {
    let (uid, gid) = ids(user)?;
    Ok(chown(dir, Some(uid), Some(gid))?)
}

/// User and group id of a user of this machine.
fn ids(user: &str) -> CoreResult<(u32, u32)> {
    let users = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == user);
    let number = |at: usize| fields.as_ref().and_then(|fields| fields.get(at)).and_then(|text| text.parse().ok());
    number(2).zip(number(3)).ok_or_else(|| {
        Error::new(ErrorKind::Environment, format!("there is no user `{user}` on this machine"))
            .remedy("run as another user than root, or create that user")
    })
}

fn prepared(exec: &Exec) -> CoreResult {
    let done = run_to_end(exec, PREPARE_LIMIT)?;
    match done.code {
        Some(0) => Ok(()),
        code => Err(Error::new(ErrorKind::Exited, format!("`{}` ended with {code:?}", exec.command_line()))
            .log(done.stderr.lines().chain(done.stdout.lines()))),
    }
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn users_are_looked_up_and_missing_ones_named() {
        assert_eq!(ids("root").unwrap(), (0, 0));
        assert!(ids("no-such-user").unwrap_err().to_string().contains("`no-such-user`"));
    }
}
