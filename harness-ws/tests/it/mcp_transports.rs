//! What each transport adds to MCP: every check of HTTP and of WebSocket against a server with just that defect.

use std::sync::Mutex;

use futures_util::{StreamExt as _, stream};
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{HttpTurn, McpStub, Profile, Script, Target, Turn, Version};
use harness_ws::{Findings, Result};
use serde_json::{Value, json};

use crate::mcp::scope;
use crate::mcp_defects::{answer, heard, set};

/// A defect of the transport: the check it belongs to, and what it does to the head of an answer.
type Flaw = (&'static str, fn(&mut HttpTurn));

fn asked<'a>(turn: &'a HttpTurn, header: &str) -> &'a str {
    turn.asked.get(header).map_or("", String::as_str)
}

/// A reply that is right but should not have been given.
fn served(turn: &mut HttpTurn) {
    let heard: Value = serde_json::from_str(&turn.text).unwrap_or_default();
    turn.answer(200, &json!({"jsonrpc": "2.0", "id": heard["id"], "result": {"resultType": "complete"}}));
}

const OF_SESSIONS: &[Flaw] = &[
    ("T01", |turn| {
        if turn.method == "DELETE" && turn.status == 200 {
            turn.status = 500;
        }
    }),
    ("T02", |turn| {
        if turn.status == 202 && turn.text.contains("roots/list_changed") {
            turn.answer(200, &json!({}));
        }
    }),
    ("T03", |turn| {
        if turn.method == "GET" {
            turn.answer(200, &json!({}));
        }
    }),
    ("T04", |turn| {
        if turn.status == 403 {
            served(turn);
        }
    }),
    ("T06", |turn| {
        if turn.status == 400 && asked(turn, "mcp-session-id").is_empty() && turn.method == "POST" {
            served(turn);
        }
    }),
    ("T07", |turn| {
        if turn.status == 404 && turn.method == "POST" {
            served(turn);
        }
    }),
    ("T08", |turn| {
        if asked(turn, "mcp-protocol-version") == "1999-01-01" {
            served(turn);
        }
    }),
];

const STATELESS: &[Flaw] = &[
    ("T04", |turn| {
        if turn.status == 403 {
            served(turn);
        }
    }),
    ("T10", |turn| {
        if asked(turn, "mcp-method").is_empty() && turn.text.contains("server/discover") {
            served(turn);
        }
    }),
    ("T11", |turn| {
        if asked(turn, "mcp-method") == "tools/list" && turn.text.contains("server/discover") {
            served(turn);
        }
    }),
    ("T12", |turn| {
        if asked(turn, "mcp-name") == "harness-no-such-tool" && !turn.text.contains("harness-no-such-tool") {
            served(turn);
        }
    }),
    ("T13", |turn| {
        if asked(turn, "mcp-protocol-version") == "2025-11-25" {
            served(turn);
        }
    }),
    ("T14", |turn| {
        if turn.status == 404 {
            turn.status = 200;
        }
    }),
    ("T15", |turn| {
        if !asked(turn, "mcp-session-id").is_empty() {
            turn.headers.push(("Mcp-Session-Id".to_owned(), "s-1".to_owned()));
        }
    }),
    ("T16", |turn| turn.headers.retain(|(name, _)| name != "X-Accel-Buffering")),
];

async fn judge(script: Script, profile: &Profile, scope: &Scope, address: fn(&McpStub) -> String) -> Findings {
    let stub = McpStub::start(script).await.expect("a free port");
    let target = Target::at(&address(&stub)).expect("an address");
    conformance::mcp(&target, profile, scope).await.expect("the stub is up")
}

/// Each flaw meets all checks of the transports; it has to fail its own and no other.
async fn escapes(flaws: &'static [Flaw], version: Version, address: fn(&McpStub) -> String) -> Vec<String> {
    let profile = Profile::new(version);
    let ids: Vec<String> = (1..=23).map(|n| format!("T{n:02}")).chain((2..=11).map(|n| format!("W{n:02}"))).collect();
    let (profile, scope) = (&profile, &scope().only(ids));
    let runs = flaws.iter().map(|(check, flaw)| async move {
        let findings = judge(Script::new(version).tamper_http(flaw), profile, scope, address).await;
        (findings.failed() != [*check]).then(|| format!("{check} should fail alone: {findings}"))
    });
    stream::iter(runs).buffer_unordered(8).filter_map(|escaped| async { escaped }).collect().await
}

