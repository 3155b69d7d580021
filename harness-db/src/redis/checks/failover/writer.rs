//! The clients of a failover: each looks the primary up, writes to it, and notes what it was told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness_core::wait::pause;
use harness_core::{CoreResult, Error};
use harness_props::history::{Answer, Write};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use super::super::topology::{Lookup, Node};
use super::super::wire;
use super::key;

/// Between two writes of one client.
const PACE: Duration = Duration::from_millis(5);
/// Before a client tries again.
const BACK_OFF: Duration = Duration::from_millis(20);
/// How long a client waits for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the clients and the experiment share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) lookup: Lookup,
    prefix: String,
    acks: usize,
    begun: Instant,
    writes: Mutex<Vec<Write>>,
    last_error: Mutex<String>,
    stop: AtomicBool,
    /// Where clients with an even number go instead of asking.
    diverted: Mutex<Option<Node>>,
}

impl Shared {
    pub(super) fn new(prefix: String, lookup: Lookup, acks: usize) -> Self {
        Self {
            lookup,
            prefix,
            acks,
            begun: Instant::now(),
            writes: Mutex::default(),
            last_error: Mutex::new("no error".to_owned()),
            stop: AtomicBool::new(false),
            diverted: Mutex::default(),
        }
    }

    /// The time since the beginning.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn look(&self, look: impl FnOnce(&[Write])) {
        look(&locked(&self.writes));
    }

    pub(super) fn last_error(&self) -> String {
        format!("last error: {}", locked(&self.last_error))
    }

    /// Sends half of the clients there: those who heard of a new primary while the others did not.
    pub(super) fn divert(&self, to: Node) {
        *locked(&self.diverted) = Some(to);
    }

    /// Ends [`Shared::divert`].
    pub(super) fn release(&self) {
        *locked(&self.diverted) = None;
    }

    fn diversion(&self, client: usize) -> Option<Node> {
        locked(&self.diverted).clone().filter(|_| client.is_multiple_of(2))
    }

    fn note(&self, error: &Error) {
        *locked(&self.last_error) = error.to_string();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running clients; they end with this value.
#[derive(Debug)]
pub(super) struct Writers(JoinSet<()>);

impl Writers {
    pub(super) fn start(count: usize, shared: &Arc<Shared>) -> Self {
        let mut tasks = JoinSet::new();
        for client in 0..count {
            tasks.spawn(Client { client, shared: Arc::clone(shared), connection: None }.write());
        }
        Self(tasks)
    }

    /// Lets each client finish its write, and gives all of them.
    pub(super) async fn stop(mut self, shared: &Shared) -> Vec<Write> {
        shared.stop.store(true, Ordering::Relaxed);
        // A client that hangs beyond its own patience ends with the set.
        let _ = tokio::time::timeout(4 * PATIENCE, async { while self.0.join_next().await.is_some() {} }).await;
        locked(&shared.writes).clone()
    }
}

struct Client {
    client: usize,
    shared: Arc<Shared>,
    connection: Option<(Node, MultiplexedConnection)>,
}

impl Client {
    async fn write(mut self) {
        let mut number = 0_u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            number += 1;
            let id = format!("c{}-{number}", self.client);
            let key = key(&self.shared.prefix, self.client);
            let invoked = self.shared.now();
            let (node, answer) = self.once(&key, &id).await;
            let write = Write::new(id, key, self.client, node).invoked(invoked);
            let answered = self.shared.now();
            locked(&self.shared.writes).push(write.answered(answered, answer));
            pause(if answer == Answer::Acknowledged { PACE } else { BACK_OFF }).await;
        }
    }

    /// One write: where it went and what came back. What was never sent counts as refused.
    async fn once(&mut self, key: &str, id: &str) -> (String, Answer) {
        let wanted = self.shared.diversion(self.client);
        if let (Some(wanted), Some((node, _))) = (&wanted, &self.connection)
            && node.address() != wanted.address()
        {
            self.connection = None;
        }
        let (node, mut connection) = match self.connection.take() {
            Some(known) => known,
            None => match self.connect(wanted).await {
                Ok(made) => made,
                Err((at, error)) => {
                    self.shared.note(&error);
                    return (at.map_or_else(|| "nobody".to_owned(), |at| at.to_string()), Answer::Refused);
                }
            },
        };
        let told = tokio::time::timeout(PATIENCE, send(&mut connection, key, id, self.shared.acks)).await;
        let answer = match told {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                // Words of the server are a refusal; a broken connection says nothing about the write.
                let answer = if error.code().is_some() { Answer::Refused } else { Answer::Unknown };
                self.shared.note(&wire::failed(&["RPUSH"], error));
                answer
            }
            Err(_) => Answer::Unknown,
        };
        if answer == Answer::Acknowledged {
            self.connection = Some((node.clone(), connection));
        }
        (node.address().to_string(), answer)
    }

    async fn connect(
        &self,
        wanted: Option<Node>,
    ) -> Result<(Node, MultiplexedConnection), (Option<SocketAddr>, Error)> {
        let node = match wanted {
            Some(node) => node,
            None => self.shared.lookup.primary().await.map_err(|error| (None, error))?,
        };
        let connected: CoreResult<MultiplexedConnection> =
            async { wire::connect_within(&node.info()?, PATIENCE).await }.await;
        let at = node.address();
        connected.map(|connection| (node, connection)).map_err(|error| (Some(at), error))
    }
}

/// Appends an id to a list, and with `acks` waits until as many replicas have it. Too few is no refusal: it was written.
async fn send(
    connection: &mut MultiplexedConnection,
    key: &str,
    id: &str,
    acks: usize,
) -> Result<Answer, redis::RedisError> {
    let () = redis::cmd("RPUSH").arg(key).arg(id).query_async::<i64>(connection).await.map(drop)?;
    if acks == 0 {
        return Ok(Answer::Acknowledged);
    }
    let reached: Result<usize, _> =
        redis::cmd("WAIT").arg(acks).arg(PATIENCE.as_millis() as u64 / 2).query_async(connection).await;
    // Whatever WAIT says, the write happened here.
    Ok(if reached.is_ok_and(|reached| reached >= acks) { Answer::Acknowledged } else { Answer::Unknown })
}
