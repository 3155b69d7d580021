//! A server that works on several requests at once: JSON-RPC orders no replies, so that no check may accuse it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _, stream};
use harness_core::wait::pause;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{McpStub, Profile, Script, Target, Version};
use harness_ws::{Findings, Result};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::mcp::scope;

/// How long everything but the reply to a fence is under way.
const LATE: Duration = Duration::from_millis(25);

/// The methods whose replies are fences in one era or the other.
const FENCES: [&str; 2] = ["ping", "server/discover"];

/// The id of a message that has one which can be told from others.
fn id_of(message: &Value) -> Option<String> {
    message.get("id").filter(|id| id.is_u64() || id.is_string()).map(Value::to_string)
}

/// What overtakes what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Replies to fences everything else that the server says.
    Fences,
    /// What is sent behind a call that is to be held, that call.
    Held,
}

/// Passes messages between a client and the server at `url`, not in their order.
async fn relay(client: TcpStream, url: String, order: Order) -> Option<()> {
    let (mut to_client, mut from_client) = tokio_tungstenite::accept_async(client).await.ok()?.split();
    let (server, _) = tokio_tungstenite::connect_async(url).await.ok()?;
    let (mut to_server, mut from_server) = server.split();
    let fences = Arc::new(Mutex::new(BTreeSet::new()));
    let (say, mut to_say) = mpsc::unbounded_channel();
    let (hold, mut held) = mpsc::unbounded_channel();
    let asked = Arc::clone(&fences);
    let there = async {
        let mut waits = None;
        while let Some(Ok(message)) = from_client.next().await {
            if order == Order::Held && waits.is_none() && message.to_text().is_ok_and(|text| text.contains("\"hold\""))
            {
                waits = Some(message);
                continue;
            }
            let heard = message.to_text().ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(heard) = heard.filter(|heard| FENCES.iter().any(|method| heard["method"] == *method)) {
                asked.lock().expect("no panic").extend(id_of(&heard));
            }
            to_server.send(message).await.ok()?;
            if let Some(waited) = waits.take() {
                to_server.send(waited).await.ok()?;
            }
        }
        Some(())
    };
    let back = async {
        while let Some(Ok(message)) = from_server.next().await {
            let said = message.to_text().ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let overtakes =
                said.as_ref().and_then(id_of).is_some_and(|id| fences.lock().expect("no panic").remove(&id));
            let way = if overtakes || order == Order::Held { &say } else { &hold };
            way.send((Instant::now(), message)).ok()?;
        }
        Some(())
    };
    let late = async {
        while let Some((at, message)) = held.recv().await {
            pause((at + LATE).saturating_duration_since(Instant::now())).await;
            say.send((at, message)).ok()?;
        }
        Some(())
    };
    let out = async {
        while let Some((_, message)) = to_say.recv().await {
            to_client.send(message).await.ok()?;
        }
        Some(())
    };
    tokio::select! {
        done = there => done,
        done = async { tokio::join!(back, late) } => done.0,
        done = out => done,
    }
}

async fn judge(script: Script, version: Version, scope: &Scope, order: Order) -> Result<Findings> {
    let stub = McpStub::start(script).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let target = Target::at(&format!("ws://{}/", listener.local_addr()?))?;
    let accepting = async {
        let sockets = stream::unfold(&listener, async |listener| Some((listener.accept().await, listener)));
        let accepted = sockets.filter_map(async |accepted| accepted.ok());
        accepted.for_each_concurrent(None, async |(socket, _)| _ = relay(socket, stub.ws_url(), order).await).await;
        unreachable!("a listener does not end")
    };
    let profile = Profile::new(version);
    tokio::select! {
        findings = conformance::mcp(&target, &profile, scope) => Ok(findings?),
        never = accepting => never,
    }
}

#[tokio::test]
async fn what_is_overtaken_by_a_fence_is_still_heard() -> Result {
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        let scope = scope().at_once(8).skip("W06").skip("W07"); // the handshake is the relay's own
        judge(Script::new(version), version, &scope, Order::Fences).await?.at_least(80).assert();
    }
    Ok(())
}

/// The control: who waits for what comes late still notices what does not come.
#[tokio::test]
async fn what_does_not_come_is_missed_all_the_same() -> Result {
    for (version, checks) in [
        (Version::V2025_11_25, ["M16", "M17", "M47", "M55", "M65"]),
        (Version::V2026_07_28, ["M16", "M17", "N12", "N15", "N16"]),
    ] {
        let mute = Script::new(version).tamper(|turn| {
            let refuses_id =
                turn.heard.as_ref().is_some_and(|heard| heard.get("id").is_some() && id_of(heard).is_none());
            if refuses_id {
                turn.said.clear();
            }
            turn.said.retain(|said| said.get("id").is_some() || said.get("method").is_none());
            turn.everyone.clear();
        });
        let findings = judge(mute, version, &scope().at_once(8).only(checks), Order::Fences).await?;
        assert_eq!(findings.failed(), checks, "{version}: {findings}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_released_before_it_is_held_is_released_again() -> Result {
    let checks = ["M73", "M75", "M76", "M79"];
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        judge(Script::new(version), version, &scope().only(checks), Order::Held).await?.at_least(4).assert();
    }
    let never = Script::new(Version::V2025_11_25).tamper(|turn| {
        turn.said.retain(|said| said.pointer("/result/content/0/text").is_none_or(|text| text != "released"));
    });
    let findings = judge(never, Version::V2025_11_25, &scope().only(checks), Order::Held).await?;
    assert_eq!(findings.failed(), ["M73", "M76"], "{findings}");
    Ok(())
}