#[tokio::test]
async fn each_defect_of_http_fails_exactly_its_own_check() {
    let mut escaped = escapes(OF_SESSIONS, Version::V2025_11_25, McpStub::http_url).await;
    escaped.extend(escapes(STATELESS, Version::V2026_07_28, McpStub::http_url).await);
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

#[tokio::test]
async fn each_defect_of_a_websocket_fails_exactly_its_own_check() {
    const FLAWS: &[Flaw] = &[
        ("W02", |turn| {
            if asked(turn, "sec-websocket-protocol").contains("x-nobody-speaks-this") {
                turn.headers.push(("Sec-WebSocket-Protocol".to_owned(), "mcp".to_owned()));
            }
        }),
        ("W06", |turn| {
            if turn.status == 403 {
                turn.status = 101;
            }
        }),
        ("W07", |turn| {
            if turn.method == "GET" && asked(turn, "upgrade").is_empty() {
                turn.answer(200, &json!({}));
            }
        }),
    ];
    let escaped = escapes(FLAWS, Version::V2025_11_25, McpStub::ws_url).await;
    assert!(escaped.is_empty(), "{}", escaped.join("\n"));
}

/// A defect in what is said over a WebSocket, or in when a request is given up over HTTP.
type Said = (&'static str, Version, fn(&McpStub) -> String, Box<dyn Fn(&mut Turn) + Send + Sync>);

fn muted(id: &'static str) -> Box<dyn Fn(&mut Turn) + Send + Sync> {
    Box::new(move |turn| {
        if heard(turn, "/id").as_str().is_some_and(|heard| heard.starts_with(id)) {
            turn.said.clear();
        }
    })
}

#[tokio::test]
async fn each_defect_of_a_conversation_fails_the_check_of_its_transport() {
    let kept = Mutex::new(Value::Null);
    let keeps = move |turn: &mut Turn| {
        let (key, mut kept) = (heard(turn, "/params/arguments/key"), kept.lock().expect("not poisoned"));
        match turn.tool() {
            "remember" if key == "again" => *kept = heard(turn, "/params/arguments/value"),
            "recall" if key == "again" => set(turn, "/content/0/text", kept.clone()),
            _ => {}
        }
    };
    let goes_on = |turn: &mut Turn| {
        let key = heard(turn, "/params/arguments/key");
        if turn.tool() == "release" && key.as_str().is_some_and(|key| key.starts_with("closed")) {
            set(turn, "/content/0/text", json!("1"));
        }
    };
    let (sessions, stateless) = (Version::V2025_11_25, Version::V2026_07_28);
    let said: [Said; 5] = [
        ("W03", sessions, McpStub::ws_url, muted("fragments")),
        ("W04", stateless, McpStub::ws_url, muted("second")),
        ("W05", sessions, McpStub::ws_url, muted("behind")),
        ("W09", sessions, McpStub::ws_url, Box::new(keeps)),
        ("T17", stateless, McpStub::http_url, Box::new(goes_on)),
    ];
    let scope = &scope().only(["M77", "W02", "W03", "W04", "W05", "W09", "T17"]);
    let runs = said.into_iter().map(|(check, version, address, tamper)| async move {
        let findings = judge(Script::new(version).tamper(tamper), &Profile::new(version), scope, address).await;
        assert_eq!(findings.failed(), [check], "{findings}");
    });
    stream::iter(runs).buffer_unordered(8).collect::<()>().await;
}

#[tokio::test]
async fn session_id_that_is_given_twice_is_found() {
    let script = Script::new(Version::V2025_11_25).session_ids(|_| "s-1".to_owned());
    let profile = Profile::new(Version::V2025_11_25);
    let findings = judge(script, &profile, &scope().only(["T05"]), McpStub::http_url).await;
    assert!(findings.get("T05").expect("listed").outcome.detail().contains("given twice"), "{findings}");
}

#[tokio::test]
async fn message_over_the_limit_is_refused_by_its_code_or_found() {
    let profile = Profile::new(Version::V2025_11_25).largest_message(4096);
    for (largest, failed) in [(4096, &[][..]), (8192, &["W08"]), (2048, &["W08"])] {
        let script = Script::new(Version::V2025_11_25).largest_message(largest);
        let findings = judge(script, &profile, &scope().only(["W08"]), McpStub::ws_url).await;
        assert_eq!(findings.failed(), failed, "{findings}");
        assert_eq!(findings.executed(), 1, "{findings}");
    }
}

#[tokio::test]
async fn who_asks_for_no_credentials_is_found_and_who_does_passes() -> Result {
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        for (bearer, failed) in [(true, &[][..]), (false, &["T18"])] {
            let script = Script::new(version);
            let stub = McpStub::start(if bearer { script.bearer("let-me-in") } else { script }).await?;
            for url in [stub.ws_url(), stub.http_url()] {
                let target = Target::at(&url)?.bearer("let-me-in");
                let findings = conformance::mcp(&target, &Profile::new(version), &scope().only(["T18"])).await?;
                assert_eq!((findings.failed().as_slice(), findings.executed()), (failed, 1), "{findings}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn checks_at_once_come_to_the_same_findings_in_the_same_order() -> Result {
    let version = Version::V2025_11_25;
    let careless = || {
        Script::new(version).tamper(|turn| {
            if turn.tool() == "harness-no-such-tool" {
                answer(turn, json!({"content": [], "isError": true}));
            }
        })
    };
    let profile = Profile::new(version);
    let one = judge(careless(), &profile, &scope(), McpStub::ws_url).await;
    let many = judge(careless(), &profile, &scope().at_once(16), McpStub::ws_url).await;
    let outcomes = |findings: &Findings| {
        findings.list().iter().map(|finding| (finding.id, finding.outcome.word())).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&one), outcomes(&many));
    assert_eq!(many.failed(), ["M39"]);
    Ok(())
}
