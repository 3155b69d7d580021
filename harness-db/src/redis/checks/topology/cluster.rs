//! A cluster: shards that share the slots, each a primary with replicas that take over by themselves.

use std::future::IntoFuture;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};

use super::lookup::node_at;
use super::slots::{Peer, SLOTS, peers, slot_of};
use super::{Lookup, Node, READY_LIMIT, Role, Standing, Starter, Wishes, with_logs};
use crate::provider::recipe::node::NodePlan;

/// Servers before this version listen for their peers at their port plus 10000.
const OWN_BUS_PORT_SINCE: u32 = 7;

/// A request for a cluster: await it, or [`ClusterRequest::start`] it in a scope.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct ClusterRequest {
    shards: usize,
    replicas: usize,
    node_timeout: Duration,
    wishes: Wishes,
}

topology!(ClusterRequest => Cluster);

impl ClusterRequest {
    pub(super) fn new() -> Self {
        Self { shards: 3, replicas: 1, node_timeout: Duration::from_millis(1_500), wishes: Wishes::default() }
    }

    /// How many primaries; 3 unless set, which is the least that can outvote a dead one.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards.max(1);
        self
    }

    /// How many replicas each primary has; 1 unless set. Without any nobody can be promoted.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How long a node may be silent before its peers take it for dead; 1.5 s unless set.
    pub fn node_timeout(mut self, node_timeout: Duration) -> Self {
        self.node_timeout = node_timeout;
        self
    }

    /// Starts it in a scope, whose end ends it.
    ///
    /// # Errors
    /// As [`redis_replicas`](super::redis_replicas).
    pub async fn start(self, scope: &TestScope) -> CoreResult<Cluster> {
        let mut starter = Starter::new(scope, &self.wishes)?;
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for n in 1..=self.shards * (1 + self.replicas) {
            let bus = scope.port()?;
            let number = bus.number();
            // Held until the node has ended: what was registered first ends last.
            scope.on_teardown("bus port", async move || {
                drop(bus);
                Ok(())
            });
            let node = starter.node(&format!("redis-{n}"), self.member(number), Vec::new()).await?;
            buses.push(match major(&node).await? < OWN_BUS_PORT_SINCE {
                true => node.address().port() + 10_000,
                false => number,
            });
            nodes.push(node);
        }
        let cluster = Cluster(starter.standing(nodes, Vec::new())?);
        cluster.join(self.shards, &buses).await?;
        cluster.wait_until_whole(self.wishes.ready_limit()).await?;
        Ok(cluster)
    }

    fn member(&self, bus: u16) -> NodePlan {
        let (bus, timeout_ms) = (bus.to_string(), self.node_timeout.as_millis().max(1).to_string());
        let mut plan = self.wishes.data_node(&[
            ("cluster-enabled", "yes"),
            ("cluster-config-file", "nodes.conf"),
            ("cluster-node-timeout", &timeout_ms),
            ("cluster-announce-ip", "127.0.0.1"),
            ("cluster-announce-port", "{port}"),
            ("cluster-port", &bus),
            ("cluster-announce-bus-port", &bus),
        ]);
        plan.since_7 = &["cluster-port", "cluster-announce-bus-port"];
        plan
    }
}

/// A cluster whose slots are all served.
///
/// Every node stands at an address of its own that survives stop and start. Its scope ends it.
#[derive(Debug)]
#[must_use = "the nodes end when this value is dropped"]
pub struct Cluster(Standing);

