//! The far side: counts what reaches it and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::wait::Pace;

/// What a system under test is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Of the suite's choice, unique for each system; it has to reach the upstream unchanged.
    pub number: u64,
    /// True when doing it twice does no more than doing it once.
    pub is_idempotent: bool,
    /// A key by which the upstream recognises a repetition.
    pub idempotency_key: Option<String>,
    /// True for what has to be served even under overload.
    pub is_core: bool,
}

impl Request {
    pub(super) fn new(number: u64) -> Self {
        Self { number, is_idempotent: true, idempotency_key: None, is_core: true }
    }

    /// True when an attempt may be made again after it may have done something.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.is_idempotent || self.idempotency_key.is_some()
    }
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Ok,
    /// It was tried and failed.
    Failed(String),
    /// It was turned away, with a reason such as `503` or `circuit open`.
    Refused(String),
    /// It took longer than a limit of the system's own.
    TimedOut,
    /// Nothing, for as long as the suite was willing to wait. A system never says this itself.
    Nothing,
}

/// How an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Whether trying again may help: true of status 503, false of status 400.
    pub is_retryable: bool,
    /// How long the upstream asks to wait.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that may pass.
    #[must_use]
    pub fn passing() -> Self {
        Self { is_retryable: true, retry_after: None }
    }

    /// A failure that trying again cannot help.
    #[must_use]
    pub fn lasting() -> Self {
        Self { is_retryable: false, retry_after: None }
    }
}

/// What an upstream does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It succeeds after this time.
    Ok(Duration),
    /// It fails.
    Fail(Failure),
    /// It does not answer before it is released.
    Hold,
}

/// A request as the upstream saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// When, since the upstream was made.
    pub at: Duration,
    /// The request.
    pub request: Request,
}

/// What happened, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Called(u64),
    Arrived(Request),
    Answered(u64, Result<(), Failure>),
    /// Its caller went away before it was answered.
    Abandoned(u64),
    Told(u64, Told),
}

#[derive(Debug)]
struct Books {
    log: Vec<(Duration, Event)>,
    /// What is answered next; afterwards `usual`.
    next: VecDeque<Answer>,
    usual: Answer,
    released: VecDeque<Result<(), Failure>>,
}

#[derive(Debug)]
struct Inner {
    pace: Pace,
    books: Mutex<Books>,
    release: Semaphore,
}

/// The far side of a system under test. Clones are the same upstream.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

impl Default for Upstream {
    fn default() -> Self {
        Self::new()
    }
}

impl Upstream {
    /// An upstream that succeeds at once.
    #[must_use]
    pub fn new() -> Self {
        let usual = Answer::Ok(Duration::ZERO);
        let books = Books { log: Vec::new(), next: VecDeque::new(), usual, released: VecDeque::new() };
        Self(Arc::new(Inner { pace: Pace::real(), books: Mutex::new(books), release: Semaphore::new(0) }))
    }

    /// Serves one attempt at a request, as the suite has said.
    ///
    /// # Errors
    /// The failure that the suite wants.
    pub async fn serve(&self, request: &Request) -> Result<(), Failure> {
        let answer = {
            let mut books = self.books();
            books.log.push((self.now(), Event::Arrived(request.clone())));
            let usual = books.usual;
            books.next.pop_front().unwrap_or(usual)
        };
        let mut inside = Inside { upstream: self, number: request.number, result: None };
        let result = match answer {
            Answer::Ok(after) => {
                if !after.is_zero() {
                    self.0.pace.wait(after).await;
                }
                Ok(())
            }
            Answer::Fail(failure) => Err(failure),
            Answer::Hold => {
                // Semaphores are fair: those that came first are released first. It is never closed.
                if let Ok(permit) = self.0.release.acquire().await {
                    permit.forget();
                }
                self.books().released.pop_front().unwrap_or(Ok(()))
            }
        };
        inside.result = Some(result);
        result
    }

    /// What arrived so far.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        let arrived = |(at, event): &(Duration, Event)| match event {
            Event::Arrived(request) => Some(Arrival { at: *at, request: request.clone() }),
            _ => None,
        };
        self.books().log.iter().filter_map(arrived).collect()
    }

    pub(super) fn books_say(&self, event: Event) {
        self.books().log.push((self.now(), event));
    }

    pub(super) fn log(&self) -> Vec<(Duration, Event)> {
        self.books().log.clone()
    }

    /// What is answered from now on.
    pub(super) fn usually(&self, answer: Answer) {
        self.books().usual = answer;
    }

    /// What is answered to those that come next.
    pub(super) fn next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.books().next.extend(answers);
    }

    /// Lets so many go that are held, the first ones first.
    pub(super) fn release(&self, requests: usize, result: Result<(), Failure>) {
        self.books().released.extend(std::iter::repeat_n(result, requests));
        self.0.release.add_permits(requests);
    }

    pub(super) fn now(&self) -> Duration {
        self.0.pace.now()
    }

    pub(super) async fn wait(&self, time: Duration) {
        self.0.pace.wait(time).await;
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes how an attempt ended, also when its caller goes away.
struct Inside<'a> {
    upstream: &'a Upstream,
    number: u64,
    result: Option<Result<(), Failure>>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.upstream.books_say(match self.result {
            Some(result) => Event::Answered(self.number, result),
            None => Event::Abandoned(self.number),
        });
    }
}
