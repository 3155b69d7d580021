//! The server behind the script: an in-process task on 127.0.0.1.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::accept;
use super::script::{Behaviour, Script};
use crate::error::{CoreResult, Error, ErrorKind};
use crate::run::fnv;
use crate::wait;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Prompts beyond this are refused.
const LARGEST_REQUEST: usize = 16 << 20;
/// Calls kept in the record; later ones are counted only.
const MOST_CALLS: usize = 100_000;
/// How long connections may take to end at a shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// One call as the stub saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StubCall {
    /// The agent named in the request; empty if the request could not be read.
    pub agent: String,
    /// FNV-1a of the prompt: tells equal prompts from different ones without keeping them.
    pub prompt_hash: u64,
    /// Since the stub started.
    pub at: Duration,
    /// Calls inside the stub when this one came, itself included.
    pub in_flight: usize,
    /// What was done: `text`, `body`, `error`, `garbage`, `half`, `hang`, `disconnect`, or `unknown agent`,
    /// `script is through`, `malformed request`.
    pub behaviour: &'static str,
    /// The status that was sent, if any.
    pub status: Option<u16>,
    /// The correlation header of the request, if any.
    pub correlation: Option<String>,
}

/// A running stub. Dropping it stops it at once; [`ModelStub::shutdown`] also waits until it is gone.
#[must_use = "the stub stops when it is dropped"]
#[derive(Debug)]
pub struct ModelStub {
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    script: Script,
    /// Calls already made per agent under the current script.
    turns: BTreeMap<String, u64>,
    calls: Vec<StubCall>,
    calls_dropped: u64,
    unknown: BTreeSet<String>,
    in_flight: usize,
    in_flight_peak: usize,
}

#[derive(Deserialize)]
struct Prompt {
    agent: String,
    prompt: String,
}

/// What to do with a call, decided when it comes.
struct Plan {
    behaviour: Behaviour,
    delay: Duration,
    prompt: String,
}

impl ModelStub {
    /// Starts the stub on a free port of 127.0.0.1, as a task of the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the script contradicts itself, [`ErrorKind::Io`] when no port can be had.
    pub async fn start(script: Script) -> CoreResult<Self> {
        script.validate()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let books = Mutex::new(Books { script, ..Books::default() });
        let state = Arc::new(State { begun: Instant::now(), books });
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&state);
        let task = tokio::spawn(accept(listener, move |request| Arc::clone(&served).answer(request), stopped));
        Ok(Self { address, state, stop, task })
    }

    /// The address to give to the service under test: `http://127.0.0.1:<port>/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Every call so far, in the order they came; see [`ModelStub::calls_dropped`] for the bound.
    #[must_use]
    pub fn calls(&self) -> Vec<StubCall> {
        self.state.books().calls.clone()
    }

    /// The calls of one agent.
    #[must_use]
    pub fn calls_of(&self, agent: &str) -> Vec<StubCall> {
        self.state.books().calls.iter().filter(|call| call.agent == agent).cloned().collect()
    }

    /// Calls beyond the first 100,000, which were answered but not recorded.
    #[must_use]
    pub fn calls_dropped(&self) -> u64 {
        self.state.books().calls_dropped
    }

    /// Agents that called but are not in the script; not empty means that a test or the service has a wrong name.
    #[must_use]
    pub fn unknown_agents(&self) -> Vec<String> {
        self.state.books().unknown.iter().cloned().collect()
    }

    /// The most calls that were inside the stub at the same time, since the start.
    #[must_use]
    pub fn in_flight_peak(&self) -> usize {
        self.state.books().in_flight_peak
    }

    /// Calls inside the stub now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state.books().in_flight
    }

    /// Replaces the script; calls already inside go on with the old one, every agent's list begins anew.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the script contradicts itself; the old one then stays.
    pub fn set_script(&self, script: Script) -> CoreResult {
        script.validate()?;
        let mut books = self.state.books();
        books.script = script;
        books.turns.clear();
        Ok(())
    }

    /// Stops listening, ends every connection, also those that hang, and gives the record.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the tasks do not end within 5 s.
    pub async fn shutdown(mut self) -> CoreResult<Vec<StubCall>> {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(SHUTDOWN_LIMIT, &mut self.task).await;
        match ended {
            Ok(Ok(())) => Ok(self.calls()),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Exited, "the model stub ended badly").caused_by(error)),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the model stub did not end within 5 s")),
        }
    }
}

impl Drop for ModelStub {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

/// Counts a call as inside until it is answered, abandoned or cut.
struct Inside(Arc<State>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.books().in_flight -= 1;
    }
}

