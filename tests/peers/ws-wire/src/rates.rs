//! How fast and how small: messages, silences, fleets, and octets that are no frames.

use std::io::Read as _;
use std::time::{Duration, Instant};

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, Role, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _, future::try_join_all};
use harness_ws::codec::{Decoder, Heard, Role as Side};
use harness_ws::{Fence, Fleet, Pattern, Wire, Ws};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::child::{Server, one_thread, resident, start};
use peers_common::{Asked, Measured, Result};

const CONNECTIONS: usize = 16;
/// Messages of a connection that are under way at once.
const WINDOW: usize = 64;
const PAYLOAD: [u8; 128] = [0x2a; 128];

/// Messages a second, the recording client beside the others, by turns, against one server.
pub(crate) fn pipelined(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start("ours")?;
    let windows = asked.times(200, 20);
    let (mut beside_tokio, mut beside_fast) = (Vec::new(), Vec::new());
    for round in 0..=asked.rounds() {
        let rate = |kind: u8| -> Result<f64> {
            one_thread().block_on(async {
                let begun = Instant::now();
                let clients = (0..CONNECTIONS).map(|_| async {
                    match kind {
                        0 => ours(&server.url, windows).await,
                        1 => theirs(&server.url, windows).await,
                        _ => fast(&server.url, windows).await,
                    }
                });
                try_join_all(clients).await?;
                Ok((CONNECTIONS * WINDOW * windows) as f64 / begun.elapsed().as_secs_f64())
            })
        };
        let (ours, tokio, fast) = (rate(0)?, rate(1)?, rate(2)?);
        if round > 0 {
            beside_tokio.push((ours, tokio));
            beside_fast.push((ours, fast));
        }
    }
    let note = "16 connections, 64 messages of 128 octets under way on each, transcript on; server: ours, its own process (it answers together what came together; that of tokio-websockets is slower than any of the clients)";
    Ok(vec![
        Measured::pairs("ws.rate_tokio_websockets", "tokio-websockets", "messages/s", &beside_tokio).note(note),
        Measured::pairs("ws.rate_fastwebsockets", "fastwebsockets", "messages/s", &beside_fast).note(note),
    ])
}

async fn ours(url: &str, windows: usize) -> Result {
    let mut wire = Wire::connect(url).await?;
    for _ in 0..windows {
        for _ in 0..WINDOW {
            wire.put_binary(&PAYLOAD);
        }
        wire.flush().await?;
        for _ in 0..WINDOW {
            if wire.hear().await? != Heard::Binary(PAYLOAD.to_vec()) {
                return Err("another message than was sent".into());
            }
        }
    }
    Ok(())
}

async fn theirs(url: &str, windows: usize) -> Result {
    let stream = shaken(url).await?;
    let mut ws = tokio_websockets::ClientBuilder::new().take_over(stream);
    for _ in 0..windows {
        for _ in 0..WINDOW {
            ws.feed(tokio_websockets::Message::binary(PAYLOAD.to_vec())).await?;
        }
        ws.flush().await?;
        for _ in 0..WINDOW {
            let message = ws.next().await.ok_or("the stream ended")??;
            if message.as_payload()[..] != PAYLOAD {
                return Err("another message than was sent".into());
            }
        }
    }
    Ok(())
}

async fn fast(url: &str, windows: usize) -> Result {
    let stream = shaken(url).await?;
    let mut ws = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Client));
    for _ in 0..windows {
        for _ in 0..WINDOW {
            ws.write_frame(Frame::new(true, OpCode::Binary, None, Payload::Owned(PAYLOAD.to_vec()))).await?;
        }
        for _ in 0..WINDOW {
            if ws.read_frame().await?.payload[..] != PAYLOAD {
                return Err("another message than was sent".into());
            }
        }
    }
    Ok(())
}

/// A connection whose handshake is done, for clients that are handed one.
async fn shaken(url: &str) -> Result<TcpStream> {
    shaken_from(url, None).await
}

async fn shaken_from(url: &str, source: Option<&str>) -> Result<TcpStream> {
    let authority = url.trim_start_matches("ws://").trim_end_matches('/');
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        socket.bind(format!("{source}:0").parse()?)?;
    }
    let mut stream = socket.connect(authority.parse()?).await?;
    stream.set_nodelay(true)?;
    stream.set_zero_linger()?; // as the fleet does: no port is left waiting
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        generate_key()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("the handshake broke off".into());
        }
    }
    Ok(stream)
}

