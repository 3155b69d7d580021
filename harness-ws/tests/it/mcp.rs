//! Every MCP check against the scripted server: the correct one passes, each planted defect turns exactly its own check
//! red.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness_core::env::Settings;
use harness_ws::conformance::{self, Scope};
use harness_ws::mcp::{Expected, Mcp, McpStub, Profile, Script, Target, Version, replay};
use harness_ws::{ErrorKind, Findings, Result};
use serde_json::json;

use crate::mcp_defects::{Defect, Planted, SESSIONS, answer};
use crate::mcp_memory::{remembering, remembering_streams};
use crate::mcp_stateless_defects::STATELESS;

pub(crate) fn scope() -> Scope {
    Scope::default().limit(Duration::from_millis(1500)).strict()
}

async fn judge(script: Script, profile: &Profile, scope: &Scope) -> Findings {
    let stub = McpStub::start(script).await.expect("a free port");
    let target = Target::at(&stub.ws_url()).expect("an address");
    conformance::mcp(&target, profile, scope).await.expect("the stub is up")
}

#[tokio::test]
async fn correct_server_passes_every_check_of_every_version() {
    for (version, least) in [
        (Version::V2024_11_05, 80),
        (Version::V2025_03_26, 80),
        (Version::V2025_06_18, 80),
        (Version::V2025_11_25, 90),
        (Version::V2026_07_28, 80),
    ] {
        let begun = Instant::now();
        let findings = judge(Script::new(version), &Profile::new(version), &scope()).await;
        findings.clone().at_least(least).assert();
        println!("{version}: {} checks executed in {:?}", findings.executed(), begun.elapsed());
    }
}

#[tokio::test]
async fn same_checks_run_over_streamable_http() -> Result {
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        let stub = McpStub::start(Script::new(version)).await?;
        let target = Target::at(&stub.http_url())?;
        let findings = conformance::mcp(&target, &Profile::new(version), &scope()).await?;
        findings.at_least(80).assert();
    }
    Ok(())
}

#[tokio::test]
async fn welcome_is_a_rule_of_the_house() -> Result {
    let profile = Profile::named("mcp-2025-11-25+welcome")?;
    let only = scope().only(["W01", "M01", "M27"]);
    judge(Script::new(Version::V2025_11_25).welcome(), &profile, &only).await.at_least(3).assert();
    let without = judge(Script::new(Version::V2025_11_25), &profile, &only).await;
    assert_eq!(without.failed(), ["W01"], "{without}");
    Ok(())
}

/// Defects as those with a memory are.
fn made(planted: &[Planted]) -> Vec<Defect> {
    planted.iter().map(|(name, check, tamper)| (*name, *check, Box::new(*tamper) as _)).collect()
}

