//! What has to be a process of its own: echo servers, ours and the others', and fleets whose memory is counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use harness_ws::Fleet;
use harness_ws::server::{Act, MockServer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use peers_common::Result;

/// Plays a part and ends.
pub(crate) fn play(words: &[String]) -> Result {
    let word = |n: usize| words.get(n).map(String::as_str).ok_or("a word is missing");
    match word(0)? {
        "serve" => one_thread().block_on(serve(word(1)?)),
        "idle" => one_thread().block_on(idle(word(1)?, word(2)?, word(3)?.parse()?)),
        "storm" => one_thread().block_on(crate::rates::storm(word(1)?, word(2)?, word(3)?.parse()?, word(4)?.parse()?)),
        other => Err(format!("`{other}` is no part").into()),
    }
}

/// The runtime of everybody: one thread.
pub(crate) fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built")
}

/// A program of this binary.
pub(crate) fn start(words: &[&str]) -> Result<Child> {
    let here = std::env::current_exe()?;
    Ok(Command::new(here).arg("child").args(words).stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?)
}

/// An echo server, ended when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// `ws://127.0.0.1:port/`.
    pub(crate) url: String,
}

impl Server {
    /// Of this kind: `ours`, `tungstenite`, `tokio-websockets` or `fastwebsockets`.
    pub(crate) fn start(kind: &str) -> Result<Self> {
        Self::read(start(&["serve", kind])?)
    }

    /// A program that prints its address.
    pub(crate) fn read(mut child: Child) -> Result<Self> {
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut url)?;
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

async fn serve(kind: &str) -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ws://{}/", listener.local_addr()?);
    if kind == "ours" {
        let _server = MockServer::on(listener, Act::Echo)?;
        std::future::pending::<()>().await;
        return Ok(());
    }
    let kind = match kind {
        "tungstenite" => 0,
        "tokio-websockets" => 1,
        "fastwebsockets" => 2,
        other => return Err(format!("`{other}` is no server").into()),
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            match kind {
                0 => tungstenite(stream).await,
                1 => tokio_websockets(stream).await,
                _ => fastwebsockets(stream).await,
            }
        });
    }
}

async fn tungstenite(stream: TcpStream) -> Option<()> {
    let mut ws = tokio_tungstenite::accept_async(stream).await.ok()?;
    while let Some(Ok(message)) = ws.next().await {
        if message.is_text() || message.is_binary() {
            ws.send(message).await.ok()?;
        }
    }
    Some(())
}

async fn tokio_websockets(stream: TcpStream) -> Option<()> {
    let (_, mut ws) = tokio_websockets::ServerBuilder::new().accept(stream).await.ok()?;
    while let Some(Ok(message)) = ws.next().await {
        if message.is_text() || message.is_binary() {
            // What is buffered already is answered together.
            ws.feed(message).await.ok()?;
            while let Some(Some(Ok(message))) = futures_util::FutureExt::now_or_never(ws.next()) {
                if message.is_text() || message.is_binary() {
                    ws.feed(message).await.ok()?;
                }
            }
            ws.flush().await.ok()?;
        }
    }
    Some(())
}

async fn fastwebsockets(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let key = text
        .lines()
        .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")))?
        .1;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    let mut ws = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    loop {
        let frame = ws.read_frame().await.ok()?;
        match frame.opcode {
            OpCode::Close => return Some(()),
            OpCode::Text | OpCode::Binary => ws.write_frame(frame).await.ok()?,
            _ => {}
        }
    }
}

/// Opens connections, has each echo once, and says what memory each costs.
async fn idle(kind: &str, url: &str, connections: usize) -> Result {
    let before = resident();
    let per = |now: u64| (now.saturating_sub(before)) as f64 / connections as f64;
    match kind {
        "ours" => {
            let mut fleet = Fleet::of(url).connections(connections).limit(Duration::from_secs(30)).open().await?;
            fleet.echo(&"x".repeat(128)).await?;
            println!("{}", json!({ "kib": per(resident()) }));
        }
        _ => {
            let mut open = Vec::new();
            for _ in 0..connections {
                let (mut ws, _) = tokio_tungstenite::connect_async(url).await?;
                ws.send("x".repeat(128).into()).await?;
                let _ = ws.next().await;
                open.push(ws);
            }
            println!("{}", json!({ "kib": per(resident()) }));
        }
    }
    Ok(())
}

/// Resident memory of this process in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
