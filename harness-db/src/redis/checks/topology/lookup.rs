//! Who the primary is now, asked as clients ask: the nodes themselves, the sentinels, or the cluster's map.

use std::fmt;
use std::net::SocketAddr;

use harness_core::{CoreResult, Error, ErrorKind};

use super::Node;
use super::slots::{Peer, peers};

/// Where a client asks for the primary.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// Each node for its role.
    Roles(Vec<Node>),
    /// Sentinels, by the name they watch one of the nodes under.
    Sentinels { sentinels: Vec<Node>, nodes: Vec<Node>, name: &'static str },
    /// Nodes of a cluster, for the owner of this slot.
    Cluster { nodes: Vec<Node>, slot: u16 },
}

impl Lookup {
    /// The first answer.
    pub(crate) async fn primary(&self) -> CoreResult<Node> {
        let mut tried = Vec::new();
        for node in self.asked() {
            let at = node.address();
            match self.ask(node).await {
                Ok(Some(primary)) => return self.node(primary),
                Ok(None) => tried.push(format!("{at}: knows of none")),
                Err(error) => tried.push(format!("{at}: {error}")),
            }
        }
        Err(tried.into_iter().fold(Error::new(ErrorKind::Connect, "nobody names a primary"), Error::tried))
    }

    fn asked(&self) -> &[Node] {
        match self {
            Self::Roles(nodes) | Self::Cluster { nodes, .. } => nodes,
            Self::Sentinels { sentinels, .. } => sentinels,
        }
    }

    fn node(&self, at: SocketAddr) -> CoreResult<Node> {
        match self {
            Self::Roles(nodes) | Self::Cluster { nodes, .. } | Self::Sentinels { nodes, .. } => node_at(nodes, at),
        }
    }

    async fn ask(&self, node: &Node) -> CoreResult<Option<SocketAddr>> {
        match self {
            Self::Roles(_) => Ok(node.role().await?.is_primary().then_some(node.address())),
            Self::Sentinels { name, .. } => {
                let pair: Option<(String, u16)> = node.ask(&["SENTINEL", "get-master-addr-by-name", name]).await?;
                Ok(pair.and_then(|(host, port)| format!("{host}:{port}").parse().ok()))
            }
            Self::Cluster { slot, .. } => {
                let map: String = node.ask(&["CLUSTER", "NODES"]).await?;
                Ok(peers(&map).into_iter().find(|peer: &Peer| peer.owns(*slot)).map(|peer| peer.address))
            }
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roles(_) => "each node's own word",
            Self::Sentinels { .. } => "the word of sentinels",
            Self::Cluster { .. } => "the map of a cluster",
        })
    }
}

/// The node at this address.
pub(super) fn node_at(nodes: &[Node], at: SocketAddr) -> CoreResult<Node> {
    nodes.iter().find(|node| node.address() == at).cloned().ok_or_else(|| {
        Error::new(ErrorKind::Protocol, format!("{at} was named as the primary, but is no node of this topology"))
    })
}
