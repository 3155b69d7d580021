//! Streams of a session over HTTP that break off: each check against a server with just that defect, and the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness_ws::conformance;
use harness_ws::mcp::{EventTurn, HttpTurn, Mcp, McpStub, Profile, Script, StubEvent, Target, Version};
use harness_ws::{ErrorKind, Findings, Result};
use serde_json::json;

use crate::mcp::scope;
use crate::mcp_defects::{answer, heard};

const CHECKS: [&str; 5] = ["T19", "T20", "T21", "T22", "T23"];

async fn judge(script: Script, version: Version) -> Findings {
    let stub = McpStub::start(script).await.expect("a free port");
    let target = Target::at(&stub.http_url()).expect("an address");
    conformance::mcp(&target, &Profile::new(version), &scope().only(CHECKS)).await.expect("the stub is up")
}

/// Whether the stream is that of a call of this tool.
fn of(turn: &EventTurn, tool: &str) -> bool {
    turn.request.contains(&format!("\"name\":\"{tool}\""))
}

#[tokio::test]
async fn each_defect_of_a_resumed_stream_fails_exactly_its_own_check() {
    type Flaw = (&'static str, fn(&mut EventTurn));
    const FLAWS: [Flaw; 5] = [
        ("T19", |turn| {
            for event in turn.events.iter_mut().filter(|_| turn.request.contains("\"name\":\"echo\"")) {
                event.id = Some("the same".to_owned());
            }
        }),
        ("T20", |turn| {
            if turn.resumed.is_some() && of(turn, "progress") {
                turn.events.remove(0);
            }
        }),
        ("T20", |turn| {
            if turn.resumed.is_some() && of(turn, "progress") {
                turn.events.insert(0, turn.events[0].clone());
            }
        }),
        ("T21", |turn| {
            if turn.resumed.is_some() && of(turn, "hold") {
                let mut foreign = StubEvent::default();
                foreign.data = json!({"jsonrpc": "2.0", "id": "of-another-stream", "result": {}}).to_string();
                turn.events.insert(0, foreign);
            }
        }),
        ("T22", |turn| {
            if of(turn, "echo") {
                turn.events.retain(|event| !event.data.is_empty());
            }
        }),
    ];
    let runs = FLAWS.iter().map(|(check, flaw)| async move {
        let findings = judge(Script::new(Version::V2025_11_25).tamper_events(flaw), Version::V2025_11_25).await;
        assert_eq!(findings.failed(), [*check], "{findings}");
    });
    stream::iter(runs).buffer_unordered(8).collect::<()>().await;
    let gives_up = Script::new(Version::V2025_11_25).tamper(|turn| {
        let key = heard(turn, "/params/arguments/key");
        if turn.tool() == "release" && key.as_str().is_some_and(|key| key.starts_with("lost")) {
            // In place of both replies: the one of the call that was given up does not come.
            answer(turn, json!({"content": [{"type": "text", "text": "0"}]}));
        }
    });
    assert_eq!(judge(gives_up, Version::V2025_11_25).await.failed(), ["T23"]);
}

#[tokio::test]
async fn server_without_event_ids_is_not_blamed_and_an_older_one_need_not_begin_with_one() {
    let without = judge(Script::new(Version::V2025_11_25).without_event_ids(), Version::V2025_11_25).await;
    assert!(without.failed().is_empty() && without.executed() == 1, "{without}");
    let older = judge(Script::new(Version::V2025_06_18), Version::V2025_06_18).await;
    assert!(older.failed().is_empty() && older.executed() == 3, "{older}");
    judge(Script::new(Version::V2025_11_25), Version::V2025_11_25).await.at_least(CHECKS.len()).assert();
}

#[tokio::test]
async fn client_takes_a_broken_stream_up_again_as_late_as_the_server_wants_and_misses_nothing() -> Result {
    const RETRY: Duration = Duration::from_millis(60);
    // Every connection breaks after two events, and each time the server asks for some patience.
    let breaking = |turn: &mut EventTurn| {
        if of(turn, "progress") && turn.events.len() > 2 {
            turn.events.truncate(2);
            turn.events[1].retry_ms = Some(RETRY.as_millis() as u64);
            turn.breaks = true;
        }
    };
    let stub = McpStub::start(Script::new(Version::V2025_11_25).tamper_events(breaking)).await?;
    let target = Target::at(&stub.http_url())?;
    let mut mcp = Mcp::connect(&target, &Profile::named("mcp-2025-11-25")?).await?;
    let begun = Instant::now();
    let params = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": "t"}});
    let reply = mcp.call("tools/call", params).await?;
    assert_eq!(reply.result().expect("a result")["content"][0]["text"], "done");
    // An id alone, three of progress, the reply: five events by two make three connections.
    assert_eq!((mcp.resumed(), stub.resumed().len()), (2, 2), "{:?}", stub.resumed());
    assert!(begun.elapsed() >= 2 * RETRY, "it came again after {:?}", begun.elapsed());
    let told: Vec<_> = mcp.take_unread().iter().map(|message| message["params"]["progress"].clone()).collect();
    assert_eq!(told, [json!(1), json!(2), json!(3)], "nothing twice, nothing lost");
    Ok(())
}

#[tokio::test]
async fn stream_that_cannot_be_taken_up_again_is_a_typed_failure() -> Result {
    // The ids that the client hears are none that the server knows.
    let lying = |turn: &mut EventTurn| {
        if of(turn, "progress") {
            turn.events.truncate(1);
            turn.events[0].id = Some("made up".to_owned());
            turn.breaks = true;
        }
    };
    let stub = McpStub::start(Script::new(Version::V2025_11_25).tamper_events(lying)).await?;
    let mut mcp = Mcp::connect(&Target::at(&stub.http_url())?, &Profile::named("mcp-2025-11-25")?).await?;
    let error = mcp.call_tool("progress", json!({})).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Protocol && format!("{error:?}").contains("status 400"), "{error:?}");
    Ok(())
}

/// A server may throw away what it tells while nobody listens: a conversation begins when its stream is open or was refused.
#[tokio::test]
async fn conversation_over_http_begins_when_its_stream_was_answered() -> Result {
    let answered = Arc::new(AtomicBool::new(false));
    let seen = answered.clone();
    let note = move |turn: &mut HttpTurn| {
        if turn.method == "GET" {
            seen.store(true, Ordering::Relaxed);
        }
    };
    let stub = McpStub::start(Script::new(Version::V2025_11_25).tamper_http(note)).await?;
    let _mcp = Mcp::connect(&Target::at(&stub.http_url())?, &Profile::new(Version::V2025_11_25)).await?;
    assert!(answered.load(Ordering::Relaxed), "the greeting was over before the stream was asked for");
    Ok(())
}
