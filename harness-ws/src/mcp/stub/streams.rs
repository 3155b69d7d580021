//! Streams of events of one session over HTTP: they outlive their connection, and who comes again is told what it missed.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Tamper;

/// An event as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StubEvent {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data; empty in the event that only tells an id.
    pub data: String,
    /// How many milliseconds the client is to wait before it comes again.
    pub retry_ms: Option<u64>,
}

/// Events that are about to be written on one connection; a script may change them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventTurn {
    /// The body of the request whose stream it is.
    pub request: String,
    /// The `Last-Event-ID` that the client came again with; `None` on the first connection.
    pub resumed: Option<String>,
    /// The events, in order. What is taken out here is said to who comes again.
    pub events: Vec<StubEvent>,
    /// Whether the connection is then broken off, as a network does it.
    pub breaks: bool,
}

/// All streams of a session.
pub(super) struct Streams {
    list: Mutex<Vec<Stream>>,
    /// Something was said, or a stream is over.
    news: watch::Sender<()>,
}

struct Stream {
    request: String,
    id: Value,
    said: Vec<String>,
    over: bool,
}

impl Stream {
    fn is_answered_by(&self, reply: &Value) -> bool {
        reply.get("method").is_none() && reply.get("id") == Some(&self.id)
    }
}

/// A place in a stream: its number, and how many of its events were heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    stream: usize,
    heard: usize,
}

impl Place {
    fn id(self) -> String {
        format!("{}-{}", self.stream, self.heard)
    }
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { list: Mutex::default(), news: watch::Sender::new(()) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Stream>) -> T) -> T {
        act(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A stream for a request with what is said to it at once; what is said to others goes to their streams.
    pub(super) fn open(&self, request: &str, id: Value, primes: bool, said: Vec<String>) -> Place {
        let mut own = Stream { request: request.to_owned(), id, said: Vec::new(), over: false };
        if primes {
            own.said.push(String::new());
        }
        let stream = self.with(|list| {
            let (mut replies, mut others) = (Vec::new(), Vec::new());
            for text in said {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                match (own.is_answered_by(&message), message.get("method")) {
                    (true, _) => replies.push(text),
                    (false, Some(_)) => others.push(text),
                    (false, None) => {
                        if let Some(waits) =
                            list.iter_mut().find(|stream| !stream.over && stream.is_answered_by(&message))
                        {
                            waits.said.push(text);
                            waits.over = true;
                        }
                    }
                }
            }
            own.over = !replies.is_empty();
            own.said.extend(others.into_iter().chain(replies));
            list.push(own);
            list.len() - 1
        });
        self.news.send_replace(());
        Place { stream, heard: 0 }
    }

    /// Where the event of this id stands, if it was given.
    pub(super) fn find(&self, id: &str) -> Option<Place> {
        let (stream, heard) = id.split_once('-')?;
        let place = Place { stream: stream.parse().ok()?, heard: heard.parse().ok()? };
        let given = self.with(|list| list.get(place.stream).is_some_and(|stream| place.heard <= stream.said.len()));
        (given && place.heard > 0).then_some(place)
    }

    /// The request of a stream, what was said in it from a place on, and whether that is all.
    fn from(&self, place: Place) -> (String, Vec<String>, bool) {
        self.with(|list| match list.get(place.stream) {
            Some(stream) => (stream.request.clone(), stream.said.split_at(place.heard).1.to_vec(), stream.over),
            None => (String::new(), Vec::new(), true),
        })
    }

    /// Writes what is said from a place on until the reply is written or the client is gone.
    pub(super) async fn serve(
        &self,
        mut socket: TcpStream,
        mut place: Place,
        ids: bool,
        resumed: Option<String>,
        tamper: Option<&Tamper<EventTurn>>,
    ) {
        let mut news = self.news.subscribe();
        let mut nothing = [0; 1];
        loop {
            let (request, said, over) = self.from(place);
            let mut events = Vec::new();
            for data in said {
                place.heard += 1;
                events.push(StubEvent { id: ids.then(|| place.id()), data, retry_ms: None });
            }
            if !events.is_empty() {
                let mut turn = EventTurn { request, resumed: resumed.clone(), events, breaks: false };
                if let Some(tamper) = tamper {
                    tamper(&mut turn);
                }
                for event in &turn.events {
                    if write(&mut socket, event).await.is_err() {
                        return;
                    }
                }
                if turn.breaks {
                    return;
                }
            }
            if over {
                let _ = socket.shutdown().await;
                return;
            }
            tokio::select! {
                gone = socket.read(&mut nothing) => if matches!(gone, Ok(0) | Err(_)) { return },
                changed = news.changed() => if changed.is_err() { return },
            }
        }
    }
}

async fn write(socket: &mut TcpStream, event: &StubEvent) -> std::io::Result<()> {
    let id = event.id.iter().map(|id| format!("id: {id}\n"));
    let retry = event.retry_ms.iter().map(|ms| format!("retry: {ms}\n"));
    let lines: String = id.chain(retry).collect();
    socket.write_all(format!("event: message\n{lines}data: {}\n\n", event.data).as_bytes()).await
}
