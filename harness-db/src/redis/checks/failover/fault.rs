//! How a primary is lost, who takes over, and how the old one comes back.

use std::time::{Duration, Instant};

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};

use crate::clerk;
use crate::redis::checks::topology::{Cluster, Lookup, Node, Replicas, Role, Sentinel, with_logs};

/// How long a failover by order may take.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// How a primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailoverKind {
    /// Its process is killed.
    Kill,
    /// Its process is frozen: its connections stay open and say nothing. It wakes up as a primary.
    Freeze,
    /// The topology is told to change its primary (`SENTINEL FAILOVER`, `CLUSTER FAILOVER`) while the old one is well.
    Ordered,
    /// A replica is promoted by hand and the old primary not told; half of the clients hear of it. Only where nobody
    /// watches: sentinels and clusters would undo it.
    Split,
}

/// A topology as a failover sees it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Target {
    /// Nobody watches.
    Replicas(Replicas),
    /// Sentinels watch.
    Sentinel(Sentinel),
    /// The nodes watch each other.
    Cluster(Cluster),
}

impl From<&Replicas> for Target {
    fn from(target: &Replicas) -> Self {
        Self::Replicas(target.share())
    }
}

impl From<&Sentinel> for Target {
    fn from(target: &Sentinel) -> Self {
        Self::Sentinel(target.share())
    }
}

impl From<&Cluster> for Target {
    fn from(target: &Cluster) -> Self {
        Self::Cluster(target.share())
    }
}

impl Sentinel {
    /// Makes the topology change its primary and waits for the new one. A killed or frozen node stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when nobody is promoted within 30 s; [`ErrorKind::Refused`] for [`FailoverKind::Split`].
    pub async fn failover(&self, kind: FailoverKind) -> CoreResult<Node> {
        let target = Target::from(self);
        let (primary, lookup) = (self.primary().await?, self.lookup());
        clerk::run(move || async move { target.lose(kind, &primary, &lookup).await }).await
    }
}

impl Cluster {
    /// Makes the shard of this key change its primary and waits for the new one. A killed or frozen node stays as it is.
    ///
    /// # Errors
    /// As [`Sentinel::failover`].
    pub async fn failover(&self, key: &str, kind: FailoverKind) -> CoreResult<Node> {
        let target = Target::from(self);
        let (primary, lookup) = (self.slot_owner(key).await?, self.lookup(key));
        clerk::run(move || async move { target.lose(kind, &primary, &lookup).await }).await
    }
}