/// Two hundred silences by a fence, and by sleeping 200 ms (of which a few are slept, and multiplied).
pub(crate) fn silence(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start("ours")?;
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds() {
        rounds.push(one_thread().block_on(async {
            let mut ws = Ws::connect(&server.url).await?;
            let begun = Instant::now();
            for _ in 0..200 {
                ws.expect_silence(Fence::Ping).await?;
            }
            let fenced = begun.elapsed().as_secs_f64();
            let begun = Instant::now();
            for _ in 0..5 {
                ws.expect_silence(Fence::Timed(Duration::from_millis(200))).await?;
            }
            Ok::<_, peers_common::Failure>((fenced, begun.elapsed().as_secs_f64() * 40.0))
        })?);
    }
    Ok(vec![
        Measured::pairs("ws.silence", "sleeps of 200 ms", "s of 200 silences", &rounds)
            .note("five of each 200 sleeps are slept"),
    ])
}

fn said(words: &[&str]) -> Result<Value> {
    let mut child = start(words)?;
    let mut text = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
    match child.wait()?.success() {
        true => Ok(serde_json::from_str(&text)?),
        false => Err(format!("{words:?} failed").into()),
    }
}

/// Memory of an idle connection after one echo, each fleet in a process of its own.
pub(crate) fn memory(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start("tokio-websockets")?;
    let (mut allowed, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..asked.times(3, 1) {
        let kib = |kind: &str, count: &str| -> Result<f64> {
            said(&["idle", kind, &server.url, count])?["kib"].as_f64().ok_or_else(|| "no number".into())
        };
        let ours = kib("ours", "5000")?;
        allowed.push((ours, 5.0));
        beside.push((ours, kib("tungstenite", "1000")?));
    }
    Ok(vec![
        Measured::pairs("ws.memory_of_5_kib", "5 KiB", "KiB a connection", &allowed)
            .note("5,000 connections, resident memory of the client's process after one echo each"),
        Measured::pairs("ws.memory_tungstenite", "tokio-tungstenite as it comes", "KiB a connection", &beside),
    ])
}

/// Ten thousand connections, ten round trips each: with canaries, and by bare sockets that look at nothing.
pub(crate) fn fleet(asked: &Asked) -> Result<Vec<Measured>> {
    let server = Server::start("ours")?;
    let (connections, trips) = (asked.times("10000", "500"), "10");
    let (mut rates, mut sizes, mut alarms, mut pairs) = (Vec::new(), Vec::new(), 0, Value::Null);
    for _ in 0..asked.rounds() {
        let ours = said(&["storm", "ours", &server.url, connections, trips])?;
        let bare = said(&["storm", "bare", &server.url, connections, trips])?;
        let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
        rates.push((number(&ours, "rate"), number(&bare, "rate")));
        sizes.push((number(&ours, "mib"), 80.0));
        alarms += u64::from(ours["pass"] != true);
        pairs = ours["pairs"].clone();
    }
    let note = format!(
        "{connections} connections from 127.0.0.2 to .5, {trips} round trips each, all at once; the server is ours, in its own process"
    );
    Ok(vec![
        Measured::pairs("ws.fleet_rate", "bare sockets, octets compared with nothing", "round trips/s", &rates)
            .note(note)
            .detail("overlapping_pairs", pairs),
        Measured::pairs("ws.fleet_memory_of_80_mb", "80 MB", "MB", &sizes),
        Measured::count("ws.fleet_alarms", &[alarms]),
    ])
}

/// Plays a fleet and says its rate.
pub(crate) async fn storm(kind: &str, url: &str, connections: usize, trips: u32) -> Result {
    const SOURCES: [&str; 4] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
    let message = |canary: &str, n: u32| {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"echo\",\"params\":\"{canary}\"}}")
    };
    let total = connections as f64 * f64::from(trips);
    if kind == "ours" {
        let sources = SOURCES.iter().map(|source| source.parse().expect("an address"));
        let opened = Instant::now();
        let mut fleet =
            Fleet::of(url).connections(connections).sources(sources).limit(Duration::from_secs(60)).open().await?;
        let opened = opened.elapsed().as_secs_f64();
        let begun = Instant::now();
        let crosstalk = fleet.canaried(trips, message).await?;
        let rate = total / begun.elapsed().as_secs_f64();
        let outcome = crosstalk.outcome();
        let told = json!({
            "rate": rate, "mib": resident() as f64 * 1024.0 / 1e6, "pass": outcome.is_pass(), "outcome": outcome.to_string(),
            "pairs": crosstalk.overlapping_pairs(), "opened_s": opened,
        });
        println!("{told}");
        return Ok(());
    }
    let mut streams = Vec::new();
    for n in 0..connections {
        streams.push(shaken_from(url, Some(SOURCES[n % 4])).await?);
    }
    let text = message(&"c".repeat(44), 7);
    let frame = harness_ws::codec::Frame::text(text.as_str()).masked([1, 2, 3, 4]).encoded();
    let expected = frame.len() - 4;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut stream in streams {
        let frame = frame.clone();
        tasks.spawn(async move {
            let mut buffer = [0; 256];
            for _ in 0..trips {
                stream.write_all(&frame).await?;
                stream.read_exact(&mut buffer[..expected]).await?;
            }
            Ok::<_, std::io::Error>(stream)
        });
    }
    let mut held = Vec::new();
    while let Some(done) = tasks.join_next().await {
        held.push(done??);
    }
    println!("{}", json!({ "rate": total / begun.elapsed().as_secs_f64() }));
    Ok(())
}