/// Runs the checks against every planted defect, several at a time; what was not caught by its own check alone.
async fn escapes(defects: Vec<Defect>, version: Version) -> Vec<String> {
    let (profile, scope) = (Profile::new(version), Scope::default().limit(Duration::from_millis(700)).strict());
    // Every defect meets its own check; every twenty-fourth meets all of them, or every one in the long run.
    let every = if Settings::get().rounds.is_some() { 1 } else { 24 };
    // Rules about all messages together need the messages of all checks; M46 and W09 look at what M44 and M77 judge.
    let together = ["M27", "M28", "M29", "N03", "N25", "M44", "M77"];
    let runs = defects.into_iter().enumerate().map(|(n, (name, check, tamper))| {
        let profile = &profile;
        let scope =
            if n % every == 0 || together.contains(&check) { scope.clone() } else { scope.clone().only([check]) };
        async move {
            let findings = judge(Script::new(version).tamper(tamper), profile, &scope).await;
            let caught = findings.failed() == [check];
            let evidence = findings
                .get(check)
                .is_some_and(|finding| finding.evidence.len() > 1 && finding.evidence[0].starts_with("spec https://"));
            (!caught || !evidence).then(|| {
                format!(
                    "`{name}` should fail {check} alone: {:?}\n{}",
                    findings.failed(),
                    findings
                        .list()
                        .iter()
                        .filter(|finding| finding.outcome.is_fail())
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("\n")
                )
            })
        }
    });
    stream::iter(runs).buffer_unordered(8).filter_map(|escaped| async { escaped }).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_defect_of_a_session_fails_exactly_its_own_check() {
    let mut defects = made(SESSIONS);
    defects.extend(remembering());
    let checks: BTreeSet<_> = defects.iter().map(|(_, check, _)| *check).collect();
    assert!(checks.len() >= 70, "{} checks have a planted defect", checks.len());
    let begun = Instant::now();
    let escaped = escapes(defects, Version::V2025_11_25).await;
    assert!(escaped.is_empty(), "{} of {}:\n{}", escaped.len(), checks.len(), escaped.join("\n"));
    println!("{} checks, each with its defect, in {:?}", checks.len(), begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_defect_of_the_stateless_era_fails_exactly_its_own_check() {
    let mut defects = made(STATELESS);
    defects.extend(remembering_streams());
    let count = defects.len();
    let escaped = escapes(defects, Version::V2026_07_28).await;
    assert!(escaped.is_empty(), "{} of {count}:\n{}", escaped.len(), escaped.join("\n"));
}

/// Every check of the catalogue is named by some test with a planted defect: what nobody ever saw red proves nothing.
#[tokio::test]
async fn no_check_is_without_a_planted_defect() {
    let tests = [
        include_str!("../stdio/main.rs"),
        include_str!("conformance.rs"),
        include_str!("mcp.rs"),
        include_str!("mcp_defects.rs"),
        include_str!("mcp_memory.rs"),
        include_str!("mcp_resume.rs"),
        include_str!("mcp_sockets.rs"),
        include_str!("mcp_stateless_defects.rs"),
        include_str!("mcp_status.rs"),
        include_str!("mcp_transports.rs"),
    ];
    for version in [Version::V2025_11_25, Version::V2026_07_28] {
        let findings = judge(Script::new(version), &Profile::new(version), &scope()).await;
        let is_named = |id: &str| tests.iter().any(|test| test.contains(&format!("\"{id}\"")));
        let unnamed: Vec<_> = findings.list().iter().map(|finding| finding.id).filter(|id| !is_named(id)).collect();
        assert!(unnamed.is_empty(), "{version}: {unnamed:?}");
        assert!(findings.list().len() > 80, "{} checks are listed", findings.list().len());
    }
}

#[tokio::test]
async fn a_wish_that_is_not_met_is_degraded_unless_the_scope_is_strict() {
    let careless = || {
        Script::new(Version::V2025_11_25).tamper(|turn| {
            if turn.method() == "logging/setLevel" {
                answer(turn, json!({}));
            }
        })
    };
    let profile = Profile::new(Version::V2025_11_25);
    let loose = judge(careless(), &profile, &Scope::default().only(["M66"])).await;
    assert!(loose.check().is_ok() && loose.get("M66").unwrap().outcome.word() == "degraded", "{loose}");
    assert_eq!(judge(careless(), &profile, &Scope::default().only(["M66"]).strict()).await.failed(), ["M66"]);
}

#[tokio::test]
async fn tool_that_could_not_be_looked_for_leaves_no_evidence() {
    let version = Version::V2025_11_25;
    let mute = Script::new(version).mute("tools/list");
    let only = scope().limit(Duration::from_millis(300)).only(["M36", "M49"]);
    let findings = judge(mute, &Profile::new(version), &only).await;
    assert!(findings.get("M36").unwrap().outcome.is_no_evidence(), "{findings}");
}

#[tokio::test]
async fn disabling_a_check_lets_its_defect_escape_and_is_not_silent() {
    let broken = Script::new(Version::V2025_11_25).tamper(|turn| {
        if turn.tool() == "harness-no-such-tool" {
            answer(turn, json!({"content": []}));
        }
    });
    let findings = judge(broken, &Profile::new(Version::V2025_11_25), &scope().skip("M39")).await;
    assert!(findings.failed().is_empty(), "{findings}");
    assert_eq!(findings.get("M39").unwrap().outcome.word(), "not applicable");
}

#[tokio::test]
async fn server_that_answers_nothing_passes_nothing() {
    let mute = Script::new(Version::V2025_11_25).tamper(|turn| turn.said.clear());
    let scope = Scope::default().limit(Duration::from_millis(50));
    let findings = judge(mute, &Profile::new(Version::V2025_11_25), &scope).await;
    let passed: Vec<_> =
        findings.list().iter().filter(|finding| finding.outcome.is_pass()).map(|finding| finding.id).collect();
    assert!(passed.iter().all(|id| ["M27", "M28", "M29"].contains(id)), "{passed:?}");
    assert_eq!(findings.check().unwrap_err().kind(), ErrorKind::Assertion);
}

#[tokio::test]
async fn a_finding_can_be_replayed_against_any_build() -> Result {
    let version = Version::V2025_11_25;
    let broken = || {
        Script::new(version).tamper(|turn| {
            if turn.tool() == "harness-no-such-tool" {
                answer(turn, json!({"content": []}))
            }
        })
    };
    let profile = Profile::new(version);
    let findings = judge(broken(), &profile, &scope().only(["M39"])).await;
    let evidence = &findings.get("M39").unwrap().evidence;
    for (script, same) in [(broken(), true), (Script::new(version), false)] {
        let stub = McpStub::start(script).await?;
        let again = replay(&Target::at(&stub.ws_url())?, &profile, evidence, Duration::from_secs(2)).await?;
        assert_eq!(again.same, same, "{:#?}", again.lines);
    }
    Ok(())
}

#[tokio::test]
async fn expected_failures_are_accepted_and_stale_entries_are_not() -> Result {
    let version = Version::V2025_11_25;
    let broken = Script::new(version).tamper(|turn| {
        if turn.tool() == "harness-no-such-tool" {
            answer(turn, json!({"content": []}))
        }
    });
    let findings = judge(broken, &Profile::new(version), &scope().only(["M38", "M39"])).await;
    Expected::parse("M39 takes unknown tools\n")?.judge(&findings)?;
    for wrong in ["", "M39 x\nM38 y\n"] {
        assert_eq!(Expected::parse(wrong)?.judge(&findings).unwrap_err().kind(), ErrorKind::Assertion, "{wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn typed_session_reaches_every_feature_over_both_transports() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25).page(3)).await?;
    for url in [stub.ws_url(), stub.http_url()] {
        let mut mcp = Mcp::connect(&Target::at(&url)?, &Profile::named("mcp-2025-11-25")?).await?;
        mcp.ping().await?;
        let tools = mcp.list_tools().await?;
        assert!(tools.len() > 10 && tools.iter().any(|tool| tool.name == "echo"), "{} tools over {url}", tools.len());
        assert_eq!(mcp.call_tool("echo", json!({"text": "ü"})).await?.text(), "ü");
        assert!(mcp.call_tool("fail", json!({})).await?.is_error);
        assert_eq!(mcp.call_tool("structured", json!({})).await?.structured, Some(json!({"sum": 3})));
        assert_eq!(mcp.list_resources().await?[0].uri, "fixture://text");
        assert_eq!(mcp.read_resource("fixture://item/a1").await?[0]["text"], "item a1");
        assert_eq!(mcp.list_resource_templates().await?.len(), 1);
        mcp.subscribe("fixture://text").await?;
        mcp.call_tool("touch", json!({"uri": "fixture://text"})).await?;
        assert_eq!(mcp.notification("notifications/resources/updated").await?["params"]["uri"], "fixture://text");
        mcp.unsubscribe("fixture://text").await?;
        assert_eq!(mcp.list_prompts().await?.len(), 2);
        assert_eq!(mcp.get_prompt("greet", json!({"name": "you"})).await?[0]["content"]["text"], "greet you");
        assert_eq!(mcp.complete(json!({"type": "ref/prompt", "name": "greet"}), "name", "an").await?, ["anna"]);
        mcp.set_level("error").await?;
        let held = mcp.start("tools/call", json!({"name": "hold", "arguments": {"key": "k"}})).await?;
        mcp.ping().await?;
        mcp.cancel(&held, "enough").await?;
        assert_eq!(mcp.call_tool("release", json!({"key": "k"})).await?.text(), "0");
        assert!(mcp.close().await?, "{url}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_of_the_server_are_answered_as_the_client_says() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25)).await?;
    let profile = Profile::named("mcp-2025-11-25")?.client_capabilities(json!({"sampling": {}}));
    let mut mcp = Mcp::connect(&Target::at(&stub.ws_url())?, &profile).await?;
    let content = json!({"role": "assistant", "content": {"type": "text", "text": "a word"}, "model": "none"});
    mcp.answers("sampling/createMessage", content);
    assert_eq!(mcp.call_tool("sample", json!({})).await?.text(), "a word");
    assert_eq!(mcp.asked().len(), 1);
    Ok(())
}

#[tokio::test]
async fn waits_end_at_their_limit_and_say_what_was_said() -> Result {
    let stub = McpStub::start(Script::new(Version::V2025_11_25).mute("tools/list")).await?;
    let profile = Profile::named("mcp-2025-11-25")?;
    let mut mcp = Mcp::connect_within(&Target::at(&stub.ws_url())?, &profile, Duration::from_millis(200)).await?;
    let error = mcp.list_tools().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(format!("{error:?}").contains("tools/list"), "{error:?}");
    let error = Mcp::connect(&Target::at(&stub.ws_url())?, &Profile::named("mcp-2026-07-28")?).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    assert_eq!(Target::at("ftp://x").unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}
