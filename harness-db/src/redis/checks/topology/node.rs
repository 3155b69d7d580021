//! One server of a topology, and what can be done to it alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use harness_core::service::Service;
use harness_core::wait::{Progress, wait_for, within};
use harness_core::{CoreResult, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, FromRedisValue};

use super::super::{readiness, wire};
use crate::provider::own::Asking;
use crate::redis::acl::{Grant, User};
use crate::redis::channel::Channel;

/// How long one question to a node that may be dead or frozen may take.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// How long the effect of a verb may take to show.
const EFFECT_LIMIT: Duration = Duration::from_secs(30);

/// A node's place in replication, by its own word (`INFO replication`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It accepts writes and serves this many replicas that are online.
    Primary {
        /// Replicas in state `online`.
        online: usize,
    },
    /// It copies another node.
    Replica {
        /// The node it copies.
        of: SocketAddr,
        /// Whether the link to it is up and the first copy complete.
        linked: bool,
    },
}

impl Role {
    /// True for a primary.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Primary { .. })
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Primary { online } => write!(f, "primary with {online} replicas online"),
            Self::Replica { of, linked } => write!(f, "replica of {of}, link {}", if *linked { "up" } else { "down" }),
        }
    }
}

/// One server of a topology at an address that survives stop and start. Cheap to clone; all clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    service: Service,
    after_start: Arc<[Vec<String>]>,
    channel: Channel,
    grants: Arc<[Grant]>,
}

impl Node {
    pub(super) fn new(service: Service, after_start: Vec<Vec<String>>, channel: Channel, grants: Arc<[Grant]>) -> Self {
        Self { service, after_start: after_start.into(), channel, grants }
    }

    /// Its name, which is also its log's; a number and no role, since roles change.
    #[must_use]
    pub fn name(&self) -> &str {
        self.service.name()
    }

    /// Where it listens, and what it announces.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Its address as a URL, with the password if there is one: `rediss://…` if it speaks TLS. Database 0: it is the node's own,
    /// and a cluster has no other.
    #[must_use]
    pub fn url(&self) -> String {
        self.channel.url(self.address(), None)
    }

    /// A client of it that trusts its authority, if it speaks TLS: for the system under test.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the driver does not take what it is given.
    pub fn client(&self) -> CoreResult<redis::Client> {
        redis::Client::open(self.info()?).map_err(|error| {
            let what = format!("there is no client for the node {} at {}", self.name(), self.address());
            Error::new(ErrorKind::Config, what).caused_by(error)
        })
    }

