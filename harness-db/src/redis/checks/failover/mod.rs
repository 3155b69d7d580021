//! A failover, driven over a real topology and judged: clients write to whoever is primary, the primary is lost, and
//! afterwards everything is read back.
//!
//! The fault is real (a killed or frozen process), the clients look the primary up as real ones do, and the verdict is
//! [`FailoverTimeline::judge`]'s: time to promotion, downtime, each client's return, the window of lost acknowledged writes,
//! and whether two nodes ever acknowledged at the same time.

#[cfg(feature = "fault")]
mod as_fault;
mod fault;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind, Outcome};
use harness_props::history::{Answer, FailoverLimits, FailoverTimeline, FailoverVerdict, Promotion, Reading, Write};

#[cfg(feature = "fault")]
pub use as_fault::FailoverFault;
pub use fault::FailoverKind;
pub use fault::Target;
use writer::{Shared, Writers};

use super::topology::Node;
use crate::clerk;

/// Acknowledged writes each client must have before the fault, and again after it.
const WRITES: usize = 20;
/// How long the clients may take to get going.
const WARM_UP_LIMIT: Duration = Duration::from_secs(20);
/// How long the old primary may take to come back as a replica: a sentinel of an old version looks only every 10 s.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// How long replicas may take to have what the primary has.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);
/// Keys the clients share; the tag keeps them in one slot of a cluster.
const KEYS: usize = 2;

/// An experiment: lose the primary while clients write.
///
/// ```no_run
/// # async fn example() -> harness_db::Result {
/// use harness_db::Failover;
///
/// let sentinel = harness_db::redis_sentinel().replicas(2).await?;
/// let run = Failover::of(&sentinel).writers(4).acknowledged_by(1).run().await?;
/// println!("{}", run.verdict()); // promotion, clients, lost window, split brain: one line each
/// run.check()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "an experiment does nothing until it runs"]
pub struct Failover {
    target: Target,
    kind: FailoverKind,
    writers: usize,
    acks: usize,
    cut: bool,
    limits: FailoverLimits,
}

impl Failover {
    /// Of this topology: [`Replicas`](super::Replicas), [`Sentinel`](super::Sentinel) or [`Cluster`](super::Cluster). By
    /// default four clients, a killed primary, and writes that the primary alone acknowledges.
    pub fn of(target: impl Into<Target>) -> Self {
        let (target, limits) = (target.into(), FailoverLimits::default());
        Self { target, kind: FailoverKind::Kill, writers: 4, acks: 0, cut: false, limits }
    }

    /// How the primary is lost; killed unless set.
    pub fn by(mut self, kind: FailoverKind) -> Self {
        self.kind = kind;
        self
    }

