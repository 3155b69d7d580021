//! Redis servers that replicate: a primary with replicas, watched by sentinels, or a cluster.
//!
//! Every node listens and announces itself on 127.0.0.1, so that clients and nodes reach each other by the addresses they
//! are told. Nodes are processes where binaries are installed, since one is up in milliseconds, else containers in this
//! machine's own network (behind published ports a node would announce an address that is not its own), else portable
//! binaries; `HARNESS_PROVIDERS` sets another order. They belong to a scope, which ends them, and die with the test process.
//!
//! A topology is handed out when a write to a primary was read on each of its replicas, not earlier.

/// What every request for a topology may say.
macro_rules! wishes {
    ($request:ty) => {
        impl $request {
            /// Sets an option of every node that holds data, for example `("min-replicas-to-write", "1")`.
            pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.wishes.set(name, value);
                self
            }

            /// Asks these providers, in this order, instead of the usual ones.
            pub fn providers(mut self, providers: impl IntoIterator<Item = $crate::Provider>) -> Self {
                self.wishes.providers = Some(providers.into_iter().collect());
                self
            }

            /// How long it may take until writes replicate; 60 s unless set.
            pub fn ready_within(mut self, limit: std::time::Duration) -> Self {
                self.wishes.ready_within = Some(limit);
                self
            }
        }
    };
}

mod cluster;
mod lookup;
mod node;
mod replicas;
mod sentinel;
mod slots;

use std::time::Duration;

use harness_core::env::Settings;
use harness_core::scope::TestScope;
use harness_core::{CoreResult, Error};

pub use cluster::{Cluster, ClusterRequest};
pub(crate) use lookup::Lookup;
pub use node::{Node, Role};
pub(crate) use node::{ask_at, role_at};
pub(crate) use replicas::node_at;
pub use replicas::{Replicas, ReplicasRequest};
pub use sentinel::{Sentinel, SentinelRequest};
pub use slots::slot_of;

use crate::provider::recipe::node::{NodePlan, node as recipe};
use crate::provider::{Choice, Provider, order, own, remember};

/// How long a topology may take until writes replicate.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Log lines of each node in an error.
const LOG_LINES: usize = 4;

/// A primary with this many replicas, each of which has the primary's data.
///
/// # Errors
/// When awaited: [`ErrorKind::Environment`](harness_core::ErrorKind::Environment) listing every provider that was asked;
/// [`ErrorKind::Timeout`](harness_core::ErrorKind::Timeout) with the last status of each node when writes do not replicate.
pub fn redis_replicas(replicas: usize) -> ReplicasRequest {
    ReplicasRequest::new(replicas)
}

/// A primary with replicas (2) watched by sentinels (3, quorum 2).
///
/// # Errors
/// When awaited, as [`redis_replicas`].
pub fn redis_sentinel() -> SentinelRequest {
    SentinelRequest::new()
}

/// A cluster of shards (3), each a primary with replicas (1).
///
/// # Errors
/// When awaited, as [`redis_replicas`].
pub fn redis_cluster() -> ClusterRequest {
    ClusterRequest::new()
}

/// What every request for a topology may say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    settings: Vec<(String, String)>,
    providers: Option<Vec<Provider>>,
    ready_within: Option<Duration>,
}

/// The settings of every node that holds data: nothing on disk, no delay before a replica is served.
const DATA: &[(&str, &str)] = &[
    ("save", ""),
    ("appendonly", "no"),
    ("repl-diskless-sync", "yes"),
    ("repl-diskless-sync-delay", "0"),
    ("repl-ping-replica-period", "1"),
    ("replica-announce-ip", "127.0.0.1"),
    ("replica-announce-port", "{port}"),
];

impl Wishes {
    fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.settings.retain(|(known, _)| *known != name);
        self.settings.push((name, value.into()));
    }

    fn ready_limit(&self) -> Duration {
        self.ready_within.unwrap_or(READY_LIMIT)
    }

    /// A node that holds data, with these settings besides.
    fn data_node(&self, more: &[(&str, &str)]) -> NodePlan {
        let mut settings: Vec<(String, String)> =
            DATA.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.retain(|(name, _)| !self.settings.iter().any(|(own, _)| own == name));
        settings.extend(self.settings.iter().cloned());
        NodePlan { file: String::new(), sentinel: false, settings, since_7: &[] }
    }
}

/// Starts the nodes of one topology, all by the provider that gave the first.
struct Starter<'a> {
    scope: &'a TestScope,
    order: Vec<Provider>,
    choice: Option<Choice>,
}

impl<'a> Starter<'a> {
    fn new(scope: &'a TestScope, wishes: &Wishes) -> CoreResult<Self> {
        let order = match (&wishes.providers, &Settings::get().providers) {
            (Some(own), _) => own.clone(),
            (None, Some(words)) => order(Some(words))?,
            (None, None) => vec![Provider::Local, Provider::Container, Provider::Portable],
        };
        Ok(Self { scope, order, choice: None })
    }

    /// Starts one; it answers, and knows nobody yet.
    async fn node(&mut self, name: &str, plan: NodePlan, after_start: Vec<Vec<String>>) -> CoreResult<Node> {
        let order = self.choice.as_ref().map_or_else(|| self.order.clone(), |choice| vec![choice.provider]);
        let plan = move |provider| recipe(provider, &plan);
        let started = own::start_named("redis", name, self.scope, Some(order), plan, node::ready).await;
        let (service, choice) = started?;
        if self.choice.is_none() {
            remember(&choice);
            self.choice = Some(choice);
        }
        let node = Node::new(service, after_start);
        node.prepare().await?;
        Ok(node)
    }

    fn into_choice(self) -> CoreResult<Choice> {
        self.choice.ok_or_else(|| Error::new(harness_core::ErrorKind::Config, "a topology without nodes"))
    }
}

/// Adds the last words of these nodes to an error.
pub(crate) fn with_logs<'n>(error: Error, nodes: impl IntoIterator<Item = &'n Node>) -> Error {
    nodes.into_iter().fold(error, |error, node| {
        let lines = node.service().log_lines(LOG_LINES).into_iter().map(|line| format!("{}: {line}", node.name()));
        error.log(lines)
    })
}

/// The end of a topology that was started in a scope of its own.
async fn end(scope: Option<TestScope>) -> CoreResult {
    match scope {
        Some(scope) => scope.shutdown().await,
        None => Ok(()),
    }
}
