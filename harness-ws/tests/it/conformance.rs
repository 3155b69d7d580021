//! Every JSON-RPC check: the correct server passes all, each planted defect turns exactly its own check red.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use harness_ws::conformance::{self, Batches, Options, WelcomeFrame};
use harness_ws::jsonrpc::Call;
use harness_ws::{ErrorKind, Findings, Result};
use serde_json::json;

use crate::server::{self, Bug, Guard};

fn options() -> Options {
    Options::default().welcome(WelcomeFrame::Required).limit(Duration::from_millis(1500))
}

async fn judge(bug: Bug, options: Options) -> Findings {
    let (url, _guard): (String, Guard) = server::jsonrpc(bug).await;
    conformance::jsonrpc(url, options).await.expect("the server is up")
}

#[tokio::test]
async fn correct_server_passes_every_check() {
    let findings = judge(Bug::None, options()).await;
    findings.clone().at_least(34).assert();
    assert_eq!(findings.executed(), findings.list().len(), "{findings}");
}

#[tokio::test]
async fn server_that_answers_out_of_order_is_not_blamed() {
    judge(Bug::RepliesAfterTheFence, options()).await.at_least(34).assert();
}

#[tokio::test]
async fn each_planted_defect_fails_exactly_its_own_check() {
    const PLANTED: &[(Bug, &str)] = &[
        (Bug::AnswersNothing, "J01"),
        (Bug::NoWelcome, "W01"),
        (Bug::OtherWelcome, "W01"),
        (Bug::WelcomeWithoutId, "W01"),
        (Bug::FloatId, "J02"),
        (Bug::StringIdToNumber, "J03"),
        (Bug::ZeroIdIsNone, "J04"),
        (Bug::NegativeIdAbs, "J05"),
        (Bug::LargeIdCut, "J06"),
        (Bug::NoVersion, "J07"),
        (Bug::NullErrorBesideResult, "J08"),
        (Bug::NullResultBesideError, "J09"),
        (Bug::CodeIsText, "J10"),
        (Bug::NoErrorMessage, "J10"),
        (Bug::UnknownMethodInternal, "J11"),
        (Bug::ErrorIdNull, "J12"),
        (Bug::InvalidParamsInternal, "J13"),
        (Bug::ParseErrorAsInvalid, "J14"),
        (Bug::NoIdWhereUnreadable, "J15"),
        (Bug::NonRequestInternal, "J16"),
        (Bug::AnyVersion, "J17"),
        (Bug::MethodCoerced, "J18"),
        (Bug::ScalarParams, "J19"),
        (Bug::ObjectId, "J20"),
        (Bug::CaseInsensitive, "J21"),
        (Bug::AnswersNotification, "J22"),
        (Bug::AnswersUnknownNotification, "J23"),
        (Bug::AnswersInvalidNotification, "J24"),
        (Bug::BatchLosesThird, "J25"),
        (Bug::NotificationBatchAnswered, "J26"),
        (Bug::EmptyBatchAsArray, "J27"),
        (Bug::InvalidBatchAsOne, "J28"),
        (Bug::MixedBatchRefused, "J29"),
        (Bug::ServesResponses, "J30"),
        (Bug::ClosesAfterError, "J31"),
        (Bug::AnswersOneTwice, "J32"),
        (Bug::DiesOfDepth, "J33"),
    ];
    let judged = PLANTED.iter().map(|(bug, check)| async move {
        let findings = judge(*bug, options()).await;
        let error = findings.check().expect_err("a failed check is an error");
        assert_eq!(error.kind(), ErrorKind::Assertion);
        let evidence = &findings.get(check).expect("it is listed").evidence;
        assert!(!evidence.is_empty(), "{bug:?} leaves no conversation");
        (findings.failed() != [*check]).then(|| format!("{bug:?} should fail {check} alone: {findings}"))
    });
    // What is not answered takes the limit in full: most of the time is waiting.
    let wrong: Vec<_> = stream::iter(judged).buffer_unordered(8).filter_map(|wrong| async { wrong }).collect().await;
    let all = judge(Bug::None, options()).await;
    let unplanted: Vec<_> = all.list().iter().filter(|f| !PLANTED.iter().any(|(_, check)| *check == f.id)).collect();
    assert!(wrong.is_empty() && unplanted.is_empty(), "{}\nwithout a planted defect: {unplanted:?}", wrong.join("\n"));
}

#[tokio::test]
async fn server_that_answers_nothing_gives_no_evidence_for_the_rest() {
    let findings = judge(Bug::AnswersNothing, options()).await;
    let others: Vec<_> = findings.list().iter().filter(|finding| !["J01", "W01"].contains(&finding.id)).collect();
    assert!(others.len() > 30 && others.iter().all(|finding| finding.outcome.is_no_evidence()), "{findings}");
}

#[tokio::test]
async fn what_does_not_apply_is_listed_and_not_counted() {
    let loose = Options::default().invalid_params(None).known(Call::new("get", json!({"key": "k"})));
    let findings = judge(Bug::None, loose).await;
    assert!(findings.check().is_ok(), "{findings}");
    assert_eq!(findings.executed(), findings.list().len() - 3, "{findings}");
    assert_eq!(findings.at_least(34).check().unwrap_err().kind(), ErrorKind::NoEvidence);
}

#[tokio::test]
async fn refused_batches_are_a_profile_not_a_defect() -> Result {
    let refused = || options().batches(Batches::Refused);
    let (url, _guard) = server::jsonrpc_with(Bug::None, false).await;
    conformance::jsonrpc(&url, refused()).await?.at_least(31).assert();
    assert!(!conformance::jsonrpc(&url, options()).await?.failed().is_empty(), "batches were demanded");
    assert_eq!(judge(Bug::None, refused()).await.failed(), ["J25"]);
    Ok(())
}

#[tokio::test]
async fn absent_id_of_an_error_is_accepted_where_the_profile_says_so() {
    assert!(judge(Bug::NoIdWhereUnreadable, options().absent_error_id()).await.failed().is_empty());
}

#[tokio::test]
async fn opening_messages_come_first_on_every_connection() -> Result {
    let open = json!({"jsonrpc": "2.0", "id": "open", "method": "set", "params": {"key": "k", "value": 1}});
    let (url, _guard) = server::jsonrpc(Bug::None).await;
    conformance::jsonrpc(&url, options().opening([open])).await?.at_least(34).assert();
    let unanswered = json!({"jsonrpc": "2.0", "id": 5, "method": "ping"});
    let (url, _guard) = server::jsonrpc(Bug::AnswersNothing).await;
    let findings =
        conformance::jsonrpc(&url, options().limit(Duration::from_millis(100)).opening([unanswered])).await?;
    assert!(
        findings.failed().is_empty() && findings.check().unwrap_err().kind() == ErrorKind::NoEvidence,
        "{findings}"
    );
    Ok(())
}

#[tokio::test]
async fn server_that_is_not_there_is_an_error_not_a_finding() {
    let error = conformance::jsonrpc("ws://127.0.0.1:1/", options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
}