    /// How many clients write at once; 4 unless set.
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers.max(1);
        self
    }

    /// A client counts a write as acknowledged when this many replicas have it (`WAIT`); 0 unless set, as Redis does by
    /// itself.
    pub fn acknowledged_by(mut self, replicas: usize) -> Self {
        self.acks = replicas;
        self
    }

    /// Cuts replication before the fault, so that the last acknowledged writes exist on the primary only.
    pub fn with_replication_cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// From the fault to a new primary; 10 s unless set.
    pub fn promotion_within(mut self, limit: Duration) -> Self {
        self.limits.promotion = limit;
        self
    }

    /// From the fault until every client writes again; 15 s unless set.
    pub fn clients_back_within(mut self, limit: Duration) -> Self {
        self.limits.clients_back = limit;
        self
    }

    /// How many acknowledged writes may be lost; none unless set. A loss up to here is Degraded.
    pub fn tolerates_lost_writes(mut self, writes: usize) -> Self {
        self.limits.lost_writes = writes;
        self
    }

    /// Runs it: clients write, the primary is lost, somebody takes over or not, the old primary comes back, everything is
    /// read. Takes as long as the failover and the return do, at most the limits and about a minute.
    ///
    /// # Errors
    /// When the experiment itself cannot be made: clients never get going, the fault cannot be applied, or the old primary
    /// does not come back. What the system does wrong is in the verdict.
    pub async fn run(self) -> CoreResult<FailoverRun> {
        clerk::run(move || self.measure()).await
    }

    /// On the background thread, where the test's own work does not delay the clients.
    async fn measure(self) -> CoreResult<FailoverRun> {
        let prefix = prefix();
        let lookup = self.target.lookup(&key(&prefix, 0));
        let primary = lookup.primary().await?;
        let mut timeline = FailoverTimeline::new(primary.address().to_string());
        let shared = Arc::new(Shared::new(prefix.clone(), lookup, self.acks));
        let writers = Writers::start(self.writers, &shared);
        self.warm_up(&shared, &primary).await?;
        timeline.fault = Some(shared.now());
        self.target.apply(self.kind, &primary, &shared.lookup).await?;
        let promoted = self.watch(&shared, &primary, &mut timeline).await;
        self.wait_for_clients(&shared, &primary, &timeline).await;
        if let Some(promoted) = &promoted {
            let now = self.target.heal(self.kind, &primary, promoted, &shared.lookup, RETURN_LIMIT).await?;
            timeline.returned = Some(shared.now());
            if now.address() != promoted.address() {
                timeline.promoted(now.address().to_string(), shared.now());
            }
            shared.release();
            self.wait_for_clients(&shared, &primary, &timeline).await;
        }
        timeline.writes = writers.stop(&shared).await;
        if promoted.is_some() {
            timeline.reads = self.read_back(&shared, &prefix).await?;
        }
        let verdict = timeline.judge(&self.limits);
        Ok(FailoverRun { timeline, verdict })
    }

    async fn warm_up(&self, shared: &Shared, primary: &Node) -> CoreResult {
        self.wait_for_writes(shared, "the clients to write", WARM_UP_LIMIT, |_| true).await?;
        if self.cut {
            primary.cut_replicas().await?;
            let cut = shared.now();
            let after = move |write: &Write| write.invoked >= cut;
            self.wait_for_writes(shared, "the clients to write without replication", WARM_UP_LIMIT, after).await?;
        }
        Ok(())
    }

    /// Waits until somebody else is primary, by the clients' way of asking and by its own word.
    async fn watch(&self, shared: &Shared, old: &Node, timeline: &mut FailoverTimeline) -> Option<Node> {
        let limit = self.limits.promotion.max(self.limits.clients_back);
        let seen = self.target.wait_for_promotion(self.kind, old, &shared.lookup, limit).await.ok()?;
        timeline.promotions.push(Promotion { node: seen.address().to_string(), at: shared.now() });
        if self.kind == FailoverKind::Split {
            shared.divert(seen.clone());
        }
        Some(seen)
    }

    /// Waits until every client wrote again after the fault, on both sides of a split. That it takes too long is for the
    /// verdict to say.
    async fn wait_for_clients(&self, shared: &Shared, old: &Node, timeline: &FailoverTimeline) {
        let promoted = timeline.promotions.first().map(|seen| seen.at);
        let since = timeline.returned.or(promoted).or(timeline.fault).unwrap_or_default();
        let old = old.address().to_string();
        let both_sides = self.kind == FailoverKind::Split && timeline.returned.is_none();
        let back = move |write: &Write| write.invoked >= since && (both_sides || write.node != old);
        let left = (timeline.fault.unwrap_or_default() + self.limits.clients_back).saturating_sub(shared.now());
        let limit = if timeline.returned.is_some() { CATCH_UP_LIMIT } else { left };
        let _ = self.wait_for_writes(shared, "the clients to write again", limit, back).await;
    }

    async fn wait_for_writes(
        &self,
        shared: &Shared,
        what: &str,
        limit: Duration,
        counts: impl Fn(&Write) -> bool,
    ) -> CoreResult {
        wait_for(what, limit, async || {
            let mut done: BTreeMap<usize, usize> = (0..self.writers).map(|client| (client, 0)).collect();
            shared.look(|writes| {
                let acknowledged = |write: &&Write| write.answer == Answer::Acknowledged && counts(write);
                writes.iter().filter(acknowledged).for_each(|write| *done.entry(write.client).or_default() += 1);
            });
            match done.iter().find(|(_, count)| **count < WRITES) {
                None => Progress::Ready(()),
                Some((client, count)) => Progress::NotYet(format!(
                    "client {client} has {count} acknowledged writes; {}",
                    shared.last_error()
                )),
            }
        })
        .await
    }

    /// Everything the primary has, then everything its replicas have once they have as much.
    async fn read_back(&self, shared: &Shared, prefix: &str) -> CoreResult<Vec<Reading>> {
        let primary = shared.lookup.primary().await?;
        let ids = read(&primary, prefix).await?;
        let mut reads = vec![Reading::new(primary.address().to_string(), ids.clone())];
        for node in self.target.followers(&primary, CATCH_UP_LIMIT).await {
            let mut last = None;
            let _ = wait_for("a replica to catch up", CATCH_UP_LIMIT, async || match read(&node, prefix).await {
                Ok(found) if found == ids => {
                    last = Some(found);
                    Progress::Ready(())
                }
                Ok(found) => {
                    last = Some(found);
                    Progress::NotYet("it has something else".to_owned())
                }
                Err(error) => Progress::NotYet(error.to_string()),
            })
            .await;
            reads.extend(last.map(|ids| Reading::new(node.address().to_string(), ids)));
        }
        Ok(reads)
    }
}

/// Names of one run, so that runs on one topology do not meet.
fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{{harness-failover-{}}}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn key(prefix: &str, n: usize) -> String {
    format!("{prefix}:{}", n % KEYS)
}

/// All ids on one node, asked directly: a replica of a cluster answers only those who say that they want to read.
async fn read(node: &Node, prefix: &str) -> CoreResult<Vec<String>> {
    let mut connection = node.connection().await?;
    let cluster: String = node.ask(&["INFO", "cluster"]).await?;
    if super::wire::info_field(&cluster, "cluster_enabled") == Some("1") {
        let () = super::wire::ask(&mut connection, &["READONLY"]).await?;
    }
    let mut ids = Vec::new();
    for n in 0..KEYS {
        let page: Vec<String> = super::wire::ask(&mut connection, &["LRANGE", &key(prefix, n), "0", "-1"]).await?;
        ids.extend(page);
    }
    Ok(ids)
}

/// A failover that happened: what was seen, and what it amounts to.
#[derive(Debug, Clone)]
pub struct FailoverRun {
    timeline: FailoverTimeline,
    verdict: FailoverVerdict,
}

impl FailoverRun {
    /// Everything that was seen.
    #[must_use]
    pub fn timeline(&self) -> &FailoverTimeline {
        &self.timeline
    }

    /// What it amounts to; prints as one line per check.
    #[must_use]
    pub fn verdict(&self) -> &FailoverVerdict {
        &self.verdict
    }

    /// The worst of all checks as a result.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] when a check failed, [`ErrorKind::NoEvidence`] when one had nothing to judge; with the
    /// outcome of every check.
    pub fn check(&self) -> CoreResult {
        let (kind, what) = match self.verdict.outcome() {
            Outcome::Fail { witness } => (ErrorKind::Assertion, witness),
            Outcome::NoEvidence { why } => (ErrorKind::NoEvidence, why),
            _ => return Ok(()),
        };
        let checks = self.verdict.checks().into_iter();
        Err(checks.fold(Error::new(kind, what), |error, (name, outcome)| error.tried(format!("{name}: {outcome}"))))
    }
}
