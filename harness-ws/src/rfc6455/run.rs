//! Playing one case on one connection.

use std::time::{Duration, Instant};

use harness_core::CoreResult;
use harness_core::wait::{pause, seconds};

use super::case::{Case, Rule, Seen, Step, octets};
use super::{CaseReport, Ending, Verdict};
use crate::ws::codec::{Frame, Heard, opcode};
use crate::ws::{Connect, End, Wire};

/// Octets of a payload that a report shows.
const SHOWN: usize = 48;

/// Between two writes that have to arrive apart, unless told.
pub(super) const APART: Duration = Duration::from_millis(1);

/// Of a ping behind what has to fail the connection: a server that answers it has missed it, or is about to notice.
const FENCE: &[u8] = b"harness fence";

/// How the closing went.
#[derive(Default)]
struct Closing {
    /// This side sent the first close frame.
    by_us: bool,
    /// The server sent one, with or without a code.
    answered: Option<Option<u16>>,
    /// Both close frames went, and the server ended TCP.
    is_clean: bool,
    /// TCP was still open when this side gave up.
    dropped_by_us: bool,
    /// What the server answered to the close frame is no frame.
    is_broken: bool,
}

struct Play {
    case: &'static Case,
    wire: Wire,
    seen: Vec<Seen>,
    closing: Closing,
    ended: bool,
    /// The server answered the fence.
    is_fenced: bool,
    pace: Pace,
}

/// How long things may take, and have to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What a server may take for an answer.
    pub(super) limit: Duration,
    /// Between two writes that have to arrive apart.
    pub(super) apart: Duration,
}

/// Plays a case; whatever the server does, it ends within a few limits.
pub(super) async fn play(case: &'static Case, connect: Connect, pace: Pace) -> CaseReport {
    let begun = Instant::now();
    let wire = match connect.limit(pace.limit).connect_wire().await {
        Ok(wire) => wire.passive(),
        Err(error) => return CaseReport::could_not_run(&case.id, &case.what, case.section, format!("{error}")),
    };
    let mut play =
        Play { case, wire, seen: Vec::new(), closing: Closing::default(), ended: false, is_fenced: false, pace };
    play.steps().await;
    play.rest().await;
    play.report(begun.elapsed())
}

impl Play {
    async fn steps(&mut self) {
        for step in &self.case.steps {
            if self.ended {
                return;
            }
            match step {
                Step::Write { bytes, at_a_time } => {
                    self.write(bytes, *at_a_time).await;
                    self.lets_arrive().await;
                }
                Step::Close(bytes) => {
                    self.closing.by_us = true;
                    self.write(bytes, usize::MAX).await;
                }
                Step::Patience(mark) => {
                    // A quarter of the limit: long for a server that read the octets, short for a person.
                    let until = Instant::now() + self.pace.limit / 4;
                    while !self.ended && self.hear(until).await {}
                    if !self.ended {
                        self.seen.push(Seen::Waited(*mark));
                    }
                }
                Step::Hearing => {
                    let until = Instant::now() + self.pace.limit / 2;
                    if !self.hear(until).await {
                        self.seen.push(Seen::Waited('-'));
                    }
                }
            }
        }
    }

    async fn lets_arrive(&self) {
        match self.pace.apart.is_zero() {
            true => tokio::task::yield_now().await,
            false => pause(self.pace.apart).await,
        }
    }

    /// A server may have closed already: then what it said still counts, and the write does not.
    async fn write(&mut self, bytes: &[u8], at_a_time: usize) {
        for (n, piece) in bytes.chunks(at_a_time).enumerate() {
            if n > 0 {
                self.lets_arrive().await;
            }
            if self.wire.send_bytes(piece).await.is_err() {
                return;
            }
        }
    }

    /// After the steps: hears until the case is over, closes where the case says so, and waits for the end of TCP.
    async fn rest(&mut self) {
        let until = Instant::now() + self.pace.limit;
        if !self.ended && matches!(self.case.closing, Rule::ByServer(_) | Rule::ByServerSurely(_)) {
            self.write(&octets(&[Frame::ping(FENCE)]), usize::MAX).await;
        }
        while !self.is_fenced {
            if self.ended {
                return;
            }
            if !self.closing.by_us && self.is_time_to_close() {
                let code = self.case.closing.codes().first().copied().unwrap_or(1000);
                self.send_close(&Frame::close(code, "")).await;
            }
            if !self.hear(until).await {
                break;
            }
        }
        if self.is_fenced {
            // Some look at what a message holds only when its reader takes it, and answer pings before.
            let until = Instant::now() + self.pace.limit / 8;
            while !self.ended && self.hear(until).await {}
            if self.ended {
                return;
            }
        }
        if !self.closing.by_us {
            // The server did not do what it had to: it is told that nobody waits any longer.
            self.send_close(&Frame::close(1001, "")).await;
            let until = Instant::now() + self.pace.limit / 4;
            while !self.ended && self.hear(until).await {}
        }
        self.closing.dropped_by_us |= !self.ended;
    }

    fn is_time_to_close(&self) -> bool {
        match self.case.closing {
            Rule::ByUs(_) | Rule::ByUsOrDrop(_) => {
                self.case.expected.iter().any(|(worth, expected)| *worth == Verdict::Ok && *expected == self.seen)
            }
            Rule::Any(_) => {
                self.case.expected.iter().any(|(_, expected)| !expected.is_empty() && *expected == self.seen)
            }
            Rule::ByServer(_) | Rule::ByServerSurely(_) => false,
        }
    }

