//! Who the primary is now, asked as clients ask: the nodes themselves, the sentinels, or the cluster's map.

use std::net::SocketAddr;

use harness_core::{CoreResult, Error, ErrorKind};

use super::slots::{Peer, peers};
use super::{ask_at, role_at};

/// Where a client asks for the primary.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    /// Each node for its role.
    Roles(Vec<SocketAddr>),
    /// Sentinels, by the name they watch the primary under.
    Sentinels { at: Vec<SocketAddr>, name: String },
    /// Nodes of a cluster, for the owner of this slot.
    Cluster { at: Vec<SocketAddr>, slot: u16 },
}

impl Lookup {
    /// The first answer.
    pub(crate) async fn primary(&self) -> CoreResult<SocketAddr> {
        let mut tried = Vec::new();
        for &at in self.asked() {
            match self.ask(at).await {
                Ok(Some(primary)) => return Ok(primary),
                Ok(None) => tried.push(format!("{at}: knows of none")),
                Err(error) => tried.push(format!("{at}: {error}")),
            }
        }
        Err(tried.into_iter().fold(Error::new(ErrorKind::Connect, "nobody names a primary"), Error::tried))
    }

    fn asked(&self) -> &[SocketAddr] {
        match self {
            Self::Roles(at) | Self::Sentinels { at, .. } | Self::Cluster { at, .. } => at,
        }
    }

    async fn ask(&self, at: SocketAddr) -> CoreResult<Option<SocketAddr>> {
        match self {
            Self::Roles(_) => Ok(role_at(at).await?.is_primary().then_some(at)),
            Self::Sentinels { name, .. } => {
                let pair: Option<(String, u16)> = ask_at(at, &["SENTINEL", "get-master-addr-by-name", name]).await?;
                Ok(pair.and_then(|(host, port)| format!("{host}:{port}").parse().ok()))
            }
            Self::Cluster { slot, .. } => {
                let map: String = ask_at(at, &["CLUSTER", "NODES"]).await?;
                Ok(peers(&map).into_iter().find(|peer: &Peer| peer.owns(*slot)).map(|peer| peer.address))
            }
        }
    }
}
