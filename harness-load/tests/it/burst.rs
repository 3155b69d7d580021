//! Bursts: all at once, and proof of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use harness_core::wait::pause;
use harness_load::burst::{BurstRun, Member};
use harness_load::{Burst, CoreResult, End, ErrorKind, Measured, millis, secs};
use tokio::sync::Mutex;

/// A server that answers after 50 ms and counts who is inside.
#[derive(Default)]
struct Server {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Server {
    async fn answer(&self) {
        self.peak.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
        pause(millis(50)).await;
        self.now.fetch_sub(1, SeqCst);
    }
}

async fn ready(_: usize) -> Result<(), String> {
    Ok(())
}

/// A burst against the server whose members share `connections` connections.
async fn burst(connections: usize, peak_is_kept: bool) -> BurstRun {
    let server = Arc::new(Server::default());
    let pool: Arc<Vec<Mutex<()>>> = Arc::new((0..connections).map(|_| Mutex::new(())).collect());
    let gauge = {
        let server = server.clone();
        move || {
            let server = server.clone();
            async move { Ok::<_, String>(if peak_is_kept { &server.peak } else { &server.now }.load(SeqCst)) }
        }
    };
    let ask = move |member: Member, ()| {
        let (server, pool) = (server.clone(), pool.clone());
        async move {
            let _connection = pool[member.index() % pool.len()].lock().await;
            member.request(server.answer()).await;
            Ok::<(), String>(())
        }
    };
    Burst::of(50).limit(secs(30)).server_gauge(gauge).run(ready, ask).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_are_seen_at_both_ends() {
    for peak_is_kept in [true, false] {
        let burst = burst(50, peak_is_kept).await;
        burst.all_succeeded().unwrap();
        burst.at_server().at_least(50).unwrap();
        burst.at_client().at_least(50).unwrap();
        assert_eq!(burst.at_server().at_least(51).unwrap_err().kind(), ErrorKind::Assertion);
        assert_eq!((burst.mean().display().as_str(), burst.spread()), ("50 ms", millis(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_serialises_fails_although_all_succeed() {
    for peak_is_kept in [true, false] {
        let burst = burst(1, peak_is_kept).await;
        burst.all_succeeded().unwrap();
        assert_eq!(burst.at_server().measured(), &Measured::count(1));
        assert_eq!(burst.at_client().measured(), &Measured::count(1));
        let error = burst.at_server().at_least(50).unwrap_err();
        assert!(error.kind() == ErrorKind::Assertion && error.what().contains("client 1, server 1"), "{error:?}");
        assert_eq!(burst.times().longest(), millis(2_500), "one after the other, from one release");
    }
}

#[tokio::test(start_paused = true)]
async fn peak_nobody_counted_is_no_evidence() {
    let answer = async |_: Member, ()| Ok::<(), String>(());
    let unknown = Burst::of(5).run(ready, answer).await.unwrap();
    assert_eq!(unknown.at_server().at_least(1).unwrap_err().kind(), ErrorKind::NoEvidence);
    let broken = Burst::of(5).server_gauge(async || Err::<u64, _>("gone")).run(ready, answer).await.unwrap();
    let error = broken.at_server().at_least(0).unwrap_err();
    assert!(error.kind() == ErrorKind::NoEvidence && error.what().contains("gone"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn every_member_has_an_ending() {
    let act = async |member: Member, ()| match member.index() {
        1 => Err("refused".to_owned()),
        2 => std::future::pending().await,
        3 => std::panic::resume_unwind(Box::new("planted")),
        _ => Ok(()),
    };
    let burst = Burst::of(5).limit(secs(1)).classify(|_: &String| "refusal").run(ready, act).await.unwrap();
    let kinds: Vec<String> = burst
        .members()
        .iter()
        .map(|member| match &member.end {
            End::Error { kind, .. } => kind.clone(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["Ok", "refusal", "Timeout", "panic", "Ok"]);
    assert_eq!(burst.success_rate(), Measured::share(2, 5));
    let error = burst.all_succeeded().unwrap_err();
    assert!(error.what().contains("3 of 5") && error.what().contains("member 1: refusal: refused"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn burst_smaller_than_asked_for_is_not_run() {
    let acted = Arc::new(AtomicU64::new(0));
    let act = {
        let acted = acted.clone();
        move |_: Member, ()| {
            acted.fetch_add(1, SeqCst);
            async { Ok::<(), String>(()) }
        }
    };
    let shy = async |index: usize| match index {
        3 => Err("no route".to_owned()),
        4 => std::future::pending().await,
        _ => Ok(()),
    };
    let error = Burst::of(6).limit(secs(1)).run(shy, act).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(
        error.kind() == ErrorKind::Connect && text.contains("2 of 6") && text.contains("member 3: no route"),
        "{text}"
    );
    assert_eq!(acted.load(SeqCst), 0);
    let nobody: CoreResult<BurstRun> = Burst::of(0).run(ready, async |_: Member, ()| Ok::<(), String>(())).await;
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn nobody_starts_before_everybody_is_ready() {
    let latest = Arc::new(AtomicU64::new(0));
    let slow = {
        let latest = latest.clone();
        move |index: usize| {
            let latest = latest.clone();
            async move {
                pause(millis(index as u64 * 10)).await;
                latest.fetch_add(1, SeqCst);
                Ok::<(), String>(())
            }
        }
    };
    let act = move |_: Member, ()| {
        let ready = latest.load(SeqCst);
        async move { if ready == 20 { Ok(()) } else { Err(format!("only {ready} were ready")) } }
    };
    let burst = Burst::of(20).run(slow, act).await.unwrap();
    burst.all_succeeded().unwrap();
    assert_eq!((burst.spread(), burst.times().longest()), (millis(0), millis(0)));
}
