//! A primary and its replicas, watched by sentinels that promote a replica when the primary is gone.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use harness_core::scope::TestScope;
use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};

use super::replicas::{data_nodes, node_at, replicas_among};
use super::{Lookup, Node, Starter, Wishes, end, with_logs};
use crate::clerk;
use crate::provider::Choice;
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

wishes!(SentinelRequest);

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
        let sentinel = Sentinel { scope: None, nodes, sentinels, choice: starter.into_choice()? };
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
        NodePlan { file, sentinel: true, settings: Vec::new(), since_7: &[] }
    }
}

/// A sentinel's own rhythm, faster than in production: it asks and tells every 200 ms instead of 1 and 2 s, and does not
/// stop working because a loaded machine let it wait (`SENTINEL DEBUG`, Redis 7; older ones keep their rhythm).
fn hasty() -> Vec<Vec<String>> {
    let words = "SENTINEL DEBUG INFO-PERIOD 500 ASK-PERIOD 200 PUBLISH-PERIOD 200 TILT-TRIGGER 60000";
    vec![words.split(' ').map(str::to_owned).collect()]
}

impl IntoFuture for SentinelRequest {
    type Output = CoreResult<Sentinel>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        // The scope is of the caller's thread; the work is done where futures need not be `Send`.
        let scope = TestScope::current();
        Box::pin(clerk::run(move || async move {
            match self.start(&scope).await {
                Ok(started) => Ok(Sentinel { scope: Some(scope), ..started }),
                Err(error) => {
                    let _ = scope.shutdown().await;
                    Err(error)
                }
            }
        }))
    }
}

/// A primary with replicas, watched by sentinels.
///
/// Every node stands at an address of its own that survives stop and start. Its scope ends it.
#[derive(Debug)]
#[must_use = "the nodes end when this value is dropped"]
pub struct Sentinel {
    scope: Option<TestScope>,
    nodes: Vec<Node>,
    sentinels: Vec<Node>,
    choice: Choice,
}

impl Sentinel {
    /// The nodes that hold data; the first began as the primary.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[Node] {
        &self.sentinels
    }

    /// The name the sentinels know the primary by.
    #[must_use]
    pub fn master_name(&self) -> &'static str {
        NAME
    }

    /// The URLs of the sentinels, which is what clients are configured with.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Node::url).collect()
    }

    /// Which provider gave the nodes, and what was tried before.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The primary as the first sentinel that answers names it.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when no sentinel answers, with what each said.
    pub async fn primary(&self) -> CoreResult<Node> {
        let at = self.lookup().primary().await?;
        node_at(&self.nodes, at)
    }

    /// The nodes that copy another one now, by their own word.
    pub async fn replicas(&self) -> Vec<Node> {
        replicas_among(&self.nodes).await
    }

    /// Holds while every sentinel sees the primary, all its replicas with their links up, all other sentinels, and a
    /// quorum.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] naming the sentinel and what it misses.
    pub async fn check_watched(&self) -> CoreResult {
        for sentinel in &self.sentinels {
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
        waited.await.map_err(|error| with_logs(error, self.nodes.iter().chain(&self.sentinels)))
    }

    /// Ends all nodes now and says whether that worked. Those started in a scope end with it.
    ///
    /// # Errors
    /// When a node could not be ended.
    pub async fn shutdown(self) -> CoreResult {
        end(self.scope).await
    }

    /// The same nodes, without a say in their end.
    pub(crate) fn share(&self) -> Self {
        Self { scope: None, nodes: self.nodes.clone(), sentinels: self.sentinels.clone(), choice: self.choice.clone() }
    }

    pub(crate) fn lookup(&self) -> Lookup {
        Lookup::Sentinels { at: self.sentinels.iter().map(Node::address).collect(), name: NAME.to_owned() }
    }

    async fn missing_at(&self, sentinel: &Node) -> CoreResult<Option<String>> {
        let master: BTreeMap<String, String> = sentinel.ask(&["SENTINEL", "MASTER", NAME]).await?;
        let replicas: Vec<BTreeMap<String, String>> = sentinel.ask(&["SENTINEL", "REPLICAS", NAME]).await?;
        let field = |name: &str| master.get(name).map(String::as_str).unwrap_or_default();
        let linked = |replica: &&BTreeMap<String, String>| {
            let is = |name: &str, value: &str| replica.get(name).is_some_and(|found| found == value);
            is("flags", "slave") && is("master-link-status", "ok")
        };
        let (healthy, wanted) = (replicas.iter().filter(linked).count(), self.nodes.len() - 1);
        let others = (self.sentinels.len() - 1).to_string();
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
