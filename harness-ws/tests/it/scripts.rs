//! Scripts on both sides, recordings and their replay, TLS, fleets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use harness_ws::server::{Act, MockServer};
use harness_ws::{ErrorKind, Fence, Fleet, Recording, Result, Script, Ws, capture, kept};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Packet;

use crate::server;

const SHORT: Duration = Duration::from_millis(300);

fn service() -> Script {
    Script::new()
        .send(json!({"method": "welcome", "params": {"session_id": "s-1"}}))
        .expect(json!({"id": capture::any(), "method": "add", "params": {"by": capture::number()}}))
        .keep("by", "/params/by")
        .send(json!({"id": kept("/id"), "result": {"sum": kept("by")}}))
        .expect_close(1000)
}

fn client() -> Script {
    Script::new()
        .expect(json!({"method": "welcome", "params": {"session_id": capture::string()}}))
        .keep("session", "/params/session_id")
        .send(json!({"id": 1, "method": "add", "params": {"by": 5, "session": kept("session")}}))
        .expect(json!({"id": 1, "result": {"sum": 5}}))
        .silence(Fence::Ping)
        .close(1000, "")
}

#[tokio::test]
async fn one_script_type_plays_both_sides() -> Result {
    let server = MockServer::start(Act::Play(service())).await?;
    let mut ws = Ws::connect(server.url()).await?;
    let played = client().play(&mut ws).await?;
    assert_eq!((played.sent, played.matched, played.kept.get("session")), (1, 2, Some(&json!("s-1"))));
    server.check(1).await?;
    Ok(())
}

#[tokio::test]
async fn step_that_does_not_hold_is_named_on_either_side() -> Result {
    let server = MockServer::start(Act::Play(service().limit(SHORT))).await?;
    let mut ws = Ws::connect(server.url()).await?;
    let wrong = Script::new()
        .send(json!({"id": 1, "method": "subtract"}))
        .expect(json!({"id": 1}))
        .limit(Duration::from_millis(600));
    let error = wrong.play(&mut ws).await.unwrap_err();
    assert!(error.what().starts_with("step 2 of the script did not hold: expect"), "{error:?}");
    drop(ws);
    let error = server.check(1).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && format!("{error:?}").contains("step 2"), "{error:?}");
    let unfilled = Script::new().send(json!({"x": kept("nothing")})).play(&mut Ws::connect(server.url()).await?).await;
    assert_eq!(unfilled.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

/// A service in two builds: the second adds members, and may rename one.
async fn build(renames: bool) -> (String, server::Guard) {
    static SESSION: AtomicUsize = AtomicUsize::new(0);
    server::websocket(move |mut ws| async move {
        let session = format!("s-{}", SESSION.fetch_add(1, Ordering::Relaxed));
        let welcome = json!({"method": "welcome", "params": {"session_id": session}});
        let _ = ws.send(Packet::text(welcome.to_string())).await;
        while let Some(Ok(Packet::Text(text))) = ws.next().await {
            let request: Value = serde_json::from_str(&text).unwrap_or_default();
            let known = request["params"]["session"] == json!(session);
            let name = if renames { "decision" } else { "final_decision" };
            let reply =
                json!({"id": request["id"], "result": {name: "go", "known": known, "added": 1}, "token": "secret"});
            let _ = ws.send(Packet::text(reply.to_string())).await;
        }
    })
    .await
}

async fn recorded(url: &str) -> Result<Recording> {
    let mut ws = Ws::builder(url).record().connect().await?;
    let welcome = ws.expect(json!({"method": "welcome", "params": {"session_id": capture::string()}})).await?;
    ws.send(json!({"id": 1, "params": {"session": welcome.string()?}})).await?;
    ws.expect(json!({"id": 1})).await?;
    Ok(ws.recording().cloned().unwrap_or_default())
}

#[tokio::test]
async fn old_conversation_holds_against_additions_and_breaks_at_a_renamed_member() -> Result {
    let (old, _old) = build(false).await;
    let path = std::env::temp_dir().join(format!("harness-ws-recording-{}.ndjson", std::process::id()));
    recorded(&old).await?.write(&path)?;
    let text = std::fs::read_to_string(&path)?;
    assert!(!text.contains("secret") && text.lines().count() == 3, "{text}");
    let recording = Recording::read(&path)?;
    std::fs::remove_file(&path)?;

    let mut ws = Ws::connect(&old).await?;
    let replayed = recording.replay().open("/params/session_id").run(&mut ws).await?;
    assert_eq!((replayed.sent, replayed.matched, replayed.additional), (1, 2, 0));

    let (new, _new) = build(true).await;
    let mut ws = Ws::connect(&new).await?;
    let error = recording.replay().open("/params/session_id").limit(SHORT).run(&mut ws).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Assertion && error.what().contains("line 3"), "{error:?}");
    assert!(format!("{error:?}").contains("/result/final_decision is missing"), "{error:?}");

    // Without saying that the session id differs, the first line does not come again.
    let error = recording.replay().limit(SHORT).run(&mut Ws::connect(&old).await?).await.unwrap_err();
    assert!(error.what().contains("line 1"), "{error:?}");
    let nothing = Recording::default().replay().run(&mut Ws::connect(&old).await?).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::NoEvidence);
    Ok(())
}

