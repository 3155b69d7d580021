//! Many connections, each of them small: what a server does under ten thousand, seen from a single process.
//!
//! ```
//! # async fn example(url: &str) -> harness_ws::Result {
//! use harness_ws::Fleet;
//!
//! let mut fleet = Fleet::of(url).connections(1_000).open().await?;
//! let crosstalk = fleet.canaried(10, |canary, n| format!(r#"{{"id":{n},"echo":"{canary}"}}"#)).await?;
//! assert!(crosstalk.outcome().is_pass(), "{}", crosstalk.outcome());
//! # Ok(())
//! # }
//! ```
//!
//! A connection costs its socket and some 400 bytes: no buffer is its own. The other side costs descriptors, too, so a
//! server of a large fleet belongs into another process; where a process may open 20,000 files, ten thousand connections
//! with both ends in it cannot be had.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use harness_core::run::{Run, SeedStream};
use harness_core::wait::within;
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::crosstalk::{Canaries, Crosstalk};
use crate::ws::codec::{Decoder, Event, Role, Violation, opcode, put_final};
use crate::ws::connect::{Answer, read_head};
use crate::ws::shared::read_shared;
use crate::ws::{Connect, End, Ws};

/// Connections that are opened at the same time.
const OPENING: usize = 128;
/// The key that stands in the prepared request until a real one takes its place.
const PLACE: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// A fleet to be.
#[must_use = "nothing is opened before `open`"]
#[derive(Debug, Clone)]
pub struct Fleet {
    connect: Connect,
    connections: usize,
    sources: Vec<IpAddr>,
    limit: Duration,
}

/// Open connections of one process. Dropping it resets them, so that their ports are free at once.
#[derive(Debug)]
pub struct OpenFleet {
    url: String,
    members: Vec<Member>,
    limit: Duration,
}

/// One connection, with nothing in it that could be shared.
#[derive(Debug)]
struct Member {
    session: u32,
    socket: TcpStream,
    decoder: Decoder,
    keys: SeedStream,
}

impl Fleet {
    /// A fleet of a hundred connections to this address, in plain TCP.
    pub fn of(url: impl AsRef<str>) -> Self {
        Self::over(Ws::builder(url))
    }

    /// As [`Fleet::of`], with the headers and the query of a connection to be.
    pub fn over(connect: Connect) -> Self {
        Self { connect, connections: 100, sources: Vec::new(), limit: Duration::from_secs(10) }
    }

    /// How many connections.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connects from these addresses in turn, such as 127.0.0.2 and 127.0.0.3: each has some 28,000 ports.
    pub fn sources(mut self, sources: impl IntoIterator<Item = IpAddr>) -> Self {
        self.sources = sources.into_iter().collect();
        self
    }

    /// How long a handshake, and later an answer, may take; 10 s unless told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Opens all connections.
    ///
    /// # Errors
    /// The first connection that could not be opened: [`ErrorKind::Environment`] when this process has no descriptors
    /// left, otherwise as [`Ws::connect`].
    pub async fn open(self) -> CoreResult<OpenFleet> {
        let (address, request, url) = self.connect.prepared(PLACE).await?;
        let mut members = Vec::with_capacity(self.connections);
        let opening = stream::iter(0..self.connections).map(|n| {
            let source = self.sources.get(n % self.sources.len().max(1)).copied();
            open_member(n as u32, address, source, &request, &url, self.limit)
        });
        let mut opening = opening.buffer_unordered(OPENING);
        while let Some(member) = opening.next().await {
            members.push(member?);
        }
        drop(opening);
        Ok(OpenFleet { url, members, limit: self.limit })
    }
}

async fn open_member(
    session: u32,
    address: SocketAddr,
    source: Option<IpAddr>,
    request: &str,
    url: &str,
    limit: Duration,
) -> CoreResult<Member> {
    let failed = |error: io::Error| match error.raw_os_error() {
        Some(23 | 24) => Error::new(ErrorKind::Environment, format!("no descriptor is left for connection {session}"))
            .caused_by(error)
            .remedy("raise `ulimit -n`, or open fewer"),
        _ => Error::new(ErrorKind::Connect, format!("connection {session} to {url} could not be opened"))
            .caused_by(error),
    };
    let opening = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let mut socket = socket.connect(address).await?;
        socket.set_nodelay(true)?;
        // Ten thousand ports in TIME_WAIT would be in the way of the next fleet.
        socket.set_zero_linger()?;
        let key = generate_key();
        socket.write_all(request.replace(PLACE, &key).as_bytes()).await?;
        let (head, rest) = read_head(&mut socket).await?;
        io::Result::Ok((socket, key, Answer::parse(&head), rest))
    };
    let opened = within(format!("the handshake of connection {session} with {url}"), limit, opening).await?;
    let (socket, key, answer, mut rest) = opened.map_err(failed)?;
    if let Err(why) = answer.judge(&key, &[]) {
        return Err(answer.refuse(why, &rest, url));
    }
    let mut decoder = Decoder::new(Role::Client);
    // What a server says unasked, a welcome perhaps, is no answer to anything.
    let fed = decoder.feed(&mut rest, &mut |_| {});
    fed.map_err(|violation| Error::new(ErrorKind::Protocol, format!("{url} broke the protocol")).caused_by(violation))?;
    let keys = Run::current().seed().stream(&format!("fleet masks {session}"));
    Ok(Member { session, socket, decoder, keys })
}

