//! A failover as a fault that is injected and healed, for experiments and schedules.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness_core::fault::{Bites, Effect, Fault};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::sync::Mutex;

use super::fault::{FailoverKind, Target};
use crate::clerk;
use crate::redis::checks::topology::Node;

/// The primary of a topology is lost, and another node has taken over when the injection returns; healed, the old one is back as a
/// replica of whoever is primary by then. Its bites are the changes of the primary that were proven.
///
/// ```no_run
/// use harness_core::fault::inject;
/// use harness_db::redis::{FailoverFault, FailoverKind};
///
/// # async fn body() -> harness_db::Result {
/// let redis = harness_db::redis_sentinel().await?;
/// let lost = inject(FailoverFault::of(&redis).by(FailoverKind::Kill)).await?;
/// // … what do clients see of it? …
/// lost.heal().await?;
/// # Ok(()) }
/// ```
pub struct FailoverFault {
    target: Target,
    kind: FailoverKind,
    key: String,
    within: Duration,
    state: Mutex<Option<Lost>>,
    bites: AtomicU64,
}

/// What is broken now.
#[derive(Clone)]
struct Lost {
    old: Node,
    /// Nobody when nobody took over.
    new: Option<Node>,
}

impl FailoverFault {
    /// The primary is killed, and somebody has to take over within 30 s. Of a cluster it is the primary of the key `harness`.
    #[must_use]
    pub fn of(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            kind: FailoverKind::Kill,
            key: "harness".to_owned(),
            within: Duration::from_secs(30),
            state: Mutex::default(),
            bites: AtomicU64::new(0),
        }
    }

    /// How the primary is lost.
    #[must_use]
    pub fn by(mut self, kind: FailoverKind) -> Self {
        self.kind = kind;
        self
    }

    /// Whose primary, in a cluster: that of this key's slot.
    #[must_use]
    pub fn of_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// How long taking over, and coming back, may take.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    async fn break_it(&self) -> CoreResult {
        let mut state = self.state.lock().await;
        if state.is_some() {
            return Ok(());
        }
        if let (Target::Replicas(_), FailoverKind::Kill | FailoverKind::Freeze) = (&self.target, self.kind) {
            let what = "nobody takes over from a primary that nobody watches";
            return Err(Error::new(ErrorKind::Refused, what)
                .remedy("take FailoverKind::Split or Ordered, or `redis_sentinel()`, or a cluster"));
        }
        let lookup = self.target.lookup(&self.key);
        let old = lookup.primary().await?;
        // Noted first: whatever happens next, healing brings this one back.
        *state = Some(Lost { old: old.clone(), new: None });
        let (target, kind, within) = (self.target.share(), self.kind, self.within);
        let new = clerk::run(move || async move {
            target.apply(kind, &old, &lookup).await?;
            target.wait_for_promotion(kind, &old, &lookup, within).await
        });
        let new = new.await?;
        self.bites.fetch_add(1, Ordering::Relaxed);
        if let Some(lost) = &mut *state {
            lost.new = Some(new);
        }
        Ok(())
    }

    async fn mend(&self) -> CoreResult {
        let mut state = self.state.lock().await;
        let Some(Lost { old, new }) = state.clone() else { return Ok(()) };
        let lookup = self.target.lookup(&self.key);
        let (target, kind, within) = (self.target.share(), self.kind, self.within);
        clerk::run(move || async move {
            match new {
                Some(new) => target.heal(kind, &old, &new, &lookup, within).await.map(drop),
                // Nobody took over: the old one is primary again as soon as it is there.
                None => {
                    let has_ended = old.service().exit().await?.is_some();
                    match kind {
                        FailoverKind::Kill if has_ended => old.start_again().await,
                        FailoverKind::Freeze => old.resume().await,
                        _ => Ok(()),
                    }
                }
            }
        })
        .await?;
        *state = None;
        Ok(())
    }
}

impl Fault for FailoverFault {
    fn name(&self) -> String {
        let of = match &self.target {
            Target::Replicas(_) => "replicas that nobody watches",
            Target::Sentinel(_) => "a Sentinel",
            Target::Cluster(_) => "a cluster",
        };
        format!("failover ({:?}) of {of}", self.kind)
    }

    fn inject(&self) -> Effect<'_> {
        Box::pin(self.break_it())
    }

    fn heal(&self) -> Effect<'_> {
        Box::pin(self.mend())
    }

    fn bites(&self) -> Bites {
        Bites::new(self.bites.load(Ordering::Relaxed), "changes of the primary")
    }
}

impl fmt::Debug for FailoverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailoverFault({}, {})", self.name(), self.bites())
    }
}
