//! Damaged input into everything here that reads: frames, JSON-RPC messages, events. No panic, and memory stays bounded.

use std::hint::black_box;
use std::time::Instant;

use harness_core::env::Settings;
use harness_core::run::{Run, SeedStream};
use harness_ws::codec::{Decoder, Frame, Role};
use harness_ws::events::SseReader;
use harness_ws::jsonrpc::{code, is_reply, means_id};
use harness_ws::{Pattern, capture};
use serde_json::{Value, json};

/// Messages as they are right, to be damaged.
const MESSAGES: [&str; 8] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"\ud83d\ude00"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a-é","result":{"content":[{"type":"text","text":"x"}],"isError":false}}"#,
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no","data":[1.5,true,null]}}"#,
    r#"[{"jsonrpc":"2.0","id":-7,"result":{}},{"jsonrpc":"2.0","method":"n"}]"#,
    r#"{"jsonrpc":"2.0","id":9007199254740993,"result":1e400}"#,
    r#"{"jsonrpc":"2.0","id":1.0,"error":{"code":"-32601","message":1}}"#,
    "{\"id\":7,\"id\":8,\"result\":\"\u{feff}\"}",
    "null",
];
const EVENTS: &str = "\u{feff}: hi\nid: 7\nevent: message\nretry: 250\ndata: {\"id\":1}\ndata:\n\r\n\rdata: x\r\n\r\n";
/// The largest message that the decoder is told to take, in octets.
const LARGEST: usize = 1 << 16;

struct Damage(SeedStream);

impl Damage {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound.max(1) as u64) as usize
    }

    /// Turns a bit, cuts, doubles a part, or puts something in.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
                3 => {
                    let words = ["null", "1.5", "-0", "1e999", "[[[[", "\"", "\\u", "\0", "{\"id\":", "\u{2028}"];
                    let word = words[self.below(words.len())];
                    bytes.splice(at..at, word.bytes());
                }
                _ => bytes.extend((0..self.below(8)).map(|_| self.0.next_u64() as u8)),
            }
        }
    }

    /// Frames, whole and damaged, in pieces; true when they were refused.
    fn frames(&mut self) -> bool {
        let mut bytes = Vec::new();
        for _ in 0..self.below(4) {
            let payload: Vec<u8> = (0..self.below(20)).map(|_| self.0.next_u64() as u8 & 0x7f).collect();
            let control = if self.below(4) == 0 { 8 } else { 0 };
            let mut frame = Frame::new(self.below(3) as u8 + control, payload);
            frame.fin = self.below(3) > 0;
            frame.encode_into(&mut bytes);
        }
        if self.below(2) == 0 {
            self.damage(&mut bytes);
        }
        let role = if self.below(8) == 0 { Role::Server } else { Role::Client };
        let (mut decoder, piece) = (Decoder::new(role).largest_message(LARGEST), self.below(16) + 1);
        let refused =
            bytes.chunks_mut(piece).any(|piece| decoder.feed(piece, &mut |event| _ = black_box(event)).is_err());
        assert!(decoder.held() <= 2 * LARGEST, "the decoder holds {} octets", decoder.held());
        refused
    }

    /// A message; true when it is none any more.
    fn message(&mut self, patterns: &[Pattern]) -> bool {
        let mut bytes = match self.below(1000) {
            0 => "[".repeat(10_000).into_bytes(),
            _ => MESSAGES[self.below(MESSAGES.len())].as_bytes().to_vec(),
        };
        self.damage(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        for pattern in patterns {
            let _ = black_box(pattern.check(&text));
        }
        match serde_json::from_str::<Value>(&text) {
            Err(_) => true,
            Ok(message) => {
                black_box((is_reply(&message), code(&message), means_id(&message, &json!(7))));
                false
            }
        }
    }

    /// A stream of events in pieces; true when nothing is left of it.
    fn events(&mut self) -> bool {
        let mut bytes = EVENTS.as_bytes().to_vec();
        self.damage(&mut bytes);
        let (mut reader, piece) = (SseReader::default(), self.below(16) + 1);
        let events: usize = bytes.chunks(piece).map(|piece| reader.push(piece).len()).sum();
        black_box((reader.last_id().len(), reader.retry(), reader.comments()));
        assert!(events <= bytes.len(), "{events} events in {} octets", bytes.len());
        events == 0
    }
}

/// In full form, told by `HARNESS_ROUNDS`, so many inputs.
#[test]
fn damaged_inputs_do_no_harm() {
    let inputs = Settings::get().rounds.unwrap_or(30_000);
    let mut damage = Damage(Run::current().seed().stream("damaged inputs"));
    let patterns = [
        Pattern::from(json!({"id": 1, "result": {}})),
        Pattern::closed(json!({"id": capture::any(), "error": {"code": capture::number()}})),
        Pattern::from(json!({"method": capture::string(), "params": capture::absent()})),
    ];
    let (begun, mut refused) = (Instant::now(), [0_u64; 3]);
    for n in 0..inputs {
        let kind = (n % 3) as usize;
        refused[kind] += u64::from(match kind {
            0 => damage.frames(),
            1 => damage.message(&patterns),
            _ => damage.events(),
        });
    }
    println!("{inputs} inputs in {:?}; refused of frames, messages and events: {refused:?}", begun.elapsed());
    assert!(
        refused.iter().all(|refused| (1..inputs / 3).contains(refused)),
        "{refused:?}: nothing was damaged, or all"
    );
}