    /// A user the topology was asked for, here. It has its rights and its password at every node that holds data.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the node knows no such user.
    pub fn user(&self, name: &str) -> CoreResult<User> {
        let grant = self.grants.iter().find(|grant| grant.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("node {} knows no user `{name}`", self.name()))
                .remedy("ask for it before the topology starts: `.user(name, rules)`")
        })?;
        Ok(User::new(grant, self.channel.url(self.address(), Some(&grant.login())), &self.info()?))
    }

    /// How the harness itself reaches it.
    pub(in crate::redis::checks) fn info(&self) -> CoreResult<ConnectionInfo> {
        self.channel.info(self.address())
    }

    /// The service, for logs, pids and experiments.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// A connection to it.
    ///
    /// # Errors
    /// When it refuses the connection or says nothing for 5 s.
    pub async fn connection(&self) -> CoreResult<MultiplexedConnection> {
        wire::connect(&self.info()?).await
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Errors
    /// When it does not answer within 1 s, or refuses the command.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> CoreResult<T> {
        let info = self.info()?;
        let asked = within(format!("`{}` at {}", words.join(" "), self.address()), ASK_LIMIT, async {
            wire::ask(&mut wire::connect_within(&info, ASK_LIMIT).await?, words).await
        });
        asked.await.and_then(|answer| answer).map_err(|error| error.tried(format!("node {}", self.name())))
    }

    /// Its place in replication, by its own word.
    ///
    /// # Errors
    /// When it does not answer within 1 s.
    pub async fn role(&self) -> CoreResult<Role> {
        let info: String = self.ask(&["INFO", "replication"]).await?;
        role_in(&info).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, format!("INFO replication of {} states no role", self.address()))
        })
    }

    /// Stops it in good order. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when it does not end.
    pub async fn stop(&self) -> CoreResult {
        self.service.stop().await.map(drop)
    }

    /// Kills it. Proven by its end and by a refused connection.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn kill(&self) -> CoreResult {
        self.service.kill().await.map(drop)
    }

    /// Starts it again at the same address. Proven by an answer. It comes back with the role it was first started with;
    /// sentinels and clusters give it its new one, which takes them a moment.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it runs; [`ErrorKind::Timeout`] or [`ErrorKind::Exited`] when it does not come up.
    pub async fn start_again(&self) -> CoreResult {
        self.service.start_again().await?;
        self.prepare().await
    }

    /// Freezes it: it keeps its connections and answers nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when it does not run.
    pub async fn pause(&self) -> CoreResult {
        self.service.pause().await
    }

    /// Ends [`Node::pause`]. Proven by an answer.
    ///
    /// # Errors
    /// When it does not answer afterwards.
    pub async fn resume(&self) -> CoreResult {
        self.service.resume().await?;
        readiness::probe_as(&self.info()?).await.map(drop)
    }

    /// Waits until its role is as wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with its last role and its last log lines.
    pub async fn wait_for_role(&self, what: &str, limit: Duration, wanted: impl Fn(&Role) -> bool) -> CoreResult<Role> {
        let waited = wait_for(format!("node {} to be {what}", self.name()), limit, async || match self.role().await {
            Ok(role) if wanted(&role) => Progress::Ready(role),
            Ok(role) => Progress::NotYet(role.to_string()),
            Err(error) => Progress::NotYet(error.to_string()),
        });
        waited.await.map_err(|error| super::with_logs(error, [self]))
    }

    /// Makes it refuse every replica: what it acknowledges from now on reaches nobody else. Proven: none is online.
    /// It forgets this when it is started again.
    ///
    /// # Errors
    /// When it does not answer, or a replica stays.
    pub async fn cut_replicas(&self) -> CoreResult {
        let () = self.ask(&["ACL", "SETUSER", "default", "-psync", "-sync"]).await?;
        let _: i64 = self.ask(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
        let alone = |role: &Role| *role == Role::Primary { online: 0 };
        self.wait_for_role("without replicas", EFFECT_LIMIT, alone).await.map(drop)
    }

    /// Ends [`Node::cut_replicas`]. Replicas come back by themselves.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn admit_replicas(&self) -> CoreResult {
        self.ask(&["ACL", "SETUSER", "default", "+psync", "+sync"]).await
    }

    /// Writes a key, and says how many replicas acknowledged it within half a second, of so many that are waited for.
    ///
    /// Nothing is written before that many are online: a write without a replica has no place in the stream, so `WAIT`
    /// would be content with a replica that got it with its first copy and gets nothing more. The stream begins with the
    /// replica's first acknowledgement, up to a second after it is called online.
    pub(super) async fn write(&self, key: &str, value: &str, replicas: usize) -> CoreResult<usize> {
        match self.role().await? {
            Role::Primary { online } if online >= replicas => {}
            Role::Primary { online } => return Ok(online),
            Role::Replica { .. } => return Ok(0),
        }
        let mut connection = self.connection().await?;
        let () = wire::ask(&mut connection, &["SET", key, value, "PX", "60000"]).await?;
        wire::ask(&mut connection, &["WAIT", &replicas.to_string(), "500"]).await
    }

    /// What it must be told after each start: its users, and what older servers know less of and do without.
    pub(super) async fn prepare(&self) -> CoreResult {
        for command in &*self.after_start {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            match self.ask::<redis::Value>(&words).await {
                Err(error) if error.kind() != ErrorKind::Protocol => return Err(error),
                _ => {}
            }
        }
        if self.grants.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection().await?;
        for grant in &*self.grants {
            grant.apply(&mut connection).await?;
        }
        Ok(())
    }
}

/// Whether a node that was just started answers.
pub(super) fn ready(info: CoreResult<ConnectionInfo>) -> Asking {
    let ask = async move { readiness::probe_as(&info?).await };
    Box::pin(async move { ask.await.map(drop).into() })
}

fn role_in(info: &str) -> Option<Role> {
    let field = |name: &str| wire::info_field(info, name);
    match field("role")? {
        "master" => {
            let connected: usize = field("connected_slaves")?.parse().ok()?;
            let state = |n: usize| field(&format!("slave{n}")).map(|text| pairs(text).get("state") == Some(&"online"));
            Some(Role::Primary { online: (0..connected).filter(|n| state(*n) == Some(true)).count() })
        }
        "slave" => {
            let of = format!("{}:{}", field("master_host")?, field("master_port")?).parse().ok()?;
            let linked = field("master_link_status") == Some("up") && field("master_sync_in_progress") != Some("1");
            Some(Role::Replica { of, linked })
        }
        _ => None,
    }
}

/// `ip=127.0.0.1,state=online` as a map.
fn pairs(text: &str) -> BTreeMap<&str, &str> {
    text.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::{Role, role_in};

    #[test]
    fn roles_are_read_and_half_connected_replicas_do_not_count() {
        let primary = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                       slave0:ip=127.0.0.1,port=1,state=online,offset=14,lag=0\r\n\
                       slave1:ip=127.0.0.1,port=2,state=wait_bgsave,offset=0,lag=0\r\n";
        assert_eq!(role_in(primary), Some(Role::Primary { online: 1 }));
        let replica = |status: &str, syncing: &str| {
            format!(
                "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7\r\nmaster_link_status:{status}\r\n\
                 master_sync_in_progress:{syncing}\r\n"
            )
        };
        let of = "127.0.0.1:7".parse().unwrap();
        assert_eq!(role_in(&replica("up", "0")), Some(Role::Replica { of, linked: true }));
        assert_eq!(role_in(&replica("down", "0")), Some(Role::Replica { of, linked: false }));
        assert_eq!(role_in(&replica("up", "1")), Some(Role::Replica { of, linked: false }));
        assert_eq!(role_in("role:sentinel\r\n"), None);
    }
}
