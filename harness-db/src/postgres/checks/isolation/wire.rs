//! A session whose statements are held on the wire: the user's code runs as it is, over a tap that lets one statement
//! through at a time.
//!
//! One step is what the client sends up to the first statement that can matter to others, with its answer: a `Query`, or an
//! extended batch with an `Execute`. What only prepares (`Parse`, `Describe`, a lone `Sync`) and what only opens (`BEGIN`,
//! `SET`, `SHOW`) goes with the statement that follows, since it sees and changes nothing that others could notice.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use harness_core::CoreResult;
use sqlx::postgres::PgConnectOptions;

use super::stage::{Event, Events};
use super::trace::Answer;
use crate::postgres::frames::{Frame, Gate, Kind, Side, Tap, Verdict, columns};

/// What the wire knows of a session's current attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The last serialization failure or deadlock among its answers.
    pub(super) failure: Option<String>,
    /// A digest of all rows that came.
    pub(super) rows: u64,
}

/// Where a session's stepper writes what it hears, and its event channel, which changes with every run.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub(super) heard: Heard,
    events: Option<(usize, Events)>,
    connections: HashMap<u64, Connection>,
    /// The connections whose frames wait, in the order of their gates; the first one owns the step that runs.
    waiting: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Connection {
    is_ready: bool,
    /// The extended batch that is being sent.
    batch: Option<Batch>,
    /// Batches that wait for their `ReadyForQuery`.
    flying: VecDeque<Batch>,
    prepared: HashMap<String, Prepared>,
    /// What the step has said and heard so far.
    texts: Vec<String>,
    rows: Vec<String>,
    tag: String,
    error: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct Batch {
    matters: bool,
    failed: bool,
    /// The statement whose description comes back.
    describes: Option<String>,
    /// The statement that is run; none of the simple protocol, whose values are texts.
    runs: Option<String>,
    is_binary: bool,
}

#[derive(Debug, Default)]
struct Prepared {
    text: String,
    types: Vec<u32>,
}

pub(super) type Shared = Arc<Mutex<Ear>>;

pub(super) fn listen(ear: &Shared, listener: impl FnOnce(&mut Ear)) {
    listener(&mut ear.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A tap whose frames obey this ear.
pub(super) async fn tap(target: &PgConnectOptions, ear: Shared) -> CoreResult<Tap> {
    Tap::start(target, move |frame| ear.lock().unwrap_or_else(PoisonError::into_inner).hear(frame)).await
}

impl Ear {
    /// Begins a run: everything is forgotten.
    pub(super) fn begin(&mut self, session: usize, events: Events) {
        *self = Self { events: Some((session, events)), ..Self::default() };
    }

    /// Begins another attempt of the same run.
    pub(super) fn again(&mut self) {
        let events = self.events.take();
        *self = Self { events, ..Self::default() };
    }

    fn tell(&self, event: Event) {
        if let Some((session, events)) = &self.events {
            // Nobody listens any more when a run was given up.
            let _ = events.send((*session, event));
        }
    }

    fn hear(&mut self, frame: &Frame) -> Verdict {
        match frame.side() {
            Side::Server => {
                self.hear_server(frame);
                Verdict::Pass
            }
            Side::Client => self.hear_client(frame),
        }
    }

    fn hear_client(&mut self, frame: &Frame) -> Verdict {
        let id = frame.connection();
        let connection = self.connections.entry(id).or_default();
        if !connection.is_ready || matches!(frame.kind(), Kind::CopyData | Kind::CopyDone | Kind::CopyFail) {
            return Verdict::Pass;
        }
        if frame.kind() == Kind::Terminate {
            if self.waiting.front() == Some(&id) && connection.flying.is_empty() {
                self.finish(id); // a step that only opened
            }
            return Verdict::Pass;
        }
        let begins = connection.batch.is_none();
        let is_busy = connection.flying.iter().any(|batch| batch.matters);
        connection.note(frame);
        let text = connection.texts.join("; ");
        self.tell(Event::Began(text));
        if !begins || (self.waiting.front() == Some(&id) && !is_busy) {
            return Verdict::Pass;
        }
        let gate = Gate::new();
        self.waiting.push_back(id);
        self.tell(Event::AtGate(gate.clone()));
        Verdict::Hold(gate)
    }

    fn hear_server(&mut self, frame: &Frame) {
        let id = frame.connection();
        let connection = self.connections.entry(id).or_default();
        match frame.kind() {
            Kind::BackendKeyData => {
                if let Some(pid) = frame.pid() {
                    self.tell(Event::Connected(pid));
                }
            }
            Kind::RowDescription => connection.describe(frame),
            Kind::DataRow => {
                let row = connection.row(frame);
                connection.rows.push(row);
                let mut digest = DefaultHasher::new();
                digest.write_u64(self.heard.rows);
                digest.write(frame.body());
                self.heard.rows = digest.finish();
            }
            Kind::CommandComplete => {
                connection.tag = frame.command_tag().unwrap_or_default().to_owned();
            }
            Kind::Error => {
                let code = frame.sqlstate().unwrap_or_default().to_owned();
                // Noted before the client can see it, since the client may act on it before the answer is complete.
                if is_serialization_failure(&code) {
                    self.heard.failure = Some(code.clone());
                }
                connection.error = Some((code, frame.message().unwrap_or_default().to_owned()));
                if let Some(batch) = connection.flying.front_mut().or(connection.batch.as_mut()) {
                    batch.failed = true;
                }
            }
            Kind::ReadyForQuery if !connection.is_ready => connection.is_ready = true,
            Kind::ReadyForQuery => {
                let answered = connection.flying.pop_front();
                if answered.is_some_and(|batch| batch.matters || batch.failed) {
                    self.finish(id);
                }
            }
            _ => {}
        }
    }

    /// The step of this connection has its answer.
    fn finish(&mut self, id: u64) {
        if self.waiting.front() == Some(&id) {
            self.waiting.pop_front();
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let texts = std::mem::take(&mut connection.texts).join("; ");
        let (rows, tag) = (std::mem::take(&mut connection.rows), std::mem::take(&mut connection.tag));
        let answer = match connection.error.take() {
            Some((code, message)) => Answer::Failed { code, message },
            None => Answer::Done { tag, rows },
        };
        self.tell(Event::Began(texts));
        self.tell(Event::Done(answer));
    }
}

impl Connection {
    /// Writes down what a frame of the client adds to its batch.
    fn note(&mut self, frame: &Frame) {
        if frame.kind() == Kind::Query {
            let text = frame.sql().unwrap_or_default().to_owned();
            let matters = !only_opens(&text);
            self.texts.push(text);
            self.flying.push_back(Batch { matters, ..Batch::default() });
            return;
        }
        let batch = self.batch.get_or_insert_default();
        match frame.kind() {
            Kind::Parse => {
                let (name, text) = (frame.statement().unwrap_or_default(), frame.sql().unwrap_or_default());
                batch.describes = Some(name.to_owned());
                if self.texts.last().is_none_or(|last| last != text) {
                    self.texts.push(text.to_owned());
                }
                self.prepared.insert(name.to_owned(), Prepared { text: text.to_owned(), types: Vec::new() });
            }
            Kind::Bind => {
                batch.runs = frame.statement().map(str::to_owned);
                batch.is_binary = wants_binary(frame);
            }
            Kind::Execute => {
                let text = batch.runs.as_ref().and_then(|name| self.prepared.get(name)).map(|it| it.text.clone());
                let text = text.unwrap_or_default();
                batch.matters |= !only_opens(&text);
                if self.texts.last() != Some(&text) {
                    self.texts.push(text);
                }
            }
            Kind::FunctionCall => batch.matters = true,
            Kind::Sync => {}
            _ => return,
        }
        if matches!(frame.kind(), Kind::Sync | Kind::FunctionCall) {
            self.flying.extend(self.batch.take());
        }
    }

    /// The types of the columns that a statement returns.
    fn describe(&mut self, frame: &Frame) {
        let described = self.flying.front().and_then(|batch| batch.describes.clone().or_else(|| batch.runs.clone()));
        let Some(prepared) = described.and_then(|name| self.prepared.get_mut(&name)) else { return };
        let mut rest = frame.body().get(2..).unwrap_or_default();
        prepared.types.clear();
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            // After the name: table (4 bytes), column (2), type (4), size (2), modifier (4), format (2).
            let Some(field) = rest.get(end + 1..end + 19) else { break };
            prepared.types.push(u32::from_be_bytes([field[6], field[7], field[8], field[9]]));
            rest = &rest[end + 19..];
        }
    }

    fn row(&self, frame: &Frame) -> String {
        let batch = self.flying.front().or(self.batch.as_ref()).filter(|batch| batch.is_binary);
        let types = batch.and_then(|batch| batch.runs.as_ref()).and_then(|name| self.prepared.get(name));
        let value = |(at, value): (usize, Option<&[u8]>)| match value {
            None => "NULL".to_owned(),
            Some(bytes) => shown(bytes, types.and_then(|it| it.types.get(at)).copied()),
        };
        columns(frame).into_iter().enumerate().map(value).collect::<Vec<_>>().join(", ")
    }
}

/// True when a `Bind` asks for results in binary (all columns, or the first).
fn wants_binary(bind: &Frame) -> bool {
    let rest = bind.body();
    let Some(portal) = rest.iter().position(|byte| *byte == 0) else { return false };
    let rest = &rest[portal + 1..];
    let Some(name) = rest.iter().position(|byte| *byte == 0) else { return false };
    let result_format = || {
        let mut rest = &rest[name + 1..];
        let (formats, after) = take16(rest)?;
        rest = after.get(usize::from(formats) * 2..)?;
        let (values, after) = take16(rest)?;
        rest = after;
        for _ in 0..values {
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after.get(usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default()..)?;
        }
        let (results, after) = take16(rest)?;
        (results > 0).then(|| take16(after)).flatten().map(|(format, _)| format == 1)
    };
    result_format().unwrap_or(false)
}

fn take16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    bytes.split_first_chunk::<2>().map(|(number, rest)| (u16::from_be_bytes(*number), rest))
}

/// A value for people: numbers, booleans and texts are read, of others the bytes are shown.
fn shown(bytes: &[u8], binary_type: Option<u32>) -> String {
    // Object ids of the catalog `pg_type`: bool 16, int8 20, int2 21, int4 23, oid 26, float4 700, float8 701.
    let number = match (binary_type, bytes) {
        (Some(16), [flag]) => Some(if *flag == 0 { "f".to_owned() } else { "t".to_owned() }),
        (Some(20), _) => bytes.first_chunk().map(|b| i64::from_be_bytes(*b).to_string()),
        (Some(21), _) => bytes.first_chunk().map(|b| i16::from_be_bytes(*b).to_string()),
        (Some(23), _) => bytes.first_chunk().map(|b| i32::from_be_bytes(*b).to_string()),
        (Some(26), _) => bytes.first_chunk().map(|b| u32::from_be_bytes(*b).to_string()),
        (Some(700), _) => bytes.first_chunk().map(|b| f32::from_be_bytes(*b).to_string()),
        (Some(701), _) => bytes.first_chunk().map(|b| f64::from_be_bytes(*b).to_string()),
        _ => None,
    };
    let text = || std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control)).map(str::to_owned);
    let hex = || bytes.iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"));
    number.or_else(text).unwrap_or_else(hex)
}

