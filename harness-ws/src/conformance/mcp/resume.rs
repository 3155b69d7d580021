//! Streamable HTTP with sessions: streams that break off and are taken up again by the id of their last event.

use std::time::{Duration, Instant};

use harness_core::ErrorKind;
use harness_core::client::{Call, Streamed};
use harness_core::wait::{pause, seconds, within};
use serde_json::{Value, json};

use super::transport::{over_http, post};
use super::{Cx, Judged, Miss, Need, broken, checks, text_of};
use crate::events::{SseEvent, SseReader};
use crate::jsonrpc::is_reply;
use crate::mcp::{Role, Version, brief};

checks! {
    "T19" Sessions Must "basic/transports#resumability-and-redelivery" "HTTP: an id of an event is given once in a session" Greeted Need::Roles(&[Role::Echo]) => ids_unique;
    "T20" Sessions Should "basic/transports#resumability-and-redelivery" "HTTP: what came after an event comes again, all of it, once, in order" Greeted Need::Roles(&[Role::Progress]) => nothing_lost;
    "T21" Sessions Must "basic/transports#resumability-and-redelivery" "HTTP: a stream that broke off is taken up with its reply, and with nothing of another stream" Greeted Need::Roles(&[Role::Hold, Role::Release]) => own_stream;
    "T22" Sessions Should "basic/transports#sending-messages-to-the-server" "HTTP: a stream begins with an event that has an id and no data" Greeted Need::Roles(&[Role::Echo]) => primed;
    "T23" Sessions Should "basic/transports#sending-messages-to-the-server" "HTTP: a connection that is lost cancels nothing" Greeted Need::Roles(&[Role::Hold, Role::Release]) => not_cancelled;
}

/// One connection of a stream of events.
struct Stream {
    answer: Streamed,
    reader: SseReader,
    events: Vec<SseEvent>,
}

impl Stream {
    /// The stream of a request under an id of its own, in the session of the check.
    async fn begin(cx: &Cx, id: &str, role: Role, key: &str) -> Result<Self, Miss> {
        let (http, path) = over_http(cx)?;
        let mut call = cx.profile.role(role, key, "said");
        call.params["_meta"] = json!({"progressToken": id});
        let message = call.request(id);
        Self::open(cx, post(&http, &path, cx.a.session_id().as_deref(), &message))
            .await?
            .ok_or_else(|| Miss::Elsewhere("a request is not answered by a stream of events".to_owned()))
    }

    /// The rest of a stream, for who heard the event of this id last.
    async fn resume(cx: &Cx, id: &str) -> Result<Self, Miss> {
        let (http, path) = over_http(cx)?;
        let call = http.get(&path).header("accept", "text/event-stream").header("last-event-id", id);
        let call = match cx.a.session_id() {
            Some(session) => call.header("mcp-session-id", session),
            None => call,
        };
        let refused = || Miss::Elsewhere("the server gives event ids and takes up no stream by them".to_owned());
        Self::open(cx, call).await?.ok_or_else(refused)
    }

