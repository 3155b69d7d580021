//! Many at the same moment: everybody gets ready, then all are released together.
//!
//! That all of a burst succeed proves little: a client that sends one after the other succeeds too. So a burst measures
//! how many were in flight at once, at the client and, through a gauge the test names, at the server.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
//! use harness_load::Burst;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let (now, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
//! # let server_peak = { let peak = peak.clone(); move || { let peak = peak.load(SeqCst); async move { Ok::<_, std::io::Error>(peak) } } };
//! let burst = Burst::of(50)
//!     .server_gauge(server_peak) // such as the peak in the server's own metrics
//!     .run(
//!         async |_member| Ok::<_, std::io::Error>("a connection"),
//! #       { let (now, peak) = (now.clone(), peak.clone());
//!         move |member, _connection| {
//!             // send a request here
//! #           let (now, peak) = (now.clone(), peak.clone());
//! #           async move { member.request(async {
//! #               peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
//! #               tokio::task::yield_now().await;
//! #               now.fetch_sub(1, SeqCst);
//! #           }).await; Ok::<(), std::io::Error>(()) }
//!         }
//! #       },
//!     )
//!     .await?;
//! burst.all_succeeded()?;
//! burst.at_server().at_least(50)?;
//! # harness_core::CoreResult::Ok(())
//! # }).unwrap();
//! ```

mod gauge;
mod outcome;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use harness_core::error::{CoreResult, Error, ErrorKind};
use harness_core::wait::within;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::{Classifiers, End, boxed, iterate, panicked};

use self::gauge::{Gauges, ServerGauge};

pub use self::gauge::Member;
pub use self::outcome::{BurstRun, MemberEnd, Peak};

/// A burst to run.
#[must_use = "a burst does nothing until `.run(..).await`"]
pub struct Burst {
    members: usize,
    limit: Duration,
    gauge: ServerGauge,
    classifiers: Classifiers,
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Burst(of {}, server gauge: {})", self.members, self.gauge.is_given())
    }
}

impl Burst {
    /// A burst of so many members, each with 10 s to get ready and 10 s to act.
    pub fn of(members: usize) -> Self {
        Self {
            members,
            limit: Duration::from_secs(10),
            gauge: ServerGauge::default(),
            classifiers: Classifiers::default(),
        }
    }

    /// The time a member has to get ready, and then to act.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many requests the server says are in flight, or were at most. Read again and again while the burst runs and
    /// once after it; the largest reading counts. Reading must not go through what the burst fills up.
    pub fn server_gauge<F, Fut, E>(mut self, read: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<u64, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.gauge = ServerGauge::new(move || {
            let reading = read();
            Box::pin(async move { reading.await.map_err(|error| error.to_string()) })
        });
        self
    }

    /// Names the kinds of an error type, as [`Load::classify`](crate::Load::classify).
    pub fn classify<E: 'static, K: Into<Cow<'static, str>>>(
        mut self,
        kind: impl Fn(&E) -> K + Send + Sync + 'static,
    ) -> Self {
        self.classifiers.add(kind);
        self
    }

    /// Gets all members ready at once, then releases them together and waits for all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without members; [`ErrorKind::Connect`] when a member does not get ready: a smaller burst
    /// than asked for is not run. Members that fail are no error here.
    pub async fn run<C, R, RFut, RErr, A, AFut, AErr>(self, ready: R, act: A) -> CoreResult<BurstRun>
    where
        C: Send + 'static,
        R: Fn(usize) -> RFut,
        RFut: Future<Output = Result<C, RErr>> + Send + 'static,
        RErr: fmt::Display + Send + 'static,
        A: Fn(Member, C) -> AFut,
        AFut: Future<Output = Result<(), AErr>> + Send + 'static,
        AErr: fmt::Display + Send + 'static,
    {
        if self.members == 0 || self.limit.is_zero() {
            return Err(Error::new(ErrorKind::Config, "a burst without members or without time does nothing")
                .remedy("give `Burst::of(..)` at least 1 and `.limit(..)` more than zero"));
        }
        let ready = get_ready((0..self.members).map(ready), self.limit).await?;
        let (together, gauges) = (Arc::new(Barrier::new(self.members)), Arc::new(Gauges::default()));
        let classifiers = Arc::new(self.classifiers);
        let mut tasks = JoinSet::new();
        for (index, connection) in ready.into_iter().enumerate() {
            let member = Member { index, gauges: gauges.clone() };
            let acting = boxed(act(member, connection));
            let (together, gauges) = (together.clone(), gauges.clone());
            let (limit, classifiers) = (self.limit, classifiers.clone());
            tasks.spawn(async move {
                together.wait().await;
                let _acting = gauges.actions.enter();
                let landed = iterate(acting, limit, classifiers).await;
                (index, landed.sent, landed.done, landed.end)
            });
        }
        let ends = {
            let mut watching = pin!(self.gauge.watch());
            tokio::select! { ends = all_ends(tasks, self.members) => ends, never = &mut watching => match never {} }
        };
        self.gauge.read_once().await;
        Ok(BurstRun::new(self.members, ends, &gauges, self.gauge.measured()))
    }
}

type Ended = (usize, Instant, Instant, End);

/// Waits for all members. Each has its time limit, so this ends.
async fn all_ends(mut tasks: JoinSet<Ended>, members: usize) -> Vec<Ended> {
    let mut ends = Vec::with_capacity(members);
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(ended) => ends.push(ended),
            // A panic while a member let go of what it held; whose it was, the task no longer says.
            Err(error) if error.is_panic() => {
                let now = Instant::now();
                ends.push((members, now, now, panicked(&*error.into_panic())));
            }
            Err(_) => {}
        }
    }
    ends
}

/// Gets everybody ready at once. The order of the result is the order of the members.
async fn get_ready<C, E, F>(all: impl Iterator<Item = F>, limit: Duration) -> CoreResult<Vec<C>>
where
    C: Send + 'static,
    E: fmt::Display + Send + 'static,
    F: Future<Output = Result<C, E>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (index, getting_ready) in all.enumerate() {
        tasks.spawn(async move {
            let ready = within("getting ready", limit, getting_ready).await;
            (index, ready.map_err(|error| error.to_string()).and_then(|ready| ready.map_err(|error| error.to_string())))
        });
    }
    let (mut ready, mut failed) = (Vec::new(), Vec::new());
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((index, Ok(connection))) => ready.push((index, connection)),
            Ok((index, Err(why))) => failed.push(format!("member {index}: {why}")),
            Err(error) => failed.push(format!("a member: {error}")),
        }
    }
    if failed.is_empty() {
        ready.sort_by_key(|(index, _)| *index);
        return Ok(ready.into_iter().map(|(_, connection)| connection).collect());
    }
    let (members, count) = (ready.len() + failed.len(), failed.len());
    failed.sort();
    let error = Error::new(ErrorKind::Connect, format!("{count} of {members} members of the burst did not get ready"));
    Err(failed.into_iter().take(5).fold(error, Error::tried))
}
