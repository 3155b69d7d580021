//! The cases of RFC 6455: a strict server passes all of them, and each is the one that notices some flaw.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::{StreamExt as _, stream};
use harness_ws::rfc6455::{Ending, Rfc6455, Rfc6455Report, Verdict};
use harness_ws::server::{Act, MockServer};
use harness_ws::{ErrorKind, Result};

use crate::defective::{self, Flaw};
use crate::server;

/// Long enough for a busy machine, where nothing is wrong; a case that hangs on purpose takes it in full.
const LIMIT: Duration = Duration::from_secs(2);

async fn report(flaw: Flaw, only: &[&str], without: &[&str]) -> Rfc6455Report {
    let (url, _guard) = defective::start(flaw).await;
    Rfc6455::of(&url).limit(LIMIT).only(only).without(without).run().await.expect("cases are wanted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_servers_pass_every_case() -> Result {
    let ours = MockServer::start(Act::Echo).await?;
    let (other, _guard) = defective::start(Flaw::None).await;
    for url in [ours.url(), &other] {
        let report = Rfc6455::of(url).limit(Duration::from_secs(5)).run().await?;
        assert_eq!(report.deviations(), [""; 0], "{report}");
        assert_eq!(report.cases().len(), Rfc6455::catalogue().count());
        assert!(report.count(Verdict::Informational) >= 3 && report.count(Verdict::Ok) >= 244, "{report}");
        report.findings().at_least(270).check()?;
    }
    Ok(())
}

/// `6.22` of `6.22.4`, `H` of `H3`.
fn family(id: &str) -> &str {
    match id.rsplit_once('.') {
        Some((family, _)) => family,
        None => &id[..1],
    }
}

/// Each flaw with the cases that have to notice it, exactly. Families that a flaw makes wait are left out of its run.
fn flaws() -> Vec<(Flaw, Vec<&'static str>)> {
    use Flaw::*;
    let mut flaws: Vec<(Flaw, Vec<&'static str>)> = vec![
        (ConstantAccept, vec!["H2"]),
        (ExactCase, vec!["H3"]),
        (LoneConnectionToken, vec!["H4"]),
        (ExactHeaderNames, vec!["H5"]),
        (ChoosesProtocol, vec!["H1", "H2", "H3", "H4", "H5", "H7", "H8", "H9"]),
        (AgreesToProtocol, vec!["H6"]),
        (AgreesToExtension, vec!["H7"]),
        (DropsEarlyFrame, vec!["H8"]),
        (NeedsWholeRequest, vec!["H9"]),
        (OpensWithoutUpgrade, vec!["H10"]),
        (OpensForOtherUpgrade, vec!["H11"]),
        (OpensWithoutConnection, vec!["H12"]),
        (OpensWithoutKey, vec!["H13"]),
        (OpensForShortKey, vec!["H14"]),
        (OpensForTwoKeys, vec!["H15"]),
        (OpensWithoutVersion, vec!["H16"]),
        (OpensForVersion12, vec!["H17"]),
        (OpensForPost, vec!["H18"]),
        (OpensForHttp10, vec!["H19"]),
        (OpensWithoutHost, vec!["H20"]),
        (HangsOnLongHeader, vec!["H21"]),
        (AcceptsLongPing, vec!["2.5"]),
        (LosesFifthPong, vec!["2.10", "2.11", "F10"]),
        (AnswersPongs { empty: true }, vec!["2.7"]),
        (AnswersPongs { empty: false }, vec!["2.8", "2.9"]),
        (NoPongFor(13), vec!["2.2"]),
        (NoPongFor(8), vec!["2.3"]),
        (NoPongFor(125), vec!["2.4", "2.6"]),
        (AcceptsFragmentedPing, vec!["5.1"]),
        (AcceptsFragmentedPong, vec!["5.2"]),
        (AcceptsFragmentedClose, vec!["F6"]),
        (AcceptsOrphan { fin: true }, vec!["5.9", "5.10", "5.11", "5.17"]),
        (AcceptsOrphan { fin: false }, vec!["5.12", "5.13", "5.14", "5.15", "5.16"]),
        (AcceptsTextWithinText, vec!["5.18"]),
        (AcceptsBinaryWithinText, vec!["F11"]),
        (HoldsPongsWithinMessage, vec!["5.19", "5.20"]),
        (LosesEmptyFragmentedText, vec!["6.1.2"]),
        (ChecksEachFragment, vec!["6.2.3", "6.2.4", "F14", "F15", "F16"]),
        (ChecksAtTheEnd, vec!["6.4.1", "6.4.2", "6.4.3", "6.4.4"]),
        (ChecksAtFrameEnds, vec!["6.4.3", "6.4.4"]),
        (PongsAfterClose, vec!["7.1.3"]),
        (EchoesAfterClose, vec!["7.1.4"]),
        (AnswersCloseTwice, vec!["7.1.2"]),
        (FailsCloseWithinMessage, vec!["7.1.5"]),
        (RefusesCloseWithoutBody, vec!["7.3.1"]),
        (AcceptsOneOctetClose, vec!["7.3.2"]),
        (RefusesReason, vec!["7.3.4"]),
        (AcceptsLongClose, vec!["7.3.6"]),
        (AcceptsBadReason, vec!["7.5.1"]),
        (AcceptsUnmasked, vec!["F1"]),
        (AcceptsLongLength16, vec!["F2"]),
        (AcceptsLongLength64, vec!["F3"]),
        (AcceptsTopBit, vec!["F4"]),
        (IgnoresMask, vec!["F8"]),
        (KeepsFirstMask, vec!["F7", "F8", "F9"]),
        (ReversesBatches, vec!["F9", "F13"]),
        (CutsFragments(51), vec!["10.1.1"]),
        (CutsFragments(5), vec!["5.19", "5.20"]),
        (CutsFragments(3), vec!["6.1.3", "F12"]),
        (CutsFragments(2), vec!["5.3", "5.4", "5.5", "5.6", "5.7", "5.8", "5.15", "6.2.2", "F14", "F15", "F16"]),
        (NoPongFor(0), vec!["2.1"]),
        (NoPongFor(9), vec!["2.10", "2.11", "5.19", "5.20"]),
        (NoPongFor(12), vec!["2.9", "5.6", "5.7", "5.8"]),
        (PongWithoutPayload, vec!["2.2", "2.3", "2.4", "2.6", "2.9", "2.10", "2.11"]),
        (DropsAtCode(1002), vec!["7.7.3"]),
        (RefusesCode(1000), vec!["7.1.1", "7.1.2", "7.1.3", "7.1.4", "7.1.5", "7.3.3", "7.3.4", "7.3.5", "7.7.1"]),
    ];
    let of = |length: usize| -> Vec<&'static str> {
        match length {
            0 => vec!["1", "6.1.1"],
            125 => vec!["2", "F2"],
            126 => vec!["3", "F3"],
            127 => vec!["4"],
            128 => vec!["5"],
            65_535 => vec!["6"],
            _ => vec!["7", "8"],
        }
    };
    for length in [0, 125, 126, 127, 128, 65_535, 65_536] {
        for (text, family) in [(true, "1.1."), (false, "1.2.")] {
            let found = of(length);
            let own = found.iter().filter(|id| !id.contains('.') && !id.starts_with('F'));
            let mut ids: Vec<&'static str> = Rfc6455::catalogue()
                .map(|(id, _)| id)
                .filter(|id| own.clone().any(|end| **id == format!("{family}{end}")))
                .collect();
            // The empty text comes twice; the odd lengths are refused before they are echoed.
            ids.extend(found.iter().filter(|id| text && **id == "6.1.1"));
            flaws.push((CutsEchoOf { text, length }, ids));
        }
    }
    for bits in 1..=7_u8 {
        let id = ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7"][usize::from(bits) - 1];
        flaws.push((AcceptsBits(bits), vec![id]));
    }
    for (opcode, id) in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]
        .into_iter()
        .zip(["4.1.1", "4.1.2", "4.1.3", "4.1.4", "4.1.5", "4.2.1", "4.2.2", "4.2.3", "4.2.4", "4.2.5"])
    {
        flaws.push((AcceptsOpcode(opcode), vec![id]));
    }
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let numbers = [
        "7.7.1", "7.7.2", "7.7.3", "7.7.4", "7.7.5", "7.7.6", "7.7.7", "7.7.8", "7.7.9", "7.7.10", "7.7.11", "7.7.12",
        "7.7.13",
    ];
    // 1000 closes every other case as well; 1002 is also the answer to the one the server refuses.
    flaws.extend(
        codes
            .into_iter()
            .zip(numbers)
            .filter(|(code, _)| !matches!(code, 1000 | 1002))
            .map(|(code, id)| (RefusesCode(code), vec![id])),
    );
    let codes = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    let numbers = ["7.9.1", "7.9.2", "7.9.3", "7.9.4", "7.9.5", "7.9.6", "7.9.7", "7.9.8", "7.9.9"];
    flaws.extend(codes.into_iter().zip(numbers).map(|(code, id)| (AcceptsCode(code), vec![id])));
    flaws.extend([
        (Refuses(b"hello$world".as_slice()), vec!["6.5.1"]),
        (Refuses(b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"), vec!["6.2.4", "6.5.5", "6.6.11"]),
        (Refuses(b"\xf4\x8f\xbf\xbf"), vec!["6.9.4", "6.11.4"]),
        (Refuses("\u{1ffff}".as_bytes()), vec!["6.22.4"]),
        (Accepts(b"\xf4\x90\x80\x80"), vec!["6.11.5"]),
        (Accepts(b"\xc0\x80"), vec!["6.19.1"]),
        (Accepts(b"\xed\xa0\x80"), vec!["6.20.1"]),
        (Accepts(b"\xed\xa0\x80\xed\xb0\x80"), vec!["6.21.1"]),
        (Accepts(b"\xfc\x80\x80\x80\x80\xaf"), vec!["6.17.5"]),
    ]);
    flaws
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flaw_is_noticed_by_its_cases_and_by_no_others() {
    let flaws = flaws();
    assert!(flaws.len() >= 100, "only {} flaws", flaws.len());
    let covered: BTreeSet<&str> = flaws.iter().flat_map(|(_, cases)| cases).copied().collect();
    let judged = stream::iter(flaws).map(|(flaw, expected)| async move {
        // Each against the families it has to be noticed in and some bystanders.
        // One that never opens, or never closes, has none.
        let breaks_all = expected.iter().any(|id| id.starts_with('H')) || flaw == Flaw::RefusesCode(1000);
        let bystanders: &[&str] = if breaks_all { &[] } else { &["1.1.1", "7.1", "F13"] };
        let mut only: Vec<&str> = expected.iter().map(|id| family(id)).chain(bystanders.iter().copied()).collect();
        // What the other families would say of these is the same again.
        only.retain(|family| !matches!(flaw, Flaw::PongWithoutPayload) || *family != "F");
        // These wait on purpose, and only flaws of text have to be noticed there.
        let without: &[&str] = if expected.iter().any(|id| id.starts_with("6.4")) { &[] } else { &["6.4"] };
        let report = report(flaw.clone(), &only, without).await;
        // Of a hang, too, nothing is demanded but an end to it.
        let found = if flaw == Flaw::HangsOnLongHeader { report.failed() } else { report.deviations() };
        let (found, expected): (BTreeSet<_>, BTreeSet<_>) =
            (found.into_iter().collect(), expected.into_iter().collect());
        (found != expected).then(|| format!("{flaw:?}: noticed by {found:?}, not by {expected:?}\n"))
    });
    // Flaws that make a server hang take the limit in full: most of the time is waiting.
    let wrong: String = judged.buffer_unordered(24).filter_map(|wrong| async { wrong }).collect().await;
    assert!(wrong.is_empty(), "{wrong}");
    // Every case can fail: those of texts do below, and of a few nothing is demanded.
    let nothing_demanded = ["7.1.6", "7.13.1", "7.13.2", "F5"];
    let of_no_use: Vec<&str> = Rfc6455::catalogue()
        .map(|(id, _)| id)
        .filter(|id| !covered.contains(id) && !id.starts_with("6.") && !nothing_demanded.contains(id))
        .collect();
    assert_eq!(of_no_use, [""; 0], "no flaw is noticed by these");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flaw_escapes_when_the_cases_that_notice_it_are_left_out() {
    let few = ["H", "2", "3", "5", "7.1", "7.3", "F"];
    let flaws = [
        (Flaw::AcceptsLongPing, vec!["2.5"]),
        (Flaw::AcceptsUnmasked, vec!["F1"]),
        (Flaw::AcceptsOrphan { fin: true }, vec!["5.9", "5.10", "5.11", "5.17"]),
        (Flaw::OpensForTwoKeys, vec!["H15"]),
        (Flaw::AcceptsBits(4), vec!["3.4"]),
        (Flaw::AcceptsOneOctetClose, vec!["7.3.2"]),
    ];
    join_all(flaws.into_iter().map(|(flaw, cases)| async move {
        assert_eq!(report(flaw.clone(), &few, &[]).await.deviations().len(), cases.len(), "{flaw:?}");
        let blind = report(flaw.clone(), &few, &cases).await;
        assert_eq!(blind.deviations(), [""; 0], "{flaw:?}: {blind}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_checks_no_text_fails_every_case_of_wrong_text() {
    let (report, text_as_binary) =
        join(report(Flaw::NoUtf8Check, &["6"], &[]), report(Flaw::EchoesTextAsBinary, &["6", "1"], &[])).await;
    let wrong: Vec<&str> = Rfc6455::catalogue()
        .filter(|(id, what)| {
            id.starts_with("6.")
                && (what.contains("not UTF-8") || what.contains("surrogate") || what.contains("turns wrong"))
        })
        .map(|(id, _)| id)
        .collect();
    assert!(wrong.len() >= 75, "{wrong:?}");
    assert_eq!(report.failed(), wrong, "{report}");
    let right =
        Rfc6455::catalogue().filter(|(id, _)| id.starts_with("6.") || id.starts_with("1.1")).count() - wrong.len();
    assert_eq!(text_as_binary.failed().len(), right, "{text_as_binary}");
}

/// A pong is no proof that a server has missed what was wrong before the ping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_answers_pings_before_it_looks_at_a_text_is_not_accused() {
    let report = report(Flaw::ChecksWhenRead, &["6"], &[]).await;
    assert_eq!(report.failed(), [""; 0], "{report}");
    let wrong: Vec<_> = report.cases().iter().filter(|case| case.ending != Ending::Ok).map(|case| case.id).collect();
    assert_eq!(wrong, [""; 0], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endings_are_judged_apart_from_what_was_heard() {
    let some = ["1.1.1", "3.1", "7.1.1", "7.7.3"];
    let flaws = [
        (Flaw::KeepsTcpOpen, "3.1", Verdict::Ok, Ending::FailedByClient),
        (Flaw::KeepsTcpOpen, "1.1.1", Verdict::Ok, Ending::Unclean),
        (Flaw::NoCloseAnswer, "1.1.1", Verdict::Ok, Ending::Unclean),
        (Flaw::AnswersWith(1011), "1.1.1", Verdict::Ok, Ending::WrongCode),
        (Flaw::AnswersWith(1011), "7.1.1", Verdict::Failed, Ending::WrongCode),
        (Flaw::FailsWithCode(1011), "3.1", Verdict::Ok, Ending::WrongCode),
        (Flaw::AcceptsBits(1), "3.1", Verdict::Failed, Ending::Failed),
        (Flaw::MasksItsFrames, "1.1.1", Verdict::CouldNotRun, Ending::CouldNotRun),
    ];
    join_all(flaws.into_iter().map(|(flaw, id, verdict, ending)| async move {
        let report = report(flaw.clone(), &some, &[]).await;
        let case = report.get(id).expect("it is among them");
        assert_eq!((case.verdict, case.ending), (verdict, ending), "{flaw:?}: {case}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_is_not_there_or_does_not_echo_is_no_evidence() -> Result {
    let (silent, _guard) = server::websocket(|ws| async move {
        let _held = ws;
        std::future::pending::<()>().await;
    })
    .await;
    for url in ["ws://127.0.0.1:1/", &silent] {
        let report = Rfc6455::of(url).limit(Duration::from_millis(300)).only(&["1", "5"]).run().await?;
        assert_eq!((report.count(Verdict::CouldNotRun), report.cases().len()), (36, 36), "{report}");
        assert_eq!(report.findings().check().unwrap_err().kind(), ErrorKind::NoEvidence);
    }
    let nothing = Rfc6455::of(&silent).only(&["99"]).run().await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::Config);
    Ok(())
}
