//! WebSocket under MCP: what becomes of an idle connection, and of a second socket of the same session.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use harness_ws::Findings;
use harness_ws::conformance;
use harness_ws::mcp::{Idle, McpStub, Profile, Script, SecondSocket, Target, Version};
use serde_json::json;

use crate::mcp::scope;
use crate::mcp_defects::set;

/// Long enough for a busy machine to greet a server that leaves earlier.
const SOON: Duration = Duration::from_millis(1000);
const LATE: Duration = Duration::from_secs(60);

async fn judge(script: Script, profile: &Profile, check: &str) -> Findings {
    let stub = McpStub::start(script).await.expect("a free port");
    let target = Target::at(&stub.ws_url()).expect("an address");
    let scope = scope().limit(Duration::from_millis(1500)).only([check]);
    conformance::mcp(&target, profile, &scope).await.expect("the stub is up")
}

#[tokio::test]
async fn idle_connection_is_pinged_or_closed_as_the_profile_says_or_the_check_fails() {
    let rules = [Idle::Pinged(SOON), Idle::Closed(SOON)];
    let others = [None, Some(Idle::Pinged(LATE)), Some(Idle::Closed(LATE)), Some(Idle::Closed(SOON / 2))];
    let pairs =
        rules.into_iter().flat_map(|rule| rules.map(Some).into_iter().chain(others).map(move |idle| (rule, idle)));
    let runs = pairs.map(|(rule, idle)| async move {
        let script = Script::new(Version::V2025_11_25);
        let script = if let Some(idle) = idle { script.idle(idle) } else { script };
        let findings = judge(script, &Profile::new(Version::V2025_11_25).idle(rule), "W10").await;
        let failed = if idle == Some(rule) { &[][..] } else { &["W10"] };
        assert_eq!((findings.failed().as_slice(), findings.executed()), (failed, 1), "{rule:?} {idle:?}: {findings}");
    });
    stream::iter(runs).buffer_unordered(12).collect::<()>().await;
}

/// A profile and a script with these rules of a second socket.
fn rules(profile: SecondSocket, script: SecondSocket) -> (Profile, Script) {
    let version = Version::V2025_11_25;
    (
        Profile::new(version).requires_welcome().second_socket("x-session-id", profile),
        Script::new(version).welcome().second_socket("X-Session-Id", script),
    )
}

#[tokio::test]
async fn second_socket_of_a_session_does_as_the_profile_says_or_the_check_fails() {
    const RULES: [SecondSocket; 3] = [SecondSocket::Refused, SecondSocket::TakesOver, SecondSocket::Shares];
    for said in RULES {
        for done in RULES {
            let (profile, script) = rules(said, done);
            let findings = judge(script, &profile, "W11").await;
            let failed = if said == done { &[][..] } else { &["W11"] };
            assert_eq!(
                (findings.failed().as_slice(), findings.executed()),
                (failed, 1),
                "{said:?} {done:?}: {findings}"
            );
        }
        // A server that takes no notice of the header gives the second socket a session of its own.
        let (profile, _) = rules(said, said);
        let findings = judge(Script::new(Version::V2025_11_25).welcome(), &profile, "W11").await;
        assert_eq!(findings.failed(), ["W11"], "{said:?}: {findings}");
    }
}

#[tokio::test]
async fn second_socket_that_does_not_know_what_the_session_keeps_is_found() {
    for rule in [SecondSocket::TakesOver, SecondSocket::Shares] {
        let (profile, script) = rules(rule, rule);
        let forgetful = script.tamper(|turn| {
            if turn.tool() == "recall" {
                set(turn, "/content/0/text", json!("nothing"));
            }
        });
        assert_eq!(judge(forgetful, &profile, "W11").await.failed(), ["W11"], "{rule:?}");
    }
}

#[tokio::test]
async fn profile_that_says_nothing_of_them_demands_nothing() {
    for check in ["W10", "W11"] {
        let findings = judge(Script::new(Version::V2025_11_25), &Profile::new(Version::V2025_11_25), check).await;
        assert_eq!(findings.get(check).expect("listed").outcome.word(), "not applicable", "{findings}");
    }
}
