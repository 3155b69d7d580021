//! Opening a connection, and every way in which a server does not open one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness_ws::{End, ErrorKind, Refusal, Result, Ws};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::server;

#[tokio::test]
async fn refusal_carries_status_headers_and_body_without_secrets() {
    let answer =
        b"HTTP/1.1 401 Unauthorized\r\nRetry-After: 3\r\nSet-Cookie: sid=verysecret\r\ncontent-length: 37\r\n\r\n\
        {\"error\":\"no agent\",\"token\":\"hidden\"}\n";
    let (url, _guard) = server::answering(answer).await;
    let error = Ws::connect(format!("{url}?token=alsohidden")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let refusal = Refusal::of(&error).expect("it is a refusal");
    assert_eq!((refusal.status, refusal.header("retry-after")), (401, Some("3")));
    assert_eq!(refusal.body.trim_end(), r#"{"error":"no agent","token":"***"}"#);
    let text = format!("{error:?}");
    for part in ["refused with status 401", "retry-after: 3", "no agent", "token=***"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("hidden") && !text.contains("verysecret"), "{text}");
}

#[tokio::test]
async fn answer_that_breaks_the_handshake_is_named() {
    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    const GARBAGE: &[u8] = b"SSH-2.0-OpenSSH_9\r\n\r\n";
    const NO_UPGRADE: &[u8] = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n";
    const NO_CONNECTION: &[u8] = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n";
    const WRONG_KEY: &[u8] =
        b"HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n";
    for (answer, kind, part) in [
        (PLAIN, ErrorKind::Connect, "refused with status 200"),
        (GARBAGE, ErrorKind::Protocol, "not HTTP/1.1: \"SSH"),
        (b"".as_slice(), ErrorKind::Protocol, "not HTTP/1.1: \"\""),
        (b"HTTP/1.1 101 cut", ErrorKind::Protocol, "lacks `Upgrade"),
        (NO_UPGRADE, ErrorKind::Protocol, "lacks `Upgrade"),
        (NO_CONNECTION, ErrorKind::Protocol, "lacks `Connection"),
        (WRONG_KEY, ErrorKind::Protocol, "Sec-WebSocket-Accept"),
    ] {
        let (url, _guard) = server::answering(answer).await;
        let error = Ws::connect(&url).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(error.kind() == kind && text.contains(part), "{part}: {text}");
        assert!(matches!(End::of(&error), Some(End::HandshakeRejected(_))));
    }
}

#[tokio::test]
async fn closed_port_silence_and_bad_addresses_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Ws::connect(format!("ws://{free}/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(format!("{error:?}").contains("refused") && error.remedy_text().is_some(), "{error:?}");

    let (url, _guard) = server::tcp(|mut socket| async move {
        let mut all = Vec::new();
        let _ = socket.read_to_end(&mut all).await;
    })
    .await;
    let error = Ws::builder(&url).open_limit(Duration::from_millis(100)).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.what().ends_with("did not answer the handshake within 100 ms"), "{error:?}");

    for (url, part) in
        [("", "not a URL"), ("http://127.0.0.1/", "scheme is not ws"), ("ws://u:hidden@127.0.0.1/", "no user name")]
    {
        let error = Ws::connect(url).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(error.kind() == ErrorKind::Config && text.contains(part) && !text.contains("hidden"), "{url}: {text}");
    }
    let error = Ws::builder("ws://127.0.0.1:1/").header("x", "a\r\nb: c").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn query_headers_and_subprotocol_arrive_as_they_should() -> Result {
    let heads = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&heads);
    let (url, _guard) = server::tcp(move |mut socket| {
        let kept = Arc::clone(&kept);
        async move { *kept.lock().unwrap() = server::read_head(&mut socket).await }
    })
    .await;
    let connect = Ws::builder(&url).query("agent_id", "ü a+b&c").query("x", "1").bearer("tok").subprotocol("mcp");
    assert!(connect.connect().await.is_err());
    let head = heads.lock().unwrap().clone();
    assert!(head.starts_with("GET /ws?agent_id=%C3%BC%20a%2Bb%26c&x=1 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("Authorization: Bearer tok\r\n") && head.contains("Sec-WebSocket-Protocol: mcp\r\n"),
        "{head}"
    );
    Ok(())
}
