//! Redis servers that replicate: a primary with replicas, watched by sentinels, or a cluster.
//!
//! Every node listens and announces itself on 127.0.0.1, so that clients and nodes reach each other by the addresses they
//! are told. Nodes are processes where binaries are installed, since one is up in milliseconds, else containers in this
//! machine's own network (behind published ports a node would announce an address that is not its own), else portable
//! binaries; `HARNESS_PROVIDERS` sets another order. They belong to a scope, which ends them, and die with the test process.
//!
//! A topology is handed out when a write to a primary was read on each of its replicas, not earlier. With a password or with TLS
//! the nodes ask each other for them as well.

/// What every topology is asked for, and what it has.
macro_rules! topology {
    ($request:ident => $topology:ident) => {
        impl $request {
            /// Sets an option of every node that holds data, for example `("min-replicas-to-write", "1")`.
            pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.wishes.set(name, value);
                self
            }

            /// Lets nobody in without this password: clients, and the nodes among themselves. The URLs carry it.
            pub fn password(mut self, password: impl Into<String>) -> Self {
                self.wishes.password = Some(password.into());
                self
            }

            /// A user of every node that holds data, with rights in the words of `ACL SETUSER` (`~app:* +get +set`). What is not
            /// granted is forbidden, except `SELECT`. [`Node::user`](super::Node::user) is for the system under test.
            pub fn user(mut self, name: impl Into<String>, rules: &str) -> Self {
                self.wishes.users.push((name.into(), rules.to_owned()));
                self
            }

            /// Speaks TLS and nothing else, to clients and among the nodes, by certificates of one new authority: see
            /// `root_certificate` and `certificates` of what it becomes.
            #[cfg(feature = "tls")]
            pub fn tls(mut self) -> Self {
                self.wishes.wire = $crate::redis::channel::Wire::Tls;
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

        impl IntoFuture for $request {
            type Output = CoreResult<$topology>;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                // The scope is of the caller's thread; the work is done where futures need not be `Send`.
                let scope = TestScope::current();
                Box::pin($crate::clerk::run(move || async move {
                    match self.start(&scope).await {
                        Ok($topology(standing)) => Ok($topology(standing.owning(scope))),
                        Err(error) => {
                            let _ = scope.shutdown().await;
                            Err(error)
                        }
                    }
                }))
            }
        }

        impl $topology {
            /// All nodes that hold data. In the beginning primaries come first, those of a cluster in the order of their slots.
            #[must_use]
            pub fn nodes(&self) -> &[super::Node] {
                &self.0.nodes
            }

            /// Which provider gave the nodes, and what was tried before.
            #[must_use]
            pub fn choice(&self) -> &$crate::provider::Choice {
                &self.0.choice
            }

            /// The file (PEM) with the certificate to trust, if it speaks TLS. Gone with the scope.
            #[cfg(feature = "tls")]
            #[must_use]
            pub fn root_certificate(&self) -> Option<&std::path::Path> {
                self.0.channel.keys.as_ref().map(|keys| &*keys.root)
            }

            /// What a client of the `redis` crate has to trust, if it speaks TLS.
            #[cfg(feature = "tls")]
            #[must_use]
            pub fn certificates(&self) -> Option<redis::TlsCertificates> {
                self.0.channel.keys.as_ref().map(|keys| keys.certificates())
            }

            /// Ends all nodes now and says whether that worked. Those started in a scope end with it.
            ///
            /// # Errors
            /// When a node could not be ended.
            pub async fn shutdown(self) -> CoreResult {
                self.0.end().await
            }

            /// The same nodes, without a say in their end.
            pub(crate) fn share(&self) -> Self {
                Self(self.0.share())
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

use std::sync::Arc;
use std::time::Duration;

use harness_core::env::Settings;
use harness_core::scope::TestScope;
use harness_core::{CoreResult, Error, ErrorKind};

pub use cluster::{Cluster, ClusterRequest};
pub(crate) use lookup::Lookup;
pub use node::{Node, Role};
pub use replicas::{Replicas, ReplicasRequest};
pub use sentinel::{Sentinel, SentinelRequest};
pub use slots::slot_of;

use crate::provider::recipe::node::{NodePlan, node as recipe};
use crate::provider::{Choice, Provider, order, own, remember};
use crate::redis::acl::Grant;
use crate::redis::channel::{Channel, Given, Wire};

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
    password: Option<String>,
    users: Vec<(String, String)>,
    wire: Wire,
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
        // Whoever is primary next asks the others as this one is asked.
        let passwords = self.password.iter().flat_map(|word| [("requirepass", word), ("masterauth", word)]);
        settings.extend(passwords.map(|(name, word)| (name.to_owned(), word.clone())));
        settings.retain(|(name, _)| !self.settings.iter().any(|(own, _)| own == name));
        settings.extend(self.settings.iter().cloned());
        NodePlan { settings, ..NodePlan::default() }
    }

    /// Refuses a password that a sentinel would write into its configuration as two words, or as none.
    fn check_password(&self) -> CoreResult {
        let plain = |c: char| c.is_ascii_graphic() && !"\"'\\#".contains(c);
        match self.password.as_deref() {
            Some(password) if password.is_empty() || !password.chars().all(plain) => {
                let what = "the password of a topology is not one plain word";
                Err(Error::new(ErrorKind::Config, what).remedy(
                    "leave out blanks, quotes, backslashes and `#`: the nodes write it into their configurations",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The users, refused where a name is none.
    fn grants(&self) -> CoreResult<Arc<[Grant]>> {
        let grant = |(name, rules): &(String, String)| {
            let mut grant = Grant::new(name.clone(), "topology");
            grant.can(rules);
            grant.check_name().map(|()| grant)
        };
        self.users.iter().map(grant).collect()
    }
}

/// Starts the nodes of one topology, all by the provider that gave the first.
struct Starter<'a> {
    scope: &'a TestScope,
    order: Vec<Provider>,
    choice: Option<Choice>,
    channel: Channel,
    given: Given,
    grants: Arc<[Grant]>,
}

impl<'a> Starter<'a> {
    fn new(scope: &'a TestScope, wishes: &Wishes) -> CoreResult<Self> {
        let order = match (&wishes.providers, &Settings::get().providers) {
            (Some(own), _) => own.clone(),
            (None, Some(words)) => order(Some(words))?,
            (None, None) => vec![Provider::Local, Provider::Container, Provider::Portable],
        };
        wishes.check_password()?;
        let (channel, given) = Channel::prepare(scope, wishes.wire, wishes.password.clone())?;
        Ok(Self { scope, order, choice: None, channel, given, grants: wishes.grants()? })
    }

    /// Starts one; it answers, and knows nobody yet.
    async fn node(&mut self, name: &str, mut plan: NodePlan, after_start: Vec<Vec<String>>) -> CoreResult<Node> {
        let order = self.choice.as_ref().map_or_else(|| self.order.clone(), |choice| vec![choice.provider]);
        // Sentinels know no users but their own.
        let grants = if plan.sentinel { Arc::default() } else { Arc::clone(&self.grants) };
        self.wire(&mut plan);
        let plan = Arc::new(move |provider| recipe(provider, &plan));
        let question = self.channel.clone();
        let ready = Arc::new(move |at| node::ready(question.info(at)));
        let started = own::start_named("redis", name, self.scope, Some(order), plan, ready).await;
        let (service, choice) = started?;
        if self.choice.is_none() {
            remember(&choice);
            self.choice = Some(choice);
        }
        let node = Node::new(service, after_start, self.channel.clone(), grants);
        node.prepare().await?;
        Ok(node)
    }

    /// What a node needs to speak to the others as all of them do.
    fn wire(&self, plan: &mut NodePlan) {
        plan.tls = self.channel.is_tls();
        plan.files.clone_from(&self.given.files);
        plan.settings.extend(self.given.options.iter().cloned());
        if plan.tls {
            let among = ["tls-replication", "tls-cluster"].map(|name| (name.to_owned(), "yes".to_owned()));
            plan.settings.extend(among);
        }
    }

    /// What was started, as one.
    fn standing(self, nodes: Vec<Node>, sentinels: Vec<Node>) -> CoreResult<Standing> {
        let choice = self.choice.ok_or_else(|| Error::new(ErrorKind::Config, "a topology without nodes"))?;
        Ok(Standing { scope: None, nodes, sentinels, choice, channel: self.channel })
    }
}

/// The nodes of a topology, and who ends them.
#[derive(Debug)]
struct Standing {
    scope: Option<TestScope>,
    nodes: Vec<Node>,
    sentinels: Vec<Node>,
    choice: Choice,
    channel: Channel,
}

impl Standing {
    /// The same with a scope of its own, which ends with it.
    fn owning(self, scope: TestScope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// The same nodes, without a say in their end.
    fn share(&self) -> Self {
        let Self { nodes, sentinels, choice, channel, .. } = self;
        let (nodes, sentinels) = (nodes.clone(), sentinels.clone());
        Self { scope: None, nodes, sentinels, choice: choice.clone(), channel: channel.clone() }
    }

    async fn end(self) -> CoreResult {
        match self.scope {
            Some(scope) => scope.shutdown().await,
            None => Ok(()),
        }
    }
}

/// Adds the last words of these nodes to an error.
pub(crate) fn with_logs<'n>(error: Error, nodes: impl IntoIterator<Item = &'n Node>) -> Error {
    nodes.into_iter().fold(error, |error, node| {
        let lines = node.service().log_lines(LOG_LINES).into_iter().map(|line| format!("{}: {line}", node.name()));
        error.log(lines)
    })
}