impl State {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let at = self.begun.elapsed();
        let in_flight = {
            let mut books = self.books();
            books.in_flight += 1;
            books.in_flight_peak = books.in_flight_peak.max(books.in_flight);
            books.in_flight
        };
        let _inside = Inside(Arc::clone(&self));
        let (parts, body) = request.into_parts();
        let correlation =
            parts.headers.get("x-correlation-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let read = Limited::new(body, LARGEST_REQUEST).collect().await.map(http_body_util::Collected::to_bytes);
        let prompt: Option<Prompt> = match read {
            Ok(bytes) if parts.method == hyper::Method::POST => serde_json::from_slice(&bytes).ok(),
            _ => None,
        };
        let seen = StubCall {
            agent: prompt.as_ref().map(|prompt| prompt.agent.clone()).unwrap_or_default(),
            prompt_hash: prompt.as_ref().map(|prompt| fnv(prompt.prompt.as_bytes())).unwrap_or_default(),
            at,
            in_flight,
            behaviour: "malformed request",
            status: Some(400),
            correlation,
        };
        let plan = self.books().plan(prompt, seen);
        match plan {
            Ok(plan) => plan.act().await,
            Err((status, why)) => respond(status, &BTreeMap::new(), &json!({"error": {"message": why}})),
        }
    }
}

impl Books {
    /// Decides and records; the refusals are decided here as well.
    fn plan(&mut self, prompt: Option<Prompt>, mut seen: StubCall) -> Result<Plan, (u16, &'static str)> {
        let decided = match &prompt {
            None => Err((400, "malformed request")),
            Some(Prompt { agent, .. }) => match self.script.of(agent) {
                None => {
                    self.unknown.insert(agent.clone());
                    Err((404, "unknown agent"))
                }
                Some(behaviours) => {
                    let turn = self.turns.entry(agent.clone()).or_default();
                    let n = *turn;
                    *turn += 1;
                    match self.script.nth(behaviours, n) {
                        None => Err((410, "script is through")),
                        Some(behaviour) => Ok((behaviour.clone(), self.script.delay(behaviour, agent, n))),
                    }
                }
            },
        };
        (seen.behaviour, seen.status) = match &decided {
            Err((status, why)) => (*why, Some(*status)),
            Ok((behaviour, _)) if behaviour.hang || behaviour.disconnect => (behaviour.word(), None),
            Ok((behaviour, _)) => (behaviour.word(), Some(behaviour.sent_status())),
        };
        if self.calls.len() < MOST_CALLS {
            self.calls.push(seen);
        } else {
            self.calls_dropped += 1;
        }
        let (behaviour, delay) = decided?;
        Ok(Plan { behaviour, delay, prompt: prompt.map(|prompt| prompt.prompt).unwrap_or_default() })
    }
}

impl Behaviour {
    /// An error that names no status is a 500.
    fn sent_status(&self) -> u16 {
        if self.error.is_some() && self.status == 200 { 500 } else { self.status }
    }
}

impl Plan {
    async fn act(self) -> io::Result<Response<Body>> {
        let Self { behaviour, delay, prompt } = self;
        if !delay.is_zero() {
            wait::pause(delay).await;
        }
        if behaviour.hang {
            // Ends when the client leaves or the stub stops: both drop this future.
            return std::future::pending().await;
        }
        if behaviour.disconnect {
            return Err(io::Error::other("scripted disconnect"));
        }
        let status = behaviour.sent_status();
        if behaviour.garbage {
            return send(
                status,
                &behaviour.headers,
                full(Bytes::from_static(b"{\"text\": \"cut \xff\xfe <<garbage")),
                None,
            );
        }
        let body = match (&behaviour.error, &behaviour.body) {
            (Some(message), _) => json!({"error": {"message": message}}),
            (None, Some(body)) => body.clone(),
            (None, None) => {
                let text = behaviour.text.as_deref().unwrap_or_default();
                let words = |text: &str| text.split_whitespace().count() as u64;
                let tokens = behaviour.tokens.unwrap_or_else(|| words(&prompt) + words(text));
                match behaviour.without_usage {
                    true => json!({"text": text}),
                    false => json!({"text": text, "usage": {"total_tokens": tokens}}),
                }
            }
        };
        if behaviour.half {
            let whole = Bytes::from(body.to_string());
            let half = whole.slice(..whole.len() / 2);
            let begin = stream::iter([Ok(Frame::data(half))]);
            // The pause in between lets the server flush the first half before the error closes the connection.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("scripted half of an answer"))
            });
            let body = StreamBody::new(begin.chain(end));
            return send(status, &behaviour.headers, body.boxed_unsync(), Some(whole.len()));
        }
        respond(status, &behaviour.headers, &body)
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn respond(status: u16, headers: &BTreeMap<String, String>, body: &Value) -> io::Result<Response<Body>> {
    send(status, headers, full(Bytes::from(body.to_string())), None)
}

fn send(
    status: u16,
    headers: &BTreeMap<String, String>,
    body: Body,
    length: Option<usize>,
) -> io::Result<Response<Body>> {
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    if let Some(length) = length {
        response = response.header("content-length", length);
    }
    response.body(body).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
