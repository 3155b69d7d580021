//! Frames taken on the way: what a client sees, and that it bit.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use harness_core::fault::{Fault as _, Towards, inject};
use harness_ws::{End, ErrorKind, Result, Ws, tap};

use crate::server;

/// A server that says back what it hears, and its address.
async fn echo() -> (SocketAddr, server::Guard) {
    let (url, guard) = server::websocket(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if message.is_close() || ws.send(message).await.is_err() {
                break;
            }
        }
    })
    .await;
    let host = url.trim_start_matches("ws://").split('/').next().unwrap_or_default().to_owned();
    (host.parse().expect("the server's address"), guard)
}

/// What of three messages comes back, and how it ended.
async fn three(at: SocketAddr) -> Result<(Vec<String>, Option<End>)> {
    let mut ws = Ws::connect(format!("ws://{at}/")).await?;
    let mut heard = Vec::new();
    for word in ["one", "two", "three"] {
        if ws.send_raw(word).await.is_err() {
            break;
        }
        match ws.receive().within(std::time::Duration::from_millis(500)).await {
            Ok(message) => heard.push(message.text().unwrap_or_default().to_owned()),
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            Err(_) => break,
        }
    }
    Ok((heard, ws.end().cloned()))
}

#[tokio::test]
async fn connection_dies_after_the_second_frame_of_the_server_and_lives_when_healed() -> Result {
    let (server, _guard) = echo().await;
    let dies = tap::cut_after(server, Towards::Client, 2)?;
    let at = dies.address();
    assert_eq!(three(at).await?.0, ["one", "two", "three"]);
    let dies = inject(dies).await?;
    assert!(dies.check_did_bite().is_err(), "no frame was taken yet");
    let (heard, end) = three(at).await?;
    assert_eq!(heard, ["one", "two"]);
    assert!(matches!(end, None | Some(End::Eof | End::Reset)), "without a close frame: {end:?}");
    assert_eq!(dies.bites().to_string(), "1 frames taken");
    dies.heal().await?;
    Ok(())
}

#[tokio::test]
async fn lost_frame_is_missed_and_the_next_one_is_not() -> Result {
    let (server, _guard) = echo().await;
    let lost = tap::lost(server, Towards::Server, 2)?;
    lost.inject().await?;
    assert_eq!(three(lost.address()).await?.0, ["one", "three"]);
    lost.check_did_bite()?;
    lost.heal().await?;
    lost.heal().await?;
    assert_eq!(three(lost.address()).await?.0, ["one", "two", "three"]);
    let record = lost.tap().record();
    assert!(record.iter().any(|frame| frame.text == "text 2 of 3 octets"), "{record:?}");
    assert_eq!(tap::lost(server, Towards::Client, 0).unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}