impl Cluster {
    /// The URLs of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.0.nodes.iter().map(Node::url).collect()
    }

    /// The primary that serves this key now, as the first node that answers knows it.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when no node names one, with what each said.
    pub async fn slot_owner(&self, key: &str) -> CoreResult<Node> {
        self.lookup(key).primary().await
    }

    /// The nodes that copy this one now, by their own word.
    pub async fn replicas_of(&self, primary: &Node) -> Vec<Node> {
        let mut found = Vec::new();
        for node in &self.0.nodes {
            if let Ok(Role::Replica { of, .. }) = node.role().await
                && of == primary.address()
            {
                found.push(node.clone());
            }
        }
        found
    }

    /// Holds while every node calls the cluster well, sees all others linked and all slots served, and a write to each
    /// shard reaches all its replicas.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the node or shard and what it lacks; [`ErrorKind::Connect`] for a node that is down.
    pub async fn check_whole(&self) -> CoreResult {
        let lacks = |node: &Node, what: String| Error::new(ErrorKind::Assertion, format!("{}: {what}", node.name()));
        for node in &self.0.nodes {
            let info: String = node.ask(&["CLUSTER", "INFO"]).await?;
            let field = |name: &str| super::super::wire::info_field(&info, name).unwrap_or_default();
            if field("cluster_state") != "ok" || field("cluster_slots_ok") != SLOTS.to_string() {
                let (state, slots) = (field("cluster_state"), field("cluster_slots_ok"));
                return Err(lacks(node, format!("cluster_state is `{state}`, {slots} of {SLOTS} slots are served")));
            }
            let seen = self.peers_at(node).await?;
            let well = |peer: &&Peer| (peer.linked || peer.is("myself")) && !peer.is("fail") && !peer.is("fail?");
            let count = seen.iter().filter(well).count();
            if count != self.0.nodes.len() {
                return Err(lacks(node, format!("it sees {count} of {} nodes well", self.0.nodes.len())));
            }
        }
        let map = self.peers_at(&self.0.nodes[0]).await?;
        for primary in map.iter().filter(|peer| peer.is("master") && !peer.slots.is_empty()) {
            let copies = map.iter().filter(|peer| peer.master.as_ref() == Some(&primary.id)).count();
            let node = node_at(&self.0.nodes, primary.address)?;
            let reached = replicated(&node, primary.slots[0].0, copies).await?;
            if reached < copies {
                return Err(lacks(&node, format!("a write reached {reached} of its {copies} replicas")));
            }
        }
        Ok(())
    }

    /// Waits until [`Cluster::check_whole`] holds, for example after a failed node came back.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with what was missing last.
    pub async fn wait_until_whole(&self, limit: Duration) -> CoreResult {
        let waited =
            wait_for("the cluster to serve all slots and replicate", limit, async || match self.check_whole().await {
                Ok(()) => Progress::Ready(()),
                Err(error) => Progress::NotYet(error.to_string()),
            });
        waited.await.map_err(|error| with_logs(error, &self.0.nodes))
    }

    pub(crate) fn lookup(&self, key: &str) -> Lookup {
        Lookup::Cluster { nodes: self.0.nodes.clone(), slot: slot_of(key) }
    }

    async fn peers_at(&self, node: &Node) -> CoreResult<Vec<Peer>> {
        Ok(peers(&node.ask::<String>(&["CLUSTER", "NODES"]).await?))
    }

    /// Gives each primary its slots, makes all nodes know each other, and each replica its primary.
    async fn join(&self, shards: usize, buses: &[u16]) -> CoreResult {
        for (n, node) in self.0.nodes.iter().enumerate() {
            let () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await?;
        }
        for (n, primary) in self.0.nodes.iter().take(shards).enumerate() {
            add_slots(primary, share(n, shards)..share(n + 1, shards)).await?;
        }
        for (n, node) in self.0.nodes.iter().enumerate() {
            for (peer, bus) in self.0.nodes.iter().zip(buses).skip(n + 1) {
                let (port, bus) = (peer.address().port().to_string(), bus.to_string());
                let () = node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
            }
        }
        self.wait_until_met().await?;
        for (n, replica) in self.0.nodes.iter().enumerate().skip(shards) {
            let id: String = self.0.nodes[n % shards].ask(&["CLUSTER", "MYID"]).await?;
            let () = replica.ask(&["CLUSTER", "REPLICATE", &id]).await?;
        }
        Ok(())
    }

    async fn wait_until_met(&self) -> CoreResult {
        let met = async || {
            for node in &self.0.nodes {
                match self.peers_at(node).await {
                    Ok(seen) if seen.len() == self.0.nodes.len() && !seen.iter().any(|peer| peer.is("handshake")) => {}
                    Ok(seen) => return Progress::NotYet(format!("{} knows {} nodes", node.name(), seen.len())),
                    Err(error) => return Progress::NotYet(error.to_string()),
                }
            }
            Progress::Ready(())
        };
        let waited = wait_for(format!("{} nodes to know each other", self.0.nodes.len()), READY_LIMIT, met).await;
        waited.map_err(|error| with_logs(error, &self.0.nodes))
    }
}

/// The first slot of a shard.
fn share(n: usize, shards: usize) -> u16 {
    u16::try_from(n * usize::from(SLOTS) / shards).unwrap_or(SLOTS)
}

/// One by one, since ranges are known to newer servers only.
async fn add_slots(node: &Node, slots: std::ops::Range<u16>) -> CoreResult {
    let mut command = redis::cmd("CLUSTER");
    command.arg("ADDSLOTS").arg(slots.clone().collect::<Vec<u16>>());
    let done: Result<(), _> = command.query_async(&mut node.connection().await?).await;
    done.map_err(|error| {
        let what = format!("{} did not take the slots {} to {}", node.name(), slots.start, slots.end - 1);
        Error::new(ErrorKind::Protocol, what).caused_by(error)
    })
}

/// Writes to this slot of its primary, and says how many replicas have it within half a second.
async fn replicated(primary: &Node, slot: u16, copies: usize) -> CoreResult<usize> {
    let mut numbers = (0_u32..).map(|n| format!("harness:ready:{n}"));
    let Some(key) = numbers.find(|key| slot_of(key) == slot) else { return Ok(0) };
    primary.write(&key, "1", copies).await
}

async fn major(node: &Node) -> CoreResult<u32> {
    let info: String = node.ask(&["INFO", "server"]).await?;
    Ok(crate::provider::local::major(super::super::wire::info_field(&info, "redis_version").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shards_share_all_slots() {
        for shards in 1..=7 {
            assert_eq!((share(0, shards), share(shards, shards)), (0, 16_384));
        }
        assert_eq!((share(1, 3), share(2, 3)), (5461, 10_922));
    }
}
