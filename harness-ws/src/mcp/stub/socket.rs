//! The stub over WebSocket: the handshake, turns, what becomes of an idle socket and of a second one of the same session.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt as _, StreamExt as _};
use harness_core::wait::pause;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::desk::Desk;
use super::{House, HttpTurn};
use crate::mcp::profile::{Idle, SecondSocket};

/// A session that several sockets may speak in.
pub(super) struct Shared {
    desk: Mutex<Desk>,
    /// How many sockets have joined: where the last one takes over, all others leave.
    joined: watch::Sender<u64>,
}

/// What is answered to an upgrade; a script may change it.
#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn upgrade(
    house: &House,
    request: &Request,
    mut response: Response,
    joins: &mut Option<Arc<Shared>>,
) -> Result<Response, ErrorResponse> {
    let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let names = |request: &Request| {
        let named = request.headers().iter().filter_map(|(name, value)| Some((name, value.to_str().ok()?)));
        named.map(|(name, value)| (name.as_str().to_owned(), value.to_owned())).collect()
    };
    let offered = header("sec-websocket-protocol");
    let agreed = offered.is_some_and(|offered| offered.split(',').any(|name| name.trim() == "mcp"));
    let headers = agreed.then(|| ("sec-websocket-protocol".to_owned(), "mcp".to_owned())).into_iter().collect();
    let mut status = house.refuses(header).unwrap_or(101);
    if let Some((name, rule)) = &house.script.second_socket
        && let Some(session) = header(name)
    {
        *joins = house.joinable.lock().unwrap_or_else(PoisonError::into_inner).get(&session).cloned();
        status = match (status, rule, joins.as_ref()) {
            (101, SecondSocket::Refused, _) => 409,
            (101, _, None) => 404,
            (status, ..) => status,
        };
    }
    let mut turn = HttpTurn {
        method: "GET".to_owned(),
        asked: names(request),
        text: String::new(),
        status,
        headers,
        body: String::new(),
    };
    if let Some(tamper) = &house.script.tamper_http {
        tamper(&mut turn);
    }
    if turn.status != 101 {
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::from_u16(turn.status).unwrap_or(StatusCode::FORBIDDEN);
        return Err(refusal);
    }
    for (name, value) in turn.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// The session of a socket, and the number of the socket in it.
fn join(house: &House, joins: Option<Arc<Shared>>) -> (Arc<Shared>, u64) {
    let shared = joins.unwrap_or_else(|| {
        let (joined, _) = watch::channel(0);
        let shared = Arc::new(Shared { desk: Mutex::new(house.open()), joined });
        if house.script.second_socket.is_some() {
            let session = shared.desk().session;
            let name = format!("session-{session}");
            house.joinable.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&shared));
        }
        shared
    });
    let mut number = 0;
    shared.joined.send_modify(|joined| {
        *joined += 1;
        number = *joined;
    });
    (shared, number)
}

impl Shared {
    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Comes when nothing was said for as long as the script allows; never if it allows everything.
async fn idle(idle: Option<Idle>) {
    match idle {
        Some(Idle::Pinged(after) | Idle::Closed(after)) => pause(after).await,
        None => std::future::pending().await,
    }
}

fn leaving(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

pub(super) async fn converse(socket: TcpStream, house: Arc<House>) {
    let mut everyone = house.everyone.subscribe();
    let mut joins = None;
    #[expect(clippy::result_large_err, reason = "the type is the library's")]
    let answer = |request: &Request, response: Response| upgrade(&house, request, response, &mut joins);
    let Ok(mut ws) = tokio_tungstenite::accept_hdr_async(socket, answer).await else { return };
    let (shared, number) = join(&house, joins);
    let mut joined = shared.joined.subscribe();
    let session = shared.desk().session;
    let mut to_say = house.opening(session);
    let mut leaves = false;
    let takes_over = house.script.second_socket.as_ref().is_some_and(|(_, rule)| *rule == SecondSocket::TakesOver);
    loop {
        for text in to_say.drain(..) {
            if ws.send(Message::text(text)).await.is_err() {
                return;
            }
        }
        if leaves {
            let _ = ws.close(None).await;
            return;
        }
        tokio::select! {
            biased;
            Ok(text) = everyone.recv() => to_say.push(text),
            Ok(()) = joined.changed(), if takes_over => {
                if *joined.borrow() > number {
                    let _ = ws.close(Some(leaving(CloseCode::Policy, "another socket took over"))).await;
                }
            }
            message = ws.next() => match message {
                Some(Ok(Message::Text(text))) if text.len() > house.script.largest_message => {
                    let _ = ws.close(Some(leaving(CloseCode::Size, "too large"))).await;
                }
                Some(Ok(Message::Text(text))) => (to_say, leaves) = house.turn(&mut shared.desk(), &text),
                None | Some(Err(_)) => return,
                Some(Ok(_)) => {} // a close frame is answered by the next look at the socket, which then ends
            },
            () = idle(house.script.idle) => match house.script.idle {
                Some(Idle::Closed(_)) => _ = ws.close(Some(leaving(CloseCode::Away, "idle"))).await,
                _ => if ws.send(Message::Ping(Vec::new().into())).await.is_err() { return },
            },
        }
    }
}
