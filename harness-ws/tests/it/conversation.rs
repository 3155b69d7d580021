//! Expecting, queueing, calling, and showing silence.

use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use harness_ws::{ErrorKind, Fence, Pattern, Proof, Result, Ws, capture};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Wire;

use crate::server::{self, Bug};

const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn messages_that_do_not_fit_stay_queued_in_order() -> Result {
    let (url, _guard) = server::saying(&["{\"n\":1}", "plain", "{\"n\":2,\"sid\":\"s\"}", "{\"n\":3}"]).await;
    let mut ws = Ws::connect(&url).await?;
    let matched = ws.expect(json!({"n": 2, "sid": capture::string()})).await?;
    assert_eq!((matched.string()?, matched.at::<u64>("/n")?), ("s".to_owned(), 2));
    ws.expect(json!({"n": 3})).await?;
    assert_eq!(ws.unread().len(), 2);
    ws.expect(Pattern::text("plain")).await?;
    assert_eq!(ws.receive().await?.text(), Some("{\"n\":1}"));
    ws.expect_silence(Fence::Ping).await?;
    Ok(())
}

#[tokio::test]
async fn expectation_that_fails_explains_itself_and_prints_the_transcript() -> Result {
    let deep: &'static str = Box::leak(format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into_boxed_str());
    let texts: &'static [&'static str] =
        Box::leak(Box::new(["{\"id\":1.0,\"token\":\"hidden\"}", deep, "{\"id\":1,\"error\":{}}"]));
    let (url, _guard) = server::saying(texts).await;
    let mut ws = Ws::connect(&url).await?;
    ws.send(json!({"id": 1, "password": "hidden"})).await?;
    let error = ws.expect(json!({"id": 1, "result": {}})).within(SHORT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = format!("{error:?}");
    for part in [
        r#"{"id":1,"result":{}} did not come within 150 ms"#,
        "3 unread messages do not fit",
        "/id should be 1 but is 1.0",
        "it is not JSON that can be read",
        "/result is missing",
        "-> text",
        "<- text",
        "20000 B",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("hidden"), "{text}");
    assert_eq!(ws.unread().len(), 3);
    Ok(())
}

