//! A primary and its replicas, watched by sentinels that promote a replica when the primary is gone.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};

use super::replicas::{data_nodes, replicas_among};
use super::{Lookup, Node, Standing, Starter, Wishes, with_logs};
use crate::provider::recipe::node::NodePlan;

/// The name sentinels know the primary by.
const NAME: &str = "harness";

/// A request for a watched primary: await it, or [`SentinelRequest::start`] it in a scope.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct SentinelRequest {
    replicas: usize,
    sentinels: usize,
    quorum: usize,
    down_after: Duration,
    wishes: Wishes,
}

topology!(SentinelRequest => Sentinel);

impl SentinelRequest {
    pub(super) fn new() -> Self {
        let down_after = Duration::from_secs(1);
        Self { replicas: 2, sentinels: 3, quorum: 2, down_after, wishes: Wishes::default() }
    }

    /// How many replicas; 2 unless set. Without any nobody can be promoted.
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// How many sentinels, and how many of them must agree that the primary is gone; 3 and 2 unless set.
    pub fn sentinels(mut self, sentinels: usize, quorum: usize) -> Self {
        (self.sentinels, self.quorum) = (sentinels.max(1), quorum.max(1));
        self
    }

    /// How long a node may be silent before a sentinel takes it for dead; 1 s unless set. Less makes a failover faster, and a
    /// loaded machine look like a dead one.
    pub fn down_after(mut self, down_after: Duration) -> Self {
        self.down_after = down_after;
        self
    }

    /// Starts it in a scope, whose end ends it.
    ///
    /// # Errors
    /// As [`redis_replicas`](super::redis_replicas).
    pub async fn start(self, scope: &TestScope) -> CoreResult<Sentinel> {
        let mut starter = Starter::new(scope, &self.wishes)?;
        let nodes = data_nodes(&mut starter, self.replicas, &self.wishes).await?;
        let mut sentinels = Vec::new();
        for n in 1..=self.sentinels {
            sentinels.push(starter.node(&format!("sentinel-{n}"), self.watcher(&nodes[0]), hasty()).await?);
        }
        let sentinel = Sentinel(starter.standing(nodes, sentinels)?);
        sentinel.wait_until_whole(self.wishes.ready_limit()).await?;
        Ok(sentinel)
    }

    fn watcher(&self, primary: &Node) -> NodePlan {
        let (port, quorum, down_ms) = (primary.address().port(), self.quorum, self.down_after.as_millis().max(1));
        let syncs = self.replicas.max(1);
        let file = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {NAME} {down_ms}\n\
             sentinel failover-timeout {NAME} 2000\n\
             sentinel parallel-syncs {NAME} {syncs}\n\
             sentinel announce-ip 127.0.0.1"
        );
        let mut plan = NodePlan { file, sentinel: true, ..NodePlan::default() };
        if let Some(password) = &self.wishes.password {
            plan.file.push_str(&format!("\nsentinel auth-pass {NAME} {password}"));
            // Sentinels show each other what they want to be shown.
            plan.settings.push(("requirepass".to_owned(), password.clone()));
        }
        plan
    }
}

/// A sentinel's own rhythm, faster than in production: it asks and tells every 200 ms instead of 1 and 2 s, and does not
/// stop working because a loaded machine let it wait (`SENTINEL DEBUG`, Redis 7; older ones keep their rhythm).
fn hasty() -> Vec<Vec<String>> {
    let words = "SENTINEL DEBUG INFO-PERIOD 500 ASK-PERIOD 200 PUBLISH-PERIOD 200 TILT-TRIGGER 60000";
    vec![words.split(' ').map(str::to_owned).collect()]
}

/// A primary with replicas, watched by sentinels.
///
/// Every node stands at an address of its own that survives stop and start. Its scope ends it.
#[derive(Debug)]
#[must_use = "the nodes end when this value is dropped"]
pub struct Sentinel(Standing);

impl Sentinel {
    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Node] {
        &self.0.sentinels
    }

    /// The name the sentinels know the primary by.
    #[must_use]
    pub fn master_name(&self) -> &'static str {
        NAME
    }

    /// The URLs of the sentinels, which is what clients are configured with.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.0.sentinels.iter().map(Node::url).collect()
    }

    /// The primary as the first sentinel that answers names it.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when no sentinel answers, with what each said.
    pub async fn primary(&self) -> CoreResult<Node> {
        self.lookup().primary().await
    }

    /// The nodes that copy another one now, by their own word.
    pub async fn replicas(&self) -> Vec<Node> {
        replicas_among(&self.0.nodes).await
    }

    /// Holds while every sentinel sees the primary, all its replicas with their links up, all other sentinels, and a
    /// quorum.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the sentinel and what it misses.
    pub async fn check_watched(&self) -> CoreResult {
        for sentinel in &self.0.sentinels {
            if let Some(missing) = self.missing_at(sentinel).await? {
                let what = format!("sentinel {} does not watch everybody: {missing}", sentinel.name());
                return Err(Error::new(ErrorKind::Assertion, what));
            }
        }
        Ok(())
    }

    /// Waits until [`Sentinel::check_watched`] holds, for example after a failed node came back.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with what was missing last.
    pub async fn wait_until_whole(&self, limit: Duration) -> CoreResult {
        let waited = wait_for("every sentinel to see everybody", limit, async || match self.check_watched().await {
            Ok(()) => Progress::Ready(()),
            Err(error) => Progress::NotYet(error.to_string()),
        });
        waited.await.map_err(|error| with_logs(error, self.0.nodes.iter().chain(&self.0.sentinels)))
    }

    pub(crate) fn lookup(&self) -> Lookup {
        let (sentinels, nodes) = (self.0.sentinels.clone(), self.0.nodes.clone());
        Lookup::Sentinels { sentinels, nodes, name: NAME }
    }

    async fn missing_at(&self, sentinel: &Node) -> CoreResult<Option<String>> {
        let master: BTreeMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", NAME]).await?;
        let replicas: Vec<BTreeMap<String, String>> = sentinel.ask(&["SENTINEL", "REPLICAS", NAME]).await?;
        let field = |name: &str| master.get(name).map(String::as_str).unwrap_or_default();
        let linked = |replica: &&BTreeMap<String, String>| {
            let is = |name: &str, value: &str| replica.get(name).is_some_and(|found| found == value);
            is("flags", "slave") && is("master-link-status", "ok")
        };
        let (healthy, wanted) = (replicas.iter().filter(linked).count(), self.0.nodes.len() - 1);
        let others = (self.0.sentinels.len() - 1).to_string();
        if field("flags") != "master" {
            return Ok(Some(format!("it sees the primary as `{}`", field("flags"))));
        }
        if healthy != wanted {
            return Ok(Some(format!("{healthy} of {wanted} replicas are linked")));
        }
        if field("num-other-sentinels") != others {
            return Ok(Some(format!("it knows {} of {others} other sentinels", field("num-other-sentinels"))));
        }
        let quorum = sentinel.ask::<String>(&["SENTINEL", "CKQUORUM", NAME]).await;
        Ok(quorum.err().map(|error| error.to_string()))
    }
}
