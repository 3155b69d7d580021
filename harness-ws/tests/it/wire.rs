//! Frames, faults and bad input: a typed end within the deadline, whatever the peer does.

use std::time::{Duration, Instant};

use harness_ws::codec::{Frame, Heard, opcode};
use harness_ws::server::{Act, MockServer};
use harness_ws::{End, ErrorKind, Fault, Refusal, Result, Wire, Ws};
use serde_json::json;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn frames_are_sent_as_they_are_and_heard_as_they_come() -> Result {
    let server = MockServer::start(Act::Echo).await?;
    let mut wire = Wire::connect(server.url()).await?;
    wire.fault(Fault::Chopped {
        frame: Frame::text("piecemeal").masked([1, 2, 3, 4]),
        octets: 2,
        pause: Duration::ZERO,
    })
    .await?;
    assert_eq!(wire.hear().await?, Heard::Text("piecemeal".into()));
    wire.send_binary(&[0xff; 70_000]).await?;
    assert_eq!(wire.hear().await?, Heard::Binary(vec![0xff; 70_000]));
    wire.fault(Fault::PingFlood(1_000)).await?;
    for n in 0..1_000 {
        assert_eq!(wire.hear().await?, Heard::Pong(format!("flood-{n}").into_bytes()));
    }
    wire.send_frame(&Frame::close(1000, "").masked([0; 4])).await?;
    assert_eq!(wire.hear().await?, Heard::Close { code: Some(1000), reason: String::new() });
    assert_eq!(wire.hear_end().await?, End::Close { code: 1000, reason: String::new() });
    assert!(wire.transcript().lines().last().is_some_and(|line| line.contains("1000")), "{:?}", wire.transcript());
    Ok(())
}

#[tokio::test]
async fn each_fault_of_a_client_ends_a_strict_server_in_its_own_way() -> Result {
    let server = MockServer::start(Act::Echo).await?;
    let closed = |code| Some(Heard::Close { code: Some(code), reason: String::new() });
    for (fault, said) in [
        (Fault::RawFrame(Frame::text("unmasked")), closed(1002)),
        (Fault::RawFrame(Frame::new(opcode::PING, "").unfinished().masked([7; 4])), closed(1002)),
        (Fault::InvalidUtf8 { at: 3, octets: 10 }, closed(1007)),
        (Fault::Oversized { announced: 1 << 40, sent: 10 }, closed(1009)),
        (Fault::FinOnly, None),
    ] {
        let mut wire = Wire::connect(server.url()).await?;
        wire.fault(fault.clone()).await?;
        assert_eq!(wire.hear().await.ok(), said, "{fault:?}");
    }
    let mut wire = Wire::connect(server.url()).await?;
    wire.fault(Fault::Reset).await?;
    assert_eq!(wire.hear_end().await?, End::Reset);
    assert_eq!(wire.send_text("late").await.unwrap_err().kind(), ErrorKind::Connect);
    Ok(())
}

#[tokio::test]
async fn each_fault_of_a_server_is_a_typed_end_of_the_client() -> Result {
    for (fault, expected) in [
        (Fault::Reset, "the peer reset TCP"),
        (Fault::FinOnly, "the peer closed TCP"),
        (Fault::RawFrame(Frame::text("masked").masked([1; 4])), "given up"),
        (Fault::RawFrame(Frame::text("compressed").reserved(4)), "given up"),
        (Fault::RawFrame(Frame::new(0x5, "")), "given up"),
        (Fault::InvalidUtf8 { at: 0, octets: 5 }, "given up"),
        (Fault::Oversized { announced: 1 << 30, sent: 1 << 20 }, "given up"),
    ] {
        let server = MockServer::start(Act::Misbehave(vec![fault.clone()])).await?;
        let mut ws = Ws::connect(server.url()).await?;
        let end = ws.expect_end().await?;
        assert!(end.to_string().starts_with(expected), "{fault:?} with Ws: {end}");
        let mut wire = Wire::connect(server.url()).await?;
        let end = wire.hear_end().await?;
        assert!(end.to_string().starts_with(expected), "{fault:?} with Wire: {end}");
    }
    Ok(())
}

#[tokio::test]
async fn silent_line_is_a_timeout_and_a_flood_is_survived() -> Result {
    let server = MockServer::start(Act::Misbehave(vec![Fault::BlackHole(Duration::from_secs(20))])).await?;
    let mut ws = Ws::builder(server.url()).limit(SHORT).connect().await?;
    ws.send("anybody?").await?;
    assert_eq!(ws.receive().await.unwrap_err().kind(), ErrorKind::Timeout);

    let server = MockServer::start(Act::Misbehave(vec![Fault::StopReading(Duration::from_secs(20))])).await?;
    let mut wire = Ws::builder(server.url()).limit(SHORT).connect_wire().await?;
    let begun = Instant::now();
    let error = wire.send_binary(&vec![0; 64 << 20]).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && begun.elapsed() < Duration::from_secs(10), "{error:?}");

    let server = MockServer::start(Act::Misbehave(vec![Fault::PingFlood(2_000)])).await?;
    let mut ws = Ws::connect(server.url()).await?;
    ws.send(json!({"n": 1})).await?;
    ws.expect(json!({"n": 1})).await?;
    Ok(())
}

#[tokio::test]
async fn handshake_that_is_not_one_is_named() -> Result {
    let server = MockServer::start(Act::NeverAnswer).await?;
    let error = Ws::builder(server.url()).open_limit(SHORT).connect().await.unwrap_err();
    assert_eq!((error.kind(), End::of(&error)), (ErrorKind::Timeout, Some(&End::Timeout)));
    let wrong = b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n";
    let server = MockServer::start(Act::Answer(wrong.to_vec())).await?;
    let error = Wire::connect(server.url()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Protocol && Refusal::of(&error).is_some_and(|refusal| refusal.status == 101));
    let server = MockServer::start(Act::Answer(vec![0xff; 100_000])).await?;
    assert_eq!(Wire::connect(server.url()).await.unwrap_err().kind(), ErrorKind::Protocol);
    Ok(())
}

#[tokio::test]
async fn slow_client_gets_in_where_a_server_is_patient() -> Result {
    let server = MockServer::start(Act::Echo).await?;
    let mut ws = Ws::builder(server.url()).trickled(Duration::from_micros(50)).connect().await?;
    ws.send("hello").await?;
    assert_eq!(ws.receive().await?.text(), Some("hello"));
    Ok(())
}