    async fn send_close(&mut self, frame: &Frame) {
        self.closing.by_us = self.closing.answered.is_none();
        let bytes = octets(std::slice::from_ref(frame));
        self.write(&bytes, usize::MAX).await;
    }

    /// One event; `false` when none came in time.
    async fn hear(&mut self, until: Instant) -> bool {
        match self.wire.hear_within(until.saturating_duration_since(Instant::now())).await {
            Ok(Heard::Close { code, .. }) => {
                self.closing.answered = Some(code);
                if !self.closing.by_us {
                    let reply = code.map_or_else(|| Frame::new(opcode::CLOSE, ""), |code| Frame::close(code, ""));
                    self.send_close(&reply).await;
                }
                // The server ends TCP first (RFC 6455, section 7.1.1).
                self.closing.is_clean = self.wire.hear_end().await.is_ok();
                self.closing.dropped_by_us = !self.closing.is_clean;
                self.ended = true;
                true
            }
            Ok(Heard::Pong(payload)) if payload == FENCE => {
                self.is_fenced = true;
                true
            }
            Ok(heard) => {
                self.seen.push(Seen::Heard(heard));
                true
            }
            Err(_) => match self.wire.end() {
                None => false,
                Some(end) => {
                    match end {
                        End::Violation { .. } if self.closing.by_us => self.closing.is_broken = true,
                        End::Violation { what } => self.seen.push(Seen::Violation(what.clone())),
                        _ => {}
                    }
                    self.ended = true;
                    true
                }
            },
        }
    }

    fn report(self, took: Duration) -> CaseReport {
        let ending = if self.case.is_informational { Ending::Informational } else { self.ending() };
        let verdict = self.verdict(ending);
        let evidence =
            if verdict.is_good() && ending == Ending::Ok { Vec::new() } else { self.wire.transcript().lines() };
        CaseReport {
            id: &self.case.id,
            what: &self.case.what,
            section: self.case.section,
            verdict,
            ending,
            seen: self.told(took),
            took,
            evidence,
        }
    }

    fn verdict(&self, ending: Ending) -> Verdict {
        let worth = self.case.expected.iter().find(|(_, expected)| *expected == self.seen).map(|(worth, _)| *worth);
        let missed = matches!(self.case.closing, Rule::ByServerSurely(_)) && self.closing.by_us;
        match worth {
            _ if self.case.is_informational => Verdict::Informational,
            Some(_) if missed || self.case.code_counts && ending == Ending::WrongCode => Verdict::Failed,
            Some(worth) => worth,
            None => Verdict::Failed,
        }
    }

    fn ending(&self) -> Ending {
        let (rule, closing) = (self.case.closing, &self.closing);
        let code = closing.answered.flatten();
        match rule {
            _ if closing.is_broken => return Ending::Violation,
            Rule::Any(_) => {}
            _ if rule.is_ours() != closing.by_us => return Ending::Failed,
            Rule::ByUs(_) if !closing.is_clean => return Ending::Unclean,
            _ => {}
        }
        if code.is_some_and(|code| !rule.codes().contains(&code)) {
            Ending::WrongCode
        } else if closing.dropped_by_us {
            Ending::FailedByClient
        } else {
            Ending::Ok
        }
    }

    /// What happened, for a person.
    fn told(&self, took: Duration) -> String {
        let mut told: Vec<String> = self.seen.iter().take(12).map(shown).collect();
        if self.seen.len() > told.len() {
            told.push(format!("and {} more", self.seen.len() - told.len()));
        }
        told.push(match self.closing.answered {
            Some(Some(code)) => format!("close {code}"),
            Some(None) => "close without a code".to_owned(),
            None if self.closing.is_broken => "an answer to the close frame that breaks the protocol itself".to_owned(),
            None if self.ended => "TCP ended without a close frame".to_owned(),
            None => format!("still open after {}", seconds(took)),
        });
        told.join(", ")
    }
}

fn shown(seen: &Seen) -> String {
    let brief = |kind: &str, bytes: &[u8]| match bytes.len() {
        long if long > SHOWN => format!("{kind} of {long} octets"),
        _ => format!("{kind} \"{}\"", bytes.escape_ascii()),
    };
    match seen {
        Seen::Heard(Heard::Text(text)) => brief("text", text.as_bytes()),
        Seen::Heard(Heard::Binary(bytes)) => brief("binary", bytes),
        Seen::Heard(Heard::Ping(bytes)) => brief("ping", bytes),
        Seen::Heard(Heard::Pong(bytes)) => brief("pong", bytes),
        Seen::Heard(Heard::Close { .. }) => "close".to_owned(),
        Seen::Waited(mark) => format!("patience {mark}"),
        Seen::Violation(what) => format!("a violation of the server: {what}"),
    }
}

/// The first case again, as the control of all others: without it nothing that follows means anything.
pub(super) async fn control(connect: Connect, limit: Duration) -> CoreResult {
    let mut wire = connect.limit(limit).connect_wire().await?;
    wire.send_text("control").await?;
    let is_echo = |heard: &Heard| match heard {
        Heard::Text(text) => text == "control",
        // A text as a binary message is what the cases are there to notice.
        Heard::Binary(bytes) => bytes == b"control",
        _ => false,
    };
    while !is_echo(&wire.hear().await?) {}
    Ok(())
}