/// True for the SQLSTATEs after which a transaction is to be run again: could not serialize, deadlock.
pub(super) fn is_serialization_failure(code: &str) -> bool {
    matches!(code, "40001" | "40P01")
}

/// True for a statement that sees and changes nothing which other sessions could notice.
pub(super) fn only_opens(sql: &str) -> bool {
    let sql = sql.trim().trim_end_matches(';').to_ascii_lowercase();
    let mut words = sql.split_whitespace();
    let opens = match words.next() {
        None | Some("begin" | "start" | "show") => true,
        Some("set") => words.next() != Some("constraints"),
        _ => false,
    };
    opens && !sql.contains(';')
}

#[cfg(test)]
mod tests {
    use super::{only_opens, shown};

    #[test]
    fn only_what_nobody_notices_goes_along() {
        for sql in
            ["BEGIN", "begin isolation level serializable;", "start transaction", "set local x = 1", "", "show x"]
        {
            assert!(only_opens(sql), "{sql}");
        }
        for sql in ["select 1", "begin; update t set n = 1", "set constraints all immediate", "commit", "savepoint a"] {
            assert!(!only_opens(sql), "{sql}");
        }
    }

    #[test]
    fn values_are_shown_for_people() {
        assert_eq!(shown(&100_i32.to_be_bytes(), Some(23)), "100");
        assert_eq!(shown(&(-1_i64).to_be_bytes(), Some(20)), "-1");
        assert_eq!(shown(b"100", None), "100");
        assert_eq!(shown(&[0, 255], Some(17)), "\\x00ff");
        assert_eq!(shown(&[1], Some(16)), "t");
    }
}