#[tokio::test]
async fn fleet_finds_a_message_that_went_astray_and_none_where_none_did() -> Result {
    let echo = MockServer::start(Act::Echo).await?;
    let mut fleet =
        Fleet::of(echo.url()).connections(200).sources(["127.0.0.2".parse()?, "127.0.0.3".parse()?]).open().await?;
    fleet.echo("warm").await?;
    let message = |canary: &str, n: u32| format!("{{\"id\":{n},\"echo\":\"{canary}\"}}");
    let crosstalk = fleet.canaried(5, message).await?;
    assert!(crosstalk.outcome().is_pass(), "{}", crosstalk.outcome());
    assert!(crosstalk.messages() == 1000 && crosstalk.overlapping_pairs() > 1000, "{crosstalk:?}");
    assert_eq!(fleet.len(), 200);

    // A server that keeps the last message of anybody and sends it, once, to whoever comes next.
    let (last, count) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicUsize::new(0)));
    let (leaky, _guard) = server::websocket(move |mut ws| {
        let (last, count) = (Arc::clone(&last), Arc::clone(&count));
        async move {
            while let Some(Ok(message)) = ws.next().await {
                let Packet::Text(text) = &message else { continue };
                let before = std::mem::replace(&mut *last.lock().expect("nobody panics"), text.to_string());
                if count.fetch_add(1, Ordering::Relaxed) == 100 {
                    let _ = ws.send(Packet::text(before)).await;
                }
                let _ = ws.send(message).await;
            }
        }
    })
    .await;
    let mut fleet = Fleet::of(&leaky).connections(50).open().await?;
    let crosstalk = fleet.canaried(5, message).await?;
    assert!(crosstalk.outcome().is_fail(), "{}", crosstalk.outcome());
    let leak = crosstalk.leaks().first().expect("it is kept");
    assert!(leak.sender != leak.receiver && crosstalk.leaks().len() == 1, "{leak}");

    let nobody = Fleet::of(&leaky).connections(0).open().await?.canaried(1, message).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NoEvidence);
    Ok(())
}

#[tokio::test]
async fn conversation_over_tls_needs_a_certificate_that_is_trusted() -> Result {
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{ServerConfig, crypto};
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key that was just made");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (url, _guard) = server::tcp(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(tls) = acceptor.accept(socket).await else { return };
            let Ok(mut ws) = tokio_tungstenite::accept_async(tls).await else { return };
            while let Some(Ok(message)) = ws.next().await {
                let _ = ws.send(message).await;
            }
        }
    })
    .await;
    let url = url.replace("ws://127.0.0.1", "wss://localhost");
    let mut ws = Ws::builder(&url).trust(made.cert.pem().as_bytes())?.connect().await?;
    ws.send("hello").await?;
    assert_eq!(ws.receive().await?.text(), Some("hello"));
    ws.close().await?;
    let stranger = Ws::connect(&url).await.unwrap_err();
    assert!(stranger.kind() == ErrorKind::Connect && stranger.what().contains("TLS"), "{stranger:?}");
    assert_eq!(Ws::builder(&url).trust(b"nothing").unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}