impl OpenFleet {
    /// The address, secrets masked.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Every connection at the same time sends so many messages, each when the last was answered, and all that arrives is
    /// searched for the canaries of others. `message` makes a message of a canary and its number, which is the same for
    /// all connections on purpose; an answer is a message with the canary in it.
    ///
    /// A connection that ends or breaks the protocol is left out from then on, and its messages count as lost.
    ///
    /// # Errors
    /// [`ErrorKind::NoEvidence`] without connections.
    pub async fn canaried(
        &mut self,
        rounds: u32,
        message: impl Fn(&str, u32) -> String + Send + Sync + 'static,
    ) -> CoreResult<Crosstalk> {
        if self.members.is_empty() {
            return Err(Error::new(ErrorKind::NoEvidence, "a fleet without connections shows nothing"));
        }
        let canaries = Arc::new(Canaries::new(Run::current().id(), Run::current().seed()));
        let (message, begun, limit) = (Arc::new(message), Instant::now(), self.limit);
        let mut judge = Crosstalk::new((*canaries).clone());
        let mut storm = JoinSet::new();
        for member in self.members.drain(..) {
            let (canaries, message) = (Arc::clone(&canaries), Arc::clone(&message));
            storm.spawn(async move { member.storm(rounds, &canaries, &*message, begun, limit).await });
        }
        while let Some(done) = storm.join_next().await {
            let Ok((member, seen)) = done else {
                judge.lost(u64::from(rounds));
                continue;
            };
            seen.tell(&mut judge, rounds);
            self.members.extend(member);
        }
        Ok(judge)
    }

    /// Every connection sends a text and waits for one message back: so many round trips as there are connections.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when a connection ends, [`ErrorKind::Timeout`] when an answer does not come.
    pub async fn echo(&mut self, text: &str) -> CoreResult {
        let (limit, url) = (self.limit, self.url.clone());
        let mut failed = None;
        let trips = self.members.iter_mut().map(|member| member.trip(text.as_bytes(), limit));
        let mut trips = stream::iter(trips).buffer_unordered(OPENING);
        while let Some(done) = trips.next().await {
            failed = failed.or_else(|| done.err());
        }
        match failed {
            None => Ok(()),
            Some(end) => {
                Err(Error::new(ErrorKind::Connect, format!("a connection of the fleet to {url} ended")).caused_by(end))
            }
        }
    }
}

/// What one connection saw; leaks are rare, so that this is small.
struct Seen {
    session: u32,
    active: (u64, u64),
    answered: u32,
    strangers: Vec<Vec<u8>>,
}

impl Seen {
    fn tell(self, judge: &mut Crosstalk, rounds: u32) {
        judge.session(self.session, self.active.0..self.active.1);
        judge.answered(self.answered);
        judge.lost(u64::from(rounds - self.answered));
        for message in &self.strangers {
            judge.received(self.session, message);
        }
    }
}

impl Member {
    async fn storm(
        mut self,
        rounds: u32,
        canaries: &Canaries,
        message: &(impl Fn(&str, u32) -> String + Send + Sync),
        begun: Instant,
        limit: Duration,
    ) -> (Option<Self>, Seen) {
        let now = || begun.elapsed().as_nanos() as u64;
        let mut seen = Seen { session: self.session, active: (now(), 0), answered: 0, strangers: Vec::new() };
        for n in 0..rounds {
            let text = message(&canaries.canary(self.session, n), n);
            let session = self.session;
            let strangers = &mut seen.strangers;
            let is_answer = |bytes: &[u8]| {
                let (mut own, mut others) = (false, false);
                let damaged = canaries.scan(bytes, &mut |sighting| {
                    own |= sighting.session == session && sighting.n == n;
                    others |= sighting.session != session;
                });
                if others || damaged > 0 {
                    strangers.push(bytes.to_vec());
                }
                own
            };
            if self.exchange(text.as_bytes(), is_answer, limit).await.is_err() {
                seen.active.1 = now();
                return (None, seen);
            }
            seen.answered += 1;
        }
        seen.active.1 = now();
        (Some(self), seen)
    }

    async fn trip(&mut self, text: &[u8], limit: Duration) -> Result<(), End> {
        self.exchange(text, |_| true, limit).await
    }

    /// Sends a text and reads until a message is the answer.
    async fn exchange(
        &mut self,
        text: &[u8],
        mut is_answer: impl FnMut(&[u8]) -> bool,
        limit: Duration,
    ) -> Result<(), End> {
        let mut out = Vec::with_capacity(text.len() + 14);
        let key = (self.keys.next_u64() as u32).to_be_bytes();
        put_final(&mut out, opcode::TEXT, Some(key), text);
        let work = async {
            self.socket.write_all(&out).await.map_err(|_| End::Reset)?;
            out.clear();
            loop {
                let (decoder, mut answered) = (&mut self.decoder, false);
                let fed = read_shared(&self.socket, |bytes| {
                    decoder.feed(bytes, &mut |event| match event {
                        Event::Text(text) => answered |= is_answer(text.as_bytes()),
                        Event::Binary(bytes) => answered |= is_answer(bytes),
                        Event::Ping(payload) => put_final(&mut out, opcode::PONG, Some(key), payload),
                        Event::Pong(_) | Event::Close { .. } => {}
                    })
                });
                match fed.await {
                    Ok(Some(Ok(()))) => {}
                    Ok(Some(Err(violation))) => return Err(violated(&violation)),
                    Ok(None) => return Err(End::Eof),
                    Err(_) => return Err(End::Reset),
                }
                if !out.is_empty() {
                    self.socket.write_all(&out).await.map_err(|_| End::Reset)?;
                    out.clear();
                }
                if answered {
                    return Ok(());
                }
                if self.decoder.is_closed() {
                    return Err(End::Eof);
                }
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(End::Timeout))
    }
}

fn violated(violation: &Violation) -> End {
    End::Violation { what: violation.to_string() }
}
