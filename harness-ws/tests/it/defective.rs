//! An echo server written apart from the crate's codec, with one switchable bug: the control of every conformance case.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::server::{self, Guard};

/// What is wrong with the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Flaw {
    None,
    // The handshake.
    ConstantAccept,
    ExactCase,
    LoneConnectionToken,
    ExactHeaderNames,
    ChoosesProtocol,
    AgreesToProtocol,
    AgreesToExtension,
    DropsEarlyFrame,
    NeedsWholeRequest,
    OpensWithoutUpgrade,
    OpensForOtherUpgrade,
    OpensWithoutConnection,
    OpensWithoutKey,
    OpensForShortKey,
    OpensForTwoKeys,
    OpensWithoutVersion,
    OpensForVersion12,
    OpensForPost,
    OpensForHttp10,
    OpensWithoutHost,
    HangsOnLongHeader,
    // Framing.
    CutsEchoOf {
        text: bool,
        length: usize,
    },
    MasksItsFrames,
    // Pings.
    NoPongFor(usize),
    PongWithoutPayload,
    AnswersPongs {
        empty: bool,
    },
    AcceptsLongPing,
    LosesFifthPong,
    // Bits, opcodes, fragments.
    AcceptsBits(u8),
    AcceptsOpcode(u8),
    AcceptsFragmentedPing,
    AcceptsFragmentedPong,
    AcceptsFragmentedClose,
    AcceptsOrphan {
        fin: bool,
    },
    AcceptsTextWithinText,
    AcceptsBinaryWithinText,
    EchoesEachFragment,
    HoldsPongsWithinMessage,
    LosesEmptyFragmentedText,
    // Text.
    NoUtf8Check,
    Accepts(&'static [u8]),
    Refuses(&'static [u8]),
    ChecksEachFragment,
    ChecksAtTheEnd,
    ChecksAtFrameEnds,
    /// No flaw: a text is looked at when somebody reads it, and pings behind it are answered meanwhile.
    ChecksWhenRead,
    EchoesTextAsBinary,
    // Closing.
    NoCloseAnswer,
    AnswersWith(u16),
    EchoesAfterClose,
    PongsAfterClose,
    AnswersCloseTwice,
    FailsCloseWithinMessage,
    AcceptsOneOctetClose,
    AcceptsLongClose,
    AcceptsBadReason,
    AcceptsCode(u16),
    RefusesCode(u16),
    DropsAtCode(u16),
    RefusesCloseWithoutBody,
    RefusesReason,
    KeepsTcpOpen,
    FailsWithCode(u16),
    // What Autobahn lacks.
    AcceptsUnmasked,
    AcceptsLongLength16,
    AcceptsLongLength64,
    AcceptsTopBit,
    IgnoresMask,
    KeepsFirstMask,
    ReversesBatches,
    CutsFragments(usize),
}

pub(crate) async fn start(flaw: Flaw) -> (String, Guard) {
    server::tcp(move |socket| {
        let flaw = flaw.clone();
        async move {
            let mut connection = Connection { socket, flaw, bytes: Vec::new(), at: 0, eof: false };
            if connection.open().await {
                connection.echo().await;
            }
        }
    })
    .await
}

struct Connection {
    socket: TcpStream,
    flaw: Flaw,
    bytes: Vec<u8>,
    at: usize,
    eof: bool,
}

impl Connection {
    fn is(&self, flaw: &Flaw) -> bool {
        self.flaw == *flaw
    }

    async fn more(&mut self) -> bool {
        if !self.eof && self.socket.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
            self.eof = true;
        }
        !self.eof
    }

    /// The next octets, `None` at the end of TCP.
    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.bytes.len() - self.at < count {
            if !self.more().await {
                return None;
            }
        }
        let taken = self.bytes[self.at..self.at + count].to_vec();
        self.at += count;
        if self.at > 1 << 16 {
            self.bytes.drain(..std::mem::take(&mut self.at));
        }
        Some(taken)
    }

    async fn open(&mut self) -> bool {
        let mut reads = 0;
        let end = loop {
            if let Some(at) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.bytes.len() > 16 << 10 {
                if self.is(&Flaw::HangsOnLongHeader) {
                    std::future::pending::<()>().await;
                }
                let _ = self.socket.write_all(b"HTTP/1.1 431 Too Long\r\n\r\n").await;
                // What is still under way is taken, so that the answer is not overtaken by a reset.
                while self.more().await {}
                return false;
            }
            reads += 1;
            if !self.more().await {
                return false;
            }
        };
        let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        self.at = end;
        if self.is(&Flaw::DropsEarlyFrame) {
            self.at = self.bytes.len();
        }
        let answer = self.answer(&head, reads);
        let opens = answer.starts_with("HTTP/1.1 101");
        self.socket.write_all(answer.as_bytes()).await.is_ok() && opens
    }

    fn answer(&self, head: &str, reads: usize) -> String {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, version) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let all = |name: &str| -> Vec<&str> {
            let same = |there: &str| match self.is(&Flaw::ExactHeaderNames) {
                true => there == name,
                false => there.eq_ignore_ascii_case(name),
            };
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .filter(|(there, _)| same(there))
                .map(|(_, value)| value)
                .collect()
        };
        let has = |name: &str, word: &str| {
            all(name).iter().any(|value| match () {
                () if self.is(&Flaw::ExactCase) => value.split(", ").any(|part| part == word),
                () if self.is(&Flaw::LoneConnectionToken) => value.eq_ignore_ascii_case(word),
                () => value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)),
            })
        };
        let keys = all("Sec-WebSocket-Key");
        let versions = all("Sec-WebSocket-Version");
        let refusals = [
            (method != "GET" && !self.is(&Flaw::OpensForPost), "405 No"),
            (version != "HTTP/1.1" && !self.is(&Flaw::OpensForHttp10), "400 No"),
            (all("Host").is_empty() && !self.is(&Flaw::OpensWithoutHost), "400 No"),
            (all("Upgrade").is_empty() && !self.is(&Flaw::OpensWithoutUpgrade), "426 No"),
            (
                !all("Upgrade").is_empty() && !has("Upgrade", "websocket") && !self.is(&Flaw::OpensForOtherUpgrade),
                "400 No",
            ),
            (!has("Connection", "Upgrade") && !self.is(&Flaw::OpensWithoutConnection), "400 No"),
            (versions.is_empty() && !self.is(&Flaw::OpensWithoutVersion), "426 No\r\nSec-WebSocket-Version: 13"),
            (versions == ["12"] && !self.is(&Flaw::OpensForVersion12), "426 No\r\nSec-WebSocket-Version: 13"),
            (keys.is_empty() && !self.is(&Flaw::OpensWithoutKey), "400 No"),
            (keys.len() > 1 && !self.is(&Flaw::OpensForTwoKeys), "400 No"),
            (keys.iter().any(|key| key.len() != 24) && !self.is(&Flaw::OpensForShortKey), "400 No"),
            (reads > 10 && self.is(&Flaw::NeedsWholeRequest), "408 No"),
        ];
        if let Some((_, status)) = refusals.iter().find(|(refused, _)| *refused) {
            return format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
        let key = if self.is(&Flaw::ConstantAccept) {
            "dGhlIHNhbXBsZSBub25jZQ=="
        } else {
            keys.first().copied().unwrap_or_default()
        };
        let offered = all("Sec-WebSocket-Protocol");
        let more = match &self.flaw {
            Flaw::ChoosesProtocol if offered.is_empty() => "Sec-WebSocket-Protocol: chat\r\n".to_owned(),
            Flaw::AgreesToProtocol if !offered.is_empty() => "Sec-WebSocket-Protocol: other\r\n".to_owned(),
            Flaw::AgreesToExtension => all("Sec-WebSocket-Extensions")
                .iter()
                .map(|value| format!("Sec-WebSocket-Extensions: {value}\r\n"))
                .collect(),
            _ => String::new(),
        };
        let accept = derive_accept_key(key.as_bytes());
        format!(
            "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        )
    }

    async fn say(&mut self, opcode: u8, payload: &[u8]) {
        let mask = if self.is(&Flaw::MasksItsFrames) { 128 } else { 0 };
        let mut frame = vec![128 | opcode];
        match payload.len() {
            short @ ..126 => frame.push(mask | short as u8),
            middle @ ..65_536 => {
                frame.push(mask | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(mask | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        if mask != 0 {
            frame.extend([0; 4]);
        }
        frame.extend_from_slice(payload);
        let _ = self.socket.write_all(&frame).await;
    }

    /// Fails the connection.
    async fn fail(&mut self, code: u16) {
        if self.is(&Flaw::ChecksWhenRead) && code == 1007 {
            // If nobody asks within this time, the reader has come.
            let _ = tokio::time::timeout(Duration::from_millis(50), self.answer_pings()).await;
        }
        let code = if let Flaw::FailsWithCode(other) = self.flaw { other } else { code };
        self.say(8, &code.to_be_bytes()).await;
        self.leave().await;
    }

    async fn answer_pings(&mut self) -> Option<()> {
        loop {
            let head = self.take(2).await?;
            let key = self.take(4).await?;
            let payload = self.take((head[1] & 127).into()).await?;
            let payload: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            if head[0] & 15 == 9 {
                self.say(10, &payload).await;
            }
        }
    }

    async fn leave(&mut self) {
        if self.is(&Flaw::KeepsTcpOpen) {
            while self.more().await {
                self.bytes.clear();
            }
            return;
        }
        let _ = self.socket.shutdown().await;
        let drain = async { while self.more().await {} };
        let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
    }

    async fn echo(&mut self) {
        let mut message: Option<(u8, Vec<u8>, usize)> = None;
        let (mut pings, mut first_mask, mut is_in_pong) = (0, None, false);
        let mut held: Vec<Vec<u8>> = Vec::new();
        let mut batch: Vec<Vec<u8>> = Vec::new();
        loop {
            let Some(head) = self.take(2).await else { return };
            let (fin, bits, opcode) = (head[0] & 128 != 0, head[0] >> 4 & 7, head[0] & 15);
            let (masked, short) = (head[1] & 128 != 0, head[1] & 127);
            if bits != 0 && !self.is(&Flaw::AcceptsBits(bits)) {
                return self.fail(1002).await;
            }
            if matches!(opcode, 3..=7 | 11..=15) && !self.is(&Flaw::AcceptsOpcode(opcode)) {
                return self.fail(1002).await;
            }
            if !masked && !self.is(&Flaw::AcceptsUnmasked) {
                return self.fail(1002).await;
            }
            if opcode >= 8 {
                let fragment = match opcode {
                    8 => self.is(&Flaw::AcceptsFragmentedClose),
                    9 => self.is(&Flaw::AcceptsFragmentedPing),
                    10 => self.is(&Flaw::AcceptsFragmentedPong),
                    _ => true,
                };
                let long = match opcode {
                    8 => self.is(&Flaw::AcceptsLongClose),
                    9 => self.is(&Flaw::AcceptsLongPing),
                    _ => false,
                };
                if !fin && !fragment || short > 125 && !long {
                    return self.fail(1002).await;
                }
            }
            let length = match short {
                126 => {
                    let Some(bytes) = self.take(2).await else { return };
                    let length = u64::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                    if length < 126 && !self.is(&Flaw::AcceptsLongLength16) {
                        return self.fail(1002).await;
                    }
                    length
                }
                127 => {
                    let Some(bytes) = self.take(8).await else { return };
                    let length = u64::from_be_bytes(bytes.try_into().expect("eight octets"));
                    if length >> 63 != 0 && self.is(&Flaw::AcceptsTopBit) {
                        1
                    } else if length < 65_536 && !self.is(&Flaw::AcceptsLongLength64) {
                        return self.fail(1002).await;
                    } else if length > 1 << 24 {
                        return self.fail(if length >> 63 != 0 { 1002 } else { 1009 }).await;
                    } else {
                        length
                    }
                }
                short => u64::from(short),
            };
            let key = if masked { self.take(4).await } else { Some(vec![0; 4]) };
            let Some(mut key) = key else { return };
            if self.is(&Flaw::KeepsFirstMask) {
                key = first_mask.get_or_insert(key).clone();
            }
            if self.is(&Flaw::IgnoresMask) && key == [0xff; 4] {
                key = vec![0; 4];
            }
            match opcode {
                0 if message.is_none() && !self.is(&Flaw::AcceptsOrphan { fin }) && !is_in_pong => {
                    return self.fail(1002).await;
                }
                1 if message.is_some() && !self.is(&Flaw::AcceptsTextWithinText) => return self.fail(1002).await,
                2 if message.is_some() && !self.is(&Flaw::AcceptsBinaryWithinText) => return self.fail(1002).await,
                _ => {}
            }
            // The payload as it comes, checked on the way where it is text.
            let is_text = opcode == 1 || opcode == 0 && message.as_ref().is_some_and(|message| message.0 == 1);
            let mut payload: Vec<u8> = Vec::new();
            while (payload.len() as u64) < length {
                while self.bytes.len() == self.at {
                    if !self.more().await {
                        return;
                    }
                }
                let piece = (self.bytes.len() - self.at).min((length - payload.len() as u64) as usize);
                let Some(bytes) = self.take(piece).await else { return };
                let from = payload.len();
                payload.extend(bytes.iter().enumerate().map(|(n, byte)| byte ^ key[(from + n) % 4]));
                let so_far = message.as_ref().map_or(&[][..], |message| &message.1);
                let partly = (payload.len() as u64) < length;
                let at_the_end = self.is(&Flaw::ChecksAtTheEnd) || self.is(&Flaw::ChecksWhenRead);
                let late = at_the_end || self.is(&Flaw::ChecksAtFrameEnds) && partly;
                if is_text && !late && self.is_wrong(so_far, &payload, false) {
                    return self.fail(1007).await;
                }
            }
            if opcode == 0 && message.is_none() && (is_in_pong || !fin) || bits == 7 {
                // Accepted, and forgotten.
                is_in_pong = false;
                continue;
            }
            match opcode {
                9 => {
                    pings += 1;
                    if self.is(&Flaw::HoldsPongsWithinMessage) && message.is_some() {
                        held.push(payload);
                        continue;
                    }
                    match self.flaw {
                        Flaw::NoPongFor(length) if length == payload.len() => {}
                        Flaw::PongWithoutPayload => self.say(10, b"").await,
                        Flaw::LosesFifthPong if pings == 5 => {}
                        _ => self.say(10, &payload).await,
                    }
                }
                10 => {
                    is_in_pong = !fin;
                    if self.is(&Flaw::AnswersPongs { empty: payload.is_empty() }) {
                        self.say(10, &payload).await;
                    }
                }
                8 => return self.close(&payload, message.is_some()).await,
                11..=15 => {}
                _ => {
                    let (kind, mut gathered, fragments) = match message.take() {
                        Some((kind, gathered, fragments)) if opcode == 0 => (kind, gathered, fragments + 1),
                        _ => (if opcode == 0 { 1 } else { opcode }, Vec::new(), 1),
                    };
                    if self.is(&Flaw::EchoesEachFragment) {
                        self.say(kind, &payload).await;
                    }
                    if kind == 1 && self.is(&Flaw::ChecksEachFragment) && std::str::from_utf8(&payload).is_err() {
                        return self.fail(1007).await;
                    }
                    gathered.extend_from_slice(&payload);
                    if !fin {
                        message = Some((kind, gathered, fragments));
                        continue;
                    }
                    if kind == 1 && self.is_wrong(&gathered, b"", true) {
                        return self.fail(1007).await;
                    }
                    if matches!(opcode, 3..=7) {
                        continue;
                    }
                    for ping in std::mem::take(&mut held) {
                        self.say(10, &ping).await;
                    }
                    let reply = self.changed(kind, gathered, fragments);
                    if self.is(&Flaw::ReversesBatches) && self.bytes.len() > self.at {
                        batch.push(reply.map(|reply| reply.1).unwrap_or_default());
                        continue;
                    }
                    if let Some((kind, reply)) = reply {
                        if !self.is(&Flaw::EchoesEachFragment) {
                            self.say(kind, &reply).await;
                        }
                        for reply in batch.drain(..).rev().collect::<Vec<_>>() {
                            self.say(kind, &reply).await;
                        }
                    }
                }
            }
        }
    }

    /// Whether what came so far, or all of it, is refused as text.
    fn is_wrong(&self, before: &[u8], payload: &[u8], is_all: bool) -> bool {
        let text = [before, payload].concat();
        match &self.flaw {
            Flaw::NoUtf8Check => false,
            Flaw::Accepts(wrong) if text.as_slice() == *wrong || wrong.starts_with(&text) && !is_all => false,
            Flaw::Refuses(right) if text.as_slice() == *right && is_all => true,
            _ => match std::str::from_utf8(&text) {
                Ok(_) => false,
                Err(error) => is_all || error.error_len().is_some(),
            },
        }
    }

    /// The echo, or what the flaw makes of it.
    fn changed(&self, kind: u8, mut payload: Vec<u8>, fragments: usize) -> Option<(u8, Vec<u8>)> {
        let is_text = kind == 1;
        match &self.flaw {
            Flaw::CutsEchoOf { text, length } if *text == is_text && *length == payload.len() && fragments == 1 => {
                payload.push(b'!');
            }
            Flaw::CutsFragments(count) if *count == fragments => {
                payload.pop();
            }
            Flaw::LosesEmptyFragmentedText if payload.is_empty() && fragments > 1 => return None,
            Flaw::EchoesTextAsBinary if is_text => return Some((2, payload)),
            _ => {}
        }
        Some((kind, payload))
    }

    async fn close(&mut self, body: &[u8], is_within: bool) {
        let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
        let known = code.is_none_or(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999));
        let refused = match &self.flaw {
            Flaw::AcceptsOneOctetClose if body.len() == 1 => false,
            Flaw::AcceptsCode(allowed) if code == Some(*allowed) => false,
            Flaw::RefusesCode(refused) if code == Some(*refused) => true,
            Flaw::RefusesCloseWithoutBody if body.is_empty() => true,
            Flaw::RefusesReason if body.len() > 2 && body.len() < 125 => true,
            Flaw::FailsCloseWithinMessage if is_within => true,
            _ => body.len() == 1 || !known,
        };
        if refused {
            return self.fail(1002).await;
        }
        if body.len() > 2 && std::str::from_utf8(&body[2..]).is_err() && !self.is(&Flaw::AcceptsBadReason) {
            return self.fail(1007).await;
        }
        if self.is(&Flaw::EchoesAfterClose) || self.is(&Flaw::PongsAfterClose) {
            // Goes on for what came at once with the close frame.
            while self.bytes.len() - self.at >= 6 {
                let Some(head) = self.take(2).await else { break };
                let (Some(key), length) = (self.take(4).await, usize::from(head[1] & 127)) else { break };
                let Some(payload) = self.take(length).await else { break };
                let payload: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
                match head[0] & 15 {
                    9 if self.is(&Flaw::PongsAfterClose) => self.say(10, &payload).await,
                    1 if self.is(&Flaw::EchoesAfterClose) => self.say(1, &payload).await,
                    _ => {}
                }
            }
        }
        match self.flaw {
            Flaw::NoCloseAnswer => {}
            Flaw::DropsAtCode(dropped) if code == Some(dropped) => {}
            Flaw::AnswersWith(code) => self.say(8, &code.to_be_bytes()).await,
            // The answer to a second close frame, given in place of the first.
            Flaw::AnswersCloseTwice if self.bytes.len() - self.at == 6 && self.bytes[self.at] == 0x88 => {
                self.say(8, &1002_u16.to_be_bytes()).await;
            }
            Flaw::AcceptsOneOctetClose if body.len() == 1 => self.say(8, &1000_u16.to_be_bytes()).await,
            _ => self.say(8, body.get(..2).unwrap_or_default()).await,
        }
        self.leave().await;
    }
}
