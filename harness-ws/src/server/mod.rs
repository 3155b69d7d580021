//! Servers to test clients against: one that echoes and is strict, one that plays a script, one that does what no decent
//! server does.
//!
//! ```
//! # async fn example() -> harness_ws::Result {
//! use harness_ws::server::{Act, MockServer};
//! use harness_ws::{Script, Ws, capture, kept};
//! use serde_json::json;
//!
//! let script = Script::new()
//!     .send(json!({"method": "welcome", "params": {"session_id": "s-1"}}))
//!     .expect(json!({"id": capture::any(), "method": "ping"}))
//!     .send(json!({"id": kept("/id"), "result": {}}));
//! let server = MockServer::start(Act::Play(script)).await?;
//! let mut client = Ws::connect(server.url()).await?; // the client under test
//! client.request("ping", json!(null)).await?.result()?;
//! client.close().await?;
//! server.check(1).await?; // one connection came, and kept to the script
//! # Ok(())
//! # }
//! ```

mod echo;
mod handshake;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use harness_core::wait::{Progress, wait_for};
use harness_core::{CoreResult, Error, ErrorKind};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::script::Script;
use crate::ws::codec::{Decoder, Role as Side};
use crate::ws::connect::{Connect, read_head};
use crate::ws::socket::Socket;
use crate::ws::{Fault, Transcript, Wire};

/// How long a client may take for its handshake, and for closing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server does with each connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Act {
    /// Echoes every message, strictly by RFC 6455.
    Echo,
    /// Plays a script, the server's side of it.
    Play(Script),
    /// Does these one after the other once the connection is open, then echoes.
    Misbehave(Vec<Fault>),
    /// Takes the request and never answers it.
    NeverAnswer,
    /// Answers the request with these octets and ends TCP.
    Answer(Vec<u8>),
}

/// A server on a free port of 127.0.0.1; it ends when it is dropped.
#[must_use = "the server ends when this is dropped"]
pub struct MockServer {
    url: String,
    accepting: JoinHandle<()>,
    ended: Arc<Mutex<Vec<Result<(), String>>>>,
}

impl fmt::Debug for MockServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl MockServer {
    /// Starts a server that does this with every connection.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when no port can be had.
    pub async fn start(act: Act) -> CoreResult<Self> {
        let no_port = |error: io::Error| Error::new(ErrorKind::Io, "no port for a mock server").caused_by(error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?;
        Self::on(listener, act)
    }

    /// As [`MockServer::start`], on a listener of the caller.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the listener has no address.
    pub fn on(listener: TcpListener, act: Act) -> CoreResult<Self> {
        let address = listener.local_addr().map_err(|error| {
            Error::new(ErrorKind::Io, "the listener of a mock server has no address").caused_by(error)
        })?;
        let ended = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&ended);
        let accept = async move {
            let act = Arc::new(act);
            let mut connections = JoinSet::new();
            loop {
                // A process without descriptors gets some back when connections end.
                let Ok((socket, _)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let _ = socket.set_nodelay(true);
                let (act, noted) = (Arc::clone(&act), Arc::clone(&noted));
                connections.spawn(async move {
                    let is_told = !matches!(*act, Act::Echo);
                    let result = perform(&act, socket).await.map_err(|error| format!("{error:?}"));
                    if is_told || result.is_err() {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        };
        Ok(Self { url: format!("ws://{address}/"), accepting: tokio::spawn(accept), ended })
    }

    /// Where it listens: `ws://127.0.0.1:port/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until so many connections have ended, and checks that each was played to its end.
    ///
    /// # Errors
    /// [`ErrorKind::Assertion`] with what the first connection did that is not in the script; [`ErrorKind::Timeout`]
    /// when fewer ended within 10 s.
    pub async fn check(&self, connections: usize) -> CoreResult {
        let ended = || self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(format!("{connections} connections of the mock server to end"), PATIENCE, async || {
            match ended().len() {
                enough if enough >= connections => Progress::Ready(()),
                few => Progress::NotYet(format!("{few} ended")),
            }
        })
        .await?;
        match ended().iter().find_map(|result| result.as_ref().err()) {
            None => Ok(()),
            Some(why) => Err(Error::new(ErrorKind::Assertion, "a client did not keep to the script").tried(why)),
        }
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn perform(act: &Act, mut socket: TcpStream) -> CoreResult {
    let broken =
        |error: io::Error| Error::new(ErrorKind::Connect, "the handshake of a client broke off").caused_by(error);
    let limited = |what: &'static str| Error::new(ErrorKind::Timeout, what);
    if matches!(act, Act::NeverAnswer | Act::Answer(_)) {
        let _ = tokio::time::timeout(PATIENCE, read_head(&mut socket)).await;
        if let Act::Answer(bytes) = act {
            let _ = socket.write_all(bytes).await;
            return Ok(());
        }
        // Until the client gives up.
        let _ = tokio::time::timeout(PATIENCE, read_head(&mut socket)).await;
        return Ok(());
    }
    let shaken = tokio::time::timeout(PATIENCE, handshake::accept(&mut socket)).await;
    let shaken = shaken.map_err(|_| limited("a client did not finish its handshake"))?.map_err(broken)?;
    let Some(rest) = shaken else { return Ok(()) };
    match act {
        Act::Play(script) => {
            let stream = WebSocketStream::from_partially_read(Socket::Plain(socket), rest, Role::Server, None).await;
            let mut ws = Connect::new("ws://client").over(stream, "a client of the mock server".to_owned());
            script.play(&mut ws).await?;
            // Whoever closes first, the other frame is waited for.
            let _ = ws.close().await;
            Ok(())
        }
        Act::Misbehave(faults) => {
            let decoder = Decoder::new(Side::Server);
            let (told, transcript) = ("a client of the mock server".to_owned(), Transcript::new(64));
            let mut wire = Wire::new(Socket::Plain(socket), rest, Side::Server, decoder, told, PATIENCE, transcript);
            for fault in faults {
                // A client that has gone is what some faults are meant to bring about.
                if wire.fault(fault.clone()).await.is_err() {
                    return Ok(());
                }
            }
            echo::over_wire(&mut wire).await;
            Ok(())
        }
        _ => {
            echo::serve(socket, rest).await;
            Ok(())
        }
    }
}