/// A message with an octet changed, or what is left of it.
fn damaged(draw: &mut impl FnMut() -> u64) -> String {
    const MESSAGES: [&str; 3] = [
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\ud83d\ude00"}]}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no","data":[1.5,true]}}"#,
        r#"[{"jsonrpc":"2.0","id":-7.0,"result":1e400},{"jsonrpc":"2.0","method":"n"}]"#,
    ];
    let mut bytes = MESSAGES[draw() as usize % MESSAGES.len()].as_bytes().to_vec();
    let at = draw() as usize % bytes.len();
    match draw() % 3 {
        0 => bytes[at] = draw() as u8,
        1 => bytes.truncate(at),
        _ => bytes.splice(at..at, [b'['; 200]).for_each(drop),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Octets that are no frames, and frames with a bit turned, into the decoder, and damaged messages into what reads them: no
/// panic, no memory beyond the bound.
pub(crate) fn fuzz(asked: &Asked) -> Result<Vec<Measured>> {
    let limit = asked.times(Duration::from_secs(60), Duration::from_secs(2));
    let (begun, mut state, mut inputs, mut refused) = (Instant::now(), 0x9e37_79b9_7f4a_7c15_u64, 0_u64, 0_u64);
    let pattern = Pattern::from(json!({"jsonrpc": "2.0", "id": 1}));
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while inputs < 10_000_000 && begun.elapsed() < limit {
        for _ in 0..1_000 {
            let mut bytes = Vec::with_capacity(64);
            for _ in 0..draw() % 4 {
                let payload: Vec<u8> = (0..draw() % 20).map(|_| draw() as u8 & 0x7f).collect();
                let mut frame =
                    harness_ws::codec::Frame::new((draw() % 3) as u8 + if draw() % 4 == 0 { 8 } else { 0 }, payload);
                frame.fin = draw() % 3 > 0;
                frame.encode_into(&mut bytes);
            }
            match draw() % 3 {
                0 => bytes.extend((0..draw() % 24).map(|_| draw() as u8)),
                1 if !bytes.is_empty() => {
                    let at = draw() as usize % bytes.len();
                    bytes[at] ^= 1 << (draw() % 8);
                }
                _ => {}
            }
            if draw() % 4 == 0 {
                refused += u64::from(std::hint::black_box(pattern.check(&damaged(&mut draw))).is_err());
                inputs += 1;
                continue;
            }
            let role = if draw() % 8 == 0 { Side::Server } else { Side::Client };
            let mut decoder = Decoder::new(role).largest_message(1 << 16);
            let piece = draw() as usize % 16 + 1;
            for piece in bytes.chunks_mut(piece) {
                if decoder.feed(piece, &mut |event| _ = std::hint::black_box(event)).is_err() {
                    refused += 1;
                    break;
                }
            }
            if decoder.held() > 1 << 17 {
                return Err("the decoder holds more than it may".into());
            }
            inputs += 1;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    Ok(vec![Measured::count("ws.fuzz_inputs", &[inputs]).detail("refused", refused).detail("seconds", took)])
}
