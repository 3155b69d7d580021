//! Are sessions apart? Distinct ids, private state, and no message at the wrong client.
//!
//! Method: every client marks its values with a canary of its own and uses the same JSON-RPC ids as all others, at the
//! same time; every message that arrives anywhere is searched for canaries of others. Detection is only claimed for
//! calls that overlapped in time; without any overlap there is no evidence.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use harness_core::run::Run;
use harness_core::{CoreResult, Error, ErrorKind};
use harness_props::Outcome;
use serde_json::{Value, json};

use crate::findings::{Finding, Findings};
use crate::ws::{Message, Ws};

/// Reads the first frame, which must be `{"method": "welcome", "params": {"session_id": "…"}}`, and gives the session
/// id.
///
/// # Errors
/// Three different sentences: no frame came ([`ErrorKind::Timeout`] or [`ErrorKind::Connect`]), the frame is no
/// welcome, or the welcome has
/// no session id (both [`ErrorKind::Assertion`]).
pub async fn welcome(ws: &mut Ws) -> CoreResult<String> {
    let frame = match ws.receive().await {
        Ok(frame) => frame,
        Err(error) => {
            let what = format!("no first frame came from {}", ws.url());
            return Err(Error::new(error.kind(), what).caused_by(error).log(ws.transcript().lines()));
        }
    };
    let bad = |what: String| Error::new(ErrorKind::Assertion, what).log(ws.transcript().lines());
    let frame = frame.json().ok_or_else(|| bad("the first frame is not a welcome but no JSON".to_owned()))?;
    match (frame["method"].as_str(), frame["params"]["session_id"].as_str()) {
        (Some("welcome"), Some(session)) if !session.is_empty() => Ok(session.to_owned()),
        (Some("welcome"), _) => Err(bad("the welcome has no session id".to_owned())),
        (Some(method), _) => Err(bad(format!("the first frame is not a welcome but the method `{method}`"))),
        (None, _) => Err(bad("the first frame is not a welcome and has no method".to_owned())),
    }
}

/// A method and its parameters that set or get a value of the session.
pub type SessionCall = (String, Value);

/// Settings of an isolation check.
#[derive(Debug, Clone)]
pub struct Isolation {
    clients: usize,
    rounds: usize,
    limit: Duration,
    welcome: bool,
    opening: Vec<Value>,
}

impl Default for Isolation {
    /// Three clients, eight rounds, 5 s per call, a welcome with a session id is required.
    fn default() -> Self {
        Self { clients: 3, rounds: 8, limit: Duration::from_secs(5), welcome: true, opening: Vec::new() }
    }
}

/// One client with its name for messages.
struct Client {
    ws: Ws,
    n: usize,
    session: String,
    token: String,
}

/// [`Isolation::run`] with the default settings.
///
/// # Errors
/// As [`Isolation::run`].
pub async fn isolation(
    url: impl Fn(usize) -> String,
    set: impl Fn(&str, &str) -> SessionCall,
    get: impl Fn(&str) -> SessionCall,
) -> CoreResult<Findings> {
    Isolation::default().run(url, set, get).await
}