#[tokio::test]
async fn nothing_came_is_said_as_such() -> Result {
    let (url, _guard) = server::saying(&[]).await;
    let mut ws = Ws::builder(&url).limit(SHORT).connect().await?;
    let error = ws.expect(json!({})).await.unwrap_err();
    assert!(format!("{error:?}").contains("no message came at all"), "{error:?}");
    assert_eq!(ws.receive().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(ws.expect_end().await.unwrap_err().kind(), ErrorKind::Timeout);
    Ok(())
}

#[tokio::test]
async fn unread_messages_are_bounded_and_the_loss_is_shown() -> Result {
    let (url, _guard) = server::saying(&["1", "2", "3", "4", "{\"last\":true}"]).await;
    let mut ws = Ws::builder(&url).unread_bound(2).connect().await?;
    ws.expect(json!({"last": true})).await?;
    assert_eq!((ws.unread().len(), ws.dropped()), (2, 2));
    assert_eq!(ws.receive().await?.text(), Some("3"));
    let error = ws.expect(json!({})).within(SHORT).await.unwrap_err();
    assert!(format!("{error:?}").contains("2 older unread messages were thrown away"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn waiting_that_is_given_up_loses_nothing() -> Result {
    let (url, _guard) = server::websocket(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if message.is_text() {
                for n in 0..50 {
                    let _ = ws.send(Wire::text(format!("{{\"n\":{n}}}"))).await;
                }
            }
        }
    })
    .await;
    let mut ws = Ws::connect(&url).await?;
    ws.send("go").await?;
    // Polled once and dropped, again and again, until all are read.
    let mut polls = 0;
    while ws.unread().len() < 50 {
        let _ = ws.expect(json!({"n": "never"})).into_future().now_or_never();
        tokio::task::yield_now().await;
        polls += 1;
        assert!(polls < 1_000_000, "only {} of 50 came", ws.unread().len());
    }
    for n in 0..50 {
        ws.expect(json!({"n": n})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn request_takes_its_own_reply_and_leaves_the_others() -> Result {
    let (url, _guard) = server::jsonrpc(Bug::None).await;
    let mut ws = Ws::connect(&url).await?;
    ws.send(json!({"jsonrpc": "2.0", "id": "mine", "method": "ping"})).await?;
    ws.notify("ping", json!(null)).await?;
    assert_eq!(ws.request("ping", json!(null)).await?.result()?, json!({}));
    let refused = ws.request("no/such", json!({})).await?;
    assert_eq!(refused.error_code(), Some(-32601));
    let error = refused.result().unwrap_err();
    assert!(
        error.kind() == ErrorKind::Assertion
            && format!("{error:?}").contains("error -32601")
            && format!("{error:?}").contains("-> text"),
        "{error:?}"
    );
    ws.expect(json!({"method": "welcome"})).await?;
    ws.expect(json!({"id": "mine", "result": {}})).await?;
    assert_eq!(ws.unread().len(), 0);
    Ok(())
}

#[tokio::test]
async fn reply_with_a_float_id_or_without_an_outcome_is_no_reply() -> Result {
    let (url, _guard) = server::jsonrpc(Bug::FloatId).await;
    let mut ws = Ws::connect(&url).await?;
    let error = ws.request("ping", json!(null)).within(SHORT).await.unwrap_err();
    assert!(format!("{error:?}").contains("/id should be 1 but is 1.0"), "{error:?}");
    for bug in [Bug::NullErrorBesideResult, Bug::NullResultBesideError, Bug::CodeIsText] {
        let (url, _guard) = server::jsonrpc(bug).await;
        let mut ws = Ws::connect(&url).await?;
        let method = if bug == Bug::NullErrorBesideResult { "ping" } else { "no/such" };
        let error = ws.request(method, json!(null)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{bug:?}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn silence_is_proven_by_a_fence_and_broken_by_a_message() -> Result {
    for fence in [Fence::Ping, Fence::call("ping"), Fence::Timed(SHORT)] {
        let (url, _guard) = server::jsonrpc(Bug::None).await;
        let mut ws = Ws::connect(&url).await?;
        ws.expect(json!({"method": "welcome"})).await?;
        ws.notify("ping", json!(null)).await?;
        let held = ws.expect_silence(fence.clone()).await?;
        let expected = if fence == Fence::Timed(SHORT) { Proof::TimedOnly } else { Proof::Proven };
        assert_eq!(held.proof, expected);

        let (url, _guard) = server::jsonrpc(Bug::AnswersNotification).await;
        let mut ws = Ws::connect(&url).await?;
        ws.expect(json!({"method": "welcome"})).await?;
        ws.notify("ping", json!(null)).await?;
        let error = ws.expect_silence(fence).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Assertion);
        assert!(format!("{error:?}").contains("1 messages came where silence was expected"), "{error:?}");
        assert_eq!(ws.unread().len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn silence_is_not_shown_by_unread_messages_a_mute_server_or_an_end() -> Result {
    let (url, _guard) = server::saying(&["{\"n\":1}", "{\"n\":2}"]).await;
    let mut ws = Ws::connect(&url).await?;
    ws.expect(json!({"n": 2})).await?;
    assert_eq!(ws.expect_silence(Fence::Ping).await.unwrap_err().kind(), ErrorKind::Assertion);

    let (url, _guard) = server::jsonrpc(Bug::AnswersNothing).await;
    let mut ws = Ws::connect(&url).await?;
    ws.expect(json!({"method": "welcome"})).await?;
    let error = ws.expect_silence(Fence::call("ping")).within(SHORT).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Timeout && error.what().contains("silence is not shown"), "{error:?}");

    let (url, _guard) = server::websocket(|mut ws| async move {
        let _ = ws.next().await;
    })
    .await;
    let mut ws = Ws::connect(&url).await?;
    ws.send("bye").await?;
    assert_eq!(ws.expect_silence(Fence::Timed(SHORT)).await.unwrap_err().kind(), ErrorKind::Connect);
    Ok(())
}
