//! Packed bodies over real sockets, both directions, and those that a hostile server sends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{CallFailure, Http, Packing, Stage};
use crate::error::{CoreResult, ErrorKind};

const TEXT: &str = "{\"text\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}";

/// A server that reads one request and answers it by this body; gives its base address, the head and the body it read.
async fn server(coding: &'static str, body: Vec<u8>) -> (String, JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let (head, rest) = loop {
            assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
            let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.lines().next().unwrap_or_default().trim().parse::<usize>().unwrap_or_default());
            if request.len() >= end + 4 + length {
                break (head, request.split_off(end + 4));
            }
        };
        let coding = if coding.is_empty() { String::new() } else { format!("content-encoding: {coding}\r\n") };
        let answer = format!("HTTP/1.1 200 OK\r\n{coding}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        // In pieces: the client has to join them.
        for piece in body.chunks(1000) {
            if socket.write_all(piece).await.is_err() {
                break; // it has seen enough
            }
            let _ = socket.flush().await;
        }
        let _ = socket.shutdown().await;
        (head, rest)
    });
    (base, task)
}

#[tokio::test]
async fn packed_answer_is_unpacked_where_that_was_asked_for_and_left_alone_where_not() -> CoreResult {
    for packing in [Packing::Gzip, Packing::Deflate] {
        let packed = packing.pack(TEXT.as_bytes())?;
        let (base, task) = server(packing.name(), packed.clone()).await;
        let answer = Http::new(base)?.unpacks(1 << 20).get("/").await?;
        assert_eq!((answer.text()?.as_str(), answer.received()), (TEXT, packed.len()));
        assert_eq!(answer.at::<String>("/text")?.len(), TEXT.len() - 11);
        assert!(task.await.unwrap().0.contains("accept-encoding: gzip, deflate"));

        let (base, task) = server(packing.name(), packed.clone()).await;
        let answer = Http::new(base)?.get("/").await?;
        assert_eq!((answer.body(), answer.header("content-encoding")), (&packed[..], Some(packing.name())));
        assert!(!task.await.unwrap().0.contains("accept-encoding"), "nobody asked for it");
        let error = answer.text().unwrap_err();
        assert!(format!("{error:?}").contains("Http::unpacks"), "{error:?}");
    }
    let (base, _task) = server("", TEXT.into()).await;
    assert_eq!(Http::new(base)?.unpacks(8).get("/").await?.text()?, TEXT, "no limit for what is not packed");
    Ok(())
}

#[tokio::test]
async fn packed_request_says_so_and_unpacks_to_what_was_meant() -> CoreResult {
    for packing in [Packing::Gzip, Packing::Deflate] {
        let (base, task) = server("", Vec::new()).await;
        Http::new(base)?.post("/x", &serde_json::json!({"a": "b".repeat(10_000)})).packed(packing).await?;
        let (head, body) = task.await.unwrap();
        assert!(head.contains(&format!("content-encoding: {}", packing.name())) && body.len() < 1000, "{head}");
        // What was sent, sent back: the way in is held by tests of its own.
        let (base, _task) = server(packing.name(), body).await;
        let answer = Http::new(base)?.unpacks(1 << 20).get("/").await?;
        assert_eq!(answer.at::<String>("/a")?, "b".repeat(10_000));
    }
    Ok(())
}

#[tokio::test]
async fn hostile_bodies_are_typed_outcomes_of_the_body_with_bounded_memory() -> CoreResult {
    let bomb = Packing::Gzip.pack(&vec![b'a'; 64 << 20])?;
    let whole = Packing::Gzip.pack(TEXT.as_bytes())?;
    let longer = [&whole[..], b"more"].concat();
    for (coding, body, said) in [
        ("gzip", bomb, "unpacks to more than 1048576 bytes"),
        ("gzip", whole[..whole.len() - 1].to_vec(), "ends before its gzip does"),
        ("gzip", longer, "is not gzip"),
        ("deflate", b"\x78\x9c\xff\xff".to_vec(), "is not deflate"),
        ("br", TEXT.into(), "packed as `br`"),
        ("gzip, gzip", whole, "packed as `gzip, gzip`"),
    ] {
        let (base, _task) = server(coding, body).await;
        let error = Http::new(base)?.unpacks(1 << 20).get("/").await.unwrap_err();
        let failure = CallFailure::of(&error).expect("the facts are kept");
        assert_eq!((error.kind(), failure.stage, failure.status), (ErrorKind::Protocol, Stage::Body, Some(200)));
        assert!(error.what().contains(said), "{said}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn stream_is_unpacked_piece_by_piece_and_bodies_have_a_largest_size() -> CoreResult {
    let long: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let packed = Packing::Gzip.pack(long.as_bytes())?;
    let (base, _task) = server("gzip", packed.clone()).await;
    let mut stream = Http::new(base)?.unpacks(1 << 20).get("/").stream().await?;
    let (mut body, mut pieces) = (Vec::new(), 0);
    while let Some(piece) = stream.chunk().await? {
        (body, pieces) = ([&body[..], &piece[..]].concat(), pieces + 1);
    }
    assert!(body == long.as_bytes() && pieces > 1 && stream.received() == packed.len(), "{pieces} pieces");
    for (largest, fits) in [(long.len(), true), (long.len() - 1, false)] {
        let (base, _task) = server("", long.clone().into()).await;
        let came = Http::new(base)?.largest_body(largest).get("/").await;
        assert_eq!(came.is_ok(), fits, "{largest}");
    }
    Ok(())
}
