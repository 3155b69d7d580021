//! A system under test between the suite and its upstream.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::upstream::{Answer, Event, Failure, Request, Told, Upstream};

type Serving = Pin<Box<dyn Future<Output = Told> + Send>>;

/// The system under test, as its callers see it.
#[derive(Clone)]
pub struct System(Arc<dyn Fn(Request) -> Serving + Send + Sync>);

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl System {
    /// A system by what it does with a request.
    pub fn new<F>(call: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Told> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(call(request))))
    }
}

/// A fresh system with its upstream. Clones are the same one.
#[derive(Clone)]
pub(super) struct Stand {
    pub(super) upstream: Upstream,
    system: System,
    numbers: Arc<AtomicU64>,
    patience: Duration,
}

impl Stand {
    pub(super) fn new(upstream: Upstream, system: System, patience: Duration) -> Self {
        Self { upstream, system, numbers: Arc::default(), patience }
    }

    /// A request that was not made before.
    pub(super) fn request(&self) -> Request {
        Request::new(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a request and waits for what is told.
    pub(super) async fn send(&self, request: Request) -> Told {
        let number = request.number;
        self.upstream.books_say(Event::Called(number));
        let told = tokio::time::timeout(self.patience, (self.system.0)(request)).await.unwrap_or(Told::Nothing);
        self.upstream.books_say(Event::Told(number, told.clone()));
        told
    }

    /// [`Stand::send`] of a request that may be repeated.
    pub(super) async fn call(&self) -> Told {
        self.send(self.request()).await
    }

    /// Makes a request and lets it be.
    pub(super) fn start(&self, request: Request) -> JoinHandle<Told> {
        let stand = self.clone();
        tokio::spawn(async move { stand.send(request).await })
    }

    /// Fails from now on, in a way that may pass.
    pub(super) fn break_upstream(&self) {
        self.upstream.usually(Answer::Fail(Failure::passing()));
    }

    /// Succeeds from now on.
    pub(super) fn mend_upstream(&self) {
        self.upstream.usually(Answer::Ok(Duration::ZERO));
    }

    /// Where the log stands now.
    pub(super) fn mark(&self) -> usize {
        self.upstream.log().len()
    }

    /// How often a request reached the upstream.
    pub(super) fn attempts(&self, number: u64) -> usize {
        self.upstream.arrivals().iter().filter(|arrival| arrival.request.number == number).count()
    }
}
