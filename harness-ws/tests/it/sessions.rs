//! Sessions apart, and each way in which they are not.

use harness_ws::sessions::{Isolation, SessionCall, isolation, welcome};
use harness_ws::{Error, ErrorKind, Findings, Result, Ws};
use serde_json::json;

use crate::server::{self, Bug};

fn set(key: &str, value: &str) -> SessionCall {
    ("set".to_owned(), json!({"key": key, "value": value}))
}

fn get(key: &str) -> SessionCall {
    ("get".to_owned(), json!({"key": key}))
}

async fn judge(bug: Bug) -> Findings {
    let (url, _guard) = server::jsonrpc(bug).await;
    isolation(|n| format!("{url}?agent_id=agent-{n}"), set, get).await.expect("the server answers")
}

#[tokio::test]
async fn correct_server_keeps_sessions_apart() {
    let findings = judge(Bug::None).await;
    findings.clone().at_least(5).assert();
    let coverage = findings.get("S5").expect("listed").outcome.detail().to_owned();
    assert!(coverage.contains("overlapped"), "{coverage}");
}

#[tokio::test]
async fn each_planted_defect_fails_its_own_check() {
    for (bug, check) in [
        (Bug::NoWelcome, "S1"),
        (Bug::SameSessionId, "S2"),
        (Bug::ForgetsState, "S3"),
        (Bug::SharedState, "S4"),
        (Bug::BroadcastsReplies, "S5"),
    ] {
        if bug == Bug::NoWelcome {
            let (url, _guard) = server::jsonrpc(bug).await;
            let short = Isolation::default().limit(std::time::Duration::from_millis(300));
            let findings = short.run(|_| url.clone(), set, get).await.expect("the server answers");
            assert_eq!(findings.failed(), ["S1"], "{findings}");
            continue;
        }
        let findings = judge(bug).await;
        assert_eq!(findings.failed(), [check], "{bug:?}: {findings}");
        assert_eq!(findings.check().unwrap_err().kind(), ErrorKind::Assertion);
    }
}

#[tokio::test]
async fn crosstalk_names_both_sessions_and_shows_both_conversations() {
    let findings = judge(Bug::BroadcastsReplies).await;
    let finding = findings.get("S5").expect("listed");
    let witness = finding.outcome.detail();
    assert!(witness.matches("(session s-").count() == 2, "{witness}");
    let clients: std::collections::BTreeSet<_> = finding.evidence.iter().filter_map(|line| line.get(..8)).collect();
    assert_eq!(clients.len(), 2, "{finding:?}");
}

#[tokio::test]
async fn sessions_without_welcome_are_judged_by_connection() -> Result {
    let (url, _guard) = server::jsonrpc(Bug::NoWelcome).await;
    let isolation = || Isolation::default().clients(5).rounds(3).without_welcome();
    isolation().run(|_| url.clone(), set, get).await?.at_least(3).assert();
    let (url, _guard) = server::jsonrpc(Bug::SharedState).await;
    assert_eq!(isolation().run(|_| url.clone(), set, get).await?.failed(), ["S4"]);
    Ok(())
}

#[tokio::test]
async fn each_bad_welcome_has_its_own_sentence() -> Result {
    let mut sentences = Vec::<String>::new();
    for bug in [Bug::NoWelcome, Bug::OtherWelcome, Bug::WelcomeWithoutId] {
        let (url, _guard) = server::jsonrpc(bug).await;
        let mut ws = Ws::builder(&url).limit(std::time::Duration::from_millis(200)).connect().await?;
        let error: Error = welcome(&mut ws).await.expect_err("the welcome is bad");
        sentences.push(error.what().to_owned());
    }
    for (sentence, part) in sentences.iter().zip(["no first frame", "the method `hello`", "no session id"]) {
        assert!(sentence.contains(part), "{sentence}");
    }
    let (url, _guard) = server::jsonrpc(Bug::None).await;
    let mut ws = Ws::connect(&url).await?;
    assert_eq!(welcome(&mut ws).await?, "s-1");
    Ok(())
}
