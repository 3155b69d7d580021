//! Counting who is in flight: at the client by guards, at the server by asking it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::slo::Measured;
use harness_core::wait::{pause, within};

/// Pause between two readings of the server's gauge.
const PAUSE: Duration = Duration::from_millis(2);
/// The longest one reading may take.
const LONGEST: Duration = Duration::from_secs(2);

/// A reading of the server's gauge, under way.
pub(super) type Reading = Pin<Box<dyn Future<Output = Result<u64, String>> + Send>>;

/// One member of a burst, as its action sees it.
#[derive(Debug, Clone)]
pub struct Member {
    pub(super) index: usize,
    pub(super) gauges: Arc<Gauges>,
}

impl Member {
    /// Position among the members, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs the request itself, so that the client's peak counts requests in flight instead of actions: what an
    /// action waits for before it (a lock, a pool) is then not mistaken for being in flight.
    pub async fn request<T>(&self, request: impl Future<Output = T>) -> T {
        let _in_flight = self.gauges.requests.enter();
        request.await
    }
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) actions: Gauge,
    pub(super) requests: Gauge,
}

/// How many are inside now and were at most.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    pub(super) fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::SeqCst)
    }
}

pub(super) struct Inside<'g>(&'g Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the server said about itself.
#[derive(Default)]
pub(super) struct ServerGauge {
    read: Option<Box<dyn Fn() -> Reading + Send + Sync>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    peak: u64,
    readings: u64,
    failure: Option<String>,
}

impl ServerGauge {
    pub(super) fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self { read: Some(Box::new(read)), seen: Mutex::default() }
    }

    pub(super) fn is_given(&self) -> bool {
        self.read.is_some()
    }

    /// Reads again and again, until dropped.
    pub(super) async fn watch(&self) -> Infallible {
        if self.read.is_none() {
            std::future::pending::<()>().await;
        }
        loop {
            self.read_once().await;
            pause(PAUSE).await;
        }
    }

    /// Reads once; failures are kept for the case that nothing else is.
    pub(super) async fn read_once(&self) {
        let Some(read) = &self.read else { return };
        let reading = within("reading the server's gauge", LONGEST, read()).await;
        let reading = reading.map_err(|error| error.to_string()).and_then(|reading| reading);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match reading {
            Ok(value) => (seen.peak, seen.readings) = (seen.peak.max(value), seen.readings + 1),
            Err(why) => seen.failure = Some(why),
        }
    }

    pub(super) fn measured(self) -> Measured {
        let Seen { peak, readings, failure } = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (readings, failure) {
            (0, None) => Measured::nothing("no gauge of the server was given: add `.server_gauge(..)`"),
            (0, Some(why)) => Measured::nothing(format!("the server's gauge could not be read: {why}")),
            _ => Measured::count(peak),
        }
    }
}