impl Target {
    /// The same nodes, without a say in their end.
    #[cfg(feature = "fault")]
    pub(super) fn share(&self) -> Self {
        match self {
            Self::Replicas(replicas) => Self::Replicas(replicas.share()),
            Self::Sentinel(sentinel) => Self::Sentinel(sentinel.share()),
            Self::Cluster(cluster) => Self::Cluster(cluster.share()),
        }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        match self {
            Self::Replicas(replicas) => replicas.nodes(),
            Self::Sentinel(sentinel) => sentinel.nodes(),
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }

    pub(super) fn lookup(&self, key: &str) -> Lookup {
        match self {
            Self::Replicas(replicas) => replicas.lookup(),
            Self::Sentinel(sentinel) => sentinel.lookup(),
            Self::Cluster(cluster) => cluster.lookup(key),
        }
    }

    async fn lose(&self, kind: FailoverKind, primary: &Node, lookup: &Lookup) -> CoreResult<Node> {
        self.apply(kind, primary, lookup).await?;
        self.wait_for_promotion(kind, primary, lookup, ORDER_LIMIT).await
    }

    /// Applies the fault, and returns as soon as it is there.
    pub(super) async fn apply(&self, kind: FailoverKind, primary: &Node, lookup: &Lookup) -> CoreResult {
        match kind {
            FailoverKind::Kill => primary.kill().await,
            FailoverKind::Freeze => primary.pause().await,
            FailoverKind::Ordered => self.order(primary).await,
            FailoverKind::Split => match self {
                Self::Replicas(replicas) => replicas.promote(&self.replica_of(primary).await?).await,
                _ => {
                    let what = format!("will not promote a node by hand where {lookup} names the primary");
                    Err(Error::new(ErrorKind::Refused, what)
                        .remedy("split `redis_replicas(..)`, which nobody watches, or freeze the primary"))
                }
            },
        }
    }

    async fn order(&self, primary: &Node) -> CoreResult {
        match self {
            Self::Replicas(replicas) => {
                let next = self.replica_of(primary).await?;
                replicas.promote(&next).await?;
                replicas.follow(primary, &next).await
            }
            Self::Sentinel(sentinel) => self.order_sentinels(sentinel).await,
            Self::Cluster(_) => self.replica_of(primary).await?.ask(&["CLUSTER", "FAILOVER"]).await,
        }
    }

    /// A sentinel that has no fresh word of a good replica says NOGOODSLAVE; a moment later it has.
    async fn order_sentinels(&self, sentinel: &Sentinel) -> CoreResult {
        let words = ["SENTINEL", "FAILOVER", sentinel.master_name()];
        wait_for("a sentinel to accept the order", ORDER_LIMIT, async || {
            match sentinel.sentinels()[0].ask::<()>(&words).await {
                Ok(()) => Progress::Ready(()),
                Err(error) => Progress::NotYet(error.to_string()),
            }
        })
        .await
    }

    async fn replica_of(&self, primary: &Node) -> CoreResult<Node> {
        for node in self.nodes() {
            if let Ok(Role::Replica { of, linked: true }) = node.role().await
                && of == primary.address()
            {
                return Ok(node.clone());
            }
        }
        Err(Error::new(ErrorKind::Refused, format!("{} has no replica that could take over", primary.name())))
    }

    /// Waits until somebody else is primary: clients are sent there, and the node itself says so.
    pub(super) async fn wait_for_promotion(
        &self,
        kind: FailoverKind,
        old: &Node,
        lookup: &Lookup,
        limit: Duration,
    ) -> CoreResult<Node> {
        let begun = Instant::now();
        let waited = wait_for(format!("somebody to take over from {}", old.name()), limit, async || {
            let named = match (kind, self) {
                // The old primary still names itself.
                (FailoverKind::Split, Self::Replicas(replicas)) => other_primary(replicas, old).await,
                _ => lookup.primary().await,
            };
            match named {
                Ok(node) if node.address() == old.address() => {
                    Progress::NotYet("it is still named as the primary".to_owned())
                }
                Ok(node) => match node.role().await {
                    Ok(role) if role.is_primary() => Progress::Ready(node),
                    Ok(role) => Progress::NotYet(format!("{} is {role}", node.address())),
                    Err(error) => Progress::NotYet(format!("{}: {error}", node.address())),
                },
                Err(error) => Progress::NotYet(format!("{error:?}")),
            }
        });
        waited.await.map_err(|error| error.tried(format!("for {:.1} s", begun.elapsed().as_secs_f64())))
    }

    /// Brings the old primary back, as a replica of whoever is primary by then: the node this returns.
    pub(super) async fn heal(
        &self,
        kind: FailoverKind,
        old: &Node,
        new: &Node,
        lookup: &Lookup,
        limit: Duration,
    ) -> CoreResult<Node> {
        match kind {
            FailoverKind::Kill => old.start_again().await?,
            FailoverKind::Freeze => old.resume().await?,
            FailoverKind::Ordered | FailoverKind::Split => {}
        }
        if let Self::Replicas(replicas) = self {
            for node in self.nodes().iter().filter(|node| node.address() != new.address()) {
                replicas.follow(node, new).await?;
            }
        }
        let what = format!("node {} to be a replica of the new primary", old.name());
        let back = wait_for(what, limit, async || match (lookup.primary().await, old.role().await) {
            (Ok(now), Ok(Role::Replica { of, linked: true })) if of == now.address() => Progress::Ready(now),
            (Ok(now), Ok(role)) => Progress::NotYet(format!("it is {role}, the primary is {}", now.address())),
            (Err(error), _) | (_, Err(error)) => Progress::NotYet(error.to_string()),
        });
        back.await.map_err(|error| with_logs(error, [old, new]))
    }

    /// The nodes that shall have what this primary has, as soon as they follow it; those that do not in time are left out.
    pub(super) async fn followers(&self, primary: &Node, limit: Duration) -> Vec<Node> {
        if let Self::Cluster(cluster) = self {
            return cluster.replicas_of(primary).await;
        }
        let follows = |role: &Role| *role == Role::Replica { of: primary.address(), linked: true };
        let mut found = Vec::new();
        for node in self.nodes().iter().filter(|node| node.address() != primary.address()) {
            if node.wait_for_role("a replica of the primary", limit, follows).await.is_ok() {
                found.push(node.clone());
            }
        }
        found
    }
}

async fn other_primary(replicas: &Replicas, old: &Node) -> CoreResult<Node> {
    for node in replicas.nodes().iter().filter(|node| node.address() != old.address()) {
        if node.role().await.is_ok_and(|role| role.is_primary()) {
            return Ok(node.clone());
        }
    }
    Err(Error::new(ErrorKind::Connect, "no other node is a primary"))
}
