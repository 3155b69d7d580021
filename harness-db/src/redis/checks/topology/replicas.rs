//! A primary and its replicas.

use std::future::IntoFuture;
use std::time::Duration;

use harness_core::CoreResult;
use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};

use super::{Lookup, Node, READY_LIMIT, Role, Standing, Starter, Wishes, with_logs};

/// A request for a primary with replicas: await it, or [`ReplicasRequest::start`] it in a scope.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct ReplicasRequest {
    replicas: usize,
    wishes: Wishes,
}

topology!(ReplicasRequest => Replicas);

impl ReplicasRequest {
    pub(super) fn new(replicas: usize) -> Self {
        Self { replicas, wishes: Wishes::default() }
    }

    /// Starts it in a scope, whose end ends it.
    ///
    /// # Errors
    /// As [`redis_replicas`](super::redis_replicas).
    pub async fn start(self, scope: &TestScope) -> CoreResult<Replicas> {
        let mut starter = Starter::new(scope, &self.wishes)?;
        let nodes = data_nodes(&mut starter, self.replicas, &self.wishes).await?;
        starter.standing(nodes, Vec::new()).map(Replicas)
    }
}

/// Starts a primary and its replicas; ready when writes replicate.
pub(super) async fn data_nodes(starter: &mut Starter<'_>, replicas: usize, wishes: &Wishes) -> CoreResult<Vec<Node>> {
    let mut nodes = vec![starter.node("redis-1", wishes.data_node(&[]), Vec::new()).await?];
    let primary = format!("127.0.0.1 {}", nodes[0].address().port());
    for n in 0..replicas {
        let mut plan = wishes.data_node(&[]);
        plan.file = format!("replicaof {primary}");
        nodes.push(starter.node(&format!("redis-{}", n + 2), plan, Vec::new()).await?);
    }
    wait_until_replicated(&nodes, wishes.ready_limit()).await?;
    Ok(nodes)
}

/// Waits until a fresh marker written to the first node is acknowledged by all others and read on each.
async fn wait_until_replicated(nodes: &[Node], limit: Duration) -> CoreResult {
    let [primary, replicas @ ..] = nodes else { return Ok(()) };
    let key = "harness:ready";
    let mut tries = 0_u32;
    let waited = wait_for("a write to the primary to be read on each replica", limit, async || {
        tries += 1;
        let value = format!("{} {tries}", primary.address());
        let mut missing = Vec::new();
        match primary.write(key, &value, replicas.len()).await {
            Ok(reached) if reached >= replicas.len() => {}
            Ok(reached) => missing.push(format!("{reached} of {} replicas acknowledged a write", replicas.len())),
            Err(error) => missing.push(format!("{}: {error}", primary.name())),
        }
        for replica in replicas {
            match replica.ask::<Option<String>>(&["GET", key]).await {
                Ok(found) if found.as_ref() == Some(&value) => {}
                Ok(_) => missing.push(match replica.role().await {
                    Ok(role) => format!("{}: {role}", replica.name()),
                    Err(error) => format!("{}: {error}", replica.name()),
                }),
                Err(error) => missing.push(format!("{}: {error}", replica.name())),
            }
        }
        if missing.is_empty() { Progress::Ready(()) } else { Progress::NotYet(missing.join("; ")) }
    });
    waited.await.map_err(|error| with_logs(error, nodes))?;
    primary.ask(&["DEL", key]).await
}

/// A primary with replicas and nobody who watches them: who is primary changes by hand only.
///
/// Every node stands at an address of its own that survives stop and start. Its scope ends it.
#[derive(Debug)]
#[must_use = "the nodes end when this value is dropped"]
pub struct Replicas(Standing);

impl Replicas {
    /// The URLs of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.0.nodes.iter().map(Node::url).collect()
    }

    /// The node that takes itself for the primary now; of several the first.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](harness_core::ErrorKind::Connect) when there is none, with what each node said.
    pub async fn primary(&self) -> CoreResult<Node> {
        self.lookup().primary().await
    }

    /// The nodes that copy another one now.
    pub async fn replicas(&self) -> Vec<Node> {
        replicas_among(&self.0.nodes).await
    }

    /// Makes a replica a primary by hand. The old one is not told: until it is, both accept writes. Proven by its role.
    ///
    /// # Errors
    /// When it does not answer or does not change its role.
    pub async fn promote(&self, node: &Node) -> CoreResult {
        let () = node.ask(&["REPLICAOF", "NO", "ONE"]).await?;
        node.wait_for_role("a primary", READY_LIMIT, Role::is_primary).await.map(drop)
    }

    /// Makes a node copy another one; what it has alone is gone. Proven by an upright link.
    ///
    /// # Errors
    /// When it does not answer or the link does not come up.
    pub async fn follow(&self, node: &Node, primary: &Node) -> CoreResult {
        let (to, port) = (primary.address(), primary.address().port().to_string());
        let () = node.ask(&["REPLICAOF", "127.0.0.1", &port]).await?;
        let follows = |role: &Role| *role == Role::Replica { of: to, linked: true };
        node.wait_for_role("a replica", READY_LIMIT, follows).await.map(drop)
    }

    pub(crate) fn lookup(&self) -> Lookup {
        Lookup::Roles(self.0.nodes.clone())
    }
}

/// The nodes that copy another one now; those that do not answer are none.
pub(super) async fn replicas_among(nodes: &[Node]) -> Vec<Node> {
    let mut found = Vec::new();
    for node in nodes {
        if let Ok(Role::Replica { .. }) = node.role().await {
            found.push(node.clone());
        }
    }
    found
}
