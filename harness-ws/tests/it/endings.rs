//! How streams end, and that each end is told apart.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use harness_ws::{End, ErrorKind, Result, Ws};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message as Wire;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::server;

const SHORT: Duration = Duration::from_millis(150);

/// A server that sends raw bytes after the handshake, then acts.
async fn raw(bytes: &'static [u8], reset: bool) -> (String, server::Guard) {
    server::websocket(move |ws| async move {
        let mut socket = ws.into_inner();
        let _ = socket.write_all(bytes).await;
        if reset {
            // The client's message is left unread and lingering is off: the kernel resets.
            let _ = socket.readable().await;
            let _ = socket.set_zero_linger();
        }
    })
    .await
}

#[tokio::test]
async fn every_end_has_its_own_name() -> Result {
    let (url, _guard) = server::websocket(|mut ws| async move {
        let _ = ws.send(Wire::text("last words")).await;
        let _ = ws.close(Some(CloseFrame { code: 1001.into(), reason: "deploying".into() })).await;
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let mut ws = Ws::connect(&url).await?;
    let end = ws.expect_end().await?;
    assert_eq!(end, End::Close { code: 1001, reason: "deploying".to_owned() });
    assert!(end.is_close(1001) && !end.is_close(1000));
    assert_eq!(ws.receive().await?.text(), Some("last words"));
    let error = ws.expect(json!({})).await.unwrap_err();
    assert_eq!((error.kind(), End::of(&error)), (ErrorKind::Connect, Some(&end)));
    assert!(format!("{error:?}").contains("deploying"), "{error:?}");
    assert_eq!(ws.send("x").await.unwrap_err().kind(), ErrorKind::Connect);
    assert_eq!(ws.close().await?, end);

    for (bytes, reset) in [(b"".as_slice(), false), (b"\x81\x05hel", false), (b"\x81", false), (b"", true)] {
        let (url, _guard) = raw(bytes, reset).await;
        let mut ws = Ws::connect(&url).await?;
        if reset {
            ws.send("never read").await?;
        }
        assert_eq!(ws.expect_end().await?, if reset { End::Reset } else { End::Eof }, "{bytes:?}");
    }
    Ok(())
}

#[tokio::test]
async fn frames_that_break_the_protocol_are_violations() -> Result {
    for bytes in
        [b"\x83\x00".as_slice(), b"\x81\x81\x00\x00\x00\x00a", b"\xc1\x01a", b"\x81\x01\xff", b"\x80\x01a", b"\x09\x00"]
    {
        let (url, _guard) = raw(bytes, false).await;
        let mut ws = Ws::connect(&url).await?;
        let end = ws.expect_end().await?;
        assert!(matches!(end, End::Violation { .. }), "{bytes:?}: {end}");
    }
    let (url, _guard) = server::saying(&["0123456789"]).await;
    let mut ws = Ws::builder(&url).largest_message(9).connect().await?;
    assert!(matches!(ws.expect_end().await?, End::Violation { .. }));
    Ok(())
}

#[tokio::test]
async fn close_is_answered_or_the_lack_of_it_is_said() -> Result {
    let (url, _guard) = server::saying(&["{\"late\":1}"]).await;
    let mut ws = Ws::connect(&url).await?;
    assert_eq!(ws.close_with(4001, "enough").await?, End::Close { code: 4001, reason: "enough".to_owned() });
    assert_eq!(ws.unread().len(), 1);

    let (url, _guard) = server::websocket(|ws| async move {
        let mut all = Vec::new();
        let _ = ws.into_inner().read_to_end(&mut all).await;
    })
    .await;
    let mut ws = Ws::builder(&url).limit(SHORT).connect().await?;
    let error = ws.close().await.unwrap_err();
    assert_eq!((error.kind(), End::of(&error)), (ErrorKind::Timeout, Some(&End::Timeout)));
    Ok(())
}

#[tokio::test]
async fn peer_that_reads_no_more_is_a_timeout_of_the_sender() -> Result {
    let (url, _guard) = server::websocket(|ws| async move {
        let _held = ws;
        std::future::pending::<()>().await;
    })
    .await;
    let mut ws = Ws::builder(&url).limit(SHORT).connect().await?;
    let error = ws.send(vec![0_u8; 64 << 20]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.what().contains("could not send binary"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn client_that_closes_is_heard_by_the_server() -> Result {
    let (said, hears) = std::sync::mpsc::channel();
    let (url, _guard) = server::websocket(move |mut ws| {
        let said = said.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                if let Wire::Close(frame) = message {
                    let _ = said.send(frame.map(|frame| u16::from(frame.code)));
                }
            }
        }
    })
    .await;
    let mut ws = Ws::connect(&url).await?;
    ws.close().await?;
    assert_eq!(hears.recv_timeout(Duration::from_secs(10))?, Some(1000));
    Ok(())
}
