//! A server of events that keeps everything for who does not read, or only a little: what its memory shows is judged.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use harness_core::client::Http;
use harness_core::scope::TestScope;
use harness_core::service::{Backend, Exec, ServiceSpec};
use harness_ws::Result;
use harness_ws::events::{ResidentMemory, SlowConsumer};

/// Bytes of an event.
const EVENT: usize = 1 << 20;
/// Events that are published: far more than the kernel buffers of a connection.
const ROUNDS: usize = 64;
/// What a server may keep that keeps little, the memory of its threads and of its allocator included.
const MOST: u64 = 24 << 20;

type Push = Box<dyn Fn(Vec<u8>) + Send>;

/// Serves on a port: `GET /events` is a stream, `GET /publish` an event for every stream.
pub(crate) fn serve(port: u16, keeps: bool) -> std::io::Result<()> {
    let queues: Arc<Mutex<Vec<Push>>> = Arc::default();
    for socket in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let (socket, queues) = (socket?, Arc::clone(&queues));
        thread::spawn(move || answer(socket, &queues, keeps));
    }
    Ok(())
}

fn answer(mut socket: TcpStream, queues: &Mutex<Vec<Push>>, keeps: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    if first.contains("/events") {
        let (push, events) = queue(keeps);
        queues.lock().expect("not poisoned").push(push);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")?;
        return events.iter().try_for_each(|event| socket.write_all(&event));
    }
    if first.contains("/publish") {
        for push in queues.lock().expect("not poisoned").iter() {
            push([b"data: ", vec![b'x'; EVENT].as_slice(), b"\n\n"].concat());
        }
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// A queue without an end, or one of two events that throws away what has no place.
fn queue(keeps: bool) -> (Push, Receiver<Vec<u8>>) {
    if keeps {
        let (sender, receiver) = channel();
        return (Box::new(move |event| drop(sender.send(event))), receiver);
    }
    let (sender, receiver) = sync_channel(2);
    (Box::new(move |event| drop(sender.try_send(event))), receiver)
}

pub(crate) async fn server_that_keeps_everything_for_who_does_not_read_is_caught() -> Result {
    let program = std::env::current_exe()?.display().to_string();
    for (mode, fails) in [("keeps", true), ("bounded", false)] {
        let scope = TestScope::new(format!("slow consumer, {mode}"));
        let exec = Exec::new(&program).args(["--feed", "{port}", mode]);
        let server = ServiceSpec::new(format!("feed-{mode}"), Backend::Process(exec)).start(&scope).await?;
        let mut memory = ResidentMemory::of(server.process().await?.expect("the server runs"));
        let http = Http::new(format!("http://{}", server.address()))?;
        let slow = SlowConsumer { most_growth: MOST, rounds: ROUNDS, every: Duration::from_millis(1) };
        let publish = async || http.get("/publish").await?.expect_status(200).map(drop);
        let outcome = slow.run(&http, "/events", publish, async || memory.bytes().await).await?;
        assert_eq!(outcome.is_fail(), fails, "{mode}: {outcome}");
        scope.shutdown().await?;
    }
    Ok(())
}