impl Isolation {
    /// How many clients, at least two.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients.max(2);
        self
    }

    /// How many times all clients call at once.
    #[must_use]
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// How long one call may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// For servers that send no welcome: sessions are then the connections.
    #[must_use]
    pub fn without_welcome(mut self) -> Self {
        self.welcome = false;
        self
    }

    /// Sends these messages first on every connection; requests among them are waited for, such as `initialize`.
    #[must_use]
    pub fn opening(mut self, messages: impl IntoIterator<Item = Value>) -> Self {
        self.opening = messages.into_iter().collect();
        self
    }

    /// Connects the clients (`url` gets their number) and checks S1 to S5. `set` says how to keep a value under a key
    /// in the session,
    /// `get` how to read it.
    ///
    /// # Errors
    /// When a client cannot connect or a control call is not answered at all; what is wrong with the sessions is in the
    /// findings.
    pub async fn run(
        self,
        url: impl Fn(usize) -> String,
        set: impl Fn(&str, &str) -> SessionCall,
        get: impl Fn(&str) -> SessionCall,
    ) -> CoreResult<Findings> {
        let limit = self.limit;
        let sockets = try_join_all((0..self.clients).map(|n| Ws::builder(url(n)).limit(limit).connect())).await?;
        let target = sockets.first().map(|ws| ws.url().to_owned()).unwrap_or_default();
        let mut clients = Vec::new();
        let mut unwelcome = None;
        for (n, mut ws) in sockets.into_iter().enumerate() {
            let mut session = format!("connection-{n}");
            if self.welcome {
                match welcome(&mut ws).await {
                    Ok(given) => session = given,
                    Err(error) => unwelcome = unwelcome.or_else(|| Some(format!("client {n}: {error}"))),
                }
            }
            self.begin(&mut ws).await?;
            // The closing mark keeps canary 1 from being found inside canary 11.
            let token = format!("cz.{}.{}.{n}.", Run::current().id(), std::process::id());
            clients.push(Client { ws, n, session, token });
        }
        let mut list = self.judge_sessions(&clients, unwelcome);
        list.extend(private_state(&mut clients, &set, &get).await?);
        list.push(self.crosstalk(&mut clients, &set, &get).await?);
        Ok(Findings::new(target, list))
    }

    /// Says the opening messages and waits for the replies that are due.
    async fn begin(&self, ws: &mut Ws) -> CoreResult {
        for message in &self.opening {
            ws.send(message.clone()).await?;
            if let Some(id) = message.get("id") {
                ws.expect(json!({"id": id})).await?;
            }
        }
        Ok(())
    }

    fn judge_sessions(&self, clients: &[Client], unwelcome: Option<String>) -> Vec<Finding> {
        let mut ids: Vec<_> = clients.iter().map(|client| client.session.as_str()).collect();
        ids.sort_unstable();
        let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
        let (served, distinct) = match (self.welcome, unwelcome, twice) {
            (false, ..) => {
                (Outcome::not_applicable("no welcome is required"), Outcome::not_applicable("no session ids"))
            }
            (true, Some(why), _) => (Outcome::fail(why), Outcome::no_evidence("not every client has a session id")),
            (true, None, Some(pair)) => {
                (pass(clients.len(), "clients"), Outcome::fail(format!("session id {} was given twice", pair[0])))
            }
            (true, None, None) => (pass(clients.len(), "clients"), pass(ids.len(), "ids")),
        };
        vec![
            finding("S1", "every client is welcomed with a session id", served, &[]),
            finding("S2", "session ids are distinct", distinct, &[]),
        ]
    }

    /// All clients at once, each with a key of its own, so that shared state alone does not show here.
    async fn crosstalk(
        &self,
        clients: &mut [Client],
        set: &impl Fn(&str, &str) -> SessionCall,
        get: &impl Fn(&str) -> SessionCall,
    ) -> CoreResult<Finding> {
        let tokens: Vec<String> = clients.iter().map(|client| client.token.clone()).collect();
        let (mut overlaps, mut calls, mut leak) = (0, 0, None);
        for round in 0..self.rounds {
            let work = clients.iter_mut().map(|client| {
                let (key, value) = (format!("key.{}", client.n), format!("{}{round}", client.token));
                let (set, get) = (set(&key, &value), get(&key));
                timed(async move { (client.call(set).await, client.call(get).await) })
            });
            let results = join_all(work).await;
            overlaps += overlapping(&results.iter().map(|(_, span)| *span).collect::<Vec<_>>());
            for (n, ((set, get), _)) in results.into_iter().enumerate() {
                calls += 2;
                for text in [set, get] {
                    leak = leak.or(foreign(&tokens, n, &text?));
                }
            }
        }
        for client in clients.iter_mut() {
            // One more call of its own pushes out what a server sent astray before it.
            let last = client.call(get(&format!("key.{}", client.n))).await?;
            let unread: Vec<String> = client.ws.unread().filter_map(Message::text).map(str::to_owned).collect();
            for text in unread.iter().chain([&last]) {
                leak = leak.or_else(|| foreign(&tokens, client.n, text));
            }
        }
        let rule = "no message reaches the wrong client";
        Ok(match leak {
            Some((from, to)) => {
                finding("S5", rule, Outcome::fail(blame(&clients[from], &clients[to])), &[&clients[from], &clients[to]])
            }
            None if overlaps == 0 => finding("S5", rule, Outcome::no_evidence("no two calls overlapped in time"), &[]),
            None => finding("S5", rule, Outcome::pass(format!("{calls} calls, {overlaps} pairs overlapped")), &[]),
        })
    }
}

