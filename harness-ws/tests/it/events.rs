//! Streams of events from a server that breaks off, repeats, skips, or keeps everything for a slow reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use harness_core::client::Http;
use harness_ws::events::{Delivery, Guarantee, SlowConsumer, SseStream, Subscription};
use harness_ws::{ErrorKind, Result};
use tokio::io::AsyncWriteExt as _;

use crate::server::{self, Guard};

const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    ResumesOneLate,
    ResumesOneEarly,
    ForgetsTheCursor,
    SendsOneTwice,
    SkipsOne,
    SwapsTwo,
}

/// Sends events 0 to 9 and a marker; breaks off after the first four.
async fn feed(bug: Bug) -> (String, Guard) {
    let connections = Arc::new(AtomicUsize::new(0));
    let (url, guard) = server::tcp(move |mut socket| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let head = server::read_head(&mut socket).await.to_ascii_lowercase();
            let cursor =
                head.split("last-event-id: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<i64>().ok());
            let from = cursor.map_or(0, |id| id + 1);
            let from = match (bug, cursor) {
                (Bug::ResumesOneLate, Some(_)) => from + 1,
                (Bug::ResumesOneEarly, Some(_)) => from - 1,
                (Bug::ForgetsTheCursor, _) => 0,
                _ => from,
            };
            let mut events: Vec<i64> = (from..10).collect();
            let place = |events: &[i64], id| events.iter().position(|event| *event == id);
            match bug {
                Bug::SendsOneTwice if !first => events.insert(0, 6),
                Bug::SkipsOne => events.retain(|id| *id != 7),
                Bug::SwapsTwo => {
                    if let Some(at) = place(&events, 8) {
                        events.swap(at, at - 1);
                    }
                }
                _ => {}
            }
            let mut text =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n".to_owned();
            let most = if first { 4 } else { events.len() };
            for id in events.into_iter().take(most) {
                text.push_str(&format!("id: {id}\r\ndata: event-{id}\r\n\r\n"));
            }
            text.push_str(if first { "id: 4\ndata: half an ev" } else { "data: the-end\n\n" });
            let _ = socket.write_all(text.as_bytes()).await;
        }
    })
    .await;
    (url.replace("ws://", "http://").replace("/ws", ""), guard)
}

async fn judge(bug: Bug) -> Result<String> {
    let (base, _guard) = feed(bug).await;
    let http = Http::new(base)?;
    let mut delivery = Delivery::new();
    delivery.subscribe("one", ["all"]);
    for id in 0..10 {
        delivery.published("all", &format!("event-{id}"));
    }
    let mut one = Subscription::open(&http, "/events", "one").await?;
    one.drain(&mut delivery, "the-end", LIMIT, |event| Some(("all".to_owned(), event.data.clone()))).await?;
    Ok(delivery.judge(Guarantee::ExactlyOnce).outcome().to_string())
}

#[tokio::test]
async fn stream_that_breaks_off_is_resumed_without_gap_and_each_defect_is_named() -> Result {
    for (bug, said) in [
        (Bug::None, "pass: one: 10 of 10 events"),
        (Bug::ResumesOneLate, "fail: one: 1 lost: event-4"),
        (Bug::ResumesOneEarly, "fail: one: 1 duplicated: event-3"),
        (Bug::ForgetsTheCursor, "fail: one: 4 duplicated"),
        (Bug::SendsOneTwice, "fail: one: 1 duplicated: event-6"),
        (Bug::SkipsOne, "fail: one: 1 lost: event-7"),
        (Bug::SwapsTwo, "fail: one: 1 out of order: event-7"),
    ] {
        let outcome = judge(bug).await?;
        assert!(outcome.starts_with(said), "{bug:?}: {outcome} in place of {said}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_stream_and_what_stays_silent_is_told_apart() -> Result {
    let (url, _guard) = server::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let http = Http::new(url.replace("ws://", "http://").replace("/ws", ""))?;
    assert_eq!(SseStream::open(&http, "/").await.unwrap_err().kind(), ErrorKind::Protocol);
    let (url, _guard) = server::tcp(|mut socket| async move {
        server::read_head(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let http = Http::new(url.replace("ws://", "http://").replace("/ws", ""))?;
    let mut silent = SseStream::open(&http, "/").await?;
    assert_eq!(silent.next(Duration::from_millis(50)).await.unwrap_err().kind(), ErrorKind::Timeout);
    silent.break_off();
    assert_eq!(silent.next(LIMIT).await?, None);
    Ok(())
}

#[tokio::test]
async fn server_that_keeps_everything_for_a_slow_reader_is_caught() -> Result {
    let (url, _guard) = server::tcp(|mut socket| async move {
        server::read_head(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let http = Http::new(url.replace("ws://", "http://").replace("/ws", ""))?;
    let slow = SlowConsumer { most_growth: 1000, rounds: 10, every: Duration::from_millis(1) };
    // The memory of the server is told by the test: growing with every event, or bounded.
    for (kept_of_each, fails) in [(500, true), (0, false)] {
        let memory = AtomicU64::new(10_000);
        let publish = async || {
            memory.fetch_add(kept_of_each, Ordering::SeqCst);
            Ok(())
        };
        let outcome = slow.run(&http, "/", publish, async || Ok(memory.load(Ordering::SeqCst))).await?;
        assert_eq!(outcome.is_fail(), fails, "{outcome}");
    }
    Ok(())
}