    async fn open(cx: &Cx, call: Call) -> Result<Option<Self>, Miss> {
        let version = cx.profile.version();
        let call =
            if version >= Version::V2025_06_18 { call.header("mcp-protocol-version", version.text()) } else { call };
        let answer = match call.stream().await {
            Ok(answer) => answer,
            // Who answers when the work is done, and begins no stream before it, has none to take up.
            Err(error) if error.kind() == ErrorKind::Timeout => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let streams = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        let is_stream = answer.status() == 200 && streams;
        Ok(is_stream.then(|| Self { answer, reader: SseReader::default(), events: Vec::new() }))
    }

    /// Reads until an event fits, the stream ends, or the limit is over; true when one fitted.
    async fn read(&mut self, limit: Duration, fits: impl Fn(&SseEvent) -> bool) -> Result<bool, Miss> {
        let deadline = Instant::now() + limit;
        loop {
            if self.events.iter().any(&fits) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match within("an event", left, self.answer.chunk()).await {
                Ok(Ok(Some(chunk))) => self.events.extend(self.reader.push(&chunk)),
                Ok(Ok(None)) => return Ok(false),
                Ok(Err(error)) => return Err(error.into()),
                Err(error) if error.kind() == ErrorKind::Timeout => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// All of it, to the reply and to the end if that comes at once.
    async fn read_all(&mut self, cx: &Cx) -> Result<(), Miss> {
        if self.read(cx.limit, answers).await? {
            self.read(cx.limit, |_| false).await?;
        }
        Ok(())
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| event.id.as_deref())
    }
}

fn message(event: &SseEvent) -> Value {
    serde_json::from_str(&event.data).unwrap_or_default()
}

fn answers(event: &SseEvent) -> bool {
    let message = message(event);
    message.is_object() && is_reply(&message)
}

fn without_ids() -> Miss {
    Miss::Elsewhere("the server gives no event ids".to_owned())
}

async fn ids_unique(cx: &mut Cx) -> Judged {
    const STREAMS: usize = 5;
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..STREAMS {
        let mut stream = Stream::begin(cx, &format!("unique-{n}"), Role::Echo, "").await?;
        stream.read_all(cx).await?;
        if let Some(twice) = stream.ids().find(|id| !seen.insert((*id).to_owned())) {
            broken!("the id {twice:?} was given a second time");
        }
    }
    match seen.len() {
        0 => Err(without_ids()),
        ids => Ok(format!("{ids} ids of {STREAMS} streams")),
    }
}

async fn nothing_lost(cx: &mut Cx) -> Judged {
    let mut first = Stream::begin(cx, "nothing-lost", Role::Progress, "").await?;
    first.read_all(cx).await?;
    let known: Vec<_> = first.events.iter().filter(|event| event.id.is_some()).collect();
    let Some((heard, due)) = known.split_first().filter(|(_, due)| !due.is_empty()) else { return Err(without_ids()) };
    let mut again = Stream::resume(cx, heard.id.as_deref().unwrap_or_default()).await?;
    again.read_all(cx).await?;
    // Another server may tell anew what it told without data: only messages are counted.
    let told = |events: &[&SseEvent]| -> Vec<String> {
        let told = events.iter().filter(|event| !event.data.is_empty());
        told.map(|event| format!("{} {}", event.id.as_deref().unwrap_or("-"), event.data)).collect()
    };
    let (due, came) = (told(due), told(&again.events.iter().collect::<Vec<_>>()));
    match due == came {
        true => Ok(format!("{} events", due.len())),
        false => broken!("after {:?} came {came:?} in place of {due:?}", heard.id.as_deref().unwrap_or_default()),
    }
}

/// Two held calls whose streams are broken off, and the id that each is taken up by.
async fn broken_off(cx: &mut Cx, ids: [&str; 2]) -> Result<Vec<String>, Miss> {
    let mut cursors = Vec::new();
    let mut streams = Vec::new();
    for id in ids {
        let mut stream = Stream::begin(cx, id, Role::Hold, id).await?;
        // Before its reply there is something to take it up by, or nothing.
        stream.read(cx.limit / 4, |event| event.id.is_some()).await?;
        cursors.extend(stream.ids().last().map(str::to_owned));
        streams.push(stream);
    }
    drop(streams);
    match cursors.len() {
        2 => Ok(cursors),
        _ => Err(Miss::Elsewhere("no event id comes before a reply: there is nothing to take it up by".to_owned())),
    }
}

async fn own_stream(cx: &mut Cx) -> Judged {
    const IDS: [&str; 2] = ["own-stream-1", "own-stream-2"];
    let cursors = broken_off(cx, IDS).await?;
    for id in IDS {
        cx.play(Role::Release, id, "").await?;
    }
    for (id, cursor) in IDS.iter().zip(&cursors) {
        let mut stream = Stream::resume(cx, cursor).await?;
        stream.read_all(cx).await?;
        let replies: Vec<Value> = stream.events.iter().map(message).filter(|said| said.get("id").is_some()).collect();
        match &replies[..] {
            [reply] if reply["id"] == *id => {}
            [] => broken!("the reply to {id} did not come after {cursor:?}"),
            _ => broken!("after {cursor:?} of {id} came {}", brief(&Value::Array(replies))),
        }
    }
    Ok("2 streams".to_owned())
}

async fn primed(cx: &mut Cx) -> Judged {
    if cx.profile.version() < Version::V2025_11_25 {
        return Err(Miss::Elsewhere("this version does not say how a stream begins".to_owned()));
    }
    let mut stream = Stream::begin(cx, "primed", Role::Echo, "").await?;
    stream.read_all(cx).await?;
    if stream.ids().next().is_none() {
        return Err(without_ids());
    }
    match stream.events.first() {
        Some(first) if first.id.is_some() && first.data.is_empty() => Ok("1 stream".to_owned()),
        first => broken!("a stream begins with {first:?}"),
    }
}

/// The server sees the end of a connection when it looks there: it gets more and more time for it.
async fn not_cancelled(cx: &mut Cx) -> Judged {
    for patience in [10, 30, 90].map(Duration::from_millis) {
        let key = format!("lost-{}", patience.as_millis());
        drop(Stream::begin(cx, &key, Role::Hold, &key).await?);
        pause(patience).await;
        let finished = text_of(&cx.play(Role::Release, &key, "").await?);
        if finished.trim() == "0" {
            broken!("{} after its connection was lost the request was given up", seconds(patience));
        }
    }
    Ok("3 connections".to_owned())
}