/// S3: the first client reads back what it set, without which S4 would mean nothing. S4: nobody else reads it.
async fn private_state(
    clients: &mut [Client],
    set: &impl Fn(&str, &str) -> SessionCall,
    get: &impl Fn(&str) -> SessionCall,
) -> CoreResult<Vec<Finding>> {
    const KEY: &str = "harness-isolation";
    const ROUND: &str = "state";
    let (read_back, private) = ("a session keeps its value", "a value set in one session is invisible in the others");
    let (owner, others) =
        clients.split_first_mut().ok_or_else(|| Error::new(ErrorKind::Config, "at least two clients are needed"))?;
    let secret = format!("{}{ROUND}", owner.token);
    owner.call(set(KEY, &secret)).await?;
    if !owner.call(get(KEY)).await?.contains(&secret) {
        let kept = finding("S3", read_back, Outcome::fail("the value that was set is not read back"), &[owner]);
        return Ok(vec![kept, finding("S4", private, Outcome::no_evidence("no value was kept at all"), &[])]);
    }
    let mut list = vec![finding("S3", read_back, Outcome::pass("1 value"), &[])];
    for other in others.iter_mut() {
        if other.call(get(KEY)).await?.contains(&owner.token) {
            list.push(finding("S4", private, Outcome::fail(blame(owner, other)), &[owner, other]));
            return Ok(list);
        }
    }
    list.push(finding("S4", private, pass(others.len(), "other sessions"), &[]));
    Ok(list)
}

impl Client {
    /// The whole reply as text, result or error.
    async fn call(&mut self, (method, params): SessionCall) -> CoreResult<String> {
        Ok(self.ws.request(method, params).await?.message().to_string())
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, (Instant, Instant)) {
    let begun = Instant::now();
    let done = work.await;
    (done, (begun, Instant::now()))
}

fn overlapping(spans: &[(Instant, Instant)]) -> usize {
    let pairs = spans.iter().enumerate().flat_map(|(n, a)| spans[n + 1..].iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| a.0 < b.1 && b.0 < a.1).count()
}

/// Whose canary is in a text that `receiver` got, if it is not its own.
fn foreign(tokens: &[String], receiver: usize, text: &str) -> Option<(usize, usize)> {
    let owner = tokens.iter().enumerate().find(|(n, token)| *n != receiver && text.contains(token.as_str()))?;
    Some((owner.0, receiver))
}

fn blame(owner: &Client, receiver: &Client) -> String {
    let (of, to) = (&owner.session, &receiver.session);
    format!("what belongs to client {} (session {of}) reached client {} (session {to})", owner.n, receiver.n)
}

fn pass(count: usize, what: &str) -> Outcome {
    Outcome::pass(format!("{count} {what}"))
}

fn finding(id: &'static str, rule: &'static str, outcome: Outcome, involved: &[&Client]) -> Finding {
    let lines = |client: &&Client| {
        let n = client.n;
        client.ws.transcript().lines().into_iter().map(move |line| format!("client {n} {line}")).collect::<Vec<_>>()
    };
    let evidence = if outcome.is_fail() { involved.iter().flat_map(lines).collect() } else { Vec::new() };
    Finding { id, source: "session isolation", rule, outcome, evidence }
}
