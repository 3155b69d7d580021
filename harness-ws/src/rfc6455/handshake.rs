//! The opening handshake, by requests that are right, odd or wrong (RFC 6455, section 4). Autobahn has no such cases.

use std::time::{Duration, Instant};

use harness_core::wait::{pause, seconds};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout_at;

use super::{CaseReport, Ending, Verdict};
use crate::ws::Connect;
use crate::ws::codec::{Decoder, Frame, Heard, Role};
use crate::ws::connect::{Answer, read_head};
use crate::ws::socket::Socket;

/// The key of every request that has a good one (section 1.3 has its answer).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request of which each part can be wrong.
#[derive(Clone)]
struct Request {
    method: &'static str,
    version: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    tail: Vec<u8>,
    trickle: Option<Duration>,
}

impl Request {
    fn new(path: &str, authority: &str, own: &[(String, String)]) -> Self {
        let mut headers: Vec<(String, String)> = [
            ("Host", authority),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        headers.extend_from_slice(own);
        Self { method: "GET", version: "HTTP/1.1", path: path.to_owned(), headers, tail: Vec::new(), trickle: None }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.drop(name);
        self.add(name, value);
    }

    fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    fn drop(&mut self, name: &str) {
        self.headers.retain(|(there, _)| !there.eq_ignore_ascii_case(name));
    }

    fn key(&self) -> &str {
        self.headers.iter().find(|(name, _)| name == "Sec-WebSocket-Key").map_or("", |(_, value)| value)
    }

    fn octets(&self) -> Vec<u8> {
        let mut text = format!("{} {} {}\r\n", self.method, self.path, self.version);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.tail].concat()
    }
}

/// What a server has to make of a request.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// 101, with everything section 4.2.2 demands and nothing that was not offered.
    Opens,
    /// As [`Wanted::Opens`], and the frame behind the request is echoed.
    OpensAndEchoes,
    /// An HTTP error. Dropping TCP is tolerated.
    Refuses,
    /// 426 with the versions it speaks. Another error is tolerated.
    RefusesVersion,
    /// Anything but silence.
    Answers,
}

/// A check: what is different about the request, and what has to come.
pub(super) struct Attempt {
    pub(super) id: &'static str,
    pub(super) section: &'static str,
    pub(super) what: &'static str,
    change: fn(&mut Request),
    wanted: Wanted,
}

const fn attempt(
    id: &'static str,
    section: &'static str,
    what: &'static str,
    wanted: Wanted,
    change: fn(&mut Request),
) -> Attempt {
    Attempt { id, section, what, change, wanted }
}

pub(super) static ATTEMPTS: &[Attempt] = &[
    attempt(
        "H1",
        "4.2.2",
        "a proper request opens, its key answered and nothing agreed to that was not offered",
        Wanted::Opens,
        |_| {},
    ),
    attempt("H2", "4.2.2", "another key has another answer", Wanted::Opens, |request| {
        request.set("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==");
    }),
    attempt("H3", "4.2.1", "`Upgrade: WebSocket` and `Connection: upgrade` open", Wanted::Opens, |request| {
        request.set("Upgrade", "WebSocket");
        request.set("Connection", "upgrade");
    }),
    attempt("H4", "4.2.1", "`Connection: keep-alive, Upgrade` opens", Wanted::Opens, |request| {
        request.set("Connection", "keep-alive, Upgrade");
    }),
    attempt("H5", "4.2.1", "names of headers in lower case open", Wanted::Opens, |request| {
        let key = request.key().to_owned();
        for name in ["sec-websocket-version", "upgrade", "connection"] {
            let value = request
                .headers
                .iter()
                .find(|(there, _)| there.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.clone());
            request.set(name, &value.unwrap_or_default());
        }
        request.set("Sec-WebSocket-Key", &key);
    }),
    attempt("H6", "4.2.2", "an unknown subprotocol is not agreed to", Wanted::Opens, |request| {
        request.add("Sec-WebSocket-Protocol", "x-nobody-speaks-this");
    }),
    attempt("H7", "9.1", "an unknown extension is not agreed to", Wanted::Opens, |request| {
        request.add("Sec-WebSocket-Extensions", "x-nobody-knows-this");
    }),
    attempt("H8", "4.1", "a frame in the same segment as the request is echoed", Wanted::OpensAndEchoes, |request| {
        request.tail = Frame::text("early").masked([4, 3, 2, 1]).encoded();
    }),
    attempt("H9", "4.2.1", "a request in pieces of eight octets opens", Wanted::Opens, |request| {
        request.trickle = Some(Duration::from_millis(1));
    }),
    attempt("H10", "4.2.1", "a request without `Upgrade` is refused", Wanted::Refuses, |request| {
        request.drop("Upgrade")
    }),
    attempt("H11", "4.2.1", "a request to upgrade to something else is refused", Wanted::Refuses, |request| {
        request.set("Upgrade", "h2c");
    }),
    attempt("H12", "4.2.1", "a request without `Connection: Upgrade` is refused", Wanted::Refuses, |request| {
        request.set("Connection", "keep-alive");
    }),
    attempt("H13", "4.2.1", "a request without a key is refused", Wanted::Refuses, |request| {
        request.drop("Sec-WebSocket-Key")
    }),
    attempt("H14", "4.2.1", "a key of other than 16 octets is refused", Wanted::Refuses, |request| {
        request.set("Sec-WebSocket-Key", "c2hvcnQ=");
    }),
    attempt("H15", "11.3.1", "two keys are refused", Wanted::Refuses, |request| {
        request.add("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==");
    }),
    attempt("H16", "4.2.1", "a request without a version is refused", Wanted::Refuses, |request| {
        request.drop("Sec-WebSocket-Version");
    }),
    attempt(
        "H17",
        "4.4",
        "version 12 is refused, and the versions spoken are named",
        Wanted::RefusesVersion,
        |request| {
            request.set("Sec-WebSocket-Version", "12");
        },
    ),
    attempt("H18", "4.2.1", "POST is refused", Wanted::Refuses, |request| request.method = "POST"),
    attempt("H19", "4.2.1", "HTTP/1.0 is refused", Wanted::Refuses, |request| request.version = "HTTP/1.0"),
    attempt("H20", "4.2.1", "a request without `Host` is refused", Wanted::Refuses, |request| request.drop("Host")),
    attempt("H21", "4.2.1", "a header of 64 KiB is answered", Wanted::Answers, |request| {
        request.add("X-Long", &"x".repeat(64 << 10));
    }),
];

