//! The servers this process uses: each is looked up or started once, whoever asks first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use harness_core::CoreResult;
use harness_core::env::Settings;
use harness_core::keeper::Attached;
use tokio::sync::OnceCell;

use super::{Capabilities, Server, Tenancy, sql};
use crate::env::DbSettings;
use crate::provider::shared::{self, NothingWorked, Wanted};
use crate::provider::{Provider, nothing_worked, order};

/// URL (if one was handed in) and whether pgvector is needed.
type Key = (Option<String>, bool);
type Answer = Result<Arc<Server>, NothingWorked>;
type Cell = Arc<OnceCell<Answer>>;

static SERVERS: Mutex<Option<HashMap<Key, Cell>>> = Mutex::new(None);

/// The server for this URL, else for the environment's URL, else the shared one.
pub(crate) async fn server(url: Option<String>, vector: bool) -> CoreResult<Arc<Server>> {
    let order = order(Settings::get().providers.as_deref())?;
    let from_environment = || DbSettings::get().postgres_url.clone().filter(|_| order.contains(&Provider::Url));
    let url = url.or_else(from_environment);
    let cell = {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.get_or_insert_default().entry((url.clone(), vector)).or_default())
    };
    // That no provider works is remembered: forty tests shall not ask the whole chain forty times.
    let answer = cell.get_or_try_init(|| find(url, vector)).await?;
    match answer {
        Ok(server) => Ok(Arc::clone(server)),
        Err(NothingWorked(attempts)) => Err(nothing_worked("postgres", attempts)),
    }
}

/// Looks anew at the next request: this server has gone.
pub(crate) fn forget(gone: &Arc<Server>) {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_it = |cell: &Cell| matches!(cell.get(), Some(Ok(server)) if Arc::ptr_eq(server, gone));
    servers.get_or_insert_default().retain(|_, cell| !is_it(cell));
}

async fn find(url: Option<String>, vector: bool) -> CoreResult<Answer> {
    if let Some(url) = url {
        return Ok(Ok(Arc::new(guest(url, vector).await?)));
    }
    let wanted = Wanted::Postgres { vector };
    if let Some(attached) = shared::live(wanted).await? {
        return Ok(Ok(Arc::new(ours(wanted, attached)?)));
    }
    // A live server of the other kind will do as well, if it can do what is needed.
    if let Some(other) = shared::live(Wanted::Postgres { vector: !vector }).await?
        && (!vector || Capabilities::from_facts(&other.facts)?.vector.is_some())
    {
        return Ok(Ok(Arc::new(ours(wanted, other)?)));
    }
    match shared::attach_or_start(wanted).await? {
        Ok(attached) => Ok(Ok(Arc::new(ours(wanted, attached)?))),
        Err(nothing) => Ok(Err(nothing)),
    }
}

fn ours(wanted: Wanted, attached: Attached) -> CoreResult<Server> {
    let capabilities = Capabilities::from_facts(&attached.facts)?;
    let choice = shared::choice_of(wanted, &attached);
    let base = sql::own_options(attached.address);
    Ok(Server::new(base, capabilities, choice, Tenancy::Ours(Box::new(attached))))
}

/// A foreign server, with a keeper of ours that pools the databases on it.
async fn guest(url: String, vector: bool) -> CoreResult<Server> {
    let attached = shared::move_in(&url).await?;
    let capabilities = Capabilities::from_facts(&attached.facts)?;
    if vector {
        capabilities.check_vector()?;
    }
    let choice = shared::choice_of(Wanted::Postgres { vector }, &attached);
    let base = sql::parse_url("HARNESS_POSTGRES_URL", &url)?.application_name("harness");
    Ok(Server::new(base, capabilities, choice, Tenancy::Guest { attached: Box::new(attached), url }))
}