/// Makes one attempt.
pub(super) async fn play(attempt: &'static Attempt, connect: Connect, limit: Duration) -> CaseReport {
    let begun = Instant::now();
    let until = begun + limit;
    let (socket, path, authority) = match connect.reached(until).await {
        Ok(reached) => reached,
        Err(error) => return CaseReport::could_not_run(attempt.id, attempt.what, attempt.section, error.to_string()),
    };
    let mut request = Request::new(&path, &authority, connect.own_headers());
    (attempt.change)(&mut request);
    let (verdict, seen) = match timeout_at(until.into(), exchange(socket, &request)).await {
        Err(_) => (Verdict::Failed, format!("no answer within {}", seconds(limit))),
        Ok((answer, heard)) => judge(attempt.wanted, &request, answer, &heard),
    };
    let verdict =
        if attempt.wanted == Wanted::Answers && verdict == Verdict::Ok { Verdict::Informational } else { verdict };
    let evidence =
        if verdict.is_good() { Vec::new() } else { vec![format!("-> {}", first_line(&request)), format!("<- {seen}")] };
    let (id, what, section) = (attempt.id, attempt.what, attempt.section);
    CaseReport { id, what, section, verdict, ending: Ending::Ok, seen, took: begun.elapsed(), evidence }
}

fn first_line(request: &Request) -> String {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let value: String = value.chars().take(60).collect();
            format!("{name}: {value}")
        })
        .collect();
    harness_core::client::mask::text(&format!(
        "{} {} {} | {}",
        request.method,
        request.path,
        request.version,
        headers.join(" | ")
    ))
}

/// The answer, if one came, and what the frame behind it was heard as.
async fn exchange(mut socket: Socket, request: &Request) -> (Option<Answer>, Vec<Heard>) {
    let octets = request.octets();
    let sent = match request.trickle {
        None => socket.write_all(&octets).await,
        Some(wait) => {
            let mut sent = Ok(());
            for piece in octets.chunks(8) {
                pause(wait).await;
                sent = sent.and(socket.write_all(piece).await);
            }
            sent
        }
    };
    // A refusal may come before all was written: what can be read counts.
    let _ = sent;
    let Ok((head, mut rest)) = read_head(&mut socket).await else { return (None, Vec::new()) };
    if head.is_empty() {
        return (None, Vec::new());
    }
    let answer = Answer::parse(&head);
    let mut heard = Vec::new();
    if !request.tail.is_empty() && answer.status == 101 {
        let mut decoder = Decoder::new(Role::Client);
        loop {
            let fed = decoder.feed(&mut rest, &mut |event| heard.push(event.to_owned()));
            rest.clear();
            if fed.is_err() || !heard.is_empty() || socket.read_buf(&mut rest).await.unwrap_or(0) == 0 {
                break;
            }
        }
    }
    (Some(answer), heard)
}

fn judge(wanted: Wanted, request: &Request, answer: Option<Answer>, heard: &[Heard]) -> (Verdict, String) {
    let Some(answer) = answer else {
        let verdict = match wanted {
            Wanted::Refuses | Wanted::RefusesVersion => Verdict::NonStrict,
            Wanted::Answers => Verdict::Ok,
            _ => Verdict::Failed,
        };
        return (verdict, "TCP ended without an answer".to_owned());
    };
    let told = format!("status {}", answer.status);
    let refused = answer.status >= 400;
    match wanted {
        Wanted::Answers => (Verdict::Ok, told),
        Wanted::Refuses if refused => (Verdict::Ok, told),
        Wanted::RefusesVersion if refused => match answer.header("sec-websocket-version") {
            Some(versions) if answer.status == 426 => {
                (Verdict::Ok, format!("{told}, Sec-WebSocket-Version: {versions}"))
            }
            Some(versions) => (Verdict::NonStrict, format!("{told} (not 426), Sec-WebSocket-Version: {versions}")),
            None => (Verdict::NonStrict, format!("{told} without Sec-WebSocket-Version")),
        },
        Wanted::Refuses | Wanted::RefusesVersion => (Verdict::Failed, told),
        Wanted::Opens | Wanted::OpensAndEchoes => match answer.judge(request.key(), &[]) {
            Err(None) => (Verdict::Failed, told),
            Err(Some(why)) => (Verdict::Failed, why),
            Ok(()) if wanted == Wanted::OpensAndEchoes && heard != [Heard::Text("early".to_owned())] => {
                (Verdict::Failed, format!("{told}, and then {heard:?}"))
            }
            Ok(()) => (Verdict::Ok, told),
        },
    }
}
